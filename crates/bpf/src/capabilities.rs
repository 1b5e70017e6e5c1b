//! What this process may do.

use std::fs;

/// What the programs need, as `linux/capability.h` numbers them.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_BPF", 39)];

/// `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON` too.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;

/// The names of the capabilities that this process lacks.
pub(crate) fn missing() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    missing_in(&status)
}

/// Whether the verifier trusts the programs' bounds also under speculation.
pub(crate) fn has_perfmon() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).unwrap_or(0) & (1 << CAP_PERFMON | 1 << CAP_SYS_ADMIN) != 0
}

fn effective(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(effective.trim(), 16).ok()
}

fn missing_in(status: &str) -> Option<String> {
    let effective = effective(status)?;
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<_> = CAPABILITIES
        .into_iter()
        .filter(|&(name, bit)| !(has(bit) || name == "CAP_BPF" && has(CAP_SYS_ADMIN)))
        .map(|(name, _)| name)
        .collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::missing_in;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        assert_eq!(missing_in("CapEff:\t000001ffffffffff\n"), None);
        assert_eq!(
            missing_in("CapEff:\t0000000000201000\n"),
            None,
            "SYS_ADMIN stands for BPF"
        );
        assert_eq!(
            missing_in("CapEff:\t0000000000001000\n").as_deref(),
            Some("CAP_BPF")
        );
        assert_eq!(
            missing_in("CapEff:\t0\n").as_deref(),
            Some("CAP_NET_ADMIN and CAP_BPF")
        );
        assert_eq!(
            missing_in("CapEff:\tgarbage\n"),
            None,
            "unknown is not missing"
        );
    }
}

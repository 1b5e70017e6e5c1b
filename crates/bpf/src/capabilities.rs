//! What this thread may do.

use rustix::thread::{CapabilitySet, capabilities};

/// What the programs need.
const NEEDED: [(&str, CapabilitySet); 2] = [
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    // `CAP_SYS_ADMIN` stands for it.
    (
        "CAP_BPF",
        CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN),
    ),
];

/// The names of the capabilities that this thread lacks.
pub(crate) fn missing() -> Option<String> {
    missing_in(effective()?)
}

/// Whether the verifier trusts the programs' bounds also under speculation.
pub(crate) fn has_perfmon() -> bool {
    // One stands for the other.
    let perfmon = CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
    effective().is_some_and(|effective| effective.intersects(perfmon))
}

/// `None` where the kernel does not say.
fn effective() -> Option<CapabilitySet> {
    capabilities(None).ok().map(|sets| sets.effective)
}

fn missing_in(effective: CapabilitySet) -> Option<String> {
    let lacks = |(_, any): &(&str, CapabilitySet)| !effective.intersects(*any);
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(lacks)
        .map(|(name, _)| name)
        .collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_of_the_effective_set_is_named() {
        let net_admin = CapabilitySet::NET_ADMIN;
        assert_eq!(missing_in(CapabilitySet::all()), None);
        assert_eq!(
            missing_in(net_admin | CapabilitySet::SYS_ADMIN),
            None,
            "SYS_ADMIN stands for BPF"
        );
        assert_eq!(missing_in(net_admin).as_deref(), Some("CAP_BPF"));
        assert_eq!(
            missing_in(CapabilitySet::empty()).as_deref(),
            Some("CAP_NET_ADMIN and CAP_BPF")
        );
    }
}

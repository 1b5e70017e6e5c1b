//! `/proc/meminfo`.

use monitor_proto::v1;

/// Reads memory and swap; `None` where the kernel does not say how much there
/// is and how much of it is available (3.14 and later do).
#[must_use]
pub fn parse(text: &str) -> Option<v1::Memory> {
    let mut memory = v1::Memory::default();
    let (mut total, mut available) = (None, None);
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        let Some(bytes) = kib_bytes(rest) else {
            continue;
        };
        match name {
            "MemTotal" => total = Some(bytes),
            "MemAvailable" => available = Some(bytes),
            "MemFree" => memory.free_bytes = bytes,
            "Buffers" => memory.buffers_bytes = bytes,
            "Cached" => memory.cached_bytes = bytes,
            "SwapTotal" => memory.swap_total_bytes = bytes,
            "SwapFree" => {
                memory.swap_free_bytes = bytes;
                // The last of those that are read: some sixty lines follow.
                break;
            }
            _ => {}
        }
    }
    memory.total_bytes = total?;
    memory.available_bytes = available?;
    Some(memory)
}

/// Percent of memory that is not available; `None` where there is no memory.
#[must_use]
pub fn usage_percent(memory: &v1::Memory) -> Option<f64> {
    let total = memory.total_bytes as f64;
    let used = memory.total_bytes.saturating_sub(memory.available_bytes) as f64;
    (total > 0.0).then(|| 100.0 * used / total)
}

fn kib_bytes(field: &str) -> Option<u64> {
    let kib = field.trim().strip_suffix("kB")?.trim_end();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usage_is_the_share_that_is_not_available() {
        let text = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:  750 kB\n\
            Buffers: 1 kB\nCached: 2 kB\nSwapTotal: 20 kB\nSwapFree: 5 kB\nCached: 9 kB\n";
        let memory = parse(text).unwrap();
        assert_eq!(usage_percent(&memory), Some(25.0));
        assert_eq!(
            (memory.cached_bytes, memory.swap_free_bytes),
            (2 << 10, 5 << 10)
        );
    }

    #[test]
    fn without_a_total_nothing_was_measured() {
        assert_eq!(parse("MemAvailable: 1 kB\n"), None);
        assert_eq!(parse("MemTotal: 99999999999999999999 kB\n"), None);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "((MemTotal|MemAvailable|SwapFree):? {0,3}[0-9]{0,21} ?(kB)?\n){0,8}.{0,60}") {
            if let Some(usage) = parse(&text).as_ref().and_then(usage_percent) {
                prop_assert!((0.0..=100.0).contains(&usage));
            }
        }
    }
}

//! `/proc/net/dev`.

use monitor_proto::v1;

/// How many interfaces are read at the most: a host of containers has
/// thousands, and a report must stay small.
pub const INTERFACES_MAX: usize = 256;

/// Interface names are shorter than the kernel's `IFNAMSIZ`.
const NAME_BYTES_MAX: usize = 15;

/// Reads the counters of every interface since boot, ordered by name.
#[must_use]
pub fn parse(text: &str) -> Vec<v1::NetworkInterface> {
    let mut interfaces: Vec<_> = text
        .lines()
        .filter_map(interface)
        .take(INTERFACES_MAX)
        .collect();
    interfaces.sort_by(|a, b| a.device.cmp(&b.device));
    interfaces
}

fn interface(line: &str) -> Option<v1::NetworkInterface> {
    // Names may hold a colon (an alias), counters may not.
    let (name, counters) = line.rsplit_once(':')?;
    let name = name.trim();
    let mut n = [0u64; 16];
    let mut fields = counters.split_ascii_whitespace();
    for value in &mut n {
        *value = fields.next()?.parse().ok()?;
    }
    (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| v1::NetworkInterface {
        device: name.to_owned(),
        receive_bytes: n[0],
        receive_packets: n[1],
        receive_errors: n[2],
        receive_dropped: n[3],
        transmit_bytes: n[8],
        transmit_packets: n[9],
        transmit_errors: n[10],
        transmit_dropped: n[11],
        receive_bytes_total: Some(n[0]),
        transmit_bytes_total: Some(n[8]),
    })
}

/// What came on top per interface.  One that is new, or whose counters began
/// anew (it was made again under its old name), counts from nothing.
#[must_use]
pub fn since(
    earlier: &[v1::NetworkInterface],
    later: &[v1::NetworkInterface],
) -> Vec<v1::NetworkInterface> {
    let delta = |now: &v1::NetworkInterface| {
        let found = earlier.binary_search_by(|e| e.device.cmp(&now.device));
        let zero = v1::NetworkInterface::default();
        let mut before = found.map_or(&zero, |i| &earlier[i]);
        if now.receive_bytes < before.receive_bytes || now.transmit_bytes < before.transmit_bytes {
            before = &zero;
        }
        v1::NetworkInterface {
            device: now.device.clone(),
            receive_bytes: now.receive_bytes.saturating_sub(before.receive_bytes),
            transmit_bytes: now.transmit_bytes.saturating_sub(before.transmit_bytes),
            receive_packets: now.receive_packets.saturating_sub(before.receive_packets),
            transmit_packets: now.transmit_packets.saturating_sub(before.transmit_packets),
            receive_errors: now.receive_errors.saturating_sub(before.receive_errors),
            transmit_errors: now.transmit_errors.saturating_sub(before.transmit_errors),
            receive_dropped: now.receive_dropped.saturating_sub(before.receive_dropped),
            transmit_dropped: now.transmit_dropped.saturating_sub(before.transmit_dropped),
            receive_bytes_total: now.receive_bytes_total,
            transmit_bytes_total: now.transmit_bytes_total,
        }
    };
    later.iter().map(delta).collect()
}

/// Bytes received and sent between two readings, over all interfaces but
/// loopback that were there at both.
#[must_use]
pub fn bytes_between(
    earlier: &[v1::NetworkInterface],
    later: &[v1::NetworkInterface],
) -> (u64, u64) {
    let (mut received, mut sent) = (0u64, 0u64);
    for now in later.iter().filter(|i| i.device != "lo") {
        if let Ok(i) = earlier.binary_search_by(|e| e.device.cmp(&now.device)) {
            let before = &earlier[i];
            received += now.receive_bytes.saturating_sub(before.receive_bytes);
            sent += now.transmit_bytes.saturating_sub(before.transmit_bytes);
        }
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "Inter-|   Receive                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
        lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0\n  \
        eth0: 344067239   10987    1    2    0     0          0         0   896249    8307    3    4    0     0       0          0\n";

    #[test]
    fn every_interface_is_read_and_loopback_is_no_traffic() {
        let now = parse(TEXT);
        let names: Vec<_> = now.iter().map(|i| i.device.as_str()).collect();
        assert_eq!(names, ["eth0", "lo"]);
        assert_eq!(
            (now[0].transmit_bytes, now[0].transmit_dropped),
            (896_249, 4)
        );
        let mut later = now.clone();
        later[0].receive_bytes += 7;
        later[1].receive_bytes += 1_000;
        assert_eq!(bytes_between(&now, &later), (7, 0));
        assert_eq!(bytes_between(&[], &later), (0, 0), "no spike at the start");
    }

    #[test]
    fn counters_that_began_anew_count_from_nothing() {
        let before = parse(TEXT);
        let mut after = before.clone();
        after[0].receive_bytes = 5;
        after[0].transmit_bytes = 6;
        let delta = since(&before, &after);
        assert_eq!((delta[0].receive_bytes, delta[0].transmit_bytes), (5, 6));
        after[1].receive_bytes_total = Some(9_000);
        let delta = since(&before, &after);
        assert_eq!(
            delta[1].receive_bytes_total,
            Some(9_000),
            "totals stay totals"
        );
        assert_eq!(delta[1].receive_bytes, 0);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "([a-z:]{0,18}:( [0-9]{0,21}){14,17}\n){0,9}") {
            let interfaces = parse(&text);
            prop_assert_eq!(since(&[], &interfaces).len(), interfaces.len());
        }
    }
}

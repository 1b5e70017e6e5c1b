//! The bytes of a segment: a header, then records, each with its checksum.
//!
//! All integers are little-endian.
//!
//! ```text
//! header: magic[8] epoch:u64 first_sequence:u64 crc:u32
//! record: length:u32 crc:u32 sequence:u64 report_length:u32 report baseline
//! ```
//!
//! `length` counts what follows `sequence`; the checksum covers all but itself.
//!
//! Architecture invariant: pure functions over bytes; no file here.

use monitor_proto::ReportKey;

/// The start of every segment; its last byte is the format's version.
const MAGIC: [u8; 8] = *b"SMSPOOL\x01";

/// The length of a segment's header.
pub const HEADER_BYTES: u64 = 28;

/// The length of a record without its report and baseline.
pub const PREFIX_BYTES: usize = 20;

/// The most that a report and its baseline may take together.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// The header of a segment whose first record has this key.
#[must_use]
pub fn encode_header(first: ReportKey) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(first.epoch.to_le_bytes());
    bytes.extend(first.sequence.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The key of a segment's first record; `None` where it is no segment.
#[must_use]
pub fn decode_header(bytes: &[u8]) -> Option<ReportKey> {
    let (body, crc) = bytes.split_at_checked(HEADER_BYTES as usize - 4)?;
    let valid = body.starts_with(&MAGIC) && crc == crc32fast::hash(body).to_le_bytes();
    valid.then_some(ReportKey {
        epoch: u64_at(body, 8)?,
        sequence: u64_at(body, 16)?,
    })
}

/// One record; `None` where it would be larger than [`PAYLOAD_BYTES_MAX`].
#[must_use]
pub fn encode(sequence: u64, report: &[u8], baseline: &[u8]) -> Option<Vec<u8>> {
    let payload = 4 + report.len() + baseline.len();
    if payload > PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(PREFIX_BYTES - 4 + payload);
    bytes.extend(u32::try_from(payload).ok()?.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(u32::try_from(report.len()).ok()?.to_le_bytes());
    bytes.extend(report);
    bytes.extend(baseline);
    let crc = checksum(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

/// The whole length of the record that begins with these bytes; `None` where
/// they are too few or cannot begin one.
#[must_use]
pub fn whole_length(prefix: &[u8]) -> Option<usize> {
    let payload = u32_at(prefix, 0)? as usize;
    ((4..=PAYLOAD_BYTES_MAX).contains(&payload)).then_some(16 + payload)
}

/// A record's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The report's sequence.
    pub sequence: u64,
    /// The report, encoded.
    pub report: &'a [u8],
    /// What the next window begins from, encoded.
    pub baseline: &'a [u8],
}

/// A record in the place of a damaged one of this length: it has no report, and no
/// baseline that means anything.
#[must_use]
pub fn encode_blank(sequence: u64, length: usize) -> Option<Vec<u8>> {
    encode(sequence, &[], &vec![0; length.checked_sub(PREFIX_BYTES)?])
}

/// Reads one whole record; `None` where anything of it is damaged.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let whole = whole_length(bytes)? == bytes.len();
    if !whole || u32_at(bytes, 4)? != checksum(bytes) {
        return None;
    }
    let report_length = u32_at(bytes, 16)? as usize;
    let (report, baseline) = bytes.get(PREFIX_BYTES..)?.split_at_checked(report_length)?;
    Some(Record {
        sequence: u64_at(bytes, 8)?,
        report,
        baseline,
    })
}

fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// Reports that were lost, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Dropped for want of room, unacknowledged.
    pub dropped: u64,
    /// Found damaged or missing before they were acknowledged.
    pub damaged: u64,
    /// Refused by the receiver for good.
    pub rejected: u64,
    /// Given up, as the collector keeps another report of their number.
    pub conflicting: u64,
}

impl Losses {
    /// By the names that reports have for the reasons.
    #[must_use]
    pub fn by_reason(self) -> [(&'static str, u64); 4] {
        [
            ("reports_dropped", self.dropped),
            ("reports_damaged", self.damaged),
            ("reports_rejected", self.rejected),
            ("reports_conflicting", self.conflicting),
        ]
    }

    /// The same from such names; what is not named is 0.
    #[must_use]
    pub fn from_reasons(lost: impl Fn(&str) -> Option<u64>) -> Self {
        Self::from_numbers(
            Self::default()
                .by_reason()
                .map(|(reason, _)| lost(reason).unwrap_or(0)),
        )
    }

    /// The larger of both, reason by reason.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        let (mut numbers, other) = (self.numbers(), other.numbers());
        for (n, other) in numbers.iter_mut().zip(other) {
            *n = other.max(*n);
        }
        Self::from_numbers(numbers)
    }

    fn numbers(self) -> [u64; 4] {
        self.by_reason().map(|(_, n)| n)
    }

    fn from_numbers([dropped, damaged, rejected, conflicting]: [u64; 4]) -> Self {
        Self {
            dropped,
            damaged,
            rejected,
            conflicting,
        }
    }

    /// What a `state` of before does not have is 0: its agent kept no losses.
    fn at(body: &[u8], at: usize) -> Self {
        Self::from_numbers([0, 8, 16, 24].map(|offset| u64_at(body, at + offset).unwrap_or(0)))
    }
}

/// What the file `state` holds: what cannot be read from the segments when they
/// are damaged or gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The newest epoch that was ever begun.
    pub epoch: u64,
    /// The last report that was acknowledged, or given up for want of room.
    pub acked: ReportKey,
    /// The last report that was made durable; `None` where the file is of an agent
    /// that did not write it.
    pub newest: Option<ReportKey>,
    /// How many reports waited; `None` as above.
    pub pending: Option<u64>,
    /// What was lost since the spool was made.
    pub losses: Losses,
    /// How much of it the newest report told.
    pub told: Losses,
    /// Whether something was found damaged, or missing, that no report has told.
    pub untold_damage: bool,
}

/// The length of the file `state`.
pub const STATE_BYTES: usize = 124;

/// Its lengths before it had untold damage, losses, and the newest report.
const EARLIER_STATE_BYTES: [usize; 3] = [116, 44, 28];

/// The bytes of the file `state`.
#[must_use]
pub fn encode_state(state: State) -> Vec<u8> {
    let (acked, newest) = (state.acked, state.newest.unwrap_or_default());
    let numbers = [
        state.epoch,
        acked.epoch,
        acked.sequence,
        newest.epoch,
        newest.sequence,
        state.pending.unwrap_or_default(),
    ];
    let losses = [state.losses, state.told].map(Losses::numbers);
    let numbers = numbers.into_iter().chain(losses.into_iter().flatten());
    let numbers = numbers.chain([u64::from(state.untold_damage)]);
    let mut bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Reads the file `state`; `None` where anything of it is damaged.  An agent that was
/// rolled back writes its own shorter form over the longer one, and leaves the length.
#[must_use]
pub fn decode_state(bytes: &[u8]) -> Option<State> {
    let lengths = [STATE_BYTES].into_iter().chain(EARLIER_STATE_BYTES);
    let mut shorter = lengths.skip_while(|length| *length != bytes.len());
    shorter.find_map(|length| decode_state_of(bytes.get(..length)?))
}

fn decode_state_of(bytes: &[u8]) -> Option<State> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let key = |at| {
        Some(ReportKey {
            epoch: u64_at(body, at)?,
            sequence: u64_at(body, at + 8)?,
        })
    };
    (crc == crc32fast::hash(body).to_le_bytes()).then_some(State {
        epoch: u64_at(body, 0)?,
        acked: key(8)?,
        newest: key(24),
        pending: u64_at(body, 40),
        losses: Losses::at(body, 48),
        told: Losses::at(body, 80),
        untold_damage: u64_at(body, 112).is_some_and(|n| n != 0),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: ReportKey = ReportKey {
        epoch: 1_763_860_000_123,
        sequence: 7,
    };

    #[test]
    fn headers_and_acks_are_read_back_and_checked() {
        let mut header = encode_header(KEY);
        assert_eq!(header.len() as u64, HEADER_BYTES);
        assert_eq!(decode_header(&header), Some(KEY));
        header[9] ^= 1;
        assert_eq!(decode_header(&header), None);
        let state = State {
            epoch: KEY.epoch + 1,
            acked: KEY,
            newest: Some(KEY),
            pending: Some(5),
            losses: Losses::from_numbers([4, 3, 2, 1]),
            told: Losses::from_numbers([3, 3, 2, 0]),
            untold_damage: true,
        };
        let bytes = encode_state(state);
        assert_eq!(bytes.len(), STATE_BYTES);
        assert_eq!(decode_state(&bytes), Some(state));
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_state(&flipped), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(decode_state(&bytes[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn the_states_of_agents_before_this_one_are_read() {
        let mut state = State {
            epoch: KEY.epoch + 1,
            acked: KEY,
            ..State::default()
        };
        let mut numbers = vec![KEY.epoch + 1, KEY.epoch, KEY.sequence];
        for fields in 0..3 {
            if fields == 1 {
                state.newest = Some(KEY);
                numbers.extend([KEY.epoch, KEY.sequence]);
            } else if fields == 2 {
                state.pending = Some(7);
                state.losses = Losses::from_numbers([8, 7, 6, 5]);
                numbers.extend([7, 8, 7, 6, 5, 0, 0, 0, 0]);
            }
            let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            assert_eq!(decode_state(&bytes), Some(state));
            // Written over what a later agent left.
            let mut over = encode_state(State {
                pending: Some(5),
                losses: Losses::from_numbers([4, 3, 2, 1]),
                untold_damage: true,
                ..State::default()
            });
            over[..bytes.len()].copy_from_slice(&bytes);
            assert_eq!(decode_state(&over), Some(state));
            over[4] ^= 1;
            assert_eq!(decode_state(&over), None);
        }
    }

    #[test]
    fn what_is_too_large_is_no_record() {
        assert_eq!(encode(1, &vec![0; PAYLOAD_BYTES_MAX], b""), None);
        assert_eq!(whole_length(&u32::MAX.to_le_bytes()), None);
        assert_eq!(whole_length(&3u32.to_le_bytes()), None);
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(sequence: u64, report: Vec<u8>, baseline: Vec<u8>) {
            let bytes = encode(sequence, &report, &baseline).unwrap();
            prop_assert_eq!(whole_length(&bytes), Some(bytes.len()));
            let record = Record { sequence, report: &report, baseline: &baseline };
            prop_assert_eq!(decode(&bytes), Some(record));
        }

        #[test]
        fn a_record_with_a_changed_bit_is_none(report in prop::collection::vec(any::<u8>(), 0..40), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encode(1, &report, b"baseline").unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes), None);
            prop_assert_eq!(decode_header(&bytes), None);
            prop_assert_eq!(decode_state(&bytes), None);
        }
    }
}

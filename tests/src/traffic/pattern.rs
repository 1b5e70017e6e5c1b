//! The bytes of every body: position `i` holds `i % 251`.

/// A prime, so that no buffer size hides a shift.
const PERIOD: usize = 251;

/// A block that holds the pattern from any phase for at least `BLOCK` bytes.
const BLOCK: usize = 64 * 1024;

static PATTERN: [u8; BLOCK + PERIOD] = {
    let mut bytes = [0; BLOCK + PERIOD];
    let mut i = 0;
    while i < bytes.len() {
        // Below 251, so it fits.
        bytes[i] = (i % PERIOD) as u8;
        i += 1;
    }
    bytes
};

/// Bytes of a body from `position` on: as many as are wanted, or a block.
pub(super) fn from(position: u64, wanted: u64) -> &'static [u8] {
    let phase = phase(position);
    let length = usize::try_from(wanted).unwrap_or(BLOCK).min(BLOCK);
    &PATTERN[phase..phase + length]
}

/// Whether these are the bytes of a body from `position` on.
pub(super) fn matches(position: u64, bytes: &[u8]) -> bool {
    let mut at = position;
    bytes.chunks(BLOCK).all(|chunk| {
        let expected = from(at, chunk.len() as u64);
        at += chunk.len() as u64;
        chunk == expected
    })
}

fn phase(position: u64) -> usize {
    // A remainder below 251 fits.
    (position % PERIOD as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_from_every_position() {
        let whole: Vec<u8> = (0..200_000_u64).map(|i| (i % 251) as u8).collect();
        for position in [0, 1, 250, 251, 65_535, 65_536, 100_000] {
            let bytes = from(position, 70_000);
            let start = usize::try_from(position).unwrap();
            assert_eq!(bytes, &whole[start..start + bytes.len()]);
            assert!(matches(position, &whole[start..]));
        }
    }

    #[test]
    fn one_wrong_byte_and_a_shift_are_found() {
        let mut bytes = from(0, 60_000).to_vec();
        assert!(matches(0, &bytes));
        assert!(!matches(1, &bytes));
        bytes[59_999] ^= 1;
        assert!(!matches(0, &bytes));
    }
}

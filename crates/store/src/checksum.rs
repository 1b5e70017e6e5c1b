//! Checksums of the rows beside reports' bodies, which have their own (`codec`).
//!
//! A checksum covers the row's key as well as its values, so that a row which is
//! found under another key is damaged too.

/// CRC-32 of a row's values, one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Checksum(crc32fast::Hasher);

impl Checksum {
    pub(super) fn number(mut self, value: i64) -> Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    /// With its length: what is in one value cannot be taken for another's.
    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
        self
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Bytes of a checksum in front of a column's content.
const HEAD_BYTES: usize = size_of::<u32>();

/// A column's content behind its checksum.
pub(super) fn seal(place: &Checksum, content: &[u8]) -> Vec<u8> {
    let checksum = place.clone().bytes(content).finish();
    [&checksum.to_le_bytes()[..], content].concat()
}

/// The content, where neither it nor its place was changed.
pub(super) fn unseal<'a>(place: &Checksum, column: &'a [u8]) -> Option<&'a [u8]> {
    let (head, content) = column.split_first_chunk::<HEAD_BYTES>()?;
    let checksum = place.clone().bytes(content).finish();
    (u32::from_le_bytes(*head) == checksum).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_and_no_other_place_gives_content() {
        let place = || Checksum::default().number(60).text("10.0.0.1:80");
        let sealed = seal(&place(), b"figures");
        assert_eq!(unseal(&place(), &sealed), Some(&b"figures"[..]));
        assert_eq!(unseal(&place().number(0), &sealed), None);
        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&place(), &flipped), None, "{bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(unseal(&place(), &sealed[..length]), None, "{length}");
        }
    }
}

//! Messages and attributes of netlink, as bytes.
//!
//! Architecture invariant: pure; every length that comes from outside is checked
//! against what is there, so that hostile bytes give less, never a panic.

/// The header of a message.
pub(crate) const HEADER_BYTES: usize = 16;

/// `NLMSG_ERROR`
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`
pub(crate) const DONE: u16 = 3;

const ALIGN: usize = 4;

/// One message: the fields of its header, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    /// The number of the request that it answers.
    pub(crate) sequence: u32,
    /// The socket that asked.
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Takes a prefix of a given length and what follows it, aligned.
fn split<'a>(bytes: &mut &'a [u8], len: usize, header: usize) -> Option<&'a [u8]> {
    if len < header || len > bytes.len() {
        *bytes = &[];
        return None;
    }
    let body = &bytes[header..len];
    *bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    Some(body)
}

/// The messages of one datagram; it ends where one does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let (kind, sequence, port) = (u16_at(bytes, 4)?, u32_at(bytes, 8)?, u32_at(bytes, 12)?);
        Some(Message {
            kind,
            sequence,
            port,
            body: split(&mut bytes, len, HEADER_BYTES)?,
        })
    })
}

/// The attributes in a body: type, without its flags, and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        Some((kind, split(&mut bytes, len, 4)?))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// An attribute as it is sent.
pub(crate) fn encode_attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(ALIGN));
    // Requests are far below 64 KiB.
    bytes.extend_from_slice(&(len as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(len.next_multiple_of(ALIGN), 0);
    bytes
}

/// A message as it is sent.
pub(crate) fn encode_message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let mut body = encode_attribute(7, b"abc");
        body.extend(encode_attribute(
            9 | 1 << 15,
            &encode_attribute(1, b"nested"),
        ));
        let mut bytes = encode_message(20, 1, 3, &body);
        bytes.extend(encode_message(DONE, 0, 3, &[]));
        let found: Vec<_> = messages(&bytes).collect();
        assert_eq!(found.iter().map(|m| m.kind).collect::<Vec<_>>(), [20, DONE]);
        assert!(found.iter().all(|m| (m.sequence, m.port) == (3, 0)));
        assert_eq!(attribute(found[0].body, 7), Some(b"abc".as_slice()));
        let nested = attribute(found[0].body, 9).unwrap();
        assert_eq!(attribute(nested, 1), Some(b"nested".as_slice()));
        assert_eq!(attribute(nested, 2), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = messages(&bytes).map(|m| m.body.len() + HEADER_BYTES).sum();
            prop_assert!(total <= bytes.len());
            let total: usize = attributes(&bytes).map(|(_, v)| v.len() + 4).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}

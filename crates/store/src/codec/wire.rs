//! Messages compared without knowing their fields.
//!
//! What a version of the contract does not know is missing from what it kept:
//! a field that only one of two messages has does not tell them apart.

use std::collections::BTreeMap;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Reports nest a few levels; hostile bytes may seem to nest without end.
const DEPTH_MAX: u32 = 16;

/// A value, by its kind and bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Value<'a> {
    delimited: bool,
    bytes: &'a [u8],
}

type Fields<'a> = BTreeMap<u32, Vec<Value<'a>>>;

/// Whether `more` has every field of `less`, as often and with the same values.
pub(super) fn says_no_less(more: &[u8], less: &[u8]) -> bool {
    within(more, less, DEPTH_MAX)
}

fn within(more: &[u8], less: &[u8], depth: u32) -> bool {
    if more == less {
        return true;
    }
    let (Some(more), Some(less), Some(depth)) = (fields(more), fields(less), depth.checked_sub(1))
    else {
        return false;
    };
    less.iter().all(|(number, values)| {
        more.get(number).is_some_and(|others| {
            others.len() == values.len()
                && others.iter().zip(values).all(|(other, value)| {
                    other == value
                        || (other.delimited
                            && value.delimited
                            && within(other.bytes, value.bytes, depth))
                })
        })
    })
}

/// The fields of a message; `None` where the bytes are none.
fn fields(mut rest: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Fields::new();
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).ok()?;
        let delimited = kind == WireType::LengthDelimited;
        let bytes = if delimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            rest = after;
            bytes
        } else {
            let start = rest;
            skip_field(kind, number, &mut rest, DecodeContext::default()).ok()?;
            &start[..start.len() - rest.len()]
        };
        let value = Value { delimited, bytes };
        fields.entry(number).or_default().push(value);
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_more_are_ignored_and_others_count() {
        // Field 1 is a number, field 2 a message with field 1.
        let less = [0x08, 5, 0x12, 2, 0x08, 7];
        let more = [0x08, 5, 0x12, 4, 0x08, 7, 0x10, 9, 0x18, 1];
        assert!(says_no_less(&more, &less));
        assert!(!says_no_less(&less, &more));
        let other = [0x08, 5, 0x12, 2, 0x08, 8];
        assert!(!says_no_less(&more, &other));
        let twice = [0x08, 5, 0x12, 2, 0x08, 7, 0x12, 2, 0x08, 7];
        assert!(!says_no_less(&twice, &less));
    }

    #[test]
    fn bytes_that_are_no_message_are_only_like_themselves() {
        assert!(says_no_less(b"\xff", b"\xff"));
        assert!(!says_no_less(b"\xff", b"\xfe"));
        let deep: Vec<u8> = (0..100).fold(vec![0x08, 1], |inner, _| {
            let mut outer = vec![0x0a, u8::try_from(inner.len()).unwrap_or(0x7f)];
            outer.extend(inner);
            outer
        });
        assert!(!says_no_less(&deep, &[0x0a, 0]));
    }
}

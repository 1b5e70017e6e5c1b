//! The form in which a report is kept: one byte that names the form, two that
//! name the contract it was read by, then a zstd frame of the encoded message,
//! with the checksum of its content (RFC 8878, 3.1.1): without one, every second
//! flipped bit gives other figures and no error.  Bodies of old have none, and
//! are read all the same.
//!
//! A report's body is the canonical encoding of the fields this version knows, so that
//! equal reports have equal bodies and a duplicate can be told from a conflict: byte for
//! byte what an agent of this version sent, and another encoding of the same report,
//! such as one with its map entries in another order, gives the same body.  A collector
//! of another version knew other fields of the very same report: then the two are the
//! same where neither contradicts the other.

use std::io;

mod cost;
mod wire;

use budget::{Exhausted, Held};
pub use cost::decoded_bytes;
use monitor_proto::{REPORT_BYTES_MAX, v1};
use prost::Message;

/// zstd of a `speedmimi.v1.Report`, without the contract: a form of old.
const FORM_ZSTD_V1: u8 = 1;
/// The contract's mark, and zstd of a `speedmimi.v1.Report`.
const FORM_MARKED_ZSTD_V1: u8 = 2;
/// The form and the mark.
const HEAD_BYTES: usize = 3;
/// Higher levels gain a few percent of size for several times the work.
const ZSTD_LEVEL: i32 = 3;
/// A canonical encoding is no larger than what was received, but for map
/// entries whose default key or value was left out.
const DECODED_BYTES_MAX: usize = 2 * REPORT_BYTES_MAX;

/// Tells this version's contract from others': every change of the file gives
/// another one, also where no field is added, which costs only exactness when
/// reports are replayed over an upgrade.
const MARK: [u8; 2] = mark(include_bytes!(
    "../../../monitor-proto/proto/speedmimi/v1/report.proto"
));

/// FNV-1a, folded.
const fn mark(text: &[u8]) -> [u8; 2] {
    let mut hash = 0x811c_9dc5_u32;
    let mut i = 0;
    while i < text.len() {
        hash = (hash ^ text[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    let [a, b, c, d] = hash.to_be_bytes();
    [a ^ c, b ^ d]
}

/// Why a kept body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("unknown body format {0:?}: a newer collector wrote it")]
    UnknownForm(Option<u8>),
    #[error("cannot decompress the body")]
    Decompress(#[source] io::Error),
    #[error("cannot decode the body")]
    Decode(#[from] prost::DecodeError),
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// The body of a report.
pub fn encode(report: &v1::Report) -> io::Result<Vec<u8>> {
    let plain = report.encode_to_vec();
    let mut body = vec![0; HEAD_BYTES + zstd::zstd_safe::compress_bound(plain.len())];
    body[..HEAD_BYTES].copy_from_slice(&[FORM_MARKED_ZSTD_V1, MARK[0], MARK[1]]);
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    compressor.include_checksum(true)?;
    let n = compressor.compress_to_buffer(&plain, &mut body[HEAD_BYTES..])?;
    body.truncate(HEAD_BYTES + n);
    body.shrink_to_fit();
    Ok(body)
}

/// The contract's mark, where there is one, and the frame.
fn parts(body: &[u8]) -> Result<(Option<[u8; 2]>, &[u8]), CodecError> {
    match body {
        [FORM_ZSTD_V1, frame @ ..] => Ok((None, frame)),
        [FORM_MARKED_ZSTD_V1, a, b, frame @ ..] => Ok((Some([*a, *b]), frame)),
        _ => Err(CodecError::UnknownForm(body.first().copied())),
    }
}

/// The encoded message in a body.
pub fn decompress(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let (_, frame) = parts(body)?;
    zstd::bulk::decompress(frame, DECODED_BYTES_MAX).map_err(CodecError::Decompress)
}

/// The report in a body, where it finds room.
pub fn decode_in(body: &[u8], room: &mut Held) -> Result<v1::Report, CodecError> {
    decode_where(body, |bytes| room.grow(bytes))
}

/// The report in a body, where so many bytes fit.
pub fn decode_where(
    body: &[u8],
    fit: impl FnOnce(u64) -> Result<(), Exhausted>,
) -> Result<v1::Report, CodecError> {
    let message = decompress(body)?;
    fit(decoded_bytes(&message).unwrap_or(0))?;
    Ok(v1::Report::decode(message.as_slice())?)
}

/// The report in a body.
pub fn decode(body: &[u8]) -> Result<v1::Report, CodecError> {
    Ok(v1::Report::decode(decompress(body)?.as_slice())?)
}

/// Whether two bodies hold the same report.  Another version of zstd may have
/// compressed the same message differently, and another version of the
/// contract known more or fewer of its fields.
pub fn same_report(a: &[u8], b: &[u8]) -> Result<bool, CodecError> {
    if a == b {
        return Ok(true);
    }
    let (of_a, _) = parts(a)?;
    let (of_b, _) = parts(b)?;
    let (a, b) = (decompress(a)?, decompress(b)?);
    Ok(a == b || (of_a != of_b && (wire::says_no_less(&a, &b) || wire::says_no_less(&b, &a))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sequence: u64) -> v1::Report {
        v1::Report {
            sequence,
            incomplete_reasons: vec!["the same words ".repeat(40)],
            ..Default::default()
        }
    }

    #[test]
    fn a_body_gives_its_report_back_and_is_small() {
        let body = encode(&report(7)).unwrap();
        assert_eq!(decode(&body).unwrap(), report(7));
        assert!(body.len() < report(7).encoded_len());
    }

    #[test]
    fn a_body_is_what_an_agent_sent_but_for_order_and_what_nobody_knows() {
        let sent = |message: &[u8]| encode(&v1::Report::decode(message).unwrap()).unwrap();
        let report = |losses: &[(&str, u64)]| v1::Report {
            losses: losses
                .iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect(),
            ..report(7)
        };
        let entries = |message: &mut Vec<u8>, losses: &[(&str, u64)]| {
            for loss in losses {
                let of_one = v1::Report {
                    losses: report(&[*loss]).losses,
                    ..Default::default()
                };
                message.extend(of_one.encode_to_vec());
            }
        };
        let losses = [("dropped", 1), ("ring_full", 4)];
        let message = report(&losses).encode_to_vec();
        let body = sent(&message);
        assert_eq!(decompress(&body).unwrap(), message);
        // As long, with its map entries in another order.
        let mut other = report(&[]).encode_to_vec();
        entries(&mut other, &[losses[1], losses[0]]);
        assert_eq!(other.len(), message.len());
        assert_ne!(other, message);
        assert_eq!(sent(&other), body);
        // Field 1,000 of a later contract.
        let later = [&message[..], &[0xc0, 0x3e, 1]].concat();
        assert_eq!(sent(&later), body);
    }

    fn body_of(head: &[u8], message: &[u8]) -> Vec<u8> {
        let frame = zstd::bulk::compress(message, 19).unwrap();
        [head, &frame].concat()
    }

    /// As a collector kept it that did not know `dropped` yet.
    fn older(dropped: impl FnOnce(&mut v1::Report)) -> Vec<u8> {
        let mut report = full();
        dropped(&mut report);
        body_of(&[FORM_ZSTD_V1], &report.encode_to_vec())
    }

    fn full() -> v1::Report {
        let endpoint = |address: &str| v1::Endpoint {
            address: address.to_owned(),
            name: "shop".to_owned(),
            connections_active: 3,
            ..Default::default()
        };
        v1::Report {
            endpoints: vec![endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")],
            losses: [("ring_full".to_owned(), 4)].into(),
            ..report(7)
        }
    }

    #[test]
    fn a_replay_over_an_upgrade_is_no_conflict() {
        let body = encode(&full()).unwrap();
        for kept in [
            older(|_| {}),
            older(|r| r.endpoints.iter_mut().for_each(|e| e.name.clear())),
            older(|r| r.losses.clear()),
        ] {
            assert!(same_report(&kept, &body).unwrap());
            assert!(same_report(&body, &kept).unwrap());
        }
        for other in [
            older(|r| r.endpoints[1].connections_active = 4),
            older(|r| drop(r.endpoints.pop())),
            older(|r| r.sequence = 8),
        ] {
            assert!(!same_report(&other, &body).unwrap());
        }
        // Within one version nothing may be missing.
        let mut less = full();
        less.losses.clear();
        assert!(!same_report(&encode(&less).unwrap(), &body).unwrap());
    }

    #[test]
    fn a_body_compressed_otherwise_is_the_same_report() {
        let body = encode(&report(7)).unwrap();
        let other = body_of(
            &[FORM_MARKED_ZSTD_V1, MARK[0], MARK[1]],
            &report(7).encode_to_vec(),
        );
        assert!(same_report(&body, &other).unwrap());
        assert!(!same_report(&body, &encode(&report(8)).unwrap()).unwrap());
    }

    #[test]
    fn no_flipped_bit_gives_other_figures() {
        let body = encode(&full()).unwrap();
        for bit in 0..8 * body.len() {
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Of the contract's mark and of the frame's unused bit nothing depends.
            if let Ok(report) = decode(&flipped) {
                assert_eq!(report, full(), "bit {bit}");
            }
        }
    }

    #[test]
    fn hostile_bodies_are_errors() {
        assert!(matches!(decode(&[]), Err(CodecError::UnknownForm(None))));
        assert!(matches!(
            decode(&[9, 1]),
            Err(CodecError::UnknownForm(Some(9)))
        ));
        assert!(matches!(decode(&[1, 2, 3]), Err(CodecError::Decompress(_))));
        let mut bomb = vec![FORM_ZSTD_V1];
        bomb.extend(zstd::bulk::compress(&vec![0; DECODED_BYTES_MAX + 1], 3).unwrap());
        assert!(matches!(decode(&bomb), Err(CodecError::Decompress(_))));
    }
}

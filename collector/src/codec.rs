//! The form in which a report is kept: one byte that names the form, then a
//! zstd frame of the encoded message.
//!
//! A report's body is the canonical encoding of the fields this version knows,
//! so that equal reports have equal bodies and a duplicate can be told from a
//! conflict.

use std::io;

use monitor_proto::{REPORT_BYTES_MAX, v1};
use prost::Message;

/// zstd of a `speedmimi.v1.Report`.
const FORM_ZSTD_V1: u8 = 1;
/// Higher levels gain a few percent of size for several times the work.
const ZSTD_LEVEL: i32 = 3;
/// A canonical encoding is no larger than what was received, but for map
/// entries whose default key or value was left out.
const DECODED_BYTES_MAX: usize = 2 * REPORT_BYTES_MAX;

/// Why a kept body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the body has the unknown form {0:?}: a newer collector wrote it")]
    UnknownForm(Option<u8>),
    #[error("cannot decompress the body")]
    Decompress(#[source] io::Error),
    #[error("cannot decode the body")]
    Decode(#[from] prost::DecodeError),
}

/// The body of a report.
pub(crate) fn encode(report: &v1::Report) -> io::Result<Vec<u8>> {
    let plain = report.encode_to_vec();
    let mut body = vec![0; 1 + zstd::zstd_safe::compress_bound(plain.len())];
    body[0] = FORM_ZSTD_V1;
    let n = zstd::bulk::compress_to_buffer(&plain, &mut body[1..], ZSTD_LEVEL)?;
    body.truncate(1 + n);
    body.shrink_to_fit();
    Ok(body)
}

/// The encoded message in a body.
fn decompress(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let (form, frame) = body.split_first().ok_or(CodecError::UnknownForm(None))?;
    if *form != FORM_ZSTD_V1 {
        return Err(CodecError::UnknownForm(Some(*form)));
    }
    zstd::bulk::decompress(frame, DECODED_BYTES_MAX).map_err(CodecError::Decompress)
}

/// The report in a body.
pub(crate) fn decode(body: &[u8]) -> Result<v1::Report, CodecError> {
    Ok(v1::Report::decode(decompress(body)?.as_slice())?)
}

/// Whether two bodies hold the same report.  Another version of zstd may have
/// compressed the same message differently.
pub(crate) fn same_report(a: &[u8], b: &[u8]) -> Result<bool, CodecError> {
    Ok(a == b || decompress(a)? == decompress(b)?)
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
    fn a_body_compressed_otherwise_is_the_same_report() {
        let body = encode(&report(7)).unwrap();
        let mut other = vec![FORM_ZSTD_V1];
        other.extend(zstd::bulk::compress(&report(7).encode_to_vec(), 19).unwrap());
        assert!(same_report(&body, &other).unwrap());
        assert!(!same_report(&body, &encode(&report(8)).unwrap()).unwrap());
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

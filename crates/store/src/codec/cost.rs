//! What a report takes once it is decoded, told from its bytes.
//!
//! Two bytes on the wire may be an endpoint of a kilobyte in memory: this walks
//! over the message without keeping anything, before anything is kept of it.

use std::mem::size_of;

use monitor_proto::v1;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A list that grows has up to twice the room that it needs.
const GROWTH: u64 = 2;
/// Of the allocator, for each piece.
const PIECE_BYTES: u64 = 16;
/// The first node of a map, which has room for eleven entries.
const MAP_NODE_BYTES: u64 = 400;
/// Of each entry beside its key: nodes are half full at the least.
const MAP_ENTRY_BYTES: u64 = 64;
/// The same where values are texts.
const TEXT_MAP_NODE_BYTES: u64 = 560;
const TEXT_MAP_ENTRY_BYTES: u64 = 96;

type Fields = &'static [(u32, Field)];

/// What becomes of a field; others take nothing beside their message.
#[derive(Clone, Copy)]
enum Field {
    Text,
    Texts,
    /// It may come several times, and is one message all the same.
    Message(Fields),
    /// Of so many bytes each.
    Messages(Fields, usize),
    Map,
    /// Its values are texts.
    TextMap,
    Varints,
    Doubles,
}

use Field::{Doubles, Map, Message, Messages, Text, TextMap, Texts, Varints};

const REPORT: Fields = &[
    (1, Message(HOST)),
    (2, Message(&[(1, Text)])),
    (8, Texts),
    (9, Message(HOST_METRICS)),
    (10, Messages(ENDPOINT, size_of::<v1::Endpoint>())),
    (11, Messages(SOCKET, size_of::<v1::SocketSummary>())),
    (12, Map),
    (13, Map),
    (15, Messages(TARGET, size_of::<v1::Target>())),
    (16, Messages(&[], size_of::<v1::NetworkNamespace>())),
    (19, Texts),
    (21, Message(CLIENTS)),
];
const HOST: Fields = &[(1, Text), (2, Text), (3, Text), (4, Text), (6, TextMap)];
const CLIENTS: Fields = &[(3, Messages(CLIENT, size_of::<v1::Client>()))];
const CLIENT: Fields = &[(1, Text)];
const HOST_METRICS: Fields = &[
    (10, Doubles),
    (12, Messages(NAMED, size_of::<v1::Disk>())),
    (13, Messages(NAMED, size_of::<v1::NetworkInterface>())),
    (14, Messages(NAMED, size_of::<v1::Pressure>())),
];
const NAMED: Fields = &[(1, Text)];
const ENDPOINT: Fields = &[
    (2, Text),
    (3, Text),
    (4, Text),
    (5, Text),
    (6, Text),
    (8, Message(COUNTERS)),
    (9, Message(COUNTERS)),
    (13, Message(&[(1, Text)])),
];
const COUNTERS: Fields = &[(15, Message(HISTOGRAM)), (16, Message(HTTP))];
const HTTP: Fields = &[(2, Map), (3, Map), (6, Message(HISTOGRAM))];
const HISTOGRAM: Fields = &[(5, Varints)];
const SOCKET: Fields = &[(3, Text), (4, Text), (5, Text), (6, Text), (14, Text)];
const TARGET: Fields = &[
    (1, Text),
    (3, Text),
    (4, Text),
    (5, Text),
    (14, Text),
    (15, Text),
    (16, Text),
];

/// How many bytes this message takes as a report, or a little less; `None` where
/// it is none.
pub fn decoded_bytes(message: &[u8]) -> Option<u64> {
    let own = size_of::<v1::Report>() as u64;
    Some(own.saturating_add(of_fields(message, REPORT)?))
}

/// What the fields of a message take beside it.
fn of_fields(mut rest: &[u8], fields: Fields) -> Option<u64> {
    let mut bytes = 0u64;
    let mut maps = 0u64;
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).ok()?;
        let field = fields.iter().find(|(known, _)| *known == number);
        let Some((_, field)) = field else {
            skip_field(kind, number, &mut rest, DecodeContext::default()).ok()?;
            continue;
        };
        let more = if kind == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (value, after) = rest.split_at_checked(length)?;
            rest = after;
            of_value(*field, value, maps & 1 << number == 0)?
        } else {
            skip_field(kind, number, &mut rest, DecodeContext::default()).ok()?;
            GROWTH * size_of::<u64>() as u64
        };
        maps |= 1 << number;
        bytes = bytes.saturating_add(more);
    }
    Some(bytes)
}

/// What one value takes; `first` of its field in this message.
fn of_value(field: Field, value: &[u8], first: bool) -> Option<u64> {
    let length = value.len() as u64;
    let number = size_of::<u64>() as u64;
    Some(match field {
        Text => PIECE_BYTES + length,
        Texts => GROWTH * size_of::<String>() as u64 + PIECE_BYTES + length,
        Message(fields) => of_fields(value, fields)?,
        Messages(fields, size) => (GROWTH * size as u64).saturating_add(of_fields(value, fields)?),
        Map if first => MAP_NODE_BYTES + PIECE_BYTES + length,
        Map => MAP_ENTRY_BYTES + PIECE_BYTES + length,
        TextMap if first => TEXT_MAP_NODE_BYTES + 2 * PIECE_BYTES + length,
        TextMap => TEXT_MAP_ENTRY_BYTES + 2 * PIECE_BYTES + length,
        Varints => GROWTH * number * value.iter().filter(|byte| **byte < 0x80).count() as u64,
        Doubles => GROWTH * length,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn repeated(value: &[u8], times: usize) -> Vec<u8> {
        value.repeat(times)
    }

    #[test]
    fn empty_endpoints_count_as_what_they_become() {
        // As one that is asked to keep two million of them.
        let message = repeated(&[10 << 3 | 2, 0], 2_000_000);
        let bytes = decoded_bytes(&message).unwrap();
        assert!(
            bytes >= 2_000_000 * size_of::<v1::Endpoint>() as u64,
            "{bytes}"
        );
        let few = v1::Report::decode(&message[..200]).unwrap();
        assert_eq!(few.endpoints.len(), 100);
    }

    #[test]
    fn every_list_of_a_report_counts() {
        let histogram = repeated(&[5 << 3, 1], 1000);
        let packed = [&[5 << 3 | 2, 100][..], &[1; 100]].concat();
        assert_eq!(of_fields(&histogram, HISTOGRAM), Some(16_000));
        assert_eq!(of_fields(&packed, HISTOGRAM), Some(1600));
        for number in [8u8, 11, 12, 13, 15] {
            let one = decoded_bytes(&[number << 3 | 2, 0]).unwrap();
            let two = decoded_bytes(&repeated(&[number << 3 | 2, 0], 2)).unwrap();
            assert!(two - one >= 48, "{number}: {one} {two}");
        }
    }

    #[test]
    fn no_list_of_the_contract_is_left_out() {
        let contract = include_str!("../../../../monitor-proto/proto/speedmimi/v1/report.proto");
        let lines = contract.lines().map(str::trim_start);
        let lists = lines.filter(|line| line.starts_with("repeated ") || line.starts_with("map<"));
        let counted = [
            REPORT,
            HOST,
            HOST_METRICS,
            ENDPOINT,
            COUNTERS,
            HTTP,
            HISTOGRAM,
            SOCKET,
            TARGET,
            CLIENTS,
        ];
        let counted = counted
            .into_iter()
            .flatten()
            .filter(|(_, field)| !matches!(field, Text | Message(_)));
        assert_eq!(counted.count(), lists.count());
    }

    #[test]
    fn a_long_name_of_a_queue_counts() {
        let with = |length: usize| {
            let report = v1::Report {
                endpoints: vec![v1::Endpoint {
                    accept_queue: Some(v1::AcceptQueue {
                        listener: "x".repeat(length),
                        ..v1::AcceptQueue::default()
                    }),
                    ..v1::Endpoint::default()
                }],
                ..v1::Report::default()
            };
            decoded_bytes(&report.encode_to_vec()).unwrap()
        };
        assert_eq!(with(1001) - with(1), 1000);
    }

    #[test]
    fn parts_of_a_message_that_comes_in_pieces_add_up() {
        // Host metrics with a disk each: they are joined, disks and all.
        let piece = [9 << 3 | 2, 2, 12 << 3 | 2, 0];
        let bytes = decoded_bytes(&repeated(&piece, 1000)).unwrap();
        assert!(bytes >= 1000 * size_of::<v1::Disk>() as u64, "{bytes}");
        let joined = v1::Report::decode(&*repeated(&piece, 1000)).unwrap();
        assert_eq!(joined.host_metrics.unwrap().disks.len(), 1000);
    }

    #[test]
    fn what_is_no_message_has_no_size() {
        for bytes in [&[0xff][..], &[10 << 3 | 2, 5, 1], &[9 << 3 | 2, 1, 0xff]] {
            assert_eq!(decoded_bytes(bytes), None, "{bytes:?}");
        }
        assert_eq!(decoded_bytes(&[]), Some(size_of::<v1::Report>() as u64));
    }
}

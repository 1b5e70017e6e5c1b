//! What connections speak, by the first bytes of their clients.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use libtest_mimic::Failed;
use monitor_common::{
    endpoint::Role,
    protocol::{PROTOCOLS, Protocol},
};

use crate::{Case, Watch, watch::fresh};

pub(crate) const CASES: [Case; 2] = [
    (
        "each_connection_has_the_protocol_that_its_client_began_with",
        first_bytes,
    ),
    (
        "a_start_that_is_split_at_any_byte_is_told_or_unknown",
        split_starts,
    ),
];

const FASTCGI: &[u8] = b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0\x01\x04\0\x01\0\0\0\0";
const UWSGI: &[u8] = b"\0\x16\0\0\x0e\0REQUEST_METHOD\x03\0GET";
const POSTGRESQL: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0mimi\0\0";

const STARTS: [(&[u8], Protocol); 12] = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Protocol::Http1),
    (
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Protocol::Http1,
    ),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Http2),
    (FASTCGI, Protocol::Fastcgi),
    (UWSGI, Protocol::Uwsgi),
    (b"get key\r\n", Protocol::Memcached),
    (b"*1\r\n$4\r\nPING\r\n", Protocol::Redis),
    (POSTGRESQL, Protocol::Postgresql),
    (b"CONNECT {\"verbose\":false}\r\n", Protocol::Other),
    (b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0", Protocol::Other),
    (b"SSH-2.0-OpenSSH_9.2\r\n", Protocol::Other),
    (b"\x17\x03", Protocol::Unknown),
];

/// Sends these bytes in segments of their own, and waits for an answer.
fn speak(listener: &TcpListener, parts: &[&[u8]]) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.set_nodelay(true).unwrap();
    for part in parts {
        client.write_all(part).unwrap();
        server.read_exact(&mut vec![0; part.len()]).unwrap();
    }
    // Of HTTP/1 it is none; what the client sent is told by then.
    server
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .unwrap();
    client.read_exact(&mut [0; 27]).unwrap();
}

fn first_bytes(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    let mut expected = [0; PROTOCOLS];
    for (n, (start, protocol)) in (1..).zip(STARTS) {
        for _ in 0..n {
            speak(&listener, &[start]);
        }
        expected[protocol as usize] += n;
    }
    // One that sends nothing speaks nothing.
    speak(&listener, &[]);
    let connections = expected.iter().sum::<u64>() + 1;
    for role in [Role::Downstream, Role::Upstream] {
        let c = watch.ended(role, listener.local_addr()?, connections);
        assert_eq!(c.connections_by_protocol, expected, "{role:?}");
        let of_http1 = expected[Protocol::Http1 as usize];
        assert_eq!(c.requests.iter().sum::<u64>(), of_http1, "{role:?}");
    }
    Ok(())
}

fn split_starts(watch: &Watch) -> Result<(), Failed> {
    let known = |(_, protocol): &(&[u8], Protocol)| *protocol != Protocol::Unknown;
    for (start, protocol) in STARTS.into_iter().filter(known) {
        let listener = TcpListener::bind(fresh())?;
        for at in 1..start.len() {
            speak(&listener, &[&start[..at], &start[at..]]);
        }
        let connections = start.len() as u64 - 1;
        for role in [Role::Downstream, Role::Upstream] {
            let c = watch.ended(role, listener.local_addr()?, connections);
            let of = |protocol: Protocol| c.connections_by_protocol[protocol as usize];
            let told = of(protocol) + of(Protocol::Unknown);
            let start = start.escape_ascii();
            assert_eq!(
                told, connections,
                "{role:?} {start}: {:?}",
                c.connections_by_protocol
            );
            if protocol == Protocol::Http1 {
                assert_eq!(of(Protocol::Unknown), 0, "{role:?} {start}");
            }
        }
    }
    Ok(())
}

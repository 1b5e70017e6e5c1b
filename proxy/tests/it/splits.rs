//! The same bytes give the same answers however they are split.

use super::support::{Backend, Client, Proxy};

/// Everything the proxy answers to these pieces, without dates.
fn answers(proxy: &Proxy, pieces: &[&[u8]]) -> String {
    let mut client = Client::connect(proxy.address);
    for piece in pieces {
        // A proxy that has refused already no longer takes the rest.
        if std::io::Write::write_all(&mut client.stream, piece).is_err() {
            break;
        }
        std::thread::yield_now();
    }
    let text = String::from_utf8(client.rest()).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("Date: "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_stream_gives_the_same_answers_at_every_split() {
    let backend = Backend::new(|request, peer| {
        let line = request.head.lines().next().unwrap_or("");
        let body = format!("{line} {}", String::from_utf8_lossy(&request.body));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        peer.send((head + &body).as_bytes());
    });
    let proxy = Proxy::before(&backend, "");
    let streams = [
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n\
         GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for stream in streams {
        let whole = answers(&proxy, &[stream.as_bytes()]);
        assert!(whole.starts_with("HTTP/1.1 "), "{whole}");
        for at in 1..stream.len() {
            let (first, second) = stream.as_bytes().split_at(at);
            assert_eq!(
                answers(&proxy, &[first, second]),
                whole,
                "split at {at} of {stream:?}"
            );
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(answers(&proxy, &bytes), whole, "byte by byte: {stream:?}");
    }
}

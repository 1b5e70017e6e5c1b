//! In steady state a request costs no allocation: everything it needs is reused.
//!
//! The workers run in this process under a counting allocator. Client and
//! backend of the test work on fixed buffers, so every allocation counted is
//! the proxy's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proxy::config::Config;
use proxy::driver::listener;
use proxy::driver::run::{WorkerCommand, spawn_workers};
use proxy::table::Table;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; counting
// touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A backend that answers every request of exactly `REQUEST` forwarded bytes;
/// it only looks for the end of the request.
fn backend(answer: &'static [u8], end: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer_forever(stream, answer, end));
        }
    });
    address
}

fn answer_forever(mut stream: TcpStream, answer: &[u8], end: &[u8]) {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        if buffer[..filled].ends_with(end) {
            filled = 0;
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn ask(stream: &mut TcpStream, request: &[u8], end: &[u8]) {
    stream.write_all(request).unwrap();
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while !buffer[..filled].ends_with(end) {
        let read = stream.read(&mut buffer[filled..]).unwrap();
        assert!(read > 0, "the proxy closed the connection");
        filled += read;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

fn proxy_before(backend: SocketAddr) -> (SocketAddr, tokio::sync::watch::Sender<WorkerCommand>) {
    let text = format!(
        "server: {{trusted_proxies: [127.0.0.1], max_conn: 100}}\nlimits: {{body_bytes: 1MiB}}\n\
         backends: {{u: [{{id: a, host: 127.0.0.1, port: {0}, max_conn: 50}}, {{id: b, host: 127.0.0.1, port: {0}}}]}}\n\
         routing: {{r: {{upstream: u}}, x: {{path: /x, upstream: u}}}}\n",
        backend.port()
    );
    let table = Arc::new(Table::build(Config::parse(&text).unwrap(), None).unwrap());
    let listeners = listener::open(([127, 0, 0, 1], 0).into(), 1).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let (commands, received) = tokio::sync::watch::channel(WorkerCommand {
        table,
        listeners: None,
        draining: false,
    });
    drop(spawn_workers(listeners, &received).unwrap());
    (address, commands)
}

const BODY: &[u8] = b"0123456789";

#[test]
fn requests_in_steady_state_allocate_nothing() {
    type Case = (
        &'static str,
        &'static [u8],
        &'static [u8],
        &'static [u8],
        &'static [u8],
    );
    let cases: [Case; 3] = [
        (
            "GET",
            b"GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 203.0.113.9\r\nUser-Agent: test\r\n\r\n",
            b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nServer: x\r\n\r\n0123456789",
            BODY,
        ),
        (
            "POST with a length",
            b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789",
            BODY,
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
            BODY,
        ),
        (
            "chunks both ways",
            b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n",
        ),
    ];
    // A proxy that stops allocates, so none does before the end.
    let mut running = Vec::new();
    for (name, request, request_end, answer, answer_end) in cases {
        let (address, commands) = proxy_before(backend(answer, request_end));
        running.push(commands);
        let mut clients: Vec<TcpStream> = (0..8)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream
            })
            .collect();
        let mut round = |times: usize| {
            for _ in 0..times {
                for client in &mut clients {
                    ask(client, request, answer_end);
                }
            }
        };
        round(100);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        round(500);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(
            allocations, 0,
            "{name}: {allocations} allocations in 4000 requests"
        );
    }
}

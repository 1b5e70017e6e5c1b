//! A proxy, backends and clients for the tests: real processes and sockets on
//! ephemeral loopback ports, every wait with a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that anything in a test may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The proxy.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_speedmimi-proxy");

/// The admin API's token of every proxy here.
pub(crate) const TOKEN: &str = "0123456789abcdef-test";

/// Polls `condition` until it gives something.
pub(crate) fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    testkit::eventually(what, TIMEOUT, condition)
}

/// A running proxy, killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where the admin API listens, if there is one.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) config_path: std::path::PathBuf,
    lines: Mutex<Receiver<String>>,
    log: Mutex<Vec<String>>,
    _directory: tempfile::TempDir,
}

impl Proxy {
    /// Starts one before `backend`, with more keys appended to its file.
    pub(crate) fn before(backend: &Backend, more: &str) -> Self {
        Self::with(&format!(
            "server: {{host: 127.0.0.1, port: 0}}\n\
             backends: {{default: [{{id: b, host: 127.0.0.1, port: {}}}]}}\n\
             routing: {{default: {{path: /, upstream: default}}}}\n{more}\n",
            backend.address.port()
        ))
    }

    /// Starts one with this configuration and one worker.
    pub(crate) fn with(config: &str) -> Self {
        Self::with_arguments(config, &["--workers", "1"])
    }

    pub(crate) fn with_arguments(config: &str, arguments: &[&str]) -> Self {
        Self::by(Command::new(BINARY), config, arguments)
    }

    /// Starts one by a command that ends in becoming the proxy.
    pub(crate) fn by(mut command: Command, config: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config_path = directory.path().join("proxy.yaml");
        std::fs::write(&config_path, config).unwrap();
        let mut child = command
            .arg("run")
            .arg("--config")
            .arg(&config_path)
            .args(arguments)
            .env("SPEEDMIMI_TOKEN", TOKEN)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut proxy = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            admin: None,
            config_path,
            lines: Mutex::new(lines),
            log: Mutex::default(),
            _directory: directory,
        };
        let ready = proxy.wait_for_line("ready listen=");
        proxy.address = address_after(&ready, "listen=").unwrap();
        proxy.admin = address_after(&ready, "admin=");
        proxy
    }

    /// Waits for a line of the log.
    pub(crate) fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.lock().unwrap().recv_timeout(left) else {
                panic!("no line with {part:?} in {:#?}", self.log.lock().unwrap());
            };
            self.log.lock().unwrap().push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Speaks to the admin API: method, path and body, with the token.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let mut client = Client::connect(self.admin.expect("the admin API is enabled"));
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let response = client.response();
        (
            response.status(),
            serde_json::from_slice(&response.body).unwrap(),
        )
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the exit of the proxy", || self.child.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn address_after(line: &str, key: &str) -> Option<SocketAddr> {
    let rest = &line[line.find(key)? + key.len()..];
    rest.split(' ').next()?.parse().ok()
}

/// A request as the backend received it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Start line and fields, without the empty line.
    pub(crate) head: String,
    /// The body without its coding.
    pub(crate) body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
}

impl Received {
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }
}

/// The value of a field; panics if it is repeated.
pub(crate) fn field(head: &str, name: &str) -> Option<String> {
    let mut found = head.lines().skip(1).filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    });
    let value = found.next();
    assert!(found.next().is_none(), "{name} is repeated in {head}");
    value
}

/// A backend whose answers are written by a function, one thread a connection.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

/// What a handler may do with its connection.
pub(crate) struct Peer {
    stream: TcpStream,
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // A client that is gone is part of some tests.
        drop(self.stream.write_all(bytes));
    }

    pub(crate) fn close(&self) {
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(&self) {
        // Whoever holds the socket too would put off the reset of a close.
        rustix::net::connect_unspec(&self.stream).unwrap();
    }

    pub(crate) fn read_some(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 65536];
        let read = self.stream.read(&mut buffer).unwrap_or(0);
        buffer.truncate(read);
        buffer
    }
}

impl Backend {
    /// Answers every request with `answer`.
    pub(crate) fn fixed(answer: &'static str) -> Self {
        Self::new(move |_, peer| peer.send(answer.as_bytes()))
    }

    /// Answers with the path it was asked for.
    pub(crate) fn echo() -> Self {
        Self::new(|request, peer| {
            let body = request.head.lines().next().unwrap_or("").to_owned();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            peer.send((head + &body).as_bytes());
        })
    }

    pub(crate) fn new(handler: impl Fn(&Received, &mut Peer) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), handler)
    }

    pub(crate) fn on(
        listener: TcpListener,
        handler: impl Fn(&Received, &mut Peer) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (log, handler) = (Arc::clone(&received), Arc::new(handler));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream, connection, &log, &*handler));
            }
        });
        Self { address, received }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:#?}");
        received[0].clone()
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    log: &Mutex<Vec<Received>>,
    handler: &dyn Fn(&Received, &mut Peer),
) {
    stream.set_nodelay(true).unwrap();
    let mut reader = Client::new(stream.try_clone().unwrap());
    let mut peer = Peer { stream };
    while let Some(head) = reader.try_head() {
        let early = field(&head, "x-answer-early").is_some();
        let body = if early {
            Vec::new()
        } else {
            reader.body_for(&head, false)
        };
        let received = Received {
            head,
            body,
            connection,
        };
        log.lock().unwrap().push(received.clone());
        handler(&received, &mut peer);
    }
}

/// A client that says exactly what it is told to.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response as the client received it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// The next response, interim ones included.
    pub(crate) fn response(&mut self) -> Response {
        self.response_to(false)
    }

    pub(crate) fn response_to(&mut self, head_request: bool) -> Response {
        let head = self.try_head().expect("a response head");
        let body = if head_request {
            Vec::new()
        } else {
            self.body_for(&head, true)
        };
        Response { head, body }
    }

    /// The next head, or `None` at the end.
    pub(crate) fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Some(String::from_utf8_lossy(&head[..at]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn body_for(&mut self, head: &str, response: bool) -> Vec<u8> {
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if response && (status < 200 || status == 204 || status == 304) {
            return Vec::new();
        }
        if let Some(length) = field(head, "content-length") {
            return self.exactly(length.parse().unwrap());
        }
        if field(head, "transfer-encoding").is_some() {
            return self.chunks().0;
        }
        if response { self.rest() } else { Vec::new() }
    }

    /// A chunked body and its trailer section.
    pub(crate) fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        loop {
            let size =
                usize::from_str_radix(self.line().split([';', ' ', '\t']).next().unwrap(), 16)
                    .unwrap();
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size));
            assert_eq!(self.line(), "");
        }
        let mut trailers = String::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return (body, trailers);
            }
            trailers += &line;
            trailers += "\n";
        }
    }

    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).unwrap();
            }
            assert!(
                self.fill(),
                "the stream ended within a line: {:?}",
                self.buffer
            );
        }
    }

    pub(crate) fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.buffer.len() < bytes {
            assert!(
                self.fill(),
                "the stream ended {} bytes early",
                bytes - self.buffer.len()
            );
        }
        self.buffer.drain(..bytes).collect()
    }

    /// Everything up to the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the peer ends the connection without a further byte.
    pub(crate) fn ends(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16384];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // This side has reset it.
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => false,
            Err(error) => panic!("cannot read: {error}"),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A port on which nothing listens.
pub(crate) fn unused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

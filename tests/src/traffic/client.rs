//! One connection of a load generator.

use std::{
    io::{self, Read as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    framing::{BodyLength, Decoder, FramingError, Progress},
    outcome::Outcome,
    plan::{Exchange, Method},
    transfer::Outgoing,
};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a response that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a connection wants after it was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// To be driven when it can be read, or written too.
    Wait { write: bool },
    /// The exchange ended; the connection can carry another.
    Idle,
    /// The connection is over, and so is its exchange.
    Over,
}

/// A connection within an exchange, or between two.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: TcpStream,
    outgoing: Outgoing,
    /// The stream towards the server ends with this request.
    is_last: bool,
    head: Vec<u8>,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    keep_alive: bool,
    body: Decoder,
}

/// Why an exchange ended badly.
#[derive(Debug)]
enum Broken {
    Connection,
    Protocol,
    Content,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Connection
    }
}

impl From<FramingError> for Broken {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::Content => Self::Content,
            FramingError::ChunkSize | FramingError::ChunkEnd => Self::Protocol,
        }
    }
}

impl Client {
    pub(super) fn connect(target: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            outgoing: Outgoing::default(),
            is_last: false,
            head: Vec::new(),
            answer: None,
        })
    }

    /// Begins an exchange; after the request of the last one, the stream
    /// towards the server ends.
    pub(super) fn begin(&mut self, exchange: &Exchange, authority: &str, is_last: bool) {
        self.is_last = is_last;
        self.outgoing = exchange.request(authority);
        self.head.clear();
        self.answer = None;
    }

    /// Writes and reads what the socket lets it, and counts it.
    pub(super) fn drive(
        &mut self,
        exchange: &Exchange,
        buffer: &mut [u8],
        outcome: &mut Outcome,
    ) -> Next {
        match self.try_drive(exchange, buffer, outcome) {
            Ok(next) => next,
            Err(broken) => {
                match broken {
                    Broken::Connection => outcome.errors.connection += 1,
                    Broken::Protocol => outcome.errors.protocol += 1,
                    Broken::Content => outcome.errors.content += 1,
                }
                Next::Over
            }
        }
    }

    fn try_drive(
        &mut self,
        exchange: &Exchange,
        buffer: &mut [u8],
        outcome: &mut Outcome,
    ) -> Result<Next, Broken> {
        if !self.outgoing.is_done() {
            outcome.bytes_sent += self.outgoing.write(&mut self.socket)?;
            if self.outgoing.is_done() {
                outcome.requests += 1;
                if self.is_last {
                    self.socket.shutdown(Shutdown::Write)?;
                }
            }
        }
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return self.end_of_stream(exchange, outcome),
                Ok(count) => {
                    outcome.bytes_received += count as u64;
                    if self.take(&buffer[..count], exchange, outcome)? {
                        return self.complete(exchange, outcome);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Next::Wait {
                        write: !self.outgoing.is_done(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes bytes of the answer; true where it ended.
    fn take(
        &mut self,
        received: &[u8],
        exchange: &Exchange,
        outcome: &mut Outcome,
    ) -> Result<bool, Broken> {
        let joined;
        let mut bytes = received;
        if self.answer.is_none() {
            self.head.extend_from_slice(bytes);
            let Some(length) = self.take_heads(exchange, outcome)? else {
                return Ok(false);
            };
            joined = self.head.split_off(length);
            bytes = &joined;
        }
        let Some(answer) = &mut self.answer else {
            return Ok(false);
        };
        match answer.body.take(bytes)? {
            Progress::Needs => Ok(false),
            Progress::Done(end) if end == bytes.len() => Ok(true),
            // Nothing was asked for that could answer so.
            Progress::Done(_) => Err(Broken::Protocol),
        }
    }

    /// Reads interim heads and the final one; returns where its body begins.
    fn take_heads(
        &mut self,
        exchange: &Exchange,
        outcome: &mut Outcome,
    ) -> Result<Option<usize>, Broken> {
        let mut at = 0;
        loop {
            let Some((length, answer)) = parse_head(&self.head[at..], exchange)? else {
                self.head.drain(..at);
                if self.head.len() > HEAD_BYTES_MAX {
                    return Err(Broken::Protocol);
                }
                return Ok(None);
            };
            at += length;
            outcome.responses.count(answer.status);
            if answer.status >= 200 {
                self.answer = Some(answer);
                return Ok(Some(at));
            }
        }
    }

    fn end_of_stream(
        &mut self,
        exchange: &Exchange,
        outcome: &mut Outcome,
    ) -> Result<Next, Broken> {
        match &self.answer {
            Some(answer) if answer.body.ends_with_connection() => {
                self.complete(exchange, outcome)?;
                Ok(Next::Over)
            }
            _ => Err(Broken::Connection),
        }
    }

    /// Judges an answer that ended.
    fn complete(&mut self, exchange: &Exchange, outcome: &mut Outcome) -> Result<Next, Broken> {
        let Some(answer) = self.answer.take() else {
            return Err(Broken::Protocol);
        };
        if answer.status != exchange.status {
            outcome.errors.status += 1;
        } else if exchange
            .answer
            .is_some_and(|length| length != answer.body.length())
        {
            outcome.errors.content += 1;
        }
        if !self.outgoing.is_done() {
            // Answered before it was asked: the rest cannot be sent any more.
            return Err(Broken::Protocol);
        }
        Ok(if answer.keep_alive {
            Next::Idle
        } else {
            Next::Over
        })
    }
}

fn parse_head(bytes: &[u8], exchange: &Exchange) -> Result<Option<(usize, Answer)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Protocol),
    };
    let status = response.code.ok_or(Broken::Protocol)?;
    let header = |name: &str| {
        response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let has_no_body =
        exchange.method == Method::Head || status < 200 || matches!(status, 204 | 304);
    let body = if has_no_body {
        BodyLength::Known(0)
    } else if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        BodyLength::Chunked
    } else if let Some(length) = header("content-length") {
        BodyLength::Known(length.trim().parse().map_err(|_| Broken::Protocol)?)
    } else {
        BodyLength::UntilClose
    };
    let keep_alive = response.version == Some(1)
        && body != BodyLength::UntilClose
        && !header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    // The pattern is the origin's; a proxy's own answer has other content.
    let verify = status == exchange.status && exchange.answer.is_some();
    Ok(Some((
        length,
        Answer {
            status,
            keep_alive,
            body: Decoder::new(body, verify),
        },
    )))
}

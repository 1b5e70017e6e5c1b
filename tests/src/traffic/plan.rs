//! What a load generator asks for.

use std::{fmt, str::FromStr};

use super::transfer::Outgoing;

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks for a body.
    Get,
    /// Asks for the head alone.
    Head,
    /// Sends a body and asks for one.
    Post,
}

/// A request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body and no length.
    None,
    /// This many bytes, with Content-Length.
    Sized(u64),
    /// This many bytes, chunked.
    Chunked(u64),
}

/// One request, and the status that answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub path: String,
    /// Its body.
    pub body: Body,
    /// What the origin answers.
    pub status: u16,
    /// How long the answer's body is, where that is known.
    pub answer: Option<u64>,
    /// Whether it asks for the end of the connection behind the answer.
    pub closes: bool,
}

/// An exchange that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no exchange; write `GET /bytes/100`, `GET /close/100`, `HEAD /bytes/100` or `POST /bytes/100 5000`"
)]
pub struct ParseExchangeError(String);

impl Exchange {
    /// `GET` of a body of this many bytes.
    #[must_use]
    pub fn get(bytes: u64) -> Self {
        Self {
            method: Method::Get,
            path: format!("/bytes/{bytes}"),
            body: Body::None,
            status: 200,
            answer: Some(bytes),
            closes: false,
        }
    }

    /// `GET` of a chunked body of this many bytes.
    #[must_use]
    pub fn get_chunked(bytes: u64) -> Self {
        Self {
            path: format!("/chunked/{bytes}"),
            ..Self::get(bytes)
        }
    }

    /// `HEAD` of what `get` asks for.
    #[must_use]
    pub fn head(bytes: u64) -> Self {
        Self {
            method: Method::Head,
            answer: Some(0),
            ..Self::get(bytes)
        }
    }

    /// `POST` of `sent` bytes that is answered with `answered` bytes.
    #[must_use]
    pub fn post(sent: u64, answered: u64) -> Self {
        Self {
            method: Method::Post,
            body: Body::Sized(sent),
            ..Self::get(answered)
        }
    }

    /// The same, chunked.
    #[must_use]
    pub fn post_chunked(sent: u64, answered: u64) -> Self {
        Self {
            body: Body::Chunked(sent),
            ..Self::post(sent, answered)
        }
    }

    /// `GET` that is answered with this status and no body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            path: format!("/status/{status}"),
            status,
            answer: Some(0),
            ..Self::get(0)
        }
    }

    /// `GET` of this many bytes, behind which the origin closes its connection.
    #[must_use]
    pub fn get_closed(bytes: u64) -> Self {
        Self {
            path: format!("/close/{bytes}"),
            ..Self::get(bytes)
        }
    }

    /// Asks for the end of the connection behind the answer, or does not.
    #[must_use]
    pub fn closing(self, closes: bool) -> Self {
        Self { closes, ..self }
    }

    /// The whole request, for this authority.
    pub(super) fn request(&self, authority: &str) -> Outgoing {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {authority}\r\n",
            self.method, self.path
        );
        if self.closes {
            head.push_str("Connection: close\r\n");
        }
        match self.body {
            Body::None => {
                head.push_str("\r\n");
                Outgoing::sized(head.into_bytes(), 0)
            }
            Body::Sized(length) => {
                head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
                Outgoing::sized(head.into_bytes(), length)
            }
            Body::Chunked(length) => {
                head.push_str("Transfer-Encoding: chunked\r\n\r\n");
                Outgoing::chunked(head.into_bytes(), length)
            }
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        })
    }
}

impl FromStr for Exchange {
    type Err = ParseExchangeError;

    /// Reads `METHOD /bytes/N [BODY]` and `GET /close/N`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseExchangeError(text.to_owned());
        let mut words = text.split_whitespace();
        let method = words.next().ok_or_else(error)?;
        let path = words.next().ok_or_else(error)?;
        let (kind, bytes) = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .ok_or_else(error)?;
        let answered = bytes.parse().map_err(|_| error())?;
        let sent = words
            .next()
            .map(str::parse)
            .transpose()
            .map_err(|_| error())?;
        match (method, kind, sent, words.next()) {
            ("GET", "bytes", None, None) => Ok(Self::get(answered)),
            ("GET", "close", None, None) => Ok(Self::get_closed(answered)),
            ("HEAD", "bytes", None, None) => Ok(Self::head(answered)),
            ("POST", "bytes", Some(sent), None) => Ok(Self::post(sent, answered)),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_are_read_as_the_help_writes_them() {
        assert_eq!("GET /bytes/100".parse(), Ok(Exchange::get(100)));
        assert_eq!("HEAD /bytes/7".parse(), Ok(Exchange::head(7)));
        assert_eq!("GET /close/7".parse(), Ok(Exchange::get_closed(7)));
        assert_eq!("POST /bytes/7 9".parse(), Ok(Exchange::post(9, 7)));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in [
            "",
            "GET",
            "GET /x",
            "GET /bytes/1 2",
            "POST /bytes/1",
            "PUT /bytes/1 1",
        ] {
            let error = text.parse::<Exchange>().unwrap_err();
            assert!(error.to_string().contains("GET /bytes/100"));
        }
    }
}

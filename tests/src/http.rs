//! As much of an HTTP client as asking a collector for JSON needs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Asks for a path and reads the JSON that answers it.
///
/// # Errors
///
/// Where nobody answers in time, or with another status than 200.
pub fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    let (status, body) = get(address, path)?;
    ensure!(
        status == 200,
        "GET {path} answered {status}: {}",
        String::from_utf8_lossy(&body)
    );
    serde_json::from_slice(&body).with_context(|| format!("GET {path} answered no JSON"))
}

/// Asks for a path; returns the status and the body.
///
/// # Errors
///
/// Where nobody answers in time, or with something that is no HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    request("GET", address, path)
}

/// Sends an empty body to a path; returns the status and the answer's body.
///
/// # Errors
///
/// Where nobody answers in time, or with something that is no HTTP.
pub fn post(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    request("POST", address, path)
}

fn request(method: &str, address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let limit = Duration::from_secs(10);
    let mut socket = TcpStream::connect_timeout(&address, limit)
        .with_context(|| format!("connecting to {address}"))?;
    socket.set_read_timeout(Some(limit))?;
    // HTTP/1.0, so that the end of the connection is the end of the answer.
    write!(
        socket,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(answer)? else {
        bail!("the answer's head is cut off");
    };
    let status = response.code.context("the answer has no status")?;
    let body = answer[length..].to_vec();
    let announced = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        });
    ensure!(
        announced.is_none_or(|length| length == body.len()),
        "the answer's body is cut off"
    );
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_answer_is_an_error() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(whole).unwrap(), (200, b"{}".to_vec()));
        assert!(parse(&whole[..whole.len() - 1]).is_err());
        assert!(parse(&whole[..20]).is_err());
    }
}

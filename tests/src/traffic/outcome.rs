//! What a load generator sent and got.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Responses by the class of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// 100 to 199.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 200 to 299.
    #[serde(rename = "2xx")]
    pub successful: u64,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 500 to 599.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

impl Classes {
    /// Counts one response.
    pub fn count(&mut self, status: u16) {
        match status {
            100..=199 => self.informational += 1,
            200..=299 => self.successful += 1,
            300..=399 => self.redirection += 1,
            400..=499 => self.client_error += 1,
            _ => self.server_error += 1,
        }
    }

    /// Those that end an exchange.
    #[must_use]
    pub fn total_final(&self) -> u64 {
        self.successful + self.redirection + self.client_error + self.server_error
    }
}

impl AddAssign for Classes {
    fn add_assign(&mut self, other: Self) {
        self.informational += other.informational;
        self.successful += other.successful;
        self.redirection += other.redirection;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
    }
}

/// What went wrong, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadErrors {
    /// No connection.
    pub connect: u64,
    /// The connection ended or broke within an exchange.
    pub connection: u64,
    /// An answer that is no HTTP/1.1, or whose framing is broken.
    pub protocol: u64,
    /// An answer with another status than the one expected.
    pub status: u64,
    /// A body that is not the one asked for.
    pub content: u64,
    /// Exchanges that were given up at the deadline.
    pub unfinished: u64,
}

impl LoadErrors {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.connect
            + self.connection
            + self.protocol
            + self.status
            + self.content
            + self.unfinished
    }
}

/// What a load generator's own sockets carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Connections that were established.
    pub connections: u64,
    /// Requests written to their end.
    pub requests: u64,
    /// Responses read to their end, and interim ones.
    pub responses: Classes,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// What went wrong.
    pub errors: LoadErrors,
    /// From the first connection to the last byte.
    pub elapsed_ns: u64,
}

impl Outcome {
    /// Answered requests per second.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        if self.elapsed_ns == 0 {
            return 0.0;
        }
        self.responses.total_final() as f64 * 1e9 / self.elapsed_ns as f64
    }
}

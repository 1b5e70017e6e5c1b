//! Passing reports on by OTLP; the conversion and the client are those of an
//! agent that has no collector.

use monitor_otlp::{Client, ClientError, Headers, OtlpUrl, REQUEST_BYTES_MAX};
use monitor_proto::v1;

use crate::receiver::{Answer, Before, Part, Receiver, Rejection};

/// One receiver of OTLP.
#[derive(Debug)]
pub struct Otlp(Client);

impl Otlp {
    pub fn new(url: OtlpUrl, headers: Headers) -> Result<Self, ClientError> {
        Client::new(url, headers).map(Self)
    }
}

impl Receiver for Otlp {
    fn request_bytes_max(&self) -> usize {
        REQUEST_BYTES_MAX
    }

    fn parts(&self, report: v1::Report, _: Before<'_>) -> Vec<Part> {
        let part = |part: monitor_otlp::Part| Part {
            body: part.body,
            units: part.points,
        };
        let parts = monitor_otlp::parts(&report).into_iter();
        parts.map(part).collect()
    }

    /// Series end by themselves: a cumulative point that is not repeated.
    fn ended(&self, _: v1::Report) -> Option<Part> {
        None
    }

    fn send(&mut self, body: &[u8]) -> Answer {
        match self.0.send(body) {
            monitor_otlp::Answer::Taken {
                rejected_points: rejected,
                message,
            } => Answer::Taken { rejected, message },
            monitor_otlp::Answer::Later { message, after } => Answer::Later { message, after },
            monitor_otlp::Answer::Never { message } => Answer::Never {
                reason: Rejection::Refused,
                message,
            },
        }
    }
}

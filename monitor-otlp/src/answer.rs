//! What came of a request, by the rules of the OTLP specification ("Failures").

use std::time::Duration;

use prost::Message;
use tonic::Code;

use crate::wire::{Response, RetryInfo, Status};

/// A receiver that asks for more patience than this is asked again anyway.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was taken, but for some points that never will be.
    Taken {
        /// How many.
        rejected_points: u64,
        /// What the receiver says about it; may be empty.
        message: String,
    },
    /// It may be taken later.
    Later {
        /// Why.
        message: String,
        /// How long the receiver asks to wait.
        after: Option<Duration>,
    },
    /// It will never be taken.
    Never {
        /// Why.
        message: String,
    },
}

impl Answer {
    /// It was not answered.
    pub(crate) fn unanswered(message: String) -> Self {
        Self::Later {
            message,
            after: None,
        }
    }

    /// A success may be a partial one: it is not to be sent again.
    pub(crate) fn taken(response: &Response) -> Self {
        let partial = response.partial_success.as_ref();
        Self::Taken {
            rejected_points: partial
                .and_then(|p| u64::try_from(p.rejected_data_points).ok())
                .unwrap_or_default(),
            message: partial.map_or_else(String::new, |p| printable(&p.error_message)),
        }
    }

    /// OTLP/HTTP: 429, 502, 503 and 504 are tried again, everything else that
    /// is no success is final.  404 and 405 come of no receiver of OTLP: the address
    /// is wrong, and what was to be sent waits until it is mended.
    pub(crate) fn of_http(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let message = format!("HTTP status {status}");
        match status {
            200..=299 => Self::taken(&Response::decode(body).unwrap_or_default()),
            429 | 502..=504 => Self::Later {
                message,
                after: retry_after.and_then(self::retry_after),
            },
            404 | 405 => Self::unanswered(format!(
                "{message}: nothing accepts OTLP at this path; use the whole URL of metrics, like \
                 http://HOST:4318/v1/metrics"
            )),
            _ => Self::Never { message },
        }
    }

    /// OTLP/gRPC: `RESOURCE_EXHAUSTED` is tried again only where the receiver
    /// says when.
    pub(crate) fn of_grpc(code: Code, message: &str, details: &[u8]) -> Self {
        let message = format!("gRPC status {code:?}: {}", printable(message));
        let after = retry_delay(details);
        match code {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Self::Later { message, after },
            Code::ResourceExhausted if after.is_some() => Self::Later { message, after },
            _ => Self::Never { message },
        }
    }
}

/// `Retry-After` in seconds, ten minutes at the most.  Of its other form, a
/// date, the sender's own pause is a good enough guess.
#[must_use]
pub fn retry_after(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = Status::decode(details).ok()?;
    let info = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).ok()?);
    let nanos = Duration::from_nanos(u64::try_from(delay.nanos).ok()?);
    Some(seconds.saturating_add(nanos).min(RETRY_AFTER_MAX))
}

/// What another program says, fit for a log line.
fn printable(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(200).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess as PartialSuccess;

    use super::*;
    use crate::wire::{Any, Delay};

    fn after(answer: &Answer) -> Option<Option<u64>> {
        match answer {
            Answer::Later { after, .. } => Some(after.map(|a| a.as_secs())),
            Answer::Taken { .. } | Answer::Never { .. } => None,
        }
    }

    #[test]
    fn over_http_four_statuses_and_a_wrong_path_are_tried_again() {
        for status in 100..600 {
            let answer = Answer::of_http(status, Some("7"), b"");
            match status {
                200..=299 => assert!(matches!(answer, Answer::Taken { .. }), "{status}"),
                429 | 502 | 503 | 504 => assert_eq!(after(&answer), Some(Some(7)), "{status}"),
                404 | 405 => {
                    assert_eq!(after(&answer), Some(None), "{status}");
                    assert!(format!("{answer:?}").contains("/v1/metrics"));
                }
                _ => assert!(matches!(answer, Answer::Never { .. }), "{status}"),
            }
        }
        let date = Answer::of_http(503, Some("Fri, 31 Dec 1999 23:59:59 GMT"), b"");
        assert_eq!(after(&date), Some(None));
        let long = Answer::of_http(503, Some("18446744073709551615"), b"");
        assert_eq!(after(&long), Some(Some(600)));
    }

    #[test]
    fn over_grpc_exhaustion_is_tried_again_only_where_a_time_is_given() {
        let info = RetryInfo {
            retry_delay: Some(Delay {
                seconds: 3,
                nanos: 0,
            }),
        };
        let details = Status {
            details: vec![Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        }
        .encode_to_vec();
        let retried = [1, 4, 10, 11, 14, 15];
        for code in 1..=16 {
            let plain = Answer::of_grpc(Code::from(code), "m", b"");
            assert_eq!(after(&plain).is_some(), retried.contains(&code), "{code}");
        }
        let told = Answer::of_grpc(Code::ResourceExhausted, "m", &details);
        assert_eq!(after(&told), Some(Some(3)));
        let torn = Answer::of_grpc(Code::ResourceExhausted, "m", &details[..5]);
        assert!(matches!(torn, Answer::Never { .. }));
    }

    #[test]
    fn a_partial_success_is_a_success_that_says_what_was_refused() {
        let body = Response {
            partial_success: Some(PartialSuccess {
                rejected_data_points: 4,
                error_message: "too\x1b old".to_owned(),
            }),
        }
        .encode_to_vec();
        let taken = Answer::of_http(200, None, &body);
        let expected = Answer::Taken {
            rejected_points: 4,
            message: "too old".to_owned(),
        };
        assert_eq!(taken, expected);
        // What cannot be read says nothing.
        let none = Answer::of_http(200, None, b"\xff\xff");
        assert!(matches!(
            none,
            Answer::Taken {
                rejected_points: 0,
                ..
            }
        ));
    }
}

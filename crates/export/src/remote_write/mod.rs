//! Passing reports on by Prometheus remote write 1.0: one request a report.

mod url;
mod wire;

use std::time::Duration;

use monitor_proto::v1;
pub use url::{BadUrl, RemoteUrl};

use crate::receiver::{Answer, Before, Part, Receiver, Rejection};

const TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// One receiver of remote write.
#[derive(Debug)]
pub struct RemoteWrite {
    url: RemoteUrl,
    agent: ureq::Agent,
}

impl RemoteWrite {
    pub fn new(url: RemoteUrl) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .user_agent(concat!("speedmimi-collector/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { url, agent }
    }
}

impl Receiver for RemoteWrite {
    /// A snappy block is a whole: two of them are not one request.
    fn request_bytes_max(&self) -> usize {
        0
    }

    fn parts(&self, report: v1::Report, before: Before<'_>) -> Vec<Part> {
        vec![Part {
            body: wire::encode(report, before()),
            units: 1,
        }]
    }

    fn ended(&self, last: v1::Report) -> Option<Part> {
        Some(Part {
            body: wire::encode_end(last),
            units: 0,
        })
    }

    fn send(&mut self, request: &[u8]) -> Answer {
        let answer = self
            .agent
            .post(self.url.as_str())
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .send(request);
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return Answer::Later {
                    message: error.to_string(),
                    after: None,
                };
            }
        };
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let said = body.read_to_string().unwrap_or_default();
        let retry_after = answer.headers().get("retry-after");
        judge(
            answer.status().as_u16(),
            retry_after.and_then(|value| value.to_str().ok()),
            &said,
        )
    }
}

/// The retry rules of the remote write specification: 5xx and 429 are tried
/// again, other refusals are final.
fn judge(status: u16, retry_after: Option<&str>, said: &str) -> Answer {
    let message = || {
        let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
        format!("HTTP status {status}: {said}")
    };
    match status {
        200..=299 => Answer::Taken {
            rejected: 0,
            message: String::new(),
        },
        429 | 500..=599 => Answer::Later {
            message: message(),
            after: retry_after.and_then(monitor_otlp::retry_after),
        },
        _ => Answer::Never {
            reason: if is_out_of_order(said) {
                Rejection::OutOfOrder
            } else {
                Rejection::Refused
            },
            message: message(),
        },
    }
}

/// The words of Prometheus and of Mimir for samples that come too late: such a
/// report is lost to that receiver alone, and `out_of_order_time_window` there
/// is what lets it in.
fn is_out_of_order(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let words = [
        "out of order",
        "out-of-order",
        "too old",
        "too-old",
        "out of bounds",
        "duplicate sample",
    ];
    words.iter().any(|word| said.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn final_reason(answer: &Answer) -> Option<Rejection> {
        match answer {
            Answer::Never { reason, .. } => Some(*reason),
            Answer::Taken { .. } | Answer::Later { .. } => None,
        }
    }

    #[test]
    fn what_may_pass_later_is_tried_again() {
        for status in 100..600 {
            let answer = judge(status, Some("2"), "");
            match status {
                200..=299 => assert!(matches!(answer, Answer::Taken { rejected: 0, .. })),
                429 | 500..=599 => assert!(matches!(
                    answer,
                    Answer::Later { after: Some(after), .. } if after == Duration::from_secs(2)
                )),
                _ => assert_eq!(final_reason(&answer), Some(Rejection::Refused)),
            }
        }
    }

    #[test]
    fn samples_that_come_too_late_are_told_from_others() {
        for said in [
            "out of order sample\n",
            "failed pushing: user=1: the sample has been rejected because another sample with a \
             more recent timestamp has already been ingested (err-mimir-sample-out-of-order)",
            "too old sample",
            "duplicate sample for timestamp",
        ] {
            let answer = judge(400, None, said);
            assert_eq!(final_reason(&answer), Some(Rejection::OutOfOrder), "{said}");
        }
        let answer = judge(400, None, "label name is invalid");
        assert_eq!(final_reason(&answer), Some(Rejection::Refused));
    }
}

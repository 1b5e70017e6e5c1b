//! What is wrong on this host, judged from views, without a collector.

use std::fmt::Write as _;

use monitor_proto::{display::printable, v1};
use problems::{HostJudge, Problems, Thresholds, nothing};

/// What is kept of the last views.
#[derive(Debug, Default)]
pub struct ViewJudge {
    judge: HostJudge,
    thresholds: Thresholds,
}

impl ViewJudge {
    /// A judgement by these thresholds.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            judge: HostJudge::default(),
            thresholds,
        }
    }

    /// What is wrong after one more view.
    pub fn take(&mut self, view: &v1::Report) -> Problems {
        // A view is never complete, which says nothing of the agent.
        let view = v1::Report {
            complete: true,
            ..view.clone()
        };
        self.judge.observe(&view, None, &self.thresholds);
        let problems = self.judge.problems();
        Problems {
            total: problems.len() as u64,
            problems,
            hosts: 1,
        }
    }
}

/// The problems as text, worst first.
#[must_use]
pub fn text(now: &Problems) -> String {
    let mut text = String::new();
    let mut line = |start: &str, line: &str| {
        writeln!(text, "{start:<8}  {}", printable(line)).expect("writing to a String never fails");
    };
    for problem in &now.problems {
        line(problem.severity.word(), &problem.summary);
        for fact in problem.facts(&problem.since) {
            line("", &fact);
        }
    }
    if now.total == 0 {
        text = format!("{}\n", nothing(now));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_refuses_shows_in_three_views() {
        let refused = v1::ConnectionsFailed {
            refused: 3,
            ..Default::default()
        };
        let view = |n: u64| v1::Report {
            window_start_unix_ns: n * 1_000_000_000,
            window_end_unix_ns: (n + 1) * 1_000_000_000,
            window_duration_ns: 1_000_000_000,
            incomplete_reasons: vec!["a view".to_owned()],
            endpoints: vec![v1::Endpoint {
                role: v1::Role::Upstream.into(),
                address: "10.0.0.1:80".to_owned(),
                upstream: "app\u{1b}".to_owned(),
                window: Some(v1::Counters {
                    connections_failed: Some(refused),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut judge = ViewJudge::default();
        assert_eq!(
            text(&judge.take(&v1::Report::default())),
            "nothing is wrong on 1 host\n"
        );
        let told: Vec<_> = (1..=3).map(|n| text(&judge.take(&view(n)))).collect();
        let line = "critical  backend app\u{fffd}/10.0.0.1:80 refuses connections\n";
        assert!(told[2].starts_with(line), "{}", told[2]);
        assert!(
            told[2].contains("next: refused: see whether"),
            "{}",
            told[2]
        );
    }
}

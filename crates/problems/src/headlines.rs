//! Problems as lines of text, the same on every terminal.

use monitor_proto::display::printable;

use crate::{Problem, Problems, Severity};

/// The first lines of a screen: the worst problems, how many more there are, or that
/// nothing is wrong; each with the severity that colours it.
#[must_use]
pub fn headlines(now: &Problems, most: usize) -> Vec<(Option<Severity>, String)> {
    if now.total == 0 {
        return vec![(None, nothing(now))];
    }
    let worst = now.problems.iter().take(most);
    let mut lines: Vec<_> = worst
        .map(|problem| {
            let word = problem.severity.word();
            let line = format!("{word:<8} {}", printable(&problem.summary));
            (Some(problem.severity), line)
        })
        .collect();
    let left = now.total.saturating_sub(lines.len() as u64);
    if left > 0 {
        lines.push((Some(Severity::Info), format!("{left} more: see `problems`")));
    }
    lines
}

/// That nothing is wrong, or that nobody can tell.
#[must_use]
pub fn nothing(now: &Problems) -> String {
    match now.hosts {
        0 => "no host has reported yet: nothing can be judged".to_owned(),
        1 => "nothing is wrong on 1 host".to_owned(),
        n => format!("nothing is wrong on {n} hosts"),
    }
}

impl Problem {
    /// What stands under its sentence: host, beginning, figures, the agent's words, and
    /// what to look at next.
    #[must_use]
    pub fn facts(&self, since: &str) -> Vec<String> {
        let figures = self.evidence.iter();
        let figures = figures.map(|figure| format!("{} {}", figure.name, figure.text()));
        let mut facts = vec![self.subject.host.clone(), format!("since {since}")];
        facts.extend(figures);
        let mut lines = vec![facts.join(" · ")];
        lines.extend(self.details.iter().cloned());
        lines.push(format!("next: {}", self.next));
        lines
    }
}

//! Expressions of `PromQL`.  Pure.

use std::fmt::Write as _;

/// What a selector matches exactly; values are any text.
pub(super) type Matchers<'a> = [(&'a str, &'a str)];

/// The series of a name whose labels have these values.
pub(super) fn selector(name: &str, matchers: &Matchers<'_>) -> String {
    let mut out = name.to_owned();
    braces(&mut out, matchers, &[]);
    out
}

/// The series whose name matches a regular expression of ours.
pub(super) fn named_like(regex: &str, matchers: &Matchers<'_>) -> String {
    let mut out = String::new();
    braces(&mut out, matchers, &[regex]);
    out
}

fn braces(out: &mut String, matchers: &Matchers<'_>, names: &[&str]) {
    let names = names
        .iter()
        .map(|regex| format!("__name__=~{}", quoted(regex)));
    let others = matchers
        .iter()
        .map(|(name, value)| format!("{name}={}", quoted(value)));
    let inside: Vec<String> = names.chain(others).collect();
    out.push('{');
    out.push_str(&inside.join(","));
    out.push('}');
}

/// A string literal: nothing in it ends it or begins something else.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String never fails");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A function over the samples of a step.  A window that ends on a boundary
/// belongs to the step before it; Prometheus before 3.0 counts both ends of a
/// range, so a range is a millisecond shorter than the step.
pub(super) fn over_step(function: &str, selector: &str, step_s: u64) -> String {
    let range_ms = step_s.saturating_mul(1000).saturating_sub(1);
    format!("{function}({selector}[{range_ms}ms])")
}

/// The labels that tell one endpoint from another.  The proxy's names are left
/// out: they may change while the totals go on.
const ENDPOINT: &str = "host, host_id, target, role, endpoint";

/// The sum over what splits a counter, by endpoint.
pub(super) fn by_endpoint(expression: &str, split: &str) -> String {
    if split.is_empty() {
        format!("max by ({ENDPOINT}) ({expression})")
    } else {
        format!("sum by ({ENDPOINT}) (max by ({ENDPOINT}, {split}) ({expression}))")
    }
}

/// One value for each endpoint and the names that it has.
pub(super) fn by_names(expression: &str) -> String {
    format!("max by ({ENDPOINT}, listener, upstream, backend) ({expression})")
}

/// One value for each endpoint and boundary of a histogram.
pub(super) fn by_boundary(expression: &str) -> String {
    format!("max by ({ENDPOINT}, le) ({expression})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_label_leaves_its_quotes() {
        let hostile = "x\"} or vector(1) or {a=\"\\\n\u{7}";
        assert_eq!(
            selector("m", &[("host", hostile)]),
            "m{host=\"x\\\"} or vector(1) or {a=\\\"\\\\\\u000a\\u0007\"}"
        );
        assert_eq!(
            named_like("speedmimi_.+", &[("host_id", "\\")]),
            "{__name__=~\"speedmimi_.+\",host_id=\"\\\\\"}"
        );
    }

    #[test]
    fn a_step_does_not_take_the_sample_of_the_one_before() {
        assert_eq!(
            over_step("last_over_time", "m", 10),
            "last_over_time(m[9999ms])"
        );
    }
}

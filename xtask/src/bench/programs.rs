//! What the packet programs cost per packet, above a program that does nothing,
//! and how large all programs are.
//!
//! The example `cost` of the crate `bpf` measures it, as that crate alone loads the
//! programs: it runs each kind of packet through the kernel's own test run
//! (`BPF_PROG_TEST_RUN`), in turn with an empty program, and checks that exactly
//! these packets were counted.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Row;
use crate::{
    command::{output, run, step, timed},
    requirements,
    workspace::Workspace,
};

/// What the example prints.
#[derive(Debug, Deserialize)]
struct Cost {
    programs: Vec<Size>,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Size {
    name: String,
    verified_instructions: Option<u32>,
    instructions: Option<u32>,
    jited_bytes: u32,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    ns: Vec<f64>,
    above_empty_ns: Vec<f64>,
}

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, quick: bool) -> Result<Vec<Row>> {
    requirements::for_kernel_programs("cargo xtask bench programs")?;
    timed("building the measurement", || {
        let mut command = workspace.cargo();
        command.args(["build", "-p", "bpf", "--example", "cost"]);
        run(command.args(["--features", "cost"]))
    })?;
    step("running packets through the programs");
    let rounds = if quick { "4" } else { "100" };
    let mut command = std::process::Command::new(workspace.target().join("debug/examples/cost"));
    let text = output(command.args(["--rounds", rounds]))?;
    let cost = serde_json::from_str(&text).context("reading what was measured")?;
    Ok(rows(cost))
}

fn rows(cost: Cost) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |case: &str, metric, figures: Vec<f64>| {
        rows.extend(Row::of(case, metric, figures));
    };
    for case in cost.cases {
        add(&case.name, "ns_above_empty", case.above_empty_ns);
        add(&case.name, "ns_per_run", case.ns);
    }
    for size in cost.programs {
        let figures = [
            ("verified_instructions", size.verified_instructions),
            ("instructions", size.instructions),
            ("jited_bytes", Some(size.jited_bytes)),
        ];
        let case = format!("program {}", size.name);
        for (metric, figure) in figures {
            add(&case, metric, figure.map(f64::from).into_iter().collect());
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_a_row_and_what_the_kernel_does_not_tell_is_none() {
        let text = r#"{
            "programs": [{"name": "ingress", "verified_instructions": null,
                          "instructions": 7, "jited_bytes": 40}],
            "cases": [{"name": "ingress ACK", "ns": [17.0, 19.0, 18.0],
                       "above_empty_ns": [1.0, 3.0, 2.0]}]
        }"#;
        let rows = rows(serde_json::from_str(text).unwrap());
        let figures: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.case.as_str(),
                    row.metric,
                    row.quartiles.median,
                    row.rounds,
                )
            })
            .collect();
        assert_eq!(
            figures,
            [
                ("ingress ACK", "ns_above_empty", 2.0, 3),
                ("ingress ACK", "ns_per_run", 18.0, 3),
                ("program ingress", "instructions", 7.0, 1),
                ("program ingress", "jited_bytes", 40.0, 1),
            ]
        );
    }
}

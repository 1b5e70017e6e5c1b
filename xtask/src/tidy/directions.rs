//! Which crate may depend on which, so that each can be changed on its own.

use super::{Finding, Tree};

/// What each package may use of this repository; `tests` is of their tests alone, and
/// so are `budget` and `store` of the agent's, for the simulator.
const LOCAL: [(&str, &[&str]); 27] = [
    ("backend-load", &[]),
    ("bpf", &["daemon", "kernel-sample", "monitor-common"]),
    ("budget", &[]),
    ("cli", &["daemon", "monitor-proto", "problems"]),
    (
        "collector",
        &[
            "budget",
            "daemon",
            "export",
            "monitor-otlp",
            "monitor-proto",
            "problems",
            "query",
            "settings",
            "store",
            "tests",
        ],
    ),
    // Itself with its features on, for its tests.
    ("daemon", &["daemon"]),
    (
        "delivery",
        &["daemon", "monitor-otlp", "monitor-proto", "spool"],
    ),
    (
        "export",
        &[
            "budget",
            "daemon",
            "monitor-otlp",
            "monitor-proto",
            "rollup",
            "store",
        ],
    ),
    ("host-metrics", &["monitor-proto"]),
    ("http1", &[]),
    ("kernel-sample", &["monitor-common"]),
    (
        "monitor-agent",
        &[
            "backend-load",
            "bpf",
            "budget",
            "daemon",
            "delivery",
            "host-metrics",
            "kernel-sample",
            "monitor-common",
            "monitor-otlp",
            "monitor-proto",
            "problems",
            "proxy-config",
            "settings",
            "spool",
            "store",
            "tests",
            "window",
        ],
    ),
    ("monitor-common", &[]),
    ("monitor-ebpf", &["monitor-common"]),
    ("monitor-otlp", &["daemon", "monitor-proto"]),
    ("monitor-proto", &[]),
    ("problems", &["monitor-proto"]),
    (
        "proxy",
        &[
            "backend-load",
            "daemon",
            "http1",
            "monitor-proto",
            "settings",
            "tests",
        ],
    ),
    ("proxy-config", &[]),
    (
        "query",
        &["budget", "daemon", "monitor-proto", "rollup", "store"],
    ),
    ("rollup", &["monitor-proto"]),
    ("settings", &["daemon"]),
    ("spool", &["daemon", "monitor-proto"]),
    ("store", &["budget", "daemon", "monitor-proto", "rollup"]),
    (
        "tests",
        &[
            "collector",
            "monitor-agent",
            "monitor-common",
            "monitor-otlp",
            "monitor-proto",
            "proxy",
        ],
    ),
    (
        "window",
        &[
            "host-metrics",
            "kernel-sample",
            "monitor-common",
            "monitor-proto",
            "proxy-config",
        ],
    ),
    // It runs the products as a user does; `tests` brings no product crate
    // into its build, for the library of `tests` depends on none.
    ("xtask", &["tests"]),
];

/// Crates without I/O, runtime and clock: their clippy.toml keeps the standard
/// library's out, and here they get none of others.
const PURE: [&str; 5] = [
    "http1",
    "monitor-common",
    "monitor-proto",
    "rollup",
    "window",
];
const RUNTIMES: [&str; 6] = ["axum", "hyper", "rusqlite", "rustix", "tokio", "tonic"];

/// Crates that load kernel programs, and who may use them.
const KERNEL_LOADERS: [&str; 3] = ["aya", "aya-log", "aya-obj"];
const KERNEL_USERS: [&str; 2] = ["bpf", "monitor-common"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in &tree.packages {
        let place = format!("{}/Cargo.toml", package.name);
        let Some((_, allowed)) = LOCAL.iter().find(|(name, _)| *name == package.name) else {
            found.push(Finding::new(
                place,
                "is a package that xtask/src/tidy/directions.rs does not know: say there what it may use",
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if dependency.local && !allowed.contains(&name) {
                found.push(Finding::new(
                    &place,
                    format!("may not depend on {name}; it may use {allowed:?}"),
                ));
            }
            let runtime = RUNTIMES.contains(&name) && !dependency.optional;
            if runtime && PURE.contains(&package.name.as_str()) {
                found.push(Finding::new(
                    &place,
                    format!("may not depend on {name}: the crate is pure"),
                ));
            }
            if !KERNEL_LOADERS.contains(&name) {
                continue;
            }
            if !KERNEL_USERS.contains(&package.name.as_str()) {
                found.push(Finding::new(
                    &place,
                    format!("may not depend on {name}: only the crate bpf speaks to the kernel"),
                ));
            } else if package.name == "monitor-common" && !dependency.optional {
                found.push(Finding::new(
                    &place,
                    format!("{name} must be optional, behind the feature `user`"),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_direction_is_found() {
        let tree = Tree::default()
            .with_package("proxy", &["./monitor-proto", "./collector"])
            .with_package("xtask", &["./monitor-proto"]);
        let found = check(&tree);
        assert_eq!(found.len(), 2);
        assert!(found[0].message.contains("collector"));
        assert_eq!(found[1].place, "xtask/Cargo.toml");
    }

    #[test]
    fn only_the_crate_bpf_loads_kernel_programs() {
        let tree = Tree::default()
            .with_package("collector", &["aya"])
            .with_package("bpf", &["aya", "aya-log"])
            .with_package("monitor-common", &["aya"]);
        let found = check(&tree);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].place, "collector/Cargo.toml");
        assert!(found[1].message.contains("optional"));
    }

    #[test]
    fn a_runtime_in_a_pure_crate_is_found() {
        let tree = Tree::default()
            .with_package("rollup", &["prost", "tokio"])
            .with_package("store", &["tokio"]);
        let found = check(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "rollup/Cargo.toml");
    }

    #[test]
    fn an_unknown_package_is_found() {
        let tree = Tree::default().with_package("new-crate", &[]);
        assert_eq!(check(&tree).len(), 1);
    }
}

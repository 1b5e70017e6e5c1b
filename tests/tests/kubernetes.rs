//! The Kubernetes manifests, as the schemas of Kubernetes and kustomize have them.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use libtest_mimic::{Arguments, Completion, Trial};

const MANIFESTS: [&str; 3] = ["namespace.yaml", "collector.yaml", "agent.yaml"];

fn main() -> ExitCode {
    let validator = "kubernetes-validate is missing: `cargo xtask test` installs it where pip can \
                     be had";
    let trials = vec![
        trial(
            "manifests_keep_the_schemas",
            find("kubernetes-validate").ok_or(validator),
            schemas,
        ),
        trial(
            "kustomize_builds_the_base",
            find("kubectl").ok_or("kubectl is missing"),
            kustomize,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, tool: Result<PathBuf, &'static str>, run: fn(&Path)) -> Trial {
    Trial::ignorable_test(name, move || match tool {
        Err(missing) => Ok(Completion::ignored_with(missing)),
        Ok(tool) => {
            run(&tool);
            Ok(Completion::Completed)
        }
    })
}

/// Where `cargo xtask test` puts a tool, else that of the PATH.
fn find(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(tools.join(name).join("bin"))
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/kubernetes")
}

fn validate(tool: &Path, file: &Path) -> Output {
    Command::new(tool)
        .arg("--strict")
        .arg(file)
        .output()
        .unwrap()
}

fn schemas(tool: &Path) {
    for name in MANIFESTS {
        let output = validate(tool, &directory().join(name));
        assert!(output.status.success(), "{output:?}");
    }
    // It would have said so.
    let agent = fs::read_to_string(directory().join("agent.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("agent.yaml");
    fs::write(&wrong, agent.replace("hostPID:", "hostPid:")).unwrap();
    let output = validate(tool, &wrong);
    assert!(!output.status.success(), "{output:?}");
}

/// All of it, in its namespace.
fn kustomize(tool: &Path) {
    let output = Command::new(tool)
        .arg("kustomize")
        .arg(directory())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let built = String::from_utf8(output.stdout).unwrap();
    let kinds: Vec<_> = built
        .lines()
        .filter_map(|line| line.strip_prefix("kind: "))
        .collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "Service",
            "PersistentVolumeClaim",
            "Deployment",
            "DaemonSet"
        ]
    );
    assert_eq!(built.matches("\n  namespace: speedmimi\n").count(), 4);
}

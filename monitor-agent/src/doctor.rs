//! `doctor`: everything that the agent needs of this machine, what works without
//! it, and what went uncounted so far.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use bpf::{
    self, Kernel, KernelError, PinnedTarget,
    doctor::{self, Check},
};
use kernel_sample::Target;
use rustix::thread::{CapabilitySet, capabilities};

use crate::{
    cli::PIN_DIR,
    control::{self, names_file},
    names::NamesFiles,
    target::{
        self, FOREIGN_ADVICE, Proxy, Roots, Running, TargetError, TargetRequest, UNIX_ADVICE,
    },
};

/// How many findings of a kind are shown.
const SHOWN_MAX: usize = 5;

/// Checks the kernel and what the targets are named by; and the targets
/// themselves, or those that are pinned where none are asked for.
///
/// # Errors
/// Where a target that was asked for is none.
pub fn checks(pin_dir: &Path, request: &TargetRequest) -> Result<Vec<Check>, TargetError> {
    let mut checks = doctor::checks(pin_dir);
    let roots = Roots::detect();
    checks.push(cgroup2(roots.as_ref().ok()));
    checks.extend([namespaces(), jit(), pressure()]);
    let pinned = Kernel::open_pinned(pin_dir);
    if let Ok(roots) = &roots {
        let targets = match (target::resolve(request, roots), &pinned) {
            (Err(TargetError::Nothing), Ok(kernel)) => roots.of_labels(&kernel.targets()),
            (Err(TargetError::Nothing), Err(_)) => Vec::new(),
            (resolved, _) => {
                let resolved = resolved?;
                checks.extend(resolved.awaited.iter().map(|missing| {
                    let advice = "`run` waits for it, and watches the others meanwhile";
                    check("target", false, missing.to_string(), advice)
                }));
                resolved.targets
            }
        };
        checks.push(proxies(&target::proxies(roots)));
        checks.push(containers(
            &target::running(roots),
            &target::unreadable(&roots.host),
        ));
        checks.push(listeners(&targets, roots));
        checks.push(unix(&targets, roots));
    }
    // Of what may not be read nothing can be told.
    if !matches!(pinned, Err(KernelError::Denied { .. })) {
        checks.push(watchers(&bpf::pinned(pin_dir), pin_dir));
    }
    checks.push(losses(&pinned));
    Ok(checks)
}

fn check(name: &'static str, ok: bool, detail: impl Into<String>, advice: &str) -> Check {
    Check {
        name,
        ok,
        required: false,
        detail: detail.into(),
        advice: if ok { String::new() } else { advice.to_owned() },
    }
}

fn cgroup2(roots: Option<&Roots>) -> Check {
    let detail = roots.map_or("not mounted".to_owned(), |roots| {
        format!("mounted at {}", roots.cgroup.display())
    });
    let advice = "mount -t cgroup2 none /sys/fs/cgroup/unified";
    Check {
        required: true,
        ..check("cgroup2", roots.is_some(), detail, advice)
    }
}

fn namespaces() -> Check {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
    let ok = capabilities(None).is_ok_and(|c| c.effective.contains(needed));
    let detail = if ok {
        "sockets of other network namespaces can be read; a running agent does so where there were \
         some at its start, or with --network-namespaces"
    } else {
        "all is counted, but sockets of other network namespaces are not shown one by one"
    };
    let advice = "for containers: CAP_SYS_ADMIN and CAP_SYS_PTRACE";
    check("namespaces", ok, detail, advice)
}

fn jit() -> Check {
    let setting = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    let off = setting.is_ok_and(|text| text.trim() == "0");
    let detail = if off {
        "off: all works, at several times the cost"
    } else {
        "on"
    };
    check("jit", !off, detail, "sysctl net.core.bpf_jit_enable=1")
}

fn pressure() -> Check {
    let ok = Path::new("/proc/pressure/cpu").exists();
    let detail = if ok {
        "pressure stall information is there"
    } else {
        "reports are without pressure; all else works"
    };
    let advice = "the kernel needs CONFIG_PSI, and psi=1 on its command line";
    check("pressure", ok, detail, advice)
}

/// The proxies that `run --auto` finds, and why it does not watch one.
fn proxies(found: &[Proxy]) -> Check {
    let refused: Vec<_> = found.iter().filter(|p| p.refused.is_some()).collect();
    let detail = match (found, refused.as_slice()) {
        ([], _) => "none runs".to_owned(),
        (all, []) => format!(
            "`run --auto` watches: {}",
            shown(all.iter().map(ToString::to_string))
        ),
        (_, some) => format!(
            "not watched by `run --auto`: {}",
            shown(some.iter().map(ToString::to_string))
        ),
    };
    let advice = "what is told of each; `run --cgroup PATH` watches any cgroup";
    check("proxies", refused.is_empty(), detail, advice)
}

/// The containers that `--container` and `--pod` choose among.
fn containers(found: &[Running], unreadable: &[PathBuf]) -> Check {
    let named = found.iter().map(|one| {
        let id: String = one.id.chars().take(12).collect();
        let own = one.names.first().map_or("–", String::as_str);
        match one.pod.as_ref().and_then(|pod| pod.name.as_ref()) {
            Some((namespace, pod)) => format!("{own} of pod {namespace}/{pod} ({id})"),
            None => format!("{own} ({} {id})", one.runtime),
        }
    });
    let mut detail = match found {
        [] => "none runs".to_owned(),
        _ => shown(named),
    };
    let hidden = !found.is_empty() && !unreadable.is_empty();
    if hidden {
        let paths: Vec<_> = unreadable.iter().map(|p| p.display().to_string()).collect();
        detail += &format!("; names may not be read in {}", paths.join(", "));
    }
    let advice = "name them by their ids, or run as root with CAP_DAC_READ_SEARCH";
    check("containers", !hidden, detail, advice)
}

/// Listeners of the targets' processes that are not counted.
fn listeners(targets: &[Target], roots: &Roots) -> Check {
    let foreign = target::foreign_listeners(targets, roots);
    let detail = match (targets, foreign.as_slice()) {
        ([], _) => "nothing is watched; give --cgroup, --pid or --unit to check one".to_owned(),
        (_, []) => "all belong to the cgroups that are watched".to_owned(),
        (_, some) => shown(some.iter().map(ToString::to_string)),
    };
    check("listeners", foreign.is_empty(), detail, FOREIGN_ADVICE)
}

/// Unix sockets of the targets' processes, which nothing counts.
fn unix(targets: &[Target], roots: &Roots) -> Check {
    let (ok, detail) = match (targets, target::unix(targets, roots)) {
        ([], _) => (true, "nothing is watched".to_owned()),
        (_, Err(error)) => (false, format!("the kernel does not tell of them: {error}")),
        (_, Ok(some)) if some.is_empty() => (true, "the targets use none".to_owned()),
        (_, Ok(some)) => (false, shown(some.iter().map(ToString::to_string))),
    };
    check("unix sockets", ok, detail, UNIX_ADVICE)
}

/// Targets that are counted without an agent while one runs for others.  Where none
/// runs at all, counting goes on for the next one, as it should.
fn watchers(pinned: &[PinnedTarget], pin_dir: &Path) -> Check {
    let (held, free): (Vec<_>, Vec<_>) = pinned.iter().partition(|t| t.held);
    let labels = |targets: &[&PinnedTarget]| shown(targets.iter().map(|t| t.label.clone()));
    let detail = match (held.as_slice(), free.as_slice()) {
        ([], []) => "nothing is counted yet".to_owned(),
        ([], free) => format!("no agent runs; counted for the next one: {}", labels(free)),
        (held, []) => format!("watched: {}", labels(held)),
        (_, free) => format!("counted, but watched by no agent: {}", labels(free)),
    };
    let ok = held.is_empty() || free.is_empty();
    let free: Vec<_> = free.iter().map(|t| t.label.as_str()).collect();
    let advice = format!(
        "unless an agent is to come back for them: {}",
        removal(pin_dir, &free)
    );
    check("targets", ok, detail, &advice)
}

/// The command that removes these targets and no other.
#[must_use]
pub fn removal(pin_dir: &Path, labels: &[&str]) -> String {
    let mut command = "speedmimi-agent uninstall".to_owned();
    for label in labels {
        command += &format!(" --cgroup {}", quoted(label));
    }
    if pin_dir != Path::new(PIN_DIR) {
        command += &format!(" --pin-dir {}", quoted(&pin_dir.to_string_lossy()));
    }
    command
}

/// As a shell takes it for one word: a unit's name may hold backslashes.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@:".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How long `doctor` waits for hosts to be looked up.
const LOOKED_UP: Duration = Duration::from_secs(5);

/// The names in these configurations, or those of the running agent where none is
/// given.
#[must_use]
pub fn names(files: &NamesFiles, control_socket: &Path) -> Check {
    if files.paths().next().is_some() {
        let followed = files.follow();
        followed.settle(LOOKED_UP);
        return read(&followed.iter().map(names_file).collect::<Vec<_>>());
    }
    match control::ask(control_socket, "status") {
        Ok(status) => read(status["names"].as_array().map_or(&[], Vec::as_slice)),
        Err(_) => read(&[]),
    }
}

/// Judges what is known of configurations, in the form of `status`.
fn read(files: &[Value]) -> Check {
    let number = |file: &Value, key: &str| file[key].as_u64().unwrap_or(0);
    let (mut said, mut remarks) = (Vec::new(), Vec::new());
    let mut ok = true;
    for file in files {
        let (path, pending) = (&file["file"], number(file, "hosts_to_look_up"));
        let path = path.as_str().unwrap_or_default();
        let mut one = format!("{} of {path}", number(file, "names"));
        if pending > 0 {
            one += &format!(" ({pending} hosts are being looked up)");
        }
        ok &= file["problem"].is_null() && number(file, "hosts_unknown") == 0;
        said.push(file["problem"].as_str().map_or(one, str::to_owned));
        let own = file["remarks"].as_array().into_iter().flatten();
        remarks.extend(own.filter_map(Value::as_str).map(str::to_owned));
    }
    // What is wrong comes before what is merely to be known.
    said.append(&mut remarks);
    let detail = match said.as_slice() {
        [] => "of no configuration: endpoints are called by their addresses".to_owned(),
        _ => shown(said.into_iter()),
    };
    let advice = "mend the file or what it names; a running agent reads it again by itself";
    check("names", ok, detail, advice)
}

/// What the pinned maps say went uncounted.
fn losses(pinned: &Result<Kernel, KernelError>) -> Check {
    let check = |ok, detail: String, advice| check("losses", ok, detail, advice);
    let kernel = match pinned {
        Ok(kernel) => kernel,
        Err(KernelError::NoPins { .. }) => {
            return check(true, "nothing is counted yet".to_owned(), "");
        }
        Err(error) => {
            let advice = "what was lost until now is not known here";
            return check(false, error.to_string(), advice);
        }
    };
    let mut lost = kernel.losses();
    lost.retain(|(_, n)| *n > 0);
    let detail = match lost.as_slice() {
        [] => "none".to_owned(),
        some => shown(some.iter().map(|(reason, n)| format!("{reason} {n}"))),
    };
    let advice = "these events since counting began are missing from the figures";
    check(lost.is_empty(), detail, advice)
}

fn shown(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(SHOWN_MAX);
    let mut text = all.take(SHOWN_MAX).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text += &format!("; and {more} more");
    }
    text
}

/// The checks for people, one a line, and below it what to do.
#[must_use]
pub fn table(checks: &[Check]) -> String {
    let mut table = String::new();
    for check in checks {
        let mark = match (check.ok, check.required) {
            (true, _) => "ok",
            (false, true) => "FAILED",
            (false, false) => "missing",
        };
        table += &format!("{mark:<8} {:<14} {}\n", check.name, check.detail);
        if !check.advice.is_empty() {
            table += &format!("{:23} {}\n", "", check.advice);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_read_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (dir.path().join("good.conf"), dir.path().join("none.conf"));
        fs::write(&good, "http { upstream a { server 127.0.0.1:1; } }").unwrap();
        let nobody = dir.path().join("none.sock");
        let checked = |files: &[_]| names(&NamesFiles::new(files, &[]).unwrap(), &nobody);
        let fine = checked(std::slice::from_ref(&good));
        assert!(fine.ok && !fine.required, "{fine:?}");
        assert_eq!(fine.detail, format!("1 of {}", good.display()));
        let missing = checked(&[good, bad]);
        assert!(
            !missing.ok && missing.detail.contains("none.conf cannot be read"),
            "{missing:?}"
        );
        assert!(checked(&[]).ok);
        let variable = dir.path().join("variable.conf");
        fs::write(
            &variable,
            "server { location / { proxy_pass http://$host; } }",
        )
        .unwrap();
        let told = checked(&[variable]);
        assert!(told.ok && told.detail.contains("no constants"), "{told:?}");
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let many = (0..7).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(many.into_iter()), "0; 1; 2; 3; 4; and 2 more");
    }

    #[test]
    fn a_target_without_an_agent_is_named_with_the_command_that_removes_it() {
        let target = |label: &str, held| PinnedTarget {
            label: label.to_owned(),
            held,
        };
        let (a, b) = (target("/a", true), target(r"/b\x2d", false));
        let pin_dir = Path::new(PIN_DIR);
        let checked = watchers(&[a.clone(), b.clone()], pin_dir);
        assert!(!checked.ok && !checked.required);
        assert!(checked.detail.ends_with(r"no agent: /b\x2d"), "{checked:?}");
        let command = r"speedmimi-agent uninstall --cgroup '/b\x2d'";
        assert!(checked.advice.ends_with(command), "{checked:?}");
        for fine in [&[][..], &[a], &[b]] {
            assert!(watchers(fine, pin_dir).ok, "{fine:?}");
        }
        assert_eq!(
            removal(Path::new("/sys/fs/bpf/my pins"), &["/a", "/it's"]),
            r"speedmimi-agent uninstall --cgroup /a --cgroup '/it'\''s' --pin-dir '/sys/fs/bpf/my pins'"
        );
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let missing = check("x", false, "not there", "do this");
        let lines = table(&[missing, check("y", true, "there", "do this")]);
        let lines: Vec<Vec<&str>> = lines
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines,
            [
                vec!["missing", "x", "not", "there"],
                vec!["do", "this"],
                vec!["ok", "y", "there"]
            ]
        );
    }
}

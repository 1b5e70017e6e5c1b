//! `cargo xtask test --kernel IMAGE`: the kernel's tests in another kernel.
//!
//! The image is booted under qemu with an initramfs that holds busybox, the
//! test program and the libraries it needs.  Software emulation, so it runs
//! anywhere; the guest has no network but its loopback.

mod image;
mod initramfs;
mod machine;
mod qemu;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) use self::{image::Image, machine::test_units};
use self::{initramfs::Initramfs, qemu::Qemu};
use crate::{
    command::{output, timed},
    debian,
    packages::test_program,
    workspace::Workspace,
};

/// What the guest prints last, followed by the test program's exit code.
const END: &str = "guest: exit code ";

/// A guest that prints nothing for so long has stopped.  How long all may take depends on
/// what else this machine does.
const SILENCE: Duration = Duration::from_secs(1_800);

/// Lines that wait to be passed on at the most.
const LINES_WAITING_MAX: usize = 1_000;

const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet mitigations=off";

/// The guest's first program: mounts what the tests need, runs them, and ends.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
for module in /modules/*.ko; do [ -f "$module" ] && insmod "$module"; done
/test --color never FILTER </dev/null 2>&1
code=$?
echo
echo "guest: exit code $code"
poweroff -f
"#;

/// Boots an image and runs the kernel's tests in it; returns what they printed.
pub(crate) fn run_tests(
    workspace: &Workspace,
    image: &Image,
    object: Option<&Path>,
    filter: Option<&str>,
) -> Result<String> {
    if debian::is_debian() {
        debian::ensure_installed(&["xz-utils"])?;
    }
    let qemu = Qemu::find(workspace)?;
    let program = test_program(workspace, "kernel", object)?;
    let directory = workspace.target().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let initrd = directory.join("initramfs");
    let bytes = guest(&qemu, &program, image, filter)?;
    fs::write(&initrd, bytes).with_context(|| format!("writing {}", initrd.display()))?;
    timed(&format!("testing in Linux {}", image.version()), || {
        boot(&qemu, image, &initrd, 1024, COMMAND_LINE)
    })
}

fn guest(qemu: &Qemu, program: &Path, image: &Image, filter: Option<&str>) -> Result<Vec<u8>> {
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let filter = filter.unwrap_or_default();
    ensure!(is_name(filter), "{filter} is no part of a test's name");
    let mut initramfs = Initramfs::default();
    for directory in ["proc", "sys", "dev", "tmp", "modules"] {
        initramfs.directory(directory);
    }
    initramfs.file("init", INIT.replace("FILTER", filter).as_bytes());
    initramfs.copy("bin/busybox", &qemu.busybox())?;
    initramfs.copy("test", program)?;
    for library in libraries(&output(Command::new("ldd").arg(program))?) {
        initramfs.copy(library.trim_start_matches('/'), Path::new(library))?;
    }
    for (i, module) in image.modules()?.into_iter().enumerate() {
        initramfs.file(&format!("modules/{i}.ko"), &module);
    }
    Ok(initramfs.finish())
}

/// The paths that `ldd` names.
fn libraries(ldd: &str) -> Vec<&str> {
    ldd.lines()
        .filter_map(|line| {
            let path = line
                .split_once(" => ")
                .map_or(line, |(_, path)| path)
                .trim();
            path.starts_with('/')
                .then(|| path.split(' ').next().unwrap_or(path))
        })
        .collect()
}

/// Passes on what the guest prints, and returns it when the guest has come to its end.
fn boot(
    qemu: &Qemu,
    image: &Image,
    initrd: &Path,
    memory_mib: u32,
    command_line: &str,
) -> Result<String> {
    let mut child = qemu
        .command()?
        .args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"])
        .args(["-m", &memory_mib.to_string()])
        .args(["-nographic", "-no-reboot", "-net", "none"])
        .arg("-kernel")
        .arg(image.path())
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", command_line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the emulator")?;
    let stdout = child.stdout.take().context("the emulator has no stdout")?;
    let (lines, printed_lines) = mpsc::sync_channel(LINES_WAITING_MAX);
    thread::spawn(move || {
        let all = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        for line in all {
            let line = String::from_utf8_lossy(&line).replace('\r', "");
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut printed = String::new();
    loop {
        match printed_lines.recv_timeout(SILENCE) {
            Ok(line) => {
                println!("{line}");
                printed += &line;
                printed.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // `timeout` passes it on to the emulator.
                kill_process(Pid::from_child(&child), Signal::TERM)?;
                child.wait()?;
                bail!("the guest has printed nothing for {SILENCE:?}");
            }
        }
    }
    let status = child.wait()?;
    ensure!(
        printed.contains(END),
        "the guest did not come to its end, and the emulator ended with {status}"
    );
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let ldd = "\tlinux-vdso.so.1 (0x0000)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x0000)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x0000)\n\tlibgone.so => not found\n";
        assert_eq!(
            libraries(ldd),
            ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }
}

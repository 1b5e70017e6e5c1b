//! A Debian machine with systemd and the packages, for the tests of the units.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Image, boot, qemu::Qemu};
use crate::{
    command::{output, run, timed},
    debian, packages, rootfs,
    workspace::Workspace,
};

/// Runs the tests when the machine is up, and ends it.  Type=idle would wait for
/// jobs that wait for it.
const SERVICE: &str = r#"[Unit]
After=basic.target
[Service]
Environment=SPEEDMIMI_UNITS=1
ExecStart=/bin/sh -c '/usr/local/bin/units --color never >/dev/ttyS0 2>&1; echo "\nguest: exit code $?" >/dev/ttyS0; sleep 1; systemctl poweroff --force --force'
[Install]
WantedBy=multi-user.target
"#;

/// The test's output alone is on the console.  An emulated machine verifies kernel
/// programs for minutes, and the agent is ready after that.
const COMMAND_LINE: &str = "console=ttyS0 rdinit=/sbin/init panic=-1 quiet mitigations=off \
                            systemd.show_status=no \
                            systemd.default_timeout_start_sec=1800 systemd.mask=serial-getty@ttyS0.service \
                            systemd.mask=systemd-timesyncd.service";

/// What no test reads; the whole root file system is in the guest's memory.
const LEFT_OUT: [&str; 4] = [
    "usr/share/locale",
    "usr/share/doc",
    "usr/share/i18n",
    "var/lib/dpkg/info",
];

/// Boots it and returns what the tests printed; else why this machine cannot.
pub(crate) fn test_units(workspace: &Workspace) -> Result<Result<String, String>> {
    let root = match rootfs::of_debian(workspace)? {
        Ok(root) => root,
        Err(missing) => return Ok(Err(missing)),
    };
    let Some(image) = Image::of_debian(workspace)? else {
        return Ok(Err("there is no kernel image to be had".to_owned()));
    };
    debian::ensure_installed(&["cpio", "kmod"])?;
    let qemu = Qemu::find(workspace)?;
    let directory = workspace.target().join("vm");
    let built = directory.join("packages");
    packages::build_dev(workspace, &built, &workspace.version()?, false)?;
    let program = packages::test_program(workspace, "units", None)?;
    let machine = directory.join("machine");
    let initrd = directory.join("machine.cpio");
    timed("installing the packages in a machine", || {
        install(&root, &machine, &built, &program)?;
        modules(&image, &machine)?;
        pack(&machine, &initrd)
    })?;
    timed(
        &format!("booting the machine with Linux {}", image.version()),
        || boot(&qemu, &image, &initrd, 3072, COMMAND_LINE),
    )
    .map(Ok)
}

fn install(root: &Path, machine: &Path, built: &Path, program: &Path) -> Result<()> {
    if machine.exists() {
        fs::remove_dir_all(machine).context("removing the machine before")?;
    }
    run(Command::new("cp").arg("-a").arg(root).arg(machine))?;
    let packages = machine.join("packages");
    fs::create_dir(&packages)?;
    for entry in fs::read_dir(built)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            fs::copy(&path, packages.join(path.file_name().unwrap_or_default()))?;
        }
    }
    let install = "dpkg --install /packages/*.deb && rm -r /packages";
    output(chroot(machine, install).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let to = machine.join("usr/local/bin/units");
    output(Command::new("strip").arg("-o").arg(to).arg(program))?;
    fs::write(machine.join("etc/systemd/system/units.service"), SERVICE)?;
    output(&mut chroot(machine, "systemctl enable units.service"))?;
    for path in LEFT_OUT {
        fs::remove_dir_all(machine.join(path)).ok();
    }
    Ok(())
}

fn chroot(root: &Path, script: &str) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(["/bin/sh", "-euc", script]);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// The kernel's modules, which it loads itself where it wants one.
fn modules(image: &Image, machine: &Path) -> Result<()> {
    let version = image.version();
    let from = image
        .module_directory()
        .context("the kernel has no modules")?;
    let to = machine.join("lib/modules");
    fs::create_dir_all(&to)?;
    run(Command::new("cp").arg("-a").arg(from).arg(&to))?;
    run(Command::new("depmod").arg("-b").arg(machine).arg(version))
}

/// As an initramfs, from which the kernel starts systemd.
fn pack(machine: &Path, to: &Path) -> Result<()> {
    let script = "cd \"$0\"; find . -print0 | cpio --quiet --null --create --format=newc >\"$1\"";
    run(Command::new("sh")
        .args(["-euc", script])
        .args([machine, to]))
}

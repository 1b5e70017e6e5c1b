//! `cargo xtask build-ebpf`: the kernel programs and the object that is
//! committed, so that building the agent needs stable Rust alone.

mod compiler;
mod linker;
mod stamp;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

pub(crate) use self::stamp::check;
use self::{compiler::Compiler, stamp::Stamp};
use crate::{
    command::{run, step},
    workspace::Workspace,
};

/// The committed object, below the root.
const PREBUILT: &str = "monitor-ebpf/prebuilt/speedmimi.bpf.o";

/// `cargo xtask build-ebpf`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build nothing: fail where the committed object is older than its sources.
    #[arg(long)]
    check: bool,
    /// Write the object here and leave the committed one alone.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    object: Option<PathBuf>,
    /// Lint the kernel programs too; a warning is a failure.
    #[arg(long, conflicts_with = "check")]
    lint: bool,
    /// Use rustup's nightly, as other distributions do, on Debian too.
    #[arg(long, conflicts_with = "check")]
    nightly: bool,
}

/// Runs the command.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.check {
        return check(workspace.root());
    }
    let compiler = Compiler::prepare(workspace, args.nightly)?;
    if args.lint {
        lint(workspace, &compiler)?;
    }
    let built = build(workspace, &compiler)?;
    match &args.object {
        Some(object) => install(&built, object),
        None => {
            install(&built, &workspace.path(PREBUILT))?;
            let stamp = Stamp::of(workspace.root(), &compiler.version()?)?;
            stamp.write(workspace.root())
        }
    }
}

/// Builds and lints, for `ci`: returns the freshly built object.
pub(crate) fn build_fresh(workspace: &Workspace) -> Result<PathBuf> {
    let compiler = Compiler::prepare(workspace, false)?;
    lint(workspace, &compiler)?;
    let built = build(workspace, &compiler)?;
    let object = workspace.target().join("bpf/speedmimi.bpf.o");
    install(&built, &object)?;
    Ok(object)
}

fn build(workspace: &Workspace, compiler: &Compiler) -> Result<PathBuf> {
    let linker = linker::ensure(workspace, compiler)?;
    step("building the kernel programs");
    run(compiler.cargo(workspace, "build")?.env(
        "PATH",
        format!(
            "{}:{}",
            linker.display(),
            std::env::var("PATH").unwrap_or_default()
        ),
    ))?;
    let product = compiler.product(workspace);
    strip(&product, compiler.llvm()?)?;
    Ok(product)
}

/// Leaves DWARF out, which nothing reads: five sixths of the object.  BTF stays.
fn strip(object: &Path, llvm: u32) -> Result<()> {
    let tool = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-objcopy"));
    if !tool.exists() {
        step("llvm-objcopy is not there: the object keeps its debug information");
        return Ok(());
    }
    run(Command::new(tool).arg("--strip-debug").arg(object))
}

fn lint(workspace: &Workspace, compiler: &Compiler) -> Result<()> {
    step("linting the kernel programs");
    run(compiler
        .cargo(workspace, "clippy")?
        .args(["--", "-D", "warnings"]))
}

fn install(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    ensure!(
        is_bpf(&bytes),
        "{} is not an ELF object for BPF",
        built.display()
    );
    if let Some(directory) = object.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    // Renamed into place, so that a build of the agent never reads half of it.
    let temporary = object.with_extension("new");
    fs::write(&temporary, &bytes).with_context(|| format!("writing {}", temporary.display()))?;
    fs::rename(&temporary, object).with_context(|| format!("writing {}", object.display()))?;
    eprintln!("    {} ({} bytes)", object.display(), bytes.len());
    Ok(())
}

/// An ELF file whose machine is `EM_BPF` (247).
fn is_bpf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") && bytes.get(18..20) == Some(&[247, 0])
}

#[cfg(test)]
mod tests {
    use super::is_bpf;

    #[test]
    fn only_bpf_objects_are_installed() {
        let mut elf = [0_u8; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[18] = 62;
        assert!(!is_bpf(&elf), "x86-64 is not BPF");
        elf[18] = 247;
        assert!(is_bpf(&elf));
        assert!(!is_bpf(b"\x7fELF"));
    }
}

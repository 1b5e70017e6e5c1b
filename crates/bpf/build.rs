//! Puts the kernel programs' object where `src/object.rs` includes it.
//!
//! The committed one, so that building the agent needs stable Rust alone, or
//! the one that `SPEEDMIMI_BPF_OBJECT` names.

use std::{env, error::Error, fs, path::PathBuf};

const VARIABLE: &str = "SPEEDMIMI_BPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let prebuilt = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?)
        .join("../../monitor-ebpf/prebuilt/speedmimi.bpf.o");
    let object = env::var_os(VARIABLE).map_or(prebuilt, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| {
        format!(
            "{}: {error}; `cargo xtask build-ebpf` makes it",
            object.display()
        )
    })?;
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("speedmimi.bpf.o"),
        bytes,
    )?;
    Ok(())
}

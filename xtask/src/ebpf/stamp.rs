//! The stamp beside the committed object: a hash of everything it is made of.
//!
//! The compiler is named in it for information and is no part of the hash:
//! distributions move their compiler, and the object in use stays valid.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// Where it lies, below the root.
const PATH: &str = "monitor-ebpf/prebuilt/STAMP";

/// What the object is made of, below the root; files or whole directories.
const SOURCES: [&str; 6] = [
    "monitor-common/Cargo.toml",
    "monitor-common/src",
    "monitor-ebpf/.cargo",
    "monitor-ebpf/Cargo.lock",
    "monitor-ebpf/Cargo.toml",
    "monitor-ebpf/src",
];

/// The stamp of the sources as they are.
#[derive(Debug)]
pub(super) struct Stamp {
    sources: String,
    compiler: String,
}

impl Stamp {
    pub(super) fn of(root: &Path, compiler: &str) -> Result<Self> {
        Ok(Self {
            sources: hash(root)?,
            compiler: compiler.to_owned(),
        })
    }

    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let text = format!(
            "sources sha256:{}\ncompiler {}\n",
            self.sources, self.compiler
        );
        fs::write(root.join(PATH), text).with_context(|| format!("writing {PATH}"))
    }
}

/// Fails where the committed object was not made of the sources as they are.
pub(crate) fn check(root: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(root.join(PATH)) else {
        bail!("{PATH} is missing; run `cargo xtask build-ebpf` and commit monitor-ebpf/prebuilt");
    };
    let stamped = text
        .lines()
        .find_map(|line| line.strip_prefix("sources sha256:"))
        .with_context(|| format!("{PATH} has no line `sources sha256:`"))?;
    if stamped != hash(root)? {
        bail!(
            "the committed kernel object is older than its sources; \
             run `cargo xtask build-ebpf` and commit monitor-ebpf/prebuilt"
        );
    }
    Ok(())
}

/// Over every file in the order of its path: its path, its length, its bytes.
fn hash(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(bytes.len().to_le_bytes());
        hash.update(&bytes);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
            collect(&entry?.path(), files)?;
        }
    } else if path.exists() {
        files.push(path.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for directory in [
            "monitor-ebpf/src",
            "monitor-ebpf/prebuilt",
            "monitor-common/src",
        ] {
            fs::create_dir_all(tree.path().join(directory)).unwrap();
        }
        fs::write(tree.path().join("monitor-ebpf/src/main.rs"), "one").unwrap();
        fs::write(tree.path().join("monitor-common/src/lib.rs"), "two").unwrap();
        tree
    }

    #[test]
    fn a_fresh_stamp_passes_and_any_change_makes_it_stale() {
        let tree = tree();
        let root = tree.path();
        Stamp::of(root, "rustc 1").unwrap().write(root).unwrap();
        check(root).unwrap();

        fs::write(root.join("monitor-common/src/lib.rs"), "three").unwrap();
        let error = check(root).unwrap_err().to_string();
        assert!(error.contains("cargo xtask build-ebpf"), "{error}");
    }

    #[test]
    fn a_new_file_and_a_renamed_file_make_it_stale() {
        let tree = tree();
        let root = tree.path();
        let before = hash(root).unwrap();
        let main = root.join("monitor-ebpf/src/main.rs");
        fs::rename(&main, main.with_file_name("other.rs")).unwrap();
        let renamed = hash(root).unwrap();
        assert_ne!(before, renamed);
        fs::write(&main, "").unwrap();
        assert_ne!(renamed, hash(root).unwrap());
    }

    #[test]
    fn the_compiler_is_no_part_of_it() {
        let tree = tree();
        let root = tree.path();
        Stamp::of(root, "rustc 1").unwrap().write(root).unwrap();
        let text = fs::read_to_string(root.join(PATH)).unwrap();
        fs::write(root.join(PATH), text.replace("rustc 1", "rustc 2")).unwrap();
        check(root).unwrap();
    }

    #[test]
    fn a_missing_stamp_says_what_to_run() {
        let tree = tree();
        let error = check(tree.path()).unwrap_err().to_string();
        assert!(error.contains("cargo xtask build-ebpf"), "{error}");
    }
}

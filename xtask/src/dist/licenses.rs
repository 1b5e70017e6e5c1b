//! The licenses of the crates that a package's programs are linked from: most of them
//! are to be given with the programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::sbom::{Linked, ROOTS};

/// How the names of files with licenses begin, in capitals.
const BEGINNINGS: [&str; 6] = [
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

/// What the file of each package is called.
const FILE: &str = "third-party-licenses";

/// Writes `PACKAGE/third-party-licenses` of each package below a directory.
pub(super) fn write(metadata: &Value, directory: &Path) -> Result<()> {
    for (package, roots) in ROOTS {
        let linked = Linked::from(metadata, roots);
        let linked =
            linked.with_context(|| format!("cargo metadata does not describe {package}"))?;
        let text = text(package, linked.crates())?;
        let directory = directory.join(package);
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        fs::write(directory.join(FILE), text).with_context(|| format!("writing {FILE}"))?;
    }
    Ok(())
}

/// Every text once, after the crates that have it.
fn text<'a>(package: &str, crates: impl Iterator<Item = &'a Value>) -> Result<String> {
    let mut list = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in crates.filter(|one| !one["source"].is_null()) {
        let field = |name: &str| one[name].as_str().unwrap_or_default();
        let name = format!("{} {}", field("name"), field("version"));
        list += &format!("{name}: {}\n", field("license"));
        let manifest = Path::new(field("manifest_path"));
        let directory = manifest.parent().context("a manifest has no directory")?;
        for license in licenses(directory)? {
            texts.entry(license).or_default().insert(name.clone());
        }
    }
    let mut all = format!(
        "The programs of {package} are linked from these crates, under these licenses:\n\n{list}"
    );
    let mut sections: Vec<(String, String)> = texts
        .into_iter()
        .map(|(text, names)| (names.into_iter().collect::<Vec<_>>().join("\n"), text))
        .collect();
    sections.sort();
    for (names, text) in sections {
        all += &format!("\n{}\n{names}\n\n{text}\n", "-".repeat(79));
    }
    Ok(all)
}

/// The texts that lie beside a manifest.
fn licenses(directory: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_ascii_uppercase();
        if entry.path().is_file() && BEGINNINGS.iter().any(|start| name.starts_with(start)) {
            let bytes = fs::read(entry.path())?;
            let text = String::from_utf8_lossy(&bytes).replace('\r', "");
            texts.push(text.trim_matches('\n').to_owned());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_there_once_and_names_every_crate_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let package = |name: &str, files: &[(&str, &str)]| {
            let directory = dir.path().join(name);
            fs::create_dir(&directory).unwrap();
            for (file, text) in files {
                fs::write(directory.join(file), text).unwrap();
            }
            json!({
                "name": name, "version": "1.0.0", "license": "MIT", "source": "registry",
                "manifest_path": directory.join("Cargo.toml"),
            })
        };
        let crates = [
            package("a", &[("LICENSE-MIT", "may be used\n"), ("README", "no")]),
            package("b", &[("license.md", "may be used\r\n")]),
            package("c", &[]),
        ];
        let text = text("p", crates.iter()).unwrap();
        assert_eq!(text.matches("may be used").count(), 1);
        assert!(
            text.contains("\na 1.0.0\nb 1.0.0\n\nmay be used\n"),
            "{text}"
        );
        assert!(text.contains("\nc 1.0.0: MIT\n"), "{text}");
        assert!(!text.contains("no\n"), "{text}");
    }
}

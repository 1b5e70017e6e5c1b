//! The tree as the rules see it: its text files and its packages.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    command::output,
    workspace::{self, Workspace},
};

/// Text files by their path below the root, and the packages.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(super) files: BTreeMap<String, String>,
    pub(super) packages: Vec<Package>,
}

/// A package and what its manifest depends on.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// A direct dependency, of any kind.
#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Of this repository.
    pub(super) local: bool,
    pub(super) optional: bool,
}

impl Tree {
    /// What git knows or would add, and what cargo says of the manifests.
    pub(crate) fn read(workspace: &Workspace) -> Result<Self> {
        let list = output(
            Command::new("git")
                .args(["ls-files", "--cached", "--others", "--exclude-standard"])
                .current_dir(workspace.root()),
        )
        .context("tidy looks at the files that git knows")?;
        let mut files = BTreeMap::new();
        for name in list.lines() {
            // What is deleted and not yet committed, and what is no text, is
            // no matter of any rule.
            if let Ok(text) = fs::read_to_string(workspace.path(name)) {
                files.insert(name.to_owned(), text);
            }
        }
        let mut packages = packages(workspace.metadata());
        packages.extend(kernel_package(workspace)?);
        Ok(Self { files, packages })
    }

    /// The Rust files, without generated ones.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&String, &String)> {
        self.files
            .iter()
            .filter(|(name, _)| name.ends_with(".rs") && !name.contains("/generated/"))
    }
}

/// monitor-ebpf is no member of the workspace.
fn kernel_package(workspace: &Workspace) -> Result<Vec<Package>> {
    let manifest = workspace.path("monitor-ebpf/Cargo.toml");
    let text = output(
        workspace::cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .arg("--manifest-path")
            .arg(manifest),
    )?;
    Ok(packages(&serde_json::from_str(&text)?))
}

fn packages(metadata: &Value) -> Vec<Package> {
    array(&metadata["packages"])
        .map(|package| Package {
            name: string(&package["name"]),
            dependencies: array(&package["dependencies"])
                .map(|dependency| Dependency {
                    name: string(&dependency["name"]),
                    local: dependency["path"].is_string(),
                    optional: dependency["optional"] == true,
                })
                .collect(),
        })
        .collect()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
impl Tree {
    /// A tree of these files alone.
    pub(super) fn of_files(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            packages: Vec::new(),
        }
    }

    /// Adds a package; a name that starts with `./` is of this repository.
    pub(super) fn with_package(mut self, name: &str, dependencies: &[&str]) -> Self {
        self.packages.push(Package {
            name: name.to_owned(),
            dependencies: dependencies
                .iter()
                .map(|dependency| Dependency {
                    name: dependency.trim_start_matches("./").to_owned(),
                    local: dependency.starts_with("./"),
                    optional: false,
                })
                .collect(),
        });
        self
    }
}

//! Bills of materials: the crates that each package's programs are linked from, as
//! `CycloneDX` 1.6.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Release;
use crate::{command::output, workspace::Workspace};

/// The crates of each package.
pub(super) const ROOTS: [(&str, &[&str]); 3] = [
    ("speedmimi-agent", &["monitor-agent"]),
    ("speedmimi-collector", &["collector", "cli"]),
    ("speedmimi-proxy", &["proxy"]),
];

/// What cargo knows of the crates of this machine's platform.
pub(super) fn metadata(workspace: &Workspace) -> Result<Value> {
    let mut metadata = workspace.cargo();
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    metadata.args(["--filter-platform", &host(workspace)?]);
    Ok(serde_json::from_str(&output(&mut metadata)?)?)
}

/// Writes one beside each package.
pub(super) fn write(workspace: &Workspace, release: &Release, metadata: &Value) -> Result<()> {
    let lock = fs::read_to_string(workspace.path("Cargo.lock")).context("reading Cargo.lock")?;
    let sums = checksums(&lock);
    for (package, roots) in ROOTS {
        let bom = bill(metadata, &sums, package, roots, &release.version);
        let bom = bom.with_context(|| format!("cargo metadata does not describe {package}"))?;
        let name = format!("{package}-{}.cdx.json", release.version);
        let text = format!("{}\n", serde_json::to_string_pretty(&bom)?);
        fs::write(release.out.join(&name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn host(workspace: &Workspace) -> Result<String> {
    let version = output(workspace.cargo().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("cargo names no host")
}

/// The checksums of `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let quoted = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        value.strip_suffix('"').map(str::to_owned)
    };
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let find = |key| package.lines().find_map(|line| quoted(line, key));
        if let (Some(name), Some(version), Some(sum)) =
            (find("name"), find("version"), find("checksum"))
        {
            sums.insert((name, version), sum);
        }
    }
    sums
}

/// The crates that programs are linked from.
pub(super) struct Linked {
    /// What cargo says of each crate, by its id.
    packages: BTreeMap<String, Value>,
    /// Those of the programs themselves.
    roots: Vec<String>,
    /// Of each linked crate those that it is linked with.
    on: BTreeMap<String, BTreeSet<String>>,
}

impl Linked {
    /// `None` where the metadata lacks something that cargo always writes.
    pub(super) fn from(metadata: &Value, roots: &[&str]) -> Option<Self> {
        let by_id = |list: &Value| -> Option<BTreeMap<String, Value>> {
            let list = list.as_array()?.iter();
            list.map(|one| Some((one["id"].as_str()?.to_owned(), one.clone())))
                .collect()
        };
        let packages = by_id(&metadata["packages"])?;
        let nodes = by_id(&metadata["resolve"]["nodes"])?;
        let roots: Vec<String> = packages
            .iter()
            .filter(|(_, p)| p["source"].is_null() && roots.iter().any(|root| p["name"] == *root))
            .map(|(id, _)| id.clone())
            .collect();
        let mut on = BTreeMap::new();
        let mut open = roots.clone();
        while let Some(id) = open.pop() {
            if let Entry::Vacant(place) = on.entry(id) {
                let linked = linked(nodes.get(place.key())?)?;
                open.extend(linked.iter().cloned());
                place.insert(linked);
            }
        }
        Some(Self {
            packages,
            roots,
            on,
        })
    }

    /// What cargo says of each linked crate.
    pub(super) fn crates(&self) -> impl Iterator<Item = &Value> {
        self.on.keys().filter_map(|id| self.packages.get(id))
    }
}

/// `None` where the metadata lacks something that cargo always writes.
fn bill(
    metadata: &Value,
    sums: &BTreeMap<(String, String), String>,
    package: &str,
    roots: &[&str],
    version: &str,
) -> Option<Value> {
    let all = Linked::from(metadata, roots)?;
    let reference = |id: &String| purl(all.packages.get(id)?);
    let components: Option<Vec<Value>> = all.crates().map(|one| component(one, sums)).collect();
    let mut dependencies = vec![json!({
        "ref": package,
        "dependsOn": all.roots.iter().map(reference).collect::<Option<BTreeSet<_>>>()?,
    })];
    for (id, linked) in &all.on {
        let on: Option<BTreeSet<_>> = linked.iter().map(reference).collect();
        dependencies.push(json!({"ref": reference(id)?, "dependsOn": on?}));
    }
    Some(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "bom-ref": package,
            "name": package,
            "version": version,
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
        }},
        "components": components?,
        "dependencies": dependencies,
    }))
}

/// The ids of the crates that one is linked with, without those that only build it
/// or test it.
fn linked(node: &Value) -> Option<BTreeSet<String>> {
    let mut linked = BTreeSet::new();
    for dependency in node["deps"].as_array()? {
        let kinds = dependency["dep_kinds"].as_array()?;
        if kinds.iter().any(|kind| kind["kind"].is_null()) {
            linked.insert(dependency["pkg"].as_str()?.to_owned());
        }
    }
    Some(linked)
}

fn purl(package: &Value) -> Option<String> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    Some(format!("pkg:cargo/{name}@{version}"))
}

fn component(package: &Value, sums: &BTreeMap<(String, String), String>) -> Option<Value> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    let purl = purl(package)?;
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "purl": purl,
        "name": name,
        "version": version,
    });
    if let Some(license) = package["license"].as_str() {
        // Older manifests separate alternatives by a slash.
        let license = license.replace('/', " OR ");
        let license = license.split_whitespace().collect::<Vec<_>>().join(" ");
        component["licenses"] = json!([{"expression": license}]);
    }
    if let Some(sum) = sums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    Some(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_builds_or_tests_is_not() {
        let node = |id: &str, deps: &[(&str, Value)]| {
            let deps: Vec<_> = deps
                .iter()
                .map(|(id, kind)| json!({"pkg": id, "dep_kinds": [{"kind": kind}]}))
                .collect();
            json!({"id": id, "deps": deps})
        };
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "source": source, "license": "MIT/X11"});
        let metadata = json!({
            "packages": [
                package("a", Value::Null), package("b", json!("registry")),
                package("c", json!("registry")), package("d", json!("registry")),
            ],
            "resolve": {"nodes": [
                node("a", &[("b", Value::Null), ("d", json!("dev"))]),
                node("b", &[("c", json!("build"))]), node("c", &[]), node("d", &[]),
            ]},
        });
        let lock = "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n";
        let bom = bill(&metadata, &checksums(lock), "p", &["a"], "1.0.0").unwrap();
        let names = bom["components"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|c| c["purl"].as_str().unwrap()).collect();
        assert_eq!(names, ["pkg:cargo/a@1.0.0", "pkg:cargo/b@1.0.0"]);
        assert_eq!(bom["components"][1]["hashes"][0]["content"], "00ff");
        assert_eq!(
            bom["components"][1]["licenses"][0]["expression"],
            "MIT OR X11"
        );
        assert_eq!(
            bom["dependencies"][0]["dependsOn"],
            json!(["pkg:cargo/a@1.0.0"])
        );
    }
}

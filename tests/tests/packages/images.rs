//! The images, as an engine reads and runs them.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Built, Case, PACKAGES, root::names};

pub(crate) const CASES: &[Case] = &[(
    "images_hold_what_their_index_names_and_run_as_their_users",
    images,
)];

fn images(built: &Built) {
    for (package, user) in PACKAGES.into_iter().zip([0, 10_001, 10_001]) {
        image(built, package, user);
    }
}

fn image(built: &Built, package: &str, user: u32) {
    let all = names(&built.path("new"));
    let is_image = |name: &&String| name.starts_with(package) && name.ends_with(".oci.tar");
    let layout = unpacked(&built.path("new").join(all.iter().find(is_image).unwrap()));
    let index: Value = read_json(&layout.path().join("index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let manifest: Value = read_json(&blob(layout.path(), &index["manifests"][0]));
    let config: Value = read_json(&blob(layout.path(), &manifest["config"]));
    let settings = &config["config"];
    assert_eq!(settings["User"], format!("{user}:{user}"));
    assert_eq!(settings["Entrypoint"][0], format!("/usr/bin/{package}"));
    let labels = settings["Labels"].as_object().unwrap();
    for name in ["title", "description", "version", "created", "licenses"] {
        let label = &labels[&format!("org.opencontainers.image.{name}")];
        assert!(!label.as_str().unwrap().is_empty(), "{name}");
    }
    assert_eq!(manifest["annotations"], settings["Labels"]);

    let root = TempDir::with_prefix("speedmimi-image-").unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let plain = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(layers.len(), plain.len());
    for (layer, plain) in layers.iter().zip(plain) {
        let layer = blob(layout.path(), layer);
        let sum = printed(
            Command::new("sh")
                .args(["-euc", "zcat \"$0\" | sha256sum"])
                .arg(&layer),
        );
        let sum = sum.split(' ').next().unwrap();
        assert_eq!(plain.as_str().unwrap(), format!("sha256:{sum}"));
        printed(
            Command::new("tar")
                .args(["--extract", "--gzip", "--numeric-owner", "--same-owner"])
                .args(["--preserve-permissions", "--file"])
                .arg(&layer)
                .arg("--directory")
                .arg(root.path()),
        );
    }
    let version = printed(
        Command::new("chroot")
            .arg(format!("--userspec={user}:{user}"))
            .arg(root.path())
            .args([&format!("/usr/bin/{package}"), "--version"]),
    );
    assert!(version.starts_with(&format!("{package} ")), "{version}");
    let temporary = fs::metadata(root.path().join("tmp")).unwrap();
    assert_eq!(temporary.permissions().mode() & 0o7777, 0o1777);
    let state = settings["Volumes"].as_object().unwrap().keys().next();
    let state = root.path().join(state.unwrap().trim_start_matches('/'));
    let state = fs::metadata(state).unwrap();
    assert_eq!((state.uid(), state.gid()), (user, user));
    assert_eq!(state.permissions().mode() & 0o7777, 0o700);
    // Scanners take from these which packages of which release are in it.
    let release = fs::read_to_string(root.path().join("etc/os-release")).unwrap();
    assert!(release.contains("ID=debian"), "{release}");
    for library in ["libc6", "libgcc-s1"] {
        let described = root.path().join("var/lib/dpkg/status.d").join(library);
        let described = fs::read_to_string(described).unwrap();
        assert!(described.contains("\nVersion: "), "{described}");
        let license = root.path().join("usr/share/doc").join(library);
        assert!(license.join("copyright").exists(), "{license:?}");
    }
}

fn unpacked(archive: &Path) -> TempDir {
    let directory = TempDir::with_prefix("speedmimi-image-").unwrap();
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(archive);
    printed(tar.arg("--directory").arg(directory.path()));
    directory
}

/// The file of a descriptor, which has the size and the checksum that it says.
fn blob(layout: &Path, descriptor: &Value) -> std::path::PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    let digest = digest.strip_prefix("sha256:").unwrap();
    let path = layout.join("blobs/sha256").join(digest);
    assert_eq!(
        descriptor["size"].as_u64().unwrap(),
        fs::metadata(&path).unwrap().len()
    );
    let sum = printed(Command::new("sha256sum").arg(&path));
    assert!(sum.starts_with(digest), "{sum}");
    path
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

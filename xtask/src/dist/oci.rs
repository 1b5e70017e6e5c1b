//! Container images as OCI layouts, made of files: no engine is needed.
//!
//! Two layers: what the binaries need of Debian (its C library, certificates of
//! authorities, the database of time zones), the same in all images, and the package.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{PACKAGES, Release, reproducible};
use crate::{command::output, debian, workspace::Workspace};

const BASE: [&str; 6] = [
    "base-files",
    "ca-certificates",
    "libc6",
    "libgcc-s1",
    "netbase",
    "tzdata",
];

/// Of the base: nothing reads these in an image.
const LEFT_OUT: [&str; 6] = [
    "etc/update-motd.d",
    "usr/share/base-files",
    "usr/share/man",
    "usr/share/lintian",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/sbin/update-ca-certificates",
];

/// Accounts; the numbers are those that Kubernetes manifests name.
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
                      speedmimi:x:10001:10001:SpeedMimi:/var/lib/speedmimi:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nspeedmimi:x:10001:\n";

/// Names of /etc/hosts, which engines write, go before DNS.
const NAMES: &str = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n";

/// Where an image differs from the others.
struct Image {
    package: &'static str,
    description: &'static str,
    user: &'static str,
    command: &'static [&'static str],
    ports: &'static [&'static str],
    /// The directory that outlives a container, and is its user's.
    state: &'static str,
}

const IMAGES: [Image; 3] = [
    Image {
        package: PACKAGES[0],
        description: "Monitoring agent for reverse proxies",
        user: "0:0",
        command: &["run", "--config", "/etc/speedmimi/agent.toml"],
        ports: &[],
        state: "var/lib/speedmimi-agent",
    },
    Image {
        package: PACKAGES[1],
        description: "Collector of SpeedMimi agents' reports",
        user: "10001:10001",
        command: &["run", "--config", "/etc/speedmimi/collector.toml"],
        ports: &["7600/tcp", "7601/tcp"],
        state: "var/lib/speedmimi-collector",
    },
    Image {
        package: PACKAGES[2],
        description: "HTTP/1.1 reverse proxy without accounting in its request path",
        user: "10001:10001",
        command: &["run", "--config", "/etc/speedmimi/proxy.yaml"],
        ports: &["8080/tcp"],
        state: "var/lib/speedmimi-proxy",
    },
];

/// A blob of a layout.
struct Blob {
    digest: String,
    size: u64,
}

/// Writes the images, each as a layout in a tar file.
pub(super) fn write(workspace: &Workspace, release: &Release) -> Result<()> {
    let work = release.out.join("build/oci");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let base = base(workspace, release, &work)?;
    let revision = revision(workspace);
    for image in IMAGES {
        write_image(release, &work, &base, &image, revision.as_deref())
            .with_context(|| format!("making the image of {}", image.package))?;
    }
    Ok(())
}

fn write_image(
    release: &Release,
    work: &Path,
    base: &Path,
    image: &Image,
    revision: Option<&str>,
) -> Result<()> {
    let layout = work.join(image.package);
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    let top = tar(
        release,
        &package_tree(release, work, image)?,
        &work.join("top"),
        image,
    )?;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in [base, &top] {
        diff_ids.push(format!("sha256:{}", sha256(&fs::read(layer)?)));
        let blob = put(&layout, &gzip(release, layer)?)?;
        layers.push(descriptor(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &blob,
        ));
    }
    let created = created(release)?;
    let labels = labels(release, image, &created, revision);
    let ports: Value = image
        .ports
        .iter()
        .map(|port| ((*port).to_owned(), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let config = json!({
        "created": created,
        "architecture": release.architecture,
        "os": "linux",
        "config": {
            "User": image.user,
            "ExposedPorts": ports,
            "Entrypoint": [format!("/usr/bin/{}", image.package)],
            "Cmd": image.command,
            "Volumes": {format!("/{}", image.state): {}},
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(&layout, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers,
        "annotations": labels,
    });
    let manifest = put(&layout, manifest.to_string().as_bytes())?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": release.architecture, "os": "linux"});
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": release.version});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let Release {
        version,
        architecture,
        ..
    } = release;
    let name = format!("{}-{version}-{architecture}.oci.tar", image.package);
    archive(release, &layout, &release.out.join(name), &[])
}

/// What a registry shows of an image, by the names of the image specification.
fn labels(release: &Release, image: &Image, created: &str, revision: Option<&str>) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": image.package,
        "org.opencontainers.image.description": image.description,
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.vendor": "SpeedMimi",
    });
    if let Some(revision) = revision {
        labels["org.opencontainers.image.revision"] = revision.into();
    }
    labels
}

/// The commit that is built, where it is one.
fn revision(workspace: &Workspace) -> Option<String> {
    let git = |arguments: &[&str]| {
        output(
            Command::new("git")
                .current_dir(workspace.root())
                .args(arguments),
        )
        .ok()
    };
    let is_clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    is_clean.then(|| git(&["rev-parse", "HEAD"])).flatten()
}

/// The layer below: the same for every image of a release.
fn base(workspace: &Workspace, release: &Release, work: &Path) -> Result<PathBuf> {
    debian::update_lists_once()?;
    // Merged, as Debian's own is; the packages' files in /lib come to /usr/lib.
    let root = work.join("base");
    for directory in ["tmp", "etc/ssl/certs"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir_all(root.join("usr").join(name))?;
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    let unpacked = unpacked_base(workspace)?;
    // Through the links of the merged tree.
    output(
        Command::new("sh")
            .args([
                "-euc",
                "tar -C \"$0\" -cf - . | tar -C \"$1\" --keep-directory-symlink -xf -",
            ])
            .args([&unpacked, &root]),
    )?;
    for path in LEFT_OUT {
        let path = root.join(path);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
    }
    keep_copyrights(&root.join("usr/share/doc"))?;
    fs::write(
        root.join("etc/ssl/certs/ca-certificates.crt"),
        authorities(&root)?,
    )?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    fs::write(root.join("etc/nsswitch.conf"), NAMES)?;
    let layer = work.join("base.tar");
    archive(release, &root, &layer, &["--exclude", "./tmp"])?;
    append(release, &root, &layer, "tmp", "0:0", "1777")?;
    Ok(layer)
}

/// Debian's packages of the base in a directory, in the versions that apt offers now.
fn unpacked_base(workspace: &Workspace) -> Result<PathBuf> {
    let mut packages = BASE.map(str::to_owned).to_vec();
    // Which has the license of the compiler's library.
    let depends = output(Command::new("apt-cache").args(["depends", "libgcc-s1"]))?;
    packages.extend(compilers_base(&depends).map(str::to_owned));
    let mut urls = Command::new("apt-get");
    let urls = output(urls.args(["download", "--print-uris"]).args(&packages))?;
    let versions = sha256(urls.as_bytes());
    let unpacked = workspace.tools().join("oci-base").join(versions);
    if !unpacked.exists() {
        let partial = unpacked.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let described = partial.join("var/lib/dpkg/status.d");
        debian::unpack(&packages, &partial, Some(&described))?;
        fs::rename(&partial, &unpacked)?;
    }
    Ok(unpacked)
}

fn compilers_base(depends: &str) -> Option<&str> {
    let mut on = depends
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Depends: "));
    on.find(|package| package.starts_with("gcc-") && package.ends_with("-base"))
}

/// Of the documentation the licenses stay.
fn keep_copyrights(documentation: &Path) -> Result<()> {
    output(Command::new("find").arg(documentation).args([
        "-type",
        "f",
        "-not",
        "-name",
        "copyright",
        "-delete",
    ]))?;
    let empty = ["-type", "d", "-empty", "-delete"];
    output(Command::new("find").arg(documentation).args(empty)).map(drop)
}

/// All certificates in one file, as `update-ca-certificates` would make it.
fn authorities(root: &Path) -> Result<String> {
    let directory = root.join("usr/share/ca-certificates/mozilla");
    let files =
        fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    paths.sort();
    let mut all = String::new();
    for path in paths {
        fs::File::open(path)?.read_to_string(&mut all)?;
    }
    Ok(all)
}

/// The files of a package that an image needs.
fn package_tree(release: &Release, work: &Path, image: &Image) -> Result<PathBuf> {
    let root = work.join(format!("{}-root", image.package));
    fs::create_dir_all(root.join(image.state))?;
    let package = release
        .out
        .join("build/speedmimi/debian")
        .join(image.package);
    for part in ["usr/bin", "etc/speedmimi", "usr/share/doc"] {
        let to = root.join(part);
        fs::create_dir_all(to.parent().context("a part lies below the root")?)?;
        output(Command::new("cp").arg("-a").arg(package.join(part)).arg(to))?;
    }
    Ok(root)
}

/// The package's layer: the state belongs to the user.
fn tar(release: &Release, root: &Path, to: &Path, image: &Image) -> Result<PathBuf> {
    let layer = to.with_extension("tar");
    archive(
        release,
        root,
        &layer,
        &["--exclude", &format!("./{}", image.state)],
    )?;
    append(release, root, &layer, image.state, image.user, "0700")?;
    Ok(layer)
}

/// Adds a directory with an owner and rights of its own.
fn append(
    release: &Release,
    root: &Path,
    layer: &Path,
    directory: &str,
    owner: &str,
    mode: &str,
) -> Result<()> {
    let (user, group) = owner.split_once(':').unwrap_or((owner, "0"));
    let mut tar = Command::new("tar");
    tar.args([
        "--append",
        "--format=gnu",
        "--numeric-owner",
        "--no-recursion",
    ]);
    tar.args([&format!("--owner={user}"), &format!("--group={group}")]);
    tar.arg(format!("--mtime=@{}", release.epoch))
        .arg(format!("--mode={mode}"));
    tar.arg("-C").arg(root).arg("-f").arg(layer);
    reproducible(tar.arg(format!("./{directory}")), release)
}

/// A directory as a tar file that depends on its content alone.
fn archive(release: &Release, directory: &Path, to: &Path, more: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=gnu", "--sort=name", "--numeric-owner"]);
    tar.args(["--owner=0", "--group=0", "--mode=go-w"]);
    tar.arg(format!("--mtime=@{}", release.epoch)).args(more);
    tar.arg("-C").arg(directory).arg("-f").arg(to).arg(".");
    reproducible(&mut tar, release)
}

fn gzip(release: &Release, file: &Path) -> Result<Vec<u8>> {
    let level = if release.compression == "xz" {
        "-9"
    } else {
        "-1"
    };
    let made = Command::new("gzip").args(["-nc", level]).arg(file).output();
    Ok(made.context("compressing a layer by gzip")?.stdout)
}

fn put(layout: &Path, bytes: &[u8]) -> Result<Blob> {
    let digest = sha256(bytes);
    fs::write(layout.join("blobs/sha256").join(&digest), bytes)?;
    Ok(Blob {
        digest,
        size: bytes.len() as u64,
    })
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", blob.digest),
        "size": blob.size,
    })
}

fn created(release: &Release) -> Result<String> {
    let at = format!("@{}", release.epoch);
    output(Command::new("date").args(["--utc", "--date", &at, "+%Y-%m-%dT%H:%M:%SZ"]))
}

/// In hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Where a target's maps and links are pinned.

pub(crate) mod bpffs;
pub(crate) mod pinned;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use monitor_common::{LAYOUT_VERSION, meta::Meta};
use rustix::fs::{FlockOperation, flock};

use crate::{error::KernelError, object::maps, syscall};

/// How long a lock is waited for: who looks whether it is free has it meanwhile.
const LOCK_TRIES: usize = 5;
const LOCK_TRIED_EVERY: Duration = Duration::from_millis(10);

/// The pins of one target: a directory of its own below the layout's.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
}

/// The directory of this layout's pins.
pub(crate) fn layout_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{LAYOUT_VERSION}"))
}

/// Whether a path's last part is a prefix and then characters of one kind.
fn is_named(path: &Path, prefix: &str, is_of_the_kind: fn(char) -> bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(prefix));
    rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_of_the_kind))
}

/// What is in a directory, in order.
fn read(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = fs::read_dir(dir)?.flatten().map(|e| e.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The same; nothing where it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    read(dir).unwrap_or_default()
}

/// FNV-1a: stable, and short enough for a name.  A bpffs takes no dots in
/// names, so a path cannot be one.
fn hash(label: &str) -> u64 {
    label.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn unreadable(path: PathBuf, source: io::Error) -> KernelError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        KernelError::Denied { path, source }
    } else {
        KernelError::File {
            operation: "reading",
            path,
            source,
        }
    }
}

impl Pins {
    pub(crate) fn of(pin_dir: &Path, label: &str) -> Self {
        Self {
            dir: layout_dir(pin_dir).join(format!("target_{:016x}", hash(label))),
        }
    }

    /// All targets that are pinned.
    pub(crate) fn all(pin_dir: &Path) -> Result<Vec<Self>, KernelError> {
        let layout = layout_dir(pin_dir);
        match read(&layout) {
            Ok(dirs) => Ok(dirs.into_iter().map(|dir| Self { dir }).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(unreadable(layout, source)),
        }
    }

    /// The same in every layout; what else is in the directory is somebody else's.
    pub(crate) fn of_every_layout(pin_dir: &Path) -> Vec<Self> {
        let layouts = entries(pin_dir).into_iter();
        let layouts = layouts.filter(|dir| is_named(dir, "v", |c| c.is_ascii_digit()));
        let targets = layouts.flat_map(|dir| entries(&dir));
        targets
            .filter(|dir| is_named(dir, "target_", |c| c.is_ascii_hexdigit()))
            .map(|dir| Self { dir })
            .collect()
    }

    /// The same target's pins in other layouts.
    pub(crate) fn elsewhere(&self, pin_dir: &Path) -> Vec<Self> {
        let mut pins = Self::of_every_layout(pin_dir);
        pins.retain(|other| other.dir != self.dir && self.is_same_target(other));
        pins
    }

    /// Whether these are the same target's, in whatever layout.
    pub(crate) fn is_same_target(&self, other: &Self) -> bool {
        self.dir.file_name() == other.dir.file_name()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every pin of the target.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        entries(&self.dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory, which is then nobody else's.
    pub(crate) fn make(&self) -> Result<(), KernelError> {
        bpffs::make_dir(&self.dir)?;
        bpffs::make_private(&self.dir)
    }

    /// Keeps every other agent out of the directory for as long as the file lives.
    pub(crate) fn lock(&self, label: &str) -> Result<File, KernelError> {
        let file = File::open(&self.dir).map_err(|source| KernelError::File {
            operation: "opening",
            path: self.dir.clone(),
            source,
        })?;
        for _ in 0..LOCK_TRIES {
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(file);
            }
            sleep(LOCK_TRIED_EVERY);
        }
        Err(KernelError::Busy {
            label: label.to_owned(),
            path: self.dir.clone(),
        })
    }

    /// Whether an agent holds the target.
    pub(crate) fn is_held(&self) -> bool {
        let file = File::open(&self.dir);
        !file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
    }

    /// What an agent before this one left; `None` where it left nothing whole.
    pub(crate) fn meta(&self) -> Result<Option<Meta>, KernelError> {
        Ok(self.open_meta()?.and_then(|meta| meta.get(&0, 0).ok()))
    }

    fn open_meta(&self) -> Result<Option<Array<MapData, Meta>>, KernelError> {
        let fd = match syscall::obj_get(&self.path(maps::META)) {
            Ok(fd) => fd,
            // What cannot be looked at is there all the same.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(unreadable(self.dir.clone(), source));
            }
            Err(_) => return Ok(None),
        };
        let map = MapData::from_fd(fd).and_then(Map::from_map_data);
        Ok(map.and_then(Array::try_from).ok())
    }

    /// Writes what the next agent must know.
    pub(crate) fn write_meta(&self, meta: &Meta) -> Result<(), KernelError> {
        let failed = |operation| {
            move |source| KernelError::Map {
                operation,
                map: maps::META,
                source: Box::new(source),
            }
        };
        if let Some(mut array) = self.open_meta()? {
            return array.set(0, meta, 0).map_err(failed("writing"));
        }
        let mut array = Array::<MapData, Meta>::create(1, 0).map_err(failed("making"))?;
        array.set(0, meta, 0).map_err(failed("writing"))?;
        let path = self.path(maps::META);
        array.pin(&path).map_err(|source| KernelError::Pin {
            path,
            source: Box::new(source),
        })
    }

    /// Opens a pinned map.
    pub(crate) fn map(&self, name: &'static str) -> Result<MapData, KernelError> {
        MapData::from_pin(self.path(name)).map_err(|source| KernelError::Map {
            operation: "opening",
            map: name,
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_others_are_not_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let ours = ["v2/target_00ff", "v3/target_00ff", "v3/target_ab"];
        let others = [
            "v3/other",
            "vault/target_00ff",
            "v/target_00ff",
            "tc/globals",
        ];
        for name in ours.iter().chain(&others) {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        let found = Pins::of_every_layout(path).into_iter().map(|p| p.dir);
        assert_eq!(found.collect::<Vec<_>>(), ours.map(|name| path.join(name)));
    }

    #[test]
    fn targets_have_names_of_their_own_without_dots() {
        let a = Pins::of(Path::new("/pins"), "/system.slice/nginx.service");
        let b = Pins::of(Path::new("/pins"), "/system.slice/haproxy.service");
        assert_ne!(a.dir(), b.dir());
        assert!(!a.dir().to_str().unwrap().contains('.'));
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325, "FNV-1a's offset basis");
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c, "FNV-1a of a");
    }
}

//! Who this host is.

use std::{collections::BTreeMap, fs, io, path::Path};

use monitor_proto::v1;

/// What the host's id is derived for: another program that derives ids from the
/// same machine-id gets another one, as machine-id(5) asks for.
const ID_PURPOSE: &[u8] = b"speedmimi host id v1";

/// What is configured of a host in place of what the system says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// In place of `/etc/machine-id`.
    pub id: Option<String>,
    /// In place of `uname -n`.
    pub name: Option<String>,
    /// What the host's reports carry beside these.
    pub labels: BTreeMap<String, String>,
}

/// Describes this host.  Where no id is configured and there is no `/etc/machine-id`,
/// an id is made once and kept as `host-id` in `state_dir`.
///
/// # Errors
/// Where an id must be made and cannot be kept.
pub fn read(state_dir: &Path, configured: Configured) -> io::Result<v1::Host> {
    let id = match configured.id.or_else(own_id) {
        Some(id) => id,
        None => kept_id(&state_dir.join("host-id"))?,
    };
    let host = describe(id);
    Ok(v1::Host {
        name: configured.name.unwrap_or(host.name),
        labels: configured.labels,
        ..host
    })
}

/// Describes this host without keeping anything; its id is empty where there is
/// no `/etc/machine-id`.
#[must_use]
pub fn peek() -> v1::Host {
    describe(own_id().unwrap_or_default())
}

fn own_id() -> Option<String> {
    machine_id(&line(Path::new("/etc/machine-id")))
}

fn describe(id: String) -> v1::Host {
    let uname = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    v1::Host {
        id,
        name: uname.nodename().to_string_lossy().into_owned(),
        boot_id: boot_id(),
        kernel: uname.release().to_string_lossy().into_owned(),
        cores: configured_cores().unwrap_or_else(|| u32::try_from(cores).unwrap_or(u32::MAX)),
        labels: BTreeMap::new(),
    }
}

/// Which boot this is; empty where /proc does not say.
#[must_use]
pub fn boot_id() -> String {
    line(Path::new("/proc/sys/kernel/random/boot_id"))
}

fn machine_id(text: &str) -> Option<String> {
    let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| hex(&hmac_sha256::HMAC::mac(ID_PURPOSE, text.as_bytes())[..16]))
}

fn kept_id(path: &Path) -> io::Result<String> {
    let kept = line(path);
    if kept.len() == 32 && kept.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(kept);
    }
    let random: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    let id = hex(&random);
    fs::write(path, format!("{id}\n"))?;
    Ok(id)
}

/// The cores of the host, not those that this process may run on.
fn configured_cores() -> Option<u32> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    count_ranges(online.trim_end())
}

/// How many numbers a list such as `0-3,8` holds.
fn count_ranges(list: &str) -> Option<u32> {
    let mut count = 0u32;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

fn line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digits = |b: &u8| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]];
    bytes.iter().flat_map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_stable_and_not_the_machine_id() {
        let machine = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        let id = machine_id(machine).unwrap();
        assert_eq!(Some(&id), machine_id(machine).as_ref());
        assert_ne!(id, machine);
        assert_eq!(id.len(), 32);
        assert_eq!(machine_id("uninitialized"), None);
    }

    #[test]
    fn an_id_that_was_made_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host-id");
        let made = kept_id(&path).unwrap();
        assert_eq!(made, kept_id(&path).unwrap());
    }

    #[test]
    fn cores_are_counted() {
        assert_eq!(count_ranges("0-3,8"), Some(5));
        assert_eq!(count_ranges("0"), Some(1));
        assert_eq!(count_ranges("3-1"), None);
        assert_eq!(count_ranges(""), None);
    }
}

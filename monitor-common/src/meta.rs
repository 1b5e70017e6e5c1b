//! What an agent must know to go on with the maps of one before it.

/// How many bytes of a target's label are kept.
pub const LABEL_BYTES: usize = 256;

/// The one value of the map `META`, written last: where it is missing, the
/// other maps are not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// When counting began, by the wall clock.
    pub since_unix_ns: u64,
    /// The cgroup that the programs are attached to.
    pub cgroup_id: u64,
    /// How many CPUs the counters have a place for.
    pub cpus: u32,
    /// How many endpoints there can be.
    pub endpoints_max: u32,
    /// How many bytes of `label` are used.
    pub label_len: u32,
    /// How many times the level was changed; the programs know its lowest byte.
    pub level_changes: u32,
    /// The target's label.
    pub label: [u8; LABEL_BYTES],
}

const _: () = assert!(size_of::<Meta>() == 32 + LABEL_BYTES);

impl Meta {
    /// A target's, its label cut to [`LABEL_BYTES`] at a character's boundary.
    #[must_use]
    pub fn new(label: &str, since_unix_ns: u64, cgroup_id: u64) -> Self {
        let mut len = label.len().min(LABEL_BYTES);
        while !label.is_char_boundary(len) {
            len -= 1;
        }
        let mut bytes = [0; LABEL_BYTES];
        bytes[..len].copy_from_slice(&label.as_bytes()[..len]);
        Self {
            since_unix_ns,
            cgroup_id,
            cpus: 0,
            endpoints_max: 0,
            // At most LABEL_BYTES.
            label_len: len as u32,
            level_changes: 0,
            label: bytes,
        }
    }

    /// The target's label; `None` where the map does not hold one.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        let bytes = self.label.get(..usize::try_from(self.label_len).ok()?)?;
        core::str::from_utf8(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_cut_at_characters_and_hostile_ones_refused() {
        assert_eq!(Meta::new("/a.service", 1, 2).label(), Some("/a.service"));
        let long = "é".repeat(LABEL_BYTES);
        assert_eq!(
            Meta::new(&long, 1, 2).label(),
            Some("é".repeat(LABEL_BYTES / 2).as_str())
        );
        let hostile = Meta {
            label_len: u32::MAX,
            ..Meta::new("x", 1, 2)
        };
        assert_eq!(hostile.label(), None);
    }
}

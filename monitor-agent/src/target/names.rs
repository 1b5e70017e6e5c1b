//! What a cgroup's path tells of what runs in it.

/// The systemd unit that the cgroup belongs to; empty where there is none.
#[must_use]
pub fn unit(path: &str) -> &str {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.split('/').rev().find(is_unit).unwrap_or("")
}

/// The id of the container that the cgroup belongs to; empty where there is
/// none.  Docker, containerd, CRI-O and Podman name the cgroup after it, with or
/// without a prefix and `.scope`.
#[must_use]
pub fn container(path: &str) -> &str {
    path.split('/').rev().find_map(container_id).unwrap_or("")
}

fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit('-').next()?;
    let hex = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers_are_named_by_their_cgroups() {
        assert_eq!(unit("/system.slice/nginx.service"), "nginx.service");
        assert_eq!(unit("/"), "");
        let id = "0123456789abcdef".repeat(4);
        let docker = format!("/system.slice/docker-{id}.scope");
        assert_eq!(container(&docker), id);
        assert_eq!(container(&format!("/kubepods/burstable/podx/{id}")), id);
        assert_eq!(container("/system.slice/nginx.service"), "");
    }
}

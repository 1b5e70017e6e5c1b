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
    const HEX_DIGITS: usize = 64;
    let part = part.strip_suffix(".scope").unwrap_or(part);
    // `cri-containerd:ID` stands behind the pod's slice where containerd itself
    // names the cgroups.
    let (prefix, id) = part.rsplit_once(['-', ':']).unwrap_or(("", part));
    let hex = id.len() == HEX_DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit());
    // The container's monitor runs beside it.
    (hex && !prefix.ends_with("conmon")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_by_their_cgroups() {
        assert_eq!(unit("/system.slice/nginx.service"), "nginx.service");
        assert_eq!(
            unit("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service"),
            "a.service"
        );
        assert_eq!(unit("/system.slice/nginx.service/worker"), "nginx.service");
        assert_eq!(unit("/user.slice/session-3.scope"), "session-3.scope");
        for path in ["/", "", "/kubepods/burstable", "/system.slice"] {
            assert_eq!(unit(path), "");
        }
    }

    #[test]
    fn containers_are_named_by_their_cgroups() {
        let id = "0123456789abcdef".repeat(4);
        let pod = "pod3f0a8b1c_6d2e_4f5a_9b7c_0d1e2f3a4b5c";
        for path in [
            // Docker by systemd, and by itself; a container's own cgroups too.
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope/init.scope"),
            // Podman as root and as a user, and in a cgroup of its own.
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"),
            format!("/libpod_parent/libpod-{id}"),
            // Kubernetes by systemd with containerd, CRI-O and Docker, and by itself.
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{pod}.slice/cri-containerd-{id}.scope"
            ),
            format!("/kubepods.slice/kubepods-{pod}.slice/crio-{id}.scope"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{pod}.slice/docker-{id}.scope"
            ),
            format!("/kubepods/burstable/{pod}/{id}"),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-{pod}.slice:cri-containerd:{id}"
            ),
        ] {
            assert_eq!(container(&path), id, "{path}");
        }
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            "/system.slice/nginx.service".to_owned(),
            format!("/machine.slice/libpod-conmon-{id}.scope"),
            format!("/kubepods.slice/crio-conmon-{id}.scope"),
            format!("/x/{}", &id[1..]),
            format!("/x/{}g", &id[1..]),
            "/".to_owned(),
        ] {
            assert_eq!(container(&path), "", "{path}");
        }
    }
}

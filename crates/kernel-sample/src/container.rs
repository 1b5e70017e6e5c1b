//! Which cgroups are containers' and pods': by their paths, as the runtimes and both
//! of their cgroup drivers name them.

/// How long a container's id is, in hexadecimal digits; LXC and nspawn have names.
const ID_DIGITS: usize = 64;

/// What a path says of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The id that the runtime gave, or a name.
    pub id: String,
    /// The runtime, as far as the path tells.
    pub runtime: &'static str,
    /// The pod's unique id, in Kubernetes.
    pub pod: Option<String>,
}

/// What systemd's scopes of containers begin with.
const SCOPES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
    ("nerdctl-", "containerd"),
    ("machine-", "machine"),
];

/// The container that a cgroup belongs to; `None` where it is none's.
#[must_use]
pub fn of(label: &str) -> Option<Container> {
    let parts: Vec<&str> = label.split('/').filter(|part| !part.is_empty()).collect();
    let pod = pod_uid(label);
    let found = parts.iter().enumerate().rev().find_map(|(at, part)| {
        let above = at.checked_sub(1).map(|above| parts[above]);
        let (runtime, id) = container_of(part, above, pod.is_some())?;
        Some((runtime, id.to_owned()))
    });
    let (runtime, id) = found?;
    Some(Container { id, runtime, pod })
}

/// The path of the pod's own cgroup, with all of its containers.
#[must_use]
pub fn pod_path(label: &str) -> Option<&str> {
    let mut end = label.len();
    loop {
        let part = label[..end].rsplit('/').next()?;
        if pod_of(part).is_some() {
            return Some(&label[..end]);
        }
        end = label[..end].rfind('/')?;
    }
}

/// Whether a cgroup belongs to a container.
#[must_use]
pub fn is(label: &str) -> bool {
    of(label).is_some()
}

/// The unique id of the pod that a cgroup belongs to, or is.
#[must_use]
pub fn pod_uid(label: &str) -> Option<String> {
    label.split('/').rev().find_map(pod_of)
}

fn container_of<'a>(
    part: &'a str,
    above: Option<&str>,
    in_pod: bool,
) -> Option<(&'static str, &'a str)> {
    if let Some(scope) = part.strip_suffix(".scope") {
        let (runtime, id) = SCOPES
            .iter()
            .find_map(|(before, runtime)| Some((*runtime, scope.strip_prefix(before)?)))?;
        // Podman and CRI-O have a second scope, of the process that looks after one.
        let id_is_sound = if runtime == "machine" {
            !id.is_empty()
        } else {
            is_id(id)
        };
        return id_is_sound.then_some((runtime, id));
    }
    // containerd with systemd's names, where it makes the cgroups itself.
    if let Some((_, id)) = part.split_once(":cri-containerd:") {
        return is_id(id).then_some(("containerd", id));
    }
    if let Some(id) = part.strip_prefix("lxc.payload.") {
        return (!id.is_empty()).then_some(("lxc", id));
    }
    // The driver cgroupfs.
    match above {
        Some("docker") if is_id(part) => Some(("docker", part)),
        Some("lxc") => Some(("lxc", part)),
        Some("libpod_parent") => {
            let id = part.strip_prefix("libpod-")?;
            is_id(id).then_some(("podman", id))
        }
        _ if in_pod => {
            let crio = part.strip_prefix("crio-");
            let id = crio.unwrap_or(part);
            let runtime = if crio.is_some() {
                "cri-o"
            } else {
                "containerd"
            };
            is_id(id).then_some((runtime, id))
        }
        _ => None,
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `pod8d5c…` below `kubepods`, or `kubepods-burstable-pod8d5c….slice`, where systemd
/// has `_` for `-`.
fn pod_of(part: &str) -> Option<String> {
    let part = part.split(':').next()?;
    let id = match part.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let id = id.replace('_', "-");
    let is_sound =
        (32..=36).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_sound.then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4f1b0c9d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e";
    const POD: &str = "8d5c1c3a-0b1f-4f0e-9d3a-2f6f3a1b4c5d";

    #[test]
    fn the_paths_of_every_runtime_are_known() {
        let pod_ = POD.replace('-', "_");
        let cases = [
            (format!("/system.slice/docker-{ID}.scope"), "docker", false),
            (format!("/docker/{ID}"), "docker", false),
            (format!("/docker/{ID}/init"), "docker", false),
            (format!("/machine.slice/libpod-{ID}.scope"), "podman", false),
            (
                format!("/machine.slice/libpod-{ID}.scope/container"),
                "podman",
                false,
            ),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
                ),
                "podman",
                false,
            ),
            (format!("/libpod_parent/libpod-{ID}"), "podman", false),
            (
                format!("/system.slice/nerdctl-{ID}.scope"),
                "containerd",
                false,
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice/cri-containerd-{ID}.scope"
                ),
                "containerd",
                true,
            ),
            (
                format!("/kubepods.slice/kubepods-pod{pod_}.slice/crio-{ID}.scope"),
                "cri-o",
                true,
            ),
            (
                format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{pod_}.slice:cri-containerd:{ID}"
                ),
                "containerd",
                true,
            ),
            (
                format!("/kubepods.slice/kubepods-pod{pod_}.slice/docker-{ID}.scope"),
                "docker",
                true,
            ),
            (
                format!("/kubepods/besteffort/pod{POD}/{ID}"),
                "containerd",
                true,
            ),
            (
                format!("/kubepods/burstable/pod{POD}/crio-{ID}"),
                "cri-o",
                true,
            ),
        ];
        for (path, runtime, in_pod) in cases {
            let container = of(&path).unwrap_or_else(|| panic!("{path} is a container's"));
            assert_eq!(
                (container.runtime, container.id.as_str()),
                (runtime, ID),
                "{path}"
            );
            assert_eq!(container.pod.as_deref(), in_pod.then_some(POD), "{path}");
        }
        for (path, runtime, id) in [
            ("/lxc.payload.web/system.slice/nginx.service", "lxc", "web"),
            ("/lxc/web", "lxc", "web"),
            ("/machine.slice/machine-web.scope/payload", "machine", "web"),
        ] {
            let container = of(path).unwrap();
            assert_eq!(
                (container.runtime, container.id.as_str()),
                (runtime, id),
                "{path}"
            );
        }
    }

    #[test]
    fn what_looks_after_a_container_is_none() {
        for path in [
            "/",
            "/system.slice/nginx.service",
            "/system.slice/docker.service",
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/kubepods.slice/kubepods-pod{POD}.slice/crio-conmon-{ID}.scope"),
            &format!("/{ID}"),
            "/system.slice/docker-short.scope",
            "/lxc.monitor.web",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn hostile_paths_never_panic(path in "[/a-f0-9._é-]{0,80}|(/(pod|kubepods-pod|docker-|lxc.payload.)[/a-fé._-]{0,80}(.slice|.scope)?){0,4}") {
            if let Some(container) = of(&path) {
                prop_assert!(path.contains(&container.id));
            }
        }
    }
}

//! What a cgroup's path tells of what runs in it.

/// The systemd unit that the cgroup belongs to; empty where there is none.
#[must_use]
pub fn unit(path: &str) -> &str {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    path.split('/').rev().find(is_unit).unwrap_or("")
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
}

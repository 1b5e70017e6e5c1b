//! The labels of an endpoint, as every output has them.

use crate::v1;

/// A role's name; one that a newer agent sends is `unspecified`.
#[must_use]
pub fn role(role: i32) -> &'static str {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Downstream) => "downstream",
        Ok(v1::Role::Upstream) => "upstream",
        Ok(v1::Role::Unspecified) | Err(_) => "unspecified",
    }
}

/// The name that the proxy's configuration gives a listener; empty where it is
/// none or has no name.
#[must_use]
pub fn listener(endpoint: &v1::Endpoint) -> &str {
    match endpoint.role() {
        v1::Role::Downstream => &endpoint.name,
        v1::Role::Upstream | v1::Role::Unspecified => "",
    }
}

/// What identifies an endpoint of a host, then the names that the proxy's
/// configuration gives it, as far as there are such.
pub fn of_endpoint(endpoint: &v1::Endpoint) -> impl Iterator<Item = (&'static str, &str)> {
    let id = [
        ("target", endpoint.target.as_str()),
        ("role", role(endpoint.role)),
        ("endpoint", endpoint.address.as_str()),
    ];
    let names = [
        ("listener", listener(endpoint)),
        ("upstream", endpoint.upstream.as_str()),
        ("backend", endpoint.backend.as_str()),
    ];
    let known = names.into_iter().filter(|(_, name)| !name.is_empty());
    id.into_iter().chain(known)
}

/// What a watched cgroup is, as far as it is known.
pub fn of_target(target: &v1::Target) -> impl Iterator<Item = (&'static str, &str)> {
    let all = [
        ("unit", target.unit.as_str()),
        ("container", &target.container),
        ("container_name", &target.container_name),
        ("pod", &target.pod),
        ("namespace", &target.namespace),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty())
}

/// The same by OpenTelemetry's names, which has none for a unit.
pub fn attributes_of_target(target: &v1::Target) -> impl Iterator<Item = (&'static str, &str)> {
    of_target(target).map(|(name, value)| {
        let name = match name {
            "container" => "container.id",
            "container_name" => "container.name",
            "pod" => "k8s.pod.name",
            "namespace" => "k8s.namespace.name",
            other => other,
        };
        (name, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_is_known_of_it() {
        let target = v1::Target {
            container: "4f1b".into(),
            pod: "web-7c".into(),
            ..Default::default()
        };
        let labels: Vec<_> = of_target(&target).collect();
        assert_eq!(labels, [("container", "4f1b"), ("pod", "web-7c")]);
        let attributes: Vec<_> = attributes_of_target(&target).collect();
        let expected = [("container.id", "4f1b"), ("k8s.pod.name", "web-7c")];
        assert_eq!(attributes, expected);
    }

    #[test]
    fn a_name_is_a_listeners_or_stands_with_its_upstream() {
        let of = |role: v1::Role| v1::Endpoint {
            role: role.into(),
            address: "a".into(),
            name: "n".into(),
            ..Default::default()
        };
        let mut upstream = of(v1::Role::Upstream);
        upstream.upstream = "u".into();
        upstream.backend = "b".into();
        let labels = |e: &v1::Endpoint| -> Vec<String> {
            of_endpoint(e)
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        assert_eq!(
            labels(&of(v1::Role::Downstream)),
            ["target=", "role=downstream", "endpoint=a", "listener=n"]
        );
        assert_eq!(
            labels(&upstream),
            [
                "target=",
                "role=upstream",
                "endpoint=a",
                "upstream=u",
                "backend=b"
            ]
        );
        assert_eq!(role(99), "unspecified");
    }
}

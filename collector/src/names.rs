//! Names of the wire's enumerations, as JSON and labels have them.

use monitor_proto::v1;

/// A role's name; one that a newer agent sends is `unspecified`.
pub(crate) fn role(role: i32) -> &'static str {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Downstream) => "downstream",
        Ok(v1::Role::Upstream) => "upstream",
        Ok(v1::Role::Unspecified) | Err(_) => "unspecified",
    }
}

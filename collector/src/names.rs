//! Names of the wire's enumerations, as JSON and labels have them.

pub(crate) use monitor_proto::labels::role;

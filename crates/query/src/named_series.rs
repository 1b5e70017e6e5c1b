//! Series with the names of whom they are.

use monitor_proto::{labels, v1};
use rollup::EndpointId;
use serde::Serialize;

use crate::series::Samples;

/// One series, and whose it is.
#[derive(Debug)]
pub struct NamedSeries {
    pub host_name: String,
    pub host_id: String,
    pub endpoint: Option<EndpointId>,
    pub names: EndpointNames,
    pub samples: Samples,
}

/// What the proxy's configuration calls an endpoint; empty where it is not known.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema,
)]
pub struct EndpointNames {
    /// Of a listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend: String,
}

impl From<&v1::Endpoint> for EndpointNames {
    fn from(e: &v1::Endpoint) -> Self {
        Self {
            name: labels::listener(e).to_owned(),
            upstream: e.upstream.clone(),
            backend: e.backend.clone(),
        }
    }
}

impl EndpointNames {
    pub(crate) fn bytes(&self) -> u64 {
        (self.name.len() + self.upstream.len() + self.backend.len()) as u64
    }
}

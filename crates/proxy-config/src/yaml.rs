//! Our own proxy's configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    Name,
    found::{Family, Found, Place},
};

#[derive(Deserialize)]
struct Proxy {
    #[serde(default)]
    backends: BTreeMap<String, Vec<Backend>>,
}

#[derive(Deserialize)]
struct Backend {
    id: String,
    #[serde(default)]
    name: String,
    host: String,
    port: u16,
}

/// Reads the names of the backends.
pub(crate) fn parse(text: &str) -> Result<Found, String> {
    let proxy: Proxy = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let mut found = Found::default();
    for (upstream, backends) in proxy.backends {
        for backend in backends {
            let host = backend.host.trim_start_matches('[').trim_end_matches(']');
            let name = if backend.name.is_empty() {
                backend.id.clone()
            } else {
                backend.name
            };
            let name = Name {
                name,
                upstream: upstream.clone(),
                backend: backend.id,
            };
            found.peer(Place::new(host, Family::Any, backend.port), &name);
        }
    }
    Ok(found)
}

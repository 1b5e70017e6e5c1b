//! What the proxy's configuration calls its backends.
//!
//! Only their names are read from it: the proxy alone judges its own file, and a
//! key that is unknown here is none of the agent's business.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use serde::Deserialize;

/// A configuration of some thousand backends is smaller.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The file cannot be read.
    #[error("{path} cannot be read for the names of backends")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a proxy's configuration.
    #[error("{path} has no names of backends: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

/// What one address is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// For people.
    pub name: String,
    /// The upstream that it belongs to.
    pub upstream: String,
    /// Its id there.
    pub backend: String,
}

/// Backends' names by their addresses.
pub type Names = HashMap<SocketAddr, Name>;

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

/// Reads the names from the text of a proxy's configuration; `resolve` turns a
/// host and a port into addresses.
fn parse(text: &str, resolve: impl Fn(&str, u16) -> Vec<SocketAddr>) -> Result<Names, String> {
    let proxy: Proxy = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let mut names = Names::new();
    for (upstream, backends) in proxy.backends {
        for backend in backends {
            for address in resolve(&backend.host, backend.port) {
                let one = names.entry(address).or_default();
                let name = if backend.name.is_empty() {
                    &backend.id
                } else {
                    &backend.name
                };
                // One address may serve several upstreams: its figures are
                // those of all of them, and so is its name.
                join(&mut one.name, name);
                join(&mut one.upstream, &upstream);
                join(&mut one.backend, &backend.id);
            }
        }
    }
    Ok(names)
}

fn join(names: &mut String, name: &str) {
    if names.split(',').any(|n| n == name) {
        return;
    }
    if !names.is_empty() {
        names.push(',');
    }
    names.push_str(name);
}

fn resolve(host: &str, port: u16) -> Vec<SocketAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, port).to_socket_addrs();
    let addresses = addresses.inspect_err(|e| tracing::warn!(host, error = %e, "has no address"));
    addresses.map(Iterator::collect).unwrap_or_default()
}

/// A file of names that may change while it is used.
#[derive(Clone, Debug)]
pub struct NamesFile {
    path: PathBuf,
    modified: Option<SystemTime>,
    names: Arc<Names>,
}

impl NamesFile {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn open(path: PathBuf) -> Result<Self, NamesError> {
        let mut file = Self {
            path,
            modified: None,
            names: Arc::default(),
        };
        file.reload()?;
        Ok(file)
    }

    /// The names, read again where the file has changed.  While it cannot be
    /// read, the last ones hold.
    pub fn names(&mut self) -> Arc<Names> {
        if self.modified_now() != self.modified
            && let Err(error) = self.reload()
        {
            let error = crate::error_chain(&error);
            tracing::warn!(error, "the last names of backends hold");
        }
        Arc::clone(&self.names)
    }

    fn modified_now(&self) -> Option<SystemTime> {
        fs::metadata(&self.path).and_then(|m| m.modified()).ok()
    }

    fn reload(&mut self) -> Result<(), NamesError> {
        self.modified = self.modified_now();
        let unreadable = |source| NamesError::Unreadable {
            path: self.path.clone(),
            source,
        };
        if fs::metadata(&self.path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(unreadable(io::Error::other("it is larger than 4MiB")));
        }
        let text = fs::read_to_string(&self.path).map_err(unreadable)?;
        let names = parse(&text, resolve).map_err(|message| NamesError::Syntax {
            path: self.path.clone(),
            message,
        })?;
        self.names = Arc::new(names);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "
server: { host: 0.0.0.0, port: 8080 }
backends:
  default:
    - { id: b1, name: Backend One, host: 127.0.0.1, port: 8081, weight: 100 }
    - { id: b2, host: '::1', port: 8082 }
  other:
    - { id: b1, host: 127.0.0.1, port: 8081 }
routing: {}
";

    #[test]
    fn backends_are_named_by_their_addresses() {
        let names = parse(FILE, resolve).unwrap();
        let one = &names[&"127.0.0.1:8081".parse().unwrap()];
        assert_eq!(
            (one.name.as_str(), one.backend.as_str()),
            ("Backend One,b1", "b1")
        );
        assert_eq!(one.upstream, "default,other");
        let two = &names[&"[::1]:8082".parse().unwrap()];
        assert_eq!(
            (two.name.as_str(), two.upstream.as_str()),
            ("b2", "default")
        );
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.yaml");
        let write = |text: &str, seconds: u64| {
            fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(at)
                .unwrap();
        };
        write(FILE, 1);
        let mut file = NamesFile::open(path.clone()).unwrap();
        assert_eq!(file.names().len(), 2);
        write("backends: [", 2);
        assert_eq!(file.names().len(), 2);
        write("backends: {}", 3);
        assert!(file.names().is_empty());
        let missing = NamesFile::open(dir.path().join("none"));
        assert!(matches!(missing, Err(NamesError::Unreadable { .. })));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "(backends:|  a:|    - \\{|id: x, host: h, port: [0-9]{1,6}|\\}|\n|[^a]){0,12}") {
            if let Ok(names) = parse(&text, |_, port| vec![([127, 0, 0, 1], port).into()]) {
                prop_assert!(names.is_empty() || text.contains("backends"));
            }
        }
    }
}

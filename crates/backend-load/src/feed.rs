//! The lines that the agent writes: one JSON object per sample and line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Totals;

/// Longest line that is written or read.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// Most backends in one line; [`Sample::omitted`] counts the rest.
pub const BACKENDS_MAX: usize = 4_096;

/// The backends at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When they were read, in milliseconds since 1970.
    pub unix_ms: u64,
    /// When the next sample is due, in milliseconds.
    pub interval_ms: u64,
    /// The backends, in the order of targets and addresses.
    pub backends: Vec<Backend>,
    /// Backends beyond [`BACKENDS_MAX`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
}

/// One backend as one target reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// The watched cgroup whose connections these are.
    pub target: String,
    /// Address and port of the backend.
    pub address: SocketAddr,
    /// The upstream that the proxy's configuration names, where it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    /// The backend's name in it, where it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// Connections that are open.
    pub connections_active: u64,
    /// What was counted since the counters began.
    #[serde(flatten)]
    pub totals: Totals,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Sample {
    /// The sample as a line.
    ///
    /// # Errors
    /// Where it cannot be written as JSON.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Where it is no sample.
    pub fn from_line(line: &str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    /// What was counted of the backend at these addresses, over all targets; `None`
    /// where none reaches it.
    #[must_use]
    pub fn totals_of(&self, addresses: &[SocketAddr]) -> Option<Totals> {
        let of = |backend: &&Backend| addresses.contains(&backend.address);
        let found = self.backends.iter().filter(of);
        found
            .map(|backend| backend.totals)
            .reduce(|sum, totals| sum.plus(&totals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(address: &str, exchanges: u64) -> Backend {
        Backend {
            target: "/web".to_owned(),
            address: address.parse().unwrap(),
            upstream: String::new(),
            backend: String::new(),
            connections_active: 2,
            totals: Totals {
                since_unix_ns: 5,
                attempts: exchanges,
                failures: 1,
                exchanges: Some(exchanges),
                exchange_ns: Some(7),
            },
        }
    }

    #[test]
    fn a_line_reads_as_it_was_written_and_unknown_is_left_out() {
        let mut sample = Sample {
            unix_ms: 9,
            interval_ms: 100,
            backends: vec![backend("10.0.0.1:80", 3)],
            omitted: 0,
        };
        sample.backends[0].totals.exchanges = None;
        sample.backends[0].totals.exchange_ns = None;
        let line = sample.to_line().unwrap();
        assert_eq!(
            line,
            "{\"unix_ms\":9,\"interval_ms\":100,\"backends\":[{\"target\":\"/web\",\
             \"address\":\"10.0.0.1:80\",\"connections_active\":2,\"since_unix_ns\":5,\
             \"attempts\":3,\"failures\":1}]}\n"
        );
        assert_eq!(Sample::from_line(&line).unwrap(), sample);
    }

    #[test]
    fn later_keys_are_passed_over_and_what_is_no_sample_is_refused() {
        let line = r#"{"unix_ms":1,"interval_ms":100,"backends":[],"later":[1]}"#;
        assert_eq!(Sample::from_line(line).unwrap().unix_ms, 1);
        for hostile in [
            "",
            "{}",
            "[]",
            r#"{"unix_ms":-1,"interval_ms":1,"backends":[]}"#,
            r#"{"unix_ms":1,"interval_ms":1,"backends":[{"address":"x"}]}"#,
            &format!(r#"{{"unix_ms":{}"#, "1".repeat(1_000)),
            &"[".repeat(100_000),
        ] {
            assert!(Sample::from_line(hostile).is_err());
        }
    }

    #[test]
    fn a_backend_that_several_targets_reach_is_summed() {
        let sample = Sample {
            backends: vec![
                backend("10.0.0.1:80", 3),
                backend("10.0.0.2:80", 50),
                backend("10.0.0.1:80", 4),
            ],
            ..Sample::default()
        };
        let of = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            sample.totals_of(&addresses).map(|totals| totals.attempts)
        };
        assert_eq!(of(&["10.0.0.1:80"]), Some(7));
        assert_eq!(of(&["10.0.0.1:80", "10.0.0.2:80"]), Some(57));
        assert_eq!(of(&["10.0.0.3:80"]), None);
    }
}

//! The collector's store, and what it was given.

use std::{collections::BTreeMap, sync::Arc};

use budget::{Budget, Use};
use monitor_proto::{
    ReportKey,
    v1::{self, ExportOutcome},
};
use prost::Message;
use store::{Facts, Fleet, Incoming, Live, Outcome, Published, Retention, Writer, codec};
use tokio::runtime::Runtime;

/// The store itself, in memory, for the hosts of many runs.
pub(crate) struct Collector {
    writer: Writer,
    runtime: Runtime,
    budget: Budget,
}

/// What it has of one host.
#[derive(Default)]
pub(crate) struct Kept(pub(crate) BTreeMap<ReportKey, Vec<u8>>);

impl Collector {
    pub(crate) fn start() -> Self {
        let budget = Budget::new(1 << 30);
        let published = Published {
            fleet: Fleet::default(),
            live: Live::new(budget.clone()),
            stats: Arc::default(),
            budget: budget.clone(),
        };
        let in_memory = ":memory:".as_ref();
        let retention = Retention {
            bytes: u64::MAX,
            age: std::time::Duration::from_secs(1 << 30),
            accept_clock: true,
        };
        let (writer, _) = Writer::start(in_memory, &published, usize::MAX, retention).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self {
            writer,
            runtime: runtime.unwrap(),
            budget,
        }
    }

    /// Stores a report, or finds it there; checks that it says the truth of it.
    pub(crate) fn take(&self, kept: &mut Kept, key: ReportKey, body: &[u8]) -> ExportOutcome {
        let report = v1::Report::decode(body).unwrap();
        let stored = codec::encode(&report).unwrap();
        assert_eq!(
            codec::decompress(&stored).unwrap(),
            body,
            "as the agent encoded it"
        );
        let incoming = Incoming {
            facts: Facts::from(&report),
            body: stored.into(),
            host: report.host.unwrap(),
            agent: report.agent.unwrap(),
            sequence: report.sequence,
            window_end_ns: report.window_end_unix_ns,
            received_ns: 1_763_860_000_000_000_000,
            steady_ns: 1,
            _held: self.budget.take(Use::Messages, &"agent".into(), 1).unwrap(),
        };
        let said = ReportKey {
            epoch: incoming.agent.epoch,
            sequence: incoming.sequence,
        };
        assert_eq!(said, key, "a report says the key that it is kept by");
        let outcome = self.runtime.block_on(async {
            let answered = self.writer.submit(incoming).await.unwrap();
            answered.await.unwrap().unwrap()
        });
        let expected = match kept.0.get(&key) {
            None => Outcome::Stored,
            Some(have) if have == body => Outcome::Duplicate,
            Some(_) => Outcome::Conflict,
        };
        assert_eq!(outcome, expected, "{key:?}");
        match outcome {
            Outcome::Stored => {
                kept.0.insert(key, body.to_vec());
                ExportOutcome::Stored
            }
            Outcome::Duplicate => ExportOutcome::Duplicate,
            Outcome::Conflict => ExportOutcome::Conflict,
        }
    }
}

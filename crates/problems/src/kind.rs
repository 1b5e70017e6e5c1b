//! The kinds of problems.

use std::fmt;

use crate::definition::{DEFINITIONS, Definition};

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "`DEFINITIONS` has a sentence for each")]
pub enum Kind {
    ConnectFailures,
    AgentSilent,
    ServerErrors,
    UnansweredRequests,
    Resets,
    TlsHandshakes,
    AcceptQueueOverflow,
    ListenOverflow,
    AcceptQueueFilling,
    SlowBackend,
    SlowRoundTrip,
    Retransmits,
    CpuThrottled,
    CpuSaturated,
    CpuPressure,
    MemoryFull,
    MemoryPressure,
    IoPressure,
    DiskFull,
    AgentLossy,
    AgentIncomplete,
    ClockOff,
    AgentNotes,
    Imbalance,
    ConnectionChurn,
}

impl Kind {
    /// All kinds; of two problems of the same severity the earlier kind is the worse.
    pub const ALL: [Self; 25] = [
        Self::ConnectFailures,
        Self::AgentSilent,
        Self::ServerErrors,
        Self::UnansweredRequests,
        Self::Resets,
        Self::TlsHandshakes,
        Self::AcceptQueueOverflow,
        Self::ListenOverflow,
        Self::AcceptQueueFilling,
        Self::SlowBackend,
        Self::SlowRoundTrip,
        Self::Retransmits,
        Self::CpuThrottled,
        Self::CpuSaturated,
        Self::CpuPressure,
        Self::MemoryFull,
        Self::MemoryPressure,
        Self::IoPressure,
        Self::DiskFull,
        Self::AgentLossy,
        Self::AgentIncomplete,
        Self::ClockOff,
        Self::AgentNotes,
        Self::Imbalance,
        Self::ConnectionChurn,
    ];

    /// Its definition.
    #[must_use]
    pub fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }

    /// Its name in JSON, labels and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_definition() {
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
            assert_eq!(kind.definition().kind, kind);
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(DEFINITIONS.len(), Kind::ALL.len());
    }
}

//! What happens to the first backend, and when.

use std::time::Duration;

use anyhow::Result;
use testkit::traffic::LimitedOrigin;

use super::balancers::SERVICE;

/// One experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// Nothing.
    Equal,
    /// It has a quarter of the speed of the others, from the beginning.
    QuarterSpeed,
    /// After the first third it takes twenty times as long.
    Degrades,
    /// It dies after the first third, and is back after the second one.
    Fails,
    /// Every second answer of it is 503, at once.
    Unavailable,
}

pub(super) const CASES: [Case; 5] = [
    Case::Equal,
    Case::QuarterSpeed,
    Case::Degrades,
    Case::Fails,
    Case::Unavailable,
];

impl Case {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::QuarterSpeed => "quarter speed",
            Self::Degrades => "degrades",
            Self::Fails => "fails",
            Self::Unavailable => "503",
        }
    }

    /// Before the first request.
    pub(super) fn at_the_beginning(self, backend: &LimitedOrigin) {
        match self {
            Self::QuarterSpeed => backend.set_service(4 * SERVICE),
            Self::Unavailable => backend.set_unavailable_every(2),
            Self::Equal | Self::Degrades | Self::Fails => {}
        }
    }

    /// After the first third; returns the requests that it took with it.
    pub(super) fn after_a_third(self, backend: &LimitedOrigin) -> Result<u64> {
        match self {
            Self::Degrades => backend.set_service(20 * SERVICE),
            Self::Fails => return Ok(backend.fail()?),
            Self::Equal | Self::QuarterSpeed | Self::Unavailable => {}
        }
        Ok(0)
    }

    /// After the second third.
    pub(super) fn after_two_thirds(self, backend: &LimitedOrigin) -> Result<()> {
        if self == Self::Fails {
            backend.recover()?;
        }
        Ok(())
    }

    /// What is measured: all from the first event on.
    pub(super) fn counts(self, due: Duration, duration: Duration) -> bool {
        due >= duration / 3
    }
}

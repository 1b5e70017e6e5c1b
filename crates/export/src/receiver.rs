//! What passing on asks of a receiver, whatever the protocol.

use std::time::Duration;

use monitor_proto::v1;

/// How something is sent, whatever the protocol.
pub trait Receiver: Send {
    /// The bytes of parts that make one request; a part alone may be larger.
    fn request_bytes_max(&self) -> usize;
    /// What a report becomes, after the report of its host `before` it.  Parts one
    /// behind another are one request.
    fn parts(&self, report: v1::Report, before: Before<'_>) -> Vec<Part>;
    /// What tells that nothing follows a host's last report for now.
    fn ended(&self, last: v1::Report) -> Option<Part>;
    /// Sends a request and waits for its answer, for a bounded time.
    fn send(&mut self, body: &[u8]) -> Answer;
}

/// Reads the report before another one, where a protocol needs it.
pub type Before<'a> = &'a dyn Fn() -> Option<v1::Report>;

/// A request, or the part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub body: Vec<u8>,
    /// How much it counts: one report, or its points.
    pub units: u64,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was taken, but for some units that never will be.
    Taken { rejected: u64, message: String },
    /// It may be taken later, and not before `after` where that is said.
    Later {
        message: String,
        after: Option<Duration>,
    },
    /// Another try would end the same way.
    Never { reason: Rejection, message: String },
}

/// Why something will never be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The receiver has newer samples, and takes none that are older.
    OutOfOrder,
    /// A part of what was taken otherwise.
    Partial,
    /// For any other reason.
    Refused,
}

impl Rejection {
    /// All, by their names as labels.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::OutOfOrder, "out_of_order"),
        (Self::Partial, "partial"),
        (Self::Refused, "refused"),
    ];
}

//! A time range summed up by upstream, backend, listener or host.  Pure: no store, no
//! clock.

mod answer;
mod figures;
mod groups;
mod plan;
#[cfg(test)]
mod tests;

pub use answer::{Order, Sort, answer, answer_bytes};
pub(crate) use groups::Group;
pub use groups::{By, Groups, Question};
pub use plan::SummaryPlan;

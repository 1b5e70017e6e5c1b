//! The commands.

mod follow;
mod hosts;
mod report_table;
mod reports;
mod stats;

pub(crate) use hosts::hosts;
pub(crate) use reports::reports;
pub(crate) use stats::stats;

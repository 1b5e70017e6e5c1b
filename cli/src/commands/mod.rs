//! The commands.

mod clients;
mod export;
mod follow;
mod hosts;
mod pages;
mod problems;
mod report_table;
mod reports;
mod stats;
mod summary;
mod top_once;

pub(crate) use clients::clients;
pub(crate) use export::export;
pub(crate) use hosts::hosts;
pub(crate) use problems::{print as print_problems, problems};
pub(crate) use reports::reports;
pub(crate) use stats::stats;
pub(crate) use summary::summary;
pub(crate) use top_once::top_once;

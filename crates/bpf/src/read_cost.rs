//! What reading the counters costs: a sample, as it is taken ten times a second,
//! and a look at every live socket, as it is taken for a report.

use std::{path::Path, time::Instant};

use serde::Serialize;

use crate::{Kernel, KernelError};

/// How long reads of what is pinned took, one figure a round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReadCost {
    /// Endpoints that were read.
    pub endpoints: usize,
    /// Sockets that were read.
    pub sockets: usize,
    /// What a sample takes.
    pub sample_us: Vec<f64>,
    /// Everything, live sockets too.
    pub dump_us: Vec<f64>,
}

/// Measures it, as any process may while an agent runs or not.
///
/// # Errors
/// Where nothing is pinned there, or it cannot be read.
pub fn read_cost(pin_dir: &Path, rounds: u32) -> Result<ReadCost, KernelError> {
    let kernel = Kernel::open_pinned(pin_dir)?;
    let mut cost = ReadCost::default();
    // What is read for the first time is mapped then.
    drop(kernel.counter_snapshot());
    for _ in 0..rounds {
        let start = Instant::now();
        let snapshot = kernel.counter_snapshot();
        cost.sample_us.push(start.elapsed().as_secs_f64() * 1e6);
        cost.endpoints = snapshot.endpoints.len();
        drop(snapshot);
        let start = Instant::now();
        let sample = kernel.read();
        cost.dump_us.push(start.elapsed().as_secs_f64() * 1e6);
        cost.sockets = sample.sockets.len();
    }
    Ok(cost)
}

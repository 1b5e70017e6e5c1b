//! Choosing a backend: pure functions over what is known at that moment.
//!
//! `in_flight` counts exchanges and tunnels, never idle pooled connections, so
//! the numbers mean load. Randomness comes in as an argument.

use crate::config::Algorithm;

/// What is known of one backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Whether it may be chosen: switched on, healthy, not ejected.
    pub available: bool,
    /// Exchanges and tunnels in flight.
    pub in_flight: u32,
    /// Most of them at once; `u32::MAX`: no limit.
    pub in_flight_max: u32,
    /// Its share, at least 1.
    pub weight: u32,
    /// A hash of its identity, the same in every process.
    pub identity: u64,
    /// The load of its host from 0 to 1; `None` while unknown.
    pub utilisation: Option<f32>,
    /// What a request to it costs, before weight and requests in flight; `None` while
    /// unknown.
    pub cost: Option<f32>,
}

impl Candidate {
    fn has_capacity(&self) -> bool {
        self.available && self.in_flight < self.in_flight_max
    }
}

/// What a choice may depend on besides the backends.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// A hash of the client's address.
    pub client: u64,
    /// A random number, for ties.
    pub random: u64,
    /// Counts the choices of one chooser, for proportions.
    pub ticket: u64,
}

/// The outcome of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The backend at this index.
    Backend(usize),
    /// None is available.
    Unavailable,
    /// Those available are all at their limit.
    Full,
}

/// Chooses among `candidates`.
#[must_use]
pub fn choose(algorithm: Algorithm, candidates: &[Candidate], draw: &Draw) -> Choice {
    let chosen = match algorithm {
        Algorithm::IpHash => by_client(candidates, draw.client),
        Algorithm::LeastConnections => least(candidates, draw.random, |_| 1.0),
        Algorithm::LeastConnectionsWeight => least(candidates, draw.random, |candidate| {
            f64::from(candidate.weight)
        }),
        Algorithm::Weight => by_weight(candidates, draw.ticket),
        Algorithm::PerformanceLeastConnectionsWeight => by_performance(candidates, draw.random),
        Algorithm::Adaptive => by_cost(candidates, draw.random),
    };
    match chosen {
        Some(index) => Choice::Backend(index),
        None if candidates.iter().any(|candidate| candidate.available) => Choice::Full,
        None => Choice::Unavailable,
    }
}

/// Rendezvous hashing: the backend that scores highest for this client. When
/// one leaves, only its own clients move; when one comes, only those it wins.
fn by_client(candidates: &[Candidate], client: u64) -> Option<usize> {
    indices_with_capacity(candidates).max_by_key(|index| mix(client ^ candidates[*index].identity))
}

fn indices_with_capacity(candidates: &[Candidate]) -> impl Iterator<Item = usize> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| one.has_capacity())
        .map(|(index, _)| index)
}

/// The one with the lowest score; among equals each is as likely.
fn lowest(
    candidates: &[Candidate],
    random: u64,
    score: impl Fn(&Candidate) -> f64,
) -> Option<usize> {
    let (mut best, mut best_score, mut equals) = (None, f64::INFINITY, 0_u64);
    for index in indices_with_capacity(candidates) {
        let score = score(&candidates[index]);
        if score < best_score {
            (best, best_score, equals) = (Some(index), score, 1);
        } else if score <= best_score {
            equals += 1;
            // Reservoir sampling keeps each of the equals with the same chance.
            if mix(random.wrapping_add(equals)).is_multiple_of(equals) {
                best = Some(index);
            }
        }
    }
    best
}

fn least(
    candidates: &[Candidate],
    random: u64,
    weight: impl Fn(&Candidate) -> f64,
) -> Option<usize> {
    lowest(candidates, random, |candidate| {
        f64::from(candidate.in_flight) / weight(candidate)
    })
}

/// In proportion to the weights. Tickets are spread by the golden ratio, whose
/// multiples fill the line evenly, so proportions hold over short runs too.
fn by_weight(candidates: &[Candidate], ticket: u64) -> Option<usize> {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let total: u64 = indices_with_capacity(candidates)
        .map(|index| u64::from(candidates[index].weight))
        .sum();
    let position = (u128::from(ticket.wrapping_mul(GOLDEN)) * u128::from(total)) >> 64;
    let mut end = 0_u128;
    indices_with_capacity(candidates).find(|index| {
        end += u128::from(candidates[*index].weight);
        position < end
    })
}

/// 0.7 of the weighted connections and 0.3 of the host's load in percent. A
/// host whose load is unknown counts as the mean of the known ones, so that
/// silence neither attracts nor repels.
fn by_performance(candidates: &[Candidate], random: u64) -> Option<usize> {
    let known = || {
        candidates
            .iter()
            .filter(|one| one.has_capacity())
            .filter_map(|one| one.utilisation)
    };
    let count = known().count();
    let mean = if count == 0 {
        0.0
    } else {
        known().map(f64::from).sum::<f64>() / count as f64
    };
    lowest(candidates, random, |candidate| {
        let connections = f64::from(candidate.in_flight) / f64::from(candidate.weight);
        let utilisation = candidate.utilisation.map_or(mean, f64::from);
        0.7 * connections + 0.3 * 100.0 * utilisation
    })
}

/// The cheaper of two that are drawn (power of two choices): whatever the costs lag
/// behind, no backend gets all requests at once. The requests in flight, with the new
/// one, are known at once, so a backend that stalls becomes dearer with each of them.
fn by_cost(candidates: &[Candidate], random: u64) -> Option<usize> {
    let free = indices_with_capacity(candidates).count();
    let pick = |nth: usize| indices_with_capacity(candidates).nth(nth);
    if free < 2 {
        return pick(0);
    }
    let random = mix(random);
    let first = (random % free as u64) as usize;
    let second = ((random >> 32) % (free as u64 - 1)) as usize;
    let (first, second) = (pick(first)?, pick(second + usize::from(second >= first))?);
    let (a, b) = (&candidates[first], &candidates[second]);
    // Where one of them is unknown, both count as equal.
    let (cost_a, cost_b) = a.cost.zip(b.cost).unwrap_or((1.0, 1.0));
    let of = |one: &Candidate, cost: f32| {
        (f64::from(one.in_flight) + 1.0) * f64::from(cost) / f64::from(one.weight)
    };
    Some(if of(b, cost_b) < of(a, cost_a) {
        second
    } else {
        first
    })
}

/// The load of a host from its parts, each a share of 1 and capped there.
#[must_use]
pub fn utilisation(cpu: f64, memory: f64, load_1: f64) -> f32 {
    let share = |value: f64| {
        if value.is_finite() {
            value.clamp(0.0, 1.0)
        } else {
            1.0
        }
    };
    (0.4 * share(cpu) + 0.4 * share(memory) + 0.2 * share(load_1)) as f32
}

/// A fixed hash of bytes (FNV-1a, then mixed): equal in every process and
/// release, so that several proxies agree.
#[must_use]
pub fn identity(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix(hash)
}

/// The finaliser of `SplitMix64`: every input bit changes every output bit.
#[must_use]
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;

//! Everything at once, at random: connections that come and go, resets,
//! half-closes, uploads, and an agent that is stopped or killed again and again;
//! in the end not one byte is missing.
//!
//! `SPEEDMIMI_SOAK_SECONDS=600` soaks for ten minutes, and
//! `SPEEDMIMI_SOAK_SEED=N` makes the same choices as another run.

use std::{
    env,
    net::{SocketAddr, TcpStream},
    process, thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;
use testkit::{
    fixtures::Level,
    traffic::{Ending, Exchange, Load, LoadErrors, Outcome},
};

use super::{
    Case,
    scene::{Scene, assert_endpoint, downstream, origin_on, upstream},
};

pub(crate) const CASES: &[Case] = &[("a_soak_ends_with_zero_difference", soak)];

/// How long where nothing is said: short enough for every run of the tests.
const SECONDS: u64 = 20;

/// Generators at once.
const GENERATORS: u64 = 6;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn soak() {
    let duration = Duration::from_secs(number("SPEEDMIMI_SOAK_SECONDS").unwrap_or(SECONDS));
    let seed = number("SPEEDMIMI_SOAK_SEED").unwrap_or_else(|| u64::from(process::id()));
    eprintln!("soak: {} s, SPEEDMIMI_SOAK_SEED={seed}", duration.as_secs());
    let origin = origin_on("127.0.0.1");
    let mut scene = Scene::watched_at(Level::Http);
    let proxy = scene.proxy_to(origin.address());
    let address = proxy.address();
    let ends = Instant::now() + duration;
    let generators: Vec<_> = (0..GENERATORS)
        .map(|n| thread::spawn(move || generate(address, seed.wrapping_add(n), ends)))
        .collect();

    let mut random = fastrand::Rng::with_seed(seed.wrapping_sub(1));
    let (mut stopped, mut killed) = (0, 0);
    while Instant::now() < ends {
        thread::sleep(Duration::from_millis(random.u64(100..3_000)));
        let left = if random.bool() {
            stopped += 1;
            scene.agent.stop().unwrap()
        } else {
            killed += 1;
            scene.agent.kill().unwrap()
        };
        thread::sleep(Duration::from_millis(random.u64(0..500)));
        scene.agent = left.start().unwrap();
    }
    let mut outcome = Outcome::default();
    for generator in generators {
        add(&mut outcome, &generator.join().unwrap());
    }
    assert_eq!(outcome.errors, LoadErrors::default());
    proxy.stop().unwrap();
    let served = origin.ended();
    let mut sums = scene.end();
    eprintln!(
        "soak: {} connections, {} requests, {} bytes sent, {} received; \
         the agent was stopped {stopped} times and killed {killed} times",
        outcome.connections, outcome.requests, outcome.bytes_sent, outcome.bytes_received
    );

    // A client that resets has not always acknowledged what it has read.
    let counted = sums
        .get_mut(&("downstream".to_owned(), address.to_string()))
        .unwrap();
    let unacked = counted.insert("bytes_unacked".to_owned(), 0).unwrap();
    *counted.get_mut("bytes_sent").unwrap() += unacked;
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
}

/// One load after the other.
fn generate(target: SocketAddr, seed: u64, ends: Instant) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = Outcome::default();
    while Instant::now() < ends {
        if random.u8(..) < 32 {
            // Not one byte: closed, or reset before anyone accepts it.
            let socket = TcpStream::connect(target).unwrap();
            if random.bool() {
                set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
            }
            all.connections += 1;
            continue;
        }
        let connections = random.usize(1..6);
        let ending = [Ending::Close, Ending::HalfClose, Ending::Reset];
        let mix: Vec<Exchange> = (0..random.usize(1..5))
            .map(|_| exchange(&mut random))
            .collect();
        let load = Load::on(target)
            .connections(connections)
            .requests(random.u64(1..30))
            .mix(mix)
            .ending(random.choice(ending).unwrap_or_default());
        add(&mut all, &load.run().unwrap());
    }
    all
}

fn exchange(random: &mut fastrand::Rng) -> Exchange {
    // Sizes of every order of magnitude up to 2 MiB.
    let mut size = || {
        let order = random.u32(0..22);
        random.u64(..1 << order)
    };
    let (sent, answered) = (size(), size());
    match random.u8(0..7) {
        0 => Exchange::get(answered),
        1 => Exchange::get_chunked(answered),
        2 => Exchange::head(answered),
        3 => Exchange::post(sent, answered),
        4 => Exchange::post_chunked(sent, answered),
        5 => Exchange::post(sent, 0),
        _ => Exchange::status(random.choice([204, 301, 404, 503]).unwrap_or(404)),
    }
}

fn add(all: &mut Outcome, one: &Outcome) {
    assert_eq!(one.errors, LoadErrors::default());
    all.connections += one.connections;
    all.requests += one.requests;
    all.responses += one.responses;
    all.bytes_sent += one.bytes_sent;
    all.bytes_received += one.bytes_received;
}

//! What the packet programs cost, by the kernel's own test run.
//!
//! Each case runs in turn with a program that does nothing, and the difference
//! is what counts; time is that of this thread alone, so that other processes
//! do not matter.  A case is refused where the counters do not hold exactly
//! what its packets should have made.

use std::{io, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{CgroupSkb, ProgramError, ProgramInfo, TestRun as _, TestRunOptions},
};
use monitor_common::{
    counters::{EndpointCounters, WORDS},
    endpoint::Role,
    http::{FEW_PARTS, Method},
    tls::flag,
};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::{
    error::{KernelError, hint},
    loader::attach,
    maps::Mapped,
    object::{self, PARTS_MAX, Packets, Program, maps},
};

/// The constant that says which state the sockets are in.
const BENCH: &str = "BENCH";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// How often every case is run.
    pub rounds: u32,
    /// How many packets a run has.
    pub packets: u32,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Every program of the object.
    pub programs: Vec<Size>,
    /// Every kind of packet.
    pub cases: Vec<Case>,
}

/// What the kernel says of a loaded program.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// The program.
    pub name: &'static str,
    /// How many instructions the verifier followed; absent before Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// Its instructions after the verifier.
    pub instructions: Option<u32>,
    /// The bytes of its machine code.
    pub jited_bytes: u32,
}

/// One kind of packet.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// What it is.
    pub name: &'static str,
    /// Nanoseconds a run, round by round.
    pub ns: Vec<f64>,
    /// Nanoseconds above a program that does nothing, round by round.
    pub above_empty_ns: Vec<f64>,
}

/// A kind of packet, and the state that its socket is in.
struct Scene {
    name: &'static str,
    state: u8,
    ingress: bool,
    role: Role,
    /// Requests that are open when the packet comes.
    open: u8,
    method: Method,
    payload: &'static [u8],
    /// What it counts: requests, responses, TLS handshakes begun and completed.
    counts: [u64; 4],
}

const REQUEST: &[u8] =
    b"GET /bytes/100 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nServer: bench\r\n\r\n";
const BODY: &[u8] = &[b'x'; 1_024];

/// A TLS record of a type and a length, and zeros.
const fn record<const N: usize>(mut bytes: [u8; N], at: usize, kind: u8, len: u16) -> [u8; N] {
    let [high, low] = len.to_be_bytes();
    (bytes[at], bytes[at + 1], bytes[at + 2]) = (kind, 3, 3);
    (bytes[at + 3], bytes[at + 4]) = (high, low);
    bytes
}

const HELLO: &[u8] = &{
    let mut hello = record([0; 517], 0, 22, 512);
    hello[5] = 1;
    hello
};
/// Of TLS 1.3, each message in a record of its own.
const FLIGHT: &[u8] = &{
    let flight = record([0; 1_443], 0, 22, 122);
    let flight = record(flight, 127, 20, 1);
    let flight = record(flight, 133, 23, 40);
    let flight = record(flight, 178, 23, 900);
    let flight = record(flight, 1_083, 23, 281);
    record(flight, 1_369, 23, 69)
};
const FINISHED: &[u8] = &record(record([0; 80], 0, 20, 1), 6, 23, 69);
const LONG_RECORD: &[u8] = &record([0; 1_024], 0, 22, 16_384);

/// The states of a socket: amid HTTP/1, before its first byte, and amid a TLS handshake,
/// with what the server has sent added.
const HTTP: u8 = 1;
const FIRST: u8 = 2;
const TLS: u8 = 3;

const SCENES: [Scene; 12] = [
    Scene {
        name: "ingress ACK",
        state: HTTP,
        ingress: true,
        role: Role::Downstream,
        open: 1,
        method: Method::Get,
        payload: b"",
        counts: [0, 0, 0, 0],
    },
    Scene {
        name: "egress ACK",
        state: HTTP,
        ingress: false,
        role: Role::Downstream,
        open: 0,
        method: Method::Get,
        payload: b"",
        counts: [0, 0, 0, 0],
    },
    Scene {
        name: "ingress data",
        state: HTTP,
        ingress: true,
        role: Role::Downstream,
        open: 1,
        method: Method::Post,
        payload: BODY,
        counts: [0, 0, 0, 0],
    },
    Scene {
        name: "egress data",
        state: HTTP,
        ingress: false,
        role: Role::Downstream,
        open: 0,
        method: Method::Get,
        payload: BODY,
        counts: [0, 0, 0, 0],
    },
    Scene {
        name: "ingress request start",
        state: HTTP,
        ingress: true,
        role: Role::Downstream,
        open: 0,
        method: Method::Get,
        payload: REQUEST,
        counts: [1, 0, 0, 0],
    },
    Scene {
        name: "egress request start",
        state: HTTP,
        ingress: false,
        role: Role::Upstream,
        open: 0,
        method: Method::Get,
        payload: REQUEST,
        counts: [1, 0, 0, 0],
    },
    Scene {
        name: "egress response start",
        state: HTTP,
        ingress: false,
        role: Role::Downstream,
        open: 1,
        method: Method::Get,
        payload: RESPONSE,
        counts: [0, 1, 0, 0],
    },
    Scene {
        name: "ingress response start",
        state: HTTP,
        ingress: true,
        role: Role::Upstream,
        open: 1,
        method: Method::Get,
        payload: RESPONSE,
        counts: [0, 1, 0, 0],
    },
    Scene {
        name: "ingress TLS hello",
        state: FIRST,
        ingress: true,
        role: Role::Downstream,
        open: 0,
        method: Method::Get,
        payload: HELLO,
        counts: [0, 0, 1, 0],
    },
    Scene {
        name: "egress TLS server's flight",
        state: TLS,
        ingress: false,
        role: Role::Downstream,
        open: 0,
        method: Method::Get,
        payload: FLIGHT,
        counts: [0, 0, 0, 0],
    },
    Scene {
        name: "ingress TLS within a record",
        state: TLS,
        ingress: true,
        role: Role::Downstream,
        open: 1,
        method: Method::Get,
        payload: LONG_RECORD,
        counts: [0, 0, 0, 0],
    },
    Scene {
        name: "ingress TLS Finished",
        state: TLS + flag::HANDSHAKE,
        ingress: true,
        role: Role::Downstream,
        open: 1,
        method: Method::Get,
        payload: FINISHED,
        counts: [0, 0, 0, 1],
    },
];

impl Scene {
    fn program(&self) -> Program {
        if self.ingress {
            Program::Ingress(Packets::of(parts()))
        } else {
            Program::Egress(Packets::of(parts()))
        }
    }

    /// The constant `BENCH` of the programs.
    fn bench(&self) -> u32 {
        if self.payload.is_empty() {
            // No socket is looked at: the program runs as ever.
            return 0;
        }
        u32::from_le_bytes([self.state, self.role as u8, self.open, self.method as u8])
    }

    /// An Ethernet, an IPv4 and a TCP header with timestamps, as the kernel's
    /// own are, and the payload.
    fn packet(&self) -> Vec<u8> {
        const ETHERNET: [u8; 14] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        const IP: [u8; 20] = [
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1,
        ];
        const TCP: [u8; 32] = [
            0x1f, 0x90, 0xc0, 0, 0, 0, 16, 0, 0, 0, 32, 0, 0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8,
            10, 0, 0, 0, 1, 0, 0, 0, 1,
        ];
        let mut ip = IP;
        // The longest is far below 64 KiB.
        let len = (IP.len() + TCP.len() + self.payload.len()) as u16;
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        [&ETHERNET, &ip[..], &TCP, self.payload].concat()
    }

    /// What the kernel gives with the packet: the time at which TCP sends it.
    fn context(&self) -> [u8; CONTEXT_BYTES] {
        const SENT_AT_NS: u64 = 20_000_000;
        let mut context = [0; CONTEXT_BYTES];
        if !self.ingress {
            context[CONTEXT_BYTES - 8..].copy_from_slice(&SENT_AT_NS.to_ne_bytes());
        }
        context
    }
}

/// `struct __sk_buff` up to and with its `tstamp`.
const CONTEXT_BYTES: usize = 160;

/// A case's programs, loaded with its constant.
struct Stage {
    scene: Scene,
    ebpf: Ebpf,
    packet: Vec<u8>,
    context: [u8; CONTEXT_BYTES],
    counters: Mapped<EndpointCounters>,
    cpus: u32,
    case: Case,
}

/// Measures what the packet programs cost and how large all programs are.
///
/// Needs Linux 5.15 and the agent's capabilities; attaches nothing.
///
/// # Errors
/// Where the kernel refuses something, or counts something else than the
/// packets hold.
pub fn cost(extent: Extent) -> Result<Cost, KernelError> {
    // Where few parts are read no record is.
    let has_tls = parts() > FEW_PARTS;
    let mut stages = SCENES
        .into_iter()
        .filter(|scene| scene.state == HTTP || has_tls)
        .map(Stage::new)
        .collect::<Result<Vec<_>, _>>()?;
    for stage in &mut stages {
        // Once unmeasured: caches and the CPU's clock.
        stage.run(stage.scene.program().name(), extent.packets)?;
    }
    for round in 0..extent.rounds {
        for stage in &mut stages {
            stage.measure(round, extent.packets)?;
        }
    }
    for stage in &stages {
        stage.check(u64::from(extent.rounds + 1) * u64::from(extent.packets))?;
    }
    Ok(Cost {
        programs: sizes()?,
        cases: stages.into_iter().map(|stage| stage.case).collect(),
    })
}

impl Stage {
    fn new(scene: Scene) -> Result<Self, KernelError> {
        let cpus = cpus();
        let mut ebpf = load(cpus, scene.bench())?;
        attach::load(&mut ebpf, scene.program())?;
        let empty = program(&mut ebpf, EMPTY)?;
        empty.load().map_err(failed("loading", EMPTY))?;
        let missing = KernelError::Missing {
            kind: "map",
            name: maps::COUNTERS,
        };
        let Some(Map::Array(map)) = ebpf.map(maps::COUNTERS) else {
            return Err(missing);
        };
        let counters = Mapped::new(map, maps::COUNTERS, cpus as usize)?;
        Ok(Self {
            ebpf,
            packet: scene.packet(),
            context: scene.context(),
            counters,
            cpus,
            case: Case {
                name: scene.name,
                ns: Vec::new(),
                above_empty_ns: Vec::new(),
            },
            scene,
        })
    }

    fn measure(&mut self, round: u32, packets: u32) -> Result<(), KernelError> {
        let own = self.scene.program().name();
        let (ns, empty) = if round.is_multiple_of(2) {
            let ns = self.run(own, packets)?;
            (ns, self.run(EMPTY, packets)?)
        } else {
            let empty = self.run(EMPTY, packets)?;
            (self.run(own, packets)?, empty)
        };
        self.case.ns.push(ns);
        self.case.above_empty_ns.push(ns - empty);
        Ok(())
    }

    /// Runs a program on the packet and returns the nanoseconds of one run.
    fn run(&mut self, name: &'static str, packets: u32) -> Result<f64, KernelError> {
        let program = program(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(&self.packet),
            ctx_in: Some(&self.context),
            repeat: packets,
            ..TestRunOptions::new()
        };
        let begin = cpu_time();
        program.test_run(options).map_err(failed("running", name))?;
        Ok((cpu_time() - begin).as_secs_f64() * 1e9 / f64::from(packets))
    }

    /// Whether exactly what ran was counted.
    fn check(&self, packets: u64) -> Result<(), KernelError> {
        let mut sum = EndpointCounters::ZERO;
        for cpu in 0..self.cpus {
            let mut words = [0u64; WORDS];
            self.counters.words(cpu as usize, 0, &mut words);
            let mut counters = EndpointCounters::ZERO;
            counters.words_mut().copy_from_slice(&words);
            sum.add(&counters);
        }
        let counted = [
            sum.requests.iter().sum(),
            sum.responses.iter().sum(),
            sum.tls_handshakes,
            sum.tls_handshake.buckets.iter().sum(),
        ];
        if counted == self.scene.counts.map(|n| n * packets) {
            return Ok(());
        }
        Err(KernelError::File {
            operation: "measuring",
            path: self.scene.name.into(),
            source: io::Error::other(format!(
                "{packets} packets counted {counted:?} requests, responses and TLS handshakes"
            )),
        })
    }
}

/// The program that does nothing, by its name in the object.
const EMPTY: &str = "empty";

/// As many parts as an agent reads at first.
fn parts() -> u32 {
    object::parts(PARTS_MAX).next().unwrap_or(FEW_PARTS)
}

fn load(cpus: u32, bench: u32) -> Result<Ebpf, KernelError> {
    let slots = 2;
    let parts = parts();
    EbpfLoader::new()
        .override_global(object::STRIPES, &cpus, true)
        .override_global(BENCH, &bench, true)
        .override_global(object::PACKETS, &1u8, true)
        .override_global(object::PARTS, &parts, true)
        .map_max_entries(maps::COUNTERS, slots * cpus)
        .map_max_entries(maps::LOST, cpus)
        .load(object::OBJECT)
        .map_err(|source| KernelError::Load {
            hint: hint(),
            source: Box::new(source),
        })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSkb, KernelError> {
    let kind = "program";
    let found = ebpf.program_mut(name);
    let found = found.ok_or(KernelError::Missing { kind, name })?;
    found.try_into().map_err(failed("finding", name))
}

fn sizes() -> Result<Vec<Size>, KernelError> {
    let mut ebpf = load(cpus(), 0)?;
    let mut sizes = Vec::new();
    for program in Program::each(parts()) {
        attach::load(&mut ebpf, program)?;
        let name = program.name();
        let info = ebpf
            .program(name)
            .ok_or(ProgramError::NotLoaded)
            .and_then(aya::programs::Program::info)
            .map_err(failed("asking about", name))?;
        sizes.push(size(name, &info));
    }
    Ok(sizes)
}

fn size(name: &'static str, info: &ProgramInfo) -> Size {
    Size {
        name,
        verified_instructions: info.verified_instruction_count(),
        instructions: info.size_translated().map(|bytes| bytes / 8),
        jited_bytes: info.size_jitted(),
    }
}

fn failed(operation: &'static str, program: &'static str) -> impl Fn(ProgramError) -> KernelError {
    move |source| KernelError::Program {
        operation,
        program,
        hint: hint(),
        source: Box::new(source),
    }
}

fn cpus() -> u32 {
    aya::util::nr_cpus()
        .ok()
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(1)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Both are positive, and nanoseconds are below 10^9.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

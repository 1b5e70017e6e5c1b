//! Counting goes on, whatever becomes of the agent.

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use bpf::{Kernel, KernelError, pinned, uninstall, uninstall_targets, unwatched};
use kernel_sample::{CounterSource, EndpointAddress, Level, Target};
use libtest_mimic::Failed;
use monitor_agent::{doctor, target::TargetRequest};
use monitor_common::{counters::EndpointCounters, endpoint::Role};
use rustix::{
    process::Uid,
    thread::{CapabilitySet, set_keep_capabilities, set_thread_res_uid},
};

use crate::{
    Case, Watch,
    watch::{Own, fresh, give_up_all_but, until},
};

pub(crate) const CASES: [Case; 10] = [
    (
        "an_exchange_that_is_open_while_the_level_changes_is_let_go",
        open_while_the_level_changes,
    ),
    (
        "a_body_that_is_under_way_while_the_level_changes_says_nothing",
        amid_a_body,
    ),
    (
        "counting_goes_on_without_an_agent",
        goes_on_without_an_agent,
    ),
    ("a_second_agent_is_refused", a_second_agent_is_refused),
    (
        "a_dropped_target_is_named_and_removed_alone",
        dropped_target,
    ),
    (
        "pins_that_others_could_change_are_refused",
        pins_that_others_could_change,
    ),
    (
        "pins_that_may_not_be_read_are_not_missing",
        pins_of_another_user,
    ),
    ("an_agent_of_another_layout_gives_its_place", another_layout),
    ("levels_change_without_losing_a_byte", levels_change),
    ("what_finds_no_place_is_counted_as_other", overflow),
];

pub(crate) const UNPRIVILEGED: [Case; 1] = [("two_capabilities_are_enough", two_capabilities)];

/// What keeps [`UNPRIVILEGED`] from running here.
pub(crate) fn missing_unprivileged() -> Option<String> {
    let release = kernel_release().unwrap_or_default();
    (release < [6, 1]).then(|| "the verifier asks for CAP_PERFMON before Linux 6.1".to_owned())
}

fn downstream(kernel: &Kernel, address: SocketAddr) -> EndpointCounters {
    let sample = kernel.read();
    let address = EndpointAddress::Socket(address);
    let found = sample
        .endpoints
        .iter()
        .find(|e| e.id.address == address && e.id.role == Role::Downstream);
    found.map_or(EndpointCounters::ZERO, |e| *e.counters)
}

struct Conversation {
    client: TcpStream,
    server: TcpStream,
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

impl Conversation {
    fn new(listener: &TcpListener) -> Self {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Self {
            client,
            server: listener.accept().unwrap().0,
        }
    }

    fn exchange(&mut self) {
        self.client.write_all(REQUEST).unwrap();
        self.server.read_exact(&mut [0; REQUEST.len()]).unwrap();
        self.server.write_all(RESPONSE).unwrap();
        self.client.read_exact(&mut [0; RESPONSE.len()]).unwrap();
    }
}

fn requests(counters: &EndpointCounters) -> u64 {
    counters.requests.iter().sum()
}

fn goes_on_without_an_agent(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("restart");
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let mut before = own.open(watch);
    let since = before.read().since_unix_ns;
    let mut conversation = Conversation::new(&listener);
    for n in 1..=5u64 {
        conversation.exchange();
        assert_eq!(requests(&downstream(&before, address)), 2 * n - 1);
        // The agent goes, and its programs stay.
        drop(before);
        conversation.exchange();
        // The next one replaces the programs under the open connection.
        before = own.open(watch);
        assert_eq!(requests(&downstream(&before, address)), 2 * n);
    }
    assert_eq!(before.read().since_unix_ns, since);
    drop(conversation);
    watch.ended(Role::Downstream, address, 1);
    let counters = downstream(&before, address);
    assert_eq!((counters.connections_opened, counters.closed()), (1, 1));
    assert_eq!(counters.bytes_received, 10 * REQUEST.len() as u64);
    assert_eq!(counters.bytes_sent, 10 * RESPONSE.len() as u64);
    Ok(())
}

fn a_second_agent_is_refused(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("second");
    let first = own.open(watch);
    assert!(first.is_owner());
    let refused = Kernel::open(&own.options, &[watch.target()]).unwrap_err();
    assert!(matches!(refused, KernelError::Busy { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("another agent watches"), "{text}");
    assert!(
        uninstall(&own.options.pin_dir).is_err(),
        "not below a running agent"
    );
    // Reading is open to anyone.
    let reader = Kernel::open_pinned(&own.options.pin_dir)?;
    assert!(!reader.is_owner());
    assert_eq!(reader.targets(), first.targets());
    Ok(())
}

/// One agent of two targets, and then one of the first alone.
fn dropped_target(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("dropped");
    let kept = watch.target();
    let path = kept
        .path
        .with_file_name(format!("speedmimi-test-{}-dropped", std::process::id()));
    fs::create_dir(&path)?;
    let dropped = Target {
        label: format!("/{}", path.file_name().unwrap().display()).into(),
        path,
    };
    let label = dropped.label.to_string();
    let pin_dir = &own.options.pin_dir;
    let both = Kernel::open(&own.options, &[kept.clone(), dropped.clone()])?;
    assert!(pinned(pin_dir).len() == 2 && pinned(pin_dir).iter().all(|t| t.held));
    let none: [String; 0] = [];
    assert_eq!(unwatched(pin_dir, &[]), none, "an agent holds both");
    let remove = || uninstall_targets(pin_dir, std::slice::from_ref(&label));
    assert!(matches!(remove(), Err(KernelError::Held { .. })));
    drop(both);
    let agent = own.open(watch);
    let free = unwatched(pin_dir, std::slice::from_ref(&kept));
    assert_eq!(free, [label.as_str()]);
    assert_eq!(programs_of(&dropped).unwrap(), 1, "it is counted on");
    let two = [label.clone(), kept.label.to_string()];
    assert!(matches!(
        uninstall_targets(pin_dir, &two),
        Err(KernelError::Held { .. })
    ));
    assert_eq!(pinned(pin_dir).len(), 2, "one was held: none is removed");
    assert!(remove()?.pins > 0);
    assert_eq!(programs_of(&dropped).unwrap(), 0);
    assert_eq!(unwatched(pin_dir, std::slice::from_ref(&kept)), none);
    let again = remove().unwrap_err().to_string();
    assert!(again.contains(&*kept.label), "{again}");
    // The other one is counted on.
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    drop(Conversation::new(&listener));
    until("the connection is counted", || {
        downstream(&agent, address).closed() == 1
    });
    drop(agent);
    fs::remove_dir(&dropped.path)?;
    Ok(())
}

fn pins_that_others_could_change(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("foreign");
    let pin_dir = &own.options.pin_dir;
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    drop(own.open(watch));
    let layout = fs::read_dir(pin_dir)?.next().unwrap()?.path();
    let target = fs::read_dir(&layout)?.next().unwrap()?.path();
    let all = [pin_dir, &layout, &target];
    assert_eq!(all.map(|dir| mode(dir)), [0o700; 3]);
    for dir in all {
        let refused = |owner: &str, mode: &str| {
            let refused = Kernel::open(&own.options, &[watch.target()]).unwrap_err();
            assert!(
                matches!(refused, KernelError::Foreign { .. }),
                "{refused:?}"
            );
            let said = refused.to_string();
            let expected = format!("{} belongs to user {owner} with mode {mode}", dir.display());
            assert!(said.starts_with(&expected), "{said}");
        };
        chown(dir, Some(65_534), None)?;
        refused("65534", "0700");
        chown(dir, Some(0), None)?;
        set(dir, 0o1777)?;
        refused("0", "1777");
        set(dir, 0o755)?;
    }
    // Others may look into what an agent before made, until the next one comes.
    drop(own.open(watch));
    assert_eq!(mode(&target), 0o700);
    Ok(())
}

/// To a user who may not see them, with the capabilities that counting takes and without.
fn pins_of_another_user(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("unreadable");
    let _kernel = own.open(watch);
    let look = |kept: CapabilitySet| -> Result<(), Failed> {
        set_keep_capabilities(true)?;
        let nobody = Uid::from_raw(65_534);
        set_thread_res_uid(nobody, nobody, nobody)?;
        give_up_all_but(kept)?;
        let refused = Kernel::open_pinned(&own.options.pin_dir).unwrap_err();
        assert!(matches!(refused, KernelError::Denied { .. }), "{refused}");
        assert!(refused.to_string().contains("permission denied"));
        let checks = doctor::checks(&own.options.pin_dir, &TargetRequest::default())?;
        let losses = checks.iter().find(|check| check.name == "losses").unwrap();
        assert!(!losses.ok && losses.detail.contains("permission denied"));
        let untold = checks
            .iter()
            .all(|check| check.detail != "nothing is counted yet");
        assert!(untold, "{checks:?}");
        let refused = uninstall(&own.options.pin_dir).unwrap_err();
        assert!(matches!(refused, KernelError::Denied { .. }), "{refused}");
        Ok(())
    };
    let counting = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    for kept in [CapabilitySet::empty(), counting] {
        std::thread::scope(|scope| scope.spawn(|| look(kept)).join().unwrap())?;
    }
    Ok(())
}

/// What an agent of another layout left differs from this one's in its place alone.
fn another_layout(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("layouts");
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let before = own.open(watch);
    let mut conversation = Conversation::new(&listener);
    conversation.exchange();
    let pinned = || -> Vec<PathBuf> {
        let layouts = fs::read_dir(&own.options.pin_dir).unwrap();
        layouts.map(|layout| layout.unwrap().path()).collect()
    };
    let [current] = &pinned()[..] else {
        panic!("one layout");
    };
    let other = current.with_file_name("v1");
    fs::rename(current, &other)?;
    let refused = Kernel::open(&own.options, &[watch.target()]).unwrap_err();
    assert!(matches!(refused, KernelError::Busy { .. }), "{refused}");
    drop(before);
    let after = own.open(watch);
    assert_eq!(pinned(), std::slice::from_ref(current));
    until(
        "beside that of all tests there is one set of programs",
        || {
            // Other tests have sets of their own for a while.
            programs_of(&watch.target()).unwrap() == 2
        },
    );
    conversation.exchange();
    drop(conversation);
    watch.ended(Role::Downstream, address, 1);
    until("the end of what was adopted is told", || {
        downstream(&after, address).closed() == 1
    });
    let counters = downstream(&after, address);
    let connections = (
        counters.connections_adopted,
        counters.connections_opened,
        counters.closed(),
    );
    assert_eq!(connections, (1, 0, 1));
    assert_eq!(counters.bytes_received, REQUEST.len() as u64);
    assert_eq!(requests(&counters), 1);
    Ok(())
}

/// `union bpf_attr` for `BPF_PROG_QUERY`, as the UAPI has it.
#[repr(C)]
#[derive(Default)]
struct ProgramQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
}

/// How many programs the kernel runs for what arrives in a cgroup, by its own word.
fn programs_of(target: &Target) -> Result<u32, Failed> {
    const BPF_PROG_QUERY: libc::c_int = 16;
    // `BPF_CGROUP_INET_INGRESS` is the attach type 0; without room for their
    // numbers, programs are only counted.
    let cgroup = fs::File::open(&target.path)?;
    let mut query = ProgramQuery {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        ..ProgramQuery::default()
    };
    let size = size_of::<ProgramQuery>();
    // SAFETY: the attributes are of the given size and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size) };
    if result == 0 {
        Ok(query.prog_cnt)
    } else {
        Err(std::io::Error::last_os_error().into())
    }
}

/// The first two numbers of the kernel's version.
fn kernel_release() -> Result<[u32; 2], Failed> {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str()?.split(['.', '-']);
    let mut next = || -> Result<u32, Failed> { Ok(numbers.next().unwrap_or("").parse()?) };
    Ok([next()?, next()?])
}

/// The verifier asks more of who may not have the processor speculate: before
/// Linux 6.18, more than the programs of level http can show.
fn two_capabilities(watch: &Watch) -> Result<(), Failed> {
    let http = kernel_release()? >= [6, 18];
    let levels = [Level::Tcp, if http { Level::Http } else { Level::Tcp }];
    let mut own = Own::new("capabilities");
    own.options.level = Level::Tcp;
    // Mounting needs more, and happened before.
    fs::create_dir_all(&own.options.pin_dir)?;
    let without = || -> Result<(), Failed> {
        give_up_all_but(CapabilitySet::BPF | CapabilitySet::NET_ADMIN)?;
        let listener = TcpListener::bind(fresh())?;
        let address = listener.local_addr()?;
        let mut kernel = own.open(watch);
        for level in levels {
            CounterSource::set_level(&mut kernel, level)?;
        }
        Conversation::new(&listener).exchange();
        watch.ended(Role::Downstream, address, 1);
        let counters = downstream(&kernel, address);
        let counted = (counters.closed(), requests(&counters));
        assert_eq!(counted, (1, u64::from(http)));
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(without).join().unwrap())
}

fn levels_change(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("levels");
    own.options.level = Level::Tcp;
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let mut kernel = own.open(watch);
    assert_eq!(kernel.level(), Level::Tcp);
    let mut conversation = Conversation::new(&listener);
    let mut counted = 0;
    for level in [
        Level::Http,
        Level::Tcp,
        Level::Http,
        Level::Http,
        Level::Tcp,
    ] {
        kernel.set_level(level)?;
        assert_eq!(kernel.level(), level);
        for _ in 0..3 {
            conversation.exchange();
            counted += u64::from(level == Level::Http);
        }
        let counters = downstream(&kernel, address);
        assert_eq!(requests(&counters), counted, "{level:?}");
        assert_eq!(counters.responses.iter().sum::<u64>(), counted, "{level:?}");
    }
    drop(conversation);
    watch.ended(Role::Downstream, address, 1);
    let counters = downstream(&kernel, address);
    assert_eq!(counters.bytes_received, 15 * REQUEST.len() as u64);
    assert_eq!(counters.bytes_sent, 15 * RESPONSE.len() as u64);
    assert_eq!(
        (counters.suspected, counters.unparsed, counters.pipelined),
        (0, 0, 0)
    );
    Ok(())
}

/// A request at level http, its answer at level tcp, and the next one at http: the
/// first was asked, nobody saw its answer, and the second is an exchange as any.
fn open_while_the_level_changes(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("levels-open");
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let mut kernel = own.open(watch);
    let mut ends_unanswered = Conversation::new(&listener);
    let mut goes_on = Conversation::new(&listener);
    for conversation in [&mut ends_unanswered, &mut goes_on] {
        conversation.client.write_all(REQUEST)?;
        conversation.server.read_exact(&mut [0; REQUEST.len()])?;
    }
    assert_eq!(requests(&downstream(&kernel, address)), 2);
    kernel.set_level(Level::Tcp)?;
    for conversation in [&mut ends_unanswered, &mut goes_on] {
        conversation.server.write_all(RESPONSE)?;
        conversation.client.read_exact(&mut [0; RESPONSE.len()])?;
    }
    drop(ends_unanswered);
    watch.ended(Role::Downstream, address, 1);
    kernel.set_level(Level::Http)?;
    goes_on.exchange();
    // An agent that comes later goes on with the same generation.
    goes_on.client.write_all(REQUEST)?;
    drop(kernel);
    let kernel = own.open(watch);
    goes_on.server.read_exact(&mut [0; REQUEST.len()])?;
    goes_on.server.write_all(RESPONSE)?;
    goes_on.client.read_exact(&mut [0; RESPONSE.len()])?;
    goes_on.exchange();
    drop(goes_on);
    watch.ended(Role::Downstream, address, 2);
    let c = downstream(&kernel, address);
    assert_eq!((requests(&c), c.responses.iter().sum::<u64>()), (5, 3));
    assert_eq!((c.pipelined, c.suspected, c.unparsed), (0, 0, 0));
    assert_eq!(c.requests_without_response, 0);
    assert_eq!(c.exchange.buckets.iter().sum::<u64>(), 3);
    assert_eq!(c.bytes_received, 5 * REQUEST.len() as u64);
    Ok(())
}

/// A body is under way when requests begin to be looked at: it says nothing of what
/// the connection speaks.
fn amid_a_body(watch: &Watch) -> Result<(), Failed> {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n";
    let own = Own::new("levels-body");
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let mut kernel = own.open(watch);
    kernel.set_level(Level::Tcp)?;
    let mut conversation = Conversation::new(&listener);
    conversation.client.write_all(HEAD)?;
    conversation.server.read_exact(&mut [0; HEAD.len()])?;
    kernel.set_level(Level::Http)?;
    for part in [b"one of", b"two ::"] {
        conversation.client.write_all(part)?;
        conversation.server.read_exact(&mut [0; 6])?;
    }
    conversation.server.write_all(RESPONSE)?;
    conversation.client.read_exact(&mut [0; RESPONSE.len()])?;
    for _ in 0..3 {
        conversation.exchange();
    }
    drop(conversation);
    watch.ended(Role::Downstream, address, 1);
    let c = downstream(&kernel, address);
    assert_eq!((requests(&c), c.responses.iter().sum::<u64>()), (3, 3));
    assert_eq!((c.exchanges, c.suspected, c.unparsed), (0, 0, 0));
    Ok(())
}

fn overflow(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("overflow");
    own.options.endpoints_max = 4;
    let kernel = own.open(watch);
    // Other tests' endpoints come here too, so only sums are certain.
    for _ in 0..20 {
        let listener = TcpListener::bind(fresh())?;
        Conversation::new(&listener).exchange();
    }
    let sample = kernel.read();
    let named = sample
        .endpoints
        .iter()
        .filter(|e| e.id.address != EndpointAddress::Other)
        .count();
    let of = |role| {
        sample
            .endpoints
            .iter()
            .filter(move |e| e.id.role == role)
            .map(|e| *e.counters)
    };
    let opened = |role| of(role).map(|c| c.connections_opened).sum::<u64>();
    let requests = |role| of(role).map(|c| requests(&c)).sum::<u64>();
    assert_eq!(named, 4);
    for role in [Role::Downstream, Role::Upstream] {
        assert!(
            opened(role) >= 20 && requests(role) >= 20,
            "totals stay exact"
        );
    }
    // Each connection without a place is one loss; those of other tests go on.
    until("every connection without a place is counted once", || {
        let sample = kernel.read();
        let others = sample.endpoints.iter();
        let others = others.filter(|e| e.id.address == EndpointAddress::Other);
        let opened: u64 = others.map(|e| e.counters.connections_opened).sum();
        opened >= 36 && own.lost(&kernel, "endpoint_map_full") == opened
    });
    Ok(())
}

//! Another program that sets callback flags of its own in the place of ours.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use libtest_mimic::Failed;
use monitor_common::{counters::Failure, endpoint::Role};
use rustix::net::sockopt::set_socket_linger;

use crate::{
    Case, Watch,
    bpf::{self, instruction},
    watch::{Own, fresh, until},
};

pub(crate) const CASES: [Case; 3] = [
    (
        "callbacks_that_another_program_took_at_the_syn_are_asked_for_again",
        taken_at_the_syn,
    ),
    (
        "an_end_that_no_callback_told_counts_when_the_process_lets_go",
        ends_without_callbacks,
    ),
    (
        "callbacks_that_another_program_takes_for_good_are_a_counted_loss",
        taken_for_good,
    ),
];

/// As `enum` of the UAPI has them.
const TCP_CONNECT_CB: i32 = 3;
const ACTIVE_ESTABLISHED_CB: i32 = 4;
const STATE_CB_FLAG: i32 = 1 << 2;

/// The helper `bpf_sock_ops_cb_flags_set`.
const SOCK_OPS_CB_FLAGS_SET: i32 = 59;

/// A program that runs after ours, and at one callback sets these flags and no
/// others; it goes with the descriptor.
fn other_program(watch: &Watch, callback: i32, flags: i32) -> io::Result<OwnedFd> {
    let program = [
        // r2 = *(u32 *)(r1 + 0): op.
        instruction(0x61, 0x12, 0, 0),
        // if r2 != callback goto +2
        instruction(0x55, 0x02, 2, callback),
        // r2 = flags; bpf_sock_ops_cb_flags_set(r1, r2)
        instruction(0xb7, 0x02, 0, flags),
        instruction(0x85, 0, 0, SOCK_OPS_CB_FLAGS_SET),
        // return 1
        instruction(0xb7, 0, 0, 1),
        instruction(0x95, 0, 0, 0),
    ];
    let cgroup = File::open(&watch.target().path)?;
    bpf::attach_sock_ops(&program, &cgroup)
}

/// Asks for nothing as soon as the SYN is sent.
fn taken_at_the_syn(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("callbacks-syn");
    let kernel = own.open(watch);
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let closed = TcpListener::bind(fresh())?.local_addr()?;
    let other = other_program(watch, TCP_CONNECT_CB, 0)?;
    for _ in 0..3 {
        TcpStream::connect(closed).unwrap_err();
        let mut client = TcpStream::connect(address)?;
        let mut server = listener.accept()?.0;
        client.write_all(b"abc")?;
        server.read_exact(&mut [0; 3])?;
    }
    drop(other);
    until("each of them ended", || {
        let c = own.counters(&kernel, Role::Upstream, address);
        (c.connections_opened, c.closed(), c.bytes_sent) == (3, 3, 9)
    });
    let refused = own.counters(&kernel, Role::Upstream, closed);
    assert_eq!(refused.connections_opened, 3);
    assert_eq!(refused.connections_failed[Failure::Refused as usize], 3);
    Ok(())
}

/// Nothing tells that the peer reset the connection, but that the process lets go of
/// its socket.
fn ends_without_callbacks(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("callbacks-none");
    let kernel = own.open(watch);
    let lost = own.lost(&kernel, "callbacks_taken");
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let open = || {
        let c = own.counters(&kernel, Role::Upstream, address);
        c.connections_opened - c.closed()
    };
    // The programs of all tests are on one cgroup: those of another may have the kernel
    // tell of an end.
    for _ in 0..20 {
        let other = other_program(watch, ACTIVE_ESTABLISHED_CB, 0)?;
        let mut client = TcpStream::connect(address)?;
        drop(other);
        let server = listener.accept()?.0;
        set_socket_linger(&server, Some(Duration::ZERO))?;
        drop(server);
        client.read(&mut [0; 9]).unwrap_err();
        let was_told = open() == 0;
        drop(client);
        assert_eq!(open(), 0);
        if !was_told {
            assert!(own.lost(&kernel, "callbacks_taken") > lost);
            return Ok(());
        }
    }
    panic!("each of twenty ends was told by a callback");
}

/// Leaves of ours what it wants itself, whenever a connection is established.
fn taken_for_good(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("callbacks-taken");
    let kernel = own.open(watch);
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    // The programs of all tests are on one cgroup, and the first one asks for all.
    let lost = || own.lost(&kernel, "callbacks_taken") + watch.lost("callbacks_taken");
    let before = lost();
    let other = other_program(watch, ACTIVE_ESTABLISHED_CB, STATE_CB_FLAG)?;
    let client = TcpStream::connect(address)?;
    drop(other);
    let mut server = listener.accept()?.0;
    client.shutdown(Shutdown::Write)?;
    assert_eq!(server.read(&mut [0; 9])?, 0);
    drop((client, server));
    until("it ended", || {
        own.counters(&kernel, Role::Upstream, address).closed() == 1
    });
    assert!(lost() > before);
    Ok(())
}

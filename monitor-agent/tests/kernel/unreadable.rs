//! Packets in which the packet program finds no TCP segment.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use libtest_mimic::Failed;
use monitor_common::endpoint::Role;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::{
    Case, Watch,
    lossy::{self, run},
    network::in_own_network,
    watch::{Own, until},
};

pub(crate) const CASES: [Case; 1] = [(
    "packets_with_extension_headers_are_a_counted_loss",
    extension_headers,
)];

pub(crate) const ENCAPSULATED: [Case; 1] = [(
    "packets_that_are_encapsulated_on_their_way_out_are_a_counted_loss",
    encapsulated,
)];

/// What keeps [`ENCAPSULATED`] from running here.
pub(crate) fn missing() -> Option<String> {
    let no_route = || {
        let tried = in_own_network(route);
        tried.err().map(|_| "the kernel has no SRv6".to_owned())
    };
    lossy::missing().or_else(no_route)
}

/// A destination that is reached through another one alone.
fn route() -> Result<SocketAddr, Failed> {
    run("ip link add name out0 type veth peer name out1")?;
    run("ip link set out0 up")?;
    run("ip address add fd00::1/64 dev out0 nodad")?;
    run("ip -6 route add fd02::/64 dev out0")?;
    run("ip -6 route add fd01::1/128 encap seg6 mode encap segs fd02::1 dev out0")?;
    Ok("[fd01::1]:80".parse()?)
}

fn encapsulated(watch: &Watch) -> Result<(), Failed> {
    in_own_network(|| {
        let own = Own::new("encapsulated");
        let kernel = own.open(watch);
        let lost = own.lost(&kernel, "encapsulated");
        let to = route()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
        let _in_progress = connect(&client, &to);
        until("the SYN is told of", || {
            own.lost(&kernel, "encapsulated") > lost
        });
        Ok(())
    })
}

/// The stream itself counts as any; what it says does not.
fn extension_headers(watch: &Watch) -> Result<(), Failed> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    // A header of eight bytes, of which four are padding.
    const DESTINATION_OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    in_own_network(|| {
        let own = Own::new("extension-headers");
        let kernel = own.open(watch);
        let lost = own.lost(&kernel, "encapsulated");
        let listener = TcpListener::bind("[::1]:0")?;
        let address = listener.local_addr()?;
        let mut client = TcpStream::connect(address)?;
        let mut server = listener.accept()?.0;
        // SAFETY: the kernel reads as many bytes as it is told there are.
        let set = unsafe {
            libc::setsockopt(
                client.as_raw_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_DSTOPTS,
                DESTINATION_OPTIONS.as_ptr().cast(),
                DESTINATION_OPTIONS.len() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        client.write_all(REQUEST)?;
        server.read_exact(&mut [0; REQUEST.len()])?;
        drop((client, server));
        let asked = REQUEST.len() as u64;
        until("its end", || {
            let c = own.counters(&kernel, Role::Downstream, address);
            (c.closed(), c.bytes_received) == (1, asked)
        });
        let c = own.counters(&kernel, Role::Downstream, address);
        assert_eq!(c.requests.iter().sum::<u64>(), 0);
        // It left here and arrived here.
        assert!(own.lost(&kernel, "encapsulated") >= lost + 2);
        Ok(())
    })
}

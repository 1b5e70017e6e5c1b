//! A bare TCP relay: the least that anything between two sockets can cost.
//!
//! One thread, edge-triggered epoll, one buffer for all connections; each piece
//! is one read and one write. It knows nothing of HTTP, and a connection ends
//! when either side does.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
};

const EVENTS: usize = 256;
const BUFFER_BYTES: usize = 64 << 10;
/// The listener's number; connections have the lower ones.
const LISTENER: u64 = u64::MAX;

/// Passes bytes between clients and one server, and nothing more.
#[derive(Debug, Parser)]
#[command(name = "speedmimi-relay", version)]
struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where to pass connections on to
    #[arg(long)]
    upstream: SocketAddr,
}

/// One end of a relayed connection; the other has the number with the lowest
/// bit flipped.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    /// What the kernel has not taken yet.
    pending: Vec<u8>,
}

#[derive(Debug)]
struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    upstream: SocketAddr,
    ends: Vec<Option<End>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    listener.set_nonblocking(true)?;
    eprintln!("ready listen={}", listener.local_addr()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let data = EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, data, EventFlags::IN)?;
    let mut relay = Relay {
        epoll,
        listener,
        upstream: args.upstream,
        ends: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    relay.run().context("waiting for events")
}

impl Relay {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    slot => self.handle(usize::try_from(slot).unwrap_or(usize::MAX), event.flags),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((client, _)) = self.listener.accept() {
            if let Err(error) = self.join(client) {
                eprintln!("a connection is not relayed: {error}");
            }
        }
    }

    fn join(&mut self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.upstream)?;
        let first = self.free.pop().unwrap_or_else(|| {
            self.ends.extend([None, None]);
            self.ends.len() - 2
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for (slot, stream) in [(first, client), (first + 1, server)] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&self.epoll, &stream, EventData::new_u64(slot as u64), flags)?;
            self.ends[slot] = Some(End {
                stream,
                pending: Vec::new(),
            });
        }
        Ok(())
    }

    fn handle(&mut self, slot: usize, flags: EventFlags) {
        let mut done = Ok(true);
        if flags.contains(EventFlags::OUT) && self.has_pending(slot) {
            done = self.flush(slot);
            if matches!(done, Ok(true)) {
                done = self.pump(slot ^ 1);
            }
        }
        if done.is_ok() && flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            done = self.pump(slot);
        }
        if done.is_err() {
            let first = slot & !1;
            self.ends[first] = None;
            self.ends[first + 1] = None;
            self.free.push(first);
        }
    }

    fn has_pending(&self, slot: usize) -> bool {
        let end = self.ends.get(slot).and_then(Option::as_ref);
        end.is_some_and(|end| !end.pending.is_empty())
    }

    /// Writes what waits for `slot`; whether all of it went.
    fn flush(&mut self, slot: usize) -> io::Result<bool> {
        let Some(end) = &mut self.ends[slot] else {
            return Ok(false);
        };
        while !end.pending.is_empty() {
            match end.stream.write(&end.pending) {
                Ok(sent) => drop(end.pending.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Passes on what has come from `slot`, until there is no more or the other
    /// end takes no more.
    fn pump(&mut self, slot: usize) -> io::Result<bool> {
        loop {
            let (Some(from), Some(to)) = (&self.ends[slot], &self.ends[slot ^ 1]) else {
                return Ok(false);
            };
            if !to.pending.is_empty() {
                return Ok(false);
            }
            let read = match (&from.stream).read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let sent = match (&to.stream).write(&self.buffer[..read]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            if sent < read {
                if let Some(to) = &mut self.ends[slot ^ 1] {
                    to.pending.extend_from_slice(&self.buffer[sent..read]);
                }
                return Ok(false);
            }
            // A read that did not fill the buffer has drained the socket.
            if read < self.buffer.len() {
                return Ok(true);
            }
        }
    }
}

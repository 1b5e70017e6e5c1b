//! epoll, level-triggered, by slot number.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};

/// How many events are taken at once.
const EVENTS: usize = 256;

/// Waits for many sockets.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Reports the socket under `slot` when it can be read, or written too.
    pub(super) fn add(&self, socket: impl AsFd, slot: usize, write: bool) -> io::Result<()> {
        epoll::add(&self.epoll, socket, data(slot), flags(write))?;
        Ok(())
    }

    /// Changes whether writability is reported.
    pub(super) fn modify(&self, socket: impl AsFd, slot: usize, write: bool) -> io::Result<()> {
        epoll::modify(&self.epoll, socket, data(slot), flags(write))?;
        Ok(())
    }

    /// The slots that are ready, after at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<Vec<usize>> {
        let mut events = Vec::with_capacity(EVENTS);
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        ) {
            // A signal is no event.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let slot = |event: &epoll::Event| usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
        Ok(events.iter().map(slot).collect())
    }
}

fn data(slot: usize) -> epoll::EventData {
    epoll::EventData::new_u64(slot as u64)
}

fn flags(write: bool) -> epoll::EventFlags {
    let read = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
    if write {
        read | epoll::EventFlags::OUT
    } else {
        read
    }
}

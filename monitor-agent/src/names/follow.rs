//! A configuration is read, looked up and followed on a thread of its own: nothing
//! that it holds, or that it lacks, delays counting.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use daemon::error_chain;
use proxy_config::{Found, Names};

use super::{
    file::{LOOK, NamesFile},
    hosts::Hosts,
    lookups::{LookUp, Lookups},
};

/// How many hosts without an address are named.
const UNKNOWN_SHOWN: usize = 20;

/// What is known of one configuration.
#[derive(Clone, Debug, Default)]
pub struct NamesState {
    /// The names that were read last.
    pub names: Arc<Names>,
    /// Why it cannot be read now, and what to do.
    pub problem: Option<String>,
    /// What else there is to say of it.
    pub remarks: Vec<String>,
    /// How many times it was read or tried.
    pub(super) tries: u64,
    /// How many hosts have no address.
    pub unknown: usize,
    /// How many hosts were not answered for yet.
    pub pending: usize,
}

enum Event {
    ReadAgain,
    Answered(String, Vec<IpAddr>),
    Stop,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Arc<NamesState>>,
    changed: Condvar,
}

/// The newest names; the file is followed until this is dropped.
#[derive(Debug)]
pub struct FollowedNames {
    shared: Arc<Shared>,
    events: Sender<Event>,
}

impl FollowedNames {
    /// Follows a configuration from now on, and returns at once.
    pub(super) fn start(file: NamesFile, look_up: LookUp) -> Self {
        let shared = Arc::new(Shared::default());
        let (events, receiver) = channel();
        let answers = Mutex::new(events.clone());
        let answer = move |host, addresses| {
            let events = answers.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever asked may be gone by now.
            events.send(Event::Answered(host, addresses)).ok();
        };
        let follower = Follower {
            file,
            lookups: Lookups::new(look_up, Arc::new(answer)),
            hosts: Hosts::default(),
            found: None,
            state: NamesState::default(),
            told: BTreeSet::new(),
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new().name("names".to_owned());
        if let Err(error) = thread.spawn(move || follower.run(&receiver)) {
            tracing::warn!(%error, "the operating system refuses a thread: there are no names");
        }
        Self { shared, events }
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> Arc<NamesState> {
        let state = self.shared.state.lock();
        Arc::clone(&state.unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it again soon, changed or not, and looks all hosts up.
    pub fn read_again(&self) {
        // Where its thread could not be made there is nobody to read.
        self.events.send(Event::ReadAgain).ok();
    }

    /// What is known once it satisfies; what is known by then where the time is over.
    #[must_use]
    pub fn wait(&self, within: Duration, enough: impl Fn(&NamesState) -> bool) -> Arc<NamesState> {
        let state = self.shared.state.lock();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, within, |state| !enough(state));
        Arc::clone(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for FollowedNames {
    fn drop(&mut self) {
        self.events.send(Event::Stop).ok();
    }
}

impl NamesState {
    /// Whether it was tried, and every host answered for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.tries > 0 && self.pending == 0
    }
}

struct Follower {
    file: NamesFile,
    lookups: Lookups,
    hosts: Hosts,
    found: Option<Found>,
    state: NamesState,
    /// The remarks that were logged already.
    told: BTreeSet<String>,
    shared: Arc<Shared>,
}

impl Follower {
    fn run(mut self, events: &Receiver<Event>) {
        let mut again = false;
        loop {
            if again || self.file.is_due() {
                self.read();
            }
            self.lookups.begin(self.hosts.due(Instant::now(), again));
            again = false;
            let mut event = events.recv_timeout(LOOK);
            let mut answered = false;
            loop {
                match event {
                    Ok(Event::ReadAgain) => again = true,
                    Ok(Event::Answered(host, addresses)) => {
                        self.hosts.take(&host, addresses, Instant::now());
                        answered = true;
                    }
                    Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                event = events.recv_timeout(Duration::ZERO);
            }
            if answered {
                self.resolve();
            }
        }
    }

    /// Reads the configuration; while it cannot be read, the last names hold.
    fn read(&mut self) {
        let read = self.file.read().map_err(|error| error_chain(&error));
        // What the proxy itself would refuse does not take the place of what it runs
        // with; where nothing was read before, it is better than nothing.
        let broken = |found: &Found| found.broken.clone().filter(|_| self.found.is_some());
        let read = read.and_then(|found| match broken(&found) {
            Some(error) => Err(error),
            None => Ok(found),
        });
        self.state.tries += 1;
        let path = self.file.on_host();
        let path = path.display();
        match read {
            Ok(mut found) => {
                self.hosts.keep(&found.hosts());
                self.state.problem.clone_from(&found.broken);
                self.found = Some(found);
                self.resolve();
                tracing::info!(
                    %path,
                    names = self.state.names.len(),
                    hosts_to_look_up = self.state.pending,
                    "read the names"
                );
            }
            Err(problem) => {
                if self.state.problem.as_ref() != Some(&problem) {
                    let names = self.state.names.len();
                    let problem = problem.as_str();
                    tracing::warn!(
                        %path,
                        problem,
                        names,
                        "the names cannot be read: the last ones hold, and it is tried again"
                    );
                }
                self.state.problem = Some(problem);
                self.publish();
            }
        }
    }

    fn resolve(&mut self) {
        let Some(found) = &self.found else { return };
        let unknown = self.hosts.unknown().take(UNKNOWN_SHOWN);
        let unknown = unknown.map(|host| format!("{host} cannot be looked up"));
        let remarks = found.remarks.iter().cloned().chain(unknown);
        let broken = found.broken.as_ref();
        let broken = broken.map(|error| format!("{error}: what was read is used"));
        self.state.remarks = broken.into_iter().chain(remarks).collect();
        self.state.names = Arc::new(found.resolve(|host| self.hosts.addresses(host)));
        self.state.pending = self.hosts.pending();
        self.state.unknown = self.hosts.unknown().count();
        let path = self.file.on_host();
        for remark in &self.state.remarks {
            if !self.told.contains(remark) {
                tracing::warn!(path = %path.display(), "{remark}");
            }
        }
        self.told = self.state.remarks.iter().cloned().collect();
        self.publish();
    }

    fn publish(&self) {
        let state = self.shared.state.lock();
        *state.unwrap_or_else(PoisonError::into_inner) = Arc::new(self.state.clone());
        self.shared.changed.notify_all();
    }
}

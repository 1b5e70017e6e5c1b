//! What the targets' processes accept or ask for that is not counted, as it is now:
//! listeners that were made in other cgroups, and Unix sockets.
//!
//! Both come and go while the agent runs: socket activation, a reload that takes a
//! listener over, a new upstream.  So they are looked for again and again, on a
//! thread that nobody waits for.

use kernel_sample::Target;
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    sampler::Shared,
    target::{self, FOREIGN_ADVICE, Roots, UNIX_ADVICE},
};

/// The time between two looks.
pub const LOOKED_AFTER: Duration = Duration::from_secs(60);

/// What the last look found; absent before it, and where processes may not be looked
/// into or the kernel does not tell.
#[derive(Clone, Debug, Default)]
pub struct Uncounted(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    listeners: Option<BTreeSet<String>>,
    unix: Option<BTreeSet<String>>,
}

/// What is new since the last time.
fn fresh(before: Option<&BTreeSet<String>>, now: Option<&BTreeSet<String>>) -> Vec<String> {
    let known = |one: &&String| before.is_some_and(|before| before.contains(*one));
    let now = now.into_iter().flatten();
    now.filter(|one| !known(one)).cloned().collect()
}

impl Uncounted {
    /// Looks once, and logs what is new.  Of listeners that is what was not there at
    /// the first look: those are named before privileges are given up.
    pub fn look(&self, targets: &[Target], roots: &Roots) {
        let open =
            |t: &Target| &*t.label == "/" || target::may_be_looked_into(&roots.proc, &t.path);
        let open = targets.iter().all(open);
        let listeners = open.then(|| {
            let foreign = target::foreign_listeners(targets, roots);
            foreign.iter().map(ToString::to_string).collect()
        });
        let unix = open.then(|| target::unix(targets, roots).ok()).flatten();
        let unix = unix.map(|unix| unix.iter().map(ToString::to_string).collect());
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.listeners.is_some() {
            for new in fresh(found.listeners.as_ref(), listeners.as_ref()) {
                tracing::warn!("{new}; {FOREIGN_ADVICE}");
            }
        }
        for new in fresh(found.unix.as_ref(), unix.as_ref()) {
            tracing::info!("{new}; {UNIX_ADVICE}");
        }
        *found = Found { listeners, unix };
    }

    /// The listeners that are not counted; `None` where that is not known.
    #[must_use]
    pub fn listeners(&self) -> Option<BTreeSet<String>> {
        self.get(|found| &found.listeners)
    }

    /// The Unix sockets; `None` where that is not known.
    #[must_use]
    pub fn unix(&self) -> Option<BTreeSet<String>> {
        self.get(|found| &found.unix)
    }

    fn get(&self, of: fn(&Found) -> &Option<BTreeSet<String>>) -> Option<BTreeSet<String>> {
        of(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).clone()
    }

    /// Goes on looking at what is watched, for as long as somebody else has it.
    ///
    /// # Errors
    /// Where the operating system refuses a thread.
    pub fn follow(&self, shared: Arc<Shared>) -> io::Result<()> {
        let Ok(roots) = Roots::detect() else {
            return Ok(());
        };
        let found = Arc::downgrade(&self.0);
        let look = move || {
            while let Some(found) = found.upgrade() {
                Self(found).look(&shared.watched(), &roots);
                thread::sleep(LOOKED_AFTER);
            }
        };
        let thread = thread::Builder::new().name("uncounted".to_owned());
        thread.spawn(look).map(drop)
    }
}

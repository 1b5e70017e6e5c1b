//! Targets that are not there yet, and are watched as soon as they are.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{Resolved, Roots, TargetRequest, resolve};
use daemon::once_a_minute;
use kernel_sample::Target;

/// The time between two looks: a unit is looked for in the whole tree of cgroups.
const LOOK: Duration = Duration::from_secs(2);

/// What is waited for, in words.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Mutex<Vec<String>>>);

impl Awaited {
    /// What is not there yet, each with what that means.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, resolved: &Resolved) {
        let names = resolved.awaited.iter().map(ToString::to_string).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Looks for what is missing on a thread of its own, until it is all there or this
    /// is dropped; what comes is handed over, with what was there before.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn follow(
        request: TargetRequest,
        roots: Roots,
        resolved: &Resolved,
        found: impl Fn(&[Target]) + Send + 'static,
    ) -> io::Result<Self> {
        let awaited = Self::default();
        awaited.set(resolved);
        if resolved.awaited.is_empty() {
            return Ok(awaited);
        }
        for missing in awaited.names() {
            tracing::warn!("{missing}: it is waited for, and watched when it is there");
        }
        let followed = Arc::downgrade(&awaited.0);
        let follow = move || {
            loop {
                thread::sleep(LOOK);
                let Some(awaited) = followed.upgrade().map(Self) else {
                    return;
                };
                let before = awaited.names().len();
                match resolve(&request, &roots) {
                    Ok(resolved) => {
                        awaited.set(&resolved);
                        if resolved.awaited.len() < before {
                            found(&resolved.targets);
                        }
                        if resolved.awaited.is_empty() {
                            return;
                        }
                    }
                    Err(error) if once_a_minute("a target that came") => {
                        tracing::warn!(%error, "what has come cannot be watched");
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = thread::Builder::new().name("targets".to_owned());
        thread.spawn(follow).map(|_| awaited)
    }
}

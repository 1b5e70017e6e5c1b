//! Targets that are not there yet, and are watched as soon as they are; and proxies
//! that come and go.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    Proxy, Resolved, Roots, TargetError, TargetRequest,
    auto::{LOOK as LOOK_FOR_PROXIES, Listening},
    resolve,
};
use daemon::once_a_minute;
use kernel_sample::Target;

/// The time between two looks: a unit is looked for in the whole tree of cgroups.
const LOOK: Duration = Duration::from_secs(2);

/// What is waited for, in words.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Mutex<Vec<String>>>);

/// What is told of targets that came or went.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// These came, and those before stay.
    Came(&'a [Target]),
    /// These are all, with the proxies that were found.
    Are(&'a [Target], &'a [Proxy]),
}

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
    /// is dropped; what comes is handed over, with what was there before.  Proxies and
    /// containers are looked for as long as the agent runs; one that is gone is kept for `keep`, so
    /// that a report tells of its end.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn follow(
        request: TargetRequest,
        roots: Roots,
        resolved: &Resolved,
        keep: Duration,
        told: impl Fn(Change<'_>) + Send + 'static,
    ) -> io::Result<Self> {
        let awaited = Self::default();
        awaited.set(resolved);
        if resolved.awaited.is_empty() && !request.is_followed() {
            return Ok(awaited);
        }
        for missing in awaited.names() {
            tracing::warn!("{missing}: it is waited for, and watched when it is there");
        }
        let mut watched = Watched::default();
        if request.is_followed() {
            watched.take(resolved, keep, Instant::now());
            told(Change::Are(&watched.targets(), &resolved.proxies));
        }
        let mut proxies = resolved.proxies.clone();
        let mut looked = (Listening::now(), Instant::now());
        let mut named = waits_for_named(resolved);
        let followed = Arc::downgrade(&awaited.0);
        let follow = move || {
            loop {
                thread::sleep(LOOK);
                let Some(awaited) = followed.upgrade().map(Self) else {
                    return;
                };
                let before = awaited.names().len();
                if !named && request.is_followed() {
                    // What listens is cheaply asked for, all processes are not.
                    let now = Listening::now();
                    if now == looked.0 && looked.1.elapsed() < LOOK_FOR_PROXIES {
                        continue;
                    }
                    looked = (now, Instant::now());
                }
                match resolve(&request, &roots) {
                    Ok(resolved) => {
                        awaited.set(&resolved);
                        named = waits_for_named(&resolved);
                        if request.is_followed() {
                            let changed = watched.take(&resolved, keep, Instant::now());
                            if changed || proxies != resolved.proxies {
                                told(Change::Are(&watched.targets(), &resolved.proxies));
                            }
                            proxies = resolved.proxies;
                            continue;
                        }
                        if resolved.awaited.len() < before {
                            told(Change::Came(&resolved.targets));
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

/// Whether something is missing that is named, and no pattern.
fn waits_for_named(resolved: &Resolved) -> bool {
    let is_named = |error: &TargetError| !matches!(error, TargetError::NoContainer { .. });
    resolved.awaited.iter().any(is_named)
}

/// What is watched while proxies and containers come and go, and since when one is gone.
#[derive(Debug, Default)]
struct Watched(Vec<(Target, Option<Instant>)>);

impl Watched {
    /// Takes what was found, and says whether another set is watched now.  Where a cgroup
    /// is still there, connections of its proxy may be, too.
    fn take(&mut self, resolved: &Resolved, keep: Duration, now: Instant) -> bool {
        let before = self.targets();
        for target in &resolved.targets {
            match self.0.iter_mut().find(|(known, _)| known == target) {
                Some((_, gone)) => *gone = None,
                None => self.0.push((target.clone(), None)),
            }
        }
        for (target, gone) in &mut self.0 {
            if !resolved.targets.contains(target) && !target.path.exists() {
                gone.get_or_insert(now);
            }
        }
        self.0
            .retain(|(_, gone)| gone.is_none_or(|since| now.duration_since(since) < keep));
        self.targets() != before
    }

    fn targets(&self) -> Vec<Target> {
        self.0.iter().map(|(target, _)| target.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_gone_is_kept_until_a_report_has_told_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = |name: &str| Target {
            path: dir.path().join(name),
            label: Arc::from(format!("/{name}")),
        };
        let (a, b) = (target("a"), target("b"));
        for target in [&a, &b] {
            std::fs::create_dir(&target.path).unwrap();
        }
        let found = |targets: &[&Target]| Resolved {
            targets: targets.iter().map(|&t| t.clone()).collect(),
            ..Resolved::default()
        };
        let keep = Duration::from_secs(60);
        let start = Instant::now();
        let mut watched = Watched::default();
        assert!(watched.take(&found(&[&a, &b]), keep, start));
        // It listens no more, and has connections still.
        assert!(!watched.take(&found(&[&b]), keep, start));
        std::fs::remove_dir(&a.path).unwrap();
        assert!(!watched.take(&found(&[&b]), keep, start));
        assert!(!watched.take(&found(&[&b]), keep, start + keep / 2));
        assert!(watched.take(&found(&[&b]), keep, start + keep));
        assert_eq!(watched.targets(), [b]);
    }
}

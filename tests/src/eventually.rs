//! Waiting for something to become true, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// When there is none by the deadline; the message says what was waited for.
pub fn eventually<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    try_eventually(deadline, &mut ask)
        .unwrap_or_else(|| panic!("no {what} within {:.0} s", deadline.as_secs_f64()))
}

/// Asks again and again until there is an answer, or the deadline has passed.
pub fn try_eventually<T>(deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if start.elapsed() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until it is so, for a minute at the most: a loaded machine is slow.
///
/// # Panics
///
/// When it is not so by then; the message says what was waited for.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Duration::from_secs(60);
    let so = try_eventually(deadline, || is_so().then_some(()));
    assert!(so.is_some(), "{what}: not within {deadline:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = eventually("third answer", Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(answer, 3);
    }

    #[test]
    fn it_gives_up_at_the_deadline() {
        assert_eq!(
            try_eventually(Duration::from_millis(50), || None::<()>),
            None
        );
    }
}

//! What needs more than the proxy: nginx and `HAProxy` to compare with, and names
//! that change. What this machine cannot run is counted as ignored.

#![allow(clippy::unwrap_used, reason = "a test: the harness shows the panic")]

mod crossing;
mod differential;
mod names;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

fn main() -> ExitCode {
    let trials = vec![
        trial(
            "nginx_understands_alike_what_both_accept",
            differential::missing("nginx"),
            || differential::agrees_with("nginx"),
        ),
        trial(
            "haproxy_understands_alike_what_both_accept",
            differential::missing("haproxy"),
            || differential::agrees_with("haproxy"),
        ),
        trial(
            "nginx_answers_alike_where_answers_are_odd",
            differential::missing("nginx"),
            || differential::answers_like("nginx"),
        ),
        trial(
            "haproxy_answers_alike_where_answers_are_odd",
            differential::missing("haproxy"),
            || differential::answers_like("haproxy"),
        ),
        trial(
            "a_post_that_crosses_the_backends_end_is_sent_again",
            crossing::missing(),
            crossing::a_post_that_crosses_the_backends_end_is_sent_again,
        ),
        trial(
            "backends_are_followed_to_new_addresses_and_kept_where_a_name_fails",
            names::missing(),
            names::backends_are_followed_to_new_addresses_and_kept_where_a_name_fails,
        ),
        trial(
            "a_reload_while_names_are_looked_up_has_them_looked_up_again",
            names::missing(),
            names::a_reload_while_names_are_looked_up_has_them_looked_up_again,
        ),
        trial(
            "a_process_that_waits_for_names_takes_no_client",
            names::missing(),
            names::a_process_that_waits_for_names_takes_no_client,
        ),
        trial(
            "a_silent_resolver_holds_up_no_other_change",
            names::missing(),
            names::a_silent_resolver_holds_up_no_other_change,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test, or the reason why this machine cannot run it.
fn trial(name: &str, missing: Option<String>, run: fn()) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = missing {
            return Ok(Completion::ignored_with(reason));
        }
        run();
        Ok(Completion::Completed)
    })
}

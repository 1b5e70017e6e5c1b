use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use proxy_config::Names;

use super::{file::NamesFile, lookups::LookUp, *};

/// Only a test that fails waits for so long.
const TIMEOUT: Duration = Duration::from_secs(60);

const YAML: &str = include_str!("../../../crates/proxy-config/cases/proxy.yaml");

fn peer(names: &Names, address: &str) -> (String, String) {
    let name = names.peer(address.parse().unwrap());
    let name = name.cloned().unwrap_or_default();
    (name.upstream, name.backend)
}

/// Says nothing until it is told to, and then what it is told.
fn on_demand(answers: Receiver<Vec<IpAddr>>) -> LookUp {
    let answers = Mutex::new(answers);
    Arc::new(move |_| answers.lock().unwrap().recv().unwrap_or_default())
}

fn no_host() -> LookUp {
    Arc::new(|_| Vec::new())
}

fn follow(path: &Path, look_up: LookUp) -> FollowedNames {
    FollowedNames::start(NamesFile::new(path, None), look_up)
}

fn settled(names: &FollowedNames) -> Arc<NamesState> {
    let state = names.wait(TIMEOUT, NamesState::is_settled);
    assert!(state.is_settled());
    state
}

/// After it was read once more than before.
fn after(names: &FollowedNames, before: &NamesState) -> Arc<NamesState> {
    let state = names.wait(TIMEOUT, |state| state.tries > before.tries);
    assert!(state.tries > before.tries);
    state
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.yaml");
    fs::write(&path, YAML).unwrap();
    let names = follow(&path, no_host());
    let whole = settled(&names);
    assert_eq!((whole.names.len(), &whole.problem), (2, &None));
    fs::write(&path, "backends: [").unwrap();
    let broken = after(&names, &whole);
    assert_eq!(broken.names.len(), 2);
    assert!(
        broken.problem.as_ref().unwrap().contains("proxy.yaml"),
        "{broken:?}"
    );
    fs::write(&path, "backends: {}").unwrap();
    let empty = after(&names, &broken);
    assert_eq!((empty.names.len(), &empty.problem), (0, &None));
}

#[test]
fn half_a_configuration_of_nginx_is_used_only_where_there_was_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nginx.conf");
    let whole = "http { upstream a { server 127.0.0.1:1; server 127.0.0.1:2; } }";
    fs::write(&path, &whole[..40]).unwrap();
    let names = follow(&path, no_host());
    let half = settled(&names);
    assert_eq!(half.names.len(), 1);
    assert!(
        half.problem.as_ref().unwrap().contains("not closed"),
        "{half:?}"
    );
    fs::write(&path, whole).unwrap();
    let read = after(&names, &half);
    assert_eq!((read.names.len(), &read.problem), (2, &None));
    fs::write(&path, &whole[..40]).unwrap();
    assert_eq!(after(&names, &read).names.len(), 2);
}

#[test]
fn a_file_that_comes_later_is_read_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("later.conf");
    let names = follow(&path, no_host());
    let none = settled(&names);
    let problem = none.problem.as_ref().unwrap();
    assert!(
        problem.contains("later.conf") && problem.contains("--names-from"),
        "{problem}"
    );
    fs::write(&path, "upstream a { server 127.0.0.1:1; }").unwrap();
    let read = after(&names, &none);
    assert_eq!((read.names.len(), &read.problem), (1, &None));
}

#[test]
fn included_files_and_new_ones_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sites) = (dir.path().join("nginx.conf"), dir.path().join("sites"));
    fs::create_dir(&sites).unwrap();
    fs::write(sites.join("a.conf"), "upstream a { server 127.0.0.1:1; }").unwrap();
    fs::write(&path, "include sites/*.conf;").unwrap();
    let names = follow(&path, no_host());
    let mut state = settled(&names);
    assert_eq!(state.names.len(), 1);
    for (count, servers) in [
        (2, "server 127.0.0.1:2;"),
        (3, "server 127.0.0.1:2; server 127.0.0.1:3;"),
    ] {
        fs::write(sites.join("b.conf"), format!("upstream b {{ {servers} }}")).unwrap();
        // A directory and a file in it change one after the other.
        state = names.wait(TIMEOUT, |state| state.names.len() == count);
        assert_eq!(state.names.len(), count);
    }
}

#[test]
fn reading_again_needs_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moving.conf");
    let text = include_str!("../../../crates/proxy-config/cases/moving_host.conf");
    fs::write(&path, text).unwrap();
    let (answer, answers) = channel();
    let names = follow(&path, on_demand(answers));
    let ip = |last: u8| IpAddr::from([127, 0, 0, last]);
    answer.send(vec![ip(1)]).unwrap();
    let first = settled(&names);
    assert_eq!(peer(&first.names, "127.0.0.1:25150").0, "shop");
    names.read_again();
    answer.send(vec![ip(2)]).unwrap();
    let moved = |state: &NamesState| peer(&state.names, "127.0.0.2:25150").0 == "shop";
    assert!(moved(&names.wait(TIMEOUT, moved)));
    names.read_again();
    answer.send(vec![]).unwrap();
    let failed = names.wait(TIMEOUT, |state| !state.remarks.is_empty());
    assert!(failed.remarks[0].contains("app.moves.test"), "{failed:?}");
    assert!(moved(&failed), "the last address holds");
}

#[test]
fn hosts_that_nobody_answers_for_delay_no_other() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    // Three hang, each on a thread of its own, until the test is over.
    let look_up: LookUp = Arc::new(move |host| match host {
        "live" => vec![Ipv4Addr::LOCALHOST.into()],
        _ => released.lock().unwrap().recv().map_or(vec![], |()| vec![]),
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haproxy.cfg");
    let text = include_str!("../../../crates/proxy-config/cases/servers_by_dns.cfg");
    fs::write(
        &path,
        format!("{text} server literal 10.0.0.1:80\n server live live:80\n"),
    )
    .unwrap();
    let names = follow(&path, look_up);
    let known = names.wait(TIMEOUT, |state| state.names.len() == 2);
    assert_eq!((known.names.len(), known.pending), (2, 3));
    assert_eq!(peer(&known.names, "10.0.0.1:80").1, "literal");
    assert_eq!(peer(&known.names, "127.0.0.1:80").1, "live");
    drop(release);
    let all = settled(&names);
    assert_eq!((all.remarks.len(), all.unknown), (3, 3), "{all:?}");
    assert!(all.remarks.iter().all(|r| r.contains("svc.internal")));
}

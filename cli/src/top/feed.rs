//! The thread that brings reports: the newest of each host, then live events.

use std::{
    collections::HashMap,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use monitor_proto::json;

use super::News;
use crate::{CliError, client::Client, commands};

/// News that wait to be drawn; then the events wait.
const QUEUE_MAX: usize = 1024;
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn start(client: Client) -> Result<Receiver<News>, CliError> {
    let (news, queue) = mpsc::sync_channel(QUEUE_MAX);
    // The first answer is awaited here: what is wrong with it is said before
    // the screen is taken.
    newest(&client, &news)?;
    thread::Builder::new()
        .name("feed".to_owned())
        .spawn(move || follow(&client, &news))?;
    Ok(queue)
}

fn newest(client: &Client, news: &SyncSender<News>) -> Result<(), CliError> {
    let (_, known): (_, json::Hosts) = client.get("/api/v1/hosts", &[])?;
    let (_, answer): (_, json::Reports) = client.get("/api/v1/reports", &[("latest", "true")])?;
    let now = Instant::now();
    // The newest report of a host that is gone is old.
    let ages: HashMap<_, _> = (known.hosts.into_iter())
        .filter_map(|known| Some((known.host.id, commands::age(&known.last_seen)?)))
        .collect();
    for report in answer.reports {
        let age = ages.get(&report.host.id).copied().unwrap_or_default();
        let seen = now.checked_sub(age).unwrap_or(now);
        // The receiver outlives this call or nobody looks any more.
        drop(news.try_send(News::Report(Box::new(report), seen)));
    }
    Ok(())
}

/// Ends when nobody looks any more.
fn follow(client: &Client, news: &SyncSender<News>) {
    loop {
        match watch(client, news) {
            Ok(()) | Err(CliError::Unreachable { .. } | CliError::BrokenOff { .. }) => {}
            Err(error) => {
                drop(news.send(News::Failed(error)));
                return;
            }
        }
        if news.send(News::Disconnected).is_err() {
            return;
        }
        thread::sleep(RETRY);
    }
}

fn watch(client: &Client, news: &SyncSender<News>) -> Result<(), CliError> {
    let mut events = client.live("")?;
    if news.send(News::Connected).is_err() {
        return Ok(());
    }
    newest(client, news)?;
    while let Ok(Some(event)) = events.next() {
        match event.name.as_str() {
            "report" => {
                let report = serde_json::from_str(&event.data)
                    .map_err(|source| client.not_a_collector(source))?;
                if news
                    .send(News::Report(Box::new(report), Instant::now()))
                    .is_err()
                {
                    return Ok(());
                }
            }
            "skipped" => newest(client, news)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        time::SystemTime,
    };

    use super::*;
    use crate::{
        args::Connection,
        top::model::{Health, Model},
    };

    /// A collector that knows one host, whose last report came at this time.
    fn collector(last_seen: SystemTime) -> Client {
        let host = json::Host {
            id: "id-web".to_owned(),
            ..json::Host::default()
        };
        let last_seen = last_seen
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("it is past 1970");
        let hosts = json::Hosts {
            hosts: vec![json::HostSummary {
                host: host.clone(),
                last_seen: json::rfc3339(last_seen.as_nanos() as u64),
                ..json::HostSummary::default()
            }],
        };
        let reports = json::Reports {
            reports: vec![json::Report {
                host,
                complete: true,
                ..json::Report::default()
            }],
            ..json::Reports::default()
        };
        let hosts = serde_json::to_string(&hosts).expect("hosts are JSON");
        let reports = serde_json::to_string(&reports).expect("reports are JSON");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut question = [0; 4096];
                let n = socket.read(&mut question).unwrap_or(0);
                let body = match question[..n].starts_with(b"GET /api/v1/hosts ") {
                    true => &hosts,
                    false => &reports,
                };
                let length = body.len();
                drop(write!(
                    socket,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
            }
        });
        let options = Connection {
            collector: format!("http://{address}"),
            ..Connection::default()
        };
        Client::try_new(&options).expect("the URL is plain")
    }

    #[test]
    fn a_host_that_is_gone_is_late_from_the_first_screen_on() {
        let hour = Duration::from_secs(3600);
        // A clock that is ahead of ours makes it now.
        for (last_seen, wanted) in [
            (SystemTime::now() - hour, Health::Late),
            (SystemTime::now() + hour, Health::Good),
        ] {
            let (news, queue) = mpsc::sync_channel(1);
            let asked = Instant::now();
            newest(&collector(last_seen), &news).expect("it answers");
            let Ok(News::Report(report, seen)) = queue.try_recv() else {
                panic!("a report");
            };
            let mut model = Model::new(String::new());
            model.add(*report, seen);
            let host = model.hosts.values().next().expect("the host");
            assert_eq!(host.health(asked), wanted);
        }
    }
}

//! The thread that brings reports: the newest of each host, then live events.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use monitor_proto::json;

use super::News;
use crate::{CliError, client::Client};

/// News that wait to be drawn; then those behind them wait.
const QUEUE_MAX: usize = 1024;
const RETRY: Duration = Duration::from_secs(1);
/// How often it is asked what is wrong.
const PROBLEMS_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn start(client: Client) -> Result<Receiver<News>, CliError> {
    let (news, queue) = mpsc::sync_channel(QUEUE_MAX);
    // The first answer is awaited here: what is wrong with it is said before
    // the screen is taken.
    let first = newest(&client)?;
    let client = Arc::new(client);
    let (asked, told) = (Arc::clone(&client), news.clone());
    thread::Builder::new()
        .name("problems".to_owned())
        .spawn(move || follow_problems(&asked, &told))?;
    thread::Builder::new()
        .name("feed".to_owned())
        .spawn(move || {
            if tell(&news, first) {
                follow(&client, &news);
            }
        })?;
    Ok(queue)
}

/// Ends when nobody looks any more.
fn follow_problems(client: &Client, news: &SyncSender<News>) {
    loop {
        let now = client.get("/api/v1/problems", &[]).ok().map(|(_, now)| now);
        if news.send(News::Problems(now)).is_err() {
            return;
        }
        thread::sleep(PROBLEMS_INTERVAL);
    }
}

/// Waits where the queue is full; whether anybody looks still.
fn tell(news: &SyncSender<News>, all: impl IntoIterator<Item = News>) -> bool {
    all.into_iter().all(|one| news.send(one).is_ok())
}

fn newest(client: &Client) -> Result<Vec<News>, CliError> {
    let (_, known): (_, json::Hosts) = client.get("/api/v1/hosts", &[])?;
    let (_, answer): (_, json::Reports) = client.get("/api/v1/reports", &[("latest", "true")])?;
    let now = Instant::now();
    // The newest report of a host that is gone is old.
    let ages: HashMap<_, _> = (known.hosts.into_iter())
        .filter_map(|known| Some((known.host.id, Duration::from_millis(known.age_ms?))))
        .collect();
    let news = answer.reports.into_iter().map(|report| {
        let age = ages.get(&report.host.id).copied().unwrap_or_default();
        let seen = now.checked_sub(age).unwrap_or(now);
        News::Report(Box::new(report), seen)
    });
    Ok(news.collect())
}

/// Ends when nobody looks any more.
fn follow(client: &Client, news: &SyncSender<News>) {
    loop {
        match watch(client, news) {
            Ok(()) | Err(CliError::Unreachable { .. } | CliError::BrokenOff { .. }) => {}
            Err(error) => {
                tell(news, [News::Failed(error)]);
                return;
            }
        }
        if !tell(news, [News::Disconnected]) {
            return;
        }
        thread::sleep(RETRY);
    }
}

fn watch(client: &Client, news: &SyncSender<News>) -> Result<(), CliError> {
    let mut events = client.live("")?;
    if !tell(news, [News::Connected]) || !tell(news, newest(client)?) {
        return Ok(());
    }
    while let Ok(Some(event)) = events.next() {
        let told = match event.name.as_str() {
            "report" => {
                let report = serde_json::from_str(&event.data)
                    .map_err(|source| client.not_a_collector(source))?;
                vec![News::Report(Box::new(report), Instant::now())]
            }
            "skipped" => newest(client)?,
            _ => continue,
        };
        if !tell(news, told) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        args::Connection,
        top::model::{Health, Model},
    };

    /// A collector that knows so many hosts, whose last reports came so long ago.
    fn collector(hosts: usize, age: Duration) -> Client {
        let hosts = (0..hosts).map(|n| json::Host {
            id: format!("id-{n}"),
            ..json::Host::default()
        });
        let known = hosts.clone().map(|host| json::HostSummary {
            host,
            age_ms: Some(age.as_millis() as u64),
            ..json::HostSummary::default()
        });
        let newest = hosts.map(|host| json::Report {
            host,
            complete: true,
            ..json::Report::default()
        });
        let hosts = json::Hosts {
            hosts: known.collect(),
        };
        let reports = json::Reports {
            reports: newest.collect(),
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
                let request = String::from_utf8_lossy(&question[..n]);
                let body = match request.split(' ').nth(1) {
                    Some("/api/v1/hosts") => &hosts,
                    Some("/api/v1/problems") => r#"{"problems":[],"total":0,"hosts":1}"#,
                    _ => &reports,
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
    fn a_host_that_is_gone_is_silent_from_the_first_screen_on() {
        for (age_s, wanted) in [
            (3600, Health::Silent),
            (30, Health::Late),
            (0, Health::Good),
        ] {
            let asked = Instant::now();
            let age = Duration::from_secs(age_s);
            let mut news = newest(&collector(1, age)).expect("it answers");
            let Some(News::Report(report, seen)) = news.pop() else {
                panic!("a report");
            };
            let mut model = Model::new(String::new());
            model.add(*report, seen);
            let host = model.hosts.values().next().expect("the host");
            assert_eq!(host.health(asked), wanted);
        }
    }

    #[test]
    fn a_fleet_beyond_the_queue_is_on_the_first_screen() {
        let hosts = QUEUE_MAX + 100;
        let queue = start(collector(hosts, Duration::ZERO)).expect("it answers");
        let reports = queue
            .iter()
            .filter(|news| !matches!(news, News::Problems(_)))
            .take_while(|news| matches!(news, News::Report(..)));
        assert_eq!(reports.count(), hosts);
    }
}

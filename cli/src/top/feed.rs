//! The thread that brings reports: the newest of each host, then live events.

use std::{
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::Duration,
};

use monitor_proto::json;

use super::News;
use crate::{CliError, client::Client};

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
    let (_, answer): (_, json::Reports) = client.get("/api/v1/reports", &[("latest", "true")])?;
    for report in answer.reports {
        // The receiver outlives this call or nobody looks any more.
        drop(news.try_send(News::Report(Box::new(report))));
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
                if news.send(News::Report(Box::new(report))).is_err() {
                    return Ok(());
                }
            }
            "skipped" => newest(client, news)?,
            _ => {}
        }
    }
    Ok(())
}

//! What the fuzz targets call: each takes bytes from outside, and panics where
//! what must hold does not.

use export::RemoteUrl;
use monitor_proto::v1;
use prost::Message as _;
use query::series::{Metric, Plan};
use settings::{Format, check_text};
use store::{Facts, codec, reports::Cursor};

use crate::{args, auth, time, validate};

/// A kept body: what can be read is written again and means the same.
pub fn stored_body(body: &[u8]) {
    if let Ok(report) = codec::decode(body) {
        let again = codec::encode(&report).expect("what was read can be written");
        assert_eq!(
            codec::decode(&again)
                .expect("it was just written")
                .encode_to_vec(),
            report.encode_to_vec()
        );
    }
    let (one, other) = body.split_at(body.len() / 2);
    drop(codec::same_report(one, other));
}

/// A message of an agent: what passes the rules can be kept and shown.
pub fn export_request(message: &[u8]) {
    let Ok(request) = v1::ExportRequest::decode(message) else {
        return;
    };
    let report = request.report.unwrap_or_default();
    let bytes = codec::decoded_bytes(&report.encode_to_vec());
    assert!(bytes.is_some(), "what was decoded has a size");
    if validate::report(&report).is_err() {
        return;
    }
    let body = codec::encode(&report).expect("it is not too large");
    assert!(codec::same_report(&body, &body).is_ok_and(|same| same));
    drop(Facts::from(&report));
    let shown = monitor_proto::json::Report::from(&report);
    serde_json::to_string(&shown).expect("it has only finite numbers");
}

/// The parameters of a question, and the header that shows a token.
pub fn question(text: &str) {
    const NOW_NS: u64 = 1_763_860_000_000_000_000;
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
    drop(auth::secret(text));
    let mut words = text.splitn(4, ' ');
    let mut next = || words.next().unwrap_or("");
    let Some(metric) = Metric::find(next()) else {
        drop(time::parse(text, NOW_NS));
        return;
    };
    let (since, until) = (time::parse(next(), NOW_NS), time::parse(next(), NOW_NS));
    let step_s = time::age_ns(next()).map(|ns| ns / 1_000_000_000);
    if let (Ok(since), Ok(until)) = (since, until) {
        let seconds = |ns: u64| ns / 1_000_000_000;
        for hosts in [1, 1000] {
            drop(Plan::of_hosts(
                hosts,
                metric,
                seconds(since),
                seconds(until),
                step_s,
            ));
        }
    }
}

/// A receiver of remote writes: what is taken can be asked for.
pub fn remote_write_url(text: &str) {
    if let Ok(url) = RemoteUrl::try_new(text) {
        url.as_str()
            .parse::<axum::http::Uri>()
            .expect("it was checked");
    }
}

/// A configuration file: it can be used, or the error says where it cannot.
pub fn config(text: &str) {
    let line = args::command_line(Vec::new());
    for format in [Format::Toml, Format::Yaml] {
        if let Err(fault) = check_text(&line, "run", text, format) {
            assert!(fault.to_string().contains(": "));
        }
    }
}

//! The collector's HTTP API, as far as the commands need it.

use std::{
    fmt::Write as _,
    io::{BufReader, Read},
    time::Duration,
};

use monitor_proto::json;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{CliError, args::Connection, connection, sse::Events};

/// A page of reports has less; more is not from a collector.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A page of reports as the collector sent it, so that fields which this
/// version does not know are printed all the same.
#[derive(Debug, Deserialize)]
pub(crate) struct RawPage {
    pub(crate) reports: Vec<Box<RawValue>>,
    pub(crate) next_cursor: Option<String>,
}

/// One collector.
#[derive(Debug)]
pub(crate) struct Client {
    url: String,
    authorization: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// Checks the options; nothing is sent yet.
    pub(crate) fn try_new(options: &Connection) -> Result<Self, CliError> {
        Self::build(options, None)
    }

    /// The same, where an answer that takes longer is of no use.
    pub(crate) fn within(options: &Connection, limit: Duration) -> Result<Self, CliError> {
        Self::build(options, Some(limit))
    }

    fn build(options: &Connection, limit: Option<Duration>) -> Result<Self, CliError> {
        let url = options.collector.trim_end_matches('/');
        let authority = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"))
            .unwrap_or("");
        if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(CliError::BadUrl {
                url: url.to_owned(),
            });
        }
        let token = std::env::var("SPEEDMIMI_TOKEN").ok();
        let authorization = connection::authorization(options, token.as_deref())?;
        let mut config = ureq::Agent::config_builder();
        if url.starts_with("https://") {
            config = config.tls_config(connection::tls(options)?);
        }
        let config = config
            .timeout_global(limit)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy server of the environment is for the world outside.
            .proxy(None)
            .user_agent(concat!("speedmimi/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            url: url.to_owned(),
            authorization,
            agent: config.new_agent(),
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The text and the meaning of an answer.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(String, T), CliError> {
        let mut body = self.open(path, query)?;
        let text = read(&mut body).map_err(|source| self.broken_off(source))?;
        let meaning = serde_json::from_str(&text).map_err(|source| self.not_a_collector(source))?;
        Ok((text, meaning))
    }

    /// An answer as CSV, and the cursor of the next page where there is one.
    pub(crate) fn csv(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(String, Option<String>), CliError> {
        let response = self.request(path, query, "text/csv")?;
        let next = response
            .headers()
            .get("link")
            .and_then(|link| link.to_str().ok())
            .and_then(next_cursor);
        let mut body = response.into_body();
        let text = read(&mut body).map_err(|source| self.broken_off(source))?;
        Ok((text, next))
    }

    /// One page of reports.
    pub(crate) fn reports(&self, query: &[(&str, &str)]) -> Result<RawPage, CliError> {
        self.get("/api/v1/reports", query).map(|(_, page)| page)
    }

    /// Fails where no host has this id or name: no reports are one thing, a name
    /// that was mistyped is another.
    pub(crate) fn must_know(&self, id_or_name: &str) -> Result<(), CliError> {
        let (_, known): (_, json::Hosts) = self.get("/api/v1/hosts", &[])?;
        let mut hosts = known.hosts.iter().map(|known| &known.host);
        if hosts.any(|host| host.id == id_or_name || host.name == id_or_name) {
            return Ok(());
        }
        Err(CliError::UnknownHost {
            url: self.url.clone(),
            host: id_or_name.to_owned(),
        })
    }

    /// Live events; they are awaited for as long as it takes.
    pub(crate) fn live(&self, host: &str) -> Result<Events<impl Read + use<>>, CliError> {
        let body = self.open("/api/v1/live", &[("host", host)])?;
        Ok(Events::new(BufReader::new(body.into_reader())))
    }

    fn open(&self, path: &str, query: &[(&str, &str)]) -> Result<ureq::Body, CliError> {
        let response = self.request(path, query, "application/json, text/event-stream")?;
        Ok(response.into_body())
    }

    fn request(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<ureq::http::Response<ureq::Body>, CliError> {
        let uri = uri(&self.url, path, query);
        let mut request = self.agent.get(&uri).header("accept", accept);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let response = request.call().map_err(|source| CliError::Unreachable {
            url: self.url.clone(),
            source,
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut body = response.into_body();
        let text = read(&mut body).unwrap_or_default();
        Err(CliError::Refused {
            url: self.url.clone(),
            status: status.as_u16(),
            detail: detail(&text),
        })
    }

    /// A line of an answer that is not what it should be.
    pub(crate) fn not_a_collector(&self, source: serde_json::Error) -> CliError {
        CliError::NotACollector {
            url: self.url.clone(),
            source,
        }
    }

    fn broken_off(&self, error: ureq::Error) -> CliError {
        CliError::BrokenOff {
            url: self.url.clone(),
            source: error.into_io(),
        }
    }
}

fn read(body: &mut ureq::Body) -> Result<String, ureq::Error> {
    body.with_config().limit(ANSWER_BYTES_MAX).read_to_string()
}

/// The cursor in `<?cursor=…&host=…>; rel="next"`.
fn next_cursor(link: &str) -> Option<String> {
    let target = link.strip_prefix("<?cursor=")?;
    let (cursor, _) = target.split_once(['&', '>'])?;
    Some(cursor.to_owned())
}

/// The words of a problem document (RFC 9457), else the start of the text.
fn detail(text: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    serde_json::from_str(text).map_or_else(
        |_| text.chars().take(200).collect(),
        |problem: Problem| problem.detail,
    )
}

/// Parameters without a value are left out.
fn uri(base: &str, path: &str, query: &[(&str, &str)]) -> String {
    let mut uri = format!("{base}{path}");
    let mut separator = '?';
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        uri.push(separator);
        uri.push_str(name);
        uri.push('=');
        uri.push_str(&percent_encoded(value));
        separator = '&';
    }
    uri
}

/// Everything but the unreserved characters of RFC 3986 is encoded.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String never fails");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_url_is_taken() {
        let client = |url: &str| {
            Client::try_new(&Connection {
                collector: url.to_owned(),
                ..Connection::default()
            })
        };
        for url in [
            "http://127.0.0.1:7601",
            "http://[::1]:7601/",
            "http://localhost",
            "https://collector.example:7601",
        ] {
            assert!(client(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:7601",
            "ftp://x",
            "http://",
            "https://",
            "http://a b",
            "http://a/b",
        ] {
            assert!(matches!(client(url), Err(CliError::BadUrl { .. })), "{url}");
        }
    }

    #[test]
    fn parameters_are_encoded_and_empty_ones_left_out() {
        let query = [("host", "a b&c=ü"), ("since", ""), ("limit", "5")];
        assert_eq!(
            uri("http://h", "/p", &query),
            "http://h/p?host=a%20b%26c%3D%C3%BC&limit=5"
        );
    }
}

//! Sends requests, one at a time, and waits for their answers.
//!
//! It blocks: a caller gives it a thread of its own, so that a receiver that
//! stalls holds up nothing else.

use std::{error::Error as _, fmt, io, time::Duration};

use daemon::error_chain;
use prost::{Message, bytes::BufMut};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use crate::{Answer, OtlpUrl, url::Protocol, wire::Response};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
/// An answer is small.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
const METHOD: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const USER_AGENT: &str = concat!("speedmimi-otlp/", env!("CARGO_PKG_VERSION"));

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Threads or sockets.
    #[error("the operating system refuses what OTLP needs")]
    System(#[from] io::Error),
    /// Roots of trust.
    #[error("TLS cannot be set up for OTLP")]
    Tls(#[from] tonic::transport::Error),
}

/// Headers that a receiver asks for, such as one with a token.
#[derive(Clone, Default)]
pub struct Headers(Vec<(AsciiMetadataKey, AsciiMetadataValue)>);

/// The text is no list of headers.  What it holds is not repeated, for it may be
/// a secret.
#[derive(Debug, thiserror::Error)]
#[error("OTEL_EXPORTER_OTLP_HEADERS: use KEY=VALUE, several separated by commas")]
pub struct HeadersError;

impl Headers {
    /// The environment variable that OpenTelemetry defines for them.
    pub const VARIABLE: &str = "OTEL_EXPORTER_OTLP_HEADERS";

    /// Reads `KEY=VALUE,…` with percent-encoded values.
    ///
    /// # Errors
    /// Where it has another form.
    pub fn try_new(text: &str) -> Result<Self, HeadersError> {
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let header = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            let value = decoded(value.trim())?;
            let key = key.trim().to_ascii_lowercase();
            Some((key.parse().ok()?, value.parse().ok()?))
        };
        let headers = pairs.map(|pair| header(pair).ok_or(HeadersError));
        headers.collect::<Result<_, _>>().map(Self)
    }
}

/// Values are secrets.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({})", self.0.len())
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// A connection to one receiver, made when it is needed.
#[derive(Debug)]
pub struct Client {
    url: OtlpUrl,
    headers: Headers,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Http(ureq::Agent),
    /// The runtime is there until this is dropped.
    Grpc {
        runtime: Option<Runtime>,
        channel: Channel,
    },
}

impl Drop for Transport {
    /// Does not wait, so that a task may drop it too.
    fn drop(&mut self) {
        if let Self::Grpc { runtime, .. } = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// Where the system refuses what it needs.
    pub fn new(url: OtlpUrl, headers: Headers) -> Result<Self, ClientError> {
        let transport = match url.protocol {
            Protocol::Http => Transport::Http(
                ureq::Agent::config_builder()
                    .http_status_as_error(false)
                    .timeout_connect(Some(CONNECT_TIMEOUT))
                    .timeout_global(Some(TIMEOUT))
                    .max_redirects(0)
                    .user_agent(USER_AGENT)
                    .build()
                    .new_agent(),
            ),
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from(url.uri.clone())
                    .connect_timeout(CONNECT_TIMEOUT)
                    .timeout(TIMEOUT)
                    .user_agent(USER_AGENT)?;
                if url.uri.scheme_str() == Some("https") {
                    endpoint = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots())?;
                }
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let channel = {
                    let _context = runtime.enter();
                    endpoint.connect_lazy()
                };
                let runtime = Some(runtime);
                Transport::Grpc { runtime, channel }
            }
        };
        Ok(Self {
            url,
            headers,
            transport,
        })
    }

    /// Sends an encoded request and waits for what comes of it, for half a
    /// minute at the most.
    pub fn send(&mut self, body: &[u8]) -> Answer {
        match &self.transport {
            Transport::Http(agent) => self.post(agent, body),
            Transport::Grpc { runtime, channel } => match runtime {
                Some(runtime) => runtime.block_on(self.call(channel, body)),
                None => Answer::unanswered("it was closed".to_owned()),
            },
        }
    }

    fn post(&self, agent: &ureq::Agent, body: &[u8]) -> Answer {
        let mut request = agent
            .post(self.url.uri.to_string())
            .header("content-type", "application/x-protobuf");
        for (key, value) in &self.headers.0 {
            request = request.header(key.as_str(), value.as_bytes());
        }
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => return Answer::unanswered(error_chain(&error)),
        };
        let said = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec();
        let retry_after = answer.headers().get("retry-after");
        Answer::of_http(
            answer.status().as_u16(),
            retry_after.and_then(|value| value.to_str().ok()),
            // A success whose words are lost is a success.
            &said.unwrap_or_default(),
        )
    }

    async fn call(&self, channel: &Channel, body: &[u8]) -> Answer {
        let mut grpc =
            Grpc::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX as usize);
        if let Err(error) = grpc.ready().await {
            return Answer::unanswered(error_chain(&error));
        }
        let mut request = Request::new(body.to_vec());
        for (key, value) in &self.headers.0 {
            request.metadata_mut().insert(key.clone(), value.clone());
        }
        let path = PathAndQuery::from_static(METHOD);
        match grpc.unary(request, path, Encoded).await {
            Ok(response) => Answer::taken(response.get_ref()),
            // Our own side made it: the receiver said nothing.
            Err(status) if status.source().is_some() => Answer::unanswered(error_chain(&status)),
            Err(status) => Answer::of_grpc(status.code(), status.message(), status.details()),
        }
    }
}

/// Requests are encoded already.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Vec<u8>;
    type Decode = Response;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, body: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&body);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        // The request was taken all the same.
        let response = Response::decode(buffer).unwrap_or_default();
        Ok(Some(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_opentelemetry_has_them_and_never_shown() {
        let headers = Headers::try_new("Authorization=Bearer%20t%2Ck, x-scope = a=b ,").unwrap();
        let pairs: Vec<_> = headers
            .0
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(pairs, [("authorization", "Bearer t,k"), ("x-scope", "a=b")]);
        assert_eq!(format!("{headers:?}"), "Headers(2)");
        assert!(Headers::try_new("").unwrap().0.is_empty());
        for text in ["a", "=b", "a=%4", "a=%zz", "a=%ff", "a b=c", "a=%0a"] {
            assert!(Headers::try_new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_receiver_that_is_not_there_may_come_later() {
        for scheme in ["http", "grpc"] {
            let url = OtlpUrl::try_new(&format!("{scheme}://127.0.0.1:1")).unwrap();
            let mut client = Client::new(url, Headers::default()).unwrap();
            let answer = client.send(b"");
            assert!(matches!(answer, Answer::Later { .. }), "{answer:?}");
        }
    }
}

//! TLS, client certificates, tokens of hosts and of readers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Output,
    sync::Arc,
};

use common::{
    Agent, Answer, Collector, command, eventually,
    pki::{Authority, Pair},
    report,
};
use monitor_proto::v1::{self, ExportOutcome, query_service_client::QueryServiceClient};
use tonic::{
    Code, Request,
    transport::{Certificate, Channel, ClientTlsConfig, Error, Identity},
};
use ureq::tls::{ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

fn token(dir: &Path, args: &[&str]) -> Output {
    let data = ["--data-dir", dir.to_str().unwrap()];
    command()
        .arg("token")
        .args(args)
        .args(data)
        .output()
        .unwrap()
}

/// A new token.
fn added(dir: &Path, args: &[&str]) -> String {
    let output = token(dir, &[&["add"], args].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// On every address: what is asked of strangers is asked.
fn open_to_the_world(dir: &Path, flags: &[String]) -> Collector {
    let mut args = vec![
        "--data-dir",
        dir.to_str().unwrap(),
        "--listen-grpc",
        "0.0.0.0:0",
        "--listen-http",
        "0.0.0.0:0",
    ];
    args.extend(flags.iter().map(String::as_str));
    let mut collector = Collector::start_args(&args, dir);
    for address in [&mut collector.grpc, &mut collector.http] {
        *address = address.replace("0.0.0.0", "127.0.0.1");
    }
    collector
}

/// A channel that trusts this authority, and shows a certificate.
async fn channel(
    collector: &Collector,
    ca: &Authority,
    pair: Option<&Pair>,
) -> Result<Channel, Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.pem()));
    if let Some(pair) = pair {
        let (cert, key) = pair.pem();
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    Channel::from_shared(format!("https://{}", collector.grpc))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
}

fn pems(path: &Path) -> Vec<PemItem<'static>> {
    parse_pem(&fs::read(path).unwrap())
        .collect::<Result<_, _>>()
        .unwrap()
}

/// A request over TLS.
fn get(
    collector: &Collector,
    ca: &Authority,
    pair: Option<&Pair>,
    path: &str,
    authorization: &str,
) -> Result<Answer, ureq::Error> {
    let certificate = |path: &Path| {
        pems(path)
            .into_iter()
            .find_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            })
            .unwrap()
    };
    let identity = pair.map(|pair| {
        let key = PrivateKey::from_pem(&fs::read(&pair.key).unwrap()).unwrap();
        ClientCert::new_with_certs(&[certificate(&pair.cert)], key)
    });
    let roots = RootCerts::Specific(Arc::new(vec![certificate(&ca.file())]));
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(common::DEADLINE))
        .tls_config(
            TlsConfig::builder()
                .root_certs(roots)
                .client_cert(identity)
                .build(),
        )
        .build()
        .new_agent();
    let mut request = agent.get(format!("https://{}{path}", collector.http));
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    let (parts, body) = request.call()?.into_parts();
    let mut text = String::new();
    body.into_reader().read_to_string(&mut text)?;
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: text,
    })
}

fn status(collector: &Collector, ca: &Authority, path: &str, authorization: &str) -> u16 {
    get(collector, ca, None, path, authorization)
        .unwrap()
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_hosts_token_writes_as_that_host_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(&dir.path().join("pki"));
    let collector = open_to_the_world(dir.path(), &ca.server("server").flags());
    let web = added(dir.path(), &["--host-id", "id-web"]);
    let reading = added(dir.path(), &["--read"]);

    let over = channel(&collector, &ca, None).await.unwrap();
    let as_web = format!("Bearer {web}");
    let mut agent = Agent::over(over.clone(), &as_web).await.unwrap();
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    agent.send(report("db", 1)).await;
    let denied = agent.answer().await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(
        denied.message().contains("id-db") && denied.message().contains("id-web"),
        "{denied}"
    );

    let general = format!("Bearer {}", collector.token);
    let mut any = Agent::over(over.clone(), &general).await.unwrap();
    assert_eq!(any.export(report("db", 1)).await, ExportOutcome::Stored);
    for wrong in [
        format!("Bearer {reading}"),
        String::new(),
        format!("{as_web}0"),
    ] {
        let refused = Agent::over(over.clone(), &wrong).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }

    // Taken back, the token ends the stream that it began.
    let mut agent = Agent::over(over.clone(), &as_web).await.unwrap();
    assert_eq!(agent.export(report("web", 2)).await, ExportOutcome::Stored);
    let list = token(dir.path(), &["list"]);
    let list = String::from_utf8(list.stdout).unwrap();
    let line = list.lines().find(|line| line.ends_with("id-web")).unwrap();
    let id = line.split_whitespace().next().unwrap();
    assert!(token(dir.path(), &["revoke", id]).status.success());
    let refused = Agent::over(over.clone(), &as_web).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    agent.send(report("web", 3)).await;
    let ended = agent.answer().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_other_addresses_reading_needs_its_own_right() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(&dir.path().join("pki"));
    let collector = open_to_the_world(dir.path(), &ca.server("server").flags());
    let reading = added(dir.path(), &["--read"]);
    let writing = added(dir.path(), &["--host-id", "id-web"]);
    let general = collector.token.clone();

    let hosts = "/api/v1/hosts";
    let refused = get(&collector, &ca, None, hosts, "").unwrap();
    assert_eq!(refused.status, 401);
    let challenges: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges.len(), 2);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    for path in ["/", "/metrics", "/api/v1/live", "/nowhere"] {
        assert_eq!(status(&collector, &ca, path, ""), 401, "{path}");
    }
    assert_eq!(status(&collector, &ca, "/healthz", ""), 200);
    for wrong in [&writing, &general, "x"] {
        let shown = format!("Bearer {wrong}");
        assert_eq!(status(&collector, &ca, hosts, &shown), 401);
    }
    assert_eq!(
        status(&collector, &ca, hosts, &format!("Bearer {reading}")),
        200
    );
    // What a browser sends after it has asked its user.
    let basic = base64(&format!("me:{reading}"));
    assert_eq!(status(&collector, &ca, "/", &format!("Basic {basic}")), 200);

    let over = channel(&collector, &ca, None).await.unwrap();
    let list = |token: &str| {
        let mut request = Request::new(v1::ListHostsRequest {});
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let mut client = QueryServiceClient::new(over.clone());
        async move { client.list_hosts(request).await.map(|_| ()) }
    };
    assert_eq!(
        list(&general).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    list(&reading).await.unwrap();
}

/// Of ASCII, by the definition.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut bytes = [0u8; 4];
        bytes[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bytes);
        for i in 0..4 {
            let digit = (bits >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() {
                char::from(DIGITS[digit as usize])
            } else {
                '='
            });
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_binds_an_agent_to_its_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(&dir.path().join("pki"));
    let mut flags = ca.server("server").flags();
    flags.extend([
        "--tls-client-ca".to_owned(),
        ca.file().to_str().unwrap().to_owned(),
    ]);
    let collector = open_to_the_world(dir.path(), &flags);
    let general = format!("Bearer {}", collector.token);

    // Without a certificate, or with one of another authority, there is nobody
    // to speak to.
    let strangers = Authority::new(&dir.path().join("strangers"));
    let stranger = strangers.client("web", &["id-web"], &[]);
    for pair in [None, Some(&stranger)] {
        let failed = match channel(&collector, &ca, pair).await {
            Ok(over) => Agent::over(over, &general).await.is_err(),
            Err(_) => true,
        };
        assert!(failed);
    }

    let web = ca.client("web", &["id-web"], &[]);
    let over = channel(&collector, &ca, Some(&web)).await.unwrap();
    let refused = Agent::over(over.clone(), "").await.err().unwrap();
    assert_eq!(
        refused.code(),
        Code::Unauthenticated,
        "a token is needed as well"
    );
    let mut agent = Agent::over(over.clone(), &general).await.unwrap();
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    agent.send(report("db", 1)).await;
    let denied = agent.answer().await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");

    // Its certificate does not read; one that says so does.
    let hosts = "/api/v1/hosts";
    let reader = ca.client("reader", &[], &["urn:speedmimi:read"]);
    let as_web = get(&collector, &ca, Some(&web), hosts, "").unwrap();
    assert_eq!(as_web.status, 401);
    let as_reader = get(&collector, &ca, Some(&reader), hosts, "").unwrap();
    assert_eq!(as_reader.status, 200, "{}", as_reader.body);
    let body: serde_json::Value = serde_json::from_str(&as_reader.body).unwrap();
    assert_eq!(body["hosts"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_and_open_streams_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let before = Authority::new(&dir.path().join("before"));
    let after = Authority::new(&dir.path().join("after"));
    let pair = before.server("server");
    let collector = open_to_the_world(dir.path(), &pair.flags());
    let general = format!("Bearer {}", collector.token);
    let over = channel(&collector, &before, None).await.unwrap();
    let mut agent = Agent::over(over, &general).await.unwrap();
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);

    let trusts = |ca: &Authority| get(&collector, ca, None, "/healthz", "").is_ok();
    assert!(trusts(&before) && !trusts(&after));
    // The certificate without its key is of no use: the one before stays.
    let new = after.server("server");
    fs::copy(&new.cert, &pair.cert).unwrap();
    eventually("the log tells of it", || {
        collector.log().contains("does not match the private key")
    });
    assert!(trusts(&before) && !trusts(&after));
    fs::copy(&new.key, &pair.key).unwrap();
    eventually("the new certificate is used", || trusts(&after));
    assert!(!trusts(&before));
    assert_eq!(agent.export(report("web", 2)).await, ExportOutcome::Stored);
}

#[test]
fn certificates_that_cannot_be_used_are_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(&dir.path().join("pki"));
    let (one, two) = (ca.server("one"), ca.server("two"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let garbage = dir.path().join("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let data = path(dir.path());
    for (cert, key, words) in [
        (&one.cert, &two.key, "does not match the private key"),
        (&one.cert, &dir.path().join("none"), "cannot read"),
        (&garbage, &one.key, "is not a PEM file"),
        (&empty, &one.key, "contains no certificate"),
        (&one.cert, &one.cert, "is not a PEM file"),
    ] {
        let flags = Pair {
            cert: cert.clone(),
            key: key.clone(),
        }
        .flags();
        let output = command()
            .args(["run", "--data-dir", &data])
            .args(flags)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{stderr}");
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let alone = command()
        .args(["run", "--data-dir", &data, "--tls-cert", &path(&one.cert)])
        .output()
        .unwrap();
    assert_eq!(alone.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&alone.stderr).contains("--tls-key"));

    let expired = Collector::start_with(
        dir.path(),
        &ca.expired("old")
            .flags()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    eventually("the log warns", || expired.log().contains("has expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(&dir.path().join("pki"));
    let web = added(dir.path(), &["--host-id", "id-web"]);
    let reading = added(dir.path(), &["--read"]);
    let mut flags = ca.server("server").flags();
    flags.extend(["--log-format".to_owned(), "json".to_owned()]);
    let collector = Collector::start_traced(dir.path(), &flags);
    let general = collector.token.clone();

    let over = channel(&collector, &ca, None).await.unwrap();
    for token in [&web, &general] {
        let mut agent = Agent::over(over.clone(), &format!("Bearer {token}"))
            .await
            .unwrap();
        agent.export(report("web", 1)).await;
    }
    assert!(
        Agent::over(over, &format!("Bearer {web}-wrong"))
            .await
            .is_err()
    );
    let basic = base64(&format!("me:{reading}"));
    for shown in [format!("Bearer {reading}"), format!("Basic {basic}")] {
        assert_eq!(status(&collector, &ca, "/api/v1/hosts", &shown), 200);
    }
    // What is no TLS at all is told in the log too.
    let mut plain = TcpStream::connect(&collector.http).unwrap();
    write!(
        plain,
        "GET / HTTP/1.1\r\nAuthorization: Bearer {reading}\r\n\r\n"
    )
    .unwrap();
    eventually("the log has it all", || {
        collector.log().contains("handshake")
    });

    let log = collector.log();
    assert!(log.contains("TRACE"), "the log is at its most talkative");
    for secret in [&web, &reading, &general, &basic] {
        assert!(!log.contains(secret.as_str()));
    }
}

#[test]
fn a_token_for_what_no_agent_can_be_is_made_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let agents = "0123456789abcdef0123456789abcdef";
    for (id, warned) in [(agents, false), (&agents[1..], true), ("web-1", true)] {
        let made = token(dir.path(), &["add", "--host-id", id]);
        assert!(made.status.success());
        assert_eq!(made.stdout.len(), 65, "the token alone");
        let said = String::from_utf8_lossy(&made.stderr);
        assert_eq!(said.contains("32 hexadecimal digits"), warned, "{said}");
    }
}

#[test]
fn tokens_are_listed_without_themselves_and_unknown_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let made = added(dir.path(), &["--host-id", "id-web"]);
    assert_eq!(made.len(), 64);
    let list = String::from_utf8(token(dir.path(), &["list"]).stdout).unwrap();
    assert!(list.contains("write") && list.contains("id-web") && !list.contains(&made));
    let unknown = token(dir.path(), &["revoke", "nope"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("token list"));
    assert_eq!(token(dir.path(), &["add"]).status.code(), Some(64));
    let both = token(dir.path(), &["add", "--read", "--host-id", "x"]);
    assert_eq!(both.status.code(), Some(64));
    assert_eq!(
        token(dir.path(), &["add", "--host-id", ""]).status.code(),
        Some(64)
    );
}

/// A proxy with `option httpchk GET /healthz` asks so (RFC 1945): without a Host field.
#[test]
fn health_checks_by_http_1_0_need_no_host_where_any_name_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let open = open_to_the_world(dir.path(), &["--insecure".to_owned()]);
    let checked = |collector: &Collector, path: &str| {
        let mut stream = TcpStream::connect(&collector.http).unwrap();
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        let question = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(checked(&open, "/healthz"), "200");
    assert_eq!(checked(&open, "/metrics"), "200");
    drop(open);
    // On loopback the name tells whether a web page may ask.
    let dir = tempfile::tempdir().unwrap();
    let local = Collector::start(dir.path());
    assert_eq!(checked(&local, "/healthz"), "421");
}

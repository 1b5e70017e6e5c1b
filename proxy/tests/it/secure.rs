//! TLS on both sides.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use super::support::{Backend, Proxy, TIMEOUT, eventually};

struct Certificate {
    der: CertificateDer<'static>,
    key: Vec<u8>,
    cert_pem: String,
    key_pem: String,
}

fn certificate() -> Certificate {
    let names = vec!["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    Certificate {
        der: cert.der().clone(),
        key: signing_key.serialize_der(),
        cert_pem: cert.pem(),
        key_pem: signing_key.serialize_pem(),
    }
}

fn client_trusting(der: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::clone(config), name).unwrap(),
        stream,
    )
}

/// One request; the whole answer up to the end of the body.
fn get(tls: &mut Tls, path: &str) -> std::io::Result<Vec<u8>> {
    write!(tls, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    loop {
        let mut chunk = [0; 16384];
        let read = tls.read(&mut chunk)?;
        answer.extend_from_slice(&chunk[..read]);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let length: usize = super::support::field(&head, "content-length")
            .unwrap()
            .parse()
            .unwrap();
        if answer.len() >= end + 4 + length {
            return Ok(answer.split_off(end + 4));
        }
    }
}

fn config(directory: &Path, backend: &Backend, certificate: &Certificate) -> String {
    std::fs::write(directory.join("cert.pem"), &certificate.cert_pem).unwrap();
    std::fs::write(directory.join("key.pem"), &certificate.key_pem).unwrap();
    format!(
        "server: {{host: 127.0.0.1, port: 0}}\nssl: {{enabled: true, cert_file: {0}/cert.pem, key_file: {0}/key.pem}}\n\
         backends: {{u: [{{id: b, host: 127.0.0.1, port: {1}}}]}}\nrouting: {{r: {{upstream: u}}}}\n",
        directory.display(),
        backend.address.port()
    )
}

#[test]
fn clients_speak_tls_and_large_bodies_arrive_whole() {
    let backend = Backend::new(|request, peer| {
        let body = vec![
            b'x';
            if request.head.starts_with("GET /big") {
                2_000_000
            } else {
                2
            }
        ];
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
        peer.send(&body);
    });
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let proxy = Proxy::with(&config(directory.path(), &backend, &certificate));
    let trusting = client_trusting(&certificate.der);
    let mut tls = connect(proxy.address, &trusting);
    assert_eq!(get(&mut tls, "/").unwrap(), b"xx");
    assert_eq!(get(&mut tls, "/big").unwrap().len(), 2_000_000);
    assert_eq!(get(&mut tls, "/").unwrap(), b"xx");
    assert_eq!(
        backend.received()[0].field("x-forwarded-proto").as_deref(),
        Some("https")
    );
    // Plain HTTP on this port is no handshake and ends the connection.
    let mut plain = proxy.client();
    plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    plain.rest();
}

#[test]
fn connections_over_the_limit_are_closed_before_they_shake_hands() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let text = config(directory.path(), &backend, &certificate);
    let proxy = Proxy::with(&text.replace("port: 0}", "port: 0, max_conn: 1}"));
    let trusting = client_trusting(&certificate.der);
    // It is not idle between two requests, so that it need not give way.
    let mut first = connect(proxy.address, &trusting);
    first.conn.complete_io(&mut first.sock).unwrap();
    // They say nothing, and have as long for a handshake as for a head.
    for _ in 0..3 {
        assert!(proxy.client().ends());
    }
    assert_eq!(get(&mut first, "/").unwrap(), b"ok");
    drop(first);
    eventually("a free place", || {
        get(&mut connect(proxy.address, &trusting), "/").ok()
    });
}

#[test]
fn a_changed_certificate_is_used_and_open_connections_live_on() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (directory, first, second) = (tempfile::tempdir().unwrap(), certificate(), certificate());
    let proxy = Proxy::with(&config(directory.path(), &backend, &first));
    let mut open = connect(proxy.address, &client_trusting(&first.der));
    assert_eq!(get(&mut open, "/").unwrap(), b"ok");
    let trusting = client_trusting(&second.der);
    assert!(get(&mut connect(proxy.address, &trusting), "/").is_err());
    // A pair that does not fit is not used.
    std::fs::write(directory.path().join("cert.pem"), &second.cert_pem).unwrap();
    proxy.wait_for_line("cannot load the certificate, keeping the previous one");
    // All else goes on changing.
    let text = std::fs::read_to_string(&proxy.config_path).unwrap();
    let limited = format!("{text}limits: {{body_bytes: 1}}\n");
    std::fs::write(&proxy.config_path, limited).unwrap();
    proxy.wait_for_line("configuration reloaded");
    assert_eq!(get(&mut open, "/").unwrap(), b"ok");
    std::fs::write(directory.path().join("key.pem"), &second.key_pem).unwrap();
    eventually("the new certificate", || {
        get(&mut connect(proxy.address, &trusting), "/")
            .ok()
            .filter(|body| body == b"ok")
    });
    assert_eq!(get(&mut open, "/").unwrap(), b"ok");
}

#[test]
fn tls_is_switched_on_and_off_while_open_connections_live_on() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let on = config(directory.path(), &backend, &certificate);
    let off = on.replace("enabled: true", "enabled: false");
    let proxy = Proxy::with(&off);
    let trusting = client_trusting(&certificate.der);
    let mut plain = proxy.client();
    assert_eq!(plain.get("/").text(), "ok");
    assert!(get(&mut connect(proxy.address, &trusting), "/").is_err());
    std::fs::write(&proxy.config_path, &on).unwrap();
    eventually("TLS", || {
        get(&mut connect(proxy.address, &trusting), "/").ok()
    });
    let mut secure = connect(proxy.address, &trusting);
    assert_eq!(get(&mut secure, "/").unwrap(), b"ok");
    assert_eq!(plain.get("/").text(), "ok");
    std::fs::write(&proxy.config_path, &off).unwrap();
    proxy.wait_for_line("configuration reloaded");
    proxy.wait_for_line("configuration reloaded");
    assert_eq!(proxy.client().get("/").text(), "ok");
    assert_eq!(get(&mut secure, "/").unwrap(), b"ok");
}

#[test]
fn tickets_stay_good_over_reloads() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (directory, first, second) = (tempfile::tempdir().unwrap(), certificate(), certificate());
    let proxy = Proxy::with(&config(directory.path(), &backend, &first));
    let trusting = client_trusting(&first.der);
    let resumes = || {
        let mut tls = connect(proxy.address, &trusting);
        assert_eq!(get(&mut tls, "/").unwrap(), b"ok");
        tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumes());
    assert!(resumes());
    proxy.signal("HUP");
    proxy.wait_for_line("configuration reloaded");
    assert!(resumes());
    // Also with another certificate: who comes with a ticket has seen the first.
    std::fs::write(directory.path().join("cert.pem"), &second.cert_pem).unwrap();
    std::fs::write(directory.path().join("key.pem"), &second.key_pem).unwrap();
    proxy.signal("HUP");
    proxy.wait_for_line("configuration reloaded");
    assert!(resumes());
}

#[test]
fn a_stop_does_not_wait_for_a_handshake() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let mut proxy = Proxy::with(&config(directory.path(), &backend, &certificate));
    let mut silent = proxy.client();
    // The beginning of a record that holds a ClientHello.
    let mut half = proxy.client();
    half.send([22, 3, 1, 2, 0, 1]);
    let trusting = client_trusting(&certificate.der);
    assert_eq!(
        get(&mut connect(proxy.address, &trusting), "/").unwrap(),
        b"ok"
    );
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
    assert!(silent.ends() && half.ends());
}

#[test]
fn a_client_that_ends_tls_frees_its_backend() {
    let (gone, wait) = std::sync::mpsc::channel();
    let backend = Backend::new(move |_, peer| {
        assert_eq!(peer.read_some(), b"");
        gone.send(()).unwrap();
    });
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let proxy = Proxy::with(&config(directory.path(), &backend, &certificate));
    let mut tls = connect(proxy.address, &client_trusting(&certificate.der));
    write!(tls, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    eventually("the request", || {
        (!backend.received().is_empty()).then_some(())
    });
    // The end of TLS alone, the connection below stays open.
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    wait.recv_timeout(TIMEOUT).unwrap();
}

/// A certificate as `openssl req -x509` makes it: self-signed, and an authority's.
/// With an empty `name` it has no `subjectAltName`.
fn own_authority(name: &str, is_expired: bool) -> Certificate {
    let names: Vec<String> = name.split_whitespace().map(str::to_owned).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "localhost");
    if is_expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    Certificate {
        der: cert.der().clone(),
        key: key.serialize_der(),
        cert_pem: cert.pem(),
        key_pem: key.serialize_pem(),
    }
}

#[test]
fn a_certificate_that_is_its_own_authority_is_taken_where_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let ask = |shown: &Certificate, named: &Certificate| {
        let address = secure_server(shown, |_| {
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret".to_owned()
        });
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, &named.cert_pem).unwrap();
        let proxy = Proxy::with(&format!(
            "server: {{host: 127.0.0.1, port: 0}}\npassive_health: {{failures: 0}}\n\
             backends: {{u: [{{id: b, host: localhost, port: {}, scheme: https, ca_file: {}}}]}}\n\
             routing: {{r: {{upstream: u}}}}\n",
            address.port(),
            file.display()
        ));
        let response = proxy.client().get("/");
        (response.status() != 200).then(|| {
            let line = proxy.wait_for_line("the TLS handshake failed: ");
            line.split("the TLS handshake failed: ")
                .nth(1)
                .unwrap()
                .to_owned()
        })
    };
    let good = own_authority("localhost", false);
    assert_eq!(ask(&good, &good), None);
    let told = |shown: &Certificate, named: &Certificate, part: &str| {
        let line = ask(shown, named).expect("a failure");
        assert!(line.contains(part), "{line}");
    };
    let other = own_authority("localhost", false);
    told(&good, &other, "exactly this certificate as ca_file");
    let (elsewhere, expired) = (
        own_authority("other", false),
        own_authority("localhost", true),
    );
    told(&elsewhere, &elsewhere, "for other names");
    told(&expired, &expired, "not valid now");
    let unnamed = own_authority("", false);
    told(&unnamed, &unnamed, "has no subjectAltName");
    told(&certificate(), &good, "no trusted authority has signed");
}

/// A server that speaks TLS, whose answers are written by a function of the
/// request.
fn secure_server(
    certificate: &Certificate,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(certificate.key.clone()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der.clone()], key)
        .unwrap();
    let (config, answer) = (Arc::new(config), Arc::new(answer));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, answer) = (Arc::clone(&config), Arc::clone(&answer));
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let mut tls = StreamOwned::new(connection, stream);
                let mut request = [0; 4096];
                while let Ok(read @ 1..) = tls.read(&mut request) {
                    let request = String::from_utf8_lossy(&request[..read]);
                    if tls.write_all(answer(&request).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn backends_are_spoken_to_by_tls_and_their_certificate_is_checked() {
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let address = secure_server(&certificate, |_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret".to_owned()
    });
    let authorities = directory.path().join("ca.pem");
    let config = |pem: &str| {
        std::fs::write(&authorities, pem).unwrap();
        format!(
            "server: {{host: 127.0.0.1, port: 0}}\n\
             backends: {{u: [{{id: b, host: localhost, port: {}, scheme: https, ca_file: {}}}]}}\n\
             routing: {{r: {{upstream: u}}}}\n",
            address.port(),
            authorities.display()
        )
    };
    let proxy = Proxy::with(&config(&certificate.cert_pem));
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "secret");
    }
    let proxy = Proxy::with(&config(&super::secure::certificate().cert_pem));
    let mut client = proxy.client();
    let response = client.get("/");
    assert_eq!(response.status(), 502);
    assert!(
        response
            .field("proxy-status")
            .unwrap()
            .contains("tls_protocol_error")
    );
    // A new file of authorities is used; one that cannot be read is not.
    std::fs::write(&authorities, &certificate.cert_pem).unwrap();
    eventually("the new authorities", || {
        (client.get("/").status() == 200).then_some(())
    });
    std::fs::remove_file(&authorities).unwrap();
    proxy.wait_for_line("keeping its previous CA certificates");
    assert_eq!(client.get("/").text(), "secret");
}

#[test]
fn the_collector_is_asked_by_tls_with_a_token_that_reads() {
    let (directory, certificate) = (tempfile::tempdir().unwrap(), certificate());
    let address = secure_server(&certificate, |request| {
        let shown = super::support::field(request.trim_end(), "authorization");
        let (status, body) = if shown.as_deref() != Some("Bearer reads-1") {
            ("401 Unauthorized", "{}")
        } else if request.starts_with("GET /api/v1/hosts/host-1/stats ") {
            ("200 OK", r#"{"stats": {"cpu_usage": 7}}"#)
        } else {
            ("404 Not Found", "{}")
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let authority = write("ca.pem", &certificate.cert_pem);
    let other_authority = write("other.pem", &super::secure::certificate().cert_pem);
    let token = write("token", "reads-1\n");
    let other_token = write("other-token", "writes-1\n");
    let ask = |ca_file: &str, token_file: &str| {
        let proxy = Proxy::with(&format!(
            "server: {{host: 127.0.0.1, port: 0}}\nadmin: {{enabled: true, port: 0}}\n\
             collector: {{url: \"https://localhost:{}\", host_id: host-1, ca_file: {ca_file}, token_file: {token_file}}}\n",
            address.port()
        ));
        proxy.admin("GET", "/api/v1/stats/server", "")
    };
    let (status, reply) = ask(&authority, &token);
    assert_eq!((status, &reply["stats"]["cpu_usage"]), (200, &7.into()));
    let (status, reply) = ask(&authority, &other_token);
    let detail = reply["detail"].as_str().unwrap();
    assert!(status == 502 && detail.contains("token_file"), "{reply}");
    let (status, reply) = ask(&other_authority, &token);
    let detail = reply["detail"].as_str().unwrap();
    assert!(status == 502 && detail.contains("certificate"), "{reply}");
}

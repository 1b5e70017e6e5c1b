//! `speedmimi` and a collector that asks who reads, over TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    process::{Command, Output},
};

use common::{Collector, collector_binary};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

#[test]
fn over_https_a_read_token_reads_and_what_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let data = dir.path().join("data");
    let collector = Collector::start_with(
        &data,
        &[
            "--listen-http",
            "0.0.0.0:0",
            "--tls-cert",
            &path("cert.pem"),
            "--tls-key",
            &path("key.pem"),
        ],
    );
    let token = Command::new(collector_binary())
        .args(["token", "add", "--read", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    fs::write(path("token"), token.stdout).unwrap();
    let url = collector.url.replace("http://0.0.0.0", "https://127.0.0.1");
    let hosts = |more: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_speedmimi"))
            .args(["hosts", "--output", "json", "--collector", &url])
            .args(more)
            .env_remove("SPEEDMIMI_TOKEN")
            .env_remove("SPEEDMIMI_CA_CERT")
            .output()
            .unwrap()
    };
    let (ca, token) = (path("cert.pem"), path("token"));
    let read = hosts(&["--ca-cert", &ca, "--token-file", &token]);
    let stderr = String::from_utf8_lossy(&read.stderr);
    assert_eq!(read.status.code(), Some(0), "{stderr}");
    let answer: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(answer["hosts"].as_array().map(Vec::len), Some(0));

    for (flags, code, words) in [
        (&["--ca-cert", &ca][..], 1, "token add --read"),
        (&["--token-file", &token], 1, "UnknownIssuer"),
        (&["--ca-cert", &token], 64, "contains no PEM"),
        (&["--ca-cert", "/nowhere"], 64, "/nowhere"),
        (
            &["--token-file", &ca],
            64,
            "cannot be used: it must be 1 to 4096",
        ),
        (&["--client-cert", &ca], 64, "--client-key"),
    ] {
        let output = hosts(flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
        assert!(stderr.contains(words), "{flags:?}: {stderr}");
    }
}

#[test]
fn over_mutual_tls_a_certificate_that_may_read_reads_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(path("ca.pem"), issuer.pem()).unwrap();
    let sign = |name: &str, host: &str, uri: Option<&str>| {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let uri = uri.map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uri);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        fs::write(path(&format!("{name}.pem")), cert.pem()).unwrap();
        fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    sign("server", "127.0.0.1", None);
    sign("reader", "reader", Some("urn:speedmimi:read"));
    sign("agent", "id-of-a-host", None);
    let collector = Collector::start_with(
        &dir.path().join("data"),
        &[
            "--listen-http",
            "0.0.0.0:0",
            "--tls-cert",
            &path("server.pem"),
            "--tls-key",
            &path("server.key"),
            "--tls-client-ca",
            &path("ca.pem"),
        ],
    );
    let url = collector.url.replace("http://0.0.0.0", "https://127.0.0.1");
    for (client, code, words) in [("reader", 0, ""), ("agent", 1, "urn:speedmimi:read")] {
        let output = Command::new(env!("CARGO_BIN_EXE_speedmimi"))
            .args(["hosts", "--output", "json", "--collector", &url])
            .args(["--ca-cert", &path("ca.pem")])
            .args(["--client-cert", &path(&format!("{client}.pem"))])
            .args(["--client-key", &path(&format!("{client}.key"))])
            .env_remove("SPEEDMIMI_TOKEN")
            .env_remove("SPEEDMIMI_CA_CERT")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{client}: {stderr}");
        assert!(stderr.contains(words), "{client}: {stderr}");
    }
}

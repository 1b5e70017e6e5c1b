//! TLS handshakes of real peers: nginx, curl and OpenSSL.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use tempfile::TempDir;
use testkit::{
    Cgroup, Process, eventually,
    fixtures::{AgentPlan, Binaries, CollectorPlan, Level, Nginx},
    http,
};

use super::{
    Case,
    problems::{OF_THE_MACHINE, problems, run},
    scene::{REPORTS, Scene},
};

pub(crate) const CASES: &[Case] = &[
    ("tls_handshakes_of_nginx_and_curl_are_counted", counted),
    ("tls_handshakes_that_fail_are_a_problem", fail),
];

/// The one handshake that ends by a reset: a hello's beginning.
const HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

/// What curl ends with where it does not trust the certificate.
const UNTRUSTED: i32 = 60;

/// nginx with a listener for each version of TLS, and one without TLS that passes its
/// requests on to the second by TLS.
struct Site {
    nginx: Process,
    directory: TempDir,
    tls12: SocketAddr,
    tls13: SocketAddr,
    plain: SocketAddr,
}

impl Site {
    fn start(cgroup: &Cgroup) -> Self {
        let directory = TempDir::with_prefix("speedmimi-tls-").unwrap();
        let at = directory.path();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext"])
            .args(["subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout"])
            .arg(at.join("key.pem"))
            .arg("-out")
            .arg(at.join("cert.pem"))
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        // Held until all three are known, so that they differ.
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [tls12, tls13, plain] = free.each_ref().map(|one| one.local_addr().unwrap());
        drop(free);
        let of = at.display();
        let server = |listens, version: &str| {
            format!(
                "server {{ listen {listens} ssl; ssl_protocols {version};\n\
                 ssl_certificate {of}/cert.pem; ssl_certificate_key {of}/key.pem;\n\
                 location / {{ return 200 ok; }} }}\n"
            )
        };
        let text = format!(
            "daemon off; user root; worker_processes 1; pid {of}/pid; error_log {of}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {of}/b; proxy_temp_path {of}/p;\n\
             fastcgi_temp_path {of}/f; uwsgi_temp_path {of}/u; scgi_temp_path {of}/s;\n\
             {}{}server {{ listen {plain}; location / {{ proxy_pass https://{tls13};\n\
             proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on;\n\
             proxy_ssl_name localhost; proxy_ssl_trusted_certificate {of}/cert.pem; }} }} }}\n",
            server(tls12, "TLSv1.2"),
            server(tls13, "TLSv1.3"),
        );
        let file = at.join("nginx.conf");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(Nginx::program().unwrap());
        command.arg("-c").arg(&file).arg("-p").arg(at);
        let nginx = Process::start("nginx", command, Some(cgroup)).unwrap();
        // All are bound before one accepts.
        eventually("nginx listens", REPORTS, || TcpStream::connect(plain).ok());
        Self {
            nginx,
            directory,
            tls12,
            tls13,
            plain,
        }
    }

    /// How curl ends, that trusts the certificate or does not.
    fn curl(&self, at: SocketAddr, trusts: bool) -> Option<i32> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--output", "/dev/null", "--max-time", "20"]);
        if trusts {
            command.arg("--cacert");
            command.arg(self.directory.path().join("cert.pem"));
        }
        let address = format!("https://{at}/");
        command.arg(address).status().unwrap().code()
    }

    /// Whether OpenSSL's client is answered.
    fn openssl(&self, at: SocketAddr, version: &str) -> bool {
        let mut child = Command::new("openssl")
            .args(["s_client", "-ign_eof", version, "-verify_return_error"])
            .arg("-CAfile")
            .arg(self.directory.path().join("cert.pem"))
            .args(["-connect", &at.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may have ended already.
        let _written = stdin.write_all(b"GET / HTTP/1.0\r\n\r\n");
        child.wait().unwrap().success()
    }
}

fn counted() {
    let scene = Scene::watched_at(Level::Http);
    let mut site = Site::start(&scene.cgroup);
    let [tls12, tls13] = [site.tls12, site.tls13];
    for (at, version, other) in [(tls12, "-tls1_2", "-tls1_3"), (tls13, "-tls1_3", "-tls1_2")] {
        for _ in 0..5 {
            assert_eq!(site.curl(at, true), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(site.curl(at, false), Some(UNTRUSTED));
        }
        for _ in 0..2 {
            assert!(site.openssl(at, version));
            // No version in common.
            assert!(!site.openssl(at, other));
        }
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(&HELLO).unwrap();
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    for _ in 0..4 {
        assert_eq!(http::get(site.plain, "/").unwrap().0, 200);
    }

    let url = format!("http://{}", scene.collector.http());
    let told = |arguments: &[&str]| {
        let (text, _) = run("speedmimi", &[arguments, &["--collector", &url]].concat());
        let line = text
            .lines()
            .find(|line| line.contains(&tls12.to_string()))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        let is_told = text.contains("TLSFAIL") && has("6") && has("–");
        (is_told && line.trim_end().ends_with("TLS")).then_some(())
    };
    eventually("the summary tells of TLS", REPORTS, || {
        told(&["summary", "--by", "listener"])
    });
    site.nginx.kill().unwrap();
    let sums = scene.end();
    for (role, at, [begun, completed, alert, end]) in [
        ("downstream", tls12, [13, 7, 5, 1]),
        // Those of nginx itself are seen at both of their ends.
        ("downstream", tls13, [17, 11, 5, 1]),
        ("upstream", tls13, [4, 4, 0, 0]),
    ] {
        let counted = &sums[&(role.to_owned(), at.to_string())];
        let of = |name: &str| counted.get(name).copied();
        for (name, n) in [
            ("tls_handshakes", begun),
            ("tls_handshakes_completed", completed),
            ("tls_handshakes_failed_alert", alert),
            ("tls_handshakes_failed_end", end),
            ("tls_handshakes_unknown", 0),
            ("connections_opened", begun),
        ] {
            assert_eq!(of(name), Some(n), "{name} of {role} {at}: {counted:?}");
        }
        assert_eq!(of("requests"), None, "{counted:?}");
    }
}

fn fail() {
    let binaries = Binaries::of_this_build().unwrap();
    let mut plan = CollectorPlan::new(&binaries).unwrap();
    for kind in OF_THE_MACHINE {
        plan = plan.flag(&["--problem-threshold", &format!("{kind}=off")]);
    }
    let collector = plan.start().unwrap();
    let cgroup = Cgroup::create("tls").unwrap();
    let agent = AgentPlan::watching(&binaries, &cgroup).unwrap();
    let agent = agent.at_level(Level::Http).reporting_to(&collector);
    let agent = agent.start().unwrap();
    let mut site = Site::start(&cgroup);
    let [trusts, ended] = [AtomicBool::new(true), AtomicBool::new(false)];
    let completed = || {
        let path = "/api/v1/reports?latest=true";
        let answer = http::get_json(collector.http(), path).unwrap();
        let endpoints = answer["reports"][0]["endpoints"].as_array()?;
        let is_it = |e: &&Value| e["address"] == site.tls13.to_string();
        endpoints.iter().find(is_it)?["totals"]["tls_handshakes_completed"].as_u64()
    };
    let kinds = || {
        let problems = problems(&collector);
        let kinds = problems
            .iter()
            .map(|p| p["kind"].as_str().unwrap().to_owned());
        kinds.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Relaxed) {
                site.curl(site.tls13, trusts.load(Relaxed));
            }
        });
        eventually("handshakes are reported", REPORTS, || {
            (completed()? >= 20).then_some(())
        });
        assert_eq!(kinds(), <[String; 0]>::default());
        trusts.store(false, Relaxed);
        let told = || (kinds() == ["tls_handshakes"]).then_some(());
        eventually("that handshakes fail is a problem", 2 * REPORTS, told);
        let problem = &problems(&collector)[0];
        assert_eq!(problem["subject"]["endpoint"], site.tls13.to_string());
        let summary = problem["summary"].as_str().unwrap();
        assert!(summary.ends_with("fail, mostly by an alert"), "{summary}");
        trusts.store(true, Relaxed);
        let is_mended = || kinds().is_empty().then_some(());
        eventually("it is mended", 4 * REPORTS, is_mended);
        ended.store(true, Relaxed);
    });
    site.nginx.kill().unwrap();
    agent.stop().unwrap().uninstall().unwrap();
    collector.stop().unwrap();
}

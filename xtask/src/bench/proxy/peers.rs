//! The proxies that are compared, and how each is told to do the same.
//!
//! Everyone has the features of a real one switched on: timeouts, limits,
//! `X-Forwarded-*` and, where it can, active health checks.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testkit::fixtures::Binaries;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Ours.
    Proxy,
    Nginx,
    Haproxy,
    /// Bytes alone: the floor.
    Relay,
}

pub(super) const PEERS: [Peer; 4] = [Peer::Proxy, Peer::Nginx, Peer::Haproxy, Peer::Relay];

/// Where one is to listen, and what it is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) listen: SocketAddr,
    pub(super) origin: SocketAddr,
    pub(super) directory: &'a Path,
    pub(super) certificate: Option<&'a Certificate>,
    pub(super) workers: usize,
    pub(super) open_files: u64,
}

/// A certificate and its key, and both in one file as `HAProxy` wants it.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) both: PathBuf,
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Relay => "relay",
        }
    }

    /// The command that runs it in the foreground.
    pub(super) fn command(self, binaries: &Binaries, place: Place<'_>) -> Result<Command> {
        let file = place.directory.join("configuration");
        let write = |text: String| {
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        match self {
            Self::Proxy => {
                write(ours(place))?;
                let mut command = Command::new(binaries.find("speedmimi-proxy")?);
                command.arg("run").arg("--config").arg(&file);
                command.args(["--workers", &place.workers.to_string()]);
                Ok(command)
            }
            Self::Nginx => {
                write(nginx(place))?;
                Ok(nginx_command(&file, place.directory))
            }
            Self::Haproxy => {
                write(haproxy(place))?;
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                Ok(command)
            }
            Self::Relay => {
                let mut command = Command::new(binaries.find("speedmimi-relay")?);
                command.args(["--listen", &place.listen.to_string()]);
                command.args(["--upstream", &place.origin.to_string()]);
                Ok(command)
            }
        }
    }
}

fn nginx_command(file: &Path, directory: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file).arg("-p").arg(directory);
    command
}

/// nginx as the server behind: small answers, and files of 64 KiB and 1 MiB.
pub(super) fn origin(listen: SocketAddr, directory: &Path, open_files: u64) -> Result<Command> {
    for (name, bytes) in [("64k", 64 << 10), ("1m", 1 << 20)] {
        fs::write(directory.join(name), vec![b'x'; bytes]).context("writing what is served")?;
    }
    let file = directory.join("configuration");
    let text = format!(
        "{}sendfile on;
          server {{ listen {listen} reuseport backlog=65535; root {root};
            location = /64k {{}} location = /1m {{}}
            location / {{ return 200 \"{body}\"; }} }} }}\n",
        nginx_start(directory, 1, open_files),
        root = directory.display(),
        body = "x".repeat(100),
    );
    fs::write(&file, text).context("writing the origin's configuration")?;
    Ok(nginx_command(&file, directory))
}

/// What both nginx have in common; leaves the block `http` open.
fn nginx_start(directory: &Path, workers: usize, open_files: u64) -> String {
    let directory = directory.display();
    format!(
        "worker_processes {workers}; daemon off; pid {directory}/pid; error_log {directory}/error crit;
        worker_rlimit_nofile {open_files};
        events {{ worker_connections {open_files}; multi_accept on; }}
        http {{ access_log off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 300s;
          client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
          uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n"
    )
}

fn nginx(place: Place<'_>) -> String {
    let Place {
        listen,
        origin,
        open_files,
        ..
    } = place;
    let (ssl, tls) = match place.certificate {
        None => ("", String::new()),
        Some(one) => (
            " ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;
                 ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;",
                one.certificate.display(),
                one.key.display()
            ),
        ),
    };
    format!(
        "{}client_header_timeout 30s; client_body_timeout 30s; send_timeout 30s;
          proxy_connect_timeout 5s; proxy_read_timeout 60s; client_max_body_size 1g;
          upstream up {{ server {origin}; keepalive {open_files}; keepalive_requests 1000000000; }}
          server {{ listen {listen}{ssl} reuseport backlog=65535; {tls}
            location / {{ proxy_pass http://up; proxy_http_version 1.1;
              proxy_set_header Connection \"\"; proxy_set_header Host $http_host;
              proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Real-IP $remote_addr;
              proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host; }} }} }}\n",
        nginx_start(place.directory, place.workers, open_files)
    )
}

fn haproxy(place: Place<'_>) -> String {
    let tls = place.certificate.map_or(String::new(), |one| {
        format!(
            " ssl crt {} ssl-min-ver TLSv1.3 ciphersuites TLS_AES_256_GCM_SHA384",
            one.both.display()
        )
    });
    let Place {
        listen,
        origin,
        workers,
        open_files,
        ..
    } = place;
    // Two descriptors a connection, two a pipe, and some of its own.
    let connections = open_files.saturating_sub(1_200) / 2;
    let proto = if place.certificate.is_some() {
        "https"
    } else {
        "http"
    };
    format!(
        "global
  nbthread {workers}
  maxconn {connections}
  ulimit-n {open_files}
  maxpipes 400
defaults
  mode http
  timeout client 30s
  timeout server 60s
  timeout connect 5s
  timeout http-request 30s
  timeout http-keep-alive 300s
  option http-keep-alive
  option splice-auto
  option forwardfor
  http-reuse always
frontend clients
  bind {listen} backlog 65535{tls}
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto {proto}
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  default_backend servers
backend servers
  server one {origin} pool-max-conn -1 check inter 2s\n"
    )
}

fn ours(place: Place<'_>) -> String {
    let (host, port) = (place.listen.ip(), place.listen.port());
    let (origin_host, origin_port) = (place.origin.ip(), place.origin.port());
    let tls = place.certificate.map_or(String::new(), |one| {
        format!(
            "ssl: {{enabled: true, cert_file: {:?}, key_file: {:?}}}\n",
            one.certificate, one.key
        )
    });
    format!(
        "server: {{host: \"{host}\", port: {port}, read_timeout: 30s, write_timeout: 30s, max_conn: 20000}}
{tls}backends:
  default:
    - {{id: one, host: \"{origin_host}\", port: {origin_port}, max_conn: 20000, health_check: {{path: /, interval: 2s, timeout: 2s, failures: 3}}}}
routing: {{default: {{path: /, upstream: default, load_balancer: least_connections_weight}}}}
timeouts: {{keep_alive: 300s, connect: 5s, response_head: 60s}}
limits: {{body_bytes: 1GiB}}\n"
    )
}

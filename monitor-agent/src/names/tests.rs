use std::{fs, path::Path, process::Command, time::SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    file::Form,
    found::{Found, Resolved},
    sources::Sources,
    *,
};

const YAML: &str = "
server: { host: 0.0.0.0, port: 8080 }
backends:
  default:
    - { id: b1, name: Backend One, host: 127.0.0.1, port: 8081, weight: 100 }
    - { id: b2, host: '::1', port: 8082 }
  other:
    - { id: b1, host: 127.0.0.1, port: 8081 }
routing: {}
";

/// What nginx 1.22 takes, with an included directory.
const NGINX: &str = r#"
# events { upstream no; }
daemon off; pid nginx.pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  upstream app {
    zone app 64k;
    least_conn;
    server 127.0.0.1:8081 weight=5 max_fails=3;
    server [::1]:8082 backup;
    server 127.0.0.1; # port 80
    server unix:/tmp/app.sock;
    server localhost:8083;
    keepalive 8;
  }
  map $host $backend { default 127.0.0.1:9; "a;{b" x; }
  server {
    listen 18080;
    listen [::]:18080;
    server_name one.test "two.test";
    location / { proxy_pass http://app/path; }
    location /direct { proxy_pass http://127.0.0.1:9001/; }
    location /plain { if ($arg_x) { proxy_pass http://127.0.0.3; } }
    location /variable { set $x 127.0.0.1; proxy_pass http://$x:1; }
    location /unix { proxy_pass http://unix:/tmp/x:/; }
    location /fcgi { fastcgi_pass 127.0.0.1:9002; }
  }
  server { listen 127.0.0.1:18080; server_name _ only.test; }
  server { listen 18081; server_name _; }
  server { listen unix:/tmp/l.sock; server_name hidden.test; }
  include sites/*.conf;
}
"#;

const NGINX_SITE: &str = "
upstream second { server 127.0.0.2:8090; }
server { listen [::]:18082 ipv6only=off; server_name three.test; location / { proxy_pass http://second; } }
";

/// What `HAProxy` 2.6 takes.
const HAPROXY: &str = r##"
global
    maxconn 100   # backend no
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
    default-server inter 3s fall 2
frontend web
    bind :18080
    bind 127.0.0.1:18081,[::1]:18082 name "two addresses"
    bind 127.0.0.1:18090-18092
    bind unix@/tmp/h.sock mode 600
    default_backend app
listen both
    bind :::18083
    server own 127.0.0.1:9000 check
backend app
    default-server weight 10
    server a 127.0.0.1:8081 check port 8099
    server "b" ipv6@[::1]:8082
    server relative 127.0.0.1:+1
    server local /tmp/app.sock
    server here localhost:8083
    server-template web 1-3 127.0.0.4:8084 check disabled
    http-request set-header X "# no comment"
resolvers dns
    nameserver one 127.0.0.1:53
"##;

fn known(host: &str) -> Vec<IpAddr> {
    match host {
        "localhost" => vec![Ipv4Addr::new(127, 0, 0, 9).into()],
        _ => Vec::new(),
    }
}

fn nginx_in(dir: &Path, text: &str) -> Result<Resolved, NamesError> {
    let path = dir.join("nginx.conf");
    fs::write(&path, text).unwrap();
    let found = nginx::parse(text, &path, &mut Sources::default());
    found.map(|found| found.resolve(known))
}

fn peer(names: &Names, address: &str) -> (String, String) {
    let name = names.peers.get(&address.parse().unwrap());
    let name = name.cloned().unwrap_or_default();
    (name.upstream, name.backend)
}

fn listener(names: &Names, address: &str) -> String {
    let name = names.listener(address.parse().unwrap());
    name.cloned().unwrap_or_default().name
}

fn pair(upstream: &str, backend: &str) -> (String, String) {
    (upstream.to_owned(), backend.to_owned())
}

#[test]
fn our_proxy_s_backends_are_named_by_their_addresses() {
    let Resolved { names, .. } = yaml::parse(YAML).unwrap().resolve(known);
    let one = &names.peers[&"127.0.0.1:8081".parse().unwrap()];
    assert_eq!(one.name, "Backend One,b1");
    assert_eq!(peer(&names, "127.0.0.1:8081"), pair("default,other", "b1"));
    assert_eq!(peer(&names, "[::1]:8082"), pair("default", "b2"));
    assert_eq!(names.len(), 2);
}

#[test]
fn nginx_s_upstreams_and_listeners_have_their_names() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sites")).unwrap();
    fs::write(dir.path().join("sites/a.conf"), NGINX_SITE).unwrap();
    fs::write(dir.path().join("sites/b.conf~"), "}").unwrap();
    let Resolved { names, remarks, .. } = nginx_in(dir.path(), NGINX).unwrap();
    for (address, upstream, backend) in [
        ("127.0.0.1:8081", "app", "127.0.0.1:8081"),
        ("[::1]:8082", "app", "[::1]:8082"),
        ("127.0.0.1:80", "app", "127.0.0.1"),
        ("127.0.0.9:8083", "app", "localhost:8083"),
        ("127.0.0.1:9001", "127.0.0.1:9001", "127.0.0.1:9001"),
        ("127.0.0.3:80", "127.0.0.3", "127.0.0.3"),
        ("127.0.0.1:9002", "127.0.0.1:9002", "127.0.0.1:9002"),
        ("127.0.0.2:8090", "second", "127.0.0.2:8090"),
    ] {
        assert_eq!(peer(&names, address), pair(upstream, backend), "{address}");
    }
    assert_eq!(names.peers.len(), 8, "{names:?}");
    for (address, name) in [
        ("10.1.1.1:18080", "one.test,two.test"),
        ("[fe80::1]:18080", "one.test,two.test"),
        ("127.0.0.1:18080", "only.test"),
        ("10.1.1.1:18081", ""),
        ("10.1.1.1:18082", "three.test"),
        ("[::1]:18082", "three.test"),
    ] {
        assert_eq!(listener(&names, address), name, "{address}");
    }
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks.iter().all(|r| r.contains("variables")));
}

#[test]
fn haproxy_s_backends_and_frontends_have_their_names() {
    let Resolved { names, remarks, .. } = haproxy::parse(HAPROXY).resolve(known);
    for (address, upstream, backend) in [
        ("127.0.0.1:9000", "both", "own"),
        ("127.0.0.1:8081", "app", "a"),
        ("[::1]:8082", "app", "b"),
        ("127.0.0.9:8083", "app", "here"),
        ("127.0.0.4:8084", "app", "web1-3"),
    ] {
        assert_eq!(peer(&names, address), pair(upstream, backend), "{address}");
    }
    assert_eq!(names.peers.len(), 5, "{names:?}");
    for (address, name) in [
        ("10.1.1.1:18080", "web"),
        ("[::1]:18080", ""),
        ("127.0.0.1:18081", "web"),
        ("[::1]:18082", "web"),
        ("127.0.0.1:18091", "web"),
        ("127.0.0.1:18093", ""),
        ("10.1.1.1:18083", "both"),
        ("[fe80::1]:18083", "both"),
    ] {
        assert_eq!(listener(&names, address), name, "{address}");
    }
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks.iter().all(|r| r.contains("app/relative")));
}

/// A program of a distribution, which may keep it off a user's path.
fn program(name: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"];
    let mut paths = places.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| path.exists())
}

fn accepts(program_name: &str, arguments: &[&str]) {
    let Some(program) = program(program_name) else {
        eprintln!("skipped: {program_name} is not installed");
        return;
    };
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_programs_themselves_take_these_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    fs::create_dir(dir.path().join("sites")).unwrap();
    // nginx binds even where it only tests.
    let ports = [(); 3].map(|()| std::net::TcpListener::bind("[::]:0").unwrap());
    let ports = ports.map(|listener| listener.local_addr().unwrap().port());
    let free = |text: &str| {
        let text = text.replace("18080", &ports[0].to_string());
        let text = text.replace("18081", &ports[1].to_string());
        text.replace("18082", &ports[2].to_string())
    };
    fs::write(dir.path().join("sites/a.conf"), free(NGINX_SITE)).unwrap();
    let file = dir.path().join("nginx.conf");
    fs::write(&file, free(NGINX)).unwrap();
    accepts("nginx", &["-t", "-p", at, "-c", file.to_str().unwrap()]);
    let file = dir.path().join("haproxy.cfg");
    fs::write(&file, HAPROXY).unwrap();
    accepts("haproxy", &["-c", "-f", file.to_str().unwrap()]);
}

#[test]
fn whose_configuration_it_is_tells_the_first_statement() {
    for (text, form) in [
        (YAML, Form::Yaml),
        (NGINX, Form::Nginx),
        (NGINX_SITE, Form::Nginx),
        (HAPROXY, Form::HaProxy),
        ("\n# x\n\nlisten a\n bind :1\n", Form::HaProxy),
        ("server { listen 1; }", Form::Nginx),
        ("user www-data;", Form::Nginx),
        ("{\"backends\": {}}", Form::Yaml),
        ("---\nbackends: {}", Form::Yaml),
        ("global: {}", Form::Yaml),
        ("", Form::Yaml),
    ] {
        assert_eq!(Form::of(text), form, "{text}");
    }
}

#[test]
fn files_that_include_each_other_or_too_many_end() {
    let dir = tempfile::tempdir().unwrap();
    let own = nginx_in(dir.path(), "include nginx.conf;").unwrap_err();
    assert!(own.to_string().contains("16 deep"), "{own}");
    // Two at a time: no depth is reached before the files run out.
    let two = "include nginx.conf; include nginx.conf;";
    assert!(nginx_in(dir.path(), two).is_err());
    fs::write(dir.path().join("leaf"), "a;").unwrap();
    let many = "include leaf;".repeat(1_001);
    let many = nginx_in(dir.path(), &many).unwrap_err();
    assert!(crate::error_chain(&many).contains("1000 files"), "{many}");
    let Resolved { remarks, .. } = nginx_in(dir.path(), "include missing.conf;").unwrap();
    assert!(remarks.first().unwrap().contains("missing.conf"));
}

#[test]
fn what_is_too_large_or_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    fs::File::create(&path).unwrap().set_len(5 << 20).unwrap();
    for path in [path, "/dev/zero".into(), dir.path().join("none")] {
        let refused = NamesFile::open(path);
        assert!(matches!(refused, Err(NamesError::Unreadable { .. })));
    }
    let mut found = Found::default();
    for _ in 0..2 {
        found.listen("*", found::Family::Any, 1..=65_535, &Name::default());
    }
    assert_eq!(found.listeners.len(), 50_000);
    assert!(found.remarks.first().unwrap().contains("50000"));
}

#[test]
fn many_names_of_one_address_are_cut_short() {
    let servers: String = (0..1_000)
        .map(|n| format!("server {{ listen 80; server_name host{n}.test; }}"))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let Resolved { names, .. } = nginx_in(dir.path(), &servers).unwrap();
    let name = listener(&names, "10.0.0.1:80");
    assert!(name.starts_with("host0.test,host1.test,"), "{name}");
    assert!(name.ends_with(",…") && name.len() < 210, "{name}");
}

struct Edited {
    dir: TempDir,
    seconds: u64,
}

impl Edited {
    fn write(&mut self, name: &str, text: &str) -> PathBuf {
        self.seconds += 1;
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(self.seconds);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(at).unwrap();
        path
    }
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing() {
    let mut edited = Edited {
        dir: tempfile::tempdir().unwrap(),
        seconds: 0,
    };
    let path = edited.write("proxy.yaml", YAML);
    let mut file = NamesFile::open(path).unwrap();
    assert_eq!((file.refresh(), file.names().len()), (false, 2));
    edited.write("proxy.yaml", "backends: [");
    assert_eq!((file.refresh(), file.names().len()), (false, 2));
    edited.write("proxy.yaml", "backends: {}");
    assert_eq!((file.refresh(), file.names().len()), (true, 0));
}

#[test]
fn included_files_and_new_ones_are_followed() {
    let mut edited = Edited {
        dir: tempfile::tempdir().unwrap(),
        seconds: 0,
    };
    fs::create_dir(edited.dir.path().join("sites")).unwrap();
    edited.write("sites/a.conf", "upstream a { server 127.0.0.1:1; }");
    let path = edited.write("nginx.conf", "include sites/*.conf;");
    let mut file = NamesFile::open(path).unwrap();
    assert_eq!(file.names().len(), 1);
    edited.write("sites/b.conf", "upstream b { server 127.0.0.1:2; }");
    assert_eq!((file.refresh(), file.names().len()), (true, 2));
    let more = "upstream b { server 127.0.0.1:2; server 127.0.0.1:3; }";
    edited.write("sites/b.conf", more);
    assert_eq!((file.refresh(), file.names().len()), (true, 3));
}

proptest! {
    #[test]
    fn hostile_text_never_panics(text in "(backends:|  a:|    - \\{|id: x, host: h, port: [0-9]{1,6}|\\}|\n|[^a]){0,12}") {
        if let Ok(found) = yaml::parse(&text) {
            prop_assert!(found.peers.is_empty() || text.contains("backends"));
        }
    }

    #[test]
    fn hostile_configurations_never_panic(text in "(frontend|backend|listen|bind|server|server-template|upstream|server_name|proxy_pass|http://|[0-9-]{1,6}|:|@|\\[|\\]|\\{|\\}|;|,| |\n|\\PC){0,30}") {
        let haproxy = haproxy::parse(&text).resolve(known);
        prop_assert!(haproxy.names.len() <= 2 * 65_536);
        let nginx = nginx::parse(&text, Path::new("/nonexistent/x"), &mut Sources::default());
        if let Ok(found) = nginx {
            prop_assert!(found.resolve(known).names.is_empty() || text.contains("server") || text.contains("pass"));
        }
    }
}

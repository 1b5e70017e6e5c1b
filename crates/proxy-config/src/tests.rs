use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use proptest::prelude::*;

use super::*;

const YAML: &str = include_str!("../cases/proxy.yaml");

/// What nginx 1.22 takes, with an included directory.
const NGINX: &str = include_str!("../cases/nginx.conf");

const NGINX_SITE: &str = include_str!("../cases/sites/a.conf");

/// What `HAProxy` 2.6 takes.
const HAPROXY: &str = include_str!("../cases/haproxy.cfg");

fn known(host: &str) -> Vec<IpAddr> {
    match host {
        "localhost" => vec![Ipv4Addr::new(127, 0, 0, 9).into()],
        _ => Vec::new(),
    }
}

fn read_in(path: &Path, root: Option<&Path>) -> Result<Found, ReadError> {
    let (root, path) = Root::of(path, root);
    read(&path, &mut Sources::new(root))
}

fn sources() -> Sources {
    Sources::new(Root::default())
}

/// The names in a text, and the remarks on it.
fn nginx_in(dir: &Path, text: &str) -> (Names, BTreeSet<String>) {
    let path = dir.join("nginx.conf");
    fs::write(&path, text).unwrap();
    let found = nginx::parse(text, &path, &mut sources());
    assert_eq!(found.broken, None);
    (found.resolve(known), found.remarks)
}

/// A small input that is kept beside these tests.
fn case(name: &str) -> (Names, Found) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let found = read_in(&path.join(name), None).unwrap();
    (found.resolve(known), found)
}

fn peer(names: &Names, address: &str) -> (String, String) {
    let name = names.peer(address.parse().unwrap());
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
    let names = yaml::parse(YAML).unwrap().resolve(known);
    let one = names.peer("127.0.0.1:8081".parse().unwrap()).unwrap();
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
    let (names, remarks) = nginx_in(dir.path(), NGINX);
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
    assert_eq!(names.peers().count(), 8, "{names:?}");
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
    let found = haproxy::parse(HAPROXY);
    let (names, remarks) = (found.resolve(known), found.remarks);
    for (address, upstream, backend) in [
        ("127.0.0.1:9000", "both", "own"),
        ("127.0.0.1:8081", "app", "a"),
        ("[::1]:8082", "app", "b"),
        ("127.0.0.9:8083", "app", "here"),
        ("127.0.0.4:8084", "app", "web1-3"),
        ("127.0.0.1:9053", "dns", "two"),
        ("127.0.0.1:9025", "alert", "smtp"),
        ("127.0.0.1:9100", "others", "first"),
        ("127.0.0.1:18101", "older", "one"),
        ("127.0.0.1:9514", "audit", "logs"),
    ] {
        assert_eq!(peer(&names, address), pair(upstream, backend), "{address}");
    }
    assert_eq!(names.peers().count(), 10, "{names:?}");
    for (address, name) in [
        ("10.1.1.1:18080", "web"),
        ("[::1]:18080", ""),
        ("127.0.0.1:18081", "web"),
        ("[::1]:18082", "web"),
        ("127.0.0.1:18091", "web"),
        ("127.0.0.1:18093", ""),
        ("10.1.1.1:18083", "both"),
        ("[fe80::1]:18083", "both"),
        ("127.0.0.1:18100", "others"),
        ("127.0.0.1:18101", "older"),
        ("127.0.0.1:18514", "syslog"),
        ("127.0.0.1:18515", ""),
    ] {
        assert_eq!(listener(&names, address), name, "{address}");
    }
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks.iter().all(|r| r.contains("app/relative")));
}

#[test]
fn haproxy_s_variables_have_the_values_that_its_file_sets() {
    let (names, found) = case("environment.cfg");
    for (address, backend) in [
        ("127.0.0.1:25301", "s25301,escaped"),
        ("127.0.0.1:25302", "late"),
        ("127.0.0.1:25303", "preset"),
    ] {
        assert_eq!(peer(&names, address), pair("app", backend), "{address}");
    }
    assert_eq!(names.peers().count(), 3, "{names:?}");
    assert_eq!(listener(&names, "10.1.1.1:25300"), "web5300");
    assert_eq!(listener(&names, "127.0.0.9:25300"), "web5300");
    assert_eq!(names.len(), 5, "{names:?}");
    let remarks: Vec<_> = found.remarks.iter().collect();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].contains("$OUTSIDE is not known"), "{remarks:?}");
    // Half a condition holds no value.
    let text = "global\n.if defined(X)\nsetenv P 1\n.endif\nbackend b\nserver a :\"$P\"\n";
    let found = haproxy::parse(text);
    assert_eq!((found.peers.len(), found.remarks.len()), (0, 2));
}

#[test]
fn what_these_configurations_name_is_known() {
    for (file, address, upstream, backend) in [
        ("comment_with_colon.cfg", "127.0.0.1:25101", "app", "a"),
        (
            "uri_variables.conf",
            "127.0.0.1:25001",
            "app",
            "127.0.0.1:25001",
        ),
        (
            "uri_variables.conf",
            "127.0.0.1:25002",
            "127.0.0.1:25002",
            "127.0.0.1:25002",
        ),
        (
            "uri_variables.conf",
            "127.0.0.1:25003",
            "127.0.0.1:25003",
            "127.0.0.1:25003",
        ),
        (
            "lua_long_brackets.conf",
            "127.0.0.1:25004",
            "127.0.0.1:25004",
            "127.0.0.1:25004",
        ),
        (
            "constant_variables.conf",
            "127.0.0.1:25008",
            "127.0.0.1:25008",
            "127.0.0.1:25008",
        ),
        ("quoted_port.yaml", "127.0.0.1:25201", "app", "a"),
    ] {
        let (names, found) = case(file);
        assert_eq!(peer(&names, address), pair(upstream, backend), "{file}");
        assert_eq!((found.remarks.len(), found.broken), (0, None), "{file}");
    }
    for (file, address, name) in [
        ("comment_with_colon.cfg", "127.0.0.1:25100", "web"),
        ("uri_variables.conf", "127.0.0.1:25010", "a.test"),
        ("lua_long_brackets.conf", "127.0.0.1:25011", "b.test"),
        ("constant_variables.conf", "127.0.0.1:25018", "f.test"),
    ] {
        assert_eq!(listener(&case(file).0, address), name, "{file}");
    }
}

#[test]
fn upstreams_are_compared_as_nginx_does() {
    let dir = tempfile::tempdir().unwrap();
    let text = "http {
        upstream App { server 127.0.0.1:1; }
        server {
            location /a { proxy_pass HTTP://aPP/x; }
            location /b { set $x APP; proxy_pass http://$x$request_uri; }
            location /c { set $x app; proxy_pass http://$x:81; }
            location /d { proxy_pass http://only-stream; }
        }
    }
    stream {
        upstream only-stream { server 127.0.0.1:2; }
        upstream second { server localhost:3; }
        server { listen 1; proxy_pass Second; }
        server { listen 2; proxy_pass app:4; }
    }";
    let path = dir.path().join("nginx.conf");
    let mut found = nginx::parse(text, &path, &mut sources());
    let hosts: Vec<_> = found.hosts().into_iter().collect();
    assert_eq!(hosts, ["app", "localhost", "only-stream"]);
    let names = found.resolve(|_| vec![Ipv4Addr::LOCALHOST.into()]);
    for (port, upstream) in [(1, "App"), (2, "only-stream"), (3, "second"), (4, "app:4")] {
        assert_eq!(peer(&names, &format!("127.0.0.1:{port}")).0, upstream);
    }
    assert_eq!(peer(&names, "127.0.0.1:81").0, "app:81");
    assert_eq!(peer(&names, "127.0.0.1:80").0, "only-stream");
    assert_eq!(names.peers().count(), 6, "{names:?}");
}

#[test]
fn variables_have_the_values_of_their_own_location() {
    let dir = tempfile::tempdir().unwrap();
    let text = "
        map $host $only { default 127.0.0.1; }
        map $host $same { hostnames; a 127.0.0.1:2; b 127.0.0.1:2; default 127.0.0.1:2; }
        map $host $several { default 127.0.0.1:90; x 127.0.0.1:91; y 127.0.0.1:91; }
        map $host $more { default 127.0.0.1:92; include more.map; }
        map $host $without { x 127.0.0.1:93; }
        server {
            set $ip 127.0.0.1;
            set $other 127.0.0.1;
            location /a { set $port 3; proxy_pass http://$ip:$port; }
            location /b { set $port 4; proxy_pass http://$ip:$port/; }
            location /c { proxy_pass http://$only:5; }
            location /d { proxy_pass http://$same; }
            location /e { set $port 6; location /e/f { proxy_pass http://$ip:$port; } }
            location /g { set $other 127.0.0.2; break; set $other 127.0.0.3; proxy_pass http://$other:7; }
            location /h { proxy_pass http://$other:8; }
            location /i { set $to 127.0.0.1:9; if ($arg_x) { set $to 127.0.0.1:10; } proxy_pass http://$to; }
            location /j { proxy_pass http://$several; }
            location /k { proxy_pass http://$more; }
            location /l { proxy_pass http://$without; }
            location /m { if ($arg_x) { set $to 127.0.0.1:11; proxy_pass http://$to; } }
            location /n { fastcgi_pass $ip:12; }
        }
        server { location / { proxy_pass http://$ip:13; } }
    ";
    let (names, remarks) = nginx_in(dir.path(), text);
    let mut ports: Vec<_> = names.peers().map(SocketAddr::to_string).collect();
    ports.sort_by_key(|address| address.rsplit(':').next().unwrap().parse::<u16>().unwrap());
    let expected = [
        "127.0.0.1:2",
        "127.0.0.1:3",
        "127.0.0.1:4",
        "127.0.0.1:5",
        "127.0.0.2:7",
        "127.0.0.1:11",
        "127.0.0.1:12",
    ];
    assert_eq!(ports, expected);
    assert!(
        remarks.iter().any(|r| r.contains("no constants")),
        "{remarks:?}"
    );
}

#[test]
fn files_that_include_each_other_or_too_many_end() {
    let dir = tempfile::tempdir().unwrap();
    let (names, remarks) = nginx_in(dir.path(), "include nginx.conf; server { server_name a; }");
    assert_eq!(listener(&names, "10.0.0.1:80"), "a");
    assert!(
        remarks.first().unwrap().contains("includes itself"),
        "{remarks:?}"
    );
    // Each includes the next one twice.
    for n in 0..40 {
        let next = format!("include f{}; include f{};", n + 1, n + 1);
        fs::write(dir.path().join(format!("f{n}")), next).unwrap();
    }
    let (_, remarks) = nginx_in(dir.path(), "include f0;");
    assert!(remarks.iter().any(|r| r.contains("16 deep")), "{remarks:?}");
    fs::write(dir.path().join("bomb"), "include f1;".repeat(1_000)).unwrap();
    let (names, remarks) = nginx_in(
        dir.path(),
        "server { server_name a; } include bomb; server { server_name b; }",
    );
    assert!(
        remarks.iter().any(|r| r.contains("too often")),
        "{remarks:?}"
    );
    assert_eq!(listener(&names, "10.0.0.1:80"), "a,b", "all else is kept");
    let (_, remarks) = nginx_in(dir.path(), "include missing.conf;");
    assert!(remarks.first().unwrap().contains("missing.conf"));
}

#[test]
fn a_file_counts_once_however_often_it_is_included() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sites")).unwrap();
    fs::write(
        dir.path().join("common"),
        format!("# {}\nlisten 81;", "x".repeat(1 << 20)),
    )
    .unwrap();
    for n in 0..1_200 {
        let site = format!(
            "server {{ include common; server_name v{n}.test; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
            10_000 + n
        );
        fs::write(dir.path().join(format!("sites/v{n}")), site).unwrap();
    }
    let (names, remarks) = nginx_in(dir.path(), "http { include sites/*; }");
    assert_eq!((names.peers().count(), remarks), (1_200, BTreeSet::new()));
    assert!(listener(&names, "10.0.0.1:81").starts_with("v0.test,v1.test"));
}

#[test]
fn what_was_read_before_a_bound_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), vec![b' '; 41 << 20]).unwrap();
    let text = "server { server_name a; } include large; server { server_name b; }";
    let (names, remarks) = nginx_in(dir.path(), text);
    assert_eq!(listener(&names, "10.0.0.1:80"), "a,b");
    assert!(remarks.first().unwrap().contains("40 MiB"), "{remarks:?}");
    // An ingress controller's five, in one file.
    let ingress = format!("# {}\nserver {{ server_name a; }}", "x".repeat(5 << 20));
    assert_eq!(nginx_in(dir.path(), &ingress).1.len(), 0);
    let mut found = Found::default();
    for _ in 0..2 {
        found.listen("*", found::Family::Any, 1..=65_535, &Name::default());
        found.peer(
            found::Place::new("::1", found::Family::Any, 1),
            &Name::default(),
        );
    }
    assert_eq!((found.listeners.len(), found.peers.len()), (50_000, 0));
    assert!(found.remarks.first().unwrap().contains("50000"));
    let servers: String = (0..5_000).map(|n| format!("server h{n}:1;")).collect();
    let path = dir.path().join("nginx.conf");
    let mut found = nginx::parse(
        &format!("upstream a {{ {servers} }}"),
        &path,
        &mut sources(),
    );
    assert_eq!(found.hosts().len(), found::HOSTS_MAX);
    assert!(found.remarks.first().unwrap().contains("4096 host names"));
}

#[test]
fn what_is_too_large_or_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large");
    fs::File::create(&large).unwrap().set_len(41 << 20).unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for path in [
        large,
        pipe,
        "/dev/zero".into(),
        "/".into(),
        dir.path().join("none"),
    ] {
        let refused = read_in(&path, None);
        assert!(matches!(refused, Err(ReadError::Unreadable(_))), "{path:?}");
    }
}

#[test]
fn binary_files_and_huge_lines_are_read_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let binary: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
    for bytes in [
        binary,
        b"a".repeat(8 << 20),
        b"a ".repeat(2 << 20),
        b"a;".repeat(2 << 20),
        b"server_name a;".repeat(600_000),
        [&b"listen x\n"[..], &b"bind :1 ".repeat(1 << 20)].concat(),
        [&b"upstream a {"[..], &b"server [::1]:1;".repeat(600_000)].concat(),
    ] {
        let path = dir.path().join("hostile");
        fs::write(&path, bytes).unwrap();
        let read = read_in(&path, None);
        let few = read.is_ok_and(|found| found.peers.len() + found.listeners.len() > 1);
        assert!(!few);
    }
}

#[test]
fn many_names_of_one_address_are_cut_short() {
    let servers: String = (0..1_000)
        .map(|n| format!("server {{ listen 80; server_name host{n}.test; }}"))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let (names, _) = nginx_in(dir.path(), &servers);
    let name = listener(&names, "10.0.0.1:80");
    assert!(name.starts_with("host0.test,host1.test,"), "{name}");
    assert!(name.ends_with(",…") && name.len() < 210, "{name}");
}

#[test]
fn a_container_s_paths_begin_at_its_root() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/rootfs");
    for path in [
        dir.join("etc/nginx/nginx.conf"),
        "/etc/nginx/nginx.conf".into(),
    ] {
        let found = read_in(&path, Some(&dir)).unwrap();
        let names = found.resolve(known);
        assert_eq!(listener(&names, "10.0.0.1:25405"), "in-container.test");
        assert_eq!(peer(&names, "127.0.0.1:25404").1, "127.0.0.1:25404");
        assert_eq!(
            (names.len(), found.remarks.len()),
            (2, 0),
            "none of this host's"
        );
    }
}

proptest! {
    #[test]
    fn hostile_text_never_panics(text in "(backends:|  a:|    - \\{|id: x, host: h, port: [0-9]{1,6}|\\}|\n|[^a]){0,12}") {
        if let Ok(found) = yaml::parse(&text) {
            prop_assert!(found.peers.is_empty() || text.contains("backends"));
        }
    }

    #[test]
    fn hostile_configurations_never_panic(text in "(frontend|backend|global\n|setenv A|resetenv|\"\\$A|\\$\\{A-|listen|peers|ring|bind|server|server-template|upstream|server_name|set|map|default|\\$a|proxy_pass|http://|[0-9-]{1,6}|:|@|\\[|\\]|\\{|\\}|;|,| |\n|\\PC){0,30}") {
        let haproxy = haproxy::parse(&text).resolve(known);
        prop_assert!(haproxy.len() <= 2 * 65_536);
        let nginx = nginx::parse(&text, Path::new("/nonexistent/x"), &mut sources()).resolve(known);
        prop_assert!(nginx.is_empty() || text.contains("server") || text.contains("pass"));
    }
}

//! nginx says to which address it passes, and which server a request is of.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use monitor_common::endpoint::Role;
use proxy_config::Name;
use tempfile::TempDir;

use super::{Case, Running, TIMEOUT, called, eventually, free_port, kept, names, run};

pub(crate) const CASES: &[Case] = &[
    ("nginx_takes_the_configurations_of_the_tests", takes),
    ("nginx_passes_to_the_addresses_that_have_names", passes),
    (
        "nginx_calls_its_servers_as_their_listeners_are_called",
        servers,
    ),
];

/// An nginx with these directives in its `http` block.
struct Nginx {
    directory: TempDir,
    _running: Running,
}

impl Nginx {
    fn start(http: &str, port: u16) -> Self {
        let directory = TempDir::new().unwrap();
        let at = directory.path().display();
        let text = format!(
            "daemon off; user root; pid {at}/pid; error_log stderr crit;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n{http}\n}}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, text).unwrap();
        let running = Running::start("nginx", &["-c", file.to_str().unwrap()]);
        eventually("nginx listens", || TcpStream::connect(("127.0.0.1", port)));
        Self {
            directory,
            _running: running,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("nginx.conf")
    }
}

fn get(port: u16, host: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn takes() {
    let directory = TempDir::new().unwrap();
    let at = directory.path();
    fs::create_dir(at.join("sites")).unwrap();
    // nginx binds even where it only tests.
    let free = |mut text: String| {
        for port in ["18080", "18081", "18082", "25010", "25018"] {
            text = text.replace(port, &free_port().to_string());
        }
        text
    };
    fs::write(at.join("sites/a.conf"), free(kept("sites/a.conf"))).unwrap();
    for name in [
        "nginx.conf",
        "uri_variables.conf",
        "constant_variables.conf",
    ] {
        fs::write(at.join(name), free(kept(name))).unwrap();
        let (prefix, file) = (at.to_str().unwrap(), at.join(name));
        let log = "error_log stderr; pid pid;";
        let log = if name == "nginx.conf" { "" } else { log };
        let arguments = ["-t", "-p", prefix, "-c", file.to_str().unwrap(), "-g", log];
        let output = run("nginx", &arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
    }
}

/// Locations whose address is constant, and those in which it is the request's.
const LOCATIONS: [(&str, bool); 19] = [
    ("proxy_pass http://127.0.0.1:31$request_uri;", true),
    ("proxy_pass http://127.0.0.1:32$uri$is_args$args;", true),
    ("proxy_pass http://127.0.0.1:33$is_args$args;", true),
    ("proxy_pass http://127.0.0.1:34/x/$arg_a?$args;", true),
    (
        "set $a 127.0.0.1; set $p 35; proxy_pass http://$a:$p;",
        true,
    ),
    ("set $a 127.0.0.1:36; proxy_pass $scheme://${a}/y;", true),
    (
        "set $all http://127.0.0.1:37$request_uri; proxy_pass $all;",
        true,
    ),
    ("proxy_pass http://$only:38;", true),
    ("proxy_pass http://$same$request_uri;", true),
    ("proxy_pass http://GROUP$request_uri;", true),
    ("proxy_pass http://Group;", true),
    ("set $g gROUP; proxy_pass http://$g;", true),
    ("proxy_pass http://$outer:40;", true),
    (
        "set $late 127.0.0.1; break; set $late 127.0.0.2; proxy_pass http://$late:41;",
        true,
    ),
    ("proxy_pass 'http://127.0.0.1:42$uri;b{c}\"d';", true),
    (
        "set $to 127.0.0.1:44; if ($arg_a) { set $to 127.0.0.1:45; } proxy_pass http://$to;",
        false,
    ),
    ("proxy_pass http://$several;", false),
    ("proxy_pass http://$arg_to;", false),
    ("proxy_pass http://127.0.0.1:4$arg_digit;", false),
];

fn passes() {
    let locations = LOCATIONS.iter().enumerate().map(|(n, (directives, _))| {
        format!("location ~ \"^/l{n}(/[^{{}}]*)?\\?{{0,1}}$\" {{ {directives} }}\n")
    });
    let locations: String = locations.collect();
    let port = free_port();
    let http = format!(
        "upstream group {{ server 127.0.0.1:30; }}
         map $host $only {{ default 127.0.0.1; }}
         map $host $same {{ hostnames; default 127.0.0.1:39; a.test 127.0.0.1:39; }}
         map $host $several {{ default 127.0.0.1:46; a.test 127.0.0.1:47; }}
         server {{
           listen 127.0.0.1:{port}; set $outer 127.0.0.1;
           add_header X-To $upstream_addr always;
           {locations}
         }}"
    );
    let nginx = Nginx::start(&http, port);
    let names = names(&nginx.file());
    for (n, (directives, is_named)) in LOCATIONS.iter().enumerate() {
        let path = format!("/l{n}?a=&to=127.0.0.1:48&digit=9");
        let answer = get(port, "x", &path).unwrap();
        let header = answer.lines().find_map(|line| line.strip_prefix("X-To: "));
        let address = header.unwrap_or_else(|| panic!("{directives}: {answer}"));
        let address: SocketAddr = address.parse().unwrap();
        let name = called(&names, Role::Upstream, address);
        let is_group = directives.to_ascii_lowercase().contains("group");
        let (upstream, backend) = match (is_named, is_group) {
            (false, _) => (String::new(), String::new()),
            (true, true) => ("group".to_owned(), address.to_string()),
            (true, false) => (address.to_string(), address.to_string()),
        };
        assert_eq!(
            (name.upstream, name.backend),
            (upstream, backend),
            "{directives}"
        );
    }
}

fn servers() {
    let servers = [
        (
            r#"server_name "~^www\d{1}\.(?<part>a|b)\.test$";"#,
            "www7.a.test",
        ),
        (r"server_name ~^x\w+y\.test$;", "xzy.test"),
        ("server_name 'one.test' two.test;", "two.test"),
        (r#"server_name "~^q\.test$";"#, "q.test"),
    ];
    let servers = servers.map(|(name, host)| (name, host, free_port()));
    let blocks = servers.iter().map(|(name, _, port)| {
        format!("server {{ listen 127.0.0.1:{port}; {name} location / {{ return 200 \"$server_name\\n\"; }} }}\n")
    });
    let nginx = Nginx::start(&blocks.collect::<String>(), servers[0].2);
    let names = names(&nginx.file());
    for (directive, host, port) in &servers {
        let answer = get(*port, host, "/").unwrap();
        let own = answer.trim_end().lines().last().unwrap().to_owned();
        let listener: SocketAddr = ([127, 0, 0, 1], *port).into();
        let Name { name, .. } = called(&names, Role::Downstream, listener);
        // A listener has the names of all that answer there, nginx's first one first.
        assert_eq!(name.split(',').next(), Some(own.as_str()), "{directive}");
    }
}

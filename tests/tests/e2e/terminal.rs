//! `speedmimi-agent top` on a terminal: a real one, of which this test holds the
//! other end.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, fcntl_setfl, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use testkit::fixtures::{Binaries, Level};

use super::{
    Case,
    scene::{Scene, origin_on},
};

pub(crate) const CASES: &[Case] = &[(
    "top_shows_endpoints_and_sockets_and_leaves_the_terminal_as_it_was",
    top,
)];

const DEADLINE: Duration = Duration::from_secs(20);

/// A terminal, and what is on its screen.
struct Terminal {
    keyboard: File,
    /// Kept open, so that it outlives the program.
    device: OwnedFd,
    screen: vt100::Parser,
    program: Child,
}

impl Terminal {
    /// Runs a program on a terminal of its own.
    fn run(program: &Path, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let device = open(name, flags, Mode::empty()).unwrap();
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let stdio = || device.try_clone().unwrap();
        // In a session of its own the terminal is the program's, and tells it of
        // another size.
        let program = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program)
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let mut terminal = Self {
            keyboard: master.into(),
            device,
            screen: vt100::Parser::default(),
            program,
        };
        terminal.resize(24, 120);
        terminal
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        let [shown_rows, shown_columns] = [rows, columns].map(|n| NonZero::new(n).unwrap());
        self.screen.screen_mut().set_size(shown_rows, shown_columns);
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.device, size).unwrap();
    }

    /// Takes in what the program has written by now.
    fn look(&mut self) -> &vt100::Screen {
        let mut written = [0; 16 << 10];
        loop {
            match self.keyboard.read(&mut written) {
                Ok(len) => self.screen.process(&written[..len]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                    return self.screen.screen();
                }
            }
        }
    }

    /// Waits for a screen like this.
    #[track_caller]
    fn until(&mut self, what: &str, satisfied: impl Fn(&vt100::Screen) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !satisfied(self.look()) {
            let screen = self.screen.screen().contents();
            assert!(Instant::now() < deadline, "{what} is not in:\n{screen}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Whether keys come one by one, unseen.
    fn is_raw(&self) -> bool {
        let modes = tcgetattr(self.device.as_fd()).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }
}

/// Whether there is a line with all of these.
fn has_line(screen: &vt100::Screen, parts: &[&str]) -> bool {
    let contents = screen.contents();
    let mut lines = contents.lines();
    lines.any(|line| parts.iter().all(|part| line.contains(part)))
}

fn top() {
    let scene = Scene::watched_at(Level::Http);
    let origin = origin_on("127.0.0.1");
    let proxy = scene.proxy_to(origin.addresses()[0]);
    let listener = proxy.address().to_string();
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    let local = client.local_addr().unwrap().to_string();
    let request = format!("GET /bytes/100 HTTP/1.1\r\nHost: {listener}\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    client.read_exact(&mut [0; 100]).unwrap();

    let agent = Binaries::of_this_build().unwrap();
    let agent = agent.find("speedmimi-agent").unwrap();
    let pins = scene.agent.pins().to_str().unwrap().to_owned();
    let arguments = ["top", "--interval", "100ms", "--pin-dir", &pins];
    let mut terminal = Terminal::run(&agent, &arguments);
    terminal.until("the listener", |screen| {
        screen.alternate_screen() && has_line(screen, &["downstream", &listener])
    });
    assert!(terminal.is_raw());
    assert!(has_line(
        terminal.look(),
        &["SpeedMimi", "endpoints", "cpu"]
    ));
    assert!(has_line(terminal.look(), &["ENDPOINT", "REQ/s", "P99"]));

    terminal.press("\t");
    terminal.until("the client's connection", |screen| {
        has_line(screen, &["downstream", &listener, &local, "ESTABLISHED"])
    });
    terminal.press(" ");
    terminal.until("the pause", |screen| {
        has_line(screen, &["sockets", "paused"])
    });

    // The head and the keys stay, whatever room there is.
    terminal.resize(6, 60);
    terminal.until("the smaller screen", |screen| {
        let lines: Vec<String> = screen.rows(0, 60).collect();
        lines[0].starts_with("SpeedMimi")
            && lines[1..4].iter().any(|line| line.starts_with("ROLE"))
            && lines[5].starts_with("sort:")
    });

    terminal.press("q");
    assert!(terminal.program.wait().unwrap().success());
    assert!(!terminal.is_raw());
    let screen = terminal.look();
    assert!(!screen.alternate_screen() && !screen.hide_cursor());

    drop(client);
    proxy.stop().unwrap();
    drop(origin);
    scene.end();
}

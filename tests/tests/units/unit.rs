//! A unit, as systemctl and the kernel tell of it.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Duration};

use testkit::eventually;

/// How long an emulated machine may take, on one that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1_200);

pub(crate) const AGENT: Unit = Unit("speedmimi-agent.service");
pub(crate) const COLLECTOR: Unit = Unit("speedmimi-collector.service");
pub(crate) const PROXY: Unit = Unit("speedmimi-proxy.service");
pub(crate) const ALL: [Unit; 3] = [AGENT, COLLECTOR, PROXY];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit(pub(crate) &'static str);

impl Unit {
    /// `systemctl VERB UNIT`, which must succeed.
    #[track_caller]
    pub(crate) fn does(self, verb: &str) {
        let output = run("systemctl", &[verb, self.0]);
        output.unwrap_or_else(|said| panic!("systemctl {verb} {}: {said}\n{}", self.0, self.log()));
    }

    /// A property, as systemd tells it.
    pub(crate) fn property(self, name: &str) -> String {
        run(
            "systemctl",
            &["show", "--value", "--property", name, self.0],
        )
        .unwrap()
    }

    /// Waits until it is ready, as its program has told.
    #[track_caller]
    pub(crate) fn is_ready(self) {
        let ready = || (self.property("ActiveState") == "active").then_some(());
        let is_ready = testkit::try_eventually(PATIENCE, ready).is_some();
        let state = self.property("ActiveState");
        assert!(is_ready, "{} is {state}:\n{}", self.0, self.log());
    }

    pub(crate) fn log(self) -> String {
        run(
            "journalctl",
            &["--no-pager", "--output=cat", "--unit", self.0],
        )
        .unwrap()
    }

    /// Waits until its program has said this.
    #[track_caller]
    pub(crate) fn says(self, words: &str) {
        eventually(words, PATIENCE, || self.log().contains(words).then_some(()));
    }

    /// A file of its cgroup.
    pub(crate) fn cgroup(self, file: &str) -> String {
        let group = self.property("ControlGroup");
        let path = PathBuf::from(format!("/sys/fs/cgroup{group}")).join(file);
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// The lines of `/proc/PID/status` of its main process.
    pub(crate) fn status(self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.proc("status")).unwrap();
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        fields.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// A file of its main process.
    pub(crate) fn proc(self, file: &str) -> PathBuf {
        PathBuf::from("/proc")
            .join(self.property("MainPID"))
            .join(file)
    }
}

/// What a program prints; else what it says of its failure.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!(
            "{}: {}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        ))
    }
}

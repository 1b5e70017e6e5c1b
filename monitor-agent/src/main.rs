//! `speedmimi-agent`: parses, runs, and maps what happens to an exit code.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use anyhow::Context;
use bpf::{Kernel, KernelError, KernelLog, KernelOptions, doctor::Check};
use clap::FromArgMatches as _;
use daemon::{complain, error_chain, log::LogFormat, manual};
use delivery::token::MISSING;
use host_metrics::identity;
use kernel_sample::{Opened, Opener, Target};
use monitor_agent::{
    capabilities,
    cli::{
        self, Cli, Command, ConfigCommand, DoctorArgs, LevelArgs, Output, ProblemsArgs,
        SnapshotArgs, SocketArgs, TopArgs, UninstallArgs, command_line,
    },
    clock::monotonic_ns,
    config::{Config, ConfigError, RUN_DIR, checkpoint},
    control, doctor,
    judge::{self, ViewJudge},
    logging,
    names::NamesFiles,
    run::{self, RunError},
    sampler::SamplerError,
    target::{self, Roots, TargetError, TargetRequest},
    top::{self, Look, TopError},
    view::{self, View},
};
use monitor_proto::json;
use problems::{BadThreshold, Problems, Thresholds};
use serde::Serialize;
use serde_json::json;
use settings::{CommandLine, SettingsError, checked};
use spool::SpoolError;
use window::{TargetNames, socket_summary};

/// sysexits' `EX_USAGE`: bad usage or configuration.
const EXIT_USAGE: u8 = 64;
/// Of `problems`: nobody can tell.
const EXIT_TROUBLE: u8 = 2;

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().collect();
    // 1 says that there are some.
    let failure = match given.get(1) {
        Some(command) if command == "problems" => ExitCode::from(EXIT_TROUBLE),
        _ => ExitCode::FAILURE,
    };
    match execute(given) {
        Ok(code) => code,
        Err(error) => {
            if let Some(ConfigError::Settings(SettingsError::Usage(error))) = error.downcast_ref() {
                // Help and version come as errors, too, and are none.  Nothing is left to
                // be done where even the terminal is gone.
                error.print().ok();
                return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
            }
            let advice = if is_another_agent(&error) {
                ANOTHER_AGENT
            } else {
                ""
            };
            let text = error_chain(error.as_ref());
            complain("speedmimi-agent", format_args!("{text}{advice}"));
            if is_usage(&error) {
                ExitCode::from(EXIT_USAGE)
            } else {
                failure
            }
        }
    }
}

/// What to do where another agent runs.  One that watches several targets is
/// nearly always what is meant.
const ANOTHER_AGENT: &str = "; to watch more, add it to the configuration of that one: \
    --cgroup, --pid and --unit may be repeated; a second agent on a host needs its own --pin-dir, \
    --spool-dir, --control-socket and host id (/etc/machine-id), or the reports of both mix";

fn is_another_agent(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(RunError::Spool(error)) => matches!(error, SpoolError::Locked(_)),
        Some(RunError::Sampler(SamplerError::Source(error))) => {
            matches!(error.downcast_ref(), Some(KernelError::Busy { .. }))
        }
        _ => false,
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>()
        || error.is::<BadThreshold>()
        || error
            .downcast_ref::<TargetError>()
            .is_some_and(|error| !error.may_come())
        || matches!(error.downcast_ref(), Some(TopError::NoTerminal))
}

fn execute(given: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if given.get(1).is_some_and(|command| command == "run") {
        run(command_line(given))?;
        return Ok(ExitCode::SUCCESS);
    }
    let line = command_line(given);
    let matches = line.documented().try_get_matches_from(&line.given);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.map_err(|error| ConfigError::from(SettingsError::from(error)))?;
    match cli.command {
        // Its flags were read above: without any it is `run`, too.
        Command::Run(_) => run(line)?,
        Command::Config { command } => config(command, line)?,
        Command::Snapshot(args) => snapshot(&args)?,
        Command::Problems(args) => return show_problems(&args),
        Command::Top(args) => top(&args)?,
        Command::Doctor(args) => return doctor(&args),
        Command::Level(args) => level(&args)?,
        Command::Status(args) => {
            print(&ask(&args, "status")?)?;
        }
        Command::Uninstall(args) => uninstall(&args)?,
        Command::Completions { shell } => {
            let mut command = line.documented();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "speedmimi-agent", &mut script);
            write(&script)?;
        }
        Command::Man { dir: Some(dir), .. } => manual::write_all(line.documented(), &dir)
            .with_context(|| format!("writing manual pages to {}", dir.display()))?,
        Command::Man { command, .. } => {
            let mut page = Vec::new();
            manual::write(line.documented(), command.as_deref(), &mut page)?;
            write(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn config(command: ConfigCommand, line: CommandLine) -> anyhow::Result<()> {
    let text = match command {
        ConfigCommand::Check { file } => {
            let flag = file
                .iter()
                .flat_map(|file| ["--config".into(), file.into()]);
            let run = ["speedmimi-agent".into(), "run".into()];
            let given = run.into_iter().chain(flag).collect();
            let config = Config::load(command_line(given))?;
            if let Some(error) = config.missing_token() {
                complain("speedmimi-agent", format_args!("{error}; {MISSING}"));
            }
            checked(config.settings())
        }
        ConfigCommand::Example => cli::example(),
        ConfigCommand::Reference => settings::reference(&line.keys("run")),
        ConfigCommand::Show { output, .. } => {
            let config = Config::load(line)?;
            settings::shown(config.settings(), output == Output::Json)
        }
    };
    write(text.as_bytes())?;
    Ok(())
}

fn run(line: CommandLine) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the operating system refuses a runtime")?;
    // From here on a SIGHUP is a wish, however early it comes.
    let reload = {
        let _context = runtime.enter();
        run::hangups()?
    };
    let mut config = Config::load(line)?;
    logging::init(config.log_format, config.kernel_log);
    if let Some(error) = config.missing_token() {
        tracing::warn!(error, "{MISSING}");
    }
    let roots = Roots::detect()?;
    let resolved =
        target::resolve(&config.targets, &roots).inspect_err(|error| explain(error, &roots))?;
    config.check_names(&resolved, &roots)?;
    let targets = &resolved.targets;
    for foreign in target::foreign_listeners(targets, &roots) {
        tracing::warn!("{foreign}; {}", target::FOREIGN_ADVICE);
    }
    // Where it cannot be made, those who want to write there tell.
    std::fs::create_dir_all(RUN_DIR).ok();
    // May have to be mounted, which nothing later may.
    let is_new = !config.pin_dir.exists();
    bpf::make_pin_dir(&config.pin_dir)?;
    let _unused = is_new.then(|| EmptyDir(config.pin_dir.clone()));
    for label in bpf::unwatched(&config.pin_dir, targets) {
        tracing::warn!(
            "{label} is counted, and no agent watches it any more; unless one is to come back for \
             it, remove it with: {}",
            doctor::removal(&config.pin_dir, &[&label])
        );
    }
    let backends = run::backends_socket(&config)?;
    let kept = capabilities::keep(&config.needs(targets, &roots))
        .context("capabilities cannot be given up")?;
    tracing::info!(kept = kept.join(","), "gave up all other capabilities");
    let mut options = KernelOptions {
        log: config.kernel_log,
        client_prefixes: config.client_prefixes,
        ..KernelOptions::new(config.pin_dir.clone())
    };
    let followed = config.targets.is_followed().then(|| roots.clone());
    let open: Opener = Box::new(move |targets, level| {
        options.level = level;
        if let Some(roots) = &followed {
            forget_gone(&options.pin_dir, targets, roots);
        }
        let kernel = Kernel::open(&options, targets)?;
        let level = kernel.level();
        let source = Box::new(kernel);
        Ok(Opened { source, level })
    });
    runtime.block_on(async {
        let stop = run::signals()?;
        let signals = run::Signals { stop, reload };
        Ok(run::run(config, (resolved, roots), backends, signals, open).await?)
    })
}

/// Removes what was counted of cgroups that are gone: where targets are watched as they
/// come, nobody comes back for one.
fn forget_gone(pin_dir: &Path, watched: &[Target], roots: &Roots) {
    for label in bpf::unwatched(pin_dir, watched) {
        let is_gone = roots.of_labels(&[&label]).iter().all(|t| !t.path.exists());
        if is_gone && let Err(error) = bpf::uninstall_targets(pin_dir, &[label]) {
            tracing::warn!(
                error = error_chain(&error),
                "a target that is gone stays pinned"
            );
        }
    }
}

/// A directory that this start made, and that goes with it where nothing came into it.
struct EmptyDir(PathBuf);

impl Drop for EmptyDir {
    fn drop(&mut self) {
        let _not_empty = std::fs::remove_dir(&self.0);
    }
}

/// Without a target: what one could be.
fn explain(error: &TargetError, roots: &Roots) {
    if matches!(error, TargetError::Nothing) {
        list_candidates(roots);
    }
}

fn list_candidates(roots: &Roots) {
    let candidates = target::candidates(&roots.proc);
    if candidates.is_empty() {
        return;
    }
    eprintln!("cgroups with listeners:");
    for candidate in candidates {
        let listeners: Vec<_> = candidate
            .listeners
            .iter()
            .map(ToString::to_string)
            .collect();
        let processes: Vec<_> = candidate.processes.iter().map(String::as_str).collect();
        let flag = match candidate.cgroup.as_str() {
            "/" => "--whole-host".to_owned(),
            cgroup => format!("--cgroup {cgroup}"),
        };
        let (processes, listeners) = (processes.join(", "), listeners.join(" "));
        eprintln!("  {flag}  ({processes}: {listeners})");
    }
}

/// Rates are measured over this time.
const MEASURED: Duration = Duration::from_millis(200);

fn snapshot(args: &SnapshotArgs) -> anyhow::Result<()> {
    logging::init(LogFormat::Text, KernelLog::Off);
    let kernel = Kernel::open_pinned(&args.socket.pins.pin_dir)?;
    let mut view = View::new(identity::peek(), &kernel.targets());
    sleep(MEASURED);
    let names = names(&args.socket, &Arc::default());
    let report = view.look(kernel.read(), kernel.level(), &names);
    match args.output {
        Output::Json => print(&json::Report::from(&report))?,
        Output::Table => write(view::table(&report).as_bytes())?,
    };
    Ok(())
}

/// The running agent's names of now, or the last ones where none answers.
fn names(socket: &SocketArgs, last: &Arc<TargetNames>) -> Arc<TargetNames> {
    match control::ask_names(&socket.path()) {
        Ok(names) => names.into(),
        Err(error) => {
            tracing::debug!(error = error_chain(&error), "no names of the running agent");
            Arc::clone(last)
        }
    }
}

fn top(args: &TopArgs) -> anyhow::Result<()> {
    logging::init(LogFormat::Text, KernelLog::Off);
    let live = !args.once && args.output == Output::Table;
    if live && !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal.into());
    }
    let kernel = Kernel::open_pinned(&args.socket.pins.pin_dir)?;
    let mut view = View::new(identity::peek(), &kernel.targets());
    // Everything until now; from here on it is what came since.
    let mut called = names(&args.socket, &Arc::default());
    view.look(kernel.read(), kernel.level(), &called);
    if live {
        let look = || {
            called = names(&args.socket, &called);
            let sample = kernel.read();
            let now = monotonic_ns();
            let sockets = sample.sockets.iter();
            let sockets = sockets.map(|s| socket_summary(s, now)).collect();
            let report = view.look(sample, kernel.level(), &called);
            Look { report, sockets }
        };
        return Ok(top::run(args.interval, look)?);
    }
    loop {
        sleep(args.interval);
        called = names(&args.socket, &called);
        let report = view.look(kernel.read(), kernel.level(), &called);
        let reader = match args.output {
            Output::Json => print(&json::Report::from(&report))?,
            Output::Table => write(view::table(&report).as_bytes())?,
        };
        if args.once || reader == Reader::Gone {
            return Ok(());
        }
    }
}

/// Judges as many windows as a problem takes to show.
fn show_problems(args: &ProblemsArgs) -> anyhow::Result<ExitCode> {
    logging::init(LogFormat::Text, KernelLog::Off);
    let mut judge = ViewJudge::new(Thresholds::try_new(&args.threshold)?);
    let kernel = Kernel::open_pinned(&args.socket.pins.pin_dir)?;
    let mut view = View::new(identity::peek(), &kernel.targets());
    let mut called = names(&args.socket, &Arc::default());
    view.look(kernel.read(), kernel.level(), &called);
    let mut now = Problems::default();
    for _ in 0..problems::WINDOWS {
        sleep(args.interval);
        called = names(&args.socket, &called);
        now = judge.take(&view.look(kernel.read(), kernel.level(), &called));
    }
    match args.output {
        Output::Json => print(&now)?,
        Output::Table => write(judge::text(&now).as_bytes())?,
    };
    Ok(ExitCode::from(u8::from(now.total > 0)))
}

fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let request = TargetRequest {
        cgroups: args.cgroup.clone(),
        pids: args.pid.clone(),
        units: args.unit.clone(),
        containers: args.container.clone(),
        pods: args.pod.clone(),
        force: true,
        ..TargetRequest::default()
    };
    let mut checks = doctor::checks(&args.socket.pins.pin_dir, &request)?;
    let files = NamesFiles::new(&args.names_from, &args.names_root).map_err(ConfigError::from)?;
    checks.push(doctor::names(&files, &args.socket.path()));
    let failed = checks.iter().any(|c| c.required && !c.ok);
    match args.output {
        Output::Table => {
            write(doctor::table(&checks).as_bytes())?;
        }
        Output::Json => {
            let check = |c: &Check| {
                json!({
                    "name": c.name,
                    "ok": c.ok,
                    "required": c.required,
                    "detail": c.detail,
                    "advice": c.advice,
                })
            };
            let all: Vec<_> = checks.iter().map(check).collect();
            print(&json!({"ok": !failed, "checks": all}))?;
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn level(args: &LevelArgs) -> anyhow::Result<()> {
    let question = match args.level {
        None => "level".to_owned(),
        Some(level) => {
            let value = clap::ValueEnum::to_possible_value(&level);
            let name = value.context("a level without a name")?;
            format!("level {}", name.get_name())
        }
    };
    print(&ask(&args.socket, &question)?)?;
    Ok(())
}

fn ask(args: &SocketArgs, question: &str) -> anyhow::Result<serde_json::Value> {
    let answer = control::ask(&args.path(), question)?;
    match answer.get("error") {
        Some(error) => anyhow::bail!("the agent answers: {error}"),
        None => Ok(answer),
    }
}

fn uninstall(args: &UninstallArgs) -> anyhow::Result<()> {
    logging::init(LogFormat::Text, KernelLog::Off);
    let pin_dir = &args.pins.pin_dir;
    let removed = if args.cgroup.is_empty() {
        let removed = bpf::uninstall(pin_dir)?;
        // It is of these counters; where there is none, there is nothing to remove.
        let _none = std::fs::remove_file(checkpoint(pin_dir));
        removed
    } else {
        let roots = Roots::detect()?;
        let labels = args.cgroup.iter().map(|path| roots.label_of(path));
        bpf::uninstall_targets(pin_dir, &labels.collect::<Vec<_>>())?
    };
    print(&json!({"targets": removed.targets, "pins": removed.pins}))?;
    Ok(())
}

fn print(value: &impl Serialize) -> anyhow::Result<Reader> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    write(&line)
}

/// Whether anyone still reads stdout.
#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

/// Writes to stdout; a reader that has seen enough is no failure.
fn write(bytes: &[u8]) -> anyhow::Result<Reader> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error.into()),
    }
}

//! The proxy's binary: parses, runs, and maps errors to exit codes.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use daemon::log::{Line, start};
use proxy::backends_view;
use proxy::cli::{self, Cli, Command, Output, RunArgs};
use proxy::config::{Config, EXAMPLE};
use proxy::table::Table;
use proxy::{explain, serve};

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where it cannot be printed there is no one to tell.
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let mut out = std::io::stdout().lock();
    let done = match cli.command {
        Command::Run(args) => return run(&args),
        Command::Check { config } => return check(&config),
        Command::Explain { config, output } => return explain_running(&config, output),
        Command::ExampleConfig => out.write_all(EXAMPLE.as_bytes()),
        Command::Completions { shell } => {
            cli::completions(shell, &mut out);
            Ok(())
        }
        Command::Man { dir: Some(dir), .. } => clap_mangen::generate_to(Cli::command(), dir),
        Command::Man { command, .. } => cli::man(command.as_deref(), &mut out),
    };
    match done.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn check(path: &Path) -> ExitCode {
    match Config::load(path) {
        Ok(config) => {
            let text = explain::explain(&config);
            // Names and certificates are part of what has to be right.
            if let Err(error) = Table::build(config, None) {
                eprintln!("{}: {error}", path.display());
                return ExitCode::from(EXIT_USAGE);
            }
            match std::io::stdout().lock().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn explain_running(path: &Path, output: Output) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let text = match backends_view::ask(&config) {
        Ok(answer) if output == Output::Json => format!("{answer}\n"),
        Ok(answer) => backends_view::table(&answer),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(args: &RunArgs) -> ExitCode {
    start(args.log_format, Line::Short, &[]);
    match serve::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            if error.is_config() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

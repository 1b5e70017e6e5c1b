//! The `speedmimi` command line: reads a collector and shows what it has.
//!
//! Architecture invariant: nothing here knows more of a collector than its
//! HTTP API.

pub mod args;
mod client;
mod commands;
mod completion;
mod connection;
mod error;
mod output;
mod sse;
mod targets;
mod time;
mod top;

use std::{io, process::ExitCode};

use args::{Args, Command};
use clap::CommandFactory;
use client::Client;
use daemon::manual;
pub use error::CliError;
use output::Output;

/// sysexits.h: the command line cannot be used.
pub const EX_USAGE: u8 = 64;
/// Of `problems`: there are some, as `grep` and `diff` say it.
const EX_SOME: u8 = 1;
/// Of `problems`: nobody can tell.
const EX_TROUBLE: u8 = 2;

/// Runs one command and says how it ended.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let mut output = Output::stdout(args.color);
    let result = dispatch(args, &mut output).and_then(|code| {
        output.flush()?;
        Ok(code)
    });
    match result {
        // A reader such as `head` that has seen enough is no failure.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            daemon::complain("speedmimi", error.with_causes());
            ExitCode::from(match (error.exit_code(), &args.command) {
                (EX_SOME, Command::Problems(_)) => EX_TROUBLE,
                (code, _) => code,
            })
        }
        Ok(code) => code,
    }
}

fn dispatch(args: &Args, output: &mut Output) -> Result<ExitCode, CliError> {
    let done = match &args.command {
        Command::Problems(options) => {
            let client = Client::try_new(&options.common.connection)?;
            let some = commands::problems(&client, options, output)? > 0;
            return Ok(ExitCode::from(if some { EX_SOME } else { 0 }));
        }
        Command::Hosts(options) => commands::hosts(
            &Client::try_new(&options.connection)?,
            options.output,
            output,
        ),
        Command::Summary(options) => {
            let client = Client::try_new(&options.connection)?;
            if options.by == "client" {
                commands::clients(&client, options, output)
            } else {
                commands::summary(&client, options, output)
            }
        }
        Command::Reports(reports) => {
            let client = Client::try_new(&reports.common.connection)?;
            commands::reports(&client, reports, output)
        }
        Command::Stats { host, common } => {
            let client = Client::try_new(&common.connection)?;
            commands::stats(&client, host, common.output, output)
        }
        Command::Top { once, common } => {
            let client = Client::try_new(&common.connection)?;
            if *once {
                commands::top_once(&client, common.output, output)
            } else {
                top::run(client)
            }
        }
        Command::Export(export) => {
            let client = Client::try_new(&export.connection)?;
            commands::export(&client, export, output)
        }
        Command::Completions { shell } => completion::print(*shell, output),
        Command::CompleteHosts { line } => completion::print_hosts(line, output),
        Command::Man { dir: Some(dir), .. } => {
            manual::write_all(Args::command(), dir).map_err(CliError::Output)
        }
        Command::Man { command, .. } => {
            manual::write(Args::command(), command.as_deref(), output).map_err(CliError::Output)
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

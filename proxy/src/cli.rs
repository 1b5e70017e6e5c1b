//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use daemon::log::LogFormat;

/// A fast, correct HTTP/1.1 reverse proxy.
#[derive(Debug, Parser)]
#[command(name = "speedmimi-proxy", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  speedmimi-proxy example-config > proxy.yaml
  speedmimi-proxy check --config proxy.yaml
  speedmimi-proxy run --config proxy.yaml --workers 4
  speedmimi-proxy explain --config proxy.yaml
  kill -HUP $(pidof speedmimi-proxy)    # read the configuration again

Environment:
  SPEEDMIMI_TOKEN    the admin API's token, instead of --token-file";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until SIGTERM or SIGINT
    Run(RunArgs),
    /// Check a configuration and explain it
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show what a running proxy chooses backends by: cost, its inputs and their age
    Explain {
        /// The configuration file that the proxy runs with; its admin API is asked
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The format
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Print a configuration with every key and its meaning
    ExampleConfig,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page
    Man {
        /// Of this command; of speedmimi-proxy itself without it
        #[arg(value_name = "COMMAND", value_parser = command_name)]
        command: Option<String>,
        /// Writes the pages of all commands to this directory
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        dir: Option<PathBuf>,
    },
}

/// Formats of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// How to run.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Worker threads; one per core by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// The file with the admin API's token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The directory in which a token is made on the first start
    #[arg(long, value_name = "DIR", default_value = "/var/lib/speedmimi-proxy")]
    pub data_dir: PathBuf,
    /// The admin API's token itself
    #[arg(long, hide = true, env = "SPEEDMIMI_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The format of the log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Writes the completions for `shell`.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn Write) {
    clap_complete::generate(shell, &mut Cli::command(), "speedmimi-proxy", out);
}

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Cli::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("no such command: see --help")
}

/// Writes the manual page of a command, or of the program.
///
/// # Errors
/// The writer's error.
pub fn man(command: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let mut program = Cli::command();
    program.build();
    let page = command.and_then(|name| program.find_subcommand(name));
    clap_mangen::Man::new(page.unwrap_or(&program).clone()).render(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_and_completions_name_the_commands() {
        let mut page = Vec::new();
        man(None, &mut page).unwrap();
        man(Some("check"), &mut page).unwrap();
        completions(clap_complete::Shell::Bash, &mut page);
        let text = String::from_utf8(page).unwrap();
        assert!(
            text.contains("example\\-config") && text.contains("speedmimi-proxy"),
            "{text}"
        );
        assert!(text.contains(".TH speedmimi-proxy-check"), "{text}");
        assert!(Cli::try_parse_from(["speedmimi-proxy", "man", "nothing"]).is_err());
    }
}

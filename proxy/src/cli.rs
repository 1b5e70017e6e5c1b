//! The command line.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments are the help text, where backticks would show"
)]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use daemon::log::LogFormat;
use settings::{CommandLine, Overrides};

use crate::config::{self, ConfigError, Origin, PREFIX};

/// A fast, correct HTTP/1.1 reverse proxy.
#[derive(Debug, Parser)]
#[command(name = "speedmimi-proxy", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  speedmimi-proxy config example > proxy.yaml
  speedmimi-proxy config check proxy.yaml
  speedmimi-proxy run --config proxy.yaml --workers 4
  speedmimi-proxy explain --config proxy.yaml
  speedmimi-proxy run --config proxy.yaml --set server.port=8081
  kill -HUP $(pidof speedmimi-proxy)    # read the configuration again

Environment:
  SPEEDMIMI_TOKEN    the admin API's token, instead of --token-file";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until SIGTERM or SIGINT
    Run(Box<RunArgs>),
    /// Check, show and explain the configuration
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        /// What to do
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check a configuration and explain it: `config check`
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
    /// Print a configuration with every key and its meaning: `config example`
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

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration and the environment, and explain where requests go
    Check {
        /// The file [default: that of SPEEDMIMI_PROXY_CONFIG]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print a configuration with every key, its default and its meaning
    Example,
    /// Print the settings that count, and where each is from; secrets are left out
    Show {
        /// The settings
        #[command(flatten)]
        run: Box<RunArgs>,
        /// Form of the output
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Output,
    },
    /// Print the reference of all keys, as Markdown
    #[command(hide = true)]
    Reference,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

const CONFIG_EXAMPLES: &str = "\
Examples:
  speedmimi-proxy config example > proxy.yaml
  speedmimi-proxy config check proxy.yaml
  speedmimi-proxy config show --config proxy.yaml --set server.port=8081

A flag (--set KEY=VALUE for keys of the file) counts more than its environment variable
(SPEEDMIMI_PROXY_SERVER_PORT for server.port), that more than the file, and that more
than the default. An empty variable counts as absent; several values are separated by
commas in it.";

/// How to run.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// The configuration file, YAML, JSON or TOML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a key of the configuration, such as server.port=8081; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Worker threads, 1 to 1024 [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers)]
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
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl RunArgs {
    /// Where the configuration is, with what is put over it.
    ///
    /// # Errors
    /// Where no file is named.
    pub fn origin(&self) -> Result<Origin, ConfigError> {
        Ok(Origin {
            path: self.config.clone().ok_or(ConfigError::NoFile)?,
            overrides: overrides(self.set.clone()),
        })
    }
}

/// What counts more than the file: this, and the environment.
#[must_use]
pub fn overrides(set: Vec<String>) -> Overrides {
    let is_own = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with(PREFIX));
    Overrides {
        environment: std::env::vars_os()
            .filter(|(name, _)| is_own(name))
            .collect(),
        set,
    }
}

/// The command line as it was given.
#[must_use]
pub fn command_line(given: Vec<OsString>) -> CommandLine {
    CommandLine {
        command: Cli::command,
        prefix: PREFIX,
        together: &[],
        has_file: false,
        given,
    }
}

/// A configuration file with every key.
#[must_use]
pub fn example() -> String {
    settings::example(EXAMPLE_HEAD, config::keys(), settings::Format::Yaml)
}

const EXAMPLE_HEAD: &str = "\
The configuration of speedmimi-proxy: every key with its default, and one backend.
Everything but backends and routing may be left out. A flag (--set KEY=VALUE) or a
variable of the environment counts more than this file. `speedmimi-proxy config check
FILE` checks it; it is read again where it changes, and on a SIGHUP.";

/// The reference of the flags of `run` and of the keys of a file.
#[must_use]
pub fn reference() -> String {
    let flags = settings::reference(&command_line(Vec::new()).keys("run"));
    let keys = settings::reference(config::keys());
    format!("Flags of `run`:\n\n{flags}\nKeys of the file:\n\n{keys}")
}

fn workers(text: &str) -> Result<u16, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=1024).contains(number));
    number.ok_or_else(|| format!("`{text}`: write 1 to 1024"))
}

/// Writes the completions for `shell`.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn Write) {
    let mut command = command_line(Vec::new()).documented();
    clap_complete::generate(shell, &mut command, "speedmimi-proxy", out);
}

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Cli::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("no such command: see --help")
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
        daemon::manual::write(command_line(Vec::new()).documented(), None, &mut page).unwrap();
        daemon::manual::write(
            command_line(Vec::new()).documented(),
            Some("check"),
            &mut page,
        )
        .unwrap();
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

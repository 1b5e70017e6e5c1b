//! Completion by a shell: what the definition says, and the names of hosts as
//! a collector knows them at that moment.
//!
//! The scripts hand the command over as it stands and this program decides
//! whether a host belongs where it ends, so that no shell has to know our
//! options.  Whoever completes has not asked for anything yet: it takes a
//! second at the most, and what fails is silent.

mod line;

use std::{io::Write, time::Duration};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use monitor_proto::json;

use crate::{CliError, args::Args, client::Client, output::Output};

/// How long a shell waits for names.
const TIMEOUT: Duration = Duration::from_secs(1);
/// More than anyone reads through.
const NAMES_MAX: usize = 1000;

const BASH: &str = include_str!("hosts.bash");
const ZSH: &str = include_str!("hosts.zsh");
const FISH: &str = include_str!("hosts.fish");

/// Writes the completions of `shell`.
pub(crate) fn print(shell: Shell, out: &mut Output) -> Result<(), CliError> {
    out.write_all(script(shell).as_bytes())
        .map_err(CliError::Output)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), "speedmimi", &mut script);
    with_hosts(shell, &String::from_utf8_lossy(&script))
}

/// The definition without what is hidden: generators offer that as well.
fn shown() -> Command {
    let all = Args::command();
    let commands = all.get_subcommands().filter(|one| !one.is_hide_set());
    Command::new("speedmimi")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments())
        .subcommands(commands)
}

/// The script, and what asks for hosts; other shells complete without them.
fn with_hosts(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => format!("{script}\n{BASH}"),
        Shell::Fish => format!("{script}\n{FISH}"),
        // Its functions are defined when the script ends by calling one.
        Shell::Zsh => script
            .replacen(
                "#compdef speedmimi\n",
                &format!("#compdef speedmimi\n\n{ZSH}"),
                1,
            )
            .replace(":HOST:_default", ":HOST:_speedmimi_hosts")
            .replace(
                "Host id or name:_default",
                "Host id or name:_speedmimi_hosts",
            ),
        _ => script.to_owned(),
    }
}

/// Prints the hosts that the end of a line can be completed to, one a line.
pub(crate) fn print_hosts(typed: &str, out: &mut Output) -> Result<(), CliError> {
    let Some(wanted) = line::host_wanted(typed) else {
        return Ok(());
    };
    for name in names(&wanted).unwrap_or_default() {
        out.line(&name)?;
    }
    Ok(())
}

fn names(wanted: &line::Wanted) -> Result<Vec<String>, CliError> {
    let client = Client::within(&wanted.connection, TIMEOUT)?;
    let (_, hosts): (_, json::Hosts) = client.get("/api/v1/hosts", &[])?;
    let mut names: Vec<String> = hosts
        .hosts
        .into_iter()
        .filter_map(|host| {
            [host.host.name, host.host.id]
                .into_iter()
                .find(|name| is_plain(name))
        })
        .filter(|name| name.starts_with(&wanted.prefix))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(NAMES_MAX);
    Ok(names)
}

/// Whether a shell takes it for nothing but a word: names come from other
/// machines, and a shell that completes may expand them.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('-') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_offered() {
        for name in ["web-1", "10.0.0.1", "a_b", "ABC"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "-rf", "a b", "$(id)", "`id`", "a;b", "a\nb", "ü", "*"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn each_script_asks_where_a_host_belongs() {
        let zsh = script(Shell::Zsh);
        // The function, `problems`, `summary`, `reports`, `export` and `stats`.
        assert_eq!(zsh.matches("_speedmimi_hosts").count(), 6, "{zsh}");
        assert!(zsh.starts_with("#compdef speedmimi\n"));
        // Nor does it hand over what other commands on the line say.
        assert!(!zsh.contains("BUFFER"), "{zsh}");
        for shell in [Shell::Bash, Shell::Fish] {
            assert!(
                script(shell).contains("speedmimi complete-hosts"),
                "{shell}"
            );
        }
        let bash = script(Shell::Bash);
        assert_eq!(
            bash.matches("complete-hosts").count(),
            1,
            "it is not offered"
        );
        assert!(!script(Shell::Elvish).contains("complete-hosts"));
    }
}

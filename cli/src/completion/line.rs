//! A command line that is being typed.

use clap::{Command, CommandFactory as _, Parser as _};

use crate::args::{self, Args, Connection};

/// A host belongs where the line ends.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What is there of its name.
    pub(super) prefix: String,
    /// Which collector the line is about.
    pub(super) connection: Connection,
}

/// `None` where something else belongs there.
pub(super) fn host_wanted(typed: &str) -> Option<Wanted> {
    let mut words = words(typed);
    let last = words.pop()?;
    let definition = Args::command();
    let mut command = &definition;
    let mut operands = 0;
    let mut connection = vec!["speedmimi".to_owned(), "hosts".to_owned()];
    // What stands before on the line is about something else: assignments, a
    // `sudo`, other commands.  Under another name, it is the first word.
    let is_own = |word: &String| word.rsplit('/').next() == Some("speedmimi");
    let own = words.iter().rposition(is_own).unwrap_or(0);
    let mut words = words.into_iter().skip(own + 1);
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            match command.find_subcommand(&word) {
                Some(below) => command = below,
                None => operands += usize::from(!word.starts_with('-')),
            }
            continue;
        };
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None if takes_value(command, option) => match words.next() {
                // The option is the last word but one: its value is typed.
                None => return (option == "host").then(|| wanted(last, &connection))?,
                value => (option, value),
            },
            None => (option, None),
        };
        if let Some(value) = value.filter(|_| takes_value(connection_of(&definition), name)) {
            connection.push(format!("--{name}={value}"));
        }
    }
    if let Some(prefix) = last.strip_prefix("--host=") {
        return wanted(prefix.to_owned(), &connection).filter(|_| takes_value(command, "host"));
    }
    let operand = command.get_positionals().nth(operands);
    operand
        .filter(|operand| operand.get_id() == "host" && !last.starts_with('-'))
        .and_then(|_| wanted(last, &connection))
}

fn wanted(prefix: String, connection: &[String]) -> Option<Wanted> {
    let args = Args::try_parse_from(connection).ok()?;
    match args.command {
        args::Command::Hosts(common) => Some(Wanted {
            prefix,
            connection: common.connection,
        }),
        _ => None,
    }
}

/// `hosts` has the options of a connection, and few others.
fn connection_of(definition: &Command) -> &Command {
    definition.find_subcommand("hosts").unwrap_or(definition)
}

fn takes_value(command: &Command, option: &str) -> bool {
    let own = command.get_arguments();
    own.filter(|arg| arg.get_long() == Some(option))
        .any(|arg| arg.get_action().takes_values())
}

/// The words as a shell would take them, as far as quotes and backslashes go;
/// the last one is being typed, and empty after a space.
fn words(typed: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = typed.chars();
    while let Some(c) = chars.next() {
        let at = words.len() - 1;
        match (c, quote) {
            (c, Some(end)) if c == end => quote = None,
            ('\\', None | Some('"')) => words[at].extend(chars.next()),
            ('\'' | '"', None) => quote = Some(c),
            (' ' | '\t' | '\n', None) => {
                if !words[at].is_empty() {
                    words.push(String::new());
                }
            }
            (c, _) => words[at].push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(typed: &str) -> Option<String> {
        host_wanted(typed).map(|wanted| wanted.prefix)
    }

    #[test]
    fn a_host_belongs_after_host_and_stats() {
        for (typed, expected) in [
            ("speedmimi stats ", ""),
            ("speedmimi stats we", "we"),
            ("/usr/bin/speedmimi  --color never stats \"we", "we"),
            ("speedmimi reports --host ", ""),
            ("speedmimi reports --since 10m --host we", "we"),
            ("speedmimi export --format csv --host=we", "we"),
            ("speedmimi stats --output json w", "w"),
        ] {
            assert_eq!(prefix(typed).as_deref(), Some(expected), "{typed}");
        }
        for typed in [
            "",
            "speedmimi",
            "speedmimi sta",
            "speedmimi hosts ",
            "speedmimi hosts --host=",
            "speedmimi reports ",
            "speedmimi stats web ",
            "speedmimi stats --out",
            "speedmimi stats --output ",
            "speedmimi reports --host web --since ",
            "speedmimi completions ba",
        ] {
            assert_eq!(prefix(typed), None, "{typed}");
        }
    }

    #[test]
    fn the_command_may_stand_behind_others() {
        for typed in [
            "cd /x; speedmimi stats w",
            "A=1 speedmimi stats w",
            "sudo -u monitor /usr/bin/speedmimi stats w",
            "speedmimi hosts --output json; speedmimi reports --host w",
            "speedmimi stats web && speedmimi stats w",
            "mimi stats w",
        ] {
            assert_eq!(prefix(typed).as_deref(), Some("w"), "{typed}");
        }
        assert_eq!(prefix("cd /x; speedmimi hosts w"), None);
        let typed = "speedmimi stats --collector http://[::1]:1 web; speedmimi stats ";
        let connection = host_wanted(typed).unwrap().connection;
        assert_ne!(connection.collector, "http://[::1]:1");
    }

    #[test]
    fn the_lines_own_collector_is_asked() {
        let typed =
            "speedmimi stats --collector http://127.0.0.1:1 --token-file='a b' --output json ";
        let connection = host_wanted(typed).unwrap().connection;
        assert_eq!(connection.collector, "http://127.0.0.1:1");
        assert_eq!(connection.token_file.unwrap().to_str(), Some("a b"));
    }
}

//! Settings that are flags of a command: clap's definition of each is that of its
//! environment variable and of its key in a file, too.

use std::{
    any::TypeId,
    error::Error as _,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use serde_json::Value;

use crate::{
    Fault, Format, Key, Kind, Setting, SettingsError, Source,
    document::{Content, Node, read},
    show::text,
};

/// The flag that names the file.
const CONFIG: &str = "config";

/// The command line of a daemon, which can be read again: its file may have changed.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The definition of all commands.
    pub command: fn() -> Command,
    /// What its environment variables begin with.
    pub prefix: &'static str,
    /// Keys of which those that are given in one place are all that counts: lists of
    /// targets, say, of which two would be a surprise.
    pub together: &'static [&'static [&'static str]],
    /// Whether the file holds these keys; else it is left alone.
    pub has_file: bool,
    /// What was written.
    pub given: Vec<OsString>,
}

/// What a command line, its environment and its file come to.
#[derive(Debug)]
pub struct Loaded {
    /// As clap has it.
    pub matches: ArgMatches,
    /// What counts, and where it is from, in the order of the help.
    pub settings: Vec<Setting>,
    /// The file that was read, or is to be.
    pub file: Option<PathBuf>,
}

impl CommandLine {
    /// All commands; the help of settings names their environment variables.
    #[must_use]
    pub fn documented(&self) -> Command {
        documented((self.command)(), self.prefix)
    }

    /// The keys of a command's flags.
    #[must_use]
    pub fn keys(&self, command: &str) -> Vec<Key> {
        let all = (self.command)();
        let found = all.find_subcommand(command);
        found.map_or_else(Vec::new, |command| self.keys_of(command))
    }

    fn keys_of(&self, command: &Command) -> Vec<Key> {
        let of_settings = settings_of(command).filter(|arg| !arg.is_hide_set());
        of_settings.map(|arg| key(arg, self.prefix)).collect()
    }

    /// Reads the command line, the environment and the file that they name.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn load(&self) -> Result<Loaded, SettingsError> {
        self.load_in(&|name| std::env::var_os(name))
    }

    /// The same in an environment that is given.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn load_in(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Loaded, SettingsError> {
        let mut command = self.documented();
        let matches = command.try_get_matches_from_mut(&self.given)?;
        let (depth, inner, given) = innermost(&command, &matches);
        if !inner.get_arguments().any(|arg| arg.get_id() == CONFIG) {
            return Ok(Loaded {
                matches,
                settings: Vec::new(),
                file: None,
            });
        }
        let variable = |name: &str| {
            let name = variable(self.prefix, name);
            environment(&name).filter(|value| !value.is_empty())
        };
        let of_variable = || variable(CONFIG).map(PathBuf::from);
        let path = given
            .get_one::<PathBuf>(CONFIG)
            .cloned()
            .or_else(of_variable);
        let keys = self.keys_of(inner);
        let mut given: Vec<Given> = settings_of(inner)
            .filter(|arg| {
                given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
            })
            .map(|arg| Given::new(arg, Vec::new(), Source::Flag))
            .collect();
        let mut more = Vec::new();
        for arg in settings_of(inner) {
            let name = arg.get_long().unwrap_or_default();
            if let Some(value) = variable(name) {
                more.push(self.of_environment(inner, arg, &value)?);
            }
        }
        self.add(&mut given, more);
        if let Some(path) = path.as_deref().filter(|_| self.has_file) {
            self.add(&mut given, of_file(inner, &keys, path)?);
        }
        let mut line = self.given.clone();
        let injected = given.iter().flat_map(Given::flags);
        let mut injected: Vec<OsString> = injected.map(OsString::from).collect();
        if let (Some(path), None) = (&path, matches_of(&matches).get_one::<PathBuf>(CONFIG)) {
            injected.extend([format!("--{CONFIG}").into(), path.into()]);
        }
        let at = (1 + depth).min(line.len());
        line.splice(at..at, injected);
        let matches = self.documented().try_get_matches_from(line);
        let matches = matches.map_err(|error| apart(error, path.as_deref()))?;
        let settings = settings(inner, matches_of(&matches), &given);
        Ok(Loaded {
            matches,
            settings,
            file: path,
        })
    }

    fn of_environment(
        &self,
        command: &Command,
        arg: &Arg,
        value: &OsStr,
    ) -> Result<Given, SettingsError> {
        let key = key(arg, self.prefix);
        let variable = key.variable.clone().unwrap_or_default();
        let fault = |fault: Fault| SettingsError::Fault(fault.with_origin(&variable));
        let text = value
            .to_str()
            .ok_or_else(|| fault(Fault::of("", "is not UTF-8")))?;
        let value = key.kind.scalar(text).map_err(fault)?;
        let given = Given::new(arg, texts(&value), Source::Environment(variable.clone()));
        given
            .check(command)
            .map_err(|what| fault(Fault::of("", what)))?;
        Ok(given)
    }

    /// Adds what is not given yet, nor another key of its kind.
    fn add(&self, given: &mut Vec<Given>, more: Vec<Given>) {
        let is_given = |name: &str| given.iter().any(|one| one.name == name);
        let together = |name: &str| self.together.iter().find(|keys| keys.contains(&name));
        let is_new = |one: &Given| {
            let others =
                together(&one.name).is_some_and(|keys| keys.iter().any(|key| is_given(key)));
            !others && !is_given(&one.name)
        };
        let new: Vec<_> = more.into_iter().filter(is_new).collect();
        given.extend(new);
    }
}

/// What is given for a flag, and where.
struct Given {
    name: String,
    is_switch: bool,
    values: Vec<String>,
    source: Source,
}

impl Given {
    fn new(arg: &Arg, values: Vec<String>, source: Source) -> Self {
        Self {
            name: arg.get_long().unwrap_or_default().to_owned(),
            is_switch: matches!(arg.get_action(), ArgAction::SetTrue),
            values,
            source,
        }
    }

    /// As it would be written on the command line.
    fn flags(&self) -> impl Iterator<Item = String> {
        let name = &self.name;
        self.values.iter().filter_map(move |value| {
            if !self.is_switch {
                Some(format!("--{name}={value}"))
            } else if value == "true" {
                Some(format!("--{name}"))
            } else {
                None
            }
        })
    }

    /// What the flag's own parser says against a value.
    fn check(&self, command: &Command) -> Result<(), String> {
        let refused = self.flags().find_map(|flag| {
            let alone = command.clone().no_binary_name(true);
            let error = alone.try_get_matches_from([flag]).err()?;
            match error.kind() {
                ErrorKind::ValueValidation => error.source().map(ToString::to_string),
                ErrorKind::InvalidValue => Some("a value is missing".to_owned()),
                _ => None,
            }
        });
        refused.map_or(Ok(()), Err)
    }
}

fn of_file(command: &Command, keys: &[Key], path: &Path) -> Result<Vec<Given>, SettingsError> {
    let node = read(path, None)?;
    of_node(command, keys, &node, path).map_err(|fault| fault.in_file(path))
}

fn of_node(command: &Command, keys: &[Key], node: &Node, path: &Path) -> Result<Vec<Given>, Fault> {
    let values = Kind::Table(keys.to_vec()).value(node, "")?;
    let Content::Map(entries) = &node.content else {
        return Ok(Vec::new());
    };
    let mut given = Vec::new();
    for entry in entries {
        let arg = settings_of(command).find(|arg| arg.get_long() == Some(&entry.key));
        let (Some(arg), Some(value)) = (arg, values.get(&entry.key)) else {
            continue;
        };
        let source = Source::File {
            path: path.to_owned(),
            at: entry.at,
        };
        let one = Given::new(arg, texts(value), source);
        let fault = |what| Fault::at(entry.value.at, what).with_key(&entry.key);
        one.check(command).map_err(fault)?;
        given.push(one);
    }
    Ok(given)
}

fn settings(command: &Command, matches: &ArgMatches, given: &[Given]) -> Vec<Setting> {
    let of_arg = |arg: &Arg| {
        let name = arg.get_long().unwrap_or_default();
        let source = given.iter().find(|one| one.name == name);
        let raw = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        let raw = raw.map(|values| values.map(|value| value.to_string_lossy().into_owned()));
        Setting {
            key: name.to_owned(),
            values: raw.map(Iterator::collect).unwrap_or_default(),
            source: match (
                source,
                matches.value_source(arg.get_id().as_str()),
                arg.get_env(),
            ) {
                (Some(one), ..) => one.source.clone(),
                // One that is clap's own.
                (None, Some(ValueSource::EnvVariable), Some(name)) => {
                    Source::Environment(name.to_string_lossy().into_owned())
                }
                _ => Source::Default,
            },
            is_secret: arg.is_hide_env_values_set(),
        }
    };
    settings_of(command).map(of_arg).collect()
}

/// Flags that exclude each other, given elsewhere than on the command line.
fn apart(error: clap::Error, path: Option<&Path>) -> SettingsError {
    let name = |kind| match error.get(kind) {
        Some(ContextValue::String(flag)) => flag.split([' ', '=']).next().map(str::to_owned),
        _ => None,
    };
    let (one, other) = (name(ContextKind::InvalidArg), name(ContextKind::PriorArg));
    let (Some(one), Some(other), ErrorKind::ArgumentConflict) = (one, other, error.kind()) else {
        return error.into();
    };
    let (one, other) = (one.trim_start_matches('-'), other.trim_start_matches('-'));
    let fault = Fault::of(
        "",
        format!("{one} and {other} exclude each other: set one of them"),
    );
    match path {
        Some(path) => fault.in_file(path),
        None => SettingsError::Fault(fault),
    }
}

/// The command that is meant, how deep it is, and what it was given.
fn innermost<'c>(
    command: &'c Command,
    matches: &'c ArgMatches,
) -> (usize, &'c Command, &'c ArgMatches) {
    match matches.subcommand() {
        Some((name, within)) => match command.find_subcommand(name) {
            Some(found) => {
                let (depth, command, matches) = innermost(found, within);
                (depth + 1, command, matches)
            }
            None => (0, command, matches),
        },
        None => (0, command, matches),
    }
}

fn matches_of(matches: &ArgMatches) -> &ArgMatches {
    matches
        .subcommand()
        .map_or(matches, |(_, within)| matches_of(within))
}

/// The flags that are settings: not the file's own, nor one of the form of the output.
fn settings_of(command: &Command) -> impl Iterator<Item = &Arg> {
    const OTHERS: [&str; 5] = [CONFIG, "help", "version", "output", "set"];
    let args = command.get_arguments();
    args.filter(|arg| arg.get_long().is_some_and(|long| !OTHERS.contains(&long)))
}

fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}_{}", name.replace(['-', '.'], "_").to_uppercase())
}

fn key(arg: &Arg, prefix: &str) -> Key {
    let name = arg.get_long().unwrap_or_default().to_owned();
    let (kind, default) = (kind(arg), arg.get_default_values());
    let default: Vec<_> = default
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    let default = match (&kind, default.as_slice()) {
        (Kind::Switch, _) => Some(Value::Bool(false)),
        (Kind::List { .. }, _) => Some(Value::Array(Vec::new())),
        (_, []) => None,
        (_, [one, ..]) => Some(one.as_ref().into()),
    };
    let value = arg.get_value_names().and_then(|names| names.first());
    Key {
        alias: None,
        help: arg
            .get_long_help()
            .or(arg.get_help())
            .map(ToString::to_string)
            .unwrap_or_default(),
        default,
        example: value.map(|name| name.as_str().into()),
        is_required: false,
        is_secret: arg.is_hide_env_values_set(),
        flag: Some(
            value
                .filter(|_| !matches!(kind, Kind::Switch))
                .map_or_else(|| format!("--{name}"), |value| format!("--{name} {value}")),
        ),
        variable: Some(variable(prefix, &name)),
        kind,
        name,
    }
}

fn kind(arg: &Arg) -> Kind {
    let holds = |wanted: TypeId| arg.get_value_parser().type_id() == wanted;
    let choices = arg.get_possible_values();
    let one = if choices.is_empty() {
        if holds(TypeId::of::<Duration>()) {
            Kind::Duration
        } else if holds(TypeId::of::<u64>()) {
            Kind::Size
        } else if holds(TypeId::of::<u32>()) {
            Kind::Number {
                min: 1,
                max: u32::MAX.into(),
            }
        } else if holds(TypeId::of::<u16>()) {
            Kind::Number {
                min: 1,
                max: u16::MAX.into(),
            }
        } else {
            Kind::Text
        }
    } else {
        let choices = choices.iter().map(|choice| {
            let help = choice.get_help().map(ToString::to_string);
            (choice.get_name().to_owned(), help.unwrap_or_default())
        });
        Kind::Choice(choices.collect())
    };
    match arg.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        ArgAction::Append => Kind::List {
            of: Box::new(one),
            or_one: true,
        },
        _ => one,
    }
}

fn documented(mut command: Command, prefix: &str) -> Command {
    if command.get_arguments().any(|arg| arg.get_id() == CONFIG) {
        command = command.mut_args(|arg| {
            let name = arg
                .get_long()
                .filter(|name| !["help", "version", "output", "set"].contains(name));
            let Some(name) = name.filter(|_| !arg.is_hide_set()) else {
                return arg;
            };
            let name = variable(prefix, name);
            let added = |help: &clap::builder::StyledStr| format!("{help} [env: {name}]");
            let (help, long) = (arg.get_help().map(added), arg.get_long_help().map(added));
            let arg = match help {
                Some(help) => arg.help(help),
                None => arg,
            };
            match long {
                Some(long) => arg.long_help(long),
                None => arg,
            }
        });
    }
    let names: Vec<_> = command
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, |inner| documented(inner, prefix));
    }
    command
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// Parses a file's text as these keys would be: for fuzzing.
///
/// # Errors
/// Where it cannot be used.
pub fn check_text(
    line: &CommandLine,
    command: &str,
    text: &str,
    format: Format,
) -> Result<(), Fault> {
    let all = (line.command)();
    let Some(found) = all.find_subcommand(command) else {
        return Ok(());
    };
    let node = crate::parse(text, format)?;
    of_node(found, &line.keys_of(found), &node, Path::new("text")).map(drop)
}

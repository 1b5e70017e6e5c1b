//! The command line together with the configuration file that it names, read at
//! the start and again on SIGHUP.

use std::{collections::BTreeMap, ffi::OsString, fmt};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::{
    args::{Args, Command, RunArgs},
    config_file::{self, ConfigFileError},
};

/// Why the arguments cannot be used, or what they ask for beside a command.
#[derive(Debug)]
pub enum Unusable {
    /// Bad usage, help or the version.
    Usage(clap::Error),
    /// The configuration file.
    File(ConfigFileError),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::File(error) => f.write_str(&daemon::error_chain(error)),
        }
    }
}

/// The flags of `run`, each with what was given for it.
#[derive(Clone, Debug)]
pub struct Flags(BTreeMap<String, Vec<OsString>>);

impl Flags {
    fn of(run: &clap::Command, matches: &ArgMatches) -> Self {
        let flags = run.get_arguments().filter_map(|arg| {
            let values = matches.try_get_raw(arg.get_id().as_str()).ok()??;
            let values = values.map(ToOwned::to_owned).collect();
            Some((arg.get_long()?.to_owned(), values))
        });
        Self(flags.collect())
    }

    /// The flags that differ.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys());
        let mut names: Vec<String> = names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .cloned()
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The command in these arguments, and of `run` its flags: those of a
/// configuration file count less than those that were given.
///
/// # Errors
/// Where they cannot be used.
pub fn parse(given: &[OsString]) -> Result<(Args, Flags), Unusable> {
    let (args, flags) = matched(given.iter().cloned())?;
    let Command::Run(run) = &args.command else {
        return Ok((args, flags));
    };
    let Some(path) = &run.config else {
        return Ok((args, flags));
    };
    let of_file = config_file::flags(path).map_err(Unusable::File)?;
    // The first two are the program and `run`.
    let (program, rest) = given.split_at(2.min(given.len()));
    matched(program.iter().chain(&of_file).chain(rest).cloned())
}

/// The same of a running collector.
pub(crate) fn parse_run(given: &[OsString]) -> Result<(Box<RunArgs>, Flags), Unusable> {
    match parse(given)? {
        (
            Args {
                command: Command::Run(run),
            },
            flags,
        ) => Ok((run, flags)),
        _ => Err(Unusable::Usage(clap::Error::new(
            clap::error::ErrorKind::InvalidSubcommand,
        ))),
    }
}

fn matched(arguments: impl Iterator<Item = OsString>) -> Result<(Args, Flags), Unusable> {
    let mut command = Args::command();
    let matches = command
        .try_get_matches_from_mut(arguments)
        .map_err(Unusable::Usage)?;
    let args = Args::from_arg_matches(&matches).map_err(Unusable::Usage)?;
    let flags = command
        .find_subcommand("run")
        .zip(matches.subcommand_matches("run"))
        .map(|(run, matches)| Flags::of(run, matches));
    Ok((args, flags.unwrap_or(Flags(BTreeMap::new()))))
}

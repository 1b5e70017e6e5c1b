//! What a proxy's configuration calls its listeners and its backends.
//!
//! Only names and addresses are read from it: the proxy alone judges its own
//! file, and what is unknown here is left out.  nginx's and `HAProxy`'s
//! configuration and the YAML of our proxy are told apart by their first
//! statement.  Includes are followed below a [`Root`], a container's for instance,
//! with bounds on what is read.
//!
//! Architecture invariant: files are all that is looked at.  Host names are given
//! back as they are written ([`Found::hosts`]); who calls says what addresses they
//! have ([`Found::resolve`]).

#![warn(missing_docs, clippy::missing_errors_doc)]

mod form;
mod found;
mod glob;
mod haproxy;
mod names;
mod nginx;
mod root;
mod sources;
mod yaml;

use std::{io, path::Path};

pub use found::{Found, Places};
pub use names::{Name, Names};
pub use root::{Root, of_process};
pub use sources::{Sources, Stamps};

use form::Form;

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// The file is not a proxy's configuration: where and why.
    #[error("it is no configuration that names can be read of: {0}")]
    Syntax(String),
}

/// Reads a configuration, with what it includes.
///
/// # Errors
/// Where it cannot be read or understood.
pub fn read(path: &Path, sources: &mut Sources) -> Result<Found, ReadError> {
    let text = sources.read(path).map_err(ReadError::Unreadable)?;
    match Form::of(&text) {
        Form::Nginx => Ok(nginx::parse(&text, path, sources)),
        Form::HaProxy => Ok(haproxy::parse(&text)),
        Form::Yaml => yaml::parse(&text).map_err(ReadError::Syntax),
    }
}

#[cfg(test)]
mod tests;

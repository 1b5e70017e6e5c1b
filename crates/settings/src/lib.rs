//! A daemon's settings.  One definition of each key (clap's of a flag, or the JSON Schema
//! of a file's types) gives its flag, its environment variable, its key in a file, its
//! help and default, the example file and the reference.
//!
//! What is given counts in this order: flag, environment, file, default.
//!
//! Architecture invariant: nothing of what a setting is for.

mod document;
mod error;
mod flags;
mod key;
mod schema;
mod show;

pub use document::{Format, Node, Place, parse, read};
pub use error::{Fault, SettingsError};
pub use flags::{CommandLine, Loaded, check_text};
pub use key::{Key, Kind};
pub use schema::{Merged, Overrides, Schema};
pub use show::{Setting, Source, checked, example, reference, shown};

//! Errors as people read them.

use std::{
    fmt,
    io::{self, Write as _},
};

/// An error with all its causes on one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Errors that are transparent for their cause would repeat it.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Writes a line to stderr, after the program's name.  Where nobody reads it any more
/// nothing can be told, and nothing ends for that.
pub fn complain(program: &str, text: impl fmt::Display) {
    let written = writeln!(io::stderr(), "{program}: {text}");
    written.ok();
}

//! The files that an nginx configuration is made of, each read once.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::syntax::{self, Directive, Keep};
use crate::{found::Found, glob, sources::Sources};

/// How deeply files may include each other.
const INCLUDES_MAX: usize = 16;

/// How many words are kept of the directives that are looked at.
const WORDS_MAX: usize = 1_000_000;

pub(super) struct Files<'a> {
    /// Where included files are: beside the first one.
    dir: &'a Path,
    sources: &'a mut Sources,
    found: &'a mut Found,
    words_left: usize,
    /// What each holds; nothing yet where it is being read.
    read: HashMap<PathBuf, Option<Rc<[Directive]>>>,
}

/// The directives of a configuration whose first file is read already.
pub(super) fn read(
    text: &str,
    path: &Path,
    sources: &mut Sources,
    found: &mut Found,
) -> Rc<[Directive]> {
    let mut files = Files {
        dir: path.parent().unwrap_or(Path::new("")),
        sources,
        found,
        words_left: WORDS_MAX,
        read: HashMap::from([(path.to_owned(), None)]),
    };
    files.parse(text, path, 0)
}

impl Files<'_> {
    fn parse(&mut self, text: &str, path: &Path, depth: usize) -> Rc<[Directive]> {
        let keep = &mut Keep {
            wanted: &super::is_wanted,
            words_left: &mut self.words_left,
        };
        let mut parsed = syntax::parse(text, keep);
        if let Some(error) = parsed.error {
            let error = format!("{}, {error}", path.display());
            self.found.broken.get_or_insert(error);
        }
        self.include_all(&mut parsed.directives, depth);
        parsed.directives.into()
    }

    fn include_all(&mut self, directives: &mut [Directive], depth: usize) {
        for directive in directives {
            if let Some(block) = &mut directive.block {
                self.include_all(block, depth);
            } else if directive.name() == "include" {
                directive.included = self.include(directive.argument(), depth);
            }
        }
    }

    fn include(&mut self, pattern: &str, depth: usize) -> Vec<Rc<[Directive]>> {
        let pattern = self.dir.join(pattern);
        let paths = if glob::is_pattern(&pattern.to_string_lossy()) {
            self.sources.matching(&pattern)
        } else {
            vec![pattern]
        };
        let files = paths.into_iter().map(|path| self.file(path, depth + 1));
        files.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn file(&mut self, path: PathBuf, depth: usize) -> Option<Rc<[Directive]>> {
        match self.read.get(&path) {
            Some(Some(read)) => return Some(Rc::clone(read)),
            Some(None) => {
                self.found
                    .remark(format!("{} includes itself", path.display()));
                return None;
            }
            None if depth > INCLUDES_MAX => {
                self.found.remark(format!(
                    "files include each other more than {INCLUDES_MAX} deep: {} is not read",
                    path.display()
                ));
                return None;
            }
            None => {}
        }
        let text = match self.sources.read(&path) {
            Ok(text) => text,
            Err(error) => {
                self.unread(&path, &error);
                return None;
            }
        };
        self.read.insert(path.clone(), None);
        let directives = self.parse(&text, &path, depth);
        self.read.insert(path, Some(Rc::clone(&directives)));
        Some(directives)
    }

    /// A key or another file that this agent may not read does not take all names
    /// away, nor does too much of it.
    fn unread(&mut self, path: &Path, error: &io::Error) {
        self.found.remark(format!(
            "{}, which is included, is not read: {error}",
            path.display()
        ));
    }
}

//! Variables that have one value, whatever a request is: `set` with a constant, and
//! a `map` all of whose values are the same.
//!
//! Architecture invariant: pure.

use std::collections::HashMap;

use super::syntax::Directive;

/// How many variables one address is made of.
const STEPS_MAX: usize = 1_000;

/// The longest address that is looked at.
const BYTES_MAX: usize = 512;

/// Variables whose value begins with `/`, or with `?` where it is not empty: they
/// end an address.
const PATHS: [&str; 4] = ["request_uri", "uri", "document_uri", "is_args"];

/// What variables are set to; `None` where that is more than one value.
pub(super) type Sets<'d> = HashMap<&'d str, Option<&'d str>>;

/// The variables that a directive sees.
#[derive(Clone, Copy, Default)]
pub(super) struct Variables<'s, 'd> {
    /// Set in its location.
    pub(super) location: Option<&'s Sets<'d>>,
    /// Set in its server, before any location is.
    pub(super) server: Option<&'s Sets<'d>>,
    /// Set anywhere in its server: a request may have been in another location.
    pub(super) anywhere: Option<&'s Sets<'d>>,
    /// The maps'.
    pub(super) maps: Option<&'s Sets<'d>>,
}

/// Adds what one `set` directive sets.
pub(super) fn add<'d>(sets: &mut Sets<'d>, set: &'d Directive) {
    let [name, value] = set.arguments() else {
        return;
    };
    let Some(name) = name.strip_prefix('$') else {
        return;
    };
    let known = sets.entry(name).or_insert(Some(value));
    if *known != Some(value.as_str()) {
        *known = None;
    }
}

/// The value of a map, where it has a default and no other one.
pub(super) fn map_value<'d>(entries: &[&'d Directive]) -> Option<&'d str> {
    let default = entries.iter().find(|d| d.name() == "default")?.argument();
    let mut entries = entries.iter();
    let same = entries.all(|d| d.words.len() == 2 && d.argument() == default);
    same.then_some(default)
}

impl<'s, 'd> Variables<'s, 'd> {
    /// The beginning of a text, at least up to the end of the address in it; `None`
    /// where that depends on the request.
    pub(super) fn address(&self, text: &str) -> Option<String> {
        let mut address = String::new();
        self.extend(&mut address, text, &mut { STEPS_MAX })?;
        Some(address)
    }

    /// Whether the address has ended; nothing where it is not known.
    fn extend(&self, address: &mut String, text: &str, steps: &mut usize) -> Option<bool> {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            address.push_str(before);
            if address.len() > BYTES_MAX || has_ended(address) {
                return has_ended(address).then_some(true);
            }
            *steps = steps.checked_sub(1)?;
            let (name, after) = name(after)?;
            rest = after;
            if PATHS.contains(&name) {
                address.push('/');
                return Some(true);
            }
            if name == "scheme" && address.is_empty() {
                // One of two, and neither says more of the address.
                address.push_str("$scheme");
                continue;
            }
            let (value, seen) = self.value(name)?;
            if seen.extend(address, value, steps)? {
                return Some(true);
            }
        }
        address.push_str(rest);
        Some(false)
    }

    /// A variable's value, and what that may be made of.
    fn value(&self, name: &str) -> Option<(&'d str, Self)> {
        let get = |sets: Option<&Sets<'d>>| sets.and_then(|sets| sets.get(name).copied());
        if let Some(value) = get(self.location) {
            return Some((value?, *self));
        }
        let server = Self {
            location: None,
            ..*self
        };
        if let Some(anywhere) = get(self.anywhere) {
            get(self.server)?;
            return Some((anywhere?, server));
        }
        Some((get(self.maps)??, server))
    }
}

/// Whether a path follows the address already.
fn has_ended(address: &str) -> bool {
    let (_, rest) = address.split_once("://").unwrap_or(("", address));
    rest.contains(['/', '?'])
}

/// The name that follows a dollar sign, and what comes after it.
fn name(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    (!name.is_empty()).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::syntax::tests::whole, *};

    fn address(sets: &str, text: &str) -> Option<String> {
        let parsed = whole(sets);
        let mut own = Sets::new();
        for set in &parsed.directives {
            add(&mut own, set);
        }
        let variables = Variables {
            location: Some(&own),
            ..Variables::default()
        };
        variables.address(text)
    }

    #[test]
    fn an_address_is_known_where_its_variables_are() {
        let sets = "set $a 127.0.0.1; set $p 80; set $all http://$a:${p}0$request_uri;
            set $two 1; set $two 2; set $self $self; set $one 1; set $one 1;";
        for (text, expected) in [
            ("http://x:1/$y", Some("http://x:1/")),
            ("http://x:1$request_uri", Some("http://x:1/")),
            ("http://x:1$is_args$args", Some("http://x:1/")),
            ("http://x:1?$args", Some("http://x:1?")),
            ("http://$a:$p/$1", Some("http://127.0.0.1:80/")),
            ("http://$a:${p}1", Some("http://127.0.0.1:801")),
            ("$all", Some("http://127.0.0.1:800/")),
            ("$scheme://$a:$one", Some("$scheme://127.0.0.1:1")),
            ("http://x:8$two", None),
            ("http://x:8$1", None),
            ("http://$host", None),
            ("http://$self", None),
            ("http://x$", None),
        ] {
            assert_eq!(address(sets, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_server_s_value_holds_where_no_location_has_another_one() {
        let parsed = whole("set $a 1; set $b 1; set $b 2; set $d 4;");
        let [a, b1, b2, d] = &parsed.directives[..] else {
            panic!("four");
        };
        let (mut server, mut anywhere, mut maps) = (Sets::new(), Sets::new(), Sets::new());
        for set in [a, b1] {
            add(&mut server, set);
        }
        for set in [a, b1, b2, d] {
            add(&mut anywhere, set);
        }
        maps.insert("m", Some("$a"));
        maps.insert("a", Some("9"));
        let variables = Variables {
            location: None,
            server: Some(&server),
            anywhere: Some(&anywhere),
            maps: Some(&maps),
        };
        let known = |text| variables.address(text);
        assert_eq!(known("$a").as_deref(), Some("1"));
        assert_eq!(known("$m").as_deref(), Some("1"));
        assert_eq!((known("$b"), known("$d"), known("$e")), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_variables_end(sets in "(set \\$[ab] [$ab{}x/]{0,9};){0,6}", text in "[$ab{}x/:]{0,40}") {
            if let Some(address) = address(&sets, &text) {
                prop_assert!(address.len() <= 2 * BYTES_MAX);
            }
        }
    }
}

//! Who may write.

use crate::token::Token;

/// The token in an `authorization` header, if it has the form `Bearer TOKEN`
/// (RFC 6750; the scheme's case does not matter).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

/// Whether the header shows the token.
pub(crate) fn allowed(token: &Token, header: Option<&str>) -> bool {
    header
        .and_then(bearer)
        .is_some_and(|shown| token.matches(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_allowed() {
        let token = Token::try_new("0123456789abcdef", "a test").unwrap();
        assert!(allowed(&token, Some("Bearer 0123456789abcdef")));
        assert!(allowed(&token, Some("bearer 0123456789abcdef")));
        for header in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!allowed(&token, Some(header)), "{header:?}");
        }
        assert!(!allowed(&token, None));
    }
}

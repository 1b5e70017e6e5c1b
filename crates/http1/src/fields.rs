//! What each header field means to a proxy.

/// The fields that a proxy treats in its own way; all others pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Passed on unchanged.
    EndToEnd,
    /// Belongs to this connection alone, or was nominated by `Connection`.
    HopByHop,
    /// A request's field with a `_` in its name: gateways that pass fields on
    /// as variables (CGI and its successors) take it for the one with a `-`.
    Ambiguous,
    /// `Connection`.
    Connection,
    /// `Keep-Alive`: how long the sender keeps the connection.
    KeepAlive,
    /// `Upgrade`.
    Upgrade,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Expect`.
    Expect,
    /// `Accept`.
    Accept,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// Any other field whose name begins with `X-Forwarded-`: `-Port`, `-Prefix`,
    /// `-Server`, `-Ssl`, `-Scheme` and what frameworks will come to believe.
    ForwardedOther,
    /// `X-Real-IP`.
    RealIp,
    /// `Date`.
    Date,
    /// `Content-Type`.
    ContentType,
}

/// Classifies a field by its name. The length comes first, so that most
/// fields cost one comparison at most.
#[must_use]
pub fn classify(name: &str) -> Field {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is("te") => Field::HopByHop,
        4 if is("host") => Field::Host,
        4 if is("date") => Field::Date,
        6 if is("accept") => Field::Accept,
        6 if is("expect") => Field::Expect,
        7 if is("upgrade") => Field::Upgrade,
        9 if is("x-real-ip") => Field::RealIp,
        9 if is("forwarded") => Field::Forwarded,
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::KeepAlive,
        12 if is("content-type") => Field::ContentType,
        14 if is("content-length") => Field::ContentLength,
        14 if is("http2-settings") => Field::HopByHop,
        15 if is("x-forwarded-for") => Field::ForwardedFor,
        16 if is("proxy-connection") => Field::HopByHop,
        16 if is("x-forwarded-host") => Field::ForwardedHost,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        17 if is("x-forwarded-proto") => Field::ForwardedProto,
        length if length > FORWARDED.len() && is_forwarded(name) => Field::ForwardedOther,
        _ => Field::EndToEnd,
    }
}

const FORWARDED: &[u8] = b"x-forwarded-";

fn is_forwarded(name: &str) -> bool {
    let beginning = name.as_bytes().get(..FORWARDED.len());
    beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(FORWARDED))
}

/// The members of a comma-separated list, without the optional white space.
pub fn list_members(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// A `Content-Length` value: digits alone, no sign, no list.
#[must_use]
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |length, digit| {
        digit
            .is_ascii_digit()
            .then(|| length * 10 + u64::from(digit - b'0'))
    })
}

/// The seconds of the parameter `timeout` of a `Keep-Alive` value, as Apache
/// and Node send it: `timeout=5, max=100`.
#[must_use]
pub fn idle_seconds(value: &[u8]) -> Option<u64> {
    list_members(value).find_map(|member| {
        let (name, seconds) = member.split_at_checked(b"timeout=".len())?;
        name.eq_ignore_ascii_case(b"timeout=")
            .then(|| content_length(seconds))?
    })
}

/// Most fields that one message may nominate by `Connection`. Each costs a walk
/// over the head, so the product has to stay small.
const NOMINATED_MAX: usize = 32;

/// What a message says about its connection.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    nominated: usize,
}

impl ConnectionOptions {
    /// Reads one `Connection` value and marks the fields that it nominates.
    /// Fields that frame or route the message cannot be nominated away.
    /// Gives `None` when more are nominated than the bound allows.
    pub(crate) fn read(
        &mut self,
        value: &[u8],
        headers: &[httparse::Header<'_>],
        kinds: &mut [Field],
    ) -> Option<()> {
        for option in list_members(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.nominated += 1;
                if self.nominated > NOMINATED_MAX {
                    return None;
                }
                nominate(option, headers, kinds);
            }
        }
        Some(())
    }
}

fn nominate(option: &[u8], headers: &[httparse::Header<'_>], kinds: &mut [Field]) {
    for (header, kind) in headers.iter().zip(kinds) {
        let structural = matches!(
            kind,
            Field::Host | Field::ContentLength | Field::TransferEncoding
        );
        if !structural && header.name.as_bytes().eq_ignore_ascii_case(option) {
            *kind = Field::HopByHop;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_takes_digits_alone() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(
            content_length(b"1234567890123456789"),
            Some(1_234_567_890_123_456_789)
        );
        for bad in [
            "",
            "+1",
            "-1",
            "1,1",
            "1 1",
            "0x10",
            "12345678901234567890",
            " 1",
        ] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_time_that_a_connection_is_kept_is_read_where_it_is_given() {
        assert_eq!(idle_seconds(b"timeout=5"), Some(5));
        assert_eq!(idle_seconds(b"max=100, Timeout=15"), Some(15));
        assert_eq!(idle_seconds(b"timeout=0,max=1"), Some(0));
        for none in [
            "",
            "timeout",
            "timeout=",
            "timeout=5s",
            "timeout=-1",
            "xtimeout=5",
            "300",
        ] {
            assert_eq!(idle_seconds(none.as_bytes()), None, "{none:?}");
        }
    }

    #[test]
    fn names_are_classified_whatever_their_case() {
        assert_eq!(classify("TRANSFER-encoding"), Field::TransferEncoding);
        assert_eq!(classify("Host"), Field::Host);
        assert_eq!(classify("Hosts"), Field::EndToEnd);
    }

    #[test]
    fn list_members_skip_empty_ones() {
        let members: Vec<&[u8]> = list_members(b" close ,, Upgrade,").collect();
        assert_eq!(members, [b"close".as_slice(), b"Upgrade"]);
    }
}

//! Methods of requests.

/// How many methods are told apart.
pub const METHODS: usize = 10;

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// RFC 9110, section 9.3.1.
    Get = 0,
    /// RFC 9110, section 9.3.2.
    Head = 1,
    /// RFC 9110, section 9.3.3.
    Post = 2,
    /// RFC 9110, section 9.3.4.
    Put = 3,
    /// RFC 9110, section 9.3.5.
    Delete = 4,
    /// RFC 9110, section 9.3.6.
    Connect = 5,
    /// RFC 9110, section 9.3.7.
    Options = 6,
    /// RFC 9110, section 9.3.8.
    Trace = 7,
    /// RFC 5789.
    Patch = 8,
    /// Any other.
    Other = 9,
}

impl Method {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; METHODS] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
        Self::Other,
    ];

    /// Its name, as OpenTelemetry's `http.request.method` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }
}

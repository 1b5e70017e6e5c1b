//! Placeholder while the module is being written.
/// How many methods are told apart.
pub const METHODS: usize = 10;
/// How many status codes are told apart.
pub const CODES: usize = 66;

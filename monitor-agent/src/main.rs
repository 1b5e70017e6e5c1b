//! `speedmimi-agent`.
fn main() {}

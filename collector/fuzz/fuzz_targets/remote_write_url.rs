//! The URL of a receiver.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| collector::fuzzing::remote_write_url(text));

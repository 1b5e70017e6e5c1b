//! The parameters of a question over HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| collector::fuzzing::question(text));

//! Queries and objects: no input makes the encoder or the matcher panic, or the two disagree.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| parse_livequery::internal::fuzzing::query(text));

//! The session in any order of things: no input makes it break a promise.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| parse_livequery::internal::fuzzing::session(bytes));

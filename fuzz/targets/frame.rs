//! Frames of a server: no input makes the decoder panic or decode otherwise than serde_json.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| parse_livequery::internal::fuzzing::frame(text));

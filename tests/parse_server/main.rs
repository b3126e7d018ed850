//! What the library promises, tried on a real Parse Server 9.10 that the tests install and start themselves.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod access;
mod age;
mod differential;
mod doctor;
mod expressions;
mod generate;
mod harness;
mod js_sdk;
mod link;
mod live_set;
mod live_set_any;
mod live_set_apps;
mod live_set_versions;
mod matcher;
mod matrix;
#[cfg(feature = "tls")]
mod network;
mod objects;
#[path = "../it/support/program.rs"]
mod program;
mod queries;
mod recorder;
mod rest;
#[path = "../it/rest_table.rs"]
#[expect(unreachable_pub, reason = "`pub` is for the tests that it comes from")]
mod rest_table;
mod scaled_out;
mod sessions;
mod strain;
mod support;
mod transcript;
mod untyped;
mod untyped_live;
mod versions;
mod whole_program;

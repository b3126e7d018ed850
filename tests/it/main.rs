//! The tests of what the library promises, one file per group of promises, as one binary so that there is one link
//! step. They use the library as its users do: through its public API, over real sockets on loopback.
#![allow(
    unreachable_pub,
    reason = "nothing leaves a test binary; `pub` says what of the fault kit the tests may use"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for ordinary code"
)]

mod callbacks;
mod gap;
mod harness;
mod kit;
mod link;
mod subscriptions;
mod support;
#[cfg(unix)]
mod tail;

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
#![allow(
    clippy::redundant_clone,
    reason = "a test holds a handle of its own, so that what it looks at does not end early"
)]

mod age;
mod api;
mod awaited;
mod callbacks;
mod chaos;
#[cfg(unix)]
mod chat;
mod connecting;
mod decoding;
mod delivery;
mod dispatch;
mod errors;
#[cfg(unix)]
mod fork;
mod gap;
mod grammar;
mod harness;
mod hostile;
mod identity;
mod kit;
mod leaks;
mod link;
mod live_set;
mod live_set_any;
mod live_set_apps;
mod live_set_catch_up;
mod load;
mod manual;
mod pause;
mod proxies;
mod rest;
mod rest_calls;
mod rest_table;
mod servers;
mod sessions;
mod shutdown;
mod subscriptions;
mod support;
mod threads;
#[cfg(any(feature = "tls", feature = "webpki-roots"))]
mod tls;
#[cfg(unix)]
mod tool;
mod unheard;
mod unsubscribe;
mod update;
mod users;

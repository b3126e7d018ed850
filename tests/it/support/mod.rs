//! The fault kit: a LiveQuery server and a TCP proxy that do what the test says, at the moment the test says it, and
//! the tools to see what came of it. It knows the wire and the kernel, and nothing of the library under test, so that
//! a mistake of the library cannot hide in a mistake of the kit.
//!
//! Nothing here sleeps to wait for something: each wait is for a condition, and has a deadline after which it panics
//! with what it has seen. Everything that the kit starts ends when its handle is dropped.

#[cfg(any(feature = "tls", feature = "webpki-roots"))]
mod certificates;
mod parse;
mod port;
mod process;
#[cfg(unix)]
mod program;
mod proxy;
mod recorder;
mod server;
mod socket;
#[cfg(unix)]
mod terminal;
#[cfg(any(feature = "tls", feature = "webpki-roots"))]
mod tls;
mod tunnel;
pub mod wire;

use std::time::Duration;

#[cfg(any(feature = "tls", feature = "webpki-roots"))]
pub use certificates::Authority;
pub use parse::{object, schema_violation};
pub use port::Port;
pub use process::{
    in_own_process, in_own_process_with, open_files, resident_bytes, threads_named, wait_until,
    wait_until_within, watchdog,
};
#[cfg(unix)]
pub(crate) use program::{built, livequery};
pub use proxy::Proxy;
pub use recorder::{Recorder, Seen};
pub use server::{Conn, FullBacklog, Received, Server, Then};
pub use socket::Socket;
#[cfg(unix)]
pub use terminal::{Terminal, without_escapes};
#[cfg(any(feature = "tls", feature = "webpki-roots"))]
pub use tls::{Farewell, TlsServer};
pub use tunnel::ConnectProxy;

/// The deadline of a wait that succeeds on a machine that works. Long, since it is only ever reached by a failure.
pub const LONG: Duration = Duration::from_secs(60);

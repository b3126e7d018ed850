//! The LiveQuery protocol without any I/O: frames to and from text, and the state machine.
//!
//! Nothing in here knows sockets, threads or clocks. Inputs carry the time at which they came.

pub(crate) mod backoff;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod session;
pub(crate) mod spec;

use std::time::{Instant, SystemTime};

/// One moment on both clocks: deadlines use the monotonic one, and the time of day is reported to the
/// program.
///
/// The monotonic clock may stand still while the machine sleeps, whereas the time of day does not: that is
/// how sleep is noticed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) mono: Instant,
    pub(crate) wall: SystemTime,
}

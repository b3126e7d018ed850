//! The way from the I/O to the listeners.

pub(crate) mod dispatch;
pub(crate) mod emitter;
pub(crate) mod shared;

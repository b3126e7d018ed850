//! TLS between the WebSocket and its connection. Must not know of WebSocket and LiveQuery. No rustls type
//! leaves this folder, except as the cause of an error.
//!
//! Both versions have the same functions, so that the rest of the driver is the same with and without the
//! feature.

#[cfg(feature = "tls")]
mod platform;
#[cfg(feature = "_tls")]
mod with_rustls;
#[cfg(feature = "webpki-roots")]
pub(crate) use with_rustls::Trust;
#[cfg(feature = "_tls")]
pub(crate) use with_rustls::{Settings, Tls, explain};

#[cfg(not(feature = "_tls"))]
mod without;
#[cfg(not(feature = "_tls"))]
pub(crate) use without::{Settings, Tls, explain};

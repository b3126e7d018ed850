//! TLS between the WebSocket and its connection. It knows no WebSocket and no LiveQuery, and nothing of rustls leaves
//! this folder but the error that it is the cause of.
//!
//! Both versions have the same functions, so that the rest of the driver is one code with and without the feature.

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

//! A TLS configuration of one's own, **outside semantic versioning**: the type is that of [`rustls`], and a release
//! of this crate may take another version of it at any time. Most programs want
//! [`ClientBuilder::add_root_certificate`] or [`ClientBuilder::client_certificate`] instead.

use std::sync::Arc;

/// The version of rustls that this crate uses, so that a program need not guess it.
pub use rustls;

use crate::client::builder::ClientBuilder;

/// Uses this configuration for TLS, as it is: the certificates that it trusts, its provider, its protocols. Who
/// turns the verification of certificates off in it connects to anybody.
///
/// It takes the place of the certificates of the builder; to give both is an error of
/// [`build`](ClientBuilder::build).
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use parse_livequery::Client;
/// use parse_livequery::unstable_tls::{rustls, with_client_config};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
///     .with_protocol_versions(&[&rustls::version::TLS13])?
///     .with_root_certificates(rustls::RootCertStore::empty())
///     .with_no_client_auth();
/// let client = with_client_config(Client::builder("wss://example.com/parse", "app"), Arc::new(config)).build()?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
pub fn with_client_config(mut builder: ClientBuilder, config: Arc<rustls::ClientConfig>) -> ClientBuilder {
    builder.network.tls.config = Some(config);
    builder
}

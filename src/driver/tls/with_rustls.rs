//! TLS with rustls and the ring provider, which is always named explicitly: the default of the process, which
//! other crates of the program may set, has no effect here.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, ClientConnection, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use url::{Host, Url};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The builder's settings for TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// PEM files of certificates that are trusted in addition to those of the system.
    pub(crate) roots: Vec<Vec<u8>>,
    /// The PEM files of a certificate chain and its key.
    pub(crate) identity: Option<(Vec<u8>, Secret)>,
    pub(crate) trust: Trust,
    /// Replaces everything else.
    pub(crate) config: Option<Arc<ClientConfig>>,
    built: OnceLock<Arc<ClientConfig>>,
}

/// Whose list of authorities is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    /// That of the system, or Mozilla's if only that was compiled in.
    #[default]
    Default,
    #[cfg(feature = "webpki-roots")]
    Mozilla,
}

impl Settings {
    /// Whether there is anything to check, whatever the URL is.
    pub(crate) fn is_set(&self) -> bool {
        !self.roots.is_empty() || self.identity.is_some() || self.config.is_some()
    }

    /// Checks the settings. Reads the certificates of the system.
    pub(crate) fn check(&self) -> Result<()> {
        self.client_config().map(drop)
    }

    /// A TLS connection to the server of this URL, on which nothing was sent yet.
    pub(crate) fn connection(&self, url: &Url) -> Result<Tls> {
        let name = match url.host() {
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).map_err(|error| {
                let text = format!("`{name}` is not a name that a certificate can be for");
                Error::with_source(ErrorKind::Tls, text, error)
            })?,
            Some(Host::Ipv4(ip)) => ServerName::from(std::net::IpAddr::from(ip)),
            Some(Host::Ipv6(ip)) => ServerName::from(std::net::IpAddr::from(ip)),
            None => return Err(Error::new(ErrorKind::Tls, "the server has no name")),
        };
        ClientConnection::new(self.client_config()?, name)
            .map(|connection| Tls(Box::new(connection)))
            .map_err(|error| Error::with_source(ErrorKind::Tls, "TLS cannot be started", error))
    }

    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = &self.config {
            if !self.roots.is_empty() || self.identity.is_some() || self.trust != Trust::Default {
                return Err(invalid(
                    "the TLS configuration of `unstable_tls` replaces the certificates of the builder; put them into \
                     it, or leave it out",
                ));
            }
            return Ok(Arc::clone(config));
        }
        if let Some(built) = self.built.get() {
            return Ok(Arc::clone(built));
        }
        let config = self.build()?;
        Ok(Arc::clone(self.built.get_or_init(|| Arc::new(config))))
    }

    fn build(&self) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = Vec::new();
        for pem in &self.roots {
            roots.extend(certificates(pem, "add_root_certificate")?);
        }
        let verifier = self.verifier(roots, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::with_source(ErrorKind::Tls, "TLS cannot be set up", error))?
            // rustls calls every verifier dangerous that is not its own; this one does verify.
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain, "client_certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()).map_err(|error| {
                    let text = "`client_certificate` was given no private key in PEM (PKCS#8, SEC1 or PKCS#1), or one \
                                with a password";
                    Error::with_source(ErrorKind::InvalidSetting, text, error)
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let text = "the certificate and the key of `client_certificate` cannot be used together";
                    Error::with_source(ErrorKind::InvalidSetting, text, error)
                })?
            }
        };
        // What a browser offers for a WebSocket; servers that choose by it would use HTTP/2 otherwise.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(
        &self,
        extra: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>> {
        #[cfg(feature = "tls")]
        if self.trust == Trust::Default {
            return super::platform::verifier(extra, Arc::clone(provider)).map_err(|error| {
                let text = "the certificates that this system trusts cannot be used; install them (often a package \
                            called `ca-certificates`), add one with `add_root_certificate`, or build with the cargo \
                            feature `webpki-roots`";
                Error::with_source(ErrorKind::InvalidSetting, text, error)
            });
        }
        let mut store = RootCertStore::empty();
        #[cfg(feature = "webpki-roots")]
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for certificate in extra {
            store.add(certificate).map_err(|error| {
                let text = "a certificate of `add_root_certificate` is malformed";
                Error::with_source(ErrorKind::InvalidSetting, text, error)
            })?;
        }
        if store.is_empty() {
            return Err(invalid(
                "there is no certificate to trust in this build; turn on the cargo feature `tls` or `webpki-roots`, or \
                 add one with `add_root_certificate`",
            ));
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
            .build()
            .map(|verifier| verifier as _)
            .map_err(|error| Error::with_source(ErrorKind::Tls, "TLS cannot be set up", error))
    }
}

/// The certificates of a PEM file. At least one is required.
fn certificates(pem: &[u8], setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            let text = format!("`{setting}` was given malformed PEM");
            Error::with_source(ErrorKind::InvalidSetting, text, error)
        })?;
    if certificates.is_empty() {
        return Err(invalid(format!(
            "`{setting}` was given no certificate in PEM (`-----BEGIN CERTIFICATE-----`)"
        )));
    }
    Ok(certificates)
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSetting, text)
}

/// One TLS connection, over a non-blocking stream that is passed to each call.
#[derive(Debug)]
pub(crate) struct Tls(Box<ClientConnection>);

impl Tls {
    /// Continues the handshake as far as possible without waiting. Returns `true` if it is done.
    pub(crate) fn handshake(&mut self, stream: &mut (impl Read + Write)) -> io::Result<bool> {
        loop {
            match self.flush(stream) {
                Ok(()) => {}
                Err(error) if error.kind() == Io::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if !self.0.is_handshaking() {
                return Ok(true);
            }
            match self.receive(stream) {
                Ok(0) => return Err(Io::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == Io::WouldBlock => return Ok(false),
                Err(error) => {
                    // An alert that tells the server why. It does not matter whether it arrives.
                    let _ = self.flush(stream);
                    return Err(error);
                }
            }
        }
    }

    /// Reads received data.
    ///
    /// The end of the stream without a `close_notify` is not an error: a WebSocket has its own close frame
    /// and a length in each frame, so nothing can be cut off unnoticed.
    pub(crate) fn read(&mut self, stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == Io::WouldBlock => {}
                Err(error) if error.kind() == Io::UnexpectedEof => return Ok(0),
                other => return other,
            }
            // At the end of the stream, the reader reports in the next turn which kind of end it was.
            self.receive(stream)?;
        }
    }

    /// Encrypts and sends some bytes, and returns how many of them were accepted. Without any, it sends what
    /// is left of earlier ones and of TLS itself.
    ///
    /// rustls accepts nothing once its own buffer is full. The buffer is empty whenever bytes are passed
    /// here, so that never happens.
    pub(crate) fn write(&mut self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(stream)?;
        self.0.writer().write(bytes)
    }

    /// Whether anything is left to send, of TLS itself or of what was written.
    pub(crate) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Appends `close_notify`, after which nothing more may be written.
    pub(crate) fn end(&mut self) {
        self.0.send_close_notify();
    }

    fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.0.wants_write() {
            match self.0.write_tls(stream) {
                Ok(0) => return Err(Io::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let count = loop {
            match self.0.read_tls(stream) {
                Err(error) if error.kind() == Io::Interrupted => {}
                other => break other?,
            }
        };
        self.0
            .process_new_packets()
            .map_err(|error| io::Error::new(Io::InvalidData, error))?;
        Ok(count)
    }
}

/// Explains a failure and what to do about it, if TLS is the cause; returns the failure itself otherwise.
pub(crate) fn explain(server: &str, error: io::Error) -> Result<Error, io::Error> {
    let Some(cause) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return Err(error);
    };
    Ok(Error::with_source(
        ErrorKind::Tls,
        text(server, cause),
        cause.clone(),
    ))
}

fn text(server: &str, cause: &rustls::Error) -> String {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    match cause {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            // An authority with the same name but another key is a different authority.
            Certificate::UnknownIssuer | Certificate::BadSignature => format!(
                "the certificate of {server} is not signed by an authority that this client trusts; if it is \
                 your own, add the certificate of its authority with `add_root_certificate`, and check that \
                 the server sends the certificates in between"
            ),
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => format!(
                "the certificate of {server} is for another name; connect to a name that it is for, or renew it with \
                 this one"
            ),
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                format!(
                    "the certificate of {server} has expired; renew it, or correct the clock of this machine"
                )
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                format!("the certificate of {server} is not valid yet; correct the clock of this machine")
            }
            Certificate::Revoked => {
                format!("the certificate of {server} was revoked; the server needs another")
            }
            _ => format!("the certificate of {server} is not valid; the server needs another"),
        },
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => format!(
            "{server} accepts only clients with a certificate that it knows; give the client one with \
             `client_certificate`"
        ),
        rustls::Error::AlertReceived(Alert::UnrecognisedName) => {
            format!("{server} has no certificate for this name; check the name in the server URL")
        }
        rustls::Error::InvalidMessage(_) => {
            format!("{server} does not speak TLS on this port; use `ws` or `http`, or the port with TLS")
        }
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion) => {
            format!(
                "{server} and this client have no version of TLS or no cipher in common; the server needs TLS 1.2 or 1.3"
            )
        }
        _ => format!("TLS with {server} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{InvalidMessage, PeerIncompatible};

    #[test]
    fn error_table() {
        use rustls::Error::{AlertReceived, General, InvalidCertificate};
        let refused = "`client_certificate`";
        for (cause, words) in [
            (
                InvalidCertificate(CertificateError::UnknownIssuer),
                "`add_root_certificate`",
            ),
            (
                InvalidCertificate(CertificateError::BadSignature),
                "`add_root_certificate`",
            ),
            (
                InvalidCertificate(CertificateError::NotValidForName),
                "for another name; connect to a name",
            ),
            (
                InvalidCertificate(CertificateError::Expired),
                "has expired; renew it",
            ),
            (
                InvalidCertificate(CertificateError::NotValidYet),
                "not valid yet; correct the clock",
            ),
            (
                InvalidCertificate(CertificateError::Revoked),
                "was revoked; the server needs another",
            ),
            (
                InvalidCertificate(CertificateError::BadEncoding),
                "is not valid; the server needs another",
            ),
            (AlertReceived(AlertDescription::CertificateRequired), refused),
            (AlertReceived(AlertDescription::UnknownCA), refused),
            (
                AlertReceived(AlertDescription::UnrecognisedName),
                "check the name in the server URL",
            ),
            (
                AlertReceived(AlertDescription::HandshakeFailure),
                "needs TLS 1.2 or 1.3",
            ),
            (
                PeerIncompatible::NoCipherSuitesInCommon.into(),
                "needs TLS 1.2 or 1.3",
            ),
            (
                InvalidMessage::InvalidContentType.into(),
                "does not speak TLS on this port; use `ws`",
            ),
            (General("odd".to_owned()), "TLS with a.example:443 failed: "),
        ] {
            let error = io::Error::new(Io::InvalidData, cause.clone());
            let error = explain("a.example:443", error).expect("TLS is the reason");
            assert_eq!(error.kind(), ErrorKind::Tls);
            let text = error.to_string();
            assert!(text.contains("a.example:443") && text.contains(words), "{text}");
            assert!(text.ends_with(&cause.to_string()), "the cause comes last: {text}");
        }
        explain("a.example:443", Io::ConnectionReset.into()).expect_err("TLS has nothing to do with it");
    }
}

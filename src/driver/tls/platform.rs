//! The verifier of the system, with additional certificates if the system supports them. Must not know of
//! settings.

use std::sync::Arc;

use rustls::Error;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;

#[cfg(not(target_os = "android"))]
pub(super) fn verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let verifier = if extra.is_empty() {
        Verifier::new(provider)?
    } else {
        Verifier::new_with_extra_roots(extra, provider)?
    };
    Ok(Arc::new(verifier))
}

#[cfg(target_os = "android")]
pub(super) fn verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if !extra.is_empty() {
        return Err(Error::General(
            "Android's verifier does not accept a program's certificates: name them in the app's network \
             security configuration, or build with `webpki-roots` and call `ClientBuilder::webpki_roots`"
                .to_owned(),
        ));
    }
    Ok(Arc::new(android::Guarded(Verifier::new(provider)?)))
}

#[cfg(target_os = "android")]
mod android {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};
    use rustls_platform_verifier::Verifier;

    use crate::fence;

    /// Android verifies in Java. The app must first give the verifier access to it, or the verifier panics.
    #[derive(Debug)]
    pub(super) struct Guarded(pub(super) Verifier);

    impl ServerCertVerifier for Guarded {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            server_name: &ServerName<'_>,
            ocsp_response: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            let verify = || {
                self.0
                    .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            };
            fence::run(verify).unwrap_or_else(|text| {
                Err(Error::General(format!(
                    "Android's verifier cannot be used ({text}): call \
                     `rustls_platform_verifier::android::init_with_env` of the crate rustls-platform-verifier 0.7 \
                     before the first connection, or build with `webpki-roots` and call `ClientBuilder::webpki_roots`"
                )))
            })
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }
}

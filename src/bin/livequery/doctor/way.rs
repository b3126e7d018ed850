//! The steps to the server up to TLS: its name, its addresses, TCP, its certificate. It knows
//! nothing about WebSockets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError,
    SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use url::{Host, Url};

use super::report::{Finding, Step};

/// Looks the name up.
pub(super) fn name(url: &Url, tell: &mut dyn FnMut(Finding)) -> Step<Vec<SocketAddr>> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let literal = match url.host() {
        Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    if let Some(ip) = literal {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (answered, answer) = mpsc::channel();
    let asked = host.clone();
    // The system may take minutes to resolve a name, and the look-up cannot be stopped.
    thread::spawn(move || {
        let found = (asked.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        // If it fails, the checks no longer wait.
        let _ = answered.send(found);
    });
    let cure =
        "Check the spelling of the name, and whether this machine can look up names at all (DNS, VPN).";
    match answer.recv_timeout(PATIENCE) {
        Ok(Ok(found)) if !found.is_empty() => {
            let addresses = found
                .iter()
                .map(|address| address.ip().to_string())
                .collect::<Vec<_>>();
            tell(Finding::good(
                "name",
                format!("{host} is {}", addresses.join(", ")),
            ));
            Ok(found)
        }
        Ok(Ok(_)) => Err(Finding::fault(
            "name",
            "name",
            format!("{host} has no address."),
            cure,
        )),
        Ok(Err(error)) => Err(Finding::fault(
            "name",
            "name",
            format!("{host} cannot be looked up: {error}."),
            cure,
        )),
        Err(_) => {
            let text = format!("{host} was not looked up within {} s.", PATIENCE.as_secs());
            Err(Finding::fault("name", "name", text, cure))
        }
    }
}

/// Connects to all addresses, and continues with the first that answers.
pub(super) fn tcp(addresses: &[SocketAddr], tell: &mut dyn FnMut(Finding)) -> Step<SocketAddr> {
    let mut silent = Vec::new();
    let mut answers = None;
    for address in addresses.iter().take(MOST_ADDRESSES) {
        let start = Instant::now();
        match TcpStream::connect_timeout(address, TCP_PATIENCE) {
            Ok(_) => answers = answers.or_else(|| Some((*address, start.elapsed()))),
            Err(error) => silent.push((*address, error)),
        }
    }
    let failures = || {
        let failures = silent
            .iter()
            .map(|(address, error)| format!("{address} ({error})"));
        failures.collect::<Vec<_>>().join(", ")
    };
    if let Some((address, time)) = answers {
        let mut text = format!("{address} answers in {:.0?}", time);
        if !silent.is_empty() {
            text = format!(
                "{text}; these do not answer, so connecting may take longer: {}",
                failures()
            );
        }
        tell(Finding::good("TCP", text));
        return Ok(address);
    }
    let is_refused = silent
        .iter()
        .any(|(_, error)| error.kind() == io::ErrorKind::ConnectionRefused);
    Err(if is_refused {
        Finding::fault(
            "TCP",
            "tcp-refused",
            format!("No server listens there: {}.", failures()),
            "Check that the server runs, the port in the URL (Parse Server's own is 1337, that of `wss` 443), and \
             that the server listens on this address and not only on 127.0.0.1.",
        )
    } else {
        Finding::fault(
            "TCP",
            "tcp-silent",
            format!("No connection could be made: {}.", failures()),
            "The usual causes are a firewall, a security group or a missing VPN: check that this machine may reach \
             the port. If there is a proxy, name it with --proxy or HTTPS_PROXY.",
        )
    })
}

/// Whether a server that was contacted without TLS speaks it.
pub(super) fn speaks_tls(address: SocketAddr, url: &Url) -> bool {
    let Ok(handshake) = shake_hands(address, url, None) else {
        return false;
    };
    !matches!(handshake.result, Err(Broken::NoTls(_)))
}

/// Checks the certificate as the connection will.
pub(super) fn tls(
    address: SocketAddr,
    url: &Url,
    ca: Option<&[u8]>,
    tell: &mut dyn FnMut(Finding),
) -> Step<()> {
    let server = url.host_str().unwrap_or_default();
    let fault = |name, text: String, cure: &str| Err(Finding::fault("TLS", name, text, cure));
    let handshake = match shake_hands(address, url, ca) {
        Ok(handshake) => handshake,
        Err(problem) => {
            return fault(
                "tls-setup",
                format!("TLS cannot be set up on this machine: {problem}."),
                "Install the certificates that this system trusts (often a package called `ca-certificates`), or \
                 check the file of --ca.",
            );
        }
    };
    let error = match handshake.result {
        Ok(version) => {
            let chain = match handshake.chain {
                1 => "its certificate is".to_owned(),
                count => format!("its chain of {count} certificates is"),
            };
            let days = match handshake.days_left {
                Some(days) => format!("for {days} more days"),
                None => "for more than two years".to_owned(),
            };
            tell(Finding::good(
                "TLS",
                format!("{server} speaks {version}; {chain} valid for this name {days}"),
            ));
            return Ok(());
        }
        Err(Broken::NoTls(error)) => {
            return fault(
                "tls-none",
                format!(
                    "The port {} of {server} does not speak TLS: {error}.",
                    address.port()
                ),
                "Use `ws://` instead of `wss://`, or the port on which the server, or the proxy before it, speaks \
                 TLS.",
            );
        }
        Err(Broken::Tls(error)) => error,
    };
    match &error {
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            fault(
                "tls-expired",
                format!("The certificate of {server} has expired, or one of its issuers' certificates."),
                "Renew it on the server, and restart the program that serves it. If it was renewed long ago, the \
             clock of this machine is wrong.",
            )
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => fault(
            "tls-not-yet",
            format!("The certificate of {server} is not valid yet."),
            "Correct the clock of this machine.",
        ),
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => fault(
            "tls-name",
            format!("The certificate is not for {server}: {error}."),
            "Connect to one of the names in the certificate, or get a certificate for this name.",
        ),
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            fault(
                "tls-untrusted",
                format!(
                    "The certificate of {server} is not signed by an authority that this machine trusts."
                ),
                "If the authority is your own, name its certificate with --ca FILE. If not, the server omits the \
             intermediate certificates: let it send the whole chain (`fullchain.pem`).",
            )
        }
        _ => fault(
            "tls",
            format!("The TLS handshake with {server} failed: {error}."),
            "Check the program that serves TLS there: which versions it speaks, which certificate it has for this \
             name, and whether it requires one from the client.",
        ),
    }
}

/// The result of a handshake.
struct Handshake {
    result: Result<&'static str, Broken>,
    /// How many certificates the server sent.
    chain: usize,
    /// How long all of them stay valid, if it is not long.
    days_left: Option<u64>,
}

enum Broken {
    Tls(TlsError),
    NoTls(io::Error),
}

fn shake_hands(address: SocketAddr, url: &Url, ca: Option<&[u8]>) -> Result<Handshake, String> {
    let told = |error: TlsError| error.to_string();
    let name = match url.host() {
        Some(Host::Domain(name)) => {
            ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?
        }
        Some(Host::Ipv4(ip)) => ServerName::from(IpAddr::from(ip)),
        Some(Host::Ipv6(ip)) => ServerName::from(IpAddr::from(ip)),
        None => return Err("the URL has no host name".to_owned()),
    };
    let provider = Arc::new(ring::default_provider());
    let roots = ca.map_or_else(
        || Ok(Vec::new()),
        |pem| CertificateDer::pem_slice_iter(pem).collect(),
    );
    let roots = roots.map_err(|error| error.to_string())?;
    let inner = Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(told)?;
    let witness = Arc::new(Witness {
        inner,
        seen: Mutex::new(None),
    });
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(told)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as _)
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(told)?;
    let result = TcpStream::connect_timeout(&address, TCP_PATIENCE)
        .and_then(|mut socket| {
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            Ok(())
        })
        .map_err(
            |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
                // A server without TLS looks like this.
                Some(TlsError::InvalidMessage(_)) | None => Broken::NoTls(error),
                Some(tls) => Broken::Tls(tls.clone()),
            },
        )
        .map(|()| match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        });
    let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (chain, days_left) = seen.unwrap_or((0, None));
    Ok(Handshake {
        result,
        chain,
        days_left,
    })
}

/// The verifier of the system, which records the certificates that it was shown.
#[derive(Debug)]
struct Witness {
    inner: Verifier,
    seen: Mutex<Option<(usize, Option<u64>)>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        // The chain is valid as long as it is accepted, whichever of its certificates expires first.
        let is_valid_in = |days: u64| {
            let then = SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
            let then = then
                .duration_since(SystemTime::UNIX_EPOCH)
                .map(UnixTime::since_unix_epoch);
            then.is_ok_and(|then| {
                self.inner
                    .verify_server_cert(end_entity, intermediates, server_name, ocsp, then)
                    .is_ok()
            })
        };
        let (mut valid, mut invalid) = (0, LONGEST);
        let days_left = if is_valid_in(LONGEST) {
            None
        } else {
            while invalid - valid > 1 {
                let middle = u64::midpoint(valid, invalid);
                if is_valid_in(middle) {
                    valid = middle;
                } else {
                    invalid = middle;
                }
            }
            Some(valid)
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((1 + intermediates.len(), days_left));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
const TCP_PATIENCE: Duration = Duration::from_secs(4);
const MOST_ADDRESSES: usize = 6;
/// In days. A longer time is not reported.
const LONGEST: u64 = 730;

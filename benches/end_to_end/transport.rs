//! A connection with or without TLS, of a server or of a client that does without this library.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// The address of the server, which its certificate is for.
pub(crate) const HOST: &str = "127.0.0.1";

pub(crate) enum Transport {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Transport {
    /// A connection to the server, with TLS if its certificate is given.
    pub(crate) fn connect(port: u16, certificate: Option<&str>) -> Self {
        let stream = TcpStream::connect((HOST, port)).expect("the server listens");
        let _ = stream.set_nodelay(true);
        let Some(pem) = certificate else {
            return Self::Plain(stream);
        };
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is a certificate");
        roots.add(certificate).expect("it is a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the defaults of rustls")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(HOST).expect("it is an address");
        let connection = ClientConnection::new(Arc::new(config), name).expect("the configuration is right");
        Self::Client(Box::new(StreamOwned::new(connection, stream)))
    }

    /// A connection that a client has made, with TLS if there is a configuration for it.
    pub(crate) fn accepted(stream: TcpStream, config: Option<&Arc<ServerConfig>>) -> Self {
        let _ = stream.set_nodelay(true);
        match config {
            None => Self::Plain(stream),
            Some(config) => {
                let connection =
                    ServerConnection::new(Arc::clone(config)).expect("the configuration is right");
                Self::Server(Box::new(StreamOwned::new(connection, stream)))
            }
        }
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Client(stream) => &stream.sock,
            Self::Server(stream) => &stream.sock,
        };
        stream.shutdown(Shutdown::Both)
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Client(stream) => stream.read(buffer),
            Self::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Client(stream) => stream.write(bytes),
            Self::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}

/// A configuration for the server with a certificate of its own, and that certificate as PEM.
pub(crate) fn self_signed() -> (Arc<ServerConfig>, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![HOST.to_owned()]).expect("it is an address");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("it is a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the defaults of rustls")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key fits the certificate");
    (Arc::new(config), pem)
}

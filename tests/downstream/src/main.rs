//! Connects with TLS from a program that has its own mind about the providers of rustls.

use std::error::Error;
use std::time::Duration;

use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, Query};

#[path = "../../it/support/certificates.rs"]
#[allow(dead_code)]
mod certificates;
#[path = "../../it/support/socket.rs"]
#[allow(dead_code)]
mod socket;
#[path = "../../it/support/tls.rs"]
#[allow(dead_code)]
mod tls;

fn main() -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "aws-lc-rs")]
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nobody has installed another");
    let installed = rustls::crypto::CryptoProvider::get_default().is_some();

    let server = TestServer::start()?;
    let address = server
        .url()
        .trim_start_matches("ws://")
        .split('/')
        .next()
        .unwrap_or_default()
        .parse()?;
    let authority = certificates::Authority::new();
    let tls = tls::TlsServer::new(&authority.issue("127.0.0.1"), address);
    let client = Client::builder(tls.url(), "app")
        .add_root_certificate(&authority.pem)
        .build()?;
    let subscription = client.subscribe(&Query::new("Game"))?;
    subscription.wait_open(Duration::from_secs(20))?;
    client.close();
    let after = rustls::crypto::CryptoProvider::get_default().is_some();
    assert_eq!(
        installed, after,
        "the default of the process is the program's own business"
    );
    println!("connected; a default provider is installed: {installed}");
    Ok(())
}

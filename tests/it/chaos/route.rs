//! How a client comes to a server: through a proxy, and through TLS or without. It knows nothing of what is sent.

use std::net::SocketAddr;

use parse_livequery::{Client, ClientBuilder};

use crate::support::*;

pub struct Route {
    pub proxy: Proxy,
    #[cfg(any(feature = "tls", feature = "webpki-roots"))]
    tls: Option<(TlsServer, Authority)>,
}

impl Route {
    pub fn plain(server: SocketAddr) -> Self {
        Self {
            proxy: Proxy::to(server),
            #[cfg(any(feature = "tls", feature = "webpki-roots"))]
            tls: None,
        }
    }

    /// Through TLS, which the proxy cannot look into. Plain, where the library has no TLS.
    #[cfg(any(feature = "tls", feature = "webpki-roots"))]
    pub fn secure(server: SocketAddr) -> Self {
        let authority = Authority::new();
        let tls = TlsServer::new(&authority.issue("127.0.0.1"), server);
        Self {
            proxy: Proxy::to(tls.addr()),
            tls: Some((tls, authority)),
        }
    }

    #[cfg(not(any(feature = "tls", feature = "webpki-roots")))]
    pub fn secure(server: SocketAddr) -> Self {
        Self::plain(server)
    }

    pub fn builder(&self) -> ClientBuilder {
        let url = self.proxy.url();
        #[cfg(any(feature = "tls", feature = "webpki-roots"))]
        if let Some((_, authority)) = &self.tls {
            return Client::builder(url.replace("ws:", "wss:"), "app").add_root_certificate(&authority.pem);
        }
        Client::builder(url, "app")
    }
}

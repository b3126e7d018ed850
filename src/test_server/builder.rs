//! The settings of a test server, and its start.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::TestServer;
use super::hub::Hub;
use super::transport::Acceptor;

/// The settings of a [`TestServer`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use parse_livequery::test_server::TestServer;
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::builder()
///     .javascript_key("JS_KEY")
///     .ping_interval(Duration::from_millis(500))
///     .start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct TestServerBuilder {
    port: u16,
    keys: Vec<(&'static str, String)>,
    ping_interval: Duration,
    drops_nulls: bool,
    session_length: Option<Duration>,
}

impl TestServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            port: 0,
            keys: Vec::new(),
            ping_interval: Duration::from_secs(10),
            drops_nulls: false,
            session_length: Some(Duration::from_secs(365 * 24 * 60 * 60)),
        }
    }

    /// Sets the port to listen on (default: any free port).
    ///
    /// # Examples
    /// ```no_run
    /// # use parse_livequery::test_server::TestServer;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TestServer::builder().port(1337).start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Requires this JavaScript key of clients. If more than one key is set, any of them is enough, as in the
    /// `keyPairs` of Parse Server's `liveQueryServerOptions`. By default no key is required.
    pub fn javascript_key(self, key: impl Into<String>) -> Self {
        self.key("javascriptKey", key)
    }

    /// Requires this client key, as for [`javascript_key`](Self::javascript_key).
    pub fn client_key(self, key: impl Into<String>) -> Self {
        self.key("clientKey", key)
    }

    /// Requires this REST API key, as for [`javascript_key`](Self::javascript_key).
    pub fn rest_api_key(self, key: impl Into<String>) -> Self {
        self.key("restAPIKey", key)
    }

    /// Requires this Windows key, as for [`javascript_key`](Self::javascript_key).
    pub fn windows_key(self, key: impl Into<String>) -> Self {
        self.key("windowsKey", key)
    }

    /// Requires this master key, as for [`javascript_key`](Self::javascript_key). A client that has it can
    /// read all objects, whatever their ACL.
    pub fn master_key(self, key: impl Into<String>) -> Self {
        self.key("masterKey", key)
    }

    fn key(mut self, name: &'static str, key: impl Into<String>) -> Self {
        self.keys.push((name, key.into()));
        self
    }

    /// Sets how often each client is sent a ping (default: 10 s, as Parse Server's `websocketTimeout`). A
    /// client that has not answered when the next ping is due is disconnected without a close frame.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Sets whether nulls are dropped, as Parse Server does on Postgres: a field that is set to null has it
    /// in the event of that change and is missing from then on, also from the `original` of later events. By
    /// default null is kept, as on MongoDB.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TestServer::builder().drop_nulls(true).start()?;
    /// let id = server.create("Game", json!({"name": "go", "score": null}));
    /// assert_eq!(server.get("Game", &id).unwrap().get("score"), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_nulls(mut self, drop: bool) -> Self {
        self.drops_nulls = drop;
        self
    }

    /// Sets how long a session lasts (default: a year, as Parse Server's `sessionLength`); `None` means
    /// forever, as when Parse Server's `expireInactiveSessions` is off.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use parse_livequery::test_server::TestServer;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TestServer::builder().session_length(Some(Duration::from_secs(2))).start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn session_length(mut self, length: Option<Duration>) -> Self {
        self.session_length = length;
        self
    }

    /// Starts the server on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// The error of the operating system if no port or thread is available, or the port is taken.
    pub fn start(self) -> io::Result<TestServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        let address = listener.local_addr()?;
        let hub = Arc::new(Hub::new(self.keys));
        hub.change(|state| {
            state.drops_nulls = self.drops_nulls;
            state.session_length = self.session_length;
        });
        let acceptor = Acceptor::start(listener, Arc::clone(&hub), self.ping_interval)?;
        Ok(TestServer {
            hub,
            address,
            ping_interval: self.ping_interval,
            acceptor: Mutex::new(Some(acceptor)),
        })
    }
}

impl fmt::Debug for TestServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(|(name, _)| name).collect();
        f.debug_struct("TestServerBuilder")
            .field("keys", &keys)
            .field("ping_interval", &self.ping_interval)
            .field("drops_nulls", &self.drops_nulls)
            .field("session_length", &self.session_length)
            .finish()
    }
}

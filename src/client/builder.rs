//! The settings of a client, checked before there is one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::client::Client;
use crate::delivery::mailbox::{Limits, Overflow};
use crate::delivery::queue::{Dispatch, Queue};
use crate::delivery::shared::Shared;
use crate::driver::token::TokenProvider;
use crate::driver::{self, ConnectedStream, Connector, Network, Proxies};
use crate::error::{Error, ErrorKind, Result};
use crate::logging::error;
use crate::protocol::session::Settings;
use crate::query::version::Age;
#[cfg(feature = "rest")]
use crate::rest::handle::Rest;
use crate::secret::Secret;
use crate::server_url;

impl Client {
    /// Starts to set up a client.
    ///
    /// `server_url` is the address of the LiveQuery server, often that of Parse Server itself, with the scheme `ws`,
    /// `wss`, `http` or `https`. `application_id` is the server's `appId`. Both are checked by
    /// [`build`](ClientBuilder::build).
    pub fn builder(server_url: impl Into<String>, application_id: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server_url.into(), application_id.into())
    }
}

/// Sets up a [`Client`]. Made by [`Client::builder`]; each setting states its default.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use parse_livequery::Client;
///
/// # fn main() -> parse_livequery::Result<()> {
/// let client = Client::builder("ws://localhost:1337/parse", "APP_ID")
///     .javascript_key("JS_KEY")
///     .session_token("r:token")
///     .connect_timeout(Duration::from_secs(5))
///     .reconnect_delay(Duration::from_millis(100), Duration::from_secs(10))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    server_urls: Vec<String>,
    settings: Settings,
    close_timeout: Duration,
    parse_server: Option<String>,
    limits: Limits,
    pub(crate) network: Network,
    #[cfg(feature = "rest")]
    rest_url: Option<String>,
    #[cfg(feature = "rest")]
    fetch_timeout: Duration,
    #[cfg(feature = "rest")]
    has_idempotency: bool,
    token_provider: Option<TokenProvider>,
    dispatch: Dispatch,
}

impl ClientBuilder {
    fn new(server_url: String, application_id: String) -> Self {
        Self {
            server_urls: vec![server_url],
            settings: Settings::new(application_id),
            close_timeout: Duration::from_secs(2),
            parse_server: None,
            limits: Limits {
                objects: 65_536,
                bytes: 16 * 1024 * 1024,
                overflow: Overflow::default(),
            },
            network: Network::default(),
            #[cfg(feature = "rest")]
            rest_url: None,
            #[cfg(feature = "rest")]
            fetch_timeout: Duration::from_secs(30),
            #[cfg(feature = "rest")]
            has_idempotency: false,
            token_provider: None,
            dispatch: Dispatch::default(),
        }
    }

    /// The JavaScript key, for servers that ask for keys (`keyPairs`). Not sent by default.
    pub fn javascript_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.javascript_key = Some(Secret::from(key));
        self
    }

    /// The client key. Not sent by default.
    pub fn client_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.client_key = Some(Secret::from(key));
        self
    }

    /// The REST API key. Not sent by default.
    pub fn rest_api_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.rest_api_key = Some(Secret::from(key));
        self
    }

    /// The Windows key. Not sent by default.
    pub fn windows_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.windows_key = Some(Secret::from(key));
        self
    }

    /// The master key, which sees all objects whatever their ACL. It has no place in a program that is given to
    /// users. Not sent by default.
    pub fn master_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.master_key = Some(Secret::from(key));
        self
    }

    /// The session token of the user in whose name objects are read. Sent with the connection and with each
    /// subscription that has none of its own. Without one, only objects that everybody may read produce events.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.settings.credentials.session_token = Some(Secret::from(token));
        self
    }

    /// The id of this installation, which the server echoes in each event. Not sent by default.
    pub fn installation_id(mut self, id: impl Into<String>) -> Self {
        self.settings.credentials.installation_id = Some(id.into());
        self
    }

    /// How long one attempt to connect may take, from the look-up of the server's name to its answer to `connect`.
    /// Default: 20 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How often the client sends a ping. Default: 20 s; Parse Server pings by itself every 10 s.
    ///
    /// It finds out whether a silent server is still there, and its answer proves what has come: a
    /// [`Gap`](crate::Gap) starts at the last ping that was answered. So the client sends one on a busy connection as well,
    /// never more than one at a time. Each costs 14 bytes and its answer 10, plus what TCP and TLS add, and wakes the
    /// I/O thread twice. A longer time makes gaps start earlier and a dead connection noticed later.
    pub fn idle_ping(mut self, interval: Duration) -> Self {
        self.settings.idle_ping = interval;
        self
    }

    /// How long the server may be silent beyond [`idle_ping`](Self::idle_ping) with a ping unanswered, before the
    /// connection is taken for lost. Any byte that comes ends the silence, not only the answer. Default: 10 s.
    pub fn pong_timeout(mut self, timeout: Duration) -> Self {
        self.settings.pong_timeout = timeout;
        self
    }

    /// How long the server may take to acknowledge a subscription before that is reported as an `error`; the
    /// subscription goes on waiting. Default: 10 s.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ack_timeout = timeout;
        self
    }

    /// How long [`Client::close`] may take at most. Half of it is for the server to answer. Default: 2 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// The shortest and the longest delay between two attempts to connect. It starts within the first seconds,
    /// doubles with each failure, is drawn at random below that, and starts anew once a link was stable for 10 s.
    /// Default: 250 ms to 30 s. The client never gives up.
    pub fn reconnect_delay(mut self, shortest: Duration, longest: Duration) -> Self {
        self.settings.reconnect_delay = (shortest, longest);
        self
    }

    /// How many objects, and how many bytes of memory, may wait for the listeners of one subscription. What comes on
    /// top is dropped and reported as one `error` of kind [`ErrorKind::Lagged`]. Default: 65,536 and 16 MiB.
    ///
    /// All subscriptions of the client together may hold four times as many bytes: the first object of each counts as
    /// well, and so do errors. A single object that is larger than this is let through if nothing else waits. Errors
    /// are never dropped: equal ones in a row become one with a count ([`Error::occurrences`]), and so do others where
    /// more than some hundred things wait for one subscription.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Client, Overflow};
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = Client::builder("ws://localhost:1337/parse", "APP_ID")
    ///     .queue_limits(1_000, 1024 * 1024)
    ///     .overflow(Overflow::DropOldest) // the listeners are to have what is new
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn queue_limits(mut self, objects: usize, bytes: usize) -> Self {
        self.limits.objects = objects;
        self.limits.bytes = bytes;
        self
    }

    /// Which objects are dropped when more wait than may. Default: [`Overflow::DropNewest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Gives up after this many attempts to connect have failed in a row: with an `error` that is fatal, in the state
    /// [`Disconnected`](crate::ClientState::Disconnected), from which [`Client::open`] starts anew. At least 1. Default:
    /// never.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use parse_livequery::{Client, ErrorKind};
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// // nobody listens on this port
    /// let client = Client::builder("ws://127.0.0.1:1", "APP_ID").max_attempts(1).build()?;
    /// client.open();
    /// assert_eq!(client.wait_open(Duration::from_secs(10)).unwrap_err().kind(), ErrorKind::GaveUp);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.max_attempts = Some(attempts);
        self
    }

    /// Asks for the session token each time that the client connects, and once more if the server does not take it;
    /// `None` is for no token. Then [`session_token`](Self::session_token) is not used.
    ///
    /// It is called on a thread of its own, and may block: to renew a token, say. The time counts towards the
    /// [`connect_timeout`](Self::connect_timeout).
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Client;
    ///
    /// # fn stored_token() -> Option<String> { None }
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = Client::builder("ws://localhost:1337/parse", "APP_ID")
    ///     .session_token_provider(|| stored_token())
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn session_token_provider(
        mut self,
        provider: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.token_provider = Some(TokenProvider::new(provider));
        self
    }

    /// Which thread runs the listeners. Default: [`Dispatch::thread`].
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// Trusts the authorities whose certificates are in this PEM file as well: for servers with a certificate of a
    /// private authority, or one that they signed themselves. Can be called several times.
    ///
    /// Default: the authorities that the system trusts (cargo feature `tls`), or else Mozilla's list (cargo feature
    /// `webpki-roots`).
    ///
    /// # Examples
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = parse_livequery::Client::builder("wss://parse.intranet/parse", "app")
    ///     .add_root_certificate(std::fs::read("company-ca.pem")?)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "_tls")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "tls", feature = "webpki-roots"))))]
    pub fn add_root_certificate(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.network.tls.roots.push(pem.as_ref().to_vec());
        self
    }

    /// Trusts Mozilla's list of authorities, which is compiled into the program, and not those of the system.
    ///
    /// Default: those of the system. Where this crate is built without its feature `tls` that list is all there is;
    /// but other crates of a program may turn that feature on, and a program that calls this does not depend on them.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    pub fn webpki_roots(mut self) -> Self {
        self.network.tls.trust = driver::Trust::Mozilla;
        self
    }

    /// Proves to the server who this client is, with a certificate and its private key, both as PEM. The certificate
    /// comes first in the chain, and those in between to its authority after it; the key has no password. Not sent
    /// by default.
    #[cfg(feature = "_tls")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "tls", feature = "webpki-roots"))))]
    pub fn client_certificate(mut self, chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Self {
        let key = String::from_utf8_lossy(key_pem.as_ref());
        self.network.tls.identity = Some((chain_pem.as_ref().to_vec(), Secret::from(key)));
        self
    }

    /// A header of the WebSocket upgrade, as `Authorization`, `Cookie` or `Origin`. It goes to the host of the server
    /// URL alone, and is in no log and no `Debug` output. A header of the same name that was set before is replaced.
    ///
    /// Default: `User-Agent`, with the name and version of this crate.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Client;
    ///
    /// let builder = Client::builder("wss://example.com/parse", "app")
    ///     .header("Authorization", "Bearer of the reverse proxy")
    ///     .header("User-Agent", "my-program/1.0");
    /// assert!(!format!("{builder:?}").contains("Bearer"));
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.network.headers.set(name.into(), Secret::from(value));
        self
    }

    /// The longest message that the client takes from the server, in bytes; a frame of it may be as long. A longer
    /// one ends the link with an error of kind [`ErrorKind::Protocol`], and the `open` after it has a gap. Default:
    /// 64 MiB.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.network.max_message_size = bytes;
        self
    }

    /// The proxy on the way to the server, for all servers of this client: an HTTP proxy, as in
    /// `http://proxy.example.com:3128` or `http://user:password@proxy.example.com:3128`, which is asked for a tunnel
    /// (CONNECT), or a SOCKS proxy of version 5, as in `socks5h://proxy.example.com:1080`. With `socks5h` the proxy
    /// looks up the name of the server, with `socks5` this machine does. A proxy sees neither keys nor objects of a
    /// server with TLS.
    ///
    /// Default: that of the environment. `HTTPS_PROXY` is for servers with TLS, `ALL_PROXY` for all others and for
    /// those as well; `NO_PROXY` lists the exceptions (names, domains, addresses, ranges as `10.0.0.0/8`, `*`).
    /// The names in lower case come first. Servers on this machine are reached without a proxy of the environment.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Client;
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = Client::builder("ws://parse.example.com/parse", "APP_ID")
    ///     .proxy("http://proxy.example.com:3128")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.network.proxies = Proxies::Always(Secret::from(url));
        self
    }

    /// Connects without a proxy, whatever the environment says. Default: see [`proxy`](Self::proxy).
    pub fn without_proxy(mut self) -> Self {
        self.network.proxies = Proxies::Never;
        self
    }

    /// Has the program make the connections: over a Unix socket, through a proxy of another kind, through a tunnel of
    /// its own.
    ///
    /// `connect` gets the host and the port of the server and returns a connection over which the server can be spoken
    /// to; TLS and the WebSocket are put on top of it as ever. It is called for each attempt, on a thread of its own.
    /// It may block, and should give up after a time: it is not called again before it has returned, and what it
    /// returns late serves the attempt that is under way then. If it fails or panics the attempt has failed, and the
    /// next one comes after the usual delay.
    ///
    /// Default: TCP to all addresses of the host, or through the [`proxy`](Self::proxy), which this replaces.
    ///
    /// It is for the LiveQuery connection alone: calls of `Client::rest`, and live sets that fetch by themselves, are refused
    /// with [`ErrorKind::InvalidSetting`] (feature `rest`). They need another client without it, or the program's own fetch.
    ///
    /// # Examples
    /// ```no_run
    /// # #[cfg(unix)]
    /// # fn main() -> parse_livequery::Result<()> {
    /// use std::os::unix::net::UnixStream;
    ///
    /// use parse_livequery::Client;
    ///
    /// let client = Client::builder("ws://localhost/parse", "app")
    ///     .connect_with(|_host, _port| UnixStream::connect("/run/parse/livequery.sock"))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(unix))]
    /// # fn main() {}
    /// ```
    pub fn connect_with<S>(
        mut self,
        connect: impl Fn(&str, u16) -> io::Result<S> + Send + Sync + 'static,
    ) -> Self
    where
        S: Into<ConnectedStream>,
    {
        let connect = move |host: &str, port| connect(host, port).map(Into::into);
        self.network.connector = Some(Connector::new(connect));
        self
    }

    /// A further server: LiveQuery is scaled out by running several servers that share a Redis, each of which sends
    /// the events of all. The client is on one of them at a time, drawn at random, and goes to another when it fails;
    /// the `open` there has its gap as after every reconnect. Can be called several times.
    ///
    /// Default: the one server of [`Client::builder`].
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Client;
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = Client::builder("ws://live1.example.com/parse", "APP_ID")
    ///     .add_server("ws://live2.example.com/parse")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_server(mut self, server_url: impl Into<String>) -> Self {
        self.server_urls.push(server_url.into());
        self
    }

    /// How long the REST API may take to begin its answer to a request of a [`LiveSet`](crate::LiveSet) or of
    /// [`Client::rest`], and again for the rest of it (default: 30 s). Then the request has failed; what only reads is
    /// tried again.
    #[cfg(feature = "rest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.fetch_timeout = timeout;
        self
    }

    /// Where the REST API is, for [`Client::rest`] and the fetches of a [`LiveSet`](crate::LiveSet) (default: at the server URLs, with `http`
    /// for `ws` and `https` for `wss`). In the JS SDK it is `Parse.serverURL`.
    ///
    /// [`build`](Self::build) refuses what it refuses of server URLs.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = parse_livequery::Client::builder("wss://livequery.example.com", "APP_ID")
    ///     .rest_url("https://api.example.com/parse")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "rest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
    pub fn rest_url(mut self, url: impl Into<String>) -> Self {
        self.rest_url = Some(url.into());
        self
    }

    /// The server knows a request that comes a second time (`idempotencyOptions` of its configuration, for the paths of
    /// the calls that are made). Then writes get a request id, and are repeated under it when no answer comes; in the JS
    /// SDK it is `Parse.idempotency`. On a server without it a repeated `create` would make a second object.
    ///
    /// Default: writes are repeated only if nothing of them was sent.
    #[cfg(feature = "rest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
    pub fn idempotency(mut self) -> Self {
        self.has_idempotency = true;
        self
    }

    /// The version of Parse Server, such as `"4.10"`, if it is known. `subscribe` then refuses queries that this version
    /// cannot answer, with the version that would be needed, and all others are sent in a form that it gets right.
    ///
    /// Default: the client asks the server where a query depends on it, once for each connection and with a message that
    /// has no effect; see [`Query`](crate::Query#versions-of-parse-server).
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Client, Query};
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = Client::builder("ws://localhost:1337/parse", "APP_ID")
    ///     .parse_server("4.10")
    ///     .build()?;
    /// let error = client.subscribe(&Query::new("Game").not_equal_to("score", 10)).unwrap_err();
    /// assert!(error.to_string().contains("Parse Server 5.0 or later"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse_server(mut self, version: impl Into<String>) -> Self {
        self.parse_server = Some(version.into());
        self
    }

    /// Builds the client and starts its two threads. It connects with the first subscription, or with
    /// [`Client::open`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSetting`] for a URL that is not valid or has another scheme than `ws`, `wss`, `http` or
    /// `https`, for one that asks for TLS in a build without it, for an empty application id, time-outs of zero,
    /// headers that HTTP does not allow, certificates that are none, and proxies that are no
    /// HTTP proxies, those of the environment too; [`ErrorKind::Io`] if the system refuses a
    /// thread.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Client, ErrorKind};
    ///
    /// let error = Client::builder("ftp://example.com", "app").build().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    /// assert!(error.to_string().contains("`ftp`"));
    /// ```
    pub fn build(mut self) -> Result<Client> {
        let parse = |url: &String| server_url::parse(url);
        let servers = self.server_urls.iter().map(parse).collect::<Result<Vec<_>>>()?;
        let version = |text: &String| text.parse().map(Age::exactly);
        let age = self.parse_server.as_ref().map(version).transpose();
        let age = age.map_err(|error| invalid(format!("`parse_server`: {error}")))?;
        self.check_settings()?;
        self.check_network(&servers)?;
        self.settings.servers = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        self.settings.reconnect_delay.1 = self.settings.reconnect_delay.1.min(LONGEST);
        self.settings.renewable_token = self.token_provider.is_some();
        let (poll, waker) = driver::poll()?;
        let session_token = self.settings.credentials.session_token.clone();
        let queue = Queue::new(self.limits, self.dispatch);
        let shared = Arc::new(Shared::new(queue, session_token, move || {
            if let Err(error) = waker.wake() {
                error!("the threads of the client cannot be woken: {error}");
            }
        }));
        #[cfg(feature = "rest")]
        let http = {
            let url = self.rest_url.as_ref().map(parse).transpose()?;
            let rest_servers = url.as_ref().map_or(&*servers, std::slice::from_ref);
            let timeouts = (self.settings.connect_timeout, self.fetch_timeout);
            Rest::way(rest_servers, &self.settings.credentials, &self.network, timeouts)?
        };
        #[cfg(feature = "rest")]
        let provider = self.token_provider.clone();
        let commands = driver::spawn(
            servers.clone(),
            self.network,
            self.settings,
            self.token_provider,
            self.close_timeout,
            poll,
            Arc::clone(&shared),
        )?;
        #[cfg(feature = "rest")]
        let rest = Rest::new(http, &shared, &commands, provider, self.has_idempotency);
        Ok(Client::new(
            servers,
            self.close_timeout,
            age,
            shared,
            commands,
            #[cfg(feature = "rest")]
            rest,
        ))
    }

    fn check_settings(&self) -> Result<()> {
        let settings = &self.settings;
        if settings.credentials.application_id.is_empty() {
            return Err(invalid(
                "the application id is empty; it is the `appId` of the server's configuration",
            ));
        }
        for (name, value) in [
            ("connect_timeout", settings.connect_timeout),
            ("idle_ping", settings.idle_ping),
            ("pong_timeout", settings.pong_timeout),
            ("ack_timeout", settings.ack_timeout),
            ("close_timeout", self.close_timeout),
            ("reconnect_delay", settings.reconnect_delay.0),
            #[cfg(feature = "rest")]
            ("fetch_timeout", self.fetch_timeout),
        ] {
            if value.is_zero() {
                return Err(invalid(format!("`{name}` is zero; it must be longer")));
            }
            if value > LONGEST {
                return Err(invalid(format!(
                    "`{name}` is {value:?}; it must not be longer than a year"
                )));
            }
        }
        if settings.max_attempts == Some(0) {
            return Err(invalid(
                "`max_attempts` is 0; it must be at least 1, and without it the client never gives up",
            ));
        }
        let (shortest, longest) = settings.reconnect_delay;
        if shortest > longest {
            let text =
                format!("`reconnect_delay` is {shortest:?} to {longest:?}; the shortest delay comes first");
            return Err(invalid(text));
        }
        Ok(())
    }

    fn check_network(&self, servers: &[Url]) -> Result<()> {
        self.network.headers.check()?;
        if servers.iter().any(|url| url.scheme() == "wss") || self.network.tls.is_set() {
            self.network.tls.check()?;
        }
        if self.network.connector.is_none() {
            for server in servers {
                self.network.proxies.proxy_for(server)?;
            }
        } else if matches!(self.network.proxies, Proxies::Always(_)) {
            return Err(invalid(
                "`proxy` and `connect_with` are both set; `connect_with` makes the whole connection, so leave `proxy` \
                 out and connect to the proxy in there",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("settings", &self.settings)
            .field("close_timeout", &self.close_timeout)
            .field("parse_server", &self.parse_server)
            .field("limits", &self.limits)
            .field("network", &self.network)
            .field("token_provider", &self.token_provider)
            .field("dispatch", &self.dispatch)
            // The URL, which may hold a password where it must not, is shown by the client that was built with it.
            .finish_non_exhaustive()
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSetting, text)
}

/// Longer than any time-out makes sense, and short enough to add to any point in time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

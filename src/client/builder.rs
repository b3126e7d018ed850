//! The settings of a client, checked before the client exists.

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
    /// Starts building a client.
    ///
    /// `server_url` is the address of the LiveQuery server, often that of Parse Server itself, with the scheme `ws`,
    /// `wss`, `http` or `https`. `application_id` is the server's `appId`. Both are checked by
    /// [`build`](ClientBuilder::build).
    pub fn builder(server_url: impl Into<String>, application_id: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(server_url.into(), application_id.into())
    }
}

/// Builds a [`Client`]. Created by [`Client::builder`]; each setting states its default.
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

    /// Sets the JavaScript key, for servers that require keys (`keyPairs`). Not sent by default.
    pub fn javascript_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.javascript_key = Some(Secret::from(key));
        self
    }

    /// Sets the client key. Not sent by default.
    pub fn client_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.client_key = Some(Secret::from(key));
        self
    }

    /// Sets the REST API key. Not sent by default.
    pub fn rest_api_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.rest_api_key = Some(Secret::from(key));
        self
    }

    /// Sets the Windows key. Not sent by default.
    pub fn windows_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.windows_key = Some(Secret::from(key));
        self
    }

    /// Sets the master key, which sees all objects whatever their ACL. Never ship it in a program for end
    /// users. Not sent by default.
    pub fn master_key(mut self, key: impl Into<String>) -> Self {
        self.settings.credentials.master_key = Some(Secret::from(key));
        self
    }

    /// Sets the session token of the user on whose behalf objects are read. It is sent with the connection
    /// and with each subscription without its own. Without one, only publicly readable objects produce
    /// events.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.settings.credentials.session_token = Some(Secret::from(token));
        self
    }

    /// Sets the id of this installation, which the server echoes in each event. Not sent by default.
    pub fn installation_id(mut self, id: impl Into<String>) -> Self {
        self.settings.credentials.installation_id = Some(id.into());
        self
    }

    /// Sets how long one attempt to connect may take, from the look-up of the server's name to its answer to
    /// `connect`. Default: 20 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Sets how often the client sends a ping. Default: 20 s; Parse Server sends its own pings every 10 s.
    ///
    /// A ping finds out whether a silent server is still there, and its answer proves which events have
    /// arrived: a [`Gap`](crate::Gap) starts at the last ping that was answered. So the client pings on a
    /// busy connection as well, never with more than one ping unanswered. Each ping costs 14 bytes and its
    /// answer 10, plus what TCP and TLS add, and wakes the I/O thread twice. With a longer interval, gaps
    /// start earlier and a dead connection is noticed later.
    pub fn idle_ping(mut self, interval: Duration) -> Self {
        self.settings.idle_ping = interval;
        self
    }

    /// Sets how long the server may be silent beyond [`idle_ping`](Self::idle_ping), with a ping unanswered,
    /// before the connection counts as lost. Any byte received ends the silence, not only the answer.
    /// Default: 10 s.
    pub fn pong_timeout(mut self, timeout: Duration) -> Self {
        self.settings.pong_timeout = timeout;
        self
    }

    /// Sets how long the server may take to acknowledge a subscription before that is reported as an `error`;
    /// the subscription keeps waiting. Default: 10 s.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ack_timeout = timeout;
        self
    }

    /// Sets how long [`Client::close`] may take at most; half of it is for the server's answer. Default: 2 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets the shortest and the longest delay between two attempts to connect. Each delay is drawn at random
    /// between the shortest one and a limit, which starts at 4 s, doubles with each failure up to the longest
    /// delay, and starts again once a connection was stable for 10 s. Default: 250 ms to 30 s. The client never
    /// gives up.
    pub fn reconnect_delay(mut self, shortest: Duration, longest: Duration) -> Self {
        self.settings.reconnect_delay = (shortest, longest);
        self
    }

    /// Sets how many objects, and how many bytes of memory, may wait for the listeners of one subscription.
    /// Objects beyond that are dropped and reported as one `error` of kind [`ErrorKind::Lagged`]. Default:
    /// 65,536 and 16 MiB.
    ///
    /// All subscriptions of the client together may hold four times as many bytes; the first object of each
    /// and errors count as well. A single object that is larger than the limit is let through if nothing else
    /// waits. Errors are never dropped: equal errors in a row become one with a count
    /// ([`Error::occurrences`]), and so do different ones if more than some hundred errors and events wait
    /// for one subscription.
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

    /// Sets which objects are dropped when too many wait. Default: [`Overflow::DropNewest`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Gives up after this many attempts to connect have failed in a row: with a fatal `error`, in the state
    /// [`Disconnected`](crate::ClientState::Disconnected), from which [`Client::open`] starts the client
    /// again. At least 1. Default: never.
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

    /// Asks a function for the session token each time that the client connects, and once more if the server
    /// does not accept the token; `None` means no token. [`session_token`](Self::session_token) is then not
    /// used.
    ///
    /// The function is called on a separate thread, and may block, for example to renew a token. The time
    /// counts towards the [`connect_timeout`](Self::connect_timeout).
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

    /// Sets which thread runs the listeners. Default: [`Dispatch::thread`].
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// Also trusts the authorities whose certificates are in this PEM file: for servers whose certificate
    /// comes from a private authority, or is self-signed. Can be called several times.
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

    /// Trusts Mozilla's list of authorities, which is compiled into the program, instead of the system's.
    ///
    /// Default: those of the system. If this crate is built without its feature `tls`, that list is the only
    /// one; but other crates of a program may enable the feature, and a program that calls this method does
    /// not depend on that.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    pub fn webpki_roots(mut self) -> Self {
        self.network.tls.trust = driver::Trust::Mozilla;
        self
    }

    /// Proves the client's identity to the server with a certificate and its private key, both as PEM. The
    /// certificate comes first in the chain, followed by the intermediate ones; the key has no password. Not
    /// sent by default.
    #[cfg(feature = "_tls")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "tls", feature = "webpki-roots"))))]
    pub fn client_certificate(mut self, chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Self {
        let key = String::from_utf8_lossy(key_pem.as_ref());
        self.network.tls.identity = Some((chain_pem.as_ref().to_vec(), Secret::from(key)));
        self
    }

    /// Adds a header to the WebSocket upgrade, such as `Authorization`, `Cookie` or `Origin`. It is sent only
    /// to the host of the server URL, and never appears in logs or `Debug` output. It replaces an earlier
    /// header of the same name.
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

    /// Sets the longest message that the client accepts from the server, in bytes; a single frame may be as
    /// long. A longer one ends the connection with an error of kind [`ErrorKind::Protocol`], and the `open`
    /// after it has a gap. Default: 64 MiB.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.network.max_message_size = bytes;
        self
    }

    /// Sets the proxy for all servers of this client: an HTTP proxy, such as `http://proxy.example.com:3128`
    /// or `http://user:password@proxy.example.com:3128`, which is asked for a tunnel (CONNECT), or a SOCKS
    /// proxy of version 5, such as `socks5h://proxy.example.com:1080`. With `socks5h` the proxy looks up the
    /// name of the server, with `socks5` this machine does. If the server uses TLS, a proxy sees neither keys
    /// nor objects.
    ///
    /// Default: the proxy of the environment. `HTTPS_PROXY` is for servers with TLS, `ALL_PROXY` for all
    /// others and, without `HTTPS_PROXY`, for those as well; `NO_PROXY` lists the exceptions (names, domains,
    /// addresses, ranges such as `10.0.0.0/8`, `*`). Names in lower case take precedence. Servers on this
    /// machine are reached without a proxy of the environment.
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

    /// Lets the program make the connections: over a Unix socket, through another kind of proxy, through its
    /// own tunnel.
    ///
    /// `connect` gets the host and the port of the server and returns a connection to the server; TLS and the
    /// WebSocket are put on top of it as usual. It is called for each attempt, on a separate thread. It may
    /// block, but should give up after a time: it is not called again before it has returned, and a
    /// connection that it returns late serves the attempt that is then under way. If it fails or panics, the
    /// attempt has failed, and the next one follows after the usual delay.
    ///
    /// Default: TCP to all addresses of the host, or through the [`proxy`](Self::proxy), which this replaces.
    ///
    /// It only applies to the LiveQuery connection: calls of `Client::rest`, and live sets that fetch from
    /// the REST API, are refused with [`ErrorKind::InvalidSetting`] (feature `rest`). They need another
    /// client without it, or your own fetch.
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

    /// Adds another server: LiveQuery scales out by running several servers that share a Redis, each of which
    /// sends the events of all. The client is connected to one of them at a time, chosen at random, and moves
    /// to another when it fails; `open` then has its gap, as after every reconnect. Can be called several
    /// times.
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

    /// Sets how long the REST API may take to begin its answer to a request of a [`LiveSet`](crate::LiveSet)
    /// or of [`Client::rest`], and again for the rest of it (default: 30 s). After that the request has
    /// failed; requests that only read are retried.
    #[cfg(feature = "rest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.fetch_timeout = timeout;
        self
    }

    /// Sets where the REST API is, for [`Client::rest`] and the fetches of a [`LiveSet`](crate::LiveSet)
    /// (default: at the server URLs, with `http` for `ws` and `https` for `wss`). In the JS SDK it is
    /// `Parse.serverURL`.
    ///
    /// [`build`](Self::build) applies the same checks as to server URLs.
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

    /// Says that the server recognises a repeated request (`idempotencyOptions` of its configuration, for the
    /// paths of the calls that you make). Writes then get a request id, and are repeated under it when no
    /// answer comes; in the JS SDK it is `Parse.idempotency`. On a server without it, a repeated `create`
    /// would create a second object.
    ///
    /// Default: writes are repeated only if nothing of them was sent.
    #[cfg(feature = "rest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
    pub fn idempotency(mut self) -> Self {
        self.has_idempotency = true;
        self
    }

    /// Sets the version of Parse Server, such as `"4.10"`, if you know it. `subscribe` then refuses queries
    /// that this version cannot answer, naming the version that they need, and sends all others in a form
    /// that this version evaluates correctly.
    ///
    /// Default: the client asks the server where a query depends on it, once per connection and with a
    /// message that has no effect; see [`Query`](crate::Query#versions-of-parse-server).
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

    /// Builds the client and starts its two threads. The client connects with the first subscription, or with
    /// [`Client::open`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSetting`] for a URL that is not valid or has a scheme other than `ws`, `wss`,
    /// `http` or `https`, for one that requires TLS in a build without it, for an empty application id,
    /// time-outs of zero, headers that HTTP does not allow, invalid certificates, and proxy URLs that are not
    /// valid, including those of the environment; [`ErrorKind::Io`] if the system refuses to start a thread.
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
                "`max_attempts` is 0; it must be at least 1, or left out to never give up",
            ));
        }
        let (shortest, longest) = settings.reconnect_delay;
        if shortest > longest {
            let text = format!(
                "`reconnect_delay` is {shortest:?} to {longest:?}; the shortest delay must come first"
            );
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
                "`proxy` and `connect_with` are both set; `connect_with` makes the whole connection, so leave \
                 `proxy` out and connect to the proxy inside `connect_with`",
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
            // The server URLs are left out: a URL may hold a password where it should not.
            .finish_non_exhaustive()
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSetting, text)
}

/// Longer than any sensible time-out, and short enough to be added to any point in time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

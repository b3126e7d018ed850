//! The settings of a client, checked before there is one.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::client::Client;
use crate::dispatch::{self, Dispatch, Limits, Overflow, Queue};
use crate::driver::{self, TokenProvider};
use crate::protocol::message::Credentials;
use crate::protocol::session::Settings;
use crate::secret::Secret;
use crate::shared::Shared;
use crate::{Error, ErrorKind, Result};

/// Sets up a [`Client`]. Made by [`Client::builder`]; each setting states its default.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    server_url: String,
    credentials: Credentials,
    connect_timeout: Duration,
    idle_ping: Duration,
    pong_timeout: Duration,
    ack_timeout: Duration,
    close_timeout: Duration,
    reconnect_delay: (Duration, Duration),
    limits: Limits,
    max_attempts: Option<NonZeroU32>,
    token_provider: Option<TokenProvider>,
    dispatch: Dispatch,
}

impl ClientBuilder {
    pub(crate) fn new(server_url: String, application_id: String) -> Self {
        Self {
            server_url,
            credentials: Credentials {
                application_id,
                ..Credentials::default()
            },
            connect_timeout: Duration::from_secs(20),
            idle_ping: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            reconnect_delay: (Duration::from_millis(250), Duration::from_secs(30)),
            limits: Limits {
                objects: 65_536,
                bytes: 16 * 1024 * 1024,
                overflow: Overflow::default(),
            },
            max_attempts: None,
            token_provider: None,
            dispatch: Dispatch::default(),
        }
    }

    /// The JavaScript key, for servers that ask for keys (`keyPairs`). Not sent by default.
    pub fn javascript_key(mut self, key: impl Into<String>) -> Self {
        self.credentials.javascript_key = Some(Secret::from(key));
        self
    }

    /// The client key. Not sent by default.
    pub fn client_key(mut self, key: impl Into<String>) -> Self {
        self.credentials.client_key = Some(Secret::from(key));
        self
    }

    /// The REST API key. Not sent by default.
    pub fn rest_api_key(mut self, key: impl Into<String>) -> Self {
        self.credentials.rest_api_key = Some(Secret::from(key));
        self
    }

    /// The Windows key. Not sent by default.
    pub fn windows_key(mut self, key: impl Into<String>) -> Self {
        self.credentials.windows_key = Some(Secret::from(key));
        self
    }

    /// The master key, which sees all objects whatever their ACL. It has no place in a program that is given to
    /// users. Not sent by default.
    pub fn master_key(mut self, key: impl Into<String>) -> Self {
        self.credentials.master_key = Some(Secret::from(key));
        self
    }

    /// The session token of the user in whose name objects are read. Sent with the connection and with each
    /// subscription that has none of its own. Without one, only objects that everybody may read produce events.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.credentials.session_token = Some(Secret::from(token));
        self
    }

    /// The id of this installation, which the server echoes in each event. Not sent by default.
    pub fn installation_id(mut self, id: impl Into<String>) -> Self {
        self.credentials.installation_id = Some(id.into());
        self
    }

    /// How long one attempt to connect may take, from the look-up of the server's name to its answer to `connect`.
    /// Default: 20 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long nothing may come from the server before the client asks with a ping whether it is still there.
    /// Default: 20 s; Parse Server pings by itself every 10 s.
    pub fn idle_ping(mut self, silence: Duration) -> Self {
        self.idle_ping = silence;
        self
    }

    /// How long the server may take to send anything at all after that ping, before the link is taken for lost.
    /// Default: 10 s.
    pub fn pong_timeout(mut self, timeout: Duration) -> Self {
        self.pong_timeout = timeout;
        self
    }

    /// How long the server may take to acknowledge a subscription before that is reported as an `error`; the
    /// subscription goes on waiting. Default: 10 s.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
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
        self.reconnect_delay = (shortest, longest);
        self
    }

    /// How many objects, and how many bytes of them, may wait for the listeners of one subscription. What comes on
    /// top is dropped and reported as one `error` of kind [`ErrorKind::Lagged`]. Default: 65,536 and 16 MiB.
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
    /// [`Disconnected`](crate::ClientState::Disconnected), from which [`Client::open`] starts anew. Default: never.
    pub fn max_attempts(mut self, attempts: NonZeroU32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Asks for the session token each time that the client connects, and once more if the server does not take it;
    /// `None` is for no token. Then [`session_token`](Self::session_token) is not used.
    ///
    /// It is called on a thread of its own, and may block: to renew a token, say. The time counts towards the
    /// [`connect_timeout`](Self::connect_timeout).
    pub fn session_token_provider(
        mut self,
        provider: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.token_provider = Some(TokenProvider(Arc::new(provider)));
        self
    }

    /// Which thread runs the listeners. Default: [`Dispatch::Thread`].
    pub fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// Builds the client and starts its two threads. It connects with the first subscription, or with
    /// [`Client::open`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSetting`] for a URL that is none or has another scheme than `ws`, `wss`, `http` or
    /// `https`, for an empty application id and for time-outs of zero; [`ErrorKind::Io`] if the system refuses a
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
    pub fn build(self) -> Result<Client> {
        let url = web_socket_url(&self.server_url)?;
        if self.credentials.application_id.is_empty() {
            return Err(invalid(
                "the application id is empty; it is the `appId` of the server's configuration",
            ));
        }
        for (name, value) in [
            ("connect_timeout", self.connect_timeout),
            ("idle_ping", self.idle_ping),
            ("pong_timeout", self.pong_timeout),
            ("ack_timeout", self.ack_timeout),
            ("close_timeout", self.close_timeout),
            ("reconnect_delay", self.reconnect_delay.0),
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
        let (shortest, longest) = self.reconnect_delay;
        if shortest > longest {
            let text =
                format!("`reconnect_delay` is {shortest:?} to {longest:?}; the shortest delay comes first");
            return Err(invalid(text));
        }
        let settings = Settings {
            credentials: self.credentials,
            connect_timeout: self.connect_timeout,
            idle_ping: self.idle_ping,
            pong_timeout: self.pong_timeout,
            ack_timeout: self.ack_timeout,
            reconnect_delay: (shortest, longest.min(LONGEST)),
            max_attempts: self.max_attempts,
            renewable_token: self.token_provider.is_some(),
        };
        let shared = Arc::new(Shared::new(Queue::new(self.limits, self.dispatch)));
        let commands = driver::spawn(
            url.clone(),
            settings,
            self.token_provider,
            self.close_timeout,
            Arc::clone(&shared),
        )?;
        let client = Client::new(url, self.close_timeout, Arc::clone(&shared), commands);
        // If this fails the client is dropped, and the I/O thread ends with it.
        dispatch::spawn(shared)?;
        Ok(client)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("credentials", &self.credentials)
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_ping", &self.idle_ping)
            .field("pong_timeout", &self.pong_timeout)
            .field("ack_timeout", &self.ack_timeout)
            .field("close_timeout", &self.close_timeout)
            .field("reconnect_delay", &self.reconnect_delay)
            .field("limits", &self.limits)
            .field("max_attempts", &self.max_attempts)
            .field("token_provider", &self.token_provider)
            .field("dispatch", &self.dispatch)
            // The URL, which may hold a password where it must not, is shown by the client that was built with it.
            .finish_non_exhaustive()
    }
}

/// The URL of the WebSocket: the scheme is mapped, everything else is kept.
fn web_socket_url(text: &str) -> Result<Url> {
    let mut url = Url::parse(text).map_err(|error| {
        let text = "the server URL is not valid; it looks like `wss://parse.example.com/parse`";
        Error::with_source(ErrorKind::InvalidSetting, text, error)
    })?;
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => {
            return Err(invalid(format!(
                "the server URL has the scheme `{}`, and this build of parse-livequery has no TLS; use `ws` or `http` \
                 where the network is safe, or a TLS tunnel on this machine",
                url.scheme()
            )));
        }
        other => {
            return Err(invalid(format!(
                "the server URL has the scheme `{other}`; it must be `ws`, `wss`, `http` or `https`"
            )));
        }
    };
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("the server URL names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "the server URL holds a user name or a password, which a WebSocket has no use for; leave them out",
        ));
    }
    if url.fragment().is_some() {
        return Err(invalid(
            "the server URL has a fragment (`#…`), which is never sent; leave it out",
        ));
    }
    // Both are among the schemes that the URL standard calls special, so this cannot fail.
    let _ = url.set_scheme(scheme);
    Ok(url)
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidSetting, text)
}

/// Longer than any time-out makes sense, and short enough to add to any point in time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_table() {
        for (given, connects_to) in [
            ("ws://example.com", "ws://example.com/"),
            ("http://example.com/parse", "ws://example.com/parse"),
            ("http://http.example.com/http?q=http#", "fragment"),
            (
                "http://http.example.com/http?q=http",
                "ws://http.example.com/http?q=http",
            ),
            ("ws://[::1]:1337/parse", "ws://[::1]:1337/parse"),
            ("HTTP://EXAMPLE.com:80/", "ws://example.com/"),
            ("http://bücher.example/", "ws://xn--bcher-kva.example/"),
            ("wss://example.com", "no TLS"),
            ("https://http.example.com/https", "no TLS"),
            ("ftp://example.com", "`ftp`"),
            ("mailto:a@example.com", "`mailto`"),
            ("example.com", "not valid"),
            ("localhost:1337/parse", "`localhost`"),
            ("", "not valid"),
            ("ws://", "not valid"),
            ("ws://user:secret@example.com", "user name"),
        ] {
            let got = match web_socket_url(given) {
                Ok(url) => url.to_string(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
                    error.to_string()
                }
            };
            assert!(got == connects_to || got.contains(connects_to), "{given}: {got}");
            assert!(!got.contains("secret"), "{got}");
        }
    }
}

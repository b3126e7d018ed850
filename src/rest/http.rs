//! One request of the REST API, with the keys, TLS and proxy settings of the client. It does not know what is
//! requested, and never retries.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ureq::http::Response;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, SocksConnector, TcpConnector};
use ureq::{Agent, AsSendBody, SendBody};
use url::Url;

use crate::driver::{Network, ProxyKind, http_date, retry_after};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::spec::Credentials;
use crate::rest::failure::{Failure, Refusal};
use crate::rest::stage::{self, Stage, StageConnector, StageResolver};
#[cfg(feature = "_tls")]
use crate::rest::tls::TlsConnector;
use crate::secret::Secret;
use crate::server_url::authority;

/// The servers, one of which is used at a time.
pub(crate) struct Http {
    servers: Vec<Server>,
    /// The server that is used; the next one once it fails.
    turn: AtomicUsize,
    application_id: String,
    headers: Vec<(&'static str, Secret)>,
    /// Besides the master key.
    has_other_keys: bool,
    extra_headers: Vec<(String, Secret)>,
    largest_answer: u64,
    /// For files on other servers.
    network: Network,
    timeouts: (Duration, Duration),
}

struct Server {
    /// Of the REST API.
    url: Url,
    /// For messages.
    name: String,
    is_proxied: bool,
    agent: Agent,
    /// It gets keys and session tokens.
    is_known: bool,
}

/// A request to a server.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) place: Place<'a>,
    pub(super) body: &'a Body<'a>,
    pub(super) role: Role,
    pub(super) session_token: Option<&'a str>,
    /// By which the server recognises a repeated request.
    pub(super) id: Option<&'a str>,
    /// Its purpose, for "the server did not ...".
    pub(super) purpose: &'a str,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// Below the URL of the REST API, part by part.
    Path(&'a [&'a str]),
    /// To this URL, with keys and session token if it belongs to the REST API, and without them otherwise.
    Url(&'a Url),
}

/// The content of a request.
pub(super) enum Body<'a> {
    Nothing,
    Json(String),
    /// JSON that depends on the path of the REST API.
    Within(&'a dyn Fn(&str) -> String),
    /// A content type, and bytes.
    Bytes(&'a str, &'a [u8]),
    /// The same, read as they are sent.
    Stream(&'a str, &'a dyn Stream),
}

/// Data that is read as it is sent, once.
pub(super) struct Source<R>(RefCell<Reading<R>>);

struct Reading<R> {
    reader: R,
    has_begun: bool,
    error: Option<io::Error>,
}

impl<R: Read> Source<R> {
    pub(super) fn new(reader: R) -> Self {
        Self(RefCell::new(Reading {
            reader,
            has_begun: false,
            error: None,
        }))
    }
}

/// A [`Source`] of any reader.
pub(super) trait Stream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// It has been read in part, and can no longer be sent in full.
    fn has_begun(&self) -> bool;

    /// Why the program's reader failed.
    fn take_error(&self) -> Option<io::Error>;
}

impl<R: Read> Stream for Source<R> {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reading = self.0.borrow_mut();
        reading.has_begun = true;
        loop {
            match reading.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    reading.error = Some(error);
                    return Err(kind.into());
                }
                read => return read,
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.0.borrow().has_begun
    }

    fn take_error(&self) -> Option<io::Error> {
        self.0.borrow_mut().error.take()
    }
}

impl Read for &dyn Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read(buffer)
    }
}

impl Body<'_> {
    /// Whether it can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Stream(_, source) => !source.has_begun(),
            _ => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// The rights of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Whatever the client's keys allow.
    Keys,
    /// Without the master key, with which a sign-up does not log in and lock-outs do not count. The key is
    /// sent all the same if it is the only one.
    User,
}

impl Http {
    /// For the servers with these URLs, which have a WebSocket scheme.
    ///
    /// # Errors
    /// The errors of the settings for TLS and proxies.
    pub(crate) fn new(
        servers: &[Url],
        credentials: &Credentials,
        network: &Network,
        timeouts: (Duration, Duration),
    ) -> Result<Self> {
        let server = |url: &Url| {
            let mut base = url.clone();
            base.set_query(None);
            // The URL standard calls all four schemes special, so this cannot fail.
            let _ = base.set_scheme(if url.scheme() == "wss" { "https" } else { "http" });
            Ok(Server {
                url: base,
                name: authority(url),
                is_proxied: network.proxies.proxy_for(url)?.is_some(),
                agent: agent(url, network, timeouts)?,
                is_known: true,
            })
        };
        let Credentials {
            application_id,
            javascript_key,
            client_key,
            windows_key,
            rest_api_key,
            master_key,
            session_token: _,
            installation_id,
        } = credentials;
        let headers = [
            (
                "X-Parse-Application-Id",
                Some(Secret::from(application_id.as_str())),
            ),
            ("X-Parse-JavaScript-Key", javascript_key.clone()),
            ("X-Parse-Client-Key", client_key.clone()),
            ("X-Parse-Windows-Key", windows_key.clone()),
            ("X-Parse-REST-API-Key", rest_api_key.clone()),
            (MASTER_KEY, master_key.clone()),
            (
                "X-Parse-Installation-Id",
                installation_id.as_deref().map(Secret::from),
            ),
        ];
        Ok(Self {
            servers: servers.iter().map(server).collect::<Result<_>>()?,
            turn: AtomicUsize::new(0),
            application_id: application_id.clone(),
            headers: headers
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            has_other_keys: [javascript_key, client_key, windows_key, rest_api_key]
                .iter()
                .any(|key| key.is_some()),
            extra_headers: network.headers.iter().cloned().collect(),
            largest_answer: network.max_message_size as u64,
            network: network.clone(),
            timeouts,
        })
    }

    pub(super) fn application_id(&self) -> &str {
        &self.application_id
    }

    /// Makes a request once, to the server whose turn it is, and reads its answer.
    pub(super) fn request<T>(
        &self,
        request: &Request<'_>,
        read: impl FnOnce(&str) -> serde_json::Result<T>,
    ) -> Result<T, Failure> {
        self.dated(request, read).map(|(answer, _)| answer)
    }

    /// The same, with the time by the clock of the server that answers.
    pub(super) fn dated<T>(
        &self,
        request: &Request<'_>,
        read: impl FnOnce(&str) -> serde_json::Result<T>,
    ) -> Result<(T, Option<SystemTime>), Failure> {
        self.send(request, false, |server, mut response| {
            let date = response
                .headers()
                .get("Date")
                .and_then(|value| http_date(value.to_str().ok()?));
            let text = self
                .read(response.body_mut())
                .map_err(|error| server.unanswered(request.purpose, Stage::Sent, error))?;
            let answer = read(&text)
                .map_err(|error| Failure::unreadable(&server.name, request.purpose, &text, error))?;
            Ok((answer, date))
        })
    }

    /// Makes a request once, to the server whose turn it is or whose URL it names. The answer is not read
    /// yet.
    pub(super) fn open(&self, request: &Request<'_>) -> Result<Response<ureq::Body>, Failure> {
        self.send(request, true, |_, response| Ok(response))
    }

    fn send<T>(
        &self,
        request: &Request<'_>,
        is_content: bool,
        take: impl FnOnce(&Server, Response<ureq::Body>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Place::Url(url) = request.place {
            return match self.servers.iter().find(|server| server.has(url)) {
                Some(server) => self.ask(server, request, is_content, take),
                None => self.ask(
                    &self.stranger(url).map_err(Failure::lasting)?,
                    request,
                    is_content,
                    take,
                ),
            };
        }
        let turn = self.turn.load(Ordering::Relaxed);
        let Some(server) = self.servers.get(turn % self.servers.len().max(1)) else {
            let error = Error::new(ErrorKind::InvalidSetting, "there is no server to ask");
            return Err(Failure::lasting(error));
        };
        let answer = self.ask(server, request, is_content, take);
        if answer.as_ref().is_err_and(|failure| failure.passes) {
            self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        }
        answer
    }

    /// A server other than the Parse Servers: files may be stored anywhere.
    fn stranger(&self, url: &Url) -> Result<Server> {
        let mut base = url.clone();
        // The settings for TLS and proxies go by the scheme of a WebSocket.
        let _ = base.set_scheme(if url.scheme() == "https" { "wss" } else { "ws" });
        Ok(Server {
            url: url.clone(),
            name: authority(url),
            is_proxied: self.network.proxies.proxy_for(&base)?.is_some(),
            agent: agent(&base, &self.network, self.timeouts)?,
            is_known: false,
        })
    }

    fn ask<T>(
        &self,
        server: &Server,
        request: &Request<'_>,
        is_content: bool,
        take: impl FnOnce(&Server, Response<ureq::Body>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (answer, stage) = stage::watch(|| self.run(server, request, is_content));
        let mut response = answer.map_err(|error| {
            if let Body::Stream(_, source) = request.body {
                if let Some(error) = source.take_error() {
                    let text = format!("the data to {} cannot be read", request.purpose);
                    return Failure::lasting(Error::with_source(ErrorKind::InvalidValue, text, error));
                }
            }
            server.unanswered(request.purpose, stage, error)
        })?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return take(server, response);
        }
        let retry_after = response
            .headers()
            .get("Retry-After")
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let body = self
            .read(response.body_mut())
            .map_err(|error| server.unanswered(request.purpose, stage, error))?;
        Err(Failure::refused(&Refusal {
            server: &server.name,
            purpose: request.purpose,
            status,
            retry_after,
            body: &body,
        }))
    }

    fn run(
        &self,
        server: &Server,
        request: &Request<'_>,
        is_content: bool,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut url = server.url.clone();
        match request.place {
            Place::Path(parts) => {
                if let Ok(mut path) = url.path_segments_mut() {
                    path.pop_if_empty().extend(parts);
                }
            }
            Place::Url(place) => url = place.clone(),
        }
        let mut builder = ureq::http::Request::builder()
            .method(request.method.as_str())
            .uri(url.as_str());
        if server.is_known {
            for (name, value) in &self.extra_headers {
                builder = builder.header(name, value.reveal());
            }
            let leaves_master_key_out = request.role == Role::User && self.has_other_keys;
            for (name, value) in &self.headers {
                if !(leaves_master_key_out && *name == MASTER_KEY) {
                    builder = builder.header(*name, value.reveal());
                }
            }
            if let Some(token) = request.session_token {
                builder = builder.header("X-Parse-Session-Token", token);
            }
            if let Some(id) = request.id {
                builder = builder.header("X-Parse-Request-Id", id);
            }
        }
        let json = match request.body {
            Body::Nothing => None,
            Body::Json(json) => Some(Cow::Borrowed(&**json)),
            Body::Within(json) => Some(Cow::Owned(json(server.url.path()))),
            Body::Bytes(content_type, bytes) => {
                let request = typed(builder, content_type).body(*bytes)?;
                return server.agent.run(self.patient(server, request));
            }
            Body::Stream(content_type, source) => {
                let mut source = *source;
                // Without it, Parse Server holds all of a file in memory before it stores the first byte
                // (FilesRouter.js).
                let builder = typed(builder, content_type).header("X-Parse-Upload-Mode", "stream");
                let request = builder.body(SendBody::from_reader(&mut source))?;
                return server.agent.run(self.patient(server, request));
            }
        };
        match json {
            Some(json) => {
                let builder = builder.header("Content-Type", "application/json");
                server.agent.run(builder.body(&*json)?)
            }
            None if is_content => server.agent.run(self.patient(server, builder.body(())?)),
            None => server.agent.run(builder.body(())?),
        }
    }

    /// A request that may take as long as its content needs, while data moves.
    fn patient<S: AsSendBody>(
        &self,
        server: &Server,
        request: ureq::http::Request<S>,
    ) -> ureq::http::Request<S> {
        let (_, fetch_timeout) = self.timeouts;
        server
            .agent
            .configure_request(request)
            .timeout_send_body(None)
            .timeout_recv_body(None)
            .timeout_per_read(Some(fetch_timeout))
            .timeout_per_write(Some(fetch_timeout))
            // A file that is not on Parse Server may have moved; it is requested without keys.
            .max_redirects(if server.is_known { 0 } else { 5 })
            .build()
    }

    fn read(&self, body: &mut ureq::Body) -> Result<String, ureq::Error> {
        body.with_config().limit(self.largest_answer).read_to_string()
    }
}

impl Server {
    /// Whether this URL belongs to its REST API.
    fn has(&self, url: &Url) -> bool {
        let mount = self.url.path().trim_end_matches('/');
        let below = url.path().strip_prefix(mount);
        url.origin() == self.url.origin() && below.is_some_and(|below| below.starts_with('/'))
    }

    fn unanswered(&self, purpose: &str, stage: Stage, error: ureq::Error) -> Failure {
        Failure::unanswered(&self.name, purpose, stage, self.is_proxied, error)
    }
}

fn typed(builder: ureq::http::request::Builder, content_type: &str) -> ureq::http::request::Builder {
    builder.header("Content-Type", content_type)
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.servers.iter().map(|server| &server.name);
        f.debug_set().entries(names).finish()
    }
}

fn agent(
    url: &Url,
    network: &Network,
    (connect_timeout, fetch_timeout): (Duration, Duration),
) -> Result<Agent> {
    let proxy = proxy_for(url, network)?;
    let is_proxied = proxy.is_some();
    let config = Agent::config_builder()
        .timeout_connect(Some(connect_timeout))
        .timeout_resolve(Some(connect_timeout))
        .timeout_send_request(Some(fetch_timeout))
        .timeout_send_body(Some(fetch_timeout))
        .timeout_recv_response(Some(fetch_timeout))
        .timeout_recv_body(Some(fetch_timeout))
        // Keys are for this host only.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // Node.js closes a connection that was idle for 5 s, perhaps at the moment when it is used again.
        .max_idle_age(Duration::from_secs(3))
        .user_agent("")
        .proxy(proxy)
        .build();
    let connector =
        ().chain(SocksConnector::default())
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default());
    #[cfg(feature = "_tls")]
    if url.scheme() == "wss" {
        let connector = connector
            .chain(TlsConnector::new(network.tls.client_config()?))
            .chain(StageConnector { is_proxied });
        return Ok(Agent::with_parts(config, connector, StageResolver::default()));
    }
    let connector = connector.chain(StageConnector { is_proxied });
    Ok(Agent::with_parts(config, connector, StageResolver::default()))
}

fn proxy_for(url: &Url, network: &Network) -> Result<Option<ureq::Proxy>> {
    let Some(proxy) = network.proxies.proxy_for(url)? else {
        return Ok(None);
    };
    let protocol = match proxy.kind {
        ProxyKind::Http => ureq::ProxyProtocol::Http,
        ProxyKind::Socks5 => ureq::ProxyProtocol::Socks5,
        ProxyKind::Socks5h => ureq::ProxyProtocol::Socks5h,
    };
    let mut builder = ureq::Proxy::builder(protocol)
        .host(proxy.url.host_str().unwrap_or_default())
        .port(proxy.url.port_or_known_default().unwrap_or(80));
    if let Some(user) = &proxy.user {
        builder = builder
            .username(&String::from_utf8_lossy(&user.name))
            .password(&String::from_utf8_lossy(&user.password));
    }
    builder.build().map(Some).map_err(|error| {
        Error::with_source(
            ErrorKind::InvalidSetting,
            "the proxy cannot be used to fetch",
            error,
        )
    })
}

const MASTER_KEY: &str = "X-Parse-Master-Key";

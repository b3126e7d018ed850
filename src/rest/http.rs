//! One request of the REST API, with the keys, TLS and proxy settings of the client. It knows nothing of what is asked
//! for, and tries nothing twice.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ureq::Agent;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, SocksConnector, TcpConnector};
use url::Url;

use crate::driver::{Network, ProxyKind};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::spec::Credentials;
use crate::rest::failure::{Failure, Refusal};
use crate::rest::stage::{self, StageConnector, StageResolver};
#[cfg(feature = "_tls")]
use crate::rest::tls::TlsConnector;
use crate::secret::Secret;
use crate::server_url::authority;

/// The servers, one of which is asked at a time.
pub(crate) struct Http {
    servers: Vec<Server>,
    /// The one that is asked; the next one once it fails.
    turn: AtomicUsize,
    headers: Vec<(&'static str, Secret)>,
    /// Beside the master key.
    has_other_keys: bool,
    extra_headers: Vec<(String, Secret)>,
    largest_answer: u64,
}

struct Server {
    /// Of the REST API.
    url: Url,
    /// For messages.
    name: String,
    is_proxied: bool,
    agent: Agent,
}

/// What is asked of a server.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Below the URL of the REST API, part by part.
    pub(super) path: &'a [&'a str],
    pub(super) body: &'a Body<'a>,
    pub(super) role: Role,
    pub(super) session_token: Option<&'a str>,
    /// By which the server knows that a request is the same one again.
    pub(super) id: Option<&'a str>,
    /// What it is for, as in "the server did not ...".
    pub(super) purpose: &'a str,
}

/// JSON that goes with a request.
pub(super) enum Body<'a> {
    Nothing,
    Json(String),
    /// It depends on the path of the REST API.
    Within(&'a dyn Fn(&str) -> String),
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

/// What the client acts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Whatever its keys allow.
    Keys,
    /// Somebody without the master key, with which nobody is logged in at a sign-up, and lock-outs do not count. It is
    /// sent all the same if it is the only key.
    User,
}

impl Http {
    /// For the servers with these URLs, which have the scheme of a WebSocket.
    ///
    /// # Errors
    /// Those of the settings for TLS and proxies.
    pub(crate) fn new(
        servers: &[Url],
        credentials: &Credentials,
        network: &Network,
        timeouts: (Duration, Duration),
    ) -> Result<Self> {
        let server = |url: &Url| {
            let mut base = url.clone();
            base.set_query(None);
            // All four schemes are among those that the URL standard calls special, so this cannot fail.
            let _ = base.set_scheme(if url.scheme() == "wss" { "https" } else { "http" });
            Ok(Server {
                url: base,
                name: authority(url),
                is_proxied: network.proxies.proxy_for(url)?.is_some(),
                agent: agent(url, network, timeouts)?,
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
            headers: headers
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            has_other_keys: [javascript_key, client_key, windows_key, rest_api_key]
                .iter()
                .any(|key| key.is_some()),
            extra_headers: network.headers.iter().cloned().collect(),
            largest_answer: network.max_message_size as u64,
        })
    }

    /// Makes a request once, of the server whose turn it is, and reads its answer.
    pub(super) fn request<T>(
        &self,
        request: &Request<'_>,
        read: impl FnOnce(&str) -> serde_json::Result<T>,
    ) -> Result<T, Failure> {
        let turn = self.turn.load(Ordering::Relaxed);
        let Some(server) = self.servers.get(turn % self.servers.len().max(1)) else {
            let error = Error::new(ErrorKind::InvalidSetting, "there is no server to ask");
            return Err(Failure::lasting(error));
        };
        let answer = self.ask(server, request).and_then(|text| {
            read(&text).map_err(|error| Failure::unreadable(&server.name, request.purpose, &text, error))
        });
        if answer.as_ref().is_err_and(|failure| failure.passes) {
            self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        }
        answer
    }

    fn ask(&self, server: &Server, request: &Request<'_>) -> Result<String, Failure> {
        let mut url = server.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(request.path);
        }
        let mut builder = ureq::http::Request::builder()
            .method(request.method.as_str())
            .uri(url.as_str());
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
        let (answer, stage) = stage::watch(|| {
            let json = match request.body {
                Body::Nothing => None,
                Body::Json(json) => Some(Cow::Borrowed(&**json)),
                Body::Within(json) => Some(Cow::Owned(json(server.url.path()))),
            };
            let response = match json {
                Some(json) => {
                    let builder = builder.header("Content-Type", "application/json");
                    server.agent.run(builder.body(&*json)?)
                }
                None => server.agent.run(builder.body(())?),
            };
            let mut response = response?;
            let retry_after = response
                .headers()
                .get("Retry-After")
                .and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            let text = self.read(response.body_mut())?;
            Ok((response.status().as_u16(), retry_after, text))
        });
        let purpose = request.purpose;
        let (status, retry_after, text) = answer
            .map_err(|error| Failure::unanswered(&server.name, purpose, stage, server.is_proxied, error))?;
        if !(200..300).contains(&status) {
            return Err(Failure::refused(&Refusal {
                server: &server.name,
                purpose,
                status,
                retry_after,
                body: &text,
            }));
        }
        Ok(text)
    }

    fn read(&self, body: &mut ureq::Body) -> Result<String, ureq::Error> {
        body.with_config().limit(self.largest_answer).read_to_string()
    }
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
        // Keys are for this host alone.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // Node.js closes a connection that was idle for 5 s, perhaps just as it is used again.
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

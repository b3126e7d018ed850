//! `find()` by Parse Server's REST API, with the keys, TLS and proxy settings of the client. It knows nothing of sets,
//! and tries nothing twice.

#[cfg(feature = "_tls")]
mod tls;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, SocksConnector, TcpConnector};
use ureq::{Agent, Body};
use url::Url;

use crate::driver::{Network, ProxyKind};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch_error::FetchError;
use crate::object::Object;
use crate::protocol::spec::Credentials;
use crate::query::Query;
use crate::secret::Secret;
use crate::server_url::authority;
use crate::text::excerpt;

/// The servers that `find()` can be asked of, one of them at a time.
pub(crate) struct Rest {
    servers: Vec<Server>,
    /// The one that is asked; the next one once it fails.
    turn: AtomicUsize,
    headers: Vec<(&'static str, Secret)>,
    extra_headers: Vec<(String, Secret)>,
    largest_answer: u64,
}

struct Server {
    /// Of the REST API.
    url: Url,
    /// For messages.
    name: String,
    agent: Agent,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Failed {
    code: Option<i64>,
    error: Option<String>,
}

impl Rest {
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
            ("X-Parse-Master-Key", master_key.clone()),
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
            extra_headers: network.headers.iter().cloned().collect(),
            largest_answer: network.max_message_size as u64,
        })
    }

    /// Asks once, for one page.
    ///
    /// # Errors
    /// [`ErrorKind::Fetch`], with how long to wait before the next time if the server says so, or if it would answer the
    /// same.
    pub(crate) fn find(&self, query: &Query, session_token: Option<&str>) -> Result<Vec<Object>, FetchError> {
        let turn = self.turn.load(Ordering::Relaxed);
        let Some(server) = self.servers.get(turn % self.servers.len().max(1)) else {
            return Err(Error::new(ErrorKind::Fetch, "there is no server to ask").into());
        };
        let found = self.ask(server, query, session_token);
        if found.is_err() {
            self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        }
        found
    }

    fn ask(
        &self,
        server: &Server,
        query: &Query,
        session_token: Option<&str>,
    ) -> Result<Vec<Object>, FetchError> {
        let class_name = query.class_name();
        let failed = |error: ureq::Error| {
            let text = format!(
                "the objects of {class_name} cannot be fetched from {}",
                server.name
            );
            Error::with_source(ErrorKind::Fetch, text, error)
        };
        // As the JS SDK does it, since a `where` may be too long for a URL.
        let json = query.to_json()?;
        let body = match json.strip_prefix('{') {
            Some(members) => format!(r#"{{"_method":"GET",{members}"#),
            None => json,
        };
        let mut url = server.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["classes", class_name]);
        }
        let mut request = server.agent.post(url.as_str()).content_type("application/json");
        for (name, value) in &self.extra_headers {
            request = request.header(name, value.reveal());
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value.reveal());
        }
        if let Some(token) = session_token {
            request = request.header("X-Parse-Session-Token", token);
        }
        let mut response = request.send(body).map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("Retry-After")
            .and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok())
            .map_or(Duration::ZERO, Duration::from_secs);
        let text = self.read(response.body_mut()).map_err(failed)?;
        if status != 200 {
            return Err(refused(class_name, &server.name, status, retry_after, &text));
        }
        Ok(objects_in(&text, class_name, &server.name)?)
    }

    fn read(&self, body: &mut Body) -> Result<String, ureq::Error> {
        body.with_config().limit(self.largest_answer).read_to_string()
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.servers.iter().map(|server| &server.name);
        f.debug_set().entries(names).finish()
    }
}

fn objects_in(answer: &str, class_name: &str, server: &str) -> Result<Vec<Object>> {
    let found: Found<'_> = serde_json::from_str(answer).map_err(|error| {
        let text = format!(
            "{server} did not answer with the objects of {class_name}: {}; is this the URL of the REST API? \
             `ClientBuilder::rest_url` sets another one",
            excerpt(answer)
        );
        Error::with_source(ErrorKind::Fetch, text, error)
    })?;
    let object = |json: &RawValue| {
        let json = json.get();
        Object::from_frame(json.into(), 0..json.len(), None)
    };
    Ok(found.results.into_iter().map(object).collect())
}

fn refused(class_name: &str, server: &str, status: u16, retry_after: Duration, body: &str) -> FetchError {
    let failed: Option<Failed> = serde_json::from_str(body).ok();
    let (code, reason) = match failed {
        Some(Failed { code, error }) => (code, error.unwrap_or_default()),
        None => (None, excerpt(body).into_owned()),
    };
    let passes = matches!(status, 408 | 425 | 429 | 500..=599);
    let advice = match (status, code) {
        (300..=399, _) => "; it redirects: `ClientBuilder::rest_url` takes the right URL",
        (_, Some(209)) => "; the session token is no longer valid: log in again",
        (401 | 403, None) => {
            "; check the application id and the keys, of which one has to be among those of the server"
        }
        (_, Some(119)) => "; the class-level permissions do not allow it",
        (404, _) => "; is this the URL of the REST API? `ClientBuilder::rest_url` sets another one",
        _ => "",
    };
    let text =
        format!("{server} did not return the objects of {class_name}: HTTP {status}: {reason}{advice}");
    let error = match code {
        Some(code) => Error::server(ErrorKind::Fetch, code, text),
        None => Error::new(ErrorKind::Fetch, text),
    };
    let retry_after = if passes {
        retry_after.min(LONGEST_WAIT)
    } else {
        UNTIL_SOMETHING_CHANGES
    };
    FetchError { error, retry_after }
}

fn agent(
    url: &Url,
    network: &Network,
    (connect_timeout, fetch_timeout): (Duration, Duration),
) -> Result<Agent> {
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
        .user_agent("")
        .proxy(proxy_for(url, network)?)
        .build();
    let connector =
        ().chain(SocksConnector::default())
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default());
    #[cfg(feature = "_tls")]
    if url.scheme() == "wss" {
        let connector = connector.chain(tls::TlsConnector::new(network.tls.client_config()?));
        return Ok(Agent::with_parts(config, connector, DefaultResolver::default()));
    }
    Ok(Agent::with_parts(config, connector, DefaultResolver::default()))
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

/// What would be refused again is tried again all the same: somebody may put it right.
const UNTIL_SOMETHING_CHANGES: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The way to fetch for a client with these settings, unless it makes its connections itself.
pub(crate) fn for_client(
    servers: &[Url],
    credentials: &Credentials,
    network: &Network,
    timeouts: (Duration, Duration),
) -> Result<Option<Rest>> {
    if network.connector.is_some() {
        return Ok(None);
    }
    Rest::new(servers, credentials, network, timeouts).map(Some)
}

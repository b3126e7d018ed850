//! The live connection: the proxy, the upgrade, the keys, and subscriptions. It knows nothing about the
//! REST API.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use parse_livequery::{Client, Error, ErrorKind, Event, Query, Subscription};
use url::Url;

use super::report::{Finding, Step};
use super::way;
use crate::settings::{Role, Settings};

/// A client with one subscription, and its events.
pub(super) struct Listener {
    pub(super) role: Role,
    pub(super) events: Receiver<(Instant, Event)>,
    client: Client,
    subscription: Subscription,
}

impl Listener {
    pub(super) fn end(self) {
        self.subscription.unsubscribe();
        self.client.close();
    }
}

/// Connects once. The address is that of the server, if the connection is direct.
pub(super) fn connect(
    settings: &Settings,
    url: &Url,
    address: Option<SocketAddr>,
    tell: &mut dyn FnMut(Finding),
) -> Step<()> {
    let client = client(settings, Role::Configured)?;
    client.open();
    let start = Instant::now();
    let result = client.wait_open(PATIENCE);
    let time = start.elapsed();
    client.close();
    match result {
        Ok(()) => {
            let text = format!("the server takes the WebSocket and the keys, in {time:.0?}");
            tell(Finding::good("connection", text));
            Ok(())
        }
        Err(error) => Err(judge(settings, url, address, &error)),
    }
}

fn judge(settings: &Settings, url: &Url, address: Option<SocketAddr>, error: &Error) -> Finding {
    let cause = cause(error);
    match cause.kind() {
        ErrorKind::Refused if cause.code() == Some(4) => {
            let given = settings.given_keys();
            let given = if given.is_empty() {
                "no key at all".to_owned()
            } else {
                given.join(", ")
            };
            Finding::fault(
                "keys",
                "key",
                format!("The server refuses the keys. It got: {given}."),
                "LiveQuery requires one of the keys in `liveQuery.keyPairs` of the server's configuration; check \
                 there which, and give that one. Each SDK sends a different one: the JavaScript SDK its \
                 `javascript-key`, this program all that it has.",
            )
        }
        ErrorKind::Refused => Finding::fault(
            "keys",
            "connect-hook",
            format!("The server refuses the connection: {cause}."),
            "Its `beforeConnect` hook does this: check the server's Cloud Code for the reason.",
        ),
        ErrorKind::Proxy => Finding::fault(
            "proxy",
            "proxy",
            format!("{cause}."),
            "Ask the owner of the proxy to allow CONNECT to this server, or use no proxy: --without-proxy, or an \
             entry in NO_PROXY.",
        ),
        ErrorKind::Tls if url.scheme() == "ws" => speaks_tls(url),
        ErrorKind::Handshake
            if url.scheme() == "ws" && address.is_some_and(|address| way::speaks_tls(address, url)) =>
        {
            speaks_tls(url)
        }
        ErrorKind::Tls => Finding::fault("TLS", "tls", format!("{cause}."), "See the reason above."),
        ErrorKind::Handshake => Finding::fault(
            "upgrade",
            "upgrade",
            format!("The connection does not become a WebSocket: {cause}."),
            "Check the URL, that the server starts LiveQuery (`ParseServer.createLiveQueryServer(httpServer)` or \
             `startLiveQueryServer: true`), and that a reverse proxy before it passes on the headers `Upgrade` and \
             `Connection` (nginx: `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header \
             Connection \"upgrade\";`).",
        ),
        ErrorKind::Timeout => Finding::fault(
            "connection",
            "silent",
            format!("The server does not answer in time: {cause}."),
            "The connection is open, but no answer arrives. Either the server hangs, or a proxy in between holds \
             back data until it has more (nginx: `proxy_buffering off;`). Restart the server, and check the proxy.",
        ),
        _ => Finding::fault(
            "connection",
            "connection",
            format!("{cause}."),
            "Try again; if it always fails at the same point, check the log of the server.",
        ),
    }
}

fn speaks_tls(url: &Url) -> Finding {
    let port = url.port_or_known_default().unwrap_or_default();
    Finding::fault(
        "upgrade",
        "tls-port",
        format!("The port {port} speaks TLS, but the URL does not ask for it."),
        "Use `wss://` instead of `ws://`.",
    )
}

/// Subscribes in this role, and waits until the server has acknowledged it.
pub(super) fn subscribe(settings: &Settings, role: Role, query: &Query) -> Step<Listener> {
    let client = client(settings, role)?;
    let (told, events) = mpsc::channel();
    let subscription = client.subscription(query).on_any(move |event| {
        // If it fails, the checks have ended.
        let _ = told.send((Instant::now(), event.clone()));
    });
    let subscription = subscription.start().map_err(|error| {
        Finding::fault(
            "subscription",
            "query",
            format!("LiveQuery cannot answer this query: {error}."),
            "Change --where.",
        )
    })?;
    match subscription.wait_open(PATIENCE) {
        Ok(()) => Ok(Listener {
            role,
            events,
            client,
            subscription,
        }),
        Err(error) => {
            client.close();
            Err(refused(role, query.class_name(), &error))
        }
    }
}

fn refused(role: Role, class: &str, error: &Error) -> Finding {
    let cause = cause(error);
    let text = format!("The server refuses the subscription of {role} to {class}: {cause}.");
    let is_about = |word: &str| cause.to_string().contains(word);
    let fault = |name, cure: &str| Finding::fault("subscription", name, text.clone(), cure);
    match cause.code() {
        Some(141) if is_about("requestComplexity") => fault(
            "stand-alone",
            "The LiveQuery server of Parse Server 8.6 and later does not work in a separate process \
             (`parse-live-query-server`). Start it in the process of the Parse Server: \
             `ParseServer.createLiveQueryServer(httpServer)`.",
        ),
        Some(141) if is_about(".split is not a function") => fault(
            "subscribe-hook",
            "Parse Server 6.5 to 9.10 cannot handle `select` or `watch` for a class with a `beforeSubscribe` hook: \
             leave them out, or remove the hook.",
        ),
        // A hook uses other words.
        Some(119) if is_about("Permission denied") => fault(
            "clp",
            "The class-level permissions of the class do not allow `find` (or `get`, for one object) to this role: \
             allow it in the dashboard, or log in as a user who may (`livequery login`).",
        ),
        _ if is_about("$regex") => fault(
            "regex-forbidden",
            "The server forbids regular expressions (`requestComplexity.allowRegex: false`): search for a prefix \
             (`starts_with`), for equality, or have them allowed.",
        ),
        Some(_) => fault(
            "subscribe-hook",
            "This is usually a `beforeSubscribe` hook: check the server's Cloud Code for the class.",
        ),
        None if cause.kind() == ErrorKind::Timeout => fault(
            "silent",
            "The connection is there, but no answer arrives: either the server hangs, or a proxy in between \
             holds back data until it has more (nginx: `proxy_buffering off;`).",
        ),
        None => fault("subscription", "Try again, and check the log of the server."),
    }
}

pub(super) fn client(settings: &Settings, role: Role) -> Step<Client> {
    let builder = settings
        .builder(role)
        .max_attempts(1)
        .connect_timeout(PATIENCE)
        .ack_timeout(PATIENCE);
    builder.build().map_err(|error| {
        Finding::fault(
            "settings",
            "settings",
            format!("{error}."),
            "See `livequery --help`.",
        )
    })
}

/// Why the last attempt failed.
fn cause(error: &Error) -> &Error {
    match error.kind() {
        ErrorKind::GaveUp => error
            .source()
            .and_then(|source| source.downcast_ref())
            .unwrap_or(error),
        _ => error,
    }
}

/// How long the server may take for one step.
const PATIENCE: Duration = Duration::from_secs(8);

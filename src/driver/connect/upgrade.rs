//! The WebSocket upgrade: its request, and the meaning of the answer.
//!
//! tungstenite could do both, but would write the request, with the cookies and tokens in its headers, to its
//! log.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use url::{Position, Url};

use super::Failed;
use super::http::{Answer, SWITCHING_PROTOCOLS};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::server_url::{self, authority};
use crate::text::excerpt;

/// The headers of the request besides those of the WebSocket itself. `Debug` shows only their names.
#[derive(Clone)]
pub(crate) struct Headers(Vec<(String, Secret)>);

impl Headers {
    /// Sets a header, replacing any earlier value.
    pub(crate) fn set(&mut self, name: String, value: Secret) {
        self.0.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        self.0.push((name, value));
    }

    #[cfg(feature = "rest")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, Secret)> {
        self.0.iter()
    }

    pub(crate) fn user_agent(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("User-Agent"))
            .map(|(_, value)| value.reveal())
    }

    /// Checks whether they are valid.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, value) in &self.0 {
            let problem = if name.is_empty() || !name.bytes().all(is_token) {
                "its name is empty or has characters that are not allowed in a name"
            } else if RESERVED
                .iter()
                .any(|reserved| name.eq_ignore_ascii_case(reserved))
            {
                "the WebSocket upgrade sets it itself"
            } else if !value
                .reveal()
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
            {
                "its value has line breaks, control characters or characters outside ASCII; encode them, for \
                 example with Base64"
            } else {
                continue;
            };
            let name: String = name.escape_default().collect();
            let text = format!("the header `{name}` cannot be sent: {problem}");
            return Err(Error::new(ErrorKind::InvalidSetting, text));
        }
        Ok(())
    }
}

impl Default for Headers {
    fn default() -> Self {
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        Self(vec![("User-Agent".to_owned(), Secret::from(agent))])
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, value)| (name, value)))
            .finish()
    }
}

/// A requested upgrade.
#[derive(Debug)]
pub(crate) struct Upgrade {
    key: String,
}

/// The server's answer.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The WebSocket begins with these bytes.
    Accepted(Vec<u8>),
    Redirected(Url),
}

impl Upgrade {
    /// An upgrade, and the request for it.
    pub(crate) fn new(url: &Url, headers: &Headers) -> (Self, String) {
        let key = generate_key();
        let host = url.host_str().unwrap_or_default();
        // The `url` crate leaves out the default port of a scheme.
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
            &url[Position::BeforePath..Position::AfterQuery]
        );
        for (name, value) in &headers.0 {
            // Writing to a string cannot fail.
            let _ = write!(request, "{name}: {}\r\n", value.reveal());
        }
        request.push_str("\r\n");
        (Self { key }, request)
    }

    pub(crate) fn judge(&self, url: &Url, answer: Answer) -> Result<Verdict, Failed> {
        let server = authority(url);
        match answer.status {
            SWITCHING_PROTOCOLS => {}
            301 | 302 | 303 | 307 | 308 => {
                let target = answer.header("Location").unwrap_or_default();
                return Ok(Verdict::Redirected(server_url::redirected(url, target)?));
            }
            429 | 503 => {
                let text = format!(
                    "{server} answered the WebSocket upgrade with {}; it, or a proxy before it, is \
                     overloaded",
                    answer.summary()
                );
                return Err(Failed {
                    error: handshake(text),
                    retry_after: answer.retry_after(SystemTime::now()),
                });
            }
            400 if url.scheme() == "ws" && speaks_tls(&answer) => {
                let text = format!(
                    "{server} speaks TLS on this port; use `wss` or `https`, or the port without TLS: {}",
                    answer.summary()
                );
                return Err(Error::new(ErrorKind::Tls, text).into());
            }
            _ => {
                let text = format!(
                    "{server} answered the WebSocket upgrade with {}; check that LiveQuery is started on this server \
                     (`ParseServer.createLiveQueryServer`), and that a proxy before it passes the headers `Upgrade` \
                     and `Connection` on",
                    answer.summary()
                );
                return Err(handshake(text).into());
            }
        }
        let extension = answer.header("Sec-WebSocket-Extensions").map(str::trim);
        if let Some(extension) = extension.filter(|extension| !extension.is_empty()) {
            let text = format!(
                "{server} upgraded the connection with the extension `{}`, which was not requested; an \
                 extension is usually compression (`permessage-deflate`), so switch that off in the server, \
                 or in the proxy between",
                excerpt(extension)
            );
            return Err(handshake(text).into());
        }
        let wrong = if !answer.lists("Upgrade", "websocket") {
            "not to a WebSocket"
        } else if !answer.lists("Connection", "Upgrade") {
            "without a header `Connection: Upgrade`"
        } else if answer.header("Sec-WebSocket-Accept") != Some(&derive_accept_key(self.key.as_bytes())) {
            "with a key that is not for this connection"
        } else if answer.header("Sec-WebSocket-Protocol").is_some() {
            "to a subprotocol that was not requested"
        } else {
            return Ok(Verdict::Accepted(answer.rest));
        };
        let text = format!(
            "{server} upgraded the connection {wrong}; check what is between this machine and the server, \
             such as a proxy or a cache"
        );
        Err(handshake(text).into())
    }
}

/// Whether this is how nginx, Apache or Go answer plain HTTP on a TLS port.
fn speaks_tls(answer: &Answer) -> bool {
    let body = String::from_utf8_lossy(&answer.rest).to_lowercase();
    ["to https port", "to an https server", "ssl-enabled server port"]
        .iter()
        .any(|words| body.contains(words))
}

/// Whether this character may be in the name of a header (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn handshake(text: String) -> Error {
    Error::new(ErrorKind::Handshake, text)
}

/// Headers that the upgrade itself sets, and those that would give its request a body.
const RESERVED: [&str; 10] = [
    "Host",
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Accept",
    "Content-Length",
    "Transfer-Encoding",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::connect::http::Reader;

    #[test]
    fn header_table() {
        for (name, value, problem) in [
            ("Authorization", "Bearer a.b-c", ""),
            ("Cookie", "a=b; c=\"d\"", ""),
            ("X-Tab", "a\tb", ""),
            ("Origin", "https://example.com", ""),
            ("user-agent", "mine/1", ""),
            ("", "a", "name is empty"),
            ("A B", "a", "`A B`"),
            ("A:", "a", "not allowed in a name"),
            ("Evil\r\nX", "a", r"`Evil\r\nX`"),
            ("X-Evil", "secret\r\nX-Other: a", "line breaks"),
            ("X-Null", "secret\0", "control characters"),
            ("X-City", "secret é", "outside ASCII"),
            ("host", "a", "itself"),
            ("sec-websocket-key", "a", "itself"),
            ("Transfer-Encoding", "chunked", "itself"),
        ] {
            let mut headers = Headers::default();
            headers.set(name.to_owned(), Secret::from(value));
            let got = headers.check().map_err(|error| {
                assert_eq!(error.kind(), ErrorKind::InvalidSetting);
                error.to_string()
            });
            match got {
                Ok(()) => assert_eq!(problem, "", "{name}"),
                Err(text) => {
                    assert!(!problem.is_empty() && text.contains(problem), "{name}: {text}");
                    assert!(!text.contains("secret") && !text.contains('\r'), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn the_request_has_each_header_once_and_debug_has_no_value() {
        let url = Url::parse("ws://[::1]:1337/parse?a=b").unwrap();
        let mut headers = Headers::default();
        headers.set("X-Token".to_owned(), Secret::from("old"));
        headers.set("x-token".to_owned(), Secret::from("secret"));
        let (upgrade, request) = Upgrade::new(&url, &headers);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            request,
            format!(
                "GET /parse?a=b HTTP/1.1\r\nHost: [::1]:1337\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nUser-Agent: parse-livequery/{version}\r\n\
                 x-token: secret\r\n\r\n",
                upgrade.key
            )
        );
        let debug = format!("{headers:?}");
        assert!(debug.contains("x-token") && !debug.contains("secret"), "{debug}");
    }

    #[test]
    fn answer_table() {
        let with_tls = Url::parse("wss://example.com/parse").unwrap();
        let without_tls = Url::parse("ws://example.com/parse").unwrap();
        // The key and its answer are the example of RFC 6455, 1.3.
        let upgrade = Upgrade {
            key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
        };
        let good = "HTTP/1.1 101 Yes\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let moved = "HTTP/1.1 301 Moved\r\nLocation: ";
        for (answer, wanted) in [
            (good.to_owned(), "accepted"),
            (good.replace("WebSocket\r", "h2c\r"), "not to a WebSocket"),
            (
                good.replace("keep-alive, Upgrade", "close"),
                "Connection: Upgrade",
            ),
            (good.replace("s3p", "S3p"), "key that is not for this connection"),
            (
                good.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\r\n\r\n"),
                "a subprotocol",
            ),
            (
                "HTTP/1.1 404 No\r\n\r\nCannot GET /parse".to_owned(),
                "example.com:443 answered the WebSocket upgrade with HTTP 404 (`Cannot GET /parse`); check",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
                "HTTP 200; check that LiveQuery is started",
            ),
            (
                "HTTP/1.1 400 Bad Request\r\n\r\n<title>400 The plain HTTP request was sent to HTTPS port</title>"
                    .to_owned(),
                "example.com:80 speaks TLS on this port; use `wss`",
            ),
            (format!("{moved}/live\r\n\r\n"), "wss://example.com/live"),
            (format!("{moved}ws://example.com/live\r\n\r\n"), "without TLS"),
            (
                good.replace(
                    "\r\n\r\n",
                    "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
                ),
                "`permessage-deflate`, which was not requested; an extension is usually compression",
            ),
            (
                good.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions:\r\n\r\n"),
                "accepted",
            ),
            ("HTTP/1.1 302 Found\r\n\r\n".to_owned(), "without naming a location"),
        ] {
            let got = Reader::default()
                .read(&mut answer.as_bytes())
                .map(|read| {
                    let is_about_tls = answer.contains("HTTPS");
                    let url = if is_about_tls { &without_tls } else { &with_tls };
                    upgrade.judge(url, read.expect("complete"))
                });
            let got = match got.unwrap() {
                Ok(Verdict::Accepted(_)) => "accepted".to_owned(),
                Ok(Verdict::Redirected(url)) => url.to_string(),
                Err(Failed { error, .. }) => {
                    let is_about_tls = answer.contains("HTTPS");
                    let kind = if is_about_tls { ErrorKind::Tls } else { ErrorKind::Handshake };
                    assert_eq!(error.kind(), kind);
                    error.to_string()
                }
            };
            assert!(got.contains(wanted), "{answer}: {got}");
        }
    }
}

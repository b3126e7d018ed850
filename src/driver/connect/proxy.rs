//! Proxies: which one is between this machine and a server, and the tunnel through one that speaks HTTP
//! (CONNECT).
//!
//! A request to a proxy contains its password, so nothing here is logged, and errors only name its host and
//! port.

use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::http::Answer;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::server_url::authority;

/// The builder's settings for proxies.
#[derive(Clone, Debug)]
pub(crate) enum Proxies {
    Environment(Environment),
    Always(Secret),
    Never,
}

/// The environment variables, read as curl and browsers read them.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    /// For servers with TLS, with the name of the variable.
    https: Option<(&'static str, Secret)>,
    all: Option<(&'static str, Secret)>,
    exceptions: String,
}

impl Environment {
    /// Reads the variables; a lower-case name has precedence.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.trim().is_empty())?;
                Some((name, Secret::from(value.trim())))
            })
        };
        Self {
            https: first(["https_proxy", "HTTPS_PROXY"]),
            all: first(["all_proxy", "ALL_PROXY"]),
            exceptions: first(["no_proxy", "NO_PROXY"])
                .map(|(_, value)| value.reveal().to_owned())
                .unwrap_or_default(),
        }
    }

    fn proxy_for(&self, url: &Url) -> Option<&(&'static str, Secret)> {
        let https = self.https.as_ref().filter(|_| url.scheme() == "wss");
        https
            .or(self.all.as_ref())
            .filter(|_| !is_local(url) && !is_exception(&self.exceptions, url))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("https", &self.https)
            .field("all", &self.all)
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

impl Default for Proxies {
    fn default() -> Self {
        Self::Environment(Environment::read(|name| std::env::var(name).ok()))
    }
}

impl Proxies {
    /// The proxy for this server.
    ///
    /// # Errors
    /// If it is of a kind that cannot be used: bypassing it would be against the setting.
    pub(crate) fn proxy_for(&self, url: &Url) -> Result<Option<Proxy>> {
        match self {
            Self::Never => Ok(None),
            Self::Always(text) => Proxy::parse("`proxy`", text).map(Some),
            Self::Environment(environment) => environment
                .proxy_for(url)
                .map(|(name, text)| Proxy::parse(&format!("the environment variable `{name}`"), text))
                .transpose(),
        }
    }
}

/// One proxy.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    /// Its address, without user and password.
    pub(crate) url: Url,
    pub(crate) user: Option<User>,
}

/// The user for the proxy. The bytes are those of its URL, in any encoding.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    /// The client resolves names, and the proxy gets addresses.
    Socks5,
    /// The proxy resolves names.
    Socks5h,
}

impl Proxy {
    fn parse(setting: &str, text: &Secret) -> Result<Self> {
        let invalid = |problem: &str| {
            let text = format!(
                "{setting} {problem}; a proxy looks like `http://proxy.example.com:3128`, \
                 `http://user:password@proxy.example.com:3128` or `socks5h://proxy.example.com:1080`, and \
                 for a proxy of another kind, use `connect_with`"
            );
            Error::new(ErrorKind::InvalidSetting, text)
        };
        let text = text.reveal();
        let parsed = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("http://{text}"))
        };
        let mut url = parsed.map_err(|_| invalid("is not a URL"))?;
        let kind = match url.scheme() {
            "http" => Kind::Http,
            "socks5" => Kind::Socks5,
            "socks5h" => Kind::Socks5h,
            scheme => return Err(invalid(&format!("has the scheme `{scheme}`"))),
        };
        if kind != Kind::Http {
            // The URL standard does not parse the hosts of unknown schemes, so addresses are recognised here.
            let Some(host) = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned) else {
                return Err(invalid("is not a URL with a host"));
            };
            if let Ok(ip) = host.parse::<IpAddr>() {
                let _ = url.set_ip_host(ip);
            }
            if url.port().is_none() {
                let _ = url.set_port(Some(SOCKS_PORT));
            }
        }
        let user = (!url.username().is_empty() || url.password().is_some()).then(|| User {
            name: percent_decode_str(url.username()).collect(),
            password: percent_decode_str(url.password().unwrap_or_default()).collect(),
        });
        // Neither fails for a URL with a host, which each URL with this scheme has.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { kind, url, user })
    }

    /// The request for a tunnel to this server.
    pub(crate) fn request(&self, server: &Url, user_agent: Option<&str>) -> String {
        let server = authority(server);
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        let authorization = self.user.as_ref().map(|user| {
            let pair = [&*user.name, b":", &*user.password].concat();
            format!("Basic {}", BASE64.encode(&pair))
        });
        for (name, value) in [
            ("User-Agent", user_agent),
            ("Proxy-Authorization", authorization.as_deref()),
        ] {
            if let Some(value) = value {
                request.extend([name, ": ", value, "\r\n"]);
            }
        }
        request.push_str("\r\n");
        request
    }

    /// Whether the tunnel is open.
    pub(crate) fn judge(&self, server: &Url, answer: &Answer) -> Result<()> {
        let (proxy, server) = (authority(&self.url), authority(server));
        let text = match answer.status {
            200..300 if answer.rest.is_empty() => return Ok(()),
            200..300 => format!(
                "the proxy {proxy} sent data of its own after opening the tunnel to {server}; it is not a \
                 proxy for CONNECT"
            ),
            407 => {
                let methods = answer.header("Proxy-Authenticate").unwrap_or_default();
                let how = if self.user.is_some() {
                    "does not accept the user and password in its URL"
                } else {
                    "asks for a user and a password; put them into its URL, as in `http://user:password@…`"
                };
                let basic = "this client only supports `Basic`; use `connect_with` for another method";
                format!("the proxy {proxy} {how} (HTTP 407, it knows `{methods}`; {basic})")
            }
            _ => format!(
                "the proxy {proxy} did not open a tunnel to {server}: {}; check that it allows CONNECT to this port, or \
                 leave the proxy out for this server (`NO_PROXY`, `without_proxy`)",
                answer.summary()
            ),
        };
        Err(Error::new(ErrorKind::Proxy, text))
    }
}

/// Whether the server is on this machine, for which the environment's proxies are not used.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether `NO_PROXY` names the server: by its name, a domain above it, its address, a range of addresses
/// (`10.0.0.0/8`) or `*`, each with or without a port.
fn is_exception(exceptions: &str, url: &Url) -> bool {
    let Some(host) = url.host() else { return false };
    let ip = match &host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::from(*ip)),
        Host::Ipv6(ip) => Some(IpAddr::from(*ip)),
    };
    let port = url.port_or_known_default();
    exceptions
        .split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            if entry == "*" {
                return true;
            }
            if let Some((range, bits)) = entry.split_once('/') {
                return ip.is_some_and(|ip| is_in_range(ip, range, bits));
            }
            // An IPv6 address contains colons, and has a port only after brackets.
            let is_bare_v6 = entry.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
            let (name, wanted_port) = match entry.rsplit_once(':') {
                Some((name, digits)) if !is_bare_v6 => match digits.parse::<u16>() {
                    Ok(number) => (name, Some(number)),
                    Err(_) => (entry, None),
                },
                _ => (entry, None),
            };
            if wanted_port.is_some() && wanted_port != port {
                return false;
            }
            match (&host, ip) {
                (Host::Domain(host), _) => {
                    let name = name.trim_start_matches("*.").trim_start_matches('.');
                    let start = host.len().checked_sub(name.len());
                    let (above, end) = match start.and_then(|at| host.split_at_checked(at)) {
                        Some(parts) => parts,
                        None => return false,
                    };
                    !name.is_empty()
                        && end.eq_ignore_ascii_case(name)
                        && (above.is_empty() || above.ends_with('.'))
                }
                (_, Some(ip)) => {
                    let name = name.trim_start_matches('[').trim_end_matches(']');
                    name.parse() == Ok(ip)
                }
                (_, None) => false,
            }
        })
}

fn is_in_range(ip: IpAddr, range: &str, bits: &str) -> bool {
    let (Ok(range), Ok(bits)) = (range.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    // The bits of an address, in the upper part of the 128.
    let aligned = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let longest = if range.is_ipv4() { 32 } else { 128 };
    let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
    ip.is_ipv4() == range.is_ipv4() && bits <= longest && (aligned(ip) ^ aligned(range)) & mask == 0
}

/// The usual port of SOCKS.
const SOCKS_PORT: u16 = 1080;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::connect::http::Reader;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn environment(variables: &[(&str, &str)]) -> Proxies {
        Proxies::Environment(Environment::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        }))
    }

    #[test]
    fn environment_table() {
        let both = [("HTTPS_PROXY", "http://secure:1"), ("ALL_PROXY", "all:2")];
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: &[Case<'_>] = &[
            (&both, "wss://example.com/", "secure:1"),
            (&both, "ws://example.com/", "all:2"),
            (&both, "ws://localhost:1337/", "-"),
            (&both, "wss://a.localhost/", "-"),
            (&both, "ws://127.0.0.9/", "-"),
            (&both, "ws://[::1]/", "-"),
            (&both[..1], "ws://example.com/", "-"),
            (
                &[("https_proxy", "low:1"), ("HTTPS_PROXY", "high:1")],
                "wss://example.com/",
                "low:1",
            ),
            (
                &[("https_proxy", " "), ("HTTPS_PROXY", "high:1")],
                "wss://example.com/",
                "high:1",
            ),
            (
                &[("all_proxy", "http://u:secret@p/")],
                "wss://example.com/",
                "p:80",
            ),
            (
                &[("ALL_PROXY", "socks5://u:secret@p:1081")],
                "wss://example.com/",
                "p:1081",
            ),
            (
                &[("ALL_PROXY", "socks5h://[::1]")],
                "ws://example.com/",
                "[::1]:1080",
            ),
            (
                &[("ALL_PROXY", "socks4://u:secret@p:1080")],
                "wss://example.com/",
                "`ALL_PROXY` has the scheme `socks4`",
            ),
            (
                &[("ALL_PROXY", "socks5://:1080")],
                "wss://example.com/",
                "`ALL_PROXY` is not a URL",
            ),
            (&[("ALL_PROXY", "socks5://p:1080")], "ws://localhost/", "-"),
            (
                &[("HTTPS_PROXY", "http://")],
                "wss://example.com/",
                "`HTTPS_PROXY` is not a URL",
            ),
            (&[], "wss://example.com/", "-"),
        ];
        for (variables, server, wanted) in cases {
            let got = match environment(variables).proxy_for(&url(server)) {
                Ok(Some(proxy)) => authority(&proxy.url),
                Ok(None) => "-".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(
                got == *wanted || wanted.starts_with('`') && got.contains(wanted),
                "{variables:?} {server}: {got}"
            );
            assert!(!got.contains("secret"), "{got}");
        }
    }

    #[test]
    fn exception_table() {
        for (exceptions, server, is_excepted) in [
            ("*", "wss://example.com/", true),
            ("example.com", "wss://example.com/", true),
            ("EXAMPLE.com", "wss://example.com/", true),
            ("example.com", "wss://a.b.example.com/", true),
            (".example.com", "wss://a.example.com/", true),
            ("*.example.com", "wss://a.example.com/", true),
            ("example.com", "wss://badexample.com/", false),
            ("a.example.com", "wss://example.com/", false),
            ("example.com:443", "wss://example.com/", true),
            ("example.com:444", "wss://example.com/", false),
            ("other.com, example.com", "wss://example.com/", true),
            ("other.com example.com", "wss://example.com/", true),
            ("10.1.2.3", "ws://10.1.2.3/", true),
            ("10.1.2.3:81", "ws://10.1.2.3/", false),
            ("10.0.0.0/8", "ws://10.1.2.3/", true),
            ("10.0.0.0/8", "ws://11.1.2.3/", false),
            ("10.0.0.0/33", "ws://10.0.0.0/", false),
            ("0.0.0.0/0", "ws://11.1.2.3/", true),
            ("10.0.0.0/8", "ws://10.example.com/", false),
            ("2001:db8::1", "ws://[2001:db8::1]/", true),
            ("[2001:db8::1]:80", "ws://[2001:db8::1]/", true),
            ("[2001:db8::1]:81", "ws://[2001:db8::1]/", false),
            ("2001:db8::/32", "ws://[2001:db8::1]/", true),
            ("2001:db9::/32", "ws://[2001:db8::1]/", false),
            ("::/0", "ws://1.2.3.4/", false),
            ("", "ws://example.com/", false),
            (",. ,*.", "ws://example.com/", false),
            ("é.com", "ws://a.com/", false),
        ] {
            assert_eq!(
                is_exception(exceptions, &url(server)),
                is_excepted,
                "{exceptions} {server}"
            );
        }
    }

    #[test]
    fn the_request_has_user_and_password_and_nothing_shows_them() {
        let text = Secret::from("http://us%3Aer:pass%20word%2B%C3%A9@proxy:3128");
        let proxy = Proxy::parse("`proxy`", &text).unwrap();
        let pair = BASE64.encode("us:er:pass word+é".as_bytes());
        assert_eq!(
            proxy.request(&url("wss://[::1]/parse"), Some("me/1")),
            format!(
                "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nUser-Agent: me/1\r\n\
                 Proxy-Authorization: Basic {pair}\r\n\r\n"
            )
        );
        let debug = format!("{:?} {proxy:?}", Proxies::Always(text));
        assert!(
            !debug.contains("word%2B") && !debug.contains("pass word") && !debug.contains(&pair),
            "{debug}"
        );
    }

    #[test]
    fn answer_table() {
        let server = url("wss://example.com/parse");
        for (proxy, answer, wanted) in [
            ("http://p:1", "HTTP/1.0 200 Connection established\r\n\r\n", ""),
            ("http://p:1", "HTTP/1.1 204 Fine\r\nContent-Length: 0\r\n\r\n", ""),
            ("http://p:1", "HTTP/1.1 200 OK\r\n\r\n<html>", "data of its own"),
            (
                "http://p:1",
                "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
                "the proxy p:1 asks for a user and a password; put them into its URL",
            ),
            (
                "http://u:secret@p:1",
                "HTTP/1.1 407 Who\r\n\r\n",
                "does not accept the user and password",
            ),
            (
                "http://p:1",
                "HTTP/1.1 403 No\r\n\r\nForbidden port",
                "the proxy p:1 did not open a tunnel to example.com:443: HTTP 403 (`Forbidden port`); check",
            ),
            (
                "http://p:1",
                "HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n",
                "HTTP 301",
            ),
        ] {
            let proxy = Proxy::parse("`proxy`", &Secret::from(proxy)).unwrap();
            let answer = Reader::default().read(&mut answer.as_bytes()).unwrap().unwrap();
            match proxy.judge(&server, &answer) {
                Ok(()) => assert_eq!(wanted, "", "{answer:?}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Proxy);
                    let text = error.to_string();
                    assert!(!wanted.is_empty() && text.contains(wanted), "{answer:?}: {text}");
                    assert!(!text.contains("secret"), "{text}");
                }
            }
        }
    }
}

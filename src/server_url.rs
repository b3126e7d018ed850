//! The URL of a LiveQuery server, and where a redirect may lead. Must not know of sockets.

use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// The WebSocket URL for a URL of the program: the scheme is mapped, everything else is kept.
pub(crate) fn parse(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| {
        let text = "the server URL is not valid; it looks like `wss://parse.example.com/parse`";
        Error::with_source(ErrorKind::InvalidSetting, text, error)
    })?;
    web_socket(url).map_err(|problem| {
        let text = format!("the server URL {problem}");
        Error::new(ErrorKind::InvalidSetting, text)
    })
}

/// The target of a redirect, if it may be followed: keys only go to the host that the program named, and
/// never from TLS to a connection without it.
pub(crate) fn redirected(from: &Url, location: &str) -> Result<Url> {
    let refused = |problem: String| {
        let text = format!(
            "{} redirects the WebSocket upgrade to a location that {problem}; connect to the right URL from \
             the start",
            authority(from)
        );
        Err(Error::new(ErrorKind::Handshake, text))
    };
    if location.is_empty() {
        let text = format!(
            "{} redirects the WebSocket upgrade without naming a location",
            authority(from)
        );
        return Err(Error::new(ErrorKind::Handshake, text));
    }
    let Ok(mut to) = from.join(location) else {
        return refused("is not a URL".to_owned());
    };
    to.set_fragment(None);
    let to = match web_socket(to) {
        Ok(to) => to,
        Err(problem) => return refused(problem),
    };
    if to.host() != from.host() {
        let problem = format!(
            "is another host ({}), which must not get the keys and headers that are for this one",
            authority(&to)
        );
        return refused(problem);
    }
    if from.scheme() == "wss" && to.scheme() != "wss" {
        return refused(format!("is without TLS ({})", authority(&to)));
    }
    Ok(to)
}

/// The host and port of a server, for messages; a path or query may contain a secret.
pub(crate) fn authority(url: &Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(80)
    )
}

/// The URL with the scheme of a WebSocket, or what is wrong with it.
fn web_socket(mut url: Url) -> Result<Url, String> {
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        other => {
            return Err(format!(
                "has the scheme `{other}`; it must be `ws`, `wss`, `http` or `https`"
            ));
        }
    };
    if url.host_str().is_none_or(str::is_empty) {
        return Err("does not name a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "contains a user name or a password, which a WebSocket does not use; leave them out".to_owned(),
        );
    }
    if url.fragment().is_some() {
        return Err("has a fragment (`#…`), which is never sent; leave it out".to_owned());
    }
    // All four are among the schemes that the URL standard calls special, so this cannot fail.
    let _ = url.set_scheme(scheme);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_table() {
        for (given, connects_to) in [
            ("ws://example.com", "ws://example.com/"),
            ("wss://example.com", "wss://example.com/"),
            ("http://example.com/parse", "ws://example.com/parse"),
            ("https://example.com/parse/", "wss://example.com/parse/"),
            ("https://http.example.com/https", "wss://http.example.com/https"),
            (
                "http://http.example.com/http?q=http",
                "ws://http.example.com/http?q=http",
            ),
            (
                "https://example.com/a%20b?key=a%2Fb&c",
                "wss://example.com/a%20b?key=a%2Fb&c",
            ),
            ("http://http.example.com/http?q=http#", "fragment"),
            ("ws://[::1]:1337/parse", "ws://[::1]:1337/parse"),
            ("wss://[2001:DB8::0:1]/", "wss://[2001:db8::1]/"),
            ("ws://127.1:1337", "ws://127.0.0.1:1337/"),
            ("HTTP://EXAMPLE.com:80/", "ws://example.com/"),
            ("https://example.com:443/", "wss://example.com/"),
            ("https://example.com:80/", "wss://example.com:80/"),
            ("ws://example.com:443/", "ws://example.com:443/"),
            ("http://bücher.example/", "ws://xn--bcher-kva.example/"),
            ("wss://例え.テスト/parse", "wss://xn--r8jz45g.xn--zckzah/parse"),
            ("ftp://example.com", "`ftp`"),
            ("mailto:a@example.com", "`mailto`"),
            ("file:///etc/hosts", "`file`"),
            ("example.com", "not valid"),
            ("localhost:1337/parse", "`localhost`"),
            ("", "not valid"),
            ("ws://", "not valid"),
            ("ws://example.com:99999", "not valid"),
            ("ws://[::1", "not valid"),
            ("ws://a b/", "not valid"),
            ("ws://user:secret@example.com", "user name"),
            ("wss://secret@example.com", "user name"),
        ] {
            let got = match parse(given) {
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

    #[test]
    fn redirect_table() {
        for (from, location, leads_to) in [
            ("ws://a.example/parse", "/live?x=1", "ws://a.example/live?x=1"),
            ("ws://a.example/parse/", "live", "ws://a.example/parse/live"),
            (
                "ws://a.example/parse",
                "https://a.example/parse",
                "wss://a.example/parse",
            ),
            (
                "ws://a.example/parse",
                "wss://A.EXAMPLE:8443/",
                "wss://a.example:8443/",
            ),
            ("ws://a.example/parse", "//a.example:81/", "ws://a.example:81/"),
            ("ws://a.example/parse", "/live#top", "ws://a.example/live"),
            (
                "wss://a.example/parse",
                "https://a.example/parse/",
                "wss://a.example/parse/",
            ),
            ("wss://a.example/parse", "//a.example/b", "wss://a.example/b"),
            (
                "wss://a.example/parse",
                "http://a.example/parse",
                "without TLS (a.example:80)",
            ),
            (
                "wss://a.example/parse",
                "ws://a.example:443/parse",
                "without TLS (a.example:443)",
            ),
            (
                "wss://a.example/parse",
                "https://b.example/",
                "another host (b.example:443)",
            ),
            ("ws://a.example/parse", "//a.example.evil/", "another host"),
            ("ws://a.example/parse", "https://sub.a.example/", "another host"),
            ("ws://127.0.0.1/parse", "ws://localhost/parse", "another host"),
            ("ws://a.example/parse", "https://u:secret@a.example/", "user name"),
            ("ws://a.example/parse", "ftp://a.example/", "`ftp`"),
            ("ws://a.example/parse", "javascript:secret", "`javascript`"),
            ("ws://a.example/parse", "http://[", "not a URL"),
            ("ws://a.example/parse", "", "without naming a location"),
        ] {
            let got = match redirected(&Url::parse(from).unwrap(), location) {
                Ok(url) => url.to_string(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Handshake);
                    error.to_string()
                }
            };
            assert!(
                got == leads_to || got.contains(leads_to),
                "{from} -> {location}: {got}"
            );
            assert!(!got.contains("secret"), "{got}");
        }
    }
}

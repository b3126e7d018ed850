//! SOCKS proxies: those that do their work, and those that do not.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use parse_livequery::test_server::TestServer;
use parse_livequery::{Error, ErrorKind, Query};

use super::handshake::relay;
use super::*;
use crate::harness::*;
use crate::support::*;

const NAMED: &str = "ws://parse.invalid:1337/parse";

/// A SOCKS proxy that leads to one server. It records what it was asked for, as `kind address port user password`.
struct Socks {
    peer: Peer,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Socks {
    fn to(target: SocketAddr, user: Option<(&'static str, &'static str)>) -> Self {
        let asked = Arc::default();
        let of_peer: Arc<Mutex<Vec<String>>> = Arc::clone(&asked);
        let peer = Peer::new(move |_, stream| {
            if let Some(asked) = serve(&stream, user) {
                of_peer.lock().push(asked);
                relay(stream, target);
            }
        });
        Self { peer, asked }
    }

    fn url(&self, scheme: &str, user: &str) -> String {
        format!("{scheme}://{user}{}", self.peer.addr())
    }
}

fn serve(stream: &Socket, user: Option<(&str, &str)>) -> Option<String> {
    let take = |count: usize| {
        let mut bytes = vec![0; count];
        (&*stream).read_exact(&mut bytes).ok().map(|()| bytes)
    };
    // Byte by byte, since nothing says that an answer comes in one piece.
    let give = |bytes: &[u8]| {
        let mut stream = stream.clone();
        stream.tcp().set_nodelay(true).ok()?;
        bytes.iter().all(|byte| send(&mut stream, &[*byte])).then_some(())
    };
    let head = take(2)?;
    let methods = take(usize::from(head[1]))?;
    let mut known = String::new();
    match user {
        Some(wanted) if methods.contains(&2) => {
            give(&[5, 2])?;
            let length = take(2)?[1];
            let name = String::from_utf8(take(usize::from(length))?).ok()?;
            let length = take(1)?[0];
            let password = String::from_utf8(take(usize::from(length))?).ok()?;
            if (name.as_str(), password.as_str()) != wanted {
                give(&[1, 1])?;
                return None;
            }
            give(&[1, 0])?;
            known = format!(" {name} {password}");
        }
        Some(_) => {
            give(&[5, 0xff])?;
            return None;
        }
        None => give(&[5, 0])?,
    }
    let head = take(4)?;
    let address = match head[3] {
        1 => take(4)?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
        3 => {
            let length = take(1)?[0];
            String::from_utf8(take(usize::from(length))?).ok()?
        }
        _ => take(16)?.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let port = take(2)?;
    give(&[5, 0, 0, 3, 4])?;
    give(b"name\x00\x50")?;
    Some(format!(
        "{} {address} {}{known}",
        head[3],
        u16::from_be_bytes([port[0], port[1]])
    ))
}

/// What the first attempt to connect fails of.
#[track_caller]
fn failure(url: &str, proxy: &str) -> Error {
    let client = builder(url).proxy(proxy).build().unwrap();
    let events = record_client(&client);
    let failure = first_failure(&client, &events).value;
    client.close();
    failure.error().cloned().expect("a reason")
}

#[test]
fn the_way_leads_through_it() {
    let server = Server::auto();
    for (user, scheme, url, in_url, asked) in [
        (None, "socks5h", NAMED, "", "3 parse.invalid 1337"),
        (None, "socks5h", "ws://127.0.0.9:1337", "", "1 127.0.0.9 1337"),
        (None, "socks5", "ws://127.0.0.9", "", "1 127.0.0.9 80"),
        (
            None,
            "socks5",
            "ws://[::1]:7",
            "",
            "4 00000000000000000000000000000001 7",
        ),
        // A proxy that wants nobody's name gets none.
        (None, "socks5h", NAMED, "me:secret@", "3 parse.invalid 1337"),
        (
            Some(("m:e", "pass word")),
            "socks5h",
            NAMED,
            "m%3Ae:pass%20word@",
            "3 parse.invalid 1337 m:e pass word",
        ),
    ] {
        let proxy = Socks::to(server.addr(), user);
        let client = builder(url).proxy(proxy.url(scheme, in_url)).build().unwrap();
        client.open();
        client.wait_open(LONG).unwrap();
        assert_eq!(*proxy.asked.lock(), [asked], "{scheme} {url}");
        client.close();
    }
}

#[test]
fn with_socks5_the_name_is_resolved_here() {
    let server = Server::auto();
    let proxy = Socks::to(server.addr(), None);
    let client = builder("ws://localhost:1337")
        .proxy(proxy.url("socks5", ""))
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    let asked = proxy.asked.lock()[0].clone();
    assert!(asked == "1 127.0.0.1 1337" || asked.starts_with("4 "), "{asked}");
    client.close();
    let error = failure(NAMED, &proxy.url("socks5", ""));
    assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
}

#[test]
fn what_it_refuses_is_told() {
    let server = Server::auto();
    let proxy = Socks::to(server.addr(), Some(("me", "right")));
    for (user, words) in [("", "put them into its URL"), ("me:secret@", "does not accept")] {
        let error = failure(NAMED, &proxy.url("socks5h", user));
        assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && !text.contains("secret"), "{text}");
    }
    for (answer, words) in [
        (
            &b"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"[..],
            "refused the connection",
        ),
        (b"\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", "rules"),
        (b"\x05\x00\x05\x63\x00\x01\x00\x00\x00\x00\x00\x00", "99"),
        (b"\x04\x5a", "not a SOCKS5 proxy"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a SOCKS5 proxy"),
        (b"\x05\x00\x05\x00\x00\x09", "not a SOCKS5 proxy"),
        (b"\x05", "closed without an answer"),
    ] {
        let peer = Peer::new(move |_, mut stream| {
            let mut greeting = [0; 3];
            if stream.read_exact(&mut greeting).is_ok() {
                send(&mut stream, answer);
            }
        });
        let error = failure(NAMED, &format!("socks5h://{}", peer.addr()));
        assert_eq!(error.kind(), ErrorKind::Proxy, "{error}");
        assert!(error.to_string().contains(words), "{answer:?}: {error}");
    }
}

#[test]
fn one_that_says_nothing_is_given_up() {
    let peer = Peer::new(|_, mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let client = builder(NAMED)
        .proxy(format!("socks5h://{}", peer.addr()))
        .connect_timeout(ms(2000))
        .build()
        .unwrap();
    let events = record_client(&client);
    let failure = first_failure(&client, &events).value;
    let error = failure.error().expect("a reason");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("waiting for the proxy"), "{error}");
    client.close();
}

#[test]
fn the_environment_may_name_it() {
    let server = Server::auto();
    let proxy = Socks::to(server.addr(), Some(("me", "it")));
    let variables = [("ALL_PROXY", proxy.url("socks5h", "me:it@"))];
    let test = "the_environment_may_name_it";
    let child = in_own_process_with(module_path!(), test, 3 * LONG, &variables, || {
        let client = builder(NAMED).build().unwrap();
        client.open();
        client.wait_open(LONG).unwrap();
        client.close();
    });
    if child.is_some() {
        assert_eq!(*proxy.asked.lock(), ["3 parse.invalid 1337 me it"]);
    }
}

#[test]
fn a_live_set_fetches_through_it_too() {
    let server = TestServer::start().unwrap();
    server.create("Game", serde_json::json!({"score": 1}));
    let proxy = Socks::to(server.address(), Some(("m:e", "pass word")));
    let client = builder(NAMED)
        .proxy(proxy.url("socks5h", "m%3Ae:pass%20word@"))
        .build()
        .unwrap();
    let set = client.live_set(&Query::new("Game")).start().unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.snapshot().len(), 1);
    let asked = proxy.asked.lock().clone();
    assert!(asked.len() >= 2, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|asked| asked == "3 parse.invalid 1337 m:e pass word"),
        "{asked:?}"
    );
}

//! The way to the server: headers, redirects, answers that are no WebSocket, limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use parse_livequery::{Client, ClientBuilder, ClientState, Error, ErrorKind, Query};
use serde_json::json;

use crate::support::{LONG, Recorder, Server, Then, in_own_process, object};

fn builder(url: impl Into<String>) -> ClientBuilder {
    Client::builder(url, "app").reconnect_delay(Duration::from_millis(20), Duration::from_millis(200))
}

/// What the first attempt to connect fails of.
#[track_caller]
fn failure(builder: ClientBuilder) -> Error {
    let client = builder.build().unwrap();
    let errors = Recorder::new();
    let seen = errors.clone();
    client.on("reconnecting", move |event| {
        seen.push("client", "reconnecting", event.error().cloned());
    });
    client.open();
    let error = errors.wait_for("reconnecting").value.expect("a reason");
    client.close();
    error
}

/// Answers each upgrade request with this, whatever it is.
fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
    let server = Server::auto();
    server.on_accept(move |conn| {
        let request = conn.read_request();
        conn.send_raw(answer(&request).as_bytes());
        Then::Handled
    });
    server
}

fn moved(location: impl std::fmt::Display) -> String {
    format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn headers_reach_the_server() {
    let server = Server::auto();
    let client = builder(server.url())
        .header("Authorization", "Bearer one")
        .header("authorization", "Bearer two")
        .header("Origin", "https://example.com")
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    let request = server.conn(1).request().expect("was read");
    let lines: Vec<_> = request.lines().collect();
    let host = format!("Host: {}", server.addr());
    for wanted in [
        "GET /parse HTTP/1.1",
        &host,
        "authorization: Bearer two",
        "Origin: https://example.com",
        concat!("User-Agent: parse-livequery/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(lines.contains(&wanted), "{wanted}: {request}");
    }
    assert!(!request.contains("Bearer one"), "{request}");
    client.close();
}

#[test]
fn bad_headers_fail_when_the_client_is_built() {
    for (name, value) in [("A B", "c"), ("A", "b\r\nC: d"), ("Host", "example.com")] {
        let error = builder("ws://localhost").header(name, value).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
}

#[cfg(not(any(feature = "tls", feature = "webpki-roots", feature = "unstable-tls")))]
#[test]
fn without_tls_a_url_that_asks_for_it_fails_when_the_client_is_built() {
    for url in ["wss://localhost", "https://localhost"] {
        let error = builder(url).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(error.to_string().contains("cargo feature `tls`"), "{error}");
    }
}

/// Everything that is logged in this process, by this crate and the others.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {} {}", record.level(), record.target(), record.args());
        self.0.lock().push(line);
    }

    fn flush(&self) {}
}

#[test]
fn no_secret_is_logged() {
    in_own_process(module_path!(), "no_secret_is_logged", 3 * LONG, || {
        let lines: &'static Lines = Box::leak(Box::new(Lines(Mutex::default())));
        log::set_logger(lines).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let server = Server::auto();
        let redirect = answering({
            let addr = server.addr();
            move |_| moved(format!("ws://{addr}/parse?key=top-secret"))
        });
        let client = builder(format!("{}?key=top-secret", redirect.url()))
            .javascript_key("top-secret")
            .session_token("top-secret")
            .header("Authorization", "Bearer top-secret")
            .header("Cookie", "session=top-secret")
            .build()
            .unwrap();
        let subscription = client
            .subscription(&Query::new("Game"))
            .session_token("top-secret")
            .start()
            .unwrap();
        subscription.wait_open(LONG).unwrap();
        server.conn(1).cut();
        server.wait_op(2, "subscribe", 1);
        client.close();
        let lines = lines.0.lock();
        assert!(
            lines.iter().any(|line| line.starts_with("TRACE tungstenite")),
            "{lines:#?}"
        );
        let told: Vec<_> = lines.iter().filter(|line| line.contains("top-secret")).collect();
        assert!(told.is_empty(), "{told:#?}");
        assert!(!format!("{client:?} {subscription:?}").contains("top-secret"));
    });
}

#[test]
fn redirects_are_followed_on_the_same_host() {
    let server = Server::auto();
    let second = answering({
        let addr = server.addr();
        move |_| moved(format!("http://{addr}/live?x=1"))
    });
    let first = answering({
        let addr: SocketAddr = second.addr();
        move |request| match request.starts_with("GET /parse ") {
            true => moved("/elsewhere"),
            false => moved(format!("//{addr}/")),
        }
    });
    let client = builder(first.url())
        .header("Authorization", "Bearer")
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    assert_eq!((first.accepts(), second.accepts(), server.accepts()), (2, 1, 1));
    let request = server.conn(1).request().unwrap();
    assert!(
        request.starts_with("GET /live?x=1 ") && request.contains("Authorization: Bearer"),
        "{request}"
    );
    client.close();
}

#[test]
fn a_circle_of_redirects_ends() {
    let server = answering(|_| moved("/round"));
    let error = failure(builder(server.url()).reconnect_delay(LONG, LONG));
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("after 3 redirects"), "{error}");
    assert_eq!(server.accepts(), 4);
}

#[test]
fn secrets_are_not_carried_to_another_host() {
    let other = Server::auto();
    let server = answering({
        let port = other.addr().port();
        move |_| moved(format!("ws://localhost:{port}/parse"))
    });
    let error = failure(
        builder(server.url())
            .javascript_key("secret")
            .header("Cookie", "secret"),
    );
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("another host (localhost:"), "{error}");
    assert_eq!(other.accepts(), 0);
}

#[test]
fn an_answer_that_is_no_upgrade_says_what_it_was() {
    let server = answering(|_| {
        "HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\n\r\n<html>\r\n<center>502 Bad Gateway</center>"
            .to_owned()
    });
    let error = failure(builder(server.url()));
    assert_eq!(error.kind(), ErrorKind::Handshake);
    let text = error.to_string();
    for part in [
        &server.addr().to_string(),
        "HTTP 502 (`<html> <center>502 Bad Gateway</center>`)",
        "`ParseServer.createLiveQueryServer`",
        "`Upgrade` and `Connection`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_upgrade_that_comes_in_single_bytes_and_with_the_first_frame_is_one() {
    let server = Server::scripted();
    let client = builder(server.url()).build().unwrap();
    client.open();
    let conn = server.accept();
    conn.read_request();
    // More than 64 small packets, for which tungstenite's own handshake takes the server for an attacker.
    let answer = conn
        .switching_protocols()
        .replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "y".repeat(200)));
    for byte in answer.as_bytes() {
        conn.send_raw(&[*byte]);
    }
    conn.take_over();
    conn.expect_op("connect");
    conn.connected();
    client.wait_open(LONG).unwrap();
    client.close();
}

#[test]
fn a_message_over_the_limit_is_one_error_and_a_gap() {
    let server = Server::auto();
    let client = builder(server.url()).max_message_size(10_000).build().unwrap();
    let seen = Arc::new(Recorder::new());
    let (lost, events) = (Arc::clone(&seen), Recorder::new());
    client.on("reconnecting", move |event| {
        lost.push("client", "reconnecting", event.error().cloned())
    });
    let recorded = events.clone();
    let _subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| recorded.push("game", &event.kind().to_string(), event.clone()))
        .start()
        .unwrap();
    events.expect("open");
    server.emit(
        "create",
        &object("Game", "small", json!({"text": "x".repeat(9_000)})),
    );
    assert_eq!(events.expect("create").value.id(), Some("small"));

    server.emit(
        "create",
        &object("Game", "big", json!({"text": "x".repeat(10_000)})),
    );
    let error = events.expect("close").value.error().cloned().expect("a reason");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("`max_message_size`"), "{error}");
    assert!(events.expect("open").value.gap().is_some());
    server.emit("create", &object("Game", "after", json!({})));
    assert_eq!(events.expect("create").value.id(), Some("after"));
    assert_eq!(
        (seen.count("reconnecting"), client.state()),
        (1, ClientState::Connected)
    );
    client.close();
}

#[test]
fn messages_over_the_limit_again_and_again_are_waited_for_longer_and_longer() {
    let server = Server::auto();
    server.on_frame(|conn, frame| {
        if frame["op"] == "subscribe" {
            conn.answer(frame);
            conn.send(&json!({"op": "create", "text": "x".repeat(5_000)}));
            return Then::Handled;
        }
        Then::Default
    });
    let client = Client::builder(server.url(), "app")
        .reconnect_delay(Duration::from_millis(300), Duration::from_millis(300))
        .max_message_size(4_000)
        .build()
        .unwrap();
    let lost = Recorder::new();
    let seen = lost.clone();
    client.on("reconnecting", move |event| {
        seen.push("client", "reconnecting", event.attempt())
    });
    let _subscription = client.subscribe(&Query::new("Game")).unwrap();
    let attempts: Vec<_> = (0..3).map(|_| lost.wait_for("reconnecting")).collect();
    assert_eq!(
        attempts.iter().map(|seen| seen.value).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    // By the server's clock: a listener may be late, and then the next one seems to be early.
    let connects: Vec<_> = (1..=3)
        .map(|number| server.wait_op(number, "connect", 1)[0].at)
        .collect();
    assert!(
        connects
            .windows(2)
            .all(|two| two[1] - two[0] >= Duration::from_millis(300))
    );
    client.close();
}

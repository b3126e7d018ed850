//! Proxies, and connections that the program makes itself.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use parse_livequery::{Client, ClientBuilder, Error, ErrorKind, Query};
use serde_json::json;

use crate::support::{ConnectProxy, LONG, Recorder, Server, in_own_process_with, object};

/// A name that no name service knows.
const NAMED: &str = "ws://livequery.example/parse";

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

/// Subscribes, and gets an event.
#[track_caller]
fn works(client: &Client, server: &Server) {
    let events = Recorder::new();
    let seen = events.clone();
    let _subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| seen.push("game", &event.kind().to_string(), event.clone()))
        .start()
        .unwrap();
    events.expect("open");
    server.emit("create", &object("Game", "g1", json!({})));
    assert_eq!(events.expect("create").value.id(), Some("g1"));
}

#[test]
fn connect_proxy() {
    let server = Server::auto();
    let proxy = ConnectProxy::to(server.addr());
    let client = builder(NAMED)
        .proxy(proxy.url())
        .header("Authorization", "Bearer secret")
        .build()
        .unwrap();
    works(&client, &server);
    client.close();
    let request = &proxy.requests()[0];
    let version = env!("CARGO_PKG_VERSION");
    let wanted = format!(
        "CONNECT livequery.example:80 HTTP/1.1\r\nHost: livequery.example:80\r\nUser-Agent: parse-livequery/{version}\r\n\r\n"
    );
    assert_eq!(
        *request, wanted,
        "nothing that is for the server goes to the proxy"
    );
    let upgrade = server.conn(1).request().unwrap();
    assert!(
        upgrade.contains("Host: livequery.example\r\n") && upgrade.contains("Bearer secret"),
        "{upgrade}"
    );
}

#[cfg(any(feature = "tls", feature = "webpki-roots"))]
#[test]
fn tls_goes_through_a_proxy_from_end_to_end() {
    use crate::support::{Authority, TlsServer};

    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("livequery.example"), server.addr());
    let proxy = ConnectProxy::to(tls.addr());
    let client = builder("https://livequery.example/parse")
        .proxy(proxy.url())
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    works(&client, &server);
    client.close();
    assert!(proxy.requests()[0].starts_with("CONNECT livequery.example:443 "));
}

#[test]
fn a_proxy_with_a_password_gets_it_and_nobody_else() {
    let server = Server::auto();
    // "us:er" and "pass word", Base64.
    let proxy = ConnectProxy::with_authorization(server.addr(), "Basic dXM6ZXI6cGFzcyB3b3Jk");
    let error = failure(builder(NAMED).proxy(proxy.url()));
    assert_eq!(error.kind(), ErrorKind::Proxy);
    assert!(error.to_string().contains("put them into its URL"), "{error}");

    let with = |pair: &str| builder(NAMED).proxy(format!("http://{pair}@{}", proxy.addr()));
    let error = failure(with("us%3Aer:wrong-secret"));
    assert!(
        error
            .to_string()
            .contains("does not accept the user and password"),
        "{error}"
    );
    assert!(!error.to_string().contains("secret"), "{error}");

    let builder = with("us%3Aer:pass%20word");
    assert!(!format!("{builder:?}").contains("word@"), "{builder:?}");
    let client = builder.build().unwrap();
    works(&client, &server);
    client.close();
    assert!(!server.conn(1).request().unwrap().contains("Proxy-"));
}

#[test]
fn what_a_proxy_answers_and_does_not_answer_is_told() {
    let proxy = ConnectProxy::refusing("HTTP/1.1 403 Forbidden\r\n\r\nport 80 is closed");
    let error = failure(builder(NAMED).proxy(proxy.url()));
    assert_eq!(error.kind(), ErrorKind::Proxy);
    let text = error.to_string();
    assert!(
        text.contains("HTTP 403 (`port 80 is closed`)") && text.contains("`without_proxy`"),
        "{text}"
    );

    let silent = Server::scripted();
    let error = failure(
        builder(NAMED)
            .proxy(format!("http://{}", silent.addr()))
            .connect_timeout(Duration::from_secs(2)),
    );
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("waiting for the proxy"), "{error}");

    silent.refuse();
    let error = failure(builder(NAMED).proxy(format!("http://{}", silent.addr())));
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error
            .to_string()
            .contains(&format!("the proxy at {}", silent.addr())),
        "{error}"
    );
}

#[test]
fn bad_proxies_fail_when_the_client_is_built() {
    for (url, words) in [
        ("socks4://u:secret@localhost", "`socks4`"),
        ("socks5h://", "not a URL"),
        ("https://localhost", "`https`"),
        ("http://", "not a URL"),
        ("", "not a URL"),
    ] {
        let error = builder(NAMED).proxy(url).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("`connect_with`"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    let both = builder(NAMED)
        .proxy("http://localhost:1")
        .connect_with(|_, _| TcpStream::connect("localhost:1"));
    assert!(both.build().unwrap_err().to_string().contains("both set"));
}

#[test]
fn the_environment_names_the_proxy() {
    let server = Server::auto();
    let proxy = ConnectProxy::to(server.addr());
    let variables = [
        ("all_proxy", proxy.url()),
        ("no_proxy", "other.example, 10.0.0.0/8".to_owned()),
        ("LOCAL", server.url()),
    ];
    let test = "the_environment_names_the_proxy";
    let child = in_own_process_with(module_path!(), test, 3 * LONG, &variables, || {
        for builder in [builder(NAMED), builder(std::env::var("LOCAL").unwrap())] {
            let client = builder.build().unwrap();
            client.open();
            client.wait_open(LONG).unwrap();
            client.close();
        }
        let error = failure(builder(NAMED).without_proxy());
        assert_eq!(error.kind(), ErrorKind::Resolve);
    });
    if child.is_some() {
        assert_eq!(
            proxy.requests().len(),
            1,
            "the server on this machine is reached without it"
        );
    }
}

#[test]
fn the_program_brings_a_tcp_stream() {
    let server = Server::auto();
    let addr = server.addr();
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = Arc::clone(&asked);
    let client = builder("ws://[2001:db8::1]:1234/parse")
        .connect_with(move |host, port| {
            seen.lock().push((host.to_owned(), port));
            TcpStream::connect(addr)
        })
        .build()
        .unwrap();
    works(&client, &server);
    server.conn(1).cut();
    server.wait_op(2, "connect", 1);
    client.close();
    let wanted = ("2001:db8::1".to_owned(), 1234);
    assert_eq!(*asked.lock(), [wanted.clone(), wanted]);
}

#[cfg(unix)]
#[test]
fn the_program_brings_a_unix_stream() {
    use std::os::unix::net::UnixStream;

    let server = Server::auto();
    let addr = server.addr();
    let client = builder(NAMED)
        .connect_with(move |_, _| {
            let (ours, theirs) = UnixStream::pair()?;
            let server = TcpStream::connect(addr)?;
            let (from, to) = (server.try_clone()?, ours.try_clone()?);
            std::thread::spawn(move || {
                let _ = io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = io::copy(&mut &ours, &mut &server);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
            Ok::<_, io::Error>(theirs)
        })
        .build()
        .unwrap();
    works(&client, &server);
    client.close();
}

#[test]
fn a_connector_that_fails_or_panics_has_failed_and_is_asked_again() {
    let server = Server::auto();
    let addr = server.addr();
    let calls = AtomicUsize::new(0);
    let client = builder(NAMED)
        .connect_with(move |_, _| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err(io::Error::other("no way")),
            1 => panic!("in the program's own code"),
            _ => TcpStream::connect(addr),
        })
        .build()
        .unwrap();
    let errors = Recorder::new();
    let seen = errors.clone();
    client.on("reconnecting", move |event| {
        seen.push("client", "reconnecting", event.error().cloned())
    });
    client.open();
    for words in ["made no connection to livequery.example:80: no way", "panicked"] {
        let error = errors.wait_for("reconnecting").value.unwrap();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.to_string().contains(words), "{error}");
    }
    client.wait_open(LONG).unwrap();
    client.close();
}

#[test]
fn a_connector_that_blocks_holds_up_nothing_and_costs_one_thread() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let calls = Arc::new(AtomicUsize::new(0));
    let entered = Arc::clone(&calls);
    let client = builder(NAMED)
        .connect_timeout(Duration::from_millis(100))
        .close_timeout(4 * LONG)
        .connect_with(move |_, _| {
            entered.fetch_add(1, Ordering::Relaxed);
            let _ = wait.lock().recv();
            Err::<TcpStream, _>(io::Error::other("released"))
        })
        .build()
        .unwrap();
    let errors = Recorder::new();
    let seen = errors.clone();
    client.on("reconnecting", move |event| {
        seen.push("client", "reconnecting", event.error().cloned())
    });
    client.open();
    for _ in 0..4 {
        let error = errors.expect("reconnecting").value.unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("`connect_with`"), "{error}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    drop(release);
}

//! `wss`: who is trusted and who is not, and that TLS changes nothing else.

use std::time::{Duration, Instant};

use parse_livequery::{Client, ClientBuilder, ErrorKind, Query};
use serde_json::json;

use crate::support::{
    Authority, Conn, Farewell, LONG, Proxy, Recorder, Server, Then, TlsServer, object, wait_until,
    wait_until_within, watchdog,
};

fn builder(url: impl Into<String>) -> ClientBuilder {
    Client::builder(url, "app").reconnect_delay(Duration::from_millis(20), Duration::from_millis(200))
}

/// Waits for the first failure of an attempt to connect.
#[track_caller]
fn failure(builder: ClientBuilder) -> parse_livequery::Error {
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

#[track_caller]
fn refuses(builder: ClientBuilder, words: &[&str]) {
    let error = failure(builder);
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Tls, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn wss_default_works() {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    let client = builder(tls.url())
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    let events = Recorder::new();
    let seen = events.clone();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| seen.push("game", &event.kind().to_string(), event.clone()))
        .start()
        .unwrap();
    events.expect("open");
    server.emit(
        "create",
        &object("Game", "g1", json!({"name": "x".repeat(200_000)})),
    );
    assert_eq!(events.expect("create").value.id(), Some("g1"));

    client.close();
    events.expect("close");
    drop(subscription);
    wait_until("the client has said that nothing more comes", || {
        tls.close_notifies() == 1
    });
}

#[test]
fn an_unknown_authority_is_refused() {
    let server = Server::auto();
    let tls = TlsServer::new(&Authority::new().issue("127.0.0.1"), server.addr());
    refuses(
        builder(tls.url()),
        &["not signed by an authority", "`add_root_certificate`"],
    );
    let other = Authority::new();
    refuses(
        builder(tls.url()).add_root_certificate(&other.pem),
        &["not signed by an authority"],
    );
    assert!(
        server.received().is_empty(),
        "nothing was sent to a server that is not trusted"
    );
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("parse.example.com"), server.addr());
    refuses(
        builder(tls.url()).add_root_certificate(&authority.pem),
        &["another name", "parse.example.com"],
    );
}

#[test]
fn an_expired_certificate_is_refused() {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue_expired("127.0.0.1"), server.addr());
    refuses(
        builder(tls.url()).add_root_certificate(&authority.pem),
        &["has expired", "clock"],
    );
}

#[test]
fn a_server_without_tls_is_told_apart() {
    let server = Server::scripted();
    let client = builder(server.url().replace("ws:", "wss:"));
    let errors = std::thread::spawn(move || failure(client));
    let conn = server.accept();
    conn.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let error = errors.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[test]
fn a_server_that_hangs_up_in_the_handshake_is_reported_as_that() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    proxy.accept_and_close();
    refuses(
        builder(proxy.url().replace("ws:", "wss:")),
        &["TLS handshake", "failed"],
    );
}

#[test]
fn a_client_certificate_is_asked_for_and_shown() {
    let server = Server::auto();
    let authority = Authority::new();
    let clients = Authority::new();
    let tls = TlsServer::for_clients_of(&clients, &authority.issue("127.0.0.1"), server.addr());
    let trusting = || builder(tls.url()).add_root_certificate(&authority.pem);
    refuses(
        trusting(),
        &["accepts only clients with a certificate", "`client_certificate`"],
    );

    let known = clients.issue("client");
    let client = trusting()
        .client_certificate(&known.chain, &known.key)
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();
}

#[test]
fn bad_certificates_fail_when_the_client_is_built() {
    let authority = Authority::new();
    let (one, other) = (authority.issue("a"), authority.issue("b"));
    let cut_off = &authority.pem[..authority.pem.len() / 2];
    for (builder, words) in [
        (
            builder("wss://localhost").add_root_certificate("nothing"),
            "no certificate in PEM",
        ),
        (
            builder("wss://localhost").add_root_certificate(cut_off),
            "malformed PEM",
        ),
        (
            builder("ws://localhost").add_root_certificate(&one.key),
            "no certificate in PEM",
        ),
        (
            builder("wss://localhost").client_certificate(&one.chain, "no key"),
            "no private key",
        ),
        (
            builder("wss://localhost").client_certificate(&one.key, &one.key),
            "no certificate in PEM",
        ),
        (
            builder("wss://localhost").client_certificate(&one.chain, &other.key),
            "together",
        ),
    ] {
        let debug = format!("{builder:?}");
        assert!(!debug.contains("PRIVATE KEY"), "{debug}");
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[cfg(feature = "webpki-roots")]
#[test]
fn the_list_of_mozilla_can_be_chosen() {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    refuses(builder(tls.url()).webpki_roots(), &["not signed by an authority"]);
    let client = builder(tls.url())
        .webpki_roots()
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();
}

#[cfg(feature = "unstable-tls")]
#[test]
fn a_configuration_of_the_programs_own_is_used_as_it_is() {
    use parse_livequery::unstable_tls::{rustls, with_client_config};
    use rustls::pki_types::pem::PemObject;
    use std::sync::Arc;

    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    let mut roots = rustls::RootCertStore::empty();
    let config = |roots: &rustls::RootCertStore| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        Arc::new(config)
    };
    refuses(
        with_client_config(builder(tls.url()), config(&roots)),
        &["not signed by an authority"],
    );

    let pem = authority.pem.as_bytes();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(pem).unwrap())
        .unwrap();
    let client = with_client_config(builder(tls.url()), config(&roots))
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();

    let both = with_client_config(builder(tls.url()), config(&roots)).add_root_certificate(&authority.pem);
    assert!(
        both.build()
            .unwrap_err()
            .to_string()
            .contains("replaces the certificates")
    );
}

/// What the program gives to rustls is called where the I/O is done.
#[cfg(feature = "unstable-tls")]
#[test]
fn a_verifier_that_panics_costs_one_connection() {
    use parse_livequery::unstable_tls::{rustls, with_client_config};
    use rustls::DigitallySignedStruct;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Panics some times, and then trusts everybody.
    #[derive(Debug)]
    struct Panics(AtomicU32);

    impl ServerCertVerifier for Panics {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            let left = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            assert!(left.is_err(), "the verifier of the program");
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }

    let server = Server::auto();
    let tls = TlsServer::new(&Authority::new().issue("127.0.0.1"), server.addr());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Panics(AtomicU32::new(3))))
        .with_no_client_auth();
    let client = with_client_config(builder(tls.url()), Arc::new(config))
        .build()
        .unwrap();
    let errors = Recorder::new();
    let seen = errors.clone();
    client.on("reconnecting", move |event| {
        seen.push("client", "reconnecting", event.error().cloned());
    });
    let games = client.subscribe(&Query::new("Game")).unwrap();
    games.wait_open(LONG).unwrap();
    assert_eq!(errors.count("reconnecting"), 3);
    for error in errors.all() {
        let text = error.value.expect("a reason").to_string();
        assert!(
            text.contains("panicked") && text.ends_with(": the verifier of the program"),
            "{text}"
        );
    }
    client.close();
}

/// A link over a network that gives one byte at a time.
fn trickle(pause: Duration) {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    let proxy = Proxy::to(tls.addr());
    proxy.chunks_of(1, pause);
    let client = builder(proxy.url().replace("ws:", "wss:"))
        .connect_timeout(Duration::from_secs(600))
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    client.open();
    client.wait_open(Duration::from_secs(600)).unwrap();
    assert_eq!(server.accepts(), 1);
    client.close();
}

#[test]
fn a_handshake_of_single_bytes_succeeds() {
    watchdog(Duration::from_secs(120), || trickle(Duration::from_millis(1)));
}

#[test]
#[ignore = "takes two minutes"]
fn slow_tls_handshake() {
    watchdog(Duration::from_secs(600), || trickle(Duration::from_millis(50)));
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    let server = Server::scripted();
    let error = failure(builder(server.url().replace("ws:", "wss:")).connect_timeout(Duration::from_secs(2)));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("securing the connection with TLS"),
        "{error}"
    );
}

#[test]
fn a_close_is_clean_with_and_without_close_notify() {
    for farewell in [Farewell::CloseNotify, Farewell::Fin] {
        let server = Server::auto();
        let authority = Authority::new();
        let tls = TlsServer::with_farewell(&authority.issue("127.0.0.1"), server.addr(), farewell);
        let client = builder(tls.url())
            .add_root_certificate(&authority.pem)
            .close_timeout(4 * LONG)
            .build()
            .unwrap();
        let events = Recorder::new();
        let seen = events.clone();
        client.on("close", move |event| {
            seen.push("client", "close", event.error().cloned())
        });
        client.open();
        client.wait_open(LONG).unwrap();

        // The server ends it: the close frame is the reason that is reported, however TLS ends after it.
        server.conn(1).close(1001, "going away");
        let error = events.expect("close").value.expect("a reason");
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        assert!(error.to_string().contains("going away"), "{farewell:?}: {error}");

        // The client ends it, and waits for nothing that does not come.
        client.wait_open(LONG).unwrap();
        let start = Instant::now();
        client.close();
        assert!(start.elapsed() < LONG, "{farewell:?}: {:?}", start.elapsed());
        assert!(events.expect("close").value.is_none());
    }
}

#[test]
fn a_redirect_leads_to_tls_and_never_back() {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    let plain = Server::auto();
    plain.on_accept({
        let url = tls.url().replace("wss:", "https:");
        move |conn| {
            conn.read_request();
            let answer = format!("HTTP/1.1 308 Permanent Redirect\r\nLocation: {url}\r\n\r\n");
            conn.send_raw(answer.as_bytes());
            Then::Handled
        }
    });
    let trusting = |url: String| builder(url).add_root_certificate(&authority.pem);
    let client = trusting(plain.url()).build().unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();

    let back = plain.url();
    server.on_accept(move |conn| {
        conn.read_request();
        conn.send_raw(format!("HTTP/1.1 307 Away\r\nLocation: {back}\r\n\r\n").as_bytes());
        Then::Handled
    });
    let seen = plain.accepts();
    let error = failure(trusting(tls.url()));
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("is without TLS"), "{error}");
    assert_eq!(plain.accepts(), seen);
}

#[test]
fn a_cut_is_a_loss_and_the_link_comes_back() {
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    let client = builder(tls.url())
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    let events = Recorder::new();
    let seen = events.clone();
    let _subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| seen.push("game", &event.kind().to_string(), event.clone()))
        .start()
        .unwrap();
    events.expect("open");
    tls.cut();
    let closed = events.expect("close").value;
    assert_eq!(closed.error().unwrap().kind(), ErrorKind::ConnectionLost);
    assert!(events.expect("open").value.gap().is_some());
    client.close();
}

#[test]
fn a_burst_of_subscriptions_to_a_slow_reader_is_sent_in_full() {
    const COUNT: usize = 5_000;
    let server = Server::auto();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
    let client = builder(tls.url())
        .ack_timeout(Duration::from_secs(120))
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    let lost = Recorder::new();
    let seen = lost.clone();
    client.on("reconnecting", move |event| {
        seen.push("client", "reconnecting", event.error().cloned())
    });
    let opened = Recorder::new();
    let subscriptions: Vec<_> = (0..COUNT)
        .map(|number| {
            let seen = opened.clone();
            // Ten megabytes of queries: more than the buffers of both kernels and of rustls hold together.
            let query = Query::new("Game").equal_to("name", format!("{number} {}", "x".repeat(2_000)));
            client
                .subscription(&query)
                .on("open", move |event| {
                    seen.push("game", "open", event.gap().is_some())
                })
                .start()
                .unwrap()
        })
        .collect();
    wait_until_within(Duration::from_secs(180), "all subscriptions are open", || {
        opened.count("open") == COUNT
    });

    tls.read_slowly(Duration::from_millis(2));
    tls.cut();
    wait_until_within(
        Duration::from_secs(180),
        "all subscriptions are open again",
        || opened.count("open") == 2 * COUNT,
    );
    assert_eq!(lost.count("reconnecting"), 1, "{:?}", lost.all());
    assert_eq!(server.conn(2).subscriptions_to("Game").len(), COUNT);
    assert!(
        opened.all().iter().skip(COUNT).all(|seen| seen.value),
        "each has its gap"
    );
    client.close();
    drop(subscriptions);
}

#[test]
fn messages_of_all_sizes_arrive_in_full_and_in_order() {
    const COUNT: usize = 600;
    watchdog(4 * LONG, || {
        let server = Server::auto();
        let authority = Authority::new();
        let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
        let client = builder(tls.url())
            .add_root_certificate(&authority.pem)
            .build()
            .unwrap();
        let events = Recorder::new();
        let seen = events.clone();
        let _subscription = client
            .subscription(&Query::new("Game"))
            .on_any(move |event| {
                let text = event.get_str("text").map(str::to_owned);
                seen.push(
                    "game",
                    &event.kind().to_string(),
                    (event.id().map(str::to_owned), text),
                );
            })
            .start()
            .unwrap();
        events.expect("open");
        // From one byte to some records of TLS, and around the sizes of records and of what is read in one turn.
        let text = |number: usize| {
            let length = match number % 6 {
                0 => number,
                1 => 16_384 - 200 + number,
                2 => 65_536 - 200 + number,
                3 => 131_072 + number,
                _ => number * 7_919 % 30_000,
            };
            let letters = (0..length).map(|at| char::from(b'a' + ((at * 31 + number) % 26) as u8));
            letters.collect::<String>()
        };
        let conn = server.conn(1);
        let id = conn.subscriptions_to("Game")[0];
        for from in (0..COUNT).step_by(20) {
            let message = |number: usize| {
                let object = object("Game", &number.to_string(), json!({ "text": text(number) }));
                conn.event_message("create", id, object, None)
            };
            let messages: Vec<_> = (from..from + 20).map(message).collect();
            conn.send_raw(&Conn::frames_of(&messages));
        }
        for number in 0..COUNT {
            let (id, had) = events.expect("create").value;
            assert_eq!(id, Some(number.to_string()));
            assert!(had == Some(text(number)), "the text of {number} is another");
        }
        client.close();
    });
}

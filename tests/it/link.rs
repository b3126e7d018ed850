//! The link: it does not die unnoticed, it comes back whatever went wrong, and there is only ever one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parse_livequery::{ClientState, ErrorKind, Query};
use serde_json::json;
use tungstenite::protocol::frame::coding::Control;

use crate::harness::*;
use crate::support::*;

#[test]
fn half_open_detected() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    let (idle, pong) = (ms(500), ms(2000));
    let client = builder(&proxy.url())
        .idle_ping(idle)
        .pong_timeout(pong)
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let alive = Instant::now();
    let (_subscription, events) = subscribe(&client, "Game");
    proxy.blackhole();
    let (start, gone) = (Instant::now(), SystemTime::now());

    let close = events.expect("close");
    let silence = close.at - alive;
    assert!(silence >= idle + pong, "without a proof: after {silence:?}");
    let took = close.at - start;
    assert!(took <= idle + pong + SLACK, "noticed after {took:?}");
    assert_eq!(close.value.error().unwrap().kind(), ErrorKind::Timeout);
    client_events.expect("open");
    assert_eq!(
        client_events.expect("close").value.error().unwrap().kind(),
        ErrorKind::Timeout
    );
    client_events.expect("reconnecting");
    assert_eq!(client.state(), ClientState::Reconnecting);

    proxy.heal();
    let open = events.expect("open").value;
    let gap = open.gap().unwrap();
    assert!(gap.start() <= gone.into() && gap.end() >= gone.into(), "{gap:?}");
    assert_eq!(client.state(), ClientState::Connected);
    assert_eq!(proxy.max_open(), 1);
}

#[test]
fn heartbeat_survives_traffic() {
    let server = Server::auto();
    let pong_timeout = Duration::from_secs(2);
    let client = builder(&server.url())
        .idle_ping(ms(500))
        .pong_timeout(pong_timeout)
        .build()
        .unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    // A server that answers no ping, and talks.
    let conn = server.conn(1);
    conn.answer_pings(false);
    let pings = || {
        let controls = conn.controls();
        controls.iter().filter(|(kind, _)| *kind == Control::Ping).count()
    };
    wait_until("the client asks", || pings() > 0);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < 2 * pong_timeout {
        server.emit("create", &object("Game", "a", json!({})));
        sent += 1;
        events.expect("create");
        thread::park_timeout(ms(100));
    }
    assert!(sent > 3);
    assert_eq!(server.accepts(), 1);
    // When it stops talking it is found to be gone.
    events.expect("close");
}

#[test]
fn sending_is_no_proof_of_life() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    let client = builder(&proxy.url())
        .idle_ping(ms(500))
        .pong_timeout(ms(500))
        .build()
        .unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    proxy.blackhole();
    let talking = Arc::new(AtomicBool::new(true));
    let talker = {
        let (client, talking) = (client.clone(), Arc::clone(&talking));
        thread::spawn(move || {
            // Kept, since one that is dropped at once need not be sent.
            let mut subscriptions = vec![];
            while talking.load(Ordering::Relaxed) {
                subscriptions.push(client.subscribe(&Query::new("Other")).unwrap());
                thread::park_timeout(ms(20));
            }
        })
    };
    let close = events.expect("close");
    talking.store(false, Ordering::Relaxed);
    talker.join().unwrap();
    assert_eq!(close.value.error().unwrap().kind(), ErrorKind::Timeout);
}

#[test]
fn part_of_a_message_is_a_proof_of_life() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    let silence = Duration::from_secs(1);
    let client = builder(&proxy.url())
        .idle_ping(silence)
        .pong_timeout(silence)
        .build()
        .unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    // A byte each 25 ms: the event takes longer than the client would wait for an answer.
    proxy.chunks_of(1, ms(25));
    let start = Instant::now();
    server.emit("create", &object("Game", "a", json!({})));
    events.expect("create");
    assert!(start.elapsed() > 2 * silence, "too quick to show anything");
    proxy.heal();
    assert_eq!(proxy.accepts(), 1);
}

/// A way for an attempt to connect to fail, and how many times it is tried.
type Fault = (&'static str, fn(&Server));

const FAULTS: [Fault; 12] = [
    ("reset when accepted", |server| {
        server.on_accept(|conn| {
            conn.reset();
            Then::Handled
        });
    }),
    ("closed when accepted", |server| {
        server.on_accept(|conn| {
            conn.cut();
            Then::Handled
        });
    }),
    ("no answer to the upgrade", |server| {
        server.on_accept(|_| Then::Handled)
    }),
    ("HTTP 502", |server| {
        answer_upgrade(server, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad");
    }),
    ("HTTP 302", |server| {
        answer_upgrade(
            server,
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
        );
    }),
    ("half an answer to the upgrade", |server| {
        answer_upgrade(server, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs");
    }),
    ("wrong accept key", |server| {
        let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
        answer_upgrade(server, text);
    }),
    ("not HTTP", |server| {
        answer_upgrade(server, "\0\u{1}SSH-2.0-nonsense\r\n\r\n")
    }),
    ("no answer to connect", |server| {
        server.on_frame(|_, _| Then::Handled)
    }),
    ("cut instead of connected", |server| {
        server.on_frame(|conn, _| {
            conn.cut();
            Then::Handled
        });
    }),
    ("reset instead of connected", |server| {
        server.on_frame(|conn, _| {
            conn.reset();
            Then::Handled
        });
    }),
    ("closed instead of connected", |server| {
        server.on_frame(|conn, _| {
            conn.close(1011, "internal error");
            Then::Handled
        });
    }),
];

fn answer_upgrade(server: &Server, answer: &'static str) {
    server.on_accept(move |conn| {
        conn.read_request();
        conn.send_raw(answer.as_bytes());
        conn.cut();
        Then::Handled
    });
}

#[test]
fn every_stage_failure_heals() {
    const FAILURES: usize = 50;
    let stages = FAULTS.map(|(name, fault)| {
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let server = Server::auto();
            fault(&server);
            heals_after(name, &server, FAILURES, || server.heal());
        })
    });
    let refused = thread::spawn(|| {
        let server = Server::auto();
        server.refuse();
        heals_after("refused", &server, FAILURES, || server.listen_again());
    });
    let failed: Vec<_> = stages
        .into_iter()
        .map(|stage| stage.unwrap().join())
        .chain([refused.join()])
        .filter(Result::is_err)
        .collect();
    assert!(failed.is_empty(), "{} stages did not heal", failed.len());
}

fn heals_after(name: &str, server: &Server, failures: usize, heal: impl FnOnce()) {
    let client = builder(&server.url())
        .reconnect_delay(ms(1), ms(5))
        .connect_timeout(ms(150))
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let events = Events::new();
    let subscription = subscribe_into(&client, "Game", &events);
    for attempt in 1..=failures {
        let event = client_events.wait_for("reconnecting").value;
        assert_eq!(
            event.attempt().map(|attempt| attempt as usize),
            Some(attempt),
            "{name}"
        );
        assert!(event.error().is_some(), "{name}");
    }
    assert_eq!(events.all().len(), 0, "{name}");
    heal();
    client_events.wait_for("open");
    subscription.wait_open(LONG).unwrap();
    server.wait_subscribed("Game");
    server.emit("create", &object("Game", "a", json!({})));
    assert_eq!(
        events.expect("open").value.gap(),
        None,
        "{name}: nothing was missed yet"
    );
    events.expect("create");
    assert!(server.max_open() <= 1, "{name}");
}

#[test]
fn never_gives_up() {
    let server = Server::auto();
    server.refuse();
    let client = builder(&server.url())
        .reconnect_delay(ms(1), ms(2))
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let events = Events::new();
    let _subscription = subscribe_into(&client, "Game", &events);
    for attempt in 1..=500 {
        assert_eq!(
            client_events.wait_for("reconnecting").value.attempt(),
            Some(attempt)
        );
    }
    assert_eq!(client.state(), ClientState::Reconnecting);
    server.listen_again();
    events.expect("open");
}

#[test]
fn client_before_server() {
    let server = Server::auto();
    server.refuse();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let events = Events::new();
    let subscription = subscribe_into(&client, "Game", &events);
    let error = client_events.wait_for("reconnecting").value;
    assert_eq!(error.error().unwrap().kind(), ErrorKind::Connect);
    let late = subscription.wait_open(ms(1)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.to_string().to_lowercase().contains("refused"), "{late}");
    server.listen_again();
    subscription.wait_open(LONG).unwrap();
    events.expect("open");
    assert_eq!(client_events.count("close"), 0);
    assert_eq!(client_events.count("error"), 1);
}

/// A program that does not want to wait for ever says how long it waits, and learns what the last attempt failed of.
#[test]
fn wait_open_tells_what_the_last_attempt_failed_of() {
    let server = Server::auto();
    server.refuse();
    let client = client(&server.url());
    let client_events = record_client(&client);
    client.open();
    client_events.wait_for("reconnecting");
    answer_upgrade(&server, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    server.listen_again();
    client_events.wait_where("an attempt that meets the 404", |seen| {
        seen.value
            .error()
            .is_some_and(|error| error.kind() == ErrorKind::Handshake)
    });
    client_events.wait_for("reconnecting");
    let error = client.wait_open(ms(1)).unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[test]
fn accept_then_kick_backs_off() {
    for kick_at in ["connect", "subscribe"] {
        let server = Server::auto();
        server.on_frame(move |conn, frame| {
            if frame["op"] != kick_at {
                return Then::Default;
            }
            conn.answer(frame);
            conn.cut();
            Then::Handled
        });
        let floor = ms(50);
        let client = builder(&server.url())
            .reconnect_delay(floor, ms(100))
            .build()
            .unwrap();
        let client_events = record_client(&client);
        let _subscription = client.subscribe(&Query::new("Game")).unwrap();
        for attempt in 1..=10 {
            client_events.expect("open");
            client_events.expect("close");
            let reconnecting = client_events.expect("reconnecting");
            // Not reset by a link that was made and then not kept.
            assert_eq!(reconnecting.value.attempt(), Some(attempt), "{kick_at}");
            let delay = reconnecting.value.delay().unwrap();
            assert!((floor..=ms(100)).contains(&delay), "{delay:?}");
        }
        // By the server's clock: it reads the one before it kicks, and the next after the delay.
        for pair in server.received_op("connect").windows(2) {
            let waited = pair[1].at - pair[0].at;
            assert!(waited >= floor, "{kick_at}: {waited:?}");
        }
    }
}

#[test]
fn single_socket_invariant() {
    let server = Server::auto();
    let subscribes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&subscribes);
    server.on_frame(move |conn, frame| {
        // Code 2 says that the server does not know this client: that takes a new connection.
        if frame["op"] == "subscribe" && count.fetch_add(1, Ordering::Relaxed) % 50 == 49 {
            let text = "Can not find this client, make sure you connect to server before subscribing";
            conn.error(2, text, true, None);
            return Then::Handled;
        }
        Then::Default
    });
    let client = client(&server.url());
    let events = Events::new();
    let kept = subscribe_into(&client, "Kept", &events);
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let client = client.clone();
            thread::spawn(move || {
                for round in 0..100 {
                    client.open();
                    let subscription = client.subscribe(&Query::new(format!("T{thread}"))).unwrap();
                    if round % 10 == 0 {
                        subscription.wait_open(LONG).unwrap();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    server.heal();
    // An error may still be on its way, and it ends the connection that it comes on. The server answers in order, so a
    // connection on which something newer is acknowledged is there to stay.
    fence(&client);
    kept.wait_open(LONG).unwrap();
    assert!(server.accepts() > 1, "the server errors had no effect");
    assert!(server.max_open() <= 1, "{} at once", server.max_open());
    // The server may be late to notice that the client has left the others.
    wait_until("one connection is left", || server.open_conns().len() == 1);
    events.drain();
    assert_eq!(server.emit("create", &object("Kept", "a", json!({}))), 1);
    assert_eq!(server.emit("delete", &object("Kept", "a", json!({}))), 1);
    events.wait_for("delete");
    let creates = events.all().iter().filter(|seen| seen.kind == "create").count();
    assert_eq!(creates, 1);
}

#[test]
fn closing_and_opening_keeps_one_socket() {
    let server = Server::auto();
    let client = client(&server.url());
    for _ in 0..50 {
        let (_subscription, _events) = subscribe(&client, "Game");
        client.close();
    }
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || {
                for _ in 0..50 {
                    client.subscribe(&Query::new("Game")).unwrap().detach();
                    client.close();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(server.max_open() <= 1, "{} at once", server.max_open());
}

#[test]
fn connect_timeout_and_happy_fallback() {
    let Some(full) = FullBacklog::new() else { return };
    let timeout = ms(300);
    let client = builder(&full.url()).connect_timeout(timeout).build().unwrap();
    let client_events = record_client(&client);
    let start = Instant::now();
    client.open();
    let event = client_events.wait_for("reconnecting");
    let took = event.at - start;
    assert!(took >= timeout && took < timeout + SLACK, "{took:?}");
    assert_eq!(event.value.error().unwrap().kind(), ErrorKind::Timeout);
    let text = event.value.error().unwrap().to_string();
    assert!(text.contains("connecting"), "{text}");
    drop(client);

    // `close` waits for no attempt.
    let client = builder(&full.url()).build().unwrap();
    client.open();
    wait_until("it connects", || client.state() == ClientState::Connecting);
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());

    // A name with several addresses, of which the first does not answer and the second does.
    let server = Server::auto();
    let port = server.addr().port();
    let Some(_hole) = FullBacklog::at((std::net::Ipv6Addr::LOCALHOST, port).into()) else {
        return;
    };
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", port)).unwrap();
    if addresses.map(|address| address.is_ipv6()).collect::<Vec<_>>() == [true, false] {
        let client = builder(&format!("ws://localhost:{port}/"))
            .connect_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        client.open();
        client.wait_open(LONG).unwrap();
    }
}

#[test]
fn each_stage_of_connecting_has_its_deadline() {
    for (doing, fault) in [("upgrade", FAULTS[2].1), ("`connect`", FAULTS[8].1)] {
        let server = Server::auto();
        fault(&server);
        let client = builder(&server.url())
            .connect_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let client_events = record_client(&client);
        client.open();
        let event = client_events.wait_for("reconnecting").value;
        let error = event.error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains(doing), "{error}");
        // The connection that hung is gone before the next is made.
        server.conn(2);
        server.conn(1).wait_ended();
        assert!(server.max_open() <= 1);
    }
}

#[test]
fn write_latency_on_idle_link() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, _events) = subscribe(&client, "Game");
    // The best of some rounds, since a busy machine can only be slower: a loop that wakes up by itself to see what
    // there is to send is slow in each.
    let mut medians = vec![];
    for round in 0..5 {
        let mut latencies: Vec<_> = (0..50)
            .map(|at| {
                let class = format!("C{round}x{at}");
                thread::park_timeout(ms(2));
                let start = Instant::now();
                let _subscription = client.subscribe(&Query::new(&class)).unwrap();
                let received = server.wait_received("the frame", |all| {
                    let found = all
                        .iter()
                        .rev()
                        .find(|r| r.frame["query"]["className"] == class.as_str());
                    found.map(|received| received.at)
                });
                received.saturating_duration_since(start)
            })
            .collect();
        latencies.sort_unstable();
        medians.push(latencies[25]);
        if latencies[25] < ms(5) {
            return;
        }
    }
    panic!("medians of {medians:?}");
}

#[test]
fn idle() {
    in_own_process(module_path!(), "idle", MINUTE, || {
        let server = Server::auto();
        // Nothing of this test is to fall into the ten seconds.
        let client = builder(&server.url()).idle_ping(MINUTE).build().unwrap();
        let (_subscription, events) = subscribe(&client, "Game");
        let Some(before) = switches() else { return };
        assert_eq!(before.len(), 2, "{before:?}");
        // What follows the last event is over when the threads sleep.
        let last = switches_at_rest().unwrap();
        events.expect_quiet(Duration::from_secs(10));
        assert_eq!(
            switches().unwrap(),
            last,
            "the threads woke up though nothing happened"
        );

        // The same for a client that is closed.
        client.close();
        let last = switches_at_rest().unwrap();
        events.drain();
        events.expect_quiet(Duration::from_secs(2));
        assert_eq!(
            switches().unwrap(),
            last,
            "the threads of a closed client woke up"
        );
    });
}

#[test]
fn outage_costs_no_cpu() {
    in_own_process(module_path!(), "outage_costs_no_cpu", MINUTE, || {
        let server = Server::auto();
        server.refuse();
        let client = builder(&server.url())
            .reconnect_delay(ms(100), ms(100))
            .build()
            .unwrap();
        let client_events = record_client(&client);
        client.open();
        client_events.wait_for("reconnecting");
        let Some(before) = switches() else { return };
        for _ in 0..20 {
            client_events.wait_for("reconnecting");
        }
        let turns: u64 = switches().unwrap().iter().map(|(_, count)| count).sum();
        let turns = turns - before.iter().map(|(_, count)| count).sum::<u64>();
        assert!(turns < 20 * 20, "{turns} wake-ups for 20 attempts");
    });
}

#[test]
fn slow_handler_keeps_link() {
    let server = Server::auto();
    server.ping_every(Duration::from_secs(2));
    let client = client(&server.url());
    let (release, gate) = crossbeam_channel::bounded::<()>(0);
    let events = Events::new();
    let builder = client.subscription(&Query::new("Game")).on_create(move |_| {
        // Until the test has seen what it wants to see.
        let _ = gate.recv_timeout(MINUTE);
    });
    let subscription = record(builder, "Game", &events).start().unwrap();
    events.expect("open");
    assert_eq!(server.emit("create", &object("Game", "a", json!({}))), 1);
    let conn = server.conn(1);
    let pongs = || {
        conn.controls()
            .iter()
            .filter(|(kind, _)| *kind == Control::Pong)
            .count()
    };
    let before = pongs();
    wait_until("pongs while the listener sleeps", || pongs() >= before + 2);
    server.emit("delete", &object("Game", "a", json!({})));
    drop(release);
    events.expect("create");
    events.expect("delete");
    assert_eq!(server.accepts(), 1);
    drop(subscription);
}

#[test]
fn ping_that_comes_with_the_upgrade_is_answered() {
    let server = Server::scripted();
    let client = client(&server.url());
    client.open();
    let conn = server.accept();
    conn.upgrade_with(&[0x89, 0x01, b'x']);
    assert_eq!(conn.wait_control(Control::Pong), b"x");
    conn.expect_op("connect");
    conn.connected();
    client.wait_open(LONG).unwrap();
}

#[test]
fn everything_in_small_pieces_is_understood() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    // Not less: tungstenite takes an answer in more than 64 pieces of a few bytes for an attack.
    proxy.chunks_of(4, ms(1));
    let client = client(&proxy.url());
    let (_subscription, events) = subscribe(&client, "Game");
    server.emit("create", &object("Game", "a", json!({ "text": "äöü" })));
    assert_eq!(events.expect("create").value.get("text"), Some(&json!("äöü")));
}

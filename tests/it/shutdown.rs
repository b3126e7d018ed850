//! The end: it is bounded in time, final, and leaves nothing behind.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::bounded;
use parse_livequery::{Client, ClientState, ErrorKind, Query};
use serde_json::json;
use tungstenite::protocol::frame::coding::Control;

use crate::harness::*;
use crate::support::*;

/// A way to bring a client into a state, in which it stays.
type Situation = (&'static str, fn(&Server, &Client));

const SITUATIONS: [Situation; 10] = [
    ("not opened", |_, _| {}),
    ("not accepted", |server, client| {
        server.pause_accepting();
        client.open();
        wait_until("it connects", || client.state() == ClientState::Connecting);
    }),
    ("no answer to the upgrade", |server, client| {
        server.on_accept(|_| Then::Handled);
        client.open();
        server.conn(1);
    }),
    ("no answer to connect", |server, client| {
        server.on_frame(|_, _| Then::Handled);
        client.open();
        server.wait_op(1, "connect", 1);
    }),
    ("no answer to subscribe", |server, client| {
        server.on_frame(|_, frame| match frame["op"].as_str() {
            Some("subscribe") => Then::Handled,
            _ => Then::Default,
        });
        client.subscribe(&Query::new("Game")).unwrap().detach();
        server.wait_op(1, "subscribe", 1);
    }),
    ("live", |_, client| {
        client.subscribe(&Query::new("Game")).unwrap().detach();
        client.wait_open(LONG).unwrap();
    }),
    ("live, and the server answers no close", |server, client| {
        client.subscribe(&Query::new("Game")).unwrap().detach();
        client.wait_open(LONG).unwrap();
        server.conn(1).answer_close(false);
    }),
    ("between two attempts", |server, client| {
        server.refuse();
        client.open();
        wait_until("it waits", || client.state() == ClientState::Reconnecting);
        server.listen_again();
    }),
    ("refused", |server, client| {
        server.on_frame(|conn, _| {
            conn.error(4, "Key in request is not valid", true, None);
            Then::Handled
        });
        client.open();
        wait_until("it is refused", || client.state() == ClientState::Disconnected);
    }),
    ("closed", |_, client| {
        client.open();
        client.wait_open(LONG).unwrap();
        client.close();
    }),
];

#[test]
fn close_is_final_in_every_state() {
    for (name, situation) in SITUATIONS {
        let server = Server::auto();
        let longest = ms(60);
        let client = builder(&server.url())
            .reconnect_delay(ms(50), longest)
            .close_timeout(ms(500))
            .build()
            .unwrap();
        let client_events = record_client(&client);
        situation(&server, &client);
        client.close();
        assert_eq!(client.state(), ClientState::Closed, "{name}");
        assert_eq!(
            client.wait_closed().map_err(|error| error.to_string()),
            Ok(()),
            "{name}"
        );
        assert_eq!(
            client.wait_open(LONG).unwrap_err().kind(),
            ErrorKind::Closed,
            "{name}"
        );
        server.heal();
        server.resume_accepting();
        client_events.drain();
        let accepts = server.accepts();
        client_events.expect_quiet(3 * longest);
        // What was in the queue of the kernel is accepted now, and has ended.
        assert!(server.accepts() <= accepts + 1, "{name}");
        assert_eq!(server.open_now(), 0, "{name}");
        assert!(server.max_open() <= 1, "{name}");
    }
}

#[test]
fn close_deadline_in_every_state() {
    let limit = ms(500);
    for (name, situation) in SITUATIONS {
        let server = Server::auto();
        let client = builder(&server.url()).close_timeout(limit).build().unwrap();
        situation(&server, &client);
        let start = Instant::now();
        client.close();
        assert!(start.elapsed() < limit + SLACK, "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn close_waits_for_no_listener_for_ever() {
    let server = Server::auto();
    let limit = ms(500);
    let client = builder(&server.url()).close_timeout(limit).build().unwrap();
    let (release, gate) = bounded::<()>(0);
    let (entered, in_listener) = bounded(1);
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_create(move |_| {
            entered.send(()).unwrap();
            let _ = gate.recv_timeout(MINUTE);
        })
        .start()
        .unwrap();
    server.wait_subscribed("Game");
    server.emit("create", &object("Game", "a", json!({})));
    in_listener.recv_timeout(LONG).unwrap();
    let start = Instant::now();
    client.close();
    let took = start.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{took:?}");
    // The socket does not wait for the listener.
    server.conn(1).wait_ended();
    assert_eq!(client.state(), ClientState::Closed);
    drop(release);
    assert_eq!(client.wait_closed().map_err(|error| error.to_string()), Ok(()));
    drop(subscription);
}

#[test]
fn close_over_a_dead_link_is_bounded() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    let limit = ms(500);
    let client = builder(&proxy.url()).close_timeout(limit).build().unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    proxy.blackhole();
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < limit + SLACK, "{:?}", start.elapsed());
    events.expect("close");
    wait_until("the socket is closed", || proxy.open_now() == 0);
}

#[test]
fn close_waits_for_no_name() {
    let client = builder("ws://livequery-nowhere.invalid/").build().unwrap();
    client.open();
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

#[test]
fn close_says_farewell() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    // What was sent before it is sent.
    subscription.unsubscribe();
    client.close();
    let conn = server.conn(1);
    conn.wait_ended();
    assert_eq!(conn.received().last().unwrap().op(), "unsubscribe");
    let closes: Vec<_> = conn
        .controls()
        .into_iter()
        .filter(|(kind, _)| *kind == Control::Close)
        .collect();
    assert_eq!(closes, [(Control::Close, 1000_u16.to_be_bytes().to_vec())]);
}

#[test]
fn closing_from_many_threads_is_closing_once() {
    let server = Server::auto();
    for _ in 0..20 {
        let client = client(&server.url());
        let client_events = record_client(&client);
        let (subscription, events) = subscribe(&client, "Game");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                thread::spawn(move || {
                    client.close();
                    client.wait_closed().map_err(|error| error.to_string())
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(watchdog(MINUTE, || thread.join().unwrap()), Ok(()));
        }
        assert_eq!(client_events.kinds(), ["open", "close"]);
        assert_eq!(events.kinds(), ["open", "close"]);
        drop(subscription);
    }
}

#[test]
fn wait_closed_wakes_up() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, _events) = subscribe(&client, "Game");
    let waiting = client.clone();
    let waiter = thread::spawn(move || waiting.wait_closed().map_err(|error| error.to_string()));
    client.close();
    assert_eq!(watchdog(MINUTE, move || waiter.join().unwrap()), Ok(()));
}

#[test]
fn waiting_for_open_ends_with_close() {
    let server = Server::auto();
    server.on_frame(|_, _| Then::Handled);
    let client = client(&server.url());
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    let waiters = [
        {
            let subscription = subscription.clone();
            thread::spawn(move || subscription.wait_open(10 * MINUTE).unwrap_err().kind())
        },
        {
            let client = client.clone();
            thread::spawn(move || client.wait_open(10 * MINUTE).unwrap_err().kind())
        },
    ];
    server.wait_op(1, "connect", 1);
    client.close();
    for waiter in waiters {
        assert_eq!(
            watchdog(MINUTE, move || waiter.join().unwrap()),
            ErrorKind::Closed
        );
    }
}

#[test]
fn dropping_the_last_handle_ends_the_connection() {
    for (name, situation) in SITUATIONS {
        let server = Server::auto();
        let client = builder(&server.url()).close_timeout(ms(500)).build().unwrap();
        situation(&server, &client);
        let clone = client.clone();
        drop(client);
        let state = clone.state();
        drop(clone);
        server.heal();
        server.resume_accepting();
        wait_until(name, || server.open_now() == 0 && server.open_conns().is_empty());
        if state == ClientState::Connected {
            assert!(
                server
                    .conn(1)
                    .controls()
                    .iter()
                    .any(|(kind, _)| *kind == Control::Close),
                "{name}"
            );
        }
    }
}

#[test]
fn a_subscription_keeps_its_client() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    drop(client);
    server.emit("create", &object("Game", "a", json!({})));
    events.expect("create");
    drop(subscription);
    server.conn(1).wait_ended();
    events.expect("close");
}

/// A listener may own a handle to its own subscription: the circle ends with the subscription, at whatever moment.
#[test]
fn what_listeners_own_is_free_when_the_subscription_has_ended() {
    let server = Server::auto();
    for round in 0..40 {
        let (open_first, close_client) = (round % 4 < 2, round % 2 == 0);
        let client = client(&server.url());
        let owned = Arc::new(());
        let subscription = client.subscribe(&Query::new("Game")).unwrap();
        let (handle, own) = (subscription.clone(), Arc::clone(&owned));
        subscription.on("create", move |_| {
            let _ = (&own, handle.state());
        });
        if open_first {
            subscription.wait_open(LONG).unwrap();
        }
        if close_client {
            client.close();
        } else {
            subscription.unsubscribe();
        }
        let free = || Arc::strong_count(&owned) == 1;
        wait_until(
            &format!("free: open first {open_first}, close client {close_client}"),
            free,
        );
    }
    wait_until("the connections have ended", || server.open_now() == 0);
}

#[test]
fn dropping_from_many_threads_at_once() {
    let server = Server::auto();
    for _ in 0..20 {
        let client = client(&server.url());
        let subscription = Arc::new(client.subscribe(&Query::new("Game")).unwrap());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (client, subscription) = (client.clone(), Arc::clone(&subscription));
                thread::spawn(move || {
                    let _ = subscription.state();
                    drop(client);
                    drop(subscription);
                })
            })
            .collect();
        drop(client);
        drop(subscription);
        for thread in threads {
            thread.join().unwrap();
        }
    }
    wait_until("all connections have ended", || server.open_now() == 0);
}

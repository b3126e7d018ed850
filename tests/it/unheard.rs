//! Events that nobody listens to cost next to nothing, and nobody notices.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use parse_livequery::{Client, Dispatch, Query, Subscription};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

#[test]
fn events_without_a_listener_are_counted_and_a_later_listener_gets_its_own() {
    let server = Server::auto();
    let client = client(&server.url());
    let (told, deleted) = mpsc::channel();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_delete(move |_| told.send(()).unwrap())
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    let conn = server.conn(1);
    let send = |op: &str, n: i64| {
        conn.event(
            op,
            subscription.id(),
            object("Game", "a", json!({ "n": n })),
            None,
        );
    };
    for n in 0..3 {
        send("create", n);
    }
    send("delete", 0);
    deleted.recv_timeout(LONG).unwrap();
    let stats = subscription.stats();
    assert_eq!((stats.events.create, stats.events.delete), (3, 1));
    assert!(stats.last_event.is_some());

    let (told, created) = mpsc::channel();
    let listener = subscription.on("create", move |game| told.send(game.get("n").cloned()).unwrap());
    send("create", 4);
    assert_eq!(created.recv_timeout(LONG).unwrap(), Some(json!(4)));
    assert!(subscription.off(listener));
    send("create", 5);
    send("delete", 0);
    deleted.recv_timeout(LONG).unwrap();
    assert!(created.try_recv().is_err());
    assert_eq!(subscription.stats().events.create, 5);
}

#[test]
fn a_listener_registered_in_a_listener_gets_what_came_while_that_one_ran() {
    let server = Server::auto();
    let client = client(&server.url());
    let (release, released) = mpsc::channel::<()>();
    let (told, created) = mpsc::channel();
    let own: Arc<OnceLock<Subscription>> = Arc::default();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_update({
            let own = Arc::clone(&own);
            move |_, _| {
                released.recv_timeout(LONG).unwrap();
                let told = told.clone();
                own.get().unwrap().on("create", move |game| {
                    told.send(game.get("n").cloned()).unwrap();
                });
            }
        })
        .start()
        .unwrap();
    own.set(subscription.clone()).unwrap();
    subscription.wait_open(LONG).unwrap();
    let conn = server.conn(1);
    for op in ["update", "create"] {
        conn.event(op, subscription.id(), object("Game", "a", json!({"n": 1})), None);
    }
    wait_until("both have come", || subscription.stats().events.total() == 2);
    release.send(()).unwrap();
    assert_eq!(created.recv_timeout(LONG).unwrap(), Some(json!(1)));
    client.close();
}

/// A client that gives out events when it is told to, and a subscription with a listener for `update` that is open.
fn told_to(server: &Server) -> (Client, Subscription) {
    let client = builder(&server.url())
        .dispatch(Dispatch::manual(|| {}))
        .build()
        .unwrap();
    let (told, opened) = mpsc::channel();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_open(move |_| told.send(()).unwrap())
        .on_update(|_, _| {})
        .start()
        .unwrap();
    wait_until("it is open", || {
        client.dispatch_pending();
        opened.try_recv().is_ok()
    });
    (client, subscription)
}

fn give_out_one(client: &Client) {
    wait_until("there is one", || {
        client.dispatch_pending_for(Duration::ZERO) == 1
    });
}

fn send(conn: &Conn, op: &str, subscription: &Subscription, n: i64) {
    let object = object("Game", "a", json!({ "n": n }));
    conn.event(op, subscription.id(), object, None);
    wait_until("it has come", || subscription.stats().events.total() == n as u64);
}

#[test]
fn an_event_that_waits_and_gets_a_listener_holds_those_behind_it() {
    let server = Server::auto();
    let (client, subscription) = told_to(&server);
    let conn = server.conn(1);
    send(&conn, "update", &subscription, 1);
    send(&conn, "create", &subscription, 2);
    give_out_one(&client);
    let (told, deleted) = mpsc::channel();
    let own = subscription.clone();
    subscription.once("create", move |_| {
        let told = told.clone();
        own.on_delete(move |game| told.send(game.get_i64("n")).unwrap());
    });
    send(&conn, "delete", &subscription, 3);
    wait_until("the one registered in the other is told", || {
        client.dispatch_pending();
        deleted.try_recv().is_ok_and(|n| n == Some(3))
    });
}

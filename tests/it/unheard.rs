//! Events that nobody listens to cost next to nothing, and nobody notices.

use std::sync::{Arc, OnceLock, mpsc};

use parse_livequery::{Query, Subscription};
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
        .subscribe()
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
        .subscribe()
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

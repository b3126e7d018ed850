//! Waiting for one event of a subscription: which one comes, and why none does.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{bounded, unbounded};
use parse_livequery::{Dispatch, ErrorKind, Event, EventKind, Query};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

fn of(id: &str) -> impl FnMut(&Event) -> bool {
    let id = id.to_owned();
    move |event| event.id() == Some(id.as_str())
}

fn nothing(_: &Event) -> bool {
    false
}

/// The event comes in one piece with the acknowledgement, so who listens after `start` is too late.
#[test]
fn an_event_that_comes_with_the_acknowledgement_is_not_missed() {
    let server = Server::auto();
    server.on_frame(|conn, frame| {
        if frame["op"] != "subscribe" {
            return Then::Default;
        }
        let id = frame["requestId"].as_u64().unwrap();
        let acknowledged = conn.subscribed_message(id);
        let event = conn.event_message("create", id, object("Game", "a", json!({})), None);
        conn.send_together(&[acknowledged, event]);
        Then::Handled
    });
    let client = client(&server.url());
    let (subscription, event) = client
        .subscription(&Query::new("Game"))
        .wait_for(LONG, of("a"))
        .unwrap();
    assert_eq!((event.kind(), event.id()), (EventKind::Create, Some("a")));
    assert_eq!(subscription.listener_count("create"), 0, "the listener is gone");
}

#[test]
fn the_first_event_that_is_the_one_is_returned_and_the_closure_may_borrow() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _) = subscribe(&client, "Game");
    let open = subscription
        .wait_for(LONG, |event| event.kind() == EventKind::Open)
        .unwrap();
    assert!(open.gap().is_none(), "an `open` that holds comes first");
    let mut seen = Vec::new();
    let event = thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("it listens", || subscription.listener_count("create") == 2);
            for id in ["a", "b", "c"] {
                server.emit("create", &object("Game", id, json!({})));
            }
        });
        subscription.wait_for(LONG, |event| {
            seen.extend(event.id().map(str::to_owned));
            event.id() == Some("b")
        })
    });
    assert_eq!(event.unwrap().id(), Some("b"));
    assert_eq!(seen, ["a", "b"]);
}

#[test]
fn a_time_out_says_what_came_instead() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _) = subscribe(&client, "Game");
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("it listens", || subscription.listener_count("create") == 2);
            server.emit("create", &object("Game", "a", json!({})));
            server.emit("delete", &object("Game", "a", json!({})));
        });
        subscription.wait_for(ms(1000), nothing).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = error.to_string();
    assert!(
        text.contains("3 others did") && text.contains("`delete`"),
        "{text}"
    );

    // And why there is no connection.
    server.refuse();
    let away = builder(&server.url()).build().unwrap();
    let clients = record_client(&away);
    let subscription = away.subscribe(&Query::new("Game")).unwrap();
    clients.wait_for("reconnecting");
    let error = subscription.wait_for(ms(1), nothing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = error.to_string();
    assert!(
        text.contains("nor did any other") && text.contains("not open"),
        "{text}"
    );
    assert!(std::error::Error::source(&error).is_some());
    away.pause();
    wait_until("it is paused", || away.state().to_string() == "paused");
    let text = subscription.wait_for(ms(1), nothing).unwrap_err().to_string();
    assert!(text.contains("paused"), "{text}");
}

/// A server that never stops sending does not keep the program past its deadline.
#[test]
fn a_time_out_comes_in_the_midst_of_events() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _) = subscribe(&client, "Game");
    let (stop, stopped) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected) {
                server.emit("create", &object("Game", "a", json!({})));
            }
        });
        let error = subscription.wait_for(ms(300), nothing).unwrap_err();
        drop(stop);
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
}

#[test]
fn the_end_of_the_subscription_ends_the_wait() {
    for how in ["unsubscribe", "close", "before"] {
        let server = Server::auto();
        let client = client(&server.url());
        let (subscription, _) = subscribe(&client, "Game");
        let (other, other_client) = (subscription.clone(), client.clone());
        let end = move || match how {
            "close" => other_client.close(),
            _ => other.unsubscribe(),
        };
        let ends = if how == "before" {
            end();
            client.close();
            None
        } else {
            let listening = subscription.clone();
            Some(thread::spawn(move || {
                wait_until("it listens", || listening.listener_count("create") == 2);
                end();
            }))
        };
        let error = subscription.wait_for(LONG, nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{how}");
        if let Some(ends) = ends {
            ends.join().unwrap();
        }
        let error = subscription.wait_for(LONG, nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{how}, the second time");
    }
}

#[test]
fn the_last_close_can_be_awaited() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _) = subscribe(&client, "Game");
    // Whoever has not heard of the `open` that holds does not hear of the `close` either.
    let event = subscription
        .wait_for(LONG, |event| {
            if event.kind() == EventKind::Open {
                subscription.unsubscribe();
            }
            event.kind() == EventKind::Close
        })
        .unwrap();
    assert!(event.error().is_none());
}

#[test]
fn a_refusal_ends_the_wait_with_its_reason_whether_it_comes_or_has_come() {
    let server = Server::auto();
    server.on_frame(|conn, frame| {
        if frame["op"] != "subscribe" {
            return Then::Default;
        }
        conn.error(119, "not for you", false, frame["requestId"].as_u64());
        Then::Handled
    });
    let client = client(&server.url());
    let builder = || client.subscription(&Query::new("Game"));
    let error = builder().wait_for(LONG, nothing).unwrap_err();
    assert_eq!(error.code(), Some(119), "{error}");
    let refused = builder().start().unwrap();
    refused.wait_open(LONG).unwrap_err();
    assert_eq!(refused.wait_for(LONG, nothing).unwrap_err().code(), Some(119));
    // It may be what is awaited.
    let (_, event) = builder()
        .wait_for(LONG, |event| event.kind() == EventKind::Error)
        .unwrap();
    assert_eq!(event.error().unwrap().code(), Some(119));

    // The connection as a whole.
    server.heal();
    server.on_frame(|conn, frame| {
        if frame["op"] != "connect" {
            return Then::Default;
        }
        conn.error(4, "who are you", false, None);
        Then::Handled
    });
    let nobody = builder_of_nobody(&server);
    for _ in 0..2 {
        let wait = nobody.subscription(&Query::new("Game")).wait_for(LONG, nothing);
        assert_eq!(wait.unwrap_err().kind(), ErrorKind::Refused);
    }
}

fn builder_of_nobody(server: &Server) -> parse_livequery::Client {
    builder(&server.url()).build().unwrap()
}

#[test]
fn a_listener_that_waits_is_refused_in_place_of_waiting_for_itself() {
    let server = Server::auto();
    let client = client(&server.url());
    let (sender, results) = unbounded();
    let (own, other) = (Arc::new(parking_lot::Mutex::new(None)), client.clone());
    let subscription = {
        let own = Arc::clone(&own);
        client
            .subscription(&Query::new("Game"))
            .on_create(move |_| {
                let subscription: Option<parse_livequery::Subscription> = own.lock().clone();
                let waits = [
                    subscription.unwrap().wait_for(LONG, nothing).map(drop),
                    other
                        .subscription(&Query::new("Team"))
                        .wait_for(LONG, nothing)
                        .map(drop),
                ];
                for wait in waits {
                    sender.send(wait.unwrap_err().kind()).unwrap();
                }
            })
            .start()
            .unwrap()
    };
    subscription.wait_open(LONG).unwrap();
    *own.lock() = Some(subscription.clone());
    server.emit("create", &object("Game", "a", json!({})));
    for _ in 0..2 {
        assert_eq!(results.recv_timeout(LONG), Ok(ErrorKind::CalledFromListener));
    }
    own.lock().take();
    assert_eq!(client.stats().subscriptions, 1, "nothing was subscribed in vain");
}

#[test]
fn a_program_that_dispatches_on_another_thread_can_wait() {
    let server = Server::auto();
    let client = builder(&server.url())
        .dispatch(Dispatch::polled())
        .build()
        .unwrap();
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    subscription.wait_open(LONG).unwrap();
    let error = subscription.wait_for(ms(1), nothing).unwrap_err();
    assert!(error.to_string().contains("Dispatch::manual"), "{error}");
    let (stop, stopped) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while stopped.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected) {
                client.dispatch_pending_timeout(ms(10));
            }
        });
        server.emit("create", &object("Game", "early", json!({})));
        scope.spawn(|| {
            wait_until("it listens", || subscription.listener_count("create") == 1);
            server.emit("create", &object("Game", "a", json!({})));
        });
        subscription.wait_for(LONG, of("a")).unwrap();
        drop(stop);
    });
    // Nobody dispatches the end.
    subscription.unsubscribe();
    let error = subscription.wait_for(LONG, nothing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_closure_that_panics_leaves_no_listener_behind() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _) = subscribe(&client, "Game");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        subscription.wait_for(LONG, |_| panic!("as the test wants it"))
    }));
    assert!(panicked.is_err());
    assert_eq!(subscription.listener_count("create"), 1);
}

/// One channel for several subscriptions, which ends when the last of them does; what finds no room is counted in it.
#[test]
fn several_subscriptions_share_a_channel() {
    let server = Server::auto();
    let client = client(&server.url());
    let (sender, events) = bounded(3);
    let [games, teams] = ["Game", "Team"].map(|class| {
        let subscription = client
            .subscription(&Query::new(class))
            .send_to(sender.clone())
            .start()
            .unwrap();
        subscription.wait_open(LONG).unwrap();
        subscription
    });
    drop(sender);
    for id in ["a", "b", "c"] {
        server.emit("create", &object("Game", id, json!({})));
    }
    fence(&client);
    let took: Vec<_> = events.try_iter().map(|event| event.kind()).collect();
    assert_eq!(took, [EventKind::Open, EventKind::Open, EventKind::Create]);
    server.emit("create", &object("Game", "d", json!({})));
    let lagged = events.recv_timeout(LONG).unwrap();
    assert_eq!(lagged.error().unwrap().dropped(), Some(2));
    assert_eq!(events.recv_timeout(LONG).unwrap().id(), Some("d"));
    games.unsubscribe();
    assert_eq!(events.recv_timeout(LONG).unwrap().kind(), EventKind::Close);
    server.emit("create", &object("Team", "t", json!({})));
    assert_eq!(events.recv_timeout(LONG).unwrap().id(), Some("t"));
    teams.unsubscribe();
    assert_eq!(events.recv_timeout(LONG).unwrap().kind(), EventKind::Close);
    assert_eq!(
        events.recv_timeout(LONG).unwrap_err().to_string(),
        "channel is empty and disconnected"
    );
}

/// Before, whoever read such a channel waited for ever.
#[test]
fn the_channel_of_a_subscription_that_has_ended_is_at_its_end() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _) = subscribe(&client, "Game");
    subscription.unsubscribe_and_wait(LONG).unwrap();
    let events = subscription.events();
    let ended = crossbeam_channel::RecvTimeoutError::Disconnected;
    assert_eq!(events.recv_timeout(LONG).unwrap_err(), ended);
    subscription.on("create", |_| ());
    assert_eq!(subscription.listener_count("create"), 0);
}

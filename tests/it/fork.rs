//! A process that forks: in the child every call of a client that was built before is an error, at once, and the child
//! lets go of the connection. The parent notices nothing.
//!
//! `FORKS` (20 by default) is how often the test under load forks.

use std::env;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use fork::{Fork, fork, waitpid};
use parse_livequery::{
    Client, ClientState, Dispatch, ErrorKind, LiveSet, Query, Result, Subscription, SubscriptionState,
    default_client, initialize,
};
use serde_json::json;

use crate::harness::*;
use crate::hostile::Peer;
use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Forks. Gives the child's id, and in the child `None`.
fn split() -> Option<i32> {
    match fork().unwrap() {
        Fork::Parent(child) => Some(child),
        Fork::Child => {
            // Nobody else ends a child that hangs.
            thread::spawn(|| {
                thread::sleep(3 * LONG);
                eprintln!("the child hangs");
                process::exit(3);
            });
            None
        }
    }
}

/// What the child does, and its end.
fn as_child(body: impl FnOnce()) -> ! {
    let result = catch_unwind(AssertUnwindSafe(body));
    process::exit(i32::from(result.is_err()));
}

#[track_caller]
fn assert_well(child: i32) {
    let status = ExitStatus::from_raw(waitpid(child).unwrap());
    assert!(status.success(), "the child ended with {status}");
}

#[track_caller]
fn assert_forked<T: Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forked);
    assert!(
        error.to_string().contains("build the client after daemonizing"),
        "{error}"
    );
}

fn use_client(client: &Client, subscription: &Subscription) {
    let query = Query::new("Game");
    client.open();
    client.reconnect_now();
    client.set_session_token(Some("r:other"));
    assert_ne!(client.state(), ClientState::Connected);
    assert_eq!(client.stats().state, client.state());
    assert!(client.diagnose().contains("build the client after daemonizing"));
    assert!(format!("{client:?}").contains("Disconnected"));
    let listener = client.on("open", |_| panic!("called in the child"));
    client.once("error", |_| panic!("called in the child"));
    assert_eq!(client.listener_count("open"), 0);
    assert!(!client.off(listener));
    client.remove_all_listeners("open");
    assert_eq!(client.dispatch_pending(), 0);
    assert_eq!(client.dispatch_pending_for(HOUR), 0);
    assert_eq!(client.dispatch_pending_timeout(HOUR), 0);
    assert_forked(client.clone().wait_open(HOUR));
    assert_forked(client.wait_closed());
    assert_forked(client.subscribe(&query));
    let builder = client
        .subscription(&query)
        .on_create(|_| panic!("called in the child"));
    assert_forked(builder.session_token("r:other").start());
    let set = client
        .live_set(&query)
        .fetch_with(|_| Ok::<_, std::io::Error>(vec![]));
    assert_forked(set.on_change(|_, _| panic!("called in the child")).start());
    client.unsubscribe(subscription);
    client.close();
}

fn use_subscription(subscription: &Subscription) {
    assert_eq!(subscription.state(), SubscriptionState::Closed);
    assert_eq!(subscription.stats().state, SubscriptionState::Closed);
    assert!(format!("{subscription:?}").contains("Closed"));
    let listener = subscription.on("create", |_| panic!("called in the child"));
    assert_eq!(subscription.listener_count("create"), 0);
    assert!(!subscription.off(listener));
    subscription.remove_all_listeners("create");
    assert!(subscription.events().recv().is_err(), "a channel that ends");
    assert_forked(subscription.wait_open(HOUR));
    assert_forked(subscription.update(&Query::new("Other")));
    assert_forked(subscription.set_session_token(None));
    assert_forked(subscription.unsubscribe_and_wait(HOUR));
    subscription.unsubscribe();
    assert_ne!(subscription.client().state(), ClientState::Connected);
    subscription.clone().detach();
    let _ = subscription.id();
}

fn use_set(set: &LiveSet) {
    let change = set.on_change(|_, _| panic!("called in the child"));
    set.on_ready(|_| panic!("called in the child"));
    set.on_stale(|_| panic!("called in the child"));
    set.on_error(|_| panic!("called in the child"));
    assert!(!set.off(change));
    assert!(set.snapshot().is_empty() && set.is_empty());
    assert_eq!(set.len(), 0);
    assert!(set.get("a").is_none() && set.index_of("a").is_none());
    assert!(!set.is_ready() && set.stale_since().is_none());
    assert!(format!("{set:?}").contains("is_ready: false"));
    assert_forked(set.wait_ready(HOUR));
    set.refresh();
    assert_forked(set.set_session_token(None));
    assert_forked(set.close_and_wait(HOUR));
    set.close();
    use_subscription(&set.subscription());
}

#[test]
fn every_call_in_the_child_is_an_error_at_once() {
    in_own_process(
        module_path!(),
        "every_call_in_the_child_is_an_error_at_once",
        3 * MINUTE,
        || {
            let forks = env::var("FORKS").map_or(20, |forks| forks.parse().expect("a number"));
            let server = Arc::new(Server::auto());
            initialize(builder(&server.url())).unwrap();
            let clients = vec![
                client(&server.url()),
                builder(&server.url())
                    .dispatch(Dispatch::polled())
                    .build()
                    .unwrap(),
                // Not opened, and closed.
                client(&server.url()),
                client(&server.url()),
            ];
            clients[3].close();
            let subscriptions: Vec<_> = clients[..2]
                .iter()
                .map(|client| {
                    let subscription = client.subscribe(&Query::new("Game")).unwrap();
                    subscription.wait_open(LONG).unwrap();
                    subscription.on("create", |game| {
                        let _ = game.get("number");
                    });
                    subscription
                })
                .collect();
            let set = clients[0]
                .live_set(&Query::new("Game"))
                .fetch_with(|_| Ok::<_, std::io::Error>(vec![]))
                .start()
                .unwrap();
            set.wait_ready(LONG).unwrap();
            let more = Arc::new(AtomicBool::new(true));
            // Locks are taken and released all the time.
            let writer = thread::spawn({
                let (server, more) = (Arc::clone(&server), Arc::clone(&more));
                move || {
                    for number in 0.. {
                        if !more.load(Ordering::Relaxed) {
                            return;
                        }
                        let id = (number % 100).to_string();
                        server.emit("create", &object("Game", &id, json!({ "number": number })));
                    }
                }
            });
            let polled = thread::spawn({
                let (client, more) = (clients[1].clone(), Arc::clone(&more));
                move || {
                    while more.load(Ordering::Relaxed) {
                        client.dispatch_pending();
                        let _ = client.stats();
                    }
                }
            });
            let mut handles = Some((clients, subscriptions, set));
            for _ in 0..forks {
                let Some(child) = split() else {
                    as_child(|| {
                        let (clients, subscriptions, set) = handles.take().unwrap();
                        subscriptions.iter().for_each(use_subscription);
                        use_set(&set);
                        for client in &clients {
                            use_client(client, &subscriptions[0]);
                        }
                        use_client(&default_client().unwrap(), &subscriptions[0]);
                        assert_forked(Query::new("Game").subscribe());
                        drop((set, subscriptions, clients));
                    });
                };
                assert_well(child);
            }
            more.store(false, Ordering::Relaxed);
            writer.join().unwrap();
            polled.join().unwrap();
            // All of them are as they were.
            let (clients, subscriptions, set) = handles.unwrap();
            for (client, subscription) in clients.iter().zip(&subscriptions) {
                client.wait_open(LONG).unwrap();
                subscription.wait_open(LONG).unwrap();
            }
            set.wait_ready(LONG).unwrap();
            assert_eq!(server.accepts(), 2);
        },
    );
}

/// A peer that reads until the connection has ended, and a client that is connected to it.
fn watched() -> (Peer, Receiver<()>, Client) {
    let (told, ended) = unbounded();
    let peer = Peer::connected(move |_, mut stream| {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        let _ = told.send(());
    });
    let client = builder(&peer.url()).close_timeout(ms(1000)).build().unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    // What is being read or written at the moment of the fork cannot be closed.
    switches_at_rest();
    (peer, ended, client)
}

fn say(stream: &mut UnixStream) {
    stream.write_all(b"!").unwrap();
}

fn hear(stream: &mut UnixStream) {
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn the_connection_ends_when_the_child_and_then_the_parent_have_dropped_their_handles() {
    let name = "the_connection_ends_when_the_child_and_then_the_parent_have_dropped_their_handles";
    in_own_process(module_path!(), name, 5 * LONG, || {
        let (_peer, ended, client) = watched();
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let Some(child) = split() else {
            as_child(move || {
                drop(client);
                say(&mut there);
                hear(&mut there);
            });
        };
        hear(&mut here);
        assert!(ended.recv_timeout(ms(200)).is_err(), "the parent still has it");
        assert_eq!(client.state(), ClientState::Connected);
        drop(client);
        // The child is still there.
        ended.recv_timeout(LONG).unwrap();
        say(&mut here);
        assert_well(child);
    });
}

#[test]
fn the_connection_ends_when_the_parent_and_then_the_child_have_dropped_their_handles() {
    let name = "the_connection_ends_when_the_parent_and_then_the_child_have_dropped_their_handles";
    in_own_process(module_path!(), name, 5 * LONG, || {
        let (_peer, ended, client) = watched();
        let (mut here, mut there) = UnixStream::pair().unwrap();
        // What a listener owns does not keep it open, if the client is closed.
        let of_listener = client.clone();
        client.on("close", move |_| {
            let _ = of_listener.state();
        });
        let Some(child) = split() else {
            as_child(move || {
                hear(&mut there);
                client.close();
                say(&mut there);
                hear(&mut there);
            });
        };
        client.close();
        client.remove_all_listeners("close");
        drop(client);
        wait_until("the threads have ended", || {
            threads_named("livequery-io").is_none_or(|threads| threads.is_empty())
        });
        assert!(ended.recv_timeout(ms(200)).is_err(), "the child still has it");
        say(&mut here);
        hear(&mut here);
        ended.recv_timeout(LONG).unwrap();
        say(&mut here);
        assert_well(child);
    });
}

#[test]
fn the_child_has_clients_of_its_own() {
    in_own_process(
        module_path!(),
        "the_child_has_clients_of_its_own",
        5 * LONG,
        || {
            let server = Server::auto();
            let settings = builder(&server.url());
            let of_child = settings.clone();
            initialize(settings).unwrap();
            let events = Events::new();
            let builder = default_client().unwrap().subscription(&Query::new("Game"));
            let _subscription = record(builder, "Game", &events).start().unwrap();
            events.expect("open");
            let Some(child) = split() else {
                as_child(move || {
                    initialize(of_child.clone()).unwrap();
                    assert_eq!(
                        initialize(of_child).unwrap_err().kind(),
                        ErrorKind::AlreadyInitialized
                    );
                    let games = Query::new("Game").subscribe().unwrap();
                    games.wait_open(LONG).unwrap();
                    games.unsubscribe_and_wait(LONG).unwrap();
                    default_client().unwrap().close();
                });
            };
            assert_well(child);
            server.conn(2).wait_ended();
            server.emit("create", &object("Game", "a", json!({})));
            events.expect("create");
            assert_eq!(server.accepts(), 2);
        },
    );
}

#[test]
fn a_child_of_a_listener_that_returns_does_not_take_over_the_link() {
    let name = "a_child_of_a_listener_that_returns_does_not_take_over_the_link";
    in_own_process(module_path!(), name, 5 * LONG, || {
        let server = Server::auto();
        let client = client(&server.url());
        let children = Arc::new(AtomicUsize::new(0));
        let (told, created) = unbounded();
        let its_children = Arc::clone(&children);
        let subscription = client
            .subscription(&Query::new("Game"))
            .on_create(move |game| {
                if game.id() == Some("fork") {
                    match fork().unwrap() {
                        Fork::Parent(child) => its_children.store(child as usize, Ordering::Relaxed),
                        Fork::Child => return,
                    }
                }
                told.send(game.id().map(str::to_owned)).unwrap();
            })
            .start()
            .unwrap();
        subscription.wait_open(LONG).unwrap();
        let next = || created.recv_timeout(LONG).unwrap();
        server.emit("create", &object("Game", "fork", json!({})));
        assert_eq!(next().as_deref(), Some("fork"));
        for number in 0..100 {
            let id = number.to_string();
            server.emit("create", &object("Game", &id, json!({})));
            assert_eq!(next(), Some(id));
        }
        // Its only thread has ended.
        waitpid(children.load(Ordering::Relaxed) as i32).unwrap();
        assert_eq!(server.accepts(), 1);
    });
}

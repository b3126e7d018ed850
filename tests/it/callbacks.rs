//! Listeners: they may call everything, own everything, panic and be slow, and the rest goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, ClientEventKind, ErrorKind, EventKind, Query, Subscription};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

/// What a method is called on.
struct Called {
    client: Client,
    subscription: Subscription,
}

type Method = (&'static str, fn(&Called));

const METHODS: [Method; 33] = [
    ("Client::open", |on| on.client.open()),
    ("Client::subscribe", |on| {
        drop(on.client.subscribe(&Query::new("More")).unwrap())
    }),
    ("SubscriptionBuilder", |on| {
        let builder = on
            .client
            .subscription(&Query::new("More"))
            .on_any(|_| {})
            .once("open", |_| {});
        builder.session_token("r:1").start().unwrap().detach();
    }),
    ("Client::unsubscribe", |on| {
        on.client.unsubscribe(&on.subscription)
    }),
    ("Client::close", |on| on.client.close()),
    ("Client::close twice, and open", |on| {
        on.client.close();
        on.client.close();
        on.client.open();
    }),
    ("Client::on", |on| {
        for kind in ClientEventKind::ALL {
            on.client.on(kind, |_| {});
        }
    }),
    ("Client::once", |on| {
        on.client.once("open", |_| {});
    }),
    ("Client::off", |on| {
        let id = on.client.on("open", |_| {});
        assert!(on.client.off(id));
    }),
    ("Client::remove_all_listeners", |on| {
        for kind in ClientEventKind::ALL {
            on.client.remove_all_listeners(kind);
        }
    }),
    ("Client::listener_count", |on| {
        ignore(on.client.listener_count("open"))
    }),
    ("Client::state", |on| ignore(on.client.state())),
    ("Client::wait_open", |on| drop(on.client.wait_open(MINUTE))),
    ("Client::wait_closed", |on| drop(on.client.wait_closed())),
    ("Client: Debug", |on| drop(format!("{:?}", on.client))),
    ("Subscription::on", |on| {
        for kind in EventKind::ALL {
            on.subscription.on(kind, |_| {});
        }
    }),
    ("Subscription::on_*", |on| {
        on.subscription.on_open(|_| {});
        on.subscription.on_create(|_| {});
        on.subscription.on_update(|_, _| {});
        on.subscription.on_enter(|_| {});
        on.subscription.on_leave(|_| {});
        on.subscription.on_delete(|_| {});
        on.subscription.on_close(|_| {});
        on.subscription.on_error(|_| {});
        on.subscription.on_any(|_| {});
    }),
    ("Subscription::once", |on| {
        for kind in EventKind::ALL {
            on.subscription.once(kind, |_| {});
        }
    }),
    ("Subscription::off", |on| {
        let id = on.subscription.on("open", |_| {});
        assert!(on.subscription.off(id));
    }),
    ("Subscription::remove_all_listeners", |on| {
        for kind in EventKind::ALL {
            on.subscription.remove_all_listeners(kind);
        }
    }),
    ("Subscription::listener_count", |on| {
        ignore(on.subscription.listener_count("open"))
    }),
    ("Subscription::unsubscribe", |on| on.subscription.unsubscribe()),
    ("Subscription::unsubscribe twice", |on| {
        on.subscription.unsubscribe();
        on.subscription.unsubscribe();
    }),
    ("Subscription::update", |on| {
        let _ = on.subscription.update(&Query::new("Other"));
    }),
    ("Subscription::wait_open", |on| {
        drop(on.subscription.wait_open(MINUTE))
    }),
    ("Subscription::state", |on| ignore(on.subscription.state())),
    ("Subscription::detach", |on| on.subscription.clone().detach()),
    ("Subscription::id", |on| ignore(on.subscription.id())),
    ("Subscription::client", |on| {
        ignore(on.subscription.client().state())
    }),
    ("Subscription: Debug", |on| drop(format!("{:?}", on.subscription))),
    ("Subscription: Clone and Drop", |on| drop(on.subscription.clone())),
    ("a new client", |on| {
        let client = Client::builder("ws://127.0.0.1:9/", "app").build().unwrap();
        client.close();
        drop(on.client.clone());
    }),
    ("a listener that calls all this in turn", |on| {
        let client = on.client.clone();
        on.subscription.on("close", move |_| client.open());
    }),
];

/// For results that are not what the call is made for.
fn ignore<T>(_: T) {}

#[derive(Clone, Copy, Debug)]
enum Place {
    Client(ClientEventKind),
    Subscription(EventKind),
}

/// Calls a method in a listener of a kind, and sees that it returns and that the client ends when it is told to.
fn call_in_listener(server: &Server, place: Place, (name, method): Method) {
    let client = match place {
        // A URL of its own, where the token has ended.
        Place::Client(ClientEventKind::SessionEnded) => {
            let rest_url = without_sessions().replacen("ws", "http", 1);
            let builder = builder(&server.url()).rest_url(rest_url);
            builder.session_token("r:ended").build().unwrap()
        }
        _ => client(&server.url()),
    };
    let (hand_over, handed) = bounded::<Called>(1);
    let (done, ended) = unbounded();
    let call = move || {
        // The last handles may be dropped here, in the listener.
        if let Ok(called) = handed.recv_timeout(LONG) {
            method(&called);
            drop(called);
            done.send(()).unwrap();
        }
    };
    let class = format!("{place:?}_{name}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let builder = client.subscription(&Query::new(&class));
    let subscription = match place {
        Place::Client(kind) => {
            let mut call = Some(call);
            client.on(kind, move |_| call.take().into_iter().for_each(|call| call()));
            builder
        }
        Place::Subscription(kind) => {
            let mut call = Some(call);
            builder.on(kind, move |_| call.take().into_iter().for_each(|call| call()))
        }
    }
    .start()
    .unwrap();
    hand_over
        .send(Called {
            client: client.clone(),
            subscription: subscription.clone(),
        })
        .unwrap();
    if let Place::Client(ClientEventKind::SessionEnded) = place {
        server.wait_subscribed(&class);
        let error = client.rest().me().unwrap_err();
        assert_eq!(error.code(), Some(209));
    } else {
        bring_about(server, place, &class);
    }
    assert_eq!(
        ended.recv_timeout(LONG),
        Ok(()),
        "{name} in {place:?} does not return"
    );
    let start = Instant::now();
    client.close();
    assert!(
        start.elapsed() < LONG,
        "the client does not close after {name} in {place:?}"
    );
}

/// The URL of a server whose REST API knows no session.
fn without_sessions() -> String {
    static SERVER: LazyLock<TestServer> = LazyLock::new(|| TestServer::start().unwrap());
    SERVER.url()
}

/// Sees that the event comes. `open` does by itself, and its listener may end the subscription there and then.
fn bring_about(server: &Server, place: Place, class: &str) {
    let kind = match place {
        Place::Client(ClientEventKind::Open) | Place::Subscription(EventKind::Open) => return,
        Place::Client(ClientEventKind::Error) => EventKind::Error,
        Place::Client(_) => EventKind::Close,
        Place::Subscription(kind) => kind,
    };
    let (conn, id) = server.wait_subscribed(class);
    match kind {
        EventKind::Close => conn.cut(),
        EventKind::Error => conn.error(141, "a hook threw", false, Some(id)),
        _ => {
            let original = Some(object(class, "a", json!({ "n": 1 })));
            conn.event(kind.as_str(), id, object(class, "a", json!({ "n": 2 })), original);
        }
    }
}

#[test]
fn api_x_callback_matrix() {
    let places = EventKind::ALL
        .map(Place::Subscription)
        .into_iter()
        .chain(ClientEventKind::ALL.map(Place::Client));
    watchdog(4 * MINUTE, || {
        for place in places {
            let server = Server::auto();
            for method in METHODS {
                call_in_listener(&server, place, method);
            }
        }
    });
}

#[test]
fn waits_refuse_in_callback() {
    let server = Server::auto();
    let client = client(&server.url());
    let (done, results) = unbounded();
    let (subscription, _events) = subscribe(&client, "Game");
    let (inner, handle) = (client.clone(), subscription.clone());
    subscription.once("create", move |_| {
        let waits = [
            ("Client::wait_open", inner.wait_open(MINUTE)),
            ("Client::wait_closed", inner.wait_closed()),
            ("Subscription::wait_open", handle.wait_open(MINUTE)),
        ];
        for (name, result) in waits {
            done.send((name, result.map_err(|error| error.kind()))).unwrap();
        }
    });
    server.emit("create", &object("Game", "a", json!({})));
    for _ in 0..3 {
        let (name, result) = results.recv_timeout(LONG).unwrap();
        assert_eq!(result, Err(ErrorKind::CalledFromListener), "{name}");
    }
    // Another client may be waited for: it has a thread of its own.
    let other = builder(&server.url()).build().unwrap();
    other.open();
    let (done, result) = unbounded();
    let waited = other.clone();
    subscription.once("create", move |_| {
        done.send(waited.wait_open(LONG).is_ok()).unwrap()
    });
    server.emit("create", &object("Game", "a", json!({})));
    assert_eq!(result.recv_timeout(LONG), Ok(true));
}

#[test]
fn close_in_a_listener_returns_at_once() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    // A server that never says farewell.
    server.conn(1).answer_close(false);
    let (done, took) = unbounded();
    let inner = client.clone();
    subscription.on("create", move |_| {
        let start = Instant::now();
        inner.close();
        done.send(start.elapsed()).unwrap();
    });
    server.emit("create", &object("Game", "a", json!({})));
    let took = took.recv_timeout(LONG).unwrap();
    assert!(took < SLACK, "{took:?}");
    events.wait_for("close");
}

#[test]
fn drop_client_in_callback() {
    let stderr = in_own_process(module_path!(), "drop_client_in_callback", MINUTE, || {
        let server = Server::auto();
        for last in ["create", "close", "open"] {
            let client = client(&server.url());
            let (hand_over, handed) = bounded::<(Client, Subscription)>(1);
            let (done, dropped) = unbounded();
            let mut slot = Some((handed, done));
            let subscription = client
                .subscription(&Query::new(last))
                .on(last, move |_| {
                    let Some((handed, done)) = slot.take() else { return };
                    // The only handles there are.
                    drop(handed.recv_timeout(LONG).unwrap());
                    done.send(()).unwrap();
                })
                .start()
                .unwrap();
            let (conn, id) = server.wait_subscribed(last);
            hand_over.send((client, subscription)).unwrap();
            match last {
                "create" => conn.event("create", id, object(last, "a", json!({})), None),
                "close" => conn.cut(),
                _ => {}
            }
            dropped.recv_timeout(LONG).unwrap();
        }
        wait_until("the threads have ended", || {
            ["livequery-io", "livequery-dispatch"]
                .iter()
                .all(|name| threads_named(name).is_none_or(|threads| threads.is_empty()))
        });
        wait_until("the connections have ended", || server.open_now() == 0);
    });
    if let Some(stderr) = stderr {
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn on_off_reentrancy() {
    let server = Server::auto();
    let client = client(&server.url());
    let calls = Recorder::<()>::new();
    let (subscription, _events) = subscribe(&client, "Game");
    let emit = |kind: &str| assert_eq!(server.emit(kind, &object("Game", "a", json!({}))), 1);
    let note = |name: &'static str| {
        let calls = calls.clone();
        move |_: &parse_livequery::Event| calls.push("", name, ())
    };

    // One that is registered in a listener hears from the next event on.
    let (handle, inner) = (subscription.clone(), note("inner"));
    let mut inner = Some(inner);
    let outer = note("outer");
    let id = subscription.on("create", move |event| {
        outer(event);
        if let Some(inner) = inner.take() {
            handle.on("create", inner);
        }
    });
    emit("create");
    emit("create");
    for expected in ["outer", "outer", "inner"] {
        calls.expect(expected);
    }
    assert!(subscription.off(id));
    assert!(!subscription.off(id));
    emit("create");
    calls.expect("inner");

    // One that removes itself, and one that removes the one after it: in this very event.
    let slot = Arc::new(parking_lot::Mutex::new(vec![]));
    let (handle, ids) = (subscription.clone(), Arc::clone(&slot));
    let remover = note("remover");
    let own = subscription.on("update", move |event| {
        remover(event);
        for id in ids.lock().drain(..) {
            assert!(handle.off(id));
        }
    });
    let after = subscription.on("update", note("removed"));
    slot.lock().extend([own, after]);
    let stays = subscription.on("update", note("stays"));
    emit("update");
    emit("update");
    for expected in ["remover", "stays", "stays"] {
        calls.expect(expected);
    }
    assert!(subscription.off(stays));

    // Once is once, also if the event comes again before the listener is removed.
    subscription.once("delete", note("once"));
    subscription.on("delete", note("always"));
    emit("delete");
    emit("delete");
    for expected in ["once", "always", "always"] {
        calls.expect(expected);
    }
    // `on` adds: two listeners, and the same closure twice, are two calls, in the order of registration.
    subscription.on("enter", note("first"));
    subscription.on("enter", note("second"));
    assert_eq!(subscription.listener_count("enter"), 3, "and the recorder's");
    emit("enter");
    calls.expect("first");
    calls.expect("second");
    let handle = subscription.clone();
    subscription.on("enter", move |_| handle.remove_all_listeners("enter"));
    subscription.on("enter", note("never"));
    emit("enter");
    calls.expect("first");
    calls.expect("second");
    emit("enter");
    subscription.on("leave", note("leave"));
    emit("leave");
    calls.expect("leave");
}

#[test]
fn what_a_listener_owns_is_dropped_where_it_may_call_the_client() {
    /// Calls back when it is dropped, as a closure that owns a handle does.
    struct CallsOnDrop(Subscription, crossbeam_channel::Sender<usize>);

    impl Drop for CallsOnDrop {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.listener_count("create"));
        }
    }

    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    let (dropped, drops) = unbounded();
    let owned = || CallsOnDrop(subscription.clone(), dropped.clone());

    let guard = owned();
    let id = subscription.on("create", move |_| ignore(&guard));
    let handle = subscription.clone();
    assert!(watchdog(MINUTE, move || handle.off(id)));
    drops.recv_timeout(LONG).unwrap();

    let guard = owned();
    subscription.on("create", move |_| ignore(&guard));
    let handle = subscription.clone();
    watchdog(MINUTE, move || handle.remove_all_listeners("create"));
    drops.recv_timeout(LONG).unwrap();

    let guard = owned();
    subscription.once("update", move |_| ignore(&guard));
    server.emit("update", &object("Game", "a", json!({})));
    drops.recv_timeout(LONG).unwrap();

    let guard = owned();
    subscription.on("create", move |_| ignore(&guard));
    subscription.unsubscribe();
    drops.recv_timeout(LONG).unwrap();
}

#[test]
fn panic_everywhere() {
    const ROUNDS: usize = 100;
    let server = Server::auto();
    let client = client(&server.url());
    let calls = Arc::new(AtomicUsize::new(0));
    let client_events = ClientEvents::new();
    for kind in ClientEventKind::ALL {
        let calls = Arc::clone(&calls);
        client.on(kind, move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            panic!("a listener of the client for {kind}");
        });
    }
    let recorder = client_events.clone();
    client.on("error", move |event| {
        recorder.push("client", "error", event.clone())
    });
    let mut builder = client.subscription(&Query::new("Game"));
    for kind in EventKind::ALL {
        let calls = Arc::clone(&calls);
        builder = builder.on(kind, move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            panic!("a listener for {kind}");
        });
    }
    let events = Events::new();
    let _subscription = record(builder, "Game", &events).start().unwrap();
    let (_other, others) = subscribe(&client, "Other");
    for round in 1..=ROUNDS {
        let (conn, id) = server.wait_subscribed("Game");
        server.wait_subscribed("Other");
        for kind in ["create", "update", "enter", "leave", "delete"] {
            conn.event(
                kind,
                id,
                object("Game", "a", json!({})),
                Some(object("Game", "a", json!({}))),
            );
        }
        conn.error(141, "a hook threw", false, Some(id));
        assert_eq!(server.emit("create", &object("Other", "a", json!({}))), 1);
        others.wait_for("create");
        if round % 10 == 0 {
            conn.cut();
            others.wait_for("open");
        }
    }
    // All listeners were called each time, the panicking ones too; the link never suffered.
    wait_until("the last open", || events.count("open") == 1 + ROUNDS / 10);
    for kind in ["create", "update", "enter", "leave", "delete", "error"] {
        assert_eq!(events.count(kind), ROUNDS, "{kind}");
    }
    assert_eq!(server.accepts(), 1 + ROUNDS / 10);
    assert!(calls.load(Ordering::Relaxed) > 6 * ROUNDS);
    let panics: Vec<_> = client_events
        .all()
        .into_iter()
        .filter_map(|seen| seen.value.error().cloned())
        .filter(|error| error.kind() == ErrorKind::ListenerPanicked)
        .map(|error| error.to_string())
        .collect();
    for kind in EventKind::ALL {
        let text = format!("a listener for {kind}");
        assert!(panics.iter().any(|panic| panic.contains(&text)), "{kind}");
    }
    for kind in ["open", "close", "reconnecting"] {
        let text = format!("a listener of the client for {kind}");
        assert!(panics.iter().any(|panic| panic.contains(&text)), "{kind}");
    }
}

#[test]
fn panic_poisons_nothing() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    let handle = subscription.clone();
    // In the middle of everything it may call.
    subscription.once("create", move |_| {
        handle.on("create", |_| {});
        handle.unsubscribe();
        let _ = handle.update(&Query::new("Other"));
        panic!("after all that");
    });
    server.emit("create", &object("Game", "a", json!({})));
    events.wait_for("close");
    let (_again, again) = subscribe(&client, "Game");
    server.emit("create", &object("Game", "a", json!({})));
    again.expect("create");
    client.close();
    again.expect("close");
}

#[test]
fn listeners_run_on_the_thread_that_the_documentation_names() {
    let server = Server::auto();
    let client = client(&server.url());
    let (sender, names) = unbounded();
    let note = sender.clone();
    client.on("open", move |_| {
        note.send(thread::current().name().map(str::to_owned)).unwrap()
    });
    let note = sender.clone();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |_| note.send(thread::current().name().map(str::to_owned)).unwrap())
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    subscription.on("open", move |_| {
        sender.send(thread::current().name().map(str::to_owned)).unwrap()
    });
    for _ in 0..3 {
        let name = names.recv_timeout(LONG).unwrap();
        assert_eq!(name.as_deref(), Some("livequery-dispatch"));
    }
}

#[test]
fn sleeping_listener_delays_no_call_of_the_api() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    let (release, gate) = bounded::<()>(0);
    subscription.on("create", move |_| {
        let _ = gate.recv_timeout(MINUTE);
    });
    let (entered, in_listener) = unbounded();
    subscription.on("update", move |_| entered.send(()).unwrap());
    server.emit("update", &object("Game", "a", json!({})));
    server.emit("create", &object("Game", "a", json!({})));
    in_listener.recv_timeout(LONG).unwrap();
    let start = Instant::now();
    let other = client.subscribe(&Query::new("Other")).unwrap();
    other.wait_open(LONG).unwrap();
    let id = subscription.on("create", |_| {});
    subscription.off(id);
    subscription.remove_all_listeners("delete");
    subscription.update(&Query::new("Game2")).unwrap();
    subscription.unsubscribe();
    drop(other);
    let _ = (
        client.state(),
        subscription.state(),
        format!("{client:?} {subscription:?}"),
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(release);
}

/// What users may send to other threads, share between them and let listeners own. That a listener cannot own what is
/// bound to one thread is shown by an example of `Subscription::on` that must not compile.
#[test]
fn bounds_compile_tests() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_shared::<Client>();
    is_shared::<Subscription>();
    is_shared::<parse_livequery::Event>();
    is_shared::<parse_livequery::Object>();
    is_shared::<parse_livequery::ClientEvent>();
    is_shared::<parse_livequery::Error>();
    is_shared::<Query>();
    is_send::<parse_livequery::SubscriptionBuilder>();
    is_send::<parse_livequery::ClientBuilder>();

    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    // Nothing of this is `Sync`.
    let (cell, (sender, receiver)) = (std::cell::Cell::new(0), std::sync::mpsc::channel());
    subscription.on("create", move |_| {
        cell.set(cell.get() + 1);
        sender.send(cell.get()).unwrap();
    });
    server.emit("create", &object("Game", "a", json!({})));
    assert_eq!(receiver.recv_timeout(LONG), Ok(1));
}

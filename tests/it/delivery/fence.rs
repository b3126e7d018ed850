//! Whatever belongs to the user may panic, and only that fails: closures, what they own when it is dropped, what they
//! panic with, the wake function, providers, the logger. Each test is a process of its own, so that one that brings the
//! process down is seen to do that, and what is logged is its own.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::{
    Client, ClientEventKind, Dispatch, Error, ErrorKind, EventKind, Object, Query, Subscription,
};
use serde::Deserialize;
use serde_json::json;

use super::{gate, unanswered};
use crate::harness::*;
use crate::support::*;

/// Panics when it is dropped: with a value that does so in turn, and that with another one.
struct Bomb {
    depth: u32,
    exploded: Arc<AtomicUsize>,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.exploded.fetch_add(1, Ordering::SeqCst);
        if self.depth == 0 {
            panic!("the last in a row of values whose drop panics");
        }
        panic_any(Self {
            depth: self.depth - 1,
            exploded: Arc::clone(&self.exploded),
        });
    }
}

/// Bombs, and how many of them have exploded.
#[derive(Clone, Default)]
struct Bombs(Arc<AtomicUsize>);

impl Bombs {
    fn new_bomb(&self) -> Bomb {
        Bomb {
            depth: 2,
            exploded: Arc::clone(&self.0),
        }
    }

    fn exploded(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// One of the value, at least.
    #[track_caller]
    fn wait_exploded(&self) {
        wait_until("what the user gave was dropped", || self.exploded() > 0);
    }
}

fn touch<T>(_: &T) {}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Warn {
            self.0.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

/// Two subscriptions on a client: to `Game`, which something is done to, and to `Other`, which must not notice.
struct Scene {
    server: Server,
    client: Client,
    client_events: ClientEvents,
    subscription: Subscription,
    events: Events,
    _other: Subscription,
    others: Events,
}

impl Scene {
    fn new() -> Self {
        let server = Server::auto();
        let client = client(&server.url());
        Self::of(server, client)
    }

    fn of(server: Server, client: Client) -> Self {
        let client_events = record_client(&client);
        let (subscription, events) = subscribe(&client, "Game");
        let (_other, others) = subscribe(&client, "Other");
        Self {
            server,
            client,
            client_events,
            subscription,
            events,
            _other,
            others,
        }
    }

    fn emit(&self, kind: &str) {
        let (conn, id) = self.server.wait_subscribed("Game");
        match kind {
            "error" => conn.error(141, "a hook threw", false, Some(id)),
            _ => conn.event(
                kind,
                id,
                object("Game", "a", json!({})),
                Some(object("Game", "a", json!({}))),
            ),
        }
    }

    /// Everybody else gets what comes after it, and somebody has said what happened.
    #[track_caller]
    fn assert_unhurt(&self) {
        self.assert_others_unhurt();
        self.emit("update");
        self.events.wait_for("update");
        // The link has not suffered.
        assert_eq!(self.server.accepts(), 1);
    }

    #[track_caller]
    fn assert_others_unhurt(&self) {
        assert_eq!(self.server.emit("create", &object("Other", "a", json!({}))), 1);
        self.others.wait_for("create");
        fence(&self.client);
        assert_eq!(self.others.count("close"), 0);
    }

    #[track_caller]
    fn assert_reported(&self) {
        wait_until("it is reported, by an event or in the log", || {
            let all = self.client_events.all();
            let told = all
                .iter()
                .filter_map(|seen| seen.value.error())
                .any(|error| error.kind() == ErrorKind::ListenerPanicked);
            told || LINES.0.lock().iter().any(|line| line.contains("panicked"))
        });
    }
}

#[track_caller]
fn alone(test: &str, body: impl FnOnce()) {
    in_own_process(module_path!(), test, 2 * MINUTE, || {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        body();
    });
}

/// A call on the user's own thread, which must not unwind.
#[track_caller]
fn calm<T>(name: &str, call: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => value,
        Err(payload) => {
            // Its drop panics.
            std::mem::forget(payload);
            panic!("{name} unwinds into the thread of the user");
        }
    }
}

#[test]
fn a_once_listener_that_owns_a_value_whose_drop_panics() {
    alone("a_once_listener_that_owns_a_value_whose_drop_panics", || {
        for kind in ["create", "error"] {
            let (scene, bombs) = (Scene::new(), Bombs::default());
            let bomb = bombs.new_bomb();
            scene.subscription.once(kind, move |_| touch(&bomb));
            scene.emit(kind);
            bombs.wait_exploded();
            scene.assert_unhurt();
            scene.assert_reported();
        }
    });
}

#[test]
fn a_once_listener_for_open_and_close_that_owns_a_value_whose_drop_panics() {
    alone(
        "a_once_listener_for_open_and_close_that_owns_a_value_whose_drop_panics",
        || {
            let server = Server::auto();
            let client = client(&server.url());
            let (subscription, bombs) = (unanswered(&server, &client), Bombs::default());
            for kind in ["open", "close"] {
                let bomb = bombs.new_bomb();
                subscription.once(kind, move |_| touch(&bomb));
                let bomb = bombs.new_bomb();
                client.once(kind, move |_| touch(&bomb));
            }
            let events = Events::new();
            let recorder = events.clone();
            subscription.on_any(move |event| recorder.push("Game", event.kind().as_str(), event.clone()));
            server.conn(1).subscribed(subscription.id());
            events.expect("open");
            // Late ones, too.
            let bomb = bombs.new_bomb();
            subscription.once("open", move |_| touch(&bomb));
            let bomb = bombs.new_bomb();
            client.once("open", move |_| touch(&bomb));
            server.conn(1).cut();
            events.expect("close");
            events.expect("open");
            fence(&client);
            client.close();
            events.expect("close");
            assert!(bombs.exploded() >= 6, "{}", bombs.exploded());
        },
    );
}

/// What is removed on the user's thread is dropped there, or elsewhere; neither unwinds.
#[test]
fn removing_a_listener_that_owns_a_value_whose_drop_panics() {
    alone("removing_a_listener_that_owns_a_value_whose_drop_panics", || {
        let scene = Scene::new();
        let bombs = Bombs::default();
        let subscription = &scene.subscription;
        let bomb = bombs.new_bomb();
        let id = subscription.on("create", move |_| touch(&bomb));
        assert!(calm("Subscription::off", || subscription.off(id)));
        bombs.wait_exploded();
        scene.assert_unhurt();

        let bombs = Bombs::default();
        // Two of them: the second one is dropped as well.
        for _ in 0..2 {
            let bomb = bombs.new_bomb();
            subscription.on("create", move |_| touch(&bomb));
        }
        calm("Subscription::remove_all_listeners", || {
            subscription.remove_all_listeners("create");
        });
        wait_until("both have exploded", || bombs.exploded() >= 2);
        scene.assert_unhurt();
        assert_eq!(subscription.listener_count("create"), 1, "the recorder's");

        let bombs = Bombs::default();
        let bomb = bombs.new_bomb();
        let id = scene.client.on("error", move |_| touch(&bomb));
        assert!(calm("Client::off", || scene.client.off(id)));
        bombs.wait_exploded();
        let bombs = Bombs::default();
        let bomb = bombs.new_bomb();
        scene.client.on("reconnecting", move |_| touch(&bomb));
        calm("Client::remove_all_listeners", || {
            scene.client.remove_all_listeners("reconnecting");
        });
        bombs.wait_exploded();
        scene.assert_unhurt();
        scene.assert_reported();
    });
}

#[test]
fn removing_a_running_listener_that_owns_a_value_whose_drop_panics() {
    alone(
        "removing_a_running_listener_that_owns_a_value_whose_drop_panics",
        || {
            let (scene, bombs) = (Scene::new(), Bombs::default());
            let (gate, hold) = gate();
            let bomb = bombs.new_bomb();
            let id = scene.subscription.on("create", move |_| {
                touch(&bomb);
                hold.stay();
            });
            scene.emit("create");
            gate.wait_entered();
            assert!(calm("Subscription::off", || scene.subscription.off(id)));
            gate.release();
            bombs.wait_exploded();
            scene.assert_unhurt();
            scene.assert_reported();
            // One that removes itself.
            let bombs = Bombs::default();
            let (bomb, slot) = (bombs.new_bomb(), Arc::new(Mutex::new(None)));
            let (own, handle) = (Arc::clone(&slot), scene.subscription.clone());
            let id = scene.subscription.on("create", move |_| {
                touch(&bomb);
                let id = own.lock().take();
                if let Some(id) = id {
                    assert!(handle.off(id));
                }
            });
            *slot.lock() = Some(id);
            scene.emit("create");
            bombs.wait_exploded();
            scene.assert_unhurt();
        },
    );
}

#[test]
fn the_end_of_a_subscription_whose_listeners_own_values_whose_drop_panics() {
    type End = (&'static str, fn(Subscription));
    let ends: [End; 3] = [
        ("unsubscribe", |subscription| subscription.unsubscribe()),
        ("unsubscribe_and_wait", |subscription| {
            subscription.unsubscribe_and_wait(LONG).unwrap();
        }),
        ("drop", drop),
    ];
    alone(
        "the_end_of_a_subscription_whose_listeners_own_values_whose_drop_panics",
        || {
            let scene = Scene::new();
            for (name, end) in ends {
                let bombs = Bombs::default();
                let mut builder = scene.client.subscription(&Query::new("Bombs"));
                for kind in EventKind::ALL {
                    let bomb = bombs.new_bomb();
                    builder = builder.on(kind, move |_| touch(&bomb));
                }
                let subscription = builder.start().unwrap();
                subscription.wait_open(LONG).unwrap();
                calm(name, || end(subscription));
                wait_until("all have exploded", || bombs.exploded() >= EventKind::ALL.len());
                scene.assert_unhurt();
            }
            scene.assert_reported();
        },
    );
}

#[test]
fn the_end_of_a_client_whose_listeners_own_values_whose_drop_panics() {
    alone(
        "the_end_of_a_client_whose_listeners_own_values_whose_drop_panics",
        || {
            let scene = Scene::new();
            let bombs = Bombs::default();
            for kind in EventKind::ALL {
                let bomb = bombs.new_bomb();
                scene.subscription.on(kind, move |_| touch(&bomb));
            }
            calm("Client::close", || scene.client.close());
            wait_until("all have exploded", || bombs.exploded() >= EventKind::ALL.len());
            scene.events.wait_for("close");
            scene.others.wait_for("close");
            scene.client_events.wait_for("close");
            scene.assert_reported();
            // It can be used again.
            let (_again, events) = subscribe(&scene.client, "Game");
            scene.emit("create");
            events.expect("create");
            drop((scene, _again));

            let server = Server::auto();
            let client = client(&server.url());
            let bombs = Bombs::default();
            for kind in ClientEventKind::ALL {
                let bomb = bombs.new_bomb();
                client.on(kind, move |_| touch(&bomb));
            }
            let bomb = bombs.new_bomb();
            let subscription = client
                .subscription(&Query::new("Game"))
                .on_any(move |_| touch(&bomb))
                .start()
                .unwrap();
            subscription.wait_open(LONG).unwrap();
            subscription.detach();
            calm("the drop of a client", || drop(client));
            wait_until("all have exploded", || {
                bombs.exploded() > ClientEventKind::ALL.len()
            });
            wait_until("the threads have ended", || {
                ["livequery-io", "livequery-dispatch"]
                    .iter()
                    .all(|name| threads_named(name).is_none_or(|threads| threads.is_empty()))
            });
            wait_until("the connection has ended", || server.open_now() == 0);
        },
    );
}

#[test]
fn a_listener_that_panics_with_a_value_whose_drop_panics() {
    alone("a_listener_that_panics_with_a_value_whose_drop_panics", || {
        let (scene, bombs) = (Scene::new(), Bombs::default());
        let explode = bombs.clone();
        scene
            .subscription
            .on("create", move |_| panic_any(explode.new_bomb()));
        let explode = bombs.clone();
        scene
            .subscription
            .once("create", move |_| panic_any(explode.new_bomb()));
        scene.emit("create");
        scene.events.wait_for("create");
        scene.assert_unhurt();
        scene.assert_reported();
        scene.emit("create");
        scene.events.wait_for("create");
        scene.assert_unhurt();
        let panics = scene.client_events.all();
        let panics = panics.iter().filter_map(|seen| seen.value.error());
        let count: u64 = panics
            .filter(|error| error.kind() == ErrorKind::ListenerPanicked)
            .map(Error::occurrences)
            .sum();
        assert!(count >= 3, "{count} of 3 panics were told");
    });
}

#[test]
fn listeners_of_the_client_that_panic_with_a_value_whose_drop_panics() {
    alone(
        "listeners_of_the_client_that_panic_with_a_value_whose_drop_panics",
        || {
            let server = Server::auto();
            let client = client(&server.url());
            for kind in ClientEventKind::ALL {
                let bombs = Bombs::default();
                client.on(kind, move |_| panic_any(bombs.new_bomb()));
            }
            let scene = Scene::of(server, client);
            // Also on being told that they panicked.
            scene.emit("error");
            scene.assert_unhurt();
            scene.server.conn(1).cut();
            scene.others.wait_for("open");
            calm("Client::close", || scene.client.close());
            scene.others.wait_for("close");
            scene.client_events.wait_for("close");
            scene.assert_reported();
        },
    );
}

/// An object whose drop panics, and one whose decoding does.
#[derive(Deserialize)]
struct Explosive {
    #[serde(deserialize_with = "explode")]
    #[expect(dead_code, reason = "it is there to be dropped")]
    fuse: Lit,
}

struct Lit;

impl Drop for Lit {
    fn drop(&mut self) {
        panic_any(Bombs::default().new_bomb());
    }
}

fn explode<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Lit, D::Error> {
    if bool::deserialize(json)? {
        panic_any(Bombs::default().new_bomb());
    }
    Ok(Lit)
}

#[test]
fn a_type_of_the_user_whose_decoding_or_drop_panics() {
    alone("a_type_of_the_user_whose_decoding_or_drop_panics", || {
        let scene = Scene::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        scene.subscription.on_as::<Explosive>("create", move |_, _| {
            called.fetch_add(1, Ordering::SeqCst);
        });
        for at_once in [true, false, true, false] {
            let (conn, id) = scene.server.wait_subscribed("Game");
            conn.event("create", id, object("Game", "a", json!({"fuse": at_once})), None);
            scene.events.wait_for("create");
            scene.assert_unhurt();
        }
        wait_until("those that can be decoded have come", || {
            calls.load(Ordering::SeqCst) == 2
        });
        scene.assert_reported();
    });
}

#[test]
fn a_wake_function_that_panics_with_and_owns_a_value_whose_drop_panics() {
    alone(
        "a_wake_function_that_panics_with_and_owns_a_value_whose_drop_panics",
        || {
            let server = Server::auto();
            let bombs = Bombs::default();
            let (bomb, explode, calls) = (bombs.new_bomb(), Bombs::default(), Arc::new(AtomicUsize::new(0)));
            let wakes = Arc::clone(&calls);
            let client = builder(&server.url())
                .dispatch(Dispatch::manual(move || {
                    touch(&bomb);
                    wakes.fetch_add(1, Ordering::SeqCst);
                    panic_any(explode.new_bomb());
                }))
                .build()
                .unwrap();
            let events = Events::new();
            let subscription = calm("Subscription::subscribe", || {
                subscribe_into(&client, "Game", &events)
            });
            calm("Client::on", || client.on("open", |_| {}));
            for round in 0..20 {
                let (conn, id) = server.wait_subscribed("Game");
                conn.event("create", id, object("Game", "a", json!({})), None);
                wait_until("it is given out", || {
                    calm("Client::dispatch_pending_for", || {
                        client.dispatch_pending_for(ms(0))
                    });
                    events.count("create") == round + 1
                });
                if round % 7 == 6 {
                    conn.cut();
                }
            }
            assert!(calls.load(Ordering::SeqCst) > 0);
            let (closing, thread) = (client.clone(), AtomicBool::new(false));
            thread::scope(|scope| {
                scope.spawn(|| {
                    calm("Client::close", || closing.close());
                    thread.store(true, Ordering::SeqCst);
                });
                while !thread.load(Ordering::SeqCst) {
                    calm("Client::dispatch_pending", || client.dispatch_pending());
                    thread::park_timeout(ms(1));
                }
            });
            drop(closing);
            calm("the drop of the handles", || drop((subscription, client)));
            bombs.wait_exploded();
            wait_until("it is logged", || {
                LINES.0.lock().iter().any(|line| line.contains("wake function"))
            });
        },
    );
}

#[test]
fn a_session_token_provider_that_panics_with_and_owns_a_value_whose_drop_panics() {
    alone(
        "a_session_token_provider_that_panics_with_and_owns_a_value_whose_drop_panics",
        || {
            let server = Server::auto();
            let bombs = Bombs::default();
            let (bomb, explode, calls) = (bombs.new_bomb(), Bombs::default(), AtomicUsize::new(0));
            let client = builder(&server.url())
                .session_token_provider(move || {
                    touch(&bomb);
                    if calls.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
                        panic_any(explode.new_bomb());
                    }
                    Some("r:1".to_owned())
                })
                .build()
                .unwrap();
            let client_events = record_client(&client);
            let (subscription, events) = subscribe(&client, "Game");
            server.conn(server.accepts()).cut();
            events.expect("close");
            events.expect("open");
            let told = |word: &str| {
                let all = client_events.all();
                let errors = all.iter().filter_map(|seen| seen.value.error());
                let mut lines: Vec<_> = errors.map(ToString::to_string).collect();
                lines.extend(LINES.0.lock().iter().cloned());
                lines.iter().any(|line| line.contains(word))
            };
            wait_until("it is reported, by an event or in the log", || {
                told("token provider")
            });
            calm("the drop of the handles", || drop((subscription, client)));
            bombs.wait_exploded();
            wait_until("the connections have ended", || server.open_now() == 0);
        },
    );
}

/// When an error panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Panics {
    Display,
    Source,
    Drop,
}

/// An error that panics as soon as anybody looks at it, or drops it.
struct TouchyError(Panics);

/// Cleared at the end of a test, which may drop errors as well.
static ARMED: AtomicBool = AtomicBool::new(true);

impl fmt::Debug for TouchyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Panics::Display {
            panic_any(Bombs::default().new_bomb());
        }
        f.write_str("touchy")
    }
}

impl fmt::Display for TouchyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for TouchyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if self.0 == Panics::Source {
            panic_any(Bombs::default().new_bomb());
        }
        None
    }
}

impl Drop for TouchyError {
    fn drop(&mut self) {
        if self.0 == Panics::Drop && ARMED.load(Ordering::SeqCst) && !thread::panicking() {
            panic_any(Bombs::default().new_bomb());
        }
    }
}

const TOUCHY: [Panics; 3] = [Panics::Display, Panics::Source, Panics::Drop];

#[test]
fn a_connect_function_that_panics_or_fails_with_what_panics_when_it_is_touched() {
    alone(
        "a_connect_function_that_panics_or_fails_with_what_panics_when_it_is_touched",
        || {
            let server = Server::auto();
            let (addr, bombs) = (server.addr(), Bombs::default());
            let (bomb, explode, calls) = (bombs.new_bomb(), Bombs::default(), AtomicUsize::new(0));
            let attempts = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&attempts);
            let client = builder(&server.url())
                .connect_with(move |_, _| {
                    touch(&bomb);
                    counter.fetch_add(1, Ordering::SeqCst);
                    match calls.fetch_add(1, Ordering::SeqCst) {
                        0 => panic_any(explode.new_bomb()),
                        call @ 1..=3 => Err(io::Error::other(TouchyError(TOUCHY[call - 1]))),
                        _ => TcpStream::connect(addr),
                    }
                })
                .build()
                .unwrap();
            // That nobody looks at the errors themselves is a part of it: listeners of the user would panic, too.
            let events = Events::new();
            let subscription = subscribe_into(&client, "Game", &events);
            events.wait_for("open");
            assert_eq!(attempts.load(Ordering::SeqCst), 5);
            calm("Client::stats and diagnose", || {
                drop((client.stats(), client.diagnose()));
            });
            server.conn(1).cut();
            events.wait_for("open");
            calm("the drop of the handles", || drop((subscription, client)));
            bombs.wait_exploded();
            wait_until("the connections have ended", || server.open_now() == 0);
        },
    );
}

#[test]
fn a_fetch_function_that_panics_or_fails_with_what_panics_when_it_is_touched() {
    alone(
        "a_fetch_function_that_panics_or_fails_with_what_panics_when_it_is_touched",
        || {
            let scene = Scene::new();
            let bombs = Bombs::default();
            let (bomb, explode, calls) = (bombs.new_bomb(), Bombs::default(), AtomicUsize::new(0));
            let set = scene
                .client
                .live_set(&Query::new("Set"))
                .fetch_with(move |_| {
                    touch(&bomb);
                    match calls.fetch_add(1, Ordering::SeqCst) {
                        0 => panic_any(explode.new_bomb()),
                        call @ 1..=3 => Err(TouchyError(TOUCHY[call - 1])),
                        _ => Ok(vec![]),
                    }
                })
                .start()
                .unwrap();
            set.wait_ready(MINUTE).unwrap();
            scene.server.emit("create", &object("Set", "a", json!({})));
            wait_until("the set follows", || set.len() == 1);
            scene.assert_unhurt();
            calm("the drop of the set", || drop(set));
            bombs.wait_exploded();
            scene.assert_unhurt();
            ARMED.store(false, Ordering::SeqCst);
        },
    );
}

#[test]
fn listeners_of_a_set_that_panic_with_and_own_values_whose_drop_panics() {
    alone(
        "listeners_of_a_set_that_panic_with_and_own_values_whose_drop_panics",
        || {
            let scene = Scene::new();
            let owned = Bombs::default();
            let (told, changes) = unbounded::<usize>();
            let bombs = [(); 4].map(|()| owned.new_bomb());
            let [change, ready, stale, error] = bombs;
            let set = scene
                .client
                .live_set(&Query::new("Set"))
                .fetch_with(|_| Ok::<Vec<Object>, String>(vec![]))
                .on_change(move |_, _| {
                    touch(&change);
                    panic_any(Bombs::default().new_bomb())
                })
                .on_ready(move |_| {
                    touch(&ready);
                    panic_any(Bombs::default().new_bomb())
                })
                .on_stale(move |_| {
                    touch(&stale);
                    panic_any(Bombs::default().new_bomb())
                })
                .on_error(move |_| {
                    touch(&error);
                    panic_any(Bombs::default().new_bomb())
                })
                .on_change(move |_, set| told.send(set.len()).unwrap())
                .start()
                .unwrap();
            set.wait_ready(LONG).unwrap();
            for count in 1..4 {
                scene
                    .server
                    .emit("create", &object("Set", &format!("{count}"), json!({})));
                assert_eq!(changes.recv_timeout(LONG).unwrap(), count);
            }
            let (conn, id) = scene.server.wait_subscribed("Set");
            conn.error(141, "a hook threw", false, Some(id));
            scene.assert_unhurt();
            scene.assert_reported();
            let bombs = Bombs::default();
            let bomb = bombs.new_bomb();
            let id = set.on_change(move |_, _| touch(&bomb));
            fence(&scene.client);
            assert!(calm("LiveSet::off", || set.off(id)));
            bombs.wait_exploded();
            scene.assert_unhurt();
            calm("LiveSet::close", || set.close());
            scene.assert_unhurt();
            calm("the drop of the set", || drop(set));
            wait_until("all have exploded", || owned.exploded() >= 4);
            scene.assert_unhurt();
        },
    );
}

/// Panics at every record of the library, with a value whose drop panics.
struct PanickingLogger {
    records: AtomicUsize,
}

impl log::Log for PanickingLogger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("parse_livequery")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.records.fetch_add(1, Ordering::SeqCst);
            panic_any(Bombs::default().new_bomb());
        }
    }

    fn flush(&self) {}
}

static PANICKING_LOGGER: PanickingLogger = PanickingLogger {
    records: AtomicUsize::new(0),
};

#[test]
fn a_logger_that_panics_at_every_record() {
    in_own_process(
        module_path!(),
        "a_logger_that_panics_at_every_record",
        2 * MINUTE,
        || {
            log::set_logger(&PANICKING_LOGGER).unwrap();
            log::set_max_level(log::LevelFilter::Trace);
            let records = || PANICKING_LOGGER.records.load(Ordering::SeqCst);
            let server = Server::auto();
            let client = calm("ClientBuilder::build", || client(&server.url()));
            let (subscription, events) = calm("Client::subscribe", || subscribe(&client, "Game"));
            subscription.on("create", |_| panic!("which is logged"));
            let (release, gate) = bounded::<()>(0);
            subscription.once("update", move |_| assert!(gate.recv_timeout(ms(1100)).is_err()));
            let (conn, id) = server.wait_subscribed("Game");
            for kind in ["create", "update", "create", "delete"] {
                conn.event(
                    kind,
                    id,
                    object("Game", "a", json!({})),
                    Some(object("Game", "a", json!({}))),
                );
            }
            // Each of these is worth a line.
            conn.send_text("nonsense");
            conn.send_text(r#"{"op": "unknown"}"#);
            conn.error(141, "a hook threw", false, Some(id));
            conn.error(141, "a hook threw", false, None);
            events.wait_for("delete");
            drop(release);
            assert!(records() > 0, "nothing was logged");
            conn.cut();
            events.wait_for("open");
            let (conn, id) = server.wait_subscribed("Game");
            conn.event("create", id, object("Game", "b", json!({})), None);
            events.wait_for("create");
            client.set_session_token(Some("r:1"));
            events.wait_for("open");
            calm("Subscription::unsubscribe_and_wait", || {
                subscription.unsubscribe_and_wait(LONG).unwrap();
            });
            let set = client
                .live_set(&Query::new("Set"))
                .fetch_with(|_| Err::<Vec<Object>, _>("no".to_owned()))
                .start()
                .unwrap();
            assert_eq!(set.wait_ready(ms(100)).unwrap_err().kind(), ErrorKind::Timeout);
            drop(set);
            calm("Client::close", || client.close());
            assert!(client.wait_closed().is_ok());
            calm("the drop of the handles", || drop((subscription, client)));
            wait_until("the threads have ended", || {
                ["livequery-io", "livequery-dispatch"]
                    .iter()
                    .all(|name| threads_named(name).is_none_or(|threads| threads.is_empty()))
            });
        },
    );
}

/// On a thread of the user's, too.
#[test]
fn a_logger_that_panics_while_nobody_listens_to_errors() {
    in_own_process(
        module_path!(),
        "a_logger_that_panics_while_nobody_listens_to_errors",
        2 * MINUTE,
        || {
            log::set_logger(&PANICKING_LOGGER).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
            // Where nobody answers, and after 50 ms it is given up.
            let server = Server::auto();
            let (woken, wakes) = unbounded();
            let client = builder(&server.url())
                .close_timeout(ms(50))
                .dispatch(Dispatch::manual(move || {
                    let _ = woken.send(());
                    panic!("which is logged");
                }))
                .build()
                .unwrap();
            let subscription = calm("Client::subscribe", || {
                client.subscribe(&Query::new("Game")).unwrap()
            });
            let (told, opened) = bounded(1);
            calm("Subscription::on", || {
                subscription.on("open", move |_| {
                    let _ = told.try_send(());
                    panic!("which is logged");
                })
            });
            while opened.is_empty() {
                wakes.recv_timeout(LONG).unwrap();
                calm("Client::dispatch_pending", || client.dispatch_pending());
            }
            let (conn, id) = server.wait_subscribed("Game");
            conn.error(141, "a hook threw", false, Some(id));
            wait_until("it is logged", || {
                calm("Client::dispatch_pending", || client.dispatch_pending());
                PANICKING_LOGGER.records.load(Ordering::SeqCst) >= 3
            });
            // Nobody calls the listeners it waits for: of which the log is warned, on this thread.
            calm("Client::close", || client.close());
            calm("the drop of the handles", || drop((subscription, client)));
            wait_until("the connection has ended", || server.open_now() == 0);
        },
    );
}

/// A bomb is one: the drop of what it panics with panics, and so on.
#[test]
fn a_bomb_explodes_three_times() {
    let bombs = Bombs::default();
    let mut next: Option<Box<dyn Any + Send>> = Some(Box::new(bombs.new_bomb()));
    while let Some(payload) = next.take() {
        next = catch_unwind(AssertUnwindSafe(|| drop(payload))).err();
        if bombs.exploded() == 3 {
            break;
        }
    }
    assert_eq!(bombs.exploded(), 3);
    assert!(next.is_some_and(|payload| payload.is::<&str>()));
}

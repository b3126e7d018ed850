//! The set that is equal to `find()`: what comes while it fetches, while the link is down, and when fetches fail. The
//! test itself answers what the set asks for.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parse_livequery::{
    Change, Client, ClientEventKind, Date, Dispatch, ErrorKind, LiveSet, LiveSetBuilder, Object, Query,
    Snapshot,
};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

/// What a set asked for. It waits for the answer.
struct Ask {
    query: Value,
    answer: Sender<Result<Vec<Object>, String>>,
}

impl Ask {
    fn answer(self, objects: &[Value]) {
        let objects = objects
            .iter()
            .map(|json| Object::from_json(json.clone()).unwrap());
        // The set may be gone.
        let _ = self.answer.send(Ok(objects.collect()));
    }

    fn fail(self, text: &str) {
        let _ = self.answer.send(Err(text.to_owned()));
    }
}

struct Asks {
    asks: Receiver<Ask>,
    /// The most objects that were ever returned at once.
    largest: Cell<usize>,
}

impl Asks {
    #[track_caller]
    fn next(&self) -> Ask {
        self.asks.recv_timeout(LONG).expect("the set asks for nothing")
    }

    /// Answers as a server that has these objects, until the set has them all.
    #[track_caller]
    fn answer_all(&self, objects: &[Value]) {
        self.next().answer(objects);
        if objects.len() >= self.largest.get() && !objects.is_empty() {
            self.largest.set(objects.len());
            // As many as ever: there might be more.
            self.next().answer(&[]);
        }
    }
}

#[derive(Clone, Debug)]
enum Told {
    Change(Change, Vec<String>),
    Ready(usize),
    Stale(Date),
    Error(parse_livequery::Error),
}

type Tale = Recorder<Told>;

/// A set that asks the test, and tells it everything.
fn live_set(client: &Client, query: &Query) -> (LiveSet, Asks, Tale) {
    let tale = Tale::new();
    let (builder, asks) = asking(record_set(client.live_set(query), &tale));
    (builder.start().unwrap(), asks, tale)
}

fn asking(builder: LiveSetBuilder) -> (LiveSetBuilder, Asks) {
    let (ask, asks) = unbounded();
    let builder = builder.fetch_with(move |query: &Query| {
        let (answer, answered) = bounded(1);
        let query = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        ask.send(Ask { query, answer })
            .map_err(|_| "the test is over".to_owned())?;
        answered.recv().map_err(|_| "the test is over".to_owned())?
    });
    let largest = Cell::new(0);
    (builder, Asks { asks, largest })
}

fn record_set(builder: LiveSetBuilder, tale: &Tale) -> LiveSetBuilder {
    let (changes, ready, stale, errors) = (tale.clone(), tale.clone(), tale.clone(), tale.clone());
    let mut copy: Vec<Object> = Vec::new();
    builder
        .on_change(move |change, set| {
            change.apply_to(&mut copy, set);
            assert!(copy.iter().eq(set.iter()), "{change:?} does not lead to {set:?}");
            let kind = match change {
                Change::Inserted { .. } => "inserted",
                Change::Updated { .. } => "updated",
                Change::Moved { .. } => "moved",
                Change::Removed { .. } => "removed",
                _ => "reset",
            };
            changes.push("set", kind, Told::Change(change.clone(), ids(set)));
        })
        .on_ready(move |set| ready.push("set", "ready", Told::Ready(set.len())))
        .on_stale(move |since| stale.push("set", "stale", Told::Stale(since)))
        .on_error(move |error| errors.push("set", "error", Told::Error(error.clone())))
}

fn ids(set: &Snapshot) -> Vec<String> {
    set.iter().map(|object| object.id().unwrap().to_owned()).collect()
}

/// A game, after so many saves.
fn game(id: &str, saves: u32) -> Value {
    object(
        "Game",
        id,
        json!({"saves": saves, "updatedAt": format!("2024-01-01T00:00:{saves:02}.000Z")}),
    )
}

/// A set that is ready, with these objects.
fn ready_set(client: &Client, objects: &[Value]) -> (LiveSet, Asks, Tale) {
    let (set, asks, tale) = live_set(client, &Query::new("Game"));
    asks.answer_all(objects);
    tale.wait_for("ready");
    assert_eq!(set.len(), objects.len());
    (set, asks, tale)
}

#[test]
fn an_event_between_subscribe_and_fetch_is_in_the_set() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game").equal_to("finished", false));
    let ask = asks.next();
    assert_eq!(ask.query["order"], "objectId");
    assert_eq!(ask.query["where"], json!({"finished": false}));
    // After the subscription, and after the page was read.
    let mut unfinished = game("b", 1);
    unfinished["finished"] = false.into();
    server.emit("create", &unfinished);
    fence(&client);
    assert!(!set.is_ready() && set.is_empty());
    ask.answer(&[game("a", 0)]);
    asks.next().answer(&[]);
    tale.expect("reset");
    assert!(matches!(tale.expect("ready").value, Told::Ready(2)));
    assert_eq!(ids(&set.snapshot()), ["a", "b"]);
    set.wait_ready(LONG).unwrap();
}

#[test]
fn an_object_that_is_deleted_during_the_fetch_stays_gone() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game"));
    let ask = asks.next();
    server.emit("delete", &game("a", 0));
    fence(&client);
    // Read before it was deleted.
    ask.answer(&[game("a", 0), game("b", 0)]);
    asks.next().answer(&[]);
    tale.wait_for("ready");
    assert_eq!(ids(&set.snapshot()), ["b"]);
}

#[test]
fn a_delete_during_an_outage_comes_out_as_a_removal() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[game("a", 0), game("b", 0), game("c", 0)]);
    let before = SystemTime::now();
    server.conn(1).cut();
    let Told::Stale(since) = tale.expect("stale").value else {
        panic!()
    };
    assert!(since >= Date::from(before - ms(1000)) && since <= SystemTime::now().into());
    assert_eq!(set.len(), 3, "it keeps what it has");
    assert!(!set.is_ready());
    assert_eq!(set.stale_since(), Some(since));
    asks.answer_all(&[game("a", 0), game("c", 1)]);
    let Told::Change(removed, _) = tale.expect("removed").value else {
        panic!()
    };
    assert_eq!(removed.object().unwrap().id(), Some("b"));
    let Told::Change(updated, ids) = tale.expect("updated").value else {
        panic!()
    };
    assert_eq!(updated.changed_keys(), ["saves"]);
    assert_eq!(ids, ["a", "c"]);
    tale.expect("ready");
    assert_eq!(set.stale_since(), None);
}

#[test]
fn an_update_that_arrives_before_its_create_is_kept() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[]);
    server.emit("update", &game("a", 2));
    server.emit("create", &game("a", 1));
    fence(&client);
    tale.expect("inserted");
    assert_eq!(set.get("a").unwrap().get_i64("saves"), Some(2));
    // How the object came to be was not told in order, so it is looked at.
    tale.expect("stale");
    let ask = asks.next();
    assert_eq!(ask.query["where"]["$and"][1]["objectId"]["$in"], json!(["a"]));
    ask.answer(&[game("a", 3)]);
    tale.expect("updated");
    assert_eq!(set.get("a").unwrap().get_i64("saves"), Some(3));
}

#[test]
fn an_object_that_leaves_and_enters_while_a_page_is_fetched_is_there() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game"));
    // `a` leaves and enters, `b` enters and leaves, and the page has what was before or in between.
    let ask = asks.next();
    server.emit("leave", &game("a", 1));
    server.emit("enter", &game("a", 2));
    server.emit("enter", &game("b", 1));
    server.emit("leave", &game("b", 2));
    fence(&client);
    ask.answer(&[game("b", 1)]);
    asks.next().answer(&[]);
    // Nothing says that `a` entered after it left, so it is looked at.
    let ask = asks.next();
    assert_eq!(ask.query["where"]["$and"][1]["objectId"]["$in"], json!(["a"]));
    ask.answer(&[game("a", 2)]);
    tale.wait_for("ready");
    assert_eq!(ids(&set.snapshot()), ["a"]);
    // A late event changes nothing.
    server.emit("leave", &game("a", 1));
    server.emit("enter", &game("b", 1));
    fence(&client);
    assert_eq!(ids(&set.snapshot()), ["a"]);
    tale.expect_quiet(ms(0));
}

#[test]
fn a_session_token_that_may_read_less_takes_objects_out() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[game("a", 0), game("b", 0), game("c", 0), game("d", 0)]);
    // What was fetched with the old token, and arrives with the new one, counts for nothing.
    set.refresh();
    let old = asks.next();
    set.set_session_token(Some("r:other")).unwrap();
    old.answer(&[game("a", 1), game("b", 1), game("c", 1), game("d", 1)]);
    tale.expect("stale");
    asks.answer_all(&[game("b", 0), game("d", 0)]);
    tale.expect("removed");
    tale.expect("removed");
    tale.expect("ready");
    assert_eq!(ids(&set.snapshot()), ["b", "d"]);
    let updates = server.received_op("update");
    assert_eq!(updates.last().unwrap().frame["query"]["className"], "Game");
    assert_eq!(updates.last().unwrap().frame["sessionToken"], "r:other");
}

#[test]
fn a_fetch_that_fails_is_told_and_tried_again() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game"));
    asks.next().fail("503 Service Unavailable");
    let Told::Error(error) = tale.expect("error").value else {
        panic!()
    };
    assert_eq!(error.kind(), ErrorKind::Fetch);
    assert_eq!(
        error.to_string(),
        "the objects of Game cannot be fetched: 503 Service Unavailable"
    );
    let error = set.wait_ready(ms(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().ends_with("503 Service Unavailable"), "{error}");
    asks.answer_all(&[game("a", 0)]);
    set.wait_ready(LONG).unwrap();
    tale.wait_for("ready");
}

#[test]
fn a_function_that_panics_is_an_error_like_others() {
    let server = Server::auto();
    let client = client(&server.url());
    let tale = Tale::new();
    let mut calls = 0;
    let calls = parking_lot::Mutex::new(move || {
        calls += 1;
        calls
    });
    let set = record_set(client.live_set(&Query::new("Game")), &tale)
        .fetch_with(move |_| -> Result<Vec<Object>, String> {
            let call = (calls.lock())();
            assert!(call > 1, "a panic on purpose");
            Ok(Vec::new())
        })
        .start()
        .unwrap();
    tale.expect("error");
    set.wait_ready(LONG).unwrap();
}

#[test]
fn the_window_is_kept_full() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(
        &client,
        &Query::new("Game").descending(["saves"]).limit(2).skip(1),
    );
    let ask = asks.next();
    assert_eq!(ask.query["order"], "-saves,objectId");
    // More than are shown, so that the next one is there when one leaves.
    assert!(ask.query["limit"].as_u64().unwrap() > 10);
    let all: Vec<_> = (10..30)
        .rev()
        .map(|saves| game(&format!("g{saves}"), saves))
        .collect();
    ask.answer(&all);
    tale.wait_for("ready");
    assert_eq!(ids(&set.snapshot()), ["g28", "g27"]);
    server.emit("create", &game("new", 40));
    tale.expect("removed");
    tale.expect("inserted");
    assert_eq!(ids(&set.snapshot()), ["g29", "g28"]);
    server.emit("delete", &game("g28", 28));
    tale.expect("removed");
    tale.expect("inserted");
    assert_eq!(ids(&set.snapshot()), ["g29", "g27"]);
    server.emit("update", &game("g12", 35));
    tale.wait_where(
        "g12",
        |seen| matches!(&seen.value, Told::Change(_, ids) if *ids == ["g12", "g29"]),
    );
    // Below the window nothing is told.
    server.emit("delete", &game("g20", 20));
    fence(&client);
    tale.expect_quiet(ms(0));
    // Once too few are left behind it, it asks for more.
    for saves in 14..28 {
        server.emit("delete", &game(&format!("g{saves}"), saves));
    }
    fence(&client);
    assert!(asks.asks.is_empty());
    for id in ["g29", "g13", "g11", "g10"] {
        server.emit("delete", &game(id, 30));
    }
    let ask = asks.next();
    ask.answer(&[game("new", 40), game("g12", 35), game("more", 5), game("less", 4)]);
    tale.wait_where(
        "more",
        |seen| matches!(&seen.value, Told::Change(_, ids) if *ids == ["g12", "more"]),
    );
}

#[test]
fn a_late_listener_starts_with_what_there_is() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, _asks, _) = ready_set(&client, &[game("a", 0)]);
    let late = Recorder::<(Change, Vec<String>)>::new();
    let sink = late.clone();
    let listener = set.on_change(move |change, set| sink.push("late", "change", (change.clone(), ids(set))));
    let (ready, is_ready) = bounded(1);
    set.on_ready(move |set| ready.send(set.len()).unwrap());
    let (change, contents) = late.expect("change").value;
    assert!(matches!(change, Change::Reset));
    assert_eq!(contents, ["a"]);
    assert_eq!(is_ready.recv_timeout(LONG), Ok(1));
    server.emit("create", &game("b", 0));
    assert!(matches!(
        late.expect("change").value.0,
        Change::Inserted { index: 1, .. }
    ));
    assert!(set.off(listener) && !set.off(listener));
    server.emit("create", &game("c", 0));
    fence(&client);
    late.expect_quiet(ms(0));
}

#[test]
fn every_method_can_be_called_in_a_listener_and_a_panic_is_survived() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, _asks, tale) = ready_set(&client, &[game("a", 0)]);
    let panics = record_client(&client);
    let inner = set.clone();
    let (done, is_done) = bounded(1);
    set.on_change(move |change, snapshot| {
        let Some(object) = change.object() else { return };
        assert_eq!(inner.snapshot().len(), snapshot.len());
        assert_eq!(inner.get("a").unwrap().id(), Some("a"));
        assert_eq!(inner.index_of(object.id().unwrap()), Some(1));
        assert!(inner.is_ready() && inner.stale_since().is_none());
        assert_eq!(
            inner.wait_ready(LONG).unwrap_err().kind(),
            ErrorKind::CalledFromListener
        );
        inner.refresh();
        inner.set_session_token(None).unwrap();
        let inner = inner.clone();
        inner.clone().on_stale(move |_| inner.close());
        done.send(()).unwrap();
        panic!("on purpose");
    });
    server.emit("create", &game("b", 0));
    is_done.recv_timeout(LONG).unwrap();
    let error = panics
        .wait_where("panic", |seen| seen.value.kind() == ClientEventKind::Error)
        .value;
    assert_eq!(error.error().unwrap().kind(), ErrorKind::ListenerPanicked);
    tale.wait_for("stale");
    fence(&client);
    assert_eq!(set.wait_ready(LONG).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(set.set_session_token(None).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn after_close_nothing_is_told_and_the_contents_stay() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[game("a", 0)]);
    set.refresh();
    let ask = asks.next();
    set.close();
    ask.answer(&[game("a", 5)]);
    server.wait_op(1, "unsubscribe", 1);
    fence(&client);
    assert!(tale.all().iter().all(|seen| seen.kind != "updated"));
    assert_eq!(ids(&set.snapshot()), ["a"]);
    assert!(!set.is_ready());
}

#[test]
fn dropping_the_set_ends_it_even_while_it_fetches() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, _) = live_set(&client, &Query::new("Game"));
    let ask = asks.next();
    drop(set.clone());
    drop(set);
    server.wait_op(1, "unsubscribe", 1);
    ask.answer(&[game("a", 0)]);
    // The function that fetches goes with it, and with that the way to ask.
    assert!(
        asks.asks
            .recv_timeout(LONG)
            .is_err_and(|error| error.is_disconnected())
    );
}

#[test]
fn with_manual_dispatch_it_changes_in_dispatch_pending() {
    let server = Server::auto();
    let (wake, woken) = unbounded();
    let client = builder(&server.url())
        .dispatch(Dispatch::manual(move || {
            let _ = wake.send(());
        }))
        .build()
        .unwrap();
    let (ask, asks) = unbounded();
    let set = client
        .live_set(&Query::new("Game"))
        .fetch_with(move |_| {
            let page = if ask.is_empty() {
                vec![game("a", 0)]
            } else {
                vec![]
            };
            ask.send(()).unwrap();
            let objects = page.into_iter().map(|json| Object::from_json(json).unwrap());
            Ok::<_, String>(objects.collect())
        })
        .start()
        .unwrap();
    while !set.is_ready() {
        woken.recv_timeout(LONG).unwrap();
        assert!(set.is_empty());
        client.dispatch_pending();
    }
    assert_eq!((set.len(), asks.len()), (1, 2));
}

/// It is meant to wake a loop and no more, but it is the program's, and must find no lock that is held.
#[test]
fn the_wake_function_may_ask_the_set() {
    let server = Server::auto();
    let asked = Arc::new(OnceLock::<LiveSet>::new());
    let (wake, woken) = unbounded();
    let of_wake = Arc::clone(&asked);
    let client = builder(&server.url())
        .dispatch(Dispatch::manual(move || {
            if let Some(set) = of_wake.get() {
                let place = set.index_of("a");
                drop(set.refresh());
                let _ = wake.send(place);
            }
        }))
        .build()
        .unwrap();
    let set = client
        .live_set(&Query::new("Game"))
        .fetch_with(|query: &Query| {
            let is_first_page = query.to_json().is_ok_and(|json| !json.contains("$gt"));
            let page = is_first_page.then(|| Object::from_json(game("a", 0)).unwrap());
            Ok::<_, String>(Vec::from_iter(page))
        })
        .start()
        .unwrap();
    asked.set(set.clone()).unwrap();
    let deadline = Instant::now() + LONG;
    while !set.is_ready() {
        assert!(Instant::now() < deadline);
        client.dispatch_pending_timeout(ms(100));
    }
    // What wakes from now on is told the place, which nobody may keep locked meanwhile.
    while woken.try_recv().is_ok() {}
    server.emit("update", &game("a", 1));
    while woken.try_recv() != Ok(Some(0)) {
        assert!(Instant::now() < deadline);
        client.dispatch_pending_timeout(ms(100));
    }
    client.close();
}

#[test]
fn what_cannot_be_equal_to_find_is_refused() {
    let client = client("ws://127.0.0.1:9");
    let games = || Query::new("Game");
    let here = parse_livequery::GeoPoint::new(1.0, 2.0).unwrap();
    for (query, text) in [
        (
            games().watch(["a"]),
            "watch cannot work in a live set: changes of other fields would be missed",
        ),
        (
            games().exclude(["a"]),
            "exclude cannot work in a live set: events have all fields",
        ),
    ] {
        let (builder, _asks) = asking(client.live_set(&query));
        let error = builder.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidQuery);
        assert!(error.to_string().starts_with(text), "{error}");
    }
    for query in [
        games().near("a", here).ascending(["b"]),
        games().near("a", here),
        games().full_text("a", "b"),
        games().include(["a"]),
        games().within_kilometers("a", here, 1.0, false),
    ] {
        let (builder, _asks) = asking(client.live_set(&query));
        drop(builder.start().unwrap());
    }
}

#[test]
fn a_refused_subscription_is_told() {
    let server = Server::auto();
    server.on_frame(|conn, frame| {
        if frame["op"] == "subscribe" {
            conn.error(
                119,
                "Permission denied",
                false,
                Some(frame["requestId"].as_u64().unwrap()),
            );
            return Then::Handled;
        }
        Then::Default
    });
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game"));
    let Told::Error(error) = tale.expect("error").value else {
        panic!()
    };
    assert!(error.is_fatal());
    assert_eq!(set.wait_ready(LONG).unwrap_err().code(), Some(119));
    assert!(asks.asks.is_empty());
}

#[test]
fn what_was_dropped_or_failed_on_the_server_is_fetched() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[game("a", 0)]);
    let (conn, id) = server.wait_subscribed("Game");
    // A hook of the server failed, and with it an event.
    conn.error(141, "afterLiveQueryEvent failed", true, Some(id));
    tale.expect("error");
    tale.expect("stale");
    assert!(!set.is_ready() && set.stale_since().is_some());
    // The fetch fails as well: it is as stale as before.
    asks.next().fail("503 Service Unavailable");
    tale.expect("error");
    assert!(!set.is_ready() && set.stale_since().is_some());
    assert_eq!(set.wait_ready(ms(1)).unwrap_err().kind(), ErrorKind::Timeout);
    asks.answer_all(&[game("a", 1)]);
    tale.expect("updated");
    tale.expect("ready");
    assert!(set.is_ready() && set.stale_since().is_none());
}

#[test]
fn the_object_counts_and_not_what_the_event_is_called() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game").equal_to("saves", 0));
    asks.answer_all(&[game("a", 0), game("b", 0)]);
    tale.wait_for("ready");
    // A leave that comes as update, as Parse Server 4.3 to 4.10 sends it to one of two subscriptions.
    server.emit("update", &game("a", 1));
    tale.expect("removed");
    assert_eq!(ids(&set.snapshot()), ["b"]);
    tale.expect("stale");
    asks.answer_all(&[]);
    tale.expect("ready");
    assert_eq!(ids(&set.snapshot()), ["b"]);
}

#[test]
fn an_object_of_another_class_is_refused_with_one_error() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[game("a", 0)]);
    let (conn, id) = server.wait_subscribed("Game");
    let mut other = game("x", 1);
    other["className"] = "Payroll".into();
    conn.event("update", id, other, None);
    let Told::Error(error) = tale.expect("error").value else {
        panic!()
    };
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(
        error
            .to_string()
            .starts_with("an event of Game has an object of \"Payroll\""),
        "{error}"
    );
    tale.expect("stale");
    // The hook may have put it into the place of one that is missed now.
    asks.answer_all(&[game("a", 1)]);
    tale.expect("updated");
    tale.expect("ready");
    assert_eq!(ids(&set.snapshot()), ["a"]);
}

#[test]
fn an_order_that_only_the_server_knows_is_asked_for() {
    let tagged = |id: &str, saves, tags: Value| {
        let mut game = game(id, saves);
        game["tags"] = tags;
        game
    };
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = live_set(&client, &Query::new("Game").ascending(["tags"]));
    let (a, b) = (tagged("a", 0, json!([2])), tagged("b", 0, json!([1])));
    asks.answer_all(&[a.clone(), b.clone()]);
    let ask = asks.next();
    assert_eq!(ask.query["order"], "tags,objectId");
    ask.answer(&[b.clone(), a.clone()]);
    // As many as ever: there might be more.
    asks.next().answer(std::slice::from_ref(&a));
    tale.wait_for("ready");
    assert_eq!(ids(&set.snapshot()), ["b", "a"]);
    server.emit("create", &tagged("c", 0, json!([1, 5])));
    tale.wait_for("stale");
    let ask = asks.next();
    ask.answer(&[b, tagged("c", 0, json!([1, 5])), a.clone()]);
    asks.next().answer(&[a]);
    tale.wait_for("ready");
    assert_eq!(ids(&set.snapshot()), ["b", "c", "a"]);
}

#[test]
fn a_refresh_can_be_waited_for() {
    let server = Server::auto();
    let client = client(&server.url());
    let (set, asks, tale) = ready_set(&client, &[game("a", 0)]);
    let refresh = set.refresh();
    let ask = asks.next();
    let late = refresh.wait(ms(1)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    ask.answer(&[game("a", 1), game("b", 0)]);
    asks.next().answer(&[]);
    refresh.wait(LONG).unwrap();
    assert_eq!(set.len(), 2);
    // Its changes were told by then.
    assert_eq!(
        tale.all().iter().filter(|seen| seen.kind == "inserted").count(),
        1
    );
    let failing = set.refresh();
    asks.next().fail("503 Service Unavailable");
    let error = failing.wait(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fetch);
    assert!(!set.is_ready());
    asks.next().answer(&[game("a", 1)]);
    set.wait_ready(LONG).unwrap();
    let last = set.refresh();
    // An answer that will never come is a failure of its own.
    let _unanswered = asks.next();
    set.close();
    assert_eq!(last.wait(LONG).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_change_cannot_be_applied_to_another_list() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_set, _asks, tale) = ready_set(&client, &[game("a", 0)]);
    server.emit("delete", &game("a", 0));
    let Told::Change(removed, _) = tale.expect("removed").value else {
        panic!()
    };
    let snapshot = _set.snapshot();
    let applied = catch_unwind(AssertUnwindSafe(|| removed.apply_to(&mut Vec::new(), &snapshot)));
    assert!(applied.is_err());
}

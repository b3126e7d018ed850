//! What applications need of a live set: rows of their own types, all changes of one delivery at once, another query, more
//! rows, the contents of yesterday. The server is a `TestServer`, so that what a set has can be compared with `find()`.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use parse_livequery::test_server::TestServer;
use parse_livequery::{
    Change, Client, Dispatch, ErrorKind, LiveSet, LiveSetBuilder, Object, Query, Snapshot,
};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Game {
    name: String,
    score: i64,
}

fn server_with(scores: &[i64]) -> Arc<TestServer> {
    let server = TestServer::start().unwrap();
    for score in scores {
        server.create("Game", json!({"name": format!("game {score}"), "score": score}));
    }
    Arc::new(server)
}

fn best() -> Query {
    Query::new("Game").descending(["score"])
}

fn asking(client: &Client, server: &Arc<TestServer>, query: &Query) -> LiveSetBuilder {
    let server = Arc::clone(server);
    client.live_set(query).fetch_with(move |query| server.find(query))
}

fn ready(client: &Client, server: &Arc<TestServer>, query: &Query) -> LiveSet {
    let set = asking(client, server, query).start().unwrap();
    set.wait_ready(LONG).unwrap();
    set
}

fn scores(set: &Snapshot) -> Vec<i64> {
    set.iter()
        .map(|game| game.get_i64("score").unwrap_or(-1))
        .collect()
}

#[test]
fn rows_come_as_a_type_of_the_program_and_one_that_does_not_fit_spoils_no_other() {
    let server = server_with(&[3, 1]);
    let odd = server.create("Game", json!({"name": 7, "score": 2}));
    let client = client(&server.url());
    let set = ready(&client, &server, &best());
    let rows = set.snapshot().decode::<Game>();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[0].as_ref().unwrap(),
        &Game {
            name: "game 3".to_owned(),
            score: 3
        }
    );
    let error = rows[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("name"), "{error}");
    assert_eq!(rows[2].as_ref().unwrap().score, 1);

    let snapshot = set.snapshot();
    assert_eq!(snapshot[1].id(), Some(&*odd));
    assert_eq!(snapshot.at(1), snapshot.get(&odd));
    assert_eq!(set.at(1), set.get(&odd));
    assert_eq!((snapshot.index_of(&odd), set.index_of(&odd)), (Some(1), Some(1)));
    assert!(snapshot.at(3).is_none() && snapshot.get("nobody").is_none());
    let owned: Vec<Object> = snapshot.clone().into_iter().rev().collect();
    assert!(
        owned
            .iter()
            .eq(snapshot.iter().collect::<Vec<_>>().into_iter().rev())
    );
    assert!((&snapshot).into_iter().eq(snapshot.iter()));
    assert!(std::panic::catch_unwind(|| snapshot[3].id().map(str::to_owned)).is_err());
    assert_eq!(set.query().to_json().unwrap(), best().to_json().unwrap());
}

#[test]
fn changes_come_as_a_type_of_the_program_at_their_places() {
    let server = server_with(&[5, 1]);
    let client = client(&server.url());
    let (sender, rows) = mpsc::channel();
    let mut list: Vec<parse_livequery::Result<Game>> = Vec::new();
    let set = asking(&client, &server, &best())
        .on_change_as::<Game>(move |change, set| {
            change.apply_to(&mut list, set);
            let rows = list.iter().map(|row| row.as_ref().map_or(-1, |game| game.score));
            sender.send(rows.collect::<Vec<_>>()).unwrap();
        })
        .start()
        .unwrap();
    assert_eq!(rows.recv_timeout(LONG).unwrap(), [5, 1]);
    let odd = server.create("Game", json!({"score": 3}));
    assert_eq!(rows.recv_timeout(LONG).unwrap(), [5, -1, 1]);
    server.update("Game", &odd, json!({"name": "odd no more", "score": 0}));
    assert_eq!(rows.recv_timeout(LONG).unwrap(), [5, 1, 0]);
    server.delete("Game", &odd);
    assert_eq!(rows.recv_timeout(LONG).unwrap(), [5, 1]);
    drop(set);
}

#[test]
fn once_is_once_and_none_is_none() {
    let server = server_with(&[1]);
    let client = client(&server.url());
    let (sender, times) = mpsc::channel();
    let sending = sender.clone();
    let set = asking(&client, &server, &best())
        .once_ready(move |set| sending.send(set.len()).unwrap())
        .start()
        .unwrap();
    assert_eq!(times.recv_timeout(LONG).unwrap(), 1);
    set.refresh().wait(LONG).unwrap();
    set.once_ready(move |set| sender.send(10 + set.len()).unwrap());
    assert_eq!(times.recv_timeout(LONG).unwrap(), 11);
    server.cut();
    wait_until("it is stale", || !set.is_ready());
    set.wait_ready(LONG).unwrap();

    let (sender, changes) = mpsc::channel();
    set.on_change(move |_, set| sender.send(set.len()).unwrap());
    assert_eq!(changes.recv_timeout(LONG).unwrap(), 1);
    set.off_all();
    server.create("Game", json!({"score": 2}));
    wait_until("the set goes on", || set.len() == 2);
    // The closures are gone.
    assert_eq!(
        changes.recv_timeout(LONG),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
    assert_eq!(
        times.recv_timeout(LONG),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

#[test]
fn a_detached_set_lives_as_long_as_its_client() {
    let server = server_with(&[1]);
    let client = client(&server.url());
    let (sender, changes) = mpsc::channel();
    let set = asking(&client, &server, &best())
        .on_change(move |_, set| sender.send(set.len()).unwrap())
        .start()
        .unwrap();
    set.detach();
    assert_eq!(changes.recv_timeout(LONG).unwrap(), 1);
    server.create("Game", json!({"score": 2}));
    assert_eq!(changes.recv_timeout(LONG).unwrap(), 2);
    server.cut();
    assert!(server.wait_for_subscriptions(1, LONG));
    server.create("Game", json!({"score": 3}));
    while changes.recv_timeout(LONG).unwrap() < 3 {}
    client.close();
    assert_eq!(
        changes.recv_timeout(LONG),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

/// What a listener for batches was told: how many changes, whether that was a reset, and the scores.
type Batches = Receiver<(usize, bool, Vec<i64>)>;

/// A listener that checks that its changes lead to the contents.
fn batches() -> (impl FnMut(&[Change], &Snapshot) + Send + 'static, Batches) {
    let (sender, batches) = mpsc::channel();
    let mut copy: Vec<Object> = Vec::new();
    let listener = move |changes: &[Change], set: &Snapshot| {
        assert!(!changes.is_empty());
        let is_reset = changes.iter().any(|change| matches!(change, Change::Reset));
        assert!(!is_reset || changes.len() == 1);
        for change in changes {
            change.apply_to(&mut copy, set);
        }
        assert!(copy.iter().eq(set.iter()), "{changes:?} do not lead to {set:?}");
        let _ = sender.send((changes.len(), is_reset, scores(set)));
    };
    (listener, batches)
}

#[test]
fn all_changes_of_one_delivery_are_told_as_one() {
    let server = server_with(&[1, 2]);
    let client = builder(&server.url())
        .dispatch(Dispatch::manual(|| ()))
        .build()
        .unwrap();
    let (listener, told) = batches();
    let set = asking(&client, &server, &best())
        .on_changes(listener)
        .start()
        .unwrap();
    let dispatch_until = |done: &dyn Fn() -> bool| {
        wait_until("it is dispatched", || {
            client.dispatch_pending();
            done()
        });
    };
    dispatch_until(&|| set.is_ready());
    assert_eq!(told.try_recv().unwrap(), (1, true, vec![2, 1]));
    assert!(told.try_recv().is_err());

    // What waits is told at once, however many events led to it.
    for score in 3..=9 {
        server.create("Game", json!({"score": score}));
    }
    let received = || set.subscription().stats().events.create == 7;
    wait_until("the events are there", received);
    client.dispatch_pending();
    dispatch_until(&|| set.len() == 9);
    let first = told.try_recv().unwrap();
    assert_eq!(first, (7, false, (1..=9).rev().collect()));
    assert!(told.try_recv().is_err());

    // A listener that comes late is told the contents, and then what follows.
    let (listener, late) = batches();
    set.on_changes(listener);
    server.delete("Game", set.at(0).unwrap().id().unwrap());
    dispatch_until(&|| set.len() == 8);
    let first = late.try_recv().unwrap();
    assert!(first.1);
    if first.2.len() == 9 {
        assert_eq!(late.try_recv().unwrap(), (1, false, (1..=8).rev().collect()));
    }
    assert_eq!(told.try_recv().unwrap(), (1, false, (1..=8).rev().collect()));

    // The differences after a gap are one batch.
    server.cut();
    dispatch_until(&|| !set.is_ready());
    for id in [set.at(7).unwrap(), set.at(6).unwrap()] {
        server.delete("Game", id.id().unwrap());
    }
    dispatch_until(&|| set.is_ready());
    assert_eq!(set.len(), 6);
    let mut last = told.try_recv().unwrap();
    while let Ok(next) = told.try_recv() {
        last = next;
    }
    assert_eq!(last.2, [8, 7, 6, 5, 4, 3]);
}

#[test]
fn a_listener_for_batches_that_is_slow_is_told_the_contents() {
    let server = server_with(&[0]);
    let client = builder(&server.url()).queue_limits(20, 1 << 20).build().unwrap();
    let (open, gate) = mpsc::channel::<()>();
    let (mut listener, told) = batches();
    let mut is_first = true;
    let set = asking(&client, &server, &best())
        .on_changes(move |changes, set| {
            listener(changes, set);
            if std::mem::take(&mut is_first) {
                gate.recv_timeout(LONG).unwrap();
            }
        })
        .start()
        .unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap().2, [0]);
    for score in 1..=40 {
        server.create("Game", json!({"score": score}));
    }
    open.send(()).unwrap();
    let mut last = told.recv_timeout(LONG).unwrap();
    while last.2.len() < 41 {
        last = told.recv_timeout(LONG).unwrap();
    }
    set.wait_ready(LONG).unwrap();
    assert_eq!(last.2, (0..=40).rev().collect::<Vec<_>>());
}

#[test]
fn what_is_ready_was_told_in_a_batch_before() {
    let server = server_with(&[1, 2, 3]);
    let client = client(&server.url());
    let (sender, told) = mpsc::channel();
    let (first, then) = (sender.clone(), sender);
    let set = asking(&client, &server, &best())
        .on_ready(move |_| then.send("ready").unwrap())
        .on_changes(move |_, _| first.send("changes").unwrap())
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["changes", "ready"]);
}

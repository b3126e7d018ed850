//! What applications need of a live set: rows of their own types, all changes of one delivery at once, another query, more
//! rows, the contents of yesterday. The server is a `TestServer`, so that what a set has can be compared with `find()`.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use parse_livequery::test_server::TestServer;
use parse_livequery::{
    Change, Client, Dispatch, ErrorKind, LiveSet, LiveSetBuilder, Object, Query, Saved, Snapshot,
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
    assert!(server.wait_for_subscriptions(LONG, 1));
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
            let is_done = done();
            // What led to that may be waiting still.
            client.dispatch_pending();
            is_done
        });
    };
    dispatch_until(&|| set.is_ready());
    assert_eq!(told.try_recv().unwrap(), (1, true, vec![2, 1]));
    assert!(told.try_recv().is_err());

    // What waits is told at once, however many events led to it.
    for score in 3..=9 {
        server.create("Game", json!({"score": score}));
    }
    wait_until("the changes wait", || client.stats().queued == 7);
    client.dispatch_pending();
    dispatch_until(&|| set.len() == 9);
    // On a slow machine the turn of the events may end before all of them have become changes.
    let heard: Vec<_> = told.try_iter().collect();
    assert!(heard.len() < 7, "{heard:?}");
    assert_eq!(heard.iter().map(|(changes, ..)| changes).sum::<usize>(), 7);
    assert!(heard.iter().all(|(_, is_reset, _)| !is_reset), "{heard:?}");
    assert_eq!(heard.last().unwrap().2, (1..=9).rev().collect::<Vec<_>>());

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

fn low() -> Query {
    Query::new("Game").less_than("score", 5).ascending(["score"])
}

fn high() -> Query {
    Query::new("Game")
        .greater_than_or_equal_to("score", 5)
        .descending(["score"])
}

fn found(server: &TestServer, query: &Query) -> Vec<i64> {
    let found = server.find(query).unwrap();
    found.iter().map(|game| game.get_i64("score").unwrap()).collect()
}

/// A set that tells each of its contents, after a check that its changes lead there.
fn telling(client: &Client, server: &Arc<TestServer>, query: &Query) -> (LiveSet, Receiver<Vec<i64>>) {
    let (sender, told) = mpsc::channel();
    let mut copy: Vec<Object> = Vec::new();
    let set = asking(client, server, query)
        .on_change(move |change, set| {
            change.apply_to(&mut copy, set);
            assert!(copy.iter().eq(set.iter()), "{change:?} does not lead to {set:?}");
            let _ = sender.send(scores(set));
        })
        .start()
        .unwrap();
    (set, told)
}

#[test]
fn another_query_comes_by_changes_and_without_an_empty_moment() {
    let server = server_with(&[1, 2, 3, 6, 7]);
    let client = client(&server.url());
    let (set, told) = telling(&client, &server, &low());
    set.wait_ready(LONG).unwrap();
    assert_eq!(told.try_recv().unwrap(), [1, 2, 3]);

    // Nothing stays: all at once.
    set.set_query(&high()).unwrap().wait(LONG).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [vec![7, 6]]);
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.query().to_json().unwrap(), high().to_json().unwrap());
    assert_eq!(set.snapshot().len(), 2);

    // Some stay: what differs.
    set.set_query(&best().limit(3)).unwrap().wait(LONG).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [vec![7, 6, 3]]);
    // Another order, and the same objects.
    set.set_query(&Query::new("Game").greater_than("score", 2).ascending(["score"]))
        .unwrap()
        .wait(LONG)
        .unwrap();
    assert_eq!(told.try_iter().last().unwrap(), [3, 6, 7]);
    for (place, game) in set.snapshot().into_iter().enumerate() {
        assert_eq!(set.index_of(game.id().unwrap()), Some(place));
    }

    // It is the new one that is followed, and that alone.
    assert!(server.wait_for_subscriptions(LONG, 1));
    server.create("Game", json!({"score": 4}));
    server.create("Game", json!({"score": 0}));
    assert_eq!(told.recv_timeout(LONG).unwrap(), [3, 4, 6, 7]);
    set.refresh().wait(LONG).unwrap();
    assert!(told.try_recv().is_err());
    assert_eq!(set.subscription().stats().acknowledged, 1);
}

#[test]
fn another_query_that_the_server_refuses_changes_nothing() {
    let server = server_with(&[1, 2, 6]);
    let client = client(&server.url());
    let (set, told) = telling(&client, &server, &low());
    let (sender, errors) = mpsc::channel();
    set.on_error(move |error| sender.send(error.clone()).unwrap());
    set.wait_ready(LONG).unwrap();
    assert_eq!(told.try_recv().unwrap(), [1, 2]);
    server.fail_next_subscribe(119, "not this one");
    let change = set.set_query(&high()).unwrap();
    let error = change.wait(LONG).unwrap_err();
    assert!(
        error.to_string().contains("the live set keeps its current one"),
        "{error}"
    );
    assert!(!error.is_fatal());
    assert_eq!(error.to_string(), errors.recv_timeout(LONG).unwrap().to_string());
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.query().to_json().unwrap(), low().to_json().unwrap());
    // The old subscription was never interrupted.
    server.create("Game", json!({"score": 3}));
    assert_eq!(told.recv_timeout(LONG).unwrap(), [1, 2, 3]);
    assert_eq!(set.subscription().stats().acknowledged, 1);
    assert_eq!(server.subscription_count(), 1);

    for other in [Query::new("Player"), low().watch(["score"])] {
        let error = set.set_query(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{error}");
    }
    assert!(set.is_ready());
    set.close();
    assert_eq!(set.set_query(&high()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn the_last_of_several_queries_is_the_one_that_comes() {
    let server = server_with(&[1, 2, 6, 7]);
    let client = client(&server.url());
    let (set, told) = telling(&client, &server, &low());
    set.wait_ready(LONG).unwrap();
    server.stop();
    wait_until("it is stale", || !set.is_ready());
    let queries = [high(), best(), high().limit(1)];
    let changes: Vec<_> = queries
        .iter()
        .map(|query| set.set_query(query).unwrap())
        .collect();
    assert_eq!(changes[0].wait(ms(20)).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(scores(&set.snapshot()), [1, 2], "it keeps what it has");
    server.resume().unwrap();
    for change in &changes {
        change.wait(LONG).unwrap();
    }
    set.wait_ready(LONG).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [vec![1, 2], vec![7]]);
    assert!(server.wait_for_subscriptions(LONG, 1));
}

#[test]
fn a_session_token_is_one_for_the_query_to_come_as_well() {
    let server = server_with(&[1, 6]);
    let client = client(&server.url());
    let (set, told) = telling(&client, &server, &low());
    set.wait_ready(LONG).unwrap();
    server.stop();
    let change = set.set_query(&high()).unwrap();
    set.set_session_token(Some("r:mine")).unwrap();
    server.session("r:mine", "me");
    server.resume().unwrap();
    change.wait(LONG).unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(scores(&set.snapshot()), [6]);
    assert!(server.wait_for_subscriptions(LONG, 1));
    assert_eq!(server.subscriptions()[0].session_token(), Some("r:mine"));
    server.create("Game", json!({"score": 8}));
    wait_until("it is told", || {
        told.try_iter().last().is_some_and(|last| last == [8, 6])
    });
    set.set_session_token(None).unwrap();
    wait_until("it is ready again", || {
        set.subscription().stats().acknowledged >= 2 && set.is_ready()
    });
}

#[test]
fn another_query_in_bad_weather_never_shows_an_empty_set() {
    let server = server_with(&[1, 2, 3, 6, 7, 8]);
    let client = client(&server.url());
    let (set, told) = telling(&client, &server, &low());
    set.wait_ready(LONG).unwrap();
    let seed =
        std::env::var("LIVE_SET_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("LIVE_SET_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut extra = Vec::new();
    let mut last = None;
    // No limit of one: where one object takes the place of another, the first leaves before the second comes.
    for _ in 0..60 {
        let queries = [
            low(),
            high(),
            best(),
            best().limit(2),
            low().limit(2),
            high().skip(1),
        ];
        match rng.u8(0..8) {
            0..3 => last = Some(set.set_query(&queries[rng.usize(..queries.len())]).unwrap()),
            3 => server.cut(),
            4 => extra.push(server.create("Game", json!({"score": rng.i64(0..10)}))),
            5 if !extra.is_empty() => {
                let id = extra.swap_remove(rng.usize(..extra.len()));
                server.delete("Game", &id);
            }
            6 => server.delay_finds(ms(rng.u64(0..20))),
            _ => {
                if let Some(change) = &last {
                    let _ = change.wait(ms(rng.u64(0..30)));
                }
            }
        }
    }
    server.delay_finds(ms(0));
    if let Some(change) = &last {
        change.wait(LONG).unwrap();
    }
    set.wait_ready(LONG).unwrap();
    set.refresh().wait(LONG).unwrap();
    assert_eq!(scores(&set.snapshot()), found(&server, &set.query()));
    for contents in told.try_iter() {
        assert!(!contents.is_empty(), "all queries always have objects");
    }
    assert!(server.wait_for_subscriptions(LONG, 1));
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a set has, as a program reads it from its file.
fn saved(set: &LiveSet, user: &str) -> Saved {
    let bytes = serde_json::to_vec(&set.save(user).unwrap()).unwrap();
    Saved::from_slice(&bytes).unwrap()
}

/// `LIVE_SET_OBJECTS` says how many.
#[test]
fn saved_contents_are_shown_before_there_is_a_link_and_corrected_by_the_fewest_changes() {
    let number = std::env::var("LIVE_SET_OBJECTS").map_or(2_000, |number| number.parse().unwrap());
    let server = server_with(&(0..number).collect::<Vec<_>>());
    let first = client(&server.url());
    let set = ready(&first, &server, &best());
    let saved = saved(&set, "");
    let (rows, saved_at) = (set.snapshot(), saved.saved_at());
    drop(set);
    first.close();
    for place in 0..5 {
        server.update("Game", rows[place].id().unwrap(), json!({"name": "another name"}));
        server.delete("Game", rows[100 + place].id().unwrap());
    }
    // It goes to the other end.
    server.update("Game", rows[50].id().unwrap(), json!({"score": -1}));
    let new = server.create("Game", json!({"name": "a new one", "score": number}));
    server.stop();

    let client = client(&server.url());
    let (sender, told) = mpsc::channel();
    let mut copy: Vec<Object> = Vec::new();
    let set = asking(&client, &server, &best())
        .start_from(saved, "", WEEK)
        .on_change(move |change, set| {
            change.apply_to(&mut copy, set);
            assert!(copy.len() == set.len());
            let id = change.object().and_then(Object::id).map(str::to_owned);
            sender
                .send((id, matches!(change, Change::Reset), set.clone()))
                .unwrap();
        })
        .start()
        .unwrap();
    let (_, is_reset, shown) = told.recv_timeout(LONG).unwrap();
    assert!(is_reset && shown.iter().eq(rows.iter()));
    assert!(server.connections() == 0 && !set.is_ready());
    assert_eq!(set.stale_since(), Some(saved_at));
    assert_eq!(set.get(rows[7].id().unwrap()).as_ref(), Some(&rows[7]));
    server.resume().unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.stale_since(), None);
    let changes: Vec<_> = told.try_iter().collect();
    let ids: Vec<_> = changes.iter().map(|(id, ..)| id.clone().unwrap()).collect();
    assert!(ids.len() == 12 && ids.contains(&new), "{ids:?}");
    assert_eq!(set.snapshot().decode::<Game>().len(), rows.len() - 4);
    let found = server.find(&best().limit(1_000_000)).unwrap();
    assert!(set.snapshot().iter().eq(found.iter()));
    // What follows is told as ever.
    server.delete("Game", &new);
    let (id, is_reset, _) = told.recv_timeout(LONG).unwrap();
    assert!(id == Some(new) && !is_reset);
}

#[test]
fn a_saved_file_that_is_cut_at_any_byte_is_an_error_that_says_so() {
    let server = server_with(&[1, 2]);
    server.create(
        "Game",
        json!({"name": "Zo\u{eb} \u{1f3b2}", "score": 3, "tags": ["a", {"b": null}]}),
    );
    let client = client(&server.url());
    let set = ready(&client, &server, &best());
    let bytes = serde_json::to_vec(&set.save("ann").unwrap()).unwrap();
    Saved::from_slice(&bytes).unwrap();
    for end in 0..bytes.len() {
        let error = Saved::from_slice(&bytes[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{end}");
        let text = error.to_string();
        assert!(text.starts_with("the saved live set "), "{end}: {text}");
    }
    for place in 0..bytes.len() {
        for byte in [0, b'9', b'"', b'}', 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[place] = byte;
            // What it says may be another thing; it is read or not.
            let _ = Saved::from_slice(&spoilt);
        }
    }
    for (text, reason) in [
        (r#"{"format": "a diary", "version": 1}"#, "a diary"),
        (
            r#"{"format": "parse-livequery live set", "version": 2}"#,
            "version 2",
        ),
        ("[]", "cannot be read"),
    ] {
        let error = Saved::from_slice(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn saved_contents_of_something_else_are_not_shown_and_the_reason_is_told() {
    let server = server_with(&[1, 2]);
    let other = server_with(&[7]);
    let first = client(&server.url());
    let set = ready(&first, &server, &best());
    let kept = saved(&set, "ann");
    wait_until("it is some milliseconds old", || {
        kept.saved_at() + ms(5) < SystemTime::now().into()
    });
    let start = |server: &Arc<TestServer>, query: &Query, user: &str, max_age| {
        let client = client(&server.url());
        let (sender, told) = mpsc::channel();
        let errors = sender.clone();
        let set = asking(&client, server, query)
            .start_from(kept.clone(), user, max_age)
            .on_error(move |error| errors.send(format!("{:?}: {error}", error.kind())).unwrap())
            .on_change(move |_, set| sender.send(format!("{:?}", scores(set))).unwrap())
            .start()
            .unwrap();
        set.wait_ready(LONG).unwrap();
        told.try_iter().collect::<Vec<_>>()
    };
    assert_eq!(start(&server, &best(), "ann", WEEK), ["[2, 1]"]);
    for (server, query, user, max_age, reason, contents) in [
        (
            &server,
            best(),
            "bob",
            WEEK,
            "it belongs to another user",
            "[2, 1]",
        ),
        (
            &server,
            best().limit(1),
            "ann",
            WEEK,
            "it belongs to another query",
            "[2]",
        ),
        (&other, best(), "ann", WEEK, "it belongs to another server", "[7]"),
        (
            &server,
            best(),
            "ann",
            ms(1),
            "old, and at most 1ms are allowed",
            "[2, 1]",
        ),
    ] {
        let told = start(server, &query, user, max_age);
        assert!(
            told[0].starts_with("InvalidValue: the saved live set is not used: "),
            "{told:?}"
        );
        assert!(told[0].contains(reason), "{told:?}");
        assert_eq!(told[1..], [contents]);
    }
}

#[test]
fn what_is_saved_is_what_the_server_had_and_no_secret() {
    let server = TestServer::builder()
        .javascript_key("a-secret-key")
        .start()
        .unwrap();
    server.create("Game", json!({"score": 1}));
    server.session("r:a-secret-token", "ann");
    let server = Arc::new(server);
    let client = builder(&format!("{}?a-secret=part", server.url()))
        .javascript_key("a-secret-key")
        .session_token("r:a-secret-token")
        .build()
        .unwrap();
    server.delay_finds(ms(100));
    let set = asking(&client, &server, &best()).start().unwrap();
    assert!(set.save("ann").is_none(), "there is nothing yet");
    server.delay_finds(ms(0));
    set.wait_ready(LONG).unwrap();
    let text = serde_json::to_string(&set.save("ann").unwrap()).unwrap();
    assert!(text.contains("objectId") && !text.contains("secret"), "{text}");
    assert!(!format!("{:?}", set.save("ann")).contains("objectId"));

    // What is old is saved as old.
    server.stop();
    wait_until("it is stale", || !set.is_ready());
    let since = set.stale_since().unwrap();
    let saved_at = saved(&set, "ann").saved_at();
    assert!(saved_at <= since && saved_at + ms(2) > since);
    // The contents of one user are not saved as those of another.
    set.set_session_token(Some("r:a-secret-token")).unwrap();
    assert!(set.save("bob").is_none());
    server.resume().unwrap();
    wait_until("it is fetched", || set.save("bob").is_some());
}

#[test]
fn another_query_for_a_set_that_starts_from_what_was_saved() {
    let server = server_with(&[1, 2, 6, 7]);
    let first = client(&server.url());
    let set = ready(&first, &server, &low());
    let saved = saved(&set, "");
    drop(set);
    for is_refused in [false, true] {
        server.stop();
        let client = client(&server.url());
        let (sender, told) = mpsc::channel();
        let set = asking(&client, &server, &low())
            .start_from(saved.clone(), "", WEEK)
            .on_change(move |_, set| sender.send(scores(set)).unwrap())
            .start()
            .unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), [1, 2]);
        if is_refused {
            server.resume().unwrap();
            set.wait_ready(LONG).unwrap();
            server.stop();
            wait_until("it is stale", || !set.is_ready());
        }
        let change = set.set_query(&high()).unwrap();
        server.resume().unwrap();
        change.wait(LONG).unwrap();
        set.wait_ready(LONG).unwrap();
        assert_eq!(scores(&set.snapshot()), [7, 6]);
        assert!(told.try_iter().all(|contents| contents == [7, 6]));
        assert!(set.save("").is_some());
        assert!(server.wait_for_subscriptions(LONG, 1));
    }
}

/// A set that fetches from the server, and the skip and limit of each request that is not for single objects.
fn asking_aloud(
    client: &Client,
    server: &Arc<TestServer>,
    query: &Query,
) -> (LiveSetBuilder, Receiver<(u64, u64)>) {
    let (sender, asked) = mpsc::channel();
    let server = Arc::clone(server);
    let builder = client.live_set(query).fetch_with(move |query| {
        let json: serde_json::Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        if !json["where"].to_string().contains("$in") {
            let number = |name: &str| json[name].as_u64().unwrap_or(0);
            let _ = sender.send((number("skip"), number("limit")));
        }
        server.find(query)
    });
    (builder, asked)
}

#[test]
fn a_list_that_loads_more_fetches_the_tail_alone() {
    let server = server_with(&(0..400).collect::<Vec<_>>());
    let client = client(&server.url());
    let (builder, asked) = asking_aloud(&client, &server, &best().limit(10).skip(5));
    let (sender, told) = mpsc::channel();
    let mut copy: Vec<Object> = Vec::new();
    let set = builder
        .on_change(move |change, set| {
            change.apply_to(&mut copy, set);
            assert!(copy.iter().eq(set.iter()));
            sender.send(matches!(change, Change::Reset)).unwrap();
        })
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    let mut held: u64 = asked.try_iter().map(|(_, limit)| limit).next().unwrap();
    assert!(told.try_iter().eq([true]));
    for (number, limit) in [(10, 20), (80, 100), (200, 300)] {
        assert!(set.has_more());
        set.extend(number).unwrap();
        set.wait_ready(LONG).unwrap();
        assert!(
            set.query()
                .to_json()
                .unwrap()
                .contains(&format!("\"limit\":{limit},"))
        );
        let found = found(&server, &set.query());
        assert_eq!(scores(&set.snapshot()), found);
        assert!(
            told.try_iter().eq((0..number).map(|_| false)),
            "each row is told by itself"
        );
        for (skip, limit) in asked.try_iter() {
            assert!(skip + 4 >= held, "{skip} of {held}");
            held = held.max(skip + limit).min(400);
        }
    }
    // To the end, and beyond it.
    set.extend(1000).unwrap();
    set.wait_ready(LONG).unwrap();
    assert!(!set.has_more() && set.len() == 395);
    server.delete("Game", set.at(0).unwrap().id().unwrap());
    wait_until("it is gone", || set.len() == 394);
    set.close();
    assert_eq!(set.extend(1).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_list_loads_more_while_its_window_changes() {
    let server = server_with(&(0..200).collect::<Vec<_>>());
    let client = client(&server.url());
    let (builder, _asked) = asking_aloud(&client, &server, &best().limit(10));
    let set = builder.start().unwrap();
    set.wait_ready(LONG).unwrap();
    let seed =
        std::env::var("LIVE_SET_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("LIVE_SET_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    server.delay_finds(ms(10));
    for round in 0..12 {
        set.extend(rng.u32(0..15)).unwrap();
        for _ in 0..rng.usize(0..10) {
            let objects = set.snapshot();
            let id = objects[rng.usize(..objects.len())].id().unwrap();
            match rng.u8(0..3) {
                0 => drop(server.create("Game", json!({"score": rng.i64(0..250)}))),
                1 => drop(server.delete("Game", id)),
                _ => drop(server.update("Game", id, json!({"score": rng.i64(0..250)}))),
            }
        }
        if round % 4 == 3 {
            server.cut();
        } else if rng.bool() {
            set.wait_ready(LONG).unwrap();
        }
    }
    server.delay_finds(ms(0));
    set.refresh().wait(LONG).unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(scores(&set.snapshot()), found(&server, &set.query()));
    assert!(set.has_more());
}

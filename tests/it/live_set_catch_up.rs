//! What a large live set fetches after a gap: what differs, and everything where that would not be enough. The server is a
//! `TestServer`, so that what a set has can be compared with `find()`.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, Date, LiveSet, LiveSetBuilder, Object, Query, Saved};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

fn now() -> i64 {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since_1970.as_millis()).unwrap()
}

fn date(millis: i64) -> String {
    Date::from_millis(millis).unwrap().to_string()
}

fn game(score: usize, size: usize, updated: i64) -> Value {
    json!({
        "score": score, "createdAt": date(updated), "updatedAt": date(updated), "text": "x".repeat(size),
    })
}

/// A server with this many objects of about this size, which were saved a day ago but for one, and their ids.
fn server_with(number: usize, size: usize) -> (Arc<TestServer>, Vec<String>) {
    let server = TestServer::start().unwrap();
    let a_day_ago = now() - 24 * 60 * 60 * 1000;
    let text = size.saturating_sub(180);
    let create = |score: usize| {
        let updated = a_day_ago + i64::try_from(score).unwrap();
        server.create("Game", game(score, text, updated))
    };
    let ids = (0..number).map(create).collect();
    server.create("Game", game(number, text, now()));
    (Arc::new(server), ids)
}

fn all() -> Query {
    Query::new("Game").ascending(["score"])
}

/// What was asked for, and then how many bytes the objects had that came.
type Asked = Arc<Mutex<Vec<(Kind, u64)>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With nothing but their times.
    List,
    Ids,
    Page,
}

fn kind_of(query: &Query) -> Kind {
    let query: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
    match query["keys"].as_str() {
        Some("objectId,updatedAt") => Kind::List,
        _ if query["where"].to_string().contains("\"$in\"") => Kind::Ids,
        _ => Kind::Page,
    }
}

/// A set that tells what it asks for. `hook` gets each answer before the set does, and may change it.
fn asking(
    client: &Client,
    server: &Arc<TestServer>,
    query: &Query,
    hook: impl Fn(Kind, Vec<Object>) -> Result<Vec<Object>, std::io::Error> + Send + Sync + 'static,
) -> (LiveSetBuilder, Asked) {
    let server = Arc::clone(server);
    let asked = Asked::default();
    let asking = Arc::clone(&asked);
    let builder = client.live_set(query).fetch_with(move |query| {
        let kind = kind_of(query);
        let found = hook(kind, server.find(query).unwrap())?;
        let bytes = found.iter().map(|object| object.as_json().len() as u64).sum();
        asking.lock().unwrap().push((kind, bytes));
        Ok::<_, std::io::Error>(found)
    });
    (builder, asked)
}

fn plain(client: &Client, server: &Arc<TestServer>, query: &Query) -> (LiveSet, Asked) {
    let (builder, asked) = asking(client, server, query, |_, found| Ok(found));
    let set = builder.start().unwrap();
    // The server looks at all of its objects for each page.
    set.wait_ready(LONG * 10).unwrap();
    (set, asked)
}

/// What happens while there is no link.
fn gap(server: &TestServer, set: &LiveSet, happens: impl FnOnce()) {
    server.stop();
    wait_until("it is stale", || !set.is_ready());
    happens();
    server.resume().unwrap();
}

fn is_equal(server: &TestServer, set: &LiveSet) -> bool {
    let found = server.find(&set.query().limit(10_000_000)).unwrap();
    set.snapshot().iter().eq(found.iter())
}

/// What was asked for since the last look, and how many bytes came.
fn take(asked: &Asked) -> (Vec<Kind>, u64) {
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let bytes = asked.iter().map(|(_, bytes)| bytes).sum();
    let mut kinds: Vec<_> = asked.into_iter().map(|(kind, _)| kind).collect();
    // However many pages that were.
    kinds.dedup();
    (kinds, bytes)
}

/// `LIVE_SET_OBJECTS` says how many there are.
#[test]
fn a_large_set_fetches_what_differs_after_a_gap() {
    let number = std::env::var("LIVE_SET_OBJECTS").map_or(2_000, |number| number.parse().unwrap());
    for (size, most) in [(500, 30.0), (4_000, 5.0)] {
        let (server, ids) = server_with(number, size);
        let client = client(&server.url());
        let (set, asked) = plain(&client, &server, &all());
        let (pages, everything) = take(&asked);
        assert!(pages.iter().all(|kind| *kind == Kind::Page));
        gap(&server, &set, || {
            for (place, id) in ids.iter().step_by(number / 60).take(60).enumerate() {
                match place {
                    ..50 => drop(server.update("Game", id, json!({"score": place * 7}))),
                    _ => drop(server.delete("Game", id)),
                }
            }
        });
        set.wait_ready(LONG * 10).unwrap();
        let (_, bytes) = take(&asked);
        let share = bytes as f64 * 100.0 / everything as f64;
        println!(
            "{number} objects of {} bytes: {bytes} of {everything} bytes after a gap, {share:.1} %",
            everything / number as u64
        );
        assert!(is_equal(&server, &set));
        assert_eq!((set.stats().fetches, set.stats().catch_ups), (2, 1));
        // With few objects these 60 are more of them than with many.
        let most = most + 60.0 * 100.0 / number as f64;
        assert!(share < most, "{share}");
        // It goes on.
        server.delete("Game", &ids[1]);
        wait_until("it is told", || set.get(&ids[1]).is_none());
    }
}

#[test]
fn what_was_saved_again_within_the_millisecond_of_the_last_event_is_seen() {
    let (server, ids) = server_with(300, 500);
    let client = client(&server.url());
    let (set, _) = plain(&client, &server, &all());
    let moment = date(now());
    server.update("Game", &ids[7], json!({"note": "first", "updatedAt": moment}));
    wait_until("the first one is told", || {
        set.get(&ids[7]).unwrap().get_str("note") == Some("first")
    });
    gap(&server, &set, || {
        server.update("Game", &ids[7], json!({"note": "second", "updatedAt": moment}));
    });
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.stats().catch_ups, 1);
    assert!(is_equal(&server, &set));
}

#[test]
fn where_a_list_would_not_be_enough_or_no_less_everything_is_fetched() {
    let (server, ids) = server_with(300, 500);
    let (small, _) = server_with(300, 200);
    let (few, _) = server_with(150, 500);
    let client = client(&server.url());
    let plain_set = |query: &Query| asking(&client, &server, query, |_, found| Ok(found)).0;
    let elsewhere = |server: &Arc<TestServer>| {
        let client = builder(&server.url()).build().unwrap();
        asking(&client, server, &all(), |_, found| Ok(found)).0
    };
    for (what, server, set, catch_ups) in [
        ("a large set", &server, plain_set(&all()), 1),
        ("a limit", &server, plain_set(&all().limit(290)), 0),
        ("included objects", &server, plain_set(&all().include("owner")), 0),
        ("few fields", &server, plain_set(&all().select(["score"])), 0),
        ("refreshes", &server, plain_set(&all()).refresh_every(LONG), 0),
        ("small objects", &small, elsewhere(&small), 0),
        ("few objects", &few, elsewhere(&few), 0),
    ] {
        let set = set.start().unwrap();
        set.wait_ready(LONG).unwrap();
        gap(server, &set, || drop(server.create("Game", game(0, 320, now()))));
        set.wait_ready(LONG).unwrap();
        assert_eq!(
            (set.stats().fetches, set.stats().catch_ups),
            (2, catch_ups),
            "{what}"
        );
    }
    // Many differ: this costs one list, and what is before the first of them.
    let (set, asked) = plain(&client, &server, &all());
    take(&asked);
    gap(&server, &set, || {
        for id in &ids {
            server.update("Game", id, json!({"note": 1}));
        }
    });
    set.wait_ready(LONG).unwrap();
    assert!(is_equal(&server, &set));
    assert_eq!(take(&asked).0, [Kind::List, Kind::Page]);
    // It was known from the start: all of them were saved less than a minute ago.
    gap(&server, &set, || ());
    set.wait_ready(LONG).unwrap();
    assert_eq!(take(&asked).0, [Kind::Page]);
    assert!(is_equal(&server, &set));
}

/// A set of a server on which one user sees a field that another does not, and each object as the same version.
fn as_user(
    client: &Client,
    server: &Arc<TestServer>,
    user: &Arc<Mutex<&'static str>>,
    hook: impl Fn(Kind) + Send + Sync + 'static,
) -> (LiveSet, Asked) {
    let seen_by = Arc::clone(user);
    let (builder, asked) = asking(client, server, &all(), move |kind, found| {
        let user = *seen_by.lock().unwrap();
        hook(kind);
        let see = |object: Object| {
            let mut json = object.to_json();
            if user != "ann" {
                json.as_object_mut().unwrap().remove("secret");
            }
            Object::from_json(json).unwrap()
        };
        Ok(found.into_iter().map(see).collect())
    });
    let set = builder.session_token("r:ann").start().unwrap();
    set.wait_ready(LONG).unwrap();
    (set, asked)
}

fn with_a_secret(server: &TestServer, ids: &[String]) {
    for id in ids.iter().step_by(3) {
        let updated = server.get("Game", id).unwrap()["updatedAt"].clone();
        server.update("Game", id, json!({"secret": "of Ann", "updatedAt": updated}));
    }
    for user in ["ann", "bob"] {
        server.session(&format!("r:{user}"), user);
    }
}

fn secrets(set: &LiveSet) -> usize {
    let objects = set.snapshot().into_iter();
    objects.filter(|object| object.get("secret").is_some()).count()
}

#[test]
fn a_session_token_is_replaced_in_the_middle_of_a_catch_up() {
    for stopped in [Kind::List, Kind::Ids] {
        let (server, ids) = server_with(300, 500);
        with_a_secret(&server, &ids);
        let client = client(&server.url());
        let user = Arc::new(Mutex::new("ann"));
        let (reached, stops) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (set, asked) = as_user(&client, &server, &user, move |kind| {
            if kind == stopped {
                let _ = reached.send(());
                let _ = gate.lock().unwrap().recv_timeout(LONG);
            }
        });
        assert_eq!(secrets(&set), 100);
        gap(&server, &set, || {
            server.update("Game", &ids[3], json!({"note": "new"}));
        });
        stops.recv_timeout(LONG).unwrap();
        assert_eq!(set.stats().catch_ups, 1);
        let before = take(&asked).0.len();
        assert!(before > 0);
        *user.lock().unwrap() = "bob";
        set.set_session_token(Some("r:bob")).unwrap();
        drop(go);
        wait_until("it is ready for the other user", || {
            set.wait_ready(LONG).unwrap();
            secrets(&set) == 0
        });
        let (kinds, _) = take(&asked);
        // The one that was under way, and then everything.
        assert_eq!(kinds[0], stopped);
        assert!(kinds[1..].iter().all(|kind| *kind == Kind::Page), "{kinds:?}");
        assert_eq!(set.get(&ids[3]).unwrap().get_str("note"), Some("new"));
        assert_eq!(set.len(), 301);
        // What was fetched for this user is enough for the next gap.
        gap(&server, &set, || ());
        set.wait_ready(LONG).unwrap();
        assert_eq!(set.stats().catch_ups, 2);
        assert_eq!(secrets(&set), 0);
    }
}

#[test]
fn a_session_token_that_is_replaced_during_a_gap_leads_to_a_fetch_of_everything() {
    let (server, ids) = server_with(300, 500);
    with_a_secret(&server, &ids);
    let client = client(&server.url());
    let user = Arc::new(Mutex::new("ann"));
    let (set, asked) = as_user(&client, &server, &user, |_| ());
    take(&asked);
    gap(&server, &set, || {
        *user.lock().unwrap() = "bob";
        set.set_session_token(Some("r:bob")).unwrap();
    });
    set.wait_ready(LONG).unwrap();
    assert_eq!(secrets(&set), 0);
    assert_eq!(set.stats().catch_ups, 0);
}

#[test]
fn what_changes_no_time_is_found_by_a_refresh() {
    let (server, ids) = server_with(300, 500);
    let client = client(&server.url());
    let (set, asked) = plain(&client, &server, &all());
    gap(&server, &set, || with_a_secret(&server, &ids));
    set.wait_ready(LONG).unwrap();
    take(&asked);
    set.refresh().wait(LONG).unwrap();
    assert_eq!(take(&asked).0, [Kind::Page]);
    assert_eq!(secrets(&set), 100);
    assert!(is_equal(&server, &set));
}

#[test]
fn a_catch_up_that_fails_or_is_cut_again_ends_as_right_as_any_fetch() {
    let (server, ids) = server_with(300, 500);
    let client = client(&server.url());
    let faults = Arc::new(Mutex::new(vec![Kind::Ids, Kind::List]));
    let left = Arc::clone(&faults);
    let cutting = Arc::clone(&server);
    let (builder, _) = asking(&client, &server, &all(), move |kind, found| {
        let mut left = left.lock().unwrap();
        if left.last() != Some(&kind) {
            return Ok(found);
        }
        left.pop();
        if left.is_empty() {
            cutting.cut();
            return Ok(found);
        }
        Err(std::io::Error::other("the server is busy"))
    });
    let set = builder.start().unwrap();
    set.wait_ready(LONG).unwrap();
    gap(&server, &set, || {
        server.update("Game", &ids[3], json!({"note": "new"}));
        server.delete("Game", &ids[4]);
        server.create("Game", game(1, 320, now()));
    });
    wait_until("all faults are over", || {
        set.wait_ready(LONG).unwrap();
        faults.lock().unwrap().is_empty()
    });
    wait_until("it is equal", || {
        set.wait_ready(LONG).unwrap();
        is_equal(&server, &set)
    });
    assert!(set.stats().catch_ups >= 1, "{:?}", set.stats());
}

/// What a program has on disk that last ran a while ago.
fn saved_by(client: &Client, server: &Arc<TestServer>, user: &str) -> Saved {
    let (set, _) = plain(client, server, &all());
    Saved::from_slice(&serde_json::to_vec(&set.save(user).unwrap()).unwrap()).unwrap()
}

/// `LIVE_SET_OBJECTS` says how many there are.
#[test]
fn a_set_that_starts_from_saved_contents_fetches_what_differs_and_shows_them_at_once() {
    let number = std::env::var("LIVE_SET_OBJECTS").map_or(1_000, |number| number.parse().unwrap());
    let (server, ids) = server_with(number, 500);
    let client = client(&server.url());
    let saved = saved_by(&client, &server, "ann");
    server.update("Game", &ids[3], json!({"note": "new"}));
    server.delete("Game", &ids[4]);
    let new = server.create("Game", game(1, 320, now()));
    server.stop();

    let (sender, told) = mpsc::channel();
    let (builder, asked) = asking(&client, &server, &all(), |_, found| Ok(found));
    let start = Instant::now();
    let set = builder
        .start_from(saved, "ann", LONG)
        .on_change(move |change, _| {
            let id = change.object().and_then(Object::id).map(str::to_owned);
            let _ = sender.send((start.elapsed(), id));
        })
        .start()
        .unwrap();
    let (shown_after, _) = told.recv_timeout(LONG).unwrap();
    println!("{number} saved objects: the first row after {shown_after:.1?}, without a server");
    assert!((set.len(), set.is_ready()) == (number + 1, false));
    server.resume().unwrap();
    set.wait_ready(LONG).unwrap();
    assert!(is_equal(&server, &set));
    assert_eq!((set.stats().fetches, set.stats().catch_ups), (1, 1));
    let (kinds, bytes) = take(&asked);
    assert_eq!(kinds, [Kind::List, Kind::Ids]);
    println!("{bytes} bytes were fetched, of about {}", number * 500);
    let mut changed: Vec<_> = told.try_iter().filter_map(|(_, id)| id).collect();
    let mut expected = [ids[3].clone(), ids[4].clone(), new];
    changed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(changed, expected, "no change but these");
    // From now on it is like any other.
    gap(&server, &set, || assert!(server.delete("Game", &ids[9])));
    set.wait_ready(LONG).unwrap();
    assert!(is_equal(&server, &set));
    assert_eq!((set.stats().fetches, set.stats().catch_ups), (2, 2));
}

#[test]
fn saved_contents_are_not_taken_for_those_of_another_session_token() {
    let (server, ids) = server_with(300, 500);
    with_a_secret(&server, &ids);
    let client = client(&server.url());
    let saved = saved_by(&client, &server, "ann");
    assert_eq!(
        serde_json::to_string(&saved).unwrap().matches("of Ann").count(),
        100
    );
    server.stop();
    let (builder, asked) = asking(&client, &server, &all(), |_, found| {
        let see = |object: Object| {
            let mut json = object.to_json();
            json.as_object_mut().unwrap().remove("secret");
            Object::from_json(json).unwrap()
        };
        Ok(found.into_iter().map(see).collect())
    });
    let set = builder
        .session_token("r:ann")
        .start_from(saved, "ann", LONG)
        .start()
        .unwrap();
    assert_eq!(set.len(), 301);
    set.set_session_token(Some("r:bob")).unwrap();
    server.resume().unwrap();
    wait_until("it is ready for the other user", || {
        set.wait_ready(LONG).unwrap();
        secrets(&set) == 0
    });
    assert_eq!(take(&asked).0, [Kind::Page]);
    assert_eq!((set.stats().fetches, set.stats().catch_ups), (1, 0));
}

//! Live sets of any query: what LiveQuery cannot judge is asked for again, included objects stay as they are on the
//! server, and a single object is followed by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parse_livequery::test_server::TestServer;
use parse_livequery::{
    Change, Client, ErrorKind, LiveObject, LiveSet, LiveSetBuilder, Object, ObjectState, Pointer, Query,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::LONG;

fn server() -> Arc<TestServer> {
    Arc::new(TestServer::start().unwrap())
}

fn client(server: &TestServer) -> Client {
    Client::builder(server.url(), "any")
        .reconnect_delay(Duration::from_millis(20), Duration::from_millis(100))
        .build()
        .unwrap()
}

fn building(server: &Arc<TestServer>, client: &Client, query: &Query) -> LiveSetBuilder {
    let finding = Arc::clone(server);
    client
        .live_set(query)
        .fetch_with(move |query| finding.find(query))
        .min_fetch_interval(Duration::from_millis(300))
}

fn following(server: &Arc<TestServer>, client: &Client, query: &Query) -> LiveSet {
    let set = building(server, client, query).start().unwrap();
    set.wait_ready(LONG).unwrap();
    set
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What there is, without what only events have.
fn contents(objects: impl IntoIterator<Item = Object>) -> Vec<Value> {
    let json = |object: Object| serde_json::from_str(object.as_json()).unwrap();
    objects.into_iter().map(json).collect()
}

/// Waits until the set is ready and what `find()` returns, with the same order.
#[track_caller]
fn wait_equal(server: &TestServer, set: &LiveSet, query: &Query) {
    let json = query.to_json().unwrap();
    let all = match json.contains("\"limit\"") {
        true => query.clone(),
        false => query.clone().limit(10_000),
    };
    let shown = |set: &LiveSet| contents(set.snapshot().iter().cloned());
    let deadline = Instant::now() + LONG;
    let sorted = |mut objects: Vec<Value>| {
        if !json.contains("\"order\"") {
            objects.sort_by_key(|object| object["objectId"].as_str().unwrap().to_owned());
        }
        objects
    };
    loop {
        let found = sorted(contents(server.find(&all).unwrap()));
        let held = sorted(shown(set));
        if set.is_ready() && held == found {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{json}, ready: {}, {:?}\nheld: {held:#?}\nfound: {found:#?}",
            set.is_ready(),
            set.stats()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

fn pointer(class: &str, id: &str) -> Value {
    serde_json::to_value(Pointer::new(class, id)).unwrap()
}

#[test]
fn an_inner_query_is_followed() {
    let (server, client) = {
        let server = server();
        let client = client(&server);
        (server, client)
    };
    let ann = server.create("Player", json!({"level": 1}));
    let bob = server.create("Player", json!({"level": 2}));
    let go = server.create("Game", json!({"owner": pointer("Player", &ann), "open": true}));
    server.create("Game", json!({"owner": pointer("Player", &bob), "open": true}));
    let query = Query::new("Game")
        .equal_to("open", true)
        .matches_query("owner", Query::new("Player").equal_to("level", 1));
    assert!(client.subscribe(&query).is_err());
    let set = following(&server, &client, &query);
    assert_eq!(set.len(), 1);
    assert_eq!(set.stats().subscriptions, 2);

    server.update("Player", &bob, json!({"level": 1}));
    wait_until("bob's game comes in", || set.len() == 2);
    wait_equal(&server, &set, &query);
    server.update("Player", &ann, json!({"level": 3}));
    wait_until("ann's game goes", || set.get(&go).is_none());
    server.delete("Player", &bob);
    wait_until("nothing is left", || set.is_empty());
    wait_equal(&server, &set, &query);
    server.update("Game", &go, json!({"open": false}));
    wait_equal(&server, &set, &query);
    assert!(
        set.stats().events >= 3 && set.stats().fetches >= 3,
        "{:?}",
        set.stats()
    );

    set.close();
    assert!(server.wait_for_subscriptions(LONG, 0));
}

#[test]
fn order_and_limit_hold_with_an_inner_query() {
    let server = server();
    let client = client(&server);
    let team = server.create("Team", json!({"on": true}));
    for score in 0..30 {
        server.create("Game", json!({"score": score, "team": pointer("Team", &team)}));
    }
    let query = Query::new("Game")
        .matches_query("team", Query::new("Team").equal_to("on", true))
        .descending(["score"])
        .limit(5);
    let set = following(&server, &client, &query);
    assert_eq!(set.len(), 5);
    let best = server.create("Game", json!({"score": 100, "team": pointer("Team", &team)}));
    wait_until("the best is first", || set.index_of(&best) == Some(0));
    assert_eq!(set.len(), 5);
    server.update("Team", &team, json!({"on": false}));
    wait_until("none is left", || set.is_empty());
    server.update("Team", &team, json!({"on": true}));
    wait_until("they are back", || {
        set.len() == 5 && set.index_of(&best) == Some(0)
    });
}

#[test]
fn a_burst_of_changes_leads_to_a_handful_of_fetches() {
    let server = server();
    let client = client(&server);
    let ann = server.create("Player", json!({"level": 1}));
    let query = Query::new("Game").matches_query("owner", Query::new("Player").equal_to("level", 1));
    let finding = Arc::clone(&server);
    let set = client
        .live_set(&query)
        .fetch_with(move |query| finding.find(query))
        .min_fetch_interval(Duration::from_secs(5))
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    let before = set.stats();
    // It goes on for longer than a fetch takes, so that it is the interval that keeps fetches apart.
    for at in 0..1000 {
        server.create("Game", json!({"owner": pointer("Player", &ann)}));
        if at % 50 == 0 {
            thread::sleep(Duration::from_millis(100));
        }
    }
    wait_until("all came in", || set.len() == 1000 && set.is_ready());
    let after = set.stats();
    assert!(after.fetches - before.fetches <= 4, "{before:?} {after:?}");
    assert_eq!(after.events - before.events, 1000);
}

#[test]
fn a_class_that_cannot_be_followed_is_named_at_once() {
    let server = server();
    server.refuse_class(
        "Player",
        119,
        "Permission denied for action find on class Player.",
    );
    let client = client(&server);
    let query = Query::new("Game").matches_query("owner", Query::new("Player"));
    let set = building(&server, &client, &query).start().unwrap();
    let error = set.wait_ready(LONG).unwrap_err();
    assert_eq!(error.code(), Some(119));
    assert!(error.to_string().contains("the objects of Player"), "{error}");
    assert!(!set.is_ready());
}

#[test]
fn whatever_happens_to_a_followed_subscription_is_a_doubt() {
    let server = server();
    let client = client(&server);
    let ann = server.create("Player", json!({"level": 1}));
    server.create("Game", json!({"owner": pointer("Player", &ann)}));
    let query = Query::new("Game").matches_query("owner", Query::new("Player").equal_to("level", 1));
    let (stale, stales) = unbounded();
    let set = building(&server, &client, &query)
        .on_stale(move |_| stale.send(()).unwrap())
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();

    server.error_on_subscriptions("Player", 141, "a hook failed");
    stales.recv_timeout(LONG).unwrap();
    set.wait_ready(LONG).unwrap();

    server.cut();
    stales.recv_timeout(LONG).unwrap();
    server.update("Player", &ann, json!({"level": 2}));
    wait_equal(&server, &set, &query);
    assert!(set.is_empty());
}

#[test]
fn another_session_token_is_that_of_all_subscriptions() {
    let server = server();
    server.session("r:ann", "ann");
    server.session("r:bob", "bob");
    let client = client(&server);
    let target = server.create("Team", json!({}));
    server.create("Game", json!({"team": pointer("Team", &target)}));
    let query = Query::new("Game")
        .include("team")
        .does_not_match_query("owner", Query::new("Player"));
    let set = building(&server, &client, &query)
        .session_token("r:ann")
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    let tokens = |server: &TestServer| -> Vec<_> {
        let held = server.subscriptions();
        held.iter()
            .map(|held| held.session_token().map(str::to_owned))
            .collect()
    };
    assert_eq!(tokens(&server), vec![Some("r:ann".to_owned()); 3]);
    set.set_session_token(Some("r:bob")).unwrap();
    let expected = vec![Some("r:bob".to_owned()); 3];
    assert!(server.wait_for(LONG, |server| tokens(server) == expected));
    wait_equal(&server, &set, &query);
}

#[test]
fn included_objects_stay_as_they_are() {
    let server = server();
    let client = client(&server);
    let ann = server.create("Player", json!({"name": "Ann"}));
    let bob = server.create("Player", json!({"name": "Bob"}));
    let go = server.create("Game", json!({"owner": pointer("Player", &ann)}));
    let query = Query::new("Game").include("owner");
    let (told, changes) = unbounded();
    let set = building(&server, &client, &query)
        .on_change(move |change, _| told.send(change.clone()).unwrap())
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    let name = |id: &str| {
        set.get(id)?
            .get("owner")?
            .get("name")?
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(name(&go).as_deref(), Some("Ann"));
    while changes.try_recv().is_ok() {}

    // A new object is told when it is whole.
    let chess = server.create("Game", json!({"owner": pointer("Player", &bob)}));
    let Change::Inserted { object, .. } = changes.recv_timeout(LONG).unwrap() else {
        panic!()
    };
    assert_eq!(object.get("owner").unwrap()["name"], "Bob");
    wait_equal(&server, &set, &query);

    // Two have one target.
    server.update("Game", &go, json!({"owner": pointer("Player", &bob)}));
    let Change::Updated { object, .. } = changes.recv_timeout(LONG).unwrap() else {
        panic!()
    };
    assert_eq!(object.get("owner").unwrap()["name"], "Bob");
    wait_equal(&server, &set, &query);
    server.update("Player", &bob, json!({"name": "Rob"}));
    let mut holders = BTreeSet::new();
    while holders.len() < 2 {
        if let Change::Updated { object, .. } = changes.recv_timeout(LONG).unwrap() {
            assert_eq!(object.get("owner").unwrap()["name"], "Rob");
            holders.insert(object.id().unwrap().to_owned());
        }
    }
    assert_eq!(holders, BTreeSet::from([go.clone(), chess.clone()]));
    wait_equal(&server, &set, &query);

    // What does not touch the pointer takes no fetch.
    let before = set.stats();
    server.update("Game", &go, json!({"score": 7}));
    wait_until("the score is there", || {
        set.get(&go).is_some_and(|game| game.get_i64("score") == Some(7))
    });
    assert_eq!(name(&go).as_deref(), Some("Rob"));
    assert_eq!(set.stats().requests, before.requests);

    // One that is deleted is what `find()` makes of it.
    server.delete("Player", &bob);
    wait_until("the player is gone", || {
        set.get(&go).is_some_and(|game| game.get("owner").is_none())
    });
    wait_equal(&server, &set, &query);
}

#[test]
fn included_objects_of_included_objects_stay_as_they_are() {
    let server = server();
    let client = client(&server);
    let team = server.create("Team", json!({"name": "Reds"}));
    let other = server.create("Team", json!({"name": "Blues"}));
    let ann = server.create("Player", json!({"team": pointer("Team", &team)}));
    let go = server.create("Game", json!({"players": [pointer("Player", &ann)]}));
    let query = Query::new("Game").include("players.team");
    let set = following(&server, &client, &query);
    let name = || {
        let game = set.get(&go)?;
        game.get("players")?
            .pointer("/0/team/name")?
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(name().as_deref(), Some("Reds"));
    server.update("Team", &team, json!({"name": "Greens"}));
    wait_until("the team has its new name", || {
        name().as_deref() == Some("Greens")
    });
    server.update("Player", &ann, json!({"team": pointer("Team", &other)}));
    wait_until("the player is in the other team", || {
        name().as_deref() == Some("Blues")
    });
    wait_equal(&server, &set, &query);
    server.update("Team", &other, json!({"name": "Whites"}));
    wait_until("that one is followed", || name().as_deref() == Some("Whites"));
    wait_equal(&server, &set, &query);
}

/// A set each of whose fetches says that it has its answer, and waits until the test lets it go.
fn gated(server: &Arc<TestServer>, client: &Client, query: &Query) -> (LiveSet, Receiver<()>, Sender<()>) {
    let finding = Arc::clone(server);
    let (asking, asked) = unbounded();
    let (letting, let_go) = unbounded::<()>();
    let find = move |query: &Query| {
        let found = finding.find(query);
        let _ = asking.send(());
        let _ = let_go.recv();
        found
    };
    let set = client.live_set(query).fetch_with(find).start().unwrap();
    (set, asked, letting)
}

#[test]
fn a_pointer_that_changes_while_its_target_is_fetched_ends_up_right() {
    let server = server();
    let client = client(&server);
    let ann = server.create("Player", json!({"name": "Ann"}));
    let bob = server.create("Player", json!({"name": "Bob"}));
    let query = Query::new("Game").include("owner");
    let (set, asked, letting) = gated(&server, &client, &query);
    asked.recv_timeout(LONG).unwrap();
    letting.send(()).unwrap();
    set.wait_ready(LONG).unwrap();

    let go = server.create("Game", json!({"owner": pointer("Player", &ann)}));
    asked.recv_timeout(LONG).unwrap();
    // The answer that is under way has the old pointer.
    server.update("Game", &go, json!({"owner": pointer("Player", &bob)}));
    server.update("Player", &bob, json!({"name": "Rob"}));
    drop(letting);
    wait_until("it points to the other", || {
        let owner = set.get(&go).and_then(|game| game.get("owner").cloned());
        owner.is_some_and(|owner| owner["name"] == "Rob")
    });
    wait_equal(&server, &set, &query);
}

#[test]
fn another_query_is_followed_with_all_that_it_names_and_nothing_else() {
    let server = server();
    let client = client(&server);
    let ann = server.create("Player", json!({"level": 1}));
    let bob = server.create("Player", json!({"level": 2}));
    server.create("Game", json!({"owner": pointer("Player", &ann)}));
    server.create("Game", json!({"owner": pointer("Player", &bob)}));
    let plain = Query::new("Game");
    let inner = Query::new("Game").matches_query("owner", Query::new("Player").equal_to("level", 1));
    let including = Query::new("Game").include("owner");
    let set = following(&server, &client, &plain);
    assert_eq!(set.stats().subscriptions, 1);

    set.set_query(&inner).unwrap().wait(LONG).unwrap();
    assert_eq!(set.len(), 1);
    assert!(server.wait_for_subscriptions(LONG, 2));
    server.update("Player", &bob, json!({"level": 1}));
    wait_until("bob's game comes in", || set.len() == 2);
    wait_equal(&server, &set, &inner);

    set.set_query(&including).unwrap().wait(LONG).unwrap();
    wait_equal(&server, &set, &including);
    server.update("Player", &bob, json!({"level": 7}));
    wait_equal(&server, &set, &including);
    // Those of the players that were in the query are not followed any more, those that are included are.
    assert!(server.wait_for_subscriptions(LONG, 2));

    // Twice at once: the one in between is never shown, and nothing of it is left.
    let _ = set.set_query(&inner).unwrap();
    set.set_query(&plain).unwrap().wait(LONG).unwrap();
    wait_equal(&server, &set, &plain);
    assert!(server.wait_for_subscriptions(LONG, 1));
    assert_eq!(set.stats().subscriptions, 1);

    set.set_query(&inner).unwrap().wait(LONG).unwrap();
    set.close();
    assert!(server.wait_for_subscriptions(LONG, 0));
}

#[test]
fn another_query_that_names_a_refused_class_is_refused_and_the_old_one_goes_on() {
    let server = server();
    let client = client(&server);
    server.refuse_class("Payroll", 119, "Permission denied");
    let salary = server.create("Payroll", json!({"paid": true}));
    let go = server.create("Game", json!({"salary": pointer("Payroll", &salary)}));
    let plain = Query::new("Game");
    let set = following(&server, &client, &plain);
    let inner = Query::new("Game").matches_query("salary", Query::new("Payroll").equal_to("paid", false));
    let error = set.set_query(&inner).unwrap().wait(LONG).unwrap_err();
    assert_eq!(error.code(), None, "{error}");
    assert!(format!("{error:?}").contains("Payroll"), "{error:?}");
    assert!(set.get(&go).is_some(), "the old contents stay");
    assert_eq!(set.query().to_json().unwrap(), plain.to_json().unwrap());
    assert!(server.wait_for_subscriptions(LONG, 1));
    server.create("Game", json!({}));
    wait_equal(&server, &set, &plain);
}

#[test]
fn saved_contents_of_any_query_are_shown_at_once_and_then_followed() {
    let server = server();
    let ann = server.create("Player", json!({"level": 1}));
    let go = server.create("Game", json!({"owner": pointer("Player", &ann)}));
    let query = Query::new("Game")
        .matches_query("owner", Query::new("Player").equal_to("level", 1))
        .include("owner");
    let saved = {
        let client = client(&server);
        let set = following(&server, &client, &query);
        set.save("ann").unwrap()
    };
    server.update("Player", &ann, json!({"level": 1, "name": "Ann"}));
    let client = client(&server);
    let set = building(&server, &client, &query)
        .start_from(saved, "ann", Duration::from_secs(60 * 60))
        .start()
        .unwrap();
    wait_until("the game is shown", || set.get(&go).is_some());
    wait_equal(&server, &set, &query);
    server.update("Player", &ann, json!({"level": 2}));
    wait_until("the game goes", || set.is_empty());
    server.update("Player", &ann, json!({"level": 1}));
    wait_equal(&server, &set, &query);
    drop(set);
    assert!(server.wait_for_subscriptions(LONG, 0));
}

#[test]
fn a_set_of_any_query_that_is_detached_ends_with_its_client() {
    let server = server();
    let client = client(&server);
    let ann = server.create("Player", json!({"level": 1}));
    server.create("Game", json!({"owner": pointer("Player", &ann)}));
    let (told, changes) = unbounded();
    building(
        &server,
        &client,
        &Query::new("Game")
            .matches_query("owner", Query::new("Player").equal_to("level", 1))
            .include("owner"),
    )
    .on_change(move |_, set| told.send(set.len()).unwrap_or_default())
    .start()
    .unwrap()
    .detach();
    assert_eq!(changes.recv_timeout(LONG).unwrap(), 1);
    server.update("Player", &ann, json!({"level": 2}));
    wait_until("it is told still", || changes.try_iter().any(|len| len == 0));
    client.close();
    client.wait_closed().unwrap();
    // Nothing holds the listener any more.
    wait_until("the end of the set", || changes.recv_timeout(LONG).is_err());
}

#[test]
fn an_object_is_followed_until_it_is_gone() {
    let server = server();
    let client = client(&server);
    let id = server.create("Game", json!({"score": 1}));
    let (told, states) = unbounded();
    let game = live_object(&server, &client, "Game", &id, told);
    assert_eq!(game.state(), states.recv_timeout(LONG).unwrap());
    server.update("Game", &id, json!({"score": 2}));
    let ObjectState::There(object) = states.recv_timeout(LONG).unwrap() else {
        panic!()
    };
    assert_eq!(object.get_i64("score"), Some(2));
    // A query for one id needs the permission `get` alone.
    assert_eq!(
        server.subscriptions()[0].where_json(),
        format!(r#"{{"objectId":"{id}"}}"#)
    );

    server.cut();
    wait_until("it is stale or there again", || {
        game.stale_since().is_some() || game.is_ready()
    });
    server.update("Game", &id, json!({"score": 3}));
    let ObjectState::There(object) = states.recv_timeout(LONG).unwrap() else {
        panic!()
    };
    assert_eq!(object.get_i64("score"), Some(3));
    game.wait_ready(LONG).unwrap();
    server.delete("Game", &id);
    assert_eq!(states.recv_timeout(LONG).unwrap(), ObjectState::Gone);
    assert_eq!(game.state(), ObjectState::Gone);
    // Who comes late is told what is known.
    let (late, lates) = unbounded();
    game.on_change(move |state| late.send(state.clone()).unwrap());
    assert_eq!(lates.recv_timeout(LONG).unwrap(), ObjectState::Gone);
    game.close_and_wait(LONG).unwrap();
    assert!(server.wait_for_subscriptions(LONG, 0));
}

#[test]
fn an_object_that_never_was_is_gone_and_one_that_was_not_fetched_is_unknown() {
    let server = server();
    let client = client(&server);
    let (told, states) = unbounded();
    let game = live_object(&server, &client, "Game", "nonsense", told);
    assert_eq!(states.recv_timeout(LONG).unwrap(), ObjectState::Gone);
    assert_eq!(game.state(), ObjectState::Gone);

    let unknown = client
        .live_object("Game", "any")
        .fetch_with(|_, _| Err::<Option<Object>, _>("no way"))
        .start()
        .unwrap();
    let error = unknown.wait_ready(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(unknown.state(), ObjectState::Unknown);
    unknown.close_and_wait(LONG).unwrap();
    assert_eq!(unknown.state(), ObjectState::Unknown);
    assert!(client.live_object("Game", "").start().is_err());
}

#[test]
fn without_the_right_to_subscribe_an_object_is_fetched_again_and_again() {
    let server = server();
    server.refuse_class("Game", 119, "Permission denied for action find on class Game.");
    let client = client(&server);
    let id = server.create("Game", json!({"score": 1}));
    let getting = Arc::clone(&server);
    let game = client
        .live_object("Game", &id)
        .fetch_with(move |class, id| getting.get(class, id).map(Object::from_json).transpose())
        .refresh_every(Duration::from_millis(100))
        .start()
        .unwrap();
    game.wait_ready(LONG).unwrap();
    server.update("Game", &id, json!({"score": 2}));
    let score = || game.object().and_then(|object| object.get_i64("score"));
    wait_until("the new score is there", || score() == Some(2));
    server.cut();
    server.update("Game", &id, json!({"score": 3}));
    wait_until("the next score is there", || score() == Some(3));
    server.delete("Game", &id);
    wait_until("it is gone", || game.state() == ObjectState::Gone);
    assert!(game.is_ready());
}

#[test]
fn changes_that_no_event_tells_are_found_and_said() {
    let server = server();
    let client = client(&server);
    let answer = Arc::new(AtomicBool::new(false));
    let answering = Arc::clone(&answer);
    let query = Query::new("Game").matches_query("owner", Query::new("Player"));
    let (told, errors) = unbounded();
    let set = client
        .live_set(&query)
        .fetch_with(move |query: &Query| -> parse_livequery::Result<Vec<Object>> {
            // As if an object of the inner query had changed, and LiveQuery were not enabled for its class.
            let game = json!({"className": "Game", "objectId": "go", "createdAt": "2024-01-01T00:00:00.000Z",
                "updatedAt": "2024-01-01T00:00:00.000Z"});
            let is_first_page = !query.to_json()?.contains("$gt");
            let games = (is_first_page && answering.load(Ordering::SeqCst)).then(|| Object::from_json(game));
            games.into_iter().collect()
        })
        .refresh_every(Duration::from_millis(200))
        .on_error(move |error| told.send(error.to_string()).unwrap())
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    answer.store(true, Ordering::SeqCst);
    let text = errors.recv_timeout(LONG).unwrap();
    assert!(
        text.contains("enable LiveQuery") && text.contains("(Game, Player)"),
        "{text}"
    );
    assert!(set.is_ready() && set.len() == 1);
}

#[test]
fn the_order_of_a_near_is_that_of_the_server() {
    let server = server();
    let client = client(&server);
    let here = parse_livequery::GeoPoint::new(0.0, 0.0).unwrap();
    let query = Query::new("Place").near("at", here);
    let at = |longitude: f64| json!({"at": {"__type": "GeoPoint", "latitude": 0.0, "longitude": longitude}});
    let far = server.create("Place", at(3.0));
    let near = server.create("Place", at(1.0));
    let finding = Arc::clone(&server);
    // The test server does not sort by distance.
    let find = move |query: &Query| -> parse_livequery::Result<Vec<Object>> {
        assert!(!query.to_json()?.contains("order"));
        let mut found = finding.find(&query.clone().skip(0).limit(1000))?;
        let distance = |object: &Object| object.get("at").and_then(|at| at["longitude"].as_f64()).unwrap();
        found.sort_by(|one, other| distance(one).total_cmp(&distance(other)));
        let skip = serde_json::from_str::<Value>(&query.to_json()?).unwrap()["skip"]
            .as_u64()
            .unwrap_or(0);
        Ok(found.into_iter().skip(skip as usize).collect())
    };
    let set = client
        .live_set(&query)
        .fetch_with(find)
        .min_fetch_interval(Duration::from_millis(100))
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    let ids = || -> Vec<String> {
        set.snapshot()
            .iter()
            .map(|object| object.id().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(), [near.clone(), far.clone()]);
    server.update("Place", &far, at(0.5));
    wait_until("they change places", || ids() == [far.clone(), near.clone()]);
    let middle = server.create("Place", at(0.7));
    wait_until("a third comes in between", || {
        ids() == [far.clone(), middle.clone(), near.clone()]
    });
    wait_until("that is certain", || set.is_ready());
}

fn live_object(
    server: &Arc<TestServer>,
    client: &Client,
    class: &str,
    id: &str,
    told: Sender<ObjectState>,
) -> LiveObject {
    let getting = Arc::clone(server);
    let object = client
        .live_object(class, id)
        .fetch_with(move |class, id| getting.get(class, id).map(Object::from_json).transpose())
        .on_change(move |state| told.send(state.clone()).unwrap())
        .start()
        .unwrap();
    object.wait_ready(LONG).unwrap();
    object
}

/// `LIVE_ANY_SEEDS` says how many stories are told.
#[test]
fn at_every_quiet_moment_a_set_is_what_find_returns() {
    let seeds = std::env::var("LIVE_ANY_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        story(seed);
    }
}

fn story(seed: u64) {
    let server = server();
    let client = client(&server);
    let mut rng = StdRng::seed_from_u64(seed);
    let players = || Query::new("Player").greater_than("level", 1);
    let queries = [
        Query::new("Game")
            .matches_query("owner", players())
            .include("owner"),
        Query::new("Game").include("owner.team").descending(["score"]),
        Query::or([
            Query::new("Game").does_not_match_query("owner", players()),
            Query::new("Game").greater_than("score", 5),
        ])
        .ascending(["score"])
        .limit(4),
        Query::new("Game")
            .include("owner")
            .greater_than("score", 3)
            .descending(["score"])
            .limit(3),
    ];
    let sets: Vec<_> = queries
        .iter()
        .map(|query| building(&server, &client, query).start().unwrap())
        .collect();
    let mut ids: [Vec<String>; 3] = Default::default();
    let classes = ["Team", "Player", "Game"];
    for round in 0..4 {
        let is_over = Arc::new(AtomicBool::new(false));
        let (weather, over) = (Arc::clone(&server), Arc::clone(&is_over));
        let weather = thread::spawn(move || {
            // In every other round it stays fine: there is nothing but the events.
            while round % 2 == 1 && !over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(150));
                weather.cut();
            }
        });
        for _ in 0..60 {
            let at = rng.random_range(0..3);
            let (class, known) = (classes[at], ids[at].len());
            let mut fields = json!({"level": rng.random_range(0..4), "score": rng.random_range(0..10)});
            let targets = if at > 0 { ids[at - 1].clone() } else { Vec::new() };
            if !targets.is_empty() {
                let target = &targets[rng.random_range(0..targets.len())];
                fields[if at == 2 { "owner" } else { "team" }] = pointer(classes[at - 1], target);
            }
            match rng.random_range(0..10) {
                0 if known > 0 => {
                    let id = ids[at].swap_remove(rng.random_range(0..known));
                    server.delete(class, &id);
                }
                1..=5 if known > 0 => {
                    let id = &ids[at][rng.random_range(0..known)];
                    server.update(class, id, fields);
                }
                _ => ids[at].push(server.create(class, fields)),
            }
            if rng.random_range(0..4) == 0 {
                thread::sleep(Duration::from_millis(10));
            }
        }
        is_over.store(true, Ordering::SeqCst);
        weather.join().unwrap();
        for (set, query) in sets.iter().zip(&queries) {
            wait_equal(&server, set, query);
        }
        println!(
            "seed {seed}, round {round}: {:?}",
            sets.iter().map(LiveSet::stats).collect::<Vec<_>>()
        );
    }
}

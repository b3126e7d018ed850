//! Live sets of any query on a real Parse Server: inner queries, relations and included objects, whatever happens to the
//! objects and to the link, and an object that is followed by itself.
//!
//! `LIVE_ANY_SEEDS` says how many random stories are told.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::{Client, LiveSet, Object, ObjectState, Pointer, Query};
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::generate;
use crate::live_set::proxy::Proxy;
use crate::recorder::{Recorder, builder_for, client};
use crate::support::{Options, PATIENCE, ParseServer, only, wait_until};

fn pointer(class: &str, id: &str) -> Value {
    serde_json::to_value(Pointer::new(class, id)).unwrap()
}

fn following(client: &Client, query: &Query) -> LiveSet {
    let set = client
        .live_set(query)
        .min_fetch_interval(Duration::from_millis(300))
        .start()
        .unwrap();
    set.wait_ready(PATIENCE).unwrap();
    set
}

fn contents<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Vec<Value> {
    let json = |object: &Object| serde_json::from_str(object.as_json()).unwrap();
    objects.into_iter().map(json).collect()
}

/// Waits until the set is ready and what `find()` returns.
#[track_caller]
fn wait_equal(client: &Client, set: &LiveSet, query: &Query) {
    let json = query.to_json().unwrap();
    let all = match json.contains("\"limit\"") {
        true => query.clone(),
        false => query.clone().limit(10_000),
    };
    let sorted = |mut objects: Vec<Value>| {
        if !json.contains("\"order\"") {
            objects.sort_by_key(|object| object["objectId"].as_str().unwrap().to_owned());
        }
        objects
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = sorted(contents(&client.rest().find(&all).unwrap()));
        let held = sorted(contents(&set.snapshot()));
        if set.is_ready() && held == found {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{json}, ready: {}\nheld: {held:#?}\nfound: {found:#?}",
            set.is_ready()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn inner_queries_are_followed() {
    let server = ParseServer::shared();
    let client = client(server);
    let ann = server.create("AnyPlayer", &json!({"level": 1, "name": "Ann"}));
    let bob = server.create("AnyPlayer", &json!({"level": 2, "name": "Bob"}));
    for (owner, name) in [(&ann, "Ann"), (&bob, "Bob")] {
        let game = json!({"owner": pointer("AnyPlayer", owner), "by": name, "score": 1});
        server.create("AnyGame", &game);
    }
    let games = || Query::new("AnyGame");
    let players = || Query::new("AnyPlayer").equal_to("level", 1);
    let queries = [
        games().matches_query("owner", players()),
        games().does_not_match_query("owner", players()),
        games().matches_key_in_query("by", "name", players()),
        games()
            .does_not_match_key_in_query("by", "name", players())
            .descending(["score"])
            .add_ascending("objectId"),
        Query::or([
            games().matches_query("owner", players()),
            games().greater_than("score", 5),
        ])
        .limit(1),
        Query::nor([
            games().matches_query("owner", players()),
            games().greater_than("score", 5),
        ]),
    ];
    let sets: Vec<_> = queries.iter().map(|query| following(&client, query)).collect();
    let all_equal = || {
        for (set, query) in sets.iter().zip(&queries) {
            wait_equal(&client, set, query);
        }
    };
    all_equal();
    assert_eq!(sets[0].len(), 1);
    server.update("AnyPlayer", &bob, &json!({"level": 1}));
    all_equal();
    assert_eq!(sets[0].len(), 2);
    server.update("AnyPlayer", &ann, &json!({"level": 3, "name": "Anna"}));
    all_equal();
    server.delete("AnyPlayer", &bob);
    all_equal();
    let fields = json!({"owner": pointer("AnyPlayer", &ann), "by": "Anna", "score": 9});
    let new = server.create("AnyGame", &fields);
    all_equal();
    server.delete("AnyGame", &new);
    all_equal();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_burst_of_changes_leads_to_a_handful_of_fetches() {
    let server = ParseServer::shared();
    let client = client(server);
    let ann = server.create("BurstPlayer", &json!({"level": 1}));
    server.create("BurstGame", &json!({"owner": pointer("BurstPlayer", &ann)}));
    let query =
        Query::new("BurstGame").matches_query("owner", Query::new("BurstPlayer").equal_to("level", 1));
    let set = client
        .live_set(&query)
        .min_fetch_interval(Duration::from_secs(8))
        .start()
        .unwrap();
    set.wait_ready(PATIENCE).unwrap();
    let before = set.stats();
    for batch in 0..20 {
        let requests: Vec<_> = (0..50)
            .map(|at| {
                let body = json!({"owner": pointer("BurstPlayer", &ann), "at": batch * 50 + at});
                json!({"method": "POST", "path": "/parse/classes/BurstGame", "body": body})
            })
            .collect();
        server.rest("POST", "/batch", &[], Some(&json!({"requests": requests})));
    }
    wait_until("all came in", || set.len() == 1001 && set.is_ready());
    let after = set.stats();
    println!("{before:?} {after:?}");
    assert!(after.fetches - before.fetches <= 6, "{before:?} {after:?}");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn relations_are_followed() {
    let server = ParseServer::shared();
    let client = client(server);
    let ann = server.create("RelPlayer", &json!({"name": "Ann"}));
    let bob = server.create("RelPlayer", &json!({"name": "Bob"}));
    let club = server.create("RelClub", &json!({"name": "Reds"}));
    let change = |op: &str, ids: &[&String]| {
        let objects: Vec<_> = ids.iter().map(|id| pointer("RelPlayer", id)).collect();
        server.update(
            "RelClub",
            &club,
            &json!({"players": {"__op": op, "objects": objects}}),
        );
    };
    change("AddRelation", &[&ann]);
    // Whoever is put in or taken out, the owner is saved.
    let owner = Recorder::open(client.subscription(&Query::new("RelClub").equal_to("objectId", &club)));
    let query = Query::new("RelPlayer").related_to(&Pointer::new("RelClub", &club), "players");
    let set = following(&client, &query);
    assert_eq!(set.len(), 1);
    change("AddRelation", &[&bob]);
    owner.expect_of(parse_livequery::EventKind::Update, &club);
    wait_until("bob comes in", || set.get(&bob).is_some());
    wait_equal(&client, &set, &query);
    server.update("RelPlayer", &bob, &json!({"name": "Rob"}));
    wait_equal(&client, &set, &query);
    // One goes and one comes between two fetches.
    change("RemoveRelation", &[&ann]);
    change("AddRelation", &[&ann]);
    change("RemoveRelation", &[&bob]);
    wait_until("bob goes", || set.get(&bob).is_none());
    wait_equal(&client, &set, &query);
    server.delete("RelPlayer", &ann);
    wait_until("ann goes", || set.is_empty());
    wait_equal(&client, &set, &query);
    change("AddRelation", &[&bob]);
    wait_equal(&client, &set, &query);
    server.delete("RelClub", &club);
    wait_equal(&client, &set, &query);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn included_objects_stay_as_they_are() {
    let server = ParseServer::shared();
    let client = client(server);
    let alice = server.sign_up("include-alice");
    let reds = server.create("IncTeam", &json!({"name": "Reds"}));
    let ann = server.create(
        "IncPlayer",
        &json!({"name": "Ann", "team": pointer("IncTeam", &reds)}),
    );
    let bob = server.create("IncPlayer", &json!({"name": "Bob"}));
    let go = server.create(
        "IncGame",
        &json!({"owner": pointer("IncPlayer", &ann), "score": 1}),
    );
    let query = Query::new("IncGame")
        .include("owner.team")
        .descending(["score"])
        .add_ascending("objectId");
    let set = following(&client, &query);
    wait_equal(&client, &set, &query);
    server.update("IncTeam", &reds, &json!({"name": "Greens"}));
    wait_until("the team has its new name", || {
        let game = set.get(&go).unwrap();
        game.get("owner")
            .and_then(|owner| owner.pointer("/team/name").cloned())
            == Some("Greens".into())
    });
    wait_equal(&client, &set, &query);
    let chess = server.create(
        "IncGame",
        &json!({"owner": pointer("IncPlayer", &bob), "score": 2}),
    );
    wait_equal(&client, &set, &query);
    server.update("IncPlayer", &bob, &json!({"team": pointer("IncTeam", &reds)}));
    wait_equal(&client, &set, &query);
    // One that may not be read is left out, and comes back.
    server.update("IncPlayer", &ann, &json!({"ACL": only(&alice)}));
    wait_until("the player is left out", || {
        set.get(&go).is_some_and(|game| game.get("owner").is_none())
    });
    server.update("IncPlayer", &ann, &json!({"ACL": {"*": {"read": true}}}));
    wait_until("the player is back", || {
        set.get(&go).is_some_and(|game| game.get("owner").is_some())
    });
    wait_equal(&client, &set, &query);
    server.update("IncPlayer", &bob, &json!({"ACL": only(&alice)}));
    wait_until("the player is left out", || {
        set.get(&chess).is_some_and(|game| game.get("owner").is_none())
    });
    wait_equal(&client, &set, &query);
    server.update("IncPlayer", &bob, &json!({"ACL": {"*": {"read": true}}}));
    wait_until("the player is back", || {
        set.get(&chess).is_some_and(|game| game.get("owner").is_some())
    });
    wait_equal(&client, &set, &query);
    server.delete("IncPlayer", &ann);
    wait_equal(&client, &set, &query);
    server.update(
        "IncGame",
        &go,
        &json!({"owner": pointer("IncPlayer", &bob), "score": 5}),
    );
    wait_equal(&client, &set, &query);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn an_object_is_followed_with_the_permission_get_alone() {
    let server = ParseServer::shared();
    let client = client(server);
    let permissions = json!({"get": {"*": true}, "find": {}, "create": {}, "update": {}, "delete": {}});
    let schema = json!({"className": "GetAlone", "classLevelPermissions": permissions});
    server.rest("POST", "/schemas/GetAlone", &[], Some(&schema));
    let alice = server.sign_up("get-alone-alice");
    let id = server.create("GetAlone", &json!({"n": 1}));
    assert!(client.rest().find(&Query::new("GetAlone")).is_err());
    let (told, states) = mpsc::channel();
    let object = client
        .live_object("GetAlone", &id)
        // Parse Server 9.10 asks for `find` at each subscription.
        .refresh_every(Duration::from_millis(200))
        .on_change(move |state| told.send(state.clone()).unwrap())
        .start()
        .unwrap();
    object.wait_ready(PATIENCE).unwrap();
    let n = |state: ObjectState| state.object().and_then(|object| object.get_i64("n"));
    assert_eq!(n(states.recv_timeout(PATIENCE).unwrap()), Some(1));
    server.update("GetAlone", &id, &json!({"n": 2}));
    assert_eq!(n(states.recv_timeout(PATIENCE).unwrap()), Some(2));
    // It is gone while it may not be read.
    server.update("GetAlone", &id, &json!({"ACL": only(&alice)}));
    wait_until("it is gone", || object.state() == ObjectState::Gone);
    server.update("GetAlone", &id, &json!({"ACL": {"*": {"read": true}}}));
    wait_until("it is back", || object.object().is_some() && object.is_ready());
    server.delete("GetAlone", &id);
    wait_until("it is gone for good", || {
        object.state() == ObjectState::Gone && object.is_ready()
    });
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_class_that_is_not_enabled_is_found_out() {
    let server = ParseServer::start(Options {
        class_names: vec!["EnabledGame".to_owned()],
        ..Options::default()
    });
    let client = client(&server);
    let ann = server.create("SilentPlayer", &json!({"level": 1}));
    server.create("EnabledGame", &json!({"owner": pointer("SilentPlayer", &ann)}));
    let leading = Query::new("SilentPlayer").equal_to("level", 1);
    let (told, errors) = mpsc::channel();
    let set = client
        .live_set(&Query::new("EnabledGame").matches_query("owner", leading))
        .refresh_every(Duration::from_millis(500))
        .on_error(move |error| told.send(error.to_string()).unwrap())
        .start()
        .unwrap();
    // The server acknowledges the subscription to a class in which nothing will ever happen.
    set.wait_ready(PATIENCE).unwrap();
    assert_eq!(server.subscriptions("SilentPlayer").len(), 1);
    server.update("SilentPlayer", &ann, &json!({"level": 2}));
    wait_until("the game goes", || set.is_empty());
    let text = errors.recv_timeout(PATIENCE).unwrap();
    assert!(
        text.contains("SilentPlayer") && text.contains("liveQuery.classNames"),
        "{text}"
    );
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn at_every_quiet_moment_a_set_is_what_find_returns() {
    let server = ParseServer::start(Options {
        websocket_timeout: Duration::from_secs(1),
        ..Options::default()
    });
    let seeds = std::env::var("LIVE_ANY_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        story(&server, seed);
    }
}

fn story(server: &ParseServer, seed: u64) {
    let mut rng = generate::seeded(seed);
    let proxy = Proxy::to((Ipv4Addr::LOCALHOST, server.port()).into());
    let client = builder_for(proxy.url())
        .reconnect_delay(Duration::from_millis(20), Duration::from_millis(200))
        .build()
        .unwrap();
    let [teams, players, games] = ["Team", "Player", "Game"].map(|class| format!("{class}{seed}"));
    let classes = [&*teams, &*players, &*games];
    // The class of a relation's members is fixed.
    let clubs = format!("StoryClub{seed}");
    let club = server.create(&clubs, &json!({"seed": seed}));
    let mut ids: [Vec<String>; 3] = Default::default();
    for (at, class) in classes.iter().enumerate() {
        let mut fields = json!({"level": 1, "score": 1});
        if at > 0 {
            fields[if at == 2 { "owner" } else { "team" }] = pointer(classes[at - 1], &ids[at - 1][0]);
        }
        ids[at].push(server.create(class, &fields));
    }
    let owner = Pointer::new(&clubs, &club);
    let relate = |op: &str, id: &str| {
        let members = json!({"__op": op, "objects": [pointer(&players, id)]});
        server.update(&clubs, &club, &json!({"members": members}));
    };
    relate("AddRelation", &ids[1][0]);
    let leading = || Query::new(&*players).greater_than("level", 1);
    let game = || Query::new(&*games);
    let queries = [
        game().matches_query("owner", leading()).include("owner"),
        game()
            .include("owner.team")
            .descending(["score"])
            .add_ascending("objectId"),
        Query::or([
            game().does_not_match_query("owner", leading()),
            game().greater_than("score", 5),
        ])
        .ascending(["score", "objectId"])
        .limit(4),
        Query::new(&*players)
            .related_to(&owner, "members")
            .include("team"),
        game().matches_query("owner", Query::new(&*players).related_to(&owner, "members")),
    ];
    let sets: Vec<_> = queries.iter().map(|query| following(&client, query)).collect();
    for round in 0..2 {
        for step in 0..40 {
            let at = rng.random_range(0..3);
            let (class, known) = (classes[at], ids[at].len());
            let mut fields = json!({"level": rng.random_range(0..4), "score": rng.random_range(0..10)});
            let targets = if at > 0 { ids[at - 1].clone() } else { Vec::new() };
            if !targets.is_empty() {
                let target = &targets[rng.random_range(0..targets.len())];
                fields[if at == 2 { "owner" } else { "team" }] = pointer(classes[at - 1], target);
            }
            match rng.random_range(0..12) {
                0 if known > 1 => {
                    let id = ids[at].swap_remove(rng.random_range(0..known));
                    server.delete(class, &id);
                }
                1..=5 => server.update(class, &ids[at][rng.random_range(0..known)], &fields),
                6 | 7 => {
                    let id = &ids[1][rng.random_range(0..ids[1].len())];
                    relate(
                        if rng.random_range(0..2) == 0 {
                            "AddRelation"
                        } else {
                            "RemoveRelation"
                        },
                        id,
                    );
                }
                _ => ids[at].push(server.create(class, &fields)),
            }
            if step % 15 == 7 {
                proxy.cut();
            }
        }
        for (set, query) in sets.iter().zip(&queries) {
            wait_equal(&client, set, query);
        }
        println!(
            "seed {seed}, round {round}: {:?}",
            sets.iter().map(LiveSet::stats).collect::<Vec<_>>()
        );
    }
}

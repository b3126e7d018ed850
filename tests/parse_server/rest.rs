//! The calls of `client.rest()` and the built-in fetch of live sets, asking a real Parse Server.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use parse_livequery::rest::Op;
use parse_livequery::{Date, Error, ErrorKind, EventKind, Pointer, Query};
use serde_json::{Value, json};

use crate::recorder::{Recorder, builder, client};
use crate::rest_table::{permissions, same_answers, same_permissions};
use crate::support::{APPLICATION_ID, Options, PATIENCE, ParseServer, only, wait_until};
use crate::versions::{self, Server, VERSIONS};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_answers_are_those_of_the_test_server() {
    let server = ParseServer::shared();
    same_answers(&client(server), "table");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_permissions_of_a_class_are_those_of_the_test_server() {
    let server = ParseServer::shared();
    let client = client(server);
    let session = client
        .rest()
        .sign_up("rest-permissions", "s3cret", &json!({}))
        .unwrap();
    let id = server.create("RestNews", &json!({"text": "a"}));
    let permissions = permissions(session.user().id().unwrap());
    let schema = json!({"className": "RestNews", "classLevelPermissions": permissions});
    server.rest("PUT", "/schemas/RestNews", &[], Some(&schema));
    same_permissions(&client.rest(), &id);
    let one = Query::new("RestNews").equal_to("objectId", id);
    client.subscribe(&one).unwrap().wait_open(PATIENCE).unwrap();
    let schema = json!({"className": "RestNews", "classLevelPermissions": {"get": {"*": true}}});
    server.rest("PUT", "/schemas/RestNews", &[], Some(&schema));
    let refused = client.subscribe(&Query::new("RestNews")).unwrap();
    assert_eq!(refused.wait_open(PATIENCE).unwrap_err().code(), Some(119));
}

#[test]
#[ignore = "needs Node.js and npm"]
fn other_versions_answer_the_same() {
    // The oldest that is in full use, whatever is chosen.
    let oldest = VERSIONS
        .iter()
        .filter(|version| version.number.starts_with("4.10."));
    let mut versions: Vec<_> = versions::chosen().into_iter().chain(oldest).collect();
    versions.dedup_by_key(|version| version.number);
    for version in versions {
        if version.number != "9.10.0" {
            eprintln!("Parse Server {}", version.number);
            same_answers(&Server::start(version).builder().build().unwrap(), "table");
        }
    }
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_log_in_brings_the_events_that_the_user_may_see() {
    let server = ParseServer::shared();
    let client = client(server);
    let rest = client.rest();
    let recorder = Recorder::open(client.subscription(&Query::new("RestLogIn")));
    let session = rest.sign_up("rest-log-in", "a password", &json!({})).unwrap();
    recorder.expect(EventKind::Close);
    recorder.expect(EventKind::Open);
    let id = session.user().id().unwrap();
    let mine = json!({"ACL": {id: {"read": true, "write": true}}, "n": 1});
    let mine = rest.create("RestLogIn", &mine).unwrap();
    let mine = mine.id().unwrap();
    recorder.expect_of(EventKind::Create, mine);
    let changed = rest
        .update("RestLogIn", mine, &json!({"n": Op::increment(1)}))
        .unwrap();
    assert_eq!(changed.get_i64("n"), Some(2));
    recorder.expect_of(EventKind::Update, mine);

    // Whoever ends the session elsewhere, the client hears of it with the next call.
    let (ended, is_ended) = mpsc::channel();
    client.on("session_ended", move |event| {
        ended.send(event.error().cloned()).unwrap()
    });
    let elsewhere = client.rest().own_session();
    elsewhere.become_user(session.token()).unwrap();
    elsewhere.log_out().unwrap();
    let error = wait_for_error(|| rest.get("RestLogIn", mine).err());
    assert_eq!(error.code(), Some(209), "{error}");
    let told = is_ended.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(told.code(), Some(209));
    recorder.end();
}

/// The server may remember for a moment whose a token was.
fn wait_for_error(mut call: impl FnMut() -> Option<Error>) -> Error {
    let mut error = None;
    wait_until("the call is refused", || {
        error = call();
        error.is_some()
    });
    error.unwrap()
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_set_is_what_the_server_finds_for_a_table_of_queries() {
    let server = ParseServer::shared();
    let owner = server.create("RestOwner", &json!({"name": "Ann"}));
    let owner = json!({"__type": "Pointer", "className": "RestOwner", "objectId": owner});
    for at in 0..250 {
        let mut object = json!({
            "at": at, "level": at % 7, "name": format!("game {}", at % 11), "done": at % 2 == 0,
            "due": {"__type": "Date", "iso": format!("2024-01-{:02}T00:00:00.000Z", at % 28 + 1)},
        });
        if at % 3 == 0 {
            object["owner"] = owner.clone();
            object["rank"] = (at % 5).into();
        }
        server.create("RestGame", &object);
    }
    let games = || Query::new("RestGame");
    let pointer = Pointer::new("RestOwner", owner["objectId"].as_str().unwrap());
    let day = Date::parse("2024-01-15T00:00:00.000Z").unwrap();
    let client = client(server);
    for query in [
        games(),
        games().equal_to("level", 3).ascending(["name"]),
        games().greater_than("due", day).descending(["due"]).limit(20),
        games()
            .equal_to("owner", pointer)
            .ascending(["rank"])
            .add_descending(["at"])
            .skip(5)
            .limit(10),
        // Most have no rank.
        games().ascending(["rank", "at"]),
        games().descending(["rank"]).limit(60),
        games()
            .equal_to("done", true)
            .select(["name"])
            .descending(["level"])
            .limit(30),
        Query::or([games().less_than("at", 5), games().greater_than("at", 244)]).descending(["createdAt"]),
        games().starts_with("name", "game 1").ascending(["-at"]),
        games().equal_to("level", 99),
    ] {
        let set = client.live_set(&query).start().unwrap();
        set.wait_ready(PATIENCE).unwrap();
        // An order by a field that some lack is learned.
        wait_until(
            &format!("{} is equal to find()", query.to_json().unwrap()),
            || {
                let expected = found(server, &query);
                set.snapshot()
                    .iter()
                    .map(|game| without_class(&game.to_json()))
                    .eq(expected)
            },
        );
    }
}

/// What `find()` returns, with the order that a set has.
fn found(server: &ParseServer, query: &Query) -> Vec<Value> {
    let json: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
    let order = match json["order"].as_str() {
        Some(order) => format!("{order},objectId"),
        None => "createdAt,objectId".to_owned(),
    };
    let number = |name: &str, otherwise: u64| json[name].as_u64().unwrap_or(otherwise).to_string();
    let (limit, skip) = (number("limit", 1000), number("skip", 0));
    let mut parameters = vec![("order", &*order), ("limit", &*limit), ("skip", &*skip)];
    // The set has what it is sorted and judged by as well.
    let conditions = json["where"].as_object().unwrap().keys().cloned();
    let conditions = conditions.collect::<Vec<_>>().join(",");
    let keys = json["keys"]
        .as_str()
        .map(|keys| format!("{keys},{conditions},{}", order.replace('-', "")));
    if let Some(keys) = &keys {
        parameters.push(("keys", keys));
    }
    server.find("RestGame", &json["where"], &parameters)
}

fn without_class(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("className");
    object
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_session_token_decides_what_is_found() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("rest-alice"), server.sign_up("rest-bob"));
    let mine = server.create("RestNote", &json!({"ACL": only(&alice)}));
    let other = server.create("RestNote", &json!({"ACL": only(&bob)}));
    let public = server.create("RestNote", &json!({}));
    let client = builder(server)
        .session_token(&alice.session_token)
        .build()
        .unwrap();
    let set = client.live_set(&Query::new("RestNote")).start().unwrap();
    set.wait_ready(PATIENCE).unwrap();
    let has = |id: &str| set.get(id).is_some();
    assert!(has(&mine) && !has(&other) && has(&public));
    client.set_session_token(Some(&bob.session_token));
    wait_until("bob's objects", || !has(&mine) && has(&other) && has(&public));
    set.set_session_token(Some(&alice.session_token)).unwrap();
    wait_until("alice's objects", || has(&mine) && !has(&other) && has(&public));
    // A session that has ended is refused by the REST API, and what is there stays.
    let (error, errors) = mpsc::channel();
    let error = Arc::new(Mutex::new(error));
    set.on_error(move |told| error.lock().unwrap().send(told.clone()).unwrap());
    server.log_out(&alice);
    set.refresh();
    let error = errors.recv_timeout(PATIENCE).unwrap();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Fetch, Some(209)));
    assert!(error.to_string().contains("log in again"), "{error}");
    assert!(has(&mine) && !has(&other) && has(&public));
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_create_may_have_happened_when_the_server_dies() {
    let server = ParseServer::start(Options::default());
    let client = client(&server);
    let rest = client.rest();
    let creating = thread::spawn(move || rest.create("SlowToAnswer", &json!({"score": 1})));
    wait_until("the object is there", || {
        server.find("SlowToAnswer", &json!({}), &[]).len() == 1
    });
    assert!(!creating.is_finished());
    server.kill();
    let error = creating.join().unwrap().unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    // What was never sent has not happened.
    let error = client
        .rest()
        .create("SlowToAnswer", &json!({"score": 2}))
        .unwrap_err();
    assert!(!error.may_have_happened(), "{error}");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn keys_are_sent_and_a_wrong_one_is_told() {
    let server = ParseServer::start(Options {
        javascript_key: Some("the key".to_owned()),
        ..Options::default()
    });
    let client = builder(&server).javascript_key("the key").build().unwrap();
    let set = client.live_set(&Query::new("Game")).start().unwrap();
    set.wait_ready(PATIENCE).unwrap();
    // The link has the right key, but the REST API is asked for another application.
    let stranger = parse_livequery::Client::builder(server.ws_url(), format!("not {APPLICATION_ID}"))
        .javascript_key("the key")
        .build()
        .unwrap();
    let (error, errors) = mpsc::channel();
    let _set = stranger
        .live_set(&Query::new("Game"))
        .on_error(move |told| error.send(told.clone()).unwrap())
        .start()
        .unwrap();
    let error = errors.recv_timeout(PATIENCE).unwrap();
    assert_eq!(error.kind(), ErrorKind::Fetch);
    assert!(
        error
            .to_string()
            .contains("HTTP 403: unauthorized; check the application id"),
        "{error}"
    );
}

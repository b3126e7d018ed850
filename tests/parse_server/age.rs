//! What the client finds out about the age of real servers, and what it makes of it.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;

use parse_livequery::{Client, Date, ErrorKind, Pointer, Query, Subscription};
use serde_json::json;

use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, PATIENCE, skip};
use crate::versions::{self, Server, Version};

fn day() -> Date {
    Date::parse("2024-01-02T03:04:05.678Z").unwrap()
}

fn owner() -> Pointer {
    Pointer::new("Team", "team000001")
}

/// A query of each kind, and since when it works for a client that names no version.
fn queries() -> Vec<(&'static str, Query, (u32, u32))> {
    let new = || Query::new("Game");
    vec![
        ("plain", new().exists("num"), (2, 8)),
        ("pointer", new().equal_to("owner", owner()), (2, 8)),
        // What is older than 4.3 may be older than 3.4.
        ("date", new().greater_than_or_equal_to("when", day()), (4, 3)),
        ("negation", new().not_equal_to("num", 3), (6, 1)),
        ("null", new().equal_to("none", None::<i32>), (6, 1)),
        // 6.1 to 6.5 cannot be told apart, and 6.1 and 6.2 lack it.
        ("whole", new().equal_to("o", json!({"a": 1})), (7, 0)),
    ]
}

fn number(version: &Version) -> (u32, u32) {
    let mut parts = version.number.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// A subscription that tells the ids of what comes for it, and its first error.
fn watch(client: &Client, query: &Query, events: &mpsc::Sender<Told>, name: &'static str) -> Subscription {
    let (ids, errors) = (events.clone(), events.clone());
    client
        .subscription(query)
        .on_any(move |event| {
            if let Some(id) = event.id() {
                let _ = ids.send(Told::Event(name, id.to_owned()));
            }
        })
        .on_error(move |error| {
            let _ = errors.send(Told::Refused(name, error.kind(), error.to_string()));
        })
        .start()
        .unwrap()
}

#[derive(Debug, PartialEq)]
enum Told {
    Event(&'static str, String),
    Refused(&'static str, ErrorKind, String),
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn each_version_tells_its_age_and_gets_what_it_can_answer() {
    for version in versions::chosen() {
        tells_its_age(version);
    }
}

fn tells_its_age(version: &'static Version) {
    let server = Server::start(version);
    // The columns have to be there before a query names them.
    let object = json!({
        "num": 4, "owner": owner(), "when": day(), "o": {"a": 1}, "tags": [owner()],
    });
    server.create("Game", &object);
    let client = server.builder().build().unwrap();
    let (sender, told) = mpsc::channel();
    let subscriptions: Vec<_> = queries()
        .into_iter()
        .map(|(name, query, _)| watch(&client, &query, &sender, name))
        .collect();
    let mut works = BTreeSet::new();
    for ((name, _, since), subscription) in queries().into_iter().zip(&subscriptions) {
        if number(version) >= since {
            let opened = subscription.wait_open(PATIENCE);
            assert!(opened.is_ok(), "{} {name}: {opened:?}", version.number);
            works.insert(name);
        } else {
            let Told::Refused(refused, kind, text) = told.recv_timeout(PATIENCE).unwrap() else {
                panic!("{} {name}: an event came", version.number)
            };
            assert_eq!(
                kind,
                ErrorKind::InvalidQuery,
                "{} {refused}: {text}",
                version.number
            );
            assert!(
                text.contains("needs Parse Server") && text.contains("parse_server"),
                "{} {refused}: {text}",
                version.number
            );
        }
    }
    let id = server.create("Game", &object);
    let mut came = BTreeSet::new();
    while came.len() < works.len() {
        match told.recv_timeout(PATIENCE) {
            Ok(Told::Event(name, of)) => {
                assert_eq!(of, id);
                came.insert(name);
            }
            other => panic!(
                "{}: {other:?}, and only {came:?} of {works:?} came",
                version.number
            ),
        }
    }
    assert_eq!(came, works, "{}", version.number);
    let diagnosis = client.diagnose();
    let age = match number(version) {
        (major, _) if major >= 7 => "7.0 or later",
        (6, _) => "at least 6.1 and older than 7.0",
        age if age >= (4, 3) => "at least 4.3 and older than 6.1",
        _ => "older than 4.3",
    };
    assert!(diagnosis.contains(age), "{}: {diagnosis}", version.number);
    println!("{}: {age}; {works:?} work", version.number);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_server_that_is_older_after_an_outage_gets_what_it_can_answer() {
    let chosen = versions::chosen();
    let find = |is_new: bool| {
        let mut all = chosen.iter().copied();
        all.find(|version| is_new == (number(version) >= (7, 0)))
    };
    let (Some(new), Some(old)) = (find(true), find(false)) else {
        return skip(
            "PARSE_SERVER_VERSIONS names no two servers of which one is 7.0 or later, and the other not",
        );
    };
    let (new, old) = (Server::start(new), Server::start(old));
    let port = Arc::new(AtomicU16::new(new.port()));
    let leads_to = Arc::clone(&port);
    let client = Client::builder("ws://parse.test/parse", APPLICATION_ID)
        .javascript_key(JAVASCRIPT_KEY)
        .connect_with(move |_, _| TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::SeqCst))))
        .build()
        .unwrap();
    let object = json!({"num": 4, "owner": owner()});
    for server in [&new, &old] {
        server.create("Game", &object);
    }
    let (sender, told) = mpsc::channel();
    let pointer = Query::new("Game").equal_to("owner", owner());
    let pointer = watch(&client, &pointer, &sender, "pointer");
    let negation = watch(
        &client,
        &Query::new("Game").not_equal_to("num", 3),
        &sender,
        "negation",
    );
    pointer.wait_open(PATIENCE).unwrap();
    negation.wait_open(PATIENCE).unwrap();
    // The way back to the new server is cut off with its end.
    port.store(old.port(), Ordering::SeqCst);
    drop(new);
    loop {
        match told.recv_timeout(PATIENCE).unwrap() {
            Told::Refused("negation", ErrorKind::InvalidQuery, text) => {
                assert!(text.contains("needs Parse Server 5.0"), "{text}");
                break;
            }
            Told::Refused(..) => {}
            Told::Event(..) => panic!("nothing was written"),
        }
    }
    pointer.wait_open(PATIENCE).unwrap();
    let id = old.create("Game", &object);
    let event = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(event, Told::Event("pointer", id));
}

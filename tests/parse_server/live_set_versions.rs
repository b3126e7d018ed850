//! Live sets on Parse Server 4.10, which sends one message object to all subscriptions of a class: an event may come under
//! the name that it has for another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parse_livequery::{EventKind, LiveSet, Object, Query};
use serde_json::{Value, json};

use crate::support::{PATIENCE, wait_until};
use crate::versions::{Server, VERSIONS};

#[test]
#[ignore = "needs npm; installs an old Parse Server and its Node.js"]
fn an_object_that_leaves_is_gone_though_its_event_has_another_name() {
    let version = VERSIONS
        .iter()
        .find(|version| version.number.starts_with("4.10."));
    let server = Arc::new(Server::start(version.unwrap()));
    let client = server.builder().build().unwrap();
    let finding = Arc::clone(&server);
    let set: LiveSet = client
        .live_set(&Query::new("Game").equal_to("open", true))
        .fetch_with(
            move |query: &Query| -> Result<Vec<Object>, parse_livequery::Error> {
                let options: Value = serde_json::from_str(&query.to_json()?).unwrap();
                let found = finding.find("Game", &options).unwrap();
                found.into_iter().map(Object::from_json).collect()
            },
        )
        .start()
        .unwrap();
    set.wait_ready(PATIENCE).unwrap();
    // All games, and those of a score: an object that leaves the set is an update there.
    let others = [Query::new("Game"), Query::new("Game").equal_to("score", 1)];
    let others = others.map(|query| client.subscribe(&query).unwrap());
    others.iter().for_each(|other| other.wait_open(PATIENCE).unwrap());
    let misnamed = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&misnamed);
    set.subscription().on_any(move |event| {
        let is_open = event.object().and_then(|object| object.get_bool("open"));
        let is_misnamed = event.kind() == EventKind::Update && is_open == Some(false);
        counting.fetch_add(usize::from(is_misnamed), Ordering::SeqCst);
    });
    for _ in 0..10 {
        let id = server.create("Game", &json!({"open": true, "score": 1}));
        wait_until("it is there", || set.get(&id).is_some());
        server.update("Game", &id, &json!({"open": false}));
        wait_until("it is gone", || set.get(&id).is_none());
        wait_until("the set is sure of it", || set.is_ready());
        assert!(set.get(&id).is_none());
    }
    println!("{} of 10 leaves came as updates", misnamed.load(Ordering::SeqCst));
}

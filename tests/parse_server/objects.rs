//! What comes when objects change: the five events of an object, and what `select` and `watch` leave of them.

use parse_livequery::{EventKind, Query};
use serde_json::json;

use crate::recorder::{client, record};
use crate::support::ParseServer;

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn an_object_is_followed_through_its_life() {
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Life").greater_than("score", 10));

    // Does not match yet: the first that comes is its `enter`.
    let id = server.create("Life", &json!({"score": 5, "name": "ada"}));
    server.update("Life", &id, &json!({"score": 15}));
    let entered = recorder.expect_of(EventKind::Enter, &id);
    assert_eq!(entered.get("score"), Some(&json!(15)));
    assert_eq!(entered.original().unwrap().get("score"), Some(&json!(5)));
    assert_eq!(entered.class_name(), Some("Life"));

    server.update("Life", &id, &json!({"score": 20, "name": {"__op": "Delete"}}));
    let updated = recorder.expect_of(EventKind::Update, &id);
    assert_eq!(
        (updated.get("score"), updated.get("name")),
        (Some(&json!(20)), None)
    );
    let original = updated.original().unwrap();
    assert_eq!(
        (original.get("score"), original.get("name")),
        (Some(&json!(15)), Some(&json!("ada")))
    );
    let mut changed: Vec<_> = updated.changed_keys().into_iter().collect();
    changed.sort_unstable();
    assert_eq!(changed, ["name", "score"]);

    server.update("Life", &id, &json!({"score": 1}));
    let left = recorder.expect_of(EventKind::Leave, &id);
    assert_eq!(left.original().unwrap().get("score"), Some(&json!(20)));

    // Deleted while it does not match: the next that comes is of another object.
    server.delete("Life", &id);
    let other = server.create("Life", &json!({"score": 30}));
    let created = recorder.expect_of(EventKind::Create, &other);
    assert!(created.original().is_none());
    server.delete("Life", &other);
    recorder.expect_of(EventKind::Delete, &other);

    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn select_brings_the_named_keys_only() {
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Selected").select(["name"]));

    let id = server.create("Selected", &json!({"name": "ada", "score": 1}));
    let created = recorder.expect_of(EventKind::Create, &id);
    assert_eq!(
        (created.get("name"), created.get("score")),
        (Some(&json!("ada")), None)
    );
    assert!(created.created_at().is_some());

    server.update("Selected", &id, &json!({"name": "grace", "score": 2}));
    let updated = recorder.expect_of(EventKind::Update, &id);
    let original = updated.original().unwrap();
    assert_eq!(
        (original.get("name"), original.get("score")),
        (Some(&json!("ada")), None)
    );

    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn watch_lets_only_changes_of_the_named_keys_through() {
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Watched").watch(["score"]));

    let id = server.create("Watched", &json!({"name": "ada", "score": 1}));
    recorder.expect_of(EventKind::Create, &id);
    // Not watched: the next that comes is the change of the score.
    server.update("Watched", &id, &json!({"name": "grace"}));
    server.update("Watched", &id, &json!({"score": 2}));
    let updated = recorder.expect_of(EventKind::Update, &id);
    assert_eq!(
        (updated.get("name"), updated.get("score")),
        (Some(&json!("grace")), Some(&json!(2)))
    );

    recorder.end();
}

//! Another query for a subscription: one at a time, and never less than there was.

use parse_livequery::{GapReason, Query, SubscriptionState};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

#[test]
fn update_gives_close_and_open_with_a_gap() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Old");
    subscription.update(&Query::new("New")).unwrap();
    events.expect("close");
    let open = events.expect("open").value;
    assert_eq!(open.gap().unwrap().reason(), GapReason::QueryUpdated);
    assert_eq!(server.emit("create", &object("Old", "a", json!({}))), 0);
    assert_eq!(server.emit("create", &object("New", "a", json!({}))), 1);
    events.expect("create");
    // After a cut it is the new query that comes back, as a subscription like all others.
    server.conn(1).cut();
    events.expect("close");
    assert_eq!(
        events.expect("open").value.gap().unwrap().reason(),
        GapReason::ConnectionLost
    );
    let frame = server.wait_op(2, "subscribe", 1).remove(0).frame;
    assert_eq!(frame["query"]["className"], "New");
    assert_eq!(frame["requestId"], subscription.id());
    assert_eq!(server.accepts(), 2);
}

#[test]
fn updates_go_out_one_at_a_time_and_the_last_one_stands() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (subscription, events) = subscribe(&client, "C0");
    server.on_frame(|_, frame| match frame["op"].as_str() {
        Some("update") => Then::Handled,
        _ => Then::Default,
    });
    subscription.update(&Query::new("C1")).unwrap();
    server.wait_op(1, "update", 1);
    for at in 2..10 {
        subscription.update(&Query::new(format!("C{at}"))).unwrap();
    }
    fence(&client);
    assert_eq!(
        server.received_op("update").len(),
        1,
        "the first has no answer yet"
    );
    server.heal();
    server.conn(1).subscribed(subscription.id());
    let (conn, id) = server.wait_subscribed("C9");
    assert_eq!(id, subscription.id());
    assert_eq!(conn.received().iter().filter(|r| r.op() == "update").count(), 2);
    events.wait_for("close");
    events.wait_for("open");
    assert_eq!(client_events.count("error"), 0);
}

#[test]
fn refused_update_brings_the_old_query_back() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Old");
    server.on_frame(
        |conn, frame| match (frame["op"].as_str(), frame["query"]["className"].as_str()) {
            // Parse Server ends the old query, and then finds fault with the new one.
            (Some("update"), Some("Refused")) => {
                let id = frame["requestId"].as_u64();
                conn.forget_subscription(id.unwrap());
                conn.error(119, "no right", false, id);
                Then::Handled
            }
            _ => Then::Default,
        },
    );
    subscription.update(&Query::new("Refused")).unwrap();
    events.wait_where("the error", |seen| {
        seen.value
            .error()
            .is_some_and(|error| error.code() == Some(119) && !error.is_fatal())
    });
    let open = events.wait_for("open").value;
    assert_eq!(open.gap().unwrap().reason(), GapReason::QueryUpdated);
    assert_eq!(server.emit("create", &object("Old", "a", json!({}))), 1);
    events.expect("create");
    assert_eq!(subscription.state(), SubscriptionState::Open);
    let kinds: Vec<_> = events.all().iter().map(|seen| seen.value.kind()).collect();
    assert_grammar("Old", &kinds);
    assert_eq!(server.accepts(), 1);
}

#[test]
fn update_while_offline_is_what_comes_back() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Old");
    server.on_accept(|_| Then::Handled);
    server.conn(1).cut();
    events.expect("close");
    subscription.update(&Query::new("New")).unwrap();
    server.heal();
    for conn in server.open_conns() {
        conn.cut();
    }
    // The client may have been quick to connect, and cut once more.
    let (last, _) = server.wait_subscribed("New");
    events.expect("open");
    let frames: Vec<_> = last.received().into_iter().skip(1).collect();
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(
        (frames[0].op(), &frames[0].frame["query"]["className"]),
        ("subscribe", &json!("New"))
    );
}

#[test]
fn failed_subscription_can_be_tried_with_another_query() {
    let server = Server::auto();
    server.on_frame(|conn, frame| match frame["query"]["className"].as_str() {
        Some("Refused") => {
            conn.error(119, "no right", false, frame["requestId"].as_u64());
            Then::Handled
        }
        _ => Then::Default,
    });
    let client = client(&server.url());
    let events = Events::new();
    let subscription = subscribe_into(&client, "Refused", &events);
    assert!(events.expect("error").value.error().unwrap().is_fatal());
    assert_eq!(subscription.wait_open(LONG).unwrap_err().code(), Some(119));
    // It is not tried again when the link is.
    server.conn(1).cut();
    fence(&client);
    wait_until("the link is back", || server.accepts() == 2);
    let again = server.wait_op(2, "subscribe", 1);
    assert!(
        again
            .iter()
            .all(|received| received.request_id() != subscription.id())
    );
    subscription.update(&Query::new("Allowed")).unwrap();
    subscription.wait_open(LONG).unwrap();
    events.expect("open");
    assert_eq!(events.kinds(), ["error", "open"]);
}

//! What the server sends: whatever it is, the link survives it and the next event is delivered.

use std::sync::Arc;

use parse_livequery::{Error, ErrorKind, Query};
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::harness::*;
use crate::support::*;

/// What a frame leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Nothing,
    /// One error of kind `Protocol` at the client.
    Error,
}

#[test]
fn bad_input_loses_nothing() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (subscription, events) = subscribe(&client, "Game");
    client_events.expect("open");
    let (conn, id) = server.wait_subscribed("Game");
    let table: Vec<(&str, Told)> = vec![
        ("", Told::Error),
        (" ", Told::Error),
        ("{", Told::Error),
        ("{\"op\":", Told::Error),
        ("nonsense", Told::Error),
        ("null", Told::Error),
        ("7", Told::Error),
        ("[]", Told::Error),
        ("\"create\"", Told::Error),
        ("{}", Told::Error),
        ("{\"op\":7}", Told::Error),
        ("{\"op\":null}", Told::Error),
        ("{\"op\":\"create\"}", Told::Error),
        ("{\"op\":\"create\",\"requestId\":1}", Told::Error),
        ("{\"op\":\"create\",\"requestId\":1,\"object\":7}", Told::Error),
        (
            "{\"op\":\"create\",\"requestId\":\"x\",\"object\":{}}",
            Told::Error,
        ),
        ("{\"op\":\"subscribed\"}", Told::Error),
        ("{\"op\":\"brandNew\",\"requestId\":1,\"more\":[]}", Told::Nothing),
        (
            "{\"op\":\"redirect\",\"url\":\"ws://example.com\"}",
            Told::Nothing,
        ),
        (
            "{\"op\":\"result\",\"requestId\":1,\"results\":[]}",
            Told::Nothing,
        ),
        (
            "{\"op\":\"create\",\"requestId\":4711,\"object\":{\"objectId\":\"a\"}}",
            Told::Nothing,
        ),
        ("{\"op\":\"subscribed\",\"requestId\":4711}", Told::Nothing),
        ("{\"op\":\"unsubscribed\",\"requestId\":4711}", Told::Nothing),
        (
            "{\"op\":\"error\",\"requestId\":4711,\"code\":141,\"error\":\"x\"}",
            Told::Nothing,
        ),
        ("{\"op\":\"subscribed\",\"requestId\":1}", Told::Nothing),
        // An afterLiveQueryEvent hook that sets `request.event` to `connect` (Parse Server 9.10).
        (
            "{\"op\":\"connected\",\"requestId\":1,\"object\":{\"objectId\":\"a\"}}",
            Told::Nothing,
        ),
        ("{\"op\":\"connected\",\"clientId\":\"another\"}", Told::Nothing),
    ];
    assert_eq!(id, 1, "the frames above mean this one");
    let mut wrong = vec![];
    for (at, (text, told)) in table.into_iter().enumerate() {
        conn.send_text(text);
        let name = format!("after {at}");
        conn.event("delete", id, object("Game", &name, json!({})), None);
        let events: Vec<_> = std::iter::from_fn(|| {
            let seen = events.wait_where("the event after it", |_| true);
            (seen.kind != "delete").then_some(seen.kind)
        })
        .collect();
        // What the client was told of it, it was told before that event.
        let errors: Vec<_> = client_events.drain().into_iter().map(|seen| seen.value).collect();
        let as_expected = match told {
            Told::Nothing => errors.is_empty(),
            Told::Error => {
                let is_protocol = |error: &Error| error.kind() == ErrorKind::Protocol && !error.is_fatal();
                errors.len() == 1 && errors[0].error().is_some_and(is_protocol)
            }
        };
        if !as_expected || !events.is_empty() {
            wrong.push(format!("{text}: expected {told:?}, got {errors:?} {events:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    conn.send_binary(b"{\"op\":\"create\"}");
    conn.event("create", id, object("Game", "after binary", json!({})), None);
    events.expect("create");
    assert_eq!(
        client_events.expect("error").value.error().unwrap().kind(),
        ErrorKind::Protocol
    );
    assert_eq!(server.accepts(), 1);
    assert_eq!(events.count("close") + events.count("error"), 0);
    drop(subscription);
}

#[test]
fn a_malformed_value_is_an_error_of_who_looks_at_it() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    let conn = server.conn(1);
    let send = |object: &str| {
        let id = subscription.id();
        conn.send_text(&format!(
            r#"{{"op":"create","requestId":{id},"object":{object}}}"#
        ));
        events.expect("create").value
    };
    let is_decode = |error: Error| error.kind() == ErrorKind::Decode;

    let event = send(r#"{"objectId":"a","score":tru,"name":"x"}"#);
    let game = event.object().unwrap();
    assert_eq!((game.id(), game.get_str("name")), (Some("a"), Some("x")));
    assert_eq!(game.get("score"), None);
    assert!(is_decode(game.get_as::<Option<bool>>("score").unwrap_err()));
    assert!(is_decode(game.decode::<Value>().unwrap_err()));

    let event = send(r#"{"objectId" "b"}"#);
    let game = event.object().unwrap();
    assert_eq!(game.id(), None);
    let error = game.get_as::<Option<String>>("objectId").unwrap_err();
    assert!(error.to_string().contains("expected `:`"), "{error}");
    assert!(is_decode(error));

    assert_eq!(send(r#"{"objectId":"c"}"#).id(), Some("c"));
    assert_eq!(client.stats().malformed, 0);
}

#[test]
fn long_excerpts_are_cut_and_whole_characters() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    client.open();
    client_events.expect("open");
    server.conn(1).send_text(&"ä€😀".repeat(100_000));
    let error = client_events.expect("error").value;
    let text = error.error().unwrap().to_string();
    assert!(text.len() < 1000, "{} bytes", text.len());
}

#[test]
fn dialects_of_old_and_odd_servers_are_understood() {
    let server = Server::scripted();
    let client = client(&server.url());
    let events = Events::new();
    let _subscription = subscribe_into(&client, "Game", &events);
    let greetings = [
        // Parse Server before 2.6.2 counts its clients from 0; the protocol's wiki shows none.
        json!({ "op": "connected", "clientId": 0 }),
        json!({ "op": "connected", "clientId": "uuid", "installationId": "i", "more": { "of": [null] } }),
        json!({ "op": "connected" }),
        json!({ "op": "connected", "clientId": null, "installationId": null }),
    ];
    for greeting in greetings {
        let conn = server.accept();
        conn.upgrade();
        conn.expect_op("connect");
        conn.send(&greeting);
        let id = conn.expect_id("subscribe");
        conn.send(&json!({ "requestId": id, "op": "subscribed", "clientId": 7 }));
        events.expect("open");
        let objects = [
            json!({ "objectId": "a" }),
            json!({ "__type": "Object", "className": "Game", "objectId": "a", "updatedAt": null }),
            json!({ "objectId": "a", "score": 1.5, "big": 123_456_789_012_345_680_u64, "nested": { "a": [1, null] } }),
        ];
        for object in objects {
            let mut event = json!({ "op": "update", "clientId": 7, "requestId": id, "object": object });
            conn.send(&event);
            let got = events.expect("update").value;
            assert_eq!(got.id(), Some("a"));
            assert!(got.original().is_none());
            for (key, value) in object.as_object().unwrap() {
                assert_eq!(got.get(key), Some(value), "{key}");
            }
            event["original"] = Value::Null;
            conn.send(&event);
            assert!(events.expect("update").value.original().is_none());
            event["original"] = json!({ "objectId": "a", "old": true });
            conn.send(&event);
            let got = events.expect("update").value;
            assert_eq!(got.original().unwrap().get("old"), Some(&json!(true)));
        }
        conn.cut();
        events.expect("close");
    }
}

#[test]
fn fragments_and_control_frames_in_between() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    let conn = server.conn(1);
    let event = conn.event_message(
        "create",
        subscription.id(),
        object("Game", "äöü€😀", json!({})),
        None,
    );
    for size in [1, 2, 3, 7, 1000] {
        conn.send_fragmented(&event.to_string(), size);
        assert_eq!(
            events.expect("create").value.id(),
            Some("äöü€😀"),
            "in frames of {size} bytes"
        );
    }
    // A ping between two fragments, as RFC 6455 allows.
    let text = event.to_string();
    let (start, end) = text.as_bytes().split_at(20);
    conn.send_frame(OpCode::Data(Data::Text), false, start);
    conn.ping(b"between");
    conn.send_frame(OpCode::Data(Data::Continue), true, end);
    assert_eq!(events.expect("create").value.id(), Some("äöü€😀"));
    assert_eq!(server.accepts(), 1);
}

#[test]
fn violations_of_websocket_end_the_link_and_it_comes_back() {
    let frames: [(&str, &[u8]); 5] = [
        ("reserved opcode", &[0x83, 0x00]),
        ("reserved bit", &[0xC1, 0x00]),
        ("masked by the server", &[0x81, 0x81, 1, 2, 3, 4, b'x' ^ 1]),
        ("no UTF-8", &[0x81, 0x02, 0xC3, 0x28]),
        ("fragmented ping", &[0x09, 0x00]),
    ];
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, events) = subscribe(&client, "Game");
    for (at, (name, frame)) in frames.into_iter().enumerate() {
        let (conn, id) = server.wait_subscribed("Game");
        assert_eq!(conn.number(), at + 1, "{name}");
        conn.event("create", id, object("Game", "before", json!({})), None);
        conn.send_raw(frame);
        events.expect("create");
        let close = events.expect("close").value;
        assert!(close.error().is_some(), "{name}");
        events.expect("open");
    }
}

#[test]
fn answers_that_are_no_upgrade_are_told_as_what_they_are() {
    for (answer, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot here!",
            "404",
        ),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403"),
        (
            "HTTP/1.1 304 Not Modified\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
            "304",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n<html>bad</html>", "502"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", ""),
        ("", ""),
    ] {
        let server = Server::auto();
        server.on_accept(move |conn| {
            conn.read_request();
            conn.send_raw(answer.as_bytes());
            conn.cut();
            Then::Handled
        });
        let client = client(&server.url());
        let client_events = record_client(&client);
        let events = Events::new();
        let _subscription = subscribe_into(&client, "Game", &events);
        let event = client_events.wait_for("reconnecting").value;
        let error = event.error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{answer}: {error}");
        assert!(error.to_string().contains(expected), "{answer}: {error}");
        if !expected.is_empty() {
            // What is most often the reason: no LiveQuery there, or a proxy that does not pass the upgrade on.
            assert!(error.to_string().contains("Upgrade"), "{error}");
        }
        server.heal();
        events.expect("open");
        assert_eq!(client_events.count("error"), 1);
    }
}

#[test]
fn big_message() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (subscription, events) = subscribe(&client, "Game");
    client_events.expect("open");
    let text: Arc<str> = "x".repeat(20 << 20).into();
    let conn = server.conn(1);
    let event = conn.event_message(
        "create",
        subscription.id(),
        object("Game", "a", json!({ "text": &*text })),
        None,
    );
    conn.send(&event);
    let got = events.expect("create").value;
    assert_eq!(
        got.get("text").and_then(Value::as_str).map(str::len),
        Some(text.len())
    );

    // One that is announced larger than any limit: one clear error, no storm.
    let mut header = vec![0x81, 127];
    header.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    conn.send_raw(&header);
    let close = events.expect("close").value;
    assert_eq!(close.error().unwrap().kind(), ErrorKind::Protocol);
    assert!(
        close.error().unwrap().to_string().contains("limit"),
        "{:?}",
        close.error()
    );
    assert!(events.expect("open").value.gap().is_some());
    assert_eq!(server.accepts(), 2);
    client_events.expect("close");
    client_events.expect("reconnecting");
    client_events.expect("open");
}

#[test]
fn invalid_queries_are_refused_where_they_are_made() {
    let server = Server::auto();
    let client = client(&server.url());
    for query in [
        Query::new(""),
        Query::new("Game").select(["a", "a"]),
        Query::new("Game").select([""]),
        Query::new("Game").watch(["a", "a"]),
        Query::new("Game").watch([""]),
        Query::new("Game").matches_query("owner", Query::new("Other")),
        Query::new("Game").full_text("text", "word"),
        Query::new("Game").limit(10),
    ] {
        let refused = client.subscribe(&query).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::InvalidQuery), "{query:?}");
    }
    // And for a change of the query: nothing has changed then.
    let (subscription, events) = subscribe(&client, "Game");
    let error = subscription.update(&Query::new("")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidQuery);
    server.emit("create", &object("Game", "a", json!({})));
    events.expect("create");
    assert_eq!(server.received().len(), 2);
}

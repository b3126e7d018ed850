//! The harness itself, tried with a bare WebSocket: if these fail, no other failure here means anything.

use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, PATIENCE, ParseServer, only, wait_until};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn an_event_reaches_a_bare_web_socket() {
    let server = ParseServer::shared();
    let mut socket = connect(&server.ws_url());
    send(
        &mut socket,
        &json!({"op": "subscribe", "requestId": 1, "query": {"className": "Bare", "where": {}}}),
    );
    let subscribed = receive(&mut socket);
    assert_eq!(subscribed["op"], "subscribed");
    let held = server.subscriptions("Bare");
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].request_id, &held[0].r#where), (1, &json!({})));
    assert_eq!(subscribed["clientId"], held[0].client_id.as_str());

    let id = server.create("Bare", &json!({"score": 5}));
    let created = receive(&mut socket);
    assert_eq!(created["op"], "create");
    assert_eq!(created["object"]["objectId"], id.as_str());

    server.update("Bare", &id, &json!({"score": 6}));
    let updated = receive(&mut socket);
    assert_eq!(
        (&updated["original"]["score"], &updated["object"]["score"]),
        (&json!(5), &json!(6))
    );

    server.delete("Bare", &id);
    assert_eq!(receive(&mut socket)["op"], "delete");

    drop(socket);
    wait_until("the server has forgotten the subscription", || {
        server.subscriptions("Bare").is_empty()
    });
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn rest_finds_what_it_created_and_keeps_sessions() {
    let server = ParseServer::shared();
    let user = server.sign_up("rest");
    server.create("Rest", &json!({"score": 1, "name": "a"}));
    server.create("Rest", &json!({"score": 3, "name": "b", "ACL": only(&user)}));
    server.create("Rest", &json!({"score": 2, "name": "c"}));

    let found = server.find(
        "Rest",
        &json!({"score": {"$gt": 1}}),
        &[("order", "-score"), ("keys", "score")],
    );
    let scores: Vec<_> = found.iter().map(|object| object["score"].as_u64()).collect();
    assert_eq!(scores, [Some(3), Some(2)]);
    assert_eq!(found[0].get("name"), None);

    server.log_out(&user);
    let sessions = json!({"sessionToken": user.session_token}).to_string();
    let left = server.rest("GET", "/sessions", &[("where", &sessions)], None);
    assert_eq!(left["results"], json!([]));
}

fn connect(url: &str) -> WebSocket<MaybeTlsStream<TcpStream>> {
    let (mut socket, _) = tungstenite::connect(url).unwrap();
    if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    send(
        &mut socket,
        &json!({"op": "connect", "applicationId": APPLICATION_ID, "javascriptKey": JAVASCRIPT_KEY}),
    );
    assert_eq!(receive(&mut socket)["op"], "connected");
    socket
}

fn send(socket: &mut WebSocket<MaybeTlsStream<TcpStream>>, frame: &Value) {
    socket.send(Message::text(frame.to_string())).unwrap();
}

fn receive(socket: &mut WebSocket<MaybeTlsStream<TcpStream>>) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

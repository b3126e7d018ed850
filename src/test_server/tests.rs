//! The test server as a client sees it: a bare WebSocket, and frames as the real server sends them.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::TestServer;
use crate::query::Query;
use crate::types::Date;

const DEADLINE: Duration = Duration::from_secs(20);

/// Short for a test that waits for pings, long for a client that answers them on a busy machine.
const PING_INTERVAL: Duration = Duration::from_secs(1);

struct Client {
    web_socket: WebSocket<TcpStream>,
    id: String,
}

impl Client {
    /// Upgraded, but without a `connect`.
    fn open(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (web_socket, _) = tungstenite::client(server.url(), stream).unwrap();
        Self {
            web_socket,
            id: String::new(),
        }
    }

    fn connected(server: &TestServer) -> Self {
        let mut client = Self::open(server);
        client.send(json!({ "op": "connect", "applicationId": "app" }));
        let answer = client.receive();
        assert_eq!(answer["op"], "connected", "{answer}");
        client.id = answer["clientId"].as_str().unwrap().to_owned();
        client
    }

    fn subscribed(server: &TestServer, query: Value) -> Self {
        let mut client = Self::connected(server);
        client.subscribe(1, query);
        client
    }

    fn subscribe(&mut self, request_id: u64, query: Value) {
        self.send(json!({ "op": "subscribe", "requestId": request_id, "query": query }));
        let answer = self.receive();
        assert_eq!(
            (&answer["op"], &answer["requestId"]),
            (&json!("subscribed"), &json!(request_id)),
            "{answer}"
        );
    }

    fn send(&mut self, frame: Value) {
        self.web_socket.send(Message::text(frame.to_string())).unwrap();
    }

    fn receive(&mut self) -> Value {
        // Pings keep coming, so the time-out of the socket is not enough.
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "nothing but pings came");
            match self.web_socket.read().unwrap() {
                Message::Text(frame) => return serde_json::from_str(&frame).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn event(&mut self) -> (String, Value, Value) {
        let mut frame = self.receive();
        let op = frame["op"].as_str().unwrap().to_owned();
        (op, frame["object"].take(), frame["original"].take())
    }

    fn ops(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event().0).collect()
    }

    /// Whether the socket is closed, once everything has been read.
    fn is_closed(&mut self) -> bool {
        loop {
            match self.web_socket.read() {
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) => return error.kind() != std::io::ErrorKind::WouldBlock,
                Err(_) => return true,
            }
        }
    }
}

fn server() -> TestServer {
    TestServer::start().unwrap()
}

fn query(condition: Value) -> Value {
    json!({ "className": "Game", "where": condition })
}

#[test]
fn an_object_enters_stays_in_leaves_and_is_deleted() {
    let server = server();
    let mut client = Client::subscribed(&server, query(json!({ "score": { "$gt": 10 } })));

    let id = server.create("Game", json!({ "score": 11, "name": "go" }));
    let (op, object, original) = client.event();
    assert_eq!((op.as_str(), &original), ("create", &Value::Null));
    assert_eq!(object["objectId"], id);
    assert_eq!(object["className"], "Game");
    assert_eq!(object["createdAt"], object["updatedAt"]);
    assert!(object["createdAt"].as_str().unwrap().ends_with('Z'));
    assert!(object.get("__type").is_none());

    server.update("Game", &id, json!({ "score": 12, "name": { "__op": "Delete" } }));
    let (op, object, original) = client.event();
    assert_eq!(
        (op.as_str(), &object["score"], &original["score"]),
        ("update", &json!(12), &json!(11))
    );
    assert_eq!((object.get("name"), &original["name"]), (None, &json!("go")));

    server.update("Game", &id, json!({ "score": 1 }));
    let (op, object, original) = client.event();
    assert_eq!(
        (op.as_str(), &object["score"], &original["score"]),
        ("leave", &json!(1), &json!(12))
    );

    server.update(
        "Game",
        &id,
        json!({ "score": { "__op": "Increment", "amount": 19 } }),
    );
    let (op, object, original) = client.event();
    assert_eq!(
        (op.as_str(), &object["score"], &original["score"]),
        ("enter", &json!(20), &json!(1))
    );

    server.delete("Game", &id);
    let (op, object, original) = client.event();
    assert_eq!(
        (op.as_str(), &object["score"], &original),
        ("delete", &json!(20), &Value::Null)
    );
    assert_eq!(server.get("Game", &id), None);
}

#[test]
fn keys_limit_what_is_sent() {
    let server = server();
    let mut client = Client::connected(&server);
    client.subscribe(
        1,
        json!({ "className": "Game", "where": {}, "keys": ["score", "missing", "a.b"] }),
    );
    let id = server.create("Game", json!({ "score": 1, "name": "go", "a": { "b": 1 } }));
    server.update("Game", &id, json!({ "name": "chess" }));
    client.event();
    let (op, object, original) = client.event();
    assert_eq!(op, "update");
    for object in [object, original] {
        let names: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            names,
            ["className", "createdAt", "objectId", "score", "updatedAt"]
        );
    }
}

#[test]
fn watch_holds_back_create_and_update_only() {
    let server = server();
    let mut client = Client::connected(&server);
    client.subscribe(
        1,
        json!({ "className": "Game", "where": { "on": true }, "watch": ["score"] }),
    );
    let id = server.create("Game", json!({ "on": true }));
    server.update("Game", &id, json!({ "name": "go" }));
    server.update("Game", &id, json!({ "on": false }));
    server.update("Game", &id, json!({ "on": true }));
    server.update("Game", &id, json!({ "score": 1 }));
    server.update("Game", &id, json!({ "score": 1 }));
    server.delete("Game", &id);
    assert_eq!(client.ops(4), ["leave", "enter", "update", "delete"]);
}

#[test]
fn nulls_are_kept_as_on_mongodb_or_dropped_as_on_postgres() {
    for drops in [false, true] {
        let server = TestServer::builder().drop_nulls(drops).start().unwrap();
        let mut client = Client::subscribed(&server, query(json!({})));
        let id = server.create("Game", json!({ "n": null, "m": 1 }));
        let (op, object, _) = client.event();
        assert_eq!((op.as_str(), object.get("n")), ("create", Some(&Value::Null)));
        let stored = (!drops).then_some(&Value::Null);
        assert_eq!(server.get("Game", &id).unwrap().get("n"), stored);

        server.update("Game", &id, json!({ "m": null }));
        let (_, object, original) = client.event();
        assert_eq!((object.get("n"), object.get("m")), (stored, Some(&Value::Null)));
        assert_eq!((original.get("n"), original.get("m")), (stored, Some(&json!(1))));

        server.update("Game", &id, json!({ "l": 2 }));
        let (_, object, original) = client.event();
        for object in [object, original] {
            assert_eq!((object.get("n"), object.get("m")), (stored, stored));
        }
    }
}

#[test]
fn what_cannot_be_judged_is_an_error_and_never_met() {
    let server = server();
    let date = |iso: &str| json!({ "__type": "Date", "iso": iso });
    let late = Query::new("Game").less_than("when", Date::parse("2024-01-02T03:04:05.678Z").unwrap());
    let mut client = Client::subscribed(
        &server,
        query(serde_json::from_str(&late.live_query_where().unwrap()).unwrap()),
    );
    server.create("Game", json!({ "when": date("9999-12-31T23:59:59.999Z") }));
    assert!(server.find(&late).unwrap().is_empty());
    // The test server only knows JavaScript's dates up to the year 9999.
    let id = server.create("Game", json!({ "when": date("+010000-01-01T00:00:00.000Z") }));
    let error = server.find(&late).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Fetch);
    assert!(error.to_string().contains(&id), "{error}");
    let early = server.create("Game", json!({ "when": date("1815-06-18T12:00:00.001Z") }));
    assert_eq!(client.event().1["objectId"], early.as_str());
}

#[test]
fn an_expression_that_is_none_is_refused() {
    let server = server();
    let mut client = Client::connected(&server);
    for pattern in ["(", "(?i)abc", "(?<x", "[b-a]", "a**"] {
        let condition = query(json!({ "name": { "$regex": pattern } }));
        client.send(json!({ "op": "subscribe", "requestId": 1, "query": condition }));
        let answer = client.receive();
        let text = answer["error"].as_str().unwrap();
        assert!(
            answer["code"] == 102 && text.starts_with("Invalid regular expression: /"),
            "{pattern}: {answer}"
        );
    }
    for pattern in [
        "^a(?=b)",
        "(a)\\1",
        "\\Qa.b\\E",
        "\\-",
        "a{",
        "]",
        "x{,5}",
        "\\u{61}",
        "\\8",
    ] {
        client.subscribe(1, query(json!({ "name": { "$regex": pattern } })));
    }
}

#[test]
fn an_acl_decides_who_sees_what() {
    let server = server();
    server.session("r:alice", "alice");
    let mut public = Client::subscribed(&server, query(json!({})));
    let mut alice = Client::connected(&server);
    alice.send(
        json!({ "op": "subscribe", "requestId": 1, "query": query(json!({})), "sessionToken": "r:alice" }),
    );
    assert_eq!(alice.receive()["op"], "subscribed");

    let id = server.create("Game", json!({ "ACL": { "alice": { "read": true } }, "n": 1 }));
    server.update("Game", &id, json!({ "ACL": { "*": { "read": true } }, "n": 2 }));
    server.update(
        "Game",
        &id,
        json!({ "ACL": { "alice": { "read": true } }, "n": 3 }),
    );
    assert_eq!(alice.ops(3), ["create", "update", "update"]);

    let (op, object, original) = public.event();
    assert_eq!(
        (op.as_str(), &object["n"], &original),
        ("enter", &json!(2), &Value::Null)
    );
    let (op, object, original) = public.event();
    assert_eq!(
        (op.as_str(), &object["n"], &original["n"]),
        ("leave", &json!(2), &json!(2))
    );
}

#[test]
fn answers_carry_the_ids() {
    let server = server();
    let mut client = Client::open(&server);
    client.send(json!({ "op": "connect", "applicationId": "app", "installationId": "i\"1" }));
    let answer = client.receive();
    let id = answer["clientId"].clone();
    assert_eq!(
        answer,
        json!({ "op": "connected", "clientId": id, "installationId": "i\"1" })
    );
    client.send(json!({ "op": "subscribe", "requestId": 7, "query": query(json!({})) }));
    assert_eq!(
        client.receive(),
        json!({ "op": "subscribed", "clientId": id, "installationId": "i\"1", "requestId": 7 })
    );
    client.send(json!({ "op": "unsubscribe", "requestId": 7 }));
    assert_eq!(
        client.receive(),
        json!({ "op": "unsubscribed", "clientId": id, "installationId": "i\"1", "requestId": 7 })
    );
}

fn error(message: impl Into<String>, code: i64) -> Value {
    json!({ "op": "error", "error": message.into(), "code": code, "reconnect": true, "requestId": null })
}

#[test]
fn wrong_requests_are_refused_in_the_words_of_the_real_server() {
    let server = server();
    let mut client = Client::open(&server);
    let subscribe = json!({ "op": "subscribe", "requestId": 1, "query": query(json!({})) });
    let make_sure = "Can not find this client, make sure you connect to server before";
    client.send(subscribe.clone());
    assert_eq!(client.receive(), error(format!("{make_sure} subscribing"), 2));
    client.send(json!({ "op": "unsubscribe", "requestId": 1 }));
    assert_eq!(client.receive(), error(format!("{make_sure} unsubscribing"), 2));

    let mut client = Client::connected(&server);
    let unknown = format!(
        "Cannot find subscription with clientId {} subscriptionId 1. Make sure you subscribe to live query server \
         before unsubscribing.",
        client.id
    );
    client.send(json!({ "op": "unsubscribe", "requestId": 1 }));
    assert_eq!(client.receive(), error(unknown.as_str(), 2));

    // An update of an unknown subscription is refused, but makes a subscription nevertheless.
    client.send(json!({ "op": "update", "requestId": 1, "query": query(json!({})) }));
    assert_eq!(client.receive(), error(unknown, 2));
    assert_eq!(client.receive()["op"], "subscribed");

    client.send(json!({ "op": "query", "requestId": 1 }));
    assert_eq!(client.receive(), error(r#"No enum match for: "query""#, 1));
    client.web_socket.send(Message::binary(vec![1, 2])).unwrap();
    assert_eq!(client.receive(), error("Missing required property: op", 1));

    // A frame that is not JSON is not answered.
    client.web_socket.send(Message::text("{")).unwrap();
    client.send(subscribe);
    assert_eq!(client.receive()["op"], "subscribed");
}

#[test]
fn an_update_gives_the_old_subscription_up_before_it_fails() {
    let server = server();
    let mut client = Client::subscribed(&server, query(json!({})));
    client.send(json!({ "op": "update", "requestId": 1, "query": query(json!({ "$or": 1 })) }));
    let refusal = json!({
        "op": "error", "error": "$or must be an array", "code": 102, "reconnect": false, "requestId": 1,
    });
    assert_eq!(client.receive(), refusal);
    assert!(server.wait_for_subscriptions(DEADLINE, 0));
}

#[test]
fn an_unsubscribe_that_comes_with_its_subscribe_leaves_it_alive() {
    let server = server();
    let mut client = Client::connected(&server);
    let frame = json!({ "op": "subscribe", "requestId": 1, "query": query(json!({})) });
    client.web_socket.write(Message::text(frame.to_string())).unwrap();
    client.send(json!({ "op": "unsubscribe", "requestId": 1 }));
    assert_eq!(client.receive()["code"], 2);
    assert_eq!(client.receive()["op"], "subscribed");
    server.create("Game", json!({}));
    assert_eq!(client.event().0, "create");
}

#[test]
fn a_key_is_asked_for() {
    let server = TestServer::builder()
        .javascript_key("js")
        .master_key("master")
        .start()
        .unwrap();
    let mut client = Client::open(&server);
    for key in [json!({}), json!({ "javascriptKey": "wrong" })] {
        let mut frame = json!({ "op": "connect", "applicationId": "app" });
        frame
            .as_object_mut()
            .unwrap()
            .extend(key.as_object().unwrap().clone());
        client.send(frame);
        assert_eq!(client.receive(), error("Key in request is not valid", 4));
    }
    client.send(json!({ "op": "connect", "applicationId": "app", "masterKey": "master" }));
    assert_eq!(client.receive()["op"], "connected");
    client.subscribe(1, query(json!({})));
    server.create("Game", json!({ "ACL": {} }));
    assert_eq!(client.event().0, "create");
}

#[test]
fn hooks_refuse_connections_subscriptions_and_events() {
    let server = server();
    server.refuse_connections_with(141, "no");
    let mut client = Client::open(&server);
    let connect = json!({ "op": "connect", "applicationId": "app" });
    client.send(connect.clone());
    let refusal = |message: &str, code: i64, request_id: Value| json!({ "op": "error", "error": message, "code": code, "reconnect": false, "requestId": request_id });
    assert_eq!(client.receive(), refusal("no", 141, Value::Null));
    server.accept_connections();
    client.send(connect);
    assert_eq!(client.receive()["op"], "connected");

    server.fail_next_subscribe(1, "once");
    server.refuse_class("Secret", 119, "never");
    let mut subscribe = |request_id: u64, class_name: &str| {
        let query = json!({ "className": class_name, "where": {} });
        client.send(json!({ "op": "subscribe", "requestId": request_id, "query": query }));
        client.receive()
    };
    assert_eq!(subscribe(1, "Game"), refusal("once", 1, json!(1)));
    assert_eq!(subscribe(2, "Game")["op"], "subscribed");
    assert_eq!(subscribe(3, "Secret"), refusal("never", 119, json!(3)));
    server.accept_class("Secret");
    assert_eq!(subscribe(4, "Secret")["op"], "subscribed");

    server.error_on_subscriptions("Game", 141, "hook");
    assert_eq!(client.receive(), refusal("hook", 141, json!(2)));
    server.create("Game", json!({}));
    assert_eq!(client.event().0, "create");
}

#[test]
fn a_cut_closes_all_sockets_and_forgets_their_subscriptions() {
    let server = server();
    let mut client = Client::subscribed(&server, query(json!({})));
    assert_eq!(server.subscription_count(), 1);
    server.cut();
    assert_eq!((server.subscription_count(), server.connections()), (0, 0));
    assert!(client.is_closed());
    let mut client = Client::subscribed(&server, query(json!({})));
    server.create("Game", json!({}));
    assert_eq!(client.event().0, "create");
    assert_eq!(server.connects(), 2);
}

#[test]
fn a_refusing_server_closes_new_connections_only() {
    let server = server();
    let mut client = Client::subscribed(&server, query(json!({})));
    server.refuse_connections();
    let refused = TcpStream::connect(server.address()).unwrap();
    assert!(tungstenite::client(server.url(), refused).is_err());
    server.create("Game", json!({}));
    assert_eq!(client.event().0, "create");
    server.accept_connections();
    Client::connected(&server);
}

#[test]
fn a_server_that_is_down_refuses_and_comes_back_on_its_port_with_its_objects() {
    let server = server();
    let mut client = Client::connected(&server);
    let id = server.create("Game", json!({}));
    server.stop();
    server.stop();
    assert!(client.is_closed());
    assert!(TcpStream::connect(server.address()).is_err());
    server.resume().unwrap();
    Client::connected(&server);
    server.restart().unwrap();
    Client::connected(&server);
    assert!(server.get("Game", &id).is_some());
}

#[test]
fn a_silent_server_says_nothing_and_keeps_the_socket_open() {
    let server = TestServer::builder()
        .ping_interval(PING_INTERVAL)
        .start()
        .unwrap();
    let mut client = Client::subscribed(&server, query(json!({})));
    server.silence();
    server.create("Game", json!({}));
    client.web_socket.send(Message::Ping("p".into())).unwrap();
    client.send(json!({ "op": "unsubscribe", "requestId": 1 }));
    assert!(server.wait_for(DEADLINE, |server| server.frame_count() == 3));
    let socket = client.web_socket.get_ref().try_clone().unwrap();
    socket.set_read_timeout(Some(PING_INTERVAL * 5 / 2)).unwrap();
    let end = loop {
        match client.web_socket.read() {
            // A ping may have been under way.
            Ok(frame) => assert!(frame.is_ping(), "{frame}"),
            Err(tungstenite::Error::Io(error)) => break error.kind(),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(
        matches!(end, ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{end:?}"
    );
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    server.speak();
    server.create("Game", json!({ "n": 2 }));
    assert_eq!(client.event().1["n"], 2);
}

#[test]
fn messages_are_delayed_in_their_order() {
    let server = server();
    let mut client = Client::subscribed(&server, query(json!({})));
    let delay = Duration::from_millis(100);
    server.delay(delay);
    let start = Instant::now();
    server.create("Game", json!({ "n": 1 }));
    server.delay(Duration::ZERO);
    server.create("Game", json!({ "n": 2 }));
    assert_eq!(client.event().1["n"], 1);
    assert!(start.elapsed() >= delay);
    assert_eq!(client.event().1["n"], 2);
}

#[test]
fn a_client_that_does_not_answer_pings_is_cut() {
    let server = TestServer::builder()
        .ping_interval(PING_INTERVAL)
        .start()
        .unwrap();
    let mut living = Client::connected(&server);
    let mut dead = Client::connected(&server);
    for _ in 0..2 {
        assert!(living.web_socket.read().unwrap().is_ping());
        living.web_socket.flush().unwrap();
    }
    assert!(server.wait_for(DEADLINE, |server| server.connections() == 1));
    while dead.web_socket.read().is_ok() {}
    assert!(living.web_socket.read().unwrap().is_ping());
}

#[test]
fn a_close_is_answered() {
    let server = server();
    let mut client = Client::connected(&server);
    client.web_socket.close(None).unwrap();
    assert!(client.web_socket.read().unwrap().is_close());
    assert!(client.is_closed());
    assert!(server.wait_for(DEADLINE, |server| server.connections() == 0));
}

#[test]
fn raw_frames_go_to_every_client() {
    let server = server();
    let mut clients = [Client::open(&server), Client::open(&server)];
    assert!(server.wait_for(DEADLINE, |server| server.connections() == 2));
    server.send_raw("{nonsense");
    server.send_binary(&[1, 2, 3]);
    for client in &mut clients {
        assert_eq!(client.web_socket.read().unwrap(), Message::text("{nonsense"));
        assert_eq!(client.web_socket.read().unwrap(), Message::binary(vec![1, 2, 3]));
    }
}

#[test]
fn the_server_tells_who_is_subscribed_to_what() {
    let server = server();
    let mut client = Client::connected(&server);
    let frame = r#"{"op":"subscribe","requestId":3,"sessionToken":"r:t","query":{"watch":["w"],"keys":["k"],"#
        .to_owned() + r#""where":{"z":1,"a":{"$gt":2,"$exists":true}},"className":"Game"}}"#;
    client.web_socket.send(Message::text(frame.as_str())).unwrap();
    assert_eq!(client.receive()["op"], "subscribed");
    assert!(server.wait_for_subscriptions(DEADLINE, 1));
    let subscriptions = server.subscriptions();
    let subscription = &subscriptions[0];
    assert_eq!(subscription.class_name(), "Game");
    assert_eq!(
        subscription.where_json(),
        r#"{"z":1,"a":{"$gt":2,"$exists":true}}"#
    );
    assert_eq!((subscription.connection(), subscription.request_id()), (0, 3));
    assert_eq!(subscription.session_token(), Some("r:t"));
    assert_eq!(subscription.keys(), Some(&["k".to_owned()][..]));
    assert_eq!(subscription.watch(), Some(&["w".to_owned()][..]));
    assert_eq!(server.frames()[0][1], frame);
    client.send(json!({ "op": "unsubscribe", "requestId": 3 }));
    assert!(server.wait_for_subscriptions(DEADLINE, 0));
    drop(client);
    assert!(server.wait_for(DEADLINE, |server| server.connections() == 0));
}

#[test]
fn a_client_that_does_not_read_delays_nobody() {
    let server = server();
    let lazy = Client::subscribed(&server, query(json!({})));
    let mut eager = Client::subscribed(&server, query(json!({})));
    let text = "x".repeat(100_000);
    // More than the buffers of a socket hold.
    for n in 0..200 {
        server.create("Game", json!({ "n": n, "text": text }));
        assert_eq!(eager.event().1["n"], n);
    }
    drop(server);
    drop(lazy);
}

#[test]
fn ten_thousand_subscriptions_fit_on_a_connection() {
    let server = server();
    let mut client = Client::connected(&server);
    for request_id in 1..=10_000 {
        let query = query(json!({ "n": request_id }));
        let frame = json!({ "op": "subscribe", "requestId": request_id, "query": query });
        client.web_socket.write(Message::text(frame.to_string())).unwrap();
    }
    client.web_socket.flush().unwrap();
    assert!(server.wait_for_subscriptions(DEADLINE, 10_000));
    for _ in 0..10_000 {
        client.receive();
    }
    server.create("Game", json!({ "n": 7_777 }));
    assert_eq!(client.receive()["requestId"], 7_777);
}

#[test]
#[should_panic(expected = "must be a JSON object")]
fn fields_that_are_no_object_are_a_programmers_error() {
    server().create("Game", json!([]));
}

#[test]
fn a_server_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&server());
}

#[test]
fn dropping_the_server_ends_its_threads_and_sockets_whatever_the_clients_do() {
    let server = server();
    let mut clients: Vec<_> = (0..100)
        .map(|_| Client::subscribed(&server, query(json!({}))))
        .collect();
    // One is upgrading, one never finishes its close, and one does not read.
    let upgrading = TcpStream::connect(server.address()).unwrap();
    for client in &mut clients[..10] {
        client.web_socket.close(None).unwrap();
    }
    assert!(server.wait_for(DEADLINE, |server| server.connections() == 90));
    let text = "x".repeat(100_000);
    for _ in 0..100 {
        server.create("Game", json!({ "text": text }));
    }
    // All threads share it.
    let hub = std::sync::Arc::downgrade(&server.hub);
    let address = server.address();
    drop(server);
    assert!(hub.upgrade().is_none());
    assert!(TcpStream::connect(address).is_err());
    for client in &mut clients {
        assert!(client.is_closed());
    }
    drop(upgrading);
}

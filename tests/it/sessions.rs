//! Keys and session tokens: sent where they belong, and shown nowhere else.

use parking_lot::Mutex;
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, Query};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

#[test]
fn no_nulls_on_wire() {
    let server = Server::auto();
    let full_query = || {
        Query::new("Game")
            .equal_to("name", "a")
            .greater_than("score", 10)
            .select(["name", "score"])
            .watch(["score"])
    };
    let bare = builder(&server.url());
    let keys = builder(&server.url())
        .javascript_key("javascript")
        .client_key("client")
        .rest_api_key("rest")
        .windows_key("windows")
        .master_key("master")
        .session_token("r:client")
        .installation_id("installation");
    for builder in [bare, keys] {
        let client = builder.build().unwrap();
        let plain = client.subscribe(&Query::new("Game")).unwrap();
        let full = client
            .subscription(&full_query())
            .session_token("r:own")
            .start()
            .unwrap();
        plain.wait_open(LONG).unwrap();
        full.wait_open(LONG).unwrap();
        plain.update(&full_query()).unwrap();
        full.update(&Query::new("Game")).unwrap();
        fence(&client);
        plain.unsubscribe();
        full.unsubscribe();
        fence(&client);
        client.close();
    }
    let received = server.received();
    assert!(received.len() > 16, "{}", received.len());
    for Received { text, frame, .. } in &received {
        // Values that users compare with are in `where`, and none of these queries has a null there.
        assert!(!text.replace("\"$nin\":[null,", "").contains("null"), "{text}");
        assert_eq!(schema_violation(frame), None, "{text}");
    }
    let connects = server.received_op("connect");
    assert_eq!(
        connects[0].frame,
        json!({ "op": "connect", "applicationId": "app" })
    );
    assert_eq!(
        connects[1].frame,
        json!({
            "op": "connect",
            "applicationId": "app",
            "javascriptKey": "javascript",
            "clientKey": "client",
            "restAPIKey": "rest",
            "windowsKey": "windows",
            "masterKey": "master",
            "sessionToken": "r:client",
            "installationId": "installation",
        })
    );
    // A subscription without a token of its own has the client's: Parse Server checks class-level permissions with
    // the subscription's token alone (ParseLiveQueryServer.js).
    let tokens = |conn: usize, op: &str| -> Vec<Value> {
        let all = server.conn(conn).received();
        all.iter()
            .filter(|received| received.op() == op && received.frame["query"]["className"] == "Game")
            .map(|received| received.frame.get("sessionToken").cloned().unwrap_or_default())
            .collect()
    };
    assert_eq!(tokens(1, "subscribe"), [Value::Null, json!("r:own")]);
    assert_eq!(tokens(2, "subscribe"), [json!("r:client"), json!("r:own")]);
    assert_eq!(tokens(2, "update"), [json!("r:client"), json!("r:own")]);
}

#[test]
fn servers_before_3_10_are_asked_again_without_the_installation_id() {
    let server = Server::auto();
    server.on_frame(|conn, frame| {
        if frame.get("installationId").is_none() {
            return Then::Default;
        }
        conn.error(1, "Additional properties not allowed", true, None);
        Then::Handled
    });
    let client = builder(&server.url())
        .installation_id("installation")
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let (_subscription, events) = subscribe(&client, "Game");
    let last = server.accepts();
    server.conn(last).cut();
    events.expect("close");
    events.expect("open");
    // What was learnt holds for later connections.
    let with_id = server
        .received_op("connect")
        .iter()
        .filter(|r| r.frame.get("installationId").is_some())
        .count();
    assert_eq!(with_id, 1);
    assert_eq!(client_events.count("error"), 0);
}

#[test]
fn servers_before_7_are_asked_again_with_fields() {
    let server = Server::auto();
    server.on_frame(|conn, frame| {
        let query = &frame["query"];
        if query.get("keys").is_some() || query.get("watch").is_some() {
            conn.error(1, "Additional properties not allowed", true, None);
            return Then::Handled;
        }
        if query.get("fields").is_some() {
            conn.subscribed(frame["requestId"].as_u64().unwrap());
            return Then::Handled;
        }
        Then::Default
    });
    let client = client(&server.url());
    let events = Events::new();
    let builder = client.subscription(&Query::new("Game").select(["score"]));
    let _subscription = record(builder, "Game", &events).start().unwrap();
    events.expect("open");
    let frames = server.received_op("subscribe");
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1].frame["query"]["fields"], json!(["score"]));
    assert_eq!(frames[1].frame["query"].get("keys"), None);
    assert_eq!(server.accepts(), 1, "that is no fault of the connection");
    assert_eq!(events.count("error"), 0);
}

/// Keeps everything that is logged.
struct Logger(Mutex<Vec<String>>);

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}", record.level(), record.target(), record.args());
        self.0.lock().push(line);
    }

    fn flush(&self) {}
}

static LOGGER: Logger = Logger(Mutex::new(Vec::new()));

#[test]
fn secrets_never_logged() {
    let secret = |name: &str| format!("r:{name}{SENTINEL}");
    in_own_process(module_path!(), "secrets_never_logged", MINUTE, || {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let server = Server::auto();
        let mut shown = vec![];
        let builder = builder(&server.url())
            .javascript_key(secret("javascript"))
            .client_key(secret("client"))
            .rest_api_key(secret("rest"))
            .windows_key(secret("windows"))
            .master_key(secret("master"))
            .session_token(secret("session"));
        shown.push(format!("{builder:?}"));
        let client = builder.build().unwrap();
        let client_events = record_client(&client);
        let events = Events::new();
        let pending = client
            .subscription(&Query::new("Game"))
            .session_token(secret("own"));
        let pending = record(pending, "Game", &events);
        shown.push(format!("{pending:?}"));
        let subscription = pending.start().unwrap();
        events.expect("open");
        server.emit("create", &object("Game", "a", json!({})));
        events.expect("create");
        subscription.update(&Query::new("Other")).unwrap();
        events.expect("close");
        events.expect("open");
        shown.push(format!("{client:?} {subscription:?}"));

        // All the ways to fail.
        server
            .conn(1)
            .error(141, "a hook threw", false, Some(subscription.id()));
        server.conn(1).send_text("{\"op\":");
        events.wait_for("error");
        server.conn(1).reset();
        events.expect("close");
        events.expect("open");
        server.on_accept(|conn| {
            conn.read_request();
            conn.send_raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
            conn.cut();
            Then::Handled
        });
        server.conn(2).cut();
        events.expect("close");
        client_events.wait_where("an attempt that met the 403", |seen| {
            seen.value
                .error()
                .is_some_and(|error| error.to_string().contains("403"))
        });
        // In this order: no attempt in between meets a server that is well.
        server.on_frame(|conn, frame| {
            if frame["op"] == "connect" {
                conn.error(4, "Key in request is not valid", true, None);
                return Then::Handled;
            }
            Then::Default
        });
        server.on_accept(|_| Then::Default);
        client_events.wait_for("error");
        shown.push(format!(
            "{:?} {:?}",
            client.wait_open(LONG),
            subscription.wait_open(LONG)
        ));
        server.heal();
        client.open();
        events.wait_for("open");
        drop(subscription);
        client.close();
        shown.push(format!("{:?} {:?}", client_events.all(), events.all()));

        assert_hidden(&shown);
    });
}

#[test]
fn keys_of_a_fetch_are_never_logged() {
    in_own_process(module_path!(), "keys_of_a_fetch_are_never_logged", MINUTE, || {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let server = TestServer::builder().javascript_key(SENTINEL).start().unwrap();
        let proxy = ConnectProxy::to(server.address());
        let client = builder("ws://livequery.example/parse")
            .proxy(
                proxy
                    .url()
                    .replace("http://", &format!("http://{SENTINEL}:{SENTINEL}@")),
            )
            .javascript_key(SENTINEL)
            .client_key(SENTINEL)
            .rest_api_key(SENTINEL)
            .windows_key(SENTINEL)
            .master_key(SENTINEL)
            .header("Authorization", SENTINEL)
            .build()
            .unwrap();
        let mut shown = Vec::new();
        let set = client.live_set(&Query::new("Game")).session_token(SENTINEL);
        shown.push(format!("{set:?}"));
        server.session(SENTINEL, "ann");
        let set = set.start().unwrap();
        set.wait_ready(LONG).unwrap();
        server.end_session(SENTINEL);
        set.refresh();
        let errors = record_client(&client);
        let error = errors.wait_for("error").value;
        assert_eq!(error.error().unwrap().code(), Some(209));
        shown.push(format!("{set:?} {error:?} {client:?}"));
        assert!(proxy.requests().len() >= 2);
        // The server's end of the connections is in this process as well.
        let of_the_server =
            |line: &String| line.starts_with("TRACE tungstenite::") && line.contains("eceived");
        LOGGER.0.lock().retain(|line| !of_the_server(line));
        assert_hidden(&shown);
    });
}

#[test]
fn query_of_the_url_is_never_logged() {
    in_own_process(module_path!(), "query_of_the_url_is_never_logged", MINUTE, || {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let server = Server::auto();
        let client = client(&format!("{}?key={SENTINEL}", server.url()));
        let (subscription, events) = subscribe(&client, "Game");
        assert!(
            server.conn(1).request().unwrap().contains(SENTINEL),
            "the server gets it"
        );
        server.refuse();
        server.conn(1).cut();
        events.expect("close");
        server.listen_again();
        events.expect("open");
        assert_hidden(&[format!("{client:?} {subscription:?} {:?}", events.all())]);
    });
}

const SENTINEL: &str = "S3NT1NEL";

fn assert_hidden(shown: &[String]) {
    let logged = LOGGER.0.lock().clone();
    let own = logged
        .iter()
        .filter(|line| line.contains("parse_livequery"))
        .count();
    assert!(own > 2, "the logger does not work: {logged:#?}");
    for text in shown.iter().chain(&logged) {
        assert!(!text.contains(SENTINEL), "{text}");
    }
}

#[test]
fn errors_of_the_builder_show_no_secret() {
    for url in [
        "ws://user:S3NT1NEL@example.com/",
        "ftp://example.com/?key=S3NT1NEL",
        "ws://S3NT1NEL:port/",
    ] {
        let error = Client::builder(url, "app")
            .session_token("S3NT1NEL")
            .build()
            .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("S3NT1NEL"), "{error:?}");
    }
}

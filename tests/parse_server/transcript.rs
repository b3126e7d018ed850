//! `TestServer` against Parse Server: the same session with both gives the same frames, but for ids and times.

use std::net::TcpStream;
use std::time::Instant;

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, PATIENCE, ParseServer, User, only};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_test_server_says_what_parse_server_says() {
    let real = ParseServer::shared();
    let user = real.sign_up("transcript");
    let test = TestServer::builder()
        .javascript_key(JAVASCRIPT_KEY)
        .start()
        .unwrap();
    test.session(&user.session_token, &user.id);
    test.refuse_class("Refused", 119, "subscriptions to Refused are refused");

    let expected = Session::new(real, &real.ws_url()).run(&user);
    let written = Session::new(&test, &test.url()).run(&user);

    for (index, (written, expected)) in written.iter().zip(&expected).enumerate() {
        assert_eq!(written, expected, "line {index} of the transcript");
    }
    assert_eq!(written.len(), expected.len());
    assert!(written.len() > 100, "{} lines", written.len());
}

/// What can be done to the objects of a server.
pub(crate) trait Objects {
    fn create(&self, class: &str, fields: &Value) -> String;
    fn update(&self, class: &str, id: &str, fields: &Value);
    fn delete(&self, class: &str, id: &str);
}

impl Objects for ParseServer {
    fn create(&self, class: &str, fields: &Value) -> String {
        Self::create(self, class, fields)
    }

    fn update(&self, class: &str, id: &str, fields: &Value) {
        Self::update(self, class, id, fields);
    }

    fn delete(&self, class: &str, id: &str) {
        Self::delete(self, class, id);
    }
}

impl Objects for TestServer {
    fn create(&self, class: &str, fields: &Value) -> String {
        Self::create(self, class, fields.clone())
    }

    fn update(&self, class: &str, id: &str, fields: &Value) {
        assert!(Self::update(self, class, id, fields.clone()));
    }

    fn delete(&self, class: &str, id: &str) {
        assert!(Self::delete(self, class, id));
    }
}

/// What is said on all sockets of a session.
struct Session<'s> {
    objects: &'s dyn Objects,
    url: String,
    sockets: Vec<WebSocket<MaybeTlsStream<TcpStream>>>,
    /// Random ids, and what stands for them in the transcript.
    ids: Vec<(String, String)>,
    lines: Vec<Value>,
}

impl<'s> Session<'s> {
    fn new(objects: &'s dyn Objects, url: &str) -> Self {
        Self {
            objects,
            url: url.to_owned(),
            sockets: Vec::new(),
            ids: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn run(mut self, user: &User) -> Vec<Value> {
        self.requests_without_a_connection();
        self.requests_that_violate_the_schema();
        self.connections();
        self.events();
        self.keys_and_watch();
        self.operations_on_live_subscriptions();
        self.refused_queries();
        self.matchers_that_throw();
        self.access(user);
        self.lines
    }

    fn requests_without_a_connection(&mut self) {
        let socket = self.open();
        self.say(socket, &subscribe(1, "Transcript", &json!({})), 1);
        self.say(socket, &json!({"op": "unsubscribe", "requestId": 1}), 1);
        let mut update = subscribe(1, "Transcript", &json!({}));
        update["op"] = "update".into();
        self.say(socket, &update, 2);
    }

    fn requests_that_violate_the_schema(&mut self) {
        let socket = self.open();
        let query = |query: Value| json!({"op": "subscribe", "requestId": 1, "query": query});
        for frame in [
            json!(5),
            json!(null),
            json!([]),
            json!("text"),
            json!({}),
            json!({"op": 7}),
            json!({"op": "query"}),
            json!({"op": "connect"}),
            json!({"op": "connect", "applicationId": 1}),
            json!({"op": "connect", "applicationId": APPLICATION_ID, "sessionToken": null}),
            json!({"op": "connect", "applicationId": APPLICATION_ID, "maintenanceKey": "k"}),
            json!({"op": "subscribe"}),
            json!({"op": "subscribe", "requestId": "1", "query": {}}),
            json!({"op": "subscribe", "requestId": 1}),
            json!({"op": "subscribe", "requestId": 1, "query": []}),
            json!({"op": "update", "requestId": true, "query": {}}),
            query(json!({"className": "A"})),
            query(json!({"where": {}})),
            query(json!({"className": 1, "where": {}})),
            query(json!({"className": "A", "where": []})),
            query(json!({"className": "A", "where": {}, "fields": ["a"]})),
            query(json!({"className": "A", "where": {}, "keys": []})),
            query(json!({"className": "A", "where": {}, "keys": "a"})),
            query(json!({"className": "A", "where": {}, "keys": ["a", 1]})),
            query(json!({"className": "A", "where": {}, "watch": ["a", "b", "b"]})),
            json!({"op": "unsubscribe"}),
            json!({"op": "unsubscribe", "requestId": 1, "sessionToken": "t"}),
        ] {
            self.say(socket, &frame, 1);
        }
        self.send(socket, Message::binary(vec![1, 2, 3]));
        self.hear(socket, 1);
        // No answer, and none comes before that of the next frame.
        self.send(socket, Message::text("{no JSON"));
        self.say(socket, &json!({"op": "nonsense"}), 1);
    }

    fn connections(&mut self) {
        let socket = self.open();
        self.say(
            socket,
            &json!({"op": "connect", "applicationId": APPLICATION_ID}),
            1,
        );
        let connect = |key: &str, installation: &str| {
            json!({
                "op": "connect", "applicationId": APPLICATION_ID, "javascriptKey": key, "installationId": installation,
            })
        };
        self.say(socket, &connect("wrong", "i"), 1);
        self.say(socket, &connect(JAVASCRIPT_KEY, "i"), 1);
        self.say(socket, &subscribe(1, "Transcript", &json!({})), 1);
        let id = self.create("Transcript", &json!({"n": 1}));
        self.hear(socket, 1);
        self.say(socket, &json!({"op": "unsubscribe", "requestId": 1}), 1);
        self.objects.delete("Transcript", &id);
    }

    fn events(&mut self) {
        let socket = self.connected();
        self.say(socket, &subscribe(1, "Transcript", &json!({})), 1);
        self.say(socket, &subscribe(2, "Transcript", &json!({"n": {"$gt": 10}})), 1);
        let pointer = self.create("Other", &json!({}));
        let id = self.create(
            "Transcript",
            &json!({
                "n": 11,
                "text": "äöü \"quoted\" \u{1F600}",
                "yes": true,
                "list": [1, "two", {"three": 3.5}],
                "inner": {"a": {"b": null}},
                "date": {"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"},
                "bytes": {"__type": "Bytes", "base64": "AQID"},
                "point": {"__type": "GeoPoint", "latitude": 1.5, "longitude": -2},
                "area": {"__type": "Polygon", "coordinates": [[0, 0], [0, 1], [1, 1], [0, 0]]},
                "pointer": {"__type": "Pointer", "className": "Other", "objectId": pointer},
                "ACL": {"*": {"read": true}},
            }),
        );
        self.hear(socket, 2);
        self.update(
            "Transcript",
            &id,
            &json!({"n": {"__op": "Increment", "amount": 2}}),
        );
        self.hear(socket, 2);
        self.update("Transcript", &id, &json!({"n": 5, "text": {"__op": "Delete"}}));
        self.hear(socket, 2);
        self.update("Transcript", &id, &json!({"yes": false}));
        self.hear(socket, 1);
        self.update("Transcript", &id, &json!({"n": 50}));
        self.hear(socket, 2);
        self.objects.delete("Transcript", &id);
        self.hear(socket, 2);
    }

    fn keys_and_watch(&mut self) {
        let socket = self.connected();
        let query = |request_id: u64, rest: Value| {
            let mut frame = subscribe(request_id, "Watched", &json!({"on": true}));
            frame["query"]
                .as_object_mut()
                .unwrap()
                .extend(rest.as_object().unwrap().clone());
            frame
        };
        self.say(
            socket,
            &query(1, json!({"keys": ["n", "missing", "inner.a", "ACL"]})),
            1,
        );
        let pointer = self.create("Other", &json!({}));
        let pointer = json!({"__type": "Pointer", "className": "Other", "objectId": pointer});
        let id = self.create(
            "Watched",
            &json!({"on": true, "n": 1, "inner": {"a": 1}, "pointer": pointer}),
        );
        self.hear(socket, 1);
        self.update("Watched", &id, &json!({"other": 1}));
        self.hear(socket, 1);
        self.say(socket, &json!({"op": "unsubscribe", "requestId": 1}), 1);

        // One subscription after another, so that the order of the events is known.
        for watch in [
            ["n", "n2"],
            ["inner.a", "objectId"],
            ["pointer", "n2"],
            ["inner", "n2"],
        ] {
            self.say(socket, &query(2, json!({"watch": watch})), 1);
            let id = self.create("Watched", &json!({"on": true, "inner": {"a": 1}}));
            for fields in [
                json!({"other": 2}),
                json!({"on": false}),
                json!({"on": true, "pointer": pointer}),
                json!({"n": 2}),
                json!({"other": 3, "inner": {"a": 1.0}}),
            ] {
                self.update("Watched", &id, &fields);
            }
            self.objects.delete("Watched", &id);
            self.hear_until(socket, "delete");
            self.say(socket, &json!({"op": "unsubscribe", "requestId": 2}), 1);
        }
        self.objects.delete("Watched", &id);
    }

    fn operations_on_live_subscriptions(&mut self) {
        let socket = self.connected();
        self.say(socket, &json!({"op": "unsubscribe", "requestId": 9}), 1);
        let mut update = subscribe(9, "Transcript", &json!({"n": 1}));
        update["op"] = "update".into();
        self.say(socket, &update, 2);
        self.say(socket, &update, 1);
        // A subscribe of a live request id replaces its subscription.
        self.say(socket, &subscribe(9, "Transcript", &json!({"n": 2})), 1);
        let one = self.create("Transcript", &json!({"n": 1}));
        let two = self.create("Transcript", &json!({"n": 2}));
        self.hear(socket, 1);

        // What is sent before `subscribed` came.
        let frames = [
            subscribe(10, "Transcript", &json!({"n": 1})),
            json!({"op": "unsubscribe", "requestId": 10}),
        ];
        for frame in frames {
            self.sockets[socket]
                .write(Message::text(frame.to_string()))
                .unwrap();
        }
        self.sockets[socket].flush().unwrap();
        self.hear(socket, 2);
        self.objects.delete("Transcript", &one);
        self.hear(socket, 1);
        self.objects.delete("Transcript", &two);
        self.hear(socket, 1);

        for request_id in [json!(0), json!(1.5), json!(9_007_199_254_740_991_u64)] {
            let mut frame = subscribe(1, "Transcript", &json!({}));
            frame["requestId"] = request_id;
            self.say(socket, &frame, 1);
        }
    }

    fn refused_queries(&mut self) {
        let socket = self.connected();
        for condition in [
            json!({"$or": 1}),
            json!({"$and": [{"$nor": {}}]}),
            json!({"n": {"$regex": 5}}),
            json!({"n": {"$regex": "a", "$options": "ix"}}),
        ] {
            self.say(socket, &subscribe(1, "Transcript", &condition), 1);
        }
        self.say(socket, &subscribe(1, "Refused", &json!({})), 1);
        // A refused update leaves nothing behind.
        self.say(socket, &subscribe(1, "Transcript", &json!({})), 1);
        let mut update = subscribe(1, "Transcript", &json!({"$or": 1}));
        update["op"] = "update".into();
        self.say(socket, &update, 1);
        self.say(socket, &json!({"op": "unsubscribe", "requestId": 1}), 1);
    }

    fn matchers_that_throw(&mut self) {
        let socket = self.connected();
        self.say(
            socket,
            &subscribe(1, "Thrown", &json!({"list": {"$containedBy": [1, 2]}})),
            1,
        );
        let id = self.create("Thrown", &json!({"n": 1}));
        // The original makes the matcher throw, so there is no `enter`.
        self.update("Thrown", &id, &json!({"list": [1]}));
        self.update("Thrown", &id, &json!({"list": [1, 2]}));
        self.hear(socket, 1);
        self.objects.delete("Thrown", &id);
        self.hear(socket, 1);
    }

    fn access(&mut self, user: &User) {
        let public = self.connected();
        self.say(public, &subscribe(1, "Access", &json!({"n": {"$gt": 0}})), 1);
        let with_token = self.connected();
        let mut frame = subscribe(1, "Access", &json!({"n": {"$gt": 0}}));
        frame["sessionToken"] = user.session_token.as_str().into();
        self.say(with_token, &frame, 1);
        let all = [public, with_token];

        let mut id = self.create("Access", &json!({"n": 1, "ACL": only(user)}));
        self.hear(with_token, 1);
        for (fields, listeners) in [
            (json!({"n": 2}), &all[1..]),
            (json!({"n": 3, "ACL": {"*": {"read": true}}}), &all),
            (json!({"n": 4, "ACL": only(user)}), &all),
            (json!({"n": -5}), &all[1..]),
            (json!({"n": 6, "ACL": {"*": {"read": true}}}), &all),
            (json!({"n": -7, "ACL": only(user)}), &all),
        ] {
            self.update("Access", &id, &fields);
            for socket in listeners {
                self.hear(*socket, 1);
            }
        }
        self.objects.delete("Access", &id);
        id = self.create("Access", &json!({"n": 1, "ACL": {}}));
        self.objects.delete("Access", &id);
        id = self.create("Access", &json!({"n": 8}));
        for socket in all {
            self.hear(socket, 1);
        }
        self.objects.delete("Access", &id);
        for socket in all {
            self.hear(socket, 1);
        }
    }

    fn open(&mut self) -> usize {
        let (socket, _) = tungstenite::connect(self.url.as_str()).unwrap();
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        self.sockets.push(socket);
        self.sockets.len() - 1
    }

    fn connected(&mut self) -> usize {
        let socket = self.open();
        let connect =
            json!({"op": "connect", "applicationId": APPLICATION_ID, "javascriptKey": JAVASCRIPT_KEY});
        self.say(socket, &connect, 1);
        socket
    }

    fn create(&mut self, class: &str, fields: &Value) -> String {
        let id = self.objects.create(class, fields);
        self.name("object", &id);
        id
    }

    fn update(&self, class: &str, id: &str, fields: &Value) {
        self.objects.update(class, id, fields);
    }

    fn name(&mut self, kind: &str, id: &str) {
        if !self.ids.iter().any(|(known, _)| known == id) {
            self.ids
                .push((id.to_owned(), format!("{kind} {}", self.ids.len())));
        }
    }

    fn send(&mut self, socket: usize, frame: Message) {
        self.sockets[socket].send(frame).unwrap();
    }

    /// Sends a frame and takes down so many answers.
    fn say(&mut self, socket: usize, frame: &Value, answers: usize) {
        self.send(socket, Message::text(frame.to_string()));
        self.hear(socket, answers);
    }

    fn hear_until(&mut self, socket: usize, op: &str) {
        let from = self.lines.len();
        while self.lines.len() == from || self.lines[self.lines.len() - 1]["op"] != op {
            self.hear(socket, 1);
        }
    }

    fn hear(&mut self, socket: usize, frames: usize) {
        for _ in 0..frames {
            // Pings come all the time, so that the time-out of the socket does not say enough.
            let deadline = Instant::now() + PATIENCE;
            let text = loop {
                assert!(
                    Instant::now() < deadline,
                    "no further frame after {:#?}",
                    self.lines
                );
                match self.sockets[socket].read() {
                    Ok(Message::Text(text)) => break text.to_string(),
                    Ok(_) => {}
                    Err(error) => panic!("{error}, after {:#?}", self.lines),
                }
            };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if let Some(id) = frame["clientId"].as_str() {
                self.name("client", id);
            }
            let mut text = text;
            for (id, name) in &self.ids {
                text = text.replace(id, name);
            }
            let mut frame: Value = serde_json::from_str(&text).unwrap();
            for object in ["object", "original"] {
                for time in ["createdAt", "updatedAt"] {
                    if let Some(Value::String(iso)) =
                        frame.get_mut(object).and_then(|object| object.get_mut(time))
                    {
                        assert!(iso.len() == 24 && iso.ends_with('Z'), "{iso}");
                        *iso = String::from("time");
                    }
                }
            }
            self.lines.push(frame);
        }
    }
}

fn subscribe(request_id: u64, class: &str, condition: &Value) -> Value {
    json!({"op": "subscribe", "requestId": request_id, "query": {"className": class, "where": condition}})
}

//! A session, and a world around it that checks what the session does: a network, a server that answers at
//! any time, and what the program was told. For property tests and fuzzing; it knows the internals of the
//! session.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Link, Output, QUESTION, Session, Settings};
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEventKind, EventKind};
use crate::protocol::Now;
use crate::protocol::incoming::{Message, Reader};
use crate::protocol::spec::{Credentials, Spec};
use crate::query::Query;
use crate::secret::Secret;
use crate::state::ClientState;
use crate::types::Pointer;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Open,
    Close,
    Pause,
    Resume,
    Subscribe(u8),
    /// One of the subscriptions made so far, and a class.
    Update(usize, u8),
    Unsubscribe(usize),
    SetToken(u8),
    ReconnectNow,
    /// The connection, or the attempt to make one, advances one step; on a connection, the server answers a
    /// ping.
    Advance,
    Lose,
    /// Milliseconds, with or without the monotonic clock.
    Pass(u32),
    Sleep(u32),
    /// The server answers one of its pending operations, in any order.
    Answer(usize, Answer),
    /// The server ends one of its subscriptions unasked.
    End(usize),
    /// The next connection leads to a server of another version.
    Age(u8),
    /// The server sends an event for one of its subscriptions, or for one that it never had.
    Event(usize),
    /// The server sends this text, unless it means something: the world could not predict what follows then.
    Text(String),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Ok,
    Refuse,
    RefuseWithoutId,
}

/// How a server answers the question for its version.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Age {
    New,
    Old,
    Untold,
}

/// A session, and the world around it.
pub(crate) struct World {
    session: Session<u64>,
    now: Now,
    connection: Connection,
    /// What the server was asked and has not answered.
    pending: Vec<(String, u64, String)>,
    /// What the server has on this connection.
    server: BTreeMap<u64, String>,
    /// Which subscriptions got `open`, and which have ended for the program.
    open: HashMap<u64, bool>,
    ended: Vec<u64>,
    client_open: bool,
    age: Age,
    next_age: Age,
    /// The ping that the server has not answered.
    ping: Option<[u8; 8]>,
    ids: u64,
}

#[derive(Debug, PartialEq)]
enum Connection {
    None,
    Attempted,
    Up,
    Greeted,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            session: Session::new(settings(), 1),
            now: Now {
                mono: Instant::now(),
                wall: SystemTime::UNIX_EPOCH,
            },
            connection: Connection::None,
            pending: Vec::new(),
            server: BTreeMap::new(),
            open: HashMap::new(),
            ended: Vec::new(),
            client_open: false,
            age: Age::New,
            next_age: Age::New,
            ping: None,
            ids: 0,
        }
    }

    pub(crate) fn take(&mut self, step: &Step) {
        let now = self.now;
        match step {
            Step::Open => self.session.open(now),
            Step::Close => {
                self.ended.extend(1..=self.ids);
                self.session.close(self.ids + 1, now);
            }
            Step::Pause => self.session.pause(),
            Step::Resume => self.session.resume(now),
            Step::Subscribe(class) => {
                self.ids += 1;
                self.session.subscribe(self.ids, self.ids, spec(*class), now);
            }
            Step::Update(which, class) => {
                if let Some(id) = self.some_id(*which).filter(|id| !self.ended.contains(id)) {
                    self.session.update(id, id, spec(*class), now);
                }
            }
            Step::Unsubscribe(which) => {
                if let Some(id) = self.some_id(*which) {
                    self.ended.push(id);
                    self.session.unsubscribe(id, now);
                }
            }
            Step::SetToken(token) => {
                self.session
                    .set_session_token(Some(Secret::from(token.to_string())), now);
            }
            Step::ReconnectNow => self.session.reconnect_now(now),
            Step::Advance => self.advance(),
            Step::Lose => {
                if self.connection != Connection::None {
                    self.session
                        .lost(Error::new(ErrorKind::ConnectionLost, "cut"), now);
                }
            }
            Step::Pass(millis) => self.pass(Duration::from_millis((*millis).into()), Duration::ZERO),
            Step::Sleep(millis) => self.pass(Duration::ZERO, Duration::from_millis((*millis).into())),
            Step::Answer(which, answer) => self.answer(*which, *answer),
            Step::End(which) => {
                if let Some(id) = self.server.keys().nth(which % self.server.len().max(1)).copied() {
                    self.server.remove(&id);
                    self.receive(json!({"op": "unsubscribed", "requestId": id}));
                }
            }
            Step::Age(age) => {
                self.next_age = [Age::New, Age::Old, Age::Untold][usize::from(age % 3)];
            }
            Step::Event(which) => {
                let id = self.some_id(*which).unwrap_or(99);
                if self.connection == Connection::Greeted {
                    let frame = json!({"op": "create", "requestId": id, "object": {}}).to_string();
                    let received = self
                        .session
                        .received(&frame, now)
                        .map(|received| *received.handle);
                    self.check();
                    if let Some(id) = received {
                        assert!(!self.ended.contains(&id), "an event for {id}, which has ended");
                        assert!(self.open[&id], "an event for {id} before its `open`");
                    }
                }
            }
            Step::Text(text) => {
                if self.connection == Connection::Greeted && !self.means_something(text) {
                    let state = self.session.state();
                    self.session.received(text, now);
                    assert_eq!(self.session.state(), state, "{text} ended the link");
                }
            }
        }
        self.check();
        self.tick();
    }

    /// Whether it is for a subscription that was ever made, or an error, which may rightly end the
    /// connection.
    fn means_something(&self, text: &str) -> bool {
        match Reader::default().read(text) {
            Ok(Message::Error(_)) => true,
            Ok(
                Message::Subscribed { request_id }
                | Message::Unsubscribed { request_id }
                | Message::Event { request_id, .. },
            ) => request_id <= self.ids,
            Ok(Message::Connected | Message::Unknown(_)) | Err(_) => false,
        }
    }

    fn some_id(&self, which: usize) -> Option<u64> {
        (self.ids > 0).then(|| which as u64 % self.ids + 1)
    }

    /// Lets time pass, with a tick whenever one is due.
    fn pass(&mut self, time: Duration, asleep: Duration) {
        self.now.wall += asleep;
        let end = self.now.mono + time;
        loop {
            let next = self.session.deadline().map_or(end, |due| due.min(end));
            let step = next.saturating_duration_since(self.now.mono);
            self.now.mono += step;
            self.now.wall += step;
            self.tick();
            if self.now.mono >= end {
                return;
            }
        }
    }

    fn tick(&mut self) {
        self.session.tick(self.now);
        self.check();
        let due = self.session.deadline();
        assert!(due.is_none_or(|due| due > self.now.mono), "a busy loop");
    }

    fn advance(&mut self) {
        match self.connection {
            Connection::None => {}
            Connection::Greeted => {
                if let Some(payload) = self.ping.take() {
                    self.session.alive(self.now);
                    let round_trip = self.session.ponged(&payload, self.now);
                    assert!(round_trip.is_some(), "the answer to the ping is not known");
                }
            }
            Connection::Attempted => {
                self.connection = Connection::Up;
                self.session.transport_up();
            }
            Connection::Up => {
                self.connection = Connection::Greeted;
                self.age = self.next_age;
                self.receive(json!({"op": "connected", "clientId": "c"}));
            }
        }
    }

    fn receive(&mut self, message: Value) {
        self.session.alive(self.now);
        self.session.received(&message.to_string(), self.now);
    }

    /// As in Parse Server: an update ends the old query first, and only then checks the new one.
    fn answer(&mut self, which: usize, answer: Answer) {
        if self.pending.is_empty() {
            return;
        }
        let (op, id, class) = self.pending.remove(which % self.pending.len());
        if id == QUESTION {
            let text = match self.age {
                Age::New => "Array is too short (0), minimum 1",
                Age::Old => "Additional properties not allowed",
                Age::Untold => "no",
            };
            self.receive(
                json!({"op": "error", "code": 1, "error": text, "reconnect": true, "requestId": null}),
            );
            return;
        }
        if op != "subscribe" {
            self.server.remove(&id);
        }
        match (op.as_str(), answer) {
            ("unsubscribe", _) => self.receive(json!({"op": "unsubscribed", "requestId": id})),
            (_, Answer::Ok) => {
                self.server.insert(id, class);
                self.receive(json!({"op": "subscribed", "requestId": id}));
            }
            (_, Answer::Refuse) => {
                self.receive(
                    json!({"op": "error", "code": 119, "error": "no", "reconnect": false, "requestId": id}),
                );
            }
            (_, Answer::RefuseWithoutId) => {
                self.receive(
                    json!({"op": "error", "code": 1, "error": "no", "reconnect": true, "requestId": null}),
                );
            }
        }
    }

    /// Does what the session requests, and checks that the request is allowed.
    fn check(&mut self) {
        while let Some(output) = self.session.next_output() {
            match output {
                Output::Connect => {
                    assert_eq!(self.connection, Connection::None, "a second connection");
                    self.connection = Connection::Attempted;
                }
                Output::Disconnect | Output::Farewell => {
                    self.connection = Connection::None;
                    self.ping = None;
                    self.pending.clear();
                    self.server.clear();
                }
                Output::Ping(payload) => {
                    assert_eq!(self.connection, Connection::Greeted);
                    assert!(self.ping.replace(payload).is_none(), "a second ping at once");
                }
                Output::RenewToken => panic!("there is nobody to ask"),
                Output::Send(frame) => self.sent(&frame),
                Output::Event(id, event) => {
                    let open = self.open.entry(id).or_default();
                    match event.kind() {
                        EventKind::Open => {
                            assert!(!std::mem::replace(open, true), "{id} opened twice");
                            assert!(!self.ended.contains(&id), "{id} opened after its end");
                        }
                        // The emitter suppresses the `close` of a subscription that was not open.
                        EventKind::Close => *open = false,
                        _ => {}
                    }
                }
                Output::ClientEvent(event) => match event.kind() {
                    ClientEventKind::Open => assert!(!std::mem::replace(&mut self.client_open, true)),
                    ClientEventKind::Close => assert!(std::mem::replace(&mut self.client_open, false)),
                    ClientEventKind::Error
                    | ClientEventKind::Reconnecting
                    | ClientEventKind::SessionEnded => {}
                },
            }
        }
        assert_eq!(self.client_open, self.session.state() == ClientState::Connected);
        if self.session.state() == ClientState::Paused {
            assert_eq!(self.connection, Connection::None, "a connection in a pause");
            assert_eq!(self.session.deadline(), None, "something is due in a pause");
        }
        if matches!(
            self.session.link,
            Link::Live(_) | Link::Waiting { .. } | Link::Connecting { .. }
        ) {
            assert!(
                self.session.deadline().is_some(),
                "nothing would ever happen again"
            );
        }
    }

    fn sent(&mut self, frame: &str) {
        let frame: Value = serde_json::from_str(frame).unwrap();
        let op = frame["op"].as_str().unwrap().to_owned();
        if op == "connect" {
            assert_eq!(self.connection, Connection::Up);
            return;
        }
        assert_eq!(self.connection, Connection::Greeted, "{op} before `connected`");
        let id = frame["requestId"].as_u64().unwrap();
        assert!(
            !self.pending.iter().any(|(_, other, _)| *other == id),
            "two operations of {id} at once"
        );
        let conditions = frame["query"]["where"].to_string();
        let is_for_new = conditions.contains("$nor") || conditions.contains("$in");
        assert!(
            self.age == Age::New || !is_for_new,
            "not for this server: {frame}"
        );
        let is_for_old = conditions.contains("owner.className");
        assert!(
            self.age != Age::New || !is_for_old,
            "not for this server: {frame}"
        );
        match op.as_str() {
            "subscribe" => assert!(!self.server.contains_key(&id), "{id} subscribed twice"),
            _ => assert!(
                self.server.contains_key(&id),
                "{op} of {id}, which the server does not have"
            ),
        }
        let class = frame["query"]["className"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.pending.push((op, id, class));
    }

    /// Lets everything settle with a server that accepts everything, and compares what it has with what is
    /// wanted.
    pub(crate) fn settle(&mut self) {
        self.session.resume(self.now);
        for _ in 0..1000 {
            self.advance();
            self.answer(0, Answer::Ok);
            if !self.session.retries.is_empty() {
                self.session.reconnect_now(self.now);
            }
            self.check();
            if matches!(self.session.link, Link::Waiting { .. }) {
                self.pass(Duration::from_secs(31), Duration::ZERO);
                self.check();
            }
        }
        let wanted: BTreeMap<_, _> = self
            .session
            .subscriptions
            .iter()
            .filter_map(|(id, s)| Some((*id, s.wanted.as_ref()?.query.class_name.to_string())))
            .collect();
        for id in wanted.keys() {
            assert!(!self.ended.contains(id), "{id} came back");
        }
        if self.session.state() == ClientState::Connected {
            assert_eq!(self.server, wanted);
            for id in wanted.keys() {
                assert!(self.open[id], "{id} is not open");
            }
            assert!(self.session.answers.is_empty());
            assert_eq!(self.session.len(), wanted.len(), "something was left behind");
        }
    }
}

/// The settings that a client has by default.
pub(crate) fn settings() -> Settings {
    Settings {
        credentials: Credentials {
            application_id: "app".into(),
            ..Credentials::default()
        },
        connect_timeout: Duration::from_secs(20),
        idle_ping: Duration::from_secs(20),
        pong_timeout: Duration::from_secs(10),
        ack_timeout: Duration::from_secs(10),
        reconnect_delay: (Duration::from_millis(250), Duration::from_secs(30)),
        servers: 1,
        max_attempts: None,
        renewable_token: false,
    }
}

fn spec(class: u8) -> Arc<Spec> {
    let query = Query::new(format!("Class{}", class % 4));
    let query = match class % 4 {
        // Queries that depend on the server's version: one that old servers cannot answer, and one that has a
        // form for them.
        1 => query.not_equal_to("score", 1),
        2 => query.equal_to("owner", Pointer::new("Team", "t1")),
        _ => query,
    };
    Arc::new(Spec::new(query.encode().unwrap(), None, 0))
}

//! The rules of the session, one by one, in simulated time; by topic, with what they share.

mod age;
mod answers;
mod errors;
mod gaps;
mod link;
mod pause;
mod retries;
mod spelling;
mod subscriptions;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Link, Output, Session, Settings};
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEventKind, Event};
use crate::protocol::Now;
use crate::protocol::spec::Spec;
use crate::query::Query;

/// Rounds up to a time that the clock of every system can represent: Windows counts in 100 ns.
fn whole_ticks(time: Duration) -> Duration {
    const TICK: u32 = 100;
    Duration::new(time.as_secs(), 0) + Duration::from_nanos(time.subsec_nanos().next_multiple_of(TICK).into())
}

/// A session with a clock that the test turns, and its outputs since the last call.
struct Rig {
    session: Session<u64>,
    now: Now,
    /// What subscriptions were told, where a test keeps it.
    told: Vec<(u64, Event)>,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new("app".to_owned());
        change(&mut settings);
        Self {
            session: Session::new(settings, 1),
            now: Now {
                mono: Instant::now(),
                wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            },
            told: Vec::new(),
        }
    }

    /// A rig that is connected and has been greeted.
    fn live() -> Self {
        let mut rig = Self::new();
        rig.session.open(rig.now);
        rig.greet();
        rig.outputs();
        rig
    }

    fn greet(&mut self) {
        self.session.transport_up();
        self.receive(json!({"op": "connected", "clientId": "c"}));
    }

    /// Lets time pass as a driver does, which ticks whenever something is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let next = self.session.deadline().map_or(end, |due| due.min(end));
            let step = whole_ticks(next.saturating_duration_since(self.now.mono));
            self.now = Now {
                mono: self.now.mono + step,
                wall: self.now.wall + step,
            };
            self.session.tick(self.now);
            let due = self.session.deadline();
            assert!(due.is_none_or(|due| due > self.now.mono), "a busy loop");
            if self.now.mono >= end {
                return;
            }
        }
    }

    /// Lets the machine sleep, with a monotonic clock that stands still.
    fn sleep(&mut self, time: Duration) {
        self.now.wall += time;
        self.session.tick(self.now);
    }

    /// Lets the delay before the next attempt to connect pass, if there is one.
    fn wait(&mut self) {
        while matches!(self.session.link, Link::Waiting { .. }) {
            let due = self.session.deadline().unwrap();
            self.pass(due.saturating_duration_since(self.now.mono));
        }
    }

    /// The same as [`pass`](Self::pass), with a server that answers pings.
    fn pass_with_pongs(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.now.mono < end {
            let left = end - self.now.mono;
            self.pass(left.min(Duration::from_secs(1)));
            if let Some(ping) = self.take_ping() {
                self.pong(ping);
            }
        }
    }

    fn receive(&mut self, message: Value) -> Option<u64> {
        self.session.alive(self.now);
        let text = message.to_string();
        let handle = self
            .session
            .received(&text, self.now)
            .map(|received| *received.handle);
        if message["op"] == "connected" {
            // The first ping of a connection is answered at once.
            if let Some(ping) = self.take_ping() {
                self.pong(ping);
            }
        }
        handle
    }

    /// The ping to be sent, if there is one.
    fn take_ping(&mut self) -> Option<[u8; 8]> {
        let outputs = &mut self.session.outputs;
        let place = outputs
            .iter()
            .position(|output| matches!(output, Output::Ping(_)))?;
        match outputs.remove(place) {
            Some(Output::Ping(payload)) => Some(payload),
            _ => None,
        }
    }

    fn pong(&mut self, payload: [u8; 8]) {
        self.session.alive(self.now);
        self.session.ponged(&payload, self.now);
    }

    fn ack(&mut self, id: u64) {
        self.receive(json!({"op": "subscribed", "clientId": "c", "requestId": id}));
    }

    fn error(&mut self, code: i64, text: &str, reconnect: bool, id: Value) {
        self.receive(
            json!({"op": "error", "code": code, "error": text, "reconnect": reconnect, "requestId": id}),
        );
    }

    fn subscribe(&mut self, id: u64, class: &str) {
        self.session.subscribe(id, id, spec(class), self.now);
    }

    /// Adds an acknowledged subscription.
    fn subscribed(&mut self, id: u64) {
        self.subscribe(id, "Game");
        self.ack(id);
        self.outputs();
    }

    fn lose(&mut self) {
        self.session
            .lost(Error::new(ErrorKind::ConnectionLost, "cut"), self.now);
    }

    /// Lets the delay pass and connects again.
    fn come_back(&mut self) {
        self.wait();
        self.greet();
    }

    fn outputs(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_output())
            .map(|output| describe(&output))
            .collect()
    }
}

/// A line for each output, so that expectations can be read.
fn describe(output: &Output<u64>) -> String {
    match output {
        Output::Connect => "connect".into(),
        Output::Disconnect => "disconnect".into(),
        Output::Farewell => "farewell".into(),
        Output::Ping(_) => "ping".into(),
        Output::RenewToken => "renew token".into(),
        Output::Send(frame) => {
            let frame: Value = serde_json::from_str(frame).unwrap();
            let op = frame["op"].as_str().unwrap();
            match &frame["requestId"] {
                Value::Null => format!("send {op}"),
                id => format!(
                    "send {op} {id} {}",
                    frame["query"]["className"].as_str().unwrap_or_default()
                )
                .trim_end()
                .into(),
            }
        }
        Output::Event(id, event) => {
            let gap = event
                .gap()
                .map(|gap| format!(" after {:?} {:?}", gap.reason(), gap.duration()));
            let error = event.error().map(|error| {
                format!(
                    " {:?}{}",
                    error.kind(),
                    if error.is_fatal() { " fatal" } else { "" }
                )
            });
            format!(
                "{id}: {}{}{}",
                event.kind(),
                gap.unwrap_or_default(),
                error.unwrap_or_default()
            )
        }
        Output::ClientEvent(event) => match (event.kind(), event.error()) {
            (ClientEventKind::Error, Some(error)) => {
                format!(
                    "client error {:?}{}",
                    error.kind(),
                    if error.is_fatal() { " fatal" } else { "" }
                )
            }
            (kind, _) => format!("client {kind}"),
        },
    }
}

fn spec(class: &str) -> Arc<Spec> {
    spec_of(&Query::new(class))
}

fn spec_of(query: &Query) -> Arc<Spec> {
    Arc::new(Spec::new(query.encode().unwrap(), None, 0))
}

const SCHEMA_ERROR: &str = "Additional properties not allowed";

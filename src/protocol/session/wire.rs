//! A session behind a slow network, and a server that writes events whether they can arrive or not: for tests
//! of gaps. It knows when everything was written, and compares that with what the program was told.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::world::settings;
use super::{Output, QUESTION, Session};
use crate::error::{Error, ErrorKind};
use crate::event::{EventKind, Gap};
use crate::protocol::Now;
use crate::protocol::spec::Spec;
use crate::query::Query;
use crate::types::Date;

#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// Objects change, once for each subscription.
    Write,
    /// Milliseconds pass.
    Pass(u32),
    /// The same, while the machine sleeps: its monotonic clock stands still.
    Sleep(u32),
    /// From now on, what is written takes this many milliseconds to arrive.
    Delay(u32),
    /// The connection is cut, and what is under way is lost. The client notices, or does not.
    Cut {
        silently: bool,
    },
    Update(usize),
    Pause,
    Resume,
    /// The server ends a subscription unasked.
    End(usize),
}

enum Frame {
    Text(String),
    Ping(Vec<u8>),
}

pub(super) struct Wire {
    session: Session<u64>,
    started: (Instant, SystemTime),
    time: Duration,
    slept: Duration,
    delay: Duration,
    connected: bool,
    /// Nothing comes through any more, without any notice.
    dead: bool,
    up: VecDeque<(Duration, Frame)>,
    down: VecDeque<(Duration, Frame)>,
    has: BTreeSet<u64>,
    written: Vec<(u64, Duration)>,
    came: HashSet<usize>,
    opened: BTreeMap<u64, Duration>,
    gaps: BTreeMap<u64, Vec<Gap>>,
    specs: u64,
}

const SUBSCRIPTIONS: u64 = 3;

impl Wire {
    pub(super) fn new(seed: u64) -> Self {
        let mut wire = Self {
            session: Session::new(settings(), seed),
            started: (
                Instant::now(),
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            ),
            time: Duration::ZERO,
            slept: Duration::ZERO,
            delay: Duration::ZERO,
            connected: false,
            dead: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            has: BTreeSet::new(),
            written: Vec::new(),
            came: HashSet::new(),
            opened: BTreeMap::new(),
            gaps: BTreeMap::new(),
            specs: 0,
        };
        for id in 1..=SUBSCRIPTIONS {
            let spec = wire.spec();
            wire.session.subscribe(id, id, spec, wire.now());
        }
        wire.carry_out();
        wire
    }

    pub(super) fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Write => {
                for id in 1..=SUBSCRIPTIONS {
                    self.written.push((id, self.time));
                    if self.has.contains(&id) {
                        let object = json!({"at": self.written.len() - 1});
                        self.say(json!({"op": "create", "requestId": id, "object": object}));
                    }
                }
            }
            Happening::Pass(millis) => self.pass(Duration::from_millis((*millis).into())),
            Happening::Sleep(millis) => {
                let time = Duration::from_millis((*millis).into());
                self.time += time;
                self.slept += time;
                self.pass(Duration::ZERO);
            }
            Happening::Delay(millis) => self.delay = Duration::from_millis((*millis).into()),
            Happening::Cut { silently } => {
                self.up.clear();
                self.down.clear();
                self.has.clear();
                self.dead = true;
                if !silently && self.connected {
                    let now = self.now();
                    self.session
                        .lost(Error::new(ErrorKind::ConnectionLost, "cut"), now);
                    self.carry_out();
                }
            }
            Happening::Update(which) => {
                let (spec, now) = (self.spec(), self.now());
                let id = *which as u64 % SUBSCRIPTIONS + 1;
                self.session.update(id, id, spec, now);
                self.carry_out();
            }
            Happening::Pause => {
                self.session.pause();
                self.carry_out();
            }
            Happening::Resume => {
                let now = self.now();
                self.session.resume(now);
                self.carry_out();
            }
            Happening::End(which) => {
                let id = *which as u64 % SUBSCRIPTIONS + 1;
                if self.has.remove(&id) {
                    self.say(json!({"op": "unsubscribed", "requestId": id}));
                }
            }
        }
    }

    /// Lets everything settle, and compares.
    pub(super) fn settle(&mut self) {
        self.delay = Duration::ZERO;
        self.happen(&Happening::Resume);
        self.pass(Duration::from_secs(300));
        self.happen(&Happening::Write);
        self.pass(Duration::from_secs(1));
        for (at, (id, time)) in self.written.iter().enumerate() {
            let opened = *self.opened.get(id).expect("it is open by now");
            if self.came.contains(&at) || *time < opened {
                continue;
            }
            let wall = Date::from(self.started.1 + *time);
            let gaps = self.gaps.get(id).map_or(&[][..], Vec::as_slice);
            assert!(
                gaps.iter().any(|gap| gap.start() <= wall && wall <= gap.end()),
                "subscription {id}, written at {time:?}, gaps {:?}",
                gaps.iter()
                    .map(|gap| [gap.start(), gap.end()]
                        .map(|at| SystemTime::from(at).duration_since(self.started.1)))
                    .collect::<Vec<_>>()
            );
        }
    }

    fn spec(&mut self) -> Arc<Spec> {
        self.specs += 1;
        let query = Query::new("Game");
        let query = match self.specs % 2 {
            0 => query.equal_to("room", self.specs),
            // The server is asked for its version before this is sent.
            _ => query.not_equal_to("room", self.specs),
        };
        Arc::new(Spec::new(query.encode().unwrap(), None, 0))
    }

    fn now(&self) -> Now {
        Now {
            mono: self.started.0 + (self.time - self.slept),
            wall: self.started.1 + self.time,
        }
    }

    /// The server writes.
    fn say(&mut self, message: Value) {
        self.write_down(Frame::Text(message.to_string()));
    }

    fn write_down(&mut self, frame: Frame) {
        if !self.dead {
            let last = self.down.back().map_or(Duration::ZERO, |(at, _)| *at);
            self.down.push_back((last.max(self.time + self.delay), frame));
        }
    }

    fn write_up(&mut self, frame: Frame) {
        if !self.dead {
            let last = self.up.back().map_or(Duration::ZERO, |(at, _)| *at);
            self.up.push_back((last.max(self.time + self.delay), frame));
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.time + time;
        loop {
            let due = self.session.deadline().map(|due| {
                let awake = due.saturating_duration_since(self.started.0);
                awake + self.slept
            });
            let up = self.up.front().map(|(at, _)| *at);
            let down = self.down.front().map(|(at, _)| *at);
            let next = [due, up, down].into_iter().flatten().min().unwrap_or(end);
            self.time = next.min(end).max(self.time);
            while let Some(frame) = arrived(&mut self.up, self.time) {
                self.serve(frame);
            }
            while let Some(frame) = arrived(&mut self.down, self.time) {
                self.receive(frame);
            }
            let now = self.now();
            self.session.tick(now);
            self.carry_out();
            if self.time >= end {
                return;
            }
        }
    }

    fn serve(&mut self, frame: Frame) {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Ping(payload) => return self.write_down(Frame::Ping(payload)),
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let id = frame["requestId"].as_u64().unwrap_or_default();
        match frame["op"].as_str().unwrap() {
            "connect" => self.say(json!({"op": "connected", "clientId": "c"})),
            "subscribe" if id == QUESTION => {
                let text = "Array is too short (0), minimum 1";
                self.say(json!({"op": "error", "code": 1, "error": text, "requestId": null}));
            }
            "subscribe" | "update" => {
                self.has.insert(id);
                self.say(json!({"op": "subscribed", "requestId": id}));
            }
            op => panic!("{op}"),
        }
    }

    fn receive(&mut self, frame: Frame) {
        let now = self.now();
        self.session.alive(now);
        match frame {
            Frame::Ping(payload) => {
                self.session.ponged(&payload, now);
            }
            Frame::Text(text) => {
                if let Some(received) = self.session.received(&text, now) {
                    let object: Value = serde_json::from_str(received.frame.object).unwrap();
                    let at = object["at"].as_u64().unwrap() as usize;
                    self.came.insert(at);
                }
            }
        }
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.next_output() {
            match output {
                Output::Connect => {
                    (self.connected, self.dead) = (true, false);
                    self.session.transport_up();
                }
                Output::Disconnect | Output::Farewell => {
                    self.connected = false;
                    self.up.clear();
                    self.down.clear();
                    self.has.clear();
                }
                Output::Send(text) => self.write_up(Frame::Text(text)),
                Output::Ping(payload) => self.write_up(Frame::Ping(payload.to_vec())),
                Output::Event(id, event) if event.kind() == EventKind::Open => {
                    self.opened.entry(id).or_insert(self.time);
                    self.gaps.entry(id).or_default().extend(event.gap().cloned());
                }
                Output::Event(..) | Output::ClientEvent(_) => {}
                Output::RenewToken => panic!("there is nobody to ask"),
            }
        }
    }
}

/// The next frame that has arrived by now.
fn arrived(way: &mut VecDeque<(Duration, Frame)>, now: Duration) -> Option<Frame> {
    match way.front() {
        Some((at, _)) if *at <= now => way.pop_front().map(|(_, frame)| frame),
        _ => None,
    }
}

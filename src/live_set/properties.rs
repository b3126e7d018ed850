//! Random histories of a server and a set that follows it: saves, deletions, events that are late, pages that are read
//! at one time and arrive at another, fetches that fail, cuts. When all is quiet the set is what the server has, and
//! its changes, applied to an empty list, are its contents at each step.
//!
//! `LIVE_SET_HISTORIES` says how many, `LIVE_SET_SEED` brings one back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use serde_json::{Value, json};

use super::change::{Entry, Snapshot};
use super::core::{Core, Output, Request, Task};
use super::list::List;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::fetch_error::FetchError;
use crate::object::Object;
use crate::query::Query;
use crate::types::Date;

/// What the server has.
struct Server {
    objects: BTreeMap<String, Record>,
    clock: i64,
    next_id: u32,
    last_saved: Option<String>,
    max_limit: usize,
    nulls_are_greatest: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    is_member: bool,
    score: Option<i64>,
    name: Option<String>,
    note: u32,
    created: i64,
    updated: i64,
}

struct Message {
    kind: EventKind,
    object: Object,
    original: Option<Object>,
}

impl Record {
    fn to_object(&self, id: &str) -> Object {
        let date = |millis| Date::from_millis(millis).unwrap().to_string();
        let mut json = json!({
            "className": "Game", "objectId": id, "createdAt": date(self.created), "updatedAt": date(self.updated),
            "member": self.is_member, "note": self.note,
        });
        match self.score {
            Some(-1) => json["score"] = Value::Null,
            Some(score) => json["score"] = score.into(),
            None => {}
        }
        if let Some(name) = &self.name {
            json["name"] = name.as_str().into();
        }
        Object::from_json(json).unwrap()
    }
}

impl Server {
    fn random_record(&mut self, rng: &mut Rng) -> Record {
        // Some saves are made within one millisecond.
        self.clock += i64::from(rng.u8(0..3));
        Record {
            is_member: rng.u8(0..4) > 0,
            score: match rng.u8(0..8) {
                0 => None,
                1 => Some(-1),
                _ => Some(rng.i64(0..4)),
            },
            name: (rng.u8(0..4) > 0).then(|| ["", "a", "ab", "b", "\u{0}"][rng.usize(0..5)].to_owned()),
            note: rng.u32(..),
            created: self.clock,
            updated: self.clock,
        }
    }

    fn create(&mut self, rng: &mut Rng) -> Option<Message> {
        let record = self.random_record(rng);
        self.next_id += 1;
        // Ids come in no order.
        let id = format!("{:04x}", self.next_id.wrapping_mul(40503) & 0xffff);
        let object = record.to_object(&id);
        let is_member = record.is_member;
        self.objects.insert(id, record);
        is_member.then_some(Message {
            kind: EventKind::Create,
            object,
            original: None,
        })
    }

    fn update(&mut self, rng: &mut Rng) -> Option<Message> {
        // Often the same one again, so that several saves of it are on their way.
        let last = self
            .last_saved
            .take()
            .filter(|id| rng.u8(0..3) > 0 && self.objects.contains_key(id));
        let id = last.or_else(|| self.random_id(rng))?;
        self.last_saved = Some(id.clone());
        let before = self.objects[&id].clone();
        let mut record = self.random_record(rng);
        record.created = before.created;
        if rng.bool() {
            (record.score, record.name) = (before.score, before.name.clone());
        }
        self.objects.insert(id.clone(), record.clone());
        let kind = match (before.is_member, record.is_member) {
            (true, true) => EventKind::Update,
            (false, true) => EventKind::Enter,
            (true, false) => EventKind::Leave,
            (false, false) => return None,
        };
        Some(Message {
            kind,
            object: record.to_object(&id),
            original: Some(before.to_object(&id)),
        })
    }

    fn delete(&mut self, rng: &mut Rng) -> Option<Message> {
        let id = self.random_id(rng)?;
        let record = self.objects.remove(&id)?;
        self.clock += i64::from(rng.u8(0..2));
        record.is_member.then(|| Message {
            kind: EventKind::Delete,
            object: record.to_object(&id),
            original: None,
        })
    }

    fn random_id(&self, rng: &mut Rng) -> Option<String> {
        let at = rng.usize(0..self.objects.len().max(1));
        self.objects.keys().nth(at).cloned()
    }

    /// What a REST server answers: by other code than what is tested.
    fn find(&self, query: &Query, is_limited: bool) -> Vec<Object> {
        let query: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        let mut conditions = vec![&query["where"]];
        let mut found: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, record)| record.is_member)
            .collect();
        while let Some(condition) = conditions.pop() {
            conditions.extend(condition["$and"].as_array().into_iter().flatten());
            if let Some(after) = condition["objectId"]["$gt"].as_str() {
                found.retain(|(id, _)| id.as_str() > after);
            }
            if let Some(ids) = condition["objectId"]["$in"].as_array() {
                found.retain(|(id, _)| ids.iter().any(|other| other == id.as_str()));
            }
        }
        let order = query["order"].as_str().unwrap_or_default().to_owned();
        found.sort_by(|a, b| {
            let by_key = |key: &str| {
                let (name, descending) = key.strip_prefix('-').map_or((key, false), |name| (name, true));
                let null = |is_null: bool| is_null == self.nulls_are_greatest;
                let score = |record: &Record| record.score.filter(|score| *score >= 0);
                let ordering = match name {
                    "score" => (null(score(a.1).is_none()), score(a.1))
                        .cmp(&(null(score(b.1).is_none()), score(b.1))),
                    "name" => {
                        (null(a.1.name.is_none()), &a.1.name).cmp(&(null(b.1.name.is_none()), &b.1.name))
                    }
                    "createdAt" => a.1.created.cmp(&b.1.created),
                    _ => a.0.cmp(b.0),
                };
                if descending { ordering.reverse() } else { ordering }
            };
            order.split(',').fold(std::cmp::Ordering::Equal, |ordering, key| {
                ordering.then_with(|| by_key(key))
            })
        });
        let number = |name: &str| {
            query[name]
                .as_u64()
                .map(|number| usize::try_from(number).unwrap())
        };
        let limit = number("limit").unwrap_or(usize::MAX);
        found
            .into_iter()
            .skip(number("skip").unwrap_or(0))
            .take(if is_limited {
                limit.min(self.max_limit)
            } else {
                limit
            })
            .map(|(id, record)| record.to_object(id))
            .collect()
    }
}

struct World {
    rng: Rng,
    server: Server,
    core: Core,
    query: Query,
    now: Instant,
    is_open: bool,
    /// On their way to the set.
    events: VecDeque<Message>,
    /// Not yet read by the server, and read but not yet returned.
    request: Option<Box<Request>>,
    page: Option<(Box<Request>, Vec<Object>)>,
    /// All changes applied to an empty list.
    copy: Vec<Object>,
    last: Snapshot,
    is_ready: bool,
    history: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut query = Query::new("Game").equal_to("member", true);
        query = match rng.u8(0..5) {
            0 => query,
            1 => query.ascending(["score"]),
            2 => query.descending(["score"]).add_ascending(["name"]),
            3 => query.descending(["name"]),
            _ => query.ascending(["name", "score"]).add_descending(["createdAt"]),
        };
        if rng.bool() {
            query = query.limit(rng.u64(0..6));
        }
        if rng.u8(0..3) == 0 {
            query = query.skip(rng.u64(0..5));
        }
        let server = Server {
            objects: BTreeMap::new(),
            clock: 1_700_000_000_000,
            next_id: 0,
            last_saved: None,
            max_limit: [2, 3, 5, 12, 1000][rng.usize(0..5)],
            nulls_are_greatest: rng.bool(),
        };
        let mut world = Self {
            core: Core::new(&query, seed),
            rng,
            server,
            now: Instant::now(),
            is_open: false,
            events: VecDeque::new(),
            request: None,
            page: None,
            copy: Vec::new(),
            last: Snapshot(List::new()),
            is_ready: false,
            history: format!("{}\n", query.to_json().unwrap()),
            query,
        };
        for _ in 0..world.rng.usize(0..60) {
            world.server.create(&mut world.rng);
        }
        world
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.history, "{text}").unwrap();
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.u8(0..100) {
            0..10 => {
                let message = self.server.create(&mut self.rng);
                self.send("create", message);
            }
            10..32 => {
                let message = self.server.update(&mut self.rng);
                self.send("update", message);
            }
            32..40 => {
                let message = self.server.delete(&mut self.rng);
                self.send("delete", message);
            }
            40..62 => self.deliver(),
            62..72 => self.ask(),
            72..80 => self.read(),
            80..88 => self.answer(),
            88..92 => {
                let millis = self.rng.u64(0..400);
                self.now += Duration::from_millis(millis);
            }
            92..94 => self.cut(),
            94..97 => self.open(),
            97 => self.lose(),
            98 => {
                self.note(format_args!("refresh"));
                self.core.refresh();
            }
            _ => self.fail(),
        }
        self.look()
    }

    fn send(&mut self, what: &str, message: Option<Message>) {
        let Some(message) = message else { return };
        self.note(format_args!(
            "{what}: {} {:?} was {:?}",
            message.kind, message.object, message.original
        ));
        if self.is_open {
            self.events.push_back(message);
        }
    }

    fn deliver(&mut self) {
        // Not always in order.
        let ahead = if self.rng.u8(0..4) == 0 {
            self.rng.usize(0..4)
        } else {
            0
        };
        let at = ahead.min(self.events.len().saturating_sub(1));
        let Some(message) = self.events.remove(at) else {
            return;
        };
        self.note(format_args!("  arrives: {} {:?}", message.kind, message.object));
        self.core
            .event(message.kind, &message.object, message.original.as_ref(), self.now);
        if self.rng.u8(0..20) == 0 {
            // Again, and late.
            self.events.push_back(message);
        }
    }

    fn ask(&mut self) {
        if let Task::Fetch(request) = self.core.next_task(self.now) {
            self.note(format_args!(
                "asks: {} {}",
                request.ticket,
                request.query.to_json().unwrap()
            ));
            self.request = Some(request);
            self.page = None;
        }
    }

    fn read(&mut self) {
        if let Some(request) = self.request.take() {
            let page = self.server.find(&request.query, true);
            self.note(format_args!("reads: {} {page:?}", request.ticket));
            self.page = Some((request, page));
        }
    }

    fn answer(&mut self) {
        if let Some((request, page)) = self.page.take() {
            self.note(format_args!("answers: {}", request.ticket));
            let entries = page
                .iter()
                .map(|object| Entry::new(&request.order, object, "Game").unwrap())
                .collect();
            self.core.fetched(request.ticket, Ok(entries), self.now);
        }
    }

    fn fail(&mut self) {
        if let Some(request) = self.request.take() {
            self.note(format_args!("fails: {}", request.ticket));
            let error = Error::new(ErrorKind::Fetch, "the server is busy");
            self.core.fetched(request.ticket, Err(error.into()), self.now);
        }
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.note(format_args!("cut"));
            self.events.clear();
            self.core.closed(SystemTime::UNIX_EPOCH);
        }
    }

    fn open(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.note(format_args!("open"));
            self.core.opened();
        }
    }

    fn lose(&mut self) {
        if self.is_open {
            self.events.clear();
            if self.rng.bool() {
                self.note(format_args!("lagged"));
                self.core.lagged(SystemTime::UNIX_EPOCH);
            } else {
                self.note(format_args!("missed"));
                self.core.missed();
            }
        }
    }

    /// What the listeners would be told.
    fn look(&mut self) -> Result<(), String> {
        while let Some(output) = self.core.next_output() {
            match output {
                Output::Change(change, snapshot) => {
                    self.note(format_args!("    {change:?}"));
                    change.apply_to(&mut self.copy, &snapshot);
                    if !self.copy.iter().eq(snapshot.iter()) {
                        return Err(format!("the copy is {:#?}, the set {snapshot:#?}", self.copy));
                    }
                    self.last = snapshot;
                }
                Output::Ready if self.is_ready => return Err("ready twice".to_owned()),
                Output::Ready => self.is_ready = true,
                Output::Stale(_) if !self.is_ready => return Err("stale, and was not ready".to_owned()),
                Output::Stale(_) => self.is_ready = false,
                Output::Failed(_) => {}
            }
        }
        Ok(())
    }

    /// All that is on its way arrives.
    fn settle(&mut self) -> Result<(), String> {
        self.note(format_args!("settles"));
        self.open();
        for _ in 0..10_000 {
            self.look()?;
            if !self.events.is_empty() {
                self.deliver();
            } else if self.page.is_some() {
                self.answer();
            } else if self.request.is_some() {
                self.read();
            } else {
                match self.core.next_task(self.now) {
                    Task::Fetch(request) => {
                        self.note(format_args!(
                            "asks: {} {}",
                            request.ticket,
                            request.query.to_json().unwrap()
                        ));
                        self.request = Some(request);
                    }
                    Task::Wait(Some(at)) => self.now = at,
                    Task::Wait(None) => return self.compare(),
                }
            }
        }
        Err("it never comes to rest".to_owned())
    }

    fn compare(&self) -> Result<(), String> {
        if !self.is_ready {
            return Err("it is at rest and not ready".to_owned());
        }
        let order: Vec<_> = crate::query::order::Order::new(self.query.window().order).for_find();
        let expected = self.server.find(&self.query.clone().ascending(order), false);
        if !expected.iter().eq(self.copy.iter()) {
            return Err(format!("the server has {expected:#?}, the set {:#?}", self.copy));
        }
        Ok(())
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    let mut run = || {
        for _ in 0..world.rng.usize(1..4) {
            for _ in 0..world.rng.usize(0..80) {
                world.step()?;
            }
            world.settle()?;
        }
        Ok::<_, String>(())
    };
    if let Err(text) = run() {
        panic!("LIVE_SET_SEED={seed}\n{}\n{text}", world.history);
    }
}

#[test]
fn the_changes_are_the_truth_and_lead_to_what_the_server_has() {
    if let Ok(seed) = std::env::var("LIVE_SET_SEED") {
        return history(seed.parse().unwrap());
    }
    let histories = std::env::var("LIVE_SET_HISTORIES").map_or(300, |number| number.parse().unwrap());
    let first = fastrand::u64(..u64::MAX / 2);
    for seed in first..first + histories {
        history(seed);
    }
}

#[test]
fn a_minute_of_failures_brings_few_requests_and_is_over_by_itself() {
    let mut world = World::new(7);
    for _ in 0..10 {
        world.server.create(&mut world.rng);
    }
    world.settle().unwrap();
    world.cut();
    world.open();
    world.look().unwrap();
    let (held, start) = (world.copy.len(), world.now);
    let mut requests = 0;
    while world.now < start + Duration::from_secs(60) {
        match world.core.next_task(world.now) {
            Task::Fetch(request) => {
                requests += 1;
                world.request = Some(request);
                world.fail();
            }
            Task::Wait(Some(at)) => {
                assert!(at > world.now);
                world.now = at;
            }
            Task::Wait(None) => panic!("it has given up"),
        }
        // What is held stays, and is said to be old.
        world.look().unwrap();
        assert!(!world.is_ready && world.copy.len() == held);
        // Events go on.
        let message = world.server.update(&mut world.rng);
        world.send(
            "update",
            message.filter(|message| message.kind == EventKind::Update),
        );
        world.deliver();
        world.look().unwrap();
    }
    assert!((3..=15).contains(&requests), "{requests} requests in a minute");
    world.settle().unwrap();
    assert!(world.now < start + Duration::from_secs(60 + 61));
}

#[test]
fn an_error_that_lasts_waits_for_long() {
    let mut world = World::new(8);
    world.open();
    world.ask();
    let request = world.request.take().unwrap();
    let error = FetchError {
        error: Error::new(ErrorKind::Fetch, "unauthorized"),
        retry_after: Duration::from_secs(60),
    };
    world.core.fetched(request.ticket, Err(error), world.now);
    let Task::Wait(Some(at)) = world.core.next_task(world.now) else {
        panic!()
    };
    assert_eq!(at, world.now + Duration::from_secs(60));
    // Whatever else is to be fetched waits as well, but for somebody who asks for it, and a new link.
    world.core.missed();
    assert!(matches!(world.core.next_task(world.now), Task::Wait(Some(other)) if other == at));
    world.core.refresh();
    assert!(matches!(world.core.next_task(world.now), Task::Fetch(_)));
}

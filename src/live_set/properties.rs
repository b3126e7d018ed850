//! Random histories of a server and a set that follows it: saves, deletions, events that are late, have
//! another name or are lost, pages that are read at one time and arrive at another, fetches that fail or
//! cannot start, lost connections, after which large sets catch up by difference. Whenever the set says that
//! it is ready and nothing is on its way, it equals the contents of the server; its changes, applied to an
//! empty list, give its contents at each step.
//!
//! `LIVE_SET_HISTORIES` says how many, `LIVE_SET_SEED` repeats one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use serde_json::{Value, json};

use super::change::{Entry, Snapshot};
use super::core::catch_up::Limits;
use super::core::query::SAVED;
use super::core::{Core, Moment, Output, Request, Task};
use super::list::List;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::fetch_error::FetchError;
use crate::object::Object;
use crate::query::Query;
use crate::types::Date;

/// The properties of a server.
#[derive(Clone, Copy, Debug)]
struct Habits {
    max_limit: usize,
    /// As in Postgres; otherwise as in MongoDB.
    nulls_are_greatest: bool,
    sorts_by_language: bool,
    /// Arrays and objects are among the values.
    has_odd_values: bool,
    /// The condition cannot be evaluated locally.
    is_unclear: bool,
    /// Events may have another name.
    renames: bool,
    /// Dates are plain strings in events.
    has_plain_dates: bool,
}

/// The contents of the server.
struct Server {
    habits: Habits,
    objects: BTreeMap<String, Record>,
    clock: i64,
    next_id: u32,
    last_saved: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    is_member: bool,
    /// Missing, null, or something else.
    score: Option<Value>,
    name: Option<String>,
    when: Option<i64>,
    inner: Option<Value>,
    note: u32,
    created: i64,
    updated: i64,
}

#[derive(Clone, Debug)]
struct Message {
    kind: EventKind,
    object: Object,
    original: Option<Object>,
}

/// What became of an object.
struct Saved {
    id: String,
    before: Option<Record>,
    after: Option<Record>,
    /// Another name for an event that is none of a deletion.
    other_name: Option<EventKind>,
}

/// Which objects a query is about: members, others, or all.
fn membership(query: &Query) -> Option<bool> {
    let query: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
    query["where"]["member"].as_bool()
}

impl Saved {
    /// The event for a subscription to this query.
    fn message(&self, query: &Query, habits: Habits) -> Option<Message> {
        let wanted = membership(query);
        let matches = |record: &Option<Record>| {
            let matches = |record: &Record| wanted.is_none_or(|wanted| record.is_member == wanted);
            record.as_ref().is_some_and(matches)
        };
        let kind = match (&self.before, &self.after) {
            (None, _) if matches(&self.after) => EventKind::Create,
            (_, None) if matches(&self.before) => EventKind::Delete,
            (None, _) | (_, None) => return None,
            (before, after) => match (matches(before), matches(after)) {
                (true, true) => EventKind::Update,
                (false, true) => EventKind::Enter,
                (true, false) => EventKind::Leave,
                (false, false) => return None,
            },
        };
        let object = |record: &Record| record.to_object(&self.id, habits.has_plain_dates);
        let is_update = self.after.is_some();
        let last = self.after.as_ref().or(self.before.as_ref())?;
        Some(Message {
            kind: self.other_name.unwrap_or(kind),
            object: object(last),
            original: self.before.as_ref().filter(|_| is_update).map(object),
        })
    }
}

fn date(millis: i64) -> String {
    Date::from_millis(millis).unwrap().to_string()
}

impl Record {
    fn to_object(&self, id: &str, has_plain_dates: bool) -> Object {
        let mut json = json!({
            "className": "Game", "objectId": id, "createdAt": date(self.created), "updatedAt": date(self.updated),
            "member": self.is_member, "label": if self.is_member { "in" } else { "out" }, "note": self.note,
        });
        if let Some(score) = &self.score {
            json["score"] = score.clone();
        }
        if let Some(name) = &self.name {
            json["name"] = name.as_str().into();
        }
        if let Some(inner) = &self.inner {
            json["box"] = json!({"inner": inner});
        }
        if let Some(when) = self.when {
            json["when"] = match has_plain_dates {
                true => date(when).into(),
                false => json!({"__type": "Date", "iso": date(when)}),
            };
        }
        Object::from_json(json).unwrap()
    }

    fn value(&self, id: &str, path: &str) -> Option<Value> {
        match path {
            "score" => self.score.clone(),
            "name" => self.name.clone().map(Value::from),
            "when" => self.when.map(|millis| date(millis).into()),
            "box.inner" => self.inner.clone(),
            "createdAt" => Some(date(self.created).into()),
            _ => Some(id.into()),
        }
    }
}

impl Habits {
    /// Null first or last, then by types, then by values; partly in ways that no client could guess.
    fn compare(self, one: Option<&Value>, other: Option<&Value>, is_inner: bool) -> Ordering {
        // Below the top level, null is a JSON value in Postgres.
        let is_null = |value: Option<&Value>| {
            value.is_none_or(|value| value.is_null() && !(is_inner && self.nulls_are_greatest))
        };
        match (is_null(one), is_null(other)) {
            (true, true) => return Ordering::Equal,
            (false, false) => {}
            (is_null, _) => {
                return if is_null == self.nulls_are_greatest {
                    Ordering::Greater
                } else {
                    Ordering::Less
                };
            }
        }
        let kind = |value: &Value| {
            let kinds = if self.nulls_are_greatest {
                [0, 3, 2, 1, 4, 5]
            } else {
                [0, 5, 1, 2, 4, 3]
            };
            kinds[match value {
                Value::Null => 0,
                Value::Bool(_) => 1,
                Value::Number(_) => 2,
                Value::String(_) => 3,
                Value::Array(_) => 4,
                Value::Object(_) => 5,
            }]
        };
        let (Some(one), Some(other)) = (one, other) else {
            return Ordering::Equal;
        };
        kind(one).cmp(&kind(other)).then_with(|| match (one, other) {
            (Value::Number(one), Value::Number(other)) => one.as_i64().cmp(&other.as_i64()),
            (Value::String(one), Value::String(other)) => self.compare_texts(one, other),
            // The longest first.
            _ => (other.to_string().len(), one.to_string()).cmp(&(one.to_string().len(), other.to_string())),
        })
    }

    fn compare_texts(self, one: &str, other: &str) -> Ordering {
        let by_bytes = one.cmp(other);
        if self.sorts_by_language {
            let fold = |text: &str| text.to_lowercase().replace('\u{e9}', "e");
            return fold(one).cmp(&fold(other)).then(by_bytes);
        }
        by_bytes
    }
}

impl Server {
    fn new(rng: &mut Rng) -> Self {
        // Most servers are plain ones.
        let mut rarely = || rng.u8(0..4) == 0;
        let habits = Habits {
            sorts_by_language: rarely(),
            has_odd_values: rarely(),
            is_unclear: rarely(),
            renames: rarely(),
            has_plain_dates: rarely(),
            nulls_are_greatest: rng.bool(),
            max_limit: [2, 3, 5, 12, 1000][rng.usize(0..5)],
        };
        Self {
            habits,
            objects: BTreeMap::new(),
            clock: 1_700_000_000_000,
            next_id: 0,
            last_saved: None,
        }
    }

    fn random_record(&mut self, rng: &mut Rng) -> Record {
        // Some saves happen within one millisecond.
        self.clock += i64::from(rng.u8(0..3));
        let names = if self.habits.sorts_by_language {
            ["", "Ab", "ab", "B", "\u{e9}"]
        } else {
            ["", "a", "ab", "B", "\u{0}"]
        };
        let odd = |rng: &mut Rng| match rng.u8(0..7) {
            0 => json!([rng.u8(0..3)]),
            1 => json!([rng.u8(0..3), 12]),
            2 => json!({"a": rng.u8(0..3)}),
            3 => json!({"__type": "GeoPoint", "latitude": rng.u8(0..3), "longitude": 0}),
            4 => rng.bool().into(),
            5 => "text".into(),
            _ => Value::Null,
        };
        let is_odd = self.habits.has_odd_values && rng.u8(0..4) == 0;
        Record {
            is_member: rng.u8(0..4) > 0,
            score: match rng.u8(0..8) {
                _ if is_odd => Some(odd(rng)),
                0 => None,
                1 => Some(Value::Null),
                _ => Some(rng.i64(0..4).into()),
            },
            name: (rng.u8(0..4) > 0).then(|| names[rng.usize(0..5)].to_owned()),
            when: (rng.u8(0..4) > 0).then(|| rng.i64(0..4) * 86_400_000),
            inner: match rng.u8(0..4) {
                _ if is_odd => Some(odd(rng)),
                0 => None,
                _ => Some(rng.i64(0..4).into()),
            },
            note: rng.u32(..),
            created: self.clock,
            updated: self.clock,
        }
    }

    fn create(&mut self, rng: &mut Rng) -> Saved {
        let record = self.random_record(rng);
        self.next_id += 1;
        // Ids have no order.
        let number = self.next_id.wrapping_mul(40503) & 0xffff;
        let id = match self.habits.sorts_by_language {
            // Capitals and others.
            true if number % 2 == 0 => format!("{number:04X}"),
            _ => format!("{number:04x}"),
        };
        self.objects.insert(id.clone(), record.clone());
        Saved {
            id,
            before: None,
            after: Some(record),
            other_name: None,
        }
    }

    fn update(&mut self, rng: &mut Rng) -> Option<Saved> {
        // Often the same object again, so that several saves of it are on their way.
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
            record.score.clone_from(&before.score);
            record.name.clone_from(&before.name);
            record.inner.clone_from(&before.inner);
            record.when = before.when;
        }
        self.objects.insert(id.clone(), record.clone());
        // The event of another subscription.
        let names = [EventKind::Update, EventKind::Enter, EventKind::Leave].map(Some);
        let other_name = names.get(rng.usize(0..4)).copied().flatten();
        Some(Saved {
            id,
            before: Some(before),
            after: Some(record),
            other_name: other_name.filter(|_| self.habits.renames),
        })
    }

    fn delete(&mut self, rng: &mut Rng) -> Option<Saved> {
        let id = self.random_id(rng)?;
        let record = self.objects.remove(&id)?;
        self.clock += i64::from(rng.u8(0..2));
        Some(Saved {
            id,
            before: Some(record),
            after: None,
            other_name: None,
        })
    }

    fn random_id(&self, rng: &mut Rng) -> Option<String> {
        let at = rng.usize(0..self.objects.len().max(1));
        self.objects.keys().nth(at).cloned()
    }

    /// The answer of a REST server: computed by other code than the code under test.
    fn find(&self, query: &Query, is_limited: bool) -> Vec<Object> {
        let query: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        let mut conditions = vec![&query["where"]];
        let mut found: Vec<_> = self.objects.iter().collect();
        while let Some(condition) = conditions.pop() {
            conditions.extend(condition["$and"].as_array().into_iter().flatten());
            if let Some(wanted) = condition["member"].as_bool() {
                found.retain(|(_, record)| record.is_member == wanted);
            }
            if let Some(after) = condition["objectId"]["$gt"].as_str() {
                found.retain(|(id, _)| self.habits.compare_texts(id, after).is_gt());
            }
            if let Some(ids) = condition["objectId"]["$in"].as_array() {
                found.retain(|(id, _)| ids.iter().any(|other| other == id.as_str()));
            }
        }
        let order = query["order"].as_str().unwrap_or_default().to_owned();
        found.sort_by(|a, b| {
            let by_key = |key: &str| {
                let (name, descending) = key.strip_prefix('-').map_or((key, false), |name| (name, true));
                let value = |(id, record): &(&String, &Record)| record.value(id, name);
                let ordering = self
                    .habits
                    .compare(value(a).as_ref(), value(b).as_ref(), name.contains('.'));
                if descending { ordering.reverse() } else { ordering }
            };
            order.split(',').fold(Ordering::Equal, |ordering, key| {
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
                limit.min(self.habits.max_limit)
            } else {
                limit
            })
            .map(|(id, record)| {
                let object = record.to_object(id, false);
                let Some(keys) = query["keys"].as_str() else {
                    return object;
                };
                let mut json = object.to_json();
                let is_sent = |name: &str| name == "createdAt" || keys.split(',').any(|key| key == name);
                json.as_object_mut().unwrap().retain(|name, _| is_sent(name));
                Object::from_json(json).unwrap()
            })
            .collect()
    }
}

/// Another query of the set, which it does not show yet.
struct Next {
    number: u64,
    query: Query,
    is_open: bool,
    events: VecDeque<Message>,
}

struct World {
    rng: Rng,
    server: Server,
    core: Core,
    query: Query,
    /// The number of that query, and of the last that was set.
    number: u64,
    last_number: u64,
    /// Those that are to come, the last one last: there are two while contents are shown that were saved.
    next: Vec<Next>,
    limits: Limits,
    /// Requests for a list of what there is.
    catch_ups: u64,
    now: Moment,
    is_open: bool,
    /// On their way to the set.
    events: VecDeque<Message>,
    /// Not yet read by the server, or read but not yet returned.
    request: Option<Box<Request>>,
    page: Option<(Box<Request>, Vec<Object>)>,
    /// All changes applied to an empty list.
    copy: Vec<Object>,
    last: Snapshot,
    is_ready: bool,
    stale_since: Option<SystemTime>,
    /// How many refreshes were requested, and how many of them have ended.
    refreshes: u64,
    refreshed: u64,
    failures: u32,
    history: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let server = Server::new(&mut rng);
        let query = random_query(&mut rng);
        let limits = Limits {
            least: rng.usize(1..6),
            smallest: 0,
            few: rng.usize(0..40),
            margin: MARGIN,
        };
        let clock = 1_700_000_000_000 + rng.u64(0..2 * PAUSE);
        let mut world = Self {
            core: Core::new(&query, seed),
            rng,
            limits,
            catch_ups: 0,
            history: format!("{} {:?}\n", query.to_json().unwrap(), server.habits),
            server,
            now: Moment {
                at: Instant::now(),
                time: SystemTime::UNIX_EPOCH + Duration::from_millis(clock),
            },
            is_open: false,
            events: VecDeque::new(),
            request: None,
            page: None,
            copy: Vec::new(),
            last: Snapshot(List::new()),
            is_ready: false,
            stale_since: None,
            refreshes: 0,
            refreshed: 0,
            failures: 0,
            query,
            number: 0,
            last_number: 0,
            next: Vec::new(),
        };
        world.prepare(0);
        for _ in 0..world.rng.usize(0..60) {
            world.server.create(&mut world.rng);
        }
        if world.rng.u8(0..4) == 0 {
            world.start_from_saved(seed);
        }
        world
    }

    /// The set existed before, and then the server continued without it.
    fn prepare(&mut self, number: u64) {
        let core = self.core.of(number).unwrap();
        core.catch_up_from(self.limits);
        if self.server.habits.is_unclear {
            core.cannot_judge();
        }
    }

    fn start_from_saved(&mut self, seed: u64) {
        if self.rng.bool() {
            // What was saved before is old enough to be taken as it is.
            self.pause();
            self.server.update(&mut self.rng);
        }
        let order = crate::query::order::Order::new(self.query.window().order);
        let found = self
            .server
            .find(&self.query.clone().ascending(order.for_find()), false);
        let entry = |object: &Object| Entry::new(&order, object, "Game").unwrap();
        let saved: Vec<_> = found.iter().map(entry).collect();
        let age = Duration::from_secs(if self.rng.bool() { 0 } else { 3600 });
        let (length, since) = (saved.len(), self.now.time - age);
        self.core = Core::new(&self.query, seed).starting_from(&self.query, saved, since, 0);
        self.prepare(0);
        for _ in 0..self.rng.usize(0..10) {
            self.server.update(&mut self.rng);
            self.server.create(&mut self.rng);
            self.server.delete(&mut self.rng);
        }
        self.number = SAVED;
        self.next.push(Next {
            number: 0,
            query: self.query.clone(),
            is_open: false,
            events: VecDeque::new(),
        });
        self.note(format_args!("starts from {length} that were saved"));
        self.look().unwrap();
        assert!(self.copy.len() == length && self.stale_since == Some(since));
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.history, "{text}").unwrap();
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.u8(0..100) {
            0..10 => {
                let saved = self.server.create(&mut self.rng);
                self.send(Some(saved));
            }
            10..32 => {
                let saved = self.server.update(&mut self.rng);
                self.send(saved);
            }
            32..38 => {
                let saved = self.server.delete(&mut self.rng);
                self.send(saved);
            }
            38..40 => self.pause(),
            40..61 => self.deliver(),
            61..70 => self.ask(),
            70 if self.rng.bool() => self.extend(),
            70 => self.set_query(),
            71..79 => self.read(),
            79..87 => self.answer(),
            87..91 => {
                let millis = self.rng.u64(0..400);
                self.pass(Duration::from_millis(millis));
            }
            91..93 => self.cut(),
            93..96 => self.open(),
            96 => self.lose(),
            97 => {
                self.note(format_args!("refresh"));
                self.refreshes += 1;
                assert_eq!(self.core.refresh(), self.refreshes);
            }
            98 => self.discard(),
            _ => self.fail(),
        }
        self.look()?;
        self.check()
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.time += time;
    }

    /// Nothing happens for a while, so that all that is on its way arrives.
    fn pause(&mut self) {
        while !self.events.is_empty() || self.next.iter().any(|next| !next.events.is_empty()) {
            self.deliver();
        }
        self.note(format_args!("pause"));
        self.pass(Duration::from_millis(PAUSE));
        self.server.clock += i64::try_from(PAUSE).unwrap();
    }

    fn send(&mut self, saved: Option<Saved>) {
        let Some(saved) = saved else { return };
        self.note(format_args!(
            "saved: {} {:?} was {:?}",
            saved.id, saved.after, saved.before
        ));
        let habits = self.server.habits;
        for next in self.next.iter_mut().filter(|next| next.is_open) {
            next.events.extend(saved.message(&next.query, habits));
        }
        if self.is_open {
            self.events.extend(saved.message(&self.query, habits));
        }
    }

    fn set_query(&mut self) {
        if self.next.last().is_some_and(|next| next.number > 0) && self.rng.bool() {
            self.note(format_args!("the new query is refused"));
            let error = Error::new(ErrorKind::Server, "no such query");
            self.core.withdraw(self.last_number, error, self.now);
            return;
        }
        let query = random_query(&mut self.rng);
        self.last_number += 1;
        let number = self.last_number;
        self.note(format_args!("set query {number}: {}", query.to_json().unwrap()));
        self.core.set_query(number, Core::new(&query, number), self.now);
        self.prepare(number);
        self.next.retain(|next| next.number == 0);
        self.next.push(Next {
            number,
            query,
            is_open: false,
            events: VecDeque::new(),
        });
    }

    fn extend(&mut self) {
        let number = self.rng.u64(0..5);
        self.note(format_args!("extend by {number}"));
        self.core.extend(usize::try_from(number).unwrap(), self.now);
        let query = self
            .next
            .last_mut()
            .map_or(&mut self.query, |next| &mut next.query);
        if let Some(limit) = query.window().limit {
            *query = query.clone().limit(limit + number);
        }
    }

    /// The core with this number, unless it is gone.
    fn core_of(&mut self, number: u64, hear: impl FnOnce(&mut Core, Moment)) {
        if let Some(core) = self.core.of(number).filter(|_| number != SAVED) {
            hear(core, self.now);
        }
    }

    fn deliver(&mut self) {
        // Not always in order.
        let ahead = if self.rng.u8(0..4) == 0 {
            self.rng.usize(0..4)
        } else {
            0
        };
        let is_for_next = self.events.is_empty() || self.rng.bool();
        let from_last = self.rng.bool();
        let has_events = |next: &&mut Next| is_for_next && !next.events.is_empty();
        let mut waiting = self.next.iter_mut().filter(has_events);
        let next = if from_last {
            waiting.next_back()
        } else {
            waiting.next()
        };
        let (number, events) = match next {
            Some(next) => (next.number, &mut next.events),
            None => (self.number, &mut self.events),
        };
        let at = ahead.min(events.len().saturating_sub(1));
        let Some(message) = events.remove(at) else {
            return;
        };
        if self.rng.u8(0..20) == 0 {
            // Again, and late.
            events.push_back(message.clone());
        }
        self.note(format_args!(
            "  arrives: {number} {} {:?}",
            message.kind, message.object
        ));
        self.core_of(number, |core, now| {
            core.event(message.kind, &message.object, message.original.as_ref(), now);
        });
    }

    fn ask(&mut self) {
        if let Some(request) = self.next_request() {
            self.asked(request);
        }
    }

    /// One thread fetches for both queries, one request after another.
    fn next_request(&mut self) -> Option<Box<Request>> {
        if self.request.is_some() || self.page.is_some() {
            return None;
        }
        match self.core.next_task_of_any(self.now.at) {
            Task::Fetch(request) => Some(request),
            Task::Wait(_) => None,
        }
    }

    fn asked(&mut self, request: Box<Request>) {
        let query = request.query.to_json().unwrap();
        self.catch_ups += u64::from(query.contains("\"keys\""));
        self.note(format_args!(
            "asks: {} {}",
            request.ticket,
            request.query.to_json().unwrap()
        ));
        self.request = Some(request);
        self.page = None;
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
            self.core_of(request.number, |core, now| {
                core.fetched(request.ticket, Ok(entries), now);
            });
        }
    }

    fn fail(&mut self) {
        let error = Error::new(ErrorKind::Fetch, "the server is busy");
        if self.rng.bool() {
            self.fail_with(error.into());
        } else if let Some(request) = self.next_request() {
            self.note(format_args!("cannot start: {}", request.ticket));
            self.core_of(request.number, |core, now| core.could_not_start(error, now));
        }
    }

    fn fail_with(&mut self, failure: FetchError) {
        if let Some(request) = self.request.take() {
            self.note(format_args!("fails: {}", request.ticket));
            self.core_of(request.number, |core, now| {
                core.fetched(request.ticket, Err(failure), now);
            });
        }
    }

    /// The answer belongs to another user.
    fn discard(&mut self) {
        if let Some((request, _)) = self.page.take() {
            self.note(format_args!("is discarded: {}", request.ticket));
            self.core_of(request.number, |core, now| core.discarded(request.ticket, now));
        }
    }

    fn cut(&mut self) {
        let mut cut = Vec::new();
        for next in self.next.iter_mut().filter(|next| next.is_open) {
            next.is_open = false;
            next.events.clear();
            cut.push(next.number);
        }
        for number in cut {
            self.core_of(number, |core, now| core.closed(now.time));
        }
        if std::mem::take(&mut self.is_open) {
            self.note(format_args!("cut"));
            self.events.clear();
            self.core_of(self.number, |core, now| core.closed(now.time));
        }
    }

    fn open(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.note(format_args!("open"));
            let lost_since = self.rng.bool().then(|| self.now.time - Duration::from_secs(10));
            self.core_of(self.number, |core, now| core.opened(lost_since, now));
        }
        let mut opened = Vec::new();
        for next in self.next.iter_mut().filter(|next| !next.is_open) {
            next.is_open = true;
            opened.push(next.number);
        }
        for number in opened {
            self.note(format_args!("open {number}"));
            self.core_of(number, |core, now| core.opened(None, now));
        }
    }

    /// Events are lost, and the set is notified, in one way or another.
    fn lose(&mut self) {
        if !self.is_open {
            return;
        }
        match self.events.pop_back().filter(|_| self.rng.bool()) {
            Some(message) => {
                self.note(format_args!("a hook replaces {:?}", message.object));
                let other = if self.rng.bool() {
                    json!({"className": "Other", "objectId": "x"})
                } else {
                    json!({"className": "Game"})
                };
                let other = Object::from_json(other).unwrap();
                self.core.event(message.kind, &other, None, self.now);
            }
            None => {
                self.events.clear();
                self.note(format_args!("missed"));
                self.core.missed(self.now);
            }
        }
    }

    /// What the listeners would be told.
    fn look(&mut self) -> Result<(), String> {
        self.core.take_over();
        let mut lengths = vec![self.last.len()];
        while let Some(output) = self.core.next_output() {
            match output {
                Output::Change(change, snapshot) => {
                    self.note(format_args!("    {change:?}"));
                    change.apply_to(&mut self.copy, &snapshot);
                    if !self.copy.iter().eq(snapshot.iter()) {
                        return Err(format!("the copy is {:#?}, the set {snapshot:#?}", self.copy));
                    }
                    lengths.push(snapshot.len());
                    self.last = snapshot;
                }
                Output::Ready if self.is_ready => return Err("ready twice".to_owned()),
                Output::Ready => {
                    self.note(format_args!("    ready"));
                    self.is_ready = true;
                    self.stale_since = None;
                }
                Output::Stale(since) if self.number == SAVED && self.stale_since.is_none() => {
                    self.stale_since = Some(since);
                }
                Output::Stale(_) if !self.is_ready => return Err("stale, and was not ready".to_owned()),
                Output::Stale(since) => {
                    self.note(format_args!("    stale"));
                    self.is_ready = false;
                    self.stale_since = Some(since);
                }
                Output::Failed(_) => self.failures += 1,
                Output::Refreshed(number, _) if number <= self.refreshed || number > self.refreshes => {
                    return Err(format!("refreshed {number} after {}", self.refreshed));
                }
                Output::Refreshed(number, _) => self.refreshed = number,
                Output::Answered(number, Err(_)) => {
                    let last = self.next.last().filter(|next| next.number == number);
                    last.ok_or("answered twice")?;
                    self.next.pop();
                }
                // It took the place of one that was to come as well.
                Output::Answered(number, Ok(())) if number == self.number => {}
                Output::Answered(number, Ok(())) => {
                    let place = self.next.iter().position(|next| next.number == number);
                    let place = place.ok_or("answered twice")?;
                    let next = self.next.drain(..=place).next_back().unwrap();
                    self.note(format_args!("    query {number} is shown"));
                    (self.number, self.query, self.events) = (next.number, next.query, next.events);
                    self.is_open = next.is_open;
                    let has_ends = lengths.first() != Some(&0) && lengths.last() != Some(&0);
                    if has_ends && lengths.contains(&0) {
                        return Err(format!("an empty moment: {lengths:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks what the set says of itself.
    fn check(&mut self) -> Result<(), String> {
        if self.core.is_ready() != self.is_ready {
            return Err("it says one thing and is another".to_owned());
        }
        let since = self.core.stale_since();
        if since.is_some() != self.stale_since.is_some() || since > self.stale_since {
            return Err(format!("stale since {since:?}, and told {:?}", self.stale_since));
        }
        for object in self.last.iter() {
            let id = object.id().unwrap();
            let key = self.core.key_of(id);
            // A change of the order that changes no position is not reported.
            if key.is_none_or(|key| self.last.find(key).or_else(|| self.last.index_of(id)).is_none()) {
                return Err(format!("{object:?} is shown, and not found"));
            }
        }
        let is_quiet = self.events.is_empty() && self.request.is_none() && self.page.is_none();
        if !self.is_ready || !is_quiet {
            return Ok(());
        }
        self.compare()
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) -> Result<(), String> {
        self.note(format_args!("settles"));
        self.open();
        for _ in 0..10_000 {
            self.look()?;
            let next_has_events = self.next.iter().any(|next| !next.events.is_empty());
            if !self.events.is_empty() || next_has_events {
                self.deliver();
            } else if self.page.is_some() {
                self.answer();
            } else if self.request.is_some() {
                self.read();
            } else {
                match self.core.next_task_of_any(self.now.at) {
                    Task::Fetch(request) => self.asked(request),
                    Task::Wait(Some(at)) => self.pass(at - self.now.at),
                    Task::Wait(None) => return self.rest(),
                }
            }
        }
        Err("it never comes to rest".to_owned())
    }

    fn rest(&mut self) -> Result<(), String> {
        if !self.is_ready {
            return Err("it is at rest and not ready".to_owned());
        }
        if self.refreshed != self.refreshes {
            return Err("it has forgotten to tell of a refresh".to_owned());
        }
        self.check()?;
        self.compare()
    }

    fn compare(&self) -> Result<(), String> {
        let order: Vec<_> = crate::query::order::Order::new(self.query.window().order).for_find();
        let expected = self.server.find(&self.query.clone().ascending(order), false);
        let is_equal = |(one, other): (&Object, &Object)| {
            let tagged = |object: &Object| {
                let mut json = object.to_json();
                if let Some(text) = json["when"].as_str() {
                    json["when"] = json!({"__type": "Date", "iso": text});
                }
                json
            };
            one == other || tagged(one) == tagged(other)
        };
        if expected.len() != self.copy.len() || !expected.iter().zip(&self.copy).all(is_equal) {
            return Err(format!("the server has {expected:#?}, the set {:#?}", self.copy));
        }
        Ok(())
    }
}

fn random_query(rng: &mut Rng) -> Query {
    let query = Query::new("Game");
    let mut query = match rng.u8(0..6) {
        0 => query.equal_to("member", false),
        1 => query.exists("member"),
        _ => query.equal_to("member", true),
    };
    query = match rng.u8(0..8) {
        0 => query,
        1 => query.ascending(["score"]),
        2 => query.descending(["score"]).add_ascending(["name"]),
        3 => query.descending(["name"]),
        4 => query.ascending(["when"]).add_descending(["name"]),
        5 => query.ascending(["box.inner"]),
        6 => query.descending(["box.inner"]).add_ascending(["objectId"]),
        _ => query.ascending(["name", "score"]).add_descending(["createdAt"]),
    };
    if rng.bool() {
        query = query.limit(rng.u64(0..6));
    }
    if rng.u8(0..3) == 0 {
        query = query.skip(rng.u64(0..5));
    }
    query
}

/// Returns how many lists of what there is were asked for.
fn history(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let mut run = || {
        for _ in 0..world.rng.usize(1..4) {
            if world.rng.bool() {
                world.pause();
            }
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
    world.catch_ups
}

#[test]
fn the_changes_are_the_truth_and_lead_to_what_the_server_has() {
    if let Ok(seed) = std::env::var("LIVE_SET_SEED") {
        history(seed.parse().unwrap());
        return;
    }
    let histories = std::env::var("LIVE_SET_HISTORIES").map_or(100, |number| number.parse().unwrap());
    let first = fastrand::u64(..u64::MAX / 2);
    let catch_ups: u64 = (first..first + histories).map(history).sum();
    println!("{catch_ups} requests for a list in {histories} histories");
    assert!(histories < 100 || catch_ups > 0);
}

/// An event is late by less than this, in milliseconds, and all are there after a pause.
const MARGIN: i64 = 300;
const PAUSE: u64 = 30_000;

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
    let start = world.now.at;
    let mut requests = 0;
    while world.now.at < start + Duration::from_secs(60) {
        match world.core.next_task(world.now.at) {
            Task::Fetch(request) => {
                requests += 1;
                world.asked(request);
                let error = Error::new(ErrorKind::Fetch, "the server is busy");
                if requests % 2 == 0 {
                    world.fail_with(error.into());
                } else {
                    world.request = None;
                    world.core.could_not_start(error, world.now);
                }
            }
            Task::Wait(Some(at)) => {
                assert!(at > world.now.at);
                world.pass(at - world.now.at);
            }
            Task::Wait(None) => panic!("it has given up"),
        }
        // The set must say that it is stale.
        world.look().unwrap();
        assert!(!world.is_ready && world.stale_since.is_some());
        // Events continue.
        let saved = world.server.update(&mut world.rng);
        world.send(saved);
        world.deliver();
        world.look().unwrap();
    }
    assert_eq!(world.failures, requests);
    assert!((3..=15).contains(&requests), "{requests} requests in a minute");
    world.settle().unwrap();
    assert!(world.now.at < start + Duration::from_secs(60 + 61));
}

//! Live sets on a real Parse Server: whatever happens to the link, the server and the rights to read, a set ends up
//! equal to `find()`.
//!
//! `LIVE_SET_SEEDS` says how many random stories are told, `LIVE_SET_SEED` brings one back. `LIVE_SET_DATABASE` is the URI
//! of a database in place of the Postgres that the server brings along: that of MongoDB, or of a program that sorts as
//! MongoDB does.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::{Client, Date, LiveSet, LiveSetBuilder, Object, Query};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};
use serde_json::{Value, json};

use crate::generate;
use crate::recorder::{builder, builder_for, client};
use crate::support::port;
use crate::support::{APPLICATION_ID, Options, PATIENCE, ParseServer, User, only, wait_until};

#[path = "../it/support/proxy.rs"]
#[expect(unreachable_pub, dead_code, reason = "these tests need a part of it")]
pub(crate) mod proxy;

use proxy::Proxy;

/// One of each kind: as it comes, with a hook that throws and renames, with one that drops events, and with events out of
/// order. In every third one the server is killed.
const SEEDS: u64 = 4;
const WRITERS: u64 = 4;
/// In each, writers write while the weather is bad; at its end the set is compared.
const ROUNDS: usize = 2;
const FAULTS_IN_A_ROUND: usize = 5;

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_set_is_equal_to_find_after_any_weather() {
    let database_uri = std::env::var("LIVE_SET_DATABASE").ok();
    let server = ParseServer::start(Options {
        keeps_data: database_uri.is_none(),
        database_uri,
        websocket_timeout: Duration::from_secs(1),
        ..Options::default()
    });
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("LIVE_SET_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("LIVE_SET_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        Story::new(&server, seed).tell();
    }
}

/// One set, those who write what is in it, and the weather.
struct Story<'a> {
    server: &'a ParseServer,
    rng: StdRng,
    class: String,
    query: Query,
    restarts_server: bool,
    /// How many objects the server returns at once, as far as the set knows.
    max_limit: u64,
    log: Arc<Log>,
}

impl<'a> Story<'a> {
    fn new(server: &'a ParseServer, seed: u64) -> Self {
        let mut rng = generate::seeded(seed);
        let class = match seed % 4 {
            // The events of an object come in any order: a hook of the server takes its time.
            0 => "OutOfOrder".to_owned(),
            1 => format!("Story{seed}"),
            2 => "Renames".to_owned(),
            _ => "Drops".to_owned(),
        };
        let query = random_query(&class, &mut rng);
        let log = Arc::new(Log::new(format!(
            "LIVE_SET_SEED={seed}: {}",
            query.to_json().unwrap()
        )));
        Self {
            server,
            class,
            query,
            restarts_server: seed % 3 == 0,
            max_limit: *[5, 20, 1000].choose(&mut rng).unwrap(),
            rng,
            log,
        }
    }

    fn tell(mut self) {
        let fields = json!({
            "flag": {"type": "Boolean"}, "score": {"type": "Number"}, "name": {"type": "String"},
            "note": {"type": "Number"}, "tags": {"type": "Array"}, "box": {"type": "Object"},
            "when": {"type": "Date"},
        });
        let schema = json!({"className": self.class, "fields": fields});
        let path = format!("/schemas/{}", self.class);
        if self.server.has_class(&self.class) {
            // With the objects of an earlier story.
            let objects = format!("/purge/{}", self.class);
            self.server.rest("DELETE", &objects, &[], None);
            self.server.rest("DELETE", &path, &[], None);
        }
        self.server.rest("POST", &path, &[], Some(&schema));
        let mut owned: Vec<Vec<String>> = vec![Vec::new(); WRITERS as usize];
        for at in 0..self.rng.random_range(0..40) {
            let id = self.server.create(&self.class, &new_object(&mut self.rng));
            owned[at % WRITERS as usize].push(id);
        }

        let proxy = Proxy::to((Ipv4Addr::LOCALHOST, self.server.port()).into());
        let client = builder_for(proxy.url())
            .idle_ping(Duration::from_millis(700))
            .pong_timeout(Duration::from_millis(700))
            .connect_timeout(Duration::from_secs(3))
            .reconnect_delay(Duration::from_millis(20), Duration::from_millis(200))
            .build()
            .unwrap();
        let fetches = Arc::new(AtomicUsize::new(0));
        let set = self.live_set(&client, &fetches);
        let (sender, markers) = mpsc::channel();
        let _marking = client
            .subscription(&Query::new("Marker"))
            .on_create(move |event| {
                let _ = sender.send(event.id().map(ToOwned::to_owned));
            })
            .start()
            .unwrap();
        // Where somebody constrains a date, old servers send it as text to everybody.
        let _constraining = client
            .subscribe(&Query::new(self.class.as_str()).greater_than("when", a_date(1)))
            .unwrap();
        for _ in 0..ROUNDS {
            self.weather(&proxy, &mut owned);
            self.wait_for_events(&markers);
            if self.class == "Drops" {
                // Nobody can know of what was dropped.
                wait_until("it is refreshed", || set.refresh().wait(PATIENCE).is_ok());
            }
            self.compare(&set);
        }
        println!(
            "{}: {} objects of {}, {} changes, {} late events, {} fetches, {} connections",
            self.log.title,
            set.len(),
            owned.iter().map(Vec::len).sum::<usize>(),
            self.log.changes.load(Ordering::SeqCst),
            self.log.late.load(Ordering::SeqCst),
            fetches.load(Ordering::SeqCst),
            client.stats().connections,
        );
    }

    fn live_set(&self, client: &Client, fetches: &Arc<AtomicUsize>) -> LiveSet {
        let (log, fetches) = (Arc::clone(&self.log), Arc::clone(fetches));
        let fetch = Fetch::new(self.server, None);
        let max_limit = self.max_limit;
        let find = move |query: &Query| {
            if fetches.fetch_add(1, Ordering::SeqCst) % 5 == 3 {
                log.note(format_args!("fetch: fails"));
                return Err("as the test wants it".to_owned());
            }
            let found = fetch.find(query, max_limit);
            log.note(format_args!(
                "fetch: {}: {found:?}",
                query.to_json().unwrap_or_default()
            ));
            found
        };
        let (ready, stale, errors) = (self.log(), self.log(), self.log());
        let set = follow(client.live_set(&self.query), &self.log)
            .fetch_with(find)
            .on_ready(move |set| ready.note(format_args!("ready: {}", set.len())))
            .on_stale(move |_| stale.note(format_args!("stale")))
            .on_error(move |error| errors.note(format_args!("error: {error}")))
            .start()
            .unwrap();
        let log = self.log();
        let mut last_saves = HashMap::new();
        set.subscription().on_any(move |event| {
            if let Some((object, id)) = event.object().zip(event.id()) {
                let last_save = last_saves.entry(id.to_owned()).or_default();
                let is_late = object.updated_at() < *last_save;
                log.late.fetch_add(usize::from(is_late), Ordering::SeqCst);
                *last_save = object.updated_at().max(*last_save);
            }
            log.note(format_args!(
                "event: {} {:?} was {:?}",
                event.kind(),
                event.object(),
                event.original()
            ));
        });
        set
    }

    fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    /// Lets the writers write while the link breaks in this way and that.
    fn weather(&mut self, proxy: &Proxy, owned: &mut [Vec<String>]) {
        let restarts_server = std::mem::take(&mut self.restarts_server);
        let Self {
            server,
            class,
            log,
            rng,
            ..
        } = self;
        let (server, class, log): (&ParseServer, &str, &Log) = (server, class, log);
        let fault = |name: &str, fault: &dyn Fn()| {
            log.note(format_args!("{name}"));
            fault();
        };
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for ids in owned {
                let rng = generate::seeded(rng.next_u64());
                let writer = Writer {
                    server,
                    class,
                    log,
                    rng,
                    ids,
                    last: 0,
                };
                scope.spawn(|| writer.write_until(&is_over));
            }
            for _ in 0..FAULTS_IN_A_ROUND {
                pause(rng, 20..300);
                let kind = rng.random_range(0..7);
                match kind {
                    0 => fault("cut", &|| proxy.cut()),
                    1 => fault("reset", &|| proxy.reset()),
                    2 => fault("delay", &|| proxy.delay(Duration::from_millis(150))),
                    3 => fault("trickle", &|| proxy.chunks_of(100, Duration::from_millis(5))),
                    4 => fault("refuse", &|| {
                        proxy.refuse();
                        proxy.cut();
                    }),
                    5 => fault("blackhole", &|| proxy.blackhole()),
                    _ => fault("stall", &|| proxy.stall_after(300)),
                }
                // Silence takes the client a while to notice.
                pause(rng, if kind < 5 { 50..500 } else { 500..2000 });
                fault("heal", &|| proxy.heal());
            }
            if restarts_server {
                fault("kill", &|| server.kill());
                fault("start again", &|| server.start_again());
            }
            // What goes wrong now is not made good by the fetch after a cut.
            pause(rng, 800..1500);
            is_over.store(true, Ordering::SeqCst);
        });
        log.note(format_args!("quiet"));
    }

    /// Waits until the set has got all events: those that are late would not be missed, and may do harm.
    fn wait_for_events(&self, markers: &Receiver<Option<String>>) {
        wait_until("no event is held back", || self.server.events_held_back() == 0);
        wait_until("a marker comes behind all events", || {
            let id = self.server.create("Marker", &json!({}));
            let next = || markers.recv_timeout(Duration::from_secs(1)).ok();
            std::iter::from_fn(next).flatten().any(|marker| marker == id)
        });
        self.log.note(format_args!("all events have come"));
    }

    /// Waits until the set is what `find()` finds, now that nothing happens any more.
    fn compare(&self, set: &LiveSet) {
        let expected = self.find();
        wait_until_equal(set, &expected);
        let copy = self.log.copy.lock().unwrap();
        assert!(copy.iter().eq(&set.snapshot()), "the changes led to {copy:#?}");
        let faults = self.log.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    fn find(&self) -> Vec<Value> {
        let query: Value = serde_json::from_str(&self.query.to_json().unwrap()).unwrap();
        let order = match query["order"].as_str().filter(|order| !order.is_empty()) {
            Some(order) if order.contains("objectId") => order.to_owned(),
            Some(order) => format!("{order},objectId"),
            None => "createdAt,objectId".to_owned(),
        };
        let limit = query["limit"].as_u64().unwrap_or(10_000).to_string();
        let skip = query["skip"].as_u64().unwrap_or(0).to_string();
        let parameters = [("order", order.as_str()), ("limit", &limit), ("skip", &skip)];
        let mut found = self.server.find(&self.class, &query["where"], &parameters);
        found.iter_mut().for_each(without_nulls);
        found
    }
}

/// Saves objects that nobody else saves: two saves of one object at a time are more than Parse Server tells of.
struct Writer<'a> {
    server: &'a ParseServer,
    class: &'a str,
    log: &'a Log,
    rng: StdRng,
    ids: &'a mut Vec<String>,
    /// The place of the object that was saved last.
    last: usize,
}

impl Writer<'_> {
    fn write_until(mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::SeqCst) {
            if self.write().is_err() {
                // The server is down.
                thread::sleep(Duration::from_millis(50));
            }
            thread::sleep(Duration::from_millis(self.rng.random_range(0..40)));
        }
    }

    fn write(&mut self) -> Result<(), String> {
        if self.rng.random() {
            self.last = self.rng.random_range(0..self.ids.len().max(1));
        }
        let at = self.last;
        let id = self.ids.get(at).cloned();
        let done = match (self.rng.random_range(0..10), id) {
            (0..2, _) | (_, None) => {
                let object = new_object(&mut self.rng);
                let id = self.server.try_create(self.class, &object)?;
                self.log.note(format_args!("created {id}: {object}"));
                self.ids.push(id);
                Ok(())
            }
            (2, Some(id)) => {
                self.ids.swap_remove(at);
                self.server
                    .try_delete(self.class, &id)
                    .map(|()| self.log.note(format_args!("deleted {id}")))
            }
            (_, Some(id)) => {
                let changes = changes(&mut self.rng);
                let updated = self.server.try_update(self.class, &id, &changes);
                updated.map(|answer| self.log.note(format_args!("updated {id}: {changes}: {answer}")))
            }
        };
        done.inspect_err(|error| self.log.note(format_args!("failed: {error}")))
    }
}

/// What happened, which is printed if it led to a failure, and what the changes of the set lead to.
struct Log {
    title: String,
    began: Instant,
    lines: Mutex<String>,
    changes: AtomicUsize,
    /// Events of a save that came after those of a later one.
    late: AtomicUsize,
    copy: Mutex<Vec<Object>>,
    faults: Mutex<Vec<String>>,
}

impl Log {
    fn new(title: String) -> Self {
        Self {
            title,
            began: Instant::now(),
            lines: Mutex::default(),
            changes: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            copy: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    fn note(&self, text: std::fmt::Arguments<'_>) {
        let millis = self.began.elapsed().as_millis();
        writeln!(self.lines.lock().unwrap(), "{millis:6} {text}").unwrap();
    }
}

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}\n{}", self.log.title, self.log.lines.lock().unwrap());
        }
    }
}

/// Makes each change in a list, which then has to be the contents.
fn follow(builder: LiveSetBuilder, log: &Arc<Log>) -> LiveSetBuilder {
    let log = Arc::clone(log);
    builder.on_change(move |change, set| {
        log.note(format_args!("  {change:?}"));
        log.changes.fetch_add(1, Ordering::SeqCst);
        let mut copy = log.copy.lock().unwrap();
        change.apply_to(&mut copy, set);
        if !copy.iter().eq(set) {
            let fault = format!("{change:?} led to {copy:#?}, and the set is {set:#?}");
            log.faults.lock().unwrap().push(fault);
        }
    })
}

/// `find()` of a user, over REST.
#[derive(Clone)]
struct Fetch {
    url: String,
    agent: ureq::Agent,
    session_token: Arc<Mutex<Option<String>>>,
}

impl Fetch {
    fn new(server: &ParseServer, session_token: Option<&str>) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            url: server.url(),
            agent,
            session_token: Arc::new(Mutex::new(session_token.map(ToOwned::to_owned))),
        }
    }

    fn log_in(&self, user: &User) {
        *self.session_token.lock().unwrap() = Some(user.session_token.clone());
    }

    fn find(&self, query: &Query, max_limit: u64) -> Result<Vec<Object>, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let mut body: Value = serde_json::from_str(&query.to_json().map_err(|error| failed(&error))?)
            .map_err(|error| failed(&error))?;
        body["_method"] = "GET".into();
        body["limit"] = body["limit"].as_u64().unwrap_or(100).min(max_limit).into();
        let mut request = self
            .agent
            .post(format!("{}/classes/{}", self.url, query.class_name()))
            .header("X-Parse-Application-Id", APPLICATION_ID)
            .header("Content-Type", "application/json");
        if let Some(token) = &*self.session_token.lock().unwrap() {
            request = request.header("X-Parse-Session-Token", token);
        }
        let mut answer = request.send(body.to_string()).map_err(|error| failed(&error))?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| failed(&error))?;
        let mut found: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        let Value::Array(found) = found["results"].take() else {
            return Err(text);
        };
        found
            .into_iter()
            .map(|object| Object::from_json(object).map_err(|error| failed(&error)))
            .collect()
    }
}

/// What both have of an object: `find()` leaves out the name of the class, and on Postgres fields that are null.
fn contents(set: &LiveSet) -> Vec<Value> {
    let without = |object: &Object| {
        let mut object: Value = serde_json::from_str(object.as_json()).unwrap();
        without_nulls(&mut object);
        object
    };
    set.snapshot().iter().map(without).collect()
}

fn without_nulls(object: &mut Value) {
    let members = object.as_object_mut().unwrap();
    members.retain(|name, value| name != "className" && !value.is_null());
}

#[track_caller]
fn wait_until_equal(set: &LiveSet, expected: &[Value]) {
    let deadline = Instant::now() + PATIENCE;
    let mut claimed_since = None;
    loop {
        let contents = contents(set);
        let is_ready = set.is_ready();
        if is_ready && contents == expected {
            return;
        }
        // What it has heard may be waiting for its turn, but not for so long.
        let since = *claimed_since.get_or_insert_with(Instant::now);
        if !is_ready {
            claimed_since = None;
        }
        assert!(
            Instant::now() < deadline && since.elapsed() < Duration::from_secs(5),
            "find() has\n{}and {set:?} has\n{}",
            lines(expected),
            lines(&contents)
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn lines(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}

fn pause(rng: &mut StdRng, millis: Range<u64>) {
    thread::sleep(Duration::from_millis(rng.random_range(millis)));
}

fn random_query(class: &str, rng: &mut StdRng) -> Query {
    let query = Query::new(class);
    let mut query = match rng.random_range(0..8) {
        0 => query,
        1 => query.equal_to("flag", true),
        2 => query.greater_than("score", 2),
        3 => query.less_than_or_equal_to("score", 2),
        4 => query.contained_in("name", ["a", "ab", "B"]),
        // SecantusDB refuses `\Q..\E`.
        5 if std::env::var_os("LIVE_SET_DATABASE").is_none() => query.starts_with("name", "a"),
        6 => query.greater_than("note", 300),
        _ => query.equal_to("flag", false).not_equal_to("score", 3),
    };
    let mut keys = vec![
        "score",
        "name",
        "flag",
        "createdAt",
        "updatedAt",
        "objectId",
        "tags",
        "box",
        "box.inner",
        "when",
    ];
    for _ in 0..rng.random_range(0..3) {
        let key = keys.swap_remove(rng.random_range(0..keys.len()));
        query = if rng.random() {
            query.add_ascending([key])
        } else {
            query.add_descending([key])
        };
    }
    if rng.random() {
        query = query.limit(rng.random_range(0..15));
    }
    if rng.random_range(0..3) == 0 {
        query = query.skip(rng.random_range(0..8));
    }
    query
}

fn new_object(rng: &mut StdRng) -> Value {
    let mut object = json!({"note": rng.random_range(0..1000)});
    for field in FIELDS {
        match rng.random_range(0..6) {
            0 => {}
            1 => object[field] = Value::Null,
            _ => object[field] = value(field, rng),
        }
    }
    object
}

fn changes(rng: &mut StdRng) -> Value {
    let mut changes = json!({"note": rng.random_range(0..1000)});
    for field in FIELDS {
        match rng.random_range(0..10) {
            0..5 => {}
            5 => changes[field] = Value::Null,
            6 => changes[field] = json!({"__op": "Delete"}),
            7 if field == "score" => changes[field] = json!({"__op": "Increment", "amount": 1}),
            _ => changes[field] = value(field, rng),
        }
    }
    changes
}

const FIELDS: [&str; 6] = ["flag", "score", "name", "tags", "box", "when"];

fn a_date(day: u8) -> Date {
    Date::parse(&format!("2024-01-0{day}T00:00:00.000Z")).unwrap()
}

fn value(field: &str, rng: &mut StdRng) -> Value {
    match field {
        "tags" => (0..rng.random_range(0..3))
            .map(|_| rng.random_range(0..4))
            .collect::<Vec<u8>>()
            .into(),
        "box" => {
            let inner = [
                json!(1),
                json!(2),
                json!("1"),
                json!("b"),
                json!(true),
                json!([1, 2]),
                json!({"a": 1}),
                Value::Null,
            ];
            json!({"inner": inner.choose(rng).unwrap()})
        }
        "when" => json!(a_date(rng.random_range(1..5))),
        "flag" => rng.random::<bool>().into(),
        "score" => json!(f64::from(rng.random_range(0..10)) / 2.0),
        _ => {
            let names = ["", "a", "ab", "a b", "a-b", "B", "b", "Z", "é", "z", "日本"];
            (*names.choose(rng).unwrap()).into()
        }
    }
}

/// A set of a user's objects, and how they are fetched.
fn set_of(client: &Client, query: &Query, fetch: &Fetch) -> (LiveSet, Arc<Log>) {
    set_with(client, query, fetch, |set| set)
}

fn set_with(
    client: &Client,
    query: &Query,
    fetch: &Fetch,
    adapt: impl FnOnce(LiveSetBuilder) -> LiveSetBuilder,
) -> (LiveSet, Arc<Log>) {
    let log = Arc::new(Log::new(String::new()));
    let find = fetch.clone();
    let set = follow(adapt(client.live_set(query)), &log)
        .fetch_with(move |query| find.find(query, 1000))
        .start()
        .unwrap();
    set.wait_ready(PATIENCE).unwrap();
    (set, log)
}

fn assert_followed(set: &LiveSet, log: &Log) {
    assert!(log.copy.lock().unwrap().iter().eq(&set.snapshot()));
    assert_eq!(*log.faults.lock().unwrap(), [""; 0]);
}

fn found(fetch: &Fetch, query: &Query) -> Vec<Value> {
    let found = fetch.find(&query.clone().ascending(["createdAt", "objectId"]), 1000);
    let objects = found.unwrap().into_iter();
    objects
        .map(|object| serde_json::from_str(object.as_json()).unwrap())
        .collect()
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_set_follows_its_session_token() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("set-alice"), server.sign_up("set-bob"));
    let query = Query::new("SetOfUser");
    let both = json!({ alice.id.as_str(): {"read": true}, bob.id.as_str(): {"read": true} });
    let readers = [both, only(&alice), only(&bob)];
    for n in 0..12 {
        let readers = &readers[n % 3];
        server.create("SetOfUser", &json!({"n": n, "ACL": readers}));
    }
    let fetch = Fetch::new(server, Some(&alice.session_token));
    let numbers = |set: &LiveSet| -> Vec<_> {
        let set = set.snapshot();
        set.iter().filter_map(|object| object.get_i64("n")).collect()
    };

    // A token of the set's own. The client has none: Parse Server would send what that one may read as well.
    let client_of_nobody = client(server);
    let (set, log) = set_with(&client_of_nobody, &query, &fetch, |set| {
        set.session_token(&alice.session_token)
    });
    assert_eq!(numbers(&set), [0, 1, 3, 4, 6, 7, 9, 10]);
    fetch.log_in(&bob);
    set.set_session_token(Some(&bob.session_token)).unwrap();
    wait_until_equal(&set, &found(&fetch, &query));
    assert_eq!(numbers(&set), [0, 2, 3, 5, 6, 8, 9, 11]);
    // Events come as this user gets them as well.
    server.create("SetOfUser", &json!({"n": 12, "ACL": only(&alice)}));
    server.create("SetOfUser", &json!({"n": 13, "ACL": only(&bob)}));
    wait_until("bob's object is there", || numbers(&set).contains(&13));
    wait_until_equal(&set, &found(&fetch, &query));
    assert_eq!(numbers(&set), [0, 2, 3, 5, 6, 8, 9, 11, 13]);
    assert_followed(&set, &log);

    // The client's token.
    let client = builder(server).session_token(&bob.session_token).build().unwrap();
    let (set, log) = set_of(&client, &query, &fetch);
    assert_eq!(numbers(&set), [0, 2, 3, 5, 6, 8, 9, 11, 13]);
    fetch.log_in(&alice);
    client.set_session_token(Some(&alice.session_token));
    wait_until_equal(&set, &found(&fetch, &query));
    assert_eq!(numbers(&set), [0, 1, 3, 4, 6, 7, 9, 10, 12]);
    assert_followed(&set, &log);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_set_follows_access_control_lists() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("acl-set-alice"), server.sign_up("acl-set-bob"));
    let query = Query::new("SetOfRights");
    let mine = server.create("SetOfRights", &json!({"ACL": only(&alice)}));
    let other = server.create("SetOfRights", &json!({"ACL": only(&bob)}));
    let client = builder(server)
        .session_token(&alice.session_token)
        .build()
        .unwrap();
    let fetch = Fetch::new(server, Some(&alice.session_token));
    let (set, log) = set_of(&client, &query, &fetch);
    assert!(set.get(&mine).is_some() && set.get(&other).is_none());

    for _ in 0..3 {
        server.update("SetOfRights", &mine, &json!({"ACL": only(&bob)}));
        wait_until("alice's object is taken out", || set.get(&mine).is_none());
        wait_until_equal(&set, &found(&fetch, &query));
        server.update("SetOfRights", &other, &json!({"ACL": only(&alice)}));
        wait_until("bob's object comes in", || set.get(&other).is_some());
        wait_until_equal(&set, &found(&fetch, &query));
        server.update("SetOfRights", &mine, &json!({"ACL": only(&alice)}));
        server.update("SetOfRights", &other, &json!({"ACL": only(&bob)}));
        wait_until_equal(&set, &found(&fetch, &query));
        assert!(set.get(&mine).is_some() && set.get(&other).is_none());
    }
    assert_followed(&set, &log);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_set_makes_up_for_events_that_fail_in_the_server() {
    let server = ParseServer::shared();
    let client = client(server);
    let query = Query::new("SetThrows");
    let fetch = Fetch::new(server, None);
    let (set, log) = set_of(&client, &query, &fetch);
    let errors = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&errors);
    set.on_error(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let id = server.create("SetThrows", &json!({"fail": true, "n": 1}));
    wait_until_equal(&set, &found(&fetch, &query));
    assert_eq!(set.get(&id).unwrap().get_i64("n"), Some(1));
    server.update("SetThrows", &id, &json!({"n": 2}));
    wait_until_equal(&set, &found(&fetch, &query));
    server.delete("SetThrows", &id);
    wait_until_equal(&set, &[]);
    wait_until("each failure was told", || errors.load(Ordering::SeqCst) == 3);
    assert_followed(&set, &log);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_set_whose_session_is_revoked_says_that_it_may_be_old() {
    let server = ParseServer::shared();
    let alice = server.sign_up("revoked-alice");
    let id = server.create("SetRevoked", &json!({"ACL": only(&alice)}));
    let fetch = Fetch::new(server, Some(&alice.session_token));
    let client_of_nobody = client(server);
    let (set, log) = set_with(&client_of_nobody, &Query::new("SetRevoked"), &fetch, |set| {
        set.session_token(&alice.session_token)
    });
    assert!(set.get(&id).is_some());
    server.log_out(&alice);
    let error = set.refresh().wait(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("209"), "{error}");
    assert!(!set.is_ready() && set.stale_since().is_some());
    // What can still be read is what there is with another session.
    let bob = server.sign_up("revoked-bob");
    fetch.log_in(&bob);
    set.set_session_token(Some(&bob.session_token)).unwrap();
    wait_until_equal(&set, &[]);
    assert_followed(&set, &log);
}

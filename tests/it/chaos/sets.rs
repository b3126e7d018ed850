//! Live sets with order and limit. At quiet moments, when nobody saves and the network is well, each is what the server
//! would find; at any time its changes lead from one list to the next, sorted and within the limit.

use std::cmp::Ordering as Sorting;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use fastrand::Rng;
use parking_lot::{Mutex, RwLock};
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, LiveSet, Object, Query, Snapshot};
use serde_json::{Value, json};

use super::Part;
use super::log::Log;
use super::network;
use super::route::Route;
use crate::harness::*;
use crate::support::*;

pub fn play(mut part: Part) -> Result<String, String> {
    let shelf = Arc::new(Shelf::new(part.rng.fork()));
    let addr = shelf.server.address();
    let reader = |route: Route| Reader::new(route, &shelf, &part.log);
    let readers = [reader(Route::plain(addr)), reader(Route::secure(addr))];
    let stop = AtomicBool::new(false);
    let judged = thread::scope(|scope| {
        let mut actors = vec![];
        for _ in 0..2 {
            let (mut rng, shelf, stop) = (part.rng.fork(), &shelf, &stop);
            actors.push(scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    shelf.save(&mut rng);
                    thread::park_timeout(ms(rng.u64(0..10)));
                }
            }));
        }
        for reader in &readers {
            let (mut rng, shelf, stop) = (part.rng.fork(), &shelf, &stop);
            actors.push(scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let _not_when_it_is_quiet = shelf.gate.read();
                    network::fail(&reader.route.proxy, &reader.log, &mut rng, |_| shelf.server.cut());
                }
            }));
        }
        let mut rng = part.rng.fork();
        let mut judged = Ok(());
        while judged.is_ok() && part.goes_on() {
            thread::park_timeout(ms(rng.u64(500..3000)));
            judged = shelf.while_quiet(|| readers.iter().try_for_each(|reader| reader.judge(&shelf)));
            let reader = &readers[rng.usize(0..readers.len())];
            reader.disturb(&shelf, &mut rng);
        }
        stop.store(true, Ordering::SeqCst);
        for actor in actors {
            if let Err(panic) = actor.join() {
                resume_unwind(panic);
            }
        }
        judged
    });
    judged?;
    if let Some(reader) = readers.iter().find(|reader| reader.log.has_failed()) {
        return Err(reader.log.around(vec![]));
    }
    shelf.while_quiet(|| readers.iter().try_for_each(|reader| reader.judge(&shelf)))?;
    let sum = |count: fn(&Reader) -> &AtomicU64| -> u64 {
        readers
            .iter()
            .map(|reader| count(reader).load(Ordering::SeqCst))
            .sum()
    };
    Ok(format!(
        "{} saves, {} fetches, {} times ready, {} changes, {} comparisons at {} quiet moments",
        shelf.saves.load(Ordering::SeqCst),
        shelf.fetches.load(Ordering::SeqCst),
        sum(|reader| &reader.readies),
        sum(|reader| &reader.changes),
        sum(|reader| &reader.comparisons),
        shelf.quiets.load(Ordering::SeqCst),
    ))
}

/// The server, and who saves there.
struct Shelf {
    server: TestServer,
    ids: Mutex<Vec<String>>,
    /// Held by all that disturb. Whoever has it for himself has quiet.
    gate: RwLock<()>,
    is_quiet: AtomicBool,
    rng: Mutex<Rng>,
    saves: AtomicU64,
    fetches: AtomicU64,
    quiets: AtomicU64,
}

const MOST_OBJECTS: usize = 150;

impl Shelf {
    fn new(rng: Rng) -> Self {
        let shelf = Self {
            server: TestServer::start().unwrap(),
            ids: Mutex::default(),
            gate: RwLock::default(),
            is_quiet: AtomicBool::new(false),
            rng: Mutex::new(rng),
            saves: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            quiets: AtomicU64::new(0),
        };
        let mut rng = shelf.rng.lock().fork();
        for _ in 0..MOST_OBJECTS / 2 {
            let id = shelf.server.create("Book", fields(&mut rng));
            shelf.ids.lock().push(id);
        }
        shelf
    }

    fn save(&self, rng: &mut Rng) {
        let _not_when_it_is_quiet = self.gate.read();
        self.saves.fetch_add(1, Ordering::SeqCst);
        // Held, so that nobody saves what another deletes.
        let mut ids = self.ids.lock();
        let at = rng.usize(0..ids.len().max(1));
        match rng.u8(0..10) {
            0..2 if ids.len() < MOST_OBJECTS => ids.push(self.server.create("Book", fields(rng))),
            2..4 if ids.len() > MOST_OBJECTS / 3 => {
                self.server.delete("Book", &ids.swap_remove(at));
            }
            _ => {
                self.server.update("Book", &ids[at], fields(rng));
            }
        }
    }

    /// What a set asks for. It comes late, or not at all.
    fn fetch(&self, query: &Query) -> Result<Vec<Object>, String> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let found = self.server.find(query).map_err(|error| error.to_string());
        let (is_lost, delay) = {
            let mut rng = self.rng.lock();
            (rng.u8(0..20) == 0, rng.u64(0..30))
        };
        thread::park_timeout(ms(delay));
        if is_lost && !self.is_quiet.load(Ordering::SeqCst) {
            return Err("lost on its way".to_owned());
        }
        found
    }

    fn while_quiet<T>(&self, look: impl FnOnce() -> T) -> T {
        self.is_quiet.store(true, Ordering::SeqCst);
        let _nobody_else = self.gate.write();
        self.quiets.fetch_add(1, Ordering::SeqCst);
        let seen = look();
        self.is_quiet.store(false, Ordering::SeqCst);
        seen
    }
}

fn fields(rng: &mut Rng) -> Value {
    let rank = match rng.u8(0..8) {
        0 => json!({ "__op": "Delete" }),
        _ => rng.u8(0..20).into(),
    };
    let name = ["", "a", "ab", "b", "ä"][rng.usize(0..5)];
    json!({ "group": rng.u8(0..3), "rank": rank, "name": name, "note": rng.u32(..) })
}

/// The queries of the sets. What is equal in their order is sorted by its id.
fn queries() -> Vec<Query> {
    let book = || Query::new("Book");
    vec![
        book().equal_to("group", 1).ascending(["name"]),
        book().descending(["rank"]).limit(10),
        book()
            .ascending(["name"])
            .add_descending(["rank"])
            .limit(7)
            .skip(3),
        book().greater_than("rank", 5).descending(["createdAt"]).limit(20),
    ]
}

/// A client with sets.
struct Reader {
    sets: Mutex<Vec<(Query, LiveSet)>>,
    client: Client,
    route: Route,
    log: Arc<Log>,
    readies: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
    comparisons: AtomicU64,
}

impl Reader {
    fn new(route: Route, shelf: &Arc<Shelf>, log: &Log) -> Self {
        let reader = Self {
            sets: Mutex::default(),
            client: network::impatient(&route).build().unwrap(),
            route,
            log: Arc::new(log.beside()),
            readies: Arc::default(),
            changes: Arc::default(),
            comparisons: AtomicU64::new(0),
        };
        for query in queries() {
            let set = reader.set(&query, shelf);
            reader.sets.lock().push((query, set));
        }
        reader
    }

    fn set(&self, query: &Query, shelf: &Arc<Shelf>) -> LiveSet {
        let name = query.to_json().unwrap();
        let (copy, shelf) = (Mutex::new(vec![]), Arc::clone(shelf));
        let (changes, readies) = (Arc::clone(&self.changes), Arc::clone(&self.readies));
        let logs = [(); 4].map(|()| Arc::clone(&self.log));
        let [on_change, on_ready, on_stale, on_error] = logs.map(|log| (log, name.clone()));
        let window = query.clone();
        self.client
            .live_set(query)
            .fetch_with(move |query| shelf.fetch(query))
            .on_change(move |change, set| {
                let (log, name) = &on_change;
                changes.fetch_add(1, Ordering::SeqCst);
                let mut copy = copy.lock();
                change.apply_to(&mut copy, set);
                let fault = if copy.iter().ne(set.iter()) {
                    Some("does not lead there")
                } else {
                    fault_of(&window, set)
                };
                if let Some(fault) = fault {
                    log.add(format!("{name}: {fault}: {change:?}, {:?}", outline(set.iter())));
                    log.fail();
                }
            })
            .on_ready(move |set| {
                readies.fetch_add(1, Ordering::SeqCst);
                on_ready.0.add(format!("{}: ready, {}", on_ready.1, set.len()));
            })
            .on_stale(move |since| on_stale.0.add(format!("{}: stale since {since:?}", on_stale.1)))
            .on_error(move |error| on_error.0.add(format!("{}: {error:?}", on_error.1)))
            .start()
            .unwrap()
    }

    /// Somebody wants another set, or all anew.
    fn disturb(&self, shelf: &Arc<Shelf>, rng: &mut Rng) {
        let mut sets = self.sets.lock();
        let at = rng.usize(0..sets.len());
        let (query, set) = &mut sets[at];
        match rng.u8(0..4) {
            0 => drop(set.refresh()),
            1 => *set = self.set(query, shelf),
            _ => {}
        }
    }

    /// When it is quiet: whatever calls itself ready is what the server has, and the others become it.
    fn judge(&self, shelf: &Shelf) -> Result<(), String> {
        self.hear_all()?;
        for (query, set) in &*self.sets.lock() {
            let all = query.clone().add_ascending(["objectId"]);
            // `find()` would stop after 100.
            let all = if query.to_json().unwrap().contains("limit") {
                all
            } else {
                all.limit(10_000)
            };
            let found = shelf.server.find(&all).unwrap();
            let is_equal = || outline(set.snapshot().iter()) == outline(&found);
            let was_ready = set.is_ready();
            if was_ready && !is_equal() && set.is_ready() {
                return Err(self.differs("is ready and differs", query, set, &found));
            }
            self.comparisons.fetch_add(1, Ordering::SeqCst);
            let deadline = Instant::now() + MINUTE;
            while !(set.is_ready() && is_equal()) {
                if Instant::now() > deadline {
                    return Err(self.differs("does not become what the server has", query, set, &found));
                }
                thread::park_timeout(ms(5));
            }
        }
        Ok(())
    }

    /// Waits until what was sent before has been told, by this link or with the news that it was lost.
    fn hear_all(&self) -> Result<(), String> {
        let fence = self.client.subscribe(&Query::new("Fence")).unwrap();
        fence
            .wait_open(MINUTE)
            .map_err(|error| self.report(&error.to_string()))?;
        wait_until("all has been told", || self.client.stats().waiting == 0);
        Ok(())
    }

    fn differs(&self, what: &str, query: &Query, set: &LiveSet, found: &[Object]) -> String {
        self.report(&format!(
            "{}: the set {what}; ready: {}, stale since {:?}\n  set: {:?}\nfound: {:?}",
            query.to_json().unwrap(),
            set.is_ready(),
            set.stale_since(),
            outline(set.snapshot().iter()),
            outline(found)
        ))
    }

    fn report(&self, text: &str) -> String {
        let now = vec![(self.log.time(), "judged".to_owned())];
        format!("{text}\n{}", self.log.around(now))
    }
}

/// What makes an object another one.
fn outline<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Vec<(String, Value)> {
    let of = |object: &Object| {
        let note = object.get("note").cloned().unwrap_or_default();
        (object.id().unwrap_or_default().to_owned(), note)
    };
    objects.into_iter().map(of).collect()
}

/// What is wrong with a list at any time.
fn fault_of(query: &Query, set: &Snapshot) -> Option<&'static str> {
    let json: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
    if json["limit"]
        .as_u64()
        .is_some_and(|limit| set.len() as u64 > limit)
    {
        return Some("more than the limit");
    }
    let keys: Vec<_> = json["order"].as_str().unwrap_or_default().split(',').collect();
    let in_order = |a: &Object, b: &Object| {
        let by_key = |key: &&str| {
            let (name, sorting): (_, fn(Sorting) -> Sorting) = match key.strip_prefix('-') {
                Some(name) => (name, Sorting::reverse),
                None => (*key, |sorting| sorting),
            };
            sorting(value(a, name).cmp(&value(b, name)))
        };
        keys.iter().map(by_key).find(|sorting| sorting.is_ne()) != Some(Sorting::Greater)
    };
    let objects: Vec<_> = set.iter().collect();
    let is_sorted = objects.windows(2).all(|pair| in_order(pair[0], pair[1]));
    (!is_sorted).then_some("not sorted")
}

/// By these the values of one field are sorted. What has none comes first, as on MongoDB.
fn value(object: &Object, name: &str) -> (Option<i64>, Option<String>) {
    let value = object.get(name);
    let text = value.and_then(Value::as_str).map(str::to_owned);
    (value.and_then(Value::as_i64), text)
}

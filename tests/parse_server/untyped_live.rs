//! Random queries of untyped values on live servers: the events of a real Parse Server are those that `find()` before and
//! after a change calls for, and a `TestServer` sends the same ones.
//!
//! `LIVE_SEEDS`, `LIVE_SEED` (the first), `LIVE_QUERIES` and `LIVE_OBJECTS` make it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, EventKind, Object, Query, Subscription};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use crate::generate::{columns, seeded};
use crate::js_sdk;
use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, Options, PATIENCE, ParseServer};
use crate::transcript::Objects;
use crate::untyped::{self, Condition, KEYS, Shape, held_by, query_of};

/// What `watch` and `select` name.
const NAMES: [&str; 2] = ["num", "str"];

/// The query that all objects meet.
const CANARY: usize = 0;

/// The query, the id of the object, and what came of it.
type Happened = BTreeSet<(usize, String, EventKind)>;

/// Objects by their id.
type Held = BTreeMap<String, Value>;

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn untyped_queries_mean_on_live_servers_what_they_mean_in_find() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, seeds) = (number("LIVE_SEED", 1), number("LIVE_SEEDS", 1));
    let (queries, objects) = (number("LIVE_QUERIES", 150), number("LIVE_OBJECTS", 20));
    let real = ParseServer::start(Options {
        custom_ids: true,
        ..Options::default()
    });
    let mut counts = Counts::default();
    for seed in first..first + seeds {
        let class = format!("Untyped{seed}");
        let story = Story::new(seed as u64, &class, queries, objects);
        let schema = json!({"className": class, "fields": schema()});
        real.rest("POST", &format!("/schemas/{class}"), &[], Some(&schema));
        story.tell(&real, &mut counts);
        real.rest("DELETE", &format!("/purge/{class}"), &[], None);
        println!(
            "seed {seed}: {} differences that the list does not name so far",
            counts.wrong.len()
        );
    }
    println!("{counts}");
    assert!(counts.wrong.is_empty(), "{}", counts.wrong.join("\n"));
}

/// What was judged, by the method and by the kind of what is held: pairs of a condition and an object, and those of them
/// that are in the list of differences.
#[derive(Default)]
struct Counts {
    queries: usize,
    refused: usize,
    events: usize,
    by_method: BTreeMap<&'static str, [usize; 2]>,
    by_kind: BTreeMap<&'static str, [usize; 2]>,
    listed: usize,
    wrong: Vec<String>,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} queries and {} refused ones, {} events, {} differences as listed, {} others",
            self.queries,
            self.refused,
            self.events,
            self.listed,
            self.wrong.len()
        )?;
        for (name, [pairs, listed]) in self.by_method.iter().chain(&self.by_kind) {
            writeln!(f, "{name:26} {pairs:9} pairs, {listed} as listed")?;
        }
        Ok(())
    }
}

struct Asked {
    shape: Shape,
    parts: Vec<Condition>,
    query: Query,
    /// The REST form of its conditions.
    rest: Value,
    watches: bool,
    selects: bool,
}

/// The queries, and what is done while they are subscribed to.
struct Story {
    class: String,
    seed: u64,
    asked: Vec<Asked>,
    refused: usize,
    created: Vec<(String, Value)>,
    changes: Vec<(String, Value)>,
}

impl Story {
    fn new(seed: u64, class: &str, queries: usize, objects: usize) -> Self {
        let mut rng = seeded(5000 + seed);
        let (conditions, values) = (untyped::conditions(), untyped::values());
        let mut asked = vec![Asked {
            shape: Shape::Same,
            parts: Vec::new(),
            query: Query::new(class),
            rest: json!({}),
            watches: false,
            selects: false,
        }];
        let mut refused = 0;
        while asked.len() <= queries {
            let (shape, parts) = untyped::combined(&mut rng, &conditions);
            // find() forgets conditions beside another contained_by, or beside nor.
            let by = parts.iter().filter(|part| part.method == "contained_by").count();
            if by > usize::from(!matches!(shape, Shape::Nor)) {
                continue;
            }
            match Asked::new(&mut rng, class, shape, parts) {
                Some(one) => asked.push(one),
                None => refused += 1,
            }
        }
        let fields = |rng: &mut StdRng| {
            let mut object = untyped::random_object(rng, &values, false);
            let members = object.as_object_mut().unwrap();
            for name in ["className", "objectId", "createdAt", "updatedAt"] {
                members.remove(name);
            }
            for (key, _) in KEYS.iter().filter(|(key, _)| !key.contains('.')) {
                if rng.random_range(0..12) == 0 {
                    members.insert((*key).to_owned(), Value::Null);
                }
            }
            object
        };
        let created: Vec<_> = (0..objects)
            .map(|number| {
                // Ids that operands have as well, and what JavaScript could take for something else.
                let id = ["t1", "a", "5", "null", "undefined"].get(number);
                let id = id.map_or_else(|| format!("id{number}"), ToString::to_string);
                (id, fields(&mut rng))
            })
            .collect();
        let changes = created
            .iter()
            .map(|(id, _)| {
                let mut changes = fields(&mut rng);
                let members = changes.as_object_mut().unwrap();
                for (key, _) in KEYS.iter().filter(|(key, _)| !key.contains('.')) {
                    if !members.contains_key(*key) && rng.random_bool(0.4) {
                        members.insert((*key).to_owned(), json!({"__op": "Delete"}));
                    } else if rng.random_bool(0.3) {
                        members.remove(*key);
                    }
                }
                // Parse Server cannot change them on Postgres.
                members.remove("bytes");
                (id.clone(), changes)
            })
            .collect();
        Self {
            class: class.to_owned(),
            seed,
            asked,
            refused,
            created,
            changes,
        }
    }

    fn tell(&self, real: &ParseServer, counts: &mut Counts) {
        counts.queries += self.asked.len();
        counts.refused += self.refused;
        let test = TestServer::builder().drop_nulls(true).start().unwrap();
        let (on_real, on_test) = (
            Listening::start(&real.ws_url(), &self.asked),
            Listening::start(&test.url(), &self.asked),
        );
        let mut before = Held::new();
        let mut found_before = vec![Some(BTreeSet::new()); self.asked.len()];
        for phase in ["create", "update", "delete"] {
            for objects in [real as &dyn Objects, &test] {
                self.act(phase, objects);
            }
            let stored: Held = real
                .find(&self.class, &json!({}), &[("limit", "1000")])
                .into_iter()
                .map(|object| (object["objectId"].as_str().unwrap().to_owned(), object))
                .collect();
            let written = self.written(phase, &stored);
            let found = self.find(&written);
            let mut expected = self.expected(phase, [&before, &written], [&found_before, &found]);
            let (happened, objects) = on_real.gather(&expected);
            // What find() refuses to look for is right by its own words.
            let is_refused =
                |index: usize| [&found_before, &found].iter().any(|found| found[index].is_none());
            expected.extend(happened.iter().filter(|event| is_refused(event.0)).cloned());
            counts.events += happened.len();
            self.compare(phase, [&before, &written], &expected, &happened, counts);
            if phase == "create" {
                self.judge_here(&written, &happened, counts);
            }
            // The other server is asked what this one has said, whatever it was called for.
            let (by_test, objects_of_test) = on_test.gather(&happened);
            for (event, objects) in [
                (&happened, [&happened, &by_test]),
                (&by_test, [&by_test, &happened]),
            ] {
                let only = event.difference(objects[1]).take(5);
                for (index, id, kind) in only {
                    counts.wrong.push(format!(
                        "seed {}, {phase}: {} {kind:?} of {id} comes from {} alone: {:?} then {:?}",
                        self.seed,
                        self.asked[*index].query.live_query_where().unwrap(),
                        if std::ptr::eq(event, &happened) {
                            "Parse Server"
                        } else {
                            "TestServer"
                        },
                        before.get(id),
                        written.get(id),
                    ));
                }
            }
            for (id, object) in &objects {
                if objects_of_test.get(id) != Some(object) {
                    counts.wrong.push(format!(
                        "seed {}, {phase}: Parse Server sends {object}, TestServer {:?}",
                        self.seed,
                        objects_of_test.get(id)
                    ));
                }
            }
            found_before = self.find(&stored);
            before = stored;
        }
        counts.wrong.truncate(40);
    }

    fn act(&self, phase: &str, objects: &dyn Objects) {
        let class = &self.class;
        match phase {
            "create" => {
                for (id, fields) in &self.created {
                    let mut fields = fields.clone();
                    fields["objectId"] = json!(id);
                    assert_eq!(&objects.create(class, &fields), id);
                }
            }
            "update" => {
                for (id, changes) in &self.changes {
                    objects.update(class, id, changes);
                }
            }
            _ => {
                for (id, _) in &self.created {
                    objects.delete(class, id);
                }
            }
        }
    }

    /// The objects as events have them: with the nulls that Postgres does not keep.
    fn written(&self, phase: &str, stored: &Held) -> Held {
        let mut written = stored.clone();
        let fields = if phase == "create" {
            &self.created
        } else {
            &self.changes
        };
        for (id, fields) in fields {
            let Some(object) = written.get_mut(id) else {
                continue;
            };
            for (name, value) in fields.as_object().unwrap() {
                if value.is_null() {
                    object[name] = Value::Null;
                }
            }
        }
        written
    }

    fn expected(&self, phase: &str, held: [&Held; 2], found: [&[Option<BTreeSet<String>>]; 2]) -> Happened {
        let mut expected = Happened::new();
        for (index, asked) in self.asked.iter().enumerate() {
            let (Some(found_before), Some(found)) = (&found[0][index], &found[1][index]) else {
                continue;
            };
            for (id, _) in &self.created {
                let kind = match (found_before.contains(id), found.contains(id)) {
                    (true, true) => EventKind::Update,
                    (true, false) if phase == "delete" => EventKind::Delete,
                    (true, false) => EventKind::Leave,
                    (false, true) if phase == "create" => EventKind::Create,
                    (false, true) => EventKind::Enter,
                    (false, false) => continue,
                };
                let is_watched = || {
                    let of =
                        |held: &Held, name: &str| held.get(id).and_then(|object| object.get(name).cloned());
                    NAMES.iter().any(|name| of(held[0], name) != of(held[1], name))
                };
                let may_be_held_back = asked.watches && matches!(kind, EventKind::Create | EventKind::Update);
                if !may_be_held_back || is_watched() {
                    expected.insert((index, id.clone(), kind));
                }
            }
        }
        expected
    }

    /// Which objects each query finds, by MongoDB's meaning, unless it is refused.
    fn find(&self, held: &Held) -> Vec<Option<BTreeSet<String>>> {
        let objects: Vec<_> = held.values().collect();
        let lines: Vec<_> = [json!({"objects": objects, "fields": columns()}).to_string()]
            .into_iter()
            .chain(
                self.asked
                    .iter()
                    .map(|asked| json!({"rest": asked.rest}).to_string()),
            )
            .collect();
        js_sdk::answers("findShared", &lines)
            .iter()
            .map(|answer| {
                let found: Option<Vec<bool>> = serde_json::from_str(answer).unwrap();
                let found = held.keys().zip(found?).filter(|(_, found)| *found);
                Some(found.map(|(id, _)| id.clone()).collect())
            })
            .collect()
    }

    fn compare(
        &self,
        phase: &str,
        held: [&Held; 2],
        expected: &Happened,
        happened: &Happened,
        counts: &mut Counts,
    ) {
        for asked in &self.asked {
            for part in &asked.parts {
                counts.by_method.entry(part.method).or_default()[0] += self.created.len();
            }
        }
        for part in self.asked.iter().flat_map(|asked| &asked.parts) {
            counts.by_kind.entry(kind_of(part.key)).or_default()[0] += self.created.len();
        }
        for (index, id, kind) in expected.symmetric_difference(happened) {
            let asked = &self.asked[*index];
            let mut known = None;
            for object in held.iter().filter_map(|held| held.get(id)) {
                known = known.or_else(|| {
                    asked.parts.iter().find(|part| {
                        let value = held_by(object, part.key);
                        part.listed(value).is_some() || part.is_artifact(value)
                    })
                });
            }
            if let Some(part) = known {
                counts.listed += 1;
                counts.by_method.entry(part.method).or_default()[1] += 1;
                counts.by_kind.entry(kind_of(part.key)).or_default()[1] += 1;
                continue;
            }
            let is_missing = expected.contains(&(*index, id.clone(), *kind));
            if counts.wrong.len() < 6 {
                let objects: Vec<_> = held.iter().filter_map(|held| held.get(id).cloned()).collect();
                counts.wrong.push(format!(
                    "seed {}, {phase}: {kind:?} of {id} {}:\n{}",
                    self.seed,
                    if is_missing {
                        "is missing"
                    } else {
                        "came though find() does not call for it"
                    },
                    untyped::shrunk(asked.shape, &asked.parts, &objects)
                ));
            }
        }
    }

    /// [`Query::matches_object`] says what the server says.
    fn judge_here(&self, written: &Held, happened: &Happened, counts: &mut Counts) {
        for (id, json) in written {
            let mut json = json.clone();
            json["className"] = json!(self.class);
            let object = Object::from_json(json.clone()).unwrap();
            for (index, asked) in self.asked.iter().enumerate().filter(|(_, asked)| !asked.watches) {
                let came = happened.contains(&(index, id.clone(), EventKind::Create));
                let judged = asked.query.matches_object(&object).unwrap();
                // What a select leaves out cannot be told.
                let is_open = judged.is_none() && asked.selects;
                if !is_open && judged != Some(came) && counts.wrong.len() < 20 {
                    counts.wrong.push(format!(
                        "seed {}: matches_object says {judged:?}, the server {came}: {} of {json}",
                        self.seed,
                        asked.query.live_query_where().unwrap()
                    ));
                }
            }
        }
    }
}

impl Asked {
    /// `None` if the query is refused.
    fn new(rng: &mut StdRng, class: &str, shape: Shape, parts: Vec<Condition>) -> Option<Self> {
        let mut query = query_of(shape, &parts, class);
        query.live_query_where().ok()?;
        let mut json: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        let rest = json["where"].take();
        // Who brings the REST form of a query means the same.
        if rng.random_range(0..4) == 0 {
            let read = Query::from_json(class, json!({"where": rest})).unwrap();
            assert!(read.live_query_where().is_ok(), "{rest}");
            query = read;
        }
        let (watches, selects) = (rng.random_range(0..10) == 0, rng.random_range(0..10) == 0);
        if watches {
            query = query.watch(NAMES);
        }
        if selects {
            query = query.select(NAMES);
        }
        Some(Self {
            shape,
            parts,
            query,
            rest,
            watches,
            selects,
        })
    }
}

/// Subscriptions to all queries of a story, and what comes for them.
struct Listening {
    happened: Receiver<(usize, String, EventKind, Option<Value>)>,
    _subscriptions: Vec<Subscription>,
}

impl Listening {
    fn start(url: &str, asked: &[Asked]) -> Self {
        let client = Client::builder(url, APPLICATION_ID)
            .javascript_key(JAVASCRIPT_KEY)
            .queue_limits(10_000_000, usize::MAX)
            .build()
            .unwrap();
        let (sender, happened) = mpsc::channel();
        let subscriptions: Vec<_> = asked
            .iter()
            .enumerate()
            .map(|(index, asked)| {
                let sender = sender.clone();
                let selects = asked.selects;
                let subscription = client.subscription(&asked.query).on_any(move |event| {
                    let (Some(object), Some(id)) = (event.object(), event.id()) else {
                        return;
                    };
                    if selects {
                        let json = object.to_json();
                        let mut names = json.as_object().unwrap().keys();
                        let more = names.find(|name| {
                            KEYS.iter().any(|(key, _)| key == name) && !NAMES.contains(&name.as_str())
                        });
                        assert_eq!(more, None, "{json}");
                    }
                    // Of one query the objects are compared as well.
                    let whole = (index == CANARY)
                        .then(|| json!([comparable(object), event.original().map(comparable)]));
                    let _ = sender.send((index, id.to_owned(), event.kind(), whole));
                });
                subscription.start().unwrap()
            })
            .collect();
        for subscription in &subscriptions {
            subscription.wait_open(4 * PATIENCE).unwrap();
        }
        Self {
            happened,
            _subscriptions: subscriptions,
        }
    }

    /// What comes, until all has come that should and nothing comes for a while.
    fn gather(&self, expected: &Happened) -> (Happened, Held) {
        let (mut happened, mut objects) = (Happened::new(), Held::new());
        let mut missing = expected.clone();
        loop {
            let patience = if missing.is_empty() {
                Duration::from_secs(1)
            } else {
                PATIENCE / 2
            };
            let Ok((index, id, kind, whole)) = self.happened.recv_timeout(patience) else {
                return (happened, objects);
            };
            if let Some(whole) = whole {
                objects.insert(id.clone(), whole);
            }
            missing.remove(&(index, id.clone(), kind));
            happened.insert((index, id, kind));
        }
    }
}

/// What a field holds.
fn kind_of(key: &str) -> &'static str {
    let kinds = KEYS.iter().find(|(name, _)| *name == key).map(|(_, kinds)| kinds);
    kinds
        .and_then(|kinds| kinds.get(1))
        .copied()
        .unwrap_or("anything")
}

/// Without times and addresses.
fn comparable(object: &Object) -> Value {
    fn without_urls(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(without_urls),
            Value::Object(members) => {
                members.remove("url");
                members.values_mut().for_each(without_urls);
            }
            _ => {}
        }
    }
    let mut json = object.to_json();
    let members = json.as_object_mut().unwrap();
    for name in ["createdAt", "updatedAt"] {
        members.remove(name);
    }
    without_urls(&mut json);
    json
}

fn schema() -> Value {
    let columns = columns();
    let columns = columns.as_object().unwrap().iter();
    let own = columns.filter(|(name, _)| KEYS.iter().any(|(key, _)| key == name));
    let fields: Map<String, Value> = own
        .map(|(name, kind)| {
            let column = match kind.as_str() {
                Some("Pointer") => json!({"type": "Pointer", "targetClass": "Team"}),
                _ => json!({"type": kind}),
            };
            (name.clone(), column)
        })
        .collect();
    Value::Object(fields)
}

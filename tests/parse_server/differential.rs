//! Random queries on a real Parse Server: the events that come are those that `find()` before and after a change calls
//! for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use parse_livequery::{Client, EventKind, Query, Subscription};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::generate::{self, Program, Scope};
use crate::js_sdk;
use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, MASTER_KEY, PATIENCE, ParseServer};

const CLASS: &str = "Differential";
const QUERIES: usize = 400;
const OBJECTS: usize = 25;

type Happened = BTreeSet<(usize, String, EventKind)>;

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn events_are_those_that_find_calls_for() {
    let server = ParseServer::shared();
    server.rest(
        "POST",
        &format!("/schemas/{CLASS}"),
        &[],
        Some(&json!({"className": CLASS, "fields": schema()})),
    );
    let mut rng = generate::seeded(4);
    let mut test = Test::subscribe(server, &mut rng);

    let mut ids = Vec::new();
    for _ in 0..OBJECTS {
        ids.push(server.create(CLASS, &fields(&mut rng)));
    }
    test.expect(&ids);
    for id in &ids {
        server.update(CLASS, id, &changes(&mut rng));
    }
    test.expect(&ids);
    for id in &ids {
        server.delete(CLASS, id);
    }
    test.expect(&ids);
    test.assert_no_more();
}

struct Test {
    server: &'static ParseServer,
    queries: Vec<Query>,
    rest: Vec<Value>,
    happened: Receiver<(usize, String, EventKind)>,
    /// Which objects each query finds, by MongoDB's meaning.
    found: Vec<BTreeSet<String>>,
    _subscriptions: Vec<Subscription>,
}

impl Test {
    fn subscribe(server: &'static ParseServer, rng: &mut StdRng) -> Self {
        let client = Client::builder(server.ws_url(), APPLICATION_ID)
            .javascript_key(JAVASCRIPT_KEY)
            .queue_limits(1_000_000, usize::MAX)
            .build()
            .unwrap();
        let (sender, happened) = mpsc::channel();
        let mut only_mongo = 0;
        let (queries, rest): (Vec<_>, Vec<_>) =
            std::iter::repeat_with(|| Program::random(rng, Scope::LiveQuery).to_query_of(CLASS))
                .filter(|query| query.live_query_where().is_ok())
                .map(|query| {
                    let mut rest: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
                    (query, rest["where"].take())
                })
                .filter(|(_, rest)| {
                    // Of those that only MongoDB answers rightly, a hundred are enough.
                    let deviates = postgres_deviates(rest).is_some();
                    only_mongo += usize::from(deviates);
                    !deviates || only_mongo <= 100
                })
                .take(QUERIES)
                .unzip();
        let subscriptions: Vec<_> = queries
            .iter()
            .enumerate()
            .map(|(index, query)| {
                let sender = sender.clone();
                let subscription = client.subscription(query).on_any(move |event| {
                    if let Some(id) = event.id() {
                        let _ = sender.send((index, id.to_owned(), event.kind()));
                    }
                });
                subscription.start().unwrap()
            })
            .collect();
        for subscription in &subscriptions {
            subscription.wait_open(PATIENCE).unwrap();
        }
        Self {
            server,
            found: vec![BTreeSet::new(); queries.len()],
            queries,
            rest,
            happened,
            _subscriptions: subscriptions,
        }
    }

    /// Waits for the events of the changes since the last time.
    fn expect(&mut self, ids: &[String]) {
        let objects: BTreeMap<String, Value> = self
            .server
            .find(CLASS, &json!({}), &[("limit", "1000")])
            .into_iter()
            .map(|object| (object["objectId"].as_str().unwrap().to_owned(), object))
            .collect();
        let found = self.find(&objects);
        let mut expected = Happened::new();
        for (index, (before, after)) in self.found.iter().zip(&found).enumerate() {
            for id in ids {
                let kind = match (before.contains(id), after.contains(id)) {
                    (true, true) => EventKind::Update,
                    (true, false) if objects.contains_key(id) => EventKind::Leave,
                    (true, false) => EventKind::Delete,
                    (false, true) if self.found.iter().all(BTreeSet::is_empty) => EventKind::Create,
                    (false, true) => EventKind::Enter,
                    (false, false) => continue,
                };
                expected.insert((index, id.clone(), kind));
            }
        }
        self.found = found;
        let deadline = Instant::now() + PATIENCE;
        let mut missing = expected.clone();
        while !missing.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.happened.recv_timeout(left) else {
                break;
            };
            assert!(
                missing.remove(&event),
                "not expected: {event:?}, {}",
                self.describe(&event, &objects)
            );
        }
        let shown: Vec<_> = missing
            .iter()
            .take(5)
            .map(|event| self.describe(event, &objects))
            .collect();
        assert!(
            shown.is_empty(),
            "{} of {} events are missing:\n{}",
            missing.len(),
            expected.len(),
            shown.join("\n")
        );
        println!("{} events as expected", expected.len());
    }

    fn assert_no_more(&self) {
        let more = self.happened.recv_timeout(Duration::from_secs(1));
        assert!(more.is_err(), "one too many: {more:?}");
    }

    fn describe(
        &self,
        (index, id, kind): &(usize, String, EventKind),
        objects: &BTreeMap<String, Value>,
    ) -> String {
        let live = self.queries[*index].live_query_where().unwrap();
        format!(
            "{kind:?} of {:?} for {}, sent as {live}",
            objects.get(id),
            self.rest[*index]
        )
    }

    /// What each query finds on MongoDB; and on this server's Postgres, where that is faithful.
    fn find(&self, objects: &BTreeMap<String, Value>) -> Vec<BTreeSet<String>> {
        let list = json!(objects.values().collect::<Vec<_>>());
        let cases: Vec<_> = self
            .rest
            .iter()
            .map(|rest| json!({"rest": rest, "objects": list, "fields": generate::columns()}).to_string())
            .collect();
        let answers = js_sdk::answers("find", &cases);
        let mongo: Vec<BTreeSet<String>> = answers
            .iter()
            .map(|answer| {
                let found: Vec<bool> = serde_json::from_str(answer).unwrap();
                let found = objects.keys().zip(found).filter(|(_, found)| *found);
                found.map(|(id, _)| id.clone()).collect()
            })
            .collect();
        let postgres = self.find_on_server();
        let unknown: Vec<_> = self
            .rest
            .iter()
            .zip(mongo.iter().zip(&postgres))
            .filter(|(rest, (mongo, postgres))| {
                postgres_deviates(rest).is_none() && postgres.as_ref() != Ok(*mongo)
            })
            .map(|(rest, (mongo, postgres))| {
                let differing = postgres.as_ref().map(|postgres| {
                    let id = postgres.symmetric_difference(mongo).next().unwrap();
                    (postgres.contains(id), &objects[id])
                });
                format!("{rest}: find(): {differing:?}")
            })
            .collect();
        assert!(
            unknown.is_empty(),
            "find() differs from MongoDB:\n{}",
            unknown.join("\n")
        );
        mongo
    }

    fn find_on_server(&self) -> Vec<Result<BTreeSet<String>, String>> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        let url = format!("{}/classes/{CLASS}", self.server.url());
        let find = |rest: &Value| {
            // A query in the body, since the server may refuse it, and an URL has little room.
            let body =
                json!({"_method": "GET", "where": rest, "keys": "objectId", "limit": 1000}).to_string();
            let request = agent
                .post(&url)
                .header("X-Parse-Application-Id", APPLICATION_ID)
                .header("X-Parse-Master-Key", MASTER_KEY)
                .header("Content-Type", "application/json");
            let text = request.send(body).unwrap().body_mut().read_to_string().unwrap();
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            let Value::Array(found) = answer["results"].take() else {
                return Err(text);
            };
            Ok(found
                .iter()
                .map(|object| object["objectId"].as_str().unwrap().to_owned())
                .collect())
        };
        self.rest.iter().map(find).collect()
    }
}

/// The known differences: why Parse Server finds on Postgres something else than on MongoDB, or refuses to look
/// (PostgresStorageAdapter.js, buildWhereClause). MongoDB's meaning counts.
fn postgres_deviates(filter: &Value) -> Option<&'static str> {
    filter.as_object()?.iter().find_map(|(key, constraint)| {
        let of = |key: &str| constraint.get(key).filter(|value| !value.is_null());
        let is = |types: &[&str]| types.contains(&constraint["__type"].as_str().unwrap_or_default());
        let is_array = generate::columns()[key] == "Array";
        let is_object = |value: &Value| value.is_object() && value["__type"] != "Pointer";
        let lists = ["$in", "$nin"]
            .into_iter()
            .filter_map(|name| of(name)?.as_array());
        if key == "$nor" {
            return Some("NOT of a condition on a missing field is neither true nor false in SQL");
        }
        if let Some(filters) = constraint.as_array() {
            if filters.contains(&json!({})) {
                return Some("a where without conditions is left out of $or and $and");
            }
            return filters.iter().find_map(postgres_deviates);
        }
        if key.contains('.') {
            return Some("fields inside objects are compared as text, if at all");
        }
        if is_array && !constraint.is_null() {
            return Some("arrays are compared with the functions of jsonb, as a whole");
        }
        if constraint
            .as_object()
            .is_some_and(|all| all.len() > 1 && all.get("$ne") == Some(&Value::Null))
        {
            return Some("$ne null lets the other conditions on the field be forgotten");
        }
        if of("$nin").is_some() {
            return Some("NOT IN is not true for a missing field");
        }
        if lists.flatten().any(|value| value.is_null() || is_object(value)) || of("$in") == Some(&json!([])) {
            return Some("lists are of scalars, without null, and an empty one means a missing field");
        }
        if is(&["File", "Bytes"]) || ["$eq", "$ne"].into_iter().filter_map(of).any(is_object) {
            return Some("values of Parse's types are compared in some places only");
        }
        if ["$lt", "$lte", "$gt", "$gte"]
            .into_iter()
            .filter_map(of)
            .any(Value::is_string)
        {
            return Some("the order of strings is the collation's");
        }
        if of("$regex").is_some() {
            return Some("regular expressions are of another kind");
        }
        if of("$nearSphere").is_some() || constraint.pointer("/$geoWithin/$centerSphere").is_some() {
            return Some("distances need PostGIS");
        }
        None
    })
}

/// Random fields, without those that the server writes.
fn fields(rng: &mut StdRng) -> Value {
    let mut object = generate::object(rng);
    let members = object.as_object_mut().unwrap();
    for name in ["className", "objectId", "createdAt", "updatedAt"] {
        members.remove(name);
    }
    // For Postgres, a field that is null is missing.
    members.retain(|_, value| !value.is_null());
    object
}

/// Random changes: some fields are set, some unset, and some keep their values, so that objects stay in queries.
fn changes(rng: &mut StdRng) -> Value {
    let mut fields = fields(rng);
    let members = fields.as_object_mut().unwrap();
    for name in schema().as_object().unwrap().keys() {
        if !members.contains_key(name) && rng.random_bool(0.5) {
            members.insert(name.clone(), json!({"__op": "Delete"}));
        } else if rng.random_bool(0.3) {
            members.remove(name);
        }
    }
    // Parse Server cannot change them on Postgres.
    members.remove("bytes");
    fields
}

fn schema() -> Value {
    let mut columns = generate::columns();
    let columns = columns.as_object_mut().unwrap();
    for name in ["objectId", "createdAt", "updatedAt"] {
        columns.remove(name);
    }
    columns
        .iter()
        .map(|(name, kind)| {
            let column = match kind.as_str() {
                Some("Pointer") => json!({"type": "Pointer", "targetClass": "Team"}),
                _ => json!({"type": kind}),
            };
            (name.clone(), column)
        })
        .collect()
}

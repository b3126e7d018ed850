//! Random queries on a real Parse Server: the events that come are those that `find()` before and after a change calls
//! for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use parse_livequery::{Client, EventKind, Query, Subscription};
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::generate::{self, Program, Scope};
use crate::js_sdk;
use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, PATIENCE, ParseServer};

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
        // A field that is not in the change keeps its value, so that some objects stay in some queries.
        server.update(CLASS, id, &fields(&mut rng));
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
        let queries: Vec<_> =
            std::iter::repeat_with(|| Program::random(rng, Scope::LiveQuery).to_query_of(CLASS))
                .filter(|query| query.live_query_where().is_ok())
                .take(QUERIES)
                .collect();
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
                subscription.subscribe().unwrap()
            })
            .collect();
        for subscription in &subscriptions {
            subscription.wait_open(PATIENCE).unwrap();
        }
        let rest = queries
            .iter()
            .map(|query| serde_json::from_str::<Value>(&query.to_json().unwrap()).unwrap()["where"].take())
            .collect();
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

    /// What each query finds on MongoDB, after a look at what this server's Postgres finds.
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
                objects
                    .keys()
                    .zip(found)
                    .filter(|(_, found)| *found)
                    .map(|(id, _)| id.clone())
                    .collect()
            })
            .collect();
        let postgres = self.find_on_server();
        let (mut same, mut refused, mut known) = (0, 0, 0);
        for ((rest, mongo), postgres) in self.rest.iter().zip(&mongo).zip(&postgres) {
            match postgres {
                Ok(postgres) if postgres == mongo => same += 1,
                Ok(postgres) => {
                    known += 1;
                    let id = postgres.symmetric_difference(mongo).next().unwrap();
                    println!(
                        "DEVIATION {rest} finds {} {} on {:?}",
                        postgres.contains(id),
                        mongo.contains(id),
                        objects.get(id)
                    );
                }
                Err(error) => {
                    refused += 1;
                    println!("REFUSED {rest} {error}");
                }
            }
        }
        println!("{same} same, {refused} refused by find(), {known} known deviations");
        mongo
    }

    fn find_on_server(&self) -> Vec<Result<BTreeSet<String>, String>> {
        let mut results = Vec::new();
        for rest in self.rest.chunks(50) {
            let requests: Vec<_> = rest
                .iter()
                .map(|rest| {
                    json!({
                        "method": "GET",
                        "path": format!("/parse/classes/{CLASS}"),
                        "body": {"where": rest, "keys": "objectId", "limit": 1000},
                    })
                })
                .collect();
            let answer = self
                .server
                .rest("POST", "/batch", &[], Some(&json!({"requests": requests})));
            results.extend(answer.as_array().unwrap().iter().map(|answer| {
                let Some(found) = answer["success"]["results"].as_array() else {
                    return Err(answer["error"].to_string());
                };
                Ok(found
                    .iter()
                    .map(|object| object["objectId"].as_str().unwrap().to_owned())
                    .collect())
            }));
        }
        results
    }
}

/// Random fields, without those that the server writes.
fn fields(rng: &mut StdRng) -> Value {
    let mut object = generate::object(rng);
    let members = object.as_object_mut().unwrap();
    for name in ["className", "objectId", "createdAt", "updatedAt"] {
        members.remove(name);
    }
    object
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

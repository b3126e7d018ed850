//! One scenario for each version of Parse Server: from the handshake to live sets, and a hundred queries whose events
//! are those that `find()` calls for. What a version cannot do is refused, and never missing in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use parse_livequery::test_server::where_for;
use parse_livequery::{
    Client, Date, Error, ErrorKind, Event, EventKind, GapReason, GeoPoint, LiveSet, Pointer, Query,
    Subscription,
};
use serde_json::{Value, json};

use crate::js_sdk;
use crate::recorder::{Recorder, record};
use crate::support::{PATIENCE, only, wait_until};
use crate::versions::{self, Database, Server, Version};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn each_version_does_the_whole_scenario_or_refuses() {
    let mut wrong = Vec::new();
    let mut table = vec![
        "| Parse Server | queries | equal to `find()` | refused | differ | what else is not there |"
            .to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for version in versions::chosen() {
        let row = Scenario::run(version, &mut wrong);
        println!("{row}");
        table.push(row);
    }
    println!("{}", table.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Scenario {
    version: &'static Version,
    server: Server,
    /// What this version lacks, for the table.
    lacks: BTreeSet<&'static str>,
}

impl Scenario {
    /// The row of the table; what went wrong is added to the list.
    fn run(version: &'static Version, wrong: &mut Vec<String>) -> String {
        type Part = fn(&mut Scenario);
        const PARTS: &[(&str, Part)] = &[
            ("keys", Scenario::keys_are_checked),
            ("events", Scenario::an_object_lives),
            ("select", Scenario::selected_fields_come),
            ("watch", Scenario::watched_fields_count),
            ("tokens", Scenario::a_token_lets_read),
            ("refusals", Scenario::a_refusal_is_told),
            ("update", Scenario::an_update_changes_what_comes),
            ("live sets", Scenario::sets_are_equal_to_find),
        ];
        let mut scenario = Self {
            version,
            server: Server::start(version),
            lacks: BTreeSet::new(),
        };
        let name = version.name();
        for (part, run) in PARTS {
            println!("{name}: {part}");
            if panic::catch_unwind(AssertUnwindSafe(|| run(&mut scenario))).is_err() {
                wrong.push(format!("{name}: {part}: see above"));
            }
        }
        println!("{name}: queries");
        let queries = panic::catch_unwind(AssertUnwindSafe(|| scenario.queries())).unwrap_or_default();
        wrong.extend(queries.wrong.iter().map(|wrong| format!("{name}: {wrong}")));
        if queries.count == 0 {
            wrong.push(format!("{name}: queries: see above"));
        }
        let lacks: Vec<_> = scenario.lacks.into_iter().collect();
        format!(
            "| {name} | {} | {} | {} | {} | {} |",
            queries.count,
            queries.count - queries.refused - queries.wrong.len(),
            queries.refused,
            queries.wrong.len(),
            lacks.join("; ")
        )
    }

    /// A client that was told which version this is.
    fn client(&self) -> Client {
        self.server
            .builder()
            .parse_server(self.version.number)
            .build()
            .unwrap()
    }

    fn keys_are_checked(&mut self) {
        let client = self.client();
        client.open();
        client.wait_open(PATIENCE).unwrap();
        let stranger = self.server.builder().javascript_key("wrong").build().unwrap();
        let error = stranger
            .subscribe(&Query::new("Life"))
            .unwrap()
            .wait_open(PATIENCE)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Refused, Some(4)),
            "{error}"
        );
    }

    fn an_object_lives(&mut self) {
        let client = self.client();
        let life = record(&client, &Query::new("Life").greater_than("num", 5));
        let id = self.server.create("Life", &json!({"num": 7, "name": "Ann"}));
        life.expect_of(EventKind::Create, &id);
        self.server.update("Life", &id, &json!({"num": 8}));
        let update = life.expect_of(EventKind::Update, &id);
        assert_eq!(number(&update), Some(8));
        if self.version.is_before(3, 1) {
            self.lacks.insert("no `original`");
        } else {
            let original = update
                .original()
                .and_then(|original| original.get("num").cloned());
            assert_eq!(original, Some(json!(7)));
        }
        self.server.update("Life", &id, &json!({"num": 1}));
        life.expect_of(EventKind::Leave, &id);
        self.server.update("Life", &id, &json!({"num": 9}));
        life.expect_of(EventKind::Enter, &id);
        self.server.delete("Life", &id);
        life.expect_of(EventKind::Delete, &id);
        life.end();
    }

    fn selected_fields_come(&mut self) {
        let client = self.client();
        let selected = record(&client, &Query::new("Life").select(["num"]));
        let id = self.server.create("Life", &json!({"num": 1, "name": "Ann"}));
        let object = selected
            .expect_of(EventKind::Create, &id)
            .object()
            .unwrap()
            .clone();
        assert_eq!((object.get("num"), object.get("name")), (Some(&json!(1)), None));
        assert!(object.updated_at().is_some());
        selected.end();
    }

    fn watched_fields_count(&mut self) {
        let client = self.client();
        let query = Query::new("Life").watch(["num"]);
        if self.version.is_before(6, 1) {
            self.lacks.insert("no `watch`");
            let error = client.subscribe(&query).unwrap_err();
            assert!(
                error.kind() == ErrorKind::InvalidQuery && error.to_string().contains("6.1"),
                "{error}"
            );
            return;
        }
        let watching = record(&client, &query);
        let id = self.server.create("Life", &json!({"num": 1, "name": "Ann"}));
        watching.expect_of(EventKind::Create, &id);
        self.server.update("Life", &id, &json!({"name": "Bob"}));
        self.server.update("Life", &id, &json!({"num": 2}));
        assert_eq!(number(&watching.expect_of(EventKind::Update, &id)), Some(2));
        watching.end();
    }

    fn a_token_lets_read(&mut self) {
        let (ann, bob) = (self.server.sign_up("ann"), self.server.sign_up("bob"));
        let client = self.client();
        let query = Query::new("Note");
        let of_ann = Recorder::open(client.subscription(&query).session_token(&ann.session_token));
        let of_nobody = record(&client, &query);
        let of_bob = self.server.builder().session_token(&bob.session_token);
        let of_bob = record(&of_bob.build().unwrap(), &query);
        let for_ann = self.server.create("Note", &json!({"ACL": only(&ann)}));
        of_ann.expect_of(EventKind::Create, &for_ann);
        let for_bob = self.server.create("Note", &json!({"ACL": only(&bob)}));
        of_bob.expect_of(EventKind::Create, &for_bob);
        let for_all = self.server.create("Note", &json!({"ACL": {"*": {"read": true}}}));
        for recorder in [of_ann, of_nobody, of_bob] {
            recorder.expect_of(EventKind::Create, &for_all);
            recorder.end();
        }
    }

    fn a_refusal_is_told(&mut self) {
        let client = self.client();
        let refused = client.subscription(&Query::new("Life").matches("name", "(", ""));
        let error = refused.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{error}");
        if self.version.is_before(4, 3) {
            self.lacks.insert("no hooks");
            return;
        }
        let refused = client.subscribe(&Query::new("Refused")).unwrap();
        let error = refused.wait_open(PATIENCE).unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Server, Some(119)),
            "{error}"
        );
    }

    fn an_update_changes_what_comes(&mut self) {
        let client = self.client();
        let recorder = record(&client, &Query::new("Life").less_than("num", 10));
        let updated = &recorder.subscription;
        updated
            .update(&Query::new("Life").greater_than("num", 10))
            .unwrap();
        recorder.expect(EventKind::Close);
        let reason = recorder.expect(EventKind::Open).gap().map(|gap| gap.reason());
        assert_eq!(reason, Some(GapReason::QueryUpdated));
        self.server.create("Life", &json!({"num": 1}));
        let id = self.server.create("Life", &json!({"num": 11}));
        recorder.expect_of(EventKind::Create, &id);

        // And what is ended is ended.
        let stays = record(&client, &Query::new("Life"));
        recorder.end();
        let id = self.server.create("Life", &json!({"num": 12}));
        stays.expect_of(EventKind::Create, &id);
        stays.end();
    }

    /// Also over a restart of the server, after which the subscriptions of the client are made anew.
    fn sets_are_equal_to_find(&mut self) {
        let client = self.client();
        for number in 0..8 {
            let object = json!({"num": number % 5, "name": format!("set {number}")});
            self.server.create("Set", &object);
        }
        let new = || Query::new("Set");
        let sets = [
            new().descending(["num"]).limit(3),
            new().greater_than("num", 2).ascending(["name"]),
            new().select(["num"]).ascending(["num"]),
        ]
        .map(|query| {
            let set = client.live_set(&query).start().unwrap();
            set.wait_ready(PATIENCE).unwrap();
            (query, set)
        });
        self.expect_equal(&sets);
        let ids: Vec<_> = self.all("Set").iter().map(id_of).collect();
        for (at, id) in ids.iter().enumerate() {
            match at % 4 {
                0 => self.server.delete("Set", id),
                1 => self.server.update("Set", id, &json!({"num": 9 - at})),
                2 => self.server.update("Set", id, &json!({"name": "another"})),
                _ => {}
            }
        }
        let best = self.server.create("Set", &json!({"num": 100, "name": "best"}));
        self.expect_equal(&sets);
        // The others move up.
        self.server.delete("Set", &best);
        self.expect_equal(&sets);

        let watched = record(&client, &new());
        self.server.restart();
        self.server
            .create("Set", &json!({"num": 50, "name": "after the restart"}));
        watched.expect(EventKind::Close);
        let reason = watched.expect(EventKind::Open).gap().map(|gap| gap.reason());
        assert_eq!(reason, Some(GapReason::ConnectionLost));
        self.expect_equal(&sets);
        let id = self.server.create("Set", &json!({"num": 60}));
        // What was saved during the restart may have come as an event.
        while watched.next_object().id() != Some(&id) {}
        self.expect_equal(&sets);
    }

    fn expect_equal(&self, sets: &[(Query, LiveSet)]) {
        for (query, set) in sets {
            let mut options: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
            let order = options["order"].as_str().unwrap();
            options["order"] = json!(format!("{order},objectId"));
            let mut last = Value::Null;
            wait_until(&format!("a set is equal to {options}"), || {
                let found = self.server.find("Set", &options).unwrap();
                let shown: Vec<_> = set.snapshot().iter().map(|object| object.to_json()).collect();
                last = json!([
                    shown.iter().map(seen).collect::<Vec<_>>(),
                    found.iter().map(seen).collect::<Vec<_>>()
                ]);
                last[0] == last[1]
            });
        }
    }

    fn all(&self, class: &str) -> Vec<Value> {
        self.server.find(class, &json!({"limit": 1000})).unwrap()
    }

    /// A hundred queries at once, each asked by a client that was told the version, and by one that was not.
    fn queries(&mut self) -> Queries {
        // The columns have to be there before find() may name them.
        let first = self.server.create("Game", &objects()[1]);
        self.server.delete("Game", &first);
        let cases = cases();
        let canary = self.client();
        let clients = [self.client(), self.server.builder().build().unwrap()];
        let (sender, happened) = mpsc::channel();
        let listen = |client: &Client, query: &Query, index: usize| -> Result<Subscription, Error> {
            let sender = sender.clone();
            let subscription = client.subscription(query).on_any(move |event| {
                if let Some(id) = event.id() {
                    let _ = sender.send((index, id.to_owned(), event.kind()));
                }
            });
            subscription.start()
        };
        let watched = listen(
            &canary,
            &Query::new("Game").raw_where(json!({"num": {"$exists": true}})),
            CANARY,
        );
        watched.as_ref().unwrap().wait_open(PATIENCE).unwrap();

        let mut queries = Queries {
            count: cases.len(),
            ..Queries::default()
        };
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut subscriptions = Vec::new();
        for (number, client) in clients.iter().enumerate() {
            for (index, query) in cases.iter().enumerate() {
                match listen(client, query, number * cases.len() + index) {
                    Ok(subscription) => subscriptions.push((number * cases.len() + index, subscription)),
                    Err(error) if number == 0 => {
                        assert_eq!(error.kind(), ErrorKind::InvalidQuery, "{error}");
                        queries.refused += 1;
                        let reason = error.to_string();
                        let reason = reason.split(", and this").next().unwrap().to_owned();
                        *reasons.entry(reason).or_default() += 1;
                    }
                    // Who was not told must refuse what this version cannot do as well.
                    Err(error) => assert!(where_for(query, self.version.number).is_err(), "{error}"),
                }
            }
        }
        // A client that was not told finds out whether the server is from before 4.3, 6.1 or 7.0, and no more.
        let may_not_know = self.version.is_before(7, 0);
        subscriptions.retain(|(index, subscription)| match subscription.wait_open(PATIENCE) {
            Ok(()) => true,
            Err(error)
                if error.kind() == ErrorKind::InvalidQuery && *index >= cases.len() && may_not_know =>
            {
                false
            }
            Err(error) => panic!("{error}: {:?}", cases[index % cases.len()]),
        });
        for (reason, count) in reasons {
            println!("  {count} times: {reason}");
        }

        let asked = Asked {
            server: &self.server,
            version: self.version,
            cases,
            subscriptions: subscriptions.iter().map(|(index, _)| *index).collect(),
            happened,
        };
        let ids: Vec<_> = objects()
            .iter()
            .map(|object| self.server.create("Game", object))
            .collect();
        let created = asked.expected();
        queries.compare(&asked, &created);
        for (at, id) in ids.iter().enumerate() {
            let mut changes = objects()[(at * 3 + 1) % ids.len()].clone();
            if self.version.is_before(3, 0) {
                // On Postgres it stores the numbers of an array that is changed as texts.
                changes.as_object_mut().unwrap().remove("tags");
            }
            self.server.update("Game", id, &changes);
        }
        let updated = asked.expected();
        // What leaves is told as well.
        let mut either = created;
        for (index, found) in &updated {
            either.entry(*index).or_default().extend(found.clone());
        }
        queries.compare(&asked, &either);
        for (_, subscription) in &subscriptions {
            subscription.unsubscribe_and_wait(PATIENCE).unwrap();
        }
        for id in &ids {
            self.server.delete("Game", id);
        }
        let all = Seen::from([(CANARY, ids.into_iter().collect())]);
        queries.compare(&asked, &all);
        queries
    }
}

const CANARY: usize = usize::MAX;

/// Which objects came, by the subscription.
type Seen = BTreeMap<usize, BTreeSet<String>>;

#[derive(Debug, Default)]
struct Queries {
    count: usize,
    refused: usize,
    wrong: BTreeSet<String>,
}

impl Queries {
    fn compare(&mut self, asked: &Asked<'_>, expected: &Seen) {
        let seen = asked.gather(expected);
        for index in asked.subscriptions.iter().chain([&CANARY]) {
            let (came, called_for) = (seen.get(index), expected.get(index));
            if came == called_for {
                continue;
            }
            let who = match index / asked.cases.len() {
                _ if *index == CANARY => "the canary",
                0 => "told the version",
                _ => "not told the version",
            };
            let live = asked
                .cases
                .get(index % asked.cases.len())
                .map(|query| where_for(query, asked.version.number));
            let count = |ids: Option<&BTreeSet<String>>| ids.map_or(0, BTreeSet::len);
            self.wrong.insert(format!(
                "{who}: {live:?}: LiveQuery {:?}, find() {:?}",
                count(came),
                count(called_for)
            ));
        }
    }
}

struct Asked<'s> {
    server: &'s Server,
    version: &'static Version,
    cases: Vec<Query>,
    /// For each client the numbers of the cases, one client after the other.
    subscriptions: Vec<usize>,
    happened: Receiver<(usize, String, EventKind)>,
}

impl Asked<'_> {
    /// What each query finds; on Postgres, find() of some versions looks into no array and finds no date in a list, so
    /// that MongoDB's meaning counts.
    fn expected(&self) -> Seen {
        let answer = self.server.find("Game", &json!({"limit": 1000})).unwrap();
        let all = answer.iter().map(id_of).collect();
        let (mut unanswered, mut others) = (0, 0);
        let found: Vec<BTreeSet<String>> = by_mongodb(&answer, &self.cases)
            .into_iter()
            .zip(&self.cases)
            .map(|(by_mongodb, query)| {
                let found = self.server.find_ids("Game", &rest_of(query)).ok();
                unanswered += usize::from(found.is_none());
                others += usize::from(found.is_some() && by_mongodb.is_some() && found != by_mongodb);
                match self.version.database {
                    Database::Mongo => found.or(by_mongodb),
                    Database::Postgres => by_mongodb.or(found),
                }
                .unwrap_or_else(|| by_equality(&answer, &rest_of(query)))
            })
            .collect();
        println!("  find() refuses {unanswered} queries, and of {others} the second opinion is another");
        let by_index = |index: &usize| (*index, found[index % self.cases.len()].clone());
        self.subscriptions
            .iter()
            .map(by_index)
            .chain([(CANARY, all)])
            .filter(|(_, ids): &(usize, BTreeSet<String>)| !ids.is_empty())
            .collect()
    }

    /// Waits until all that should come has come, or nothing has come for a while.
    fn gather(&self, expected: &Seen) -> Seen {
        let mut seen = Seen::new();
        let deadline = Instant::now() + PATIENCE;
        let is_missing = |seen: &Seen| {
            expected
                .iter()
                .any(|(index, ids)| seen.get(index).is_none_or(|seen| !ids.is_subset(seen)))
        };
        while is_missing(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((index, id, _)) = self.happened.recv_timeout(left) else {
                break;
            };
            seen.entry(index).or_default().insert(id);
        }
        // What should not come would come now.
        while let Ok((index, id, _)) = self.happened.recv_timeout(Duration::from_millis(500)) {
            seen.entry(index).or_default().insert(id);
        }
        seen
    }
}

fn number(event: &Event) -> Option<i64> {
    event.object()?.get("num")?.as_i64()
}

fn id_of(object: &Value) -> String {
    object["objectId"].as_str().unwrap().to_owned()
}

/// What is compared of an object in a set.
fn seen(object: &Value) -> Value {
    json!([object["objectId"], object["num"], object["name"]])
}

fn day(number: u8) -> Date {
    Date::parse(&format!("2024-01-0{number}T03:04:05.678Z")).unwrap()
}

/// Ten characters, to which old versions fill up what is shorter.
fn team_id(number: u8) -> String {
    format!("team{number:06}")
}

/// Queries for the objects below.
fn cases() -> Vec<Query> {
    let new = || Query::new("Game");
    let team = |number| Pointer::new("Team", team_id(number));
    let place = GeoPoint::new(10.0, 20.0).unwrap();
    let mut cases = vec![new()];
    for number in [0, 3, 7] {
        cases.extend([
            new().equal_to("num", number),
            new().less_than("num", number),
            new().less_than_or_equal_to("num", number),
            new().greater_than("num", number),
            new().greater_than_or_equal_to("num", number),
            new().greater_than("num", number).less_than("num", number + 3),
            new().equal_to("num", number).equal_to("name", "Ann"),
            new()
                .equal_to("name", "Ann")
                .greater_than("num", number)
                .exists("when"),
            new().contained_in("num", [number, number + 1]),
            Query::or([new().equal_to("num", number), new().equal_to("name", "Bob")]),
            Query::or([new().less_than("num", number), new().equal_to("flag", true)]).equal_to("name", "Ann"),
            Query::and([new().greater_than("num", number), new().greater_than("num", 1)]),
            new().equal_to("tags", number),
        ]);
    }
    for text in ["Ann", "Bob", "B"] {
        cases.extend([
            new().equal_to("name", text),
            new().starts_with("name", text),
            new().ends_with("name", text),
            new().contains("name", text),
            new().matches("name", &format!("^{text}|x$"), ""),
            new().contained_in("name", [text, "none"]),
            new().equal_to("tags", text),
            new().equal_to("from", text).equal_to("to", "Bob"),
        ]);
    }
    for number in [2, 5] {
        cases.extend([
            new().equal_to("when", day(number)),
            new().less_than("when", day(number)),
            new().greater_than_or_equal_to("when", day(number)),
            new().contained_in("when", [day(number), day(number + 1)]),
            new().equal_to("owner", team(number)),
            new().contained_in("owner", [team(number), team(1)]),
        ]);
    }
    cases.extend([
        new().equal_to("flag", true),
        new().exists("when"),
        new().does_not_exist("when"),
        new().within_geo_box(
            "place",
            GeoPoint::new(5.0, 5.0).unwrap(),
            GeoPoint::new(30.0, 30.0).unwrap(),
        ),
        new().equal_to("place", place),
        new().not_equal_to("num", 3),
        new().equal_to("when", None::<i32>),
        new().greater_than("createdAt", day(1)),
        new().greater_than("createdAt", Date::parse("2100-01-01T00:00:00Z").unwrap()),
        new().equal_to("objectId", "none"),
        new().contains_all("tags", ["Ann", "x"]),
        new().matches("name", "^a", "i"),
        new().not_equal_to("name", "Ann"),
        new().not_contained_in("num", [1, 3]),
        new().not_contained_in("tags", ["Ann"]),
        Query::nor([new().less_than("num", 5), new().equal_to("flag", true)]),
        new().not_equal_to("when", None::<i32>),
        new().equal_to("obj.a", 4),
        new().greater_than("obj.a", 4),
        new().exists("obj.a"),
        new().equal_to("tags", json!([1, "x", "Bob"])),
        new().equal_to("obj", json!({"a": 4})),
        new().contained_by("tags", json!([0, 2, 4, "x", "Ann"]).as_array().unwrap()),
        new().within_kilometers("place", place, 1000.0, false),
        new().within_kilometers("place", place, 1000.0, true),
        new().within_polygon("place", corners([(-1.0, -1.5), (-1.0, 9.0), (5.5, 4.5)])),
        new().polygon_contains("area", GeoPoint::new(1.5, 0.5).unwrap()),
        new().matches("name", "(", ""),
    ]);
    cases
}

fn corners(of: [(f64, f64); 3]) -> [GeoPoint; 3] {
    of.map(|(latitude, longitude)| GeoPoint::new(latitude, longitude).unwrap())
}

fn objects() -> Vec<Value> {
    (0..10_u8)
        .map(|number| {
            let name = ["Ann", "Bob", "B", "Ax"][usize::from(number % 4)];
            let (from, to) = [("Ann", "Bob"), ("Bob", "Ann")][usize::from(number % 2)];
            let mut object = json!({
                "num": number, "name": name, "from": from, "to": to, "flag": number % 3 == 0,
                "tags": [number, "x", from], "owner": Pointer::new("Team", team_id(number)),
                "place": GeoPoint::new(f64::from(number), f64::from(number) * 2.0).unwrap(),
            });
            if number % 3 > 0 {
                object["obj"] = json!({"a": number});
                let size = 1 + number / 2;
                object["area"] =
                    json!({"__type": "Polygon", "coordinates": [[0, 0], [0, size], [size, size], [0, 0]]});
            }
            if number % 2 == 1 {
                object["when"] = json!(day(number.max(1)));
            }
            object
        })
        .chain([json!({"num": 3, "place": GeoPoint::new(10.0, 20.0).unwrap()})])
        .collect()
}

fn rest_of(query: &Query) -> Value {
    let mut rest: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
    rest["where"].take()
}

/// What has a field that is equal to a whole array or object, which `find()` refuses to look for on both databases; nothing
/// for what is no such query.
fn by_equality(objects: &[Value], rest: &Value) -> BTreeSet<String> {
    let wanted = rest.as_object().unwrap();
    let equal = objects
        .iter()
        .filter(|object| wanted.iter().all(|(key, value)| object[key] == *value));
    equal.map(id_of).collect()
}

/// What each query finds on MongoDB, if it is not refused there.
fn by_mongodb(objects: &[Value], queries: &[Query]) -> Vec<Option<BTreeSet<String>>> {
    let fields = json!({
        "objectId": "String", "createdAt": "Date", "updatedAt": "Date", "num": "Number", "name": "String",
        "from": "String", "to": "String", "flag": "Boolean", "tags": "Array", "owner": "Pointer", "place": "GeoPoint",
        "when": "Date", "obj": "Object", "area": "Polygon",
    });
    let lines: Vec<_> = queries
        .iter()
        .map(|query| {
            json!({"rest": rest_of(query), "live": {}, "objects": objects, "fields": fields}).to_string()
        })
        .collect();
    let found = |answer: &String| {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let found = objects.iter().zip(answer["found"].as_array()?);
        let found = found.filter(|(_, found)| **found == json!(true));
        Some(found.map(|(object, _)| id_of(object)).collect())
    };
    js_sdk::answers("judge", &lines).iter().map(found).collect()
}

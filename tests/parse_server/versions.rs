//! The versions of Parse Server that the library promises to work with, what each needs to run, how it is installed,
//! and one scenario for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use parse_livequery::test_server::where_for;
use parse_livequery::{Client, ClientBuilder, Date, EventKind, GeoPoint, Pointer, Query};
use serde_json::{Map, Value, json};

use crate::js_sdk;
use crate::support::{
    APPLICATION_ID, JAVASCRIPT_KEY, MASTER_KEY, PATIENCE, Port, install, spawn_node, spawn_program,
};

/// A version, and what it needs beside itself.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) number: &'static str,
    /// The major version of Node.js that runs it.
    pub(crate) node: u8,
    /// Packages that must be others than npm would choose today.
    overrides: &'static [(&'static str, &'static str)],
}

/// `router` 2.3.0 makes LiveQuery recognise no session token.
const ROUTER: (&str, &str) = ("router", "2.2.0");

pub(crate) static VERSIONS: &[Version] = &[
    Version {
        number: "2.8.4",
        // Its driver of Postgres hangs on Node.js 14 and later.
        node: 12,
        overrides: &[],
    },
    Version {
        number: "3.10.0",
        node: 12,
        overrides: &[],
    },
    Version {
        number: "4.10.20",
        node: 16,
        overrides: &[("extract-files", "9.0.0")],
    },
    Version {
        number: "5.6.0",
        node: 18,
        overrides: &[],
    },
    Version {
        number: "6.5.11",
        node: 18,
        overrides: &[],
    },
    Version {
        number: "7.5.4",
        node: 20,
        overrides: &[],
    },
    Version {
        number: "8.6.94",
        node: 20,
        overrides: &[ROUTER],
    },
    Version {
        number: "9.0.0",
        node: 20,
        overrides: &[ROUTER],
    },
    Version {
        number: "9.10.0",
        node: 20,
        overrides: &[ROUTER],
    },
];

/// The versions to test: those that `PARSE_SERVER_VERSIONS` names, separated by commas, or `all`; by default the
/// newest and the oldest that is in full use.
pub(crate) fn chosen() -> Vec<&'static Version> {
    let wanted = std::env::var("PARSE_SERVER_VERSIONS").unwrap_or_else(|_| "9.10.0,5.6.0".to_owned());
    if wanted == "all" {
        return VERSIONS.iter().collect();
    }
    wanted
        .split(',')
        .map(|wanted| {
            VERSIONS
                .iter()
                .find(|version| version.number == wanted || version.number.starts_with(&format!("{wanted}.")))
                .unwrap_or_else(|| {
                    panic!("PARSE_SERVER_VERSIONS names {wanted:?}, which is not in the table")
                })
        })
        .collect()
}

/// Installs a version, without the Node.js that it needs, and returns its folder.
pub(crate) fn install_modules(version: &Version) -> PathBuf {
    let overrides: Map<String, Value> = version
        .overrides
        .iter()
        .map(|(name, number)| ((*name).to_owned(), json!(number)))
        .collect();
    let manifest = json!({
        "private": true,
        "dependencies": {"parse-server": version.number},
        "overrides": overrides,
    });
    installed(&format!("parse-server-{}", version.number), &manifest)
}

/// The program of a major version of Node.js.
pub(crate) fn node(major: u8) -> PathBuf {
    let package = format!("node-{}-{}", std::env::consts::OS, architecture());
    let manifest = json!({"private": true, "dependencies": {package.as_str(): major.to_string()}});
    installed(&format!("node-{major}"), &manifest).join(format!("node_modules/{package}/bin/node"))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Has npm install what a manifest names, once; the folder's name holds for it.
///
/// A version that cannot be installed fails the run.
fn installed(name: &str, manifest: &Value) -> PathBuf {
    // The tests of one process share the folder that npm works in.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let text = manifest.to_string();
    let is_done = || fs::read_to_string(home.join("installed.json")).is_ok_and(|done| done == text);
    if is_done() {
        return home;
    }
    // Another process may be here at the same time: whoever is first puts its folder into the place.
    let staging = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", process::id()));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("package.json"), &text).unwrap();
    let output = Command::new("npm")
        .args([
            "install",
            "--legacy-peer-deps",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ])
        .current_dir(&staging)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("these tests need npm: {error}"));
    assert!(
        output.status.success(),
        "{name} cannot be installed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(staging.join("installed.json"), &text).unwrap();
    let _ = fs::remove_dir_all(&home);
    if fs::rename(&staging, &home).is_err() {
        assert!(is_done(), "{name} cannot be put into its place");
        let _ = fs::remove_dir_all(&staging);
    }
    home
}

/// A server of one version with a database of its own; both end with this value.
pub(crate) struct Server {
    pub(crate) port: u16,
    // In the order in which they end.
    processes: Vec<Child>,
    agent: ureq::Agent,
    _port: Port,
}

impl Server {
    pub(crate) fn start(version: &Version) -> Self {
        install();
        let (database, database_port) = spawn_node("database.mjs", None);
        let port = Port::reserve();
        let number = port.addr().port();
        let arguments = json!({
            "folder": install_modules(version), "port": number, "databasePort": database_port,
        });
        let (server, _) = spawn_program(
            &node(version.node),
            "server_of_version.cjs",
            Some(arguments.to_string()),
        );
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            port: number,
            processes: vec![server, database],
            agent,
            _port: port,
        }
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(format!("ws://127.0.0.1:{}/parse", self.port), APPLICATION_ID)
            .javascript_key(JAVASCRIPT_KEY)
    }

    fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    fn rest(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        // A query goes in the body, since an URL has little room.
        let (method, mut body) = (if method == "GET" { "POST" } else { method }, body.clone());
        if method == "POST" && path.starts_with("?") {
            body["_method"] = json!("GET");
        }
        let path = path.trim_start_matches('?');
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}/parse{path}", self.port))
            .header("X-Parse-Application-Id", APPLICATION_ID)
            .header("X-Parse-Master-Key", MASTER_KEY)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .unwrap();
        let mut answer = self.agent.run(request).map_err(|error| error.to_string())?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        if answer.status().is_success() {
            Ok(serde_json::from_str(&text).unwrap())
        } else {
            Err(text)
        }
    }

    pub(crate) fn create(&self, class: &str, object: &Value) -> String {
        let created = self.rest("POST", &format!("/classes/{class}"), object).unwrap();
        created["objectId"].as_str().unwrap().to_owned()
    }

    /// The ids of what `find()` finds.
    fn find(&self, rest: &Value) -> Result<BTreeSet<String>, String> {
        let body = json!({"where": rest, "limit": 1000});
        let answer = self.rest("POST", "?/classes/Game", &body)?;
        Ok(answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| object["objectId"].as_str().unwrap().to_owned())
            .collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
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
        new().matches("name", "(", ""),
    ]);
    cases
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

/// What each query finds on MongoDB.
fn by_mongodb<'q>(server: &Server, queries: impl Iterator<Item = &'q Query>) -> Vec<BTreeSet<String>> {
    let answer = server
        .rest("POST", "?/classes/Game", &json!({"where": {}, "limit": 1000}))
        .unwrap();
    let objects = &answer["results"];
    let fields = json!({
        "objectId": "String", "createdAt": "Date", "updatedAt": "Date", "num": "Number", "name": "String",
        "from": "String", "to": "String", "flag": "Boolean", "tags": "Array", "owner": "Pointer", "place": "GeoPoint",
        "when": "Date",
    });
    let lines: Vec<_> = queries
        .map(|query| json!({"rest": rest_of(query), "objects": objects, "fields": fields}).to_string())
        .collect();
    js_sdk::answers("find", &lines)
        .iter()
        .map(|answer| {
            let found: Vec<bool> = serde_json::from_str(answer).unwrap();
            let ids = objects
                .as_array()
                .unwrap()
                .iter()
                .map(|object| object["objectId"].as_str().unwrap());
            let found = ids.zip(found).filter(|(_, found)| *found);
            found.map(|(id, _)| id.to_owned()).collect()
        })
        .collect()
}

type Seen = BTreeMap<usize, BTreeSet<String>>;

/// Waits until the canary has seen all objects and every query what it should, or nothing has come for a while.
fn gather(events: &mpsc::Receiver<(usize, String, EventKind)>, expected: &Seen) -> Seen {
    let mut seen = Seen::new();
    let deadline = Instant::now() + PATIENCE;
    while expected
        .iter()
        .any(|(index, ids)| !seen.get(index).is_some_and(|seen| ids.is_subset(seen)) && !ids.is_empty())
    {
        let Ok((index, id, _)) = events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        else {
            break;
        };
        seen.entry(index).or_default().insert(id);
    }
    // What should not come would come now.
    while let Ok((index, id, _)) = events.recv_timeout(Duration::from_millis(500)) {
        seen.entry(index).or_default().insert(id);
    }
    seen.retain(|_, ids| !ids.is_empty());
    seen
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn each_version_finds_in_events_what_find_finds_or_refuses() {
    let wrong: Vec<_> = chosen().into_iter().flat_map(scenario).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What went wrong.
fn scenario(version: &Version) -> Vec<String> {
    const CANARY: usize = usize::MAX;
    let server = Server::start(version);
    // The columns have to be there before find() may name them.
    let first = server.create("Game", &objects()[1]);
    server
        .rest("DELETE", &format!("/classes/Game/{first}"), &json!({}))
        .unwrap();

    let (canary, client) = (server.client(), server.client());
    let (sender, events) = mpsc::channel();
    let listen = |client: &Client, query: &Query, index: usize| {
        let sender = sender.clone();
        let subscription = client.subscription(query).on_any(move |event| {
            if let Some(id) = event.id() {
                let _ = sender.send((index, id.to_owned(), event.kind()));
            }
        });
        subscription.subscribe().unwrap()
    };
    let watched = listen(
        &canary,
        &Query::new("Game").raw_where(json!({"num": {"$exists": true}})),
        CANARY,
    );
    watched.wait_open(PATIENCE).unwrap();

    let cases = cases();
    let mut refused = Vec::new();
    let mut subscriptions = Vec::new();
    for (index, query) in cases.iter().enumerate() {
        match where_for(query, version.number) {
            Ok(live) => {
                // As the client will send it when it is told the version.
                let raw: Box<serde_json::value::RawValue> = serde_json::from_str(&live).unwrap();
                subscriptions.push((index, listen(&client, &Query::new("Game").raw_where(raw), index)));
            }
            Err(error) => refused.push((index, error.to_string())),
        }
    }
    for (index, subscription) in &subscriptions {
        subscription
            .wait_open(PATIENCE)
            .unwrap_or_else(|error| panic!("{}: {error}: {:?}", version.number, cases[*index]));
    }

    let ids: BTreeSet<String> = objects()
        .iter()
        .map(|object| server.create("Game", object))
        .collect();
    let mut expected = Seen::from([(CANARY, ids.clone())]);
    // On Postgres, find() of some versions looks into no array and finds no date in a list; MongoDB's meaning counts.
    let (mut unanswered, mut by_mongo) = (0, 0);
    let answers = by_mongodb(&server, subscriptions.iter().map(|(index, _)| &cases[*index]));
    for ((index, _), found) in subscriptions.iter().zip(answers) {
        match server.find(&rest_of(&cases[*index])) {
            Ok(on_postgres) => by_mongo += usize::from(on_postgres != found),
            Err(_) => unanswered += 1,
        }
        if !found.is_empty() {
            expected.insert(*index, found);
        }
    }
    let seen = gather(&events, &expected);
    let wrong: Vec<_> = subscriptions
        .iter()
        .map(|(index, _)| *index)
        .chain([CANARY])
        .filter(|index| seen.get(index) != expected.get(index))
        .map(|index| {
            format!(
                "{}: {:?}: LiveQuery {:?}, find() {:?}",
                version.number,
                cases
                    .get(index)
                    .map(|query| where_for(query, version.number).unwrap()),
                seen.get(&index).map_or(0, BTreeSet::len),
                expected.get(&index).map_or(0, BTreeSet::len)
            )
        })
        .collect();
    println!(
        "{}: {} cases, {} refused, {} differ; find() on Postgres refuses {unanswered} and means something else by \
         {by_mongo}",
        version.number,
        cases.len(),
        refused.len(),
        wrong.len()
    );
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, reason) in &refused {
        *reasons
            .entry(reason.split(", and this").next().unwrap_or_default())
            .or_default() += 1;
    }
    for (reason, count) in reasons {
        println!("  {count} times: {reason}");
    }

    // Further changes, an update of the query, and the end.
    let id = ids.first().unwrap();
    server
        .rest("PUT", &format!("/classes/Game/{id}"), &json!({"num": 99}))
        .unwrap();
    let (index, came, kind) = events.recv_timeout(PATIENCE).unwrap();
    assert!(
        &came == id && matches!(kind, EventKind::Update | EventKind::Enter | EventKind::Leave),
        "{index}: {kind:?}"
    );
    for (_, subscription) in &subscriptions {
        subscription.unsubscribe_and_wait(PATIENCE).unwrap();
    }
    while events.recv_timeout(Duration::from_millis(500)).is_ok() {}
    server
        .rest("DELETE", &format!("/classes/Game/{id}"), &json!({}))
        .unwrap();
    let last = events.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        last,
        (CANARY, id.clone(), EventKind::Delete),
        "{}",
        version.number
    );
    wrong
}

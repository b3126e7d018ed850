//! Queries against three second opinions on Node.js: the JS SDK's `Parse.Query`, the LiveQuery server's own matcher
//! and hash, and MongoDB's meaning of what `find()` is asked (Parse Server's translation, evaluated by mingo).

use std::io::Write as _;
use std::process::{Command, Stdio};

use parse_livequery::{Pointer, Query};
use serde_json::{Value, json};

use crate::generate::{self, Program, Scope};
use crate::support;

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn to_json_equals_what_the_js_sdk_writes() {
    let mut rng = generate::seeded(1);
    let cases = (0..3000).map(|_| {
        let program = Program::random(&mut rng, Scope::JsSdk);
        let ours = program.to_query().to_json().unwrap();
        json!({"program": program.to_json(), "ours": ours}).to_string()
    });
    assert_no_failures("toJson", cases);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn no_two_queries_share_a_hash_on_the_server() {
    let mut rng = generate::seeded(2);
    let cases = (0..30_000).filter_map(|number| {
        let query = match number % 4 {
            0 => Program::random(&mut rng, Scope::LiveQuery).to_query(),
            _ => generate::anagram(&mut rng),
        };
        query.live_query_where().ok()
    });
    assert_no_failures("hash", cases);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_servers_matcher_finds_what_mongodb_finds() {
    let mut rng = generate::seeded(3);
    let cases = (0..4000).filter_map(|_| {
        let query = Program::random(&mut rng, Scope::LiveQuery).to_query();
        // Contradictions are refused.
        let live = query.live_query_where().ok()?;
        let rest: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        let objects: Vec<_> = (0..15).map(|_| generate::object(&mut rng)).collect();
        let fields = generate::columns();
        // As text, since the order of the members counts.
        Some(format!(
            r#"{{"live":{live},"rest":{},"fields":{fields},"objects":{}}}"#,
            rest["where"],
            json!(objects)
        ))
    });
    assert_no_failures("match", cases);
}

/// What no form can express, with what the matcher makes of it; the documentation of `Query` has the same list.
#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_known_differences_are_all_there_are() {
    const NO_DIFFERENCE: usize = 6;
    let date = json!({"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"});
    let pointer = json!({"__type": "Pointer", "className": "Team", "objectId": "t1"});
    let team = |id| Pointer::new("Team", id);
    let query = || Query::new("Game");
    let cases: Vec<_> = [
        // Dates, null, objects and arrays inside an array.
        (query().equal_to("tags", &date), json!({"tags": [date]}), false),
        (
            query().equal_to("tags", None::<i32>),
            json!({"tags": ["a", null]}),
            false,
        ),
        (
            query().not_equal_to("tags", None::<i32>),
            json!({"tags": ["a", null]}),
            true,
        ),
        (
            query().equal_to("tags", json!({"a": 1})),
            json!({"tags": [{"a": 1}]}),
            false,
        ),
        (
            query().equal_to("obj.list", [1]),
            json!({"obj": {"list": [[1]]}}),
            false,
        ),
        // Comparisons and regular expressions on an array.
        (query().greater_than("nums", 1), json!({"nums": [5, -1]}), false),
        (
            query().starts_with("tags", "b"),
            json!({"tags": ["a", "b"]}),
            false,
        ),
        // Into each object of an array.
        (
            query().equal_to("obj.list.n", 1),
            json!({"obj": {"list": [{"n": 1}]}}),
            false,
        ),
        // Here it is find() that is wrong: Parse Server loses the first of two $nor.
        (
            query().contained_by("nums", [1]).contained_by("tags", ["a"]),
            json!({"nums": [2], "tags": ["a"]}),
            false,
        ),
        // Those that are no difference.
        (
            query().greater_than("obj.a", 1),
            json!({"obj": {"a": "text"}}),
            false,
        ),
        (
            query().starts_with("obj.a.0", "t"),
            json!({"obj": {"a": "text"}}),
            false,
        ),
        (query().equal_to("who", "t1"), json!({"who": pointer}), false),
        (
            query().equal_to("whos", team("t1")),
            json!({"whos": [null, pointer]}),
            true,
        ),
        (
            query().not_equal_to("who", None::<i32>),
            json!({"who": pointer}),
            true,
        ),
        (query().equal_to("who", team("t1")), json!({"who": null}), false),
    ]
    .into_iter()
    .map(|(query, object, matched)| {
        let live = query.live_query_where().unwrap();
        let rest: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        let case = format!(
            r#"{{"live":{live},"rest":{},"fields":{},"objects":[{object}]}}"#,
            rest["where"],
            generate::columns()
        );
        (rest["where"].clone(), case, matched)
    })
    .collect();
    let lines: Vec<_> = cases.iter().map(|(_, case, _)| case.clone()).collect();
    let mut found = Vec::new();
    for answer in answers("match", &lines) {
        let answer: Value = serde_json::from_str(&answer).unwrap();
        found.push((answer["rest"].clone(), answer["matched"].clone()));
    }
    let differences = cases.len() - NO_DIFFERENCE;
    let expected: Vec<_> = cases[..differences]
        .iter()
        .map(|(rest, _, matched)| (rest.clone(), json!(matched)))
        .collect();
    assert_eq!(found, expected);
}

/// Has the cases judged, one line for each.
fn assert_no_failures(mode: &str, cases: impl Iterator<Item = String>) {
    let cases: Vec<_> = cases.collect();
    let failures = answers(mode, &cases);
    assert!(
        failures.is_empty(),
        "{} failures in {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures[..failures.len().min(20)].join("\n")
    );
}

/// What the program says to the cases, each of which is a line of JSON; by mode, for each one or for those that fail.
pub(crate) fn answers(mode: &str, cases: &[String]) -> Vec<String> {
    support::install();
    let mut process = Command::new("node")
        .arg(support::folder().join("js_sdk.mjs"))
        .arg(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads all before it writes anything.
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(cases.join("\n").as_bytes()).unwrap();
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "js_sdk.mjs {mode}: {}", output.status);
    let output = String::from_utf8(output.stdout).unwrap();
    output.lines().map(str::to_owned).collect()
}

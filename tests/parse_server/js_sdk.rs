//! Queries against three second opinions on Node.js: the JS SDK's `Parse.Query`, the LiveQuery server's own matcher
//! and hash, and MongoDB's meaning of what `find()` is asked (Parse Server's translation, evaluated by mingo).

use std::io::Write as _;
use std::process::{Command, Stdio};

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

fn assert_no_failures(mode: &str, cases: impl Iterator<Item = String>) {
    let cases: Vec<_> = cases.collect();
    let failures = answers(mode, &cases);
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
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

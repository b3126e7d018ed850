//! A whole program on the JS SDK, against the test server and against a real one: both are the same to it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

use crate::program::livequery;
use crate::support::{self, JAVASCRIPT_KEY, ParseServer};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_js_sdk_works_with_the_test_server() {
    let server = TestServer::builder()
        .javascript_key(JAVASCRIPT_KEY)
        .start()
        .unwrap();
    server.function("answer", |call| {
        let number = |name: &str| call.params()[name].as_i64().unwrap();
        Ok(json!({"sum": number("a") + number("b"), "user": call.user()}))
    });
    server.function("throws", |_| Err("as it should".to_owned()));
    run(&[&server.url().replace("ws:", "http:")]);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_js_sdk_works_with_a_real_server() {
    run(&[&ParseServer::shared().url()]);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_js_sdk_works_with_livequery_serve() {
    let mut server = Command::new(livequery())
        .args(["serve", "--port", "0", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let url = told["url"].as_str().unwrap().replace("ws:", "http:");
    let done = std::panic::catch_unwind(|| run(&[&url, "--without-functions"]));
    server.kill().unwrap();
    server.wait().unwrap();
    done.unwrap();
}

fn run(arguments: &[&str]) {
    support::install();
    let output = Command::new("node")
        .arg(support::folder().join("whole_program.mjs"))
        .args(arguments)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success() && out.trim() == "done", "{out}\n{err}");
}

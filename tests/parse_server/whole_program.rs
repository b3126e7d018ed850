//! A whole program on the JS SDK, against the test server and against a real one: both are the same to it.

use std::process::Command;

use parse_livequery::test_server::TestServer;
use serde_json::json;

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
    run(&server.url().replace("ws:", "http:"));
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_js_sdk_works_with_a_real_server() {
    run(&ParseServer::shared().url());
}

fn run(url: &str) {
    support::install();
    let output = Command::new("node")
        .arg(support::folder().join("whole_program.mjs"))
        .arg(url)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success() && out.trim() == "done", "{out}\n{err}");
}

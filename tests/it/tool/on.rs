//! `livequery on`: commands that work, fail, hang, do not read, and are many.

use std::fs;
use std::path::PathBuf;
use std::process::Child;

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

use super::{command_for, output, signal, text};
use crate::harness::MINUTE;
use crate::support::wait_until_within;

#[test]
fn a_command_gets_each_event_in_order_as_json() {
    let server = TestServer::start().unwrap();
    let place = Place::new("order");
    let on = start(&server, &["--exec", &format!("cat >> {}", place.file())]);
    for n in 0..20 {
        server.create("Game", json!({ "n": n }));
    }
    place.wait_for_lines(20);
    let lines: Vec<Value> = place
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<_> = lines
        .iter()
        .map(|line| line["object"]["n"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line["kind"] == "create"));
    signal("TERM", &on);
    assert_eq!(output(on).status.code(), Some(0));
    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));
}

#[test]
fn kinds_are_chosen_and_gaps_are_told() {
    let server = TestServer::start().unwrap();
    let place = Place::new("kinds");
    let print = format!("echo $LIVEQUERY_KIND $LIVEQUERY_ID >> {}", place.file());
    let deletes = start(&server, &["--kind", "delete,gap", "--exec", &print]);
    let id = server.create("Game", json!({}));
    server.delete("Game", &id);
    place.wait_for_lines(1);
    server.cut();
    place.wait_for_lines(2);
    assert_eq!(place.lines(), [format!("delete {id}"), "gap".to_owned()]);
    signal("INT", &deletes);
    assert_eq!(output(deletes).status.code(), Some(0));

    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));

    let creates = start(&server, &["--kind", "create", "--exec", &print]);
    server.create("Game", json!({}));
    place.wait_for_lines(3);
    server.cut();
    assert!(server.wait_for(MINUTE, |server| server.connects() == 4
        && server.subscription_count() == 1));
    server.create("Game", json!({}));
    place.wait_for_lines(4);
    signal("INT", &creates);
    let told = output(creates);
    assert!(text(&told.stderr).contains("\"gap\""), "{}", text(&told.stderr));
}

#[test]
fn a_command_that_fails_is_told_and_does_not_end_it_unless_it_is_to() {
    let server = TestServer::start().unwrap();
    let place = Place::new("fails");
    let fails = format!("echo x >> {}; exit 3", place.file());
    let on = start(&server, &["--exec", &fails]);
    server.create("Game", json!({}));
    let id = server.create("Game", json!({}));
    place.wait_for_lines(2);
    signal("TERM", &on);
    let told = output(on);
    assert_eq!(told.status.code(), Some(0));
    assert!(
        text(&told.stderr).contains("failed: exit status: 3"),
        "{}",
        text(&told.stderr)
    );

    let on = start(&server, &["--stop-on-failure", "--exec", &fails]);
    server.update("Game", &id, json!({"n": 1}));
    let told = output(on);
    assert_eq!(told.status.code(), Some(5));
    assert!(
        text(&told.stderr).contains(&format!("the command for update {id} failed")),
        "{}",
        text(&told.stderr)
    );
}

#[test]
fn a_command_that_hangs_is_ended_with_what_it_started() {
    let server = TestServer::start().unwrap();
    let place = Place::new("hangs");
    // It reads nothing of an event that no pipe holds, and has a child.
    let hangs = format!("sleep 1000 & echo $! >> {}; wait", place.file());
    let on = start(&server, &["--timeout", "1", "--exec", &hangs]);
    let long = "x".repeat(200_000);
    server.create("Game", json!({ "long": long }));
    server.create("Game", json!({ "long": long }));
    place.wait_for_lines(2);
    // Of a third that runs still, when it is to end.
    signal("TERM", &on);
    let told = output(on);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert!(
        text(&told.stderr).contains("took too long"),
        "{}",
        text(&told.stderr)
    );
    for pid in place.lines() {
        let state = PathBuf::from(format!("/proc/{pid}"));
        wait_until_within(MINUTE, "the end of what the command started", || !state.exists());
    }
}

#[test]
fn jobs_run_at_the_same_time() {
    let server = TestServer::start().unwrap();
    let place = Place::new("jobs");
    // Each waits until three have begun.
    let together = format!(
        "echo x >> {0}; while [ $(wc -l < {0}) -lt 3 ]; do sleep 0.05; done; echo y >> {0}",
        place.file()
    );
    let on = start(&server, &["--jobs", "3", "--exec", &together]);
    for _ in 0..3 {
        server.create("Game", json!({}));
    }
    place.wait_for_lines(6);
    signal("TERM", &on);
    assert_eq!(output(on).status.code(), Some(0));
}

fn start(server: &TestServer, arguments: &[&str]) -> Child {
    let on = command_for(&server.url(), &[&["on", "Game"], arguments].concat())
        .spawn()
        .unwrap();
    assert!(server.wait_for_subscriptions(MINUTE, 1));
    on
}

/// Where the commands leave their traces.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("livequery-on-{name}-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        Self(path)
    }

    fn file(&self) -> &str {
        self.0.to_str().unwrap()
    }

    // Those that are whole: a command may be in the middle of one.
    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0)
            .unwrap()
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }

    fn wait_for_lines(&self, count: usize) {
        wait_until_within(MINUTE, "the lines of the commands", || {
            self.lines().len() >= count
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

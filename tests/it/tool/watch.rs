//! `livequery watch` in terminals that are wide, narrow and change, and in a pipe; with many changes and a server that
//! comes back.

use std::time::Instant;

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

use super::{output, piped, signal, terminal, text};
use crate::harness::MINUTE;
use crate::support::{Terminal, wait_until_within, without_escapes};

#[test]
fn a_table_stays_up_to_date_and_is_left_behind() {
    let server = TestServer::start().unwrap();
    let chess = server.create("Game", json!({"name": "chess", "score": 1}));
    let mut watch = terminal(&server.url(), &["watch", "Game", "--order", "-score"], &[]);
    watch.wait_for("live");
    wait_for_frame(&watch, "the first object", |lines| {
        lines[0].starts_with("id") && lines[0].contains("score") && lines[1].contains("chess")
    });
    server.create("Game", json!({"name": "go", "score": 5}));
    wait_for_frame(&watch, "the second above it", |lines| {
        lines[1].contains("go") && lines[2].contains("chess")
    });
    server.update("Game", &chess, json!({"score": 9}));
    wait_for_frame(&watch, "the first above it again", |lines| {
        lines[1].contains('9') && lines[2].contains("go")
    });
    assert!(
        watch.raw().contains("\x1b[33m") && watch.raw().contains("\x1b[32m"),
        "{}",
        watch.raw()
    );
    server.delete("Game", &chess);
    wait_for_frame(&watch, "one object", |lines| {
        lines[1].contains("go") && lines[2].is_empty() && lines[23].starts_with("Game: 1 of at most 20, live")
    });

    watch.press_ctrl_c();
    assert_eq!(watch.exit_code(), 0);
    let raw = watch.raw();
    let (_, after) = raw.rsplit_once("\x1b[?1049l").expect("the screen is given back");
    assert!(raw.contains("\x1b[?25h"), "the cursor is hidden");
    assert!(after.contains("go") && !after.contains("chess"), "{after}");
    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));
}

#[test]
fn it_says_so_when_the_server_is_gone_and_goes_on_when_it_is_back() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"name": "chess"}));
    let mut watch = terminal(&server.url(), &["watch", "Game"], &[("NO_COLOR", "1")]);
    wait_for_frame(&watch, "the object", |lines| {
        lines[1].contains("chess") && lines[23].ends_with("live")
    });
    server.stop();
    wait_for_frame(&watch, "the loss, and the object", |lines| {
        lines[1].contains("chess") && lines[23].contains("reconnecting, attempt ")
    });
    server.create("Game", json!({"name": "go"}));
    server.resume().unwrap();
    wait_for_frame(&watch, "both", |lines| {
        lines[1..3].concat().contains("chess")
            && lines[1..3].concat().contains("go")
            && lines[23].ends_with("live")
    });
    assert!(!watch.raw().contains("\x1b[3"), "colours: {}", watch.raw());
    watch.press_ctrl_c();
    assert_eq!(watch.exit_code(), 0);
}

#[test]
fn it_fits_a_terminal_that_changes() {
    let server = TestServer::start().unwrap();
    for n in 0..10 {
        server.create(
            "Game",
            json!({"n": n, "name": "日本語のゲーム".repeat(3), "zebra": "last"}),
        );
    }
    let mut watch = terminal(&server.url(), &["watch", "Game", "--select", "n,name,zebra"], &[]);
    wait_for_frame(&watch, "all", |lines| lines[10].contains("last"));
    watch.resize(5, 20);
    wait_for_frame(&watch, "three objects, cut", |lines| {
        lines.len() == 5 && lines[3].contains('…') && lines[4].starts_with("Game: 10 of at")
    });
    watch.resize(3, 2);
    wait_for_frame(&watch, "hardly anything", |lines| {
        lines.len() == 3 && lines[2] == "G…"
    });
    watch.resize(30, 200);
    wait_for_frame(&watch, "all again", |lines| {
        lines.len() == 30 && lines[10].contains("last")
    });
    watch.press_ctrl_c();
    assert_eq!(watch.exit_code(), 0);
}

#[test]
fn ten_thousand_changes_are_drawn_a_few_times() {
    let server = TestServer::start().unwrap();
    let id = server.create("Game", json!({"score": 0}));
    let mut watch = terminal(&server.url(), &["watch", "Game"], &[]);
    wait_for_frame(&watch, "the object", |lines| {
        lines[1].contains('0') && lines[23].contains("live")
    });
    let before = watch.raw().len();
    let start = Instant::now();
    for score in 1..=10_000 {
        server.update("Game", &id, json!({ "score": score }));
    }
    wait_for_frame(&watch, "the last", |lines| lines[1].contains("10000"));
    // Between two drawings there are 50 ms at least, however many changes come.
    let most = start.elapsed().as_millis() / 50 + 10;
    let drawings = watch.raw()[before..].matches("\x1b[H").count();
    assert!(
        drawings as u128 <= most,
        "{drawings} drawings, and {most} at most"
    );
    watch.press_ctrl_c();
    assert_eq!(watch.exit_code(), 0);
}

#[test]
fn a_pipe_gets_a_line_for_each_change() {
    let server = TestServer::start().unwrap();
    let id = server.create("Game", json!({"name": "chess", "score": 1}));
    let (watch, mut lines) = piped(&server, &["watch", "Game", "--order", "-score"]);
    let first = lines.next();
    assert!(
        first.contains("chess") && first.contains(&id) && !first.contains('\x1b'),
        "{first}"
    );
    server.create("Game", json!({"name": "go", "score": 5}));
    let line = lines.next();
    assert!(
        line.contains("added      0") && line.contains("name: \"go\""),
        "{line}"
    );
    server.update("Game", &id, json!({"score": 2}));
    let line = lines.next();
    assert!(
        line.contains("changed    1") && line.trim_end().ends_with("  score: 2"),
        "{line}"
    );
    server.update("Game", &id, json!({"score": 9}));
    assert!(lines.next().contains("moved      0"));
    server.delete("Game", &id);
    assert!(lines.next().contains("removed    0"));
    signal("TERM", &watch);
    let told = output(watch);
    assert_eq!(told.status.code(), Some(0));
    assert!(
        text(&told.stderr).contains("up to date: 1 objects"),
        "{}",
        text(&told.stderr)
    );

    let (watch, mut lines) = piped(&server, &["watch", "Game", "--json"]);
    let first: Value = serde_json::from_str(&lines.next()).unwrap();
    assert!(first.to_string().contains("\"go\""), "{first}");
    // Nobody reads any more.
    drop(lines);
    assert_eq!(output(watch).status.code(), Some(0));
}

/// Waits until the screen that was drawn last is as it should be. Its lines are without escape sequences.
#[track_caller]
fn wait_for_frame(terminal: &Terminal, what: &str, is_right: impl Fn(&[String]) -> bool) {
    wait_until_within(MINUTE, what, || {
        let raw = terminal.raw();
        // The last one may be in the middle of being written.
        let Some(frame) = raw.rsplit("\x1b[H").find(|frame| frame.ends_with("\x1b[J")) else {
            return false;
        };
        let lines: Vec<String> = frame
            .split("\r\n")
            .map(|line| without_escapes(line.to_owned()).trim_end().to_owned())
            .collect();
        lines.len() > 2 && is_right(&lines)
    });
}

//! `livequery tail` as people and scripts use it: in a terminal, in a pipe, with mistakes. What it prints, and what it
//! exits with.

use std::fs;

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

use super::{assert_clean_end, command, command_for, output, piped, signal, terminal, text};
use crate::harness::MINUTE;
use crate::support::{Proxy, Server};

#[test]
fn events_in_a_terminal_say_what_changed_and_ctrl_c_ends_it() {
    let server = TestServer::start().unwrap();
    let mut tail = terminal(
        &server.url(),
        &["tail", "Game", "--where", r#"{"score": {"$gt": 10}}"#],
        &[],
    );
    tail.wait_for("following Game\r\n");

    let chess = server.create(
        "Game",
        json!({"name": "chess", "score": 20, "note": "\u{1b}[2J\u{9b}2J"}),
    );
    tail.wait_for(&format!(
        "create  {chess}  name: \"chess\"  note: \"\\u001b[2J\u{fffd}2J\"  score: 20\r\n"
    ));
    server.update(
        "Game",
        &chess,
        json!({"score": 30, "note": {"__op": "Delete"}, "won": true}),
    );
    tail.wait_for(&format!("update  {chess}  "));
    tail.wait_for("\r\n");
    let line = tail.line_with("score: 20 -> 30");
    assert!(line.contains("won: (unset) -> true"), "{line}");
    assert!(line.contains("2J\" -> (unset)"), "{line}");

    let due = json!({"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"});
    let owner = json!({"__type": "Pointer", "className": "_User", "objectId": "ann"});
    let go = server.create("Game", json!({"score": 1}));
    server.update("Game", &go, json!({"score": 11, "due": due, "owner": owner}));
    tail.wait_for("due: (unset) -> 2024-01-02T03:04:05.678Z");
    let line = tail.line_with("due: ");
    assert!(line.contains(&format!("enter   {go}")), "{line}");
    assert!(line.contains("score: 1 -> 11"), "{line}");
    assert!(line.contains("owner: (unset) -> _User:ann"), "{line}");
    server.update("Game", &go, json!({"score": 9}));
    tail.wait_for(&format!("leave   {go}  score: 11 -> 9\r\n"));
    server.update("Game", &chess, json!({"name": "x".repeat(1000)}));
    tail.wait_for(&format!("\"{}…\r\n", "x".repeat(79)));
    server.delete("Game", &chess);
    tail.wait_for(&format!("delete  {chess}  "));
    let line = tail.line_with("delete");
    let clock = line.split("  ").next().unwrap();
    let digits = clock.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(digits, "00:00:00.000", "{line}");
    assert!(tail.raw().contains("\x1b[32m"), "no colours: {}", tail.raw());

    tail.press_ctrl_c();
    assert_eq!(tail.exit_code(), 0);
    assert_clean_end(&server);
}

#[test]
fn the_state_of_the_connection_is_shown_until_it_is_back() {
    let server = TestServer::start().unwrap();
    let proxy = Proxy::to(server.address());
    let mut tail = terminal(&proxy.url(), &["tail", "Game"], &[]);
    tail.wait_for(&format!("… connecting to {}", proxy.url()));
    tail.wait_for("following Game\r\n");

    proxy.refuse();
    proxy.cut();
    tail.wait_for("… reconnecting, attempt 1 in ");
    // From the second on it is known why.
    tail.wait_for("… reconnecting, attempt 2 in ");
    tail.wait_for("Connection refused");
    assert!(
        tail.raw().contains("\r\x1b[K"),
        "nothing was erased: {}",
        tail.raw()
    );
    proxy.heal();
    tail.wait_for("gap ");
    tail.wait_for(" may have been missed (ConnectionLost)\r\n");
    server.create("Game", json!({"name": "go"}));
    tail.wait_for("name: \"go\"\r\n");
    let after = tail.text();
    let (_, after) = after.split_once("may have been missed").unwrap();
    assert!(!after.contains("reconnecting"), "{after}");

    tail.press_ctrl_c();
    assert_eq!(tail.exit_code(), 0);
}

#[test]
fn colours_can_be_turned_off() {
    let server = TestServer::start().unwrap();
    let mut tail = terminal(&server.url(), &["tail", "Game"], &[("NO_COLOR", "1")]);
    tail.wait_for("following Game\r\n");
    server.create("Game", json!({"name": "go"}));
    tail.wait_for("name: \"go\"\r\n");
    assert!(!tail.raw().contains("\x1b[32m"), "{}", tail.raw());
    tail.press_ctrl_c();
    assert_eq!(tail.exit_code(), 0);
}

#[test]
fn json_goes_through_a_pipe_line_by_line() {
    let server = TestServer::start().unwrap();
    let (tail, mut lines) = piped(
        &server,
        &[
            "tail",
            "Game",
            "--json",
            "--select",
            "name,score",
            "--watch",
            "score",
        ],
    );

    let chess = server.create("Game", json!({"name": "chess", "score": 20, "secret": 1}));
    let mut next = || -> Value { serde_json::from_str(&lines.next()).unwrap() };
    let line = next();
    assert_eq!(line["kind"], "create");
    assert_eq!(line["id"], chess.as_str());
    assert_eq!(line["object"]["name"], "chess");
    assert_eq!(line["object"]["secret"], Value::Null);
    assert_eq!(line["object"]["className"], "Game");
    assert_eq!(line.get("original"), None);
    let time = line["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");

    server.update("Game", &chess, json!({"name": "not watched"}));
    server.update("Game", &chess, json!({"score": 30}));
    let line = next();
    assert_eq!(line["kind"], "update");
    assert_eq!(line["changed"], json!(["score"]));
    assert_eq!(line["object"]["score"], 30);
    assert_eq!(line["original"]["score"], 20);

    server.cut();
    let line = next();
    assert_eq!(line["kind"], "gap");
    assert_eq!(line["reason"], "ConnectionLost");
    assert!(
        line["from"].as_str().unwrap() <= line["to"].as_str().unwrap(),
        "{line}"
    );

    signal("TERM", &tail);
    let output = output(tail);
    assert_eq!(output.status.code(), Some(0));
    let errors = text(&output.stderr);
    assert!(errors.contains("connecting to ws://127.0.0.1:"), "{errors}");
    assert!(errors.contains("reconnecting, attempt 1 in "), "{errors}");
    assert!(!errors.contains('\x1b'), "{errors}");
    assert_clean_end(&server);
}

#[test]
fn it_ends_quietly_when_the_reader_of_the_pipe_leaves() {
    let server = TestServer::start().unwrap();
    let (tail, mut lines) = piped(&server, &["tail", "Game"]);
    server.create("Game", json!({"name": "go"}));
    assert!(lines.next().contains("create"));
    // No event comes any more that could not be written.
    drop(lines);
    let output = output(tail);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stderr).lines().count(),
        2,
        "{}",
        text(&output.stderr)
    );
    assert_clean_end(&server);
}

#[test]
fn it_ends_on_request_though_nobody_reads_what_it_prints() {
    let server = TestServer::start().unwrap();
    let (tail, lines) = piped(&server, &["tail", "Game", "--json"]);
    // More than a pipe holds.
    let text = "x".repeat(100_000);
    for _ in 0..10 {
        server.create("Game", json!({"text": text}));
    }
    signal("INT", &tail);
    let output = output(tail);
    assert_eq!(output.status.code(), Some(0));
    drop(lines);
    assert_clean_end(&server);
}

#[test]
fn wrong_arguments_are_told_before_anything_is_connected() {
    let server = TestServer::start().unwrap();
    let url = server.url();
    let given = ["--server", url.as_str(), "--app-id", "app"];
    for (arguments, told) in [
        (&["tail", "Game"] as &[&str], "--server <URL> is missing"),
        (&["tial", "Game"], "tail"),
        (&["tail", "Game", "--master-key", "sesame"], "--master-key"),
        (
            &[
                "tail",
                "Game",
                "--server",
                &url,
                "--app-id",
                "app",
                "--proxy",
                "http://ann:secret@127.0.0.1:1",
            ],
            "HTTPS_PROXY",
        ),
        (&["tail", "--server", &url, "--app-id", "app"], "<CLASS>"),
        (
            &["tail", "--server", "wss:", "--app-id", "app", "Game"],
            "server URL",
        ),
        (
            &["tail", "--server", &url, "--app-id", "", "Game"],
            "--app-id <ID> is missing",
        ),
        (
            &[&given[..], &["tail", "Game", "--where", "{score"]].concat(),
            "--where <JSON>",
        ),
        (
            &[&given[..], &["tail", "Game", "--where", "[]"]].concat(),
            "object",
        ),
        (
            &[&given[..], &["tail", "Game", "--where", r#"{"a": {"$near": 1}}"#]].concat(),
            "$near",
        ),
        (
            &[
                &given[..],
                &["tail", "Game", "--where", "{}", "--raw-where", "{}"],
            ]
            .concat(),
            "cannot be used with",
        ),
        (&[&given[..], &["tail", "Game", "--watch", "a.b"]].concat(), "a.b"),
        (
            &[&given[..], &["tail", "Game", "--max-attempts", "0"]].concat(),
            "--max-attempts",
        ),
        (&[&given[..], &["tail", "Game", "--jsn"]].concat(), "--jsn"),
    ] {
        let output = command(arguments).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(told), "{arguments:?}: {errors}");
        assert!(
            output.stdout.is_empty(),
            "{arguments:?}: {}",
            text(&output.stdout)
        );
    }
    assert_eq!(server.connects(), 0);
}

#[test]
fn a_refusal_is_told_and_ends_it_with_1() {
    let server = TestServer::builder()
        .javascript_key("the right key")
        .start()
        .unwrap();
    let mut wrong = command_for(&server.url(), &["tail", "Game"]);
    let output = wrong.env("PARSE_JAVASCRIPT_KEY", "a wrong key").output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("error: ") && errors.contains("(code 4)"),
        "{errors}"
    );
    assert!(!errors.contains("a wrong key"), "{errors}");

    server.refuse_class("Game", 119, "not for you");
    let mut right = command_for(&server.url(), &["tail", "Game"]);
    let output = right
        .env("PARSE_JAVASCRIPT_KEY", "the right key")
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("not for you (code 119)"), "{errors}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_server_that_is_not_there_ends_it_with_3_if_attempts_are_counted() {
    let server = Server::auto();
    server.refuse();
    let output = command_for(&server.url(), &["tail", "Game", "--max-attempts", "2"])
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("Connection refused"), "{errors}");
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_ends_it_with_4() {
    let server = TestServer::start().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let tail = command_for(&server.url(), &["tail", "Game"])
        .stdout(full)
        .spawn()
        .unwrap();
    assert!(server.wait_for_subscriptions(MINUTE, 1));
    server.create("Game", json!({}));
    let output = output(tail);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{errors}");
    assert!(errors.contains("cannot be written"), "{errors}");
}

#[test]
fn secrets_of_the_environment_are_used_and_never_echoed() {
    let server = TestServer::builder().master_key("sesame").start().unwrap();
    server.session("r:sesame", "ann");
    let secrets = [
        ("PARSE_MASTER_KEY", "sesame"),
        ("PARSE_CLIENT_KEY", "sesame-client"),
        ("PARSE_REST_API_KEY", "sesame-rest"),
        ("PARSE_JAVASCRIPT_KEY", ""),
        ("PARSE_SESSION_TOKEN", "r:sesame"),
    ];
    for mistake in ["--help", "-h", "--unknown"] {
        let output = command_for(&server.url(), &["tail", "Game", mistake])
            .envs(secrets)
            .output()
            .unwrap();
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!all.contains("sesame"), "{all}");
        assert_eq!(
            output.status.code(),
            Some(if mistake == "--unknown" { 2 } else { 0 })
        );
    }

    let mut tail = terminal(&server.url(), &["tail", "Game"], &secrets);
    tail.wait_for("following Game\r\n");
    let connect: Value = serde_json::from_str(&server.frames()[0][0]).unwrap();
    assert_eq!(connect["masterKey"], "sesame");
    assert_eq!(connect["clientKey"], "sesame-client");
    assert_eq!(connect["restAPIKey"], "sesame-rest");
    assert_eq!(connect["sessionToken"], "r:sesame");
    assert_eq!(connect.get("javascriptKey"), None);
    tail.press_ctrl_c();
    assert_eq!(tail.exit_code(), 0);
    assert!(!tail.raw().contains("sesame"), "{}", tail.raw());
}

#[test]
fn help_tells_the_exit_codes() {
    let output = command(&["--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for line in [
        "Exit codes:",
        "  0  done; or ended by Ctrl-C",
        "  1  the server refused",
        "  2  wrong arguments",
        "  3  the server cannot be reached",
        "  4  the output",
        "PARSE_SESSION_TOKEN",
    ] {
        assert!(help.contains(line), "{line}: {help}");
    }
}

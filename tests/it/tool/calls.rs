//! The commands that call the server once, and where their settings come from.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

use super::{command, command_for, output, terminal, text};

#[test]
fn objects_are_created_found_changed_and_deleted() {
    let server = TestServer::start().unwrap();
    let created = told(&server, &["create", "Game", r#"{"name": "chess", "score": 1}"#]);
    let id = created["objectId"].as_str().unwrap();
    let go = told_with_input(&server, &["create", "Game"], r#"{"name": "go", "score": 5}"#);
    assert_eq!(go["name"], "go");

    let got = told(&server, &["get", "Game", id]);
    assert_eq!(got["name"], "chess");
    told(
        &server,
        &[
            "update",
            "Game",
            id,
            r#"{"score": {"__op": "Increment", "amount": 10}}"#,
        ],
    );
    let found = run(
        &server,
        &["find", "Game", "--order", "-score", "--select", "name,score"],
    );
    let names: Vec<Value> = text(&found.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].clone())
        .collect();
    assert_eq!(names, ["chess", "go"]);
    let found = run(
        &server,
        &["find", "Game", "--order", "-score", "--limit", "1", "--skip", "1"],
    );
    assert!(text(&found.stdout).contains("\"go\""), "{}", text(&found.stdout));
    let found = told(&server, &["find", "Game", "--where", r#"{"score": {"$gt": 10}}"#]);
    assert_eq!(found["name"], "chess");
    assert_eq!(told(&server, &["find", "Game", "--count"]), 2);

    let deleted = run(&server, &["delete", "Game", id]);
    assert_eq!(
        (deleted.status.code(), text(&deleted.stdout)),
        (Some(0), String::new())
    );
    let gone = run(&server, &["get", "Game", id]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("101"), "{}", text(&gone.stderr));
}

#[test]
fn functions_are_called_with_json() {
    let server = TestServer::start().unwrap();
    server.function("double", |call| match call.params()["n"].as_i64() {
        Some(n) => Ok(json!({"twice": 2 * n})),
        None => Err("n is missing".to_owned()),
    });
    assert_eq!(
        told(&server, &["call", "double", r#"{"n": 21}"#]),
        json!({"twice": 42})
    );
    assert_eq!(
        told_with_input(&server, &["call", "double", "-"], r#"{"n": 4}"#),
        json!({"twice": 8})
    );
    let refused = run(&server, &["call", "double"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("n is missing"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn a_log_in_asks_for_the_password_and_prints_a_token_that_works() {
    let server = TestServer::start().unwrap();
    told(
        &server,
        &["create", "_User", r#"{"username": "ann", "password": "sesame"}"#],
    );
    let logged_in = with_input(&server, &["login", "ann"], "sesame\n");
    let token = text(&logged_in.stdout).trim().to_owned();
    assert!(token.starts_with("r:"), "{token} {}", text(&logged_in.stderr));

    let mut login = terminal(&server.url(), &["login", "ann", "--json"], &[]);
    login.wait_for("password: ");
    login.wait_until_typing_is_hidden();
    login.type_in("sesame\n");
    login.wait_for("\"username\":\"ann\"");
    assert_eq!(login.exit_code(), 0);
    assert!(!login.raw().contains("sesame"), "{}", login.raw());

    let wrong = with_input(&server, &["login", "ann"], "wrong\n");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("101"), "{}", text(&wrong.stderr));

    let mine = r#"{"ACL": {"nobody": {"read": true}}}"#;
    let mut create = command_for(&server.url(), &["create", "Note", mine]);
    let created = create.env("PARSE_SESSION_TOKEN", "r:none").output().unwrap();
    assert_eq!(created.status.code(), Some(1));
    assert!(text(&created.stderr).contains("209"), "{}", text(&created.stderr));
    let mut create = command_for(&server.url(), &["create", "Note", "{}"]);
    let created = create.env("PARSE_SESSION_TOKEN", token).output().unwrap();
    assert_eq!(created.status.code(), Some(0), "{}", text(&created.stderr));
}

#[test]
fn a_profile_replaces_the_environment() {
    let server = TestServer::builder()
        .master_key("sesame")
        .rest_api_key("open")
        .start()
        .unwrap();
    server.create("Game", json!({"name": "chess", "ACL": {}}));
    let folder = std::env::temp_dir().join(format!("livequery-profiles-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("profiles.toml");
    let path = file.to_str().unwrap();
    let profiles = format!(
        "# ours\n[master]\nserver = \"{0}\"\napp-id = \"app\"\nmaster-key = \"sesame\"\n\n[public]\nserver = \
         \"{0}\"\napp-id = \"app\"\nrest-api-key = \"open\"\n",
        server.url()
    );
    fs::write(&file, profiles).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let count = |profile: &str| {
        let mut count = command(&[
            "find",
            "Game",
            "--count",
            "--profile",
            profile,
            "--profiles",
            path,
        ]);
        // It must not reach the other server.
        count.env("PARSE_MASTER_KEY", "sesame").output().unwrap()
    };
    assert_eq!(
        text(&count("master").stdout),
        "1\n",
        "{}",
        text(&count("master").stderr)
    );
    assert_eq!(
        text(&count("public").stdout),
        "0\n",
        "{}",
        text(&count("public").stderr)
    );
    assert_eq!(text(&count("master").stderr), "");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let warned = count("master");
    assert_eq!(warned.status.code(), Some(0));
    assert!(
        text(&warned.stderr).contains("chmod 600"),
        "{}",
        text(&warned.stderr)
    );

    for (content, told) in [
        ("[other]\n", "no profile `master`; there are: other"),
        ("[master]\nmaster_key = \"sesame\"\n", "`master_key`"),
        ("[master]\n\nmaster-key = sesame\n", "line 3"),
        ("[master]\nmaster-key = 5e5a3e\n", "line 2"),
    ] {
        fs::write(&file, content).unwrap();
        let refused = count("master");
        let errors = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{errors}");
        assert!(
            errors.contains(told) && !errors.contains("sesame\"") && !errors.contains("5e5a3e"),
            "{errors}"
        );
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_secret_that_is_asked_for_is_not_shown() {
    let server = TestServer::builder().master_key("sesame").start().unwrap();
    server.create("Game", json!({"ACL": {}}));
    let mut find = terminal(
        &server.url(),
        &["find", "Game", "--count", "--ask", "master-key"],
        &[],
    );
    find.wait_for("master key: ");
    find.wait_until_typing_is_hidden();
    find.type_in("sesame\n");
    find.wait_for("1\r\n");
    assert_eq!(find.exit_code(), 0);
    assert!(!find.raw().contains("sesame"), "{}", find.raw());
}

#[test]
fn mistakes_and_a_server_that_is_not_there_have_their_own_codes() {
    let server = TestServer::start().unwrap();
    for (arguments, told) in [
        (&["create", "Game", "{name}"] as &[&str], "not valid JSON"),
        (&["create", "Game", "[1]"], "object"),
        (&["find", "Game", "--where", "[]"], "object"),
        (&["find"], "<CLASS>"),
    ] {
        let wrong = run(&server, arguments);
        assert_eq!(
            wrong.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&wrong.stderr)
        );
        assert!(
            text(&wrong.stderr).contains(told),
            "{arguments:?}: {}",
            text(&wrong.stderr)
        );
    }
    let url = server.url();
    drop(server);
    let gone = command_for(&url, &["find", "Game"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(3), "{}", text(&gone.stderr));
}

#[test]
fn completions_and_the_manual_page_have_every_command() {
    let help = text(&command(&["--help"]).output().unwrap().stdout);
    for arguments in [
        &["completions", "bash"] as &[&str],
        &["completions", "fish"],
        &["man"],
    ] {
        let printed = command(arguments).output().unwrap();
        assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
        let printed = text(&printed.stdout).replace('\\', "").to_lowercase();
        for name in [
            "tail", "find", "get", "create", "update", "delete", "call", "login",
        ] {
            assert!(help.contains(&format!("  {name} ")), "{name}: {help}");
            assert!(printed.contains(name), "{arguments:?}: {name}");
        }
        assert!(printed.contains("raw-where"), "{arguments:?}");
    }
}

/// What a call that must succeed prints.
#[track_caller]
fn told(server: &TestServer, arguments: &[&str]) -> Value {
    answer(&run(server, arguments))
}

#[track_caller]
fn told_with_input(server: &TestServer, arguments: &[&str], input: &str) -> Value {
    answer(&with_input(server, arguments, input))
}

#[track_caller]
fn answer(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn run(server: &TestServer, arguments: &[&str]) -> Output {
    command_for(&server.url(), arguments).output().unwrap()
}

fn with_input(server: &TestServer, arguments: &[&str], input: &str) -> Output {
    let mut child = command_for(&server.url(), arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    output(child)
}

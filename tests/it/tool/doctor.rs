//! `livequery doctor` with prepared faults: whether it names the right one, and says what to do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

use super::{command, command_for, output, terminal, text};
use crate::harness::MINUTE;
use crate::support::{Authority, ConnectProxy, Server, Then, TlsServer};

#[test]
fn a_healthy_server_is_told_to_be_one() {
    let server = TestServer::builder()
        .master_key("sesame")
        .rest_api_key("open")
        .start()
        .unwrap();
    server.session("r:ann", "ann");
    server.create("Game", json!({"name": "chess"}));
    let mut doctor = command_for(&server.url(), &["doctor", "Game", "--write", "--json"]);
    doctor
        .env("PARSE_SESSION_TOKEN", "r:ann")
        .env("PARSE_MASTER_KEY", "sesame")
        .env("PARSE_REST_API_KEY", "open");
    let findings = findings(&mut doctor, 0);
    let steps: Vec<&str> = findings
        .iter()
        .map(|finding| finding["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "TCP",
            "connection",
            "REST",
            "session",
            "class",
            "subscription",
            "round trip",
            "token",
            "master key"
        ],
        "{findings:?}"
    );
    assert!(
        findings.iter().all(|finding| finding["outcome"] == "ok"),
        "{findings:?}"
    );
    let trip = findings[6]["text"].as_str().unwrap();
    for who in ["the public", "the user", "the master key"] {
        assert!(trip.contains(who), "{trip}");
    }
    // Nothing is left behind.
    assert_eq!(server.objects("Game").len(), 1);
    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));
}

#[test]
fn without_write_access_it_says_what_it_did_not_try() {
    let server = TestServer::start().unwrap();
    let mut doctor = command_for(&server.url(), &["doctor", "Game", "--json"]);
    let findings = findings(&mut doctor, 0);
    let last = findings.last().unwrap();
    assert_eq!(
        (last["step"].as_str(), last["outcome"].as_str()),
        (Some("round trip"), Some("unknown"))
    );
    assert!(last["text"].as_str().unwrap().contains("--write"));
    assert!(server.objects("Game").is_empty());

    let mut doctor = command_for(&server.url(), &["doctor", "--json"]);
    assert_eq!(self::findings(&mut doctor, 0).last().unwrap()["step"], "class");
    let wrong = command_for(&server.url(), &["doctor", "--write"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn people_get_the_cure_below_the_fault() {
    let server = Server::auto();
    server.refuse();
    let mut doctor = terminal(&server.url(), &["doctor", "Game"], &[]);
    doctor.wait_for("FAULT  TCP ");
    doctor.wait_for("No server listens there");
    doctor.wait_for("What to do:\r\n");
    doctor.wait_for("Check that the server runs");
    assert_eq!(doctor.exit_code(), 1);
}

#[test]
fn faults_on_the_way_to_the_server() {
    let server = TestServer::start().unwrap();
    assert_fault("name", &mut doctor("ws://no-such-server.invalid/parse", &[]));
    let absent = Server::auto();
    absent.refuse();
    assert_fault("tcp-refused", &mut doctor(&absent.url(), &[]));
    assert_fault("tls-none", &mut doctor(&server.url().replace("ws:", "wss:"), &[]));

    let authority = Authority::new();
    let ca = std::env::temp_dir().join(format!("livequery-ca-{}.pem", std::process::id()));
    std::fs::write(&ca, &authority.pem).unwrap();
    let trusting = ["--ca", ca.to_str().unwrap()];
    let good = TlsServer::new(&authority.issue("127.0.0.1"), server.address());
    assert_fault("tls-untrusted", &mut doctor(&good.url(), &[]));
    assert_fault("tls-port", &mut doctor(&good.url().replace("wss:", "ws:"), &[]));
    let expired = TlsServer::new(&authority.issue_expired("127.0.0.1"), server.address());
    assert_fault("tls-expired", &mut doctor(&expired.url(), &trusting));
    let other = TlsServer::new(&authority.issue("parse.example.com"), server.address());
    assert_fault("tls-name", &mut doctor(&other.url(), &trusting));
    let findings = findings(&mut doctor(&good.url(), &trusting), 0);
    let tls = findings.iter().find(|finding| finding["step"] == "TLS").unwrap();
    assert!(
        tls["text"].as_str().unwrap().contains("valid for this name"),
        "{tls}"
    );

    let proxy = ConnectProxy::refusing("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    assert_fault("proxy", &mut doctor(&server.url(), &["--proxy", &proxy.url()]));
    std::fs::remove_file(ca).unwrap();
}

#[test]
fn faults_of_the_connection() {
    let no_websocket = answering("404 Not Found", "{}");
    assert_fault("upgrade", &mut doctor(&no_websocket.url(), &[]));

    let with_key = TestServer::builder()
        .javascript_key("the right key")
        .start()
        .unwrap();
    let mut wrong = doctor(&with_key.url(), &[]);
    let fault = assert_fault("key", wrong.env("PARSE_JAVASCRIPT_KEY", "a wrong key"));
    assert!(
        fault["text"].as_str().unwrap().contains("javascript-key"),
        "{fault}"
    );
    assert!(!fault.to_string().contains("a wrong key"), "{fault}");

    let refusing = TestServer::start().unwrap();
    refusing.refuse_connections_with(141, "not today");
    assert_fault("connect-hook", &mut doctor(&refusing.url(), &[]));
}

#[test]
fn a_server_that_takes_everything_and_answers_nothing() {
    let silent = Server::auto();
    silent.on_frame(|_, _| Then::Handled);
    assert_fault("silent", &mut doctor(&silent.url(), &[]));
}

#[test]
fn faults_of_the_rest_api() {
    let server = TestServer::start().unwrap();
    let closed = r#"{"code": 119, "error": "Permission denied"}"#;
    for (fault, status, body) in [
        ("application-id", "403 Forbidden", r#"{"error": "unauthorized"}"#),
        ("rest-address", "404 Not Found", "<h1>Not found</h1>"),
        ("route-allow-list", "403 Forbidden", closed),
        ("rest-down", "502 Bad Gateway", "<h1>Bad gateway</h1>"),
    ] {
        let rest = answering(status, body);
        let url = rest.url().replace("ws:", "http:");
        assert_fault(fault, &mut doctor(&server.url(), &["--rest-url", &url]));
    }
    let mut expired = doctor(&server.url(), &[]);
    let fault = assert_fault("session-token", expired.env("PARSE_SESSION_TOKEN", "r:expired"));
    assert!(!fault.to_string().contains("r:expired"), "{fault}");
}

#[test]
fn faults_of_the_subscription() {
    for (fault, code, text) in [
        ("clp", 119, "Permission denied for action find on class Game."),
        (
            "stand-alone",
            141,
            "Cannot read properties of undefined (reading 'requestComplexity')",
        ),
        ("regex-forbidden", 102, "$regex operator is not allowed"),
        ("subscribe-hook", 142, "not for you"),
    ] {
        let server = TestServer::start().unwrap();
        server.refuse_class("Game", code, text);
        assert_fault(fault, &mut doctor(&server.url(), &[]));
    }
}

#[test]
fn faults_that_only_a_round_trip_shows() {
    let server = TestServer::start().unwrap();
    let private = r#"{"ACL": {"ann": {"read": true}}}"#;
    assert_fault("acl", &mut doctor(&server.url(), &["--write", "--data", private]));
    let unmet = [
        "--write",
        "--where",
        r#"{"score": {"$gt": 10}}"#,
        "--data",
        r#"{"score": 1}"#,
    ];
    assert_fault("data", &mut doctor(&server.url(), &unmet));

    let other = TestServer::start().unwrap();
    let rest = server.url().replace("ws:", "http:");
    assert_fault(
        "two-processes",
        &mut doctor(&other.url(), &["--write", "--rest-url", &rest]),
    );
    assert!(other.wait_for(MINUTE, |server| server.connections() == 0));
}

#[test]
fn events_that_come_late_are_held_back_by_something() {
    let server = TestServer::start().unwrap();
    let doctor = doctor(&server.url(), &["--write"]).spawn().unwrap();
    assert!(server.wait_for_subscriptions(MINUTE, 1));
    server.delay(Duration::from_millis(2100));
    let output = output(doctor);
    let lines = text(&output.stdout);
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["fault"], "buffers", "{lines}");
    assert!(server.objects("Game").is_empty());
}

#[test]
fn tail_says_what_is_wrong_when_nothing_comes() {
    let server = TestServer::start().unwrap();
    let mut tail = terminal(&server.url(), &["tail", "Game", "--silence", "1"], &[]);
    tail.wait_for("following Game");
    tail.wait_for("`livequery doctor Game --write` finds out why");
    tail.press_ctrl_c();
    assert_eq!(tail.exit_code(), 0);

    let expired = [("PARSE_SESSION_TOKEN", "r:expired")];
    let mut tail = terminal(&server.url(), &["tail", "Game", "--silence", "1"], &expired);
    tail.wait_for("The session token is not valid");
    tail.press_ctrl_c();
    assert_eq!(tail.exit_code(), 0);
}

fn doctor(url: &str, arguments: &[&str]) -> Command {
    let all = [
        &["doctor", "Game", "--json", "--server", url, "--app-id", "app"],
        arguments,
    ]
    .concat();
    command(&all)
}

/// What it found, step by step.
#[track_caller]
fn findings(doctor: &mut Command, code: i32) -> Vec<Value> {
    let output = doctor.output().unwrap();
    let lines = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{lines}{}",
        text(&output.stderr)
    );
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// It stops at this fault, finds none before it, and says what to do.
#[track_caller]
fn assert_fault(name: &str, doctor: &mut Command) -> Value {
    let mut findings = findings(doctor, 1);
    let last = findings.pop().unwrap();
    assert_eq!(last["fault"], name, "{last}, after {findings:?}");
    assert!(
        last["cure"].as_str().is_some_and(|cure| cure.len() > 10),
        "{last}"
    );
    assert!(
        findings.iter().all(|finding| finding["outcome"] != "fault"),
        "{findings:?}"
    );
    last
}

/// Answers whatever it is sent, TLS as well, with one HTTP answer.
struct Http {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn answering(status: &str, body: &str) -> Http {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&ends);
    let thread = thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            client.set_read_timeout(Some(MINUTE)).unwrap();
            // A client that only looks whether the port is open sends nothing.
            if client.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                let _ = client.write_all(answer.as_bytes());
            }
        }
    });
    Http {
        address,
        ends,
        thread: Some(thread),
    }
}

impl Http {
    fn url(&self) -> String {
        format!("ws://{}/parse", self.address)
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

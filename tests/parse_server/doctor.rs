//! `livequery doctor` on real Parse Servers that are healthy or have a prepared fault: whether it names the right one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::livequery;
use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, MASTER_KEY, Options, ParseServer, only, spawn_node};
use crate::versions::{self, Server};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_healthy_server_is_told_to_be_one() {
    let server = ParseServer::shared();
    let user = server.sign_up("doctor-healthy");
    let healthy = doctor(server, &["DoctorHealthy", "--write"], Some(&user.session_token));
    let mut healthy = healthy.without_master();
    let start = Instant::now();
    let findings = healthy.findings(0);
    let time = start.elapsed();
    eprintln!("healthy after {time:?}");
    let last = findings.last().unwrap();
    assert_eq!(
        (last["step"].as_str(), last["outcome"].as_str()),
        (Some("token"), Some("ok")),
        "{findings:?}"
    );
    assert!(
        findings.iter().all(|finding| finding["outcome"] == "ok"),
        "{findings:?}"
    );
    assert!(server.find("DoctorHealthy", &json!({}), &[]).is_empty());
    assert!(
        time < Duration::from_secs(30),
        "it waited for something: {time:?}"
    );
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_master_key_that_livequery_does_not_know() {
    // Its `keyPairs` have the JavaScript key alone.
    let server = ParseServer::shared();
    doctor(server, &["DoctorMaster", "--write"], None).names("master-key");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn faults_of_keys_sessions_and_permissions() {
    let server = ParseServer::shared();
    let mut wrong = doctor(server, &["DoctorKey"], None);
    wrong.0.env("PARSE_JAVASCRIPT_KEY", "wrong");
    wrong.names("key");

    let mut stranger = doctor(server, &["DoctorApp"], None);
    stranger
        .0
        .env("PARSE_APPLICATION_ID", "another-app")
        .env_remove("PARSE_MASTER_KEY");
    stranger.names("application-id");

    let user = server.sign_up("doctor-logged-out");
    server.log_out(&user);
    doctor(server, &["DoctorSession"], Some(&user.session_token)).names("session-token");

    let closed = json!({"className": "DoctorClosed", "classLevelPermissions": {"find": {}, "get": {}}});
    server.rest("POST", "/schemas/DoctorClosed", &[], Some(&closed));
    doctor(server, &["DoctorClosed"], None)
        .without_master()
        .names("clp");

    let owner = server.sign_up("doctor-owner");
    let private = json!({ "ACL": only(&owner) }).to_string();
    doctor(server, &["DoctorAcl", "--write", "--data", &private], None)
        .without_master()
        .names("acl");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn faults_of_hooks() {
    let server = ParseServer::shared();
    doctor(server, &["DropsCreate", "--write"], None).names("hook");
    doctor(
        server,
        &["Throws", "--write", "--data", r#"{"fail": true}"#],
        None,
    )
    .names("hook-throws");
    let fault = doctor(server, &["DropsAll", "--write"], None).names("nothing-sent");
    assert!(fault["cure"].as_str().unwrap().contains("sendEvent"), "{fault}");
    doctor(server, &["Refused", "--write"], None).names("subscribe-hook");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn faults_of_the_configuration() {
    let server = ParseServer::start(Options {
        class_names: vec!["Other".to_owned()],
        settings: json!({"requestComplexity": {"allowRegex": false}}),
        ..Options::default()
    });
    let fault = doctor(&server, &["Game", "--write"], None).names("nothing-sent");
    assert!(
        fault["cure"].as_str().unwrap().contains("liveQuery.classNames"),
        "{fault}"
    );
    let mut enabled = doctor(&server, &["Other", "--write"], None).without_master();
    enabled.findings(0);
    let regex = r#"{"name": {"$regex": "a"}}"#;
    doctor(&server, &["Other", "--where", regex], None)
        .without_master()
        .names("regex-forbidden");

    let server = ParseServer::start(Options {
        settings: json!({"routeAllowList": ["health"]}),
        ..Options::default()
    });
    doctor(&server, &["Game"], None)
        .without_master()
        .names("route-allow-list");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn two_processes_that_do_not_know_of_each_other() {
    let (mut database, port) = spawn_node("database.mjs", None);
    let options = Options {
        database_port: Some(port),
        ..Options::default()
    };
    let servers = [ParseServer::start(options.clone()), ParseServer::start(options)];
    let mut doctor = doctor(&servers[0], &["Game", "--write"], None);
    doctor.0.env("PARSE_REST_URL", servers[1].url());
    doctor.names("two-processes");
    database.kill().unwrap();
    database.wait().unwrap();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_router_that_keeps_livequery_from_recognising_tokens() {
    let server = ParseServer::start(Options {
        router: Some(router("2.3.0")),
        ..Options::default()
    });
    let user = server.sign_up("doctor-router");
    doctor(&server, &["Game", "--write"], Some(&user.session_token)).names("router");
    doctor(&server, &["Game", "--write"], Some(&user.session_token))
        .without_master()
        .names("router");
}

#[test]
#[ignore = "needs Node.js and npm"]
fn other_versions_are_healthy_as_well() {
    for version in versions::chosen() {
        eprintln!("Parse Server {}", version.name());
        let server = Server::start(version);
        let user = server.sign_up("doctor-version");
        let url = format!("ws://127.0.0.1:{}/parse", server.port());
        let mut healthy = doctor_at(url, &["Game", "--write"], Some(&user.session_token)).without_master();
        let findings = healthy.findings(0);
        assert_eq!(findings.last().unwrap()["step"], "token", "{findings:?}");
        assert!(
            findings.iter().all(|finding| finding["outcome"] == "ok"),
            "{findings:?}"
        );
    }
}

struct Doctor(Command);

fn doctor(server: &ParseServer, arguments: &[&str], token: Option<&str>) -> Doctor {
    doctor_at(server.ws_url(), arguments, token)
}

fn doctor_at(url: String, arguments: &[&str], token: Option<&str>) -> Doctor {
    let mut command = Command::new(livequery());
    command
        .args(["doctor", "--json"])
        .args(arguments)
        .env("PARSE_SERVER_URL", url)
        .env("PARSE_APPLICATION_ID", APPLICATION_ID)
        .env("PARSE_JAVASCRIPT_KEY", JAVASCRIPT_KEY)
        .env("PARSE_MASTER_KEY", MASTER_KEY)
        .env("PARSE_SESSION_TOKEN", token.unwrap_or_default())
        .stdin(Stdio::null());
    Doctor(command)
}

impl Doctor {
    fn without_master(mut self) -> Self {
        self.0.env_remove("PARSE_MASTER_KEY");
        self
    }

    #[track_caller]
    fn findings(&mut self, code: i32) -> Vec<Value> {
        let output = self.0.output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{lines}{errors}");
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// It stops at this fault.
    #[track_caller]
    fn names(mut self, fault: &str) -> Value {
        let mut findings = self.findings(1);
        let last = findings.pop().unwrap();
        assert_eq!(last["fault"], fault, "{last}, after {findings:?}");
        last
    }
}

/// A version of the npm package `router`, installed.
fn router(version: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("router-{version}"));
    let installed = folder.join("node_modules/router");
    if !installed.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let npm = Command::new("npm")
            .args([
                "install",
                "--no-save",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefix",
            ])
            .arg(&folder)
            .arg(format!("router@{version}"))
            .output()
            .unwrap();
        assert!(npm.status.success(), "{}", String::from_utf8_lossy(&npm.stderr));
    }
    installed
}

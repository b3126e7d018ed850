//! The program `livequery` as people and scripts use it: in a terminal, in a pipe, with mistakes.

mod calls;
#[cfg(any(feature = "tls", feature = "webpki-roots"))]
mod doctor;
mod on;
mod picture;
mod serve;
mod tail;
mod watch;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use parse_livequery::test_server::TestServer;
use portable_pty::CommandBuilder;

use crate::harness::MINUTE;
use crate::support::{Terminal, livequery, watchdog, without_escapes};

/// The server was told that the client goes, and nothing is left of it.
#[track_caller]
fn assert_clean_end(server: &TestServer) {
    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));
    let frames = server.frames();
    let last = frames.last().unwrap().last().unwrap();
    assert!(last.contains("unsubscribe"), "the last frame was {last}");
}

/// The program in a terminal, looked at without its escape sequences.
fn terminal(url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Terminal {
    let mut command = CommandBuilder::new(livequery());
    command.args(for_server(url, arguments));
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.env("TERM", "xterm");
    for (name, value) in environment {
        command.env(name, value);
    }
    Terminal::start(command, 80, without_escapes)
}

/// The lines of a pipe.
struct Lines(Option<BufReader<std::process::ChildStdout>>);

impl Lines {
    #[track_caller]
    fn next(&mut self) -> String {
        let mut reader = self.0.take().unwrap();
        let (reader, line) = watchdog(MINUTE, move || {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            (reader, line)
        });
        self.0 = Some(reader);
        line
    }
}

/// The program with its output in a pipe, once it follows.
fn piped(server: &TestServer, arguments: &[&str]) -> (Child, Lines) {
    piped_with(server, arguments, &[])
}

fn piped_with(server: &TestServer, arguments: &[&str], environment: &[(&str, &str)]) -> (Child, Lines) {
    let mut command = command_for(&server.url(), arguments);
    let mut child = command.envs(environment.iter().copied()).spawn().unwrap();
    let lines = Lines(child.stdout.take().map(BufReader::new));
    assert!(server.wait_for_subscriptions(MINUTE, 1));
    (child, lines)
}

#[track_caller]
fn output(child: Child) -> Output {
    watchdog(MINUTE, move || child.wait_with_output().unwrap())
}

fn signal(name: &str, child: &Child) {
    let pid = child.id().to_string();
    let kill = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
        .status();
    assert!(kill.unwrap().success());
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(livequery());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

fn command_for(url: &str, arguments: &[&str]) -> Command {
    let arguments = for_server(url, arguments);
    command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn for_server(url: &str, arguments: &[&str]) -> Vec<String> {
    let all = [arguments, &["--server", url, "--app-id", "app"]].concat();
    all.into_iter().map(str::to_owned).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What would change what the program does.
const VARIABLES: [&str; 20] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "NO_COLOR",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "LIVEQUERY_PROFILES",
    "PARSE_APPLICATION_ID",
    "PARSE_CA_FILE",
    "PARSE_CLIENT_KEY",
    "PARSE_JAVASCRIPT_KEY",
    "PARSE_MASTER_KEY",
    "PARSE_PASSWORD",
    "PARSE_PROXY",
    "PARSE_REST_API_KEY",
    "PARSE_REST_URL",
    "PARSE_SERVER_URL",
    "PARSE_SERVER_VERSION",
    "PARSE_SESSION_TOKEN",
    "PARSE_WINDOWS_KEY",
    "TERM",
];

//! The example `tail` as people and scripts use it: in a terminal, in a pipe, with mistakes. What it prints, and what
//! it exits with.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use parse_livequery::test_server::TestServer;
use portable_pty::{Child as PtyChild, CommandBuilder, PtySize, native_pty_system};
use serde_json::{Value, json};

use crate::harness::MINUTE;
use crate::support::{Proxy, Server, wait_until_within, watchdog};

#[test]
fn events_in_a_terminal_say_what_changed_and_ctrl_c_ends_it() {
    let server = TestServer::start().unwrap();
    let mut tail = Terminal::start(
        &server.url(),
        &["Game", "--where", r#"{"score": {"$gt": 10}}"#],
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
    let mut tail = Terminal::start(&proxy.url(), &["Game"], &[]);
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
    let mut tail = Terminal::start(&server.url(), &["Game"], &[("NO_COLOR", "1")]);
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
        &["Game", "--json", "--select", "name,score", "--watch", "score"],
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
    let (tail, mut lines) = piped(&server, &["Game"]);
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
    let (tail, lines) = piped(&server, &["Game", "--json"]);
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
        (&["Game"] as &[&str], "--server <URL>"),
        (&["--server", &url, "--app-id", "app"], "<CLASS>"),
        (&["--server", "wss:", "--app-id", "app", "Game"], "server URL"),
        (
            &["--server", &url, "--app-id", "", "Game"],
            "application id is empty",
        ),
        (
            &[&given[..], &["Game", "--where", "{score"]].concat(),
            "--where <JSON>",
        ),
        (&[&given[..], &["Game", "--where", "[]"]].concat(), "object"),
        (
            &[&given[..], &["Game", "--where", r#"{"a": {"$near": 1}}"#]].concat(),
            "$near",
        ),
        (
            &[&given[..], &["Game", "--where", "{}", "--raw-where", "{}"]].concat(),
            "cannot be used with",
        ),
        (&[&given[..], &["Game", "--watch", "a.b"]].concat(), "a.b"),
        (
            &[&given[..], &["Game", "--max-attempts", "0"]].concat(),
            "--max-attempts",
        ),
        (&[&given[..], &["Game", "--jsn"]].concat(), "--jsn"),
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
    let mut wrong = command_for(&server.url(), &["Game"]);
    let output = wrong.env("PARSE_JAVASCRIPT_KEY", "a wrong key").output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("error: ") && errors.contains("(code 4)"),
        "{errors}"
    );
    assert!(!errors.contains("a wrong key"), "{errors}");

    server.refuse_class("Game", 119, "not for you");
    let mut right = command_for(&server.url(), &["Game"]);
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
    let output = command_for(&server.url(), &["Game", "--max-attempts", "2"])
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
    let tail = command_for(&server.url(), &["Game"])
        .stdout(full)
        .spawn()
        .unwrap();
    assert!(server.wait_for_subscriptions(1, MINUTE));
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
        let output = command_for(&server.url(), &["Game", mistake])
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

    let mut tail = Terminal::start(&server.url(), &["Game"], &secrets);
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
        "  0  ended by Ctrl-C",
        "  1  the server refused",
        "  2  wrong arguments",
        "  3  gave up",
        "  4  the output",
        "PARSE_SESSION_TOKEN",
    ] {
        assert!(help.contains(line), "{line}: {help}");
    }
}

/// The server was told that the client goes, and nothing is left of it.
#[track_caller]
fn assert_clean_end(server: &TestServer) {
    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));
    let frames = server.frames();
    let last = frames.last().unwrap().last().unwrap();
    assert!(last.contains("unsubscribe"), "the last frame was {last}");
}

/// The example in a terminal of its own: all that it prints, and a keyboard.
struct Terminal {
    child: Box<dyn PtyChild + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    /// How much of the text has been waited for.
    seen: usize,
}

#[derive(Default)]
struct Screen {
    raw: Vec<u8>,
    ended: bool,
}

impl Terminal {
    fn start(url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let pty = native_pty_system().openpty(PtySize::default()).unwrap();
        let mut command = CommandBuilder::new(binary());
        command.args(for_server(url, arguments));
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env("TERM", "xterm");
        for (name, value) in environment {
            command.env(name, value);
        }
        let child = pty.slave.spawn_command(command).unwrap();
        // So that the reader gets an end when the child is gone.
        drop(pty.slave);
        let mut reader = pty.master.try_clone_reader().unwrap();
        let screen = Arc::<(Mutex<Screen>, Condvar)>::default();
        let shared = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Linux ends a terminal with an error.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.0.lock().raw.extend_from_slice(&buffer[..count]);
                shared.1.notify_all();
            }
            shared.0.lock().ended = true;
            shared.1.notify_all();
        });
        Self {
            child,
            keyboard: pty.master.take_writer().unwrap(),
            screen,
            seen: 0,
        }
    }

    /// Waits for a text, without escape sequences, after what was waited for last.
    #[track_caller]
    fn wait_for(&mut self, wanted: &str) {
        let deadline = Instant::now() + MINUTE;
        let mut screen = self.screen.0.lock();
        loop {
            let text = without_escapes(&String::from_utf8_lossy(&screen.raw));
            if let Some(at) = text[self.seen..].find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !screen.ended && !left.is_zero(),
                "{wanted:?} did not come after byte {} of {text:?}",
                self.seen
            );
            self.screen.1.wait_for(&mut screen, left);
        }
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().raw).into_owned()
    }

    fn text(&self) -> String {
        without_escapes(&self.raw())
    }

    #[track_caller]
    fn line_with(&self, part: &str) -> String {
        let text = self.text();
        let line = text.lines().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("no line with {part:?} in {text}"))
            .to_owned()
    }

    fn press_ctrl_c(&mut self) {
        self.keyboard.write_all(b"\x03").unwrap();
    }

    #[track_caller]
    fn exit_code(&mut self) -> u32 {
        let mut code = None;
        wait_until_within(MINUTE, "the end of the process", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the test has failed it runs still.
        let _ = self.child.kill();
    }
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

/// The example with its output in a pipe, once it follows.
fn piped(server: &TestServer, arguments: &[&str]) -> (Child, Lines) {
    let mut child = command_for(&server.url(), arguments).spawn().unwrap();
    let lines = Lines(child.stdout.take().map(BufReader::new));
    assert!(server.wait_for_subscriptions(1, MINUTE));
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
    let mut command = Command::new(binary());
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

/// The example's binary. `cargo test` builds it along with this one; where it was not built, or has changed since,
/// cargo is asked to.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let this = env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).unwrap();
        let binary = profile.join("examples/tail");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tail");
        let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
        let built = changed(&binary).ok();
        let mut sources = fs::read_dir(sources).unwrap();
        let stale = built.is_none() || sources.any(|source| changed(&source.unwrap().path()).ok() > built);
        if stale {
            let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
            let status = Command::new(cargo).args(["build", "--example", "tail"]).status();
            assert!(status.unwrap().success());
        }
        binary
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The text without the escape sequences that `tail` uses: `ESC [`, parameters, a letter.
fn without_escapes(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part
            .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
            .get(1..)
            .unwrap_or_default()
    })
}

/// What would change what the example does.
const VARIABLES: [&str; 11] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "NO_COLOR",
    "PARSE_APPLICATION_ID",
    "PARSE_CLIENT_KEY",
    "PARSE_JAVASCRIPT_KEY",
    "PARSE_MASTER_KEY",
    "PARSE_REST_API_KEY",
    "PARSE_SERVER_URL",
    "PARSE_SESSION_TOKEN",
    "TERM",
];

//! The program `livequery` as people and scripts use it: in a terminal, in a pipe, with mistakes.

mod calls;
#[cfg(any(feature = "tls", feature = "webpki-roots"))]
mod doctor;
mod on;
mod picture;
mod program;
mod serve;
mod tail;
mod watch;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use parse_livequery::test_server::TestServer;
use portable_pty::{Child as PtyChild, CommandBuilder, MasterPty, PtySize, native_pty_system};

use self::program::binary;
use crate::harness::MINUTE;
use crate::support::{wait_until_within, watchdog};

/// The server was told that the client goes, and nothing is left of it.
#[track_caller]
fn assert_clean_end(server: &TestServer) {
    assert!(server.wait_for(MINUTE, |server| server.connections() == 0));
    let frames = server.frames();
    let last = frames.last().unwrap().last().unwrap();
    assert!(last.contains("unsubscribe"), "the last frame was {last}");
}

/// The program in a terminal of its own: all that it prints, and a keyboard.
struct Terminal {
    child: Box<dyn PtyChild + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
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
            master: pty.master,
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
        self.type_in("\x03");
    }

    fn resize(&self, rows: u16, cols: u16) {
        let size = PtySize {
            rows,
            cols,
            ..PtySize::default()
        };
        self.master.resize(size).unwrap();
    }

    fn wait_until_typing_is_hidden(&self) {
        wait_until_within(MINUTE, "the echo to be off", || {
            let flags = format!("{:?}", self.master.get_termios().unwrap().local_flags);
            !flags
                .split(|c: char| !c.is_alphanumeric())
                .any(|flag| flag == "ECHO")
        });
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn exit_code(&mut self) -> u32 {
        let mut code = None;
        wait_until_within(MINUTE, "the end of the process", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        // What it printed last may still be on its way.
        wait_until_within(MINUTE, "the end of what it prints", || self.screen.0.lock().ended);
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

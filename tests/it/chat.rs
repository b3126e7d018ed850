//! The example `chat` as people use it: in terminals, with its robot and with each other.

use std::env;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use parse_livequery::test_server::TestServer;
use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};
use serde_json::json;

use crate::harness::MINUTE;
use crate::support::{Proxy, wait_until_within};

#[test]
fn the_robot_answers() {
    let mut you = Terminal::start(&[]);
    you.wait_for("* hello you\r\n");
    you.wait_for("robot: good morning\r\n");
    you.types("hi\r");
    // The line with the echo is replaced.
    you.wait_for("\x1b[A\x1b[2K\ryou: hi\r\n");
    you.wait_for("robot: you said \"hi\", which has 2 letters\r\n");
    you.types("\r");
    you.ends_well();
}

#[test]
fn two_see_what_each_other_says_and_the_state_of_the_connection() {
    let server = TestServer::start().unwrap();
    let proxy = Proxy::to(server.address());
    server.create(
        "Message",
        json!({"room": "lobby", "name": "eve", "text": "before \x1b[2J you"}),
    );
    server.create(
        "Message",
        json!({"room": "cellar", "name": "eve", "text": "elsewhere"}),
    );
    let mut ann = Terminal::start(&["--server", &proxy.url(), "--app-id", "app", "--name", "ann"]);
    ann.wait_for("eve: before  [2J you\r\n");
    let mut bob = Terminal::start(&["--server", &server.url(), "--app-id", "app", "--name", "bob"]);
    bob.wait_for("eve: before");
    ann.types("hello bob\r");
    bob.wait_for("ann: hello bob\r\n");
    proxy.refuse();
    proxy.cut();
    ann.wait_for("* not connected, next attempt in");
    ann.types("lost\r");
    ann.wait_for("* not sent: ");
    bob.types("are you there?\r");
    bob.wait_for("bob: are you there?\r\n");
    proxy.heal();
    ann.wait_for("* connected\r\n");
    ann.wait_for("bob: are you there?\r\n");
    assert!(!ann.text().contains("elsewhere"));
    // Who is known has to have the password.
    let mut other = Terminal::start(&[
        "--server",
        &server.url(),
        "--app-id",
        "app",
        "--name",
        "ann",
        "--password",
        "x",
    ]);
    other.wait_for("already exists");
    assert_ne!(other.exit_code(), 0);
    for terminal in [&mut ann, &mut bob] {
        terminal.types("\x04");
        terminal.ends_well();
    }
}

/// The example in a pseudo-terminal.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    seen: usize,
}

#[derive(Default)]
struct Screen {
    raw: Vec<u8>,
    has_ended: bool,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let size = PtySize {
            cols: 200,
            ..PtySize::default()
        };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(binary());
        command.args(arguments);
        command.env_remove("CHAT_PASSWORD");
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
            shared.0.lock().has_ended = true;
            shared.1.notify_all();
        });
        Self {
            child,
            keyboard: pty.master.take_writer().unwrap(),
            screen,
            seen: 0,
        }
    }

    /// Waits for a text after what was waited for last.
    #[track_caller]
    fn wait_for(&mut self, wanted: &str) {
        let deadline = Instant::now() + MINUTE;
        let mut screen = self.screen.0.lock();
        loop {
            let text = String::from_utf8_lossy(&screen.raw).into_owned();
            if let Some(at) = text[self.seen..].find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !screen.has_ended && !left.is_zero(),
                "{wanted:?} did not come after byte {} of {text:?}",
                self.seen
            );
            self.screen.1.wait_for(&mut screen, left);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().raw).into_owned()
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn exit_code(&mut self) -> u32 {
        let mut code = None;
        wait_until_within(MINUTE, "the end of the process", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().exit_code()
    }

    #[track_caller]
    fn ends_well(&mut self) {
        assert_eq!(self.exit_code(), 0, "{}", self.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo has built it with the tests, but for `cargo test --test it`.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let tests = env::current_exe().unwrap();
        let binary = tests.ancestors().nth(2).unwrap().join("examples/chat");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/chat.rs");
        let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        if changed(&binary) < changed(&source) {
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let status = Command::new(cargo).args(["build", "--example", "chat"]).status();
            assert!(status.unwrap().success());
        }
        binary
    })
}

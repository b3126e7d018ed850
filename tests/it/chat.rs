//! The example `chat` as people use it: in terminals, with its robot and with each other.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parse_livequery::test_server::TestServer;
use portable_pty::CommandBuilder;
use serde_json::json;

use crate::support::{Proxy, Terminal, built};

#[test]
fn the_robot_answers() {
    let mut you = start(&[]);
    you.wait_for("* hello you\r\n");
    you.wait_for("robot: good morning\r\n");
    you.type_in("hi\r");
    // The line with the echo is replaced.
    you.wait_for("\x1b[A\x1b[2K\ryou: hi\r\n");
    you.wait_for("robot: you said \"hi\", which has 2 letters\r\n");
    you.type_in("\r");
    assert_ends_well(&mut you);
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
    let mut ann = start(&["--server", &proxy.url(), "--app-id", "app", "--name", "ann"]);
    ann.wait_for("eve: before  [2J you\r\n");
    let mut bob = start(&["--server", &server.url(), "--app-id", "app", "--name", "bob"]);
    bob.wait_for("eve: before");
    ann.type_in("hello bob\r");
    bob.wait_for("ann: hello bob\r\n");
    proxy.refuse();
    proxy.cut();
    ann.wait_for("* not connected, next attempt in");
    ann.type_in("lost\r");
    ann.wait_for("* not sent: ");
    bob.type_in("are you there?\r");
    bob.wait_for("bob: are you there?\r\n");
    proxy.heal();
    ann.wait_for("* connected\r\n");
    ann.wait_for("bob: are you there?\r\n");
    assert!(!ann.text().contains("elsewhere"));
    // Who is known has to have the password.
    let mut other = start(&[
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
        terminal.type_in("\x04");
        assert_ends_well(terminal);
    }
}

/// The example in a terminal, looked at with its escape sequences.
fn start(arguments: &[&str]) -> Terminal {
    let mut command = CommandBuilder::new(chat());
    command.args(arguments);
    command.env_remove("CHAT_PASSWORD");
    Terminal::start(command, 200, |text| text)
}

#[track_caller]
fn assert_ends_well(terminal: &mut Terminal) {
    assert_eq!(terminal.exit_code(), 0, "{}", terminal.text());
}

/// Cargo has built it with the tests, but for `cargo test --test it`.
fn chat() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("examples/chat", "examples/chat.rs", &["--example", "chat"]))
}

//! A chat between terminals: log in, history, new messages as they arrive, and the state of the connection.
//!
//! `cargo run --example chat` starts a server in the process, with a robot that answers. On a Parse Server with LiveQuery
//! for the class `Message`, start it twice, in two terminals:
//!
//! ```text
//! CHAT_PASSWORD=.. cargo run --example chat -- --server ws://localhost:1337/parse --app-id APP --name ann
//! CHAT_PASSWORD=.. cargo run --example chat -- --server ws://localhost:1337/parse --app-id APP --name bob
//! ```
//!
//! Type a line to send it; an empty line or Ctrl-D ends the program.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Parser;
use parse_livequery::rest::Rest;
use parse_livequery::test_server::TestServer;
use parse_livequery::{Change, Client, LiveSet, Object, Query, Subscription};
use serde::Serialize;

/// Chats.
#[derive(Parser)]
struct Arguments {
    /// The LiveQuery server, such as ws://host:port/path. Without it, one is started in this process.
    #[arg(long, requires = "app_id")]
    server: Option<String>,
    /// The application id of that server.
    #[arg(long, requires = "server")]
    app_id: Option<String>,
    /// Its JavaScript key, if it requires one.
    #[arg(long, requires = "server")]
    javascript_key: Option<String>,
    /// Your name. A new user is signed up.
    #[arg(long, default_value = "you")]
    name: String,
    /// Your password. Other users of this machine can see it in the command line, so put it into the
    /// environment.
    #[arg(
        long,
        env = "CHAT_PASSWORD",
        hide_env_values = true,
        default_value = "a password"
    )]
    password: String,
    /// The room to join.
    #[arg(long, default_value = "lobby")]
    room: String,
}

/// The fields of a saved message.
#[derive(Serialize)]
struct Message<'a> {
    room: &'a str,
    name: &'a str,
    text: &'a str,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let room = &*arguments.room;
    let (Some(server), Some(app_id)) = (&arguments.server, &arguments.app_id) else {
        let server = TestServer::start()?;
        let (robot, answers) = robot(&server, room)?;
        println!("* a robot is in the room; an empty line ends the chat");
        let client = Client::builder(server.url(), "chat").build()?;
        chat(&client, &arguments)?;
        drop((answers, robot));
        return Ok(());
    };
    let mut builder = Client::builder(server, app_id);
    if let Some(key) = &arguments.javascript_key {
        builder = builder.javascript_key(key);
    }
    chat(&builder.build()?, &arguments)
}

fn chat(client: &Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments {
        name, password, room, ..
    } = arguments;
    client.on_open(|| println!("* connected"));
    client.on("reconnecting", |event| {
        println!(
            "* not connected, next attempt in {:.1?}",
            event.delay().unwrap_or_default()
        );
    });
    client.on("session_ended", |_| {
        println!("* you were logged out: restart the program to log in")
    });
    client.on_error(|error| println!("* {error}"));

    let rest = client.rest();
    log_in(&rest, name, password)?;
    println!("* hello {name}");
    let messages = messages(client, room)?;
    // Show the history before the first input.
    messages.wait_ready(Duration::from_secs(30))?;

    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    for line in io::stdin().lock().lines() {
        let text = line?;
        if text.trim().is_empty() {
            break;
        }
        if is_terminal {
            // The typed line is shown when it is in the room, so erase its echo.
            print!("\x1b[A\x1b[2K\r");
            io::stdout().flush()?;
        }
        let message = Message {
            room,
            name,
            text: text.trim(),
        };
        match rest.create("Message", &message) {
            Ok(_) => {}
            Err(error) if error.may_have_happened() => println!("* perhaps not sent: {error}"),
            Err(error) => println!("* not sent: {error}"),
        }
    }
    client.close();
    Ok(())
}

fn log_in(rest: &Rest, name: &str, password: &str) -> parse_livequery::Result<()> {
    match rest.log_in(name, password) {
        // There is no such user, or the password is wrong: if the name is taken, signing up fails below.
        Err(error) if error.code() == Some(101) => {
            rest.sign_up(name, password, &serde_json::json!({})).map(drop)
        }
        other => other.map(drop),
    }
}

/// The last messages of the room, and new ones.
fn messages(client: &Client, room: &str) -> parse_livequery::Result<LiveSet> {
    let newest_first = Query::new("Message")
        .equal_to("room", room)
        .descending(["createdAt"])
        .limit(20);
    let mut is_first = true;
    client
        .live_set(&newest_first)
        .on_change(move |change, messages| match change {
            Change::Inserted { object, .. } => show(object),
            // All messages at once: at the start, and after a long loss of the connection.
            Change::Reset => {
                if !std::mem::take(&mut is_first) {
                    println!("* the last messages again:");
                }
                messages
                    .iter()
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .for_each(show);
            }
            _ => {}
        })
        .start()
}

fn show(message: &Object) {
    let field = |name: &str| {
        let text = message.get_str(name).unwrap_or("?");
        // Other users must not control this terminal.
        text.replace(char::is_control, " ")
    };
    println!("{}: {}", field("name"), field("text"));
}

/// A partner to talk to: another client, with its own session.
fn robot(server: &TestServer, room: &str) -> Result<(Client, Subscription), Box<dyn Error>> {
    let robot = Client::builder(server.url(), "chat").build()?;
    let rest = robot.rest();
    rest.sign_up("robot", "a password", &serde_json::json!({}))?;
    let say = {
        let room = room.to_owned();
        move |text: &str| {
            let message = Message {
                room: &room,
                name: "robot",
                text,
            };
            if let Err(error) = rest.create("Message", &message) {
                eprintln!("the robot cannot speak: {error}");
            }
        }
    };
    say("good morning");
    let of_others = Query::new("Message")
        .equal_to("room", room)
        .not_equal_to("name", "robot");
    let answers = robot
        .subscription(&of_others)
        .on_create(move |message| {
            let text = message.get_str("text").unwrap_or_default();
            say(&format!(
                "you said {text:?}, which has {} letters",
                text.chars().count()
            ));
        })
        .start()?;
    answers.wait_open(Duration::from_secs(30))?;
    Ok((robot, answers))
}

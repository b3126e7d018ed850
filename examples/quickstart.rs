//! The life of a subscription, as its listeners report it.
//!
//! `cargo run --example quickstart` starts a LiveQuery server in the process and shows every event, and what
//! happens when the connection is lost. `cargo run --example quickstart -- --server ws://localhost:1337/parse
//! --app-id APP` watches the class `Game` of your own server until Ctrl-C. It prints how to create an object
//! there, and what to check when nothing arrives.

use std::error::Error;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, EventKind, Object, Query, Subscription};
use serde_json::json;

/// Watches the games with more than 10 points.
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
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    match (arguments.server, arguments.app_id) {
        (Some(server), Some(app_id)) => watch(server, app_id, arguments.javascript_key),
        _ => demonstrate(),
    }
}

/// Subscribes with listeners that print everything. Each event is also sent to the returned channel.
fn subscribe(client: &Client) -> parse_livequery::Result<(Subscription, Receiver<EventKind>)> {
    client.on_open(|| println!("client        connected"));
    client.on_close(|_| println!("client        connection closed"));
    // Also called for the errors of the subscription.
    client.on_error(|error| println!("error         {error}"));
    client.on("reconnecting", |event| {
        println!(
            "reconnecting  attempt {} in {:.1?}",
            event.attempt().unwrap_or_default(),
            event.delay().unwrap_or_default()
        );
    });

    let (happened, events) = mpsc::channel();
    let query = Query::new("Game").greater_than("score", 10);
    let subscription = client
        .subscription(&query)
        .on_open(|gap| match gap {
            None => println!("open          events come from now on"),
            Some(gap) => println!(
                "open          again, {:.1?} may have been missed ({:?})",
                gap.duration(),
                gap.reason()
            ),
        })
        .on("create", |game| {
            println!("create        {}", points(game.object()))
        })
        .on("update", |game| {
            println!(
                "update        {}, was {}",
                points(game.object()),
                points(game.original())
            );
            println!("              changed: {}", game.changed_keys().join(", "));
        })
        .on("enter", |game| {
            println!(
                "enter         {}, was {}",
                points(game.object()),
                points(game.original())
            )
        })
        .on("leave", |game| {
            println!(
                "leave         {}, was {}",
                points(game.object()),
                points(game.original())
            )
        })
        .on("delete", |game| {
            println!("delete        {}", points(game.object()))
        })
        .on_close(|error| match error {
            None => println!("close         the subscription has ended"),
            Some(error) => println!("close         {error}"),
        })
        .on_any(move |event| {
            // The receiver may be gone.
            let _ = happened.send(event.kind());
        })
        .start()?;
    Ok((subscription, events))
}

fn points(game: Option<&Object>) -> String {
    let name = game.and_then(|game| game.get_str("name")).unwrap_or("?");
    match game.and_then(|game| game.get_f64("score")) {
        Some(score) => format!("{name} with {score} points"),
        None => name.to_owned(),
    }
}

fn demonstrate() -> Result<(), Box<dyn Error>> {
    let server = TestServer::start()?;
    let client = Client::builder(server.url(), "demo")
        .reconnect_delay(Duration::from_millis(250), Duration::from_secs(1))
        .build()?;
    let (subscription, events) = subscribe(&client)?;
    let wait_for = |kind| wait_for(&events, kind);

    wait_for(EventKind::Open)?;
    let chess = server.create("Game", json!({"name": "chess", "score": 20}));
    wait_for(EventKind::Create)?;
    server.update("Game", &chess, json!({"score": 30}));
    wait_for(EventKind::Update)?;
    let go = server.create("Game", json!({"name": "go", "score": 1}));
    server.update("Game", &go, json!({"score": 11}));
    wait_for(EventKind::Enter)?;
    server.update("Game", &go, json!({"score": 9}));
    wait_for(EventKind::Leave)?;
    server.delete("Game", &chess);
    wait_for(EventKind::Delete)?;

    server.cut();
    wait_for(EventKind::Close)?;
    wait_for(EventKind::Open)?;
    server.create("Game", json!({"name": "mill", "score": 12}));
    wait_for(EventKind::Create)?;

    client.close();
    drop(subscription);
    Ok(())
}

fn wait_for(events: &Receiver<EventKind>, wanted: EventKind) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(kind) if kind == wanted => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err(format!("`{wanted}` did not arrive").into()),
        }
    }
}

fn watch(server: String, app_id: String, javascript_key: Option<String>) -> Result<(), Box<dyn Error>> {
    println!("To see an event, create an object:\n");
    println!("{}\n", curl(&server, &app_id, javascript_key.is_some()));

    let mut builder = Client::builder(server, app_id);
    if let Some(key) = javascript_key {
        builder = builder.javascript_key(key);
    }
    let client = builder.build()?;
    let (subscription, events) = subscribe(&client)?;
    let of_thread = client.clone();
    thread::spawn(move || diagnose_silence(&of_thread, &events));
    let at_exit = client.clone();
    ctrlc::set_handler(move || at_exit.close())?;
    // Until Ctrl-C, or until the server refuses the client permanently.
    client.wait_closed()?;
    drop(subscription);
    Ok(())
}

/// The command that creates an object that matches the query.
fn curl(server: &str, app_id: &str, with_key: bool) -> String {
    // LiveQuery and the REST API usually have the same URL.
    let rest = server
        .strip_prefix("ws")
        .map_or_else(|| server.to_owned(), |rest| format!("http{rest}"));
    let key = if with_key {
        " -H \"X-Parse-JavaScript-Key: $JAVASCRIPT_KEY\""
    } else {
        ""
    };
    format!(
        "  curl '{}/classes/Game' -H 'X-Parse-Application-Id: {app_id}'{key} -H 'Content-Type: application/json' \\\n    \
         -d '{{\"name\": \"chess\", \"score\": 20}}'",
        rest.trim_end_matches('/')
    )
}

/// Waits for the first object; if none arrives for a while, prints what the client knows.
fn diagnose_silence(client: &Client, events: &Receiver<EventKind>) {
    let deadline = Instant::now() + SILENCE;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(EventKind::Open | EventKind::Close | EventKind::Error) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                println!("\nNothing has arrived for {SILENCE:?}.\n{}", client.diagnose());
                return;
            }
        }
    }
}

/// How long nothing may arrive until the program says what to check.
const SILENCE: Duration = Duration::from_secs(10);

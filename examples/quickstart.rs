//! The life of a subscription, told by its listeners.
//!
//! `cargo run --example quickstart` starts a LiveQuery server in the process and shows every event, and what happens
//! when the link is cut. `cargo run --example quickstart -- --server ws://localhost:1337/parse --app-id APP` watches
//! the class `Game` of a server of yours until Ctrl-C.

use std::error::Error;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use clap::Parser;
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, EventKind, Object, Query, Subscription};
use serde_json::{Value, json};

/// Watches the games with more than 10 points.
#[derive(Parser)]
struct Arguments {
    /// The LiveQuery server, as ws://host:port/path. Without it, one is started in this process.
    #[arg(long, requires = "app_id")]
    server: Option<String>,
    /// The application id of that server.
    #[arg(long, requires = "server")]
    app_id: Option<String>,
    /// Its JavaScript key, if it asks for one.
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
    client.on("open", |_| println!("client        connected"));
    client.on("close", |_| println!("client        connection closed"));
    client.on("error", |event| {
        println!(
            "client        error: {}",
            event.error().map_or_else(String::new, |e| e.to_string())
        )
    });
    client.on("reconnecting", |event| {
        println!(
            "reconnecting  attempt {:?} in {:.1?}",
            event.attempt().unwrap_or(0),
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
        .on_error(|error| println!("error         {error}"))
        .on_any(move |event| {
            // Whoever has heard enough may have hung up.
            let _ = happened.send(event.kind());
        })
        .subscribe()?;
    Ok((subscription, events))
}

fn points(game: Option<&Object>) -> String {
    let field = |name| {
        game.and_then(|game| game.get(name))
            .map_or_else(|| "?".to_owned(), Value::to_string)
    };
    format!("{} with {} points", field("name"), field("score"))
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
            Err(_) => return Err(format!("`{wanted}` did not come").into()),
        }
    }
}

fn watch(server: String, app_id: String, javascript_key: Option<String>) -> Result<(), Box<dyn Error>> {
    let mut builder = Client::builder(server, app_id);
    if let Some(key) = javascript_key {
        builder = builder.javascript_key(key);
    }
    let client = builder.build()?;
    let (subscription, _) = subscribe(&client)?;
    let at_exit = client.clone();
    ctrlc::set_handler(move || at_exit.close())?;
    // Until Ctrl-C, or until the server refuses the connection for good.
    client.wait_closed()?;
    drop(subscription);
    Ok(())
}

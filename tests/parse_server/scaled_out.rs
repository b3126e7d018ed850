//! Two real Parse Servers with one database that tell each other of their events through a Redis.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use parse_livequery::{EventKind, Query};
use serde_json::json;

use crate::recorder::{Recorder, builder_for};
use crate::support::{Options, ParseServer, Port, install, is_installed, spawn_node, wait_until};

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().expect("a process of ours can be killed");
        self.0.wait().expect("a process of ours ends");
    }
}

fn start_redis() -> (Process, Port) {
    let port = Port::reserve();
    let process = Command::new("redis-server")
        .args([
            "--port",
            &port.addr().port().to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(process);
    wait_until("Redis serves", || TcpStream::connect(port.addr()).is_ok());
    (process, port)
}

#[test]
#[ignore = "needs Node.js 20, npm and redis-server"]
fn a_client_goes_to_the_other_server_and_gets_the_events_of_both() {
    if !is_installed("redis-server") {
        return;
    }
    install();
    let (_redis, port_of_redis) = start_redis();
    let (database, database_port) = spawn_node("database.mjs", None);
    let _database = Process(database);
    let options = Options {
        database_port: Some(database_port),
        redis_url: Some(format!("redis://{}", port_of_redis.addr())),
        ..Options::default()
    };
    // One after the other, since each makes the tables that are missing.
    let servers = [ParseServer::start(options.clone()), ParseServer::start(options)];
    let client = builder_for(servers[0].ws_url())
        .add_server(servers[1].ws_url())
        .build()
        .unwrap();
    let recorder = Recorder::open(client.subscription(&Query::new("Shared")));
    for server in &servers {
        let id = server.create("Shared", &json!({"score": 1}));
        recorder.expect_of(EventKind::Create, &id);
    }
    let (on, other) = match servers[0].subscriptions("Shared").len() {
        1 => (&servers[0], &servers[1]),
        _ => (&servers[1], &servers[0]),
    };
    assert_eq!(
        (
            on.subscriptions("Shared").len(),
            other.subscriptions("Shared").len()
        ),
        (1, 0)
    );

    on.kill();
    recorder.expect(EventKind::Close);
    assert!(recorder.expect(EventKind::Open).gap().is_some());
    assert_eq!(other.subscriptions("Shared").len(), 1);
    let id = other.create("Shared", &json!({"score": 2}));
    recorder.expect_of(EventKind::Create, &id);

    // The one that went comes back, and what is saved through it reaches the client on the other.
    on.start_again();
    on.update("Shared", &id, &json!({"score": 3}));
    recorder.expect_of(EventKind::Update, &id);
    other.delete("Shared", &id);
    recorder.expect_of(EventKind::Delete, &id);
    recorder.end();
    client.close();
}

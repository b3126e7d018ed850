//! Live sets on Parse Server 4.10, which sends one message object to all subscriptions of a class: an event may come under
//! the name that it has for another one.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parse_livequery::{Client, EventKind, LiveSet, Object, Query};
use serde_json::{Value, json};

use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, MASTER_KEY, PATIENCE, Port, install, spawn_node};
use crate::support::{spawn_program, wait_until};
use crate::versions::{VERSIONS, install_modules, node};

/// A Parse Server 4.10 with a database of its own.
struct Server {
    port: Port,
    // In the order in which they end.
    processes: [Child; 2],
}

impl Server {
    fn start() -> Self {
        install();
        let version = VERSIONS
            .iter()
            .find(|version| version.number.starts_with("4.10."))
            .unwrap();
        let (database, database_port) = spawn_node("database.mjs", None);
        let port = Port::reserve();
        let arguments = json!({
            "folder": install_modules(version), "port": port.addr().port(), "databasePort": database_port,
        });
        let program = node(version.node);
        let (server, _) = spawn_program(&program, "server_of_version.cjs", Some(arguments.to_string()));
        Self {
            port,
            processes: [server, database],
        }
    }

    fn rest(&self, method: &str, path: &str, body: &Value) -> Value {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}/parse/classes/Game{path}", self.port.addr()))
            .header("X-Parse-Application-Id", APPLICATION_ID)
            .header("X-Parse-Master-Key", MASTER_KEY)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .unwrap();
        let text = agent.run(request).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
#[ignore = "needs npm; installs an old Parse Server and its Node.js"]
fn an_object_that_leaves_is_gone_though_its_event_has_another_name() {
    let server = Arc::new(Server::start());
    let client = Client::builder(format!("ws://{}/parse", server.port.addr()), APPLICATION_ID)
        .javascript_key(JAVASCRIPT_KEY)
        .build()
        .unwrap();
    let finding = Arc::clone(&server);
    let set: LiveSet = client
        .live_set(&Query::new("Game").equal_to("open", true))
        .fetch_with(
            move |query: &Query| -> Result<Vec<Object>, parse_livequery::Error> {
                let mut body: Value = serde_json::from_str(&query.to_json()?).unwrap();
                body["_method"] = "GET".into();
                let found = finding.rest("POST", "", &body);
                let found = found["results"].as_array().unwrap().iter();
                found.map(|json| Object::from_json(json.clone())).collect()
            },
        )
        .start()
        .unwrap();
    set.wait_ready(PATIENCE).unwrap();
    // All games, and those of a score: an object that leaves the set is an update there.
    let others = [Query::new("Game"), Query::new("Game").equal_to("score", 1)];
    let others = others.map(|query| client.subscribe(&query).unwrap());
    others.iter().for_each(|other| other.wait_open(PATIENCE).unwrap());
    let misnamed = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&misnamed);
    set.subscription().on_any(move |event| {
        let is_open = event.object().and_then(|object| object.get_bool("open"));
        let is_misnamed = event.kind() == EventKind::Update && is_open == Some(false);
        counting.fetch_add(usize::from(is_misnamed), Ordering::SeqCst);
    });
    for _ in 0..10 {
        let game = server.rest("POST", "", &json!({"open": true, "score": 1}));
        let id = game["objectId"].as_str().unwrap().to_owned();
        wait_until("it is there", || set.get(&id).is_some());
        server.rest("PUT", &format!("/{id}"), &json!({"open": false}));
        wait_until("it is gone", || set.get(&id).is_none());
        wait_until("the set is sure of it", || set.is_ready());
        assert!(set.get(&id).is_none());
    }
    println!("{} of 10 leaves came as updates", misnamed.load(Ordering::SeqCst));
}

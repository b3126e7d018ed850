//! The versions of Parse Server that the library promises to work with, what each needs to run, how it is installed and
//! started. It must not know what is tried on them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use parse_livequery::{Client, ClientBuilder};
use serde_json::{Map, Value, json};

use crate::support::{
    APPLICATION_ID, JAVASCRIPT_KEY, MASTER_KEY, PATIENCE, Port, User, install, numbered_path, say,
    spawn_node, spawn_program,
};

/// A version, and what it needs beside itself.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) number: &'static str,
    /// The major version of Node.js that runs it.
    node: u8,
    /// Packages that must be others than npm would choose today.
    overrides: &'static [(&'static str, &'static str)],
    pub(crate) database: Database,
}

/// Where the objects of a server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// As WebAssembly, which comes with the packages of these tests.
    Postgres,
    /// Its stand-in from PyPI, which speaks the protocol of MongoDB and sorts as it does.
    Mongo,
}

/// `router` 2.3.0 makes LiveQuery recognise no session token.
const ROUTER: (&str, &str) = ("router", "2.2.0");

const fn on_postgres(
    number: &'static str,
    node: u8,
    overrides: &'static [(&'static str, &'static str)],
) -> Version {
    Version {
        number,
        node,
        overrides,
        database: Database::Postgres,
    }
}

pub(crate) static VERSIONS: &[Version] = &[
    // Its driver of Postgres hangs on Node.js 14 and later.
    on_postgres("2.8.4", 12, &[]),
    on_postgres("3.10.0", 12, &[]),
    on_postgres("4.10.20", 16, &[("extract-files", "9.0.0")]),
    on_postgres("5.6.0", 18, &[]),
    on_postgres("6.5.11", 18, &[]),
    on_postgres("7.5.4", 20, &[]),
    on_postgres("8.6.94", 20, &[ROUTER]),
    on_postgres("9.0.0", 20, &[ROUTER]),
    on_postgres("9.10.0", 20, &[ROUTER]),
    // The newest that is to come.
    on_postgres("9.10.1-alpha.13", 20, &[ROUTER]),
];

static ON_MONGO: Version = Version {
    database: Database::Mongo,
    ..on_postgres("9.10.0", 20, &[ROUTER])
};

/// Which package of PyPI, and what it says of itself once it is installed.
const STAND_IN: &str = "secantusdb==0.7.0b3";

impl Version {
    /// Major and minor.
    pub(crate) fn is_before(&self, major: u16, minor: u16) -> bool {
        let mut parts = self.number.split('.').map(|part| part.parse::<u16>().unwrap());
        (parts.next().unwrap(), parts.next().unwrap()) < (major, minor)
    }

    /// For a reader.
    pub(crate) fn name(&self) -> String {
        match self.database {
            Database::Postgres => self.number.to_owned(),
            Database::Mongo => format!("{} on MongoDB", self.number),
        }
    }
}

/// The versions to test: those that `PARSE_SERVER_VERSIONS` names, separated by commas: `all`, `mongo`, or the first
/// parts of their numbers. By default the newest, and the oldest that is in full use.
pub(crate) fn chosen() -> Vec<&'static Version> {
    let wanted = std::env::var("PARSE_SERVER_VERSIONS").unwrap_or_else(|_| "9.10.0,5.6.0".to_owned());
    wanted
        .split(',')
        .flat_map(|wanted| match wanted {
            "all" => VERSIONS.iter().collect(),
            "mongo" => vec![&ON_MONGO],
            _ => {
                let named = VERSIONS.iter().find(|version| {
                    version.number == wanted || version.number.starts_with(&format!("{wanted}."))
                });
                vec![named.unwrap_or_else(|| {
                    panic!("PARSE_SERVER_VERSIONS names {wanted:?}, which is not in the table")
                })]
            }
        })
        .collect()
}

/// Installs a version, without the Node.js that it needs, and returns its folder.
pub(crate) fn install_modules(version: &Version) -> PathBuf {
    let overrides: Map<String, Value> = version
        .overrides
        .iter()
        .map(|(name, number)| ((*name).to_owned(), json!(number)))
        .collect();
    let manifest = json!({
        "private": true,
        "dependencies": {"parse-server": version.number},
        "overrides": overrides,
    });
    by_npm(&format!("parse-server-{}", version.number), &manifest)
}

/// The program of a major version of Node.js.
fn node(major: u8) -> PathBuf {
    let package = format!("node-{}-{}", std::env::consts::OS, architecture());
    let manifest = json!({"private": true, "dependencies": {package.as_str(): major.to_string()}});
    by_npm(&format!("node-{major}"), &manifest).join(format!("node_modules/{package}/bin/node"))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn by_npm(name: &str, manifest: &Value) -> PathBuf {
    installed(name, &manifest.to_string(), |home, text| {
        fs::write(home.join("package.json"), text).unwrap();
        let npm = [
            "install",
            "--legacy-peer-deps",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ];
        run(name, Command::new("npm").args(npm).current_dir(home));
    })
}

/// Python's packages do not survive a move, so they are put into a folder of their own, and found by its path.
fn install_stand_in() -> PathBuf {
    installed("mongodb", STAND_IN, |home, package| {
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
        ];
        run(
            "mongodb",
            Command::new("python3").args(pip).arg(home).arg(package),
        );
    })
}

fn run(name: &str, command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name} cannot be installed: {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{name} cannot be installed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Installs what a text names, once; the folder's name holds for it.
///
/// A version that cannot be installed fails the run.
fn installed(name: &str, text: &str, install: impl FnOnce(&Path, &str)) -> PathBuf {
    // The tests of one process share the folder that npm works in.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let is_done = || fs::read_to_string(home.join("installed.json")).is_ok_and(|done| done == text);
    if is_done() {
        return home;
    }
    say(&format!("installing {name} in target/tmp, up to 250 MB, once"));
    // Another process may be here at the same time: whoever is first puts its folder into the place.
    let staging = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", process::id()));
    fs::create_dir_all(&staging).unwrap();
    install(&staging, text);
    fs::write(staging.join("installed.json"), text).unwrap();
    let _ = fs::remove_dir_all(&home);
    if fs::rename(&staging, &home).is_err() {
        assert!(is_done(), "{name} cannot be put into its place");
        let _ = fs::remove_dir_all(&staging);
    }
    home
}

/// A server of one version with a database of its own; both end with this value.
pub(crate) struct Server {
    version: &'static Version,
    port: Port,
    database_uri: String,
    /// Of the database, if it is in a folder.
    data: Option<PathBuf>,
    process: Child,
    database: Child,
    agent: ureq::Agent,
}

impl Server {
    pub(crate) fn start(version: &'static Version) -> Self {
        install();
        let data = (version.database == Database::Mongo).then(|| numbered_path("mongo"));
        let (database, database_uri) = match version.database {
            Database::Postgres => {
                let (process, port) = spawn_node("database.mjs", None);
                let uri = format!("postgres://postgres:postgres@127.0.0.1:{port}/postgres");
                (process, uri)
            }
            Database::Mongo => {
                let arguments = json!({"packages": install_stand_in(), "folder": &data});
                let (process, port) =
                    spawn_program(Path::new("python3"), "mongodb.py", Some(arguments.to_string()));
                (process, format!("mongodb://127.0.0.1:{port}/parse"))
            }
        };
        let port = Port::reserve();
        let process = spawn(version, &port, &database_uri);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            version,
            port,
            database_uri,
            data,
            process,
            database,
            agent,
        }
    }

    /// Ends the server as a power cut does, and starts it again with the same data.
    pub(crate) fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = spawn(self.version, &self.port, &self.database_uri);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.addr().port()
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(format!("ws://{}/parse", self.port.addr()), APPLICATION_ID)
            .javascript_key(JAVASCRIPT_KEY)
            .reconnect_delay(Duration::from_millis(100), Duration::from_millis(500))
    }

    pub(crate) fn rest(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        // A query goes in the body, since an URL has little room.
        let (method, mut body) = (if method == "GET" { "POST" } else { method }, body.clone());
        if method == "POST" && path.starts_with("?") {
            body["_method"] = json!("GET");
        }
        let path = path.trim_start_matches('?');
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}/parse{path}", self.port.addr()))
            .header("X-Parse-Application-Id", APPLICATION_ID)
            .header("X-Parse-Master-Key", MASTER_KEY)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .unwrap();
        let mut answer = self.agent.run(request).map_err(|error| error.to_string())?;
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        if answer.status().is_success() {
            Ok(serde_json::from_str(&text).unwrap())
        } else {
            Err(text)
        }
    }

    pub(crate) fn create(&self, class: &str, object: &Value) -> String {
        let created = self.rest("POST", &format!("/classes/{class}"), object).unwrap();
        created["objectId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn update(&self, class: &str, id: &str, changes: &Value) {
        self.rest("PUT", &format!("/classes/{class}/{id}"), changes)
            .unwrap();
    }

    pub(crate) fn delete(&self, class: &str, id: &str) {
        self.rest("DELETE", &format!("/classes/{class}/{id}"), &json!({}))
            .unwrap();
    }

    /// Creates a user and logs it in.
    pub(crate) fn sign_up(&self, name: &str) -> User {
        let user = json!({"username": name, "password": "a password"});
        self.rest("POST", "/users", &user).unwrap();
        serde_json::from_value(self.rest("POST", "/login", &user).unwrap()).unwrap()
    }

    /// The objects that `find()` finds; `options` are members such as `order`.
    pub(crate) fn find(&self, class: &str, options: &Value) -> Result<Vec<Value>, String> {
        let mut answer = self.rest("POST", &format!("?/classes/{class}"), options)?;
        match answer["results"].take() {
            Value::Array(found) => Ok(found),
            _ => Err(answer.to_string()),
        }
    }

    /// The ids of what `find()` finds for a `where`.
    pub(crate) fn find_ids(&self, class: &str, rest: &Value) -> Result<BTreeSet<String>, String> {
        let found = self.find(class, &json!({"where": rest, "limit": 1000}))?;
        Ok(found
            .iter()
            .map(|object| object["objectId"].as_str().unwrap().to_owned())
            .collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.database] {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(data) = &self.data {
            // What is left is below the build's folder for temporary files.
            let _ = fs::remove_dir_all(data);
        }
    }
}

fn spawn(version: &Version, port: &Port, database_uri: &str) -> Child {
    let arguments = json!({
        "folder": install_modules(version), "port": port.addr().port(), "databaseURI": database_uri,
    });
    spawn_program(
        &node(version.node),
        "server_of_version.cjs",
        Some(arguments.to_string()),
    )
    .0
}

//! A real Parse Server as a child process, and the REST calls that make it send events; knows nothing of the library.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::Date;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

#[path = "../it/support/port.rs"]
#[expect(unreachable_pub, reason = "`pub` is for the tests that it comes from")]
pub(crate) mod port;

pub(crate) use port::Port;

pub(crate) const APPLICATION_ID: &str = "test-app";
pub(crate) const MASTER_KEY: &str = "test-master-key";
const MAINTENANCE_KEY: &str = "test-maintenance-key";
pub(crate) const JAVASCRIPT_KEY: &str = "test-javascript-key";

/// Long enough for a slow and busy machine: a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How to start a [`ParseServer`].
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Whether the database survives [`ParseServer::kill`]; it lives in memory otherwise.
    pub(crate) keeps_data: bool,
    /// A database that other servers use as well, in place of one of its own.
    pub(crate) database_port: Option<u16>,
    /// The URI of a database that is there already.
    pub(crate) database_uri: Option<String>,
    /// The Redis through which several servers tell each other of their events.
    pub(crate) redis_url: Option<String>,
    /// The classes with LiveQuery: regular expressions, each for the whole name.
    pub(crate) class_names: Vec<String>,
    /// Refuse clients that do not present this key; `None` lets everyone in.
    pub(crate) javascript_key: Option<String>,
    /// Between two pings of the LiveQuery server.
    pub(crate) websocket_timeout: Duration,
    /// How long the LiveQuery server remembers whose a session token is.
    pub(crate) cache_timeout: Duration,
    /// Whether who creates an object may choose its id, and must.
    pub(crate) custom_ids: bool,
    /// Further settings of Parse Server.
    pub(crate) settings: Value,
    /// The folder of another version of the npm package `router` than the one that is installed.
    pub(crate) router: Option<PathBuf>,
}

impl Default for Options {
    /// A database in memory, LiveQuery for every class, [`JAVASCRIPT_KEY`], and the server's own times.
    fn default() -> Self {
        Self {
            keeps_data: false,
            database_port: None,
            database_uri: None,
            redis_url: None,
            class_names: vec![".*".to_owned()],
            javascript_key: Some(JAVASCRIPT_KEY.to_owned()),
            websocket_timeout: Duration::from_secs(10),
            cache_timeout: Duration::from_secs(5),
            custom_ids: false,
            settings: json!({}),
            router: None,
        }
    }
}

/// A running Parse Server 9.10 with LiveQuery; it ends with this value, or with the test process.
#[derive(Debug)]
pub(crate) struct ParseServer {
    options: Options,
    port: Port,
    data: Option<PathBuf>,
    process: Mutex<Option<Child>>,
    agent: ureq::Agent,
}

/// A user, logged in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    #[serde(rename = "objectId")]
    pub(crate) id: String,
    pub(crate) session_token: String,
}

/// One subscription that the LiveQuery server holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeldSubscription {
    pub(crate) class_name: String,
    /// The query of the first subscriber: the server files all with the same hash under it.
    pub(crate) r#where: Value,
    pub(crate) client_id: String,
    pub(crate) request_id: u64,
}

impl ParseServer {
    /// Installs what the server needs if this has not been done, starts it, and waits until it serves.
    pub(crate) fn start(options: Options) -> Self {
        install();
        let data = options.keeps_data.then(|| numbered_path("data"));
        let port = Port::reserve();
        let process = spawn(&options, port.addr().port(), data.as_deref());
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Self {
            options,
            port,
            data,
            process: Mutex::new(Some(process)),
            agent,
        }
    }

    /// The server that most tests share, with the default [`Options`]; each test has classes of its own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<ParseServer> = LazyLock::new(|| ParseServer::start(Options::default()));
        &SHARED
    }

    /// The URL of the REST API.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/parse", self.port.addr())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.addr().port()
    }

    /// The URL of LiveQuery.
    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}/parse", self.port.addr())
    }

    /// Ends the server as a power cut does (SIGKILL).
    pub(crate) fn kill(&self) {
        let process = self.process.lock().unwrap().take();
        if let Some(mut process) = process {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    /// Starts a killed server again, on the same port and with the same data, and waits until it serves.
    pub(crate) fn start_again(&self) {
        let mut process = self.process.lock().unwrap();
        assert!(process.is_none(), "the server is still running");
        assert!(
            self.data.is_some()
                || self.options.database_port.is_some()
                || self.options.database_uri.is_some(),
            "the server was not started with keeps_data"
        );
        *process = Some(spawn(
            &self.options,
            self.port.addr().port(),
            self.data.as_deref(),
        ));
    }

    /// Whether there is a class with this name.
    pub(crate) fn has_class(&self, class: &str) -> bool {
        let schemas = self.rest("GET", "/schemas", &[], None);
        let mut schemas = schemas["results"].as_array().into_iter().flatten();
        schemas.any(|schema| schema["className"] == class)
    }

    /// Creates an object and returns its id.
    pub(crate) fn create(&self, class: &str, object: &Value) -> String {
        let created = self.rest("POST", &format!("/classes/{class}"), &[], Some(object));
        created["objectId"]
            .as_str()
            .expect("a created object has an id")
            .to_owned()
    }

    /// Creates an object and returns its id, unless the server is gone.
    /// Creates an object that was saved last at this time, which Parse Server takes with the maintenance key alone
    /// (9.10, RestWrite.js).
    pub(crate) fn create_as_of(&self, class: &str, time: Date, object: &Value) -> String {
        let mut object = object.clone();
        object["createdAt"] = json!({"__type": "Date", "iso": time.to_string()});
        let url = Url::parse(&format!("{}/classes/{class}", self.url())).unwrap();
        let key = ("X-Parse-Maintenance-Key", MAINTENANCE_KEY);
        let created = self.try_call_with(key, "POST", &url, Some(&object)).unwrap();
        created["objectId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn try_create(&self, class: &str, object: &Value) -> Result<String, String> {
        let url = Url::parse(&format!("{}/classes/{class}", self.url())).unwrap();
        let created = self.try_call("POST", &url, Some(object))?;
        created["objectId"]
            .as_str()
            .map(ToOwned::to_owned)
            .ok_or_else(|| created.to_string())
    }

    /// Changes the fields that `changes` names, unless the server is gone, and returns its answer.
    pub(crate) fn try_update(&self, class: &str, id: &str, changes: &Value) -> Result<Value, String> {
        self.try_call("PUT", &self.url_of(class, id), Some(changes))
    }

    /// Deletes an object, unless the server is gone.
    pub(crate) fn try_delete(&self, class: &str, id: &str) -> Result<(), String> {
        self.try_call("DELETE", &self.url_of(class, id), None).map(drop)
    }

    /// Changes the fields that `changes` names.
    pub(crate) fn update(&self, class: &str, id: &str, changes: &Value) {
        self.rest("PUT", &format!("/classes/{class}/{id}"), &[], Some(changes));
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, class: &str, id: &str) {
        self.rest("DELETE", &format!("/classes/{class}/{id}"), &[], None);
    }

    /// The objects that match `filter`; `parameters` are the REST API's, such as `("order", "-score")`.
    pub(crate) fn find(&self, class: &str, filter: &Value, parameters: &[(&str, &str)]) -> Vec<Value> {
        let filter = filter.to_string();
        let mut query = vec![("where", filter.as_str())];
        query.extend_from_slice(parameters);
        let mut found = self.rest("GET", &format!("/classes/{class}"), &query, None);
        match found["results"].take() {
            Value::Array(results) => results,
            other => panic!("find answers with a list, not with {other}"),
        }
    }

    /// Creates a user and logs it in.
    pub(crate) fn sign_up(&self, name: &str) -> User {
        let user = json!({"username": name, "password": "a password"});
        // With the master key, signing up makes no session.
        self.rest("POST", "/users", &[], Some(&user));
        let answer = self.rest("POST", "/login", &[], Some(&user));
        serde_json::from_value(answer).expect("a user who has logged in has an id and a session")
    }

    /// Ends the session, so that its token is no longer valid.
    pub(crate) fn log_out(&self, user: &User) {
        let session = self.rest(
            "GET",
            "/sessions",
            &[("where", &json!({"sessionToken": user.session_token}).to_string())],
            None,
        );
        let id = session["results"][0]["objectId"]
            .as_str()
            .expect("the session exists");
        self.rest("DELETE", &format!("/sessions/{id}"), &[], None);
    }

    /// The subscriptions to `class` that the LiveQuery server holds at this moment.
    pub(crate) fn subscriptions(&self, class: &str) -> Vec<HeldSubscription> {
        let all: Vec<HeldSubscription> =
            serde_json::from_value(self.state("livequery")).expect("a list of subscriptions");
        all.into_iter().filter(|held| held.class_name == class).collect()
    }

    /// How many WebSockets were asked for with this target (path and query) since the server started.
    ///
    /// LiveQuery serves any target, so a test that counts its own connections appends a query to [`Self::ws_url`].
    pub(crate) fn connections(&self, target: &str) -> u64 {
        self.state("connections")[target].as_u64().unwrap_or(0)
    }

    /// How many events wait in the hook for the class `OutOfOrder`.
    pub(crate) fn events_held_back(&self) -> u64 {
        self.state("events-held-back").as_u64().unwrap()
    }

    /// One call of the REST API with the master key; panics unless it succeeds.
    pub(crate) fn rest(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Value {
        let mut url = Url::parse(&format!("{}{path}", self.url())).unwrap();
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.call(method, &url, body)
    }

    fn url_of(&self, class: &str, id: &str) -> Url {
        Url::parse(&format!("{}/classes/{class}/{id}", self.url())).unwrap()
    }

    /// What the LiveQuery server has inside; its program offers this for the tests.
    fn state(&self, of: &str) -> Value {
        let url = Url::parse(&self.url())
            .unwrap()
            .join(&format!("/test/{of}"))
            .unwrap();
        self.call("GET", &url, None)
    }

    fn call(&self, method: &str, url: &Url, body: Option<&Value>) -> Value {
        self.try_call(method, url, body)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_call(&self, method: &str, url: &Url, body: Option<&Value>) -> Result<Value, String> {
        self.try_call_with(("X-Parse-Master-Key", MASTER_KEY), method, url, body)
    }

    fn try_call_with(
        &self,
        (key_name, key): (&str, &str),
        method: &str,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url.as_str())
            .header("X-Parse-Application-Id", APPLICATION_ID)
            .header(key_name, key)
            .header("Content-Type", "application/json");
        let answer = match body {
            Some(body) => self.agent.run(request.body(body.to_string()).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        };
        let failed = |error: &dyn Display| format!("{method} {url}: {error}");
        let mut answer = answer.map_err(|error| failed(&error))?;
        let status = answer.status();
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|error| failed(&error))?;
        if !status.is_success() {
            return Err(failed(&format!("{status}: {text}")));
        }
        serde_json::from_str(&text).map_err(|error| failed(&format!("{error}: {text}")))
    }
}

impl Drop for ParseServer {
    fn drop(&mut self) {
        self.kill();
        if let Some(data) = &self.data {
            // What is left is below the build's folder for temporary files.
            let _ = fs::remove_dir_all(data);
        }
    }
}

/// An `ACL` that lets only this user read and write.
pub(crate) fn only(user: &User) -> Value {
    json!({ user.id.as_str(): {"read": true, "write": true} })
}

/// Asks again until the answer is yes; for what the server does without telling its clients.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a program is there; if not, says that its test is not run.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("-v")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skip(&format!("`{program}` is not installed; this test needs it"));
    }
    found
}

/// Says that a test is not run. With NO_SKIPS=1, which `.ci/run` sets where it has all that tests need, the test fails.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("NO_SKIPS").is_none(), "SKIPPED: {why}");
    say(&format!("SKIPPED: {why}"));
}

/// Prints at once what libtest would keep to itself.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The folder that holds the server's program and lock file.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parse_server")
}

/// Runs `npm ci`, unless what the lock file names is installed already.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let folder = folder();
        let lock = fs::read(folder.join("package-lock.json")).unwrap();
        let is_installed = || {
            fs::read(folder.join("node_modules/.installed-lock.json"))
                .is_ok_and(|installed| installed == lock)
        };
        if is_installed() {
            return;
        }
        // Another test process may be here at the same time: each installs into a folder of its own, and whoever
        // is first puts the result into its place by a rename, which is atomic.
        let staging = folder.join(format!(".npm-{}", process::id()));
        fs::create_dir_all(&staging).unwrap();
        for name in ["package.json", "package-lock.json"] {
            fs::copy(folder.join(name), staging.join(name)).unwrap();
        }
        say("installing Parse Server, 228 MB in tests/parse_server/node_modules, once");
        run_npm_ci(&staging);
        fs::write(staging.join("node_modules/.installed-lock.json"), &lock).unwrap();
        for attempt in 0.. {
            let moved = fs::rename(staging.join("node_modules"), folder.join("node_modules"));
            if moved.is_ok() || is_installed() {
                break;
            }
            assert!(
                attempt < 10,
                "node_modules cannot be put into its place: {moved:?}"
            );
            // What is there belongs to another lock file.
            let _ = fs::rename(
                folder.join("node_modules"),
                staging.join(format!("outdated-{attempt}")),
            );
        }
        fs::remove_dir_all(&staging).unwrap();
    });
}

fn run_npm_ci(folder: &Path) {
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let output = Command::new(npm)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("these tests need npm: {error}"));
    assert!(
        output.status.success(),
        "npm ci failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A path in the build's folder for temporary files that no other server uses.
pub(crate) fn numbered_path(kind: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("parse-server-{}-{number}.{kind}", process::id()))
}

/// Starts the server's process and returns it once it serves.
fn spawn(options: &Options, port: u16, data: Option<&Path>) -> Child {
    let arguments = json!({
        "port": port,
        "dataDir": data,
        "databasePort": options.database_port,
        "databaseURI": options.database_uri,
        "redisURL": options.redis_url,
        "classNames": options.class_names,
        "javascriptKey": options.javascript_key,
        "websocketTimeout": milliseconds(options.websocket_timeout),
        "cacheTimeout": milliseconds(options.cache_timeout),
        "customIds": options.custom_ids,
        "settings": options.settings,
        "router": options.router,
    });
    spawn_node("server.mjs", Some(arguments.to_string())).0
}

/// Starts a program of this folder, which says on which port it serves once it does.
pub(crate) fn spawn_node(program: &str, argument: Option<String>) -> (Child, u16) {
    spawn_program(Path::new("node"), program, argument)
}

/// [`spawn_node`] with the Node.js that is at this path.
pub(crate) fn spawn_program(node: &Path, program: &str, argument: Option<String>) -> (Child, u16) {
    let log = numbered_path("log");
    let mut process = Command::new(node)
        .arg(folder().join(program))
        .args(argument)
        // The server ends when this pipe closes, which it does however this process ends.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need Node.js: {error}"));
    let stdout = process.stdout.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = receiver.recv_timeout(START_TIMEOUT).unwrap_or_default();
    let port = serde_json::from_str::<Value>(&line)
        .ok()
        .and_then(|ready| ready["port"].as_u64());
    let Some(port) = port else {
        let _ = process.kill();
        let status = process.wait();
        panic!(
            "{program} did not start ({status:?}):\n{}",
            fs::read_to_string(&log).unwrap_or_else(|error| error.to_string())
        );
    };
    (process, u16::try_from(port).unwrap())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

//! A LiveQuery server inside the process, for trying the library and testing programs that use it. Must not
//! know of this crate's client.
//!
//! See [`TestServer`].

mod builder;
mod caller;
mod events;
mod files;
mod find;
mod functions;
mod http;
mod hub;
mod inner;
mod ops;
mod permissions;
mod relations;
mod save;
mod schema;
mod socket;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod transport;
mod types;
mod users;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tungstenite::{Bytes, Message};

pub use builder::TestServerBuilder;
pub use functions::FunctionCall;
pub use subscription::ServerSubscription;

use hub::Hub;
use state::{Class, Failure, Fields};
use transport::Acceptor;

use crate::query::Query;
use crate::query::matcher::{Matcher, Verdict};
use crate::query::version::Age;

/// A LiveQuery server on the loopback interface, with objects in memory.
///
/// It speaks the protocol as Parse Server 9.10 does: it matches `where` with the same semantics, quirks
/// included, decides between `create`, `update`, `enter`, `leave` and `delete`, sends `original`, respects
/// `keys`, `watch` and ACLs, and refuses what the real server refuses, in the same words. It can be made to
/// misbehave: to [`cut`](Self::cut) connections, to [refuse](Self::refuse_connections) them, to fall
/// [silent](Self::silence), or to answer with an error.
///
/// The program under test saves and finds through the REST API at the same address. It answers everything
/// that [`Client::rest`](crate::Client) sends and much of what other SDKs send: sign-up, log-in with names,
/// passwords and other services, log-out, sessions with an expiry, objects with all operations, relations and
/// types, batches, find and count, roles and ACLs, [permissions](Self::permissions) of classes, files,
/// [functions](Self::function). The test has methods for its part, which need no rights:
/// [`create`](Self::create), [`update`](Self::update), [`delete`](Self::delete), [`find`](Self::find).
///
/// Each server has its own port, so tests can run side by side. Dropping the server closes the port and all
/// connections, and ends its threads. All methods may be called from any thread, and none waits for a client.
///
/// # What it does not do
///
/// - It never confuses two queries with the same hash, as the real server does (which gives a subscriber the
///   events of the other query). Classes need not be enabled for LiveQuery.
/// - Class-level permissions have no pointer permissions and no protected fields, except that users see
///   neither the e-mail address nor the log-ins of others. A log-in with another service is not verified.
/// - The types of fields are those of their first values, and only values that come over HTTP are checked.
/// - Over HTTP there are no schemas, jobs and mails: a password reset is accepted, but nothing is sent. Files
///   are accepted as the real server does by default, from users who are logged in and not anonymous, but
///   files of any type are accepted.
/// - It sends no event, and logs a warning, where it cannot tell what the real server would make of an
///   object: a date after the year 9999, and a regular expression
///   - with characters beyond ASCII and without the flag `u`, or with the flags `y` and `v`;
///   - with references to groups, `(?i:..)`, escapes that have no meaning, or groups more than 100 deep;
///   - that repeats what may be empty, such as `(a*)*`: write `(a+)*` or `a*`.
///
/// # Examples
///
/// ```
/// use parse_livequery::test_server::TestServer;
/// use serde_json::json;
///
/// # fn main() -> std::io::Result<()> {
/// let server = TestServer::start()?;
/// println!("point a LiveQuery client at {}", server.url());
///
/// let id = server.create("Game", json!({ "name": "go", "score": 1 }));
/// server.update("Game", &id, json!({ "score": 2, "name": { "__op": "Delete" } }));
/// assert_eq!(server.get("Game", &id).and_then(|game| game.get("score").cloned()), Some(json!(2)));
/// server.delete("Game", &id);
/// # Ok(())
/// # }
/// ```
///
/// A test of a program that follows games, with a cut connection in between:
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use parse_livequery::test_server::TestServer;
/// use parse_livequery::{Client, Query};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let patience = Duration::from_secs(10);
/// let server = TestServer::start()?;
/// let client = Client::builder(server.url(), "app").build()?;
/// let (events, names) = mpsc::channel();
/// let subscription = client
///     .subscription(&Query::new("Game").greater_than("score", 10))
///     .on("create", move |game| {
///         let _ = events.send(game.get("name").cloned());
///     })
///     .start()?;
///
/// assert!(server.wait_for_subscriptions(patience, 1));
/// server.cut();
/// assert!(server.wait_for_subscriptions(patience, 1));
/// server.create("Game", json!({ "name": "go", "score": 1 }));
/// server.create("Game", json!({ "name": "chess", "score": 11 }));
/// assert_eq!(names.recv_timeout(patience)?, Some(json!("chess")));
/// # drop(subscription);
/// # Ok(())
/// # }
/// ```
pub struct TestServer {
    hub: Arc<Hub>,
    address: SocketAddr,
    ping_interval: Duration,
    /// `None` while the server is stopped.
    acceptor: Mutex<Option<Acceptor>>,
}

impl TestServer {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// The error of the operating system if no port or thread is available.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Returns a builder, for settings other than the defaults.
    pub fn builder() -> TestServerBuilder {
        TestServerBuilder::new()
    }

    /// The URL for clients: `ws://127.0.0.1:PORT`. The server ignores the path of a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// # Objects
///
/// Values are in Parse's own form, as in `{"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"}`. Before the
/// call returns, the event is sent to each subscription whose query the object enters, keeps matching or
/// leaves (that is, it is put into the queue of the connection).
impl TestServer {
    /// Creates an object and returns its `objectId`, which is random unless the fields have one. The fields
    /// may also have `createdAt` and `updatedAt`, which are plain ISO 8601 strings.
    ///
    /// # Panics
    ///
    /// If `fields` is not a JSON object.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// let id = server.create("Game", json!({"name": "go"}));
    /// assert_eq!(server.get("Game", &id).unwrap()["name"], "go");
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn create(&self, class_name: &str, fields: Value) -> String {
        let fields = members(fields);
        self.hub.change(|state| state.create(class_name, fields))
    }

    /// Sets fields of an object; the other fields keep their values. `{"__op": "Delete"}` unsets a field,
    /// `{"__op": "Increment", "amount": 1}` adds to it. Returns `false` if there is no such object.
    ///
    /// # Panics
    ///
    /// If `fields` is not a JSON object.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// let id = server.create("Game", json!({"name": "go", "score": 1}));
    /// server.update("Game", &id, json!({
    ///     "score": {"__op": "Increment", "amount": 2},
    ///     "name": {"__op": "Delete"},
    /// }));
    /// let game = server.get("Game", &id).unwrap();
    /// assert_eq!((&game["score"], game.get("name")), (&json!(3), None));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn update(&self, class_name: &str, id: &str, fields: Value) -> bool {
        let fields = members(fields);
        self.hub.change(|state| state.update(class_name, id, fields))
    }

    /// Deletes an object. Returns `false` if there is no such object.
    pub fn delete(&self, class_name: &str, id: &str) -> bool {
        self.hub.change(|state| state.delete(class_name, id))
    }

    /// Returns an object as it appears in events: with `className`, `objectId`, `createdAt` and `updatedAt`.
    #[must_use]
    pub fn get(&self, class_name: &str, id: &str) -> Option<Value> {
        let state = self.hub.state.lock();
        let object = state.classes.get(class_name)?.get(id)?;
        Some(Value::Object(Fields::clone(object)))
    }

    /// The names of the classes that have had an object, sorted.
    #[must_use]
    pub fn classes(&self) -> Vec<String> {
        let state = self.hub.state.lock();
        let mut classes: Vec<String> = state.classes.keys().cloned().collect();
        classes.sort();
        classes
    }

    /// All objects of a class, in the order of their creation.
    #[must_use]
    pub fn objects(&self, class_name: &str) -> Vec<Value> {
        let objects = {
            let state = self.hub.state.lock();
            state.classes.get(class_name).map(Class::objects)
        };
        let objects = objects.into_iter().flatten();
        objects
            .map(|object| Value::Object(Fields::clone(&object)))
            .collect()
    }

    /// Returns what `find()` returns for a query: the objects that match its conditions, in its order, with
    /// its limit (default: 100), skip and selected fields. They are sorted as on MongoDB: missing values come
    /// first. ACLs are ignored.
    ///
    /// The server gives the same answer over HTTP, but with ACLs applied: to a `POST` to `/classes/<name>`
    /// with `"_method": "GET"` in its body, as the JS SDK and the cargo feature `rest` send it, and to `GET
    /// /classes/<name>?where=..`. Anything before `/classes` is ignored.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::Fetch`](crate::ErrorKind::Fetch) for a query that Parse Server would refuse or
    /// that this server cannot judge, or after [`fail_finds`](Self::fail_finds).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use parse_livequery::Query;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// server.create("Game", json!({"name": "go", "score": 1}));
    /// server.create("Game", json!({"name": "chess", "score": 2}));
    /// let best = server.find(&Query::new("Game").descending(["score"]).limit(1))?;
    /// assert_eq!(best[0].get_str("name"), Some("chess"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn find(&self, query: &crate::query::Query) -> crate::error::Result<Vec<crate::object::Object>> {
        self.hub.find(query)
    }

    /// The number of [`find`](Self::find) requests so far, including those over HTTP.
    #[must_use]
    pub fn find_count(&self) -> u64 {
        self.hub.state.lock().finds
    }

    /// Makes a session token valid for a user: clients and subscriptions with this token see the objects
    /// whose ACL lets that user read. Unknown tokens are accepted, as on the real server, and see what the
    /// public sees.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// server.session("r:token of Ann", "ann");
    /// server.create("Note", json!({"text": "for Ann alone", "ACL": {"ann": {"read": true}}}));
    /// # Ok(())
    /// # }
    /// ```
    pub fn session(&self, token: &str, user_id: &str) {
        self.hub.change(|state| state.add_session(token, user_id));
    }

    /// Answers calls of a cloud function. An error that it returns is answered with code 141, and so is a
    /// panic. It runs on the thread of the connection, with no lock held: it may call any method of the
    /// server.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # fn main() -> std::io::Result<()> {
    /// # let server = TestServer::start()?;
    /// server.function("greet", |call| match call.params()["name"].as_str() {
    ///     Some(name) => Ok(json!(format!("hello {name}"))),
    ///     None => Err("who?".to_owned()),
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn function(
        &self,
        name: &str,
        function: impl Fn(&FunctionCall) -> Result<Value, String> + Send + Sync + 'static,
    ) {
        self.hub.functions.set(name, function);
    }

    /// Sets the class-level permissions of a class, in the form of a schema; without them, everyone may do
    /// everything. An operation that is not named needs the master key.
    ///
    /// # Panics
    ///
    /// If `permissions` is not a JSON object.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # fn main() -> std::io::Result<()> {
    /// # let server = TestServer::start()?;
    /// server.permissions("News", json!({
    ///     "get": {"*": true},
    ///     "find": {"*": true},
    ///     "create": {"role:Editors": true},
    ///     "addField": {"role:Editors": true},
    ///     "update": {"requiresAuthentication": true},
    /// }));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn permissions(&self, class_name: &str, permissions: Value) {
        let permissions = members(permissions);
        self.hub
            .change(|state| state.permissions.insert(class_name.to_owned(), permissions));
    }

    /// Makes the server refuse over HTTP, with code 137, anything that would give two objects of a class the
    /// same value in this field, as a unique index of a database does.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # fn main() -> std::io::Result<()> {
    /// # let server = TestServer::start()?;
    /// server.unique("Order", "number");
    /// # Ok(())
    /// # }
    /// ```
    pub fn unique(&self, class_name: &str, field: &str) {
        let name = (class_name.to_owned(), field.to_owned());
        self.hub.change(|state| state.unique.insert(name));
    }

    /// The content of an uploaded file, by the name that the server gave it.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # use parse_livequery::test_server::TestServer;
    /// # #[cfg(feature = "rest")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # client.rest().sign_up("ann", "secret", &serde_json::json!({}))?;
    /// let note = client.rest().upload("note.txt", "text/plain", b"milk")?;
    /// assert_eq!(server.file(note.name()), Some(b"milk".to_vec()));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "rest"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.hub.state.lock();
        state.files.get(name).map(|file| file.bytes.clone())
    }

    /// Makes a session token invalid.
    pub fn end_session(&self, token: &str) {
        self.hub.change(|state| state.sessions.remove(token));
    }
}

/// # Trouble
///
/// Each method that starts some trouble has a counterpart that ends it.
impl TestServer {
    /// Closes all connections at once, without a close frame. Their subscriptions are lost; new connections
    /// are accepted.
    pub fn cut(&self) {
        self.hub.change(|state| state.cut());
    }

    /// Closes each new TCP connection as soon as it is made, as a reverse proxy does whose server is down.
    /// Existing connections stay open. [`accept_connections`](Self::accept_connections) ends it.
    pub fn refuse_connections(&self) {
        self.hub.change(|state| state.refuse = true);
    }

    /// Stops the server: closes the port and cuts the connections. The objects are kept. Calling it again
    /// changes nothing.
    pub fn stop(&self) {
        // Dropped outside the lock.
        let acceptor = self.acceptor.lock().take();
        drop(acceptor);
    }

    /// Starts the server again after [`stop`](Self::stop), on the same port. Does nothing if it is running.
    ///
    /// # Errors
    ///
    /// The error of the operating system, for example if the port was taken in the meantime.
    pub fn resume(&self) -> io::Result<()> {
        let mut acceptor = self.acceptor.lock();
        if acceptor.is_none() {
            let listener = TcpListener::bind(self.address)?;
            *acceptor = Some(Acceptor::start(
                listener,
                Arc::clone(&self.hub),
                self.ping_interval,
            )?);
        }
        Ok(())
    }

    /// Stops the server and starts it again on the same port.
    ///
    /// # Errors
    ///
    /// As for [`resume`](Self::resume).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// # let client = parse_livequery::Client::builder(server.url(), "any").build()?;
    /// # client.open();
    /// # client.wait_open(Duration::from_secs(10))?;
    /// server.restart()?;
    /// assert!(server.wait_for(Duration::from_secs(10), |server| server.connections() == 1)); // the client is back
    /// # Ok(())
    /// # }
    /// ```
    pub fn restart(&self) -> io::Result<()> {
        self.stop();
        self.resume()
    }

    /// Silences the server, as behind a dead network link: sockets stay open, but nothing is sent any more,
    /// not even pings and pongs, and nothing that comes is processed (though [`frames`](Self::frames) records
    /// it). New connections hang in the WebSocket upgrade. Messages that were to be sent in the meantime are
    /// lost. [`speak`](Self::speak) ends it.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// server.silence(); // the client will notice that the link is dead
    /// server.speak();
    /// # Ok(())
    /// # }
    /// ```
    pub fn silence(&self) {
        self.hub.set_silent(true);
    }

    /// Ends [`silence`](Self::silence).
    pub fn speak(&self) {
        self.hub.set_silent(false);
    }

    /// Sets how long each message waits before it is sent (default: not at all). The order is kept.
    pub fn delay(&self, delay: Duration) {
        self.hub.change(|state| state.delay = delay);
    }

    /// Refuses the next `subscribe` or `update` with an error, as a `beforeSubscribe` hook that throws once
    /// does. Each call refuses one more.
    pub fn fail_next_subscribe(&self, code: i64, message: &str) {
        let failure = failure(code, message);
        self.hub
            .change(|state| state.hooks.next_subscribes.push_back(failure));
    }

    /// Refuses all subscriptions to a class with an error, as a `beforeSubscribe` hook that throws does: for
    /// example 119, for insufficient rights. Live subscriptions stay.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// server.refuse_class("Payroll", 119, "Permission denied");
    /// # let client = parse_livequery::Client::builder(server.url(), "any").build()?;
    /// # let payroll = client.subscribe(&parse_livequery::Query::new("Payroll"))?;
    /// # assert_eq!(payroll.wait_open(Duration::from_secs(10)).unwrap_err().code(), Some(119));
    /// # Ok(())
    /// # }
    /// ```
    pub fn refuse_class(&self, class_name: &str, code: i64, message: &str) {
        let failure = failure(code, message);
        self.hub.change(|state| {
            state
                .hooks
                .before_subscribe
                .insert(class_name.to_owned(), failure)
        });
    }

    /// Ends [`refuse_class`](Self::refuse_class).
    pub fn accept_class(&self, class_name: &str) {
        self.hub
            .change(|state| state.hooks.before_subscribe.remove(class_name));
    }

    /// Refuses each `connect` with an error that tells the client not to reconnect, as a `beforeConnect` hook
    /// that throws does. The socket stays open. [`accept_connections`](Self::accept_connections) ends it.
    pub fn refuse_connections_with(&self, code: i64, message: &str) {
        let failure = failure(code, message);
        self.hub
            .change(|state| state.hooks.before_connect = Some(failure));
    }

    /// Ends [`refuse_connections`](Self::refuse_connections) and
    /// [`refuse_connections_with`](Self::refuse_connections_with).
    pub fn accept_connections(&self) {
        self.hub.change(|state| {
            state.refuse = false;
            state.hooks.before_connect = None;
        });
    }

    /// Makes each [`find`](Self::find) fail with this HTTP status: 503, for example, or 403 for a wrong key.
    pub fn fail_finds(&self, status: u16) {
        self.hub.change(|state| state.hooks.finds = Some(status));
    }

    /// Ends [`fail_finds`](Self::fail_finds).
    pub fn answer_finds(&self) {
        self.hub.change(|state| state.hooks.finds = None);
    }

    /// Sets how long the answer to each [`find`](Self::find) over HTTP waits before it is sent, in addition
    /// to [`delay`](Self::delay) (default: not at all). The answer has the objects as they were when the
    /// request came.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// # let server = TestServer::start()?;
    /// server.delay_finds(Duration::from_secs(3600)); // as if it did not answer
    /// server.delay_finds(Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    pub fn delay_finds(&self, delay: Duration) {
        self.hub.change(|state| state.hooks.find_delay = delay);
    }

    /// Sends an error to each live subscription of a class, as an `afterLiveQueryEvent` hook that throws
    /// does. The subscriptions stay live.
    pub fn error_on_subscriptions(&self, class_name: &str, code: i64, message: &str) {
        let state = self.hub.state.lock();
        for subscription in state
            .subscriptions
            .get(class_name)
            .into_iter()
            .flat_map(|of_class| of_class.values())
        {
            state.fail(
                subscription.connection,
                Some(subscription.request_id),
                code,
                message,
                false,
            );
        }
    }

    /// Sends a text frame to every client, whatever its content.
    pub fn send_raw(&self, text: &str) {
        self.send(&Message::text(text));
    }

    /// Sends a binary frame to every client.
    pub fn send_binary(&self, data: &[u8]) {
        self.send(&Message::Binary(Bytes::copy_from_slice(data)));
    }

    fn send(&self, message: &Message) {
        let state = self.hub.state.lock();
        for number in state.connections.keys() {
            state.send(*number, message.clone());
        }
    }
}

/// # Inspection
impl TestServer {
    /// The live subscriptions, by connection and in the order in which they were made.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// # let client = parse_livequery::Client::builder(server.url(), "any").build()?;
    /// # let query = parse_livequery::Query::new("Game").equal_to("finished", false);
    /// # let _games = client.subscribe(&query)?;
    /// assert!(server.wait_for_subscriptions(Duration::from_secs(10), 1));
    /// let subscription = &server.subscriptions()[0];
    /// assert_eq!(subscription.class_name(), "Game");
    /// assert_eq!(subscription.where_json(), r#"{"finished":false}"#);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscriptions(&self) -> Vec<ServerSubscription> {
        let state = self.hub.state.lock();
        let mut subscriptions: Vec<_> = state
            .subscriptions
            .iter()
            .flat_map(|(class_name, of_class)| {
                of_class
                    .iter()
                    .map(move |(number, held)| (*number, class_name, held))
            })
            .filter_map(|(number, class_name, held)| {
                let subscription =
                    ServerSubscription::new(state.record_of(held.connection)?, class_name, held);
                Some((number, subscription))
            })
            .collect();
        drop(state);
        subscriptions.sort_by_key(|(number, subscription)| (subscription.connection(), *number));
        subscriptions
            .into_iter()
            .map(|(_, subscription)| subscription)
            .collect()
    }

    /// The number of live subscriptions.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        let state = self.hub.state.lock();
        state
            .subscriptions
            .values()
            .map(std::collections::BTreeMap::len)
            .sum()
    }

    /// The number of open WebSockets.
    #[must_use]
    pub fn connections(&self) -> usize {
        let state = self.hub.state.lock();
        state
            .connections
            .values()
            .filter(|connection| connection.link.is_some())
            .count()
    }

    /// The number of WebSockets opened so far.
    #[must_use]
    pub fn connects(&self) -> usize {
        self.hub.state.lock().frames.len()
    }

    /// The frames received on each WebSocket opened so far, in order. A binary frame is shown as its length
    /// in brackets.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::test_server::TestServer;
    /// # use serde_json::json;
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::start()?;
    /// # let client = parse_livequery::Client::builder(server.url(), "APP_ID").build()?;
    /// # client.open();
    /// # client.wait_open(Duration::from_secs(10))?;
    /// assert!(server.frames()[0][0].contains(r#""op":"connect""#));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<String>> {
        self.hub.state.lock().frames.clone()
    }

    /// The number of frames received so far on all connections.
    #[must_use]
    pub fn frame_count(&self) -> usize {
        self.hub.state.lock().frames.iter().map(Vec::len).sum()
    }

    /// Waits until there are exactly this many live subscriptions. Returns `false` on time-out.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use parse_livequery::test_server::TestServer;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TestServer::start()?;
    /// assert!(server.wait_for_subscriptions(Duration::from_secs(10), 0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn wait_for_subscriptions(&self, timeout: Duration, count: usize) -> bool {
        self.wait_for(timeout, |server| server.subscription_count() == count)
    }

    /// Waits until a condition holds. Returns `false` on time-out. The condition is checked at once, and
    /// again whenever a connection, a subscription, an object or a received frame comes or goes. It runs on
    /// the calling thread and may call any method of the server.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use parse_livequery::test_server::TestServer;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TestServer::start()?;
    /// let connected = server.wait_for(Duration::from_millis(10), |server| server.connections() == 1);
    /// assert!(!connected);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn wait_for(&self, timeout: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let generation = self.hub.state.lock().generation;
            if condition(self) {
                return true;
            }
            if !self.hub.wait_for_change(generation, deadline) {
                return false;
            }
        }
    }
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer")
            .field("address", &self.address)
            .field("connections", &self.connections())
            .field("subscriptions", &self.subscription_count())
            .finish_non_exhaustive()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The possible answers for a `where` and an object, both as JSON. The crate's own tests compare them with
/// the matcher of a real Parse Server.
#[doc(hidden)]
pub fn verdict(where_json: &str, object: &str) -> serde_json::Result<Vec<&'static str>> {
    let object: Fields = serde_json::from_str(object)?;
    let verdict = Matcher::parse(where_json)?.matches_object(&object);
    let answers = [
        (Verdict::MATCH, "match"),
        (Verdict::NO_MATCH, "no match"),
        (Verdict::THROWS, "throws"),
    ];
    Ok(answers
        .into_iter()
        .filter(|(answer, _)| verdict.may_be(*answer))
        .map(|(_, name)| name)
        .collect())
}

/// The `where` that is sent to a server of this version. The crate's own tests ask real servers with it.
///
/// # Errors
/// What `subscribe` refuses, and queries that this server is too old for.
#[doc(hidden)]
pub fn where_for(query: &Query, version: &str) -> crate::error::Result<String> {
    let age = Age::exactly(version.parse()?);
    query
        .encode_for(Some(age))
        .map(|encoded| encoded.where_json.into())
}

#[track_caller]
fn members(fields: Value) -> Fields {
    match fields {
        Value::Object(members) => members,
        #[expect(clippy::panic, reason = "a programmer's error in a test")]
        other => panic!("the fields of an object must be a JSON object, not {other}"),
    }
}

fn failure(code: i64, message: &str) -> Failure {
    Failure {
        code,
        message: message.to_owned(),
    }
}

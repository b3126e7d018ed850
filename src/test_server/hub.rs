//! The server's state, connections and subscriptions, and how it handles requests. It touches no threads and
//! reads no sockets: frames come in as text and go out into queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};
use tungstenite::Message;

use super::functions::Functions;
use super::schema::{Connect, Refusal, Request, Subscribe};
use super::socket::Socket;
use super::state::{ClientInfo, Connection, Failure, Link, State, Subscription, frame_start, number_value};
use crate::query::matcher::Matcher;
use crate::query::matcher::engine::syntax_error;
use crate::query::matcher::regex::valid_flags;
use crate::query::ordered_json::Json;

/// Everything that the threads of a server share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) state: Mutex<State>,
    changed: Condvar,
    /// Nothing is sent and nothing received is processed. Outside the lock, because writers check it for
    /// every frame.
    silent: AtomicBool,
    pub(super) keys: Vec<(&'static str, String)>,
    pub(super) functions: Functions,
}

impl Hub {
    pub(super) fn new(keys: Vec<(&'static str, String)>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            silent: AtomicBool::new(false),
            keys,
            functions: Functions::default(),
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
        self.change(|_| ());
    }

    /// Changes the state and wakes the threads that wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        state.generation += 1;
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Waits until the state has changed since `generation`; `false` if the deadline came first.
    pub(super) fn wait_for_change(&self, generation: u64, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while state.generation == generation {
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        return state.generation != generation;
                    }
                }
            }
        }
        true
    }

    /// Waits until a connection may send: not before `from`, where `None` means never, and not while the
    /// server is silent. `false` if the connection is cut first.
    pub(super) fn wait_for_turn(&self, number: u64, from: Option<Instant>) -> bool {
        loop {
            let generation = {
                let state = self.state.lock();
                if !state.connections.contains_key(&number) {
                    return false;
                }
                state.generation
            };
            let is_time = from.is_some_and(|from| from <= Instant::now());
            if is_time && !self.is_silent() {
                return true;
            }
            self.wait_for_change(generation, from.filter(|_| !is_time));
        }
    }

    /// Admits a TCP connection and gives it a number. `None` if the server refuses it.
    pub(super) fn admit(&self, socket: &Arc<Socket>) -> Option<u64> {
        self.change(|state| {
            if state.refuse {
                return None;
            }
            state.next_connection += 1;
            let connection = Connection {
                socket: Arc::clone(socket),
                link: None,
            };
            state.connections.insert(state.next_connection, connection);
            Some(state.next_connection)
        })
    }

    /// The WebSocket upgrade is done. `false` if the connection was cut in the meantime.
    pub(super) fn opened(&self, number: u64, outgoing: Sender<(Instant, Message)>) -> bool {
        self.change(|state| {
            let Some(connection) = state.connections.get_mut(&number) else {
                return false;
            };
            connection.link = Some(Link {
                outgoing,
                record: state.frames.len(),
                client: None,
                requests: HashMap::new(),
                pending: Vec::new(),
            });
            state.frames.push(Vec::new());
            true
        })
    }

    /// The connection ends as a WebSocket: nothing more comes from it, but what is queued may still go out.
    pub(super) fn ended(&self, number: u64) {
        self.change(|state| state.end(number));
    }

    /// The socket of a connection is closed.
    pub(super) fn closed(&self, number: u64) {
        self.change(|state| state.close(number));
    }

    pub(super) fn send(&self, number: u64, message: Message) {
        let state = self.state.lock();
        state.send(number, message);
    }

    /// A text frame came.
    pub(super) fn receive(&self, number: u64, frame: &str) {
        self.change(|state| {
            state.record(number, frame.to_owned());
            if self.is_silent() {
                return;
            }
            match Request::parse(frame) {
                Ok(request) => state.handle(number, request, &self.keys),
                Err(Refusal::Violation(text)) => state.fail(number, None, 1, &text, true),
                Err(Refusal::Unreadable) => crate::logging::debug!("test server: a frame is not JSON"),
            }
        });
    }

    /// A binary frame came. The real server treats it as an object without members.
    pub(super) fn receive_binary(&self, number: u64, length: usize) {
        self.change(|state| {
            state.record(number, format!("({length} bytes)"));
            if !self.is_silent() {
                state.fail(number, None, 1, "Missing required property: op", true);
            }
        });
    }

    /// Called when all frames that came together have been processed: only now are those subscribes handled
    /// that the real server delays (it awaits the schema and the session in `_handleSubscribe`). An
    /// `unsubscribe` that was sent before its `subscribed` came is therefore refused, and leaves the
    /// subscription alive.
    pub(super) fn settle(&self, number: u64) {
        let mut state = self.state.lock();
        let pending = match state.link(number) {
            Some(link) if !link.pending.is_empty() => std::mem::take(&mut link.pending),
            _ => return,
        };
        for request in pending {
            state.subscribe(number, request);
        }
        state.generation += 1;
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    pub(super) fn send(&self, number: u64, message: Message) {
        if let Some(link) = self
            .connections
            .get(&number)
            .and_then(|connection| connection.link.as_ref())
        {
            // The writer only goes away together with the socket.
            let _ = link.outgoing.send((Instant::now() + self.delay, message));
        }
    }

    /// Cuts all connections, without a close frame.
    pub(super) fn cut(&mut self) {
        for number in self.connections.keys().copied().collect::<Vec<_>>() {
            self.close(number);
        }
    }

    fn close(&mut self, number: u64) {
        self.end(number);
        if let Some(connection) = self.connections.remove(&number) {
            connection.socket.end();
        }
    }

    fn end(&mut self, number: u64) {
        let link = self
            .connections
            .get_mut(&number)
            .and_then(|connection| connection.link.take());
        for (class_name, subscription) in link.into_iter().flat_map(|link| link.requests.into_values()) {
            self.remove(&class_name, subscription);
        }
    }

    fn remove(&mut self, class_name: &str, subscription: u64) {
        if let Some(subscriptions) = self.subscriptions.get_mut(class_name) {
            subscriptions.remove(&subscription);
            if subscriptions.is_empty() {
                self.subscriptions.remove(class_name);
            }
        }
    }

    /// The index of a connection in [`Self::frames`].
    pub(super) fn record_of(&self, number: u64) -> Option<usize> {
        Some(self.connections.get(&number)?.link.as_ref()?.record)
    }

    fn record(&mut self, number: u64, frame: String) {
        let record = self.record_of(number);
        if let Some(frames) = record.and_then(|record| self.frames.get_mut(record)) {
            frames.push(frame);
        }
    }

    fn link(&mut self, number: u64) -> Option<&mut Link> {
        self.connections.get_mut(&number)?.link.as_mut()
    }

    fn client(&mut self, number: u64) -> Option<Arc<ClientInfo>> {
        self.link(number)?.client.clone()
    }

    /// Sends an error.
    pub(super) fn fail(
        &self,
        number: u64,
        request_id: Option<f64>,
        code: i64,
        message: &str,
        reconnect: bool,
    ) {
        let error = serde_json::json!({
            "op": "error",
            "error": message,
            "code": code,
            "reconnect": reconnect,
            "requestId": request_id.map(number_value),
        });
        self.send(number, Message::text(error.to_string()));
    }

    fn answer(&self, number: u64, op: &str, client: &ClientInfo, request_id: Option<f64>) {
        self.send(
            number,
            Message::text(format!("{}}}", frame_start(op, client, request_id))),
        );
    }

    fn handle(&mut self, number: u64, request: Request, keys: &[(&'static str, String)]) {
        match request {
            Request::Connect(connect) => self.connect(number, &connect, keys),
            Request::Subscribe(subscribe) => self.put_off(number, subscribe),
            Request::Update(subscribe) => {
                // The old subscription is given up before the new query is checked.
                self.unsubscribe(number, subscribe.request_id, false);
                self.put_off(number, subscribe);
            }
            Request::Unsubscribe { request_id } => self.unsubscribe(number, request_id, true),
        }
    }

    fn connect(&mut self, number: u64, connect: &Connect, keys: &[(&'static str, String)]) {
        let holds = |(name, secret): &(&str, String)| connect.get(name) == Some(secret.as_str());
        if !keys.is_empty() && !keys.iter().any(holds) {
            return self.fail(number, None, 4, "Key in request is not valid", true);
        }
        if let Some(failure) = &self.hooks.before_connect {
            return self.fail(number, None, failure.code, &failure.message, false);
        }
        let member = |name| connect.get(name).map(str::to_owned);
        let client = Arc::new(ClientInfo {
            id: uuid(),
            installation_id: member("installationId"),
            session_token: member("sessionToken").filter(|token| !token.is_empty()),
            has_master_key: keys.iter().any(|key| key.0 == "masterKey" && holds(key)),
        });
        self.answer(number, "connected", &client, None);
        if let Some(link) = self.link(number) {
            link.client = Some(client);
        }
    }

    fn put_off(&mut self, number: u64, subscribe: Subscribe) {
        match self.link(number) {
            Some(link) if link.client.is_some() => link.pending.push(subscribe),
            _ => self.fail(
                number,
                None,
                2,
                "Can not find this client, make sure you connect to server before subscribing",
                true,
            ),
        }
    }

    fn subscribe(&mut self, number: u64, subscribe: Subscribe) {
        let Some(client) = self.client(number) else {
            return;
        };
        let request_id = subscribe.request_id;
        let matcher = match self.refusal(&client, &subscribe) {
            Ok(matcher) => matcher,
            Err(failure) => {
                return self.fail(number, Some(request_id), failure.code, &failure.message, false);
            }
        };
        self.next_subscription += 1;
        let subscription = self.next_subscription;
        let place = (subscribe.class_name.clone(), subscription);
        let replaced = self
            .link(number)
            .and_then(|link| link.requests.insert(request_id.to_bits(), place));
        if let Some((class_name, subscription)) = replaced {
            self.remove(&class_name, subscription);
        }
        self.answer(number, "subscribed", &client, Some(request_id));
        self.subscriptions
            .entry(subscribe.class_name)
            .or_default()
            .insert(
                subscription,
                Subscription {
                    connection: number,
                    client,
                    request_id,
                    condition: subscribe.condition,
                    matcher,
                    keys: subscribe.keys,
                    watch: subscribe.watch,
                    session_token: subscribe.session_token,
                },
            );
    }

    /// Why a subscribe is refused, or else its prepared `where`.
    fn refusal(&mut self, client: &ClientInfo, subscribe: &Subscribe) -> Result<Matcher, Failure> {
        if let Some(failure) = self.hooks.next_subscribes.pop_front() {
            return Err(failure);
        }
        if let Some(failure) = self.hooks.before_subscribe.get(&subscribe.class_name) {
            return Err(failure.clone());
        }
        let tokens = [&subscribe.session_token, &client.session_token];
        let logged_in = tokens
            .into_iter()
            .flatten()
            .any(|token| self.user_of(token).is_some());
        if subscribe.class_name == "_Session" && !logged_in {
            return Err(Failure {
                code: 209,
                message: String::from("Invalid session token"),
            });
        }
        if let Some(message) = invalid_query(&subscribe.condition) {
            return Err(Failure { code: 102, message });
        }
        if !client.has_master_key {
            let mut users = tokens
                .into_iter()
                .flatten()
                .filter_map(|token| self.user_of(token));
            let user = users.next();
            let operation = if asks_for_one(&subscribe.condition) {
                "get"
            } else {
                "find"
            };
            // Roles do not count.
            self.permit_groups(&subscribe.class_name, operation, user.is_some(), user.into_iter())
                .map_err(|refusal| Failure {
                    code: refusal.code.unwrap_or_default(),
                    message: refusal.text,
                })?;
        }
        Ok(Matcher::new(&subscribe.condition))
    }

    fn unsubscribe(&mut self, number: u64, request_id: f64, answer: bool) {
        let Some(client) = self.client(number) else {
            let message = "Can not find this client, make sure you connect to server before unsubscribing";
            return self.fail(number, None, 2, message, true);
        };
        let place = self
            .link(number)
            .and_then(|link| link.requests.remove(&request_id.to_bits()));
        let Some((class_name, subscription)) = place else {
            let message = format!(
                "Cannot find subscription with clientId {} subscriptionId {}. Make sure you subscribe to live query \
                 server before unsubscribing.",
                client.id,
                number_value(request_id),
            );
            return self.fail(number, None, 2, &message, true);
        };
        self.remove(&class_name, subscription);
        if answer {
            self.answer(number, "unsubscribed", &client, Some(request_id));
        }
    }
}

/// `_getCLPOperation`
fn asks_for_one(condition: &Json) -> bool {
    match condition {
        Json::Object(members) => {
            matches!(&**members, [(name, Json::String(_))] if name == "objectId")
        }
        _ => false,
    }
}

/// `_validateQueryConstraints`, except for V8's own wording about an invalid regular expression.
fn invalid_query(condition: &Json) -> Option<String> {
    let Json::Object(members) = condition else {
        return None;
    };
    for name in ["$or", "$and", "$nor"] {
        match condition.get(name) {
            None => {}
            Some(Json::Array(queries)) => {
                if let Some(message) = queries.iter().find_map(invalid_query) {
                    return Some(message);
                }
            }
            Some(_) => return Some(format!("{name} must be an array")),
        }
    }
    members
        .iter()
        .find_map(|(_, constraint)| match constraint.get("$regex")? {
            Json::String(pattern) => {
                let flags = match constraint.get("$options") {
                    Some(Json::String(flags)) => flags,
                    _ => "",
                };
                let wrong = if valid_flags(flags) {
                    syntax_error(pattern, flags)?
                } else {
                    format!("Invalid flags supplied to RegExp constructor '{flags}'")
                };
                Some(format!("Invalid regular expression: {wrong}"))
            }
            expression if expression.get("source").is_some() && expression.get("flags").is_some() => None,
            _ => Some(String::from(
                "Invalid regular expression: $regex must be a string or RegExp",
            )),
        })
}

fn uuid() -> String {
    let bits = rand::random::<u128>();
    // Version 4, variant 1.
    let bits = bits & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

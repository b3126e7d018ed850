//! What Parse Server 9.10 answers: its request schema, and the frames that it sends. It knows JSON values, and no
//! sockets.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A Parse object as the server sends it at the top level of an event.
pub fn object(class: &str, id: &str, fields: Value) -> Value {
    let mut object = json!({
        "className": class,
        "objectId": id,
        "createdAt": "2024-01-01T00:00:00.000Z",
        "updatedAt": "2024-01-01T00:00:00.000Z",
    });
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
    object
}

/// The text of a message, with its members in the order in which Parse Server writes them (`_pushEvent` in Client.js).
pub fn text(message: &Value) -> String {
    const FIRST: [&str; 4] = ["op", "clientId", "installationId", "requestId"];
    let Some(members) = message.as_object() else {
        return message.to_string();
    };
    let first = FIRST.into_iter().filter_map(|key| members.get_key_value(key));
    let others = members.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()));
    let members: Vec<_> = first
        .chain(others)
        .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// What the server's schema (LiveQuery/RequestSchema.js, checked by tv4) finds wrong with a frame of a client, in the
/// words of tv4.
pub fn schema_violation(frame: &Value) -> Option<String> {
    let Some(members) = frame.as_object() else {
        return Some(expected("object", frame));
    };
    match members.get("op") {
        None => Some(missing("op")),
        Some(Value::String(op)) => match op.as_str() {
            "connect" => {
                const STRINGS: [&str; 8] = [
                    "applicationId",
                    "javascriptKey",
                    "masterKey",
                    "clientKey",
                    "windowsKey",
                    "restAPIKey",
                    "sessionToken",
                    "installationId",
                ];
                members
                    .iter()
                    .filter(|(name, _)| *name != "op")
                    .find_map(|(name, value)| match STRINGS.contains(&name.as_str()) {
                        true => not_a("string", value),
                        false => Some(additional()),
                    })
                    .or_else(|| require(members, &["applicationId"]))
            }
            "subscribe" | "update" => members
                .iter()
                .find_map(|(name, value)| match name.as_str() {
                    "op" => None,
                    "requestId" => not_a("number", value),
                    "query" => query_violation(value),
                    "sessionToken" => not_a("string", value),
                    _ => Some(additional()),
                })
                .or_else(|| require(members, &["requestId", "query"])),
            "unsubscribe" => members
                .iter()
                .find_map(|(name, value)| match name.as_str() {
                    "op" => None,
                    "requestId" => not_a("number", value),
                    _ => Some(additional()),
                })
                .or_else(|| require(members, &["requestId"])),
            op => Some(format!("No enum match for: {op:?}")),
        },
        Some(other) => Some(expected("string", other)),
    }
}

fn query_violation(query: &Value) -> Option<String> {
    let Some(members) = query.as_object() else {
        return Some(expected("object", query));
    };
    members
        .iter()
        .find_map(|(name, value)| match name.as_str() {
            "className" => not_a("string", value),
            "where" => not_a("object", value),
            "keys" | "watch" => names_violation(value),
            _ => Some(additional()),
        })
        .or_else(|| require(members, &["where", "className"]))
}

fn names_violation(names: &Value) -> Option<String> {
    let Some(names) = names.as_array() else {
        return Some(expected("array", names));
    };
    if names.is_empty() {
        return Some("Array is too short (0), minimum 1".to_owned());
    }
    for (at, name) in names.iter().enumerate() {
        if let Some(first) = names[..at].iter().position(|other| other == name) {
            return Some(format!("Array items are not unique (indices {first} and {at})"));
        }
    }
    names.iter().find_map(|name| not_a("string", name))
}

fn require(members: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names
        .iter()
        .find(|name| !members.contains_key(**name))
        .map(|name| missing(name))
}

fn missing(name: &str) -> String {
    format!("Missing required property: {name}")
}

fn additional() -> String {
    "Additional properties not allowed".to_owned()
}

fn not_a(wanted: &str, value: &Value) -> Option<String> {
    (type_of(value) != wanted).then(|| expected(wanted, value))
}

fn expected(wanted: &str, value: &Value) -> String {
    format!("Invalid type: {} (expected {wanted})", type_of(value))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What the server knows of one connection.
#[derive(Debug)]
pub struct Session {
    client_id: String,
    installation_id: Option<Value>,
    connected: bool,
    /// The subscriptions by requestId, each with the frame that made it.
    subscriptions: BTreeMap<u64, Value>,
}

impl Session {
    pub fn new(number: usize) -> Self {
        Self {
            client_id: format!("00000000-0000-4000-8000-{number:012}"),
            installation_id: None,
            connected: false,
            subscriptions: BTreeMap::new(),
        }
    }

    pub fn subscriptions(&self) -> &BTreeMap<u64, Value> {
        &self.subscriptions
    }

    /// What the server answers to a frame, in order (LiveQuery/ParseLiveQueryServer.js). It answers nothing to what
    /// is no JSON.
    pub fn answer(&mut self, text: &str) -> Vec<Value> {
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return vec![];
        };
        if let Some(violation) = schema_violation(&frame) {
            return vec![error(1, &violation, true, None)];
        }
        let request_id = frame["requestId"].as_u64().unwrap_or_default();
        match frame["op"].as_str() {
            Some("connect") => {
                self.installation_id = frame.get("installationId").cloned();
                vec![self.connected()]
            }
            Some("subscribe") => self.subscribe(request_id, frame),
            Some("update") if !self.connected => {
                vec![unconnected("unsubscribing"), unconnected("subscribing")]
            }
            Some("update") => {
                let mut answers = match self.subscriptions.remove(&request_id) {
                    Some(_) => vec![],
                    None => vec![self.unknown(request_id)],
                };
                answers.extend(self.subscribe(request_id, frame));
                answers
            }
            _ if !self.connected => vec![unconnected("unsubscribing")],
            _ => match self.subscriptions.remove(&request_id) {
                Some(_) => vec![self.message("unsubscribed", Some(request_id))],
                None => vec![self.unknown(request_id)],
            },
        }
    }

    /// `connected`, from which on the session takes subscriptions.
    pub fn connected(&mut self) -> Value {
        self.connected = true;
        self.message("connected", None)
    }

    /// `subscribed`, of a subscription of which the session need not have heard.
    pub fn subscribed(&mut self, request_id: u64, frame: Value) -> Value {
        self.subscriptions.insert(request_id, frame);
        self.message("subscribed", Some(request_id))
    }

    /// The subscription is gone, as if it had never been.
    pub fn forget(&mut self, request_id: u64) {
        self.subscriptions.remove(&request_id);
    }

    /// An event of a subscription.
    pub fn event(&self, op: &str, request_id: u64, object: Value, original: Option<Value>) -> Value {
        let mut event = self.message(op, Some(request_id));
        event["object"] = object;
        if let Some(original) = original {
            event["original"] = original;
        }
        event
    }

    fn subscribe(&mut self, request_id: u64, frame: Value) -> Vec<Value> {
        if !self.connected {
            return vec![unconnected("subscribing")];
        }
        vec![self.subscribed(request_id, frame)]
    }

    fn message(&self, op: &str, request_id: Option<u64>) -> Value {
        let mut message = json!({ "op": op, "clientId": self.client_id });
        if let Some(id) = &self.installation_id {
            message["installationId"] = id.clone();
        }
        if let Some(id) = request_id {
            message["requestId"] = id.into();
        }
        message
    }

    fn unknown(&self, request_id: u64) -> Value {
        let text = format!(
            "Cannot find subscription with clientId {} subscriptionId {request_id}. Make sure you subscribe to live \
             query server before unsubscribing.",
            self.client_id
        );
        error(2, &text, true, None)
    }
}

/// An error message (LiveQuery/Client.js, `pushError`).
pub fn error(code: i64, text: &str, reconnect: bool, request_id: Option<u64>) -> Value {
    json!({ "op": "error", "error": text, "code": code, "reconnect": reconnect, "requestId": request_id })
}

fn unconnected(doing: &str) -> Value {
    let text = format!("Can not find this client, make sure you connect to server before {doing}");
    error(2, &text, true, None)
}

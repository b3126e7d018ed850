//! What a server answers to `find()`: the objects that a query meets, in its order, to a method of the server and over
//! HTTP. It must not know of LiveQuery.

use std::io::{self, Read, Write};
use std::time::Instant;

use serde_json::{Value, json};
use url::form_urlencoded;

use super::events;
use super::hub::Hub;
use super::socket::Socket;
use super::state::{Class, Fields, State};
use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::query::matcher::{Matcher, Verdict};
use crate::query::order::Order;
use crate::query::{ALWAYS_SENT, Query};

/// What a request is refused with.
pub(super) struct Refusal {
    status: u16,
    /// Of Parse.
    code: Option<i64>,
    text: String,
}

impl Refusal {
    fn new(status: u16, code: Option<i64>, text: impl Into<String>) -> Self {
        Self {
            status,
            code,
            text: text.into(),
        }
    }
}

impl State {
    /// The objects that the query meets, as far as somebody with this session token may read them; all, for one who has
    /// the master key.
    pub(super) fn find(
        &mut self,
        query: &Query,
        session_token: Option<&str>,
        has_master_key: bool,
    ) -> Result<Vec<Value>, Refusal> {
        self.finds += 1;
        if let Some(status) = self.hooks.finds {
            return Err(Refusal::new(status, None, "the test server was told to fail"));
        }
        let user = match session_token {
            None => None,
            Some(token) => match self.sessions.get(token) {
                Some(user) => Some(user.as_str()),
                None => return Err(Refusal::new(400, Some(209), "Invalid session token")),
            },
        };
        let invalid = |text: String| Refusal::new(400, Some(102), text);
        // In the form in which the LiveQuery matcher answers as a database does.
        let conditions = query
            .encode_conditions_for(None)
            .map_err(|error| invalid(error.to_string()))?;
        let matcher = Matcher::parse(&conditions.where_json).map_err(|error| invalid(error.to_string()))?;
        let class = self.classes.get(query.class_name());
        let may_read = |object: &Fields| has_master_key || events::may_read(object, user);
        let mut found = Vec::new();
        for object in class.map(Class::objects).unwrap_or_default() {
            if !may_read(&object) {
                continue;
            }
            match matcher.matches_object(&object) {
                Verdict::MATCH => found.push(Value::Object(Fields::clone(&object))),
                Verdict::NO_MATCH => {}
                _ => {
                    let id = object.get("objectId").unwrap_or(&Value::Null);
                    return Err(invalid(format!(
                        "the test server cannot judge a condition for the object {id}"
                    )));
                }
            }
        }
        let window = query.window();
        if !window.order.is_empty() {
            let order = Order::new(window.order);
            found.sort_by_cached_key(|object| order.sort_key(&object.to_string()));
        }
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let page = found
            .into_iter()
            .skip(count(window.skip))
            .take(count(window.limit.unwrap_or(DEFAULT_LIMIT)));
        Ok(page.map(|object| project(object, query)).collect())
    }
}

/// Without the fields that the query does not select.
fn project(mut object: Value, query: &Query) -> Value {
    let (selected, excluded) = query.projection();
    if let Value::Object(members) = &mut object {
        members.retain(|name, _| {
            let is_selected = selected.is_none_or(|names| names.iter().any(|selected| selected == name));
            let is_excluded = excluded.iter().any(|excluded| excluded == name);
            ALWAYS_SENT.contains(&name.as_str()) || is_selected && !is_excluded
        });
    }
    object
}

impl Hub {
    /// [`State::find`] for whoever holds the server in hand: regardless of ACLs.
    pub(super) fn find(&self, query: &Query) -> Result<Vec<Object>> {
        let found = self
            .change(|state| state.find(query, None, true))
            .map_err(|refusal| {
                let text = format!("HTTP {}: {}", refusal.status, refusal.text);
                match refusal.code {
                    Some(code) => Error::server(ErrorKind::Fetch, code, text),
                    None => Error::new(ErrorKind::Fetch, text),
                }
            })?;
        found.into_iter().map(Object::from_json).collect()
    }

    /// Answers a request of the REST API. The answer is what holds now, however late it is sent.
    pub(super) fn answer_http(
        &self,
        number: u64,
        mut socket: &Socket,
        request: &HttpRequest,
    ) -> io::Result<()> {
        let (status, body) = match self.answer(request) {
            Ok(results) => (200, json!({ "results": results })),
            Err(Refusal {
                status,
                code: Some(code),
                text,
            }) => (status, json!({ "code": code, "error": text })),
            Err(Refusal {
                status,
                code: None,
                text,
            }) => (status, json!({ "error": text })),
        };
        let delay = {
            let state = self.state.lock();
            state.delay.saturating_add(state.hooks.find_delay)
        };
        if !self.wait_for_turn(number, Instant::now().checked_add(delay)) {
            return Ok(());
        }
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes())?;
        socket.write_all(body.as_bytes())
    }

    fn answer(&self, request: &HttpRequest) -> Result<Vec<Value>, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let class_name = path
            .rsplit_once("/classes/")
            .map(|(_, class_name)| class_name)
            .filter(|class_name| !class_name.is_empty() && !class_name.contains('/'))
            .ok_or_else(|| Refusal::new(404, None, "the test server knows /classes/<name> alone"))?;
        let mut parameters = request.parameters(query)?;
        // The JS SDK has no headers of its own: what is in them otherwise is in the body.
        let mut secret = |header: &str, member: &str| {
            let in_body = parameters.remove(member);
            let in_body = in_body.as_ref().and_then(Value::as_str);
            request.header(header).or(in_body).map(str::to_owned)
        };
        let given = [
            (
                "javascriptKey",
                secret("X-Parse-JavaScript-Key", "_JavaScriptKey"),
            ),
            ("masterKey", secret("X-Parse-Master-Key", "_MasterKey")),
            (
                "clientKey",
                request.header("X-Parse-Client-Key").map(str::to_owned),
            ),
            (
                "restAPIKey",
                request.header("X-Parse-REST-API-Key").map(str::to_owned),
            ),
            (
                "windowsKey",
                request.header("X-Parse-Windows-Key").map(str::to_owned),
            ),
        ];
        let session_token = secret("X-Parse-Session-Token", "_SessionToken");
        for member in [
            "_ApplicationId",
            "_ClientVersion",
            "_ContentType",
            "_InstallationId",
            "_context",
        ] {
            parameters.remove(member);
        }
        let holds = |(name, key): &(&str, String)| {
            given
                .iter()
                .any(|(other, given)| other == name && given.as_ref() == Some(key))
        };
        if !self.keys.is_empty() && !self.keys.iter().any(holds) {
            return Err(Refusal::new(403, None, "unauthorized"));
        }
        let has_master_key = self.keys.iter().any(|key| key.0 == "masterKey" && holds(key));
        if parameters.contains_key("watch") {
            return Err(Refusal::new(400, Some(102), "Invalid parameter for query: watch"));
        }
        let query = Query::from_json(class_name, parameters)
            .map_err(|error| Refusal::new(400, Some(102), error.to_string()))?;
        let mut found = self.change(|state| state.find(&query, session_token.as_deref(), has_master_key))?;
        for object in &mut found {
            if let Value::Object(members) = object {
                members.remove("className");
            }
        }
        Ok(found)
    }
}

/// A request, as far as it was read.
pub(super) struct HttpRequest {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Everything up to the body, as it came.
    head: Vec<u8>,
}

impl HttpRequest {
    /// Reads a request, `None` if the connection ends before.
    pub(super) fn read(mut socket: &Socket) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let mut request = loop {
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                return Ok(None);
            }
            bytes.extend(buffer.iter().take(read));
            if let Some(request) = Self::parse(&bytes)? {
                break request;
            }
        };
        let length = request
            .header("Content-Length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        while request.body.len() < length {
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                return Ok(None);
            }
            request.body.extend(buffer.iter().take(read));
        }
        Ok(Some(request))
    }

    /// `None` if the head has not come in full.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let status = request
            .parse(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let httparse::Status::Complete(length) = status else {
            return Ok(None);
        };
        let (head, body) = bytes.split_at(length);
        Ok(Some(Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            headers: request
                .headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value).into_owned();
                    (header.name.to_owned(), value)
                })
                .collect(),
            body: body.to_vec(),
            head: head.to_vec(),
        }))
    }

    /// All that was read, if it asks for a WebSocket.
    pub(super) fn into_upgrade(mut self) -> Result<Vec<u8>, Self> {
        if self.header("Upgrade").is_none() {
            return Err(self);
        }
        self.head.append(&mut self.body);
        Ok(self.head)
    }

    /// What is asked for: in the body, as the JS SDK does it, or after the path.
    fn parameters(&self, query: &str) -> Result<Fields, Refusal> {
        let mut parameters = match self.method.as_str() {
            "GET" => form_urlencoded::parse(query.as_bytes())
                .map(|(name, text)| {
                    let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(&*text));
                    (name.into_owned(), value)
                })
                .collect(),
            _ => match serde_json::from_slice(&self.body) {
                Ok(Value::Object(members)) => members,
                _ => return Err(Refusal::new(400, Some(107), "Invalid JSON")),
            },
        };
        if self.method != "GET" && parameters.remove("_method") != Some("GET".into()) {
            let text = "the test server finds, and saves nothing over HTTP";
            return Err(Refusal::new(400, None, text));
        }
        if let Some(Value::String(text)) = parameters.get("where") {
            let condition = serde_json::from_str(text)
                .map_err(|_| Refusal::new(400, Some(107), "where parameter is not valid JSON"))?;
            parameters.insert("where".to_owned(), condition);
        }
        Ok(parameters)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Of Parse Server 9.10.
const DEFAULT_LIMIT: u64 = 100;

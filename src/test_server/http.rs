//! The REST API: from a request to what is to be done, and from what came of it to an answer. It must not know how objects
//! are found, saved and sent to subscribers.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::caller::{Caller, Refusal};
use super::hub::Hub;
use super::socket::Socket;
use super::state::Fields;
use crate::query::Query;

impl Hub {
    /// Answers a request of the REST API. The answer is what holds now, however late it is sent.
    pub(super) fn answer_http(
        &self,
        number: u64,
        mut socket: &Socket,
        request: &HttpRequest,
    ) -> io::Result<()> {
        let mut is_find = false;
        let (status, body) = self.answer(request, &mut is_find).unwrap_or_else(|refusal| {
            let Refusal { status, code, text } = refusal;
            let body = match code {
                Some(code) => json!({"code": code, "error": text}),
                None => json!({"error": text}),
            };
            (status, body)
        });
        let delay = {
            let state = self.state.lock();
            let of_finds = if is_find {
                state.hooks.find_delay
            } else {
                Duration::ZERO
            };
            state.delay.saturating_add(of_finds)
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

    fn answer(&self, request: &HttpRequest, is_find: &mut bool) -> Result<(u16, Value), Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let parts = parts_of(path);
        let route: Vec<_> = parts.iter().map(|part| &**part).collect();
        let mut members = request.parameters(query)?;
        let method = match members.remove("_method") {
            Some(Value::String(method)) => method,
            _ => request.method.clone(),
        };
        let caller = self.caller(request, &mut members)?;
        let call = (&*method, &*route);
        if let ("GET", ["classes", class_name]) = call {
            *is_find = true;
            return self
                .find_over_http(class_name, members, caller)
                .map(|found| (200, found));
        }
        let caller = match call {
            // Who logs in may have a session that has ended.
            (_, ["login"]) => caller,
            _ => self.state.lock().with_user(caller)?,
        };
        if let ("POST", ["batch"]) = call {
            return self.answer_batch(&members, &caller).map(|answer| (200, answer));
        }
        self.act(call, members, &caller)
    }

    /// Each of several changes by itself.
    fn answer_batch(&self, members: &Fields, caller: &Caller) -> Result<Value, Refusal> {
        let Some(Value::Array(requests)) = members.get("requests") else {
            return Err(Refusal::of(107, "requests must be an array"));
        };
        let answer = |request: &Value| {
            let text = |name: &str| request.get(name).and_then(Value::as_str);
            let path = text("path").ok_or_else(|| Refusal::of(107, "batch request path must be a string"))?;
            let parts = parts_of(path);
            let route: Vec<_> = parts.iter().map(|part| &**part).collect();
            let members = request.get("body").and_then(Value::as_object).cloned();
            let call = (text("method").unwrap_or("GET"), &*route);
            self.act(call, members.unwrap_or_default(), caller)
        };
        let answers = requests.iter().map(|request| match answer(request) {
            Ok((_, answer)) => json!({"success": answer}),
            Err(Refusal { code, text, .. }) => json!({"error": {"code": code, "error": text}}),
        });
        Ok(answers.collect())
    }

    /// Does what is neither a find nor a batch.
    fn act(&self, call: (&str, &[&str]), members: Fields, caller: &Caller) -> Result<(u16, Value), Refusal> {
        let ok = |answer: Value| (200, answer);
        match call {
            ("POST", ["classes", "_User"]) => self.change(|state| state.sign_up(members, caller)),
            ("GET" | "POST", ["login"]) => self.change(|state| state.log_in(&members)).map(ok),
            ("POST", ["logout"]) => {
                if let Some(token) = &caller.session_token {
                    self.change(|state| state.sessions.remove(token));
                }
                Ok((200, json!({})))
            }
            ("POST", ["requestPasswordReset"]) => match members.get("email") {
                Some(Value::String(_)) => Ok((200, json!({}))),
                _ => Err(Refusal::of(204, "you must provide an email")),
            },
            ("GET", ["users", "me"]) => self.state.lock().me(caller).map(without_class).map(ok),
            ("POST", ["functions", name]) => self.functions.call(name, members.into(), caller).map(ok),
            ("POST", ["classes", class_name]) => self
                .change(|state| state.save_new(class_name, members))
                .map(|answer| (201, answer)),
            ("GET", ["classes", class_name, id]) => self
                .state
                .lock()
                .get_object(class_name, id, caller)
                .map(without_class)
                .map(ok),
            ("PUT", ["classes", "_User", id]) => self
                .change(|state| state.change_user(id, members, caller))
                .map(ok),
            ("PUT", ["classes", class_name, id]) => self
                .change(|state| state.save_changes(class_name, id, members, caller))
                .map(ok),
            ("DELETE", ["classes", class_name, id]) => self
                .change(|state| state.remove_object(class_name, id, caller))
                .map(ok),
            (method, route) => {
                let text = format!("the test server does not know {method} /{}", route.join("/"));
                Err(Refusal::new(404, None, text))
            }
        }
    }

    fn find_over_http(&self, class_name: &str, members: Fields, caller: Caller) -> Result<Value, Refusal> {
        let invalid = |text: String| Refusal::of(102, text);
        if members.contains_key("watch") {
            return Err(invalid("Invalid parameter for query: watch".to_owned()));
        }
        let counts = members
            .get("count")
            .is_some_and(|count| *count != 0 && *count != false);
        let query = Query::from_json(class_name, members).map_err(|error| invalid(error.to_string()))?;
        let (found, number) = self.change(|state| {
            state.begin_find()?;
            state.find(&query, &state.with_user(caller)?)
        })?;
        let results: Value = found.into_iter().map(without_class).collect();
        Ok(if counts {
            json!({"results": results, "count": number})
        } else {
            json!({"results": results})
        })
    }

    /// Who asks, by headers or, as the JS SDK does it, by members of the body, which are taken out.
    fn caller(&self, request: &HttpRequest, members: &mut Fields) -> Result<Caller, Refusal> {
        let mut secret = |header: &str, member: &str| {
            let in_body = members.remove(member);
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
            members.remove(member);
        }
        let holds = |(name, key): &(&str, String)| {
            given
                .iter()
                .any(|(other, given)| other == name && given.as_ref() == Some(key))
        };
        if !self.keys.is_empty() && !self.keys.iter().any(holds) {
            return Err(Refusal::new(403, None, "unauthorized"));
        }
        Ok(Caller {
            user: None,
            session_token: session_token.filter(|token| !token.is_empty()),
            has_master_key: self.keys.iter().any(|key| key.0 == "masterKey" && holds(key)),
        })
    }
}

/// The parts of a path below that of the REST API, wherever that is. Users are objects of a class, with paths of their own.
fn parts_of(path: &str) -> Vec<String> {
    let mut parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .skip_while(|part| !ROUTES.contains(&&**part))
        .collect();
    if parts.first().is_some_and(|part| part == "users") && parts.get(1).is_none_or(|part| part != "me") {
        parts.splice(..1, ["classes".to_owned(), "_User".to_owned()]);
    }
    parts
}

/// An object as the REST API shows it.
fn without_class(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.remove("className");
    }
    object
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
        let mut parameters: Fields = match self.method.as_str() {
            "GET" => form_urlencoded::parse(query.as_bytes())
                .map(|(name, text)| {
                    let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(&*text));
                    (name.into_owned(), value)
                })
                .collect(),
            _ if self.body.is_empty() => Fields::new(),
            _ => match serde_json::from_slice(&self.body) {
                Ok(Value::Object(members)) => members,
                _ => return Err(Refusal::of(107, "Invalid JSON")),
            },
        };
        if let Some(Value::String(text)) = parameters.get("where") {
            let condition = serde_json::from_str(text)
                .map_err(|_| Refusal::of(107, "where parameter is not valid JSON"))?;
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

/// What the REST API has, below its mount path.
const ROUTES: [&str; 7] = [
    "batch",
    "classes",
    "functions",
    "login",
    "logout",
    "requestPasswordReset",
    "users",
];

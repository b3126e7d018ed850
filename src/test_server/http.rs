//! The REST API: turns a request into an action, and its result into an answer. Must not know how objects are
//! found, saved and sent to subscribers.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::caller::{Caller, Refusal};
use super::hub::Hub;
use super::permissions::shown;
use super::socket::Socket;
use super::state::{Fields, StoredFile};
use crate::query::Query;

impl Hub {
    /// Answers a request of the REST API. The answer shows the present state, however late it is sent.
    pub(super) fn answer_http(
        &self,
        number: u64,
        mut socket: &Socket,
        request: &HttpRequest,
    ) -> io::Result<()> {
        let mut is_find = false;
        let answer = self
            .answer(request, &mut is_find)
            .unwrap_or_else(|Refusal { status, code, text }| {
                let body = match code {
                    Some(code) => json!({"code": code, "error": text}),
                    None => json!({"error": text}),
                };
                Answer::json(status, &body)
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
        let Answer {
            status,
            content_type,
            body,
        } = answer;
        let head = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nDate: {}\r\n\
             Connection: close\r\n\r\n",
            body.len(),
            DateTime::<Utc>::from(SystemTime::now()).format("%a, %d %b %Y %H:%M:%S GMT"),
        );
        socket.write_all(head.as_bytes())?;
        socket.write_all(&body)
    }

    fn answer(&self, request: &HttpRequest, is_find: &mut bool) -> Result<Answer, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let parts = parts_of(path);
        let route: Vec<_> = parts.iter().map(|part| &**part).collect();
        if let ["files", route @ ..] = &*route {
            return self.answer_file(request, path, route);
        }
        self.answer_json(request, query, &route, is_find)
            .map(|(status, answer)| Answer::json(status, &answer))
    }

    fn answer_json(
        &self,
        request: &HttpRequest,
        query: &str,
        route: &[&str],
        is_find: &mut bool,
    ) -> Result<(u16, Value), Refusal> {
        let mut members = request.parameters(query)?;
        let method = match members.remove("_method") {
            Some(Value::String(method)) => method,
            _ => request.method.clone(),
        };
        let caller = self.caller(request, &mut members)?;
        members.remove("_ApplicationId");
        let call = (&*method, route);
        if let ("GET", ["classes", class_name]) = call {
            *is_find = true;
            return self
                .find_over_http(class_name, members, caller)
                .map(|found| (200, found));
        }
        let caller = match call {
            // A caller that logs in may send a session that has ended.
            (_, ["login"]) => caller,
            _ => self.state.lock().with_user(caller)?,
        };
        if let ("POST", ["batch"]) = call {
            return self.answer_batch(&members, &caller).map(|answer| (200, answer));
        }
        self.act(call, members, &caller)
    }

    fn answer_file(&self, request: &HttpRequest, path: &str, route: &[&str]) -> Result<Answer, Refusal> {
        match (&*request.method, route) {
            // Knowing the name is enough to read a file.
            ("GET", [_, name @ ..]) => Ok(match self.state.lock().files.get(&name.join("/")) {
                Some(file) => Answer {
                    status: 200,
                    content_type: file.content_type.clone(),
                    body: file.bytes.clone(),
                },
                None => Answer {
                    status: 404,
                    content_type: "text/plain".to_owned(),
                    body: b"File not found.".to_vec(),
                },
            }),
            ("POST", [name]) => {
                let (file, mut members) = request.file()?;
                let caller = self.caller(request, &mut members)?;
                let application = members.remove("_ApplicationId");
                let application = application.as_ref().and_then(Value::as_str);
                let application = request.header("X-Parse-Application-Id").or(application);
                let url = |name: &str| {
                    let mount = path
                        .find("/files/")
                        .and_then(|at| path.get(..at))
                        .unwrap_or_default();
                    let host = request.header("Host").unwrap_or("127.0.0.1");
                    let mut url = Url::parse(&format!("http://{host}{mount}/files")).ok()?;
                    url.path_segments_mut()
                        .ok()?
                        .extend([application.unwrap_or_default(), name]);
                    Some(url)
                };
                let name = self.change(|state| {
                    let caller = state.with_user(caller)?;
                    state.store_file(name, file, &caller)
                })?;
                let url = url(&name).map(String::from);
                Ok(Answer::json(201, &json!({"name": name, "url": url})))
            }
            ("DELETE", name) => {
                let caller = self.caller(request, &mut Fields::new())?;
                self.change(|state| state.delete_file(&name.join("/"), &caller))?;
                Ok(Answer {
                    status: 200,
                    content_type: "text/plain".to_owned(),
                    body: Vec::new(),
                })
            }
            ("POST", []) => Err(Refusal::of(122, "Filename not provided.")),
            (method, _) => {
                let text = format!("the test server does not know {method} {path}");
                Err(Refusal::new(404, None, text))
            }
        }
    }

    /// Handles each of several changes separately.
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

    /// Handles everything but finds and batches.
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
            ("GET", ["users", "me"]) => self
                .state
                .lock()
                .me(caller)
                .map(|user| shown("_User", user, caller))
                .map(ok),
            ("GET", ["sessions", "me"]) => self.state.lock().session_of(caller).map(ok),
            ("POST", ["functions", name]) => self.functions.call(name, members.into(), caller).map(ok),
            ("POST", ["classes", class_name]) => self
                .change(|state| state.save_new(class_name, members, caller))
                .map(|answer| (201, answer)),
            ("GET", ["classes", class_name, id]) => self
                .state
                .lock()
                .get_object(class_name, id, caller)
                .map(|object| shown(class_name, object, caller))
                .map(|object| with_token(class_name, object, caller))
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

    fn find_over_http(
        &self,
        class_name: &str,
        mut members: Fields,
        caller: Caller,
    ) -> Result<Value, Refusal> {
        let invalid = |text: String| Refusal::of(102, text);
        if members.contains_key("watch") {
            return Err(invalid("Invalid parameter for query: watch".to_owned()));
        }
        let counts = members
            .get("count")
            .is_some_and(|count| *count != 0 && *count != false);
        // The JS SDK asks in this way for a relation that it has not seen yet.
        let relation = match members.remove("redirectClassNameForKey") {
            Some(Value::String(field)) => self.state.lock().target_of(class_name, &field),
            _ => None,
        };
        let is_redirected = relation.is_some();
        let class_name = relation.unwrap_or_else(|| class_name.to_owned());
        let query = Query::from_json(&*class_name, members).map_err(|error| invalid(error.to_string()))?;
        let (found, number, caller) = self.change(|state| {
            state.begin_find()?;
            let caller = state.with_user(caller)?;
            state.permit(&class_name, if counts { "count" } else { "find" }, &caller)?;
            let (found, number) = state.find(&query, &caller)?;
            Ok::<_, Refusal>((found, number, caller))
        })?;
        let results = found
            .into_iter()
            .map(|object| shown(&class_name, object, &caller));
        let mut answer = json!({"results": results.collect::<Value>()});
        if counts {
            answer["count"] = number.into();
        }
        if is_redirected {
            answer["className"] = class_name.into();
        }
        Ok(answer)
    }

    /// Who asks, according to the headers or, as with the JS SDK, members of the body, which are removed.
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
        for member in ["_ClientVersion", "_ContentType", "_InstallationId", "_context"] {
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
            groups: Vec::new(),
            session_token: session_token.filter(|token| !token.is_empty()),
            has_master_key: self.keys.iter().any(|key| key.0 == "masterKey" && holds(key)),
        })
    }
}

/// The parts of a path below that of the REST API, wherever that is mounted. Users are objects of a class
/// with paths of their own.
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

/// A caller that asks for its own user gets the session token as well (ClassesRouter.js, `handleGet`).
fn with_token(class_name: &str, mut object: Value, caller: &Caller) -> Value {
    let id = object.get("objectId").and_then(Value::as_str);
    if class_name == "_User" && id.is_some() && id == caller.user.as_deref() {
        object["sessionToken"] = json!(caller.session_token);
    }
    object
}

/// The answer to a request.
struct Answer {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: "application/json; charset=utf-8".to_owned(),
            body: body.to_string().into_bytes(),
        }
    }
}

/// A request, as far as it has been read.
pub(super) struct HttpRequest {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Everything before the body, as it came.
    head: Vec<u8>,
}

impl HttpRequest {
    /// Reads a request; `None` if the connection ends first.
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
        let is_chunked = request
            .header("Transfer-Encoding")
            .is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked"));
        let mut buffer = [0; 64 * 1024];
        let mut chunks = Vec::new();
        loop {
            if is_chunked {
                if join_chunks(&mut request.body, &mut chunks)? {
                    request.body = chunks;
                    return Ok(Some(request));
                }
            } else if request.body.len() >= length {
                return Ok(Some(request));
            }
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                return Ok(None);
            }
            request.body.extend(buffer.iter().take(read));
        }
    }

    /// `None` if the head is not complete.
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

    /// All that was read, if the request asks for a WebSocket.
    pub(super) fn into_upgrade(mut self) -> Result<Vec<u8>, Self> {
        if self.header("Upgrade").is_none() {
            return Err(self);
        }
        self.head.append(&mut self.body);
        Ok(self.head)
    }

    /// The parameters of a request: in the body, as the JS SDK sends them, or after the path.
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

    /// The uploaded file, which is the body or, as with the JS SDK when the keys are in the body, a member of
    /// it; and the other members.
    fn file(&self) -> Result<(StoredFile, Fields), Refusal> {
        if self.header("X-Parse-Application-Id").is_some() {
            let content_type = self.header("Content-Type");
            let file = StoredFile {
                content_type: content_type.unwrap_or("application/octet-stream").to_owned(),
                bytes: self.body.clone(),
            };
            return Ok((file, Fields::new()));
        }
        let mut members: Fields =
            serde_json::from_slice(&self.body).map_err(|_| Refusal::of(107, "Invalid JSON"))?;
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let content_type = text("_ContentType").unwrap_or_else(|| "application/octet-stream".to_owned());
        let bytes = text("base64").and_then(|base64| BASE64.decode(base64.as_bytes()).ok());
        let bytes = bytes.ok_or_else(|| Refusal::of(130, "Invalid file upload."))?;
        Ok((StoredFile { content_type, bytes }, members))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Moves the chunks received so far to the others. `true` if the last one was among them.
fn join_chunks(body: &mut Vec<u8>, chunks: &mut Vec<u8>) -> io::Result<bool> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut at = 0;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        let (start, size) = match httparse::parse_chunk_size(rest).map_err(|_| invalid())? {
            httparse::Status::Complete(found) => found,
            httparse::Status::Partial => break,
        };
        let size = usize::try_from(size).map_err(|_| invalid())?;
        let end = start.checked_add(size).ok_or_else(invalid)?;
        let after = end.checked_add(2).ok_or_else(invalid)?;
        if rest.len() < after {
            break;
        }
        if size == 0 {
            return Ok(true);
        }
        chunks.extend(rest.get(start..end).unwrap_or_default());
        at += after;
    }
    body.drain(..at);
    Ok(false)
}

/// The routes of the REST API, below its mount path.
const ROUTES: [&str; 9] = [
    "batch",
    "classes",
    "files",
    "functions",
    "login",
    "logout",
    "requestPasswordReset",
    "sessions",
    "users",
];

//! Frames to and from JSON text: the one place that knows how they are spelled.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventKind};
use crate::query::EncodedQuery;
use crate::query::matcher::{Field, Matcher, Verdict};
use crate::scan::{Members, Outline, start_of};
use crate::secret::Secret;
use crate::types::Date;

/// What a client shows of itself in `connect`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) application_id: String,
    pub(crate) javascript_key: Option<Secret>,
    pub(crate) client_key: Option<Secret>,
    pub(crate) windows_key: Option<Secret>,
    pub(crate) rest_api_key: Option<Secret>,
    pub(crate) master_key: Option<Secret>,
    pub(crate) session_token: Option<Secret>,
    pub(crate) installation_id: Option<String>,
}

/// What a subscription asks for.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Made of the query when an event first comes for it.
    matcher: OnceLock<Option<Matcher>>,
    pub(crate) query: EncodedQuery,
    /// Sent with the subscription. Class-level permissions and protected fields are judged by this one alone (Parse
    /// Server 9.10, ParseLiveQueryServer.js), so the client's own is sent where a subscription has none.
    pub(crate) session_token: Option<Secret>,
    /// Counts the session tokens that this subscription has had: events of an earlier one are not given out.
    pub(crate) identity: u64,
}

impl Spec {
    pub(crate) fn new(query: EncodedQuery, session_token: Option<Secret>, identity: u64) -> Self {
        Self {
            matcher: OnceLock::new(),
            query,
            session_token,
            identity,
        }
    }

    /// Whether [`may_bring`](Self::may_bring) has anything to judge by.
    pub(crate) fn is_filter(&self) -> bool {
        self.query.verbatim && *self.query.where_json != *"{}"
    }

    /// Whether an event can be one of this query. Parse Server takes some queries for one another (`queryHash` in
    /// QueryTools.js), and then sends the events of one to the subscribers of the other. The form in which queries are
    /// sent prevents that, but for those that are sent as the user wrote them; all others bring what they bring, since
    /// an `afterLiveQueryEvent` hook may have changed the object after the server matched it.
    ///
    /// A field that is absent is not judged: `select` leaves fields out, and so do protected fields and hooks.
    pub(crate) fn may_bring(&self, event: &Event) -> bool {
        let object = match event.kind() {
            // What leaves matched before.
            EventKind::Leave => event.original(),
            _ => event.object(),
        };
        let matcher = self.matcher.get_or_init(|| {
            if self.is_filter() {
                Matcher::parse(&self.query.where_json).ok()
            } else {
                None
            }
        });
        match (object, matcher) {
            (Some(object), Some(matcher)) => {
                let field = |name: &str| match object.get(name) {
                    Some(value) if !is_altered(name, value) => Field::Value(value),
                    _ => Field::Unknown,
                };
                matcher.matches(field).may_be(Verdict::MATCH)
            }
            _ => true,
        }
    }
}

/// Whether a value may not be what the server matched: an object that a hook fetched in place of a pointer, or a date
/// that Parse Server 3.4 to 6.0 sends without its type.
fn is_altered(name: &str, value: &Value) -> bool {
    let fetched = value.get("__type").is_some_and(|kind| kind == "Object");
    let sent_plain = matches!(name, "createdAt" | "updatedAt");
    fetched || !sent_plain && value.as_str().is_some_and(|text| text.parse::<Date>().is_ok())
}

/// How the server wants selected fields to be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `keys` and `watch`: Parse Server 6.1 and later.
    Keys,
    /// `fields`, and no `watch`: before.
    Fields,
}

/// The operations on a subscription that name a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Subscribe,
    Update,
}

// The server's schema (Parse Server 9.10, RequestSchema.js) refuses `null` for a member and members that it does not
// know, so what is absent is left out.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connect<'a> {
    op: &'static str,
    application_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    javascript_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows_key: Option<&'a str>,
    #[serde(rename = "restAPIKey", skip_serializing_if = "Option::is_none")]
    rest_api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    installation_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe<'a> {
    op: Operation,
    request_id: u64,
    query: Query<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Query<'a> {
    class_name: &'a str,
    r#where: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<&'a RawValue>,
}

/// Whether the installation id is part of `connect`. Parse Server before 3.10 refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstallationId {
    Sent,
    LeftOut,
}

pub(crate) fn connect(credentials: &Credentials, installation_id: InstallationId) -> Result<String> {
    to_text(&Connect {
        op: "connect",
        application_id: &credentials.application_id,
        javascript_key: reveal(credentials.javascript_key.as_ref()),
        client_key: reveal(credentials.client_key.as_ref()),
        windows_key: reveal(credentials.windows_key.as_ref()),
        rest_api_key: reveal(credentials.rest_api_key.as_ref()),
        master_key: reveal(credentials.master_key.as_ref()),
        session_token: reveal(credentials.session_token.as_ref()),
        installation_id: match installation_id {
            InstallationId::Sent => credentials.installation_id.as_deref(),
            InstallationId::LeftOut => None,
        },
    })
}

pub(crate) fn subscribe(
    operation: Operation,
    request_id: u64,
    spec: &Spec,
    credentials: &Credentials,
    dialect: Dialect,
) -> Result<String> {
    let query = &spec.query;
    let keys = query.keys.as_deref().map(raw).transpose()?;
    let (keys, fields, watch) = match dialect {
        Dialect::Keys => (keys, None, query.watch.as_deref().map(raw).transpose()?),
        Dialect::Fields => (None, keys, None),
    };
    let session_token = spec.session_token.as_ref().or(credentials.session_token.as_ref());
    to_text(&Subscribe {
        op: operation,
        request_id,
        query: Query {
            class_name: &query.class_name,
            r#where: raw(&query.where_json)?,
            keys,
            fields,
            watch,
        },
        session_token: reveal(session_token),
    })
}

pub(crate) fn unsubscribe(request_id: u64) -> String {
    format!(r#"{{"op":"unsubscribe","requestId":{request_id}}}"#)
}

fn reveal(secret: Option<&Secret>) -> Option<&str> {
    secret.map(Secret::reveal)
}

fn raw(json: &str) -> Result<&RawValue> {
    serde_json::from_str(json).map_err(not_encoded)
}

fn to_text(frame: &impl Serialize) -> Result<String> {
    serde_json::to_string(frame).map_err(not_encoded)
}

fn not_encoded(error: serde_json::Error) -> Error {
    Error::with_source(
        ErrorKind::InvalidQuery,
        "the query cannot be written as JSON",
        error,
    )
}

/// A message of the server. What a message carries is borrowed from its text.
#[derive(Debug, PartialEq)]
pub(crate) enum Message<'a> {
    Connected,
    Subscribed {
        request_id: u64,
    },
    Unsubscribed {
        request_id: u64,
    },
    Event {
        request_id: u64,
        frame: EventFrame<'a>,
    },
    Error(ServerError),
    /// An operation that this client does not know.
    Unknown(Cow<'a, str>),
}

/// The members of an event, as text. They are JSON, and are not decoded before somebody looks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventFrame<'a> {
    pub(crate) kind: EventKind,
    pub(crate) object: &'a str,
    /// Of the object, whose end is found on the same way as its members.
    pub(crate) outline: Option<Outline>,
    pub(crate) original: Option<&'a str>,
}

/// An error message of the server. Parse Server before 4.3 sends no `requestId`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerError {
    pub(crate) code: i64,
    pub(crate) text: String,
    pub(crate) reconnect: bool,
    pub(crate) request_id: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    original: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow)]
    reconnect: Option<&'a RawValue>,
}

/// Reads what the server sends on a connection.
///
/// All events begin alike but for the operation and the request id, so what is between these two is read once, and only
/// compared from then on.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// From behind the operation up to the request id; empty until an event has come.
    between: String,
}

/// The beginning of an event, up to its object.
struct Head<'a> {
    kind: EventKind,
    request_id: u64,
    /// The value of `object` is next.
    members: Members<'a>,
}

impl Reader {
    /// Which event this is, and of which subscription, if it is one. Looks no further than to its object.
    pub(crate) fn route(&mut self, text: &str) -> Option<(EventKind, u64)> {
        self.head(text).map(|head| (head.kind, head.request_id))
    }

    /// Reads a message of the server.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the text is no JSON object with an `op` and the members that this operation needs.
    pub(crate) fn read<'a>(&mut self, text: &'a str) -> Result<Message<'a>> {
        self.event(text).map_or_else(|| read_closely(text), Ok)
    }

    /// Reads an event as Parse Server writes it. `None` for all other messages, and for what needs a closer look.
    ///
    /// Whether the object is JSON shows when it is decoded: here it is only seen where it ends.
    fn event<'a>(&mut self, text: &'a str) -> Option<Message<'a>> {
        let Head {
            kind,
            request_id,
            mut members,
        } = self.head(text)?;
        let (object, outline) = members.value_with_outline()?;
        let mut original = None;
        while let Some(key) = members.key() {
            let value = members.value()?;
            match key {
                "original" => original = Some(value),
                "op" | "requestId" | "object" => return None,
                _ if key.contains('\\') => return None,
                _ => {}
            }
        }
        if !members.is_complete() || !object.starts_with('{') {
            return None;
        }
        Some(Message::Event {
            request_id,
            frame: EventFrame {
                kind,
                object,
                outline,
                original: original.filter(|original| *original != "null"),
            },
        })
    }

    /// `None` if the text is no event, or the order of its members is another than Parse Server's.
    fn head<'a>(&mut self, text: &'a str) -> Option<Head<'a>> {
        if let Some(head) = self.head_alike(text) {
            return Some(head);
        }
        let (mut op, mut request_id) = (None, None);
        let mut members = Members::new(text);
        loop {
            match members.key()? {
                "object" => break,
                "op" => op = Some(members.value()?),
                "requestId" => request_id = Some(members.value()?),
                "original" => return None,
                // With an escape in it, it may be one of those above.
                key if key.contains('\\') => return None,
                _ => _ = members.value()?,
            }
        }
        let (op, request_id) = op.zip(request_id)?;
        let head = Head {
            kind: event_kind(unquoted(op)?)?,
            request_id: number(request_id)?,
            members,
        };
        let (behind_op, before_id) = (start_of(op, text) + op.len(), start_of(request_id, text));
        if start_of(op, text) + 1 == BEGINNING.len() && before_id <= LONGEST_BETWEEN {
            self.between.clear();
            self.between
                .push_str(text.get(behind_op..before_id).unwrap_or_default());
        }
        Some(head)
    }

    /// That of an event which begins like the one before it.
    fn head_alike<'a>(&self, text: &'a str) -> Option<Head<'a>> {
        if self.between.is_empty() {
            return None;
        }
        let (op, rest) = text.strip_prefix(BEGINNING)?.split_once('"')?;
        let rest = rest.strip_prefix(&*self.between)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (request_id, rest) = rest.split_at_checked(digits)?;
        let object = rest.strip_prefix(r#","object":"#)?;
        Some(Head {
            kind: event_kind(op)?,
            request_id: request_id.parse().ok()?,
            members: Members::behind_key(text, text.len() - object.len()),
        })
    }
}

const BEGINNING: &str = r#"{"op":""#;
const LONGEST_BETWEEN: usize = 512;

/// The text of a string without escapes.
fn unquoted(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

fn event_kind(op: &str) -> Option<EventKind> {
    match op {
        "create" => Some(EventKind::Create),
        "update" => Some(EventKind::Update),
        "enter" => Some(EventKind::Enter),
        "leave" => Some(EventKind::Leave),
        "delete" => Some(EventKind::Delete),
        _ => None,
    }
}

fn read_closely(text: &str) -> Result<Message<'_>> {
    let incoming: Incoming<'_> = serde_json::from_str(text).map_err(|error| {
        Error::with_source(
            ErrorKind::Protocol,
            format!("the server sent no LiveQuery message: `{}`", excerpt(text)),
            error,
        )
    })?;
    let request_id = incoming.request_id.and_then(|raw| number(raw.get()));
    let kind = match incoming.op.as_ref() {
        "connected" => return Ok(Message::Connected),
        "error" => {
            return Ok(Message::Error(ServerError {
                code: incoming.code.and_then(|raw| number(raw.get())).unwrap_or(-1),
                text: incoming.error.map(text_of).unwrap_or_default(),
                // The JS SDK too takes an absent `reconnect` for `true`.
                reconnect: incoming.reconnect.is_none_or(|raw| raw.get() != "false"),
                request_id,
            }));
        }
        "subscribed" => {
            let request_id = request_id.ok_or_else(|| incomplete(text))?;
            return Ok(Message::Subscribed { request_id });
        }
        "unsubscribed" => {
            let request_id = request_id.ok_or_else(|| incomplete(text))?;
            return Ok(Message::Unsubscribed { request_id });
        }
        op => match event_kind(op) {
            Some(kind) => kind,
            None => return Ok(Message::Unknown(incoming.op)),
        },
    };
    let object = incoming.object.filter(|raw| raw.get().starts_with('{'));
    let (Some(request_id), Some(object)) = (request_id, object) else {
        return Err(incomplete(text));
    };
    Ok(Message::Event {
        request_id,
        frame: EventFrame {
            kind,
            object: object.get(),
            outline: Outline::new(object.get()),
            original: incoming.original.map(RawValue::get),
        },
    })
}

fn incomplete(text: &str) -> Error {
    let text = format!(
        "the server sent a message that lacks its `requestId` or its `object`: `{}`",
        excerpt(text)
    );
    Error::new(ErrorKind::Protocol, text)
}

/// A number; one in quotes will do as well.
fn number<T: std::str::FromStr>(json: &str) -> Option<T> {
    json.trim_matches('"').parse().ok()
}

/// The text of a string, and the JSON of anything else: a hook may throw whatever it likes.
fn text_of(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// The beginning of a text, for an error message.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

const EXCERPT: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Message<'_>> {
        Reader::default().read(text)
    }

    #[test]
    fn an_event_is_routed_by_what_comes_before_its_object() {
        let text = r#"{"op":"update","clientId":"c","requestId":7,"object":{"a":"#;
        let mut reader = Reader::default();
        assert_eq!(reader.route(text), Some((EventKind::Update, 7)));
        assert!(reader.read(text).is_err(), "it has no end");
        let next = r#"{"op":"leave","clientId":"c","requestId":12,"object":{}}"#;
        assert_eq!(reader.route(next), Some((EventKind::Leave, 12)));
        for text in [
            r#"{"op":"update","clientId":"d","requestId":7,"object":{}}"#,
            r#"{"requestId":7,"op":"update","object":{}}"#,
            r#"{ "op" : "update", "requestId" : "7", "object" : {}}"#,
        ] {
            assert_eq!(reader.route(text), Some((EventKind::Update, 7)), "{text}");
        }
        for text in [
            r#"{"op":"subscribed","clientId":"c","requestId":7}"#,
            r#"{"op":"subscribed","clientId":"c","requestId":7,"object":{}}"#,
            r#"{"op":"create","clientId":"c","requestId":,"object":{}}"#,
            r#"{"op":"create","requestId":7}"#,
            r#"{"op":"create","requestId":"x","object":{}}"#,
            r#"{"object":{"op":"create","requestId":7}}"#,
            "{",
            "",
        ] {
            assert_eq!(reader.route(text), None, "{text}");
        }
    }

    #[test]
    fn members_of_an_event_may_come_in_any_order() {
        for text in [
            r#"{"op":"update","object":{},"requestId":7}"#,
            r#"{"object":{},"requestId":7,"op":"update"}"#,
            r#"{"\u006fp":"update","requestId":7,"object":{}}"#,
            r#"{"op":"update","requestId":7,"original":null,"object":{}}"#,
        ] {
            let Ok(Message::Event { request_id: 7, frame }) = read(text) else {
                panic!("{text}");
            };
            assert_eq!(frame.kind, EventKind::Update);
            assert_eq!((frame.object, frame.original), ("{}", None));
        }
    }

    fn member() -> impl Strategy<Value = String> {
        prop_oneof![
            "\"op\":\"(create|update|enter|leave|delete|subscribed|error|x)\"",
            "\"requestId\":(7|\"7\"|-1|null|1e3|x|)",
            "\"(object|original)\":(\\{\\}|\\{\"a\":\\{\"b\":\\[1,\"\\}\"\\]\\}\\}|null|7|\\{)",
            "\"(clientId|installationId|more)\":(\"c\"|7|null|\"\\\\\"\"|\\[\\])",
        ]
    }

    /// Two texts that are alike but for what events differ in, and that are no events perhaps.
    fn alike() -> impl Strategy<Value = [String; 2]> {
        let op = || "(\"(create|update|leave|error)\"|x|)";
        let request_id = || "(7|12|\"7\"|-1|00|99999999999999999999|x|)";
        let members = || prop::collection::vec(member(), 0..3).prop_map(|members| members.join(","));
        let ends = || (op(), request_id(), members(), "\\}?");
        (members(), [ends(), ends()]).prop_map(|(between, both)| {
            both.map(|(op, request_id, more, end)| {
                format!(
                    "{{\"op\":{op},{between},\"requestId\":{request_id},\"object\":{{\"a\":[1]}},{more}{end}"
                )
                .replace(",,", ",")
                .replace(",}", "}")
            })
        })
    }

    proptest! {
        #[test]
        fn an_event_is_the_same_from_close_up(
            members in prop::collection::vec(member(), 0..7),
            separator in prop_oneof![Just(","), Just(" ,\n"), Just(";")],
        ) {
            let text = format!("{{{}}}", members.join(separator));
            if let Some(found) = Reader::default().event(&text) {
                // From close up a member that comes twice is an error; JavaScript takes the last one.
                if let Ok(close_up) = read_closely(&text) {
                    prop_assert_eq!(found, close_up);
                } else {
                    let keys: std::collections::HashSet<_> = Members::new(&text).map(|(key, _)| key).collect();
                    prop_assert!(keys.len() < members.len(), "{}", text);
                }
            }
        }

        #[test]
        fn an_event_is_the_same_after_another([before, text] in alike()) {
            let mut reader = Reader::default();
            reader.route(&before);
            prop_assert_eq!(reader.route(&text), Reader::default().route(&text));
            prop_assert_eq!(reader.event(&text), Reader::default().event(&text));
        }
    }
}

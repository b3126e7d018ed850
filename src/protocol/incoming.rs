//! The received frames: the one place that knows how the server spells them. Must not know of subscriptions.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
use crate::event::EventKind;
use crate::scan::{Members, Outline, start_of};
use crate::text::excerpt;

/// A message of the server. Its contents are borrowed from its text.
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

/// The members of an event, as text. They are JSON, and are not decoded until someone looks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventFrame<'a> {
    pub(crate) kind: EventKind,
    pub(crate) object: &'a str,
    pub(crate) original: Option<&'a str>,
}

/// An error message of the server. Parse Server before 4.3 sends no `requestId`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServerError {
    pub(crate) code: i64,
    pub(crate) text: String,
    pub(crate) reconnect: bool,
    pub(crate) request_id: Option<u64>,
    /// Whether there is a `requestId` at all, even if it is null.
    pub(crate) has_request_id: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "even_null")]
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

/// Parses the messages that the server sends on a connection.
///
/// All events begin alike, except for the operation and the request id. The text between these two is parsed
/// once, and only compared from then on.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The text between `op` and `requestId`; empty until the first event.
    between: String,
    /// Of the object of the last event: the scan that finds its end finds its members too.
    outline: Option<Outline>,
}

/// The beginning of an event, up to its object.
struct Head<'a> {
    kind: EventKind,
    request_id: u64,
    /// The value of `object` is next.
    members: Members<'a>,
}

impl Reader {
    /// The kind of an event and its subscription, if this is an event. Reads only up to its object.
    pub(crate) fn route(&mut self, text: &str) -> Option<(EventKind, u64)> {
        self.head(text).map(|head| (head.kind, head.request_id))
    }

    /// Parses a message of the server.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the text is not a JSON object with an `op` and the members that this
    /// operation needs.
    pub(crate) fn read<'a>(&mut self, text: &'a str) -> Result<Message<'a>> {
        if let Some(event) = self.event(text) {
            return Ok(event);
        }
        let message = read_closely(text)?;
        if let Message::Event { frame, .. } = &message {
            self.outline = Outline::new(frame.object);
        }
        Ok(message)
    }

    /// The outline of the object of the event that was read last. `None` if its text is too long for one, or is broken.
    pub(crate) fn outline(&self) -> Option<&Outline> {
        self.outline.as_ref()
    }

    /// Parses an event as Parse Server writes it. `None` for all other messages, and for those that need a
    /// closer look.
    ///
    /// Whether the object is valid JSON is found out when it is decoded: here only its end is found.
    fn event<'a>(&mut self, text: &'a str) -> Option<Message<'a>> {
        let Head {
            kind,
            request_id,
            mut members,
        } = self.head(text)?;
        let object = members.object(&mut self.outline)?;
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
                original: original.filter(|original| *original != "null"),
            },
        })
    }

    /// `None` if the text is not an event, or the order of its members is not Parse Server's.
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
                // A key with an escape may be one of those above.
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

    /// The head of an event that begins like the previous one.
    fn head_alike<'a>(&self, text: &'a str) -> Option<Head<'a>> {
        if self.between.is_empty() {
            return None;
        }
        let rest = text.strip_prefix(BEGINNING)?;
        let (kind, rest) = KINDS
            .iter()
            .find_map(|(op, kind)| Some((*kind, rest.strip_prefix(op)?)))?;
        let rest = rest.strip_prefix('"')?.strip_prefix(&*self.between)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (request_id, rest) = rest.split_at_checked(digits)?;
        let object = rest.strip_prefix(r#","object":"#)?;
        Some(Head {
            kind,
            request_id: request_id.parse().ok()?,
            members: Members::behind_key(text, text.len() - object.len()),
        })
    }
}

/// The operations that are events.
const KINDS: [(&str, EventKind); 5] = [
    ("create", EventKind::Create),
    ("update", EventKind::Update),
    ("enter", EventKind::Enter),
    ("leave", EventKind::Leave),
    ("delete", EventKind::Delete),
];
const BEGINNING: &str = r#"{"op":""#;
const LONGEST_BETWEEN: usize = 512;

/// The text of a string without escapes.
fn unquoted(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

fn event_kind(op: &str) -> Option<EventKind> {
    let found = KINDS.iter().find(|(name, _)| *name == op);
    found.map(|(_, kind)| *kind)
}

fn even_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn read_closely(text: &str) -> Result<Message<'_>> {
    let incoming: Incoming<'_> = serde_json::from_str(text).map_err(|error| {
        show(text);
        let reason = format!(
            "the server sent something that is not a LiveQuery message ({} bytes; the log level trace shows how it begins)",
            text.len()
        );
        // Not the error itself, whose text may quote the message.
        let place = format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column());
        Error::with_source(ErrorKind::Protocol, reason, place)
    })?;
    let request_id = incoming.request_id.and_then(|raw| number(raw.get()));
    let kind = match incoming.op.as_ref() {
        "connected" => return Ok(Message::Connected),
        "error" => {
            return Ok(Message::Error(ServerError {
                code: incoming.code.and_then(|raw| number(raw.get())).unwrap_or(-1),
                text: incoming.error.map(text_of).unwrap_or_default(),
                // Like the JS SDK, treats an absent `reconnect` as `true`.
                reconnect: incoming.reconnect.is_none_or(|raw| raw.get() != "false"),
                request_id,
                has_request_id: incoming.request_id.is_some(),
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
            original: incoming.original.map(RawValue::get),
        },
    })
}

fn incomplete(text: &str) -> Error {
    show(text);
    let reason = format!(
        "the server sent a message that lacks its `requestId` or its `object` ({} bytes; the log level trace shows how it \
         begins)",
        text.len()
    );
    Error::new(ErrorKind::Protocol, reason)
}

/// A message holds data of users, which errors take to where logs and screens are.
fn show(text: &str) {
    crate::logging::trace!("a message that was not understood: `{}`", excerpt(text));
}

/// A number; one in quotes is accepted too.
fn number<T: std::str::FromStr>(json: &str) -> Option<T> {
    json.trim_matches('"').parse().ok()
}

/// The text of a string, and the JSON of anything else: a hook may throw any value.
fn text_of(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_about_a_message_has_nothing_of_it() {
        for text in [
            "SECRET",
            r#"{"op":"create","requestId":1,"object":{"name":"SECRET"}"#,
            r#"{"op":"create","requestId":1,"object":"SECRET"}"#,
            r#"{"op":"create","object":{"name":"SECRET"}}"#,
            r#"{"op":["SECRET"],"requestId":1}"#,
            r#"{"op":{"SECRET":1}}"#,
            r#"["SECRET"]"#,
            r#""SECRET""#,
            r#"{"SECRET":1}"#,
            r#"{"op":"subscribed","clientId":"SECRET"}"#,
            r#"{"op":"create","op":"SECRET"}"#,
        ] {
            let error = read(text).unwrap_err();
            assert!(
                !format!("{error:#?} {error}").contains("SECRET"),
                "{text}: {error}"
            );
        }
    }

    fn read(text: &str) -> Result<Message<'_>> {
        Reader::default().read(text)
    }

    #[test]
    fn an_error_of_an_old_server_has_no_request_id() {
        for (text, id, has_id) in [
            (
                r#"{"op":"error","code":1,"error":"no","requestId":null}"#,
                None,
                true,
            ),
            (
                r#"{"op":"error","code":1,"error":"no","requestId":7}"#,
                Some(7),
                true,
            ),
            (r#"{"op":"error","code":1,"error":"no"}"#, None, false),
        ] {
            let Ok(Message::Error(error)) = read(text) else {
                panic!("{text}")
            };
            assert_eq!((error.request_id, error.has_request_id), (id, has_id), "{text}");
        }
        assert!(read(r#"{"op":"subscribed","requestId":null}"#).is_err());
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

    /// Two texts that differ only where events differ, and that may not be events.
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
                // For the strict parser, a repeated member is an error; JavaScript takes the last one.
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

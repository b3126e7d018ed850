//! Parses a frame into a request, or into the text with which the real server refuses it. Must not know how
//! requests are handled.
//!
//! Parse Server 9.10 validates frames with tv4 against `RequestSchema.js`. tv4 stops at the first violation:
//! the type, then missing members, then the members in the order of the text.

use crate::query::ordered_json::Json;

/// A client's request.
#[derive(Debug)]
pub(super) enum Request {
    Connect(Connect),
    Subscribe(Subscribe),
    Update(Subscribe),
    Unsubscribe { request_id: f64 },
}

#[derive(Debug)]
pub(super) struct Connect {
    /// All members that are strings, including the keys.
    pub(super) members: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Subscribe {
    pub(super) request_id: f64,
    pub(super) class_name: String,
    pub(super) condition: Json,
    pub(super) keys: Option<Vec<String>>,
    pub(super) watch: Option<Vec<String>>,
    pub(super) session_token: Option<String>,
}

/// Why a frame is not a request.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// It is not JSON: the real server logs it and does not answer.
    Unreadable,
    /// It violates the schema; this is tv4's text.
    Violation(String),
}

impl Connect {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.members
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Request {
    pub(super) fn parse(frame: &str) -> Result<Self, Refusal> {
        let json: Json = serde_json::from_str(frame).map_err(|_| Refusal::Unreadable)?;
        check(&json, &GENERAL)?;
        let op = string(&json, "op").unwrap_or_default();
        Ok(match op.as_str() {
            "connect" => {
                check(&json, &CONNECT)?;
                let Json::Object(members) = json else {
                    return Err(Refusal::Unreadable);
                };
                Self::Connect(Connect {
                    members: members
                        .into_iter()
                        .filter_map(|(name, value)| match value {
                            Json::String(text) => Some((name, text)),
                            _ => None,
                        })
                        .collect(),
                })
            }
            "subscribe" => Self::Subscribe(Subscribe::new(&json)?),
            "update" => Self::Update(Subscribe::new(&json)?),
            _ => {
                check(&json, &UNSUBSCRIBE)?;
                Self::Unsubscribe {
                    request_id: number(&json, "requestId"),
                }
            }
        })
    }
}

impl Subscribe {
    fn new(json: &Json) -> Result<Self, Refusal> {
        check(json, &SUBSCRIBE)?;
        let query = json.get("query").unwrap_or(json);
        Ok(Self {
            request_id: number(json, "requestId"),
            class_name: string(query, "className").unwrap_or_default(),
            condition: query.get("where").cloned().unwrap_or(Json::Object(Vec::new())),
            keys: strings(query, "keys"),
            watch: strings(query, "watch"),
            session_token: string(json, "sessionToken").filter(|token| !token.is_empty()),
        })
    }
}

fn string(json: &Json, name: &str) -> Option<String> {
    match json.get(name) {
        Some(Json::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn number(json: &Json, name: &str) -> f64 {
    json.get(name).and_then(Json::as_f64).unwrap_or_default()
}

fn strings(json: &Json, name: &str) -> Option<Vec<String>> {
    match json.get(name) {
        Some(Json::Array(items)) => Some(
            items
                .iter()
                .filter_map(|item| match item {
                    Json::String(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
        ),
        _ => None,
    }
}

/// The subset of JSON schema that the server uses.
enum Schema {
    /// Members without a schema, such as `op` in the schemas of the operations.
    Anything,
    Text,
    OneOf(&'static [&'static str]),
    Number,
    AnyObject,
    /// At least one text, none repeated.
    Texts,
    Object {
        required: &'static [&'static str],
        members: &'static [(&'static str, Self)],
        closed: bool,
    },
}

const GENERAL: Schema = Schema::Object {
    required: &["op"],
    members: &[(
        "op",
        Schema::OneOf(&["connect", "subscribe", "unsubscribe", "update"]),
    )],
    closed: false,
};

const CONNECT: Schema = Schema::Object {
    required: &["op", "applicationId"],
    members: &[
        ("op", Schema::Anything),
        ("applicationId", Schema::Text),
        ("javascriptKey", Schema::Text),
        ("masterKey", Schema::Text),
        ("clientKey", Schema::Text),
        ("windowsKey", Schema::Text),
        ("restAPIKey", Schema::Text),
        ("sessionToken", Schema::Text),
        ("installationId", Schema::Text),
    ],
    closed: true,
};

/// The schema of `update` as well.
const SUBSCRIBE: Schema = Schema::Object {
    required: &["op", "requestId", "query"],
    members: &[
        ("op", Schema::Anything),
        ("requestId", Schema::Number),
        ("query", QUERY),
        ("sessionToken", Schema::Text),
    ],
    closed: true,
};

const QUERY: Schema = Schema::Object {
    required: &["where", "className"],
    members: &[
        ("className", Schema::Text),
        ("where", Schema::AnyObject),
        ("keys", Schema::Texts),
        ("watch", Schema::Texts),
    ],
    closed: true,
};

const UNSUBSCRIBE: Schema = Schema::Object {
    required: &["op", "requestId"],
    members: &[("op", Schema::Anything), ("requestId", Schema::Number)],
    closed: true,
};

fn check(json: &Json, schema: &Schema) -> Result<(), Refusal> {
    let expected = match schema {
        Schema::Anything => return Ok(()),
        Schema::Text | Schema::OneOf(_) => "string",
        Schema::Number => "number",
        Schema::AnyObject | Schema::Object { .. } => "object",
        Schema::Texts => "array",
    };
    let found = type_name(json);
    if found != expected {
        return violation(format!("Invalid type: {found} (expected {expected})"));
    }
    match (schema, json) {
        (Schema::OneOf(names), Json::String(name)) if !names.contains(&name.as_str()) => {
            return violation(format!("No enum match for: {json}"));
        }
        (Schema::Texts, Json::Array(items)) => {
            if items.is_empty() {
                return violation(String::from("Array is too short (0), minimum 1"));
            }
            for (first, item) in items.iter().enumerate() {
                let same = items.iter().skip(first + 1).position(|other| other == item);
                if let Some(same) = same {
                    let second = first + 1 + same;
                    return violation(format!(
                        "Array items are not unique (indices {first} and {second})"
                    ));
                }
            }
            for item in items {
                check(item, &Schema::Text)?;
            }
        }
        (
            Schema::Object {
                required,
                members,
                closed,
            },
            Json::Object(held),
        ) => {
            if let Some(missing) = required.iter().find(|name| json.get(name).is_none()) {
                return violation(format!("Missing required property: {missing}"));
            }
            for (name, value) in held {
                match members.iter().find(|(member, _)| member == name) {
                    Some((_, schema)) => check(value, schema)?,
                    None if *closed => return violation(String::from("Additional properties not allowed")),
                    None => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn violation(text: String) -> Result<(), Refusal> {
    Err(Refusal::Violation(text))
}

fn type_name(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(frame: &str) -> String {
        match Request::parse(frame) {
            Err(Refusal::Violation(text)) => text,
            other => panic!("{frame}: {other:?}"),
        }
    }

    #[test]
    fn violations_have_the_text_of_tv4() {
        let query = |query: &str| format!(r#"{{"op":"subscribe","requestId":1,"query":{query}}}"#);
        for (frame, text) in [
            ("5".to_owned(), "Invalid type: number (expected object)"),
            ("null".to_owned(), "Invalid type: null (expected object)"),
            ("{}".to_owned(), "Missing required property: op"),
            (r#"{"op":7}"#.to_owned(), "Invalid type: number (expected string)"),
            (r#"{"op":"query"}"#.to_owned(), r#"No enum match for: "query""#),
            (
                r#"{"op":"connect"}"#.to_owned(),
                "Missing required property: applicationId",
            ),
            (
                r#"{"op":"connect","applicationId":"a","sessionToken":null}"#.to_owned(),
                "Invalid type: null (expected string)",
            ),
            (
                r#"{"op":"connect","applicationId":"a","maintenanceKey":"k"}"#.to_owned(),
                "Additional properties not allowed",
            ),
            (
                r#"{"op":"subscribe","requestId":1}"#.to_owned(),
                "Missing required property: query",
            ),
            (
                r#"{"op":"subscribe","requestId":"1","query":{}}"#.to_owned(),
                "Invalid type: string (expected number)",
            ),
            (query(r#"{"className":"A"}"#), "Missing required property: where"),
            (
                query(r#"{"className":"A","where":{},"fields":["a"]}"#),
                "Additional properties not allowed",
            ),
            (
                query(r#"{"className":"A","where":{},"keys":[]}"#),
                "Array is too short (0), minimum 1",
            ),
            (
                query(r#"{"className":"A","where":{},"keys":"a,b"}"#),
                "Invalid type: string (expected array)",
            ),
            (
                query(r#"{"className":"A","where":{},"watch":["a","b","a"]}"#),
                "Array items are not unique (indices 0 and 2)",
            ),
            (
                r#"{"op":"unsubscribe","requestId":1,"sessionToken":"r:1"}"#.to_owned(),
                "Additional properties not allowed",
            ),
        ] {
            assert_eq!(refusal(&frame), text, "{frame}");
        }
    }

    #[test]
    fn a_frame_that_is_no_json_is_not_answered() {
        assert_eq!(Request::parse("{").err(), Some(Refusal::Unreadable));
    }
}

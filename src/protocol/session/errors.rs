//! What the server's errors mean, and what can be done about them.

use crate::error::{Error, ErrorKind};
use crate::protocol::incoming::ServerError;
use crate::text::excerpt;

pub(super) fn timeout(text: String) -> Error {
    Error::new(ErrorKind::Timeout, text)
}

pub(super) fn server_error(kind: ErrorKind, error: &ServerError) -> Error {
    let text = excerpt(&error.text);
    let hint = HINTS
        .iter()
        .find(|(code, part, _)| error.code == *code && error.text.contains(part))
        .map_or("", |(.., hint)| hint);
    Error::server(kind, error.code, format!("the server says: {text}{hint}"))
}

/// tv4's text for a member that the server's schema does not have.
pub(super) fn is_unknown_member(error: &ServerError) -> bool {
    error.text.contains("Additional properties not allowed")
}

/// tv4's text for a list that must not be empty.
pub(super) fn is_too_short(error: &ServerError) -> bool {
    error.text.contains("Array is too short")
}

/// The id in «Cannot find subscription with clientId … subscriptionId 7. Make sure you subscribe …».
pub(super) fn unknown_subscription(text: &str) -> Option<u64> {
    let (_, after) = text.split_once(" subscriptionId ")?;
    let digits = after
        .find(|c: char| !c.is_ascii_digit())
        .map_or(after, |end| &after[..end]);
    digits.parse().ok()
}

/// Advice for errors whose text gives none: the code, a part of the text, and the way out.
const HINTS: [(i64, &str, &str); 6] = [
    (141, "json.keys.split is not a function", SPLIT),
    (141, "json.watch.split is not a function", SPLIT),
    (
        141,
        "'requestComplexity'",
        "; a LiveQuery server in a process of its own fails like this in Parse Server 8.6 to 9.10, so start it in the \
         process of the Parse Server",
    ),
    (
        102,
        "$regex operator is not allowed",
        "; the server's `requestComplexity.allowRegex` is false: use `starts_with`, which is sent as a comparison, or test \
         the text in the listener",
    ),
    (
        102,
        "nesting depth exceeds",
        "; this is the server's `requestComplexity.queryDepth`, which is 10 by default from Parse Server 10 on: nest fewer \
         `Query::or`, `Query::and` and `Query::nor` in one another, or raise it on the server",
    ),
    (
        4,
        "",
        "; check the keys that the client was built with against the server's `keyPairs`",
    ),
];

const SPLIT: &str = "; this is a fault of Parse Server 6.5 to 9.10: where there is a `beforeSubscribe` hook, a query with \
                     `select` or `watch` fails, so leave them out or remove the hook";

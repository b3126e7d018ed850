//! Finds out which kind of value a field holds, from a matcher that compares all kinds with one another:
//! conditions that are true for one kind only and never throw. It knows the matcher (Parse Server 9.10,
//! LiveQuery/QueryTools.js). Must not know of queries.

use std::borrow::Cow;

use super::member;
use crate::query::node::Node;
use crate::query::ordered_json::Json;

/// The least text except the empty one. Numbers, booleans, null and dates are neither less nor greater than
/// it, because it is not a number.
const LEAST: &str = "\0";

/// True if the field is a string; the empty string counts only with `may_be_empty`.
///
/// Only strings have a `charAt`, and functions have a `name`. The matcher treats the empty string as `{}`
/// when it looks into it.
pub(super) fn is_text(key: &str, may_be_empty: bool) -> Node<'_> {
    let longer = has_method(key, "charAt");
    if !may_be_empty {
        return longer;
    }
    let empty = Node::Ordered(vec![
        // Excludes an array that contains it.
        exists(member(key, "length"), false),
        Node::Test(key.into(), Json::string("")),
    ]);
    Node::Any(vec![longer, empty])
}

/// True if the field is an array.
pub(super) fn is_array(key: &str) -> Node<'_> {
    has_method(key, "push")
}

/// True unless the field is an array.
pub(super) fn is_no_array(key: &str) -> Node<'_> {
    Node::condition(member(key, "push.name"), "$ne", Json::string("push"))
}

/// True if the field has this JavaScript function, and not a member of its own with that name.
fn has_method<'a>(key: &'a str, name: &str) -> Node<'a> {
    Node::Test(member(key, &format!("{name}.name")), Json::string(name))
}

/// True if the field is a date: as it is stored, or as the matcher has decoded it in place for an earlier
/// condition (up to Parse Server 6.0, of any client's query).
pub(super) fn date_guard(key: &str) -> Node<'_> {
    Node::Any(vec![
        Node::Test(member(key, "__type"), Json::string("Date")),
        has_method(key, "getTime"),
    ])
}

/// The comparisons with numbers, which are true for numbers only.
///
/// Dates and arrays are excluded before the field itself is compared, and so are objects that JavaScript
/// cannot compare because they have a `toString` of their own. Texts and other objects are neither less nor
/// greater than the least text. The rest are excluded by name.
pub(super) fn number_guards(key: &str, comparisons: Vec<(String, Json)>) -> impl Iterator<Item = Node<'_>> {
    let has = |name: &str| comparisons.iter().any(|(operator, _)| operator == name);
    // The guard itself needs one of the two operators.
    let groups = if has("$lt") && has("$lte") {
        let (most, others) = comparisons
            .into_iter()
            .partition(|(operator, _)| operator == "$lte");
        vec![others, most]
    } else {
        vec![comparisons]
    };
    groups.into_iter().map(move |group| {
        let guard = if group.iter().any(|(operator, _)| operator == "$lt") {
            "$lte"
        } else {
            "$lt"
        };
        let mut none = vec![Json::Null, Json::Bool(true), Json::Bool(false), Json::string("")];
        if guard == "$lte" {
            none.push(Json::string(LEAST));
        }
        let mut conditions = vec![
            ("$exists".to_owned(), Json::Bool(true)),
            (guard.to_owned(), Json::string(LEAST)),
            ("$nin".to_owned(), Json::Array(none)),
        ];
        conditions.extend(group);
        Node::Ordered(vec![
            exists(member(key, "__type"), false),
            exists(member(key, "getTime"), false),
            exists(member(key, "length"), false),
            has_method(key, "toString"),
            Node::Test(key.into(), Json::Object(conditions)),
        ])
    })
}

/// True if the field is missing or null: it has no value, and is not one of the values that count as none.
pub(super) fn null(key: &str) -> Node<'_> {
    null_of(key.into())
}

fn null_of(key: Cow<'_, str>) -> Node<'_> {
    Node::Nor(vec![
        Node::condition(key.clone(), "$all", Json::Array(Vec::new())),
        Node::Test(key.clone(), Json::Number(0.into())),
        Node::Test(key.clone(), Json::Bool(false)),
        Node::Test(key, Json::string("")),
    ])
}

/// `$eq` compares whole arrays and objects, and throws where one side has null and the other an array or
/// object.
pub(super) fn deep_equality<'a>(key: &'a str, value: &Json) -> Node<'a> {
    let mut nodes = Vec::new();
    guard_members(key, value, &mut nodes);
    nodes.push(Node::Test(
        key.into(),
        Json::Object(vec![
            ("$all".to_owned(), Json::Array(Vec::new())),
            ("$eq".to_owned(), value.clone()),
        ]),
    ));
    Node::Ordered(nodes)
}

fn guard_members<'a>(path: &str, value: &Json, nodes: &mut Vec<Node<'a>>) {
    let mut guard = |name: &str, value: &Json| match value {
        Json::Null => nodes.push(null_of(member(path, name))),
        Json::Array(_) | Json::Object(_) => {
            let inner = member(path, name);
            nodes.push(Node::condition(inner.clone(), "$all", Json::Array(Vec::new())));
            guard_members(&inner, value, nodes);
        }
        Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    };
    match value {
        Json::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| guard(&index.to_string(), item));
            // Without this, an object with the same members would match.
            nodes.push(Node::Test(
                member(path, "length"),
                Json::Number(items.len().into()),
            ));
        }
        Json::Object(members) => members.iter().for_each(|(name, item)| guard(name, item)),
        _ => {}
    }
}

fn exists(key: Cow<'_, str>, wanted: bool) -> Node<'_> {
    Node::condition(key, "$exists", Json::Bool(wanted))
}

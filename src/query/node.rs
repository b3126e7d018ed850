//! What the LiveQuery matcher is asked, as a tree, and its JSON text: such that no two different queries have the
//! same hash on the server. It knows nothing of `find()`.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::filter::Operator;
use super::ordered_json::Json;

/// A question about an object.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    All(Vec<Self>),
    Any(Vec<Self>),
    Nor(Vec<Self>),
    /// `{"key": value}`
    Equal(Cow<'a, str>, Json),
    /// `{"key": {"$exists": true, "$gt": 1}}`; the matcher evaluates them in this order.
    Conditions(Cow<'a, str>, Vec<(Operator, Json)>),
    /// A whole `where`.
    Raw(Json),
}

impl<'a> Node<'a> {
    pub(super) fn condition(key: &'a str, operator: &'static str, value: Json) -> Self {
        Self::Conditions(key.into(), vec![(operator.into(), value)])
    }

    /// The text of `where`.
    ///
    /// Parse Server gives subscribers whose queries have one hash the events of the first one's query, and its hash
    /// (QueryTools.js, queryHash) sorts the conditions of several top-level keys apart from the keys, drops what
    /// stands beside `$or`, sorts arrays and does not escape quotation marks. One key holds it all, therefore, and
    /// where arrays or quotation marks remain that it would confuse, a condition that is always true carries a hash
    /// of our own.
    pub(super) fn to_where(&self) -> String {
        let mut text = String::new();
        self.write_where(&mut text);
        let mut nodes = Vec::new();
        self.flatten(&mut nodes);
        // A query for one objectId is a `get` for the class-level permissions, and stays one.
        let get = matches!(nodes.as_slice(), [Self::Equal(key, _)] if key == "objectId");
        if get || !nodes.iter().any(|node| node.confuses_hash()) {
            return text;
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let mark = Self::condition(
            "objectId",
            "$nin",
            Json::Array(vec![Json::String(format!("#{:016x}", hasher.finish()))]),
        );
        nodes.push(&mark);
        text.clear();
        write_logical("$and", nodes.into_iter(), &mut text);
        text
    }

    fn flatten<'n>(&'n self, nodes: &mut Vec<&'n Self>) {
        match self {
            Self::All(all) => all.iter().for_each(|node| node.flatten(nodes)),
            // One of one is that one.
            Self::Any(any) if any.len() == 1 => any.iter().for_each(|node| node.flatten(nodes)),
            _ => nodes.push(self),
        }
    }

    fn write_where(&self, text: &mut String) {
        match self {
            Self::All(_) => {
                let mut nodes = Vec::new();
                self.flatten(&mut nodes);
                match nodes.as_slice() {
                    [] => text.push_str("{}"),
                    [node] => node.write_where(text),
                    nodes => write_logical("$and", nodes.iter().copied(), text),
                }
            }
            Self::Any(nodes) => write_logical("$or", nodes.iter(), text),
            Self::Nor(nodes) => write_logical("$nor", nodes.iter(), text),
            Self::Equal(key, value) => {
                write_name('{', key, text);
                text.push_str(&value.to_string());
                text.push('}');
            }
            Self::Conditions(key, conditions) => {
                write_name('{', key, text);
                let mut before = '{';
                for (operator, value) in conditions {
                    write_name(before, operator, text);
                    text.push_str(&value.to_string());
                    before = ',';
                }
                text.push_str("}}");
            }
            Self::Raw(json) => text.push_str(&json.to_string()),
        }
    }

    fn confuses_hash(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) | Self::Nor(nodes) => nodes.iter().any(Self::confuses_hash),
            Self::Equal(_, value) => confuses_hash(value),
            Self::Conditions(_, conditions) => {
                conditions
                    .iter()
                    .any(|(operator, value)| match operator.as_ref() {
                        // Lists whose order means nothing.
                        "$in" | "$nin" | "$containedBy" => value
                            .as_array()
                            .is_some_and(|list| list.iter().any(confuses_hash)),
                        _ => confuses_hash(value),
                    })
            }
            Self::Raw(json) => confuses_hash(json),
        }
    }
}

fn confuses_hash(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
        Json::String(text) => text.contains('"'),
        Json::Array(items) => items.len() > 1 || items.iter().any(confuses_hash),
        Json::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('"') || confuses_hash(value)),
    }
}

fn write_logical<'n, 'a: 'n>(operator: &str, nodes: impl Iterator<Item = &'n Node<'a>>, text: &mut String) {
    write_name('{', operator, text);
    text.push('[');
    for (index, node) in nodes.enumerate() {
        if index > 0 {
            text.push(',');
        }
        node.write_where(text);
    }
    text.push_str("]}");
}

/// `{"name":` or `,"name":`
fn write_name(before: char, name: &str, text: &mut String) {
    text.push(before);
    text.push_str(&serde_json::Value::from(name).to_string());
    text.push(':');
}

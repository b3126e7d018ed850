//! The conditions for the LiveQuery matcher as a tree, and their JSON: as flat as possible, and such that no
//! two different queries have the same hash on the server. Must not know of `find()`.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::ordered_json::Json;

/// A condition on an object.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    All(Vec<Self>),
    /// All of them, together and in this order: the first ones keep the later ones from throwing.
    Ordered(Vec<Self>),
    Any(Vec<Self>),
    Nor(Vec<Self>),
    /// `{"key": value}`, or `{"key": {"$exists": true, "$gt": 1}}`, evaluated in this order.
    Test(Cow<'a, str>, Json),
    /// A whole `where`.
    Raw(Json),
}

type Members = Vec<(String, Json)>;

impl<'a> Node<'a> {
    pub(super) fn condition(key: impl Into<Cow<'a, str>>, operator: &str, value: Json) -> Self {
        Self::Test(key.into(), Json::member(operator, value))
    }

    /// The `where`.
    ///
    /// Parse Server gives subscribers whose queries have the same hash the events of the first one's query.
    /// Its hash (QueryTools.js, queryHash) sorts the conditions of several top-level keys apart from the
    /// keys, drops everything beside `$or`, sorts arrays and does not escape quotation marks. A condition
    /// that is always true therefore carries a hash of our own, unless the server cannot confuse the query
    /// with another.
    pub(super) fn to_where(&self) -> Json {
        let mut members = members([self]);
        // For class-level permissions, a query for one objectId is a `get`, and it must stay one.
        let is_get = matches!(members.as_slice(), [(key, Json::String(_))] if key == "objectId");
        let is_plain = members.len() < 2
            && !members
                .iter()
                .any(|(key, value)| confuses_hash(value, is_set(key)));
        if !is_get && !is_plain {
            mark(&mut members);
        }
        Json::Object(members)
    }

    fn flatten<'n>(&'n self, nodes: &mut Vec<&'n Self>) {
        match self {
            Self::All(all) => all.iter().for_each(|node| node.flatten(nodes)),
            // A choice among one is that one.
            Self::Any(any) if any.len() == 1 => any.iter().for_each(|node| node.flatten(nodes)),
            _ => nodes.push(self),
        }
    }

    fn members(&self) -> Members {
        let logical = |operator: &str, nodes: &[Self]| {
            let items = nodes.iter().map(|node| Json::Object(members([node])));
            vec![(operator.to_owned(), Json::Array(items.collect()))]
        };
        match self {
            Self::All(nodes) | Self::Ordered(nodes) => members(nodes),
            Self::Any(nodes) => logical("$or", nodes),
            Self::Nor(nodes) => logical("$nor", nodes),
            Self::Test(key, value) => vec![(key.to_string(), value.clone())],
            Self::Raw(Json::Object(members)) => members.clone(),
            Self::Raw(json) => vec![("$and".to_owned(), Json::Array(vec![json.clone()]))],
        }
    }
}

/// All nodes in one object, which every Parse Server understands; a node whose key is taken goes into its
/// `$and`.
fn members<'n, 'a: 'n>(nodes: impl IntoIterator<Item = &'n Node<'a>>) -> Members {
    let mut flat = Vec::new();
    nodes.into_iter().for_each(|node| node.flatten(&mut flat));
    let mut members = Members::new();
    let mut others = Vec::new();
    for node in flat {
        let mut own = node.members();
        // Drops conditions that are there already.
        own.retain(|member| !members.contains(member));
        if let (Node::Nor(_), [(_, Json::Array(more))]) = (node, own.as_mut_slice()) {
            if let Some((_, Json::Array(items))) = members.iter_mut().find(|(key, _)| key == "$nor") {
                items.append(more);
                continue;
            }
        }
        if own.iter().any(|(key, _)| has(&members, key)) {
            others.push(Json::Object(own));
        } else {
            members.append(&mut own);
        }
    }
    if !others.is_empty() {
        match members.iter_mut().find(|(key, _)| key == "$and") {
            Some((_, Json::Array(items))) => items.append(&mut others),
            _ => members.push(("$and".to_owned(), Json::Array(others))),
        }
    }
    members
}

fn has(members: &Members, key: &str) -> bool {
    members.iter().any(|(name, _)| name == key)
}

fn mark(members: &mut Members) {
    let mut hasher = DefaultHasher::new();
    Json::Object(members.clone()).to_string().hash(&mut hasher);
    let mark = Json::member(
        "$nin",
        Json::Array(vec![Json::String(format!("#{:016x}", hasher.finish()))]),
    );
    // The server's hash ignores everything beside an `$or`.
    let place = match members.iter_mut().find(|(key, _)| key == "$or") {
        Some((_, Json::Array(items))) => match items.first_mut() {
            Some(Json::Object(first)) => Some(first),
            _ => None,
        },
        _ => Some(&mut *members),
    };
    // Fields that every object has.
    let free = place.and_then(|place| {
        let key = ["objectId", "createdAt", "updatedAt"]
            .into_iter()
            .find(|key| !has(place, key))?;
        Some((place, key))
    });
    match free {
        Some((place, key)) => place.push((key.to_owned(), mark)),
        None => {
            let all = std::mem::take(members);
            let both = vec![Json::Object(all), Json::member("objectId", mark)];
            members.push(("$and".to_owned(), Json::Array(both)));
        }
    }
}

/// Whether the order of an operator's list is irrelevant.
fn is_set(operator: &str) -> bool {
    matches!(
        operator,
        "$or" | "$and" | "$nor" | "$in" | "$nin" | "$containedBy"
    )
}

fn confuses_hash(value: &Json, is_set_of: bool) -> bool {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
        Json::String(text) => text.contains('"'),
        Json::Array(items) => {
            items.len() > 1 && !is_set_of || items.iter().any(|item| confuses_hash(item, false))
        }
        Json::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('"') || confuses_hash(value, is_set(name))),
    }
}

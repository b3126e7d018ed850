//! The conditions of a query in the form for `find()`, in the order in which they were written: the REST form
//! of `where`. It combines several conditions on one field. Must not know of LiveQuery.

use std::borrow::Cow;

use super::names::check_key;
use super::ordered_json::Json;
use super::refuse::invalid;
use super::regex;
use crate::error::{Error, Result};

/// The name of an operator such as `$gt`.
pub(super) type Operator = Cow<'static, str>;

/// The `where` of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    /// Conditions that all hold, in the order in which they were written.
    Entries(Vec<(String, Entry)>),
    /// Written by the program for the server, to be sent unchanged.
    Raw(Json),
}

/// The conditions of one key of `where`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    /// `{"key": value}`
    Equal(Json),
    /// `{"key": {"$gt": 1, "$lt": 5}}`
    Operators(Vec<(Operator, Json)>),
    /// `{"$or": [{..}, {..}]}`
    Logical(Vec<Filter>),
    /// A key with `$` other than `$or`, `$and` and `$nor`.
    Special(Json),
}

impl Filter {
    /// Requires a field to equal a value.
    pub(super) fn equal(&mut self, key: &str, value: Json) -> Result<()> {
        match self.entry(key)? {
            None => self.push(key, Entry::Equal(value)),
            Some(Entry::Equal(old)) if *old == value => Ok(()),
            Some(Entry::Operators(operators)) => add(key, operators, "$eq", value),
            Some(_) => Err(twice(key, "$eq")),
        }
    }

    /// Adds a condition to those on a field.
    pub(super) fn operator(&mut self, key: &str, operator: &'static str, value: Json) -> Result<()> {
        match self.entry(key)? {
            None => self.push(key, Entry::Operators(vec![(Cow::Borrowed(operator), value)])),
            Some(Entry::Operators(operators)) => add(key, operators, operator, value),
            Some(entry) => {
                if let Entry::Equal(equal) = entry {
                    let equal = std::mem::replace(equal, Json::Null);
                    *entry = Entry::Operators(vec![
                        (Cow::Borrowed("$eq"), equal),
                        (Cow::Borrowed(operator), value),
                    ]);
                }
                Ok(())
            }
        }
    }

    /// Requires a field to match a regular expression. A field can have only one.
    pub(super) fn regex(&mut self, key: &str, pattern: Json, modifiers: Option<Json>) -> Result<()> {
        if let Some(Entry::Operators(operators)) = self.entry(key)? {
            let held = |wanted: &str| {
                operators
                    .iter()
                    .find(|(name, _)| name == wanted)
                    .map(|(_, value)| value)
            };
            match held("$regex") {
                None => {}
                Some(old) if *old == pattern && held("$options") == modifiers.as_ref() => return Ok(()),
                Some(_) => return Err(regex::twice(key)),
            }
        }
        self.operator(key, "$regex", pattern)?;
        modifiers.map_or(Ok(()), |modifiers| self.operator(key, "$options", modifiers))
    }

    /// Sets a condition on the whole object, once.
    pub(super) fn special(&mut self, name: &'static str, value: Json) -> Result<()> {
        match self {
            Self::Entries(entries) if entries.iter().any(|(key, _)| key == name) => Err(twice(name, name)),
            Self::Entries(entries) => {
                entries.push((name.to_owned(), Entry::Special(value)));
                Ok(())
            }
            Self::Raw(_) => Err(invalid(format!(
                "{name} comes after raw_where, which is the whole where: write it into the JSON, or combine \
                 both with Query::and"
            ))),
        }
    }

    /// `$or`, `$and` or `$nor`.
    pub(super) fn logical(operator: &'static str, filters: Vec<Self>) -> Self {
        Self::Entries(vec![(operator.to_owned(), Entry::Logical(filters))])
    }

    /// Reads the REST form of `where`.
    pub(super) fn from_json(json: Json) -> Result<Self> {
        let Json::Object(members) = json else {
            return Err(invalid("where is not a JSON object"));
        };
        members
            .into_iter()
            .map(|(key, value)| Ok((key.clone(), Entry::from_json(&key, value)?)))
            .collect::<Result<_>>()
            .map(Self::Entries)
    }

    /// The REST form of `where`.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Entries(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.to_json()))
                    .collect(),
            ),
            Self::Raw(json) => json.clone(),
        }
    }

    fn entry(&mut self, key: &str) -> Result<Option<&mut Entry>> {
        check_key(key)?;
        match self {
            Self::Entries(entries) => Ok(entries
                .iter_mut()
                .find(|(name, _)| name == key)
                .map(|(_, entry)| entry)),
            Self::Raw(_) => Err(invalid(format!(
                "the condition on {key:?} comes after raw_where, which is the whole where: \
                 write it into the JSON, or combine both with Query::and"
            ))),
        }
    }

    fn push(&mut self, key: &str, entry: Entry) -> Result<()> {
        if let Self::Entries(entries) = self {
            entries.push((key.to_owned(), entry));
        }
        Ok(())
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::Entries(Vec::new())
    }
}

impl Entry {
    fn from_json(key: &str, value: Json) -> Result<Self> {
        match (key, value) {
            ("$or" | "$and" | "$nor", Json::Array(items)) => items
                .into_iter()
                .map(Filter::from_json)
                .collect::<Result<_>>()
                .map(Self::Logical),
            ("$or" | "$and" | "$nor", _) => Err(invalid(format!("{key} is not an array"))),
            (_, value) if key.starts_with('$') => Ok(Self::Special(value)),
            // As Parse Server does (MongoTransform.js): the first name decides what kind of object it is.
            (_, Json::Object(members)) if members.first().is_some_and(|(name, _)| name.starts_with('$')) => {
                check_key(key)?;
                Ok(Self::Operators(
                    members
                        .into_iter()
                        .map(|(name, value)| (Cow::Owned(name), value))
                        .collect(),
                ))
            }
            (_, value) => {
                check_key(key)?;
                Ok(Self::Equal(value))
            }
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Equal(value) | Self::Special(value) => value.clone(),
            Self::Operators(operators) => Json::Object(
                operators
                    .iter()
                    .map(|(operator, value)| (operator.clone().into_owned(), value.clone()))
                    .collect(),
            ),
            Self::Logical(filters) => Json::Array(filters.iter().map(Filter::to_json).collect()),
        }
    }
}

fn add(key: &str, operators: &mut Vec<(Operator, Json)>, operator: &'static str, value: Json) -> Result<()> {
    match operators.iter().find(|(name, _)| name == operator) {
        None => {
            operators.push((Cow::Borrowed(operator), value));
            Ok(())
        }
        Some((_, old)) if *old == value => Ok(()),
        Some(_) => Err(twice(key, operator)),
    }
}

fn twice(key: &str, operator: &str) -> Error {
    let hint = if operator == "$eq" {
        "; an array that must contain several values is contains_all"
    } else {
        ""
    };
    invalid(format!(
        "the field {key:?} has two conditions {} with different values, and a field can have one of each kind: \
         combine two queries with Query::and to require both{hint}",
        method_of(operator)
    ))
}

/// The method behind an operator, for messages.
pub(super) fn method_of(operator: &str) -> &str {
    METHODS
        .iter()
        .find(|(name, _)| *name == operator)
        .map_or(operator, |(_, method)| method)
}

static METHODS: &[(&str, &str)] = &[
    ("$eq", "equal_to"),
    ("$ne", "not_equal_to"),
    ("$lt", "less_than"),
    ("$lte", "less_than_or_equal_to"),
    ("$gt", "greater_than"),
    ("$gte", "greater_than_or_equal_to"),
    ("$in", "contained_in"),
    ("$nin", "not_contained_in"),
    ("$all", "contains_all"),
    ("$containedBy", "contained_by"),
    ("$exists", "exists"),
    ("$regex", "matches"),
    ("$options", "matches"),
    ("$nearSphere", "near"),
    ("$maxDistance", "within_radians"),
    ("$within", "within_geo_box"),
    ("$geoWithin", "within_polygon"),
    ("$geoIntersects", "polygon_contains"),
    ("$text", "full_text"),
    ("$inQuery", "matches_query"),
    ("$notInQuery", "does_not_match_query"),
    ("$select", "matches_key_in_query"),
    ("$dontSelect", "does_not_match_key_in_query"),
    ("$or", "Query::or"),
    ("$and", "Query::and"),
    ("$nor", "Query::nor"),
];

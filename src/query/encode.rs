//! From the REST form of a query to the form that the LiveQuery server's matcher evaluates as `find()` on MongoDB
//! does. It knows the matcher's habits (Parse Server 9.10, LiveQuery/QueryTools.js) and nothing of messages.
//!
//! Each condition of the REST form becomes one or more [`Node`]s that are true for exactly the objects that `find()`
//! returns, and that never throw: a condition that throws (on null, for most) is not delivered, whatever stands
//! around it, and up to Parse Server 7.4 keeps the event from other subscribers too. So nodes can be combined and
//! negated at will.

mod geo;
mod values;

use std::borrow::Cow;

use self::values::{audit_date, closed_ring, date, geo_point};
use super::filter::{Entry, Filter, Operator, invalid};
use super::node::Node;
use super::ordered_json::Json;
use super::refuse::{self, ALL_STARTING_WITH, Refusal};
use super::regex;
use crate::error::Result;

/// The LiveQuery form of `where`, as JSON text.
///
/// With `permissive`, what would be refused is left as it is.
pub(super) fn encode(filter: &Filter, permissive: bool) -> Result<String> {
    match filter {
        Filter::Raw(json) => {
            refuse::endless_quotation(json)?;
            Ok(json.to_string())
        }
        Filter::Entries(_) => Ok(where_nodes(filter, permissive)?.to_where()),
    }
}

fn where_nodes<'a>(filter: &'a Filter, permissive: bool) -> Result<Node<'a>> {
    let Filter::Entries(entries) = filter else {
        return Ok(Node::Raw(filter.to_json()));
    };
    let mut nodes = Vec::with_capacity(entries.len());
    for (key, entry) in entries {
        match entry {
            Entry::Equal(value) => Field::new(key).all([("$eq", value)], permissive, &mut nodes)?,
            Entry::Operators(operators) => Field::new(key).all(
                operators.iter().map(|(name, value)| (name.as_ref(), value)),
                permissive,
                &mut nodes,
            )?,
            Entry::Logical(filters) => nodes.push(logical(key, filters, permissive)?),
            Entry::Special(value) if permissive => nodes.push(Node::Equal(key.into(), value.clone())),
            Entry::Special(_) => return Err(Refusal::of(key).error(key, "where")),
        }
    }
    Ok(Node::All(nodes))
}

fn logical<'a>(operator: &str, filters: &'a [Filter], permissive: bool) -> Result<Node<'a>> {
    // MongoDB refuses them, and the matcher takes an empty $or for never and the others for always.
    if filters.is_empty() {
        return Err(invalid(format!("{operator} combines no queries")));
    }
    let nodes = filters
        .iter()
        .map(|filter| where_nodes(filter, permissive))
        .collect::<Result<_>>()?;
    Ok(match operator {
        "$or" => Node::Any(nodes),
        "$nor" => Node::Nor(nodes),
        _ => Node::All(nodes),
    })
}

/// The conditions on one field, while they are translated one by one.
struct Field<'a> {
    key: &'a str,
    /// `createdAt` and `updatedAt` are plain ISO strings in LiveQuery, and dates everywhere else.
    audit: bool,
    exists: Option<bool>,
    /// A comparison takes a missing field and null for a match (`undefined >= 6` is false, and the matcher asks what
    /// speaks against a match), and a regular expression reads them as text.
    guarded: bool,
    /// Whether there is a condition that an object without the field cannot meet.
    positive: bool,
    not_in: Vec<Json>,
    merged: Vec<(&'static str, Json)>,
    others: Vec<Node<'a>>,
    verbatim: Vec<(Operator, Json)>,
}

impl<'a> Field<'a> {
    fn new(key: &'a str) -> Self {
        Self {
            key,
            audit: matches!(key, "createdAt" | "updatedAt"),
            exists: None,
            guarded: false,
            positive: false,
            not_in: Vec::new(),
            merged: Vec::new(),
            others: Vec::new(),
            verbatim: Vec::new(),
        }
    }

    fn all(
        mut self,
        operators: impl IntoIterator<Item = (&'a str, &'a Json)> + Clone,
        permissive: bool,
        nodes: &mut Vec<Node<'a>>,
    ) -> Result<()> {
        let find = |wanted: &str| {
            operators
                .clone()
                .into_iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
        };
        for (operator, value) in operators.clone() {
            if operator == "$containedBy" && operators.clone().into_iter().count() > 1 && !permissive {
                return Err(refuse::error(
                    "contained_by",
                    self.key,
                    "beside other conditions on the same field, Parse Server asks its database for something else",
                    "combine two queries with Query::and",
                ));
            }
            let partner = match operator {
                "$regex" => find("$options"),
                "$nearSphere" => find("$maxDistance"),
                "$options" if find("$regex").is_some() => continue,
                "$maxDistance" if find("$nearSphere").is_some() => continue,
                _ => None,
            };
            match self.operator(operator, value, partner) {
                Err(_) if permissive => self.leave(operator, value, partner),
                done => done?,
            }
        }
        self.finish(nodes)
    }

    fn leave(&mut self, operator: &str, value: &Json, partner: Option<&Json>) {
        self.verbatim
            .push((Operator::Owned(operator.to_owned()), value.clone()));
        if let Some(partner) = partner {
            let name = if operator == "$regex" {
                "$options"
            } else {
                "$maxDistance"
            };
            self.verbatim.push((Operator::Borrowed(name), partner.clone()));
        }
    }

    fn operator(&mut self, operator: &'a str, value: &Json, partner: Option<&Json>) -> Result<()> {
        match operator {
            "$eq" => self.equal_to(value),
            "$ne" => self.not_in([value]),
            "$in" => self.contained_in(flat(list(operator, self.key, value)?)),
            "$nin" => self.not_in(flat(list(operator, self.key, value)?)),
            "$lt" => self.range("$lt", value),
            "$lte" => self.range("$lte", value),
            "$gt" => self.range("$gt", value),
            "$gte" => self.range("$gte", value),
            "$exists" => self.exists(value),
            "$all" => self.contains_all(list(operator, self.key, value)?),
            "$containedBy" => self.contained_by(list(operator, self.key, value)?),
            "$regex" => self.matches(value, partner),
            "$nearSphere" => self.near(value, partner),
            "$within" => self.within_box(value),
            "$geoWithin" => self.geo_within(value),
            "$geoIntersects" => self.polygon_contains(value),
            "$options" | "$maxDistance" => Err(invalid(format!(
                "{operator} on {:?} has nothing to belong to",
                self.key
            ))),
            _ => Err(Refusal::of(operator).error(operator, self.key)),
        }
    }

    fn finish(mut self, nodes: &mut Vec<Node<'a>>) -> Result<()> {
        if self.exists == Some(false) && self.positive {
            return Err(invalid(format!(
                "no object meets the conditions on {:?}: it must not exist, and another condition needs its value",
                self.key
            )));
        }
        let mut conditions: Vec<(Operator, Json)> = Vec::new();
        if self.guarded {
            self.exists = Some(true);
            self.not_in.push(Json::Null);
        }
        if let Some(exists) = self.exists {
            conditions.push(("$exists".into(), Json::Bool(exists)));
        }
        if !self.not_in.is_empty() {
            conditions.push(("$nin".into(), Json::Array(self.not_in)));
        }
        conditions.extend(self.merged.into_iter().map(|(name, value)| (name.into(), value)));
        if !conditions.is_empty() {
            nodes.push(Node::Conditions(self.key.into(), conditions));
        }
        nodes.append(&mut self.others);
        if !self.verbatim.is_empty() {
            nodes.push(Node::Conditions(self.key.into(), self.verbatim));
        }
        Ok(())
    }

    fn equal_to(&mut self, value: &Json) -> Result<()> {
        self.positive |= *value != Json::Null;
        let node = self.equality(value)?;
        self.others.push(node);
        Ok(())
    }

    /// The node that is true if the field equals the value, or is an array that contains it.
    fn equality(&self, value: &Json) -> Result<Node<'a>> {
        let key = self.key;
        if self.audit {
            return Ok(Node::Equal(key.into(), self.scalar(value)?));
        }
        Ok(match value {
            Json::Null => null(key),
            Json::Bool(_) | Json::Number(_) | Json::String(_) => Node::Equal(key.into(), value.clone()),
            Json::Array(_) => deep_equality(key.into(), value.clone()),
            Json::Object(_) => match value.parse_type() {
                // $in, since the comparison with a pointer throws on null.
                Some("Pointer" | "Object") => {
                    Node::condition(key, "$in", Json::Array(vec![self.scalar(value)?]))
                }
                // Equality reads arrays and dates, but throws on null.
                Some("Date") => Node::All(vec![has_value(key), Node::Equal(key.into(), date(key, value)?)]),
                Some("Bytes") => Node::All(vec![has_value(key), Node::Equal(key.into(), value.clone())]),
                // These are decoded into classes of the JS SDK, which equal nothing.
                Some("GeoPoint") => {
                    let (latitude, longitude) = geo_point(key, value)?;
                    Node::All(vec![
                        Node::Equal(member(key, "latitude"), Json::number(latitude)),
                        Node::Equal(member(key, "longitude"), Json::number(longitude)),
                    ])
                }
                Some("File") => {
                    let name = value.get("name").and_then(Json::as_str);
                    let name = name.ok_or_else(|| self.malformed(value))?;
                    Node::Equal(member(key, "name"), Json::string(name))
                }
                Some("Polygon") => {
                    let ring = closed_ring(value).ok_or_else(|| self.malformed(value))?;
                    deep_equality(member(key, "coordinates"), ring)
                }
                Some("Relation") => {
                    return Err(refuse::error(
                        "equal_to with a relation",
                        key,
                        "a relation has no value",
                        "keep an array of pointers instead",
                    ));
                }
                _ => deep_equality(key.into(), value.clone()),
            },
        })
    }

    fn contained_in<'j>(&mut self, values: impl Iterator<Item = &'j Json> + Clone) -> Result<()> {
        self.positive |= values.clone().all(|value| *value != Json::Null);
        let (scalars, mut nodes) = self.split(values)?;
        if nodes.is_empty() {
            self.merged.push(("$in", Json::Array(scalars)));
            return Ok(());
        }
        if !scalars.is_empty() {
            nodes.insert(0, Node::condition(self.key, "$in", Json::Array(scalars)));
        }
        self.others.push(Node::Any(nodes));
        Ok(())
    }

    fn not_in<'j>(&mut self, values: impl IntoIterator<Item = &'j Json>) -> Result<()> {
        let (scalars, mut nodes) = self.split(values)?;
        for scalar in scalars {
            if !self.not_in.contains(&scalar) {
                self.not_in.push(scalar);
            }
        }
        let node = match nodes.pop() {
            None => return Ok(()),
            // Not null: neither is needed.
            Some(Node::Nor(has_value)) if nodes.is_empty() => Node::Any(has_value),
            Some(last) => {
                nodes.push(last);
                Node::Nor(nodes)
            }
        };
        self.others.push(node);
        Ok(())
    }

    /// The values that `$in` and `$nin` compare rightly, and the nodes for the others.
    fn split<'j>(&self, values: impl IntoIterator<Item = &'j Json>) -> Result<(Vec<Json>, Vec<Node<'a>>)> {
        let mut scalars = Vec::new();
        let mut nodes = Vec::new();
        for value in values {
            match self.scalar(value) {
                Ok(scalar) => scalars.push(scalar),
                Err(error) if self.audit => return Err(error),
                Err(_) => nodes.push(self.equality(value)?),
            }
        }
        Ok((scalars, nodes))
    }

    /// The value in the form in which `$in` and `$nin` compare it rightly, if they do.
    ///
    /// They compare by identity, after which pointers are compared by class and id; and they throw if null is in
    /// the list and a pointer in the object.
    fn scalar(&self, value: &Json) -> Result<Json> {
        if self.audit {
            return audit_date(self.key, value);
        }
        match value {
            Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(value.clone()),
            Json::Object(_) if matches!(value.parse_type(), Some("Pointer" | "Object")) => {
                match (value.get("className"), value.get("objectId")) {
                    (Some(class_name @ Json::String(_)), Some(id @ Json::String(_))) => {
                        Ok(Json::Object(vec![
                            ("__type".to_owned(), Json::string("Pointer")),
                            ("className".to_owned(), class_name.clone()),
                            ("objectId".to_owned(), id.clone()),
                        ]))
                    }
                    _ => Err(self.malformed(value)),
                }
            }
            _ => Err(self.malformed(value)),
        }
    }

    fn range(&mut self, operator: &'static str, value: &Json) -> Result<()> {
        let operand = match value {
            _ if self.audit => audit_date(self.key, value)?,
            Json::Bool(_) | Json::Number(_) | Json::String(_) => value.clone(),
            Json::Object(_) if value.parse_type() == Some("Date") => date(self.key, value)?,
            _ => {
                return Err(refuse::error(
                    operator,
                    self.key,
                    &format!("{value} has no order"),
                    "compare with a number, a string or a date (a float that is not finite is null in JSON)",
                ));
            }
        };
        self.guarded = true;
        self.positive = true;
        self.merged.push((operator, operand));
        Ok(())
    }

    fn exists(&mut self, value: &Json) -> Result<()> {
        let Json::Bool(exists) = value else {
            return Err(self.malformed(value));
        };
        self.positive |= exists;
        self.exists = Some(*exists);
        Ok(())
    }

    // The matcher's own $all compares dates, pointers and objects by identity, and throws if the field is no array.
    fn contains_all(&mut self, values: &[Json]) -> Result<()> {
        if values.iter().any(|value| value.get("$regex").is_some()) {
            return Err(ALL_STARTING_WITH.error("$all", self.key));
        }
        if values.is_empty() {
            self.others.push(never(self.key));
        }
        values.iter().try_for_each(|value| self.equal_to(value))
    }

    // find() asks for objects without an element outside the list (MongoTransform.js), so a field that is missing or
    // no array is a match. The matcher throws there.
    fn contained_by(&mut self, values: &[Json]) -> Result<()> {
        let values = values
            .iter()
            .map(|value| match value {
                Json::Null => Ok(Json::Null),
                _ => self.scalar(value).map_err(|_| {
                    refuse::error(
                        "contained_by",
                        self.key,
                        &format!("the LiveQuery server does not find {value} inside an array"),
                        "use values that are strings, numbers, booleans or pointers, or test the array in the \
                         listener",
                    )
                }),
            })
            .collect::<Result<_>>()?;
        self.others.push(Node::Any(vec![
            Node::Conditions(
                member(self.key, "length"),
                vec![("$exists".into(), Json::Bool(false))],
            ),
            Node::condition(self.key, "$containedBy", Json::Array(values)),
        ]));
        Ok(())
    }

    fn matches(&mut self, pattern: &Json, options: Option<&Json>) -> Result<()> {
        let pattern = pattern.as_str().ok_or_else(|| self.malformed(pattern))?;
        let flags = match options {
            Some(options) => {
                regex::flags(self.key, options.as_str().ok_or_else(|| self.malformed(options))?)?
            }
            None => String::new(),
        };
        self.guarded = true;
        self.positive = true;
        self.merged
            .push(("$regex", Json::String(regex::without_quotes(pattern))));
        if !flags.is_empty() {
            self.merged.push(("$options", Json::String(flags)));
        }
        Ok(())
    }

    fn malformed(&self, value: &Json) -> crate::error::Error {
        invalid(format!(
            "the condition on {:?} has a malformed value: {value}",
            self.key
        ))
    }
}

/// True if the field has a value that is not null, 0, false or an empty string.
///
/// The matcher's `$all` begins with this question, and is the only condition that asks it without comparing: the
/// others throw on a null here and a pointer there.
fn has_value(key: &str) -> Node<'_> {
    Node::condition(key, "$all", Json::Array(Vec::new()))
}

/// True if the field is missing or null: it has no value, and is none of those that count as none.
fn null(key: &str) -> Node<'_> {
    Node::Nor(vec![
        has_value(key),
        Node::condition(
            key,
            "$in",
            Json::Array(vec![Json::Number(0.into()), Json::Bool(false), Json::string("")]),
        ),
    ])
}

fn never(key: &str) -> Node<'_> {
    Node::condition(key, "$in", Json::Array(Vec::new()))
}

/// `$eq` compares whole arrays and objects, and throws on null.
fn deep_equality(key: Cow<'_, str>, value: Json) -> Node<'_> {
    Node::Conditions(
        key,
        vec![("$all".into(), Json::Array(Vec::new())), ("$eq".into(), value)],
    )
}

fn member<'a>(key: &str, name: &str) -> Cow<'a, str> {
    format!("{key}.{name}").into()
}

/// Parse Server takes an array in the list of `$in` and `$nin` for its elements (MongoTransform.js).
fn flat(values: &[Json]) -> impl Iterator<Item = &Json> + Clone {
    values.iter().flat_map(|value| match value {
        Json::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    })
}

fn list<'j>(operator: &str, key: &str, value: &'j Json) -> Result<&'j [Json]> {
    value
        .as_array()
        .ok_or_else(|| invalid(format!("{operator} on {key:?} needs an array, and got {value}")))
}

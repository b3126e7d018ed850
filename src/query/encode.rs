//! Translates the REST form of a query into the form that the LiveQuery server's matcher evaluates as
//! `find()` on MongoDB does. It knows the matcher's habits (Parse Server 9.10, LiveQuery/QueryTools.js). Must
//! not know of messages.
//!
//! Each condition of the REST form becomes one or more [`Node`]s that are true for exactly the objects that
//! `find()` returns, and that never throw, whatever the field holds: if a condition throws, the event is not
//! delivered, whatever surrounds the condition, and up to Parse Server 7.4 other subscribers miss the event
//! too. Nodes can therefore be combined and negated freely.

mod geo;
mod kinds;
mod values;

use std::borrow::Cow;

use self::kinds::{date_guard, deep_equality, is_array, is_no_array, is_text, null, number_guards};
use self::values::{audit_date, date, geo_point, pointer, ring};
use super::filter::{Entry, Filter, Operator, method_of};
use super::names::{check_inherited, check_methods};
use super::node::Node;
use super::ordered_json::Json;
use super::refuse::invalid;
use super::refuse::{self, ALL_STARTING_WITH, Refusal};
use super::regex;
use super::version::{LISTS_SEE_ARRAYS, ServerVersion};
use crate::error::Result;

/// The settings for encoding a query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Target {
    /// What would be refused is left unchanged.
    pub(super) permissive: bool,
    /// The server's version, if it is known.
    pub(super) version: Option<ServerVersion>,
}

/// The LiveQuery form of `where`.
pub(super) fn encode(filter: &Filter, target: Target) -> Result<Json> {
    match filter {
        Filter::Raw(json) => {
            refuse::endless_quotation(json)?;
            Ok(json.clone())
        }
        Filter::Entries(_) => Ok(where_nodes(filter, target)?.to_where()),
    }
}

fn where_nodes<'a>(filter: &'a Filter, target: Target) -> Result<Node<'a>> {
    let Filter::Entries(entries) = filter else {
        return Ok(Node::Raw(filter.to_json()));
    };
    let mut nodes = Vec::with_capacity(entries.len());
    for (key, entry) in entries {
        match entry {
            Entry::Equal(value) => Field::new(key, target).all([("$eq", value)], &mut nodes)?,
            Entry::Operators(operators) => Field::new(key, target).all(
                operators.iter().map(|(name, value)| (name.as_ref(), value)),
                &mut nodes,
            )?,
            Entry::Logical(filters) => nodes.push(logical(key, filters, target)?),
            Entry::Special(value) if target.permissive => nodes.push(Node::Test(key.into(), value.clone())),
            Entry::Special(_) => return Err(Refusal::of(key).error(key, "where")),
        }
    }
    Ok(Node::All(nodes))
}

fn logical<'a>(operator: &str, filters: &'a [Filter], target: Target) -> Result<Node<'a>> {
    // MongoDB refuses them; for the matcher, an empty $or never matches and the others always do.
    if filters.is_empty() {
        return Err(invalid(format!(
            "{} got no queries to combine",
            method_of(operator)
        )));
    }
    let nodes = filters
        .iter()
        .map(|filter| where_nodes(filter, target))
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
    target: Target,
    /// `createdAt` and `updatedAt` are plain ISO strings in LiveQuery, and dates everywhere else.
    audit: bool,
    /// The field that this one is a member of, if the database stores that field without this member: a
    /// pointer's class, a point's latitude. LiveQuery sees the member nevertheless.
    owner: Option<&'a str>,
    /// The fields that must not be texts for this to be a position in an array.
    arrays: Vec<&'a str>,
    exists: Option<bool>,
    /// Whether some condition cannot match an object without the field.
    positive: bool,
    ranges: Vec<(&'static str, Operand)>,
    not: Vec<Node<'a>>,
    others: Vec<Node<'a>>,
    verbatim: Vec<(Operator, Json)>,
}

/// The value that a range is compared with. Only values of its kind can be in the range.
enum Operand {
    Number(Json),
    Text(Json),
    Date(Json),
    /// A date as plain text, where the server keeps it in that form.
    Audit(Json),
}

impl<'a> Field<'a> {
    fn new(key: &'a str, target: Target) -> Self {
        Self {
            key,
            target,
            audit: matches!(key, "createdAt" | "updatedAt"),
            owner: owner(key),
            arrays: arrays(key),
            exists: None,
            positive: false,
            ranges: Vec::new(),
            not: Vec::new(),
            others: Vec::new(),
            verbatim: Vec::new(),
        }
    }

    fn all(
        mut self,
        operators: impl IntoIterator<Item = (&'a str, &'a Json)> + Clone,
        nodes: &mut Vec<Node<'a>>,
    ) -> Result<()> {
        let find = |wanted: &str| {
            operators
                .clone()
                .into_iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
        };
        let permissive = self.target.permissive;
        for (operator, value) in operators.clone() {
            if !permissive {
                check_inherited(method_of(operator), self.key)?;
                if operator == "$containedBy" && operators.clone().into_iter().count() > 1 {
                    return Err(refuse::error(
                        "contained_by",
                        self.key,
                        "beside other conditions on the same field, Parse Server asks its database for something else",
                        "combine two queries with Query::and",
                    ));
                }
            }
            if matches!(operator, "$options") && find("$regex").is_some()
                || DISTANCES.iter().any(|(name, _)| *name == operator) && find("$nearSphere").is_some()
            {
                continue;
            }
            let distance = || {
                DISTANCES
                    .iter()
                    .find_map(|(name, unit)| Some((find(name)?, *unit)))
            };
            let done = match operator {
                "$regex" => self.matches(value, find("$options")),
                "$nearSphere" => self.near(value, distance()),
                _ => self.operator(operator, value),
            };
            match done {
                Err(_) if permissive => {
                    let partner = match operator {
                        "$regex" => find("$options").map(|partner| ("$options", partner)),
                        "$nearSphere" => find("$maxDistance").map(|partner| ("$maxDistance", partner)),
                        _ => None,
                    };
                    self.leave(operator, value, partner);
                }
                done => done?,
            }
        }
        self.finish(nodes)
    }

    fn leave(&mut self, operator: &str, value: &Json, partner: Option<(&'static str, &Json)>) {
        self.verbatim
            .push((Operator::Owned(operator.to_owned()), value.clone()));
        self.verbatim
            .extend(partner.map(|(name, value)| (Operator::Borrowed(name), value.clone())));
    }

    fn operator(&mut self, operator: &'a str, value: &Json) -> Result<()> {
        if value.get("$relativeTime").is_some() {
            return Err(refuse::error(
                "$relativeTime",
                self.key,
                "the LiveQuery server does not know it, and a subscription has no fixed time to count from",
                "compute the date, and update the subscription when that date changes",
            ));
        }
        match operator {
            "$eq" => {
                self.positive |= *value != Json::Null;
                let node = self.equality("equal_to", value)?;
                self.others.push(node);
                Ok(())
            }
            "$ne" => {
                let node = self.equality("not_equal_to", value)?;
                self.not.push(node);
                Ok(())
            }
            "$in" => self.contained_in(list(operator, self.key, value)?),
            "$nin" => {
                let nodes = self.listed("not_contained_in", list(operator, self.key, value)?)?;
                self.not.extend(nodes);
                Ok(())
            }
            "$lt" => self.range("$lt", value),
            "$lte" => self.range("$lte", value),
            "$gt" => self.range("$gt", value),
            "$gte" => self.range("$gte", value),
            "$exists" => self.exists(value),
            "$all" => self.contains_all(list(operator, self.key, value)?),
            "$containedBy" => self.contained_by(list(operator, self.key, value)?),
            "$within" => self.within_box(value),
            "$geoWithin" => self.geo_within(value),
            "$geoIntersects" => self.polygon_contains(value),
            "$options" => Err(invalid(format!(
                "$options on {:?} has no $regex to belong to",
                self.key
            ))),
            _ if DISTANCES.iter().any(|(name, _)| *name == operator) => Err(invalid(format!(
                "{operator} on {:?} has no $nearSphere to belong to",
                self.key
            ))),
            _ => Err(Refusal::of(operator).error(operator, self.key)),
        }
    }

    fn finish(mut self, nodes: &mut Vec<Node<'a>>) -> Result<()> {
        if self.exists == Some(false) && self.positive {
            return Err(invalid(format!(
                "no object can match the conditions on {:?}: it must not exist, and another condition needs \
                 its value",
                self.key
            )));
        }
        let mut positive = Vec::new();
        if let Some(exists) = self.exists {
            let node = Node::condition(self.key, "$exists", Json::Bool(exists));
            if exists {
                positive.push(node);
            } else {
                nodes.push(self.or_absent(node));
            }
        }
        self.compared(&mut positive);
        positive.append(&mut self.others);
        nodes.extend(positive.into_iter().map(|node| self.owned(node)));
        if !self.not.is_empty() {
            let not = std::mem::take(&mut self.not);
            let not = not.into_iter().map(|node| self.owned(node)).collect();
            nodes.push(Node::Nor(not));
        }
        if !self.verbatim.is_empty() {
            let verbatim = std::mem::take(&mut self.verbatim).into_iter();
            let verbatim = verbatim.map(|(name, value)| (name.into_owned(), value));
            nodes.push(Node::Test(self.key.into(), Json::Object(verbatim.collect())));
        }
        Ok(())
    }

    /// A condition that does not match a missing field, or the test for null, applied to the part of the
    /// field that the database stores.
    fn owned(&self, node: Node<'a>) -> Node<'a> {
        if self.owner.is_none() && self.arrays.is_empty() {
            return node;
        }
        match node {
            Node::Any(nodes) => Node::Any(nodes.into_iter().map(|node| self.owned(node)).collect()),
            // Null or missing, which is the same to the database.
            Node::Nor(_) => self.or_absent(node),
            _ => {
                let mut nodes = Vec::new();
                nodes.extend(
                    self.owner
                        .map(|owner| Node::condition(member(owner, "__type"), "$exists", Json::Bool(false))),
                );
                if !self.arrays.is_empty() {
                    nodes.push(Node::Nor(
                        self.arrays.iter().map(|array| is_text(array, false)).collect(),
                    ));
                }
                nodes.push(node);
                Node::Ordered(nodes)
            }
        }
    }

    /// The condition, or the field is missing for the database, though not for LiveQuery.
    fn or_absent(&self, node: Node<'a>) -> Node<'a> {
        let mut nodes = Vec::new();
        nodes.extend(
            self.owner
                .map(|owner| Node::condition(member(owner, "__type"), "$exists", Json::Bool(true))),
        );
        nodes.extend(self.arrays.iter().map(|array| is_text(array, false)));
        nodes.push(node);
        Node::Any(nodes)
    }

    /// Adds the ranges, with those of one kind together.
    fn compared(&mut self, nodes: &mut Vec<Node<'a>>) {
        let key = self.key;
        let (mut numbers, mut texts, mut dates, mut audit) = (vec![], vec![], vec![], vec![]);
        for (operator, operand) in std::mem::take(&mut self.ranges) {
            let (group, value) = match operand {
                Operand::Number(value) => (&mut numbers, value),
                Operand::Text(value) => (&mut texts, value),
                Operand::Date(value) => (&mut dates, value),
                Operand::Audit(value) => (&mut audit, value),
            };
            group.push((operator.to_owned(), value));
        }
        if !numbers.is_empty() {
            nodes.extend(number_guards(key, numbers));
        }
        if !texts.is_empty() {
            let leaves_out_empty = |(operator, bound): &(String, Json)| match operator.as_str() {
                "$gt" => true,
                "$gte" => bound.as_str() != Some(""),
                _ => false,
            };
            let may_be_empty = !texts.iter().any(leaves_out_empty);
            nodes.push(Node::Ordered(vec![
                is_text(key, may_be_empty),
                Node::Test(key.into(), Json::Object(texts)),
            ]));
        }
        if !dates.is_empty() {
            nodes.push(Node::Ordered(vec![
                date_guard(key),
                Node::Test(key.into(), Json::Object(dates)),
            ]));
        }
        if !audit.is_empty() {
            let mut conditions = vec![("$exists".to_owned(), Json::Bool(true))];
            conditions.append(&mut audit);
            nodes.push(Node::Test(key.into(), Json::Object(conditions)));
        }
    }

    /// The node that is true if the field equals the value, or is an array that contains it.
    fn equality(&self, method: &str, value: &Json) -> Result<Node<'a>> {
        let key = self.key;
        if self.audit {
            return Ok(Node::Test(key.into(), audit_date(method, key, value)?));
        }
        Ok(match value {
            Json::Null => {
                self.check_existence(method)?;
                null(key)
            }
            Json::Bool(_) | Json::Number(_) | Json::String(_) => Node::Test(key.into(), value.clone()),
            Json::Array(_) => deep_equality(key, value),
            Json::Object(_) => match value.parse_type() {
                Some("Pointer" | "Object") => self.points_to(pointer(method, key, value)?),
                Some("Date") => {
                    let date = date(method, key, value)?;
                    Node::Ordered(vec![
                        date_guard(key),
                        Node::Test(
                            key.into(),
                            Json::Object(vec![("$gte".to_owned(), date.clone()), ("$lte".to_owned(), date)]),
                        ),
                    ])
                }
                Some("Bytes") if key.contains('.') => {
                    return Err(refuse::error(
                        method,
                        key,
                        "inside an object, find() compares bytes as the database stores them, and finds none on MongoDB",
                        "keep the bytes in a field of their own",
                    ));
                }
                Some("Bytes") => {
                    let base64 = value.get("base64").filter(|base64| base64.as_str().is_some());
                    let base64 = base64.ok_or_else(|| self.malformed(method, value))?;
                    tagged(key, "Bytes", [("base64", base64.clone())])
                }
                Some("GeoPoint") => {
                    let (latitude, longitude) = geo_point(method, key, value)?;
                    tagged(
                        key,
                        "GeoPoint",
                        [
                            ("latitude", Json::number(latitude)),
                            ("longitude", Json::number(longitude)),
                        ],
                    )
                }
                Some("File") => {
                    let name = value.get("name").filter(|name| name.as_str().is_some());
                    let name = name.ok_or_else(|| self.malformed(method, value))?;
                    tagged(key, "File", [("name", name.clone())])
                }
                Some("Polygon") => {
                    let (ring, is_closed) = ring(value).ok_or_else(|| self.malformed(method, value))?;
                    // Inside an object the ring is stored as it was written.
                    geo::same_ring(key, &ring, key.contains('.').then_some(is_closed))
                }
                Some("Relation") => {
                    return Err(refuse::error(
                        &format!("{method} with a relation"),
                        key,
                        "a relation has no value",
                        "keep an array of pointers instead",
                    ));
                }
                Some(other) => {
                    return Err(refuse::error(
                        method,
                        key,
                        &format!("{other:?} is not a type of Parse"),
                        "compare the members one by one",
                    ));
                }
                None => deep_equality(key, value),
            },
        })
    }

    fn points_to(&self, pointer: Json) -> Node<'a> {
        let key = self.key;
        if self
            .target
            .version
            .is_none_or(|version| version >= LISTS_SEE_ARRAYS)
        {
            return Node::condition(key, "$in", Json::Array(vec![pointer]));
        }
        // $in does not look into arrays yet, and the comparison with a pointer throws on null: a field
        // without a class or elements does not get there, nor does an array whose text shows an empty
        // position. (An array of objects with a `toString` of their own has no text, and throws all the
        // same.)
        let class_name = pointer.get("className").cloned().unwrap_or(Json::Null);
        let full = "^(?![^]*(?:^|,)(?:,|$))";
        Node::Ordered(vec![
            Node::Any(vec![
                Node::Test(member(key, "className"), class_name),
                Node::Ordered(vec![
                    is_array(key),
                    Node::condition(key, "$regex", Json::string(full)),
                ]),
            ]),
            Node::Test(key.into(), pointer),
        ])
    }

    fn contained_in(&mut self, values: &[Json]) -> Result<()> {
        self.positive |= flat(values).all(|value| *value != Json::Null);
        let nodes = self.listed("contained_in", values)?;
        self.others.push(if nodes.is_empty() {
            never(self.key)
        } else {
            Node::Any(nodes)
        });
        Ok(())
    }

    /// A node for each value of a list. The matcher's own `$in` also looks into nested arrays, and takes a
    /// text for the pointer with that id.
    fn listed(&self, method: &str, values: &[Json]) -> Result<Vec<Node<'a>>> {
        let mut nodes = Vec::new();
        let mut whole = Vec::new();
        for value in flat(values) {
            match value.parse_type() {
                Some("GeoPoint" | "Polygon") => {
                    return Err(refuse::error(
                        method,
                        self.key,
                        "in a list Parse Server asks its database for the numbers of a point or polygon",
                        "combine queries with equal_to by Query::or",
                    ));
                }
                None if matches!(value, Json::Object(_)) => {
                    return Err(refuse::error(
                        method,
                        self.key,
                        &format!("find() does not accept an object such as {value} in a list"),
                        "combine queries with equal_to by Query::or",
                    ));
                }
                _ => {}
            }
            // A field that can only hold texts or pointers needs no node for each value.
            let is_text = self.audit || self.key == "objectId";
            if is_text && !self.audit && value.as_str().is_none() {
                nodes.push(self.equality(method, value)?);
            } else if is_text {
                whole.push(if self.audit {
                    audit_date(method, self.key, value)?
                } else {
                    value.clone()
                });
            } else {
                nodes.push(self.equality(method, value)?);
            }
        }
        if !whole.is_empty() {
            nodes.push(Node::condition(self.key, "$in", Json::Array(whole)));
        }
        Ok(nodes)
    }

    fn range(&mut self, operator: &'static str, value: &Json) -> Result<()> {
        let method = method_of(operator);
        let operand = match value {
            _ if self.audit => Operand::Audit(audit_date(method, self.key, value)?),
            Json::Bool(bound) => {
                let within: Vec<_> = [false, true]
                    .into_iter()
                    .filter(|value| match operator {
                        "$lt" => value < bound,
                        "$lte" => value <= bound,
                        "$gt" => value > bound,
                        _ => value >= bound,
                    })
                    .map(|value| Node::Test(self.key.into(), Json::Bool(value)))
                    .collect();
                self.positive = true;
                self.others.push(if within.is_empty() {
                    never(self.key)
                } else {
                    Node::Any(within)
                });
                return Ok(());
            }
            Json::Number(_) => Operand::Number(value.clone()),
            Json::String(_) => Operand::Text(value.clone()),
            Json::Object(_) if value.parse_type() == Some("Date") => {
                Operand::Date(date(method, self.key, value)?)
            }
            _ => {
                return Err(refuse::error(
                    method,
                    self.key,
                    &format!("{value} has no order"),
                    "compare with a number, a string or a date (a float that is not finite is null in JSON)",
                ));
            }
        };
        self.positive = true;
        self.ranges.push((operator, operand));
        Ok(())
    }

    fn exists(&mut self, value: &Json) -> Result<()> {
        let Json::Bool(exists) = value else {
            return Err(self.malformed("exists", value));
        };
        self.check_existence(if *exists { "exists" } else { "does_not_exist" })?;
        self.positive |= exists;
        self.exists = Some(*exists);
        Ok(())
    }

    fn check_existence(&self, method: &str) -> Result<()> {
        if self.target.permissive {
            return Ok(());
        }
        check_methods(method, self.key)
    }

    // The matcher's own $all compares dates, pointers and objects by identity, and throws if the field is not
    // an array.
    fn contains_all(&mut self, values: &[Json]) -> Result<()> {
        if values.iter().any(|value| value.get("$regex").is_some()) {
            return Err(ALL_STARTING_WITH.error("$all", self.key));
        }
        if values.is_empty() {
            self.others.push(never(self.key));
        }
        self.positive = true;
        for value in values {
            let node = match value {
                Json::Bool(_) | Json::Number(_) | Json::String(_) => {
                    Node::Test(self.key.into(), value.clone())
                }
                _ => {
                    let pointer = pointer("contains_all", self.key, value)
                        .map_err(|_| self.not_in_arrays("contains_all", value))?;
                    // find() does not treat a field that is a pointer as an array of one.
                    if self.key.contains('.') {
                        self.points_to(pointer)
                    } else {
                        Node::Ordered(vec![is_array(self.key), self.points_to(pointer)])
                    }
                }
            };
            self.others.push(node);
        }
        Ok(())
    }

    // find() asks for objects without an element outside the list (MongoTransform.js), so a field that is
    // missing or not an array matches. The matcher throws on values that cannot be iterated, and iterates a
    // text by characters.
    fn contained_by(&mut self, values: &[Json]) -> Result<()> {
        let values = values
            .iter()
            .map(|value| match value {
                Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(value.clone()),
                _ => pointer("contained_by", self.key, value)
                    .map_err(|_| self.not_in_arrays("contained_by", value)),
            })
            .collect::<Result<_>>()?;
        self.others.push(Node::Any(vec![
            is_no_array(self.key),
            Node::condition(self.key, "$containedBy", Json::Array(values)),
        ]));
        Ok(())
    }

    fn matches(&mut self, pattern: &Json, options: Option<&Json>) -> Result<()> {
        let text = |value: &Json| {
            value
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| self.malformed("matches", value))
        };
        let pattern = text(pattern)?;
        let options = options.map(text).transpose()?.unwrap_or_default();
        let key = self.key;
        let expression = regex::translate("matches", key, &pattern, &options)?;
        self.positive = true;
        if let Some(prefix) = expression.prefix {
            // Parse Server from 8.6 on treats a match that takes too long by its clock as no match;
            // comparisons are not timed.
            let mut bounds = vec![("$gte".to_owned(), Json::String(prefix.clone()))];
            bounds.extend(regex::after_prefix(&prefix).map(|end| ("$lt".to_owned(), Json::String(end))));
            self.others.push(Node::Ordered(vec![
                is_text(key, expression.may_match_empty),
                Node::Test(key.into(), Json::Object(bounds)),
            ]));
            return Ok(());
        }
        let mut conditions = vec![("$regex".to_owned(), Json::String(expression.source))];
        if !expression.flags.is_empty() {
            conditions.push(("$options".to_owned(), Json::String(expression.flags)));
        }
        self.others.push(Node::Ordered(vec![
            is_text(key, expression.may_match_empty),
            Node::Test(key.into(), Json::Object(conditions)),
        ]));
        Ok(())
    }

    fn not_in_arrays(&self, method: &str, value: &Json) -> crate::error::Error {
        refuse::error(
            method,
            self.key,
            &format!("the LiveQuery server does not find {value} inside an array"),
            "use values that are strings, numbers, booleans or pointers, or test the array in the listener",
        )
    }

    fn malformed(&self, method: &str, value: &Json) -> crate::error::Error {
        invalid(format!(
            "{method} on {:?} has a malformed value: {value}",
            self.key
        ))
    }
}

/// The operands of `$nearSphere` that limit its distance, with the number of their units in one radian
/// (MongoTransform.js).
pub(super) const DISTANCES: [(&str, f64); 4] = [
    ("$maxDistance", 1.0),
    ("$maxDistanceInRadians", 1.0),
    ("$maxDistanceInMiles", 3959.0),
    ("$maxDistanceInKilometers", 6371.0),
];

/// A value of one of Parse's types with these members.
fn tagged<'a>(key: &'a str, tag: &str, members: impl IntoIterator<Item = (&'static str, Json)>) -> Node<'a> {
    let mut nodes = vec![Node::Test(member(key, "__type"), Json::string(tag))];
    nodes.extend(
        members
            .into_iter()
            .map(|(name, value)| Node::Test(member(key, name), value)),
    );
    Node::Ordered(nodes)
}

fn never(key: &str) -> Node<'_> {
    Node::condition(key, "$in", Json::Array(Vec::new()))
}

fn member<'a>(key: &str, name: &str) -> Cow<'a, str> {
    format!("{key}.{name}").into()
}

/// The field that a key such as `place.latitude` looks into.
fn owner(key: &str) -> Option<&str> {
    let (owner, name) = key.rsplit_once('.')?;
    let is_part = matches!(
        name,
        "iso"
            | "base64"
            | "objectId"
            | "className"
            | "latitude"
            | "longitude"
            | "coordinates"
            | "name"
            | "url"
            | "__type"
    );
    // Inside an object, the database keeps everything except dates and bytes unchanged.
    (is_part && (!owner.contains('.') || matches!(name, "iso" | "base64"))).then_some(owner)
}

/// The fields in which a key such as `tags.0` names a position. For LiveQuery, a text has positions as well.
fn arrays(key: &str) -> Vec<&str> {
    key.match_indices('.')
        .filter(|(at, _)| {
            let rest = &key[at + 1..];
            let name = rest.split('.').next().unwrap_or_default();
            !name.is_empty() && name.bytes().all(|digit| digit.is_ascii_digit())
        })
        .map(|(at, _)| &key[..at])
        .collect()
}

/// Parse Server replaces an array in the list of `$in` and `$nin` with its elements (MongoTransform.js).
fn flat(values: &[Json]) -> impl Iterator<Item = &Json> + Clone {
    values.iter().flat_map(|value| match value {
        Json::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    })
}

fn list<'j>(operator: &str, key: &str, value: &'j Json) -> Result<&'j [Json]> {
    let method = method_of(operator);
    value
        .as_array()
        .ok_or_else(|| invalid(format!("{method} on {key:?} needs an array, and got {value}")))
}

//! Queries: what the user writes, and what the server is sent for it. It knows no connection.

mod constraints;
mod encode;
mod filter;
mod json;
pub(crate) mod matcher;
mod node;
mod refuse;
mod regex;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use self::filter::{Filter, invalid};
use self::json::Json;
use crate::{Error, Result};

/// Which objects of a class a subscription is about: the counterpart of the JS SDK's `Parse.Query`.
///
/// The methods are those of `Parse.Query` in snake case, and each returns the query, changed:
///
/// ```
/// use parse_livequery::Query;
///
/// let query = Query::new("Game").greater_than("score", 10).equal_to("name", "Ann");
/// # let _ = query;
/// ```
///
/// Values are whatever implements [`Serialize`]: numbers, strings, [`Date`](crate::Date), [`Pointer`](crate::Pointer),
/// [`GeoPoint`](crate::GeoPoint), structs of your own.
///
/// # Right or refused
///
/// A query means in LiveQuery what it means in `find()` on MongoDB, or `subscribe` returns an error of kind
/// [`InvalidQuery`](crate::ErrorKind::InvalidQuery) that names the constraint, the reason and the way out. No method
/// here fails or panics: what is wrong with a query is reported by `subscribe`.
///
/// The server's LiveQuery matcher is another program than its database, and differs from it in many places; what is
/// sent is therefore not the `where` that the JS SDK sends, but one that the matcher answers rightly. What no form can
/// express, and no client can see from the query, since it depends on the data:
///
/// - dates, null, objects and arrays *inside* an array field are not found by `equal_to`, `contained_in` and their
///   negations, which look into arrays for strings, numbers, booleans, pointers and bytes only;
/// - comparisons and regular expressions look at an array as a whole, not at its elements, and comparisons do not
///   check that the value is of the same type as the operand;
/// - names with dots reach into objects and to an index of an array (`tags.0`), not into each object of an array;
/// - a pointer field equals a [`Pointer`](crate::Pointer), not an `objectId` alone; a relation equals nothing;
/// - the borders of polygons are computed in the plane.
///
/// # Several conditions
///
/// All conditions must hold. A field can have several of different kinds. Two of the same kind with different values,
/// of which the JS SDK forgets the first, and conditions that no object can meet, are errors.
#[derive(Clone, Debug)]
pub struct Query {
    class_name: String,
    filter: Filter,
    select: Option<Vec<String>>,
    exclude: Vec<String>,
    watch: Vec<String>,
    include: Vec<String>,
    order: Option<Vec<String>>,
    limit: Option<u64>,
    skip: u64,
    allow_unsupported: bool,
    /// The first thing that went wrong, for `subscribe` to report.
    error: Option<Error>,
}

impl Query {
    /// All objects of a class.
    ///
    /// As in the JS SDK, `User` stands for the server's own class `_User`. An empty name is an error that `subscribe`
    /// reports.
    #[must_use]
    pub fn new(class_name: impl Into<String>) -> Self {
        let class_name = match class_name.into() {
            name if name == "User" => "_User".to_owned(),
            name => name,
        };
        let error = class_name
            .is_empty()
            .then(|| invalid("the class name of a query is empty"));
        Self {
            class_name,
            filter: Filter::default(),
            select: None,
            exclude: Vec::new(),
            watch: Vec::new(),
            include: Vec::new(),
            order: None,
            limit: None,
            skip: 0,
            allow_unsupported: false,
            error,
        }
    }

    /// Objects that meet at least one of the queries, which must be for the same class.
    #[must_use]
    pub fn or(queries: impl IntoIterator<Item = Self>) -> Self {
        Self::combine("$or", queries)
    }

    /// Objects that meet all of the queries, which must be for the same class.
    #[must_use]
    pub fn and(queries: impl IntoIterator<Item = Self>) -> Self {
        Self::combine("$and", queries)
    }

    /// Objects that meet none of the queries, which must be for the same class.
    #[must_use]
    pub fn nor(queries: impl IntoIterator<Item = Self>) -> Self {
        Self::combine("$nor", queries)
    }

    /// The name of the class.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// Replaces all conditions by this `where`, which is sent as it is.
    ///
    /// For those who know the server's matcher: nothing is checked, corrected or refused, and the server may mix up
    /// this query with another one that has the same keys and values in another arrangement.
    #[must_use]
    pub fn raw_where(self, json: impl Serialize) -> Self {
        self.with(|query| {
            let json = Json::of(json).map_err(|error| not_serialized("raw_where", &error))?;
            if !matches!(json, Json::Object(_)) {
                return Err(invalid(format!("raw_where needs a JSON object, and got {json}")));
            }
            query.filter = Filter::Raw(json);
            Ok(())
        })
    }

    /// Lets through what would be refused: such a constraint is sent as the JS SDK sends it, whatever the server
    /// makes of it, and `limit` and `skip` are ignored.
    #[must_use]
    pub fn allow_unsupported(mut self) -> Self {
        self.allow_unsupported = true;
        self
    }

    /// Events have only these fields of the object, besides `objectId`, `createdAt`, `updatedAt` and `ACL`.
    ///
    /// An `update` event still comes when only other fields have changed; see [`watch`](Self::watch). Called again, it
    /// adds to the fields. A name that is empty, that comes twice or that has a dot (the server knows whole fields
    /// only) is an error.
    #[must_use]
    pub fn select<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.select
            .get_or_insert_default()
            .extend(keys.into_iter().map(Into::into));
        self
    }

    /// `update` and `create` events come only if one of these fields has changed (Parse Server 6.0 and later).
    ///
    /// Pointers and relations count as changed with each save. Called again, it adds to the fields. A name that is
    /// empty, that comes twice or that has a dot (the server knows whole fields only) is an error.
    #[must_use]
    pub fn watch<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.watch.extend(keys.into_iter().map(Into::into));
        self
    }

    pub(crate) fn encode(&self) -> Result<EncodedQuery> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        Ok(EncodedQuery {
            class_name: self.class_name.as_str().into(),
            where_json: encode::encode(&self.filter, self.allow_unsupported)?.into(),
            keys: names("select", self.select.as_deref())?,
            watch: names("watch", (!self.watch.is_empty()).then_some(&self.watch))?,
        })
    }

    fn combine(operator: &'static str, queries: impl IntoIterator<Item = Self>) -> Self {
        let method = operator.replace('$', "Query::");
        let mut combined = Self::new("");
        combined.error = None;
        let mut filters = Vec::new();
        for query in queries {
            if filters.is_empty() {
                combined.class_name.clone_from(&query.class_name);
            }
            combined.allow_unsupported |= query.allow_unsupported;
            let problem = query.problem_in(&method, &combined.class_name);
            combined.error = combined.error.or(problem);
            filters.push(query.filter);
        }
        if filters.is_empty() {
            combined.error = Some(invalid(format!("{method} combines no queries")));
        }
        combined.filter = Filter::logical(operator, filters);
        combined
    }

    fn problem_in(&self, method: &str, class_name: &str) -> Option<Error> {
        if self.error.is_some() {
            return self.error.clone();
        }
        if self.class_name != class_name {
            return Some(invalid(format!(
                "{method} combines queries for different classes, {class_name:?} and {:?}",
                self.class_name
            )));
        }
        None
    }

    fn with(mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        if self.error.is_none() {
            self.error = change(&mut self).err();
        }
        self
    }

    fn condition(self, key: &str, operator: &'static str, value: impl Serialize) -> Self {
        self.with(|query| {
            let value = Json::of(value).map_err(|error| not_serialized(key, &error))?;
            query.filter.operator(key, operator, value)
        })
    }
}

/// What the server is sent for a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncodedQuery {
    pub(crate) class_name: Box<str>,
    /// JSON text, whose order of members counts.
    pub(crate) where_json: Box<str>,
    /// The JSON text of an array of distinct names.
    pub(crate) keys: Option<Box<str>>,
    /// The JSON text of an array of distinct names.
    pub(crate) watch: Option<Box<str>>,
}

// Parse Server refuses a subscription with no or equal names (RequestSchema.js), and ignores names with dots
// (Client.js, _toJSONWithFields).
fn names(method: &str, names: Option<&[String]>) -> Result<Option<Box<str>>> {
    let Some(names) = names else {
        return Ok(None);
    };
    if names.is_empty() {
        return Err(invalid(format!("{method} has no names of fields")));
    }
    for (index, name) in names.iter().enumerate() {
        let wrong = if name.is_empty() {
            "an empty name"
        } else if name.contains('.') {
            "a name with a dot, which the LiveQuery server ignores (give the name of the whole field)"
        } else if names[..index].contains(name) {
            "a name twice"
        } else {
            continue;
        };
        return Err(invalid(format!("{method} has {wrong}: {name:?}")));
    }
    serde_json::to_string(names)
        .map(|text| Some(text.into()))
        .map_err(|error| not_serialized(method, &error))
}

fn not_serialized(what: &str, error: &dyn fmt::Display) -> Error {
    invalid(format!(
        "the value for {what:?} cannot be written as JSON: {error}"
    ))
}

//! Queries: what the program writes, and what is sent to the server. Must not know of connections.

mod constraints;
mod encode;
mod filter;
mod finite;
mod form;
pub(crate) mod keys;
pub(crate) mod matcher;
mod names;
mod node;
mod operand;
pub(crate) mod order;
pub(crate) mod ordered_json;
mod refuse;
mod regex;
#[cfg(test)]
mod tests;
pub(crate) mod version;
mod widen;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use self::encode::Target;
use self::filter::Filter;
use self::keys::Keys;
use self::matcher::{Field, Matcher, Verdict};
use self::operand::operand;
use self::ordered_json::Json;
use self::refuse::invalid;
use self::version::{Age, ServerVersion, WATCH};
use crate::error::{Error, Result};
use crate::object::Object;
use crate::types::Date;

/// Which objects of a class a subscription is about: the counterpart of the JS SDK's `Parse.Query`.
///
/// The methods are those of `Parse.Query` in snake case. Each takes the query and returns it changed:
///
/// ```
/// use parse_livequery::Query;
///
/// let query = Query::new("Game").greater_than("score", 10).equal_to("name", "Ann");
/// # let _ = query;
/// ```
///
/// A value can be anything that implements [`Serialize`]: a number, a string, a [`Date`](crate::Date), a
/// [`Pointer`](crate::Pointer), a [`GeoPoint`](crate::GeoPoint), or a struct of your own.
///
/// # Right or refused
///
/// A query either means in LiveQuery what it means in `find()` on MongoDB, or `subscribe` returns an error of
/// kind [`InvalidQuery`](crate::ErrorKind::InvalidQuery) that names the method, the reason and the way out.
/// No method here fails or panics: `subscribe` reports what is wrong with a query.
///
/// The server's LiveQuery matcher is separate from its database and differs from it in many places. The
/// client therefore does not send the `where` that the JS SDK sends, but one that the matcher answers
/// correctly: only values of the operand's kind are compared, and nothing makes the matcher fail. Some
/// differences remain, which no form of the query can avoid and no client can detect, because they depend on
/// the data:
///
/// 1. Strings, numbers, booleans and pointers are found inside an array; dates, bytes, points, files,
///    objects, arrays and null are not. Pointers are also found in nested arrays, and for `contained_by` a
///    pointer also matches the text of its id. (The matcher compares all other values by identity.)
/// 2. Comparisons and regular expressions never match an array, where `find()` tests its elements. (The
///    matcher compares the array as one text.)
/// 3. Names with dots reach into objects and to an index of an array (`tags.0`), but not into each object of
///    an array. (The matcher takes the name for a member of the array itself.)
/// 4. `equal_to` on a relation finds nothing, where `find()` looks for the members of the relation, and a
///    string is not accepted as the id of a pointer. (An object carries neither the members nor the types of
///    its columns.)
/// 5. The edges of polygons are straight lines between degrees, and a point on an edge counts as inside on
///    some sides only. (The matcher computes on the plane.)
///
/// An object that imitates a function of JavaScript (`{"charAt": {"name": "charAt"}}`) is taken for a value
/// that has it.
///
/// Conversely, `find()`, as Parse Server translates it for MongoDB, forgets conditions if there are two
/// `contained_by`, or one beside [`Query::nor`]; LiveQuery does not. On MongoDB it refuses to compare with
/// whole arrays and objects.
///
/// # Versions of Parse Server
///
/// Equality, `or`, comparisons, `exists`, texts, pointers and points work on every server from 2.8 on, and
/// dates from 3.4. Negations, null, two conditions of one kind on a field (with [`Query::and`]), polygons and
/// `contained_by` need 5.0, comparisons with whole arrays and objects 6.3, and [`watch`](Self::watch) 6.1.
///
/// If a query depends on the server's version, the client asks the server for it. The answer only tells
/// whether the server is at least 4.3, 6.1 or 7.0. The following are therefore refused as well, with an
/// `error` of that subscription: negations and the like on Parse Server 5.0 to 6.0, whole arrays and objects
/// on 6.3 to 6.5, and dates before 4.3. They work if
/// [`ClientBuilder::parse_server`](crate::ClientBuilder::parse_server) names the version.
///
/// # Several conditions
///
/// All conditions must hold. A field can have several conditions of different kinds. Two of the same kind
/// with different values, of which the JS SDK forgets the first, are an error, and so are conditions that no
/// object can match.
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
    /// Members of the REST form that only the database uses.
    for_find: Vec<(String, Json)>,
    allow_unsupported: bool,
    /// The first thing that went wrong, for `subscribe` to report.
    error: Option<Error>,
}

impl Query {
    /// All objects of a class.
    ///
    /// As in the JS SDK, `User` means the server's own class `_User`. An empty name is an error, which
    /// `subscribe` reports.
    #[must_use]
    pub fn new(class_name: impl Into<String>) -> Self {
        let class_name = match class_name.into() {
            name if name == "User" => "_User".to_owned(),
            name => name,
        };
        let error = names::check_class(&class_name).err();
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
            for_find: Vec::new(),
            allow_unsupported: false,
            error,
        }
    }

    /// Objects that match at least one of the queries, which must be for the same class.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let good = Query::new("Game").greater_than("score", 100);
    /// let new = Query::new("Game").equal_to("fresh", true);
    /// let query = Query::or([good, new]).equal_to("finished", false);
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn or(queries: impl IntoIterator<Item = Self>) -> Self {
        Self::combine("$or", queries)
    }

    /// Objects that match all of the queries, which must be for the same class.
    #[must_use]
    pub fn and(queries: impl IntoIterator<Item = Self>) -> Self {
        Self::combine("$and", queries)
    }

    /// Objects that match none of the queries, which must be for the same class.
    #[must_use]
    pub fn nor(queries: impl IntoIterator<Item = Self>) -> Self {
        Self::combine("$nor", queries)
    }

    /// The name of the class.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// Replaces all conditions with this `where`, which is sent unchanged.
    ///
    /// For those who know the server's matcher: nothing is corrected or refused, except a regular expression
    /// that has a `\Q` without a `\E` after it, on which Parse Server 9.10 hangs permanently. The server may
    /// confuse this query with another one that has the same keys and values in a different arrangement; the
    /// client then drops the events that do not match it. Where the order of members matters, pass a struct
    /// or a [`RawValue`](serde_json::value::RawValue), because a `serde_json::Value` sorts them.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    /// use serde_json::json;
    ///
    /// let query = Query::new("Game").raw_where(json!({"score": {"$gt": 10}}));
    /// assert_eq!(query.live_query_where()?, r#"{"score":{"$gt":10}}"#);
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
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

    /// Permits what would be refused: such a constraint is sent as the JS SDK sends it, whatever the server
    /// makes of it, and `limit` and `skip` are ignored.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let first = Query::new("Game").limit(10);
    /// assert!(first.live_query_where().is_err());
    /// assert!(first.allow_unsupported().live_query_where().is_ok()); // events of all games
    /// ```
    #[must_use]
    pub fn allow_unsupported(mut self) -> Self {
        self.allow_unsupported = true;
        self
    }

    /// Restricts events to these fields of the object, besides `objectId`, `createdAt`, `updatedAt` and
    /// `ACL`.
    ///
    /// An `update` event still comes when only other fields have changed; see [`watch`](Self::watch). Each
    /// call adds to the fields. A name that is empty, repeated, or contains a dot (the server knows whole
    /// fields only) is an error.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").select(["name", "score"]);
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn select(mut self, keys: impl Keys) -> Self {
        self.select.get_or_insert_default().extend(keys.into_names());
        self
    }

    /// Restricts `update` and `create` events to changes of these fields (Parse Server 6.1 and later).
    ///
    /// Pointers and relations count as changed with each save. Each call adds to the fields. A name that is
    /// empty, repeated, or contains a dot (the server knows whole fields only) is an error.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").watch(["score"]);
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn watch(mut self, keys: impl Keys) -> Self {
        self.watch.extend(keys.into_names());
        self
    }

    /// Makes `find()` leave out these fields. Each call adds to them.
    ///
    /// Events are not affected, and a warning is logged: they have all fields, or those of
    /// [`select`](Self::select).
    #[must_use]
    pub fn exclude(mut self, keys: impl Keys) -> Self {
        self.exclude.extend(keys.into_names());
        self
    }

    /// Makes `find()` return the objects that these fields point to as well. Each call adds to the fields.
    ///
    /// A live set keeps the included objects as they are on the server. Events of a subscription are not
    /// affected, and a warning is logged: there the field is a [`Pointer`](crate::Pointer), unless the
    /// server's `afterLiveQueryEvent` hook fetches the object.
    #[must_use]
    pub fn include(mut self, keys: impl Keys) -> Self {
        self.include.extend(keys.into_names());
        self
    }

    /// Calls [`include`](Self::include) for all fields that point to objects.
    #[must_use]
    pub fn include_all(self) -> Self {
        self.include("*")
    }

    /// Makes `find()` sort the objects by these fields, replacing any earlier order: `"score"` or `["score",
    /// "name"]`.
    ///
    /// Events come in the order of the changes, and a warning is logged.
    #[must_use]
    pub fn ascending(mut self, keys: impl Keys) -> Self {
        self.order = None;
        self.add_ascending(keys)
    }

    /// Like [`ascending`](Self::ascending), for objects that are equal in the order set so far.
    #[must_use]
    pub fn add_ascending(self, keys: impl Keys) -> Self {
        self.add_order("", keys)
    }

    /// Makes `find()` sort the objects by these fields, greatest first, replacing any earlier order.
    ///
    /// Events come in the order of the changes, and a warning is logged.
    #[must_use]
    pub fn descending(mut self, keys: impl Keys) -> Self {
        self.order = None;
        self.add_descending(keys)
    }

    /// Like [`descending`](Self::descending), for objects that are equal in the order set so far.
    #[must_use]
    pub fn add_descending(self, keys: impl Keys) -> Self {
        self.add_order("-", keys)
    }

    /// Makes `find()` return at most this many objects.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "a subscription is about all objects that match the conditions, not about the
    /// first ones; leave limit and skip out".
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Makes `find()` skip this many objects at the beginning.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it, as it does [`limit`](Self::limit).
    #[must_use]
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Reads a query from its REST form: `{"where": {..}, "keys": "a,b", ..}`, as the JS SDK's `toJSON` writes it.
    ///
    /// The conditions are those of the other methods, and are encoded or refused in the same way. A
    /// [`RawValue`](serde_json::value::RawValue) keeps the order of its members, which makes no difference
    /// here.
    ///
    /// # Errors
    ///
    /// Of kind [`InvalidQuery`](crate::ErrorKind::InvalidQuery) if the JSON is not a query, or has members
    /// that a query does not have. What LiveQuery cannot do is reported by `subscribe`. Members that only
    /// `find()` uses (`count`, `hint`, `comment`, `explain`, `readPreference`) are ignored there, and a
    /// warning is logged.
    ///
    /// # Examples
    ///
    /// ```
    /// use parse_livequery::Query;
    /// use serde_json::json;
    ///
    /// let query = Query::from_json("Game", json!({"where": {"score": {"$gt": 10}}, "keys": "name,score"}))?;
    /// assert_eq!(query.to_json()?, r#"{"where":{"score":{"$gt":10}},"keys":"name,score"}"#);
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    pub fn from_json(class_name: impl Into<String>, json: impl Serialize) -> Result<Self> {
        let mut query = Self::new(class_name);
        let json = Json::of(json).map_err(|error| not_serialized("from_json", &error))?;
        let Json::Object(members) = json else {
            return Err(invalid(format!("from_json needs a JSON object, and got {json}")));
        };
        for (name, value) in members {
            query.read_member(&name, value)?;
        }
        match query.error {
            Some(error) => Err(error),
            None => Ok(query),
        }
    }

    /// The REST form of the query, as the JS SDK's `toJSON` writes it and as it is sent to `find()`.
    ///
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").greater_than("score", 10).descending(["score"]).limit(5);
    /// assert_eq!(query.to_json()?, r#"{"where":{"score":{"$gt":10}},"limit":5,"order":"-score"}"#);
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If something is wrong with the query in any use, such as a value that cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.rest_form().map(|json| json.to_string())
    }

    /// The form that is sent to `find()`, without the members that `find()` does not know.
    #[cfg(feature = "rest")]
    pub(crate) fn find_form(&self) -> Result<Vec<(String, Json)>> {
        let Json::Object(mut members) = self.rest_form()? else {
            return Ok(Vec::new());
        };
        members.retain(|(name, _)| name != "watch");
        Ok(members)
    }

    /// The `where` that a subscription sends to the LiveQuery server: the same query, in the form that the
    /// server's matcher answers as `find()` does.
    ///
    /// For inspecting what is sent; `subscribe` calls it automatically.
    ///
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::or([
    ///     Query::new("Game").equal_to("name", "Ann"),
    ///     Query::new("Game").not_equal_to("level", 3),
    /// ]);
    /// assert_eq!(query.live_query_where()?, r#"{"$or":[{"name":"Ann"},{"$nor":[{"level":3}]}]}"#);
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `subscribe`.
    pub fn live_query_where(&self) -> Result<String> {
        self.encode_for(None).map(|encoded| encoded.where_json.into())
    }

    /// Whether an object matches the conditions, as the LiveQuery server decides it.
    ///
    /// `None` if the client cannot decide: because of a field that [`select`](Self::select) leaves out or,
    /// without the feature `test-server`, because of a regular expression beyond those of
    /// [`contains`](Self::contains), [`starts_with`](Self::starts_with) and [`ends_with`](Self::ends_with).
    ///
    /// ```
    /// use parse_livequery::{Object, Query};
    ///
    /// let query = Query::new("Game").greater_than("score", 10);
    /// let game: Object = r#"{"className": "Game", "objectId": "g1", "score": 11}"#.parse()?;
    /// assert_eq!(query.matches_object(&game)?, Some(true));
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `subscribe`.
    pub fn matches_object(&self, object: &Object) -> Result<Option<bool>> {
        Ok(self.judge()?.matches(object))
    }

    /// The test that [`matches_object`](Self::matches_object) makes, prepared once.
    pub(crate) fn judge(&self) -> Result<Judge> {
        let where_json = self.encode_conditions_for(None)?.where_json;
        let matcher =
            Matcher::parse(&where_json).map_err(|error| not_serialized("matches_object", &error))?;
        Ok(Judge {
            matcher,
            select: self.select.clone(),
            has_dates: where_json.contains(r#""__type":"Date""#),
        })
    }

    /// The form in which a subscription to this query is sent to a server of unknown version.
    ///
    /// # Errors
    ///
    /// All that is wrong with the query, and all that LiveQuery cannot do.
    #[cfg(any(test, feature = "_bench", feature = "_fuzz"))]
    pub(crate) fn encode(&self) -> Result<EncodedQuery> {
        self.encode_for(None)
    }

    /// The form in which a subscription to this query is sent to a server of this version.
    ///
    /// # Errors
    ///
    /// All that is wrong with the query, all that LiveQuery cannot do, and all that the server is too old
    /// for, with the version that would be needed.
    pub(crate) fn encode_for(&self, age: Option<Age>) -> Result<EncodedQuery> {
        if !self.allow_unsupported && (self.limit.is_some() || self.skip > 0) {
            return Err(invalid(
                "limit and skip cannot work in a LiveQuery subscription: a subscription is about all objects that \
                 match the conditions, not about the first ones; leave limit and skip out (allow_unsupported \
                 ignores them)",
            ));
        }
        for (method, ignored, instead) in [
            ("exclude", !self.exclude.is_empty(), "events have all fields"),
            ("include", !self.include.is_empty(), "events have pointers"),
            (
                "ascending or descending",
                self.order.is_some(),
                "events come in the order of the changes",
            ),
            (
                "an option of find() alone, such as count or hint,",
                !self.for_find.is_empty(),
                "events do not depend on it",
            ),
        ] {
            if ignored {
                crate::logging::warn!(
                    "{method} has no effect on a LiveQuery subscription to {}: {instead}",
                    self.class_name
                );
            }
        }
        self.encode_conditions_for(age)
    }

    /// The form in which the conditions are sent, regardless of what only `find()` knows.
    pub(crate) fn encode_conditions_for(&self, age: Option<Age>) -> Result<EncodedQuery> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let verbatim = self.allow_unsupported || matches!(self.filter, Filter::Raw(_));
        let target = Target {
            permissive: self.allow_unsupported,
            version: age.map(Age::at_least),
        };
        let where_json = encode::encode(&self.filter, target)?;
        if let Some(age) = age.filter(|_| !verbatim) {
            version::check_depth(&where_json, age)?;
        }
        // What is sent exactly as written is the program's own responsibility.
        let needs = version::needed(&where_json).filter(|_| !verbatim);
        if let Some(age) = age {
            let watch = (!self.watch.is_empty()).then_some((WATCH, "watch"));
            for (since, what) in needs.into_iter().chain(watch) {
                if !age.reaches(since) {
                    return Err(version::too_old(what, since, age));
                }
            }
        }
        let special = match (verbatim, age, needs) {
            (true, ..) => Some(Special::Verbatim),
            (false, None, Some((since, _))) => Some(Special::ByAge(ByAge {
                since,
                filter: self.filter.clone(),
            })),
            _ => None,
        };
        let encoded = EncodedQuery {
            class_name: self.class_name.as_str().into(),
            where_json: where_json.to_string().into(),
            keys: names("select", self.select.as_deref())?,
            watch: names("watch", (!self.watch.is_empty()).then_some(&self.watch))?,
            special: special.map(Arc::new),
        };
        check_length(encoded.length())?;
        Ok(encoded)
    }

    /// # Errors
    ///
    /// Anything that would keep a live set from being equal to `find()`.
    pub(crate) fn check_for_set(&self) -> Result<()> {
        for (method, is_used, reason) in [
            (
                "watch",
                !self.watch.is_empty(),
                "changes of other fields would be missed; leave it out",
            ),
            (
                "exclude",
                !self.exclude.is_empty(),
                "events have all fields; name the wanted ones with select",
            ),
        ] {
            if is_used {
                return Err(invalid(format!("{method} cannot work in a live set: {reason}")));
            }
        }
        Ok(())
    }

    /// The names of the included fields.
    pub(crate) fn included(&self) -> &[String] {
        &self.include
    }

    /// Whether the order cannot be derived from any field of an object: it is by distance, or by how well a
    /// text matches.
    pub(crate) fn has_order_of_server(&self) -> bool {
        let is_score = |key: &String| key.trim_start_matches('-').starts_with('$');
        self.sorts_by_distance() || self.order.iter().flatten().any(is_score)
    }

    /// The same query without order, limit and skip, and with the fields selected that the order and the
    /// conditions need.
    pub(crate) fn without_window(&self) -> Self {
        let mut query = Self {
            order: None,
            limit: None,
            skip: 0,
            ..self.clone()
        };
        if let Some(select) = &mut query.select {
            let mut keys: Vec<_> = self.order.clone().unwrap_or_default();
            self.filter.to_json().add_keys_of_where(&mut keys);
            for key in keys {
                let field = key.trim_start_matches('-').split('.').next().unwrap_or_default();
                if !ALWAYS_SENT.contains(&field) && !select.iter().any(|name| name == field) {
                    select.push(field.to_owned());
                }
            }
        }
        query
    }

    /// The query with additional conditions, kept separate from its own. Order and window are left out.
    pub(crate) fn restricted(&self, restrict: impl FnOnce(Self) -> Self) -> Self {
        let conditions = Self {
            class_name: self.class_name.clone(),
            filter: self.filter.clone(),
            allow_unsupported: self.allow_unsupported,
            error: self.error.clone(),
            ..Self::new("")
        };
        Self {
            select: self.select.clone(),
            include: self.include.clone(),
            ..Self::and([conditions, restrict(Self::new(self.class_name.as_str()))])
        }
    }

    /// The same query, with only these fields.
    pub(crate) fn of_fields(&self, names: &[&str]) -> Self {
        Self {
            select: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..self.clone()
        }
    }

    /// The selected fields, and the excluded ones.
    #[cfg(feature = "test-server")]
    pub(crate) fn projection(&self) -> (Option<&[String]>, &[String]) {
        (self.select.as_deref(), &self.exclude)
    }

    /// What `find()` sorts and counts by, for a live set, which does both itself.
    pub(crate) fn window(&self) -> Window<'_> {
        Window {
            order: self.order.as_deref().unwrap_or_default(),
            limit: self.limit,
            skip: self.skip,
        }
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
            combined.error = Some(invalid(format!("{method} got no queries to combine")));
        }
        combined.filter = Filter::logical(operator, filters);
        combined
    }

    fn add_order(mut self, sign: &str, keys: impl Keys) -> Self {
        let order = self.order.get_or_insert_default();
        for keys in keys.into_names() {
            // The JS SDK takes several names in one string.
            let keys: String = keys.split_whitespace().collect();
            order.extend(keys.split(',').map(|key| format!("{sign}{key}")));
        }
        self
    }

    /// The REST form, in the order of the JS SDK.
    fn rest_form(&self) -> Result<Json> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut members = vec![("where".to_owned(), self.filter.to_json())];
        let mut push = |name: &str, value: Option<Json>| {
            members.extend(value.map(|value| (name.to_owned(), value)));
        };
        let joined = |names: &[String]| Json::String(names.join(","));
        let unless_empty = |names: &[String]| (!names.is_empty()).then(|| joined(names));
        push("watch", unless_empty(&self.watch));
        push("include", unless_empty(&self.include));
        push("excludeKeys", unless_empty(&self.exclude));
        push("keys", self.select.as_deref().map(joined));
        push("limit", self.limit.map(|limit| Json::Number(limit.into())));
        push("skip", (self.skip > 0).then(|| Json::Number(self.skip.into())));
        push("order", self.order.as_deref().map(joined));
        members.extend(self.for_find.iter().cloned());
        Ok(Json::Object(members))
    }

    fn read_member(&mut self, name: &str, value: Json) -> Result<()> {
        let wrong = |value: &Json| invalid(format!("{name:?} of a query cannot be {value}"));
        let names = |value: &Json| {
            let text = value.as_str().ok_or_else(|| wrong(value))?;
            Ok(text.split(',').map(str::to_owned).collect::<Vec<_>>())
        };
        let count = |value: &Json| match value {
            Json::Number(number) => number.as_u64().ok_or_else(|| wrong(value)),
            _ => Err(wrong(value)),
        };
        match name {
            "where" => self.filter = Filter::from_json(value)?,
            "watch" => self.watch = names(&value)?,
            "include" => self.include = names(&value)?,
            "excludeKeys" => self.exclude = names(&value)?,
            "keys" => self.select = Some(names(&value)?),
            "order" => self.order = Some(names(&value)?),
            "limit" => self.limit = Some(count(&value)?),
            "skip" => self.skip = count(&value)?,
            "count"
            | "hint"
            | "comment"
            | "explain"
            | "readPreference"
            | "includeReadPreference"
            | "subqueryReadPreference" => self.for_find.push((name.to_owned(), value)),
            "className" if value.as_str() == Some(&self.class_name) => {}
            "redirectClassNameForKey" => {
                return Err(invalid(
                    "redirectClassNameForKey of a query would need another class",
                ));
            }
            _ => return Err(invalid(format!("a query has no member {name:?} here"))),
        }
        Ok(())
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
        let lost = [
            ("select", self.select.is_some()),
            ("exclude", !self.exclude.is_empty()),
            ("watch", !self.watch.is_empty()),
            ("include", !self.include.is_empty()),
            ("ascending or descending", self.order.is_some()),
            ("limit", self.limit.is_some()),
            ("skip", self.skip > 0),
        ];
        lost.iter().find(|(_, is_set)| *is_set).map(|(part, _)| {
            invalid(format!(
                "{part} of a query inside {method} would be lost: call it on the combined query"
            ))
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        if self.error.is_none() {
            self.error = change(&mut self).err();
        }
        self
    }
}

/// Decides whether objects match a query, as the LiveQuery server does.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    matcher: Matcher,
    select: Option<Vec<String>>,
    /// Whether a condition compares with a date.
    has_dates: bool,
}

impl Judge {
    /// `None` if the client cannot decide.
    pub(crate) fn matches(&self, object: &Object) -> Option<bool> {
        self.judge(object, |_, _| false)
    }

    /// The same for the object of an event. Parse Server 3.4 to 6.0 may send a date as plain text, although
    /// the server's matcher sees it as a date.
    pub(crate) fn matches_as_sent(&self, object: &Object) -> Option<bool> {
        self.judge(object, |name, value| {
            let is_plain = |text: &str| Date::parse(text).is_ok();
            self.has_dates && !ALWAYS_SENT.contains(&name) && value.as_str().is_some_and(is_plain)
        })
    }

    fn judge(&self, object: &Object, is_unclear: impl Fn(&str, &Value) -> bool) -> Option<bool> {
        let sent = |name: &str| {
            let selected = self
                .select
                .as_ref()
                .is_none_or(|keys| keys.iter().any(|key| key == name));
            selected || ALWAYS_SENT.contains(&name)
        };
        let verdict = self.matcher.matches(|name| match object.get(name) {
            Some(value) if is_unclear(name, value) => Field::Unknown,
            Some(value) => Field::Value(value),
            None if sent(name) => Field::Missing,
            None => Field::Unknown,
        });
        let may_match = verdict.may_be(Verdict::MATCH);
        (may_match != verdict.may_be(Verdict::NO_MATCH)).then_some(may_match)
    }
}

/// The form in which a query is sent to the server.
#[derive(Clone, Debug)]
pub(crate) struct EncodedQuery {
    pub(crate) class_name: Arc<str>,
    /// JSON text, in which the order of members matters.
    pub(crate) where_json: Box<str>,
    /// The JSON text of an array of distinct names.
    pub(crate) keys: Option<Box<str>>,
    /// The JSON text of an array of distinct names.
    pub(crate) watch: Option<Box<str>>,
    special: Option<Arc<Special>>,
}

/// Parts that only some queries have, behind one pointer, because there may be very many queries.
#[derive(Debug)]
enum Special {
    /// It is sent as the program wrote it, so the server may confuse it with another query.
    Verbatim,
    ByAge(ByAge),
}

impl EncodedQuery {
    pub(crate) fn is_verbatim(&self) -> bool {
        matches!(self.special.as_deref(), Some(Special::Verbatim))
    }

    /// What must be known of the server before this is sent; `None` for most queries, and if the program has
    /// named the server's version.
    pub(crate) fn by_age(&self) -> Option<&ByAge> {
        match self.special.as_deref() {
            Some(Special::ByAge(by_age)) => Some(by_age),
            _ => None,
        }
    }
}

/// A query whose meaning depends on the server's version, which was not known when it was encoded.
#[derive(Debug)]
pub(crate) struct ByAge {
    /// The oldest server that interprets its form correctly.
    pub(crate) since: ServerVersion,
    filter: Filter,
}

impl ByAge {
    /// The `where` for a server of this version, if it differs from that for a current one.
    ///
    /// # Errors
    ///
    /// If the server is, or may be, too old; with the version that would be needed.
    pub(crate) fn where_for(&self, age: Age) -> Result<Option<String>> {
        if age.reaches(self.since) {
            return Ok(None);
        }
        let target = Target {
            permissive: false,
            version: Some(age.at_least()),
        };
        let json = encode::encode(&self.filter, target)?;
        match version::needed(&json) {
            Some((since, what)) if !age.reaches(since) => Err(version::too_old(what, since, age)),
            _ => Ok(Some(json.to_string())),
        }
    }
}

impl EncodedQuery {
    /// The number of bytes that it occupies in a message.
    fn length(&self) -> usize {
        let names = |names: &Option<Box<str>>| names.as_ref().map_or(0, |names| names.len());
        self.class_name.len() + self.where_json.len() + names(&self.keys) + names(&self.watch)
    }
}

fn check_length(bytes: usize) -> Result<()> {
    if bytes <= LONGEST {
        return Ok(());
    }
    Err(invalid(format!(
        "the query is {bytes} bytes long, and a LiveQuery server accepts messages of up to 100 MiB: it \
         closes the connection on a longer one; ask for fewer values, or in several subscriptions"
    )))
}

/// What the WebSocket server of Parse Server accepts (the `ws` library, `maxPayload`), less some room for the
/// rest of the message.
const LONGEST: usize = 100 * 1024 * 1024 - 64 * 1024;

/// Which of the matching objects `find()` returns.
pub(crate) struct Window<'a> {
    /// Names of fields, with a minus sign before those whose greatest value comes first.
    pub(crate) order: &'a [String],
    pub(crate) limit: Option<u64>,
    pub(crate) skip: u64,
}

// Parse Server refuses a subscription with an empty or a repeated name (RequestSchema.js), and ignores names
// with dots (Client.js, _toJSONWithFields).
fn names(method: &str, names: Option<&[String]>) -> Result<Option<Box<str>>> {
    let Some(names) = names else {
        return Ok(None);
    };
    if names.is_empty() {
        return Err(invalid(format!("{method} got no field names")));
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

/// Fields that an object always has, whatever is selected (Parse Server 9.10, Client.js).
pub(crate) const ALWAYS_SENT: [&str; 5] = ["className", "objectId", "createdAt", "updatedAt", "ACL"];

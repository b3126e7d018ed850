//! The constraints of a query, named as in the JS SDK's `Parse.Query`. They only record what was asked for;
//! what LiveQuery makes of it is decided when the query is encoded.

use serde::Serialize;

use super::filter::method_of;
use super::ordered_json::Json;
use super::refuse::invalid;
use super::{Query, regex};
use crate::types::{GeoPoint, Pointer};

impl Query {
    /// The field equals the value, or is an array that contains it.
    ///
    /// `None` and null mean a field that is null or missing.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Pointer, Query};
    ///
    /// let query = Query::new("Game").equal_to("name", "go").equal_to("owner", Pointer::new("_User", "ann"));
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.with(|query| {
            let value = super::operand("equal_to", key, value)?;
            query.filter.equal(key, value)
        })
    }

    /// Each member of a struct or map equals its value: [`equal_to`](Self::equal_to) for several fields.
    ///
    /// ```
    /// use parse_livequery::Query;
    /// use serde_json::json;
    ///
    /// let query = Query::new("Game").equal_to_all(json!({"name": "Ann", "level": 3}));
    /// # let _ = query;
    /// ```
    #[must_use]
    pub fn equal_to_all(self, fields: impl Serialize) -> Self {
        self.fields("equal_to_all", fields, |query, key, value| {
            query.filter.equal(key, value)
        })
    }

    /// The field does not equal the value and is not an array that contains it; it may be missing.
    #[must_use]
    pub fn not_equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$ne", value)
    }

    /// No member of a struct or map equals its value: [`not_equal_to`](Self::not_equal_to) for several fields.
    #[must_use]
    pub fn not_equal_to_all(self, fields: impl Serialize) -> Self {
        self.fields("not_equal_to_all", fields, |query, key, value| {
            query.filter.operator(key, "$ne", value)
        })
    }

    /// The field is less than the value: a number, a string or a date.
    #[must_use]
    pub fn less_than(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$lt", value)
    }

    /// The field is less than the value or equal to it.
    #[must_use]
    pub fn less_than_or_equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$lte", value)
    }

    /// The field is greater than the value: a number, a string or a date.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").greater_than("score", 10).less_than_or_equal_to("score", 20);
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn greater_than(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$gt", value)
    }

    /// The field is greater than the value or equal to it.
    #[must_use]
    pub fn greater_than_or_equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$gte", value)
    }

    /// The field equals one of the values, or is an array that contains one of them.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").contained_in("name", ["chess", "go"]);
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn contained_in<V: Serialize>(self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.list(key, "$in", values)
    }

    /// The field equals none of the values and is not an array that contains one of them; it may be missing.
    #[must_use]
    pub fn not_contained_in<V: Serialize>(self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.list(key, "$nin", values)
    }

    /// The field is an array whose elements are all among the values: strings, numbers, booleans or pointers.
    ///
    /// As in `find()` on MongoDB, a field that is missing or not an array matches as well: it has no
    /// element outside the values.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses values of other types, because the LiveQuery server does not find them inside an
    /// array, and other conditions on the same field: "beside other conditions on the same field, Parse
    /// Server asks its database for something else; combine two queries with Query::and".
    #[must_use]
    pub fn contained_by<V: Serialize>(self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.list(key, "$containedBy", values)
    }

    /// The field is an array that contains all of the values: strings, numbers, booleans or pointers.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses values of other types, because the LiveQuery server does not find them inside an
    /// array.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").contains_all("tags", ["quick", "new"]);
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn contains_all<V: Serialize>(self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.list(key, "$all", values)
    }

    /// The field is an array in which, for each of the texts, some element starts with it.
    ///
    /// Works in `find()` only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server looks for the expression itself in the array, so it never
    /// matches; test the array in the listener".
    #[must_use]
    pub fn contains_all_starting_with<S: AsRef<str>>(
        self,
        key: &str,
        prefixes: impl IntoIterator<Item = S>,
    ) -> Self {
        let prefixes = prefixes
            .into_iter()
            .map(|prefix| Json::member("$regex", Json::String(regex::starting_with(prefix.as_ref()))));
        self.list(key, "$all", prefixes)
    }

    /// The field has a value, which may be null.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").exists("score").does_not_exist("finishedAt");
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn exists(self, key: &str) -> Self {
        self.condition(key, "$exists", true)
    }

    /// The field is missing.
    #[must_use]
    pub fn does_not_exist(self, key: &str) -> Self {
        self.condition(key, "$exists", false)
    }

    /// The field is a string that matches the regular expression.
    ///
    /// The modifiers are any of `i` (ignore case), `m` (`^` and `$` match at each line) and `s` (a dot
    /// matches a line break), or an empty string. `find()` takes PCRE expressions and LiveQuery JavaScript
    /// ones, so the expression must mean the same in both. `\Q..\E` is translated.
    ///
    /// A field can have one regular expression; [`contains`](Self::contains),
    /// [`starts_with`](Self::starts_with) and [`ends_with`](Self::ends_with) count as one. Parse Server 8.6
    /// and 9.10 (but not 9.0) treat an expression that is slow to match (`liveQuery.regexTimeout`, 100 ms) as
    /// one that does not match; `starts_with` is sent as a comparison and is not affected.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses, with the position, anything that JavaScript does not know or reads differently
    /// from PCRE: `\A`, `\z`, `\p{..}`, `(?i)`, POSIX classes, possessive and atomic groups, references to
    /// groups, and text that is not a valid expression. It refuses other modifiers: "the LiveQuery server
    /// takes the modifiers of JavaScript, where it is unknown or means something else; use only i, m and s".
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").matches("name", "^(chess|go)$", "i");
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn matches(self, key: &str, pattern: &str, modifiers: &str) -> Self {
        let modifiers = (!modifiers.is_empty()).then(|| Json::string(modifiers));
        self.with(|query| query.filter.regex(key, Json::string(pattern), modifiers))
    }

    /// The field is a string that contains this text.
    #[must_use]
    pub fn contains(self, key: &str, substring: &str) -> Self {
        self.matches(key, &regex::quote(substring), "")
    }

    /// The field is a string that begins with this text.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Query;
    ///
    /// let query = Query::new("Game").starts_with("name", "ch");
    /// # query.live_query_where().unwrap();
    /// ```
    #[must_use]
    pub fn starts_with(self, key: &str, prefix: &str) -> Self {
        self.starts_with_modifiers(key, prefix, "")
    }

    /// Like [`starts_with`](Self::starts_with), with the modifiers of [`matches`](Self::matches).
    #[must_use]
    pub fn starts_with_modifiers(self, key: &str, prefix: &str, modifiers: &str) -> Self {
        self.matches(key, &regex::starting_with(prefix), modifiers)
    }

    /// The field is a string that ends with this text.
    #[must_use]
    pub fn ends_with(self, key: &str, suffix: &str) -> Self {
        self.ends_with_modifiers(key, suffix, "")
    }

    /// Like [`ends_with`](Self::ends_with), with the modifiers of [`matches`](Self::matches).
    #[must_use]
    pub fn ends_with_modifiers(self, key: &str, suffix: &str, modifiers: &str) -> Self {
        self.matches(key, &format!("{}$", regex::quote(suffix)), modifiers)
    }

    /// The field contains these words, according to the database's text index.
    ///
    /// Works in `find()` only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server has no text index, so it never matches; use contains or matches,
    /// or test the text in the listener".
    #[must_use]
    pub fn full_text(self, key: &str, term: &str) -> Self {
        self.full_text_with(key, term, Json::Object(Vec::new()))
    }

    /// Like [`full_text`](Self::full_text), with options: `{"language": "en", "caseSensitive": true,
    /// "diacriticSensitive": true}`, each of which may be left out.
    ///
    /// # Errors
    ///
    /// As for `full_text`.
    #[must_use]
    pub fn full_text_with(self, key: &str, term: &str, options: impl Serialize) -> Self {
        let search = Json::of(options)
            .map_err(|error| super::not_serialized(key, &error))
            .and_then(|options| {
                let Json::Object(options) = options else {
                    return Err(invalid("the options of full_text are not a JSON object"));
                };
                let mut search = vec![("$term".to_owned(), Json::string(term))];
                for (name, value) in options {
                    if !matches!(name.as_str(), "language" | "caseSensitive" | "diacriticSensitive") {
                        return Err(invalid(format!("full_text has no option {name:?}")));
                    }
                    search.push((format!("${name}"), value));
                }
                Ok(Json::member("$search", Json::Object(search)))
            });
        self.with(|query| {
            if term.is_empty() {
                return Err(invalid(format!(
                    "full_text on {key:?} has no words to search for"
                )));
            }
            query.filter.operator(key, "$text", search?)
        })
    }

    /// The field is a [`GeoPoint`], however far away. `find()` returns the nearest objects first; events have no order.
    #[must_use]
    pub fn near(self, key: &str, point: GeoPoint) -> Self {
        self.condition(key, "$nearSphere", point)
    }

    /// The field is a [`GeoPoint`] at most this far away, as an angle on the sphere.
    ///
    /// `sorted` affects only `find()`, which then returns the nearest objects first; events have no order.
    #[must_use]
    pub fn within_radians(self, key: &str, point: GeoPoint, max_distance: f64, sorted: bool) -> Self {
        if sorted {
            self.near(key, point).condition(key, "$maxDistance", max_distance)
        } else {
            let center = [point.longitude(), point.latitude()];
            let sphere = Json::of((center, max_distance));
            self.with(|query| {
                let sphere = sphere.map_err(|error| super::not_serialized(key, &error))?;
                query
                    .filter
                    .operator(key, "$geoWithin", Json::member("$centerSphere", sphere))
            })
        }
    }

    /// Like [`within_radians`](Self::within_radians), in miles on an earth with a radius of 3958.8 miles.
    #[must_use]
    pub fn within_miles(self, key: &str, point: GeoPoint, max_distance: f64, sorted: bool) -> Self {
        self.within_radians(key, point, max_distance / 3958.8, sorted)
    }

    /// Like [`within_radians`](Self::within_radians), in kilometres on an earth with a radius of 6371 km.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{GeoPoint, Query};
    ///
    /// let here = GeoPoint::new(40.5, -74.0)?;
    /// let query = Query::new("Game").within_kilometers("place", here, 10.0, false);
    /// # query.live_query_where().unwrap();
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    #[must_use]
    pub fn within_kilometers(self, key: &str, point: GeoPoint, max_distance: f64, sorted: bool) -> Self {
        self.within_radians(key, point, max_distance / 6371.0, sorted)
    }

    /// The field is a [`GeoPoint`] between these two corners, borders included.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses a box across the date line: "the box crosses the date line or its corners are not the
    /// southwest and the northeast one, so it contains nothing; divide it at the date line into two boxes and combine
    /// them with Query::or".
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{GeoPoint, Query};
    ///
    /// let (southwest, northeast) = (GeoPoint::new(40.0, -75.0)?, GeoPoint::new(41.0, -74.0)?);
    /// let query = Query::new("Game").within_geo_box("place", southwest, northeast);
    /// # query.live_query_where().unwrap();
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    #[must_use]
    pub fn within_geo_box(self, key: &str, southwest: GeoPoint, northeast: GeoPoint) -> Self {
        let corners = Json::of([southwest, northeast]);
        self.with(|query| {
            let corners = corners.map_err(|error| super::not_serialized(key, &error))?;
            query
                .filter
                .operator(key, "$within", Json::member("$box", corners))
        })
    }

    /// The field is a [`GeoPoint`] inside the polygon with these corners, of which there must be at least three.
    #[must_use]
    pub fn within_polygon(self, key: &str, corners: impl IntoIterator<Item = GeoPoint>) -> Self {
        let corners = Json::of(corners.into_iter().collect::<Vec<_>>());
        self.with(|query| {
            let corners = corners.map_err(|error| super::not_serialized(key, &error))?;
            query
                .filter
                .operator(key, "$geoWithin", Json::member("$polygon", corners))
        })
    }

    /// The field is a [`Polygon`](crate::Polygon) around this point.
    #[must_use]
    pub fn polygon_contains(self, key: &str, point: GeoPoint) -> Self {
        let point = Json::of(point);
        self.with(|query| {
            let point = point.map_err(|error| super::not_serialized(key, &error))?;
            query
                .filter
                .operator(key, "$geoIntersects", Json::member("$point", point))
        })
    }

    /// The field is a pointer to an object that the other query finds.
    ///
    /// Works in `find()` and in live sets only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server looks only at the changed object, so it never
    /// matches; store the deciding value in the object itself, or test it in the listener".
    #[must_use]
    pub fn matches_query(self, key: &str, query: Self) -> Self {
        self.subquery(key, "$inQuery", None, query)
    }

    /// The field is not a pointer to an object that the other query finds.
    ///
    /// Works in `find()` and in live sets only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server looks only at the changed object, so it never
    /// matches; store the deciding value in the object itself, or test it in the listener".
    #[must_use]
    pub fn does_not_match_query(self, key: &str, query: Self) -> Self {
        self.subquery(key, "$notInQuery", None, query)
    }

    /// The field equals the field `query_key` of an object that the other query finds.
    ///
    /// Works in `find()` and in live sets only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server looks only at the changed object, so it never
    /// matches; store the deciding value in the object itself, or test it in the listener".
    #[must_use]
    pub fn matches_key_in_query(self, key: &str, query_key: &str, query: Self) -> Self {
        self.subquery(key, "$select", Some(query_key), query)
    }

    /// The field does not equal the field `query_key` of any object that the other query finds.
    ///
    /// Works in `find()` and in live sets only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server looks only at the changed object, so it never
    /// matches; store the deciding value in the object itself, or test it in the listener".
    #[must_use]
    pub fn does_not_match_key_in_query(self, key: &str, query_key: &str, query: Self) -> Self {
        self.subquery(key, "$dontSelect", Some(query_key), query)
    }

    /// The object is in the relation that this field of the owner holds: the query that `relation.query()`
    /// makes in the JS SDK.
    ///
    /// Works in `find()` and in live sets only.
    ///
    /// # Errors
    ///
    /// `subscribe` refuses it: "the LiveQuery server looks only at the changed object, so it never
    /// matches; keep a pointer in the related object, or an array of pointers instead of the relation".
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Pointer, Query};
    ///
    /// let players = Query::new("Player").related_to(&Pointer::new("Game", "g1"), "players");
    /// assert!(players.to_json()?.contains(r#""$relatedTo":{"object":"#));
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    #[must_use]
    pub fn related_to(self, owner: &Pointer, key: &str) -> Self {
        let owner = Json::of(owner);
        self.with(|query| {
            let owner = owner.map_err(|error| super::not_serialized(key, &error))?;
            let related = vec![
                ("object".to_owned(), owner),
                ("key".to_owned(), Json::string(key)),
            ];
            query.filter.special("$relatedTo", Json::Object(related))
        })
    }

    fn condition(self, key: &str, operator: &'static str, value: impl Serialize) -> Self {
        self.with(|query| {
            let value = super::operand(method_of(operator), key, value)?;
            query.filter.operator(key, operator, value)
        })
    }

    fn list<V: Serialize>(
        self,
        key: &str,
        operator: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values: Vec<V> = values.into_iter().collect();
        self.condition(key, operator, values)
    }

    fn fields(
        self,
        method: &str,
        fields: impl Serialize,
        add: impl Fn(&mut Self, &str, Json) -> crate::error::Result<()>,
    ) -> Self {
        self.with(|query| {
            let fields = Json::of(fields).map_err(|error| super::not_serialized(method, &error))?;
            let Json::Object(fields) = fields else {
                return Err(invalid(format!(
                    "{method} needs a struct or a map with the names of fields, and got {fields}"
                )));
            };
            fields
                .into_iter()
                .try_for_each(|(key, value)| add(query, &key, value))
        })
    }

    // In the JS SDK's order: the members of the other query, then its class.
    fn subquery(self, key: &str, operator: &'static str, query_key: Option<&str>, other: Self) -> Self {
        self.with(|query| {
            let Json::Object(mut members) = other.rest_form()? else {
                return Ok(());
            };
            members.push(("className".to_owned(), Json::String(other.class_name)));
            let subquery = Json::Object(members);
            let value = match query_key {
                Some(query_key) => Json::Object(vec![
                    ("key".to_owned(), Json::string(query_key)),
                    ("query".to_owned(), subquery),
                ]),
                None => subquery,
            };
            query.filter.operator(key, operator, value)
        })
    }
}

//! Whether an object matches a `where`, exactly as the LiveQuery server decides it. Must not know how a query
//! was built, or where the object comes from.
//!
//! A port of `QueryTools.matchesQuery` of Parse Server 9.10 with its quirks, since the question is never what
//! a query should mean but what the server does with it: a range matches an object that lacks the field,
//! conditions are evaluated in the order of the text, and some of them end the evaluation. Where JavaScript
//! cannot be imitated by simple means, the answer is that both results are possible, never a guess.

mod compile;
#[cfg(feature = "test-server")]
pub(crate) mod engine;
mod js;
pub(crate) mod regex;

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;

use serde_json::Value;

use js::{Left, Right};

use super::ordered_json::Json;

/// A `where`, prepared once and then tested against many objects.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    query: Query,
    /// Whether some field is named both whole and by a dotted key below it. The server's matcher turns a date
    /// into a `Date` in place when its key is read, so the answers for such keys depend on each other.
    overlapping: bool,
}

/// The result of [`Matcher::matches`]: the possible answers of the server's matcher. There is only one,
/// unless something cannot be known here: a regular expression beyond the quoted forms, a field that was not
/// sent, a date in some local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict(u8);

/// The state of a field, as [`Matcher::matches`] gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    /// Its value.
    Value(&'a Value),
    /// The object has no such field.
    Missing,
    /// The object was sent without the field, as by a `select`: it may exist or not.
    Unknown,
}

impl Matcher {
    /// Prepares the text of a `where`. The order of its members counts.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(|json| Self::new(&json))
    }

    /// Like [`parse`](Self::parse), for a `where` that is parsed already.
    pub(crate) fn new(json: &Json) -> Self {
        let query = compile::query(json);
        let overlapping = compile::overlapping(&query);
        Self { query, overlapping }
    }

    /// Whether an object matches whose fields `field` looks up. Only the top-level fields that the query
    /// names are looked up, and only until the answer is clear.
    pub(crate) fn matches<'a>(&self, field: impl Fn(&str) -> Field<'a>) -> Verdict {
        let evaluation = Evaluation {
            field: &field,
            dates: self.overlapping.then(RefCell::default),
        };
        evaluation.query(&self.query)
    }

    /// Like [`matches`](Self::matches), for a whole object.
    #[cfg(any(test, feature = "test-server"))]
    pub(crate) fn matches_object(&self, object: &serde_json::Map<String, Value>) -> Verdict {
        self.matches(|name| object.get(name).map_or(Field::Missing, Field::Value))
    }
}

/// Clauses that must all hold, in the order of the text.
type Query = Vec<Clause>;

#[derive(Clone, Debug)]
enum Clause {
    Or(Vec<Query>),
    And(Vec<Query>),
    Nor(Vec<Query>),
    Field(Path, Test),
    Fixed(Verdict),
}

/// A key of the query, split at its dots.
#[derive(Clone, Debug)]
struct Path {
    key: Box<str>,
    /// The length of the top-level field's name.
    root: usize,
}

#[derive(Clone, Debug)]
enum Test {
    /// A string, number or boolean: equal, or contained in an array.
    Primitive(Value),
    /// A pointer: the same, or contained in an array.
    Pointer {
        class_name: Option<Value>,
        object_id: Option<Value>,
    },
    /// Any other tagged value: equal, or contained in an array.
    Equal(Right),
    /// `$`-conditions, in the order of the text.
    Conditions(Vec<Condition>),
}

#[derive(Clone, Debug)]
enum Condition {
    Less(Right),
    LessOrEqual(Right),
    Greater(Right),
    GreaterOrEqual(Right),
    Equal(Right),
    NotEqual(Right),
    In(Value),
    NotIn(Value),
    All(Vec<Value>),
    Exists(bool),
    Regex(regex::Pattern),
    Near {
        /// `None`: the operand is not a point, which the server notices when it measures the distance.
        center: Option<(f64, f64)>,
        max_distance: Value,
    },
    WithinBox(Option<[Value; 2]>),
    ContainedBy(Value),
    WithinPolygon(Option<Vec<(f64, f64)>>),
    WithinSphere(Option<((f64, f64), Value)>),
    Intersects(Option<(f64, f64)>),
    Fixed(Verdict),
}

impl Verdict {
    /// The object matches.
    pub(crate) const MATCH: Self = Self(1);
    /// The object does not match.
    pub(crate) const NO_MATCH: Self = Self(2);
    /// The server's matcher throws: Parse Server 9.10 logs it and skips the subscription for this change.
    pub(crate) const THROWS: Self = Self(4);
    /// Either a match or not.
    const UNKNOWN: Self = Self(1 | 2);
    const ANYTHING: Self = Self(1 | 2 | 4);

    /// Whether an answer is possible.
    pub(crate) fn may_be(self, answer: Self) -> bool {
        self.0 & answer.0 != 0
    }

    fn of(holds: bool) -> Self {
        if holds { Self::MATCH } else { Self::NO_MATCH }
    }

    fn not(self) -> Self {
        Self(self.0 & Self::THROWS.0 | (self.0 & 1) << 1 | (self.0 & 2) >> 1)
    }

    /// For conditions that must all hold: the first that does not is the answer, and later ones are not
    /// evaluated.
    fn all(verdicts: impl Iterator<Item = Self>) -> Self {
        let mut possible = 0;
        for verdict in verdicts {
            possible |= verdict.0 & !Self::MATCH.0;
            if !verdict.may_be(Self::MATCH) {
                return Self(possible);
            }
        }
        Self(possible | Self::MATCH.0)
    }

    /// For conditions of which one must hold, in the same way.
    fn any(verdicts: impl Iterator<Item = Self>) -> Self {
        Self::all(verdicts.map(Self::not)).not()
    }
}

struct Evaluation<'f, F> {
    field: &'f F,
    /// The keys that held a date so far, if that can matter.
    dates: Option<RefCell<Vec<&'f str>>>,
}

impl<'a, 'f, F: Fn(&str) -> Field<'a>> Evaluation<'f, F> {
    fn query(&self, query: &'f Query) -> Verdict {
        Verdict::all(query.iter().map(|clause| self.clause(clause)))
    }

    fn clause(&self, clause: &'f Clause) -> Verdict {
        match clause {
            Clause::And(queries) => Verdict::all(queries.iter().map(|query| self.query(query))),
            Clause::Or(queries) => Verdict::any(queries.iter().map(|query| self.query(query))),
            Clause::Nor(queries) => Verdict::any(queries.iter().map(|query| self.query(query))).not(),
            Clause::Fixed(verdict) => *verdict,
            Clause::Field(path, test) => match self.look_up(path) {
                Some(left) => test.verdict(&left),
                None => Verdict::ANYTHING,
            },
        }
    }

    fn look_up(&self, path: &'f Path) -> Option<Left<'a>> {
        let (root, rest) = path.key.split_at_checked(path.root)?;
        let root = match (self.field)(root) {
            Field::Value(value) => Some(Cow::Borrowed(value)),
            Field::Missing => None,
            Field::Unknown => return None,
        };
        if let Some(dates) = &self.dates {
            let dates = dates.borrow();
            let below = |date: &&&str| nested(date, &path.key) && path.key.starts_with(**date);
            if let Some(date) = dates.iter().find(below) {
                return member_of_date(path.key.strip_prefix(*date)?);
            }
        }
        let (fields, method) = split_method(rest);
        let mut value = root;
        for name in fields.split('.').skip(1) {
            // `object[key] || {}`: a falsy value has no members of its own.
            value = js::member_or_inherited(value.filter(|value| js::truthy(value)), name);
        }
        if let Some(method) = method {
            value = js::name_of_method(value.filter(|value| js::truthy(value)), method);
        }
        let mut left = js::left(value)?;
        if let Some(dates) = &self.dates {
            for date in dates.borrow().iter().filter(|date| nested(date, &path.key)) {
                left = left.with_date_at(date.strip_prefix(&*path.key)?)?;
            }
        }
        if let (Some(dates), Left::Date(_)) = (&self.dates, &left) {
            dates.borrow_mut().push(&path.key);
        }
        Some(left)
    }
}

/// The value below a `Date`, for the members that the encoder tests. `None` for all others.
fn member_of_date(path: &str) -> Option<Left<'static>> {
    let function = |name| Some(Left::Value(Cow::Owned(Value::from(name))));
    match path {
        ".getTime" | ".getTime.name" => function("getTime"),
        ".toString.name" => function("toString"),
        ".__type" | ".iso" | ".length" | ".0" | ".base64" | ".charAt.name" | ".push.name" => {
            Some(Left::Undefined)
        }
        _ => None,
    }
}

/// The method that the path ends with, for those that the encoder tests, and the path before it.
fn split_method(path: &str) -> (&str, Option<&str>) {
    path.strip_suffix(".name")
        .and_then(|path| path.rsplit_once('.'))
        .filter(|(_, method)| js::METHODS.contains(method))
        .map_or((path, None), |(fields, method)| (fields, Some(method)))
}

/// Whether one of two different keys lies below the other.
fn nested(one: &str, other: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    below(one, other) || below(other, one)
}

impl Test {
    fn verdict(&self, left: &Left<'_>) -> Verdict {
        match self {
            Self::Primitive(value) => Verdict::of(match left.as_value() {
                Some(Value::Array(items)) => items.iter().any(|item| js::same(item, value)),
                Some(other) => js::same(other, value),
                None => false,
            }),
            Self::Pointer {
                class_name,
                object_id,
            } => any_item(left, |left| {
                let value = match left {
                    Left::Undefined => return Verdict::NO_MATCH,
                    Left::Date(_) => return Verdict::of(class_name.is_none() && object_id.is_none()),
                    Left::Value(value) => value,
                };
                if value.is_null() {
                    return Verdict::THROWS;
                }
                Verdict::of(
                    js::same_member(value, "className", class_name.as_ref())
                        && js::same_member(value, "objectId", object_id.as_ref()),
                )
            }),
            Self::Equal(right) => any_item(left, |left| js::equal(left, right)),
            Self::Conditions(conditions) => {
                Verdict::all(conditions.iter().map(|condition| condition.verdict(left)))
            }
        }
    }
}

/// `equalObjectsGeneric`: an array is tested item by item.
fn any_item(left: &Left<'_>, test: impl Fn(&Left<'_>) -> Verdict) -> Verdict {
    match left.as_value() {
        Some(Value::Array(items)) => {
            Verdict::any(items.iter().map(|item| test(&Left::Value(Cow::Borrowed(item)))))
        }
        _ => test(left),
    }
}

impl Condition {
    fn verdict(&self, left: &Left<'_>) -> Verdict {
        use Ordering::{Equal, Greater, Less};
        // The server tests the opposite, and values that cannot be compared are neither: a missing field
        // passes.
        let unless = |right: &Right, orderings: &[Ordering]| {
            Verdict::of(!js::compare(left, right).is_some_and(|ordering| orderings.contains(&ordering)))
        };
        match self {
            Self::Less(_)
            | Self::LessOrEqual(_)
            | Self::Greater(_)
            | Self::GreaterOrEqual(_)
            | Self::Regex(_)
                if left.text_has_date() =>
            {
                Verdict::UNKNOWN
            }
            Self::Less(right) => unless(right, &[Greater, Equal]),
            Self::LessOrEqual(right) => unless(right, &[Greater]),
            Self::Greater(right) => unless(right, &[Less, Equal]),
            Self::GreaterOrEqual(right) => unless(right, &[Less]),
            Self::Equal(right) => js::equal(left, right),
            Self::NotEqual(right) => js::equal(left, right).not(),
            Self::In(list) => js::contains(list, left),
            Self::NotIn(list) => js::contains(list, left).not(),
            Self::All(items) => contains_all(left, items),
            Self::Exists(wanted) => Verdict::of(matches!(left, Left::Undefined) != *wanted),
            Self::Regex(pattern) => match left.text() {
                Some(text) => Verdict::of(pattern.is_match(&text)),
                None => Verdict::UNKNOWN,
            },
            Self::Fixed(verdict) => *verdict,
            Self::Near { center, max_distance } => near(left, *center, max_distance),
            Self::WithinBox(corners) => within_box(left, corners.as_ref()),
            Self::ContainedBy(list) => contained_by(left, list),
            Self::WithinPolygon(corners) => within_polygon(left, corners.as_deref()),
            Self::WithinSphere(sphere) => within_sphere(left, sphere.as_ref()),
            Self::Intersects(point) => intersects(left, *point),
        }
    }
}

fn contains_all(left: &Left<'_>, items: &[Value]) -> Verdict {
    if !left.truthy() {
        return Verdict::NO_MATCH;
    }
    Verdict::all(items.iter().map(|item| match left.as_value() {
        Some(Value::Array(held)) => Verdict::of(held.iter().any(|held| js::same(held, item))),
        Some(Value::String(text)) => Verdict::of(text.contains(&*js::text(item))),
        // Nothing else has an `indexOf`.
        _ => Verdict::THROWS,
    }))
}

fn contained_by(left: &Left<'_>, list: &Value) -> Verdict {
    let contained = |item: &Value| js::contains(list, &Left::Value(Cow::Borrowed(item)));
    match left.as_value() {
        Some(Value::Array(items)) => Verdict::all(items.iter().map(contained)),
        Some(Value::String(text)) => Verdict::all(
            text.chars()
                .map(|character| contained(&Value::String(character.into()))),
        ),
        // Nothing else is iterable.
        _ => Verdict::THROWS,
    }
}

fn near(left: &Left<'_>, center: Option<(f64, f64)>, max_distance: &Value) -> Verdict {
    if !left.truthy() {
        return Verdict::NO_MATCH;
    }
    let Some(center) = center else {
        return Verdict::THROWS;
    };
    let distance = js::radians(center, left.coordinates());
    Verdict::of(at_most(distance, max_distance))
}

fn at_most(distance: f64, max_distance: &Value) -> bool {
    js::number(max_distance).is_some_and(|max_distance| distance <= max_distance)
}

fn within_box(left: &Left<'_>, corners: Option<&[Value; 2]>) -> Verdict {
    if !left.truthy() {
        return Verdict::NO_MATCH;
    }
    let Some([south_west, north_east]) = corners else {
        return Verdict::THROWS;
    };
    let order = |one: Option<Cow<'_, Value>>, other: Option<Cow<'_, Value>>| {
        js::compare_values(one.as_deref(), other.as_deref())
    };
    let side =
        |corner| ["latitude", "longitude"].map(|name| js::member(Cow::<Value>::Borrowed(corner), name));
    let [south, west] = side(south_west);
    let [north, east] = side(north_east);
    if order(south.clone(), north.clone()) == Some(Ordering::Greater)
        || order(west.clone(), east.clone()) == Some(Ordering::Greater)
    {
        return Verdict::NO_MATCH;
    }
    let held = |name| {
        left.as_value()
            .and_then(|value| js::member(Cow::Borrowed(value), name))
    };
    let inside = |held: Option<Cow<'_, Value>>, low, high| {
        order(held.clone(), low) == Some(Ordering::Greater) && order(held, high) == Some(Ordering::Less)
    };
    Verdict::of(inside(held("latitude"), south, north) && inside(held("longitude"), west, east))
}

fn within_polygon(left: &Left<'_>, corners: Option<&[(f64, f64)]>) -> Verdict {
    match (corners, left.as_value()) {
        (None, _) | (_, Some(Value::Null)) => Verdict::THROWS,
        _ if matches!(left, Left::Undefined) => Verdict::THROWS,
        (Some(corners), _) => Verdict::of(js::polygon_contains(corners, left.coordinates())),
    }
}

fn within_sphere(left: &Left<'_>, sphere: Option<&((f64, f64), Value)>) -> Verdict {
    let point = match left {
        Left::Date(_) => None,
        // `new GeoPoint(undefined)` is the point (0, 0): a missing field lies in the Gulf of Guinea.
        Left::Undefined => Some((0.0, 0.0)),
        Left::Value(value) => js::geo_point(value),
    };
    match (point, sphere) {
        (Some(point), Some((center, max_distance))) => {
            Verdict::of(at_most(js::radians(point, *center), max_distance))
        }
        _ => Verdict::THROWS,
    }
}

fn intersects(left: &Left<'_>, point: Option<(f64, f64)>) -> Verdict {
    let corners = left
        .as_value()
        .and_then(|value| js::member(Cow::Borrowed(value), "coordinates"))
        .and_then(|coordinates| js::polygon(&coordinates));
    match (corners, point) {
        (Some(corners), Some(point)) => Verdict::of(js::polygon_contains(&corners, point)),
        _ => Verdict::THROWS,
    }
}

// `tests/parse_server/matcher.rs` compares the semantics with the server's own matcher on random pairs. These
// tests cover the rest: what is unknown, and which fields are looked up.
#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    fn verdict(condition: &str, object: &Value) -> Verdict {
        Matcher::parse(condition)
            .unwrap()
            .matches_object(object.as_object().unwrap())
    }

    /// With the field `u` unknown.
    fn verdict_without(condition: &str, object: &Value) -> Verdict {
        Matcher::parse(condition)
            .unwrap()
            .matches(|name| match (name, object.get(name)) {
                ("u", _) => Field::Unknown,
                (_, Some(value)) => Field::Value(value),
                (_, None) => Field::Missing,
            })
    }

    #[test]
    fn conditions_are_taken_in_the_order_of_the_text() {
        let object = json!({ "tags": [1] });
        assert_eq!(
            verdict(r#"{"tags":{"$containedBy":[1],"$nin":[1]}}"#, &object),
            Verdict::MATCH
        );
        assert_eq!(
            verdict(r#"{"tags":{"$nin":[1],"$containedBy":[1]}}"#, &object),
            Verdict::NO_MATCH
        );
        assert_eq!(
            verdict(r#"{"tags":{"$containedBy":[1]}}"#, &json!({})),
            Verdict::THROWS
        );
    }

    #[test]
    fn a_range_matches_what_is_missing_unless_it_is_guarded() {
        assert_eq!(verdict(r#"{"n":{"$lt":6}}"#, &json!({})), Verdict::MATCH);
        assert_eq!(
            verdict(r#"{"n":{"$exists":true,"$nin":[null],"$lt":6}}"#, &json!({})),
            Verdict::NO_MATCH
        );
        assert_eq!(
            verdict(
                r#"{"n":{"$exists":true,"$nin":[null],"$lt":6}}"#,
                &json!({ "n": 5 })
            ),
            Verdict::MATCH
        );
    }

    #[test]
    fn quoted_expressions_are_judged_and_others_are_not() {
        let object = json!({ "s": "a.Bc" });
        for (expression, options, expected) in [
            (r"^\\Qa.\\E", "", Verdict::MATCH),
            (r"^\\QA.b\\E", "", Verdict::NO_MATCH),
            (r"^\\QA.b\\E", "i", Verdict::MATCH),
            (r"\\QBc\\E$", "", Verdict::MATCH),
            (r"\\Q.B\\E", "", Verdict::MATCH),
            (r"\\Qxx\\E", "", Verdict::NO_MATCH),
            (r"^a\\.\\x42", "", Verdict::MATCH),
            // Those need an engine, which the feature `test-server` provides.
            #[cfg(feature = "test-server")]
            ("a.B", "", Verdict::MATCH),
            #[cfg(feature = "test-server")]
            ("[b-z]{2}$", "u", Verdict::NO_MATCH),
            #[cfg(not(feature = "test-server"))]
            ("a.c", "", Verdict::UNKNOWN),
            ("a", "x", Verdict::NO_MATCH),
        ] {
            let condition = format!(r#"{{"s":{{"$regex":"{expression}","$options":"{options}"}}}}"#);
            assert_eq!(verdict(&condition, &object), expected, "{condition}");
        }
    }

    #[test]
    fn an_unknown_field_leaves_open_only_what_depends_on_it() {
        let object = json!({ "n": 1 });
        for (condition, expected) in [
            (r#"{"u":1}"#, Verdict::ANYTHING),
            (r#"{"n":2,"u":1}"#, Verdict::NO_MATCH),
            (r#"{"$or":[{"n":1},{"u":1}]}"#, Verdict::MATCH),
            (r#"{"n":1,"u.deep":1}"#, Verdict::ANYTHING),
            (r#"{"n":1}"#, Verdict::MATCH),
        ] {
            assert_eq!(verdict_without(condition, &object), expected, "{condition}");
        }
        // Whatever the field is, there is no match or the matcher throws: no event either way.
        assert!(!verdict_without(r#"{"u":1,"n":2}"#, &object).may_be(Verdict::MATCH));
    }

    #[test]
    fn fields_are_looked_up_by_their_first_name_and_only_while_the_answer_is_open() {
        let asked = RefCell::new(Vec::new());
        let matcher = Matcher::parse(r#"{"a.b.c":{"$exists":true},"d":1,"e":2}"#).unwrap();
        let a = json!({ "b": { "c": null } });
        let verdict = matcher.matches(|name| {
            asked.borrow_mut().push(name.to_owned());
            if name == "a" {
                Field::Value(&a)
            } else {
                Field::Missing
            }
        });
        assert_eq!(verdict, Verdict::NO_MATCH);
        assert_eq!(asked.into_inner(), ["a", "d"]);
    }

    #[test]
    fn a_field_and_a_key_below_it_depend_on_each_other_if_they_hold_dates() {
        // The known answers are those of Parse Server 9.10's own matcher.
        let date = json!({"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"});
        let object = json!({"tags": [date], "obj": {"x": date, "n": 1}});
        for (text, expected) in [
            (
                r#"{"tags":{"$eq":[DATE]},"tags.0":{"$exists":true}}"#,
                Verdict::MATCH,
            ),
            (
                r#"{"tags.0":{"$exists":true},"tags":{"$eq":[DATE]}}"#,
                Verdict::NO_MATCH,
            ),
            (
                r#"{"tags.0":{"$exists":true},"tags":{"$eq":[null]}}"#,
                Verdict::NO_MATCH,
            ),
            (
                r#"{"tags.0":{"$exists":true},"tags":{"$all":[]}}"#,
                Verdict::MATCH,
            ),
            (
                r#"{"obj.x":{"$exists":true},"obj":{"$eq":{"x":DATE,"n":1}}}"#,
                Verdict::NO_MATCH,
            ),
            (r#"{"obj.x":{"$exists":true},"obj":{"$lt":"a"}}"#, Verdict::MATCH),
            (r#"{"obj.n":1,"obj":{"$eq":{"n":1}}}"#, Verdict::NO_MATCH),
            // The text of a date is in the server's time zone.
            (
                r#"{"tags.0":{"$exists":true},"tags":{"$gt":"T"}}"#,
                Verdict::UNKNOWN,
            ),
        ] {
            let text = text.replace("DATE", &date.to_string());
            assert_eq!(verdict(&text, &object), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        assert!(Matcher::parse("{").is_err());
        assert!(Matcher::parse(r#"{"a":"\ud800"}"#).is_err());
    }
}

//! Queries and objects from a seed: each query as calls of `Query` and, in the same words, of the JS SDK's
//! `Parse.Query`.

use parse_livequery::{Bytes, Date, File, GeoPoint, Pointer, Polygon, Query};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The random numbers of a seed.
pub(crate) fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Audit,
    Boolean,
    Bytes,
    Date,
    File,
    GeoPoint,
    Id,
    /// An object inside an object, compared as a whole.
    Nested,
    /// An array inside an object, compared as a whole.
    NestedList,
    Number,
    Numbers,
    Pointer,
    Pointers,
    Polygon,
    String,
    Strings,
}

/// The fields that queries ask for.
pub(crate) const FIELDS: &[(&str, Kind)] = &[
    ("objectId", Kind::Id),
    ("createdAt", Kind::Audit),
    ("updatedAt", Kind::Audit),
    ("num", Kind::Number),
    ("num2", Kind::Number),
    ("str", Kind::String),
    ("str2", Kind::String),
    ("flag", Kind::Boolean),
    ("when", Kind::Date),
    ("who", Kind::Pointer),
    ("tags", Kind::Strings),
    ("nums", Kind::Numbers),
    ("whos", Kind::Pointers),
    ("loc", Kind::GeoPoint),
    ("area", Kind::Polygon),
    ("file", Kind::File),
    ("bytes", Kind::Bytes),
    ("obj.a", Kind::Number),
    ("obj.s", Kind::String),
    ("obj.when", Kind::Date),
    ("obj.who", Kind::Pointer),
    ("obj.deep", Kind::Nested),
    ("obj.deep.n", Kind::Number),
    ("obj.list", Kind::NestedList),
];

/// The columns of the class, as Parse Server names their types.
pub(crate) fn columns() -> Value {
    json!({
        "objectId": "String", "createdAt": "Date", "updatedAt": "Date", "num": "Number", "num2": "Number",
        "str": "String", "str2": "String", "flag": "Boolean", "when": "Date", "who": "Pointer", "tags": "Array",
        "nums": "Array", "whos": "Array", "loc": "GeoPoint", "area": "Polygon", "file": "File", "bytes": "Bytes",
        "obj": "Object",
    })
}

/// What a generated query may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All that the JS SDK can express, and the same with both.
    JsSdk,
    /// Conditions that LiveQuery can answer, combined as only this crate does.
    LiveQuery,
}

/// A query, as calls.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    combine: Option<&'static str>,
    of: Vec<Self>,
    calls: Vec<Call>,
}

#[derive(Clone, Debug)]
struct Call {
    /// The name in the JS SDK.
    method: &'static str,
    arguments: Vec<Value>,
    subquery: Option<Program>,
}

impl Program {
    pub(crate) fn random(rng: &mut StdRng, scope: Scope) -> Self {
        let mut program = Self::conditions(rng, scope, 2);
        if scope == Scope::JsSdk {
            program.add_options(rng);
        }
        program
    }

    fn conditions(rng: &mut StdRng, scope: Scope, depth: usize) -> Self {
        let combine = match rng.random_range(0..10) {
            0 => Some("or"),
            1 => Some("and"),
            2 => Some("nor"),
            _ => None,
        }
        .filter(|_| depth > 0);
        let of = combine
            .map(|_| {
                (0..rng.random_range(1..4))
                    .map(|_| Self::conditions(rng, scope, depth - 1))
                    .collect()
            })
            .unwrap_or_default();
        let mut fields = FIELDS.to_vec();
        fields.shuffle(rng);
        fields.truncate(rng.random_range(if combine.is_some() { 0..2 } else { 0..4 }));
        let mut calls: Vec<_> = fields
            .iter()
            .flat_map(|&(key, kind)| Call::on_field(rng, scope, key, kind, depth))
            .collect();
        // Parse Server's translation for MongoDB has room for one of them at a level, and none beside a $nor.
        let mut is_first = combine != Some("nor");
        calls.retain(|call| call.method != "containedBy" || std::mem::take(&mut is_first));
        Self { combine, of, calls }
    }

    fn add_options(&mut self, rng: &mut StdRng) {
        const NAMES: &[&str] = &["num", "str", "who", "obj.a"];
        for method in [
            "select",
            "exclude",
            "watch",
            "include",
            "ascending",
            "addDescending",
            "descending",
        ] {
            if rng.random_range(0..5) == 0 {
                let names: Vec<_> = (0..rng.random_range(1..4)).map(|_| pick(rng, NAMES)).collect();
                self.calls.push(Call::new(method, [json!(names)]));
            }
        }
        for method in ["limit", "skip"] {
            if rng.random_range(0..5) == 0 {
                self.calls
                    .push(Call::new(method, [json!(rng.random_range(0..3))]));
            }
        }
    }

    pub(crate) fn to_query(&self) -> Query {
        self.to_query_of("Game")
    }

    pub(crate) fn to_query_of(&self, class_name: &str) -> Query {
        let of = self.of.iter().map(|program| program.to_query_of(class_name));
        let query = match self.combine {
            Some("or") => Query::or(of),
            Some("and") => Query::and(of),
            Some(_) => Query::nor(of),
            None => Query::new(class_name),
        };
        self.calls.iter().fold(query, |query, call| call.apply(query))
    }

    /// For the program that applies it to a `Parse.Query`.
    pub(crate) fn to_json(&self) -> Value {
        let of: Vec<_> = self.of.iter().map(Self::to_json).collect();
        let calls: Vec<_> = self
            .calls
            .iter()
            .map(|call| {
                let subquery = call
                    .subquery
                    .iter()
                    .map(|program| json!({"program": program.to_json()}));
                let arguments = call.arguments.iter().cloned().chain(subquery);
                std::iter::once(json!(call.method))
                    .chain(arguments)
                    .collect::<Vec<_>>()
            })
            .collect();
        json!({"className": "Game", "combine": self.combine, "of": of, "calls": calls})
    }
}

/// A query of few words, so that many have the same ones in another arrangement.
pub(crate) fn anagram(rng: &mut StdRng) -> Query {
    let words = [
        json!("a"),
        json!("b"),
        json!("a\",\"b"),
        json!("b\":\"a"),
        json!("a|b"),
        json!(1),
        json!("1"),
        json!(["a", "b"]),
        json!(["b", "a"]),
        json!([["a", 1], "b"]),
        json!([["b", "a"], 1]),
        json!({"a": "b", "b": "a"}),
        json!({"a": ["a", "b"]}),
        json!({"a": ["b", "a"]}),
        point(10, 20),
        point(20, 10),
        json!(null),
    ];
    let simple = |rng: &mut StdRng| {
        let mut query = Query::new("Game");
        for _ in 0..rng.random_range(1..3) {
            let key = pick(rng, &["a", "b"]);
            let word = pick(rng, &words);
            query = match rng.random_range(0..9) {
                0 | 1 => query.equal_to(key, word),
                2 => query.not_equal_to(key, word),
                3 => query.contained_in(key, [word, pick(rng, &words)]),
                4 => query.not_contained_in(key, [word, pick(rng, &words)]),
                5 => query.less_than(key, pick(rng, &[1, 2])),
                6 => query.greater_than(key, pick(rng, &[1, 2])),
                7 => query.within_radians(
                    key,
                    typed(&point(10, 20)),
                    pick(rng, &[10.0, 20.0]),
                    rng.random_bool(0.5),
                ),
                _ => {
                    let mut corners = [point(1, 2), point(2, 1), point(1, 1), point(2, 2)];
                    corners.shuffle(rng);
                    query.within_polygon(key, corners.iter().map(typed::<GeoPoint>))
                }
            };
        }
        query
    };
    let of: Vec<_> = (0..rng.random_range(1..4)).map(|_| simple(rng)).collect();
    match rng.random_range(0..6) {
        0 => Query::or(of),
        1 => Query::and(of),
        2 => Query::nor(of),
        3 => Query::or(of).equal_to(pick(rng, &["a", "b"]), pick(rng, &words)),
        _ => simple(rng),
    }
}

impl Call {
    fn new<const N: usize>(method: &'static str, arguments: [Value; N]) -> Self {
        Self {
            method,
            arguments: arguments.into(),
            subquery: None,
        }
    }

    fn on_field(rng: &mut StdRng, scope: Scope, key: &str, kind: Kind, depth: usize) -> Vec<Self> {
        let equality = rng.random_range(0..3) == 0;
        let mut calls = Vec::new();
        if equality {
            calls.push(Self::new("equalTo", [json!(key), operand(rng, kind)]));
            // The JS SDK forgets one of the two.
            if scope == Scope::JsSdk {
                return calls;
            }
        }
        let mut operators = Vec::new();
        for _ in 0..rng.random_range(if equality { 0..2 } else { 1..3 }) {
            let (operator, call) = Self::operator(rng, scope, key, kind, depth);
            if !operators.contains(&operator) {
                operators.push(operator);
                calls.push(call);
            }
        }
        calls
    }

    fn operator(rng: &mut StdRng, scope: Scope, key: &str, kind: Kind, depth: usize) -> (&'static str, Self) {
        let key = json!(key);
        if scope == Scope::JsSdk && rng.random_range(0..10) == 0 {
            return Self::find_only(rng, key, kind, depth);
        }
        let specific = match kind {
            Kind::Number | Kind::Date | Kind::Audit => 4,
            Kind::String => 8,
            Kind::Strings | Kind::Numbers | Kind::Pointers => 2,
            Kind::GeoPoint => 5,
            Kind::Polygon => 1,
            _ => 0,
        };
        let choice = rng.random_range(0..5 + specific);
        let list = |rng: &mut StdRng| {
            let values = (0..rng.random_range(0..4))
                .map(|_| operand(rng, kind))
                .collect::<Vec<_>>();
            json!(values)
        };
        match (choice, kind) {
            (0, _) => ("$ne", Self::new("notEqualTo", [key, operand(rng, kind)])),
            (1, _) => ("$exists", Self::new("exists", [key])),
            (2, _) => ("$exists", Self::new("doesNotExist", [key])),
            // Parse Server flattens such values (MongoTransform.js): find() asks for something else.
            (3 | 4, Kind::GeoPoint | Kind::Polygon | Kind::NestedList | Kind::Nested) => {
                ("$exists", Self::new("exists", [key]))
            }
            (3, _) => ("$in", Self::new("containedIn", [key, list(rng)])),
            (4, _) => ("$nin", Self::new("notContainedIn", [key, list(rng)])),
            (5, Kind::Strings | Kind::Numbers | Kind::Pointers) => {
                ("$all", Self::new("containsAll", [key, elements(rng, kind)]))
            }
            (_, Kind::Strings | Kind::Numbers | Kind::Pointers) => (
                "$containedBy",
                Self::new("containedBy", [key, elements(rng, kind)]),
            ),
            (5, Kind::GeoPoint) => ("$nearSphere", Self::new("near", [key, value(rng, kind)])),
            (6, Kind::GeoPoint) => Self::within(rng, key),
            (7, Kind::GeoPoint) => {
                let mut corner = || (rng.random_range(-3..4) * 10, rng.random_range(-3..4) * 10);
                let ((a, b), (c, d)) = (corner(), corner());
                let (southwest, northeast) = (point(a.min(c), b.min(d)), point(a.max(c), b.max(d)));
                ("$within", Self::new("withinGeoBox", [key, southwest, northeast]))
            }
            (_, Kind::GeoPoint) => {
                let corners = json!([
                    point(-15, rng.random_range(-9..9)),
                    point(rng.random_range(-9..9), 15),
                    point(35, 17),
                    point(1, -35)
                ]);
                ("$geoWithin", Self::new("withinPolygon", [key, corners]))
            }
            (_, Kind::Polygon) => {
                let point = json!({"__type": "GeoPoint", "latitude": f64::from(rng.random_range(0..20)) + 0.5, "longitude": 3.25});
                ("$geoIntersects", Self::new("polygonContains", [key, point]))
            }
            (5, _) => ("$lt", Self::new("lessThan", [key, value(rng, kind)])),
            (6, _) => ("$lte", Self::new("lessThanOrEqualTo", [key, value(rng, kind)])),
            (7, _) => ("$gt", Self::new("greaterThan", [key, value(rng, kind)])),
            (8, _) => ("$gte", Self::new("greaterThanOrEqualTo", [key, value(rng, kind)])),
            (9, _) => {
                let pattern = pick(
                    rng,
                    &["^a", "b.$", "[A-C]+", "^.$", "\\.", "^\\Qa(\\E", "null|undefined"],
                );
                let modifiers = pick(rng, &["", "i", "m", "is"]);
                (
                    "$regex",
                    Self::new("matches", [key, json!(pattern), json!(modifiers)]),
                )
            }
            (10, _) => ("$regex", Self::new("contains", [key, value(rng, kind)])),
            (11, _) => ("$regex", Self::new("startsWith", [key, value(rng, kind)])),
            (_, _) => (
                "$regex",
                Self::new("endsWith", [key, value(rng, kind), json!(pick(rng, &["", "i"]))]),
            ),
        }
    }

    fn within(rng: &mut StdRng, key: Value) -> (&'static str, Self) {
        let sorted = rng.random_bool(0.5);
        let (method, distance) = match rng.random_range(0..3) {
            0 => ("withinRadians", json!(pick(rng, &[0.0, 0.25, 0.5]))),
            1 => ("withinMiles", json!(pick(rng, &[100, 1000]))),
            _ => ("withinKilometers", json!(pick(rng, &[100.5, 2000.0]))),
        };
        let operator = if sorted { "$nearSphere" } else { "$geoWithin" };
        (
            operator,
            Self::new(method, [key, value(rng, Kind::GeoPoint), distance, json!(sorted)]),
        )
    }

    fn find_only(rng: &mut StdRng, key: Value, kind: Kind, depth: usize) -> (&'static str, Self) {
        let subquery = |method, arguments: Vec<Value>, rng: &mut StdRng| {
            let mut program = Program::conditions(rng, Scope::JsSdk, depth.saturating_sub(1));
            program.add_options(rng);
            Self {
                method,
                arguments,
                subquery: Some(program),
            }
        };
        match rng.random_range(0..6) {
            0 => (
                "$text",
                Self::new(
                    "fullText",
                    [
                        key,
                        json!("word"),
                        json!({"caseSensitive": true, "language": "en"}),
                    ],
                ),
            ),
            1 => (
                "$all",
                Self::new("containsAllStartingWith", [key, json!(["a", "b.c"])]),
            ),
            2 => ("$inQuery", subquery("matchesQuery", vec![key], rng)),
            3 => ("$notInQuery", subquery("doesNotMatchQuery", vec![key], rng)),
            4 => (
                "$select",
                subquery("matchesKeyInQuery", vec![key, json!("num")], rng),
            ),
            5 if kind == Kind::String => (
                "$text",
                Self::new("fullText", [key, json!("two words"), json!({})]),
            ),
            _ => (
                "$dontSelect",
                subquery("doesNotMatchKeyInQuery", vec![key, json!("str")], rng),
            ),
        }
    }

    fn apply(&self, query: Query) -> Query {
        let text = |index: usize| self.arguments[index].as_str().unwrap();
        let key = || text(0);
        let operand = || Operand::of(&self.arguments[1]);
        let list = || self.arguments[1].as_array().unwrap().iter().map(Operand::of);
        let names = || {
            self.arguments[0]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect::<Vec<_>>()
        };
        let point = |index: usize| typed::<GeoPoint>(&self.arguments[index]);
        let number = |index: usize| self.arguments[index].as_f64().unwrap();
        let sorted = || self.arguments[3].as_bool().unwrap();
        let subquery = || self.subquery.as_ref().unwrap().to_query();
        match self.method {
            "equalTo" => query.equal_to(key(), operand()),
            "notEqualTo" => query.not_equal_to(key(), operand()),
            "lessThan" => query.less_than(key(), operand()),
            "lessThanOrEqualTo" => query.less_than_or_equal_to(key(), operand()),
            "greaterThan" => query.greater_than(key(), operand()),
            "greaterThanOrEqualTo" => query.greater_than_or_equal_to(key(), operand()),
            "containedIn" => query.contained_in(key(), list()),
            "notContainedIn" => query.not_contained_in(key(), list()),
            "containedBy" => query.contained_by(key(), list()),
            "containsAll" => query.contains_all(key(), list()),
            "containsAllStartingWith" => {
                let texts = self.arguments[1].as_array().unwrap();
                query.contains_all_starting_with(key(), texts.iter().map(|text| text.as_str().unwrap()))
            }
            "exists" => query.exists(key()),
            "doesNotExist" => query.does_not_exist(key()),
            "matches" => query.matches(key(), text(1), text(2)),
            "contains" => query.contains(key(), text(1)),
            "startsWith" => query.starts_with(key(), text(1)),
            "endsWith" => query.ends_with_modifiers(key(), text(1), text(2)),
            "fullText" => query.full_text_with(key(), text(1), &self.arguments[2]),
            "near" => query.near(key(), point(1)),
            "withinRadians" => query.within_radians(key(), point(1), number(2), sorted()),
            "withinMiles" => query.within_miles(key(), point(1), number(2), sorted()),
            "withinKilometers" => query.within_kilometers(key(), point(1), number(2), sorted()),
            "withinGeoBox" => query.within_geo_box(key(), point(1), point(2)),
            "withinPolygon" => query.within_polygon(key(), typed::<Vec<GeoPoint>>(&self.arguments[1])),
            "polygonContains" => query.polygon_contains(key(), point(1)),
            "matchesQuery" => query.matches_query(key(), subquery()),
            "doesNotMatchQuery" => query.does_not_match_query(key(), subquery()),
            "matchesKeyInQuery" => query.matches_key_in_query(key(), text(1), subquery()),
            "doesNotMatchKeyInQuery" => query.does_not_match_key_in_query(key(), text(1), subquery()),
            "select" => query.select(names()),
            "exclude" => query.exclude(names()),
            "watch" => query.watch(names()),
            "include" => query.include(names()),
            "ascending" => query.ascending(names()),
            "descending" => query.descending(names()),
            "addDescending" => query.add_descending(names()),
            "limit" => query.limit(self.arguments[0].as_u64().unwrap()),
            "skip" => query.skip(self.arguments[0].as_u64().unwrap()),
            method => panic!("{method} is not in this table"),
        }
    }
}

/// A value in the type that a user would take for it.
#[derive(Serialize)]
#[serde(untagged)]
enum Operand<'a> {
    Bytes(Bytes),
    Date(Date),
    File(File),
    GeoPoint(GeoPoint),
    Pointer(Pointer),
    Polygon(Polygon),
    Json(&'a Value),
}

impl<'a> Operand<'a> {
    fn of(value: &'a Value) -> Self {
        match value["__type"].as_str() {
            Some("Bytes") => Self::Bytes(typed(value)),
            Some("Date") => Self::Date(typed(value)),
            Some("File") => Self::File(typed(value)),
            Some("GeoPoint") => Self::GeoPoint(typed(value)),
            Some("Pointer") => Self::Pointer(typed(value)),
            Some("Polygon") => Self::Polygon(typed(value)),
            _ => Self::Json(value),
        }
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// An object of the class, with some of its fields missing and some null.
pub(crate) fn object(rng: &mut StdRng) -> Value {
    let mut object = Map::new();
    object.insert("className".to_owned(), json!("Game"));
    for &(key, kind) in FIELDS.iter().filter(|(key, _)| !key.contains('.')) {
        let always = matches!(kind, Kind::Audit | Kind::Id);
        match rng.random_range(0..10) {
            0 | 1 if !always => {}
            2 if !always => {
                object.insert(key.to_owned(), Value::Null);
            }
            _ => {
                // Only the server writes these, and as plain text.
                let value = value(rng, kind);
                let value = if kind == Kind::Audit {
                    value["iso"].clone()
                } else {
                    value
                };
                object.insert(key.to_owned(), value);
            }
        }
    }
    match rng.random_range(0..8) {
        0 => {}
        1 => {
            object.insert("obj".to_owned(), Value::Null);
        }
        _ => {
            let mut nested = Map::new();
            for (name, kind) in [
                ("a", Kind::Number),
                ("s", Kind::String),
                ("when", Kind::Date),
                ("who", Kind::Pointer),
                ("deep", Kind::Nested),
                ("list", Kind::NestedList),
            ] {
                match rng.random_range(0..5) {
                    0 => {}
                    1 => {
                        nested.insert(name.to_owned(), Value::Null);
                    }
                    _ => {
                        nested.insert(name.to_owned(), value(rng, kind));
                    }
                }
            }
            object.insert("obj".to_owned(), Value::Object(nested));
        }
    }
    Value::Object(object)
}

/// What a field of this kind is compared with: an element of an array rather than the array.
fn operand(rng: &mut StdRng, kind: Kind) -> Value {
    if rng.random_range(0..12) == 0 && !matches!(kind, Kind::Audit | Kind::Id) {
        return Value::Null;
    }
    match kind {
        Kind::Strings => value(rng, Kind::String),
        Kind::Numbers => value(rng, Kind::Number),
        Kind::Pointers => value(rng, Kind::Pointer),
        _ => value(rng, kind),
    }
}

fn elements(rng: &mut StdRng, kind: Kind) -> Value {
    let values: Vec<_> = (0..rng.random_range(0..4))
        .map(|_| match kind {
            Kind::Strings => value(rng, Kind::String),
            Kind::Numbers => value(rng, Kind::Number),
            _ => value(rng, Kind::Pointer),
        })
        .collect();
    json!(values)
}

fn value(rng: &mut StdRng, kind: Kind) -> Value {
    match kind {
        Kind::Audit | Kind::Date => {
            let iso = pick(
                rng,
                &[
                    "1970-01-01T00:00:00.000Z",
                    "2024-01-02T03:04:05.678Z",
                    "1969-07-20T20:17:40.000Z",
                ],
            );
            json!({"__type": "Date", "iso": iso})
        }
        Kind::Boolean => json!(rng.random_bool(0.5)),
        Kind::Bytes => json!({"__type": "Bytes", "base64": pick(rng, &["AQID", "AA==", "/w=="])}),
        Kind::File => {
            let name = pick(rng, &["a.txt", "b.txt"]);
            json!({"__type": "File", "name": name, "url": format!("http://localhost/{name}")})
        }
        Kind::GeoPoint => point(rng.random_range(-3..4) * 10, rng.random_range(-3..4) * 10),
        Kind::Id => json!(pick(rng, &["id1", "id2", "id3"])),
        Kind::Nested => pick(
            rng,
            &[json!({"n": 1}), json!({"n": 1, "m": "x"}), json!({"n": 5})],
        ),
        // Without an empty one, which mingo does not find.
        Kind::NestedList => pick(rng, &[json!([1, 2]), json!([2, 1]), json!(["a", "b"])]),
        Kind::Number => pick(
            rng,
            &[json!(0), json!(1), json!(5), json!(-3), json!(2.5), json!(1e15)],
        ),
        Kind::Numbers | Kind::Pointers | Kind::Strings => elements(rng, kind),
        Kind::Pointer => {
            json!({"__type": "Pointer", "className": "Team", "objectId": pick(rng, &["t1", "t2", "id1"])})
        }
        Kind::Polygon => {
            let size = rng.random_range(5..20);
            json!({"__type": "Polygon", "coordinates": [[0, 0], [0, size], [size, size], [0, 0]]})
        }
        Kind::String => json!(pick(
            rng,
            &[
                "",
                "a",
                "abc",
                "ABC",
                "a.b",
                "a\"b",
                "null",
                "undefined",
                "a(b",
                "a\\Qb",
                "a\\b",
                "line\nbreak",
                "é😀",
                "0"
            ]
        )),
    }
}

fn point(latitude: i32, longitude: i32) -> Value {
    json!({"__type": "GeoPoint", "latitude": latitude, "longitude": longitude})
}

fn pick<T: Clone>(rng: &mut StdRng, from: &[T]) -> T {
    from.choose(rng).unwrap().clone()
}

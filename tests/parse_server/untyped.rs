//! Each operand against each kind of value, whatever the types of both: what the matcher of the LiveQuery server makes
//! of our form, against what MongoDB finds; and that no form throws, on any version.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use parse_livequery::test_server::where_for;
use parse_livequery::{GeoPoint, Query};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

use crate::generate::{columns, seeded};
use crate::js_sdk;
use crate::support::{folder, install};
use crate::versions::{self, Version};

/// A kind of value, and one of that kind; `None` stands for a missing field.
pub(crate) type Held = (&'static str, Option<Value>);

fn date(iso: &str) -> Value {
    json!({"__type": "Date", "iso": iso})
}

fn pointer(id: &str) -> Value {
    json!({"__type": "Pointer", "className": "Team", "objectId": id})
}

fn place(latitude: f64, longitude: f64) -> Value {
    json!({"__type": "GeoPoint", "latitude": latitude, "longitude": longitude})
}

fn polygon(is_closed: bool) -> Value {
    let mut ring = vec![[0, 0], [0, 9], [9, 9]];
    if is_closed {
        ring.push([0, 0]);
    }
    json!({"__type": "Polygon", "coordinates": ring})
}

pub(crate) fn values() -> Vec<Held> {
    let day = "2024-01-02T03:04:05.678Z";
    let bytes = json!({"__type": "Bytes", "base64": "AQID"});
    let file = json!({"__type": "File", "name": "a.txt", "url": "http://localhost/a.txt"});
    let mut values: Vec<Held> = vec![("missing", None), ("null", Some(Value::Null))];
    let mut add = |kind, of: Vec<Value>| values.extend(of.into_iter().map(|value| (kind, Some(value))));
    add("boolean", vec![json!(true), json!(false)]);
    add(
        "number",
        vec![
            json!(0),
            json!(1),
            json!(5),
            json!(-3),
            json!(2.5),
            json!(1_704_164_645_678_i64),
        ],
    );
    add(
        "string",
        [
            "",
            "a",
            "abc",
            "ABC",
            "a.b",
            "5",
            "0",
            "t1",
            "ab\u{10ffff}",
            "é😀b",
            "😀",
            "ｆｕｌｌ",
            "\u{1}x",
            "[object Object]",
            "undefined",
            "null",
            "a,b",
            "line\nbreak",
            "constructor",
            "__proto__",
            "toString",
            day,
        ]
        .map(Value::from)
        .into(),
    );
    add(
        "date",
        vec![
            date(day),
            date("1969-07-20T20:17:40.000Z"),
            date("1970-01-01T00:00:00.000Z"),
            date("9999-12-31T12:00:00.000Z"),
        ],
    );
    add("pointer", vec![pointer("t1"), pointer("a")]);
    add("point", vec![place(10.0, 20.0), place(0.0, 0.0)]);
    add("polygon", vec![polygon(true)]);
    add("open polygon", vec![polygon(false)]);
    add("file", vec![file.clone()]);
    add("bytes", vec![bytes.clone()]);
    add(
        "object",
        vec![
            json!({}),
            json!({"a": 1}),
            json!({"a": null}),
            json!({"a": {"b": [1, null]}}),
            json!({"a": {"b": [1, {}]}}),
            json!({"0": "a"}),
            json!({"name": "a.txt", "objectId": "t1"}),
            json!({"latitude": 10, "longitude": 20}),
            json!({"when": date(day)}),
            json!({"isPrototypeOf": 1, "toString": "a"}),
            json!({"hasOwnProperty": null, "valueOf": {"a": 1}}),
        ],
    );
    add(
        "object with length",
        vec![
            json!({"length": 2}),
            json!({"length": "a"}),
            json!({"length": 1, "0": "a", "at": 0}),
        ],
    );
    add(
        "array",
        vec![
            json!([]),
            json!([1]),
            json!(["a"]),
            json!(["a", "b"]),
            json!([5, "abc", true]),
            json!([""]),
        ],
    );
    add(
        "array with null",
        vec![json!([null]), json!(["a", null]), json!([null, pointer("t1")])],
    );
    add(
        "array of pointers",
        vec![json!([pointer("t1")]), json!([pointer("a"), "t1"])],
    );
    add(
        "array in array",
        vec![
            json!([[]]),
            json!([["a"]]),
            json!([[1], 5]),
            json!([[pointer("t1")]]),
        ],
    );
    add(
        "array of others",
        vec![
            json!([date(day)]),
            json!([{"a": 1}]),
            json!([{}]),
            json!([place(10.0, 20.0)]),
            json!([bytes]),
            json!([file]),
        ],
    );
    values
}

/// The fields, each with the kinds of values that it can hold.
pub(crate) const KEYS: &[(&str, &[&str])] = &[
    ("obj.x", &[]),
    // Names that texts, arrays and all other values have in JavaScript.
    (
        "obj.length",
        &["missing", "null", "number", "string", "array", "object"],
    ),
    (
        "obj.at",
        &["missing", "null", "number", "string", "array", "object"],
    ),
    ("obj.toString", &["missing", "null", "number", "string", "object"]),
    // Parse Server refuses to keep it.
    ("obj.constructor", &["missing"]),
    ("num", &["missing", "number"]),
    ("str", &["missing", "string"]),
    ("flag", &["missing", "boolean"]),
    ("when", &["missing", "date"]),
    ("who", &["missing", "pointer"]),
    ("loc", &["missing", "point"]),
    ("area", &["missing", "polygon", "open polygon"]),
    ("file", &["missing", "file"]),
    ("bytes", &["missing", "bytes"]),
    (
        "tags",
        &[
            "missing",
            "array",
            "array with null",
            "array of pointers",
            "array in array",
            "array of others",
        ],
    ),
    ("obj", &["missing", "object", "object with length"]),
];

const METHODS: &[&str] = &[
    "equal_to",
    "not_equal_to",
    "less_than",
    "less_than_or_equal_to",
    "greater_than",
    "greater_than_or_equal_to",
    "contained_in",
    "not_contained_in",
    "contains_all",
    "contained_by",
    "exists",
    "does_not_exist",
    "matches",
    "contains",
    "starts_with",
    "ends_with",
    "near",
    "within_kilometers",
    "within_geo_box",
    "within_polygon",
    "polygon_contains",
];

/// Regular expressions of each kind that JavaScript and PCRE know, and some that one of them reads otherwise.
const PATTERNS: &[&str] = &[
    "^a",
    "b$",
    "a|^$",
    "^(?:a|abc)$",
    "(a)(b)\\2?c",
    "^(.)\\1",
    "[a-c]{2,3}$",
    "[^a-z]",
    "^[\\d.-]+$",
    "\\w+\\s\\w+",
    "\\bbreak",
    "a(?=b)",
    "a(?!b)",
    "(?<=e)b",
    "(?<!\\d)5",
    "^.$",
    "^..$",
    "é.b",
    "😀",
    "[😀-😎]",
    "\\x61\\.b",
    "\\u0061",
    "a{,2}",
    "a{2",
    "x*?x",
    "^\\[object",
    "(?<name>a)\\k<name>",
    "(?i)ABC",
    "\\Aa",
    "a++",
    "(?>a)b",
    "\\p{L}",
    "[[:alpha:]]",
    "(",
    "a**",
    "\\",
    "[",
];

/// One condition.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) method: &'static str,
    pub(crate) key: &'static str,
    pub(crate) operand: Value,
}

impl Condition {
    /// `None` if the method does not take such an operand.
    fn new(method: &'static str, key: &'static str, operand: Value) -> Option<Self> {
        let takes = match method {
            "matches" | "contains" | "starts_with" | "ends_with" => operand.is_string(),
            "near" | "within_kilometers" | "within_geo_box" | "within_polygon" | "polygon_contains" => {
                operand["__type"] == "GeoPoint"
            }
            "exists" | "does_not_exist" => operand.is_null(),
            _ => true,
        };
        takes.then_some(Self { method, key, operand })
    }

    pub(crate) fn apply(&self, query: Query) -> Query {
        let (key, operand) = (self.key, &self.operand);
        let text = || operand.as_str().unwrap();
        let point = || serde_json::from_value::<GeoPoint>(operand.clone()).unwrap();
        let list = || [operand.clone(), json!("b"), json!(7)];
        match self.method {
            "equal_to" => query.equal_to(key, operand),
            "not_equal_to" => query.not_equal_to(key, operand),
            "less_than" => query.less_than(key, operand),
            "less_than_or_equal_to" => query.less_than_or_equal_to(key, operand),
            "greater_than" => query.greater_than(key, operand),
            "greater_than_or_equal_to" => query.greater_than_or_equal_to(key, operand),
            "contained_in" => query.contained_in(key, list()),
            "not_contained_in" => query.not_contained_in(key, list()),
            "contains_all" => query.contains_all(key, [operand]),
            "contained_by" => query.contained_by(key, list()),
            "exists" => query.exists(key),
            "does_not_exist" => query.does_not_exist(key),
            "matches" => query.matches(key, text(), "i"),
            "contains" => query.contains(key, text()),
            "starts_with" => query.starts_with(key, text()),
            "ends_with" => query.ends_with(key, text()),
            "near" => query.near(key, point()),
            "within_kilometers" => query.within_kilometers(key, point(), 500.0, false),
            "within_geo_box" => query.within_geo_box(
                key,
                GeoPoint::new(-5.0, -5.0).unwrap(),
                GeoPoint::new(10.0, 20.0).unwrap(),
            ),
            "within_polygon" => {
                let corner = |latitude, longitude| GeoPoint::new(latitude, longitude).unwrap();
                query.within_polygon(key, [corner(-1.0, -1.5), corner(-1.0, 30.0), corner(31.0, 29.0)])
            }
            _ => query.polygon_contains(key, GeoPoint::new(1.5, 5.25).unwrap()),
        }
    }

    /// What is no difference between LiveQuery and `find()`, but of the second opinion or of MongoDB's storage.
    pub(crate) fn is_artifact(&self, held: &Value) -> bool {
        let nested = held
            .as_array()
            .is_some_and(|items| items.iter().any(Value::is_array));
        let is_empty = |value: &Value| *value == json!({}) || *value == json!([]);
        // mingo compares a scalar with the elements of an array inside an array, and takes an empty object for an
        // empty array, which MongoDB does not.
        nested && matches!(self.method, "equal_to" | "not_equal_to" | "contains_all")
            || is_empty(held) && is_empty(&self.operand)
            // MongoDB has a point as an array of two numbers, and a file as its name.
            || !self.key.contains('.') && matches!(held["__type"].as_str(), Some("GeoPoint" | "File"))
                && (self.operand["__type"].is_null() || self.method == "contained_by")
    }

    /// Which of the known differences explains one, by the list in the documentation of `Query`.
    pub(crate) fn listed(&self, held: &Value) -> Option<usize> {
        let is_range = self.method.starts_with("less") || self.method.starts_with("greater");
        let is_text = matches!(self.method, "matches" | "contains" | "starts_with" | "ends_with");
        let is_array = held.is_array();
        let is_scalar = self.operand.is_string() || self.operand.is_number() || self.operand.is_boolean();
        let nested = held
            .as_array()
            .is_some_and(|items| items.iter().any(Value::is_array));
        if is_array && (is_range || is_text) {
            return Some(2);
        }
        if is_array && !is_scalar && (self.operand["__type"] != "Pointer" || nested) {
            return Some(1);
        }
        if is_array && self.method == "contained_by" {
            return Some(1);
        }
        let names = |value: &Value| {
            value.is_string()
                || value
                    .as_array()
                    .is_some_and(|items| items.iter().any(Value::is_string))
        };
        if names(&self.operand) && held.to_string().contains("Pointer") {
            return Some(4);
        }
        matches!(self.method, "within_polygon" | "polygon_contains").then_some(5)
    }
}

/// An object whose field holds the value.
pub(crate) fn object_with(key: &str, held: Option<&Value>) -> Value {
    let mut object = json!({
        "className": "Game", "objectId": "id1", "createdAt": "2024-01-02T03:04:05.678Z",
        "updatedAt": "2024-01-02T03:04:05.678Z",
    });
    if key.starts_with("obj.") {
        object["obj"] = json!({});
    }
    if let Some(held) = held {
        match key.split_once('.') {
            Some((outer, inner)) => object[outer][inner] = held.clone(),
            None => object[key] = held.clone(),
        }
    }
    object
}

/// The objects for a field, with the kinds of what it holds.
fn objects_of(values: &[Held], kinds: &[&str], key: &str) -> Vec<(&'static str, Value, Value)> {
    values
        .iter()
        .filter(|(kind, _)| kinds.is_empty() || kinds.contains(kind))
        .map(|(kind, held)| {
            (
                *kind,
                held.clone().unwrap_or(Value::Null),
                object_with(key, held.as_ref()),
            )
        })
        .collect()
}

fn operands() -> Vec<Value> {
    values().into_iter().filter_map(|(_, held)| held).collect()
}

pub(crate) fn conditions() -> Vec<Condition> {
    let operands = operands();
    let mut conditions = Vec::new();
    for (key, _) in KEYS {
        for method in METHODS {
            conditions.extend(
                operands
                    .iter()
                    .filter_map(|operand| Condition::new(method, key, operand.clone())),
            );
        }
        let patterns = PATTERNS.iter().map(|pattern| json!(pattern));
        conditions.extend(patterns.filter_map(|pattern| Condition::new("matches", key, pattern)));
    }
    conditions
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn each_operand_means_what_it_means_in_find_for_each_kind_of_value() {
    let values = values();
    let mut lines = Vec::new();
    let mut asked = Vec::new();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for condition in conditions() {
        let query = condition.apply(Query::new("Game"));
        let Ok(live) = query.live_query_where() else {
            *refused.entry(condition.method).or_default() += 1;
            continue;
        };
        let rest: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        let (key, kinds) = KEYS.iter().find(|(key, _)| *key == condition.key).unwrap();
        let objects = objects_of(&values, kinds, key);
        let list = Value::from_iter(objects.iter().map(|(_, _, object)| object.clone()));
        // As text, since the order of the members counts.
        lines.push(format!(
            r#"{{"live":{live},"rest":{},"fields":{},"objects":{list}}}"#,
            rest["where"],
            columns()
        ));
        asked.push((condition, live, objects));
    }
    let answers = js_sdk::answers("judge", &lines);
    assert_eq!(answers.len(), asked.len());
    let mut counts: BTreeMap<(&str, &str), [usize; 3]> = BTreeMap::new();
    let mut find_refuses: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut listed = [0; 6];
    for ((condition, live, objects), answer) in asked.iter().zip(&answers) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let matched = answer["matched"].as_array().unwrap();
        for (index, (kind, held, object)) in objects.iter().enumerate() {
            let count = counts.entry((condition.method, kind)).or_default();
            count[0] += 1;
            if matched[index].is_string() {
                wrong.push(format!("{} for {live}\n  {object}", matched[index]));
                continue;
            }
            if answer["found"].is_string() {
                *find_refuses.entry(condition.method).or_default() += 1;
                continue;
            }
            if matched[index] == answer["found"][index] || condition.is_artifact(held) {
                continue;
            }
            if let Some(entry) = condition.listed(held) {
                listed[entry] += 1;
                count[1] += 1;
            } else {
                count[2] += 1;
                wrong.push(format!(
                    "{kind}: {} on {:?} with {}: LiveQuery {}, find() {}\n  {held}\n  {live}",
                    condition.method,
                    condition.key,
                    condition.operand,
                    matched[index],
                    answer["found"][index]
                ));
            }
        }
    }
    let mut table = String::new();
    for ((method, kind), [pairs, known, unknown]) in &counts {
        writeln!(
            table,
            "{method:26} {kind:20} {pairs:6} pairs, {known} as listed, {unknown} others"
        )
        .unwrap();
    }
    println!(
        "{table}refused by the crate: {refused:?}\nrefused by find(): {find_refuses:?}\nby entry of the list: {listed:?}"
    );
    assert!(
        wrong.is_empty(),
        "{} differ, such as\n{}",
        wrong.len(),
        wrong.iter().take(60).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// How conditions are put together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Or,
    Nor,
    And,
    OrAnd,
    Same,
}

pub(crate) fn query_of(shape: Shape, parts: &[Condition], class: &str) -> Query {
    let new = || Query::new(class);
    let queries = |parts: &[Condition]| parts.iter().map(|part| part.apply(new())).collect::<Vec<_>>();
    match (shape, parts) {
        (Shape::Or, _) => Query::or(queries(parts)),
        (Shape::Nor, _) => Query::nor(queries(parts)),
        (Shape::And, _) => Query::and(queries(parts)),
        (Shape::OrAnd, [first, rest @ ..]) if !rest.is_empty() => first.apply(Query::or(queries(rest))),
        _ => parts.iter().fold(new(), |query, part| part.apply(query)),
    }
}

pub(crate) fn combined(rng: &mut StdRng, conditions: &[Condition]) -> (Shape, Vec<Condition>) {
    let count = rng.random_range(2..5);
    // Often the same field, so that conditions meet.
    let key = KEYS.choose(rng).unwrap().0;
    let parts = (0..count)
        .map(|_| {
            loop {
                let part = conditions.choose(rng).unwrap();
                if part.key == key || rng.random_bool(0.1) {
                    break part.clone();
                }
            }
        })
        .collect();
    let shapes = [Shape::Or, Shape::Nor, Shape::And, Shape::OrAnd, Shape::Same];
    (*shapes.choose(rng).unwrap(), parts)
}

/// An object of random values, each of a kind that its column takes.
pub(crate) fn random_object(rng: &mut StdRng, values: &[Held], misfits: bool) -> Value {
    let mut object = object_with("none", None);
    for (key, kinds) in KEYS.iter().filter(|(key, _)| *key != "obj") {
        let fitting: Vec<_> = values
            .iter()
            .filter(|(kind, _)| {
                kinds.is_empty() || kinds.contains(kind) || misfits && rng.random_range(0..10) == 0
            })
            .collect();
        if let Some((_, Some(held))) = fitting.choose(rng) {
            match key.split_once('.') {
                Some((outer, inner)) => object[outer][inner] = held.clone(),
                None => object[*key] = held.clone(),
            }
        }
    }
    object
}

pub(crate) fn held_by<'o>(object: &'o Value, key: &str) -> &'o Value {
    key.split('.').fold(object, |value, name| &value[name])
}

/// One line for the program that judges.
fn case(query: &Query, objects: &[Value]) -> Option<String> {
    let live = query.live_query_where().ok()?;
    let rest: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
    Some(format!(
        r#"{{"live":{live},"rest":{},"fields":{},"objects":{}}}"#,
        rest["where"],
        columns(),
        Value::from(objects)
    ))
}

/// Which of the objects make a difference, for each of the queries.
fn differing(cases: &[String]) -> Vec<Vec<usize>> {
    js_sdk::answers("judge", cases)
        .iter()
        .map(|answer| {
            let answer: Value = serde_json::from_str(answer).unwrap();
            let matched = answer["matched"].as_array().unwrap();
            // find() refuses.
            let Some(found) = answer["found"].as_array() else {
                return Vec::new();
            };
            (0..matched.len())
                .filter(|&index| matched[index] != found[index])
                .collect()
        })
        .collect()
}

/// The smallest part of a query that still makes a difference for one of the objects, and what that object holds, as a
/// test. The whole of it if the matcher alone makes none: then it was the way to the client.
pub(crate) fn shrunk(shape: Shape, parts: &[Condition], objects: &[Value]) -> String {
    let differs = |parts: &[Condition], object: &Value| {
        let case = case(&query_of(shape, parts, "Game"), std::slice::from_ref(object));
        case.is_some_and(|case| !differing(&[case])[0].is_empty())
    };
    let Some(object) = objects.iter().find(|object| differs(parts, object)) else {
        return as_test(shape, parts, objects.last().unwrap_or(&Value::Null));
    };
    let (mut parts, mut object) = (parts.to_vec(), object.clone());
    for index in (0..parts.len()).rev() {
        let mut fewer = parts.clone();
        fewer.remove(index);
        if !fewer.is_empty() && differs(&fewer, &object) {
            parts = fewer;
        }
    }
    let names: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
    for name in names {
        let mut smaller = object.clone();
        smaller.as_object_mut().unwrap().remove(&name);
        if differs(&parts, &smaller) {
            object = smaller;
        }
    }
    as_test(shape, &parts, &object)
}

/// Calls [`means_the_same`], as one writes it.
fn as_test(shape: Shape, parts: &[Condition], object: &Value) -> String {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| {
            let operand = &part.operand;
            format!(
                "Condition::new({:?}, {:?}, json!({operand})).unwrap()",
                part.method, part.key
            )
        })
        .collect();
    format!(
        "#[test]\nfn shrunk() {{\n    means_the_same(Shape::{shape:?}, &[{}], &json!({object}));\n}}",
        parts.join(", ")
    )
}

/// For what a failure prints: put it below this line.
#[allow(dead_code, reason = "for the tests that a failure prints")]
fn means_the_same(shape: Shape, parts: &[Condition], object: &Value) {
    let query = query_of(shape, parts, "Game");
    let case = case(&query, std::slice::from_ref(object)).unwrap();
    let answer = js_sdk::answers("judge", &[case]).remove(0);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        answer["matched"],
        answer["found"],
        "{}",
        query.live_query_where().unwrap()
    );
}

/// `UNTYPED_SEEDS` and `UNTYPED_QUERIES` make it longer.
#[test]
#[ignore = "needs Node.js 20 and npm"]
fn queries_of_several_conditions_mean_what_they_mean_in_find() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seeds, queries, objects) = (
        number("UNTYPED_SEEDS", 2),
        number("UNTYPED_QUERIES", 500_usize),
        number("UNTYPED_OBJECTS", 40_usize),
    );
    let (conditions, values) = (conditions(), values());
    for seed in (0_u64..).take(seeds) {
        let mut rng = seeded(1000 + seed);
        let held: Vec<_> = (0..objects)
            .map(|_| random_object(&mut rng, &values, false))
            .collect();
        let mut cases = Vec::new();
        let mut asked = Vec::new();
        while cases.len() < queries {
            let (shape, parts) = combined(&mut rng, &conditions);
            // find() forgets conditions beside another contained_by, or beside nor.
            let by = parts.iter().filter(|part| part.method == "contained_by").count();
            if by > usize::from(!matches!(shape, Shape::Nor)) {
                continue;
            }
            if let Some(case) = case(&query_of(shape, &parts, "Game"), &held) {
                cases.push(case);
                asked.push((shape, parts));
            }
        }
        let mut wrong = Vec::new();
        let mut listed = 0;
        for ((shape, parts), indices) in asked.iter().zip(differing(&cases)) {
            for index in indices {
                let object = &held[index];
                let is_known = |part: &Condition| {
                    let held = held_by(object, part.key);
                    part.listed(held).is_some() || part.is_artifact(held)
                };
                if parts.iter().any(is_known) {
                    listed += 1;
                } else if wrong.len() < 10 {
                    wrong.push(shrunk(*shape, parts, std::slice::from_ref(object)));
                }
            }
        }
        println!(
            "seed {seed}: {queries} queries, {objects} objects, {listed} differences as listed, {} others",
            wrong.len()
        );
        assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    }
}

/// `THROW_PAIRS` makes it longer.
#[test]
#[ignore = "needs Node.js 20 and npm"]
fn no_form_throws_on_any_version_and_flat_queries_keep_their_hashes_apart() {
    let wanted = std::env::var("THROW_PAIRS").map_or(60_000, |text| text.parse().unwrap());
    let mut wrong = Vec::new();
    for version in versions::chosen() {
        wrong.extend(never_throws(version, wanted));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What throws in the matcher of a version, or is judged otherwise once another query was asked of the same object.
fn never_throws(version: &Version, wanted: usize) -> Vec<String> {
    const IN_A_BATCH: usize = 800;
    const AT_ONCE: usize = 40;
    let home = versions::install_modules(version);
    install();
    let mut rng = seeded(7);
    let (conditions, values) = (conditions(), values());
    let objects: Vec<_> = (0..3_000)
        .map(|_| random_object(&mut rng, &values, true).to_string())
        .collect();
    let (mut asked, mut wrong) = (Vec::new(), Vec::new());
    let (mut pairs, mut matched, mut of_single) = (0, 0, 0);
    while pairs < wanted {
        let mut wheres: Vec<String> = Vec::new();
        let mut lines = String::new();
        while wheres.len() < IN_A_BATCH {
            let (shape, parts) = combined(&mut rng, &conditions);
            of_single += 7;
            let single = &conditions[of_single % conditions.len()];
            for query in [query_of(shape, &parts, "Game"), single.apply(Query::new("Game"))] {
                let Ok(live) = where_for(&query, version.number) else {
                    continue;
                };
                pairs += AT_ONCE;
                let before = wheres.last().filter(|_| version.is_before(6, 1));
                let before = before.map_or_else(String::new, |before| format!(r#","before":{before}"#));
                let some: Vec<_> = (0..AT_ONCE)
                    .map(|_| objects.choose(&mut rng).unwrap().as_str())
                    .collect();
                let some = some.join(",");
                writeln!(lines, r#"{{"where":{live}{before},"objects":[{some}]}}"#).unwrap();
                wheres.push(live);
            }
        }
        let answers = ask(&home, lines);
        assert_eq!(answers.len(), wheres.len());
        for (number, answers) in answers.iter().enumerate() {
            matched += answers.matches('m').count();
            if answers.contains(['t', 'd']) {
                let before = number.checked_sub(1).map(|before| &wheres[before]);
                wrong.push(format!(
                    "{}: {answers}: {}\n  after {before:?}",
                    version.number, wheres[number]
                ));
            }
        }
        asked.append(&mut wheres);
    }
    println!(
        "{}: {} queries, {pairs} pairs, {matched} matches, {} of the queries throw or depend on others",
        version.number,
        asked.len(),
        wrong.len()
    );
    let mut lines = String::new();
    for live in &asked {
        writeln!(lines, r#"{{"hash":{live}}}"#).unwrap();
    }
    let mut by_hash: BTreeMap<&str, &str> = BTreeMap::new();
    let hashes = ask(&home, lines);
    for (live, hash) in asked.iter().zip(&hashes) {
        let first = by_hash.entry(hash).or_insert(live);
        if *first != live {
            wrong.push(format!(
                "{}: {first} and {live} share the hash {hash}",
                version.number
            ));
        }
    }
    wrong.truncate(10);
    wrong
}

fn ask(home: &Path, lines: String) -> Vec<String> {
    let mut node = Command::new("node")
        .arg(folder().join("matcher.mjs"))
        .arg(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let mut answers = String::new();
    node.stdout.take().unwrap().read_to_string(&mut answers).unwrap();
    writer.join().unwrap();
    assert!(node.wait().unwrap().success());
    answers.lines().map(str::to_owned).collect()
}

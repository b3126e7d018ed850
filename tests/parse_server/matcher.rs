//! The crate's matcher against that of Parse Server: the same answer to many thousand pairs of query and object.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use parse_livequery::test_server::verdict;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::support::{folder, install};

const PAIRS: usize = 60_000;

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn the_matcher_answers_as_that_of_the_server() {
    install();
    let seed = std::env::var("MATCHER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = Random(StdRng::seed_from_u64(seed));
    let pairs: Vec<(Form, String, String)> = (0..PAIRS).map(|_| random.pair()).collect();
    let questions: Vec<(String, String)> = pairs
        .iter()
        .map(|(_, where_json, object)| (where_json.clone(), object.clone()))
        .collect();
    let theirs = ask_server(&questions);
    assert_eq!(theirs.len(), pairs.len());

    let mut count: BTreeMap<(Form, String), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for ((form, where_json, object), theirs) in pairs.iter().zip(&theirs) {
        let ours = verdict(where_json, object).unwrap();
        if !ours.contains(&theirs.as_str()) {
            wrong.push(format!(
                "{ours:?}, the server: {theirs}\n  {where_json}\n  {object}"
            ));
        }
        *count.entry((*form, ours.join(" or "))).or_default() += 1;
    }
    for ((form, answer), count) in &count {
        println!("{form:?}: {answer}: {count}");
    }
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {PAIRS} differ, such as\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    // The test means something only if all answers come up, and few are open.
    let with = |form, answer: &str| count.get(&(form, answer.to_owned())).copied().unwrap_or_default();
    let open = |form| -> usize {
        let open = count
            .iter()
            .filter(|((of, answer), _)| *of == form && answer.contains(" or "));
        open.map(|(_, count)| count).sum()
    };
    for form in [Form::Exact, Form::Raw] {
        assert!(with(form, "match") > PAIRS / 20);
        assert!(with(form, "no match") > PAIRS / 20);
    }
    assert!(with(Form::Raw, "throws") > PAIRS / 100);
    assert!(open(Form::Exact) < PAIRS / 500);
    assert!(open(Form::Raw) < PAIRS / 50);
}

/// What Parse Server's matcher answers to each pair of a query and an object.
pub(crate) fn ask_server(pairs: &[(String, String)]) -> Vec<String> {
    let mut node = Command::new("node")
        .arg("matcher.mjs")
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    let lines: String = pairs
        .iter()
        .map(|(where_json, object)| format!("{{\"where\":{where_json},\"object\":{object}}}\n"))
        .collect();
    let writer = thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let mut answers = String::new();
    node.stdout.take().unwrap().read_to_string(&mut answers).unwrap();
    writer.join().unwrap();
    assert!(node.wait().unwrap().success());
    answers.lines().map(str::to_owned).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// What the crate's encoder sends: guarded, split into an `$and`.
    Exact,
    /// Anything.
    Raw,
}

struct Random(StdRng);

impl Random {
    fn pair(&mut self) -> (Form, String, String) {
        let object = self.object();
        if self.chance(50) {
            (Form::Exact, self.exact_where(2), object)
        } else {
            (Form::Raw, self.raw_where(2), object)
        }
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())].clone()
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.0.random_range(0..100_u8) < percent
    }

    fn object(&mut self) -> String {
        let mut object = Map::new();
        object.insert("className".into(), "Game".into());
        object.insert("objectId".into(), self.id().into());
        for name in ["createdAt", "updatedAt"] {
            object.insert(name.into(), self.iso().into());
        }
        for name in FIELDS {
            let value = match self.0.random_range(0..100_u8) {
                0..15 => continue,
                15..25 => Value::Null,
                25..40 => self.value(),
                40..50 => self.list(Self::value),
                _ => self.typical(name),
            };
            object.insert(name.into(), value);
        }
        Value::Object(object).to_string()
    }

    /// A value of the type that a field mostly has.
    fn typical(&mut self, name: &str) -> Value {
        match name {
            "n" => self.number(),
            "s" => self.text(),
            "b" => json!(self.chance(50)),
            "d" => self.date(),
            "p" => self.pointer(),
            "l" => self.point(),
            "area" => self.polygon(),
            "bytes" => self.bytes(),
            "file" => self.file(),
            "tags" => self.list(Self::scalar),
            "pointers" => self.list(Self::pointer),
            _ => json!({ "a": self.scalar(), "b": { "c": self.value() }, "list": self.list(Self::scalar) }),
        }
    }

    fn value(&mut self) -> Value {
        match self.0.random_range(0..12_u8) {
            0 => Value::Null,
            1 => self.date(),
            2 => self.pointer(),
            3 => self.point(),
            4 => self.bytes(),
            5 => self.list(Self::scalar),
            6 => json!({ "a": self.scalar() }),
            7 => self.one_of(&[
                json!({}),
                json!([]),
                json!({ "a": null }),
                json!([null]),
                json!({"latitude": 1, "longitude": 2}),
            ]),
            8 => self.file(),
            9 => self.polygon(),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Value {
        match self.0.random_range(0..4_u8) {
            0 => json!(self.chance(50)),
            1 => self.text(),
            _ => self.number(),
        }
    }

    fn list(&mut self, item: fn(&mut Self) -> Value) -> Value {
        (0..self.0.random_range(0..4_usize)).map(|_| item(self)).collect()
    }

    fn number(&mut self) -> Value {
        self.one_of(&[
            json!(0),
            json!(1),
            json!(2),
            json!(-1),
            json!(1.5),
            json!(2.0),
            json!(1e21),
            json!(1e-7),
            json!(9_007_199_254_740_993_u64),
        ])
    }

    fn text(&mut self) -> Value {
        self.one_of(&[
            "",
            "a",
            "b",
            "A",
            "ab",
            "a.b",
            "B a",
            "1",
            "1.5",
            "0x1",
            "ä",
            "Ä",
            "ß",
            "\u{1F600}a",
            "a\nb",
            "undefined",
            "null",
            "a,b",
            "x1",
            "\\",
            "\\E",
        ])
        .into()
    }

    fn id(&mut self) -> &'static str {
        self.one_of(&["x1", "x2", "x3"])
    }

    fn iso(&mut self) -> &'static str {
        self.one_of(&[
            "2024-01-02T03:04:05.678Z",
            "2024-01-02T03:04:05.679Z",
            "1969-12-31T23:59:59.999Z",
        ])
    }

    fn date(&mut self) -> Value {
        json!({ "__type": "Date", "iso": self.iso() })
    }

    fn pointer(&mut self) -> Value {
        json!({ "__type": "Pointer", "className": self.one_of(&["Q", "R"]), "objectId": self.id() })
    }

    fn point(&mut self) -> Value {
        let latitude = self.one_of(&[0.0, 1.0, 2.5, -45.0, 90.0]);
        let longitude = self.one_of(&[0.0, 1.0, 2.5, 179.0, -180.0]);
        json!({ "__type": "GeoPoint", "latitude": latitude, "longitude": longitude })
    }

    fn corner(&mut self) -> [i8; 2] {
        [self.0.random_range(-3..4_i8), self.0.random_range(-3..4_i8)]
    }

    fn polygon(&mut self) -> Value {
        let mut corners: Vec<_> = (0..self.0.random_range(3..7_usize))
            .map(|_| self.corner())
            .collect();
        corners.push(corners[0]);
        json!({ "__type": "Polygon", "coordinates": corners })
    }

    fn bytes(&mut self) -> Value {
        json!({ "__type": "Bytes", "base64": self.one_of(&["AQID", "BAUG"]) })
    }

    fn file(&mut self) -> Value {
        json!({ "__type": "File", "name": self.one_of(&["a.txt", "b.txt"]), "url": "http://localhost/a.txt" })
    }

    /// A `where` as the encoder writes it: several keys are split into an `$and` with one key each.
    fn exact_where(&mut self, depth: u8) -> String {
        let keys: Vec<String> = (0..self.0.random_range(0..4_usize))
            .map(|_| self.exact_clause(depth))
            .collect();
        match keys.as_slice() {
            [] => "{}".to_owned(),
            [one] => one.clone(),
            several => format!(r#"{{"$and":[{}]}}"#, several.join(",")),
        }
    }

    fn exact_clause(&mut self, depth: u8) -> String {
        if depth > 0 && self.chance(20) {
            let name = self.one_of(&["$or", "$nor", "$and"]);
            let queries: Vec<_> = (0..self.0.random_range(1..4_usize))
                .map(|_| self.exact_where(depth - 1))
                .collect();
            return format!(r#"{{"{name}":[{}]}}"#, queries.join(","));
        }
        let name = self.one_of(&EXACT_KEYS);
        let typical = self.typical(name.split('.').next().unwrap());
        let operand = if self.chance(80) { typical } else { self.scalar() };
        let is_date = operand["__type"] == "Date";
        let is_plain = operand.is_string() || operand.is_number() || operand.is_boolean();
        let guard = r#""$exists":true,"$nin":[null]"#;
        match self.0.random_range(0..13_u8) {
            0 if is_plain || is_date || operand["__type"] == "Pointer" || operand["__type"] == "Bytes" => {
                format!(r#"{{"{name}":{operand}}}"#)
            }
            0 => format!(r#"{{"{name}":{{"$eq":{operand}}}}}"#),
            1 | 2 if is_plain || is_date => {
                let range = self.one_of(&["$lt", "$lte", "$gt", "$gte"]);
                format!(r#"{{"{name}":{{{guard},"{range}":{operand}}}}}"#)
            }
            3 => format!(r#"{{"{name}":{{"$exists":{}}}}}"#, self.chance(50)),
            4 | 1 => {
                let list = self.one_of(&["$in", "$nin"]);
                format!(r#"{{"{name}":{{"{list}":{}}}}}"#, self.plain_list())
            }
            5 => format!(r#"{{"$or":[{{"{name}":{{"$in":[null]}}}},{{"{name}":{{"$exists":false}}}}]}}"#),
            6 => format!(
                r#"{{"tags":{{"$exists":true,"$all":{}}}}}"#,
                self.list(Self::scalar)
            ),
            7 => format!(
                r#"{{"{name}":{{"$exists":true,"$nin":[null],"$containedBy":{}}}}}"#,
                self.plain_list()
            ),
            8 => {
                let (pattern, options) = self.quoted_pattern();
                format!(r#"{{"s":{{"$exists":true,"$nin":[null],"$regex":{pattern}{options}}}}}"#)
            }
            9 => {
                let distance = self.one_of(&["", r#","$maxDistance":0.02"#, r#","$maxDistance":1.5"#]);
                format!(r#"{{"l":{{"$nearSphere":{}{distance}}}}}"#, self.point())
            }
            10 => {
                let (one, other) = (self.point(), self.point());
                format!(r#"{{"l":{{"$within":{{"$box":[{one},{other}]}}}}}}"#)
            }
            11 => self.exact_geo_within(),
            _ => format!(
                r#"{{"area":{{"$exists":true,"$nin":[null],"$geoIntersects":{{"$point":{}}}}}}}"#,
                self.point()
            ),
        }
    }

    fn exact_geo_within(&mut self) -> String {
        if self.chance(50) {
            let corners: Vec<_> = (0..self.0.random_range(3..6_usize))
                .map(|_| {
                    let [latitude, longitude] = self.corner();
                    json!({ "__type": "GeoPoint", "latitude": latitude, "longitude": longitude })
                })
                .collect();
            return format!(
                r#"{{"l":{{"$exists":true,"$nin":[null],"$geoWithin":{{"$polygon":{}}}}}}}"#,
                json!(corners)
            );
        }
        let [latitude, longitude] = self.corner();
        let radius = self.one_of(&[0.01, 0.05, 1.0]);
        format!(
            r#"{{"l":{{"$exists":true,"$nin":[null],"$geoWithin":{{"$centerSphere":[[{longitude},{latitude}],{radius}]}}}}}}"#
        )
    }

    fn plain_list(&mut self) -> Value {
        let item = self.one_of(&[Self::scalar as fn(&mut Self) -> Value, Self::pointer, Self::text]);
        let mut list = self.list(item);
        if self.chance(20) {
            list.as_array_mut().unwrap().push(Value::Null);
        }
        list
    }

    /// An expression as the SDKs quote it or as the encoder escapes it, with its options.
    fn quoted_pattern(&mut self) -> (Value, &'static str) {
        let text = self.text();
        let text = text.as_str().unwrap();
        let escaped = text.replace('\\', "\\x5c").replace('.', "\\.");
        let quoted = format!("\\Q{}\\E", text.replace("\\E", "\\E\\\\E\\Q"));
        let quoted = if self.chance(50) { quoted } else { escaped };
        let pattern = match self.0.random_range(0..3_u8) {
            0 => format!("^{quoted}"),
            1 => format!("{quoted}$"),
            _ => quoted,
        };
        (
            pattern.into(),
            self.one_of(&[
                "",
                r#","$options":"i""#,
                r#","$options":"m""#,
                r#","$options":"im""#,
            ]),
        )
    }

    fn raw_where(&mut self, depth: u8) -> String {
        let members: Vec<_> = (0..self.0.random_range(0..3_usize))
            .map(|_| self.raw_member(depth))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    fn raw_member(&mut self, depth: u8) -> String {
        if depth > 0 && self.chance(25) {
            let name = self.one_of(&["$or", "$and", "$nor", "$relatedTo"]);
            if self.chance(5) {
                return format!(r#""{name}":{}"#, self.value());
            }
            let queries: Vec<_> = (0..self.0.random_range(0..3_usize))
                .map(|_| self.raw_where(depth - 1))
                .collect();
            return format!(r#""{name}":[{}]"#, queries.join(","));
        }
        let name = self.one_of(&RAW_KEYS);
        let constraint = match self.0.random_range(0..10_u8) {
            0 | 1 => self.value().to_string(),
            2 => self.typical(name.split('.').next().unwrap()).to_string(),
            _ => {
                let conditions: Vec<_> = (0..self.0.random_range(1..4_usize))
                    .map(|_| self.raw_condition(name))
                    .collect();
                format!("{{{}}}", conditions.join(","))
            }
        };
        format!(r#""{name}":{constraint}"#)
    }

    fn raw_condition(&mut self, name: &str) -> String {
        let condition = self.one_of(&[
            "$lt",
            "$lte",
            "$gt",
            "$gte",
            "$eq",
            "$ne",
            "$in",
            "$nin",
            "$in",
            "$nin",
            "$all",
            "$exists",
            "$regex",
            "$nearSphere",
            "$within",
            "$containedBy",
            "$geoWithin",
            "$geoIntersects",
            "$options",
            "$maxDistance",
            "$select",
            "$dontSelect",
            "$text",
            "$inQuery",
        ]);
        let operand = if self.chance(8) {
            self.value()
        } else {
            match condition {
                "$lt" | "$lte" | "$gt" | "$gte" | "$eq" | "$ne" if self.chance(50) => {
                    self.typical(name.split('.').next().unwrap())
                }
                "$in" | "$nin" | "$all" | "$containedBy" => self.list(Self::value),
                "$exists" => json!(self.chance(50)),
                "$regex" => self
                    .one_of(&[
                        "a",
                        "^a",
                        "b$",
                        "\\Qa.b\\E",
                        "^\\QA\\E$",
                        "",
                        "undefined",
                        "a,b",
                        "\\Qa\\Eb",
                        "object",
                        "\\.",
                        "^",
                    ])
                    .into(),
                "$options" => self.one_of(&["i", "m", "s", "g", "x", "ii", ""]).into(),
                "$maxDistance" => self.one_of(&[json!(0.02), json!(1), json!("1"), json!(0)]),
                "$nearSphere" => self.point(),
                "$within" => json!({ "$box": [self.point(), self.point()] }),
                "$geoWithin" if self.chance(50) => {
                    json!({ "$polygon": [self.point(), self.point(), self.point(), self.one_of(&[json!([1, 2]), json!({})])] })
                }
                "$geoWithin" => json!({ "$centerSphere": [self.corner(), self.one_of(&[0.1, 1.0])] }),
                "$geoIntersects" => json!({ "$point": self.point() }),
                _ => self.value(),
            }
        };
        format!(r#""{condition}":{operand}"#)
    }
}

const FIELDS: [&str; 12] = [
    "n", "s", "b", "d", "p", "l", "area", "bytes", "file", "tags", "pointers", "o",
];

const EXACT_KEYS: [&str; 16] = [
    "n",
    "s",
    "b",
    "d",
    "p",
    "bytes",
    "tags",
    "pointers",
    "o.a",
    "o.b.c",
    "o.list",
    "o.list.0",
    "l.latitude",
    "file.name",
    "createdAt",
    "objectId",
];

const RAW_KEYS: [&str; 24] = [
    "n",
    "s",
    "b",
    "d",
    "p",
    "l",
    "area",
    "bytes",
    "file",
    "tags",
    "pointers",
    "o",
    "o.a",
    "o.b",
    "o.b.c",
    "o.list",
    "o.list.1",
    "tags.length",
    "s.0",
    "d.iso",
    "p.objectId",
    "missing",
    "missing.a",
    "createdAt",
];

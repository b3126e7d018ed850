//! Objects as a Parse Server sends them, as nobody should, and as proptest invents them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::{Bytes, File, GeoPoint, Pointer, Polygon, Relation};

// What Parse Server 9.10 on Postgres sent for one object when it was created with a value of each type, and when one
// field was unset and another one incremented.
const CREATED: &str = include_str!("samples/create.json");
const UPDATED: &str = include_str!("samples/update.json");
const ORIGINAL: &str = include_str!("samples/original.json");

/// As the I/O thread makes it: somewhere in a frame.
fn in_frame(json: &str) -> Object {
    let frame = format!(r#"{{"op":"create","requestId":1,"object":{json}}}"#);
    let end = frame.len() - 1;
    Object::from_frame(frame.into(), end - json.len()..end, None)
}

#[test]
fn every_field_of_a_real_object_is_read_as_its_type() {
    let object = in_frame(CREATED);
    assert_eq!(object.class_name(), Some("Game"));
    assert_eq!(object.id(), Some("AWFW34WWIH"));
    assert_eq!(
        object.created_at(),
        Some(Date::parse("2026-11-24T06:58:56.879Z").unwrap())
    );
    assert_eq!(object.updated_at(), object.created_at());
    let acl = object.acl().unwrap();
    assert!(acl.public_read_access() && acl.role_write_access("Admins") && acl.write_access("u1"));

    assert_eq!(
        object.get_as::<Date>("far").unwrap().to_string(),
        "9999-12-31T23:59:59.999Z"
    );
    assert_eq!(
        object.get_as::<GeoPoint>("place").unwrap(),
        GeoPoint::new(1.5, -2.0).unwrap()
    );
    assert_eq!(object.get_as::<Polygon>("area").unwrap().coordinates().len(), 4);
    assert_eq!(object.get_as::<Bytes>("data").unwrap().as_slice(), [1, 2, 3]);
    assert_eq!(
        object.get_as::<Relation>("players").unwrap(),
        Relation::new("Owner")
    );
    assert_eq!(
        object.get_as::<Pointer>("owner").unwrap(),
        Pointer::new("Owner", "gBJaZIhpwn")
    );
    assert!(object.get_as::<File>("file").unwrap().url().is_some());

    assert_eq!(object.get_str("name"), Some("chess 😀 \"q\" \\ \u{1}"));
    assert_eq!(object.get_i64("score"), Some(1337));
    assert_eq!(object.get_i64("big"), Some(123_456_789_012_345_680));
    assert_eq!(object.get_f64("huge"), Some(1.5e300));
    assert_eq!(object.get_f64("third"), Some(1.0 / 3.0));
    assert_eq!(object.get_i64("neg"), None);
    assert_eq!(object.get_bool("on"), Some(true));
    assert_eq!(object.get("nothing"), Some(&Value::Null));
    assert_eq!(object.get("absent"), None);
    assert_eq!(object.get("stats").unwrap()["wei\"rd"]["deep"], json!([1, 2]));
}

#[test]
fn a_real_object_is_written_as_it_came() {
    for text in [UPDATED, ORIGINAL] {
        let object = in_frame(text);
        assert_eq!(object.as_json(), text);
        assert_eq!(object.to_json(), serde_json::from_str::<Value>(text).unwrap());
        let again: Object = serde_json::to_string(&object).unwrap().parse().unwrap();
        assert_eq!(again, object);
        assert!(again.keys().eq(object.keys()), "the order was lost");
    }
    let object = in_frame(CREATED);
    assert_eq!(object.keys().next(), Some("ACL"));
    assert_eq!(object.keys().last(), Some("objectId"));
    assert_eq!(
        (object.len(), object.keys().count(), object.iter().count()),
        (26, 26, 26)
    );
}

// JavaScript's strings are UTF-16 and may be cut in the middle of a character: the server sent "\ud83d".
#[test]
fn half_of_a_surrogate_pair_becomes_a_replacement_character() {
    let object = in_frame(CREATED);
    assert_eq!(object.get_str("half"), Some("\u{FFFD}"));
    assert_eq!(object.get_as::<String>("half").unwrap(), "\u{FFFD}");
    assert_eq!(object.to_json()["half"], "\u{FFFD}");

    #[derive(Deserialize)]
    struct Game {
        half: String,
        name: String,
    }
    let game: Game = object.decode().unwrap();
    assert_eq!(game.half, "\u{FFFD}");
    assert_eq!(game.name, "chess 😀 \"q\" \\ \u{1}");

    for (written, read) in [
        (r"\ud83d\ude00", "😀"),
        (r"\udE00\uD83D", "\u{FFFD}\u{FFFD}"),
        (r"a\ud83d", "a\u{FFFD}"),
        (r"\ud83d\ud83d\ude00b", "\u{FFFD}😀b"),
        (r"\\ud83d\ud83d", "\\ud83d\u{FFFD}"),
        (r"\udbff\udfff\udc00\ud800\udc00", "\u{10FFFF}\u{FFFD}\u{10000}"),
        (r"\ud83d\n\u00e9", "\u{FFFD}\né"),
        (r"\ud83dé", "\u{FFFD}é"),
    ] {
        let object = in_frame(&format!(r#"{{"{written}":"{written}"}}"#));
        assert_eq!(object.get_str(read), Some(read), "{written}");
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mood {
    Glad,
    Tired(u8),
    Hungry { since: String },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Either {
    Number(i64),
    Text(String),
}

#[derive(Debug, Deserialize, PartialEq)]
struct Meters(f32);

#[derive(Debug, Deserialize, PartialEq)]
struct Nothing;

#[derive(Debug, Deserialize, PartialEq)]
struct AllKinds {
    flag: bool,
    small: i8,
    big: i128,
    huge: u128,
    half: f32,
    letter: char,
    text: String,
    maybe: Option<u16>,
    never: Option<u16>,
    #[serde(default)]
    absent: Vec<u8>,
    unit: (),
    nothing: Nothing,
    length: Meters,
    pair: (u32, String),
    list: Vec<Option<u64>>,
    by_name: BTreeMap<String, i32>,
    by_number: BTreeMap<u64, bool>,
    moods: Vec<Mood>,
    mood: Mood,
    either: [Either; 2],
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[test]
fn a_type_is_decoded_as_serde_json_decodes_it() {
    let text = r#" {"flag":true, "small":-7,"big":-170141183460469231731687303715884105728,"half":0.1,
        "huge":340282366920938463463374607431768211455,"letter":"\u00e9","text":"a\nb","maybe":65535,"never":null,
        "unit":null,"nothing":null,"length":1,"pair":[1,"x"],"list":[1,null,3],"by_name":{"a":1},"by_number":{"7":true},
        "moods":["glad",{"tired":3},{"hungry":{"since":"noon"}}],"mood":{"tired":9},"either":[1,"one"],
        "more":{"a":[1.5]},"m\u006fst":null} "#;
    let expected: AllKinds = serde_json::from_str(text).unwrap();
    let object: Object = text.parse().unwrap();
    let of_members: AllKinds = decode_members(object.index().members(object.as_json())).unwrap();
    assert_eq!(of_members, expected);
    assert_eq!(object.decode::<AllKinds>().unwrap(), expected);
}

#[test]
fn what_a_type_has_no_field_for_is_not_looked_at() {
    #[derive(Debug, Deserialize)]
    struct Score {
        score: f64,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ScoreAlone {
        score: f64,
    }
    let object = in_frame(r#"{"junk":[1e999,tru,{"a":"\ud83d"}],"score":1,"more":nul}"#);
    assert_eq!(object.decode::<Score>().unwrap().score, 1.0);
    assert!(object.decode::<ScoreAlone>().is_err());
    assert_eq!(
        in_frame(r#"{"score":1}"#).decode::<ScoreAlone>().unwrap().score,
        1.0
    );
    for wrong in [r#""x""#, "1x", "tru", "1e999", "null", "[1]"] {
        let object = in_frame(&format!(r#"{{"className":"Game","score":{wrong}}}"#));
        let error = object.decode::<Score>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{wrong}");
    }
    let twice = in_frame(r#"{"score":1,"score":2}"#);
    assert_eq!(twice.decode::<Score>().unwrap().score, 2.0);
}

#[test]
fn the_changed_fields_are_those_that_differ() {
    let (object, original) = (in_frame(UPDATED), in_frame(ORIGINAL));
    assert_eq!(object.changed_keys(&original), ["score", "when"]);
    assert_eq!(object.removed_keys(&original), ["when"]);
    assert_eq!(original.changed_keys(&object), ["when", "score"]);
    assert!(original.removed_keys(&object).is_empty());
    assert!(object.changed_keys(&object.clone()).is_empty());

    let now = in_frame(r#"{"a": {"x":1, "y":[2]}, "b":"A", "c":null, "d":1e999, "updatedAt":"2"}"#);
    let before = in_frame(r#"{"a":{"y":[2],"x":1}, "b":"\u0041", "d":1e998, "updatedAt":"1"}"#);
    assert_eq!(
        now.changed_keys(&before),
        ["c"],
        "the writing differs, not the value"
    );
    let with_date = in_frame(r#"{"updatedAt":"1"}"#);
    assert!(in_frame("{}").changed_keys(&with_date).is_empty());
}

#[test]
fn a_bad_value_is_an_error_of_its_own_access_only() {
    let object = in_frame(
        r#"{"className":"Game","objectId":"g1","place":{"__type":"GeoPoint","latitude":91,"longitude":0},
            "when":{"__type":"Date","iso":"soon"},"what":{"__type":"Rocket"},"much":1e999,"score":5}"#,
    );
    let error = object.get_as::<GeoPoint>("place").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(
        error.to_string(),
        "field `place` of Game g1: the latitude 91 of a GeoPoint is not within -90 to 90"
    );
    assert_eq!(
        object.get_as::<Date>("when").unwrap_err().to_string(),
        "field `when` of Game g1: \"soon\" is not a date such as 2024-01-02T03:04:05.678Z"
    );
    assert_eq!(
        object.get_as::<Pointer>("what").unwrap_err().to_string(),
        "field `what` of Game g1: expected the `__type` \"Pointer\", found \"Rocket\""
    );
    assert_eq!(
        object.get_as::<f64>("much").unwrap_err().to_string(),
        "field `much` of Game g1: number out of range"
    );
    assert_eq!(
        object.get_as::<String>("score").unwrap_err().to_string(),
        "field `score` of Game g1: invalid type: integer `5`, expected a string"
    );
    assert_eq!(
        object.get_as::<i64>("points").unwrap_err().to_string(),
        "Game g1 has no field `points`"
    );
    assert_eq!(object.get_as::<Option<i64>>("points").unwrap(), None);

    assert_eq!(object.get("much"), None);
    assert_eq!(object.get_i64("score"), Some(5));
    assert_eq!(object.get("place").unwrap()["latitude"], 91);
    assert_eq!(object.iter().count(), object.len() - 1);
    assert_eq!(object.to_json().as_object().unwrap().len(), object.len() - 1);
    assert_eq!(serde_json::to_value(&object).unwrap(), object.to_json());
}

#[test]
fn an_error_of_decode_names_the_path() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only the errors are looked at")]
    struct Game {
        score: Option<u8>,
        place: Option<GeoPoint>,
        stats: Option<BTreeMap<String, Vec<Stat>>>,
        name: String,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only the errors are looked at")]
    struct Stat {
        level: i32,
    }

    for (json, message) in [
        (r#"{"score":1}"#, "Game: missing field `name`"),
        (
            r#"{"score":300}"#,
            "field `score` of Game: invalid value: integer `300`, expected u8",
        ),
        (
            r#"{"score":{}}"#,
            "field `score` of Game: invalid type: map, expected u8",
        ),
        (
            "{\n \"name\":\"é\",\n\n \"score\" : [] }",
            "field `score` of Game: invalid type: sequence, expected u8",
        ),
        (
            r#"{"place":{"__type":"GeoPoint","latitude":"x"}}"#,
            "field `place.latitude` of Game: invalid type: string \"x\", expected f64",
        ),
        (
            r#"{"place":{"__type":"GeoPoint","latitude":91,"longitude":2},"name":""}"#,
            "field `place` of Game: the latitude 91 of a GeoPoint is not within -90 to 90",
        ),
        (
            r#"{"name":"","stats":{"a":[],"b":[{"level":1},{"level":true}]}}"#,
            "field `stats.b[1].level` of Game: invalid type: boolean `true`, expected i32",
        ),
        (
            r#"{"name":"","stats":{"a":[],"b":[{"level":1},{"levels":1}]}}"#,
            "field `stats.b[1]` of Game: missing field `level`",
        ),
        (
            r#"{"name":"","stats":{"a":[5]}}"#,
            "field `stats.a[0]` of Game: invalid type: integer `5`, expected struct Stat",
        ),
        (
            r#"{"name":"","stats":{"a":[[]]}}"#,
            "field `stats.a[0]` of Game: invalid length 0, expected struct Stat",
        ),
        (
            "{\"name\":\"\",\"x\":1e999,\n\n\"stats\":{\n\"é\":\n [\n{\"level\":{}}]}}",
            "field `stats.é[0].level` of Game: invalid type: map, expected i32",
        ),
    ] {
        let json = json.replacen('{', r#"{"className":"Game","#, 1);
        let error = in_frame(&json).decode::<Game>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(
            error.to_string().starts_with(message),
            "{error}\nfor {json}\nis not {message}"
        );
    }

    let error = in_frame(r#"{"stats":{"a":[{"level":[]}]}}"#)
        .get_as::<BTreeMap<String, Vec<Stat>>>("stats")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("field `stats.a[0].level` of the object: "),
        "{error}"
    );
}

#[test]
fn the_last_of_several_values_counts() {
    let object = in_frame(r#"{"a":1,"b":2,"a":3,"\u0061":{"x":1,"x":2}}"#);
    assert_eq!(object.get("a"), Some(&json!({"x": 2})));
    assert!(object.keys().eq(["b", "a"]));
    assert_eq!(object.len(), 2);
    assert_eq!(object.to_json(), json!({"a": {"x": 2}, "b": 2}));

    #[derive(Deserialize)]
    struct Both {
        a: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        x: i32,
    }
    assert_eq!(object.decode::<Both>().unwrap().a.x, 2);
}

#[test]
fn a_class_with_many_fields_is_searched_as_one_with_few() {
    let members: Vec<_> = (0..1000).map(|n| format!(r#""k{}":{n}"#, n % 900)).collect();
    let object = in_frame(&format!("{{{}}}", members.join(",")));
    assert_eq!(object.len(), 900);
    assert_eq!(object.get_i64("k0"), Some(900));
    assert_eq!(object.get_i64("k99"), Some(999));
    assert_eq!(object.get_i64("k100"), Some(100));
    assert_eq!(object.get("k900"), None);
    let other = in_frame(&object.to_json().to_string().replace(":500", ":5"));
    assert_eq!(other.changed_keys(&object), ["k500"]);
}

#[test]
fn an_object_inside_an_object_is_one_too() {
    let owner = in_frame(
        r#"{"className":"Owner","game":{"__type":"Object","className":"Game","objectId":"g1","score":2,
            "createdAt":"2026-11-24T06:58:56.799Z"},"pointer":{"__type":"Pointer","className":"Game","objectId":"g2"}}"#,
    );
    let game: Object = owner.get_as("game").unwrap();
    assert_eq!(
        (game.class_name(), game.id(), game.get_i64("score")),
        (Some("Game"), Some("g1"), Some(2))
    );
    assert!(game.created_at().is_some());
    assert!(
        game.keys()
            .eq(["__type", "className", "objectId", "score", "createdAt"])
    );
    assert_eq!(owner.get_as::<Object>("pointer").unwrap().id(), Some("g2"));

    #[derive(Serialize, Deserialize)]
    struct Owner {
        #[serde(flatten)]
        rest: BTreeMap<String, Object>,
    }
    let json = json!({"game": {"a": 1}});
    let owner: Owner = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&owner).unwrap(), json);
}

#[test]
fn what_is_no_object_has_no_members() {
    for json in ["null", "5", "[1]", "\"text\"", "true"] {
        let object = in_frame(json);
        assert!(object.is_empty() && object.id().is_none() && object.get("a").is_none());
        assert_eq!(object.to_json(), serde_json::from_str::<Value>(json).unwrap());
        assert!(object.decode::<BTreeMap<String, i32>>().is_err());
        assert!(json.parse::<Object>().is_err());
        assert!(Object::from_json(object.to_json()).is_err());
    }
    assert!("{".parse::<Object>().is_err());
    let object = Object::from_json(json!({"score": 1})).unwrap();
    assert_eq!(object.get_i64("score"), Some(1));
    assert_eq!(object, " { \"score\" : 1 }\n".parse().unwrap());
}

#[test]
fn debug_shows_class_id_and_json() {
    let object = in_frame(r#"{"className":"Game","objectId":"g1","score":1}"#);
    assert_eq!(
        format!("{object:?}"),
        r#"Object(Game g1, {"className":"Game","objectId":"g1","score":1})"#
    );
}

#[test]
fn clones_share_what_was_decoded_and_go_from_thread_to_thread() {
    fn is_sound<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static>() {}
    is_sound::<Object>();

    let object = in_frame(CREATED);
    let clone = object.clone();
    let decoded = std::thread::spawn(move || std::ptr::from_ref(clone.get("stats").unwrap()).addr());
    assert_eq!(
        decoded.join().unwrap(),
        std::ptr::from_ref(object.get("stats").unwrap()).addr()
    );
}

/// The text of any JSON value, and some that only look like one to a parser that does not look closely.
fn json_text() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        3 => "[a-c]{0,2}",
        1 => any::<String>().prop_map(|text| {
            let quoted = Value::from(text).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }),
        1 => r"(\\u[0-9a-f]{4}|\\ud83d\\ude00|\\[bfnrt/]|\\u006[1-3]|[a-cé😀]){1,4}",
    ];
    let text = text.prop_map(|text| format!("\"{text}\"")).boxed();
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter_map("JSON has no NaN", |value| {
            value.is_finite().then(|| Value::from(value).to_string())
        }),
        Just("1e999".to_owned()),
        (1_usize..300).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        text.clone(),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let members = prop::collection::vec((text.clone(), "[ \n]{0,2}", inner.clone()), 0..6);
        prop_oneof![
            members.prop_map(|members| object_text(&members)),
            prop::collection::vec(inner, 0..6).prop_map(|elements| format!("[{}]", elements.join(" ,"))),
        ]
    })
}

fn object_text(members: &[(String, String, String)]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(key, space, value)| format!("{space}{key}:{space}{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only read")]
struct Sample {
    a: Option<GeoPoint>,
    b: Option<String>,
    c: Vec<Object>,
}

fn use_in_every_way(object: &Object) {
    let keys: Vec<_> = object.keys().map(str::to_owned).collect();
    assert_eq!(keys.len(), object.len());
    for key in &keys {
        assert_eq!(object.get(key).cloned(), object.get_as::<Value>(key).ok());
        let _ = object.get_as::<Sample>(key);
        let _ = object.get_as::<Vec<Option<Date>>>(key);
    }
    let members: Vec<_> = object.iter().collect();
    assert!(members.iter().all(|(key, value)| object.get(key) == Some(*value)));
    if object.as_json().starts_with('{') {
        let collected: Value = members
            .iter()
            .map(|(key, value)| (*key, (*value).clone()))
            .collect();
        assert_eq!(object.to_json(), collected);
        assert_eq!(serde_json::to_value(object).unwrap(), collected);
        assert_eq!(*object, Object::from_json(collected).unwrap());
    }
    assert!(object.changed_keys(&in_frame(object.as_json())).is_empty());
    assert!(object.removed_keys(object).is_empty());
    let _ = (
        object.id(),
        object.class_name(),
        object.created_at(),
        object.acl(),
    );
    let _ = (
        object.decode::<Sample>(),
        object.decode::<BTreeMap<String, Vec<Sample>>>(),
    );
    let _ = format!("{object:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_json_object_is_read_as_serde_json_reads_it(
        members in prop::collection::vec(
            (r#""([a-c]|\\u006[1-3]|[é😀]|\\ud83d|\\n){1,2}""#, "[ \n]{0,2}", json_text()), 0..40),
    ) {
        let text = object_text(&members);
        let object = in_frame(&text);
        use_in_every_way(&object);
        if let Ok(expected) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(&object.to_json(), &expected);
            prop_assert_eq!(&object.decode::<Value>().unwrap(), &expected);
            let expected = expected.as_object().unwrap();
            prop_assert_eq!(object.len(), expected.len());
            for (key, value) in expected {
                prop_assert_eq!(object.get(key), Some(value));
            }
        }
        // One member that cannot be decoded spoils none of the others.
        let mut last = BTreeMap::new();
        for (key, _, value) in &members {
            if let Ok(key) = serde_json::from_str::<String>(key) {
                last.insert(key, serde_json::from_str::<Value>(value));
            }
        }
        for (key, value) in &last {
            if let (Ok(value), false) = (value, key.contains('\u{FFFD}')) {
                prop_assert_eq!(object.get(key), Some(value));
            }
        }
    }

    #[test]
    fn text_that_is_no_json_does_not_panic(text in any::<String>(), json in json_text(), cut in any::<prop::sample::Index>()) {
        let frame: Arc<str> = text.into();
        let _ = use_any(&Object::from_frame(frame.clone(), 0..frame.len(), None));
        let _ = use_any(&Object::from_frame(frame, 1..3, None));
        let cut: String = json.chars().take(cut.index(json.chars().count())).collect();
        let _ = use_any(&in_frame(&format!("{{\"a\":{cut}")));
    }
}

fn use_any(object: &Object) -> (Value, Result<Sample>, Result<Sample>, usize) {
    (
        object.to_json(),
        object.decode(),
        object.get_as("a"),
        object.iter().count(),
    )
}

/// The shortest of some times, since a busy machine can only be slower.
fn best_of(mut run: impl FnMut()) -> std::time::Duration {
    let times = (0..5).map(|_| {
        let start = std::time::Instant::now();
        run();
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

#[test]
fn depth_costs_no_more_than_length() {
    const LEVELS: usize = 200_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let deep = format!("{}1{}", open.repeat(LEVELS), close.repeat(LEVELS));
        let text: Arc<str> = format!(r#"{{"className":"Game","deep":{deep}}}"#).into();
        let scan = best_of(|| assert!(Outline::new(&text).is_some()));
        let object = || Object::from_frame(Arc::clone(&text), 0..text.len(), None);
        let get = best_of(|| assert_eq!(object().get("deep"), None));
        let get_as = best_of(|| {
            let error = object().get_as::<Value>("deep").unwrap_err().to_string();
            assert!(error.contains("recursion limit"), "{error}");
        });
        let decode = best_of(|| {
            object()
                .decode::<std::collections::HashMap<String, Value>>()
                .unwrap_err();
        });
        let (few, limit) = (std::time::Duration::from_millis(2), 20);
        for (what, took) in [("get", get), ("get_as", get_as), ("decode", decode)] {
            assert!(
                took < few + scan * limit,
                "{what} of `{open}`: {took:?}, one pass: {scan:?}"
            );
        }
    }
}

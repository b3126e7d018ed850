//! What is sent for each constraint, and what is refused.

use serde_json::json;

use super::Query;
use super::refuse::{ALL_STARTING_WITH, REFUSALS};
use crate::error::ErrorKind;
use crate::types::{Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation};

fn query() -> Query {
    Query::new("Game")
}

fn sent(query: Query) -> String {
    query.encode().unwrap().where_json.into()
}

fn refused(query: Query) -> String {
    let error = query.encode().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidQuery);
    error.to_string()
}

fn point(latitude: f64, longitude: f64) -> GeoPoint {
    GeoPoint::new(latitude, longitude).unwrap()
}

fn date() -> Date {
    Date::parse("2024-01-02T03:04:05.678Z").unwrap()
}

#[test]
fn conditions_are_written_as_the_matcher_gets_them_right() {
    const ISO: &str = "2024-01-02T03:04:05.678Z";
    let pointer = Pointer::new("Team", "t1");
    let date_json = format!(r#"{{"__type":"Date","iso":"{ISO}"}}"#);
    for (query, expected) in [
        (query(), "{}".to_owned()),
        (query().equal_to("k", "v"), r#"{"k":"v"}"#.to_owned()),
        (query().equal_to("k", 1.0), r#"{"k":1}"#.to_owned()),
        (query().equal_to("k", true), r#"{"k":true}"#.to_owned()),
        (
            query().equal_to("k", None::<i32>),
            r#"{"$nor":[{"k":{"$all":[]}},{"k":{"$in":[0,false,""]}}]}"#.to_owned(),
        ),
        (
            query().equal_to("k", date()),
            format!(r#"{{"$and":[{{"k":{{"$all":[]}}}},{{"k":{date_json}}}]}}"#),
        ),
        (
            query().equal_to("k", &pointer),
            r#"{"k":{"$in":[{"__type":"Pointer","className":"Team","objectId":"t1"}]}}"#.to_owned(),
        ),
        (
            query().equal_to("createdAt", date()),
            format!(r#"{{"createdAt":"{ISO}"}}"#),
        ),
        (query().not_equal_to("k", 1), r#"{"k":{"$nin":[1]}}"#.to_owned()),
        (
            query().not_equal_to("k", &pointer),
            r#"{"k":{"$nin":[{"__type":"Pointer","className":"Team","objectId":"t1"}]}}"#.to_owned(),
        ),
        (
            query().not_equal_to("k", date()),
            format!(r#"{{"$nor":[{{"$and":[{{"k":{{"$all":[]}}}},{{"k":{date_json}}}]}}]}}"#),
        ),
        (
            query().less_than("k", 6),
            r#"{"k":{"$exists":true,"$nin":[null],"$lt":6}}"#.to_owned(),
        ),
        (
            query()
                .greater_than("k", 1)
                .less_than_or_equal_to("k", 5)
                .not_equal_to("k", 3),
            r#"{"k":{"$exists":true,"$nin":[3,null],"$gt":1,"$lte":5}}"#.to_owned(),
        ),
        (
            query().greater_than_or_equal_to("updatedAt", date()),
            format!(r#"{{"updatedAt":{{"$exists":true,"$nin":[null],"$gte":"{ISO}"}}}}"#),
        ),
        (
            query().contained_in("k", [1, 2]),
            r#"{"k":{"$in":[1,2]}}"#.to_owned(),
        ),
        (
            query().contained_in("k", [json!("a"), json!(null)]),
            r#"{"$or":[{"k":{"$in":["a"]}},{"$nor":[{"k":{"$all":[]}},{"k":{"$in":[0,false,""]}}]}]}"#
                .to_owned(),
        ),
        (query().exists("k"), r#"{"k":{"$exists":true}}"#.to_owned()),
        (
            query().does_not_exist("k"),
            r#"{"k":{"$exists":false}}"#.to_owned(),
        ),
        (
            query().equal_to("from", "alice").equal_to("to", "bob"),
            r#"{"$and":[{"from":"alice"},{"to":"bob"}]}"#.to_owned(),
        ),
        (
            Query::or([
                query().equal_to("a", 1).equal_to("b", 2),
                query().equal_to("c", 3),
            ]),
            r#"{"$or":[{"$and":[{"a":1},{"b":2}]},{"c":3}]}"#.to_owned(),
        ),
        (
            Query::or([query().equal_to("a", 1), query()]).equal_to("b", 2),
            r#"{"$and":[{"$or":[{"a":1},{}]},{"b":2}]}"#.to_owned(),
        ),
        (
            Query::and([query().equal_to("a", 1), query().equal_to("a", 2)]),
            r#"{"$and":[{"a":1},{"a":2}]}"#.to_owned(),
        ),
        (
            Query::nor([query().less_than("a", 1)]),
            r#"{"$nor":[{"a":{"$exists":true,"$nin":[null],"$lt":1}}]}"#.to_owned(),
        ),
        (
            query().raw_where(json!({"b": 1, "a": {"$size": 2}})),
            r#"{"a":{"$size":2},"b":1}"#.to_owned(),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
}

#[test]
fn values_of_parse_types_are_compared_by_what_the_matcher_can_compare() {
    let polygon = Polygon::new([point(0.0, 0.0), point(0.0, 1.0), point(1.0, 1.0)]).unwrap();
    for (query, expected) in [
        (
            query().equal_to("k", Bytes::new([1, 2, 3])),
            r#"{"$and":[{"k":{"$all":[]}},{"k":{"__type":"Bytes","base64":"AQID"}}]}"#,
        ),
        (
            query().equal_to("k", point(1.5, -2.0)),
            r#"{"$and":[{"k.latitude":1.5},{"k.longitude":-2}]}"#,
        ),
        (
            query().not_equal_to("k", point(1.5, -2.0)),
            r#"{"$nor":[{"$and":[{"k.latitude":1.5},{"k.longitude":-2}]}]}"#,
        ),
        (query().equal_to("k", File::new("a.txt")), r#"{"k.name":"a.txt"}"#),
        (query().equal_to("k", json!({})), r#"{"k":{"$all":[],"$eq":{}}}"#),
        (
            query().equal_to("k", json!({"a": 1})),
            r#"{"k":{"$all":[],"$eq":{"a":1}}}"#,
        ),
        (
            query().equal_to("k", json!([5])),
            r#"{"k":{"$all":[],"$eq":[5]}}"#,
        ),
        (
            query().not_equal_to("k", None::<i32>),
            r#"{"$or":[{"k":{"$all":[]}},{"k":{"$in":[0,false,""]}}]}"#,
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
    let text = sent(query().equal_to("k", polygon));
    let closed = r#"{"k.coordinates":{"$all":[],"$eq":[[0,0],[0,1],[1,1],[0,0]]}}"#;
    assert!(text.starts_with(&format!(r#"{{"$and":[{closed},"#)), "{text}");
}

#[test]
fn arrays_and_lists_are_asked_for_value_by_value() {
    let iso = |day| format!("2024-01-0{day}T00:00:00.000Z");
    let dates = [iso(1), iso(2)].map(|iso| Date::parse(&iso).unwrap());
    let equals = |day| {
        format!(
            r#"{{"$and":[{{"k":{{"$all":[]}}}},{{"k":{{"__type":"Date","iso":"{}"}}}}]}}"#,
            iso(day)
        )
    };
    for (query, expected) in [
        (
            query().contained_in("k", dates),
            format!(r#"{{"$or":[{},{}]}}"#, equals(1), equals(2)),
        ),
        (
            query().not_contained_in("k", dates),
            format!(r#"{{"$nor":[{},{}]}}"#, equals(1), equals(2)),
        ),
        (
            query().contained_in("createdAt", dates),
            format!(r#"{{"createdAt":{{"$in":["{}","{}"]}}}}"#, iso(1), iso(2)),
        ),
        (
            query().contained_in::<i32>("k", []),
            r#"{"k":{"$in":[]}}"#.to_owned(),
        ),
        (
            query().not_contained_in("k", ["a"]).not_equal_to("k", "b"),
            r#"{"k":{"$nin":["a","b"]}}"#.to_owned(),
        ),
        (
            query().contains_all("k", ["a", "b"]),
            r#"{"$and":[{"k":"a"},{"k":"b"}]}"#.to_owned(),
        ),
        // On MongoDB, an empty $all matches nothing.
        (
            query().contains_all::<i32>("k", []),
            r#"{"k":{"$in":[]}}"#.to_owned(),
        ),
        (
            query().contained_by("k", [1, 2]),
            r#"{"$or":[{"k.length":{"$exists":false}},{"k":{"$containedBy":[1,2]}}]}"#.to_owned(),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
}

#[test]
fn texts_are_matched_without_quotations() {
    let guarded = |rest: &str| format!(r#"{{"k":{{"$exists":true,"$nin":[null],{rest}}}}}"#);
    for (query, expected) in [
        (query().matches("k", "^a", ""), guarded(r#""$regex":"^a""#)),
        (
            query().matches("k", "a|b", "ims"),
            guarded(r#""$regex":"a|b","$options":"ims""#),
        ),
        (query().contains("k", "a(b"), guarded(r#""$regex":"a\\(b""#)),
        (query().starts_with("k", "a.b"), guarded(r#""$regex":"^a\\.b""#)),
        (
            query().starts_with_modifiers("k", "a", "i"),
            guarded(r#""$regex":"^a","$options":"i""#),
        ),
        (query().ends_with("k", "\\E"), guarded(r#""$regex":"\\x5cE$""#)),
        (
            query().ends_with_modifiers("k", "a", "m"),
            guarded(r#""$regex":"a$","$options":"m""#),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
}

#[test]
fn places_are_asked_for_by_what_never_throws() {
    let near = |rest: &str| {
        format!(r#"{{"k":{{"$nearSphere":{{"__type":"GeoPoint","latitude":1.5,"longitude":-2}}{rest}}}}}"#)
    };
    let here = point(1.5, -2.0);
    for (query, expected) in [
        (query().near("k", here), near("")),
        (query().within_radians("k", here, 0.5, true), near(r#","$maxDistance":0.5"#)),
        (query().within_radians("k", here, 0.5, false), near(r#","$maxDistance":0.5"#)),
        // The matcher takes 0 for no limit.
        (query().within_miles("k", here, 0.0, true), near(r#","$maxDistance":2.2250738585072014e-308"#)),
        (query().within_kilometers("k", here, 6371.0, false), near(r#","$maxDistance":1"#)),
        (
            query().near("k", here).exists("k"),
            format!(r#"{{"$and":[{{"k":{{"$exists":true}}}},{}]}}"#, near("")),
        ),
        (
            query().within_geo_box("k", point(-1.0, -2.0), point(3.0, 4.5)),
            r#"{"$and":[{"k.latitude":{"$exists":true,"$gte":-1,"$lte":3}},{"k.longitude":{"$exists":true,"$gte":-2,"$lte":4.5}}]}"#
                .to_owned(),
        ),
        (
            query().polygon_contains("k", here),
            r#"{"k":{"$all":[],"$geoIntersects":{"$point":{"__type":"GeoPoint","latitude":1.5,"longitude":-2}}}}"#
                .to_owned(),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
    let corners = [point(0.0, 0.0), point(0.0, 1.0), point(1.0, 1.0)];
    let text = sent(query().within_polygon("k", corners));
    let start = r#"{"$and":[{"k":{"$all":[],"$geoWithin":{"$polygon":[{"__type":"GeoPoint","latitude":0,"longitude":0},"#;
    assert!(text.starts_with(start), "{text}");
    // find() takes pairs of longitude and latitude, and a whole Polygon for the same.
    let pairs = json!([[0, 0], [1, 0], [1, 1]]);
    for polygon in [pairs.clone(), json!({"__type": "Polygon", "coordinates": pairs})] {
        let json = json!({"where": {"k": {"$geoWithin": {"$polygon": polygon}}}});
        assert_eq!(sent(Query::from_json("Game", json).unwrap()), text);
    }
}

#[test]
fn one_object_id_stays_alone() {
    assert_eq!(
        sent(query().equal_to("objectId", "x\"y")),
        r#"{"objectId":"x\"y"}"#
    );
}

#[test]
fn what_the_hash_would_confuse_is_marked() {
    let text = sent(query().equal_to("k", [1, 2]));
    let mark = r##"{"objectId":{"$nin":["#"##;
    assert!(
        text.starts_with(&format!(r#"{{"$and":[{{"k":{{"$all":[],"$eq":[1,2]}}}},{mark}"#)),
        "{text}"
    );
    assert_ne!(text, sent(query().equal_to("k", [2, 1])));
    assert_eq!(text, sent(query().equal_to("k", [1, 2])));
}

#[test]
fn a_wrong_query_is_reported_when_it_is_used() {
    for (query, part) in [
        (Query::new(""), "class name"),
        (query().equal_to("", 1), "no name of a field"),
        (query().equal_to("$or", 1), "no name of a field"),
        (query().equal_to("a..b", 1), "no name of a field"),
        (query().equal_to("ACL", 1), "ACL"),
        (
            query().equal_to("k", 1).equal_to("k", 2),
            "$eq with different values",
        ),
        (
            query().less_than("k", 1).less_than("k", 2),
            "$lt with different values",
        ),
        (
            query().exists("k").does_not_exist("k"),
            "$exists with different values",
        ),
        (query().does_not_exist("k").equal_to("k", 1), "no object meets"),
        (query().less_than("k", f64::NAN), "null has no order"),
        (query().equal_to("createdAt", 5), "needs a date"),
        (
            query().equal_to("k", std::collections::HashMap::from([((), 1)])),
            "cannot be written as JSON",
        ),
        (Query::or([]), "no queries"),
        (Query::or([query(), Query::new("Other")]), "different classes"),
        (Query::nor([query().equal_to("", 1)]), "no name of a field"),
        (query().select(["a", "a"]), "twice"),
        (query().select([""]), "empty"),
        (query().watch(["a.b"]), "dot"),
        (query().select::<String>([]), "no names"),
        (query().raw_where(5), "needs a JSON object"),
        (query().raw_where(json!({})).equal_to("k", 1), "after raw_where"),
        (query().limit(5), "limit and skip"),
        (query().skip(5), "limit and skip"),
        (Query::or([query().limit(5)]), "limit of a query inside Query::or"),
        (query().equal_to_all(5), "equal_to_all needs"),
        (query().within_polygon("k", [point(0.0, 0.0)]), "at least 3"),
        (
            query().within_radians("k", point(0.0, 0.0), -1.0, true),
            "0 or more",
        ),
        (
            query().within_radians("k", point(0.0, 0.0), f64::NAN, false),
            "0 or more",
        ),
        (query().full_text("k", ""), "no words"),
        (
            query().full_text_with("k", "a", json!({"lang": "en"})),
            "no option",
        ),
    ] {
        let message = refused(query);
        assert!(message.contains(part), "{message}");
    }
}

/// The errors that a subscription answers to what only `find()` can do, each in the documentation of its method.
#[test]
fn what_cannot_work_is_refused_as_documented() {
    let documented: String = [include_str!("constraints.rs"), include_str!("mod.rs")]
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.trim_start().strip_prefix("/// "))
        .flat_map(|line| [line, " "])
        .collect();
    let refusals = [
        ("full_text", query().full_text("k", "word")),
        ("matches_query", query().matches_query("k", Query::new("Team"))),
        (
            "does_not_match_query",
            query().does_not_match_query("k", Query::new("Team")),
        ),
        (
            "matches_key_in_query",
            query().matches_key_in_query("k", "name", Query::new("Team")),
        ),
        (
            "does_not_match_key_in_query",
            query().does_not_match_key_in_query("k", "name", Query::new("Team")),
        ),
        (
            "contains_all_starting_with",
            query().contains_all_starting_with("k", ["a"]),
        ),
        (
            "within_geo_box",
            query().within_geo_box("k", point(0.0, 170.0), point(10.0, -170.0)),
        ),
        ("the modifier 'x'", query().matches("k", "a", "x")),
        ("limit and skip", query().limit(1)),
        ("contained_by", query().contained_by("k", [1]).exists("k")),
    ];
    for (method, query) in refusals {
        let message = refused(query.clone());
        let (named, reason) = message
            .split_once(" cannot work in a LiveQuery subscription: ")
            .unwrap();
        assert!(named.starts_with(method), "{message}");
        let (reason, switch) = reason.split_once(" (allow_unsupported ").unwrap();
        assert!(documented.contains(reason), "not in the documentation: {reason}");
        assert!(switch.ends_with(')'));
        assert!(query.allow_unsupported().encode().is_ok());
    }
    for refusal in REFUSALS.iter().chain([&ALL_STARTING_WITH]) {
        let operator = refusal.operator;
        let json = match operator {
            "$relatedTo" => json!({"where": {operator: {}}}),
            "$all" => json!({"where": {"k": {operator: [{"$regex": "^a"}]}}}),
            _ => json!({"where": {"k": {operator: {}}}}),
        };
        let message = refused(Query::from_json("Game", json).unwrap());
        assert!(
            message.starts_with(refusal.method) && message.contains(refusal.way_out),
            "{message}"
        );
    }
    let message = refused(query().contained_by("k", [date()]));
    assert!(message.contains("does not find"), "{message}");
    let message = refused(query().equal_to("k", Relation::new("Team")));
    assert!(message.contains("keep an array of pointers"), "{message}");
}

#[test]
fn an_expert_gets_through_with_what_is_refused() {
    for (query, expected) in [
        (
            query().full_text("k", "word").equal_to("a", 1),
            r#"{"$and":[{"k":{"$text":{"$search":{"$term":"word"}}}},{"a":1}]}"#,
        ),
        (
            query().matches("k", "a b", "xi").exists("k"),
            r#"{"$and":[{"k":{"$exists":true}},{"k":{"$regex":"a b","$options":"xi"}}]}"#,
        ),
        (
            Query::from_json("Game", json!({"where": {"$relatedTo": {"key": "k"}}})).unwrap(),
            r#"{"$relatedTo":{"key":"k"}}"#,
        ),
        (query().limit(5).skip(5), "{}"),
    ] {
        assert_eq!(sent(query.allow_unsupported()), expected);
    }
}

#[test]
fn a_query_is_read_from_what_it_writes() {
    let text = r#"{"where":{"a":{"$gt":1,"$lt":5},"$or":[{"b":null},{"c":{"$in":["x"]}}]},"watch":"a","include":"who","excludeKeys":"d","keys":"a,b","limit":5,"skip":2,"order":"-a,b"}"#;
    let json: &serde_json::value::RawValue = serde_json::from_str(text).unwrap();
    let query = Query::from_json("Game", json).unwrap();
    assert_eq!(query.to_json().unwrap(), text);
    assert_eq!(query.class_name(), "Game");
    for (json, part) in [
        (json!(5), "needs a JSON object"),
        (json!({"where": 5}), "no JSON object"),
        (json!({"where": {"$or": {}}}), "no array"),
        (json!({"where": {"": 1}}), "no name of a field"),
        (json!({"limit": -1}), "cannot be -1"),
        (json!({"keys": ["a"]}), "cannot be"),
        (json!({"hint": "index"}), "no member"),
    ] {
        let message = Query::from_json("Game", json).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    for (json, part) in [
        (json!({"$or": []}), "combines no queries"),
        (json!({"k": {"$in": 5}}), "needs an array"),
        (json!({"k": {"$exists": 1}}), "malformed"),
        (json!({"k": {"$regex": 5}}), "malformed"),
        (json!({"k": {"$options": "i"}}), "nothing to belong to"),
        (json!({"k": {"$nearSphere": 5}}), "needs a GeoPoint"),
        (json!({"k": {"$within": {"$box": [1]}}}), "malformed"),
        (
            json!({"k": {"__type": "Date", "iso": "yesterday"}}),
            "needs a date",
        ),
        (
            json!({"k": {"__type": "GeoPoint", "latitude": 91, "longitude": 0}}),
            "needs a GeoPoint",
        ),
    ] {
        let query = Query::from_json("Game", json!({"where": json})).unwrap();
        let message = refused(query);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_field_that_is_named_again_gets_all_conditions() {
    let query = query().equal_to("k", 1).greater_than("k", 0).equal_to("k", 1);
    assert_eq!(query.to_json().unwrap(), r#"{"where":{"k":{"$eq":1,"$gt":0}}}"#);
    assert_eq!(
        sent(query),
        r#"{"$and":[{"k":{"$exists":true,"$nin":[null],"$gt":0}},{"k":1}]}"#
    );
    let query = self::query()
        .equal_to_all(json!({"a": 1, "b": 2}))
        .not_equal_to_all(json!({"c": 3}));
    assert_eq!(
        query.to_json().unwrap(),
        r#"{"where":{"a":1,"b":2,"c":{"$ne":3}}}"#
    );
}

#[test]
fn fields_are_lists_of_names() {
    let encoded = query().select(["a", "b"]).watch(["c"]).encode().unwrap();
    assert_eq!(&*encoded.class_name, "Game");
    assert_eq!(encoded.keys.as_deref(), Some(r#"["a","b"]"#));
    assert_eq!(encoded.watch.as_deref(), Some(r#"["c"]"#));
    let encoded = Query::new("User").encode().unwrap();
    assert_eq!(
        (&*encoded.class_name, encoded.keys, encoded.watch),
        ("_User", None, None)
    );
}

#[test]
fn queries_are_shared_between_threads() {
    fn check<T: Clone + std::fmt::Debug + Send + Sync + 'static>() {}
    check::<Query>();
}

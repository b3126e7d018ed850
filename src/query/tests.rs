//! What is sent for each constraint, and what is refused.

use serde_json::json;

use super::Query;
use super::refuse::{ALL_STARTING_WITH, REFUSALS};
use super::version::Age;
use crate::error::ErrorKind;
use crate::types::{Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation};

fn query() -> Query {
    Query::new("Game")
}

/// What is sent, without the mark that keeps hashes apart.
fn sent(query: Query) -> String {
    let text = query.encode().unwrap().where_json;
    let Some((before, rest)) = text.split_once(MARK) else {
        return text.into();
    };
    let after = rest.split_once("\"]}").unwrap().1;
    format!("{}{after}", before.strip_suffix(',').unwrap_or(before))
}

const MARK: &str = r##""objectId":{"$nin":["#"##;

/// A field that is a text and matches the condition, which the empty text does not.
fn text_with(condition: &str) -> String {
    format!(r#"{{"k.charAt.name":"charAt","k":{condition}}}"#)
}

/// The same, if the empty text may match.
fn any_text_with(condition: &str) -> String {
    let empty = r#"{"k.length":{"$exists":false},"k":""}"#;
    format!(r#"{{"$or":[{{"k.charAt.name":"charAt"}},{empty}],"k":{condition}}}"#)
}

/// A field that is a number and matches the condition.
fn number_with(guard: &str, condition: &str) -> String {
    let no = r#"{"$exists":false}"#;
    let least = if guard == "$lte" { r#","\u0000""# } else { "" };
    format!(
        r#"{{"k.__type":{no},"k.getTime":{no},"k.length":{no},"k.toString.name":"toString","k":{{"$exists":true,"{guard}":"\u0000","$nin":[null,true,false,""{least}],{condition}}}}}"#
    )
}

const NULL: &str = r#"{"$nor":[{"k":{"$all":[]}},{"k":0},{"k":false},{"k":""}]}"#;

/// A field that is a date and matches the condition.
fn date_with(condition: &str) -> String {
    format!(r#"{{"$or":[{{"k.__type":"Date"}},{{"k.getTime.name":"getTime"}}],"k":{condition}}}"#)
}

/// That date, at this minute of the hour.
fn same_date(iso: &str) -> String {
    let date = format!(r#"{{"__type":"Date","iso":"{iso}"}}"#);
    date_with(&format!(r#"{{"$gte":{date},"$lte":{date}}}"#))
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
    for (query, expected) in [
        (query(), "{}".to_owned()),
        (query().equal_to("k", "v"), r#"{"k":"v"}"#.to_owned()),
        (query().equal_to("k", 1.0), r#"{"k":1}"#.to_owned()),
        (query().equal_to("k", true), r#"{"k":true}"#.to_owned()),
        (query().equal_to("k", None::<i32>), NULL.to_owned()),
        (query().equal_to("k", date()), same_date(ISO)),
        (
            query().equal_to("k", &pointer),
            r#"{"k":{"$in":[{"__type":"Pointer","className":"Team","objectId":"t1"}]}}"#.to_owned(),
        ),
        (
            query().equal_to("createdAt", date()),
            format!(r#"{{"createdAt":"{ISO}"}}"#),
        ),
        (query().not_equal_to("k", 1), r#"{"$nor":[{"k":1}]}"#.to_owned()),
        (
            query().not_equal_to("k", &pointer),
            r#"{"$nor":[{"k":{"$in":[{"__type":"Pointer","className":"Team","objectId":"t1"}]}}]}"#
                .to_owned(),
        ),
        (
            query().not_equal_to("k", date()),
            format!(r#"{{"$nor":[{}]}}"#, same_date(ISO)),
        ),
        (query().less_than("k", 6), number_with("$lte", r#""$lt":6"#)),
        (query().less_than("k", "b"), any_text_with(r#"{"$lt":"b"}"#)),
        (query().greater_than("k", "b"), text_with(r#"{"$gt":"b"}"#)),
        (
            query().greater_than_or_equal_to("k", ""),
            any_text_with(r#"{"$gte":""}"#),
        ),
        (
            query().greater_than("k", date()),
            date_with(&format!(r#"{{"$gt":{{"__type":"Date","iso":"{ISO}"}}}}"#)),
        ),
        (query().less_than("k", true), r#"{"k":false}"#.to_owned()),
        (
            query()
                .greater_than("k", 1)
                .less_than_or_equal_to("k", 5)
                .not_equal_to("k", 3),
            number_with("$lt", r#""$gt":1,"$lte":5"#)
                .replace(r#""$lte":5}}"#, r#""$lte":5},"$nor":[{"k":3}]}"#),
        ),
        (
            query().greater_than_or_equal_to("updatedAt", date()),
            format!(r#"{{"updatedAt":{{"$exists":true,"$gte":"{ISO}"}}}}"#),
        ),
        (
            query().contained_in("k", [1, 2]),
            r#"{"$or":[{"k":1},{"k":2}]}"#.to_owned(),
        ),
        (
            query().contained_in("k", [json!("a"), json!(null)]),
            format!(r#"{{"$or":[{{"k":"a"}},{NULL}]}}"#),
        ),
        (query().exists("k"), r#"{"k":{"$exists":true}}"#.to_owned()),
        (
            query().does_not_exist("k"),
            r#"{"k":{"$exists":false}}"#.to_owned(),
        ),
        (
            query().equal_to("from", "alice").equal_to("to", "bob"),
            r#"{"from":"alice","to":"bob"}"#.to_owned(),
        ),
        (
            Query::or([
                query().equal_to("a", 1).equal_to("b", 2),
                query().equal_to("c", 3),
            ]),
            r#"{"$or":[{"a":1,"b":2},{"c":3}]}"#.to_owned(),
        ),
        (
            Query::or([query().equal_to("a", 1), query()]).equal_to("b", 2),
            r#"{"$or":[{"a":1},{}],"b":2}"#.to_owned(),
        ),
        (
            Query::and([query().equal_to("a", 1), query().equal_to("a", 2)]),
            r#"{"a":1,"$and":[{"a":2}]}"#.to_owned(),
        ),
        (
            Query::nor([query().less_than("k", 1)]),
            format!(r#"{{"$nor":[{}]}}"#, number_with("$lte", r#""$lt":1"#)),
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
            r#"{"k.__type":"Bytes","k.base64":"AQID"}"#,
        ),
        (
            query().equal_to("k", point(1.5, -2.0)),
            r#"{"k.__type":"GeoPoint","k.latitude":1.5,"k.longitude":-2}"#,
        ),
        (
            query().not_equal_to("k", point(1.5, -2.0)),
            r#"{"$nor":[{"k.__type":"GeoPoint","k.latitude":1.5,"k.longitude":-2}]}"#,
        ),
        (
            query().equal_to("k", File::new("a.txt")),
            r#"{"k.__type":"File","k.name":"a.txt"}"#,
        ),
        (query().equal_to("k", json!({})), r#"{"k":{"$all":[],"$eq":{}}}"#),
        (
            query().equal_to("k", json!({"a": 1})),
            r#"{"k":{"$all":[],"$eq":{"a":1}}}"#,
        ),
        (
            query().equal_to("k", json!([5])),
            r#"{"k.length":1,"k":{"$all":[],"$eq":[5]}}"#,
        ),
        (
            query().not_equal_to("k", None::<i32>),
            r#"{"$nor":[{"$nor":[{"k":{"$all":[]}},{"k":0},{"k":false},{"k":""}]}]}"#,
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
    let text = sent(query().equal_to("k", polygon));
    assert_eq!(
        text,
        r#"{"k.__type":"Polygon","$or":[{"k.coordinates.length":3},{"k.coordinates.length":4,"k.coordinates.3.0":0,"k.coordinates.3.1":0}],"k.coordinates.0.0":0,"k.coordinates.0.1":0,"k.coordinates.1.0":0,"k.coordinates.1.1":1,"k.coordinates.2.0":1,"k.coordinates.2.1":1}"#
    );
}

#[test]
fn arrays_and_lists_are_asked_for_value_by_value() {
    let iso = |day| format!("2024-01-0{day}T00:00:00.000Z");
    let dates = [iso(1), iso(2)].map(|iso| Date::parse(&iso).unwrap());
    let equals = |day| same_date(&iso(day));
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
            r#"{"$nor":[{"k":"a"},{"k":"b"}]}"#.to_owned(),
        ),
        (
            query().contains_all("k", ["a", "b"]),
            r#"{"k":"a","$and":[{"k":"b"}]}"#.to_owned(),
        ),
        // On MongoDB, an empty $all matches nothing.
        (
            query().contains_all::<i32>("k", []),
            r#"{"k":{"$in":[]}}"#.to_owned(),
        ),
        (
            query().contained_by("k", [1, 2]),
            r#"{"$or":[{"k.push.name":{"$ne":"push"}},{"k":{"$containedBy":[1,2]}}]}"#.to_owned(),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
}

#[test]
fn texts_are_matched_without_quotations() {
    for (query, expected) in [
        (
            query().matches("k", "^a", ""),
            text_with(r#"{"$gte":"a","$lt":"b"}"#),
        ),
        (
            query().starts_with("k", "a.b"),
            text_with(r#"{"$gte":"a.b","$lt":"a.c"}"#),
        ),
        (
            query().matches("k", "a|b", "ims"),
            any_text_with(r#"{"$regex":"a|b","$options":"iu"}"#),
        ),
        (query().contains("k", "a(b"), text_with(r#"{"$regex":"a\\(b"}"#)),
        (query().contains("k", ""), any_text_with(r#"{"$regex":""}"#)),
        (
            query().starts_with_modifiers("k", "a", "i"),
            text_with(r#"{"$regex":"^a","$options":"i"}"#),
        ),
        (
            query().ends_with("k", "\\E"),
            text_with(r#"{"$regex":"\\x5cE$"}"#),
        ),
        (
            query().ends_with_modifiers("k", "a", "m"),
            any_text_with(r#"{"$regex":"a(?![^\\n])","$options":"u"}"#),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
}

#[test]
fn places_are_asked_for_by_what_never_throws() {
    let near = |rest: &str| {
        format!(
            r#"{{"k.__type":"GeoPoint","k":{{"$nearSphere":{{"__type":"GeoPoint","latitude":1.5,"longitude":-2}}{rest}}}}}"#
        )
    };
    let here = point(1.5, -2.0);
    for (query, expected) in [
        (query().near("k", here), near("")),
        (query().within_radians("k", here, 0.5, true), near(r#","$maxDistance":0.5"#)),
        (query().within_radians("k", here, 0.5, false), near(r#","$maxDistance":0.5"#)),
        // The matcher treats 0 as no limit.
        (query().within_miles("k", here, 0.0, true), near(r#","$maxDistance":2.2250738585072014e-308"#)),
        (query().within_kilometers("k", here, 6371.0, false), near(r#","$maxDistance":1"#)),
        (
            query().near("k", here).exists("k"),
            format!(r#"{{"k":{{"$exists":true}},"$and":[{}]}}"#, near("")),
        ),
        (
            query().within_geo_box("k", point(-1.0, -2.0), point(3.0, 4.5)),
            r#"{"k.__type":"GeoPoint","k.latitude":{"$gte":-1,"$lte":3},"k.longitude":{"$gte":-2,"$lte":4.5}}"#
                .to_owned(),
        ),
        (
            query().polygon_contains("k", here),
            r#"{"k.__type":"Polygon","k.coordinates.2.1":{"$exists":true},"k":{"$geoIntersects":{"$point":{"__type":"GeoPoint","latitude":1.5,"longitude":-2}}}}"#
                .to_owned(),
        ),
    ] {
        assert_eq!(sent(query), expected);
    }
    let corners = [point(0.0, 0.0), point(0.0, 1.0), point(1.0, 1.0)];
    let text = sent(query().within_polygon("k", corners));
    let start = r#"{"k.__type":"GeoPoint","k":{"$geoWithin":{"$polygon":[{"__type":"GeoPoint","latitude":0,"longitude":0},"#;
    assert!(text.starts_with(start), "{text}");
    // find() takes pairs of longitude and latitude, and reads a whole Polygon in the same way.
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
    let text = |query: Query| query.encode().unwrap().where_json;
    let list = text(query().equal_to("k", [1, 2]));
    assert!(
        list.starts_with(&format!(r#"{{"k.length":2,"k":{{"$all":[],"$eq":[1,2]}},{MARK}"#)),
        "{list}"
    );
    assert_ne!(list, text(query().equal_to("k", [2, 1])));
    assert_eq!(list, text(query().equal_to("k", [1, 2])));
    // The hash ignores everything beside an $or.
    let either = Query::or([query().equal_to("a", 1), query().equal_to("a", 2)]).equal_to("b", 1);
    let either = text(either);
    assert!(
        either.starts_with(&format!(r#"{{"$or":[{{"a":1,{MARK}"#)),
        "{either}"
    );
    // A condition on the id leaves another field for the mark.
    let one = text(query().equal_to("objectId", "x").equal_to("a", 1));
    assert!(
        one.starts_with(r##"{"objectId":"x","a":1,"createdAt":{"$nin":["#"##),
        "{one}"
    );
    assert_eq!(&*text(query().equal_to("a", 1)), r#"{"a":1}"#);
}

#[test]
fn a_wrong_query_is_reported_when_it_is_used() {
    for (query, part) in [
        (Query::new(""), "class name"),
        (query().equal_to("", 1), "not a name of a field"),
        (query().equal_to("$or", 1), "not a name of a field"),
        (query().equal_to("a..b", 1), "not a name of a field"),
        (query().equal_to("ACL", 1), "ACL"),
        (
            query().equal_to("k", 1).equal_to("k", 2),
            "equal_to with different values",
        ),
        (
            query().less_than("k", 1).less_than("k", 2),
            "less_than with different values",
        ),
        (
            query().exists("k").does_not_exist("k"),
            "exists with different values",
        ),
        (
            query().does_not_exist("k").equal_to("k", 1),
            "no object can match",
        ),
        (query().less_than("k", f64::NAN), "less_than on \"k\" got a float"),
        (query().less_than("k", None::<i32>), "null has no order"),
        (query().equal_to("k", f64::INFINITY), "not finite"),
        (
            query().contains("k", "a").ends_with("k", "b"),
            "two regular expressions",
        ),
        (
            query().matches("k", "a", "").matches("k", "a", "i"),
            "two regular expressions",
        ),
        (Query::new("Ga me"), "did you mean \"Game\""),
        (Query::new("9Game"), "did you mean \"Game\""),
        (Query::new("_user"), "did you mean \"_User\""),
        (query().equal_to("constructor", 1), "every value"),
        (
            query().greater_than("tags.length", 1),
            "every text and every array",
        ),
        (query().exists("o.keys"), "some text, array"),
        (
            query().contained_in("k", [point(0.0, 0.0)]),
            "combine queries with equal_to",
        ),
        (
            query().matches("k", "(", ""),
            "at position 1 of \"(\": a group is not closed",
        ),
        (query().equal_to("createdAt", 5), "needs a date"),
        (
            query().equal_to("k", std::collections::HashMap::from([((), 1)])),
            "cannot be written as JSON",
        ),
        (Query::or([]), "no queries"),
        (Query::or([query(), Query::new("Other")]), "different classes"),
        (Query::nor([query().equal_to("", 1)]), "not a name of a field"),
        (query().select(["a", "a"]), "twice"),
        (query().select([""]), "empty"),
        (query().watch(["a.b"]), "dot"),
        (query().select([""; 0]), "no field names"),
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
            "not finite",
        ),
        (query().equal_to("k", Some(f64::NAN)), "not finite"),
        (query().contained_in("k", [None, Some(f64::NAN)]), "not finite"),
        (query().equal_to("k", Reading { value: f64::NAN }), "not finite"),
        (
            query().equal_to_all(std::collections::BTreeMap::from([("k", f64::NAN)])),
            "not finite",
        ),
        (query().raw_where(Reading { value: f64::NAN }), "not finite"),
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

/// The errors of a subscription for what only `find()` can do, each quoted in the documentation of its
/// method.
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
            r#"{"k":{"$text":{"$search":{"$term":"word"}}},"a":1}"#,
        ),
        (
            query().matches("k", "a b", "xi").exists("k"),
            r#"{"k":{"$exists":true},"$and":[{"k":{"$regex":"a b","$options":"xi"}}]}"#,
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
        (json!({"where": 5}), "not a JSON object"),
        (json!({"where": {"$or": {}}}), "not an array"),
        (json!({"where": {"": 1}}), "not a name of a field"),
        (json!({"limit": -1}), "cannot be -1"),
        (json!({"keys": ["a"]}), "cannot be"),
        (json!({"pipeline": "index"}), "no member"),
    ] {
        let message = Query::from_json("Game", json).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    for (json, part) in [
        (json!({"$or": []}), "got no queries to combine"),
        (json!({"k": {"$in": 5}}), "needs an array"),
        (json!({"k": {"$exists": 1}}), "malformed"),
        (json!({"k": {"$regex": 5}}), "malformed"),
        (json!({"k": {"$options": "i"}}), "no $regex to belong to"),
        (json!({"k": {"$maxDistance": 1}}), "no $nearSphere to belong to"),
        (
            json!({"k": {"$gt": {"$relativeTime": "1 day ago"}}}),
            "compute the date",
        ),
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
        number_with("$lt", r#""$gt":0"#)
            .replace("}}", "}}@")
            .replace("}}@", r#"},"$and":[{"k":1}]}"#)
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

#[derive(serde::Serialize)]
struct Reading {
    value: f64,
}

/// How deeply the server considers the conditions of a query to be nested.
fn depth_of(query: &Query) -> usize {
    let text = query.encode().unwrap().where_json;
    super::version::depth(&serde_json::from_str(&text).unwrap())
}

#[test]
fn ordinary_queries_stay_far_below_the_depth_that_server_10_takes() {
    let here = point(1.0, 2.0);
    let corners = [point(0.0, 0.0), point(0.0, 1.0), point(1.0, 1.0)];
    let polygon = Polygon::new([point(0.0, 0.0), point(0.0, 1.0), point(1.0, 1.0)]).unwrap();
    let pointer = Pointer::new("Team", "t1");
    let simple = [
        query().equal_to("k", 1),
        query().equal_to("k", None::<i32>),
        query().equal_to("k", date()),
        query().equal_to("k", pointer.clone()),
        query().equal_to("k", here),
        query().equal_to("k", polygon),
        query().equal_to("k", json!({"a": [null, {"b": null}]})),
        query().equal_to("tags.0", "a"),
        query().not_equal_to("k", None::<i32>),
        query().not_equal_to("k", date()),
        query().not_equal_to("o.0.1", "a"),
        query().greater_than("k", 1).less_than("k", 5),
        query().greater_than("k", "a").less_than_or_equal_to("k", "b"),
        query().greater_than("k", date()),
        query().less_than("k", true),
        query().contained_in("k", [json!(1), json!(null), json!("a"), json!(pointer)]),
        query().not_contained_in("k", [json!(1), json!(null), json!("a"), json!(pointer)]),
        query().contained_by("k", ["a", "b"]),
        query().contains_all("k", ["a", "b"]),
        query().contains_all("k", [pointer, Pointer::new("Team", "t2")]),
        query().exists("k"),
        query().does_not_exist("o.0"),
        query().matches("k", "^a+", "i"),
        query().starts_with("k", "a"),
        query().near("k", here),
        query().within_kilometers("k", here, 5.0, false),
        query().within_geo_box("k", point(0.0, 0.0), point(5.0, 5.0)),
        query().within_polygon("k", corners),
        query().polygon_contains("k", here),
    ];
    for one in &simple {
        assert!(depth_of(one) <= 4, "{} of {one:?}", depth_of(one));
        // One inside another, and that inside a third.
        let either = Query::or([one.clone(), query().equal_to("a", 1)]);
        let none = Query::nor([either.clone(), query().equal_to("b", 1)]);
        let all = Query::and([none.clone(), either, one.clone()]).not_equal_to("c", 1);
        assert!(depth_of(&all) <= 7, "{} of {all:?}", depth_of(&all));
        let age = Some(Age::exactly("10".parse().unwrap()));
        assert!(all.encode_for(age).is_ok());
    }
}

#[test]
fn what_server_10_would_refuse_for_its_depth_is_refused_if_it_was_named() {
    let nested = |times| {
        (0..times).fold(query().equal_to("k", 1), |inner, level| {
            Query::nor([inner, query().equal_to(&format!("k{level}"), 1)])
        })
    };
    let age = |text: &str| Some(Age::exactly(text.parse().unwrap()));
    assert_eq!(depth_of(&nested(10)), 10);
    assert!(nested(10).encode_for(age("10")).is_ok());
    let deep = nested(11);
    assert_eq!(depth_of(&deep), 11);
    let error = deep.encode_for(age("10.1")).unwrap_err().to_string();
    assert!(
        error.contains("11 deep") && error.contains("queryDepth"),
        "{error}"
    );
    assert!(deep.encode_for(age("9.10")).is_ok());
    assert!(deep.encode_for(None).is_ok());
    assert!(deep.allow_unsupported().encode_for(age("10")).is_ok());
}

#[test]
fn a_server_gets_only_what_it_understands() {
    let age = |text: &str| Some(Age::exactly(text.parse().unwrap()));
    let two = query().equal_to("from", "a").equal_to("to", "b");
    for (query, since) in [
        (two, None),
        (query().greater_than("k", 1), None),
        (query().starts_with("k", "a"), None),
        (query().contained_in("k", [1, 2]), None),
        (query().equal_to("k", date()), Some("3.4")),
        (query().not_equal_to("k", 1), Some("5.0")),
        (query().equal_to("k", None::<i32>), Some("5.0")),
        (query().equal_to("k", json!({"a": 1})), Some("6.3")),
        (query().watch(["k"]), Some("6.1")),
        (query().contained_by("k", [1]), Some("5.0")),
    ] {
        // A server that does not know `watch` reports it itself.
        if since != Some("6.1") {
            let encoded = query.encode().unwrap();
            let needs = encoded.by_age().map(|by_age| by_age.since.to_string());
            assert_eq!(needs.as_deref(), since, "{query:?}");
        }
        assert!(query.encode_for(age("9.10")).unwrap().by_age().is_none());
        let old = query.encode_for(age("2.8")).map_err(|error| error.to_string());
        match since {
            None => assert!(old.is_ok(), "{old:?}"),
            Some(since) => {
                let wanted = format!("needs Parse Server {since} or later, and this server is 2.8");
                assert!(old.unwrap_err().contains(&wanted));
            }
        }
    }
    let pointer = query().equal_to("k", Pointer::new("Team", "t1"));
    let old = pointer.encode_for(age("4.10")).unwrap();
    assert!(!old.where_json.contains("$in\""), "{old:?}");
}

#[test]
fn a_query_that_no_server_takes_is_refused() {
    use super::{LONGEST, check_length};

    for (bytes, fits) in [(LONGEST - 1, true), (LONGEST, true), (LONGEST + 1, false)] {
        assert_eq!(check_length(bytes).is_ok(), fits, "{bytes}");
    }
    let error = query().select(["x".repeat(LONGEST)]).encode().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidQuery);
    assert!(error.to_string().contains("100 MiB"), "{error}");
}

#[test]
fn what_all_values_inherit_in_javascript_is_no_member_of_an_object() {
    let query = query().equal_to("k", json!({"hasOwnProperty": null, "a": 1}));
    for (held, matches) in [
        (json!({"hasOwnProperty": null, "a": 1}), true),
        (json!({"a": 1}), false),
        (json!({"hasOwnProperty": 1, "a": 1}), false),
        (json!("text"), false),
        (json!(null), false),
    ] {
        let object = crate::object::Object::from_json(json!({"className": "Game", "k": held})).unwrap();
        assert_eq!(query.matches_object(&object).unwrap(), Some(matches), "{held}");
    }
    let text = super::Query::new("Game").starts_with("k", "a");
    for (held, matches) in [
        (json!("ab"), true),
        (json!({"toString": "ab", "charAt": 1}), false),
        (json!(["ab"]), false),
    ] {
        let object = crate::object::Object::from_json(json!({"className": "Game", "k": held})).unwrap();
        assert_eq!(text.matches_object(&object).unwrap(), Some(matches), "{held}");
    }
}

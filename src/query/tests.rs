//! What is sent for each constraint, and what is refused.

use serde_json::json;

use super::Query;
use crate::{Date, ErrorKind, Pointer};

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
    ] {
        let message = refused(query);
        assert!(message.contains(part), "{message}");
    }
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

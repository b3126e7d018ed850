//! The types against what a Parse Server sends, and against what none does.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;

/// Reads what a Parse Server 9.10 sent, writes it, and wants the same text; and the same by way of a `Value`.
fn round_trip<T: DeserializeOwned + Serialize + PartialEq + Clone + Debug>(json: &str) -> T
where
    Value: From<T>,
{
    let read: T = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    let value: Value = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::from_value::<T>(value.clone()).unwrap(), read);
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
    assert_eq!(Value::from(read.clone()), value);
    read
}

#[test]
fn every_type_makes_the_round_trip_unchanged() {
    let pointer: Pointer = round_trip(r#"{"__type":"Pointer","className":"Owner","objectId":"Hu1HUCrSgj"}"#);
    assert_eq!(
        (pointer.class_name(), pointer.object_id()),
        ("Owner", "Hu1HUCrSgj")
    );

    let file: File = round_trip(
        r#"{"__type":"File","name":"c4_a.txt","url":"http://127.0.0.1/parse/files/app/c4_a.txt"}"#,
    );
    assert_eq!(file.name(), "c4_a.txt");
    assert_eq!(file.url(), Some("http://127.0.0.1/parse/files/app/c4_a.txt"));
    let file: File = round_trip(r#"{"__type":"File","name":"a.txt"}"#);
    assert_eq!(file, File::new("a.txt"));

    let bytes: Bytes = round_trip(r#"{"__type":"Bytes","base64":"AQID"}"#);
    assert_eq!(bytes, Bytes::new([1, 2, 3]));
    let bytes: Bytes = round_trip(r#"{"__type":"Bytes","base64":""}"#);
    assert_eq!(bytes, Bytes::default());
    let bytes: Bytes = round_trip(r#"{"__type":"Bytes","base64":"+/8="}"#);
    assert_eq!(bytes.into_vec(), [0xFB, 0xFF]);

    let relation: Relation = round_trip(r#"{"__type":"Relation","className":"Owner"}"#);
    assert_eq!(relation, Relation::new("Owner"));

    let date: Date = round_trip(r#"{"__type":"Date","iso":"2020-01-01T00:00:00.000Z"}"#);
    assert_eq!(date, Date::parse("2020-01-01T00:00:00Z").unwrap());
    round_trip::<Date>(r#"{"__type":"Date","iso":"9999-12-31T23:59:59.999Z"}"#);
    round_trip::<Date>(r#"{"__type":"Date","iso":"1815-06-18T12:00:00.001Z"}"#);

    let place: GeoPoint = round_trip(r#"{"__type":"GeoPoint","latitude":1.5,"longitude":-2}"#);
    assert_eq!(place, GeoPoint::new(1.5, -2.0).unwrap());
    round_trip::<GeoPoint>(r#"{"__type":"GeoPoint","latitude":0,"longitude":0.3333333333333333}"#);

    let area: Polygon = round_trip(r#"{"__type":"Polygon","coordinates":[[0,0],[0,1],[1,1.5],[0,0]]}"#);
    assert_eq!(area.coordinates().len(), 4);

    let acl: Acl = round_trip(
        r#"{"*":{"read":true,"write":true},"role:Admins":{"write":true},"u1":{"read":true,"write":true}}"#,
    );
    assert!(acl.public_write_access() && acl.role_write_access("Admins"));
    round_trip::<Acl>(r#"{"*":{"read":true},"u1":{},"u2":{"read":false,"write":true}}"#);
}

#[test]
fn base64_is_read_as_generously_as_the_server_reads_it() {
    let with_line_break: Bytes =
        serde_json::from_value(json!({"__type": "Bytes", "base64": "AQ\r\nID"})).unwrap();
    assert_eq!(with_line_break.as_slice(), [1, 2, 3]);
    let with_stray_bits: Bytes =
        serde_json::from_value(json!({"__type": "Bytes", "base64": "AR=="})).unwrap();
    assert_eq!(with_stray_bits.as_slice(), [1]);
}

#[test]
fn a_pointer_can_be_read_from_the_object_that_a_hook_put_in_its_place() {
    let fetched = json!({
        "__type": "Object", "className": "Owner", "objectId": "o1", "name": "ann",
        "createdAt": "2026-11-24T06:58:35.550Z", "updatedAt": "2026-11-24T06:58:35.550Z",
    });
    assert_eq!(
        serde_json::from_value::<Pointer>(fetched).unwrap(),
        Pointer::new("Owner", "o1")
    );
}

#[test]
fn what_is_malformed_is_refused_with_what_is_wrong() {
    fn refused<T: DeserializeOwned + Debug>(value: Value, reason: &str) {
        let message = serde_json::from_value::<T>(value).unwrap_err().to_string();
        assert!(message.contains(reason), "{message:?} does not say {reason:?}");
    }
    let long = "x".repeat(1000);

    refused::<Pointer>(json!({"className": "A", "objectId": "a"}), "must have a `__type`");
    refused::<Pointer>(
        json!({"__type": "Pointer", "className": "A"}),
        "the Pointer has no `objectId`",
    );
    refused::<Pointer>(
        json!({"__type": "Pointer", "objectId": "a"}),
        "the Pointer has no `className`",
    );
    refused::<Pointer>(json!("A$a"), "expected a Pointer, such as {\"__type\"");
    refused::<Pointer>(
        json!({"__type": "Rocket", "className": "A", "objectId": "a"}),
        "expected the `__type` \"Pointer\", found \"Rocket\"",
    );

    refused::<File>(json!({"__type": "File", "url": "u"}), "the File has no `name`");
    refused::<File>(
        json!({"__type": "File", "name": 5}),
        "invalid type: integer `5`, expected a string",
    );
    refused::<Bytes>(json!({"__type": "Bytes"}), "the Bytes has no `base64`");
    refused::<Bytes>(
        json!({"__type": "Bytes", "base64": "A"}),
        "`base64` of the Bytes cannot be decoded",
    );
    refused::<Relation>(json!({"__type": "Relation"}), "the Relation has no `className`");

    refused::<Date>(json!({"__type": "Date"}), "the Date has no `iso`");
    refused::<Date>(
        json!({"__type": "Date", "iso": "soon"}),
        "\"soon\" is not a date such as 2024-",
    );
    refused::<Date>(json!({"__type": "Date", "iso": null}), "the Date has no `iso`");
    refused::<Date>(
        json!({"__type": "GeoPoint", "latitude": 1, "longitude": 1}),
        "found \"GeoPoint\"",
    );
    refused::<Date>(
        json!(1_704_164_645_678_u64),
        "expected a Date, such as {\"__type\"",
    );
    refused::<Date>(json!(long), &format!("\"{}…\" is not a date", "x".repeat(80)));

    refused::<GeoPoint>(
        json!({"__type": "GeoPoint", "latitude": 91, "longitude": 0}),
        "the latitude 91 of a GeoPoint is not within -90 to 90",
    );
    refused::<GeoPoint>(
        json!({"__type": "GeoPoint", "latitude": 0, "longitude": -180.5}),
        "the longitude -180.5 of a GeoPoint is not within -180 to 180",
    );
    refused::<GeoPoint>(
        json!({"__type": "GeoPoint", "latitude": 0}),
        "the GeoPoint has no `longitude`",
    );
    refused::<GeoPoint>(
        json!({"__type": "File", "name": "a"}),
        "the `__type` \"GeoPoint\", found \"File\"",
    );
    refused::<GeoPoint>(json!({"__type": 7}), "expected a string");
    refused::<GeoPoint>(json!([1, 2]), "expected");
    refused::<GeoPoint>(json!({"__type": long}), &format!("found \"{}…\"", "x".repeat(80)));

    refused::<Polygon>(
        json!({"__type": "Polygon", "coordinates": [[0, 0], [0, 1]]}),
        "at least 3 points, and there are 2",
    );
    refused::<Polygon>(
        json!({"__type": "Polygon", "coordinates": [[0, 0], [0, 1], [91, 0]]}),
        "the latitude 91 of a GeoPoint",
    );
    refused::<Polygon>(
        json!({"__type": "Polygon", "coordinates": [[0, 0], [0, 1], [1]]}),
        "invalid length 1",
    );
    refused::<Acl>(json!({"u1": {"admin": true}}), "unknown field `admin`");
    refused::<Acl>(json!({"u1": {"read": 1}}), "expected a boolean");
}

#[test]
fn the_types_work_inside_a_struct_that_is_flattened() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Game {
        name: String,
        #[serde(flatten)]
        details: Details,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Details {
        when: Option<Date>,
        places: Vec<GeoPoint>,
        owner: Pointer,
    }

    let json = json!({
        "name": "chess",
        "when": {"__type": "Date", "iso": "2020-01-01T00:00:00.000Z"},
        "places": [{"__type": "GeoPoint", "latitude": 1.5, "longitude": -2}],
        "owner": {"__type": "Pointer", "className": "Owner", "objectId": "o1"},
    });
    let game: Game = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&game).unwrap(), json);
    let without_date: Game =
        serde_json::from_value(json!({"name": "", "places": [], "owner": json["owner"]})).unwrap();
    assert_eq!(without_date.details.when, None);
}

#[test]
fn the_types_go_from_thread_to_thread() {
    fn is_sound<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static>() {}
    is_sound::<Acl>();
    is_sound::<Bytes>();
    is_sound::<Date>();
    is_sound::<File>();
    is_sound::<GeoPoint>();
    is_sound::<Pointer>();
    is_sound::<Polygon>();
    is_sound::<Relation>();
}

#[test]
fn a_date_with_a_duration_stays_within_the_years_that_there_are() {
    let (first, last) = (
        Date::from(SystemTime::UNIX_EPOCH) - Duration::MAX,
        Date::from(SystemTime::UNIX_EPOCH) + Duration::MAX,
    );
    assert_eq!(Date::parse(&last.to_string()).unwrap(), last);
    assert_eq!(Date::parse(&first.to_string()).unwrap(), first);
    assert_eq!(
        (last + Duration::from_secs(1), first - Duration::from_secs(1)),
        (last, first)
    );
    let date = Date::from_millis(1500).unwrap();
    assert_eq!((date + Duration::from_micros(1999)).millis(), 1501);
    assert_eq!((date - Duration::from_secs(2)).millis(), -500);
}

//! What it costs to read an object: one field, four fields as a struct, everything.
//!
//! What starts with `text` makes the `Object` from the text each time, as for an event: one pass that checks the JSON,
//! which the routing of a frame does as well, then the index of the members, then the decoding of what is asked for.

#![allow(clippy::expect_used, reason = "a benchmark that fails has nothing to measure")]
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parse_livequery::{Date, GeoPoint, Object};
use serde::Deserialize;
use serde_json::Value;

fn create_of_250_bytes() -> String {
    let text = r#"{"playerName":"Sean Plott","score":1337,"cheatMode":false,"level":12,"createdAt":"2026-11-24T06:58:56.879Z","updatedAt":"2026-11-24T06:58:56.879Z","ACL":{"*":{"read":true},"gBJaZIhpwn":{"write":true}},"className":"GameScore","objectId":"AWFW34WWIH"}"#;
    assert!((240..260).contains(&text.len()), "{}", text.len());
    text.to_owned()
}

fn update_of_900_bytes() -> String {
    let text = r#"{"createdAt":"2026-11-24T06:58:56.879Z","updatedAt":"2026-11-24T06:58:57.532Z","when":{"__type":"Date","iso":"2020-01-01T00:00:00.000Z"},"place":{"__type":"GeoPoint","latitude":1.5,"longitude":-2},"area":{"__type":"Polygon","coordinates":[[0,0],[0,1],[1,1],[0,0]]},"data":{"__type":"Bytes","base64":"AQID"},"tags":["a",1,null,{"x":1}],"stats":{"level":3,"owner":{"__type":"Pointer","className":"Owner","objectId":"gBJaZIhpwn"}},"playerName":"Sean Plott","score":1338,"third":0.3333333333333333,"cheatMode":true,"file":{"__type":"File","name":"e82e03f4697f_a.txt","url":"http://127.0.0.1:1337/parse/files/app/e82e03f4697f_a.txt"},"owner":{"__type":"Pointer","className":"Owner","objectId":"gBJaZIhpwn"},"players":{"__type":"Relation","className":"Owner"},"ACL":{"*":{"read":true,"write":true},"u1":{"read":true},"role:Admins":{"write":true}},"className":"GameScore","objectId":"AWFW34WWIH"}"#;
    assert!((850..950).contains(&text.len()), "{}", text.len());
    text.to_owned()
}

fn object_of_10_kb() -> String {
    let entries: Vec<_> = (0..80)
        .map(|n| {
            format!(
                r#"{{"round":{n},"points":{},"comment":"well played, number {n}","at":{{"__type":"Date","iso":"2026-11-24T06:58:56.879Z"}}}}"#,
                n * 17
            )
        })
        .collect();
    let text = update_of_900_bytes().replacen('{', &format!(r#"{{"rounds":[{}],"#, entries.join(",")), 1);
    assert!((9_500..10_500).contains(&text.len()), "{}", text.len());
    text
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only decoded")]
struct Score {
    player_name: String,
    score: f64,
    created_at: Date,
    place: Option<GeoPoint>,
}

fn read(c: &mut Criterion) {
    for (name, text) in [
        ("create_250B", create_of_250_bytes()),
        ("update_900B", update_of_900_bytes()),
        ("object_10KB", object_of_10_kb()),
    ] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let object = || text.parse::<Object>().expect("it is an object");
        group.bench_function("full_value", |b| {
            b.iter(|| {
                let value: Value = serde_json::from_str(&text).expect("it is JSON");
                black_box(value["score"].as_i64())
            });
        });
        group.bench_function("text_and_one_field", |b| {
            b.iter(|| black_box(object().get_i64("score")));
        });
        group.bench_function("text_and_struct", |b| {
            b.iter(|| object().decode::<Score>().expect("it is a score"));
        });
        // What of the two above is the check and the copy of the text.
        group.bench_function("text", |b| b.iter(object));
        group.bench_function("struct", |b| {
            let object = object();
            b.iter(|| object.decode::<Score>().expect("it is a score"));
        });
        group.bench_function("one_field_again", |b| {
            let object = object();
            b.iter(|| black_box(object.get_i64("score")));
        });
        group.finish();
    }
}

fn changes(c: &mut Criterion) {
    let text = update_of_900_bytes();
    let before = text.replace("1338", "1337");
    c.bench_function("update_900B/two_texts_and_changed_keys", |b| {
        b.iter(|| {
            let object: Object = text.parse().expect("it is an object");
            let original: Object = before.parse().expect("it is an object");
            assert_eq!(object.changed_keys(&original), ["score"]);
        });
    });
}

/// What a hostile server may send: a member of which nothing is decoded.
fn deep(c: &mut Criterion) {
    const LEVELS: usize = 200_000;
    let text = format!(
        r#"{{"className":"Game","deep":{}1{}}}"#,
        "[".repeat(LEVELS),
        "]".repeat(LEVELS)
    );
    let mut group = c.benchmark_group("nested_200000");
    group.bench_function("text_and_one_field", |b| {
        b.iter(|| {
            let object = text.parse::<Object>();
            black_box(object.map(|object| object.get("deep").is_some()))
        });
    });
}

criterion_group!(benches, read, changes, deep);
criterion_main!(benches);

//! What it costs to write a query of ten constraints down, and to put it into the form that LiveQuery is sent.

#![allow(clippy::expect_used, reason = "a benchmark that fails has nothing to measure")]
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use parse_livequery::{Date, GeoPoint, Pointer, Query};

fn ten_constraints(since: Date, here: GeoPoint) -> Query {
    Query::new("Game")
        .equal_to("name", "Ann")
        .equal_to("team", Pointer::new("Team", "gBJaZIhpwn"))
        .equal_to("cheatMode", false)
        .greater_than("score", 10)
        .less_than_or_equal_to("score", 100)
        .contained_in("level", [1, 2, 3])
        .not_equal_to("state", "over")
        .greater_than_or_equal_to("createdAt", since)
        .starts_with("title", "The")
        .within_kilometers("place", here, 10.0, false)
}

fn query(c: &mut Criterion) {
    let since = Date::parse("2026-11-24T06:58:56.879Z").expect("it is a date");
    let here = GeoPoint::new(1.5, -2.0).expect("it is a point");
    let query = ten_constraints(since, here);
    let mut group = c.benchmark_group("ten_constraints");
    group.bench_function("build", |bencher| {
        bencher.iter(|| ten_constraints(black_box(since), black_box(here)));
    });
    group.bench_function("encode", |bencher| {
        bencher.iter(|| black_box(&query).live_query_where().expect("it can be encoded"));
    });
    group.bench_function("to_json", |bencher| {
        bencher.iter(|| black_box(&query).to_json().expect("it can be written"));
    });
    group.finish();
}

criterion_group!(benches, query);
criterion_main!(benches);

//! What the parts on the way of an event cost, and what subscribing costs with few and with many subscriptions.
//!
//! `cargo bench --bench parts --features _bench`

#![allow(clippy::expect_used, reason = "a benchmark that fails has nothing to measure")]
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

#[allow(dead_code, reason = "only the texts of the events are used here")]
#[path = "end_to_end/frames.rs"]
mod frames;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parse_livequery::internal::bench::{Frames, Listeners, Subscriptions};
use serde_json::Value;

use self::frames::Kind;

fn frame(c: &mut Criterion) {
    for kind in Kind::ALL {
        let text = kind.text(1);
        let mut group = c.benchmark_group(format!("frame/{}", kind.name()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("value", |b| {
            b.iter(|| serde_json::from_str::<Value>(black_box(&text)).expect("it is JSON"));
        });
        let mut frames = Frames::default();
        group.bench_function("route", |b| b.iter(|| frames.route(black_box(&text))));
        group.bench_function("event", |b| {
            b.iter(|| frames.event(black_box(&text)).expect("it is an event"));
        });
        group.bench_function("event_and_one_field", |b| {
            b.iter(|| {
                let event = frames.event(black_box(&text)).expect("it is an event");
                event.get("score").and_then(Value::as_f64)
            });
        });
        group.finish();
    }
}

fn dispatch(c: &mut Criterion) {
    let event = Frames::default()
        .event(&Kind::Update.text(1))
        .expect("it is an event");
    let mut group = c.benchmark_group("dispatch");
    for number in [0, 1, 10, 100] {
        let listeners = Listeners::new(number, |event| {
            black_box(event.get("score"));
        });
        group.throughput(Throughput::Elements(number.max(1) as u64));
        group.bench_function(format!("{number}_listeners"), |b| {
            b.iter(|| listeners.emit(&event))
        });
    }
    group.finish();
}

fn bookkeeping(c: &mut Criterion) {
    let mut group = c.benchmark_group("bookkeeping");
    for number in [1, 1_000, 100_000] {
        let mut subscriptions = Subscriptions::new(number).expect("the query is right");
        group.bench_function(format!("subscribe_and_unsubscribe/{number}"), |b| {
            b.iter(|| {
                let id = subscriptions.subscribe().expect("the query is right");
                subscriptions.unsubscribe(id);
            });
        });
        let mut ids = (1..=number).cycle();
        group.bench_function(format!("event/{number}"), |b| {
            b.iter_batched(
                || Kind::Update.text(ids.next().expect("there is no end")),
                |text| assert!(subscriptions.receive(&text)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, frame, dispatch, bookkeeping);
criterion_main!(benches);

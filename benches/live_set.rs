//! What a live set of few and of many objects costs: time for an event, a snapshot and a fetch, and memory.
//!
//! `cargo bench --bench live_set --features _bench`

#![allow(clippy::expect_used, reason = "a benchmark that fails has nothing to measure")]
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use parse_livequery::internal::live_set::Set;
use parse_livequery::{Date, EventKind, Object, Query};

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
/// Added to the number of saves: the time of the first.
const EPOCH: i64 = 1_700_000_000_000;

/// An object of about 250 bytes, after so many saves.
fn game(number: u64, score: u64, saves: u64) -> Object {
    let date = |millis: u64| {
        let millis = i64::try_from(millis).expect("it is small");
        Date::from_millis(EPOCH + millis).expect("it is a date")
    };
    format!(
        r#"{{"className":"Game","objectId":"g{number:09}","createdAt":"{}","updatedAt":"{}","score":{score},"name":"A game of chess between two players who are called {number}","finished":false,"players":["ann","bob"]}}"#,
        date(number),
        date(1_000_000 + saves),
    )
    .parse()
    .expect("it is JSON")
}

fn score_of(number: u64, saves: u64) -> u64 {
    // In no order.
    number.wrapping_mul(2_654_435_761).wrapping_add(saves * 97) % 100_000
}

fn query() -> Query {
    Query::new("Game").descending(["score"])
}

/// With conditions, by which each event is judged.
fn judged() -> Query {
    query()
        .equal_to("finished", false)
        .greater_than_or_equal_to("score", 0)
}

fn set_of(query: &Query, size: u64) -> Set {
    Set::new(
        query,
        (0..size).map(|number| game(number, score_of(number, 0), 0)),
    )
}

/// Time for an event, with whatever it takes to tell it.
fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("live_set");
    for size in SIZES {
        for (name, query) in [
            ("update_that_moves", query()),
            ("update_that_is_judged", judged()),
        ] {
            let mut set = set_of(&query, size);
            let mut saves = 0;
            let mut originals: Vec<_> = (0..size)
                .map(|number| game(number, score_of(number, 0), 0))
                .collect();
            group.bench_function(format!("{name}/{size}"), |b| {
                b.iter(|| {
                    saves += 1;
                    let number = saves * 7919 % size;
                    let object = game(number, score_of(number, saves), saves);
                    let original = &mut originals[usize::try_from(number).expect("it is small")];
                    let changes = set.event(EventKind::Update, &object, Some(original));
                    *original = object;
                    changes
                });
            });
        }
        let mut set = set_of(&query(), size);
        let mut saves = 0;
        group.bench_function(format!("create_and_delete/{size}"), |b| {
            b.iter(|| {
                saves += 1;
                let object = game(size + saves, score_of(saves, saves), saves);
                set.event(EventKind::Create, &object, None) + set.event(EventKind::Delete, &object, None)
            });
        });
        group.bench_function(format!("the_object_alone/{size}"), |b| {
            b.iter(|| {
                saves += 1;
                game(saves % size, score_of(saves, saves), saves)
            });
        });
        group.bench_function(format!("snapshot/{size}"), |b| {
            b.iter(|| black_box(set.snapshot()))
        });
    }
    group.finish();
}

/// Resident memory, from the kernel. Before the others, so that it is that of the objects alone.
fn memory(_: &mut Criterion) {
    for size in SIZES {
        let json: usize = (0..size)
            .map(|number| game(number, score_of(number, 0), 0).as_json().len())
            .sum();
        let before = resident();
        let set = set_of(&query(), size);
        let Some(bytes) = resident()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before))
        else {
            println!("live_set/memory: only on Linux");
            return;
        };
        let size = usize::try_from(size).expect("it is small");
        println!(
            "live_set/memory/{size}: {} bytes for each object, {} of them its JSON: {} more",
            bytes / size,
            json / size,
            (bytes.saturating_sub(json)) / size
        );
        // Kept, so that the next one does not take the same memory again.
        std::mem::forget(set);
    }
}

fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

criterion_group!(benches, memory, events);
criterion_main!(benches);

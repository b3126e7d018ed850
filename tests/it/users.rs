//! Tests as users write them against `TestServer`: quick, and side by side.

use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, EventKind, Query};
use serde_json::json;

use crate::support::LONG;

/// Ten subscriptions, an event for each, and nothing of the others.
fn a_users_test() {
    let server = TestServer::start().unwrap();
    let client = Client::builder(server.url(), "any").build().unwrap();
    let subscriptions: Vec<_> = (0..10)
        .map(|level| {
            client
                .subscribe(&Query::new("Game").equal_to("level", level))
                .unwrap()
        })
        .collect();
    assert!(server.wait_for_subscriptions(LONG, 10));
    let channels: Vec<_> = subscriptions.iter().map(|games| games.events()).collect();
    for level in 0..10 {
        server.create("Game", json!({"level": level}));
    }
    for (level, events) in (0..).zip(channels) {
        let first = events.recv_timeout(LONG).unwrap();
        let event = match first.kind() {
            EventKind::Open => events.recv_timeout(LONG).unwrap(),
            _ => first,
        };
        assert_eq!(event.kind(), EventKind::Create);
        assert_eq!(event.object().unwrap().get_i64("level"), Some(level));
        assert!(events.is_empty());
    }
}

#[test]
fn a_test_with_ten_subscriptions_takes_milliseconds_and_runs_beside_others() {
    // About 100 ms in all. The best of some rounds, since a machine that is busy with other things can only be slower.
    let mut times = vec![];
    while times.iter().all(|took| *took > Duration::from_secs(2)) {
        assert!(times.len() < 5, "{times:?}");
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(a_users_test);
            }
        });
        times.push(started.elapsed());
    }
    println!("20 of them side by side: {times:?}");
}

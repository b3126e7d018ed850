//! A real server and a client that are both pressed hard: a listener that sleeps through the server's pings, and a
//! restart while objects are written.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parse_livequery::{Client, Date, EventKind, GapReason, Query};
use serde_json::json;

use crate::recorder::{Recorder, builder};
use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, Options, PATIENCE, ParseServer};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_listener_that_sleeps_through_five_pings_keeps_the_link() {
    let server = ParseServer::start(Options {
        // A client that has not answered a ping when the next one is due is thrown out (ParseWebSocketServer.js).
        websocket_timeout: Duration::from_secs(1),
        ..Options::default()
    });
    let client = Client::builder(format!("{}?sleeps", server.ws_url()), APPLICATION_ID)
        .javascript_key(JAVASCRIPT_KEY)
        .build()
        .unwrap();
    let (sleeping, asleep) = mpsc::channel();
    let mut is_first = true;
    let builder = client.subscription(&Query::new("Sleep")).on_create(move |_| {
        if std::mem::take(&mut is_first) {
            let _ = sleeping.send(());
            thread::sleep(Duration::from_secs(5));
        }
    });
    let recorder = Recorder::open(builder);
    let first = server.create("Sleep", &json!({}));
    asleep.recv_timeout(PATIENCE).unwrap();
    // Written while it sleeps, and given out when it wakes up.
    let second = server.create("Sleep", &json!({}));
    recorder.expect_of(EventKind::Create, &first);
    recorder.expect_of(EventKind::Create, &second);
    let third = server.create("Sleep", &json!({}));
    recorder.expect_of(EventKind::Create, &third);
    assert_eq!(server.connections("/parse?sleeps"), 1);
    let stats = client.stats();
    assert_eq!((stats.connections, stats.failures), (1, 0));
    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn what_is_missed_in_a_restart_was_written_in_the_gap() {
    let server = ParseServer::start(Options {
        keeps_data: true,
        ..Options::default()
    });
    let client = builder(&server)
        .reconnect_delay(Duration::from_millis(50), Duration::from_millis(200))
        .build()
        .unwrap();
    let recorder = Recorder::open(client.subscription(&Query::new("Busy")));
    let written = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let (mut seen, gap) = thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                match server.try_create("Busy", &json!({"n": n})) {
                    Ok(id) => written.lock().unwrap().push(id),
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let mut seen = BTreeMap::<String, usize>::new();
        let mut see = |id: &str| *seen.entry(id.to_owned()).or_default() += 1;
        for _ in 0..30 {
            see(recorder.expect(EventKind::Create).id().unwrap());
        }
        let from_killed = scope.spawn(|| server.kill());
        let mut event = recorder.next();
        while event.kind() == EventKind::Create {
            see(event.id().unwrap());
            event = recorder.next();
        }
        assert_eq!(event.kind(), EventKind::Close);
        from_killed.join().unwrap();
        server.start_again();
        let gap = recorder.expect(EventKind::Open).gap().cloned().unwrap();
        for _ in 0..30 {
            see(recorder.expect(EventKind::Create).id().unwrap());
        }
        stop.store(true, Ordering::SeqCst);
        (seen, gap)
    });
    assert_eq!(gap.reason(), GapReason::ConnectionLost);
    let written = written.into_inner().unwrap();
    // What was written after the gap comes, and what was written before it and has not come will not.
    let objects = server.find("Busy", &json!({}), &[("limit", "10000")]);
    let after = objects.iter().filter_map(|object| {
        let created: Date = object["createdAt"].as_str()?.parse().ok()?;
        (created > gap.end()).then(|| object["objectId"].as_str())?
    });
    for id in after {
        while !is_seen(&seen, id) {
            let event = recorder.expect(EventKind::Create);
            *seen.entry(event.id().unwrap().to_owned()).or_default() += 1;
        }
    }
    recorder.end();
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");

    // As the documentation has it: what was missed is found by its time. The server sends an event some time after the
    // object was written, so the search begins a little before the last proof of life.
    let from = gap.start() - LATE_EVENT;
    let filter = json!({"createdAt": {"$gte": {"__type": "Date", "iso": from.to_string()}}});
    let found = server.find("Busy", &filter, &[("limit", "10000")]);
    let found: Vec<_> = found
        .iter()
        .filter_map(|object| object["objectId"].as_str())
        .collect();
    let missed: Vec<_> = written.iter().filter(|id| !is_seen(&seen, id)).collect();
    let lost: Vec<_> = missed.iter().filter(|id| !found.contains(&id.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?} of {missed:?}, {gap:?}");
}

fn is_seen(seen: &BTreeMap<String, usize>, id: &str) -> bool {
    seen.contains_key(id)
}

const LATE_EVENT: Duration = Duration::from_secs(5);

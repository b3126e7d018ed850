//! What applications need of a live set, on a real Parse Server: another query, more rows, contents that were saved, little
//! to fetch after a gap. The
//! set fetches as it does in programs, with the feature `rest`.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use parse_livequery::{Change, Date, LiveSet, Object, Query, Saved};
use serde_json::json;

use crate::live_set::proxy::Proxy;
use crate::recorder::{builder, builder_for, client};
use crate::support::{PATIENCE, ParseServer, only, wait_until};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn scores(set: &LiveSet) -> Vec<i64> {
    let scores = set.snapshot().into_iter().map(|object| object.get_i64("score"));
    scores.map(Option::unwrap).collect()
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn another_query_and_more_rows_are_equal_to_find() {
    let server = ParseServer::shared();
    let class = "SetOfApps";
    let ids: Vec<_> = (0..60)
        .map(|score| server.create(class, &json!({"score": score})))
        .collect();
    let client = client(server);
    let (sender, lengths) = mpsc::channel();
    let mut copy: Vec<Object> = Vec::new();
    let query = Query::new(class).less_than("score", 10).ascending(["score"]);
    let set = client
        .live_set(&query)
        .on_change(move |change, set| {
            change.apply_to(&mut copy, set);
            assert!(copy.iter().eq(set.iter()), "{change:?}");
            let _ = sender.send(set.len());
        })
        .start()
        .unwrap();
    set.wait_ready(PATIENCE).unwrap();
    assert_eq!(scores(&set), (0..10).collect::<Vec<_>>());

    let query = Query::new(class)
        .greater_than("score", 4)
        .descending(["score"])
        .limit(5);
    set.set_query(&query).unwrap().wait(PATIENCE).unwrap();
    assert_eq!(scores(&set), [59, 58, 57, 56, 55]);
    for (number, first) in [(10, 59), (30, 59)] {
        assert!(set.has_more());
        set.extend(number).unwrap();
        // It changes meanwhile.
        server.update(class, &ids[50], &json!({"score": 50}));
        set.wait_ready(PATIENCE).unwrap();
        assert_eq!(scores(&set)[0], first);
    }
    assert_eq!(scores(&set), (15..60).rev().collect::<Vec<_>>());
    set.extend(100).unwrap();
    set.wait_ready(PATIENCE).unwrap();
    assert_eq!(scores(&set), (5..60).rev().collect::<Vec<_>>());
    assert!(!set.has_more());

    server.delete(class, &ids[59]);
    wait_until("the set goes on", || scores(&set).first() == Some(&58));
    assert!(lengths.try_iter().all(|length| length > 0));
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn saved_contents_are_corrected_by_what_differs_and_by_what_may_be_read() {
    let server = ParseServer::shared();
    let class = "SetOfYesterday";
    let (alice, bob) = (server.sign_up("saved-alice"), server.sign_up("saved-bob"));
    let ids: Vec<_> = (0..30)
        .map(|score| server.create(class, &json!({"score": score, "ACL": only(&alice)})))
        .collect();
    let query = Query::new(class).ascending(["score"]);
    let first = builder(server)
        .session_token(&alice.session_token)
        .build()
        .unwrap();
    let set = first.live_set(&query).start().unwrap();
    set.wait_ready(PATIENCE).unwrap();
    let bytes = serde_json::to_vec(&set.save("alice").unwrap()).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains(&alice.session_token));
    drop(set);
    first.close();
    server.update(class, &ids[3], &json!({"score": 103}));
    server.update(class, &ids[4], &json!({"ACL": only(&bob)}));
    server.delete(class, &ids[5]);

    let client = builder(server)
        .session_token(&alice.session_token)
        .build()
        .unwrap();
    let (sender, told) = mpsc::channel();
    let set = client
        .live_set(&query)
        .start_from(Saved::from_slice(&bytes).unwrap(), "alice", WEEK)
        .on_change(move |change, set| {
            let _ = sender.send((matches!(change, Change::Reset), set.len()));
        })
        .start()
        .unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (true, 30));
    set.wait_ready(PATIENCE).unwrap();
    let expected = [0, 1, 2].into_iter().chain(6..30).chain([103]);
    assert_eq!(scores(&set), expected.collect::<Vec<_>>());
    assert_eq!(told.try_iter().filter(|(is_reset, _)| !is_reset).count(), 3);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn after_a_gap_a_large_set_fetches_what_differs() {
    let server = ParseServer::shared();
    let class = "SetWithAGap";
    let yesterday = Date::from(SystemTime::now()) - Duration::from_secs(24 * 60 * 60);
    let text = "x".repeat(4000);
    let ids: Vec<_> = (0..300)
        .map(|score| server.create_as_of(class, yesterday, &json!({"score": score, "text": text})))
        .collect();
    server.create(class, &json!({"score": 300, "text": text}));
    let proxy = Proxy::to((Ipv4Addr::LOCALHOST, server.port()).into());
    let client = builder_for(proxy.url())
        .rest_url(server.url())
        .reconnect_delay(Duration::from_millis(20), Duration::from_millis(200))
        .build()
        .unwrap();
    let query = Query::new(class).ascending(["score"]);
    let set = client.live_set(&query).start().unwrap();
    set.wait_ready(PATIENCE).unwrap();
    assert_eq!((set.stats().fetches, set.stats().catch_ups), (1, 0));

    proxy.refuse();
    proxy.cut();
    wait_until("it is stale", || !set.is_ready());
    for (score, id) in (1000..).zip(&ids[10..20]) {
        server.update(class, id, &json!({"score": score}));
    }
    for id in &ids[20..25] {
        server.delete(class, id);
    }
    server.create(class, &json!({"score": -1, "text": text}));
    proxy.heal();
    set.wait_ready(PATIENCE).unwrap();
    assert_eq!((set.stats().fetches, set.stats().catch_ups), (2, 1));
    let found = client.rest().find(&query.limit(1000)).unwrap();
    assert_eq!(found.len(), 297);
    assert!(set.snapshot().iter().eq(found.iter()));

    server.delete(class, &ids[0]);
    wait_until("the set goes on", || set.get(&ids[0]).is_none());
}

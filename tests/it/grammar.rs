//! `open` and `close` alternate, whatever the network and the program do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::{Client, Subscription};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

#[test]
fn open_close_grammar() {
    const THREADS: u64 = 4;
    let server = Server::auto();
    let proxy = Arc::new(Proxy::to(server.addr()));
    let client = client(&proxy.url());
    let histories = Arc::new(parking_lot::Mutex::new(vec![]));
    let stop = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (client, histories, stop) = (client.clone(), Arc::clone(&histories), Arc::clone(&stop));
            thread::spawn(move || subscribe_at_random(&client, thread, &histories, &stop))
        })
        .collect();
    let mut random = Random(99);
    let opens = || -> usize {
        let histories = histories.lock();
        histories.iter().map(|(_, events)| events.count("open")).sum()
    };
    let (start, mut rounds) = (Instant::now(), 0);
    // A machine that is busy may need more rounds until enough was open.
    while rounds < 60 || opens() <= 20 {
        assert!(
            start.elapsed() < MINUTE,
            "only {} subscriptions were ever open",
            opens()
        );
        rounds += 1;
        match random.below(6) {
            0 => proxy.cut(),
            1 => proxy.reset(),
            2 => client.close(),
            3 => client.open(),
            _ => {
                for class in 0..THREADS {
                    server.emit("create", &object(&format!("C{class}"), "a", json!({})));
                }
            }
        }
        // The longer it takes, the more time a connection has to be made.
        thread::park_timeout(Duration::from_millis(random.below(20 + rounds)));
    }
    stop.store(1, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    client.close();
    let histories = std::mem::take(&mut *histories.lock());
    for (name, events) in histories {
        let kinds: Vec<_> = events.all().iter().map(|seen| seen.value.kind()).collect();
        assert_grammar(&name, &kinds);
        assert_ne!(
            kinds.last().map(|kind| kind.as_str()),
            Some("open"),
            "{name}: no last `close`"
        );
    }
    assert!(proxy.max_open() <= 1);
}

fn subscribe_at_random(
    client: &Client,
    thread: u64,
    histories: &parking_lot::Mutex<Vec<(String, Events)>>,
    stop: &AtomicUsize,
) {
    let mut random = Random(thread + 1);
    let mut live: Vec<Subscription> = vec![];
    let mut round = 0;
    while stop.load(Ordering::Relaxed) == 0 {
        round += 1;
        let events = Events::new();
        live.push(subscribe_into(client, &format!("C{thread}"), &events));
        histories.lock().push((format!("{thread}.{round}"), events));
        match random.below(4) {
            0 => drop(live.pop()),
            1 => live.iter().for_each(Subscription::unsubscribe),
            2 => {
                let _ = live[0].wait_open(ms(5));
            }
            _ => thread::park_timeout(ms(3)),
        }
        if live.len() > 8 {
            live.clear();
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

//! What is sent: to a peer that reads nothing, and to one that reads slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::{ErrorKind, Query};
use socket2::SockRef;

use super::*;
use crate::harness::*;
use crate::support::*;

#[test]
fn a_flood_of_pings_from_a_peer_that_reads_nothing_costs_no_memory() {
    in_own_process(
        module_path!(),
        "a_flood_of_pings_from_a_peer_that_reads_nothing_costs_no_memory",
        3 * LONG,
        || {
            let pings = frame(PING | FIN, &[b'x'; 125]).repeat(512);
            let peer = Peer::connected(move |_, mut stream| while send(&mut stream, &pings) {});
            let client = client(&peer.url());
            client.open();
            client.wait_open(LONG).unwrap();
            let before = resident_bytes();
            thread::park_timeout(Duration::from_secs(5));
            if let (Some(before), Some(after)) = (before, resident_bytes()) {
                let grown = after.saturating_sub(before);
                println!("grown by {grown} bytes");
                assert!(grown < 10 << 20, "grown by {grown} bytes");
            }
            client.close();
        },
    );
}

#[test]
fn a_peer_that_reads_nothing_is_a_lost_link_even_if_it_sends() {
    // Each keeps the client busy in its own way: with pongs to send, or with nothing but its subscriptions.
    for again in [frame(PING | FIN, &[b'x'; 125]).repeat(64), frame(PONG | FIN, b"")] {
        let peer = Peer::connected(move |_, mut stream| {
            while send(&mut stream, &again) {
                thread::park_timeout(ms(1));
            }
        });
        let client = builder(&peer.url())
            .idle_ping(ms(500))
            .pong_timeout(ms(500))
            .build()
            .unwrap();
        let events = record_client(&client);
        client.open();
        client.wait_open(LONG).unwrap();
        // More than the kernel takes.
        let long = "x".repeat(1 << 20);
        let subscriptions: Vec<_> = (0..16)
            .map(|number| {
                client.subscribe(&Query::new("Game").equal_to(&format!("a{number}"), long.as_str()))
            })
            .collect();
        let failure = events.wait_for("reconnecting").value;
        let error = failure.error().expect("a reason");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("read"), "{error}");
        drop(subscriptions);
        client.close();
    }
}

#[test]
fn many_subscriptions_at_once_get_through_to_a_peer_that_reads_slowly() {
    const COUNT: usize = 24_000;
    // All of it takes the peer 12 seconds, longer than the client waits in silence; what lies in the kernel when the
    // last has been written, some 6 MB, takes it less.
    const BYTES_A_MILLISECOND: u128 = 800;
    let came = Arc::new(AtomicUsize::new(0));
    let of_peer = Arc::clone(&came);
    let peer = Peer::connected(move |_, mut stream| {
        // With a window of less than a few of loopback's segments (64 KiB each), Linux sends one of them each 200 ms.
        SockRef::from(stream.tcp())
            .set_recv_buffer_size(1024 * 1024)
            .unwrap();
        // Of a frame with up to 64 KiB: two bytes, two of length, and the mask.
        const HEAD: u128 = 8;
        let mut reader = wire::Reader::default();
        let (start, mut read) = (Instant::now(), 0);
        loop {
            if read > start.elapsed().as_millis() * BYTES_A_MILLISECOND {
                thread::park_timeout(ms(5));
                continue;
            }
            let Ok(Some(next)) = reader.frame(&stream) else {
                return;
            };
            read += HEAD + next.payload.len() as u128;
            if u8::from(next.opcode) == TEXT {
                of_peer.fetch_add(1, Ordering::Relaxed);
            } else if !send(&mut stream, &frame(PONG | FIN, &next.payload)) {
                return;
            }
        }
    });
    let client = builder(&peer.url())
        .idle_ping(ms(2000))
        .pong_timeout(ms(8000))
        .ack_timeout(Duration::from_secs(300))
        .close_timeout(ms(1000))
        .build()
        .unwrap();
    let events = record_client(&client);
    client.open();
    client.wait_open(LONG).unwrap();
    let long = "x".repeat(300);
    let subscriptions: Vec<_> = (0..COUNT)
        .map(|number| client.subscribe(&Query::new("Game").equal_to(&format!("a{number}"), long.as_str())))
        .collect();
    // `connect` is one more.
    wait_until_within(Duration::from_secs(120), "all have come", || {
        came.load(Ordering::Relaxed) > COUNT || events.count("reconnecting") > 0
    });
    assert_eq!(events.count("reconnecting"), 0, "{:?}", events.all());
    drop(subscriptions);
    client.close();
}

#[test]
fn a_close_is_over_in_time_though_nobody_reads() {
    let peer =
        Peer::connected(move |_, mut stream| while send(&mut stream, &frame(PING | FIN, &[b'x'; 125])) {});
    let client = builder(&peer.url()).close_timeout(ms(1000)).build().unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < ms(1000) + SLACK, "{:?}", start.elapsed());
}

#[test]
fn to_wait_for_a_peer_costs_no_time() {
    in_own_process(
        module_path!(),
        "to_wait_for_a_peer_costs_no_time",
        3 * LONG,
        || {
            // It leaves a message as it is, and reads nothing.
            let peer = Peer::connected(|_, mut stream| {
                send(&mut stream, &frame(TEXT, b"{"));
                thread::park_timeout(LONG);
            });
            let client = client(&peer.url());
            client.open();
            client.wait_open(LONG).unwrap();
            let long = "x".repeat(1 << 20);
            let subscriptions: Vec<_> = (0..16)
                .map(|number| {
                    client.subscribe(&Query::new("Game").equal_to(&format!("a{number}"), long.as_str()))
                })
                .collect();
            switches_at_rest();
            let before = cpu_time();
            thread::park_timeout(Duration::from_secs(2));
            if let (Some(before), Some(after)) = (before, cpu_time()) {
                let ran = after - before;
                assert!(ran < ms(200), "it ran for {ran:?} of 2 s");
            }
            drop(subscriptions);
            client.close();
            // Its thread ends with the process.
            std::mem::forget(peer);
        },
    );
}

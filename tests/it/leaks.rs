//! What clients leave behind when they are gone, and what they cost when they are closed: nothing.
//!
//! `LEAK_CYCLES` is how many clients come and go, 500 by default; with TLS it is a fifth of that. `LEAK_UPDATES` is how
//! many updates a subscription hears of, 200,000 by default.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parse_livequery::{Client, ClientBuilder, ClientState, Query};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

#[test]
fn many_cycles_no_leak() {
    in_own_process(module_path!(), "many_cycles_no_leak", 6 * MINUTE, || {
        let server = Server::auto();
        come_and_go(cycles(), &server, || builder(&server.url()));
    });
}

#[cfg(feature = "tls")]
#[test]
fn many_cycles_over_tls_no_leak() {
    in_own_process(module_path!(), "many_cycles_over_tls_no_leak", 6 * MINUTE, || {
        let server = Server::auto();
        let authority = Authority::new();
        let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.addr());
        // Each client reads the certificates that the system trusts, which takes its time.
        come_and_go(cycles() / 5, &server, || {
            builder(&tls.url()).add_root_certificate(&authority.pem)
        });
    });
}

fn cycles() -> usize {
    env::var("LEAK_CYCLES").map_or(500, |cycles| cycles.parse().expect("a number"))
}

fn come_and_go(cycles: usize, server: &Server, builder: impl Fn() -> ClientBuilder) {
    let cycle = |at: usize| {
        let client = builder().close_timeout(Duration::from_secs(1)).build().unwrap();
        leave_at(at, server, &client);
    };
    let at_rest = || {
        wait_until("the threads have ended", || {
            ["livequery-io", "livequery-dispatch", "livequery-resolve"]
                .iter()
                .all(|name| threads_named(name).is_none_or(|threads| threads.is_empty()))
        });
        wait_until("the connections have ended", || server.open_now() == 0);
        wait_until("the kit has noticed", || server.open_conns().is_empty());
    };
    // The first rounds fill what stays filled: arenas, stacks, tables.
    for at in 0..cycles / 4 {
        cycle(at);
    }
    at_rest();
    let (files, resident) = (open_files(), resident_bytes());
    for at in 0..cycles {
        cycle(at);
    }
    at_rest();
    if let Some(before) = files {
        wait_until("the files are closed", || {
            open_files().is_some_and(|after| after <= before)
        });
    }
    if let (Some(before), Some(after)) = (resident, resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes more after {cycles} cycles");
    }
}

/// Uses a client up to one of several stages; all handles are dropped there.
fn leave_at(stage: usize, server: &Server, client: &Client) {
    let events = Events::new();
    let subscription = subscribe_into(client, "Game", &events);
    match stage % 8 {
        0 => {}
        1 => wait_until("it connects", || client.state() != ClientState::Initialized),
        2 => client.wait_open(LONG).unwrap(),
        3 => subscription.wait_open(LONG).unwrap(),
        4 => {
            events.expect("open");
            client.close();
        }
        5 => {
            events.expect("open");
            for conn in server.open_conns() {
                conn.reset();
            }
            events.expect("close");
        }
        6 => {
            events.expect("open");
            subscription.clone().detach();
        }
        _ => {
            // A listener that owns a handle to its own subscription, until that ends.
            let handle = subscription.clone();
            subscription.on("create", move |_| handle.unsubscribe());
            subscription.unsubscribe();
        }
    }
}

/// A few bytes that each update leaves behind are megabytes here, and the end of a program that runs for a year.
#[test]
fn updates_leave_nothing_behind() {
    in_own_process(module_path!(), "updates_leave_nothing_behind", 6 * MINUTE, || {
        const BATCH: usize = 1000;
        let updates = env::var("LEAK_UPDATES").map_or(200_000, |number| number.parse().expect("a number"));
        let server = Server::auto();
        let client = client(&server.url());
        let heard = Arc::new(AtomicUsize::new(0));
        let its_heard = Arc::clone(&heard);
        let subscription = client
            .subscription(&Query::new("Game"))
            .on_update(move |_, _| {
                its_heard.fetch_add(1, Ordering::Relaxed);
            })
            .start()
            .unwrap();
        subscription.wait_open(LONG).unwrap();
        let conn = server.conn(1);
        let messages: Vec<_> = (0..BATCH)
            .map(|at| {
                let now = object("Game", "a", json!({ "score": at }));
                let original = object("Game", "a", json!({ "score": at + 1 }));
                conn.event_message("update", subscription.id(), now, Some(original))
            })
            .collect();
        let batch = Conn::frames_of(&messages);
        let mut sent = 0;
        let mut send = |number: usize| {
            for _ in 0..number / BATCH {
                conn.send_raw(&batch);
                sent += BATCH;
                wait_until("all is heard", || heard.load(Ordering::Relaxed) == sent);
            }
        };
        // The first ones fill what stays filled.
        send(updates / 4);
        let before = resident_bytes();
        send(updates);
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            let grown = after.saturating_sub(before);
            println!("{grown} bytes more after {updates} updates");
            let limit = (1 << 20) + 2 * updates as u64;
            assert!(grown < limit, "{grown} bytes more after {updates} updates");
        }
    });
}

#[test]
fn a_closed_client_uses_no_cpu() {
    in_own_process(module_path!(), "a_closed_client_uses_no_cpu", MINUTE, || {
        let server = Server::auto();
        let client = client(&server.url());
        let (_subscription, _events) = subscribe(&client, "Game");
        client.close();
        server.conn(1).wait_ended();
        let used = || {
            ["livequery-io", "livequery-dispatch"].map(|name| {
                let threads = threads_named(name)?;
                assert_eq!(threads.len(), 1, "{threads:?}");
                Some((threads[0].voluntary_switches, threads[0].cpu_time))
            })
        };
        // What follows the close may still be under way.
        wait_until("its threads are at rest", || {
            let before = used();
            thread::park_timeout(ms(100));
            used() == before
        });
        let before = used();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(used(), before);
        drop(client);
    });
}

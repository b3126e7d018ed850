//! Code of the program below the link: a logger that panics inside of the WebSocket layer, or of TLS.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::*;
use crate::support::*;

/// How many lines are still to panic.
static ARMED: AtomicUsize = AtomicUsize::new(0);

struct Panics;

/// What a panic carries here panics itself when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::panic_any("the payload panicked too");
    }
}

impl log::Log for Panics {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let ours = record.target().starts_with("tungstenite") || record.target().starts_with("mio");
        let take = |count: usize| count.checked_sub(1);
        if ours
            && ARMED
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
        {
            std::panic::panic_any(Bomb);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_that_panics_in_the_web_socket_costs_one_connection() {
    in_own_process(
        module_path!(),
        "a_logger_that_panics_in_the_web_socket_costs_one_connection",
        3 * LONG,
        || {
            log::set_logger(&Panics).unwrap();
            log::set_max_level(log::LevelFilter::Trace);
            let server = Server::auto();
            let client = client(&server.url());
            let (_subscription, events) = subscribe(&client, "Game");
            for number in 1..4 {
                ARMED.store(1, Ordering::Relaxed);
                server.conn(number).ping(b"");
                let close = events.expect("close").value;
                let text = close.error().expect("a reason").to_string();
                assert!(text.contains("panicked"), "{text}");
                events.expect("open");
            }
            // While connecting, too.
            ARMED.store(2, Ordering::Relaxed);
            server.conn(4).cut();
            events.expect("close");
            events.expect("open");
            assert_eq!(ARMED.load(Ordering::Relaxed), 0);
            ARMED.store(1, Ordering::Relaxed);
            client.close();
        },
    );
}

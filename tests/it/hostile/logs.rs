//! What a server sends does not fill the disk that the log is on.
//!
//! `ERRORS` (20,000 by default) is how many errors it sends.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tungstenite::protocol::frame::coding::Control;

use crate::harness::*;
use crate::support::*;

/// Counts the bytes of a log.
struct Counts;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static LINES: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Counts {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {} {}\n", record.level(), record.target(), record.args());
        BYTES.fetch_add(line.len(), Ordering::Relaxed);
        LINES.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) {}
}

#[test]
fn errors_that_nobody_hears_are_few_lines_of_log() {
    in_own_process(
        module_path!(),
        "errors_that_nobody_hears_are_few_lines_of_log",
        10 * MINUTE,
        || {
            log::set_logger(&Counts).unwrap();
            log::set_max_level(log::LevelFilter::Info);
            let number = env::var("ERRORS").map_or(20_000, |number| number.parse().expect("a number"));
            let server = Server::auto();
            let client = client(&server.url());
            let subscription = client.subscribe(&parse_livequery::Query::new("Game")).unwrap();
            subscription.wait_open(LONG).unwrap();
            let conn = server.conn(1);
            let error = |n: usize| {
                // Equal ones in a row, and others in between.
                let text = if n % 1000 < 500 {
                    "the hook failed".to_owned()
                } else {
                    format!("object {n} failed")
                };
                json!({ "op": "error", "code": 141, "error": text, "reconnect": true, "requestId": subscription.id() })
            };
            for start in (0..number).step_by(1000) {
                let errors: Vec<_> = (start..number.min(start + 1000)).map(error).collect();
                conn.send_together(&errors);
            }
            conn.ping(b"all read");
            wait_until_within(5 * MINUTE, "the pong", || {
                conn.controls().contains(&(Control::Pong, b"all read".to_vec()))
            });
            wait_until_within(MINUTE, "all is told", || client.stats().waiting == 0);
            let (bytes, lines) = (BYTES.load(Ordering::Relaxed), LINES.load(Ordering::Relaxed));
            println!("{number} errors: {bytes} bytes in {lines} lines");
            assert!(lines > 0, "nobody hears of them otherwise");
            assert!(bytes < 100_000, "{bytes} bytes in {lines} lines");
            assert_eq!(server.accepts(), 1);
        },
    );
}

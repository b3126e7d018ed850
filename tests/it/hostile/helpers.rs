//! Threads beside those of the link: one at most for each kind of question, whatever hangs.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex};
use parse_livequery::ConnectedStream;

use crate::harness::*;
use crate::support::*;

/// A door that is shut at first.
#[derive(Default)]
struct Door(Mutex<bool>, Condvar);

impl Door {
    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let mut open = self.0.lock();
        while !*open {
            self.1.wait(&mut open);
        }
    }
}

#[test]
fn a_connection_that_takes_longer_than_an_attempt_serves_the_next_one() {
    let name = "a_connection_that_takes_longer_than_an_attempt_serves_the_next_one";
    // Others have threads of this name as well.
    in_own_process(module_path!(), name, MINUTE, connection_that_takes_longer);
}

fn connection_that_takes_longer() {
    let server = Server::auto();
    let addr = server.addr();
    let (door, calls) = (Arc::new(Door::default()), Arc::new(AtomicUsize::new(0)));
    let (its_door, its_calls) = (Arc::clone(&door), Arc::clone(&calls));
    let client = builder(&server.url())
        .connect_timeout(ms(1500))
        .connect_with(move |_, _| {
            its_calls.fetch_add(1, Ordering::Relaxed);
            its_door.pass();
            TcpStream::connect(addr).map(ConnectedStream::from)
        })
        .build()
        .unwrap();
    let events = record_client(&client);
    client.open();
    for _ in 0..3 {
        let failure = events.wait_for("reconnecting").value;
        let error = failure.error().expect("a reason").to_string();
        assert!(
            error.contains("waiting for the connection of `connect_with`"),
            "{error}"
        );
    }
    if let Some(threads) = threads_named("livequery-connect") {
        assert_eq!(threads.len(), 1);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    door.open();
    client.wait_open(LONG).unwrap();
    // The connection that was waited for is the one that is used, if its attempt was not just over.
    assert!(calls.load(Ordering::Relaxed) <= 2);
    client.close();
}

#[test]
fn clients_of_one_builder_do_not_wait_for_each_other() {
    let server = Server::auto();
    let addr = server.addr();
    let door = Arc::new(Door::default());
    let (its_door, first) = (Arc::clone(&door), AtomicUsize::new(0));
    let builder = builder(&server.url()).connect_with(move |_, _| {
        if first.fetch_add(1, Ordering::Relaxed) == 0 {
            its_door.pass();
        }
        TcpStream::connect(addr).map(ConnectedStream::from)
    });
    let (hanging, other) = (builder.clone().build().unwrap(), builder.build().unwrap());
    hanging.open();
    thread::park_timeout(ms(100));
    other.open();
    other.wait_open(LONG).unwrap();
    door.open();
    hanging.wait_open(LONG).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_be_started_is_tried_again() {
    in_own_process(
        module_path!(),
        "a_thread_that_cannot_be_started_is_tried_again",
        3 * LONG,
        || {
            let server = Server::auto();
            let addr = server.addr();
            let client = builder(&server.url())
                .connect_with(move |_, _| TcpStream::connect(addr).map(ConnectedStream::from))
                .build()
                .unwrap();
            let events = record_client(&client);
            // Less room than the stack of a thread takes, and enough for all else; what is held here is free later.
            let held = vec![1_u8; 16 << 20];
            let Some(used) = mapped_bytes() else { return };
            if !limit_room(used + (1 << 20)) {
                return;
            }
            client.open();
            for _ in 0..3 {
                let failure = events.wait_for("reconnecting").value;
                let error = failure.error().expect("a reason").to_string();
                assert!(error.contains("cannot be started"), "{error}");
            }
            drop(std::hint::black_box(held));
            client.wait_open(LONG).unwrap();
            client.close();
        },
    );
}

/// Sets how much address space this process may have.
#[cfg(target_os = "linux")]
fn limit_room(bytes: u64) -> bool {
    let pid = std::process::id().to_string();
    let limit = format!("--as={bytes}:");
    std::process::Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(target_os = "linux")]
fn mapped_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

//! Which thread does the I/O: the one that calls the listeners, as long as they are quick.
//!
//! An event is then read and delivered on the same thread. No other thread has to be woken, and nothing moves
//! from one core to another, which would cost more than everything else. A slow listener must not hold up the
//! connection, though: while listeners are called, a second thread regularly checks whether the first one
//! makes progress. If it does not, the second thread does the I/O until the first one is back.
//!
//! ```text
//!   livequery-dispatch                       seat                          livequery-io
//!   take ◄──────────────────── the driver, or empty ────────────────► watch
//!   run until something is to deliver          ▲  ▲                        (after 10 ms without a new hand-over)
//!   hand_over ─────────────────────────────────┘  └─────────── give_back ── deputise: run until it is wanted
//!   deliver
//! ```
//!
//! Must not know what the driver does, or what is delivered.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Driver;
use crate::delivery::deliver::deliver_all;
use crate::delivery::shared::Budget;
use crate::delivery::shared::Shared;
use crate::delivery::sync::{Condvar, Mutex, wait_for};
use crate::error::{Error, ErrorKind};
use crate::fence;

/// The work of doing the I/O.
pub(crate) trait Work: Send {
    /// Works, turn by turn, until `stop` says so after a turn. Returns `false` once there is nothing more to
    /// do, ever.
    fn run(&mut self, stop: &mut dyn FnMut() -> bool) -> bool;
}

/// Starts the threads, which end with the I/O.
pub(super) fn spawn(mut driver: Driver) -> io::Result<()> {
    let shared = Arc::clone(&driver.shared);
    let io = thread::Builder::new().name("livequery-io".to_owned());
    if shared.queue.is_manual() {
        io.spawn(move || {
            survives(&shared, || driver.run(&mut || false));
            // The reports of a panic still have to be dispatched.
            if !shared.status.is_dead() {
                shared.queue.close();
            }
        })?;
        return Ok(());
    }
    let relay = Arc::new(Relay::new(shared, driver));
    let deputy = Arc::clone(&relay);
    io.spawn(move || deputy.deputise())?;
    let dispatcher = Arc::clone(&relay);
    thread::Builder::new()
        .name("livequery-dispatch".to_owned())
        .spawn(move || dispatcher.dispatch())
        .map(drop)
        .inspect_err(|_| relay.end())
}

pub(crate) struct Relay<W> {
    shared: Arc<Shared>,
    seat: Mutex<Seat<W>>,
    returned: Condvar,
    watch: Condvar,
}

struct Seat<W> {
    /// Present while no thread does the I/O, because listeners are being called.
    driver: Option<Box<W>>,
    /// `livequery-dispatch` has nothing to deliver, and waits for the driver.
    is_wanted: bool,
    /// How often it has put the driver here.
    handed_over: u64,
    /// `livequery-io` is checking whether that continues.
    is_watched: bool,
    /// The I/O has ended.
    has_ended: bool,
}

impl<W: Work> Relay<W> {
    pub(crate) fn new(shared: Arc<Shared>, driver: W) -> Self {
        Self {
            shared,
            seat: Mutex::new(Seat {
                driver: Some(Box::new(driver)),
                is_wanted: false,
                handed_over: 0,
                is_watched: false,
                has_ended: false,
            }),
            returned: Condvar::new(),
            watch: Condvar::new(),
        }
    }

    /// The thread `livequery-dispatch`.
    pub(crate) fn dispatch(&self) {
        let deliver = || {
            deliver_all(&self.shared, &mut Budget::unlimited());
            true
        };
        while let Some(mut driver) = self.take() {
            let mut has_letters = || !self.shared.queue.is_empty();
            if !survives(&self.shared, || driver.run(&mut has_letters)) {
                self.end();
                break;
            }
            self.hand_over(driver);
            if !survives(&self.shared, deliver) {
                self.end();
            }
            // A listener has forked, and this is the only thread of the child: the I/O belongs to the parent.
            if !self.shared.is_home() {
                return;
            }
        }
        survives(&self.shared, deliver);
        self.shared.queue.close();
    }

    /// The thread `livequery-io`.
    pub(crate) fn deputise(&self) {
        while let Some(mut driver) = self.overtaken() {
            let mut is_wanted = || {
                let seat = self.seat.lock();
                seat.is_wanted || seat.has_ended
            };
            if !survives(&self.shared, || driver.run(&mut is_wanted)) {
                self.end();
                break;
            }
            self.give_back(driver);
        }
    }

    /// Takes the driver, asking the other thread for it if necessary. `None` once the I/O has ended.
    fn take(&self) -> Option<Box<W>> {
        let mut seat = self.seat.lock();
        if seat.driver.is_none() && !seat.has_ended {
            seat.is_wanted = true;
            self.shared.wake();
            while seat.driver.is_none() && !seat.has_ended {
                self.returned.wait(&mut seat);
            }
            seat.is_wanted = false;
        }
        seat.driver.take()
    }

    /// Leaves the I/O to the other thread, in case the listeners take long.
    fn hand_over(&self, driver: Box<W>) {
        let mut seat = self.seat.lock();
        seat.driver = Some(driver);
        seat.handed_over += 1;
        if !seat.is_watched {
            seat.is_watched = true;
            self.watch.notify_one();
        }
    }

    /// Returns the driver once listeners have taken too long. `None` once the I/O has ended.
    fn overtaken(&self) -> Option<Box<W>> {
        let mut seat = self.seat.lock();
        loop {
            if seat.has_ended {
                return None;
            }
            if !seat.is_watched {
                self.watch.wait(&mut seat);
                continue;
            }
            let before = seat.handed_over;
            wait_for(&self.watch, &mut seat, PATIENCE);
            if seat.handed_over == before {
                seat.is_watched = false;
                if let Some(driver) = seat.driver.take() {
                    return Some(driver);
                }
            }
        }
    }

    fn give_back(&self, driver: Box<W>) {
        let mut seat = self.seat.lock();
        if !seat.has_ended {
            seat.driver = Some(driver);
            self.returned.notify_one();
        }
    }

    fn end(&self) {
        let driver = {
            let mut seat = self.seat.lock();
            seat.has_ended = true;
            seat.driver.take()
        };
        drop(driver);
        self.returned.notify_one();
        self.watch.notify_one();
        self.shared.wake();
    }
}

/// Does a part of the work, and returns whether the work continues. After a panic, which is a fault of this
/// library, it does not: nothing comes any more, and no caller must wait for it.
fn survives(shared: &Arc<Shared>, part: impl FnOnce() -> bool) -> bool {
    fence::run(part).unwrap_or_else(|text| {
        let text = format!(
            "a thread of the client panicked; nothing comes any more, so build another client: {text}"
        );
        shared.die(Error::new(ErrorKind::Io, text).fatal());
        false
    })
}

/// How long listeners may delay the I/O. It may be up to twice as long, because the check has the same
/// interval.
const PATIENCE: Duration = Duration::from_millis(10);

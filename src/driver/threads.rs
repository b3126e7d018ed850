//! Which thread does the I/O: the one that calls the listeners, as long as these are quick.
//!
//! An event is then read and delivered on one thread, with nobody to wake and nothing to carry from one core to
//! another, which costs more than all the rest of its way. A listener that takes its time must not hold up the link,
//! though. So while listeners are called a second thread looks now and then whether the first one is getting on. If it
//! is not, that thread does the I/O in its place until it is back.
//!
//! ```text
//!   livequery-dispatch                       seat                          livequery-io
//!   take ◄──────────────────── the driver, or empty ────────────────► watch
//!   run until something is to deliver          ▲  ▲                        (after 10 ms without a new hand-over)
//!   hand_over ─────────────────────────────────┘  └─────────── give_back ── deputise: run until it is wanted
//!   deliver
//! ```
//!
//! Knows nothing of what the driver does, nor of what is delivered.

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

/// Whatever does the I/O.
pub(crate) trait Work: Send {
    /// Works, turn by turn, until `stop` says so after a turn. `false` once there is nothing more to do, ever.
    fn run(&mut self, stop: &mut dyn FnMut() -> bool) -> bool;
}

/// Starts the threads, which end with the I/O.
pub(super) fn spawn(mut driver: Driver) -> io::Result<()> {
    let shared = Arc::clone(&driver.shared);
    let io = thread::Builder::new().name("livequery-io".to_owned());
    if shared.queue.is_manual() {
        io.spawn(move || {
            survives(&shared, || driver.run(&mut || false));
            // What a panic has to tell is still to be dispatched.
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
    /// Here while nobody does the I/O, since listeners are being called.
    driver: Option<Box<W>>,
    /// `livequery-dispatch` has nothing to deliver, and waits for the driver.
    is_wanted: bool,
    /// How often it has put the driver here.
    handed_over: u64,
    /// `livequery-io` looks whether that goes on.
    is_watched: bool,
    /// Nobody does any I/O any more.
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
            // A listener has forked, and this is the only thread of the child: the I/O is the parent's.
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

    /// The driver, which whoever has it is asked for. `None` once the I/O has ended.
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

    /// Leaves the I/O to the other thread, if listeners are going to take long.
    fn hand_over(&self, driver: Box<W>) {
        let mut seat = self.seat.lock();
        seat.driver = Some(driver);
        seat.handed_over += 1;
        if !seat.is_watched {
            seat.is_watched = true;
            self.watch.notify_one();
        }
    }

    /// The driver, once listeners have taken too long. `None` once the I/O has ended.
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

/// Whether the work goes on after this part of it. After a panic, which is a fault of this library, it does not:
/// nothing comes any more, and nobody is to wait for it.
fn survives(shared: &Arc<Shared>, part: impl FnOnce() -> bool) -> bool {
    fence::run(part).unwrap_or_else(|text| {
        let text = format!(
            "a thread of the client panicked; nothing comes any more, so build another client: {text}"
        );
        shared.die(Error::new(ErrorKind::Io, text).fatal());
        false
    })
}

/// How long listeners may keep the I/O waiting; at most twice that, as it is looked at so often.
const PATIENCE: Duration = Duration::from_millis(10);

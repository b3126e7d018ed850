//! Which thread does the I/O: the one that calls the listeners, as long as these are quick.
//!
//! An event is then read and given out on one thread, with nobody to wake and nothing to carry from one core to
//! another, which costs more than all the rest of its way. A listener that takes its time must not hold up the link,
//! though. So while listeners are called a second thread looks now and then whether the first one is getting on. If it
//! is not, that thread does the I/O in its place until it is back.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Driver;
use crate::delivery::dispatch::{Item, give_out_all};
use crate::delivery::shared::Shared;
use crate::error::{Error, ErrorKind};
use crate::event::ClientEvent;

/// Starts the threads, which end with the I/O.
pub(super) fn spawn(mut driver: Driver) -> io::Result<()> {
    let shared = Arc::clone(&driver.shared);
    let io = thread::Builder::new().name("livequery-io".to_owned());
    if shared.queue.is_manual() {
        io.spawn(move || goes_on(&shared, || driver.run(|| false)))?;
        return Ok(());
    }
    let relay = Arc::new(Relay {
        shared,
        place: Mutex::new(Place {
            driver: Some(Box::new(driver)),
            wanted: false,
            handed_over: 0,
            watched: false,
            ended: false,
        }),
        returned: Condvar::new(),
        watch: Condvar::new(),
    });
    let watcher = Arc::clone(&relay);
    io.spawn(move || watcher.stand_in())?;
    let dispatcher = Arc::clone(&relay);
    thread::Builder::new()
        .name("livequery-dispatch".to_owned())
        .spawn(move || dispatcher.dispatch())
        .map(drop)
        .inspect_err(|_| relay.end())
}

struct Relay {
    shared: Arc<Shared>,
    place: Mutex<Place>,
    returned: Condvar,
    watch: Condvar,
}

struct Place {
    /// Here while nobody does the I/O, since listeners are being called.
    driver: Option<Box<Driver>>,
    /// `livequery-dispatch` has nothing to give out, and waits for the driver.
    wanted: bool,
    /// How often it has put the driver here.
    handed_over: u64,
    /// `livequery-io` looks whether that goes on.
    watched: bool,
    /// Nobody does any I/O any more.
    ended: bool,
}

impl Relay {
    /// The thread `livequery-dispatch`.
    fn dispatch(&self) {
        let mut batch = VecDeque::new();
        while let Some(mut driver) = self.take() {
            if !goes_on(&self.shared, || driver.run(|| !self.shared.queue.is_empty())) {
                self.end();
                break;
            }
            self.hand_over(driver);
            let give_out = || {
                give_out_all(&self.shared, &mut batch);
                true
            };
            if !goes_on(&self.shared, give_out) {
                self.end();
            }
        }
        give_out_all(&self.shared, &mut batch);
    }

    /// The thread `livequery-io`.
    fn stand_in(&self) {
        while let Some(mut driver) = self.watch() {
            let is_wanted = || {
                let place = self.place.lock();
                place.wanted || place.ended
            };
            if !goes_on(&self.shared, || driver.run(is_wanted)) {
                self.end();
                break;
            }
            self.give_back(driver);
        }
    }

    /// The driver, which whoever has it is asked for. `None` once the I/O has ended.
    fn take(&self) -> Option<Box<Driver>> {
        let mut place = self.place.lock();
        if place.driver.is_none() && !place.ended {
            place.wanted = true;
            self.shared.wake();
            while place.driver.is_none() && !place.ended {
                self.returned.wait(&mut place);
            }
            place.wanted = false;
        }
        place.driver.take()
    }

    /// Leaves the I/O to the other thread, if listeners are going to take long.
    fn hand_over(&self, driver: Box<Driver>) {
        let mut place = self.place.lock();
        place.driver = Some(driver);
        place.handed_over += 1;
        if !place.watched {
            place.watched = true;
            self.watch.notify_one();
        }
    }

    /// The driver, once listeners have taken too long. `None` once the I/O has ended.
    fn watch(&self) -> Option<Box<Driver>> {
        let mut place = self.place.lock();
        loop {
            if place.ended {
                return None;
            }
            if !place.watched {
                self.watch.wait(&mut place);
                continue;
            }
            let before = place.handed_over;
            self.watch.wait_for(&mut place, PATIENCE);
            if place.handed_over == before {
                place.watched = false;
                if let Some(driver) = place.driver.take() {
                    return Some(driver);
                }
            }
        }
    }

    fn give_back(&self, driver: Box<Driver>) {
        let mut place = self.place.lock();
        if !place.ended {
            place.driver = Some(driver);
            self.returned.notify_one();
        }
    }

    fn end(&self) {
        let driver = {
            let mut place = self.place.lock();
            place.ended = true;
            place.driver.take()
        };
        drop(driver);
        self.returned.notify_one();
        self.watch.notify_one();
        self.shared.wake();
    }
}

/// Whether the work goes on after this part of it. After a panic it does not, which is a fault of this library, or of
/// the program's logger, which it calls: nothing comes any more, and nobody is to wait for it.
fn goes_on(shared: &Shared, part: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(part)).unwrap_or_else(|_| {
        let error = Error::new(
            ErrorKind::Io,
            "a thread of the client panicked; nothing comes any more, so build another client",
        )
        .fatal();
        shared.give_up(error.clone());
        shared
            .queue
            .push(&mut vec![Item::ClientEvent(ClientEvent::failed(error))]);
        false
    })
}

/// How long listeners may keep the I/O waiting; at most twice that, as it is looked at so often.
const PATIENCE: Duration = Duration::from_millis(10);

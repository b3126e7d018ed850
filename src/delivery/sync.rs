//! The locks, counters and clock of delivery: those of the system, or with `--cfg shuttle` those of the model checker.
//!
//! Knows nothing of what they are used for.

use std::time::{Duration, Instant};

#[cfg(not(all(test, shuttle)))]
pub(crate) use self::real::*;
#[cfg(all(test, shuttle))]
pub(crate) use self::shuttle_model::*;

#[cfg(not(all(test, shuttle)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

    use super::{Duration, Instant};

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Waits for a lock until the deadline.
    pub(crate) fn lock_until<T>(lock: &Mutex<T>, deadline: Instant) -> Option<MutexGuard<'_, T>> {
        lock.try_lock_until(deadline)
    }

    /// Sleeps until it is woken, or until the deadline. `false` at the deadline.
    pub(crate) fn wait_until<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
        !condvar.wait_until(guard, deadline).timed_out()
    }

    /// Sleeps for a while, unless it is woken.
    pub(crate) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, time: Duration) {
        condvar.wait_for(guard, time);
    }
}

/// In the model a deadline never comes, and a short wait is over at any moment: whatever holds whenever it ends holds
/// for every length of it.
#[cfg(all(test, shuttle))]
mod shuttle_model {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
    pub(crate) use shuttle_parking_lot::{Mutex, MutexGuard};

    use super::{Duration, Instant};

    /// The clock stands still, so that a schedule can be run again.
    pub(crate) fn now() -> Instant {
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    /// A condition variable for the locks of `shuttle-parking_lot`, which has none.
    #[derive(Default)]
    pub(crate) struct Condvar {
        wakes: shuttle::sync::Mutex<u64>,
        woken: shuttle::sync::Condvar,
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let Ok(mut wakes) = self.wakes.lock() else { return };
            let before = *wakes;
            MutexGuard::unlocked(guard, || {
                while *wakes == before {
                    match self.woken.wait(wakes) {
                        Ok(locked) => wakes = locked,
                        Err(_) => return,
                    }
                }
            });
        }

        pub(crate) fn notify_all(&self) {
            if let Ok(mut wakes) = self.wakes.lock() {
                *wakes += 1;
            }
            self.woken.notify_all();
        }

        pub(crate) fn notify_one(&self) {
            self.notify_all();
        }
    }

    pub(crate) fn lock_until<T>(lock: &Mutex<T>, _: Instant) -> Option<MutexGuard<'_, T>> {
        Some(lock.lock())
    }

    pub(crate) fn wait_until<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, _: Instant) -> bool {
        condvar.wait(guard);
        true
    }

    pub(crate) fn wait_for<T>(_: &Condvar, guard: &mut MutexGuard<'_, T>, _: Duration) {
        MutexGuard::unlocked(guard, shuttle::thread::yield_now);
    }
}

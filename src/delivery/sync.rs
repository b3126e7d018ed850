//! The locks, counters and clock of delivery: those of the system or, with `--cfg shuttle`, those of the
//! model checker.
//!
//! Must not know what they are used for.

use std::time::{Duration, Instant};

#[cfg(not(all(test, shuttle)))]
pub(crate) use self::real::*;
#[cfg(all(test, shuttle))]
pub(crate) use self::shuttle_model::*;

#[cfg(not(all(test, shuttle)))]
mod real {
    use std::sync::PoisonError;
    use std::sync::atomic::Ordering;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    use super::{Duration, Instant};

    /// A condition variable for the locks of `parking_lot`, whose own keeps all waiting threads in one table
    /// of the process. A fork inherits that table with threads that do not exist there, and new threads reuse
    /// their memory: clients built in the child would miss wake-ups.
    #[derive(Default)]
    pub(crate) struct Condvar {
        /// Changed under the lock that is waited with.
        waiting: AtomicUsize,
        wakes: std::sync::Mutex<u64>,
        woken: std::sync::Condvar,
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            self.sleep(guard, None);
        }

        pub(crate) fn notify_all(&self) {
            if self.count() {
                self.woken.notify_all();
            }
        }

        pub(crate) fn notify_one(&self) {
            if self.count() {
                self.woken.notify_one();
            }
        }

        /// Counts a wake-up, if a thread waits for one. A thread that begins to wait has locked either before
        /// the change, and is then seen here, or after it, and then sees the change.
        fn count(&self) -> bool {
            if self.waiting.load(Ordering::Acquire) == 0 {
                return false;
            }
            *self.wakes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            true
        }

        /// Returns `false` at the deadline.
        fn sleep<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Option<Instant>) -> bool {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
            let before = *wakes;
            let is_woken = MutexGuard::unlocked(guard, || {
                while *wakes == before {
                    let Some(deadline) = deadline else {
                        wakes = self.woken.wait(wakes).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    };
                    let left = deadline.saturating_duration_since(now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = self.woken.wait_timeout(wakes, left);
                    wakes = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                let is_woken = *wakes != before;
                // Before the other lock is taken again, because a notifying thread takes them in that order.
                drop(wakes);
                is_woken
            });
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            is_woken
        }
    }

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Waits for a lock until the deadline.
    pub(crate) fn lock_until<T>(lock: &Mutex<T>, deadline: Instant) -> Option<MutexGuard<'_, T>> {
        lock.try_lock_until(deadline)
    }

    /// Sleeps until woken, or until the deadline. Returns `false` at the deadline.
    pub(crate) fn wait_until<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
        condvar.sleep(guard, Some(deadline))
    }

    /// Sleeps for a while, unless it is woken.
    pub(crate) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, time: Duration) {
        condvar.sleep(guard, now().checked_add(time));
    }
}

/// In the model, a deadline never comes, and a short wait may end at any moment: what is true whenever it
/// ends is true for every length of it.
#[cfg(all(test, shuttle))]
mod shuttle_model {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use shuttle_parking_lot::{Mutex, MutexGuard};

    use super::{Duration, Instant};

    /// The clock stands still, so that a schedule can be run again.
    pub(crate) fn now() -> Instant {
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    /// A condition variable for the locks of `shuttle-parking_lot`, which does not have one.
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

//! One that is told things: what a subscription, a client and a live set have in common.
//!
//! Knows nothing of what it is told, and of when.

use std::sync::atomic::Ordering;

use crate::delivery::emitter::{Emit, Emitter};
use crate::delivery::mailbox::Mailbox;
use crate::delivery::sync::{AtomicBool, AtomicU64, Mutex};

/// Listeners, and what waits for them.
///
/// What each event needs comes first and lies together: ten thousand subscriptions are in no cache.
#[repr(C)]
pub(crate) struct Subscriber<E: Emit> {
    generation: AtomicU64,
    ended: AtomicBool,
    /// Locked while its listeners run.
    pub(crate) running: Mutex<()>,
    pub(crate) mailbox: Mutex<Mailbox<E>>,
    pub(crate) emitter: Emitter<E>,
}

impl<E: Emit> Subscriber<E> {
    pub(crate) fn new(emitter: Emitter<E>) -> Self {
        Self {
            generation: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            running: Mutex::new(()),
            mailbox: Mutex::new(Mailbox::new()),
            emitter,
        }
    }

    /// Counts the session tokens that it has had.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// It gets another session token: objects that came under an earlier one are not told any more. Returns the number
    /// of the new one.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// From now on no listener of it is called but for the last event.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

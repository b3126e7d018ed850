//! What a subscription, a client and a live set have in common: listeners and a mailbox.
//!
//! Must not know what is delivered, or when.

use std::sync::atomic::Ordering;

use crate::delivery::emitter::{Emit, Emitter};
use crate::delivery::mailbox::Mailbox;
use crate::delivery::sync::{AtomicBool, AtomicU64, Mutex};

/// Listeners, and what waits for them.
///
/// Field order: what every event touches comes first and together, because ten thousand subscriptions do not
/// fit into the cache.
#[repr(C)]
pub(crate) struct Subscriber<E: Emit> {
    generation: AtomicU64,
    ended: AtomicBool,
    /// Locked during its turn, in which its listeners run.
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

    /// The number of session tokens that it has had.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Starts a new session token: objects that came under an earlier one are no longer delivered. Returns
    /// the number of the new token.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// From now on, none of its listeners is called except with the last event.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

//! What threads wait for: the state of the client, and the delivery of events.
//!
//! Must not know of listeners. A wait ends in one of four ways: the awaited event was delivered, it will
//! never come, the client has died, or the deadline has passed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::delivery::sync::{AtomicUsize, Condvar, Mutex, wait_until};
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;
use crate::state::ClientState;

/// The state of a client, for waiting threads.
pub(crate) struct Status {
    pub(crate) home: Home,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// The number of changes that led to the present state and are not delivered yet.
    telling: Arc<Count>,
    /// Calls of `close` that are under way.
    closing: Arc<Count>,
}

struct Inner {
    state: ClientState,
    /// Why the last attempt to connect failed, until one succeeds.
    error: Option<Error>,
    /// Orders to connect that the I/O has not seen yet. Until it has, the state is out of date.
    orders: usize,
    /// The threads have panicked. Nothing comes any more.
    death: Option<Error>,
}

/// What a waiting thread looks at.
pub(crate) struct Look<'a> {
    inner: &'a Inner,
    status: &'a Status,
}

impl Look<'_> {
    pub(crate) fn state(&self) -> ClientState {
        self.inner.state
    }

    /// Why the server permanently refused the client, once all listeners concerned have been called.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let is_refused = self.inner.state == ClientState::Disconnected && self.inner.orders == 0;
        self.inner.error.clone().filter(|_| is_refused && self.is_told())
    }

    /// Whether everything that led to the present state has been delivered.
    pub(crate) fn is_told(&self) -> bool {
        self.status.telling.get() == 0
    }

    /// Whether the client is closed and the listeners have been called.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.state == ClientState::Closed && self.inner.orders == 0 && self.is_close_done()
    }

    fn is_close_done(&self) -> bool {
        self.status.closing.get() == 0
    }
}

/// How a wait ended without an answer.
pub(crate) enum Unanswered {
    /// The deadline has passed. With the reason why the last attempt to connect failed.
    Late(Option<Error>),
    /// The threads of the client have panicked.
    Dead(Error),
}

impl Status {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            home: Home::here(),
            inner: Mutex::new(Inner {
                state: ClientState::Initialized,
                error: None,
                orders: 0,
                death: None,
            }),
            changed: Condvar::new(),
            telling: Arc::default(),
            closing: Arc::default(),
        })
    }

    pub(crate) fn state(&self) -> ClientState {
        if !self.home.is_here() {
            return ClientState::Disconnected;
        }
        self.inner.lock().state
    }

    pub(crate) fn last_error(&self) -> Option<Error> {
        if let Err(forked) = self.home.check() {
            return Some(forked);
        }
        self.inner.lock().error.clone()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.inner.lock().death.is_some()
    }

    pub(crate) fn set_state(&self, state: ClientState, error: Option<Error>) {
        let mut inner = self.inner.lock();
        if inner.death.is_none() {
            inner.state = state;
            inner.error = error;
        }
        self.changed.notify_all();
    }

    /// The threads have panicked: every wait ends now, and every later one at once.
    pub(crate) fn die(&self, error: Error) {
        let mut inner = self.inner.lock();
        inner.state = ClientState::Disconnected;
        inner.error = Some(error.clone());
        inner.death = Some(error);
        self.changed.notify_all();
    }

    /// Registers an order to connect that is on its way to the I/O. It counts until the returned value is
    /// dropped.
    pub(crate) fn order(self: &Arc<Self>) -> Order {
        self.inner.lock().orders += 1;
        Order(Arc::clone(self))
    }

    /// Registers a `close`. It ends when the last copy of the receipt is dropped.
    pub(crate) fn close(self: &Arc<Self>) -> Arc<Receipt> {
        let receipt = self.receipt(&self.closing);
        let mut inner = self.inner.lock();
        if inner.death.is_none() {
            inner.state = ClientState::Closed;
        }
        self.changed.notify_all();
        receipt
    }

    /// A receipt for a state of the client that is about to be delivered.
    pub(crate) fn telling(self: &Arc<Self>) -> Arc<Receipt> {
        self.receipt(&self.telling)
    }

    /// A receipt for something that is about to be delivered.
    pub(crate) fn receipt<T: Telling + 'static>(self: &Arc<Self>, of: &Arc<T>) -> Arc<Receipt> {
        of.telling().fetch_add(1, Ordering::AcqRel);
        Arc::new(Receipt {
            status: Arc::clone(self),
            of: Arc::clone(of) as Arc<dyn Telling>,
        })
    }

    /// Wakes the waiting threads after a change. Under the lock, so that no thread checks before the change
    /// and sleeps after this.
    pub(crate) fn changed(&self) {
        let _inner = self.inner.lock();
        self.changed.notify_all();
    }

    /// Waits for an answer.
    pub(crate) fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut answer: impl FnMut(Look<'_>) -> Option<R>,
    ) -> Result<R, Unanswered> {
        let mut inner = self.inner.lock();
        let mut is_late = false;
        loop {
            let look = Look {
                inner: &inner,
                status: self,
            };
            if let Some(answer) = answer(look) {
                return Ok(answer);
            }
            if let Some(death) = &inner.death {
                return Err(Unanswered::Dead(death.clone()));
            }
            if is_late {
                return Err(Unanswered::Late(inner.error.clone()));
            }
            match deadline {
                Some(deadline) => is_late = !wait_until(&self.changed, &mut inner, deadline),
                None => self.changed.wait(&mut inner),
            }
        }
    }

    /// Waits until each `close` is carried out and delivered. Returns `false` if that takes longer.
    pub(crate) fn wait_close_done(&self, deadline: Instant) -> bool {
        match self.wait(Some(deadline), |look| look.is_close_done().then_some(())) {
            Ok(()) | Err(Unanswered::Dead(_)) => true,
            Err(Unanswered::Late(_)) => false,
        }
    }
}

impl Unanswered {
    /// The error for a wait until something is open.
    pub(crate) fn into_error(self, text: String) -> Error {
        match self {
            Self::Dead(error) => error,
            Self::Late(Some(error)) => Error::with_source(ErrorKind::Timeout, text, error),
            Self::Late(None) => Error::new(ErrorKind::Timeout, text),
        }
    }
}

/// An order to connect that the I/O has not seen yet.
pub(crate) struct Order(Arc<Status>);

impl Drop for Order {
    fn drop(&mut self) {
        self.0.inner.lock().orders -= 1;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

/// Counts what is not delivered yet.
pub(crate) trait Telling: Send + Sync {
    fn telling(&self) -> &AtomicUsize;
}

/// A plain count.
#[derive(Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Telling for Count {
    fn telling(&self) -> &AtomicUsize {
        &self.0
    }
}

/// Lies in all mailboxes that an event is delivered through. A thread that waits for the delivery continues
/// when the last copy is dropped: the event was delivered everywhere, or its subscriber has ended.
pub(crate) struct Receipt {
    status: Arc<Status>,
    of: Arc<dyn Telling>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.of.telling().fetch_sub(1, Ordering::AcqRel);
        // In a fork nobody waits, and the lock may never become free.
        if self.status.home.is_here() {
            self.status.changed();
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt")
    }
}

//! The subscribers that have letters, in the order in which they became ready, and how the delivering thread
//! is woken.
//!
//! Must not know of listeners.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::delivery::mailbox::{Limits, Totals};
use crate::delivery::sync::{AtomicBool, Condvar, Mutex, wait_until};
use crate::fence;
use crate::fenced::{self, Fenced};

/// Which thread runs the listeners of a client.
#[derive(Clone, Default)]
pub struct Dispatch(
    /// Called when there is something to dispatch, if the program dispatches.
    Option<Arc<dyn Fn() + Send + Sync>>,
);

impl Dispatch {
    /// Runs listeners on a thread of the client, named `livequery-dispatch`. This is the default.
    #[must_use]
    pub fn thread() -> Self {
        Self(None)
    }

    /// Runs listeners in [`Client::dispatch_pending`](crate::Client::dispatch_pending), which the program
    /// calls: for example on the thread of a GUI.
    ///
    /// `wake` is called when there is something to dispatch, on a thread of the client or one that uses it.
    /// It should only notify the other thread: wake an event loop, request a repaint. It is called when
    /// something arrives while nothing was waiting, and at the end of each `dispatch_pending` that leaves
    /// something behind. A program that dispatches once for each call therefore misses nothing.
    ///
    /// Waits such as [`Client::wait_open`](crate::Client::wait_open) then do not wait for listeners, because
    /// the waiting thread may be the one that has to call them.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Client, Dispatch};
    ///
    /// # struct Window;
    /// # impl Window { fn request_repaint(&self) {} }
    /// # fn main() -> parse_livequery::Result<()> {
    /// # let window = Window;
    /// let client = Client::builder("ws://localhost:1337/parse", "APP_ID")
    ///     .dispatch(Dispatch::manual(move || window.request_repaint()))
    ///     .build()?;
    ///
    /// // in the requested frame:
    /// client.dispatch_pending();
    /// # Ok(())
    /// # }
    /// ```
    pub fn manual(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let wake = Fenced::new(wake);
        Self(Some(Arc::new(move || {
            if let Some(wake) = wake.get() {
                wake();
            }
        })))
    }

    /// Runs listeners in [`Client::dispatch_pending_timeout`](crate::Client::dispatch_pending_timeout) or
    /// [`Client::dispatch_pending`](crate::Client::dispatch_pending), which the program calls in a loop of
    /// its own. There is no notification when there is something to do.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use parse_livequery::{Client, Dispatch};
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = Client::builder("ws://localhost:1337/parse", "APP_ID")
    ///     .dispatch(Dispatch::polled())
    ///     .build()?;
    /// # for _ in 0..1 {
    /// // in the program's loop:
    /// client.dispatch_pending_timeout(Duration::from_millis(10));
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn polled() -> Self {
        Self(Some(Arc::new(|| ())))
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.0.is_some() { "Manual" } else { "Thread" };
        write!(f, "Dispatch({name})")
    }
}

struct Ready<T: ?Sized> {
    turns: VecDeque<Arc<T>>,
    /// Nothing is delivered any more.
    is_closed: bool,
}

impl<T: ?Sized> Ready<T> {
    fn push(&mut self, turn: Arc<T>) {
        if !self.is_closed {
            self.turns.push_back(turn);
        }
    }
}

/// The subscribers of a client that have letters, each listed once. After its turn, a subscriber goes to the
/// back.
pub(crate) struct Queue<T: ?Sized> {
    ready: Mutex<Ready<T>>,
    /// Something is ready, for the thread that waits to deliver it.
    came: Condvar,
    pub(crate) limits: Limits,
    pub(crate) totals: Totals,
    dispatch: Dispatch,
    /// The wake function was called, and nothing was dispatched since.
    is_signalled: AtomicBool,
    /// Locked by the thread that delivers with [`Dispatch::manual`].
    pub(crate) dispatching: Mutex<()>,
}

impl<T: ?Sized> Queue<T> {
    pub(crate) fn new(limits: Limits, dispatch: Dispatch) -> Self {
        Self {
            ready: Mutex::new(Ready {
                turns: VecDeque::new(),
                is_closed: false,
            }),
            came: Condvar::new(),
            limits,
            totals: Totals::default(),
            dispatch,
            is_signalled: AtomicBool::new(false),
            dispatching: Mutex::new(()),
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.dispatch.0.is_some()
    }

    /// The number of letters that wait or are being delivered.
    pub(crate) fn letters(&self) -> usize {
        self.totals.letters.load(Ordering::Acquire)
    }

    /// A letter was completely delivered.
    pub(crate) fn delivered(&self) {
        self.totals.letters.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.lock().turns.is_empty()
    }

    /// Lists a subscriber that has letters. Must be called only once until its turn reports that none are
    /// left.
    pub(crate) fn list(&self, turn: Arc<T>) {
        let mut ready = self.ready.lock();
        ready.push(turn);
        self.came.notify_all();
        drop(ready);
        if self.is_manual() && !self.is_signalled.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    pub(crate) fn next(&self) -> Option<Arc<T>> {
        self.ready.lock().turns.pop_front()
    }

    /// Lists a subscriber again that has had its turn and has letters left.
    pub(crate) fn back_in_line(&self, turn: Arc<T>) {
        self.ready.lock().push(turn);
    }

    /// The program dispatches: what comes from now on is signalled again.
    pub(crate) fn looked(&self) {
        self.is_signalled.store(false, Ordering::Release);
    }

    /// The program stops dispatching. What is left is signalled again, even if it was before: another thread
    /// may have come for it and been turned away.
    pub(crate) fn leave(&self) {
        if !self.is_empty() {
            self.is_signalled.store(true, Ordering::Release);
            self.wake();
        }
    }

    /// Waits until something is ready. Returns `false` at the deadline.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let mut ready = self.ready.lock();
        while ready.turns.is_empty() {
            if ready.is_closed || !wait_until(&self.came, &mut ready, deadline) {
                return !ready.turns.is_empty();
            }
        }
        true
    }

    /// The threads of the client end: nothing more comes. Clears the list, because a client that waited in
    /// its own list would never be freed.
    pub(crate) fn close(&self) {
        let turns = {
            let mut ready = self.ready.lock();
            ready.is_closed = true;
            self.came.notify_all();
            std::mem::take(&mut ready.turns)
        };
        drop(turns);
    }

    fn wake(&self) {
        if let Some(wake) = &self.dispatch.0 {
            if let Err(text) = fence::run(|| wake()) {
                crate::logging::error!("the wake function of the client panicked: {text}");
            }
        }
    }
}

impl<T: ?Sized> Drop for Queue<T> {
    fn drop(&mut self) {
        // The values that the wake function owns belong to the program.
        fenced::drop_quietly(std::mem::take(&mut self.dispatch));
    }
}

impl<T: ?Sized> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .field("dispatch", &self.dispatch)
            .finish_non_exhaustive()
    }
}

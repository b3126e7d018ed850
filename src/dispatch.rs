//! The way from the I/O thread to the listeners: a bounded queue, and the thread that calls them.
//!
//! Only this module calls listeners, one after another on one thread, and it holds no lock while one runs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex};

use crate::emitter::{ListenerId, Panicked};
use crate::event::{ClientEvent, ClientEventKind, Event, EventKind};
use crate::shared::{Shared, SubscriptionCore};
use crate::{Error, ErrorKind, Result};

/// What the dispatch thread has to do, in the order in which it came about.
#[derive(Debug)]
pub(crate) enum Item {
    Event(Arc<SubscriptionCore>, Event),
    /// An object came, of this many bytes. Counted against the limits, unlike all other items.
    Object(Arc<SubscriptionCore>, Event, usize),
    /// From here on objects of the subscription were dropped, for want of room.
    Lagged(Arc<SubscriptionCore>),
    /// A listener for `open` came too late for it.
    MissedOpen(Arc<SubscriptionCore>, ListenerId),
    ClientEvent(ClientEvent),
    ClientMissedOpen(ListenerId),
    /// All that a `close` of the client has to tell is told.
    CloseDone(u64),
}

/// What may wait for the listeners of one subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What waits for the listeners of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    events: AtomicUsize,
    bytes: AtomicUsize,
    /// Dropped since the last report; not 0 exactly while a report waits in the queue.
    dropped: AtomicU64,
}

impl Usage {
    /// Takes room for an object. If there is none, the object is to be dropped.
    fn take(&self, bytes: usize, limits: Limits) -> Room {
        // Until the loss is reported nothing else goes in, so that one report says all, at the place of the loss.
        if self.dropped.load(Ordering::Acquire) > 0 {
            // The dispatch thread may have reported just now: then this is the first of a new loss.
            return if self.dropped.fetch_add(1, Ordering::AcqRel) == 0 {
                Room::NoMore
            } else {
                Room::None
            };
        }
        let (events, held) = (
            self.events.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        // A single object may be larger than the limit: alone it is let through.
        if events >= limits.events || (events > 0 && held.saturating_add(bytes) > limits.bytes) {
            self.dropped.store(1, Ordering::Release);
            return Room::NoMore;
        }
        self.events.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Room::Taken
    }

    fn give_back(&self, bytes: usize) {
        self.events.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

enum Room {
    Taken,
    /// Not any more: the loss has to be reported.
    NoMore,
    /// Still not: the report is under way.
    None,
}

/// The queue. The I/O thread puts in what one turn of its loop brought, and is never held up by it; the dispatch
/// thread takes out all that is there.
pub(crate) struct Queue {
    inner: Mutex<Waiting>,
    filled: Condvar,
    limits: Limits,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    ended: bool,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            inner: Mutex::new(Waiting::default()),
            filled: Condvar::new(),
            limits,
        }
    }

    /// Adds the items, which are removed from the list.
    pub(crate) fn push(&self, items: &mut Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let was_empty = inner.items.is_empty();
        inner.items.extend(items.drain(..));
        drop(inner);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// The item for an object, if there is room for it.
    pub(crate) fn object(
        &self,
        subscription: &Arc<SubscriptionCore>,
        event: Event,
        bytes: usize,
    ) -> Option<Item> {
        let subscription = Arc::clone(subscription);
        match subscription.usage.take(bytes, self.limits) {
            Room::Taken => Some(Item::Object(subscription, event, bytes)),
            Room::NoMore => Some(Item::Lagged(subscription)),
            Room::None => None,
        }
    }

    /// Nothing will be added any more.
    pub(crate) fn end(&self) {
        self.inner.lock().ended = true;
        self.filled.notify_all();
    }

    /// Waits for items and moves all that there are into the empty list. `false` once there will be none.
    fn take(&self, into: &mut VecDeque<Item>) -> bool {
        let mut inner = self.inner.lock();
        while inner.items.is_empty() {
            if inner.ended {
                return false;
            }
            self.filled.wait(&mut inner);
        }
        std::mem::swap(&mut inner.items, into);
        true
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Starts the dispatch thread. It ends after [`Queue::end`], when all is given out.
pub(crate) fn spawn(shared: Arc<Shared>) -> Result<()> {
    thread::Builder::new()
        .name("livequery-dispatch".to_owned())
        .spawn(move || {
            let mut batch = VecDeque::new();
            while shared.queue.take(&mut batch) {
                while let Some(item) = batch.pop_front() {
                    dispatch(&shared, item);
                }
            }
        })
        .map(drop)
        .map_err(|error| Error::with_source(ErrorKind::Io, "the dispatch thread cannot be started", error))
}

thread_local! {
    /// The client whose listener runs on this thread.
    static IN_LISTENER_OF: Cell<Option<*const Shared>> = const { Cell::new(None) };
}

/// Whether this is called in a listener of the client: then to wait for the client is to wait for oneself.
pub(crate) fn in_listener_of(shared: &Arc<Shared>) -> bool {
    IN_LISTENER_OF.get() == Some(Arc::as_ptr(shared))
}

/// # Errors
/// [`ErrorKind::CalledFromListener`], in a listener of the client.
pub(crate) fn refuse_in_listener(shared: &Arc<Shared>, call: &str) -> Result<()> {
    if in_listener_of(shared) {
        let text = format!(
            "`{call}` was called in a listener, which it would wait for; call it on another thread, or do without it"
        );
        return Err(Error::new(ErrorKind::CalledFromListener, text));
    }
    Ok(())
}

fn dispatch(shared: &Arc<Shared>, item: Item) {
    IN_LISTENER_OF.set(Some(Arc::as_ptr(shared)));
    match item {
        Item::Event(subscription, event) => emit(shared, &subscription, &event),
        Item::Object(subscription, event, bytes) => {
            subscription.usage.give_back(bytes);
            emit(shared, &subscription, &event);
        }
        Item::Lagged(subscription) => {
            let dropped = subscription.usage.dropped.swap(0, Ordering::AcqRel);
            emit(shared, &subscription, &Event::failed(Error::lagged(dropped)));
        }
        Item::MissedOpen(subscription, listener) => {
            if !shared.is_ended(&subscription) {
                let panicked = subscription.emitter.emit_open_to(listener);
                report(shared, panicked, || {
                    format!("`open` of {}", describe(&subscription))
                });
            }
        }
        Item::ClientEvent(event) => emit_of_client(shared, &event),
        Item::ClientMissedOpen(listener) => {
            let panicked = shared.emitter.emit_open_to(listener);
            report(shared, panicked, || "`open` of the client".to_owned());
        }
        Item::CloseDone(number) => shared.close_done(number),
    }
    IN_LISTENER_OF.set(None);
}

fn emit(shared: &Arc<Shared>, subscription: &SubscriptionCore, event: &Event) {
    let ended = shared.is_ended(subscription);
    // Of a subscription that was ended only that is told.
    if ended && event.kind() != EventKind::Close {
        return;
    }
    if let (EventKind::Error, Some(error)) = (event.kind(), event.error()) {
        if subscription.emitter.count(EventKind::Error) + shared.emitter.count(ClientEventKind::Error) == 0 {
            log::warn!("{}: {error}", describe(subscription));
        }
        // The client's listeners hear of the errors of all subscriptions. That the whole connection was refused
        // they have heard already.
        if error.kind() != ErrorKind::Refused {
            let panicked = shared.emitter.emit(&ClientEvent::failed(error.clone()));
            report(shared, panicked, || "`error` of the client".to_owned());
        }
    }
    let panicked = subscription.emitter.emit(event);
    report(shared, panicked, || {
        format!("`{}` of {}", event.kind(), describe(subscription))
    });
    if ended {
        // Nothing more will come; what the closures own is free, the client perhaps.
        subscription.emitter.remove_all(None);
    }
}

fn emit_of_client(shared: &Arc<Shared>, event: &ClientEvent) {
    if let (ClientEventKind::Error, Some(error)) = (event.kind(), event.error()) {
        if shared.emitter.count(ClientEventKind::Error) == 0 {
            log::warn!("{error}");
        }
    }
    let panicked = shared.emitter.emit(event);
    report(shared, panicked, || format!("`{}` of the client", event.kind()));
}

/// Tells the client's listeners of listeners that panicked. One that panics on being told is only logged.
fn report(shared: &Arc<Shared>, panicked: Vec<Panicked>, what: impl Fn() -> String) {
    for Panicked(text) in panicked {
        let text = format!("a listener for {} panicked: {text}", what());
        log::error!("{text}");
        let event = ClientEvent::failed(Error::new(ErrorKind::ListenerPanicked, text));
        for Panicked(text) in shared.emitter.emit(&event) {
            log::error!("a listener for `error` of the client panicked in turn: {text}");
        }
    }
}

fn describe(subscription: &SubscriptionCore) -> String {
    format!("subscription {} to {}", subscription.id, subscription.class_name)
}

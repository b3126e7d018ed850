//! The way from the I/O to the listeners: a bounded queue, and how they are called.
//!
//! Only this module calls listeners, one after another, and it holds no lock that anybody else waits for while one
//! runs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::delivery::emitter::{Fault, ListenerId};
use crate::delivery::shared::{Shared, SubscriptionCore};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEvent, ClientEventKind, Event, EventKind};
use crate::protocol::Now;
use crate::protocol::spec::Spec;
use crate::stats::{Counters, EventCounts};

/// Which thread runs the listeners of a client.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Dispatch {
    /// A thread of the client's own, with the name `livequery-dispatch`.
    #[default]
    Thread,
    /// The one that calls [`Client::dispatch_pending`](crate::Client::dispatch_pending): the thread of a GUI, say.
    Manual {
        /// Called when there is something to dispatch and nothing was waiting before, on a thread of the client or
        /// on one that uses it. It should do no more than to make the other thread come: wake an event loop, ask for
        /// a repaint.
        wake: Arc<dyn Fn() + Send + Sync>,
    },
}

impl Dispatch {
    /// Listeners run in [`Client::dispatch_pending`](crate::Client::dispatch_pending), and `wake` is called when there
    /// is something for it to do.
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
    /// // in the frame that was asked for:
    /// client.dispatch_pending();
    /// # Ok(())
    /// # }
    /// ```
    pub fn manual(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Manual { wake: Arc::new(wake) }
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread => f.write_str("Thread"),
            Self::Manual { .. } => f.write_str("Manual"),
        }
    }
}

/// Which objects of a subscription are dropped when more wait for its listeners than may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Those that come, until what waits is given out: what the listeners get is complete up to one gap.
    #[default]
    DropNewest,
    /// Those that have waited longest: what the listeners get is up to date.
    DropOldest,
}

/// What may wait for the listeners of one subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) objects: usize,
    pub(crate) bytes: usize,
    pub(crate) overflow: Overflow,
}

/// An object that waits for the listeners of its subscription.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) event: Event,
    pub(crate) bytes: usize,
    /// The identities of the client and of the subscription that it came under.
    pub(crate) identity: (u64, u64),
    /// What it has to match.
    pub(crate) filter: Option<Arc<Spec>>,
}

#[derive(Debug)]
struct Entry {
    object: Waiting,
    epoch: u64,
    /// It has a listener, or one may be called for what was dropped before it.
    heard: bool,
}

/// The objects that wait for the listeners of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: VecDeque<Entry>,
    bytes: usize,
    /// Counts the events of the subscription that are no objects: what came before one is given out before it, and what
    /// came after it after it.
    epoch: u64,
    /// Dropped since the last report.
    dropped: u64,
    /// Dropped since they do not match the query.
    pub(crate) foreign: u64,
    /// Dropped in all for want of room.
    pub(crate) dropped_in_all: u64,
    pub(crate) events: EventCounts,
    pub(crate) last_event: Option<SystemTime>,
    /// A report is in the queue. Until it is given out nothing else goes in, so that it says all, at the right place.
    closed: bool,
}

impl Inbox {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An event of the subscription that is no object goes into the queue.
    pub(crate) fn turn_over(&mut self) {
        self.epoch += 1;
    }

    /// An event came.
    pub(crate) fn count(&mut self, kind: EventKind, now: Now) {
        self.events.count(kind);
        self.last_event = Some(now.wall);
    }

    fn drop(&mut self, number: u64, counters: &Counters) {
        self.dropped += number;
        self.dropped_in_all += number;
        Counters::add(&counters.dropped, number);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.waiting.pop_front()?;
        self.bytes -= entry.object.bytes;
        if self.waiting.is_empty() {
            // A burst must not cost its memory for ever. And what was freed last is in a cache, which the queues of
            // thousands of subscriptions would not be.
            self.waiting = VecDeque::new();
        }
        Some(entry)
    }

    /// The next object, if it is of this epoch: those before it were dropped otherwise.
    fn pop_of(&mut self, epoch: u64) -> Option<Entry> {
        self.waiting.front().filter(|entry| entry.epoch == epoch)?;
        self.pop()
    }
}

/// What has to be given out, in the order in which it came about.
#[derive(Debug)]
pub(crate) enum Item {
    /// `open`, `close` or `error`, which are never dropped.
    Event(Arc<SubscriptionCore>, Event),
    /// The next object in the subscription's inbox, if it is of this epoch.
    Object(Arc<SubscriptionCore>, u64),
    /// From here on objects of the subscription were dropped.
    Lagged(Arc<SubscriptionCore>),
    /// A listener for `open` came too late for it.
    MissedOpen(Arc<SubscriptionCore>, ListenerId),
    ClientEvent(ClientEvent),
    ClientMissedOpen(ListenerId),
    /// Whatever else is to be done where listeners run.
    Task(Task),
    /// All that a `close` of the client has to tell is told.
    CloseDone(u64),
}

pub(crate) struct Task(pub(crate) Box<dyn FnOnce() + Send>);

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// The queue. Whoever does the I/O puts in what one turn of the loop brought, and is never held up by it; whoever
/// dispatches takes out all that is there.
pub(crate) struct Queue {
    items: Mutex<VecDeque<Item>>,
    limits: Limits,
    dispatch: Dispatch,
    /// The objects of all subscriptions, and their bytes.
    objects: AtomicUsize,
    bytes: AtomicUsize,
    /// What listeners may be called for and is not given out to the end: heard objects, and all items that are none.
    unfinished: AtomicUsize,
    /// What was taken out with [`Dispatch::Manual`] and not yet given out; locked by who gives out.
    taken: Mutex<VecDeque<Item>>,
}

impl Queue {
    pub(crate) fn new(limits: Limits, dispatch: Dispatch) -> Self {
        Self {
            items: Mutex::new(VecDeque::new()),
            limits,
            dispatch,
            objects: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            taken: Mutex::new(VecDeque::new()),
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.dispatch, Dispatch::Manual { .. })
    }

    /// How many objects wait, and their bytes.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (
            self.objects.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// Whether no listener is running, nor has anything before it. Then one that registers another listener has been
    /// heard of, or has nothing to do with what came up to now.
    pub(crate) fn is_idle(&self) -> bool {
        self.unfinished.load(Ordering::Acquire) == 0
    }

    /// Adds the items, which are removed from the list.
    pub(crate) fn push(&self, items: &mut Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let others = items
            .iter()
            .filter(|item| !matches!(item, Item::Object(..)))
            .count();
        if others > 0 {
            self.unfinished.fetch_add(others, Ordering::Relaxed);
        }
        let mut queue = self.items.lock();
        let was_empty = queue.is_empty();
        queue.extend(items.drain(..));
        drop(queue);
        items.shrink_to(KEPT_ITEMS);
        if was_empty {
            self.notify();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.lock().is_empty()
    }

    /// Puts an object into the inbox of its subscription, if there is room. Returns what is to be [`push`](Self::push)ed
    /// for it.
    pub(crate) fn accept(
        &self,
        subscription: Arc<SubscriptionCore>,
        waiting: Waiting,
        now: Now,
        counters: &Counters,
    ) -> Option<Item> {
        let bytes = waiting.bytes;
        let total = self.bytes.load(Ordering::Relaxed);
        let mut guard = subscription.inbox.lock();
        let inbox = &mut *guard;
        inbox.count(waiting.event.kind(), now);
        if inbox.closed {
            inbox.drop(1, counters);
            return None;
        }
        let full = |inbox: &Inbox, total: usize| {
            inbox.len() >= self.limits.objects
                // A single object may be larger than the limit: alone it is let through.
                || inbox.len() > 0
                    && (inbox.bytes.saturating_add(bytes) > self.limits.bytes
                        || total.saturating_add(bytes) > self.limits.bytes.saturating_mul(SUBSCRIPTIONS_WORTH))
        };
        let epoch = inbox.epoch;
        let mut has_item = false;
        if full(inbox, total) {
            match self.limits.overflow {
                Overflow::DropNewest => {
                    inbox.closed = true;
                    inbox.drop(1, counters);
                    drop(guard);
                    return Some(Item::Lagged(subscription));
                }
                Overflow::DropOldest => {
                    while full(inbox, self.bytes.load(Ordering::Relaxed)) {
                        let Some(oldest) = inbox.pop() else { break };
                        self.left(&oldest);
                        if oldest.heard {
                            self.finished();
                        }
                        inbox.drop(1, counters);
                        // Where an object takes the place of another, the item of that one serves it.
                        has_item |= oldest.epoch == epoch;
                    }
                }
            }
        }
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        inbox.bytes += bytes;
        let heard = inbox.dropped > 0 || subscription.emitter.is_heard(waiting.event.kind());
        if heard {
            self.unfinished.fetch_add(1, Ordering::Relaxed);
        }
        inbox.waiting.push_back(Entry {
            object: waiting,
            epoch,
            heard,
        });
        drop(guard);
        (!has_item).then_some(Item::Object(subscription, epoch))
    }

    /// Counts an event for which no listener can be called, and that is all. `false` if one can: the event has to be
    /// [`accept`](Self::accept)ed.
    pub(crate) fn pass_over(&self, subscription: &SubscriptionCore, kind: EventKind, now: Now) -> bool {
        let mut inbox = subscription.inbox.lock();
        if subscription.emitter.is_heard(kind) || !self.is_idle() {
            return false;
        }
        // What waits is not heard either. A listener that comes now must not get that, and miss this.
        while let Some(entry) = inbox.pop() {
            self.left(&entry);
        }
        inbox.count(kind, now);
        true
    }

    /// A listener was registered: objects that wait may be for it.
    pub(crate) fn listener_added(&self, subscription: &SubscriptionCore) {
        for entry in &mut subscription.inbox.lock().waiting {
            if !entry.heard && subscription.emitter.is_heard(entry.object.event.kind()) {
                entry.heard = true;
                self.unfinished.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// An object has left its inbox.
    fn left(&self, entry: &Entry) {
        self.objects.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(entry.object.bytes, Ordering::Relaxed);
    }

    /// The listeners have been called, or will not be.
    fn finished(&self) {
        self.unfinished.fetch_sub(1, Ordering::Release);
    }

    fn notify(&self) {
        if let Dispatch::Manual { wake } = &self.dispatch {
            if catch_unwind(AssertUnwindSafe(|| wake())).is_err() {
                log::error!("the wake function of the client panicked");
            }
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .field("dispatch", &self.dispatch)
            .finish_non_exhaustive()
    }
}

/// Gives out all that is in the queue, for the dispatch thread. `batch` is empty before and after that.
pub(crate) fn give_out_all(shared: &Arc<Shared>, batch: &mut VecDeque<Item>) {
    loop {
        std::mem::swap(&mut *shared.queue.items.lock(), batch);
        if batch.is_empty() {
            return;
        }
        while let Some(item) = batch.pop_front() {
            dispatch(shared, item);
        }
        batch.shrink_to(KEPT_ITEMS);
    }
}

/// Gives out what waits with [`Dispatch::Manual`], until the deadline. Returns how much that was.
///
/// What comes meanwhile is left for the next call, and so is everything if another thread is giving out, or if this is
/// called in a listener.
pub(crate) fn dispatch_pending(shared: &Arc<Shared>, deadline: Option<Instant>) -> usize {
    if !shared.queue.is_manual() || in_listener_of(shared) {
        return 0;
    }
    let Some(mut taken) = shared.queue.taken.try_lock() else {
        return 0;
    };
    taken.append(&mut shared.queue.items.lock());
    let mut count = 0;
    while let Some(item) = taken.pop_front() {
        dispatch(shared, item);
        count += 1;
        if !taken.is_empty() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            drop(taken);
            shared.queue.notify();
            break;
        }
    }
    count
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
    let outer = IN_LISTENER_OF.replace(Some(Arc::as_ptr(shared)));
    let mut heard = true;
    match item {
        Item::Event(subscription, event) => emit(shared, &subscription, &event),
        Item::Object(subscription, epoch) => {
            let (dropped, entry) = {
                let mut guard = subscription.inbox.lock();
                let inbox = &mut *guard;
                // With a report in the queue, that one tells.
                let dropped = if inbox.closed {
                    0
                } else {
                    std::mem::take(&mut inbox.dropped)
                };
                (dropped, inbox.pop_of(epoch))
            };
            if dropped > 0 {
                emit(shared, &subscription, &Event::failed(Error::lagged(dropped)));
            }
            heard = entry.as_ref().is_some_and(|entry| entry.heard);
            if let Some(entry) = entry {
                shared.queue.left(&entry);
                let waiting = &entry.object;
                if heard && waiting.identity == shared.identity(&subscription) {
                    give_out(shared, &subscription, waiting);
                }
            }
        }
        Item::Lagged(subscription) => {
            let dropped = {
                let mut guard = subscription.inbox.lock();
                guard.closed = false;
                std::mem::take(&mut guard.dropped)
            };
            emit(shared, &subscription, &Event::failed(Error::lagged(dropped)));
        }
        Item::MissedOpen(subscription, listener) => {
            let running = subscription.running.lock();
            if !shared.is_ended(&subscription) {
                let faults = subscription.emitter.emit_open_to(listener);
                drop(running);
                report(shared, faults, Some(&subscription), &EventKind::Open);
            }
        }
        Item::ClientEvent(event) => emit_of_client(shared, &event),
        Item::ClientMissedOpen(listener) => {
            let faults = shared.emitter.emit_open_to(listener);
            report(shared, faults, None, &ClientEventKind::Open);
        }
        Item::Task(Task(task)) => {
            if catch_unwind(AssertUnwindSafe(task)).is_err() {
                log::error!("a task of the dispatch thread panicked; this is a bug of parse-livequery");
            }
        }
        Item::CloseDone(number) => shared.close_done(number),
    }
    if heard {
        shared.queue.finished();
    }
    IN_LISTENER_OF.set(outer);
}

fn give_out(shared: &Arc<Shared>, subscription: &SubscriptionCore, waiting: &Waiting) {
    let Waiting { event, filter, .. } = waiting;
    if !subscription.emitter.is_heard(event.kind()) {
        return;
    }
    if filter.as_ref().is_none_or(|spec| spec.may_bring(event)) {
        emit(shared, subscription, event);
        return;
    }
    subscription.inbox.lock().foreign += 1;
    log::warn!(
        "{subscription}: dropped `{}` of {}, which does not match the query; the server takes it for another one",
        event.kind(),
        event.id().unwrap_or("an object")
    );
}

fn emit(shared: &Arc<Shared>, subscription: &SubscriptionCore, event: &Event) {
    // Held so that `unsubscribe_and_wait` can tell when the listeners are done; nobody else takes it.
    let running = subscription.running.lock();
    let ended = shared.is_ended(subscription);
    // Of a subscription that was ended only that is told.
    if ended && event.kind() != EventKind::Close {
        return;
    }
    let started = Instant::now();
    if let (EventKind::Error, Some(error)) = (event.kind(), event.error()) {
        if subscription.emitter.count(EventKind::Error) + shared.emitter.count(ClientEventKind::Error) == 0 {
            log::warn!("{subscription}: {error}");
        }
        // The client's listeners hear of the errors of all subscriptions. That the whole connection has ended they
        // have heard already.
        if !matches!(error.kind(), ErrorKind::Refused | ErrorKind::GaveUp) {
            let faults = shared.emitter.emit(&ClientEvent::failed(error.clone()));
            report(shared, faults, None, &ClientEventKind::Error);
        }
    }
    let faults = subscription.emitter.emit(event);
    drop(running);
    let took = started.elapsed();
    if took >= SLOW {
        log::warn!(
            "the listeners for `{}` of {subscription} took {took:.1?}; all other events wait meanwhile",
            event.kind()
        );
    }
    report(shared, faults, Some(subscription), &event.kind());
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
    let faults = shared.emitter.emit(event);
    report(shared, faults, None, &event.kind());
}

/// Tells what went wrong in listeners: that one panicked to the client's listeners, that an object did not fit to
/// those of the subscription.
pub(crate) fn report(
    shared: &Arc<Shared>,
    faults: Vec<Fault>,
    subscription: Option<&SubscriptionCore>,
    what: &dyn Display,
) {
    for fault in faults {
        match (fault, subscription) {
            (Fault::Unfit(error), Some(subscription)) => emit(shared, subscription, &Event::failed(error)),
            (Fault::Unfit(error), None) => log::warn!("{error}"),
            (Fault::Panicked(text), _) => {
                let text = match subscription {
                    Some(subscription) => {
                        format!("a listener for `{what}` of {subscription} panicked: {text}")
                    }
                    None => format!("a listener for `{what}` of the client panicked: {text}"),
                };
                log::error!("{text}");
                let event = ClientEvent::failed(Error::new(ErrorKind::ListenerPanicked, text));
                // One that panics on being told is only logged.
                for fault in shared.emitter.emit(&event) {
                    log::error!("a listener for `error` of the client failed in turn: {fault:?}");
                }
            }
        }
    }
}

/// A listener that takes longer is worth a warning.
const SLOW: Duration = Duration::from_secs(1);
/// All subscriptions together may hold as many bytes as this many of them.
const SUBSCRIPTIONS_WORTH: usize = 16;
/// What the queue of all items may hold on to when it is empty.
const KEPT_ITEMS: usize = 1024;

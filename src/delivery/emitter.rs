//! The listeners of one subscriber. Must not know where events come from, or which thread calls.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::delivery::sync::{AtomicBool, AtomicU8, AtomicU32, Mutex};
use crate::error::{Error, Result};
use crate::fence;
use crate::fenced::Fenced;

/// Identifies a listener, for `off`. Ids are unique within a process.
///
/// # Examples
/// ```
/// # use parse_livequery::{Client, Query};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = parse_livequery::test_server::TestServer::start()?;
/// # let client = Client::builder(server.url(), "APP_ID").build()?;
/// # let subscription = client.subscribe(&Query::new("Game"))?;
/// # subscription.wait_open(Duration::from_secs(10))?;
/// let listener = subscription.on("create", |game| println!("{:?}", game.id()));
/// subscription.off(listener);
/// assert_eq!(subscription.listener_count("create"), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(u64);

impl ListenerId {
    /// The id of a listener that is not registered.
    pub(crate) fn unused() -> Self {
        Self(next_id())
    }
}

/// What listeners receive: the events of a subscription, of a client, or of a live set.
pub(crate) trait Emit: Clone + Send + Sync + 'static {
    type Kind: Copy + PartialEq + fmt::Debug + fmt::Display + Send + Sync;
    /// The present state, which a late listener is called with: that a subscription is open, for example.
    type Held: Clone + Default + Send;

    fn kind(&self) -> Self::Kind;
    /// One bit for each kind.
    fn bit(kind: Self::Kind) -> u8;
    /// Records the new state. Returns the event for the listeners; `None` if there is none, as for a `close`
    /// without an `open` before it.
    fn note(self, held: &mut Self::Held) -> Option<Self>;
    /// Whether [`note`](Self::note) has nothing to record and returns the event as it is.
    fn is_noted(&self) -> bool {
        false
    }
    /// What a listener for this kind (`None`: for all) that registers now has missed and that is still true.
    fn missed(kind: Option<Self::Kind>, held: &Self::Held) -> Option<Self>;
    /// The effect of the event on later ones.
    fn role(&self) -> Role;
    /// The event, as a replacement for an earlier one of the same role that was never delivered.
    fn after(self, earlier: &Self) -> Self;
    /// The event for an error.
    fn failed(error: Error) -> Self;
    /// The error, if this is an event for one.
    fn failure(&self) -> Option<&Error>;
    /// Adds to the number of errors that this event represents.
    fn add_failures(&mut self, number: u64);
}

/// The effect of an event on later ones, for a mailbox that has to save space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The subscriber works from now on.
    Opens,
    /// It no longer works.
    Closes,
    /// It is being retried.
    Retries,
    Fails,
    Tells,
    /// It replaces all events before it.
    Sums,
}

impl Role {
    pub(crate) fn is_state(self) -> bool {
        matches!(self, Self::Opens | Self::Closes | Self::Retries)
    }
}

/// How often a listener is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    Always,
}

/// The listeners, in the order in which they were registered.
///
/// The lock is held to change and to copy the list, never while a listener runs, and never while one is
/// dropped: the values that a closure owns may run code of the program as well.
///
/// Field order: what every event touches comes first and together, because ten thousand subscriptions do not
/// fit into the cache.
#[repr(C)]
pub(crate) struct Emitter<E: Emit> {
    /// The bits of the kinds that have listeners. Changed with `inner`, and read without its lock.
    heard: AtomicU8,
    /// Changes with the list, and with whether a listener is late. Changed with `inner`, and read without its lock.
    version: AtomicU32,
    inner: Mutex<Inner<E>>,
}

/// The listeners as they were when an event was last delivered to them, so that the next one needs no lock. What was
/// removed since is still owned here, and is not called.
pub(crate) struct Listeners<E: Emit> {
    /// `None`: the next event must look them up, since it never was done, or one of them may be late.
    version: Option<u32>,
    list: List<E>,
}

impl<E: Emit> Default for Listeners<E> {
    fn default() -> Self {
        Self {
            version: None,
            list: List::default(),
        }
    }
}

#[repr(C)]
struct Inner<E: Emit> {
    listeners: List<E>,
    /// Some listener may be late and not called yet.
    has_late: bool,
    /// No more events will come.
    is_closed: bool,
    held: E::Held,
}

/// Copied on change, so that an event is delivered to the list as it was, with no allocation per event. Most
/// subscriptions have one listener, which needs no list.
#[derive(Clone)]
enum List<E: Emit> {
    One(Arc<Listener<E>>),
    More(Arc<[Arc<Listener<E>>]>),
}

impl<E: Emit> List<E> {
    fn as_slice(&self) -> &[Arc<Listener<E>>] {
        match self {
            Self::One(listener) => std::slice::from_ref(listener),
            Self::More(listeners) => listeners,
        }
    }
}

impl<E: Emit> Default for List<E> {
    fn default() -> Self {
        Self::More(Arc::default())
    }
}

impl<E: Emit> FromIterator<Arc<Listener<E>>> for List<E> {
    fn from_iter<I: IntoIterator<Item = Arc<Listener<E>>>>(listeners: I) -> Self {
        let mut listeners = listeners.into_iter();
        match (listeners.next(), listeners.next()) {
            (Some(listener), None) => Self::One(listener),
            (first, second) => Self::More(first.into_iter().chain(second).chain(listeners).collect()),
        }
    }
}

struct Listener<E: Emit, C: ?Sized = dyn Call<E>> {
    id: ListenerId,
    /// `None`: all.
    kind: Option<E::Kind>,
    times: Times,
    /// Cleared by `off`, so that a listener is no longer called even if an event is being delivered.
    registered: AtomicBool,
    /// It registered too late for the present state, and was not called with it yet.
    late: AtomicBool,
    callback: Mutex<C>,
}

/// A closure of the program, or of this crate.
trait Call<E>: Send {
    fn call(&mut self, event: &E) -> Result<()>;
}

impl<E, F: FnMut(&E) -> Result<()> + Send> Call<E> for Fenced<F> {
    fn call(&mut self, event: &E) -> Result<()> {
        self.get_mut().map_or(Ok(()), |closure| closure(event))
    }
}

/// What went wrong in a listener.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It panicked, with this text.
    Panicked(String),
    /// The event did not have the type that the listener expects.
    Unfit(Error),
}

/// Whether a new listener registered too late for something that is still true. If so,
/// [`emit_missed`](Emitter::emit_missed) calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    Yes,
    No,
}

impl<E: Emit> Emitter<E> {
    pub(crate) fn new() -> Self {
        Self {
            heard: AtomicU8::new(0),
            version: AtomicU32::new(0),
            inner: Mutex::new(Inner {
                listeners: List::default(),
                has_late: false,
                is_closed: false,
                held: E::Held::default(),
            }),
        }
    }

    /// Whether an event of this kind has listeners.
    pub(crate) fn is_heard(&self, kind: E::Kind) -> bool {
        self.heard.load(Ordering::Acquire) & E::bit(kind) != 0
    }

    /// Reads or changes the present state.
    pub(crate) fn held<R>(&self, look: impl FnOnce(&mut E::Held) -> R) -> R {
        look(&mut self.inner.lock().held)
    }

    /// Registers a listener. If no more events will come, it is dropped with everything it owns, such as one
    /// end of a channel.
    pub(crate) fn on(
        &self,
        kind: Option<E::Kind>,
        times: Times,
        callback: impl FnMut(&E) -> Result<()> + Send + 'static,
    ) -> (ListenerId, Missed) {
        let id = ListenerId::unused();
        // If it is dropped, then without the lock.
        let callback = Fenced::new(callback);
        let mut inner = self.inner.lock();
        if inner.is_closed {
            drop(inner);
            return (id, Missed::No);
        }
        let late = E::missed(kind, &inner.held).is_some();
        let listener: Arc<Listener<E>> = Arc::new(Listener {
            id,
            kind,
            times,
            registered: AtomicBool::new(true),
            late: AtomicBool::new(late),
            callback: Mutex::new(callback),
        });
        let old = std::mem::take(&mut inner.listeners);
        inner.listeners = old.as_slice().iter().cloned().chain([listener]).collect();
        inner.has_late |= late;
        self.heard.fetch_or(bits::<E>(kind), Ordering::Release);
        self.changed();
        (id, if late { Missed::Yes } else { Missed::No })
    }

    /// Removes a listener. Returns `false` if it is not registered.
    pub(crate) fn off(&self, id: ListenerId) -> bool {
        self.remove(|listener| listener.id == id)
    }

    /// Removes the listeners of a kind, or all.
    pub(crate) fn remove_all(&self, kind: Option<E::Kind>) {
        self.remove(|listener| kind.is_none() || listener.kind == kind);
    }

    /// Removes all listeners, and accepts no more.
    pub(crate) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.remove_all(None);
    }

    /// The number of listeners for an event of this kind.
    pub(crate) fn count(&self, kind: E::Kind) -> usize {
        let listeners = self.inner.lock().listeners.clone();
        listeners
            .as_slice()
            .iter()
            .filter(|listener| listener.hears(kind))
            .count()
    }

    /// Calls the listeners of an event, one after another, each only if `may` permits its kind at that
    /// moment. Returns what went wrong in them; the others are called nevertheless, and all stay registered.
    ///
    /// A late listener is first called with what it missed. A listener for all events that may not be called
    /// with an `open` is not called with the matching `close` either.
    pub(crate) fn emit(
        &self,
        event: E,
        listeners: &mut Listeners<E>,
        may: &dyn Fn(E::Kind) -> bool,
    ) -> Vec<Fault> {
        let is_current = listeners.version == Some(self.version.load(Ordering::Acquire));
        let (event, missed) = if event.is_noted() && is_current {
            (event, None)
        } else {
            let mut inner = self.inner.lock();
            let missed = inner.has_late.then(|| inner.held.clone());
            let noted = event.note(&mut inner.held);
            let present = Listeners {
                version: (!inner.has_late).then(|| self.version.load(Ordering::Relaxed)),
                list: inner.listeners.clone(),
            };
            drop(inner);
            // Without the lock: it may own the last reference to a closure.
            *listeners = present;
            let Some(event) = noted else {
                return Vec::new();
            };
            (event, missed)
        };
        let (kind, role) = (event.kind(), event.role());
        let mut faults = Vec::new();
        for listener in listeners.list.as_slice() {
            if let Some(held) = &missed {
                self.catch_up(listener, held, may, &mut faults);
            }
            if !listener.hears(kind) {
                continue;
            }
            if role == Role::Closes && listener.late.swap(false, Ordering::AcqRel) {
                // The end came before the listener was called with the beginning.
                continue;
            }
            if may(kind) {
                self.call(listener, &event, &mut faults);
            } else if role == Role::Opens && listener.kind.is_none() {
                listener.late.store(true, Ordering::Release);
            }
        }
        faults
    }

    /// Calls a late listener with what it missed, if that is still true and the listener was not called with
    /// it since.
    pub(crate) fn emit_missed(&self, id: ListenerId, may: &dyn Fn(E::Kind) -> bool) -> Vec<Fault> {
        let (listeners, held) = {
            let inner = self.inner.lock();
            (inner.listeners.clone(), inner.held.clone())
        };
        let mut faults = Vec::new();
        if let Some(listener) = listeners.as_slice().iter().find(|listener| listener.id == id) {
            self.catch_up(listener, &held, may, &mut faults);
        }
        let mut inner = self.inner.lock();
        let has_late = |listener: &Arc<Listener<E>>| listener.late.load(Ordering::Acquire);
        inner.has_late = inner.listeners.as_slice().iter().any(has_late);
        self.changed();
        faults
    }

    fn catch_up(
        &self,
        listener: &Listener<E>,
        held: &E::Held,
        may: &dyn Fn(E::Kind) -> bool,
        faults: &mut Vec<Fault>,
    ) {
        if !listener.late.load(Ordering::Acquire) {
            return;
        }
        let missed = E::missed(listener.kind, held);
        let may = missed.as_ref().is_none_or(|missed| may(missed.kind()));
        // A listener that also receives the end still does not know of the beginning.
        listener
            .late
            .store(!may && listener.kind.is_none(), Ordering::Release);
        if let Some(missed) = missed.filter(|_| may) {
            self.call(listener, &missed, faults);
        }
    }

    fn call(&self, listener: &Listener<E>, event: &E, faults: &mut Vec<Fault>) {
        let called = match listener.times {
            Times::Always => listener.registered.load(Ordering::Acquire),
            Times::Once => listener.registered.swap(false, Ordering::AcqRel),
        };
        if !called {
            return;
        }
        // Nobody else takes this lock: the listeners of a subscriber run on one thread at a time.
        let result = {
            let mut callback = listener.callback.lock();
            fence::run(|| callback.call(event))
        };
        if listener.times == Times::Once {
            self.off(listener.id);
        }
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(Fault::Unfit(error)),
            Err(text) => faults.push(Fault::Panicked(text)),
        }
    }

    /// Called with the lock of `inner`.
    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn remove(&self, gone: impl Fn(&Listener<E>) -> bool) -> bool {
        // The old list outlives the lock, because it may hold the last reference to a closure.
        let (_old, found) = {
            let mut inner = self.inner.lock();
            let old = std::mem::take(&mut inner.listeners);
            let (out, kept): (Vec<_>, Vec<_>) = old
                .as_slice()
                .iter()
                .cloned()
                .partition(|listener| gone(listener));
            for listener in &out {
                listener.registered.store(false, Ordering::Release);
            }
            let heard = kept
                .iter()
                .fold(0, |heard, listener| heard | bits::<E>(listener.kind));
            self.heard.store(heard, Ordering::Release);
            inner.listeners = kept.into_iter().collect();
            self.changed();
            (old, !out.is_empty())
        };
        found
    }
}

impl<E: Emit> Listener<E> {
    fn hears(&self, kind: E::Kind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind) && self.registered.load(Ordering::Acquire)
    }
}

impl<E: Emit> fmt::Debug for Emitter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter")
            .field("listeners", &self.inner.lock().listeners.as_slice().len())
            .finish()
    }
}

/// The bits of the kinds that a listener receives.
fn bits<E: Emit>(kind: Option<E::Kind>) -> u8 {
    kind.map_or(u8::MAX, E::bit)
}

/// Not one of the model's types: the model resets statics from one schedule to the next.
fn next_id() -> u64 {
    use std::sync::atomic::AtomicU64;

    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

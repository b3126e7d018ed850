//! The listeners of one subscription or client. Knows nothing of where events come from, and which thread calls.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::event::{ClientEvent, ClientEventKind, Event, EventKind};

/// Names a listener, for `off`. Never used twice in a process.
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

/// What an emitter can emit.
pub(crate) trait Emit: 'static {
    type Kind: Copy + PartialEq + fmt::Debug + Send + Sync;
    fn kind(&self) -> Self::Kind;
    /// One bit for each kind.
    fn bit(kind: Self::Kind) -> u8;
    /// The event that says «it works now»: a state, which a listener that comes later is told as well.
    const OPEN: Self::Kind;
    const CLOSE: Self::Kind;
}

impl Emit for Event {
    type Kind = EventKind;
    fn kind(&self) -> EventKind {
        Self::kind(self)
    }
    fn bit(kind: EventKind) -> u8 {
        1 << kind as u8
    }
    const OPEN: EventKind = EventKind::Open;
    const CLOSE: EventKind = EventKind::Close;
}

impl Emit for ClientEvent {
    type Kind = ClientEventKind;
    fn kind(&self) -> ClientEventKind {
        Self::kind(self)
    }
    fn bit(kind: ClientEventKind) -> u8 {
        1 << kind as u8
    }
    const OPEN: ClientEventKind = ClientEventKind::Open;
    const CLOSE: ClientEventKind = ClientEventKind::Close;
}

/// How often a listener is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    Always,
}

/// The listeners, in the order in which they were registered.
///
/// The lock is held to change and to copy the list, never while a listener runs, and never while one is dropped:
/// what a closure owns may run code of the user, too.
///
/// In this order so that what each event needs lies together.
#[repr(C)]
pub(crate) struct Emitter<E: Emit> {
    /// The bits of the kinds that have listeners. Changed with `inner`, and read without its lock.
    heard: AtomicU8,
    inner: Mutex<Inner<E>>,
}

#[repr(C)]
struct Inner<E: Emit> {
    listeners: List<E>,
    /// The last `open` event, while it holds.
    open: Option<E>,
}

/// Copied when it is changed, so that an event is given to the list as it was, with no allocation per event. Most
/// subscriptions have one listener, and are to need no list for it.
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

struct Listener<E: Emit, F: ?Sized = Callback<E>> {
    id: ListenerId,
    /// `None`: all.
    kind: Option<E::Kind>,
    times: Times,
    /// Cleared by `off`, so that a listener is not called any more even if an event is being given out.
    registered: AtomicBool,
    callback: Mutex<F>,
}

type Callback<E> = dyn FnMut(&E) -> Result<()> + Send;

/// What went wrong in a listener.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It panicked, with this text.
    Panicked(String),
    /// The event was not what it expects.
    Unfit(Error),
}

impl<E: Emit + Clone> Emitter<E> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                listeners: List::default(),
                open: None,
            }),
            heard: AtomicU8::new(0),
        }
    }

    /// Whether an event of this kind has listeners.
    pub(crate) fn is_heard(&self, kind: E::Kind) -> bool {
        self.heard.load(Ordering::Acquire) & E::bit(kind) != 0
    }

    /// Registers a listener. If it hears `open`, and that event has been given out and still holds, the listener
    /// has missed it: then the caller has to see to it that [`emit_open_to`](Self::emit_open_to) is called.
    pub(crate) fn on(
        &self,
        kind: Option<E::Kind>,
        times: Times,
        callback: impl FnMut(&E) -> Result<()> + Send + 'static,
    ) -> (ListenerId, MissedOpen) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = ListenerId(NEXT.fetch_add(1, Ordering::Relaxed));
        let listener: Arc<Listener<E>> = Arc::new(Listener {
            id,
            kind,
            times,
            registered: AtomicBool::new(true),
            callback: Mutex::new(callback),
        });
        let mut inner = self.inner.lock();
        let old = std::mem::take(&mut inner.listeners);
        inner.listeners = old.as_slice().iter().cloned().chain([listener]).collect();
        self.heard.fetch_or(bits::<E>(kind), Ordering::Release);
        let missed = inner.open.is_some() && kind.is_none_or(|kind| kind == E::OPEN);
        (id, if missed { MissedOpen::Yes } else { MissedOpen::No })
    }

    /// Removes a listener. `false` if it is not there.
    pub(crate) fn off(&self, id: ListenerId) -> bool {
        self.remove(|listener| listener.id == id)
    }

    /// Removes the listeners of a kind, or all.
    pub(crate) fn remove_all(&self, kind: Option<E::Kind>) {
        self.remove(|listener| kind.is_none() || listener.kind == kind);
    }

    /// How many listeners an event of this kind has.
    pub(crate) fn count(&self, kind: E::Kind) -> usize {
        self.snapshot()
            .as_slice()
            .iter()
            .filter(|listener| listener.hears(kind))
            .count()
    }

    /// Calls the listeners of the event, one after another. Returns what went wrong in them; the others were called
    /// all the same, and all stay registered.
    ///
    /// `open` and `close` alternate: a `close` without an `open` before it is not given out.
    pub(crate) fn emit(&self, event: &E) -> Vec<Fault> {
        let kind = event.kind();
        if kind != E::OPEN && kind != E::CLOSE && !self.is_heard(kind) {
            return Vec::new();
        }
        let listeners = {
            let mut inner = self.inner.lock();
            if kind == E::OPEN {
                inner.open = Some(event.clone());
            } else if kind == E::CLOSE && inner.open.take().is_none() {
                return Vec::new();
            }
            inner.listeners.clone()
        };
        let mut faults = Vec::new();
        for listener in listeners
            .as_slice()
            .iter()
            .filter(|listener| listener.hears(kind))
        {
            self.call(listener, event, &mut faults);
        }
        faults
    }

    /// Calls one listener with the `open` that it was too late for, if that still holds.
    pub(crate) fn emit_open_to(&self, id: ListenerId) -> Vec<Fault> {
        let open = self.inner.lock().open.clone();
        open.map_or_else(Vec::new, |event| self.emit_to(id, &event))
    }

    /// Calls one listener, if it is still there.
    pub(crate) fn emit_to(&self, id: ListenerId, event: &E) -> Vec<Fault> {
        let listeners = self.snapshot();
        let mut faults = Vec::new();
        if let Some(listener) = listeners.as_slice().iter().find(|l| l.id == id) {
            self.call(listener, event, &mut faults);
        }
        faults
    }

    fn call(&self, listener: &Listener<E>, event: &E, faults: &mut Vec<Fault>) {
        let called = match listener.times {
            Times::Always => listener.registered.load(Ordering::Acquire),
            Times::Once => listener.registered.swap(false, Ordering::AcqRel),
        };
        if !called {
            return;
        }
        // Nobody else takes this lock while the listener runs: events are given out by one thread at a time.
        let result = {
            let mut callback = listener.callback.lock();
            catch_unwind(AssertUnwindSafe(|| callback(event)))
        };
        if listener.times == Times::Once {
            self.off(listener.id);
        }
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(Fault::Unfit(error)),
            Err(payload) => faults.push(Fault::Panicked(panic_text(payload.as_ref()))),
        }
    }

    fn remove(&self, gone: impl Fn(&Listener<E>) -> bool) -> bool {
        // The old list outlives the lock: it may hold the last reference to a closure.
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
            (old, !out.is_empty())
        };
        found
    }

    fn snapshot(&self) -> List<E> {
        self.inner.lock().listeners.clone()
    }
}

impl<E: Emit> Listener<E> {
    fn hears(&self, kind: E::Kind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind) && self.registered.load(Ordering::Acquire)
    }
}

impl<E: Emit> fmt::Debug for Emitter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Emitter")
            .field("listeners", &inner.listeners.as_slice().len())
            .field("open", &inner.open.is_some())
            .finish()
    }
}

/// The bits of the kinds that a listener hears.
fn bits<E: Emit>(kind: Option<E::Kind>) -> u8 {
    kind.map_or(u8::MAX, E::bit)
}

/// Whether a new listener came too late for an `open` that still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissedOpen {
    Yes,
    No,
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}

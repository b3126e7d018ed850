//! What the handles of a client and its threads share.
//!
//! Must not know of sockets and of what is sent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::delivery::emitter::{Emit, Emitter, ListenerId, Role};
use crate::delivery::inside::in_listener_of;
use crate::delivery::mailbox::{Limits, Mailbox, Totals};
use crate::delivery::queue::Queue;
use crate::delivery::status::{Receipt, Status, Telling};
use crate::delivery::subscriber::Subscriber;
use crate::delivery::sync::{AtomicU64, Mutex, now};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEvent, ClientEventKind};
use crate::logging::warn;
use crate::query::version::Age;
use crate::secret::Secret;
use crate::state::ClientState;
use crate::stats::{ClientStats, Counters};
use crate::types::Date;

/// One client.
pub(crate) struct Shared {
    pub(crate) subscriber: Subscriber<ClientEvent>,
    pub(crate) queue: Queue<dyn Turn>,
    pub(crate) status: Arc<Status>,
    pub(crate) counters: Counters,
    /// The client's present session token.
    session_token: Mutex<Option<Secret>>,
    /// The server's version, as last reported.
    pub(crate) server_age: Mutex<Option<Age>>,
    /// The next request id. Never reused, so that an old handle cannot refer to a new subscription.
    next_id: AtomicU64,
    /// Subscriptions with a smaller id were ended by `close`.
    pub(super) closed_below: AtomicU64,
    /// Calls that the I/O makes at given times.
    calls: Mutex<Vec<(Instant, Call)>>,
    /// Wakes the thread that does the I/O.
    wake: Box<dyn Fn() + Send + Sync>,
}

type Call = Box<dyn FnOnce() + Send>;

impl Shared {
    pub(crate) fn new(
        queue: Queue<dyn Turn>,
        session_token: Option<Secret>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            subscriber: Subscriber::new(Emitter::new()),
            queue,
            status: Status::new(),
            counters: Counters::default(),
            session_token: Mutex::new(session_token),
            server_age: Mutex::new(None),
            next_id: AtomicU64::new(1),
            closed_below: AtomicU64::new(0),
            calls: Mutex::new(Vec::new()),
            wake: Box::new(wake),
        }
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// Whether this is the process that the client was built in. Must be asked before any lock is taken.
    pub(crate) fn is_home(&self) -> bool {
        self.status.home.is_here()
    }

    /// # Errors
    /// [`ErrorKind::Forked`] in a process other than the one that the client was built in.
    pub(crate) fn check_home(&self) -> Result<()> {
        self.status.home.check()
    }

    /// Has the thread that does the I/O make this call at this time. The call must not block.
    pub(crate) fn call_at(&self, at: Instant, call: impl FnOnce() + Send + 'static) {
        self.calls.lock().push((at, Box::new(call)));
        self.wake();
    }

    /// When the next call is due.
    pub(crate) fn next_call(&self) -> Option<Instant> {
        self.calls.lock().iter().map(|(at, _)| *at).min()
    }

    /// Makes the calls that are due.
    pub(crate) fn make_calls(&self, now: Instant) {
        let mut calls = self.calls.lock();
        if calls.iter().all(|(at, _)| *at > now) {
            return;
        }
        let (due, later) = std::mem::take(&mut *calls)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        *calls = later;
        drop(calls);
        for (_, call) in due {
            call();
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts something into a mailbox, and its owner into the list of subscribers that have letters.
    pub(crate) fn post<A: Addressee, R>(
        &self,
        to: &Arc<A>,
        put: impl FnOnce(&mut Mailbox<A::Event>, &Limits, &Totals) -> R,
    ) -> R {
        let (result, is_ready) = self.put(to, put);
        if is_ready {
            self.list(to);
        }
        result
    }

    /// Puts something into a mailbox while the caller holds a lock. Returns whether the owner must also be
    /// [listed](Self::list) once the lock is free, because listing calls the wake function of the program.
    pub(crate) fn put<A: Addressee, R>(
        &self,
        to: &Arc<A>,
        put: impl FnOnce(&mut Mailbox<A::Event>, &Limits, &Totals) -> R,
    ) -> (R, bool) {
        let mut mailbox = to.subscriber().mailbox.lock();
        let result = put(&mut mailbox, &self.queue.limits, &self.queue.totals);
        let is_ready = !mailbox.is_empty() && !std::mem::replace(&mut mailbox.is_listed, true);
        (result, is_ready)
    }

    /// Adds a subscriber that has letters to the list.
    pub(crate) fn list<A: Addressee>(&self, to: &Arc<A>) {
        self.queue.list(Arc::clone(to) as Arc<dyn Turn>);
    }

    /// Like [`post`](Self::post), from a thread that does not do the I/O: the delivering thread may be asleep
    /// in the I/O.
    pub(crate) fn post_and_wake<A: Addressee, R>(
        self: &Arc<Self>,
        to: &Arc<A>,
        put: impl FnOnce(&mut Mailbox<A::Event>, &Limits, &Totals) -> R,
    ) -> R {
        let result = self.post(to, put);
        if !in_listener_of(self) {
            self.wake_delivery();
        }
        result
    }

    /// Wakes the delivering thread if it belongs to the client: it may be asleep in the I/O.
    pub(crate) fn wake_delivery(&self) {
        if !self.queue.is_manual() {
            self.wake();
        }
    }

    /// A listener was registered too late for the present state.
    pub(crate) fn late<A: Addressee>(self: &Arc<Self>, to: &Arc<A>, listener: ListenerId) {
        self.post_and_wake(to, |mailbox, _, totals| mailbox.late(listener, totals));
    }

    /// Posts an event for the listeners of the client.
    pub(crate) fn tell(self: &Arc<Self>, event: ClientEvent, receipt: Option<Arc<Receipt>>) {
        self.post(self, |mailbox, limits, totals| {
            mailbox.tell(event, receipt, limits, totals);
        });
    }

    /// Posts an error for the listeners of the client.
    pub(crate) fn fail(self: &Arc<Self>, error: Error, receipt: Option<Arc<Receipt>>) {
        self.tell(ClientEvent::failed(error), receipt);
    }

    /// A receipt for something that is about to be delivered. If the program itself calls the listeners,
    /// nothing waits for delivery: the waiting thread may be the one that has to call them.
    pub(crate) fn receipt<T: Telling + 'static>(&self, of: &Arc<T>) -> Option<Arc<Receipt>> {
        (!self.queue.is_manual()).then(|| self.status.receipt(of))
    }

    /// A receipt for a state of the client.
    pub(crate) fn receipt_of_state(&self) -> Option<Arc<Receipt>> {
        (!self.queue.is_manual()).then(|| self.status.telling())
    }

    /// A receipt for a state of the client that listeners are called with.
    pub(crate) fn receipt_if_heard(&self, kind: ClientEventKind) -> Option<Arc<Receipt>> {
        self.receipt_of_state()
            .filter(|_| self.subscriber.emitter.is_heard(kind))
    }

    /// The threads have panicked.
    pub(crate) fn die(self: &Arc<Self>, error: Error) {
        self.fail(error.clone(), None);
        self.status.die(error);
    }

    /// Ends all present subscriptions, and returns the first id that is not ended.
    pub(crate) fn end_all(&self) -> u64 {
        let below = self.next_id.load(Ordering::Relaxed);
        self.closed_below.fetch_max(below, Ordering::AcqRel);
        self.status.changed();
        below
    }

    #[cfg(feature = "rest")]
    pub(crate) fn session_token(&self) -> Option<Secret> {
        self.session_token.lock().clone()
    }

    /// The provider has returned the client's session token.
    pub(crate) fn set_session_token(&self, token: Option<Secret>) {
        *self.session_token.lock() = token;
    }

    /// Changes the session token of the client. Returns the number of its generation.
    pub(crate) fn change_session_token(&self, token: Option<Secret>) -> u64 {
        self.set_session_token(token);
        self.subscriber.next_generation()
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let counters = &self.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let totals = &self.queue.totals;
        let is_home = self.is_home();
        ClientStats {
            state: self.status.state(),
            connections: get(&counters.connections),
            failures: get(&counters.failures),
            subscriptions: counters.subscriptions.load(Ordering::Relaxed),
            messages_in: get(&counters.messages_in),
            bytes_in: get(&counters.bytes_in),
            messages_out: get(&counters.messages_out),
            bytes_out: get(&counters.bytes_out),
            malformed: get(&counters.malformed),
            last_received: is_home
                .then(|| *counters.last_received.lock())
                .flatten()
                .map(Date::from),
            round_trip: is_home.then(|| *counters.round_trip.lock()).flatten(),
            queued: totals.objects.load(Ordering::Relaxed),
            queued_bytes: totals.bytes.load(Ordering::Relaxed),
            waiting: totals.letters.load(Ordering::Relaxed),
            dropped: get(&counters.dropped),
        }
    }

    /// Waits until the client is connected.
    pub(crate) fn wait_connected(&self, deadline: Instant) -> Result<()> {
        self.status
            .wait(Some(deadline), |look| match look.state() {
                ClientState::Connected if look.is_told() => Some(Ok(())),
                ClientState::Closed if look.is_closed() => {
                    Some(Err(Error::new(ErrorKind::Closed, "the client was closed")))
                }
                _ => look.refusal().map(Err),
            })
            .unwrap_or_else(|unanswered| {
                let state = self.status.state();
                let is_open = state == ClientState::Connected;
                Err(unanswered.into_error(not_open_in_time("client", is_open, state)))
            })
    }

    /// Waits until the client is closed or permanently refused.
    pub(crate) fn wait_closed(&self) -> Result<()> {
        self.status
            .wait(None, |look| {
                if look.is_closed() {
                    return Some(Ok(()));
                }
                look.refusal().map(Err)
            })
            .unwrap_or_else(|unanswered| Err(unanswered.into_error("the client was not closed".to_owned())))
    }
}

/// A subscriber in the list of those that have letters.
pub(crate) trait Turn: Send + Sync {
    /// Delivers some letters. Returns `true` if there are more; the subscriber then goes to the back of the
    /// list.
    fn take(self: Arc<Self>, shared: &Arc<Shared>, budget: &mut Budget) -> bool;
}

/// The recipient of events: a subscription, a client or a live set.
pub(crate) trait Addressee: Send + Sync + Sized + 'static {
    type Event: Emit;

    fn subscriber(&self) -> &Subscriber<Self::Event>;

    /// Whether a listener for this kind of event may be called now. An object has the generation of the token
    /// that it came under.
    fn may_hear(&self, shared: &Shared, kind: EventKindOf<Self>, generation: Option<u64>) -> bool;

    /// Called just before the listeners. Returns the events to call them with.
    fn prepare(&self, shared: &Arc<Shared>, event: Self::Event, generation: Option<u64>) -> Self::Event;

    /// The generation of the session token that an event without an object came under, if that matters.
    fn generation_of(&self, _: &Self::Event) -> Option<u64> {
        None
    }

    /// Whether faults in listeners are reported to this one.
    fn is_last_resort(&self) -> bool {
        false
    }

    /// An object was passed over, because it came under an earlier session token.
    fn skipped(&self) {}

    /// Called after the listeners. Others that are notified of the same thing get the same receipt.
    fn pass_on(&self, shared: &Arc<Shared>, error: Option<Error>, receipt: Option<Arc<Receipt>>);

    /// Its name in the log, with an article.
    fn name(&self) -> String;
}

pub(super) type EventKindOf<A> = <<A as Addressee>::Event as Emit>::Kind;

/// How much may be delivered.
pub(crate) struct Budget {
    pub(crate) letters: usize,
    pub(crate) until: Option<Instant>,
    pub(crate) delivered: usize,
}

impl Budget {
    pub(crate) fn unlimited() -> Self {
        Self {
            letters: usize::MAX,
            until: None,
            delivered: 0,
        }
    }

    /// Asked between turns only, so that what a subscriber gets at once stays together.
    pub(super) fn is_spent(&self) -> bool {
        self.letters == 0 || self.until.is_some() && self.is_late(now())
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Addressee for Shared {
    type Event = ClientEvent;

    fn subscriber(&self) -> &Subscriber<ClientEvent> {
        &self.subscriber
    }

    fn may_hear(&self, _: &Shared, _: ClientEventKind, _: Option<u64>) -> bool {
        true
    }

    fn prepare(&self, _: &Arc<Shared>, event: ClientEvent, _: Option<u64>) -> ClientEvent {
        event
    }

    fn is_last_resort(&self) -> bool {
        true
    }

    fn pass_on(&self, _: &Arc<Shared>, error: Option<Error>, _: Option<Arc<Receipt>>) {
        if let Some(error) = error.filter(|_| !self.subscriber.emitter.is_heard(ClientEventKind::Error)) {
            warn!("{error}");
        }
    }

    fn name(&self) -> String {
        "the client".to_owned()
    }
}

impl Emit for ClientEvent {
    type Kind = ClientEventKind;
    /// The last `open`, as long as it is valid.
    type Held = Option<Self>;

    fn kind(&self) -> ClientEventKind {
        Self::kind(self)
    }

    fn bit(kind: ClientEventKind) -> u8 {
        1 << kind as u8
    }

    fn note(self, held: &mut Option<Self>) -> Option<Self> {
        match Self::kind(&self) {
            ClientEventKind::Open => *held = Some(self.clone()),
            ClientEventKind::Close => {
                held.take()?;
            }
            ClientEventKind::Error | ClientEventKind::Reconnecting | ClientEventKind::SessionEnded => {}
        }
        Some(self)
    }

    fn missed(kind: Option<ClientEventKind>, held: &Option<Self>) -> Option<Self> {
        held.clone()
            .filter(|_| kind.is_none_or(|kind| kind == ClientEventKind::Open))
    }

    fn role(&self) -> Role {
        match Self::kind(self) {
            ClientEventKind::Open => Role::Opens,
            ClientEventKind::Close => Role::Closes,
            ClientEventKind::Reconnecting => Role::Retries,
            ClientEventKind::Error => Role::Fails,
            ClientEventKind::SessionEnded => Role::Tells,
        }
    }

    fn after(self, _: &Self) -> Self {
        self
    }

    fn failed(error: Error) -> Self {
        Self::failed(error)
    }

    fn failure(&self) -> Option<&Error> {
        self.error()
            .filter(|_| Self::kind(self) == ClientEventKind::Error)
    }

    fn add_failures(&mut self, number: u64) {
        self.add_errors(number);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("state", &self.status.state())
            .field("listeners", &self.subscriber.emitter)
            .finish_non_exhaustive()
    }
}

pub(super) fn not_open_in_time(what: &str, is_open: bool, client: ClientState) -> String {
    if is_open {
        format!("the {what} is open, but its listeners for `open` have not returned yet")
    } else if client == ClientState::Paused {
        format!("the {what} is not open, because the client is paused; `resume` ends the pause")
    } else {
        format!("the {what} is not open yet and keeps trying")
    }
}

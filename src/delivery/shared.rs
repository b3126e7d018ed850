//! What the handles of a client and its threads have in common.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use mio::Waker;
use parking_lot::{Condvar, Mutex};

use crate::delivery::dispatch::{Inbox, Item, Queue};
use crate::delivery::emitter::Emitter;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEvent, Event, EventKind};
use crate::secret::Secret;
use crate::state::{ClientState, SubscriptionState};
use crate::stats::{ClientStats, Counters, SubscriptionStats};

/// One client.
pub(crate) struct Shared {
    pub(crate) emitter: Emitter<ClientEvent>,
    pub(crate) queue: Queue,
    pub(crate) counters: Counters,
    /// Counts the session tokens that the client has had: objects that came under an earlier one are not given out.
    identity: AtomicU64,
    /// The session token that the client has now.
    session_token: Mutex<Option<Secret>>,
    /// The next request id. Never set back, so that an old handle can never mean a new subscription.
    next_id: AtomicU64,
    /// Subscriptions with a smaller id were ended by `close`.
    closed_below: AtomicU64,
    status: Mutex<Status>,
    changed: Condvar,
    /// Wakes whoever does the I/O.
    waker: Waker,
}

pub(crate) struct Status {
    state: ClientState,
    /// What the last attempt to connect failed of, until one succeeds.
    error: Option<Error>,
    /// How often `close` was called, and how many of these calls are carried out, listeners included.
    closes: (u64, u64),
    /// Orders to connect that the I/O thread has not looked at: until it has, the state is of the past.
    orders: u64,
}

impl Shared {
    pub(crate) fn new(queue: Queue, session_token: Option<Secret>, waker: Waker) -> Self {
        Self {
            emitter: Emitter::new(),
            queue,
            counters: Counters::default(),
            identity: AtomicU64::new(0),
            session_token: Mutex::new(session_token),
            next_id: AtomicU64::new(1),
            closed_below: AtomicU64::new(0),
            status: Mutex::new(Status {
                state: ClientState::Initialized,
                error: None,
                closes: (0, 0),
                orders: 0,
            }),
            changed: Condvar::new(),
            waker,
        }
    }

    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the threads of the client cannot be woken: {error}");
        }
    }

    /// Has something done where listeners run.
    pub(crate) fn dispatch_later(&self, item: Item) {
        self.queue.push(&mut vec![item]);
        self.wake();
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> ClientState {
        self.status.lock().state
    }

    /// An order to connect is on its way to the I/O thread.
    pub(crate) fn ordered(&self) {
        self.status.lock().orders += 1;
    }

    /// The I/O thread has looked at an order to connect, and made known what came of it.
    pub(crate) fn order_seen(&self) {
        self.status.lock().orders -= 1;
        self.changed.notify_all();
    }

    /// The I/O thread is gone: nobody will look at any order.
    pub(crate) fn give_up(&self, error: Error) {
        self.status.lock().orders = 0;
        self.set_state(ClientState::Disconnected, Some(error));
    }

    pub(crate) fn set_state(&self, state: ClientState, error: Option<Error>) {
        let mut status = self.status.lock();
        status.state = state;
        status.error = error;
        self.changed.notify_all();
    }

    /// Ends all subscriptions that there are, and returns the first id that stays.
    pub(crate) fn end_all(&self) -> u64 {
        let below = self.next_id.load(Ordering::Relaxed);
        self.closed_below.fetch_max(below, Ordering::AcqRel);
        self.changed_somewhere();
        below
    }

    /// Under which session tokens objects have to come for the listeners of a subscription to get them.
    pub(crate) fn identity(&self, subscription: &SubscriptionCore) -> (u64, u64) {
        (
            self.identity.load(Ordering::Acquire),
            subscription.identity.load(Ordering::Acquire),
        )
    }

    #[cfg(feature = "rest")]
    pub(crate) fn session_token(&self) -> Option<Secret> {
        self.session_token.lock().clone()
    }

    /// The provider has given the client its session token.
    pub(crate) fn set_session_token(&self, token: Option<Secret>) {
        *self.session_token.lock() = token;
    }

    /// The client gets another session token. Returns the number of the new identity.
    pub(crate) fn change_identity(&self, token: Option<Secret>) -> u64 {
        self.set_session_token(token);
        self.identity.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether the subscription was ended, by itself or with all others.
    pub(crate) fn is_ended(&self, subscription: &SubscriptionCore) -> bool {
        subscription.ended.load(Ordering::Acquire)
            || subscription.id < self.closed_below.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self, subscription: &SubscriptionCore) {
        subscription.ended.store(true, Ordering::Release);
        self.changed_somewhere();
    }

    pub(crate) fn subscription_state(&self, subscription: &SubscriptionCore) -> SubscriptionState {
        if self.is_ended(subscription) {
            return SubscriptionState::Closed;
        }
        subscription.progress.lock().state
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let counters = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (queued, queued_bytes) = self.queue.depth();
        ClientStats {
            state: self.state(),
            connections: get(&counters.connections),
            failures: get(&counters.failures),
            subscriptions: counters.subscriptions.load(Ordering::Relaxed),
            messages_in: get(&counters.messages_in),
            bytes_in: get(&counters.bytes_in),
            messages_out: get(&counters.messages_out),
            bytes_out: get(&counters.bytes_out),
            malformed: get(&counters.malformed),
            last_received: *counters.last_received.lock(),
            round_trip: *counters.round_trip.lock(),
            queued,
            queued_bytes,
            dropped: get(&counters.dropped),
        }
    }

    pub(crate) fn subscription_stats(&self, subscription: &SubscriptionCore) -> SubscriptionStats {
        let state = self.subscription_state(subscription);
        let acknowledged = subscription.progress.lock().acknowledged;
        let inbox = subscription.inbox.lock();
        SubscriptionStats {
            state,
            acknowledged,
            events: inbox.events,
            last_event: inbox.last_event,
            queued: inbox.len(),
            queued_bytes: inbox.bytes(),
            dropped: inbox.dropped_in_all,
            foreign: inbox.foreign,
        }
    }

    /// What the last attempt to connect failed of, until one succeeds.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.status.lock().error.clone()
    }

    /// The session reported an event of a subscription: its state follows from it.
    pub(crate) fn progressed(&self, subscription: &SubscriptionCore, event: &Event) {
        let (state, error) = match event.kind() {
            EventKind::Open => (SubscriptionState::Open, None),
            EventKind::Close => (SubscriptionState::Pending, None),
            EventKind::Error => match event.error().filter(|error| error.is_fatal()) {
                Some(error) => (SubscriptionState::Failed, Some(error.clone())),
                None => return,
            },
            _ => return,
        };
        {
            let mut progress = subscription.progress.lock();
            // A subscription that was refused is closed by that, and still refused.
            if event.kind() != EventKind::Close || progress.state != SubscriptionState::Failed {
                progress.state = state;
                progress.error = error;
            }
            progress.acknowledged += u64::from(event.kind() == EventKind::Open);
        }
        self.changed_somewhere();
    }

    /// What the server refused the subscription for, if it did.
    pub(crate) fn refusal_of(&self, subscription: &SubscriptionCore) -> Option<Error> {
        let progress = subscription.progress.lock();
        let error = progress.error.clone();
        error.filter(|_| progress.state == SubscriptionState::Failed)
    }

    /// Another query was asked for: what the last one failed of is over.
    pub(crate) fn asked_again(&self, subscription: &SubscriptionCore) {
        let mut progress = subscription.progress.lock();
        if progress.state == SubscriptionState::Failed {
            progress.state = SubscriptionState::Pending;
            progress.error = None;
        }
    }

    pub(crate) fn wait_open(&self, subscription: &SubscriptionCore, deadline: Instant) -> Result<()> {
        self.wait_until(deadline, |status| {
            if self.is_ended(subscription) {
                return Some(Err(Error::new(ErrorKind::Closed, "the subscription was ended")));
            }
            let progress = subscription.progress.lock();
            match (progress.state, &progress.error) {
                (SubscriptionState::Open, _) => Some(Ok(())),
                (SubscriptionState::Failed, Some(error)) => Some(Err(error.clone())),
                _ => status.refusal().map(Err),
            }
        })
        .unwrap_or_else(|last| Err(not_open_in_time("subscription", last)))
    }

    pub(crate) fn wait_connected(&self, deadline: Instant) -> Result<()> {
        self.wait_until(deadline, |status| match status.state {
            ClientState::Connected => Some(Ok(())),
            ClientState::Closed if status.orders == 0 => {
                Some(Err(Error::new(ErrorKind::Closed, "the client was closed")))
            }
            _ => status.refusal().map(Err),
        })
        .unwrap_or_else(|last| Err(not_open_in_time("client", last)))
    }

    /// Announces a `close`; returns its number.
    pub(crate) fn announce_close(&self) -> u64 {
        let mut status = self.status.lock();
        status.state = ClientState::Closed;
        status.closes.0 += 1;
        self.changed.notify_all();
        status.closes.0
    }

    /// A `close` was carried out, and its listeners were called.
    pub(crate) fn close_done(&self, number: u64) {
        let mut status = self.status.lock();
        status.closes.1 = status.closes.1.max(number);
        self.changed.notify_all();
    }

    /// Waits for a `close` to be carried out. `false` if it was not by the deadline.
    pub(crate) fn wait_close_done(&self, number: u64, deadline: Instant) -> bool {
        self.wait_until(deadline, |status| (status.closes.1 >= number).then_some(()))
            .is_ok()
    }

    /// Waits until the client is closed or refused for good.
    pub(crate) fn wait_closed(&self) -> Result<()> {
        let mut status = self.status.lock();
        loop {
            match status.state {
                ClientState::Closed if status.closes.1 >= status.closes.0 => return Ok(()),
                _ => {
                    if let Some(error) = status.refusal() {
                        return Err(error);
                    }
                }
            }
            self.changed.wait(&mut status);
        }
    }

    /// Waits for an answer, and gives up with the last error of the connection at the deadline.
    pub(crate) fn wait_until<R>(
        &self,
        deadline: Instant,
        mut answer: impl FnMut(&Status) -> Option<R>,
    ) -> Result<R, Option<Error>> {
        let mut status = self.status.lock();
        loop {
            if let Some(answer) = answer(&status) {
                return Ok(answer);
            }
            if self.changed.wait_until(&mut status, deadline).timed_out() {
                return answer(&status).ok_or_else(|| status.error.clone());
            }
        }
    }

    /// Wakes those who wait. Under the lock, so that nobody looks before the change and sleeps after the call.
    pub(crate) fn changed_somewhere(&self) {
        let _status = self.status.lock();
        self.changed.notify_all();
    }
}

impl Status {
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.error
            .clone()
            .filter(|_| self.state == ClientState::Disconnected && self.orders == 0)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("state", &self.state())
            .field("emitter", &self.emitter)
            .finish()
    }
}

/// One subscription.
///
/// In this order so that what each event needs lies together: with thousands of subscriptions it is in no cache.
#[repr(C)]
pub(crate) struct SubscriptionCore {
    pub(crate) id: u64,
    /// Counts the session tokens that the subscription has had.
    identity: AtomicU64,
    ended: AtomicBool,
    /// Locked while listeners run.
    pub(crate) running: Mutex<()>,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) emitter: Emitter<Event>,
    progress: Mutex<Progress>,
    pub(crate) class_name: Box<str>,
}

struct Progress {
    state: SubscriptionState,
    /// What the server refused it for.
    error: Option<Error>,
    /// How often the server acknowledged it.
    acknowledged: u64,
}

impl SubscriptionCore {
    pub(crate) fn new(id: u64, class_name: &str, emitter: Emitter<Event>) -> Self {
        Self {
            id,
            class_name: class_name.into(),
            emitter,
            inbox: Mutex::new(Inbox::default()),
            running: Mutex::new(()),
            identity: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                state: SubscriptionState::Pending,
                error: None,
                acknowledged: 0,
            }),
        }
    }

    /// The number of the present identity, for what is sent to the server.
    pub(crate) fn identity(&self) -> u64 {
        self.identity.load(Ordering::Acquire)
    }

    /// The subscription gets another session token. Returns the number of the new identity.
    pub(crate) fn change_identity(&self) -> u64 {
        self.identity.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl fmt::Display for SubscriptionCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription {} to {}", self.id, self.class_name)
    }
}

impl fmt::Debug for SubscriptionCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionCore")
            .field("id", &self.id)
            .field("class_name", &self.class_name)
            .field("state", &self.progress.lock().state)
            .field("emitter", &self.emitter)
            .finish()
    }
}

fn not_open_in_time(what: &str, last: Option<Error>) -> Error {
    let text = format!("the {what} is not open yet, and goes on trying");
    match last {
        Some(error) => Error::with_source(ErrorKind::Timeout, text, error),
        None => Error::new(ErrorKind::Timeout, text),
    }
}

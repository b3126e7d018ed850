//! What the handles of a client and its threads have in common.
//!
//! Knows nothing of sockets and of what is sent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::delivery::deliver::{Addressee, Turn, in_listener_of};
use crate::delivery::emitter::{Emit, Emitter, ListenerId};
use crate::delivery::mailbox::{Limits, Mailbox, Parcel, Role, Totals};
use crate::delivery::queue::Queue;
use crate::delivery::status::{Receipt, Status, Telling, Unanswered};
use crate::delivery::subscriber::Subscriber;
use crate::delivery::subscription::SubscriptionCore;
use crate::delivery::sync::{AtomicU64, Mutex, lock_until};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEvent, ClientEventKind, Event, EventKind};
use crate::logging::warn;
use crate::secret::Secret;
use crate::state::{ClientState, SubscriptionState};
use crate::stats::{ClientStats, Counters, SubscriptionStats};

/// One client.
pub(crate) struct Shared {
    pub(crate) subscriber: Subscriber<ClientEvent>,
    pub(crate) queue: Queue,
    pub(crate) status: Arc<Status>,
    pub(crate) counters: Counters,
    /// The session token that the client has now.
    session_token: Mutex<Option<Secret>>,
    /// The next request id. Never set back, so that an old handle can never mean a new subscription.
    next_id: AtomicU64,
    /// Subscriptions with a smaller id were ended by `close`.
    closed_below: AtomicU64,
    /// Has whoever does the I/O look again.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    pub(crate) fn new(
        queue: Queue,
        session_token: Option<Secret>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            subscriber: Subscriber::new(Emitter::new()),
            queue,
            status: Status::new(),
            counters: Counters::default(),
            session_token: Mutex::new(session_token),
            next_id: AtomicU64::new(1),
            closed_below: AtomicU64::new(0),
            wake: Box::new(wake),
        }
    }

    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts something into a mailbox, and its owner into the list of those that have letters.
    pub(crate) fn post<A: Addressee, R>(
        &self,
        to: &Arc<A>,
        put: impl FnOnce(&mut Mailbox<A::Event>, &Limits, &Totals) -> R,
    ) -> R {
        let mut mailbox = to.subscriber().mailbox.lock();
        let result = put(&mut mailbox, &self.queue.limits, &self.queue.totals);
        let is_ready = !mailbox.is_empty() && !std::mem::replace(&mut mailbox.is_listed, true);
        drop(mailbox);
        if is_ready {
            self.queue.list(Arc::clone(to) as Arc<dyn Turn>);
        }
        result
    }

    /// As [`post`](Self::post), from a thread that does not do the I/O: whoever delivers may be asleep in there.
    pub(crate) fn post_and_wake<A: Addressee, R>(
        self: &Arc<Self>,
        to: &Arc<A>,
        put: impl FnOnce(&mut Mailbox<A::Event>, &Limits, &Totals) -> R,
    ) -> R {
        let result = self.post(to, put);
        if !self.queue.is_manual() && !in_listener_of(self) {
            self.wake();
        }
        result
    }

    /// A listener was registered too late for something that holds.
    pub(crate) fn late<A: Addressee>(self: &Arc<Self>, to: &Arc<A>, listener: ListenerId) {
        self.post_and_wake(to, |mailbox, _, totals| mailbox.late(listener, totals));
    }

    /// Tells something to the listeners of the client.
    pub(crate) fn tell(self: &Arc<Self>, event: ClientEvent, receipt: Option<Arc<Receipt>>) {
        self.post(self, |mailbox, limits, totals| {
            mailbox.tell(event, receipt, limits, totals);
        });
    }

    /// Tells an error to the listeners of the client.
    pub(crate) fn fail(self: &Arc<Self>, error: Error, receipt: Option<Arc<Receipt>>) {
        self.tell(ClientEvent::failed(error), receipt);
    }

    /// The session reports an event of a subscription that is no object. Its state follows from it.
    pub(crate) fn tell_of(
        self: &Arc<Self>,
        subscription: &Arc<SubscriptionCore>,
        event: Event,
        receipt: Option<Arc<Receipt>>,
    ) {
        let next = SubscriptionCore::next_state(&event);
        // Before the state, so that nobody sees the state and does not wait.
        let is_heard = subscription.hears(event.kind())
            || event.kind() == EventKind::Error && self.subscriber.emitter.is_heard(ClientEventKind::Error);
        let receipt = receipt.or_else(|| {
            next.as_ref()
                .filter(|_| is_heard)
                .and_then(|_| self.receipt(subscription))
        });
        if let Some((state, error)) = next {
            subscription.set_state(state, error);
        }
        self.post(subscription, |mailbox, limits, totals| {
            mailbox.tell(event, receipt, limits, totals);
        });
        self.status.changed();
    }

    /// Whether an event of this kind can have no listener: then it need not be delivered.
    ///
    /// While a listener runs, or something waits for one, that one may register a listener for the next event, which
    /// is this one perhaps.
    pub(crate) fn is_unheard(&self, subscription: &SubscriptionCore, kind: EventKind) -> bool {
        self.queue.letters() == 0 && !subscription.hears(kind)
    }

    /// An object came for a subscription.
    pub(crate) fn deliver_object(&self, subscription: &Arc<SubscriptionCore>, parcel: Parcel<Event>) {
        let dropped = self.post(subscription, |mailbox, limits, totals| {
            mailbox.accept(parcel, limits, totals)
        });
        if dropped > 0 {
            Counters::add(&subscription.figures.dropped, dropped);
            Counters::add(&self.counters.dropped, dropped);
        }
    }

    /// A receipt for something that is going to be told. Where the program itself calls the listeners nobody waits for
    /// that: the thread that waits may be the one that has to call them.
    pub(crate) fn receipt<T: Telling + 'static>(&self, of: &Arc<T>) -> Option<Arc<Receipt>> {
        (!self.queue.is_manual()).then(|| self.status.receipt(of))
    }

    /// A receipt for a state of the client.
    pub(crate) fn receipt_of_state(&self) -> Option<Arc<Receipt>> {
        (!self.queue.is_manual()).then(|| self.status.telling())
    }

    /// A receipt for a state of the client that listeners hear of.
    pub(crate) fn receipt_if_heard(&self, kind: ClientEventKind) -> Option<Arc<Receipt>> {
        self.receipt_of_state()
            .filter(|_| self.subscriber.emitter.is_heard(kind))
    }

    /// The threads have panicked.
    pub(crate) fn die(self: &Arc<Self>, error: Error) {
        self.fail(error.clone(), None);
        self.status.die(error);
    }

    /// Ends all subscriptions that there are, and returns the first id that stays.
    pub(crate) fn end_all(&self) -> u64 {
        let below = self.next_id.load(Ordering::Relaxed);
        self.closed_below.fetch_max(below, Ordering::AcqRel);
        self.status.changed();
        below
    }

    /// Ends a subscription: what waits for its listeners is void, and the last thing they hear is `close`. Whoever
    /// waits for that has the receipt.
    pub(crate) fn end(&self, subscription: &Arc<SubscriptionCore>, receipt: Option<Arc<Receipt>>) {
        subscription.subscriber.end();
        let void = self.post(subscription, |mailbox, _, totals| {
            let void = mailbox.end(Event::closed(None), totals);
            if let Some(receipt) = receipt {
                mailbox.receipt(receipt, totals);
            }
            void
        });
        drop(void);
        self.status.changed();
    }

    /// Whether the subscription was ended, by itself or with all others.
    pub(crate) fn is_ended(&self, subscription: &SubscriptionCore) -> bool {
        subscription.subscriber.has_ended() || subscription.id < self.closed_below.load(Ordering::Acquire)
    }

    /// Waits until a subscription that was ended is told so, and no listener of it runs.
    pub(crate) fn wait_ended(
        self: &Arc<Self>,
        subscription: &Arc<SubscriptionCore>,
        deadline: Instant,
    ) -> Result<()> {
        let is_done = if self.queue.is_manual() {
            // Nobody may come to tell it the last `close`: it goes without.
            let running = lock_until(&subscription.subscriber.running, deadline);
            let void = subscription.subscriber.mailbox.lock().clear(&self.queue.totals);
            drop(void);
            subscription.subscriber.emitter.remove_all(None);
            running.is_some()
        } else {
            self.end(subscription, self.receipt(subscription));
            self.wake();
            let waited = self
                .status
                .wait(Some(deadline), |_| subscription.is_told().then_some(()));
            !matches!(waited, Err(Unanswered::Late(_)))
        };
        if is_done {
            return Ok(());
        }
        let text = format!("a listener of {subscription} is still running, or another one keeps it waiting");
        Err(Error::new(ErrorKind::Timeout, text))
    }

    /// Counts the session tokens under which objects have to come for the listeners of a subscription to get them:
    /// those of the client and its own. Both numbers only grow, so their sum is the same only if both are.
    pub(crate) fn generation(&self, subscription: &SubscriptionCore) -> u64 {
        self.subscriber.generation() + subscription.subscriber.generation()
    }

    #[cfg(feature = "rest")]
    pub(crate) fn session_token(&self) -> Option<Secret> {
        self.session_token.lock().clone()
    }

    /// The provider has given the client its session token.
    pub(crate) fn set_session_token(&self, token: Option<Secret>) {
        *self.session_token.lock() = token;
    }

    /// The client gets another session token. Returns the number of its generation.
    pub(crate) fn change_session_token(&self, token: Option<Secret>) -> u64 {
        self.set_session_token(token);
        self.subscriber.next_generation()
    }

    pub(crate) fn subscription_state(&self, subscription: &SubscriptionCore) -> SubscriptionState {
        if self.is_ended(subscription) {
            return SubscriptionState::Closed;
        }
        subscription.state()
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let counters = &self.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let totals = &self.queue.totals;
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
            last_received: *counters.last_received.lock(),
            round_trip: *counters.round_trip.lock(),
            queued: totals.objects.load(Ordering::Relaxed),
            queued_bytes: totals.bytes.load(Ordering::Relaxed),
            waiting: totals.letters.load(Ordering::Relaxed),
            dropped: get(&counters.dropped),
        }
    }

    pub(crate) fn subscription_stats(&self, subscription: &SubscriptionCore) -> SubscriptionStats {
        let figures = &subscription.figures;
        let mailbox = subscription.subscriber.mailbox.lock();
        let (queued, queued_bytes) = (mailbox.objects(), mailbox.bytes());
        drop(mailbox);
        SubscriptionStats {
            state: self.subscription_state(subscription),
            acknowledged: subscription.acknowledged(),
            events: figures.events(),
            last_event: figures.last_event(),
            queued,
            queued_bytes,
            dropped: figures.dropped.load(Ordering::Relaxed),
            foreign: figures.foreign.load(Ordering::Relaxed),
        }
    }

    /// Waits until a subscription is open.
    pub(crate) fn wait_open(&self, subscription: &SubscriptionCore, deadline: Instant) -> Result<()> {
        self.status
            .wait(Some(deadline), |look| {
                if self.is_ended(subscription) {
                    return Some(Err(Error::new(ErrorKind::Closed, "the subscription was ended")));
                }
                if subscription.is_open() {
                    return Some(Ok(()));
                }
                subscription.refusal().or_else(|| look.refusal()).map(Err)
            })
            .unwrap_or_else(|unanswered| {
                let is_open = subscription.state() == SubscriptionState::Open;
                Err(unanswered.into_error(not_open_in_time("subscription", is_open)))
            })
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
                let is_open = self.status.state() == ClientState::Connected;
                Err(unanswered.into_error(not_open_in_time("client", is_open)))
            })
    }

    /// Waits until the client is closed or refused for good.
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
    /// The last `open`, while it holds.
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
            ClientEventKind::Error | ClientEventKind::Reconnecting => {}
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

fn not_open_in_time(what: &str, is_open: bool) -> String {
    if is_open {
        format!("the {what} is open, but its listeners for `open` have not returned yet")
    } else {
        format!("the {what} is not open yet, and goes on trying")
    }
}

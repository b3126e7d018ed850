//! The state of one subscription that handles and threads share.
//!
//! Must not know of queries, or of how the server is asked.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use crate::delivery::emitter::{Emit, Emitter, Role};
use crate::delivery::mailbox::Parcel;
use crate::delivery::shared::{Addressee, Shared, not_open_in_time};
use crate::delivery::status::{Receipt, Telling, Unanswered};
use crate::delivery::subscriber::Subscriber;
use crate::delivery::sync::{AtomicUsize, Mutex, lock_until};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEventKind, Event, EventKind};
use crate::logging::warn;
use crate::state::SubscriptionState;
use crate::stats::{Counters, EventCounts, SubscriptionStats};
use crate::types::Date;

/// One subscription.
///
/// Field order: what every event touches comes first and together, because ten thousand subscriptions do not
/// fit into the cache.
#[repr(C)]
pub(crate) struct SubscriptionCore {
    pub(crate) id: u64,
    pub(crate) subscriber: Subscriber<Event>,
    pub(crate) figures: Figures,
    progress: Mutex<Progress>,
    /// The number of changes that led to the present state and are not delivered yet.
    telling: AtomicUsize,
    follower: OnceLock<Weak<dyn Follower>>,
    pub(crate) class_name: Arc<str>,
}

/// Receives each event of a subscription before its listeners: a live set.
pub(crate) trait Follower: Send + Sync {
    fn take(self: Arc<Self>, shared: &Arc<Shared>, event: &Event, generation: u64);

    /// Called when a caller waits until everything taken so far has been delivered.
    fn pass_on(self: Arc<Self>, shared: &Arc<Shared>, receipt: Arc<Receipt>);
}

struct Progress {
    state: SubscriptionState,
    /// Why the server refused it.
    error: Option<Error>,
    /// How often the server acknowledged it.
    acknowledged: u32,
}

/// What came. The I/O thread counts, anyone may read.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    events: [AtomicU64; 5],
    /// In microseconds of Unix time; 0 for never.
    last_event: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) foreign: AtomicU64,
}

impl Figures {
    /// A time as [`count`](Self::count) takes it.
    pub(crate) fn moment(wall: SystemTime) -> u64 {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// An event came, at this [moment](Self::moment).
    pub(crate) fn count(&self, kind: EventKind, came_at: u64) {
        let slot = match kind {
            EventKind::Create => 0,
            EventKind::Update => 1,
            EventKind::Enter => 2,
            EventKind::Leave => 3,
            EventKind::Delete => 4,
            EventKind::Open | EventKind::Close | EventKind::Error => return,
        };
        if let Some(count) = self.events.get(slot) {
            Counters::add(count, 1);
        }
        self.last_event.store(came_at, Ordering::Relaxed);
    }

    pub(crate) fn events(&self) -> EventCounts {
        let [create, update, enter, leave, delete] = &self.events;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        EventCounts {
            create: get(create),
            update: get(update),
            enter: get(enter),
            leave: get(leave),
            delete: get(delete),
        }
    }

    pub(crate) fn last_event(&self) -> Option<SystemTime> {
        let micros = self.last_event.load(Ordering::Relaxed);
        (micros > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_micros(micros))
    }
}

impl SubscriptionCore {
    pub(crate) fn new(id: u64, class_name: Arc<str>, emitter: Emitter<Event>) -> Self {
        Self {
            id,
            subscriber: Subscriber::new(emitter),
            figures: Figures::default(),
            progress: Mutex::new(Progress {
                state: SubscriptionState::Pending,
                error: None,
                acknowledged: 0,
            }),
            telling: AtomicUsize::new(0),
            follower: OnceLock::new(),
            class_name,
        }
    }

    /// Must be called before the first event.
    pub(crate) fn follow(&self, follower: Weak<dyn Follower>) {
        self.follower.get_or_init(|| follower);
    }

    pub(crate) fn state(&self) -> SubscriptionState {
        self.progress.lock().state
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.lock().acknowledged.into()
    }

    /// Why the server refused it, once the listeners concerned have been called.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let progress = self.progress.lock();
        let error = progress.error.clone();
        error.filter(|_| progress.state == SubscriptionState::Failed && self.is_told())
    }

    /// Whether it is open and the listeners concerned have been called.
    pub(crate) fn is_open(&self) -> bool {
        self.state() == SubscriptionState::Open && self.is_told()
    }

    /// Whether everything that led to the present state has been delivered.
    pub(crate) fn is_told(&self) -> bool {
        self.telling.load(Ordering::Acquire) == 0
    }

    /// The state that an event of the session leads to.
    pub(crate) fn next_state(event: &Event) -> Option<(SubscriptionState, Option<Error>)> {
        match event.kind() {
            EventKind::Open => Some((SubscriptionState::Open, None)),
            EventKind::Close => Some((SubscriptionState::Pending, None)),
            EventKind::Error => {
                let error = event.error().filter(|error| error.is_fatal())?;
                Some((SubscriptionState::Failed, Some(error.clone())))
            }
            _ => None,
        }
    }

    pub(crate) fn set_state(&self, state: SubscriptionState, error: Option<Error>) {
        let mut progress = self.progress.lock();
        // A refused subscription is closed by the refusal, but stays refused.
        if state != SubscriptionState::Pending || progress.state != SubscriptionState::Failed {
            progress.state = state;
            progress.error = error;
        }
        let is_open = u32::from(state == SubscriptionState::Open);
        progress.acknowledged = progress.acknowledged.saturating_add(is_open);
    }

    /// Another query was requested, so the reason why the last one failed no longer matters.
    pub(crate) fn asked_again(&self) {
        let mut progress = self.progress.lock();
        if progress.state == SubscriptionState::Failed {
            progress.state = SubscriptionState::Pending;
            progress.error = None;
        }
    }

    /// Whether anyone listens to events of this kind.
    pub(crate) fn hears(&self, kind: EventKind) -> bool {
        self.subscriber.emitter.is_heard(kind) || self.follower.get().is_some()
    }

    fn follower(&self) -> Option<Arc<dyn Follower>> {
        self.follower.get()?.upgrade()
    }
}

/// What a client does with its subscriptions.
impl Shared {
    /// The session reports an event without an object. The state of the subscription follows from it.
    pub(crate) fn tell_of(
        self: &Arc<Self>,
        subscription: &Arc<SubscriptionCore>,
        event: Event,
        receipt: Option<Arc<Receipt>>,
    ) {
        let next = SubscriptionCore::next_state(&event);
        // Before the state changes, so that no caller sees the new state without waiting for its delivery.
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

    /// Whether an event of this kind can have no listener and need not be delivered.
    ///
    /// While a listener runs or events wait for one, that listener may register another for the next event,
    /// which may be this one.
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

    /// Ends a subscription: what waits for its listeners is discarded, and the last thing they receive is
    /// `close`. A caller that waits for that holds the receipt.
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

    /// Whether the subscription was ended, alone or with all others.
    pub(crate) fn is_ended(&self, subscription: &SubscriptionCore) -> bool {
        subscription.subscriber.has_ended() || subscription.id < self.closed_below.load(Ordering::Acquire)
    }

    /// Waits until a subscription that was ended has delivered its `close`, and no listener of it runs.
    pub(crate) fn wait_ended(
        self: &Arc<Self>,
        subscription: &Arc<SubscriptionCore>,
        deadline: Instant,
    ) -> Result<()> {
        let is_done = if self.queue.is_manual() {
            // The program may never dispatch the last `close`, so the subscription ends without it.
            let running = lock_until(&subscription.subscriber.running, deadline);
            let void = subscription.subscriber.mailbox.lock().clear(&self.queue.totals);
            drop(void);
            subscription.subscriber.emitter.close();
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

    /// Counts the session tokens, those of the client and those of the subscription: listeners only get
    /// objects that came under the present ones. Both numbers only grow, so the sum is unchanged only if both
    /// are.
    pub(crate) fn generation(&self, subscription: &SubscriptionCore) -> u64 {
        self.subscriber.generation() + subscription.subscriber.generation()
    }

    pub(crate) fn subscription_state(&self, subscription: &SubscriptionCore) -> SubscriptionState {
        if self.is_ended(subscription) || !self.is_home() {
            return SubscriptionState::Closed;
        }
        subscription.state()
    }

    pub(crate) fn subscription_stats(&self, subscription: &SubscriptionCore) -> SubscriptionStats {
        let figures = &subscription.figures;
        let (queued, queued_bytes, acknowledged) = if self.is_home() {
            let mailbox = subscription.subscriber.mailbox.lock();
            let queued = (mailbox.objects(), mailbox.bytes());
            drop(mailbox);
            (queued.0, queued.1, subscription.acknowledged())
        } else {
            (0, 0, 0)
        };
        SubscriptionStats {
            state: self.subscription_state(subscription),
            acknowledged,
            events: figures.events(),
            last_event: figures.last_event().map(Date::from),
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
                Err(unanswered.into_error(not_open_in_time("subscription", is_open, self.status.state())))
            })
    }
}

impl Telling for SubscriptionCore {
    fn telling(&self) -> &AtomicUsize {
        &self.telling
    }
}

impl Addressee for SubscriptionCore {
    type Event = Event;

    fn subscriber(&self) -> &Subscriber<Event> {
        &self.subscriber
    }

    fn may_hear(&self, shared: &Shared, kind: EventKind, generation: Option<u64>) -> bool {
        (kind == EventKind::Close || !shared.is_ended(self))
            && generation.is_none_or(|generation| generation == shared.generation(self))
    }

    fn prepare(&self, shared: &Arc<Shared>, event: Event, generation: Option<u64>) -> Event {
        if let Some(follower) = self.follower() {
            let generation = generation.unwrap_or_else(|| shared.generation(self));
            follower.take(shared, &event, generation);
        }
        event
    }

    fn pass_on(&self, shared: &Arc<Shared>, error: Option<Error>, receipt: Option<Arc<Receipt>>) {
        let follower = self.follower();
        if let (Some(follower), Some(receipt)) = (&follower, &receipt) {
            Arc::clone(follower).pass_on(shared, Arc::clone(receipt));
        }
        // The client reports on its own account that the connection was refused.
        let Some(error) =
            error.filter(|error| !matches!(error.kind(), ErrorKind::Refused | ErrorKind::GaveUp))
        else {
            return;
        };
        if shared.subscriber.emitter.is_heard(ClientEventKind::Error) {
            shared.fail(error, receipt);
        } else if follower.is_none() && !self.subscriber.emitter.is_heard(EventKind::Error) {
            warn!("{self}: {error}");
        }
    }

    fn name(&self) -> String {
        self.to_string()
    }
}

impl Emit for Event {
    type Kind = EventKind;
    /// The last `open`, as long as it is valid.
    type Held = Option<Self>;

    fn kind(&self) -> EventKind {
        Self::kind(self)
    }

    fn bit(kind: EventKind) -> u8 {
        1 << kind as u8
    }

    fn note(self, held: &mut Option<Self>) -> Option<Self> {
        match Self::kind(&self) {
            EventKind::Open => *held = Some(self.clone()),
            EventKind::Close => {
                held.take()?;
            }
            _ => {}
        }
        Some(self)
    }

    fn is_noted(&self) -> bool {
        Self::kind(self).has_object()
    }

    fn missed(kind: Option<EventKind>, held: &Option<Self>) -> Option<Self> {
        held.clone()
            .filter(|_| kind.is_none_or(|kind| kind == EventKind::Open))
    }

    fn role(&self) -> Role {
        match Self::kind(self) {
            EventKind::Open => Role::Opens,
            EventKind::Close => Role::Closes,
            EventKind::Error => Role::Fails,
            _ => Role::Tells,
        }
    }

    fn after(self, earlier: &Self) -> Self {
        self.with_earlier_gap(earlier)
    }

    fn failed(error: Error) -> Self {
        Self::failed(error)
    }

    fn failure(&self) -> Option<&Error> {
        self.error().filter(|_| Self::kind(self) == EventKind::Error)
    }

    fn add_failures(&mut self, number: u64) {
        self.add_errors(number);
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
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

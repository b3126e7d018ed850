//! The one place that calls listeners.
//!
//! A turn delivers some letters of one subscriber. Before each listener it asks whether that one may still be called:
//! the subscription may have been ended, the session token changed, the listener removed by the one before it, or by
//! another thread while that one ran. No lock is held meanwhile but `running`, and the listener's own.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::delivery::emitter::{Emit, Fault};
use crate::delivery::mailbox::{Letter, Parcel, Role};
use crate::delivery::shared::Shared;
use crate::delivery::status::Receipt;
use crate::delivery::subscriber::Subscriber;
use crate::delivery::sync::{lock_until, now};
use crate::error::{Error, ErrorKind, Result};
use crate::logging::{error, warn};

/// A subscriber in the list of those that have letters.
pub(crate) trait Turn: Send + Sync {
    /// Delivers some letters. `true` if there are more; then it goes to the back of the list.
    fn take(self: Arc<Self>, shared: &Arc<Shared>, budget: &mut Budget) -> bool;
}

/// Who is told: a subscription, a client or a live set.
pub(crate) trait Addressee: Send + Sync + Sized + 'static {
    type Event: Emit;

    fn subscriber(&self) -> &Subscriber<Self::Event>;

    /// Whether a listener may be called for this kind of event now. An object has the generation that it came under.
    fn may_hear(&self, shared: &Shared, kind: EventKindOf<Self>, generation: Option<u64>) -> bool;

    /// The listeners are called next. Returns what they are to hear.
    fn prepare(&self, shared: &Arc<Shared>, event: Self::Event, generation: Option<u64>) -> Self::Event;

    /// The session token that an event which is no object came under, if that matters.
    fn generation_of(&self, _: &Self::Event) -> Option<u64> {
        None
    }

    /// Whether it is the one that hears of faults in listeners.
    fn is_last_resort(&self) -> bool {
        false
    }

    /// An object is passed over, since it came under an earlier session token.
    fn skipped(&self) {}

    /// The listeners were called. Whoever hears of the same thing besides is told with the same receipt.
    fn pass_on(&self, shared: &Arc<Shared>, error: Option<Error>, receipt: Option<Arc<Receipt>>);

    /// What it is called in the log, with an article.
    fn name(&self) -> String;
}

type EventKindOf<A> = <<A as Addressee>::Event as Emit>::Kind;

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

    fn is_spent(&self, now: Instant) -> bool {
        self.letters == 0 || self.until.is_some_and(|until| until <= now)
    }
}

impl<A: Addressee> Turn for A {
    fn take(self: Arc<Self>, shared: &Arc<Shared>, budget: &mut Budget) -> bool {
        let subscriber = self.subscriber();
        let began = now();
        let mut before = began;
        for _ in 0..LETTERS_PER_TURN {
            let letter = {
                let mut mailbox = subscriber.mailbox.lock();
                let letter = mailbox.pop(&shared.queue.totals);
                mailbox.is_listed = letter.is_some();
                letter
            };
            let Some(letter) = letter else { return false };
            budget.delivered += usize::from(!matches!(letter, Letter::Receipt(_)));
            budget.letters = budget.letters.saturating_sub(1);
            let told = deliver(&*self, shared, letter);
            shared.queue.delivered();
            let now = now();
            let took = now.saturating_duration_since(before);
            if let Some(kind) = told.filter(|_| took >= SLOW) {
                warn!(
                    "the listeners for `{kind}` of {} took {took:.1?}; all other events wait meanwhile",
                    self.name(),
                );
            }
            before = now;
            if budget.is_spent(now) || now.saturating_duration_since(began) >= TURN {
                break;
            }
        }
        let mut mailbox = subscriber.mailbox.lock();
        mailbox.is_listed = !mailbox.is_empty();
        mailbox.is_listed
    }
}

/// Delivers, turn by turn, until nothing is left or the budget is spent.
pub(crate) fn deliver_all(shared: &Arc<Shared>, budget: &mut Budget) {
    let _inside = Inside::enter(shared);
    while let Some(turn) = shared.queue.next() {
        let before = budget.delivered;
        if Arc::clone(&turn).take(shared, budget) {
            shared.queue.back_in_line(turn);
        }
        if budget.delivered > before && budget.is_spent(now()) {
            return;
        }
    }
}

/// Delivers what waits with [`Dispatch::Manual`](crate::Dispatch::Manual), until the deadline. Returns how much that
/// was.
///
/// What comes meanwhile is left for the next call, and so is everything if another thread is delivering, or if this is
/// called in a listener: whoever delivers then has the program woken for it.
pub(crate) fn dispatch_pending(shared: &Arc<Shared>, deadline: Option<Instant>) -> usize {
    if !shared.queue.is_manual() || in_listener_of(shared) {
        return 0;
    }
    let Some(dispatching) = shared.queue.dispatching.try_lock() else {
        return 0;
    };
    let delivered = deliver_some(shared, deadline);
    // First the lock, then the look: who is refused in between is served by it.
    drop(dispatching);
    shared.queue.leave();
    delivered
}

/// Waits for something to deliver, and delivers it. Returns how much that was.
pub(crate) fn dispatch_pending_timeout(shared: &Arc<Shared>, deadline: Instant) -> usize {
    if !shared.queue.is_manual() || in_listener_of(shared) {
        return 0;
    }
    while shared.queue.wait(deadline) {
        let Some(dispatching) = lock_until(&shared.queue.dispatching, deadline) else {
            break;
        };
        let delivered = deliver_some(shared, None);
        drop(dispatching);
        shared.queue.leave();
        if delivered > 0 {
            return delivered;
        }
    }
    0
}

fn deliver_some(shared: &Arc<Shared>, until: Option<Instant>) -> usize {
    shared.queue.looked();
    let mut budget = Budget {
        letters: shared.queue.letters(),
        until,
        delivered: 0,
    };
    if budget.letters > 0 {
        deliver_all(shared, &mut budget);
    }
    budget.delivered
}

/// Delivers one letter. Returns which listeners were called for it.
fn deliver<A: Addressee>(to: &A, shared: &Arc<Shared>, letter: Letter<A::Event>) -> Option<EventKindOf<A>> {
    match letter {
        Letter::Told(event, receipt) => {
            let (kind, error) = (event.kind(), event.failure().cloned());
            tell(to, shared, event, None);
            to.pass_on(shared, error, receipt);
            Some(kind)
        }
        Letter::Object(Parcel {
            event,
            generation,
            lost_before,
            ..
        }) => {
            let kind = event.kind();
            report_loss(to, shared, lost_before);
            tell(to, shared, event, Some(generation));
            Some(kind)
        }
        Letter::Lagged(lost) => {
            report_loss(to, shared, lost);
            None
        }
        Letter::Late(listener) => {
            let subscriber = to.subscriber();
            let running = subscriber.running.lock();
            let may = |kind| to.may_hear(shared, kind, None);
            let faults = subscriber.emitter.emit_missed(listener, &may);
            drop(running);
            report_faults(to, shared, faults, "what holds already");
            None
        }
        Letter::Receipt(receipt) => {
            to.pass_on(shared, None, Some(receipt));
            None
        }
        Letter::End(event) => {
            let kind = event.kind();
            tell(to, shared, event, None);
            // What the closures own is let go of: the client, perhaps.
            to.subscriber().emitter.remove_all(None);
            Some(kind)
        }
    }
}

/// Calls the listeners of one event.
fn tell<A: Addressee>(to: &A, shared: &Arc<Shared>, event: A::Event, generation: Option<u64>) {
    let kind = event.kind();
    let generation = generation.or_else(|| to.generation_of(&event));
    let may = |kind| to.may_hear(shared, kind, generation);
    if !may(kind) {
        if generation.is_some() {
            to.skipped();
        }
        return;
    }
    let subscriber = to.subscriber();
    let running = subscriber.running.lock();
    let event = to.prepare(shared, event, generation);
    let is_failure = event.role() == Role::Fails;
    let faults = subscriber.emitter.emit(event, &may);
    drop(running);
    if generation.is_some() && !may(kind) {
        to.skipped();
    }
    if is_failure && to.is_last_resort() {
        // Who hears of such faults has failed: to tell that to it would go round in circles.
        log_faults(to, &faults);
    } else {
        report_faults(to, shared, faults, &kind.to_string());
    }
}

fn report_loss<A: Addressee>(to: &A, shared: &Arc<Shared>, lost: u64) {
    if lost > 0 {
        report(to, shared, Error::lagged(lost));
    }
}

/// Tells an error that came about just now, before what waits.
fn report<A: Addressee>(to: &A, shared: &Arc<Shared>, error: Error) {
    tell(to, shared, A::Event::failed(error.clone()), None);
    to.pass_on(shared, Some(error), None);
}

/// An object that did not fit is told to the listeners of its subscription, and a panic to those of the client.
fn report_faults<A: Addressee>(to: &A, shared: &Arc<Shared>, faults: Vec<Fault>, what: &str) {
    for fault in faults {
        match fault {
            Fault::Unfit(error) => report(to, shared, error),
            Fault::Panicked(text) => {
                let text = format!("a listener for `{what}` of {} panicked: {text}", to.name());
                error!("{text}");
                shared.fail(Error::new(ErrorKind::ListenerPanicked, text), None);
            }
        }
    }
}

fn log_faults<A: Addressee>(to: &A, faults: &[Fault]) {
    for fault in faults {
        error!("a listener for `error` of {} failed: {fault:?}", to.name());
    }
}

thread_local! {
    /// The clients whose listeners run on this thread, one inside another.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Says while it lives that listeners of a client run on this thread.
struct Inside;

impl Inside {
    fn enter(shared: &Arc<Shared>) -> Self {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().push(Arc::as_ptr(shared).addr()));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().pop());
    }
}

/// Whether this is called in a listener of the client, directly or in a listener of another client in there: then to
/// wait for the client is to wait for oneself.
pub(crate) fn in_listener_of(shared: &Arc<Shared>) -> bool {
    let address = Arc::as_ptr(shared).addr();
    INSIDE
        .try_with(|inside| inside.borrow().contains(&address))
        .unwrap_or(false)
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

/// A listener that takes longer is worth a warning.
const SLOW: Duration = Duration::from_secs(1);
/// How many letters of a subscriber are delivered in a row, and for how long, before the next one has its turn.
const LETTERS_PER_TURN: usize = 64;
const TURN: Duration = Duration::from_millis(1);

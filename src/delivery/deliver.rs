//! The one place that calls listeners.
//!
//! A turn delivers some letters of one subscriber. Before each listener it checks whether that listener may
//! still be called: the subscription may have been ended, the session token changed, or the listener removed
//! by the one before it or by another thread while that one ran. The only locks held meanwhile are `running`
//! and the listener's own.

use std::cell::Cell;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::delivery::emitter::{Emit, Fault, Listeners, Role};
use crate::delivery::inside::{Inside, in_listener_of};
use crate::delivery::mailbox::{Letter, Parcel};
use crate::delivery::shared::{Addressee, Budget, EventKindOf, Shared, Turn};
use crate::delivery::sync::{MutexGuard, lock_until, now};
use crate::error::{Error, ErrorKind};
use crate::event::ClientEventKind;
use crate::logging::{error, warn};

impl<A: Addressee> Turn for A {
    fn take(self: Arc<Self>, shared: &Arc<Shared>, budget: &mut Budget) -> bool {
        let subscriber = self.subscriber();
        let mut delivery = Delivery {
            to: &*self,
            shared,
            listeners: Listeners::default(),
            _running: subscriber.running.lock(),
        };
        let mut before = now();
        let end = before + TURN;
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
            let told = delivery.deliver(letter);
            shared.queue.delivered();
            let now = now();
            if now >= end {
                let took = now.saturating_duration_since(before);
                if let Some(kind) = told.filter(|_| took >= SLOW) {
                    warn!(
                        "the listeners for `{kind}` of {} took {took:.1?}, and all other events waited for them",
                        self.name(),
                    );
                }
                break;
            }
            if budget.is_late(now) {
                break;
            }
            before = now;
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
        if budget.delivered > before && budget.is_spent() {
            return;
        }
    }
}

/// Delivers what waits with [`Dispatch::manual`](crate::Dispatch::manual), until the deadline. Returns how
/// many events that was.
///
/// What comes in the meantime is left for the next call, and so is everything if another thread is
/// delivering, or if this is called in a listener: the thread that delivers then calls the wake function.
pub(crate) fn dispatch_pending(shared: &Arc<Shared>, deadline: Option<Instant>) -> usize {
    if !shared.queue.is_manual() || in_listener_of(shared) || !shared.is_home() {
        return 0;
    }
    let Some(dispatching) = shared.queue.dispatching.try_lock() else {
        return 0;
    };
    let delivered = deliver_some(shared, deadline);
    // First the lock, then the check: a caller that is refused in between is served by it.
    drop(dispatching);
    shared.queue.leave();
    delivered
}

/// Waits for something to deliver, and delivers it. Returns how many events that was.
pub(crate) fn dispatch_pending_timeout(shared: &Arc<Shared>, deadline: Instant) -> usize {
    if !shared.queue.is_manual() || in_listener_of(shared) || !shared.is_home() {
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

/// A turn of one subscriber, whose listeners run nowhere else meanwhile.
struct Delivery<'a, A: Addressee> {
    to: &'a A,
    shared: &'a Arc<Shared>,
    listeners: Listeners<A::Event>,
    _running: MutexGuard<'a, ()>,
}

impl<A: Addressee> Delivery<'_, A> {
    /// Delivers one letter. Returns which listeners were called for it.
    fn deliver(&mut self, letter: Letter<A::Event>) -> Option<EventKindOf<A>> {
        match letter {
            Letter::Told(event, receipt) => {
                let (kind, error) = (event.kind(), event.failure().cloned());
                self.tell(event, None);
                self.to.pass_on(self.shared, error, receipt);
                Some(kind)
            }
            Letter::Object(Parcel {
                event,
                generation,
                lost_before,
                ..
            }) => {
                let kind = event.kind();
                self.report_loss(lost_before);
                self.tell(event, Some(generation));
                Some(kind)
            }
            Letter::Lagged(lost) => {
                self.report_loss(lost);
                None
            }
            Letter::Late(listener) => {
                let may = |kind| self.to.may_hear(self.shared, kind, None);
                let faults = self.to.subscriber().emitter.emit_missed(listener, &may);
                self.report_faults(faults, &"the present state");
                None
            }
            Letter::Receipt(receipt) => {
                self.to.pass_on(self.shared, None, Some(receipt));
                None
            }
            Letter::End(event) => {
                let kind = event.kind();
                self.tell(event, None);
                self.to.subscriber().emitter.close();
                // Drops what the closures own, possibly the client.
                self.listeners = Listeners::default();
                Some(kind)
            }
        }
    }

    /// Calls the listeners of one event.
    fn tell(&mut self, event: A::Event, generation: Option<u64>) {
        let kind = event.kind();
        let generation = generation.or_else(|| self.to.generation_of(&event));
        // Whether a listener was passed over.
        let skipped = Cell::new(false);
        let may = |kind| {
            let may = self.to.may_hear(self.shared, kind, generation);
            skipped.set(skipped.get() || !may);
            may
        };
        if !may(kind) {
            if generation.is_some() {
                self.to.skipped();
            }
            return;
        }
        let event = self.to.prepare(self.shared, event, generation);
        let is_failure = event.role() == Role::Fails;
        let emitter = &self.to.subscriber().emitter;
        let faults = emitter.emit(event, &mut self.listeners, &may);
        if generation.is_some() && skipped.get() {
            self.to.skipped();
        }
        if is_failure && self.to.is_last_resort() {
            // The listener that such faults are reported to has itself failed, and reporting that to it would
            // never end.
            log_faults(self.to, &faults);
        } else {
            self.report_faults(faults, &kind);
        }
    }

    fn report_loss(&mut self, lost: u64) {
        if lost > 0 {
            self.report(Error::lagged(lost));
        }
    }

    /// Delivers a new error, ahead of the waiting letters.
    fn report(&mut self, error: Error) {
        self.tell(A::Event::failed(error.clone()), None);
        self.to.pass_on(self.shared, Some(error), None);
    }

    /// An object that did not fit is reported to the listeners of its subscription, and a panic to those of the
    /// client.
    fn report_faults(&mut self, faults: Vec<Fault>, what: &dyn Display) {
        for fault in faults {
            match fault {
                Fault::Unfit(error) => self.report(error),
                Fault::Panicked(text) => {
                    let text = format!("a listener for `{what}` of {} panicked: {text}", self.to.name());
                    error!("{text}");
                    if self.shared.subscriber.emitter.is_heard(ClientEventKind::Error) {
                        self.shared
                            .fail(Error::new(ErrorKind::ListenerPanicked, text), None);
                    }
                }
            }
        }
    }
}

fn log_faults<A: Addressee>(to: &A, faults: &[Fault]) {
    for fault in faults {
        error!("a listener for `error` of {} failed: {fault:?}", to.name());
    }
}

/// A listener that takes longer than this, which is more than a turn, is reported in the log.
const SLOW: Duration = Duration::from_secs(1);
/// How many letters of a subscriber are delivered in a row, and for how long, before the next subscriber has
/// its turn.
const LETTERS_PER_TURN: usize = 64;
const TURN: Duration = Duration::from_millis(1);

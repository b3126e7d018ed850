//! Events by way of a channel: one that the program reads, and one that a thread waits at for a single event.
//!
//! Knows nothing of handles, and of how events come.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use crate::delivery::shared::Shared;
use crate::delivery::status::Status;
use crate::delivery::subscription::SubscriptionCore;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventKind};
use crate::state::SubscriptionState;

/// Sends what there is room for, and says before the next event how many there were that found none.
pub(super) fn into_channel(events: Sender<Event>) -> impl FnMut(&Event) + Send + 'static {
    let mut dropped = 0;
    move |event| {
        if dropped > 0 && events.try_send(Event::failed(Error::lagged(dropped))).is_ok() {
            dropped = 0;
        }
        if dropped > 0 || matches!(events.try_send(event.clone()), Err(TrySendError::Full(_))) {
            dropped += 1;
        }
    }
}

/// A listener, and where the events are that it has heard.
pub(super) fn awaited(client: &Arc<Shared>) -> (impl FnMut(&Event) -> Result<()> + Send + 'static, Came) {
    let (sender, events) = bounded(EVENTS);
    let mut feed = Feed {
        send: into_channel(sender),
        bell: Bell(Arc::clone(&client.status)),
    };
    let listener = move |event: &Event| {
        feed.take(event);
        Ok(())
    };
    (listener, Came { events })
}

/// Its fields are dropped in this order: who is woken last finds the channel ended.
struct Feed<F> {
    send: F,
    bell: Bell,
}

impl<F: FnMut(&Event)> Feed<F> {
    fn take(&mut self, event: &Event) {
        (self.send)(event);
        self.bell.0.changed();
    }
}

/// Has who waits look at the channel, once more when nothing comes any more.
struct Bell(Arc<Status>);

impl Drop for Bell {
    fn drop(&mut self) {
        // In a fork nobody waits, and the lock may never become free.
        if self.0.home.is_here() {
            self.0.changed();
        }
    }
}

/// The events that came.
pub(super) struct Came {
    events: Receiver<Event>,
}

impl Came {
    /// Waits for the first event that is the one. No lock is held while the program looks at one.
    pub(super) fn wait(
        &self,
        shared: &Shared,
        subscription: &SubscriptionCore,
        deadline: Instant,
        mut is_it: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let mut others = Others::default();
        let mut left_when_late = None;
        loop {
            let came = shared
                .status
                .wait(Some(deadline), |look| match self.events.try_recv() {
                    Ok(event) => Some(Ok(event)),
                    Err(TryRecvError::Disconnected) => Some(Err(ended())),
                    // Nobody may come to dispatch the last `close`.
                    Err(TryRecvError::Empty) if shared.queue.is_manual() && shared.is_ended(subscription) => {
                        Some(Err(ended()))
                    }
                    Err(TryRecvError::Empty) => subscription.refusal().or_else(|| look.refusal()).map(Err),
                });
            let event = match came {
                Ok(event) => event?,
                Err(unanswered) => return Err(unanswered.into_error(others.describe(shared, subscription))),
            };
            if is_it(&event) {
                return Ok(event);
            }
            if let Some(error) = end_of(&event) {
                return Err(error);
            }
            others.add(&event);
            // A server that never stops sending must not keep the program past its deadline.
            if Instant::now() >= deadline {
                let left = left_when_late.get_or_insert(self.events.len());
                if *left == 0 {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        others.describe(shared, subscription),
                    ));
                }
                *left -= 1;
            }
        }
    }
}

/// The error after which nothing more comes.
fn end_of(event: &Event) -> Option<Error> {
    let ends =
        |error: &&Error| error.is_fatal() || matches!(error.kind(), ErrorKind::Refused | ErrorKind::GaveUp);
    let error = event.error().filter(|_| event.kind() == EventKind::Error)?;
    Some(error).filter(ends).cloned()
}

fn ended() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the subscription has ended, and the awaited event did not come",
    )
}

/// The events that came and were not the one.
#[derive(Default)]
struct Others {
    number: u64,
    last: Option<EventKind>,
}

impl Others {
    fn add(&mut self, event: &Event) {
        self.number += 1;
        self.last = Some(event.kind());
    }

    fn describe(&self, shared: &Shared, subscription: &SubscriptionCore) -> String {
        let mut text = "the awaited event did not come in time".to_owned();
        match (self.number, self.last) {
            (1, Some(last)) => text += &format!("; one other did, `{last}`"),
            (number, Some(last)) => text += &format!("; {number} others did, the last of them `{last}`"),
            (_, None) => text += "; nor did any other",
        }
        if shared.subscription_state(subscription) == SubscriptionState::Pending {
            let client = shared.status.state();
            text += &format!("; the subscription is not open, and the client is {client}");
        }
        if self.number == 0 && shared.queue.is_manual() {
            text += "; with `Dispatch::manual` another thread has to dispatch meanwhile";
        }
        text
    }
}

const EVENTS: usize = 1024;

//! What a session has to do when, if nothing else happens: stated once, for the deadline and for the tick.

use std::time::{Duration, Instant};

use super::Session;
use super::errors::timeout;
use super::link::{Due, Link};
use crate::error::{Error, ErrorKind};
use crate::protocol::Now;

impl<T: Clone> Session<T> {
    /// When [`tick`](Self::tick) is due, if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due().map(|(at, _)| at)
    }

    /// Does what is due. Must be called at the [`deadline`](Self::deadline), and may be called more often.
    pub(crate) fn tick(&mut self, now: Now) {
        // If the monotonic clock continues while the machine sleeps, a very late look reveals the sleep.
        let overdue = |look: Instant| now.mono.saturating_duration_since(look) >= OVERDUE;
        let is_overdue = self.next_look().is_some_and(overdue);
        self.clock.look(now);
        if self.clock.take_jump() || is_overdue {
            crate::logging::debug!("the machine has slept");
            self.awake(now);
        }
        while let Some(due) = self.due_by(now.mono) {
            self.act(due, now);
        }
    }

    /// What is due first. [`act`](Self::act) must make sure that the same is not due again at once.
    fn due(&self) -> Option<(Instant, Due)> {
        match &self.link {
            Link::Idle { .. } | Link::Paused { .. } | Link::Refused(_) => None,
            Link::Waiting { until } => Some(self.or_look((*until, Due::Attempt))),
            Link::Connecting { deadline, .. } => Some(self.or_look((*deadline, Due::AttemptOver))),
            Link::Live(live) => {
                let liveness = live.due(&self.settings);
                let answer = self.answers.due().map(|at| (at, Due::LateAnswer));
                let retry = self.retries.due().map(|(at, _)| (at, Due::Retry));
                let token = self.tokens.due().map(|at| (at, Due::Token));
                [Some(liveness), answer, retry, token].into_iter().flatten().min()
            }
        }
    }

    fn or_look(&self, other: (Instant, Due)) -> (Instant, Due) {
        let look = self.next_look().map(|at| (at, Due::Look));
        look.map_or(other, |look| look.min(other))
    }

    /// When the clocks must be read. Without a connection this is often, because delays stand still while the
    /// machine sleeps. A quiet connection wakes the thread only for its pings.
    fn next_look(&self) -> Option<Instant> {
        match &self.link {
            Link::Waiting { .. } | Link::Connecting { .. } => Some(self.clock.last_look()? + LOOK),
            Link::Idle { .. } | Link::Paused { .. } | Link::Live(_) | Link::Refused(_) => None,
        }
    }

    fn due_by(&self, now: Instant) -> Option<Due> {
        self.due().filter(|(at, _)| *at <= now).map(|(_, due)| due)
    }

    fn act(&mut self, due: Due, now: Now) {
        match (due, &mut self.link) {
            (Due::Attempt, _) => self.connect(now),
            (Due::AttemptOver, Link::Connecting { stage, trouble, .. }) => {
                let limit = self.settings.connect_timeout;
                let text = format!("gave up after {limit:?} while {}", stage.doing());
                let error = match trouble.take() {
                    Some(trouble) => Error::with_source(ErrorKind::Timeout, text, trouble),
                    None => timeout(text),
                };
                self.lost(error, now);
            }
            (Due::Silence, Link::Live(live)) => {
                let silence = now.mono.saturating_duration_since(live.last_received);
                let text =
                    format!("nothing came from the server for {silence:.1?}, not even an answer to a ping");
                self.lost(timeout(text), now);
            }
            (Due::Ping, _) => self.ping(now),
            (Due::LateAnswer, _) => {
                self.answer_is_late(now);
                self.try_suspects(now);
            }
            (Due::Retry, _) => {
                if let Some((_, id)) = self.retries.due() {
                    self.retries.release(id);
                    self.reconcile(id, now);
                    self.try_suspects(now);
                }
            }
            (Due::Token, _) => self.renew_if_due(now),
            (Due::AttemptOver | Due::Silence | Due::Look, _) => {}
        }
    }
}

/// How soon the end of a sleep is noticed without a connection.
const LOOK: Duration = Duration::from_secs(1);
/// How late a look is after a sleep. A machine that is merely busy may be late as well; then an attempt is
/// made too early, which does no harm.
const OVERDUE: Duration = Duration::from_secs(5);

//! What a session has to do when, if nothing else happens.

use std::time::{Duration, Instant};

use super::link::Link;
use super::{Output, Session, timeout};
use crate::error::{Error, ErrorKind};
use crate::protocol::Now;

impl<T: Clone> Session<T> {
    /// When [`tick`](Self::tick) is due, if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Idle { .. } | Link::Refused(_) => None,
            Link::Waiting { until } => Some(*until),
            Link::Connecting { deadline, .. } => Some(*deadline),
            Link::Live(live) => {
                let liveness = live
                    .answer_due
                    .unwrap_or(live.last_received.mono + self.settings.idle_ping);
                Some(
                    self.answer_deadline()
                        .map_or(liveness, |answer| answer.min(liveness)),
                )
            }
        }
    }

    /// Does what is due. To be called at the [`deadline`](Self::deadline), and as often besides as is convenient.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.slept_until(now) {
            log::debug!("the clocks jumped apart: the machine has slept");
            // The socket may well be dead, and the network is probably back.
            self.reconnect_now(now);
        }
        match &mut self.link {
            Link::Idle { .. } | Link::Refused(_) => {}
            Link::Waiting { until } => {
                if *until <= now.mono {
                    self.connect(now);
                }
            }
            Link::Connecting {
                stage,
                deadline,
                trouble,
            } => {
                if *deadline <= now.mono {
                    let limit = self.settings.connect_timeout;
                    let text = format!("gave up after {limit:?} while {}", stage.doing());
                    let error = match trouble.take() {
                        Some(trouble) => Error::with_source(ErrorKind::Timeout, text, trouble),
                        None => timeout(text),
                    };
                    self.lost(error, now);
                }
            }
            Link::Live(live) => match live.answer_due {
                Some(due) if due <= now.mono => {
                    let silence = now.mono.saturating_duration_since(live.last_received.mono);
                    let text = format!(
                        "nothing came from the server for {silence:.1?}, not even an answer to a ping"
                    );
                    self.lost(timeout(text), now);
                }
                None if live.last_received.mono + self.settings.idle_ping <= now.mono => {
                    live.answer_due = Some(now.mono + self.settings.pong_timeout);
                    self.outputs.push_back(Output::Ping);
                }
                _ => self.report_late_answers(now),
            },
        }
    }

    /// Whether the machine slept: then the time of day has gone further than the monotonic clock.
    fn slept_until(&mut self, now: Now) -> bool {
        let Some(last) = self.last_tick.replace(now) else {
            return false;
        };
        let wall = now.wall.duration_since(last.wall).unwrap_or_default();
        let mono = now.mono.saturating_duration_since(last.mono);
        wall.saturating_sub(mono) >= CLOCK_JUMP
    }
}

/// How far the clocks may run apart before the machine is taken to have slept.
const CLOCK_JUMP: Duration = Duration::from_secs(5);

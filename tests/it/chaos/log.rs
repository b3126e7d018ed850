//! What happened around one actor, to its client as a whole and to its network, with times, for the history of a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[derive(Debug)]
pub struct Log {
    start: Instant,
    lines: Mutex<Vec<(Duration, String)>>,
    failed: AtomicBool,
    /// Of all actors: what one of them finds wrong ends the others as well.
    ended: Arc<AtomicBool>,
}

impl Log {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            lines: Mutex::default(),
            failed: AtomicBool::new(false),
            ended: Arc::default(),
        }
    }

    /// The log of another actor.
    pub fn beside(&self) -> Self {
        Self {
            start: self.start,
            lines: Mutex::default(),
            failed: AtomicBool::new(false),
            ended: Arc::clone(&self.ended),
        }
    }

    pub fn time(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn add(&self, line: impl Into<String>) {
        self.lines.lock().push((self.time(), line.into()));
    }

    /// Something is wrong, and what comes now is of no more interest.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// This actor or another has failed.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// These lines and those of the log from the same time, in order.
    pub fn around(&self, mut lines: Vec<(Duration, String)>) -> String {
        let margin = Duration::from_millis(500);
        let times = || lines.iter().map(|(at, _)| *at);
        let from = times().min().unwrap_or_default().saturating_sub(margin);
        let to = times().max().unwrap_or(Duration::MAX).saturating_add(margin);
        let log = self.lines.lock();
        lines.extend(log.iter().filter(|(at, _)| (from..=to).contains(at)).cloned());
        lines.sort_by_key(|(at, _)| *at);
        let text = |(at, line): (Duration, String)| format!("{:>10.3} {line}\n", at.as_secs_f64());
        lines.into_iter().map(text).collect()
    }

    pub fn start(&self) -> Instant {
        self.start
    }
}

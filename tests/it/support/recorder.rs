//! Collects what listeners get, in order, and waits for it. It knows names and values, and no library.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::LONG;

/// One call of a listener.
#[derive(Clone, Debug)]
pub struct Seen<T> {
    /// Whose listener it was.
    pub source: Arc<str>,
    pub kind: String,
    pub value: T,
    pub at: Instant,
}

/// A list that listeners push to and a test reads from. Clones are the same list.
#[derive(Debug)]
pub struct Recorder<T>(Arc<(Mutex<List<T>>, Condvar)>);

#[derive(Debug)]
struct List<T> {
    all: Vec<Seen<T>>,
    /// How many the test has taken.
    taken: usize,
}

impl<T> Clone for Recorder<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + Debug> Recorder<T> {
    pub fn new() -> Self {
        let list = List {
            all: vec![],
            taken: 0,
        };
        Self(Arc::new((Mutex::new(list), Condvar::new())))
    }

    pub fn push(&self, source: &str, kind: &str, value: T) {
        let (list, changed) = &*self.0;
        list.lock().all.push(Seen {
            source: source.into(),
            kind: kind.to_owned(),
            value,
            at: Instant::now(),
        });
        changed.notify_all();
    }

    /// The next call, which must be of this kind.
    #[track_caller]
    pub fn expect(&self, kind: &str) -> Seen<T> {
        let seen = self.next(kind, |_| true);
        assert_eq!(
            seen.kind,
            kind,
            "the next call is {seen:?}; all: {:#?}",
            self.summary()
        );
        seen
    }

    /// The next call of this kind; what comes before it is skipped.
    #[track_caller]
    pub fn wait_for(&self, kind: &str) -> Seen<T> {
        self.next(kind, |seen| seen.kind == kind)
    }

    /// The next call that satisfies `wanted`; what comes before it is skipped.
    #[track_caller]
    pub fn wait_where(&self, what: &str, wanted: impl Fn(&Seen<T>) -> bool) -> Seen<T> {
        self.next(what, wanted)
    }

    #[track_caller]
    fn next(&self, what: &str, wanted: impl Fn(&Seen<T>) -> bool) -> Seen<T> {
        let (list, changed) = &*self.0;
        let deadline = Instant::now() + LONG;
        let mut list = list.lock();
        loop {
            let start = list.taken;
            if let Some(at) = list.all[start..].iter().position(&wanted) {
                list.taken += at + 1;
                return list.all[start + at].clone();
            }
            if changed.wait_until(&mut list, deadline).timed_out() {
                drop(list);
                panic!("no {what} within {LONG:?}; all: {:#?}", self.summary());
            }
        }
    }

    /// Takes what there is and nobody has taken yet.
    pub fn drain(&self) -> Vec<Seen<T>> {
        let mut list = self.0.0.lock();
        let rest = list.all[list.taken..].to_vec();
        list.taken = list.all.len();
        rest
    }

    /// Everything so far, taken or not.
    pub fn all(&self) -> Vec<Seen<T>> {
        self.0.0.lock().all.clone()
    }

    /// The kinds of everything so far, in order.
    pub fn kinds(&self) -> Vec<String> {
        self.0.0.lock().all.iter().map(|seen| seen.kind.clone()).collect()
    }

    /// How many calls of this kind there were.
    pub fn count(&self, kind: &str) -> usize {
        self.0
            .0
            .lock()
            .all
            .iter()
            .filter(|seen| seen.kind == kind)
            .count()
    }

    /// Fails if a call comes within this time. For what must never come, when nothing that must come after it can
    /// show that it did not.
    #[track_caller]
    pub fn expect_quiet(&self, time: Duration) {
        let (list, changed) = &*self.0;
        let deadline = Instant::now() + time;
        let mut list = list.lock();
        while list.taken == list.all.len() {
            if changed.wait_until(&mut list, deadline).timed_out() {
                return;
            }
        }
        let unexpected = list.all[list.taken..].to_vec();
        drop(list);
        panic!("nothing was expected, and there came {unexpected:#?}");
    }

    fn summary(&self) -> Vec<String> {
        let list = self.0.0.lock();
        let start = list.all.len().saturating_sub(50);
        list.all[start..]
            .iter()
            .map(|seen| format!("{} {} {:?}", seen.source, seen.kind, seen.value))
            .collect()
    }
}

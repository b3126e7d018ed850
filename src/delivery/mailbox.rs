//! What waits for the listeners of one subscriber, in order of arrival, and what is dropped when too much
//! waits.
//!
//! Must not know of threads, or of who receives it.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::delivery::emitter::{Emit, ListenerId, Role};
use crate::delivery::status::Receipt;
use crate::delivery::sync::AtomicUsize;
use crate::error::Error;

/// Which objects of a subscription are dropped when more wait for its listeners than the limits allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// New ones, until the waiting ones are delivered: the listeners get a complete sequence except for one
    /// gap.
    #[default]
    DropNewest,
    /// Those that have waited longest: the listeners get the latest objects.
    DropOldest,
}

/// How much may wait for the listeners of one subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) objects: usize,
    pub(crate) bytes: usize,
    pub(crate) overflow: Overflow,
}

impl Limits {
    /// How many bytes may wait for all subscribers of a client together.
    fn total(&self) -> usize {
        self.bytes.saturating_mul(SUBSCRIBERS_WORTH)
    }
}

/// How much waits for all subscribers of a client.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Letters that are not completely delivered.
    pub(crate) letters: AtomicUsize,
    pub(crate) objects: AtomicUsize,
    /// Bytes of objects and errors.
    pub(crate) bytes: AtomicUsize,
}

/// One item to deliver.
#[derive(Debug)]
pub(crate) enum Letter<E> {
    /// An event that must not be lost: `open`, `close`, an error. A thread may wait for its delivery.
    Told(E, Option<Arc<Receipt>>),
    /// An event that may be dropped for lack of space.
    Object(Parcel<E>),
    /// From here on this many objects were dropped.
    Lagged(u64),
    /// A listener registered too late for the present state.
    Late(ListenerId),
    /// A thread waits until everything before this has been delivered.
    Receipt(Arc<Receipt>),
    /// The last event. The listeners are removed after it.
    End(E),
}

#[derive(Debug)]
pub(crate) struct Parcel<E> {
    pub(crate) event: E,
    /// How many bytes it occupies in memory.
    pub(crate) bytes: usize,
    /// The generation of its session token. Under a later one it is not delivered.
    pub(crate) generation: u64,
    /// How many objects before it were dropped.
    pub(crate) lost_before: u64,
}

/// The waiting letters, and a flag for the list of subscribers that have some.
#[derive(Debug)]
pub(crate) struct Mailbox<E> {
    letters: VecDeque<Letter<E>>,
    objects: usize,
    bytes: usize,
    /// The subscriber is in the list of those that have letters, or has its turn.
    pub(crate) is_listed: bool,
    is_ended: bool,
}

impl<E: Emit> Mailbox<E> {
    pub(crate) fn new() -> Self {
        Self {
            letters: VecDeque::new(),
            objects: 0,
            bytes: 0,
            is_listed: false,
            is_ended: false,
        }
    }

    /// The number of waiting objects.
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    /// The bytes of the waiting objects.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// The next letter. It counts in `totals.letters` until it is delivered.
    pub(crate) fn pop(&mut self, totals: &Totals) -> Option<Letter<E>> {
        let letter = self.letters.pop_front()?;
        self.left(&letter, totals);
        if self.letters.is_empty() {
            // A burst must not occupy its memory forever. Besides, memory that was freed last is still in the
            // cache, which the mailboxes of thousands of subscriptions would not be.
            self.letters = VecDeque::new();
        }
        Some(letter)
    }

    /// Adds an event that must not be lost.
    pub(crate) fn tell(&mut self, event: E, receipt: Option<Arc<Receipt>>, limits: &Limits, totals: &Totals) {
        if self.is_ended || receipt.is_none() && self.is_in_last_error(&event) {
            return;
        }
        let is_crowded = self.letters.len() - self.objects >= CROWD
            || event.role() == Role::Fails && totals.bytes.load(Ordering::Relaxed) >= limits.total();
        let event = if is_crowded {
            match self.fold(event, totals) {
                Some(event) => event,
                None => return,
            }
        } else {
            event
        };
        self.push(Letter::Told(event, receipt), totals);
    }

    /// Adds an object, if there is space. Returns how many were dropped: this one, or older ones.
    pub(crate) fn accept(&mut self, mut parcel: Parcel<E>, limits: &Limits, totals: &Totals) -> u64 {
        if self.is_ended {
            return 0;
        }
        if let Some(Letter::Lagged(lost)) = self.letters.back_mut() {
            *lost += 1;
            return 1;
        }
        let mut dropped = 0;
        while limits.overflow == Overflow::DropOldest && !self.has_room(parcel.bytes, limits, totals) {
            let Some(index) = self.oldest() else { break };
            self.drop_at(index, &mut parcel, totals);
            dropped += 1;
        }
        if self.has_room(parcel.bytes, limits, totals) {
            self.push(Letter::Object(parcel), totals);
            return dropped;
        }
        self.lose(1 + parcel.lost_before, totals);
        dropped + 1
    }

    /// Adds an object; if there is no space, one that replaces all waiting objects and this one.
    pub(crate) fn accept_or_replace(
        &mut self,
        parcel: Parcel<E>,
        all: impl FnOnce() -> Parcel<E>,
        limits: &Limits,
        totals: &Totals,
    ) {
        if self.is_ended {
            return;
        }
        if self.has_room(parcel.bytes, limits, totals) {
            self.push(Letter::Object(parcel), totals);
            return;
        }
        while self.take_oldest(totals).is_some() {}
        let before = self.letters.len();
        self.letters.retain(|letter| !letter.is_sum());
        totals
            .letters
            .fetch_sub(before - self.letters.len(), Ordering::Release);
        self.push(Letter::Object(all()), totals);
    }

    /// Removes the last letter if it is a sum of all before it, which is posted again after what is about to
    /// be added.
    pub(crate) fn withdraw_sum(&mut self, totals: &Totals) {
        if self.letters.back().is_some_and(Letter::is_sum) {
            self.letters.pop_back();
            totals.letters.fetch_sub(1, Ordering::Release);
        }
    }

    /// A listener registered late.
    pub(crate) fn late(&mut self, listener: ListenerId, totals: &Totals) {
        if !self.is_ended {
            self.push(Letter::Late(listener), totals);
        }
    }

    /// A thread waits until the present letters have been delivered.
    pub(crate) fn receipt(&mut self, receipt: Arc<Receipt>, totals: &Totals) {
        self.push(Letter::Receipt(receipt), totals);
    }

    /// Ends the mailbox with this last event; waiting letters are discarded. The second call does nothing.
    #[must_use = "what waited is dropped without the lock of the mailbox"]
    pub(crate) fn end(&mut self, last: E, totals: &Totals) -> VecDeque<Letter<E>> {
        if self.is_ended {
            return VecDeque::new();
        }
        let void = self.clear(totals);
        self.is_ended = true;
        self.push(Letter::End(last), totals);
        void
    }

    /// Removes everything.
    #[must_use = "what waited is dropped without the lock of the mailbox"]
    pub(crate) fn clear(&mut self, totals: &Totals) -> VecDeque<Letter<E>> {
        let void = std::mem::take(&mut self.letters);
        for letter in &void {
            self.left(letter, totals);
        }
        totals.letters.fetch_sub(void.len(), Ordering::Release);
        void
    }

    fn has_room(&self, bytes: usize, limits: &Limits, totals: &Totals) -> bool {
        let total = totals.bytes.load(Ordering::Relaxed);
        // A single object may be larger than the limits: it is accepted if nothing else waits.
        self.objects < limits.objects
            && (self.objects == 0 || self.bytes.saturating_add(bytes) <= limits.bytes)
            && (total == 0 || total.saturating_add(bytes) <= limits.total())
    }

    fn oldest(&self) -> Option<usize> {
        if self.objects == 0 {
            return None;
        }
        self.letters
            .iter()
            .position(|letter| matches!(letter, Letter::Object(_)))
    }

    /// Drops the oldest object. Its loss is reported where it would have been delivered, or together with an
    /// earlier loss.
    fn drop_at(&mut self, index: usize, newest: &mut Parcel<E>, totals: &Totals) {
        let Some(oldest) = self.take_oldest(totals) else {
            return;
        };
        let number = 1 + oldest.lost_before;
        let lagged = self
            .letters
            .iter_mut()
            .take(index)
            .find_map(|letter| match letter {
                Letter::Lagged(lost) => Some(lost),
                _ => None,
            });
        if let Some(lost) = lagged {
            *lost += number;
            return;
        }
        match self.letters.get_mut(index) {
            Some(Letter::Object(next)) => next.lost_before += number,
            Some(_) => {
                self.letters.insert(index, Letter::Lagged(number));
                totals.letters.fetch_add(1, Ordering::Relaxed);
            }
            None => newest.lost_before += number,
        }
    }

    fn take_oldest(&mut self, totals: &Totals) -> Option<Parcel<E>> {
        let letter = self.letters.remove(self.oldest()?)?;
        self.left(&letter, totals);
        totals.letters.fetch_sub(1, Ordering::Release);
        match letter {
            Letter::Object(parcel) => Some(parcel),
            _ => None,
        }
    }

    fn lose(&mut self, number: u64, totals: &Totals) {
        for letter in self.tail() {
            if let Letter::Lagged(lost) = letter {
                *lost += number;
                return;
            }
        }
        self.push(Letter::Lagged(number), totals);
    }

    /// Merges equal errors in a row into one, with a count.
    fn is_in_last_error(&mut self, event: &E) -> bool {
        let Some(error) = event.failure() else {
            return false;
        };
        match self.letters.back_mut() {
            Some(Letter::Told(last, _)) if last.failure().is_some_and(|last| last.is_like(error)) => {
                last.add_failures(error.occurrences());
                true
            }
            _ => false,
        }
    }

    /// Saves space when too much waits. An error is counted in a waiting one; of a connection that comes and
    /// goes, the last state is kept. Objects have limits of their own and are not touched.
    fn fold(&mut self, event: E, totals: &Totals) -> Option<E> {
        match event.role() {
            Role::Fails if !event.failure().is_some_and(Error::is_fatal) => {
                for letter in self.tail() {
                    if let Letter::Told(told, _) = letter {
                        if told.failure().is_some_and(|error| !error.is_fatal()) {
                            told.add_failures(event.failure().map_or(1, Error::occurrences));
                            return None;
                        }
                    }
                }
                Some(event)
            }
            Role::Opens => {
                let is_open = |role| role == Role::Opens;
                let Some(index) = self.last_in_tail(is_open) else {
                    return Some(event);
                };
                let mut opened = None;
                for letter in self.letters.split_off(index) {
                    match letter {
                        Letter::Told(told, receipt) if told.role().is_state() => {
                            totals.letters.fetch_sub(1, Ordering::Release);
                            opened = opened.or(Some(told));
                            drop(receipt);
                        }
                        other => self.letters.push_back(other),
                    }
                }
                match opened {
                    Some(opened) => Some(event.after(&opened)),
                    None => Some(event),
                }
            }
            Role::Retries => {
                if let Some(index) = self.last_in_tail(Role::is_state) {
                    let is_retry = |letter: &Letter<E>| matches!(letter, Letter::Told(told, _) if told.role() == Role::Retries);
                    if self.letters.get(index).is_some_and(is_retry) {
                        self.letters.remove(index);
                        totals.letters.fetch_sub(1, Ordering::Release);
                    }
                }
                Some(event)
            }
            Role::Closes | Role::Fails | Role::Tells | Role::Sums => Some(event),
        }
    }

    /// The position of the last event of such a role, if it came after the last object.
    fn last_in_tail(&self, is_wanted: impl Fn(Role) -> bool) -> Option<usize> {
        let from_back = self
            .letters
            .iter()
            .rev()
            .take_while(|letter| !matches!(letter, Letter::Object(_)))
            .position(|letter| matches!(letter, Letter::Told(event, _) if is_wanted(event.role())))?;
        Some(self.letters.len() - 1 - from_back)
    }

    /// The letters after the last object, last first.
    fn tail(&mut self) -> impl Iterator<Item = &mut Letter<E>> {
        self.letters
            .iter_mut()
            .rev()
            .take_while(|letter| !matches!(letter, Letter::Object(_)))
    }

    fn push(&mut self, letter: Letter<E>, totals: &Totals) {
        if let Letter::Object(parcel) = &letter {
            self.objects += 1;
            self.bytes += parcel.bytes;
            totals.objects.fetch_add(1, Ordering::Relaxed);
        }
        totals.bytes.fetch_add(letter.bytes(), Ordering::Relaxed);
        totals.letters.fetch_add(1, Ordering::Relaxed);
        self.letters.push_back(letter);
    }

    fn left(&mut self, letter: &Letter<E>, totals: &Totals) {
        if let Letter::Object(parcel) = letter {
            self.objects -= 1;
            self.bytes -= parcel.bytes;
            totals.objects.fetch_sub(1, Ordering::Relaxed);
        }
        totals.bytes.fetch_sub(letter.bytes(), Ordering::Relaxed);
    }
}

impl<E: Emit> Letter<E> {
    fn is_sum(&self) -> bool {
        matches!(self, Self::Told(event, _) if event.role() == Role::Sums)
    }

    /// The bytes that count towards the limits. They do not change while the letter waits.
    fn bytes(&self) -> usize {
        match self {
            Self::Object(parcel) => parcel.bytes,
            Self::Told(event, _) => event
                .failure()
                .map_or(0, |error| size_of::<Self>() + error.size()),
            Self::Lagged(_) | Self::Late(_) | Self::Receipt(_) | Self::End(_) => 0,
        }
    }
}

/// All subscribers together may hold as many bytes as this number of single ones.
const SUBSCRIBERS_WORTH: usize = 4;
/// With this many letters other than objects, a mailbox is crowded.
const CROWD: usize = 128;

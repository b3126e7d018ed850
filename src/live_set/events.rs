//! What the listeners of a live set are told, and what listeners that are registered later are told.
//!
//! It knows nothing about threads, or about how a set is kept.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::delivery::emitter::{Emit, Role};
use crate::error::{Error, Result};
use crate::live_set::change::{Change, Snapshot};
use crate::types::Date;

#[derive(Clone, Debug)]
pub(crate) enum SetEvent {
    Change(Change, Snapshot),
    /// All changes that were told since the last batch, as one. It is put together when it is delivered.
    Batch(Batch, Snapshot),
    /// With the generation of the session token under which the set became ready.
    Ready(Snapshot, u64),
    Stale(SystemTime),
    Error(Error),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SetEventKind {
    Change,
    Ready,
    Stale,
    Error,
    Batch,
}

/// Consecutive changes.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    changes: Arc<[Change]>,
    /// How many changes had been told, up to and including the last of these.
    end: u64,
}

impl SetEvent {
    /// The batch of all changes before this event.
    pub(super) fn batch() -> Self {
        let changes = [].into();
        Self::Batch(Batch { changes, end: 0 }, Snapshot::empty())
    }
}

/// The changes that wait to be delivered as one batch.
#[derive(Clone, Default)]
pub(crate) struct Gathered {
    /// There are listeners for batches.
    pub(crate) is_wanted: bool,
    changes: Vec<Change>,
    bytes: usize,
    /// How many changes were told.
    count: u64,
    /// The session token under which they were told.
    generation: u64,
}

impl Gathered {
    fn add(&mut self, change: &Change) {
        self.count += 1;
        if !self.is_wanted || matches!(*self.changes, [Change::Reset]) {
            return;
        }
        self.bytes += change.size();
        if matches!(change, Change::Reset) || self.changes.len() >= LONGEST || self.bytes > LARGEST {
            self.tear();
        } else {
            self.changes.push(change.clone());
        }
    }

    /// Sets the session token from here on. What was told under another one is not told again.
    pub(super) fn under(&mut self, generation: u64) {
        if std::mem::replace(&mut self.generation, generation) != generation && !self.changes.is_empty() {
            self.tear();
        }
    }

    /// Drops the changes: the contents say it all.
    fn tear(&mut self) {
        self.changes = vec![Change::Reset];
        self.bytes = 0;
    }

    fn take(&mut self) -> Option<Batch> {
        if self.changes.is_empty() {
            return None;
        }
        self.bytes = 0;
        Some(Batch {
            changes: std::mem::take(&mut self.changes).into(),
            end: self.count,
        })
    }
}

/// What listeners were last told.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) snapshot: Snapshot,
    pub(crate) is_ready: bool,
    /// The set has been ready at least once.
    pub(crate) was_ready: bool,
    /// The session token under which it became ready.
    pub(crate) ready_under: u64,
    pub(crate) stale_since: Option<SystemTime>,
    pub(crate) last_error: Option<Error>,
    /// A change was skipped. The next one is told as the contents that it leads to.
    pub(crate) is_torn: bool,
    pub(crate) gathered: Gathered,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            snapshot: Snapshot::empty(),
            is_ready: false,
            was_ready: false,
            ready_under: 0,
            stale_since: None,
            last_error: None,
            is_torn: false,
            gathered: Gathered::default(),
        }
    }
}

impl fmt::Display for SetEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Change => "change",
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Error => "error",
            Self::Batch => "changes",
        })
    }
}

impl Emit for SetEvent {
    type Kind = SetEventKind;
    type Held = Shown;

    fn kind(&self) -> SetEventKind {
        match self {
            Self::Change(..) => SetEventKind::Change,
            Self::Ready(..) => SetEventKind::Ready,
            Self::Stale(_) => SetEventKind::Stale,
            Self::Error(_) => SetEventKind::Error,
            Self::Batch(..) => SetEventKind::Batch,
        }
    }

    fn bit(kind: SetEventKind) -> u8 {
        1 << kind as u8
    }

    fn note(self, held: &mut Shown) -> Option<Self> {
        match self {
            Self::Change(change, snapshot) => {
                held.snapshot = snapshot.clone();
                let is_torn = std::mem::take(&mut held.is_torn);
                let change = if is_torn { Change::Reset } else { change };
                held.gathered.add(&change);
                Some(Self::Change(change, snapshot))
            }
            Self::Batch(..) => {
                let batch = held.gathered.take()?;
                Some(Self::Batch(batch, held.snapshot.clone()))
            }
            Self::Ready(_, generation) => {
                held.is_ready = true;
                held.was_ready = true;
                held.ready_under = generation;
                held.stale_since = None;
                held.last_error = None;
                Some(Self::Ready(held.snapshot.clone(), generation))
            }
            Self::Stale(since) => {
                held.stale_since = Some(since);
                std::mem::take(&mut held.is_ready).then_some(Self::Stale(since))
            }
            Self::Error(error) => {
                held.last_error = Some(error.clone());
                Some(Self::Error(error))
            }
        }
    }

    fn missed(kind: Option<SetEventKind>, held: &Shown) -> Option<Self> {
        match kind {
            Some(SetEventKind::Batch) if !held.snapshot.is_empty() => {
                let batch = Batch {
                    changes: [Change::Reset].into(),
                    end: held.gathered.count,
                };
                Some(Self::Batch(batch, held.snapshot.clone()))
            }
            Some(SetEventKind::Ready) | None if held.is_ready => {
                Some(Self::Ready(held.snapshot.clone(), held.ready_under))
            }
            Some(SetEventKind::Change) | None if !held.snapshot.is_empty() => {
                Some(Self::Change(Change::Reset, held.snapshot.clone()))
            }
            _ => None,
        }
    }

    fn role(&self) -> Role {
        match self {
            Self::Change(..) => Role::Tells,
            Self::Batch(..) => Role::Sums,
            Self::Ready(..) => Role::Opens,
            Self::Stale(_) => Role::Closes,
            Self::Error(_) => Role::Fails,
        }
    }

    fn after(self, _: &Self) -> Self {
        self
    }

    fn failed(error: Error) -> Self {
        Self::Error(error)
    }

    fn failure(&self) -> Option<&Error> {
        match self {
            Self::Error(error) => Some(error),
            _ => None,
        }
    }

    fn add_failures(&mut self, number: u64) {
        if let Self::Error(error) = self {
            *error = error.clone().and_more(number);
        }
    }
}

// Adapters for the program's listeners. Each is registered only for its own kind.

pub(super) fn for_change(
    mut listener: impl FnMut(&Change, &Snapshot) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Change(change, set) = event {
            listener(change, set);
        }
        Ok(())
    }
}

/// The first change that a late listener gets is the contents.
pub(super) fn for_late_change(
    mut listener: impl FnMut(&Change, &Snapshot) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    let mut is_first = true;
    for_change(move |change, set| {
        let is_first = std::mem::take(&mut is_first);
        listener(if is_first { &Change::Reset } else { change }, set);
    })
}

/// Each change is told once: a late listener gets the contents first, and not the changes that led to them.
fn for_batches(
    mut listener: impl FnMut(&[Change], &Snapshot) + Send + 'static,
    mut told: Option<u64>,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        let SetEvent::Batch(batch, set) = event else {
            return Ok(());
        };
        let Some(before) = told.replace(batch.end) else {
            listener(&[Change::Reset], set);
            return Ok(());
        };
        let new = usize::try_from(batch.end.saturating_sub(before)).unwrap_or(usize::MAX);
        let known = batch.changes.len().saturating_sub(new);
        if let Some(changes @ [_, ..]) = batch.changes.get(known..) {
            listener(changes, set);
        }
        Ok(())
    }
}

pub(super) fn for_changes(
    listener: impl FnMut(&[Change], &Snapshot) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    for_batches(listener, Some(0))
}

pub(super) fn for_late_changes(
    listener: impl FnMut(&[Change], &Snapshot) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    for_batches(listener, None)
}

pub(super) fn for_ready(
    mut listener: impl FnMut(&Snapshot) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Ready(set, _) = event {
            listener(set);
        }
        Ok(())
    }
}

pub(super) fn for_stale(
    mut listener: impl FnMut(Date) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Stale(since) = event {
            listener(Date::from(*since));
        }
        Ok(())
    }
}

pub(super) fn for_error(
    mut listener: impl FnMut(&Error) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Error(error) = event {
            listener(error);
        }
        Ok(())
    }
}

/// More changes than this, or larger ones, are told as the contents.
const LONGEST: usize = 1000;
const LARGEST: usize = 4 << 20;

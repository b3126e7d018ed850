//! The variants of listeners of a set: many changes as one, decoded, once; and removing all of them.
//!
//! It does not know how a listener is called.

use serde::de::DeserializeOwned;

use super::LiveSet;
use super::builder::LiveSetBuilder;
use super::change::{Change, Snapshot};
use super::events::{SetEventKind, for_change, for_changes, for_late_change, for_late_changes, for_ready};
use crate::delivery::emitter::{ListenerId, Times};
use crate::error::Result;

impl LiveSet {
    /// Calls a listener with all changes that were waiting for it, in order, and with the contents after
    /// them: then a table is redrawn once after a fetch or a burst of events, not once for each row.
    ///
    /// A [`Change::Reset`] is always the only change: after an overflow, after more than a thousand changes
    /// at once, and for a listener that is registered when the set already has contents, which is called at
    /// once. Listeners of [`on_ready`](Self::on_ready) are called after all changes that led to it.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{LiveSet, Object};
    ///
    /// fn show(games: &LiveSet) {
    ///     let mut rows: Vec<Object> = Vec::new();
    ///     games.on_changes(move |changes, set| {
    ///         for change in changes {
    ///             change.apply_to(&mut rows, set);
    ///         }
    ///         println!("{} rows to draw", rows.len());
    ///     });
    /// }
    /// ```
    pub fn on_changes(&self, listener: impl FnMut(&[Change], &Snapshot) + Send + 'static) -> ListenerId {
        self.0.keeper.listen(
            Some(SetEventKind::Batch),
            Times::Always,
            for_late_changes(listener),
        )
    }

    /// Like [`on_change`](Self::on_change), with objects decoded as your own type. The listener owns its
    /// argument.
    ///
    /// An object that does not fit the type becomes an error of kind
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode), which names the field: the change is reported
    /// nevertheless, since other objects would be at wrong positions without it.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Change, LiveSet};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Game {
    ///     name: String,
    /// }
    ///
    /// fn show(games: &LiveSet) {
    ///     games.on_change_as::<Game>(|change, set| match change {
    ///         Change::Inserted { index, object: Ok(game), .. } => println!("{index}: {} is new", game.name),
    ///         Change::Inserted { index, object: Err(error), .. } => println!("{index}: {error}"),
    ///         _ => println!("{} games", set.len()),
    ///     });
    /// }
    /// ```
    pub fn on_change_as<T: DeserializeOwned>(
        &self,
        mut listener: impl FnMut(Change<Result<T>>, &Snapshot) + Send + 'static,
    ) -> ListenerId {
        let listener = for_late_change(move |change, set| listener(change.decode(), set));
        self.0
            .keeper
            .listen(Some(SetEventKind::Change), Times::Always, listener)
    }

    /// Like [`on_ready`](Self::on_ready), but called once: at once if the set is ready, or as soon as it is.
    pub fn once_ready(&self, listener: impl FnMut(&Snapshot) + Send + 'static) -> ListenerId {
        self.0
            .keeper
            .listen(Some(SetEventKind::Ready), Times::Once, for_ready(listener))
    }

    /// Removes all listeners of this set. The set continues.
    pub fn off_all(&self) {
        if self.0.keeper.shared.is_home() {
            self.0.keeper.subscriber.emitter.remove_all(None);
        }
    }
}

impl LiveSetBuilder {
    /// Registers a listener, like [`LiveSet::on_changes`].
    pub fn on_changes(self, listener: impl FnMut(&[Change], &Snapshot) + Send + 'static) -> Self {
        self.listen(Some(SetEventKind::Batch), Times::Always, for_changes(listener))
    }

    /// Registers a listener, like [`LiveSet::on_change_as`].
    pub fn on_change_as<T: DeserializeOwned>(
        self,
        mut listener: impl FnMut(Change<Result<T>>, &Snapshot) + Send + 'static,
    ) -> Self {
        let listener = for_change(move |change, set| listener(change.decode(), set));
        self.listen(Some(SetEventKind::Change), Times::Always, listener)
    }

    /// Registers a listener, like [`LiveSet::once_ready`].
    pub fn once_ready(self, listener: impl FnMut(&Snapshot) + Send + 'static) -> Self {
        self.listen(Some(SetEventKind::Ready), Times::Once, for_ready(listener))
    }
}

//! What listeners and programs see of a set: its changes, and its contents at one time.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Index, Range};
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::list::{self, List};
use crate::error::Result;
use crate::object::Object;
use crate::query::order::{Order, SortKey, version_in};
use crate::scan::Members;

/// What changed in a [`LiveSet`](crate::LiveSet).
///
/// Applied one after another to an empty list, the changes always give the contents of the set;
/// [`apply_to`](Self::apply_to) does that.
///
/// [`decode`](Self::decode) converts its objects to your own type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change<T = Object> {
    /// An object was added.
    #[non_exhaustive]
    Inserted {
        /// Its position now.
        index: usize,
        /// The object.
        object: T,
    },
    /// An object changed, and kept its position.
    #[non_exhaustive]
    Updated {
        /// Its position.
        index: usize,
        /// The object as it is now.
        object: T,
        /// The object as it was in the set before.
        original: T,
    },
    /// An object changed, and moved to another position.
    #[non_exhaustive]
    Moved {
        /// Its position before.
        from: usize,
        /// Its position now, after it was taken out of the list.
        to: usize,
        /// The object as it is now.
        object: T,
        /// The object as it was in the set before.
        original: T,
    },
    /// An object is gone: deleted, no longer matching the query, no longer readable, or beyond the limit.
    #[non_exhaustive]
    Removed {
        /// Its position before.
        index: usize,
        /// The object as it was in the set.
        object: T,
    },
    /// Many things changed: read the contents again.
    Reset,
}

impl<T> Change<T> {
    /// Returns the object that changed, as it is now or, if it is gone, was. `None` for
    /// [`Reset`](Self::Reset).
    #[must_use]
    pub fn object(&self) -> Option<&T> {
        match self {
            Self::Inserted { object, .. }
            | Self::Updated { object, .. }
            | Self::Moved { object, .. }
            | Self::Removed { object, .. } => Some(object),
            Self::Reset => None,
        }
    }

    /// Returns the object that changed, as it was in the set before: for `Updated` and `Moved`.
    #[must_use]
    pub fn original(&self) -> Option<&T> {
        match self {
            Self::Updated { original, .. } | Self::Moved { original, .. } => Some(original),
            Self::Inserted { .. } | Self::Removed { .. } | Self::Reset => None,
        }
    }
}

impl Change {
    /// Returns the same change with its objects decoded as your own type. An object that does not fit becomes
    /// an error of kind [`ErrorKind::Decode`](crate::ErrorKind::Decode).
    ///
    /// [`LiveSet::on_change_as`](crate::LiveSet::on_change_as) calls a listener with it.
    #[must_use]
    pub fn decode<T: DeserializeOwned>(&self) -> Change<Result<T>> {
        match self {
            Self::Inserted { index, object } => Change::Inserted {
                index: *index,
                object: object.decode(),
            },
            Self::Updated {
                index,
                object,
                original,
            } => Change::Updated {
                index: *index,
                object: object.decode(),
                original: original.decode(),
            },
            Self::Moved {
                from,
                to,
                object,
                original,
            } => Change::Moved {
                from: *from,
                to: *to,
                object: object.decode(),
                original: original.decode(),
            },
            Self::Removed { index, object } => Change::Removed {
                index: *index,
                object: object.decode(),
            },
            Self::Reset => Change::Reset,
        }
    }

    /// Returns the names of the fields that changed, as [`Object::changed_keys`] finds them: for `Updated`
    /// and `Moved`.
    #[must_use]
    pub fn changed_keys(&self) -> Vec<&str> {
        match (self.object(), self.original()) {
            (Some(object), Some(original)) => object.changed_keys(original),
            _ => Vec::new(),
        }
    }

    /// About how many bytes it keeps in memory.
    pub(crate) fn size(&self) -> usize {
        let object =
            |object: Option<&Object>| object.map_or(0, |object| object.frame().len() + object.overhead());
        object(self.object()) + object(self.original())
    }

    /// Applies the change to a list that the program keeps; `set` is the listener's second argument.
    ///
    /// # Panics
    ///
    /// If the list is not the one to which all changes before were applied, as a `Vec` does.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{LiveSet, Object};
    ///
    /// fn keep_a_list(games: &LiveSet) {
    ///     let mut list: Vec<Object> = Vec::new();
    ///     games.on_change(move |change, set| {
    ///         change.apply_to(&mut list, set);
    ///         assert_eq!(list.len(), set.len());
    ///     });
    /// }
    /// ```
    pub fn apply_to(&self, list: &mut Vec<Object>, set: &Snapshot) {
        match self {
            Self::Inserted { index, object } => list.insert(*index, object.clone()),
            Self::Updated { index, object, .. } => list[*index] = object.clone(),
            Self::Moved { from, to, object, .. } => {
                list.remove(*from);
                list.insert(*to, object.clone());
            }
            Self::Removed { index, .. } => {
                list.remove(*index);
            }
            Self::Reset => {
                list.clear();
                list.extend(set.iter().cloned());
            }
        }
    }
}

impl<T: DeserializeOwned> Change<Result<T>> {
    /// Applies the change to a list that the program keeps; `set` is the listener's second argument. A row
    /// that cannot be decoded is an error in its place, so all other rows are where they belong.
    ///
    /// # Panics
    ///
    /// If the list is not the one to which all changes before were applied, as a `Vec` does.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::LiveSet;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Game {
    ///     name: String,
    /// }
    ///
    /// fn show(games: &LiveSet) {
    ///     let mut rows: Vec<parse_livequery::Result<Game>> = Vec::new();
    ///     games.on_change_as::<Game>(move |change, set| {
    ///         change.apply_to(&mut rows, set);
    ///         for row in &rows {
    ///             match row {
    ///                 Ok(game) => println!("{}", game.name),
    ///                 Err(error) => println!("? {error}"),
    ///             }
    ///         }
    ///     });
    /// }
    /// ```
    pub fn apply_to(self, list: &mut Vec<Result<T>>, set: &Snapshot) {
        match self {
            Self::Inserted { index, object } => list.insert(index, object),
            Self::Updated { index, object, .. } => list[index] = object,
            Self::Moved { from, to, object, .. } => {
                drop(list.remove(from));
                list.insert(to, object);
            }
            Self::Removed { index, .. } => drop(list.remove(index)),
            Self::Reset => *list = set.decode(),
        }
    }
}

/// The contents of a [`LiveSet`](crate::LiveSet) at one time, in order.
///
/// It never changes, whatever happens to the set. Making and cloning one takes constant time: it shares the
/// objects and the list with the set and with other snapshots.
///
/// # Examples
/// ```
/// use parse_livequery::Snapshot;
///
/// fn print(games: &Snapshot) {
///     for (place, game) in games.iter().enumerate() {
///         println!("{place}. {:?}", game.get("name"));
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Snapshot(pub(crate) List<Arc<Entry>>);

impl Snapshot {
    pub(crate) fn empty() -> Self {
        Self(List::new())
    }

    /// Returns how many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the object at this position, counted from 0. `snapshot[index]` does the same, but panics if
    /// there is none.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Object> {
        self.0.get(index).map(|entry| entry.object())
    }

    /// Returns the object with this id. This searches from the first object to the last;
    /// [`LiveSet::get`](crate::LiveSet::get) looks it up in an index.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Object> {
        self.at(self.index_of(id)?)
    }

    /// Returns the position of the object with this id. This searches from the first object to the last.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.0.iter().position(|entry| entry.key.id() == id.as_bytes())
    }

    /// Returns all objects as your own type, in order. An object that does not fit is an error of kind
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) in its place; the others are not affected.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Snapshot;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Game {
    ///     name: String,
    /// }
    ///
    /// fn print(games: &Snapshot) {
    ///     for (place, game) in games.decode::<Game>().into_iter().enumerate() {
    ///         match game {
    ///             Ok(game) => println!("{place}. {}", game.name),
    ///             Err(error) => println!("{place}. {:?}: {error}", games[place].id()),
    ///         }
    ///     }
    /// }
    ///
    /// // All or nothing:
    /// fn games(games: &Snapshot) -> parse_livequery::Result<Vec<Game>> {
    ///     games.decode().into_iter().collect()
    /// }
    /// ```
    #[must_use]
    pub fn decode<T: DeserializeOwned>(&self) -> Vec<Result<T>> {
        self.iter().map(Object::decode).collect()
    }

    /// Returns an iterator over the objects, in order.
    #[must_use]
    pub fn iter(&self) -> SnapshotIter<'_> {
        SnapshotIter(self.0.iter())
    }

    /// The position of an object with this key.
    pub(crate) fn find(&self, key: &SortKey) -> Option<usize> {
        self.0.search(|entry| entry.key.cmp(key)).ok()
    }
}

/// The same objects in the same order.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = &'a Object;
    type IntoIter = SnapshotIter<'a>;

    fn into_iter(self) -> SnapshotIter<'a> {
        self.iter()
    }
}

impl Index<usize> for Snapshot {
    type Output = Object;

    /// Returns the object at this position.
    ///
    /// # Panics
    ///
    /// If there is none, as a slice does. [`at`](Self::at) returns `None` in that case.
    #[track_caller]
    #[expect(
        clippy::panic,
        reason = "an index beyond the end is a fault of the program, as with a slice"
    )]
    fn index(&self, index: usize) -> &Object {
        match self.at(index) {
            Some(object) => object,
            None => panic!(
                "the index is {index}, but the live set has {} objects",
                self.len()
            ),
        }
    }
}

impl IntoIterator for Snapshot {
    type Item = Object;
    type IntoIter = SnapshotIntoIter;

    fn into_iter(self) -> SnapshotIntoIter {
        SnapshotIntoIter {
            places: 0..self.len(),
            snapshot: self,
        }
    }
}

/// An iterator over the objects of a [`Snapshot`], in order, as owned values: cloning one takes constant
/// time.
#[derive(Clone, Debug)]
pub struct SnapshotIntoIter {
    snapshot: Snapshot,
    places: Range<usize>,
}

impl Iterator for SnapshotIntoIter {
    type Item = Object;

    fn next(&mut self) -> Option<Object> {
        self.snapshot.at(self.places.next()?).cloned()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl DoubleEndedIterator for SnapshotIntoIter {
    fn next_back(&mut self) -> Option<Object> {
        self.snapshot.at(self.places.next_back()?).cloned()
    }
}

impl ExactSizeIterator for SnapshotIntoIter {}

impl FusedIterator for SnapshotIntoIter {}

/// An iterator over the objects of a [`Snapshot`], in order.
#[derive(Clone, Debug)]
pub struct SnapshotIter<'a>(list::Iter<'a, Arc<Entry>>);

impl<'a> Iterator for SnapshotIter<'a> {
    type Item = &'a Object;

    fn next(&mut self) -> Option<&'a Object> {
        self.0.next().map(|entry| entry.object())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for SnapshotIter<'_> {}

impl FusedIterator for SnapshotIter<'_> {}

/// An object of a set: kept as text until it is read, since a set may hold many.
pub(crate) struct Entry {
    pub(crate) key: SortKey,
    /// When it was saved last.
    version: i64,
    text: Arc<str>,
    object: OnceLock<Object>,
}

impl Entry {
    /// The text is a copy of its own: a frame also contains the original. `find()` omits the name of the
    /// class, which an event has.
    ///
    /// Returns `None` for an object without an id, or of another class.
    pub(crate) fn new(order: &Order, object: &Object, class_name: &str) -> Option<Arc<Self>> {
        let text = object.as_json();
        let key = order.sort_key(text)?;
        let class = Members::new(text).find(|(name, _)| *name == "className");
        let is_other = |(_, name): &(&str, &str)| {
            let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            quoted != Some(class_name) && object.class_name() != Some(class_name)
        };
        if class.as_ref().is_some_and(is_other) {
            return None;
        }
        let text: Arc<str> = match text.trim_start().strip_prefix('{') {
            Some(members) if class.is_none() => {
                format!("{{\"className\":{},{members}", Value::from(class_name)).into()
            }
            _ => text.into(),
        };
        Some(Arc::new(Self {
            key,
            version: version_in(&text),
            text,
            object: OnceLock::new(),
        }))
    }

    /// The same object with another key.
    pub(crate) fn with_key(&self, key: SortKey) -> Self {
        Self {
            key,
            version: self.version,
            text: Arc::clone(&self.text),
            object: self.object.clone(),
        }
    }

    pub(crate) fn object(&self) -> &Object {
        self.object
            .get_or_init(|| Object::from_frame(Arc::clone(&self.text), 0..self.text.len(), None))
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn has_same_content(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text) || self.text == other.text || self.object() == other.object()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object().fmt(f)
    }
}

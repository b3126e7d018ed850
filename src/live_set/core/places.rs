//! Where objects are sorted: by their values or, if those do not decide it, as the server returned them. Must
//! not know what is shown.
//!
//! What databases do differently (see [`Order`]) is learned from the order of the returned objects. If none
//! of them reveal it, and two held objects would be sorted one way or the other, the server is asked which of
//! them comes first.
//!
//! As soon as there is a value whose place only the server knows, the keys of the set are *ranks*: positions
//! in the last result. A new object, or one whose sorted fields change, then has no place until everything is
//! fetched again, in order.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::change::Entry;
use super::{Core, id_of};
use crate::object::Object;
use crate::query::order::{Nulls, Order, SortKey, Tells, differ_by_capitals};

pub(super) struct Places {
    pub(super) order: Arc<Order>,
    nulls_are_known: bool,
    /// Texts are known to be sorted by their bytes.
    texts_are_known: bool,
    /// The types of values that each key has had.
    types: Vec<u8>,
    are_ranks: bool,
    is_by_distance: bool,
    /// Two objects of which it is unknown which one comes first.
    question: Option<[Box<str>; 2]>,
}

/// What the order of the returned objects reveals.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lesson {
    /// The order is as assumed.
    AsThought,
    /// It is sorted like this.
    Nulls(Nulls),
    /// The order is unknown here.
    Foreign,
}

impl Places {
    pub(super) fn new(order: Order) -> Self {
        let has_no_nulls = order.fields().next().is_none();
        Self {
            nulls_are_known: has_no_nulls,
            texts_are_known: false,
            types: Vec::new(),
            are_ranks: false,
            is_by_distance: false,
            question: None,
            order: Arc::new(order),
        }
    }

    /// The order cannot be derived from any value of an object. `by_distance`: it is the order of the query
    /// itself.
    pub(super) fn keep_those_of_server(&mut self, by_distance: bool) {
        self.are_ranks = true;
        self.is_by_distance = by_distance;
    }

    /// As `find()` is asked to sort.
    pub(super) fn for_find(&self) -> Vec<String> {
        if self.is_by_distance {
            return Vec::new();
        }
        self.order.for_find()
    }

    pub(super) fn are_ranks(&self) -> bool {
        self.are_ranks
    }

    pub(super) fn question(&self) -> Option<&[Box<str>; 2]> {
        self.question.as_ref()
    }

    pub(super) fn has_doubts(&self) -> bool {
        self.question.is_some()
    }

    /// Records the values of a key. Returns whether they can be sorted here, among the earlier ones.
    fn can_sort(&mut self, key: &SortKey) -> bool {
        let mut can_sort = !key.is_unknown();
        for (index, found) in self.order.types_in(key).enumerate() {
            match self.types.get_mut(index) {
                Some(types) => {
                    *types |= found;
                    can_sort &= types.count_ones() <= 1;
                }
                None => self.types.push(found),
            }
        }
        can_sort
    }

    /// Whether the order of these two would reveal something that is not known yet.
    fn asks(&self, one: &SortKey, other: &SortKey) -> bool {
        match self.order.tells(one, other) {
            Some(Tells::Nulls) => !self.nulls_are_known,
            Some(Tells::Texts) => !self.texts_are_known,
            None => false,
        }
    }

    /// Learns from objects that the server sorted at one moment, whose keys use the present order.
    fn learn(&mut self, sorted: &[Arc<Entry>]) -> Lesson {
        let mut nulls = None;
        for pair in sorted.windows(2) {
            let [one, other] = pair else { continue };
            let as_thought = one.key < other.key;
            match self.order.tells(&one.key, &other.key) {
                Some(Tells::Nulls) if !self.nulls_are_known => {
                    let before = nulls.replace(as_thought);
                    if before.is_some_and(|before| before != as_thought) {
                        return Lesson::Foreign;
                    }
                }
                Some(Tells::Texts) if as_thought => self.texts_are_known = true,
                _ if !as_thought => return Lesson::Foreign,
                _ => {}
            }
        }
        self.nulls_are_known |= nulls.is_some();
        match (nulls, self.order.nulls) {
            (Some(false), Nulls::Smallest) => Lesson::Nulls(Nulls::Greatest),
            (Some(false), Nulls::Greatest) => Lesson::Nulls(Nulls::Smallest),
            _ => Lesson::AsThought,
        }
    }

    /// Learns from objects that the server sorted by their ids, which are texts. Returns whether ids can be
    /// sorted here.
    fn learn_from_ids(&mut self, sorted: &[Arc<Entry>]) -> bool {
        let telling = sorted
            .iter()
            .zip(sorted.iter().skip(1))
            .map(|(one, other)| (one.key.id(), other.key.id()))
            .find(|(one, other)| differ_by_capitals(one, other))
            .filter(|_| !self.texts_are_known);
        self.texts_are_known |= telling.is_some_and(|(one, other)| one < other);
        telling.is_none_or(|(one, other)| one < other)
    }
}

impl Core {
    /// Learns from the order of a result of everything, before it is put in place. The known order does not
    /// change during a fetch, so the keys use that order.
    pub(super) fn learn_from_page(&mut self, entries: &[Arc<Entry>], by_keys: bool, at_one_moment: bool) {
        if self.places.are_ranks {
            return;
        }
        let can_sort = entries.iter().all(|entry| self.places.can_sort(&entry.key));
        let lesson = if !can_sort || !by_keys && !self.places.learn_from_ids(entries) {
            Lesson::Foreign
        } else if by_keys && at_one_moment {
            self.places.learn(entries)
        } else {
            Lesson::AsThought
        };
        self.heed(lesson);
    }

    /// Two objects were returned of which it was unknown which one comes first.
    pub(super) fn learn_from_pair(&mut self, sorted: &[Arc<Entry>]) {
        let lesson = self.places.learn(sorted);
        self.places.question = None;
        if self.places.are_ranks {
            return;
        }
        self.heed(lesson);
        // Without both nobody knows on which side of the boundary the one is that is left.
        if self.places.are_ranks || self.boundary.is_some() && sorted.len() < 2 {
            self.due.doubt_all();
        }
        self.look_everywhere();
    }

    fn heed(&mut self, lesson: Lesson) {
        match lesson {
            Lesson::AsThought => {}
            Lesson::Nulls(nulls) => self.sort_anew(nulls),
            Lesson::Foreign => self.take_ranks(),
        }
    }

    /// An object was inserted at this place of the held ones: whether the place is right can depend on the
    /// server.
    pub(super) fn look_around(&mut self, index: usize) {
        let places = &self.places;
        if places.are_ranks || places.question.is_some() || places.nulls_are_known && places.texts_are_known {
            return;
        }
        let list = &self.held.list;
        let at = |index: usize| list.get(index);
        let pairs = [
            (index.checked_sub(1), Some(index)),
            (Some(index), index.checked_add(1)),
        ];
        let question = pairs.into_iter().find_map(|(one, other)| {
            let (one, other) = (at(one?)?, at(other?)?);
            places
                .asks(&one.key, &other.key)
                .then(|| [id_of(one), id_of(other)])
        });
        self.places.question = question;
    }

    /// An object is beyond the boundary, as far as is known: whether it is can depend on the server as well.
    pub(super) fn look_beyond(&mut self, entry: &Entry) {
        let places = &self.places;
        let may_be_within = |boundary| !places.are_ranks && places.asks(&entry.key, boundary);
        if !self.boundary.as_ref().is_some_and(may_be_within) {
            return;
        }
        let last = self.held.list.len().checked_sub(1);
        let last = last.and_then(|last| self.held.list.get(last));
        match last.filter(|last| places.question.is_none() && places.asks(&entry.key, &last.key)) {
            Some(last) => self.places.question = Some([id_of(last), id_of(entry)]),
            None => self.due.doubt_all(),
        }
    }

    pub(super) fn look_everywhere(&mut self) {
        self.places.question = None;
        let places = &self.places;
        if places.are_ranks || places.nulls_are_known && places.texts_are_known {
            return;
        }
        let list = &self.held.list;
        let question = list
            .iter()
            .zip(list.iter().skip(1))
            .find(|(one, other)| places.asks(&one.key, &other.key))
            .map(|(one, other)| [id_of(one), id_of(other)]);
        self.places.question = question;
    }

    fn sort_anew(&mut self, nulls: Nulls) {
        self.places.order = Arc::new(self.places.order.with_nulls(nulls));
        let held: Vec<_> = self.held.list.iter().cloned().collect();
        let sorted = held.into_iter().map(|entry| self.in_order(entry)).collect();
        if self.boundary.take().is_some() {
            // The part that is held is one of the other order.
            self.due.doubt_all();
        }
        self.reset(sorted);
    }

    /// The entry, with a key of the present order.
    pub(super) fn in_order(&self, entry: Arc<Entry>) -> Arc<Entry> {
        match self.places.order.sort_key(entry.text()) {
            Some(key) if key != entry.key => Arc::new(entry.with_key(key)),
            _ => entry,
        }
    }

    /// The object of the event, with the key that it is held by. `stays`: it is beyond the boundary, and
    /// stays there.
    pub(super) fn place(&mut self, entry: Arc<Entry>, stays: bool) -> Arc<Entry> {
        if !self.places.are_ranks && !self.places.can_sort(&entry.key) {
            self.take_ranks();
        }
        if !self.places.are_ranks {
            return entry;
        }
        let id = id_of(&entry);
        let held = self.held.get(&id);
        let is_where_it_was = held.is_some_and(|held| self.has_key(held.text(), &entry.key));
        let key = match held {
            Some(held) => held.key.clone(),
            None => entry.key.at_rank(u64::MAX),
        };
        if !is_where_it_was && !stays {
            self.due.doubt_all();
        }
        Arc::new(entry.with_key(key))
    }

    /// With ranks: whether an object that is not held is sorted where it was before, beyond the boundary.
    pub(super) fn stays_beyond(&self, entry: &Entry, original: Option<&Object>) -> bool {
        let was_member = |original: &&Object| self.matches(original) == Some(true);
        self.boundary.is_some()
            && !self.due.has_doubts()
            && self.held.get(&id_of(entry)).is_none()
            && original
                .filter(was_member)
                .is_some_and(|original| self.has_key(original.as_json(), &entry.key))
    }

    fn has_key(&self, text: &str, key: &SortKey) -> bool {
        self.places.order.sort_key(text).as_ref() == Some(key)
    }

    /// From here on, objects have the places that the server gives them. Held objects keep theirs.
    fn take_ranks(&mut self) {
        crate::logging::warn!(
            "the objects of {} are sorted by something that only the server can sort: arrays, objects, values of \
             different types, or texts in the order of a language; the live set asks it again after each change there",
            self.class_name
        );
        self.places.are_ranks = true;
        self.places.question = None;
        let held: Vec<_> = self.held.list.iter().cloned().collect();
        let ranked: Vec<_> = (1..)
            .zip(held)
            .map(|(place, entry)| at_rank(entry, place * GAP))
            .collect();
        if self.boundary.is_some() {
            self.boundary = ranked.last().map(|entry| entry.key.clone());
            self.due.doubt_all();
        }
        self.reset(ranked);
    }

    /// With ranks: gives these objects their places, in the server's order. Held objects that are in this
    /// order already keep theirs, so that an object that has not moved is not reported as moved.
    pub(super) fn rank(&self, sorted: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
        let ranks: Vec<_> = sorted
            .iter()
            .map(|entry| {
                let held = self.held.by_id.get(entry.key.id())?;
                Some(held.0.key.rank()).filter(|rank| *rank < u64::MAX)
            })
            .collect();
        let kept = longest_rise(&ranks);
        let mut places: Vec<u64> = Vec::with_capacity(ranks.len());
        let mut before = 0;
        let mut start = 0;
        // Between two that keep their places, the others share the room.
        for end in kept.iter().copied().chain([ranks.len()]) {
            let moved = (end - start) as u64;
            let next = ranks.get(end).copied().flatten();
            let step = match next {
                Some(next) => (next - before) / (moved + 1),
                None => GAP,
            };
            if step == 0 {
                places = (1..).map(|place| place * GAP).take(ranks.len()).collect();
                break;
            }
            places.extend((1..=moved).map(|place| before + place * step));
            places.extend(next);
            before = places.last().copied().unwrap_or(0);
            start = end + 1;
        }
        sorted
            .into_iter()
            .zip(places)
            .map(|(entry, rank)| at_rank(entry, rank))
            .collect()
    }
}

fn at_rank(entry: Arc<Entry>, rank: u64) -> Arc<Entry> {
    let key = entry.key.at_rank(rank);
    Arc::new(entry.with_key(key))
}

/// The indices of the longest part of these numbers that rises, in order.
pub(super) fn longest_rise(numbers: &[Option<u64>]) -> Vec<usize> {
    // For each length, where the rise of this length ends that ends lowest.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: HashMap<usize, usize> = HashMap::new();
    let number = |index: usize| numbers.get(index).copied().flatten();
    for (index, current) in numbers.iter().enumerate() {
        if current.is_none() {
            continue;
        }
        let length = ends.partition_point(|end| number(*end) < *current);
        if let Some(end) = length.checked_sub(1).and_then(|shorter| ends.get(shorter)) {
            before.insert(index, *end);
        }
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut rise: Vec<_> =
        std::iter::successors(ends.last().copied(), |index| before.get(index).copied()).collect();
    rise.reverse();
    rise
}

/// Between the places of two objects, so that others fit between them.
const GAP: u64 = 1 << 32;

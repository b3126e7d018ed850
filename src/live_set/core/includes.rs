//! The included objects: which objects have them, and which of them are followed. Must not know the contents
//! of an included object: when one changes, the objects that have it are fetched again.
//!
//! A *target* is an object that an included field points to, whether the server returned it or not: if it is
//! deleted or may not be read, the fetched object has a pointer to it, which may be readable later. All
//! targets of a class are followed by one subscription. When there are others, a new subscription takes its
//! place, and the old one ends once that is open, so that no event is missed in between. While a target is
//! not followed, the set is in doubt.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::super::change::Entry;
use super::{Core, Moment, id_of};
use crate::object::Object;

pub(super) struct Includes {
    paths: Vec<Vec<String>>,
    classes: BTreeMap<Box<str>, Class>,
    targets: HashMap<Box<str>, Vec<Target>>,
    /// What events said that objects point to: `find()` leaves out what may not be read.
    told: HashMap<Box<str>, Vec<Target>>,
}

/// Class and id.
type Target = (Box<str>, Box<str>);

#[derive(Default)]
struct Class {
    /// The objects that have each target.
    holders: HashMap<Box<str>, HashSet<Box<str>>>,
    /// Of the newest subscription.
    asked: BTreeSet<Box<str>>,
    number: u64,
    is_pending: bool,
    /// By an open subscription.
    followed: BTreeSet<Box<str>>,
    /// The others.
    missing: BTreeSet<Box<str>>,
}

/// A subscription to the targets of a class that replaces the previous one.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) class_name: Box<str>,
    pub(crate) number: u64,
    /// If empty, there must be no subscription.
    pub(crate) ids: Vec<Box<str>>,
}

impl Includes {
    pub(super) fn new(names: &[String]) -> Option<Self> {
        let path = |name: &String| name.split('.').map(str::to_owned).collect();
        (!names.is_empty()).then(|| Self {
            paths: names.iter().map(path).collect(),
            classes: BTreeMap::new(),
            targets: HashMap::new(),
            told: HashMap::new(),
        })
    }

    /// This object is held.
    fn add(&mut self, id: &str, text: &str) {
        let mut targets = targets_in(text, &self.paths);
        let before = self.targets.get(id);
        if let Some(before) = before.filter(|before| before.iter().any(|target| !targets.contains(target))) {
            // It may have become one that may not be read.
            self.told.entry(id.into()).or_insert_with(|| before.clone());
        }
        self.remove(id);
        targets.extend(self.told.get(id).into_iter().flatten().cloned());
        targets.sort_unstable();
        targets.dedup();
        for (class_name, target) in &targets {
            let class = self.classes.entry(class_name.clone()).or_default();
            let holders = class.holders.entry(target.clone()).or_default();
            holders.insert(id.into());
            if !class.followed.contains(target) {
                class.missing.insert(target.clone());
            }
        }
        if !targets.is_empty() {
            self.targets.insert(id.into(), targets);
        }
    }

    fn remove(&mut self, id: &str) {
        for (class_name, target) in self.targets.remove(id).into_iter().flatten() {
            let Some(class) = self.classes.get_mut(&class_name) else {
                continue;
            };
            if let Some(holders) = class.holders.get_mut(&target) {
                holders.remove(id);
                if holders.is_empty() {
                    class.holders.remove(&target);
                    class.missing.remove(&target);
                }
            }
        }
    }

    fn has_doubts(&self) -> bool {
        self.classes.values().any(|class| !class.missing.is_empty())
    }

    fn due(&mut self) -> Vec<Following> {
        let mut due = Vec::new();
        for (class_name, class) in &mut self.classes {
            let wanted = class.holders.len();
            let is_missing = || class.missing.iter().any(|id| !class.asked.contains(id));
            let is_large = class.asked.len() > wanted * 2 + SPARE || wanted == 0 && !class.asked.is_empty();
            if class.is_pending || !is_large && !is_missing() {
                continue;
            }
            class.asked = class.holders.keys().cloned().collect();
            class.number += 1;
            class.is_pending = wanted > 0;
            if wanted == 0 {
                class.follow(BTreeSet::new());
            }
            due.push(Following {
                class_name: class_name.clone(),
                number: class.number,
                ids: class.asked.iter().cloned().collect(),
            });
        }
        due
    }
}

impl Class {
    /// Follows these from now on, and no others.
    fn follow(&mut self, ids: BTreeSet<Box<str>>) {
        let holders = self.holders.keys();
        self.missing = holders.filter(|id| !ids.contains(*id)).cloned().collect();
        self.followed = ids;
    }
}

impl Core {
    /// The subscriptions that are needed for the included objects.
    pub(crate) fn next_includes(&mut self) -> Vec<Following> {
        self.includes.as_mut().map(Includes::due).unwrap_or_default()
    }

    /// The subscription of this number to targets of a class is open.
    pub(crate) fn include_opened(&mut self, class_name: &str, number: u64, now: Moment) {
        let class = self
            .includes
            .as_mut()
            .and_then(|includes| includes.classes.get_mut(class_name));
        let Some(class) = class.filter(|class| class.number == number) else {
            return;
        };
        class.is_pending = false;
        // What happened to these before is not known.
        let new = class.asked.difference(&class.followed);
        let holders: Vec<_> = new
            .filter_map(|id| class.holders.get(id))
            .flatten()
            .cloned()
            .collect();
        class.follow(class.asked.clone());
        self.doubt_holders(holders, now.at);
        self.settle(now.time);
    }

    /// No events of the targets of a class come any more.
    pub(crate) fn include_closed(&mut self, class_name: &str, number: u64, now: Moment) {
        let class = self
            .includes
            .as_mut()
            .and_then(|includes| includes.classes.get_mut(class_name));
        if let Some(class) = class {
            class.follow(BTreeSet::new());
            class.is_pending |= class.number == number;
        }
        self.settle(now.time);
    }

    /// Something happened to a target, or, without an id, may have happened to any of a class.
    pub(crate) fn include_changed(&mut self, class_name: &str, id: Option<&str>, now: Moment) {
        let class = self
            .includes
            .as_ref()
            .and_then(|includes| includes.classes.get(class_name));
        let holders: Vec<_> = match (class, id) {
            (Some(class), Some(id)) => class.holders.get(id).into_iter().flatten().cloned().collect(),
            (Some(class), None) => class.holders.values().flatten().cloned().collect(),
            (None, _) => Vec::new(),
        };
        self.doubt_holders(holders, now.at);
        self.settle(now.time);
    }

    fn doubt_holders(&mut self, holders: Vec<Box<str>>, now: Instant) {
        if !holders.is_empty() {
            self.due.count_event();
        }
        if holders.len() > MANY || self.asks_again && !holders.is_empty() {
            self.due.doubt_all_soon(now);
        } else {
            holders.iter().for_each(|id| self.due.doubt(id, now));
        }
    }

    pub(super) fn include_doubts(&self) -> bool {
        self.includes.as_ref().is_some_and(Includes::has_doubts)
    }

    /// This object is held from now on, in this version.
    pub(super) fn include_held(&mut self, id: &str, entry: &Entry) {
        if let Some(includes) = &mut self.includes {
            includes.add(id, entry.text());
        }
    }

    /// This object is not held any more.
    pub(super) fn include_dropped(&mut self, id: &str) {
        if let Some(includes) = &mut self.includes {
            includes.remove(id);
            includes.told.remove(id);
        }
    }

    /// Other objects are held than before.
    pub(super) fn include_reset(&mut self) {
        let Some(includes) = &mut self.includes else {
            return;
        };
        let is_held = |id: &str| self.held.get(id).is_some();
        let dropped: Vec<_> = includes
            .targets
            .keys()
            .filter(|id| !is_held(id))
            .cloned()
            .collect();
        dropped.iter().for_each(|id| includes.remove(id));
        includes.told.retain(|id, _| is_held(id));
        for entry in self.held.list.iter() {
            includes.add(&id_of(entry), entry.text());
        }
    }

    /// The object of an event, with the included objects in place of its pointers: those that are held with
    /// the same pointers. `None` if one of them is not held.
    pub(super) fn with_included(&mut self, id: &str, told: Arc<Entry>) -> Option<Arc<Entry>> {
        let Some(includes) = &mut self.includes else {
            return Some(told);
        };
        includes
            .told
            .insert(id.into(), targets_in(told.text(), &includes.paths));
        let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
        let held = self.held.get(id).and_then(|held| parse(held.text()));
        let mut value = parse(told.text())?;
        let members = value.as_object_mut()?;
        for path in &includes.paths {
            let name = path.first()?;
            let names: Vec<String> = match &**name {
                "*" => members.keys().cloned().collect(),
                name => vec![name.to_owned()],
            };
            for name in names {
                let Some(told) = members.get_mut(&name).filter(|told| has_pointer(told)) else {
                    continue;
                };
                let known = held.as_ref()?.get(&name)?;
                if with_pointers(known) != *told {
                    return None;
                }
                *told = known.clone();
            }
        }
        let whole = Object::from_json(value).ok()?;
        Entry::new(&self.places.order, &whole, &self.class_name)
    }
}

/// What the paths lead to, as far as it is an object or a pointer to one.
fn targets_in(text: &str, paths: &[Vec<String>]) -> Vec<Target> {
    let mut targets = Vec::new();
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        paths.iter().for_each(|path| walk(&value, path, &mut targets));
    }
    targets
}

fn walk(value: &Value, path: &[String], targets: &mut Vec<Target>) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    let found: Vec<&Value> = match (&**name, value) {
        (_, Value::Array(items)) => return items.iter().for_each(|item| walk(item, path, targets)),
        ("*", Value::Object(members)) => members.values().collect(),
        (name, value) => value.get(name).into_iter().collect(),
    };
    for value in found {
        note(value, targets);
        walk(value, rest, targets);
    }
}

fn note(value: &Value, targets: &mut Vec<Target>) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| note(item, targets));
    }
    let text = |name| value.get(name).and_then(Value::as_str);
    if let (Some("Object" | "Pointer"), Some(class_name), Some(id)) =
        (text("__type"), text("className"), text("objectId"))
    {
        targets.push((class_name.into(), id.into()));
    }
}

fn has_pointer(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_pointer),
        Value::Object(members) => {
            members.get("__type").and_then(Value::as_str) == Some("Pointer")
                || members.values().any(has_pointer)
        }
        _ => false,
    }
}

/// The value, with pointers in place of whole objects: as an event has it.
fn with_pointers(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(with_pointers).collect(),
        Value::Object(members) if members.get("__type").and_then(Value::as_str) == Some("Object") => {
            let member = |name: &str| members.get(name).cloned().unwrap_or_default();
            serde_json::json!({
                "__type": "Pointer", "className": member("className"), "objectId": member("objectId"),
            })
        }
        Value::Object(members) => {
            let members = members.iter();
            Value::Object(
                members
                    .map(|(name, value)| (name.clone(), with_pointers(value)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// More holders than these are fetched with everything else.
const MANY: usize = 100;
/// So many objects may be followed that nothing points to any more.
const SPARE: usize = 16;

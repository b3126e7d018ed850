//! Objects, and which subscribers are notified when they change. Must not know of sockets.
//!
//! A port of `_onAfterSave` and `_onAfterDelete` of Parse Server 9.10, `ParseLiveQueryServer.js`.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::SystemTime;

use rand::distr::SampleString;
use serde_json::{Map, Value};
use tungstenite::Message;

use super::ops;
use super::relations;
use super::state::{Fields, State, Subscription, frame_start};
use crate::query::matcher::{Matcher, Verdict};
use crate::types::Date;

impl State {
    pub(super) fn create(&mut self, class_name: &str, fields: Fields) -> String {
        let now = now();
        let mut object = Fields::new();
        object.insert(String::from("objectId"), Value::from(object_id()));
        let relating = relations::changes(&fields);
        for (name, value) in fields {
            change(&mut object, &name, value);
        }
        object.insert(String::from("className"), Value::from(class_name));
        for time in ["createdAt", "updatedAt"] {
            object.entry(time).or_insert_with(|| Value::from(now.as_str()));
        }
        let id = match object.get("objectId") {
            Some(Value::String(id)) => id.clone(),
            _ => String::new(),
        };
        close_rings(&mut object);
        let kept = Arc::new(self.kept(object.clone()));
        self.relate(class_name, &id, relating);
        let class = self.classes.entry(class_name.to_owned()).or_default();
        class.next += 1;
        class.objects.insert(id.clone(), (class.next, kept));
        self.saved(class_name, None, &object);
        id
    }

    /// `false` if there is no such object.
    pub(super) fn update(&mut self, class_name: &str, id: &str, fields: Fields) -> bool {
        let class = self.classes.get(class_name);
        let Some(original) = class.and_then(|class| class.get(id)).map(Arc::clone) else {
            return false;
        };
        let mut object = Fields::clone(&original);
        object.insert(String::from("updatedAt"), Value::from(now()));
        let relating = relations::changes(&fields);
        for (name, value) in fields {
            change(&mut object, &name, value);
        }
        self.relate(class_name, id, relating);
        let mut kept = self.kept(object.clone());
        close_rings(&mut kept);
        let class = self.classes.get_mut(class_name);
        if let Some((_, stored)) = class.and_then(|class| class.objects.get_mut(id)) {
            *stored = Arc::new(kept);
        }
        // The event has polygons as they were written.
        self.saved(class_name, Some(&original), &object);
        true
    }

    /// The form in which the database keeps an object.
    fn kept(&self, mut object: Fields) -> Fields {
        if self.drops_nulls {
            object.retain(|_, value| !value.is_null());
        }
        object
    }

    /// `false` if there is no such object.
    pub(super) fn delete(&mut self, class_name: &str, id: &str) -> bool {
        let class = self.classes.get_mut(class_name);
        let Some((_, object)) = class.and_then(|class| class.objects.remove(id)) else {
            return false;
        };
        let text = Text::new(&object);
        for subscription in self
            .subscriptions
            .get(class_name)
            .into_iter()
            .flat_map(|of_class| of_class.values())
        {
            if matches(&subscription.matcher, &object) == Some(true) && self.may_read(subscription, &object) {
                self.push(subscription, "delete", &text, None);
            }
        }
        true
    }

    fn saved(&self, class_name: &str, original: Option<&Fields>, object: &Fields) {
        let text = Text::new(object);
        let original_text = original.map(Text::new);
        for subscription in self
            .subscriptions
            .get(class_name)
            .into_iter()
            .flat_map(|of_class| of_class.values())
        {
            // If the matcher throws, the subscription is skipped.
            let Some(original_matches) =
                original.map_or(Some(false), |original| matches(&subscription.matcher, original))
            else {
                continue;
            };
            let Some(matches) = matches(&subscription.matcher, object) else {
                continue;
            };
            let readable = self.may_read(subscription, object);
            let original_readable = original.is_some_and(|original| self.may_read(subscription, original));
            let op = match (original_matches && original_readable, matches && readable) {
                (true, true) => "update",
                (true, false) => "leave",
                (false, true) if original.is_some() => "enter",
                (false, true) => "create",
                (false, false) => continue,
            };
            if matches!(op, "create" | "update") && !watched(subscription, original, object) {
                continue;
            }
            // What a subscriber may not read is not sent: a `leave` because the right to read was lost has
            // the object as it was, and an `enter` because it was gained has no original.
            let (sent, sent_original) = match op {
                "leave" if !readable => (original_text.as_ref().unwrap_or(&text), original_text.as_ref()),
                "enter" if !original_readable => (&text, None),
                _ => (&text, original_text.as_ref()),
            };
            self.push(subscription, op, sent, sent_original);
        }
    }

    fn push(&self, subscription: &Subscription, op: &str, object: &Text<'_>, original: Option<&Text<'_>>) {
        let keys = subscription.keys.as_deref();
        let mut frame = frame_start(op, &subscription.client, Some(subscription.request_id));
        frame.push_str(r#","object":"#);
        object.write(keys, &mut frame);
        if let Some(original) = original {
            frame.push_str(r#","original":"#);
            original.write(keys, &mut frame);
        }
        frame.push('}');
        self.send(subscription.connection, Message::text(frame));
    }

    fn may_read(&self, subscription: &Subscription, object: &Fields) -> bool {
        let mut tokens = [&subscription.session_token, &subscription.client.session_token]
            .into_iter()
            .flatten();
        subscription.client.has_master_key
            || may(object, &[], "read")
            || tokens.any(|token| {
                let user = self.user_of(token);
                user.is_some_and(|user| may(object, &self.groups_of(user), "read"))
            })
    }
}

/// `_matchesACL`: without an ACL, everyone may.
pub(super) fn may(object: &Fields, groups: &[String], right: &str) -> bool {
    let Some(Value::Object(acl)) = object.get("ACL") else {
        return true;
    };
    let may = |who: &str| acl.get(who).and_then(|rights| rights.get(right)) == Some(&Value::Bool(true));
    may("*") || groups.iter().any(|group| may(group))
}

/// `None` if the server's matcher throws, or if this server cannot tell what it does.
pub(super) fn matches(matcher: &Matcher, object: &Fields) -> Option<bool> {
    let verdict = matcher.matches_object(object);
    match (verdict.may_be(Verdict::MATCH), verdict.may_be(Verdict::NO_MATCH)) {
        (true, true) => {
            crate::logging::error!(
                "the test server cannot judge a condition for the object {:?}, and sends no event",
                object.get("objectId")
            );
            None
        }
        (matches, no_match) => (matches || no_match).then_some(matches),
    }
}

/// A polygon is stored closed, with its first corner again at the end (MongoStorageAdapter.js,
/// PostgresStorageAdapter.js).
fn close_rings(object: &mut Fields) {
    for value in object.values_mut() {
        if value.get("__type").and_then(Value::as_str) != Some("Polygon") {
            continue;
        }
        if let Some(Value::Array(ring)) = value.get_mut("coordinates") {
            if ring.first() != ring.last() {
                ring.extend(ring.first().cloned());
            }
        }
    }
}

/// `_checkWatchFields`: whether one of the watched fields differs.
fn watched(subscription: &Subscription, original: Option<&Fields>, object: &Fields) -> bool {
    let Some(watch) = &subscription.watch else {
        return true;
    };
    watch.iter().filter(|name| *name != "objectId").any(|name| {
        let before = original.and_then(|original| original.get(name));
        match (before, object.get(name)) {
            (None, None) => false,
            // Pointers become `Parse.Object`s and relations refer to one, and no two of those are ever equal.
            (Some(before), Some(after)) => holds_instance(after) || !same(before, after),
            _ => true,
        }
    })
}

fn holds_instance(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_instance),
        Value::Object(members) => match members.get("__type").and_then(Value::as_str) {
            Some("Pointer" | "Object" | "Relation") => true,
            _ => members.values().any(holds_instance),
        },
        _ => false,
    }
}

/// Equality with JavaScript's numbers: 1 equals 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(_), Value::Number(_)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one.0 == other.0 && same(one.1, other.1))
        }
        _ => one == other,
    }
}

/// An object as JSON, serialized once for all subscribers that get the whole of it.
struct Text<'o> {
    object: &'o Fields,
    whole: OnceCell<String>,
}

impl<'o> Text<'o> {
    fn new(object: &'o Fields) -> Self {
        Self {
            object,
            whole: OnceCell::new(),
        }
    }

    fn write(&self, keys: Option<&[String]>, frame: &mut String) {
        let Some(keys) = keys else {
            frame.push_str(self.whole.get_or_init(|| json(self.object)));
            return;
        };
        let always = ["className", "objectId", "updatedAt", "createdAt", "ACL"];
        let names = always.into_iter().chain(keys.iter().map(String::as_str));
        let limited: Map<_, _> = names
            .filter_map(|name| Some((name.to_owned(), self.object.get(name)?.clone())))
            .collect();
        frame.push_str(&json(&limited));
    }
}

fn json(object: &Fields) -> String {
    // Serializing a map of values cannot fail.
    serde_json::to_string(object).unwrap_or_default()
}

/// Sets a field at the request of the test; a mistake is reported in the log.
fn change(object: &mut Fields, name: &str, value: Value) {
    if let Err(problem) = ops::apply(object, name, value) {
        crate::logging::warn!("test server: {name} stays as it is: {problem}");
    }
}

/// Ten letters and digits, as Parse Server makes them.
pub(super) fn object_id() -> String {
    rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 10)
}

pub(super) fn now() -> String {
    Date::from(SystemTime::now()).to_string()
}

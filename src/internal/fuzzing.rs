//! The functions that the fuzz targets call with arbitrary input. A broken promise panics. Not part of the
//! API: it knows the internals of the crate.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "it is there to fail"
)]

use serde_json::Value;

use crate::driver::event_of;
use crate::event::Event;
use crate::object::Object;
use crate::protocol::incoming::{Message, Reader};
use crate::protocol::session::world::{Answer, Step, World};
use crate::protocol::spec::Spec;
use crate::query::Query;
use crate::types::{Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation};

/// A frame of the server: it is read as serde_json reads it, or it is an error.
pub fn frame(text: &str) {
    let mut reader = Reader::default();
    match reader.read(text) {
        Ok(Message::Event { frame, .. }) => {
            let event = event_of(frame, reader.outline(), text);
            let (client_id, installation_id) = (event.client_id(), event.installation_id());
            let _ = format!("{event:?} {client_id:?} {installation_id:?}");
            for object in [event.object(), event.original()].into_iter().flatten() {
                look_at(object);
            }
            let changed = event.changed_keys();
            if let (Some(object), Some(original)) = (event.object(), event.original()) {
                // A value that cannot be decoded counts as absent, but it may differ.
                for key in changed {
                    let differs = object.get(key) != original.get(key);
                    assert!(
                        differs || object.get(key).is_none(),
                        "`{key}` did not change: {text}"
                    );
                }
            }
        }
        Ok(message) => drop(format!("{message:?}")),
        Err(error) => drop(format!("{error} {error:?}")),
    }
}

fn look_at(object: &Object) {
    let whole: Result<Value, _> = serde_json::from_str(object.as_json());
    if let Ok(whole) = whole {
        assert_eq!(object.to_json(), whole);
        if let Value::Object(members) = &whole {
            assert_eq!(object.len(), members.len());
            for (key, value) in members {
                assert_eq!(object.get(key), Some(value), "`{key}`");
            }
        }
    }
    let _ = (
        object.id(),
        object.class_name(),
        object.created_at(),
        object.updated_at(),
    );
    let _ = (object.acl(), object.iter().count(), object.is_empty());
    for key in object.keys() {
        let _ = object.get_as::<Date>(key).map(|date| date.to_string());
        let _ = object
            .get_as::<GeoPoint>(key)
            .map(|point| point.kilometers_to(point));
        let _ = object.get_as::<Polygon>(key).map(|polygon| {
            let corner = polygon.coordinates().first().copied();
            corner.map(|corner| polygon.contains(corner))
        });
        let _ = object.get_as::<Bytes>(key);
        let _ = object.get_as::<Pointer>(key);
        let _ = object.get_as::<File>(key);
        let _ = object.get_as::<Relation>(key);
        let _ = object.get_as::<Acl>(key);
        let _ = object
            .get_as::<Option<i64>>(key)
            .map_err(|error| error.to_string());
    }
}

/// The life of a session: the bytes decide what happens next. In the end, the server has what is wanted.
pub fn session(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new();
    while let Some(step) = input.step() {
        world.take(&step);
    }
    world.settle();
}

/// A query in its REST form and, after a line break, an object.
pub fn query(text: &str) {
    let (query, object) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(json) = serde_json::from_str::<Value>(query) else {
        return;
    };
    let object: Option<Object> = object.parse().ok();
    let built = Query::from_json("Class", &json);
    if let Ok(query) = &built {
        let rest = query.to_json().unwrap();
        let again = Query::from_json("Class", serde_json::from_str::<Value>(&rest).unwrap()).unwrap();
        assert_eq!(again.to_json().unwrap(), rest);
    }
    let conditions = json.get("where").unwrap_or(&json);
    for query in built
        .into_iter()
        .chain([Query::new("Class").raw_where(conditions)])
    {
        judge(&query, object.as_ref());
        judge(&query.allow_unsupported(), object.as_ref());
    }
}

fn judge(query: &Query, object: Option<&Object>) {
    let Ok(encoded) = query.encode() else {
        return;
    };
    let sent: Value = serde_json::from_str(&encoded.where_json).unwrap();
    assert!(sent.is_object(), "{sent}");
    let Some(object) = object else {
        return;
    };
    let matches = query.matches_object(object).unwrap();
    let frame = format!(r#"{{"op":"create","requestId":1,"object":{}}}"#, object.as_json());
    let mut reader = Reader::default();
    let Ok(Message::Event { frame: parts, .. }) = reader.read(&frame) else {
        return;
    };
    let event: Event = event_of(parts, reader.outline(), &frame);
    let may_come = Spec::new(encoded, None, 0).may_bring(&event);
    assert!(
        may_come || matches != Some(true),
        "{sent} matches {}",
        object.as_json()
    );
}

/// The bytes, as long as any are left.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = [self.byte()?, self.byte()?, self.byte()?, 0];
        Some(u32::from_le_bytes(bytes))
    }

    fn step(&mut self) -> Option<Step> {
        Some(match self.byte()? % 18 {
            0 => Step::Open,
            1 => Step::Close,
            2 => Step::Subscribe(self.byte()?),
            3 => Step::Update(self.byte()?.into(), self.byte()?),
            4 => Step::Unsubscribe(self.byte()?.into()),
            5 => Step::SetToken(self.byte()?),
            6 => Step::ReconnectNow,
            7 => Step::Advance,
            8 => Step::Lose,
            9 => Step::Pass(self.number()? % 40_000),
            10 => Step::Sleep(self.number()? % 3_600_000),
            11 => {
                let answer = match self.byte()? % 4 {
                    0 => Answer::Refuse,
                    1 => Answer::RefuseWithoutId,
                    _ => Answer::Ok,
                };
                Step::Answer(self.byte()?.into(), answer)
            }
            12 => Step::Event(self.byte()?.into()),
            13 => Step::End(self.byte()?.into()),
            14 => Step::Age(self.byte()?),
            15 => Step::Pause,
            16 => Step::Resume,
            _ => {
                let length = usize::from(self.byte()?).min(self.0.len());
                let (text, rest) = self.0.split_at(length);
                self.0 = rest;
                Step::Text(String::from_utf8_lossy(text).into_owned())
            }
        })
    }
}

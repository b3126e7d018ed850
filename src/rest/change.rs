//! One change of an object: the request, and what is known about the object once the change is made. It knows
//! nothing about sessions, or about requests over the network.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::rest::http::Method;
use crate::rest::op::applied_to_nothing;

/// A change to request from the server.
#[derive(Clone, Debug)]
pub(super) struct Change {
    class_name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Create(Map<String, Value>),
    Update(String, Map<String, Value>),
    Delete(String),
}

impl Change {
    pub(super) fn create(class_name: &str, object: &(impl Serialize + ?Sized)) -> Result<Self> {
        let fields = fields("object to create", object)?;
        Self::new(class_name, Kind::Create(fields))
    }

    pub(super) fn update(class_name: &str, id: &str, changes: &(impl Serialize + ?Sized)) -> Result<Self> {
        let fields = fields("changes", changes)?;
        Self::new(class_name, Kind::Update(object_id(id)?.to_owned(), fields))
    }

    pub(super) fn delete(class_name: &str, id: &str) -> Result<Self> {
        Self::new(class_name, Kind::Delete(object_id(id)?.to_owned()))
    }

    pub(super) fn class_name(&self) -> &str {
        &self.class_name
    }

    pub(super) fn method(&self) -> Method {
        match self.kind {
            Kind::Create(_) => Method::Post,
            Kind::Update(..) => Method::Put,
            Kind::Delete(_) => Method::Delete,
        }
    }

    pub(super) fn path(&self) -> Vec<&str> {
        let class = ["classes", &self.class_name];
        class.into_iter().chain(self.id()).collect()
    }

    pub(super) fn body(&self) -> Option<String> {
        self.fields().map(|fields| json!(fields).to_string())
    }

    /// The change as one of several, below this path.
    pub(super) fn in_batch(&self, mount: &str) -> Value {
        json!({
            "method": self.method().as_str(),
            "path": format!("{}/{}", mount.trim_end_matches('/'), self.path().join("/")),
            "body": self.fields().cloned().unwrap_or_default(),
        })
    }

    /// For "the server did not ...".
    pub(super) fn purpose(&self) -> String {
        let class_name = &self.class_name;
        match &self.kind {
            Kind::Create(_) => format!("create an object of {class_name}"),
            Kind::Update(id, _) => format!("update the object {id} of {class_name}"),
            Kind::Delete(id) => format!("delete the object {id} of {class_name}"),
        }
    }

    /// What is known about the object after this answer.
    pub(super) fn made(self, answer: Map<String, Value>) -> Map<String, Value> {
        let mut known: Map<_, _> = match self.kind {
            Kind::Create(fields) => {
                let fields = fields.into_iter();
                fields
                    .filter_map(|(name, value)| Some((name, applied_to_nothing(value)?)))
                    .collect()
            }
            Kind::Update(id, fields) => {
                let values = fields
                    .into_iter()
                    .filter(|(_, value)| value.get("__op").is_none());
                values.chain([("objectId".to_owned(), id.into())]).collect()
            }
            Kind::Delete(id) => Map::from_iter([("objectId".to_owned(), id.into())]),
        };
        known.extend(answer);
        if let Some(created) = known.get("createdAt").cloned() {
            known.entry("updatedAt").or_insert(created);
        }
        known.insert("className".to_owned(), self.class_name.into());
        known
    }

    fn new(class_name: &str, kind: Kind) -> Result<Self> {
        Ok(Self {
            class_name: class(class_name)?.to_owned(),
            kind,
        })
    }

    fn id(&self) -> Option<&str> {
        match &self.kind {
            Kind::Create(_) => None,
            Kind::Update(id, _) | Kind::Delete(id) => Some(id),
        }
    }

    fn fields(&self) -> Option<&Map<String, Value>> {
        match &self.kind {
            Kind::Create(fields) | Kind::Update(_, fields) => Some(fields),
            Kind::Delete(_) => None,
        }
    }
}

/// The members of a value to send.
pub(super) fn fields(what: &str, value: &(impl Serialize + ?Sized)) -> Result<Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => {
            let text = format!("the {what} must be a JSON object: a struct or a map");
            Err(Error::new(ErrorKind::InvalidValue, text))
        }
        Err(error) => {
            let text = format!("the {what} cannot be written as JSON");
            Err(Error::with_source(ErrorKind::InvalidValue, text, error))
        }
    }
}

pub(super) fn class(name: &str) -> Result<&str> {
    part("name of a class", name)
}

pub(super) fn object_id(id: &str) -> Result<&str> {
    part("id of an object", id)
}

/// A part of a path, which must not lead elsewhere.
pub(super) fn part<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        let text = format!("{name:?} cannot be the {what}");
        return Err(Error::new(ErrorKind::InvalidValue, text));
    }
    Ok(name)
}

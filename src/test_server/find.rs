//! How the server answers `find()`: with the objects that match a query, in its order. Must not know of
//! LiveQuery and HTTP.

use serde_json::Value;

use super::caller::{Caller, Refusal};
use super::hub::Hub;
use super::state::{Class, Fields, State};
use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::query::matcher::{Matcher, Verdict};
use crate::query::order::Order;
use crate::query::{ALWAYS_SENT, Query};

impl State {
    /// Counts a `find()`, which may have to fail.
    pub(super) fn begin_find(&mut self) -> Result<(), Refusal> {
        self.finds += 1;
        match self.hooks.finds {
            Some(status) => Err(Refusal::new(status, None, "the test server was told to fail")),
            None => Ok(()),
        }
    }

    /// The objects that match the query and that this caller may read, and how many there would be without
    /// limit and skip.
    pub(super) fn find(&self, query: &Query, caller: &Caller) -> Result<(Vec<Value>, usize), Refusal> {
        let invalid = |text: String| Refusal::new(400, Some(102), text);
        let query = &self.without_relations(query)?;
        // In the form in which the LiveQuery matcher answers as a database does.
        let conditions = self
            .with_inner_found(query, caller)?
            .encode_conditions_for(None)
            .map_err(|error| invalid(error.to_string()))?;
        let matcher = Matcher::parse(&conditions.where_json).map_err(|error| invalid(error.to_string()))?;
        let class = self.classes.get(query.class_name());
        let mut found = Vec::new();
        for object in class.map(Class::objects).unwrap_or_default() {
            if !caller.may_read(&object) {
                continue;
            }
            match matcher.matches_object(&object) {
                Verdict::MATCH => found.push(Value::Object(Fields::clone(&object))),
                Verdict::NO_MATCH => {}
                _ => {
                    let id = object.get("objectId").unwrap_or(&Value::Null);
                    return Err(invalid(format!(
                        "the test server cannot judge a condition for the object {id}"
                    )));
                }
            }
        }
        let number = found.len();
        let window = query.window();
        if !window.order.is_empty() {
            let order = Order::new(window.order);
            found.sort_by_cached_key(|object| order.sort_key(&object.to_string()));
        }
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let page = found
            .into_iter()
            .skip(count(window.skip))
            .take(count(window.limit.unwrap_or(DEFAULT_LIMIT)));
        let mut page: Vec<_> = page.map(|object| project(object, query)).collect();
        self.include(&mut page, query.included(), caller);
        Ok((page, number))
    }
}

/// The object without the fields that the query does not select.
fn project(mut object: Value, query: &Query) -> Value {
    let (selected, excluded) = query.projection();
    if let Value::Object(members) = &mut object {
        members.retain(|name, _| {
            let is_selected = selected.is_none_or(|names| names.iter().any(|selected| selected == name));
            let is_excluded = excluded.iter().any(|excluded| excluded == name);
            ALWAYS_SENT.contains(&name.as_str()) || is_selected && !is_excluded
        });
    }
    object
}

impl Hub {
    /// [`State::find`] for the test itself: regardless of ACLs.
    pub(super) fn find(&self, query: &Query) -> Result<Vec<Object>> {
        let found = self
            .change(|state| {
                state.begin_find()?;
                state.find(query, &Caller::master())
            })
            .map_err(|refusal: Refusal| {
                let text = format!("HTTP {}: {}", refusal.status, refusal.text);
                match refusal.code {
                    Some(code) => Error::server(ErrorKind::Fetch, code, text),
                    None => Error::new(ErrorKind::Fetch, text),
                }
            })?;
        found.0.into_iter().map(Object::from_json).collect()
    }
}

/// Of Parse Server 9.10.
const DEFAULT_LIMIT: u64 = 100;

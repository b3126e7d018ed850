//! Which objects: the class and the conditions that most commands take. It knows nothing about servers.

use clap::Args;
use parse_livequery::Query;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exit::Failure;

#[derive(Args)]
pub(crate) struct Filter {
    /// The class
    pub(crate) class: String,

    /// Only objects that match these conditions, written as in Parse's REST API
    ///
    /// They have the same meaning as in a database query, or are refused: the server's LiveQuery matcher
    /// disagrees with its database in places, so it gets them in a form that it evaluates correctly.
    #[arg(long = "where", value_name = "JSON", value_parser = json)]
    condition: Option<Box<RawValue>>,
}

impl Filter {
    pub(crate) const fn new(class: String, condition: Option<Box<RawValue>>) -> Self {
        Self { class, condition }
    }

    /// # Errors
    /// The conditions are not valid.
    pub(crate) fn query(&self) -> Result<Query, Failure> {
        #[derive(Serialize)]
        struct RestForm<'a> {
            r#where: &'a RawValue,
        }

        Ok(match &self.condition {
            Some(condition) => Query::from_json(&self.class, RestForm { r#where: condition })?,
            None => Query::new(&self.class),
        })
    }
}

/// How the objects are sorted.
#[derive(Args)]
pub(crate) struct Order {
    /// Sort by these fields; a dash before a field means descending
    #[arg(
        id = "order",
        long = "order",
        value_name = "[-]FIELD,..",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub(crate) keys: Vec<String>,
}

impl Order {
    pub(crate) fn of(&self, query: Query) -> Query {
        self.keys
            .iter()
            .fold(query, |query, key| match key.strip_prefix('-') {
                Some(key) => query.add_descending([key]),
                None => query.add_ascending([key.as_str()]),
            })
    }
}

pub(crate) fn json(text: &str) -> serde_json::Result<Box<RawValue>> {
    serde_json::from_str(text)
}

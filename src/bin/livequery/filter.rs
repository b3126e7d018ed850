//! Which objects: the class and the conditions that most commands take. Knows no server.

use clap::Args;
use parse_livequery::Query;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exit::Failure;

#[derive(Args)]
pub(crate) struct Filter {
    /// The class
    pub(crate) class: String,

    /// Only objects that meet these conditions, written as in Parse's REST API
    ///
    /// They mean what they mean in a query to the database, or are refused: the server's LiveQuery matcher disagrees
    /// with its database in places, and is asked in a form that it gets right.
    #[arg(long = "where", value_name = "JSON", value_parser = json)]
    condition: Option<Box<RawValue>>,
}

impl Filter {
    pub(crate) const fn new(class: String, condition: Option<Box<RawValue>>) -> Self {
        Self { class, condition }
    }

    /// # Errors
    /// Conditions that are none.
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

/// The order that `--order a,-b` asks for: a dash stands before what is descending.
pub(crate) fn ordered(query: Query, keys: &[String]) -> Query {
    keys.iter().fold(query, |query, key| match key.strip_prefix('-') {
        Some(key) => query.add_descending([key]),
        None => query.add_ascending([key.as_str()]),
    })
}

pub(crate) fn json(text: &str) -> serde_json::Result<Box<RawValue>> {
    serde_json::from_str(text)
}

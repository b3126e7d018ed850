//! Queries (stub until the builder lands).
pub(crate) mod matcher;

/// A query.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Query {
    c: String,
}
#[derive(Clone, Debug)]
pub(crate) struct EncodedQuery {
    pub(crate) class_name: Box<str>,
    pub(crate) where_json: Box<str>,
    pub(crate) keys: Option<Box<str>>,
    pub(crate) watch: Option<Box<str>>,
}
impl Query {
    pub fn new(c: &str) -> Self {
        Self { c: c.into() }
    }
    pub(crate) fn encode(&self) -> crate::Result<EncodedQuery> {
        Ok(EncodedQuery {
            class_name: self.c.as_str().into(),
            where_json: "{}".into(),
            keys: None,
            watch: None,
        })
    }
}

//! Queries: what the user writes, and the form in which the LiveQuery server understands it.
pub(crate) mod matcher;

/// A query.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Query {}

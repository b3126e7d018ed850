//! The constraints that a user puts on a query, name for name those of the JS SDK's `Parse.Query`. They only note
//! down what was asked; what LiveQuery makes of it is decided when the query is encoded.

use serde::Serialize;

use super::Query;
use super::json::Json;

impl Query {
    /// The field equals the value, or is an array that contains it.
    ///
    /// `None` and null stand for a field that is null or missing.
    #[must_use]
    pub fn equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.with(|query| {
            let value = Json::of(value).map_err(|error| super::not_serialized(key, &error))?;
            query.filter.equal(key, value)
        })
    }

    /// The field does not equal the value and is no array that contains it; it may be missing.
    #[must_use]
    pub fn not_equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$ne", value)
    }

    /// The field is less than the value: a number, a string or a date.
    #[must_use]
    pub fn less_than(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$lt", value)
    }

    /// The field is less than the value or equal to it.
    #[must_use]
    pub fn less_than_or_equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$lte", value)
    }

    /// The field is greater than the value: a number, a string or a date.
    #[must_use]
    pub fn greater_than(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$gt", value)
    }

    /// The field is greater than the value or equal to it.
    #[must_use]
    pub fn greater_than_or_equal_to(self, key: &str, value: impl Serialize) -> Self {
        self.condition(key, "$gte", value)
    }

    /// The field equals one of the values, or is an array that contains one of them.
    #[must_use]
    pub fn contained_in<V: Serialize>(self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.list(key, "$in", values)
    }

    /// The field has a value, which may be null.
    #[must_use]
    pub fn exists(self, key: &str) -> Self {
        self.condition(key, "$exists", true)
    }

    /// The field is missing.
    #[must_use]
    pub fn does_not_exist(self, key: &str) -> Self {
        self.condition(key, "$exists", false)
    }

    fn list<V: Serialize>(
        self,
        key: &str,
        operator: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values: Vec<V> = values.into_iter().collect();
        self.condition(key, operator, values)
    }
}

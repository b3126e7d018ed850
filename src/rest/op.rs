//! Operations on fields, which the server evaluates. It knows nothing about requests.

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::types::Pointer;

/// An operation for the server to do on a field, instead of a value: add to a number, to a list, to a
/// relation.
///
/// The server applies it to the value that the field has at that moment, so that no concurrent change is
/// lost.
///
/// # Examples
/// ```
/// use parse_livequery::Pointer;
/// use parse_livequery::rest::Op;
/// # fn save(rest: &parse_livequery::rest::Rest) -> parse_livequery::Result<()> {
/// #[derive(serde::Serialize)]
/// #[serde(rename_all = "camelCase")]
/// struct Move {
///     score: Op,
///     last_move: String,
///     players: Op,
/// }
///
/// let played = Move {
///     score: Op::increment(1),
///     last_move: "e4".to_owned(),
///     players: Op::add_relation([Pointer::new("_User", "ann")]),
/// };
/// let game = rest.update("Game", "x1", &played)?;
/// println!("the score is {:?} now", game.get_i64("score"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Op(Result<Value, String>);

impl Op {
    /// Adds to a number, or subtracts with a negative amount. A missing field counts as 0.
    pub fn increment(amount: impl Into<Value>) -> Self {
        let amount = amount.into();
        if !amount.is_number() {
            return Self(Err(format!("a field cannot be incremented by {amount}")));
        }
        Self(Ok(json!({"__op": "Increment", "amount": amount})))
    }

    /// Appends to a list.
    pub fn add<V: Serialize>(values: impl IntoIterator<Item = V>) -> Self {
        Self::with_objects("Add", values)
    }

    /// Appends to a list those values that are not in it yet.
    pub fn add_unique<V: Serialize>(values: impl IntoIterator<Item = V>) -> Self {
        Self::with_objects("AddUnique", values)
    }

    /// Removes from a list each occurrence of these values.
    pub fn remove<V: Serialize>(values: impl IntoIterator<Item = V>) -> Self {
        Self::with_objects("Remove", values)
    }

    /// Removes the field from the object.
    #[must_use]
    pub fn delete() -> Self {
        Self(Ok(json!({"__op": "Delete"})))
    }

    /// Adds objects to a relation.
    pub fn add_relation(objects: impl IntoIterator<Item = Pointer>) -> Self {
        Self::with_objects("AddRelation", objects)
    }

    /// Removes objects from a relation.
    pub fn remove_relation(objects: impl IntoIterator<Item = Pointer>) -> Self {
        Self::with_objects("RemoveRelation", objects)
    }

    fn with_objects<V: Serialize>(op: &str, values: impl IntoIterator<Item = V>) -> Self {
        let values: serde_json::Result<Vec<_>> = values.into_iter().map(serde_json::to_value).collect();
        Self(match values {
            Ok(values) => Ok(json!({"__op": op, "objects": values})),
            Err(error) => Err(format!("a value cannot be written as JSON: {error}")),
        })
    }
}

impl Serialize for Op {
    /// # Errors
    /// If the operation was given a value that cannot be written as JSON, or an amount that is not a number.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(json) => json.serialize(serializer),
            Err(problem) => Err(S::Error::custom(problem)),
        }
    }
}

/// The result of an operation on a field that does not exist; `None` if the field does not exist afterwards
/// either. Other values are themselves.
pub(super) fn applied_to_nothing(value: Value) -> Option<Value> {
    let Some(op) = value.get("__op").and_then(Value::as_str) else {
        return Some(value);
    };
    let objects = value.get("objects");
    match op {
        "Increment" => value.get("amount").cloned(),
        "Add" | "AddUnique" => objects.cloned(),
        "Remove" => Some(json!([])),
        "AddRelation" => {
            let class_name = objects?.get(0)?.get("className")?;
            Some(json!({"__type": "Relation", "className": class_name}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_written_as_parse_has_them() {
        let ann = Pointer::new("_User", "ann");
        let ann_json = json!({"__type": "Pointer", "className": "_User", "objectId": "ann"});
        for (op, expected) in [
            (Op::increment(1), json!({"__op": "Increment", "amount": 1})),
            (Op::increment(-0.5), json!({"__op": "Increment", "amount": -0.5})),
            (Op::add(["a"]), json!({"__op": "Add", "objects": ["a"]})),
            (Op::add_unique([1]), json!({"__op": "AddUnique", "objects": [1]})),
            (Op::remove([true]), json!({"__op": "Remove", "objects": [true]})),
            (Op::delete(), json!({"__op": "Delete"})),
            (
                Op::add_relation([ann.clone()]),
                json!({"__op": "AddRelation", "objects": [ann_json]}),
            ),
            (
                Op::remove_relation([ann]),
                json!({"__op": "RemoveRelation", "objects": [ann_json]}),
            ),
        ] {
            assert_eq!(serde_json::to_value(op).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_no_panic() {
        assert!(serde_json::to_value(Op::increment("one")).is_err());
        assert!(serde_json::to_value(Op::increment(f64::NAN)).is_err());
        let no_key = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(serde_json::to_value(Op::add([no_key])).is_err());
    }
}

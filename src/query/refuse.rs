//! What cannot work in LiveQuery, why, and the way out. It knows the operators of the REST form. Must not
//! know how the others are encoded.

use super::ordered_json::Json;
use crate::error::{Error, ErrorKind, Result};

/// A constraint that the LiveQuery server's matcher cannot answer as `find()` does.
pub(super) struct Refusal {
    pub(super) operator: &'static str,
    pub(super) method: &'static str,
    pub(super) reason: &'static str,
    pub(super) way_out: &'static str,
}

// Parse Server 9.10, LiveQuery/QueryTools.js, matchesKeyConstraints: all of these return false.
pub(super) static REFUSALS: &[Refusal] = &[
    Refusal {
        operator: "$text",
        method: "full_text",
        reason: "the LiveQuery server has no text index, so it never matches",
        way_out: "use contains or matches, or test the text in the listener",
    },
    Refusal {
        operator: "$inQuery",
        method: "matches_query",
        reason: OTHER_OBJECTS,
        way_out: IN_THE_OBJECT,
    },
    Refusal {
        operator: "$notInQuery",
        method: "does_not_match_query",
        reason: OTHER_OBJECTS,
        way_out: IN_THE_OBJECT,
    },
    Refusal {
        operator: "$select",
        method: "matches_key_in_query",
        reason: OTHER_OBJECTS,
        way_out: IN_THE_OBJECT,
    },
    Refusal {
        operator: "$dontSelect",
        method: "does_not_match_key_in_query",
        reason: OTHER_OBJECTS,
        way_out: IN_THE_OBJECT,
    },
    Refusal {
        operator: "$relatedTo",
        method: "a query of a relation",
        reason: OTHER_OBJECTS,
        way_out: "keep a pointer in the related object, or an array of pointers instead of the relation",
    },
    Refusal {
        operator: "$not",
        method: "$not",
        reason: UNKNOWN,
        way_out: "use Query::nor",
    },
    Refusal {
        operator: "$size",
        method: "$size",
        reason: UNKNOWN,
        way_out: "count in the listener",
    },
    Refusal {
        operator: "$elemMatch",
        method: "$elemMatch",
        reason: UNKNOWN,
        way_out: "test the array in the listener",
    },
];

pub(super) static ALL_STARTING_WITH: Refusal = Refusal {
    operator: "$all",
    method: "contains_all_starting_with",
    reason: "the LiveQuery server looks for the expression itself in the array, so it never matches",
    way_out: "test the array in the listener",
};

static UNKNOWN_OPERATOR: Refusal = Refusal {
    operator: "",
    method: "",
    reason: UNKNOWN,
    way_out: "test it in the listener",
};

const OTHER_OBJECTS: &str = "the LiveQuery server looks only at the changed object, so it never matches";
const IN_THE_OBJECT: &str = "store the deciding value in the object itself, or test it in the listener";
const UNKNOWN: &str = "the LiveQuery server does not know this operator, so it never matches";

impl Refusal {
    pub(super) fn of(operator: &str) -> &'static Self {
        REFUSALS
            .iter()
            .find(|refusal| refusal.operator == operator)
            .unwrap_or(&UNKNOWN_OPERATOR)
    }

    /// The error for this constraint on a field.
    pub(super) fn error(&self, operator: &str, key: &str) -> Error {
        let method = if self.method.is_empty() {
            operator
        } else {
            self.method
        };
        self::error(method, key, self.reason, self.way_out)
    }
}

/// The error for a constraint that has no correct form in LiveQuery.
pub(super) fn error(method: &str, key: &str, reason: &str, way_out: &str) -> Error {
    invalid(format!(
        "{method} on {key:?}{CANNOT}{reason}; {way_out} \
         (allow_unsupported sends it all the same)"
    ))
}

/// Whether the error is about something that `find()` answers consistently, and that only LiveQuery has no
/// correct form for.
pub(super) fn is_refusal(error: &Error) -> bool {
    let text = error.to_string();
    text.contains(CANNOT) && !text.contains(UNKNOWN) && !text.starts_with("$relativeTime")
}

const CANNOT: &str = " cannot work in a LiveQuery subscription: ";

/// Refuses a `$regex` that has a `\Q` without a `\E` after it, at any depth.
///
/// Parse Server 9.10 (LiveQuery/QueryTools.js, matchesQuery) searches forever for the end of the quotation
/// and stops serving all clients.
pub(super) fn endless_quotation(json: &Json) -> Result<()> {
    match json {
        Json::Array(items) => items.iter().try_for_each(endless_quotation),
        Json::Object(members) => members.iter().try_for_each(|(name, value)| match value {
            Json::String(pattern) if name == "$regex" && is_endless(pattern) => Err(invalid(format!(
                "the regular expression {pattern:?} has a \\Q without a \\E after it, on which the LiveQuery \
                 server hangs permanently; end the quotation with \\E"
            ))),
            value => endless_quotation(value),
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
    }
}

fn is_endless(pattern: &str) -> bool {
    pattern
        .rfind("\\Q")
        .is_some_and(|start| !pattern[start..].contains("\\E"))
}

/// An error of kind [`ErrorKind::InvalidQuery`].
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidQuery, message)
}

#[cfg(test)]
mod tests {
    use crate::query::Query;
    use serde_json::json;

    #[test]
    fn a_quotation_without_end_does_not_reach_the_server() {
        for (pattern, refused) in [
            ("a", false),
            ("\\Qa\\E", false),
            ("\\Qa", true),
            ("\\Qa\\E\\Q", true),
            ("\\Ea\\Q", true),
            ("\\Qa\\E\\Qb\\E", false),
        ] {
            let query = Query::new("Game").raw_where(json!({"$or": [{"name": {"$regex": pattern}}]}));
            assert_eq!(query.encode().is_err(), refused, "{pattern}");
        }
    }
}

//! Compares, stores and sends queries as values, by their REST form. Must not know what they ask for.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Query;
use super::ordered_json::Json;

/// Two queries are equal if their class, conditions, fields and order were written in the same way. Two
/// queries with a fault that `subscribe` reports are equal if the fault is the same.
impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        let forms = (self.to_json(), other.to_json());
        self.class_name == other.class_name
            && self.allow_unsupported == other.allow_unsupported
            && match forms {
                (Ok(form), Ok(other)) => form == other,
                (Err(error), Err(other)) => error.to_string() == other.to_string(),
                _ => false,
            }
    }
}

/// Writes the REST form with the class: `{"className": "Game", "where": {..}, ..}`.
/// [`allow_unsupported`](Query::allow_unsupported) is the program's decision, and is not written.
///
/// ```
/// use parse_livequery::{Query, serde_json};
///
/// let query = Query::new("Game").greater_than("score", 10);
/// let json = serde_json::to_string(&query)?;
/// assert_eq!(json, r#"{"className":"Game","where":{"score":{"$gt":10}}}"#);
/// assert_eq!(serde_json::from_str::<Query>(&json)?, query);
/// # Ok::<(), serde_json::Error>(())
/// ```
impl Serialize for Query {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = self.rest_form().map_err(S::Error::custom)?;
        if let Json::Object(members) = &mut form {
            members.insert(0, (CLASS_NAME.to_owned(), Json::string(self.class_name.as_str())));
        }
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut form = Json::deserialize(deserializer)?;
        let class_name = match &mut form {
            Json::Object(members) => {
                let place = members.iter().position(|(name, _)| name == CLASS_NAME);
                place.map(|place| members.remove(place).1)
            }
            _ => None,
        };
        let Some(Json::String(class_name)) = class_name else {
            return Err(D::Error::custom(
                "a query is a JSON object with the string className",
            ));
        };
        Self::from_json(class_name, form).map_err(D::Error::custom)
    }
}

const CLASS_NAME: &str = "className";

#[cfg(test)]
mod tests {
    use super::Query;
    use crate::types::Pointer;

    fn queries() -> Vec<Query> {
        let game = || Query::new("Game");
        vec![
            game(),
            Query::new("Team"),
            game().equal_to("score", 1),
            game().equal_to("score", 2),
            game().equal_to("score", 1).select(["name"]),
            game().equal_to("score", 1).watch(["name"]),
            game().descending("score").limit(3),
            game().ascending("score").limit(3),
            game()
                .equal_to("owner", Pointer::new("Team", "t1"))
                .include("owner"),
            Query::or([game().exists("a"), game().less_than("b", 3)]),
        ]
    }

    #[test]
    fn each_is_equal_to_itself_alone_and_comes_back_from_json() {
        let (queries, again) = (queries(), queries());
        for (at, query) in queries.iter().enumerate() {
            for (other_at, other) in again.iter().enumerate() {
                assert_eq!(query == other, at == other_at, "{query:?} {other:?}");
            }
            let json = serde_json::to_string(query).unwrap();
            assert_eq!(serde_json::from_str::<Query>(&json).unwrap(), *query, "{json}");
        }
    }

    #[test]
    fn the_class_user_is_the_same_under_both_names() {
        let user = Query::new("User");
        let json = serde_json::to_string(&user).unwrap();
        assert_eq!(json, r#"{"className":"_User","where":{}}"#);
        assert_eq!(serde_json::from_str::<Query>(&json).unwrap(), user);
        assert_eq!(
            serde_json::from_str::<Query>(r#"{"className":"User","where":{}}"#).unwrap(),
            user
        );
    }

    #[test]
    fn what_is_wrong_is_said_and_never_written() {
        let wrong = Query::new("Game").equal_to("sc ore", 1);
        assert!(serde_json::to_string(&wrong).is_err());
        assert_eq!(wrong, Query::new("Game").equal_to("sc ore", 1));
        assert_ne!(wrong, Query::new("Game"));
        assert_ne!(Query::new("Game").allow_unsupported(), Query::new("Game"));
        for (json, why) in [
            ("[]", "className"),
            (r#"{"where": {}}"#, "className"),
            (r#"{"className": 1}"#, "className"),
            (r#"{"className": "Game", "whre": {}}"#, "whre"),
        ] {
            let error = serde_json::from_str::<Query>(json).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

//! Versions of Parse Server, and what a `where` needs of them: one table. It knows no connection.

use std::fmt;
use std::str::FromStr;

use super::ordered_json::Json;
use super::refuse::invalid;
use crate::error::{Error, Result};

/// A version of Parse Server, such as 4.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServerVersion {
    major: u16,
    minor: u16,
}

impl ServerVersion {
    pub(crate) const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ServerVersion {
    type Err = Error;

    /// Reads `9.10`, and `9.10.1-alpha.3` as the same; `5` stands for 5.0.
    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| part.parse().ok();
        let mut parts = text.split('.');
        let major = parts.next().and_then(number);
        let minor = parts.next().map_or(Some(0), number);
        let rest = parts.all(|part| !part.is_empty());
        match (major, minor, rest) {
            (Some(major), Some(minor), true) => Ok(Self { major, minor }),
            _ => Err(invalid(format!(
                "{text:?} is not a version of Parse Server, such as \"4.10\""
            ))),
        }
    }
}

/// What a client knows of the server's age.
///
/// With no version given, a subscribe with `"keys":[]` tells it without side effects: Parse Server refuses it as
/// "Array is too short" from 6.1 on and as "Additional properties not allowed" before (RequestSchema.js).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    dead_code,
    reason = "for the session, which is told the version or asks the server"
)]
pub(crate) enum Age {
    /// Exactly this.
    Version(ServerVersion),
    /// 6.1 or later.
    New,
    /// Before 6.1.
    Old,
}

impl Age {
    /// The version, if it is known.
    pub(super) fn version(self) -> Option<ServerVersion> {
        match self {
            Self::Version(version) => Some(version),
            Self::New | Self::Old => None,
        }
    }

    /// A version that the server has at the least.
    pub(super) fn at_least(self) -> Option<ServerVersion> {
        match self {
            Self::Version(version) => Some(version),
            Self::New => Some(KEYS),
            Self::Old => Some(ServerVersion::new(0, 0)),
        }
    }

    /// Whether what came with this version works, as far as it is known: from 6.1 to 6.3 nobody can tell.
    pub(super) fn reaches(self, since: ServerVersion) -> bool {
        match self {
            Self::Version(version) => version >= since,
            Self::New => true,
            Self::Old => since <= ServerVersion::new(3, 4),
        }
    }
}

/// The oldest server that tells its age by `keys`.
pub(crate) const KEYS: ServerVersion = ServerVersion::new(6, 1);

/// The oldest server on which a part of a query works, and the operators by which it is recognised.
struct Need {
    operators: &'static [&'static str],
    since: ServerVersion,
    what: &'static str,
}

// Parse Server's history of QueryTools.js, by the first release that has a change.
static NEEDS: &[Need] = &[
    Need {
        operators: &["$eq"],
        since: ServerVersion::new(6, 3),
        what: "a comparison with a whole array or object",
    },
    Need {
        operators: &["$and"],
        since: ServerVersion::new(5, 0),
        what: "two conditions of this kind on one field, or an or beside another or",
    },
    Need {
        operators: &["$nor"],
        since: ServerVersion::new(5, 0),
        what: "a negation or a question for null",
    },
    Need {
        operators: &["$containedBy"],
        since: ServerVersion::new(5, 0),
        what: "contained_by",
    },
    Need {
        operators: &["$geoWithin"],
        since: ServerVersion::new(5, 0),
        what: "within_polygon",
    },
    Need {
        operators: &["$geoIntersects"],
        since: ServerVersion::new(5, 0),
        what: "polygon_contains",
    },
];

/// Dates were compared as objects before.
const DATES: ServerVersion = ServerVersion::new(3, 4);

/// From here on `$in` looks into arrays, and can compare pointers without a throw on null.
pub(super) const LISTS_SEE_ARRAYS: ServerVersion = ServerVersion::new(5, 4);

/// From here on a subscription can have `watch` (RequestSchema.js).
pub(super) const WATCH: ServerVersion = KEYS;

/// The oldest server that answers a `where` as it is meant, and what needs it; `None` if every one does.
pub(super) fn needed(json: &Json) -> Option<(ServerVersion, &'static str)> {
    let later =
        |one: Option<(ServerVersion, &'static str)>, other: Option<(ServerVersion, &'static str)>| match (
            one, other,
        ) {
            (Some(one), Some(other)) => Some(if other.0 > one.0 { other } else { one }),
            (one, other) => one.or(other),
        };
    match json {
        Json::Array(items) => items.iter().map(needed).fold(None, later),
        Json::Object(_) if json.parse_type() == Some("Date") => Some((DATES, "a date")),
        Json::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let own = NEEDS.iter().find(|need| need.operators.contains(&name.as_str()));
                // The operand of $eq is data.
                let inner = if name == "$eq" { None } else { needed(value) };
                later(own.map(|need| (need.since, need.what)), inner)
            })
            .fold(None, later),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// The error for a query that a server is too old for.
pub(super) fn too_old(what: &str, needed: ServerVersion, server: Option<ServerVersion>) -> Error {
    let server = server.map_or_else(|| "before 6.1".to_owned(), |version| version.to_string());
    invalid(format!(
        "{what} needs Parse Server {needed} or later, and this server is {server}: there it would never match, without \
         a word; update the server, or test it in the listener"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let version = |text: &str| text.parse::<ServerVersion>();
        assert_eq!(version("4.10.20").unwrap(), ServerVersion::new(4, 10));
        assert_eq!(version("10.0.0-alpha.1").unwrap(), ServerVersion::new(10, 0));
        assert_eq!(version("5").unwrap(), ServerVersion::new(5, 0));
        assert!(version("9.9").unwrap() < version("9.10").unwrap());
        for wrong in ["", "x", "4.x", "v4", "4."] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }
}

//! Versions of Parse Server, and which of them a `where` needs: one table. Must not know of connections.

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

    const fn next(self) -> Self {
        Self::new(self.major, self.minor.saturating_add(1))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ServerVersion {
    type Err = Error;

    /// Reads `9.10`, and `9.10.1-alpha.3` as the same; `5` means 5.0.
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

/// What a client knows of the server's version: it is at least one version, and below another.
///
/// The program names one version, or the server reveals it step by step: see [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age {
    at_least: ServerVersion,
    below: Option<ServerVersion>,
}

impl Age {
    /// Nothing is known.
    pub(crate) const ANY: Self = Self {
        at_least: ServerVersion::new(0, 0),
        below: None,
    };

    pub(crate) const fn exactly(version: ServerVersion) -> Self {
        Self {
            at_least: version,
            below: Some(version.next()),
        }
    }

    pub(crate) fn at_least(self) -> ServerVersion {
        self.at_least
    }

    /// Whether a feature of this version is known to work.
    pub(crate) fn reaches(self, since: ServerVersion) -> bool {
        self.at_least >= since
    }

    /// Whether a feature of this version is known not to work.
    pub(crate) fn is_before(self, since: ServerVersion) -> bool {
        self.below.is_some_and(|below| below <= since)
    }

    /// Both pieces of knowledge combined, unless they contradict each other.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        let at_least = self.at_least.max(other.at_least);
        let below = self.below.into_iter().chain(other.below).min();
        below
            .is_none_or(|below| at_least < below)
            .then_some(Self { at_least, below })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = self.at_least;
        match self.below {
            Some(below) if below == at_least.next() => write!(f, "{at_least}"),
            Some(below) if at_least == Self::ANY.at_least => write!(f, "older than {below}"),
            Some(below) => write!(f, "at least {at_least} and older than {below}"),
            None if *self == Self::ANY => f.write_str("of an unknown version"),
            None => write!(f, "{at_least} or later"),
        }
    }
}

/// A probe for the server's version: a subscribe with an empty list of fields, which every Parse Server
/// refuses, so that it has no effect. The form of the refusal reveals the version (RequestSchema.js,
/// Client.js):
///
/// - `keys` is unknown before 6.1, and so is `fields` from 7.0 on;
/// - an error has no member `requestId` before 4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Keys,
    Fields,
}

impl Probe {
    /// The probe whose answer tells most about whether a server reaches a version.
    pub(crate) fn for_version(since: ServerVersion) -> Self {
        if since <= KEYS { Self::Keys } else { Self::Fields }
    }

    /// The member of the query that is empty.
    pub(crate) fn member(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Fields => "fields",
        }
    }

    /// What the answer reveals: whether the server knows the member, and whether its error has a `requestId`.
    pub(crate) fn answer(self, is_known: bool, has_request_id: bool) -> Option<Age> {
        let from = |at_least| Age {
            at_least,
            below: None,
        };
        let below = |version| Age {
            below: Some(version),
            ..Age::ANY
        };
        let by_member = match (self, is_known) {
            (Self::Keys, true) => from(KEYS),
            (Self::Keys, false) => below(KEYS),
            (Self::Fields, true) => below(NO_FIELDS),
            (Self::Fields, false) => from(NO_FIELDS),
        };
        by_member.and(if has_request_id {
            from(REQUEST_IDS)
        } else {
            below(REQUEST_IDS)
        })
    }
}

/// The oldest server that knows `keys`.
const KEYS: ServerVersion = ServerVersion::new(6, 1);
/// The oldest server that no longer knows `fields`.
const NO_FIELDS: ServerVersion = ServerVersion::new(7, 0);
/// The oldest server that names the request in its errors.
const REQUEST_IDS: ServerVersion = ServerVersion::new(4, 3);

/// The oldest server on which a part of a query works, and the operators by which it is recognised.
struct Need {
    operators: &'static [&'static str],
    since: ServerVersion,
    what: &'static str,
}

// From the history of Parse Server's QueryTools.js, by the first release that has a change.
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

/// Before this version, dates were compared as objects.
const DATES: ServerVersion = ServerVersion::new(3, 4);

/// From here on, `$in` looks into arrays and can compare pointers without throwing on null.
pub(super) const LISTS_SEE_ARRAYS: ServerVersion = ServerVersion::new(5, 4);

/// From here on, a subscription can have `watch` (RequestSchema.js).
pub(super) const WATCH: ServerVersion = KEYS;

/// The oldest server that answers a `where` correctly, and the part that needs it; `None` if every server
/// does.
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
                let own = match NEEDS.iter().find(|need| need.operators.contains(&name.as_str())) {
                    Some(need) => Some((need.since, need.what)),
                    None if name == "$in" && holds_pointers(value) => Some((LISTS_SEE_ARRAYS, "a pointer")),
                    None => None,
                };
                // The operand of $eq is data.
                let inner = if name == "$eq" { None } else { needed(value) };
                later(own, inner)
            })
            .fold(None, later),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// Refuses a `where` that nests deeper than Parse Server 10 accepts by default.
pub(super) fn check_depth(json: &Json, server: Age) -> Result<()> {
    let depth = depth(json);
    if !server.reaches(DEPTH_LIMITED) || depth <= MOST_DEPTH {
        return Ok(());
    }
    Err(invalid(format!(
        "the query nests conditions {depth} deep, and Parse Server 10 accepts at most {MOST_DEPTH} unless \
         its `requestComplexity.queryDepth` says otherwise: nest fewer Query::or, Query::and and Query::nor \
         in one another (allow_unsupported sends it all the same)"
    )))
}

/// How deeply the logical operators are nested, as the server counts it (Parse Server 9.10,
/// ParseLiveQueryServer.js, checkDepth).
pub(super) fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => items.iter().map(depth).max().unwrap_or_default(),
        Json::Object(members) => {
            let of = |(name, value): &(String, Json)| {
                usize::from(matches!(name.as_str(), "$or" | "$and" | "$nor")) + depth(value)
            };
            members.iter().map(of).max().unwrap_or_default()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
    }
}

/// From here on, `requestComplexity.queryDepth` has a limit by default (Parse Server 9.10, Deprecations.js).
const DEPTH_LIMITED: ServerVersion = ServerVersion::new(10, 0);
const MOST_DEPTH: usize = 10;

fn holds_pointers(list: &Json) -> bool {
    let mut items = list.as_array().into_iter().flatten();
    items.any(|item| item.parse_type() == Some("Pointer"))
}

/// The error for a query that a server is too old for, or may be.
pub(super) fn too_old(what: &str, needed: ServerVersion, server: Age) -> Error {
    let is_named = server.below == Some(server.at_least.next());
    let way_out = match (is_named, server.is_before(needed)) {
        (true, _) => "update the server, or test it in the listener",
        (false, true) => {
            "update the server, or test it in the listener; a version named with ClientBuilder::parse_server is taken \
             at its word"
        }
        (false, false) => "name its version with ClientBuilder::parse_server, so that the client knows",
    };
    let fate = if is_named || server.is_before(needed) {
        "would"
    } else {
        "might"
    };
    invalid(format!(
        "{what} needs Parse Server {needed} or later, and this server is {server}: there it {fate} silently \
         never match; {way_out}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_tells_its_age_in_parts() {
        let told = |probe: Probe, is_known, has_request_id| probe.answer(is_known, has_request_id).unwrap();
        let (keys, fields) = (Probe::Keys, Probe::Fields);
        assert_eq!(told(keys, true, true).to_string(), "6.1 or later");
        assert_eq!(
            told(keys, false, true).to_string(),
            "at least 4.3 and older than 6.1"
        );
        assert_eq!(told(keys, false, false).to_string(), "older than 4.3");
        // No server knows `keys` without naming requests.
        assert_eq!(keys.answer(true, false), None);
        assert_eq!(told(fields, false, true).to_string(), "7.0 or later");
        assert_eq!(
            told(fields, true, true).to_string(),
            "at least 4.3 and older than 7.0"
        );
        let six = told(keys, true, true).and(told(fields, true, true)).unwrap();
        assert_eq!(six.to_string(), "at least 6.1 and older than 7.0");
        let version = |major, minor| ServerVersion::new(major, minor);
        assert!(six.reaches(version(6, 1)) && !six.reaches(version(6, 3)));
        assert!(six.is_before(version(7, 0)) && !six.is_before(version(6, 3)));
        assert_eq!(Age::exactly(version(4, 10)).to_string(), "4.10");
        assert_eq!(Age::exactly(version(4, 10)).and(six), None);
    }

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

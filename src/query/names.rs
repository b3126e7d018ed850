//! Names of classes and fields: which ones a Parse Server can have, and which ones its matcher misreads. Must
//! not know of conditions.

use super::refuse::invalid;
use crate::error::{Error, Result};

/// The name of a class, checked as Parse Server does it (SchemaController.js, classNameIsValid).
pub(super) fn check_class(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid("the class name of a query is empty"));
    }
    if name.starts_with("_Join:") || SYSTEM_CLASSES.contains(&name) || is_plain(name) {
        return Ok(());
    }
    Err(invalid(format!(
        "no Parse Server can have a class {name:?}: a name begins with a letter and consists of letters, digits and \
         underscores{}",
        likely_class(name)
    )))
}

fn likely_class(name: &str) -> String {
    let bare = |name: &str| name.trim_start_matches('_').trim_end_matches('s').to_lowercase();
    let likely = if name.starts_with('_') {
        SYSTEM_CLASSES
            .iter()
            .find(|system| bare(system) == bare(name))
            .map(|system| (*system).to_owned())
    } else {
        let kept: String = name
            .chars()
            .filter(|character| character.is_ascii_alphanumeric() || *character == '_')
            .collect();
        let kept = kept.trim_start_matches(|first: char| !first.is_ascii_alphabetic());
        is_plain(kept).then(|| kept.to_owned())
    };
    likely.map_or_else(String::new, |likely| format!("; did you mean {likely:?}?"))
}

/// Checks the name of a field, or of a nested field with dots between the names.
///
/// Parse Server refuses others in find() (DatabaseController.js, validateQuery), but its LiveQuery matcher
/// accepts them silently.
pub(super) fn check_key(key: &str) -> Result<()> {
    if key == "ACL" {
        return Err(invalid(
            "the ACL of an object cannot be queried: the server sends only objects that the session may read",
        ));
    }
    let mut parts = key.split('.');
    if !parts.next().is_some_and(is_plain) || parts.any(|part| !is_plain_inside(part)) {
        return Err(invalid(format!(
            "{key:?} is not a name of a field: it begins with a letter and consists of letters, digits and \
             underscores, with dots between the names of nested fields"
        )));
    }
    Ok(())
}

/// The error for a name that every JavaScript value has.
pub(super) fn check_inherited(method: &str, key: &str) -> Result<()> {
    let inherited = |name: &str| INHERITED.contains(&name) || name.starts_with("__");
    match key.split('.').find(|name| inherited(name)) {
        Some(name) => Err(foreign(method, key, name, "every value")),
        None if key.contains('.') && key.ends_with(".length") => {
            Err(foreign(method, key, "length", "every text and every array"))
        }
        None => Ok(()),
    }
}

/// The error for a name that texts, arrays, numbers or dates have in JavaScript, where existence matters.
pub(super) fn check_methods(method: &str, key: &str) -> Result<()> {
    match key.split('.').skip(1).find(|name| METHODS.contains(name)) {
        Some(name) => Err(foreign(method, key, name, "some text, array, number or date")),
        None => Ok(()),
    }
}

fn foreign(method: &str, key: &str, name: &str, whose: &str) -> Error {
    super::refuse::error(
        method,
        key,
        &format!(
            "in JavaScript, {whose} has a member {name:?}, which the LiveQuery server mistakes for the \
             field's"
        ),
        "rename the field, or test it in the listener",
    )
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic()) && is_plain_inside(name)
}

fn is_plain_inside(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '_')
}

static SYSTEM_CLASSES: &[&str] = &[
    "_User",
    "_Role",
    "_Session",
    "_Installation",
    "_Product",
    "_Audience",
    "_PushStatus",
    "_JobStatus",
    "_JobSchedule",
    "_Hooks",
    "_GlobalConfig",
    "_GraphQLConfig",
    "_Idempotency",
    "_ExportProgress",
];

/// Members of `Object.prototype`, besides those that begin with two underscores.
pub(super) static INHERITED: &[&str] = &[
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// Members of the prototypes of String, Array, Number and Date.
#[rustfmt::skip]
static METHODS: &[&str] = &[
    "anchor", "at", "big", "blink", "bold", "charAt", "charCodeAt", "codePointAt", "concat", "copyWithin", "endsWith",
    "entries", "every", "fill", "filter", "find", "findIndex", "findLast", "findLastIndex", "fixed", "flat", "flatMap",
    "fontcolor", "fontsize", "forEach", "getDate", "getDay", "getFullYear", "getHours", "getMilliseconds",
    "getMinutes", "getMonth", "getSeconds", "getTime", "getTimezoneOffset", "getUTCDate", "getUTCDay",
    "getUTCFullYear", "getUTCHours", "getUTCMilliseconds", "getUTCMinutes", "getUTCMonth", "getUTCSeconds", "getYear",
    "includes", "indexOf", "isWellFormed", "italics", "join", "keys", "lastIndexOf", "length", "link",
    "localeCompare", "map", "match", "matchAll", "normalize", "padEnd", "padStart", "pop", "push", "reduce",
    "reduceRight", "repeat", "replace", "replaceAll", "reverse", "search", "setDate", "setFullYear", "setHours",
    "setMilliseconds", "setMinutes", "setMonth", "setSeconds", "setTime", "setUTCDate", "setUTCFullYear",
    "setUTCHours", "setUTCMilliseconds", "setUTCMinutes", "setUTCMonth", "setUTCSeconds", "setYear", "shift", "slice",
    "small", "some", "sort", "splice", "split", "startsWith", "strike", "sub", "substr", "substring", "sup",
    "toDateString", "toExponential", "toFixed", "toGMTString", "toISOString", "toJSON", "toLocaleDateString",
    "toLocaleLowerCase", "toLocaleTimeString", "toLocaleUpperCase", "toLowerCase", "toPrecision", "toReversed",
    "toSorted", "toSpliced", "toTemporalInstant", "toTimeString", "toUTCString", "toUpperCase", "toWellFormed",
    "trim", "trimEnd", "trimLeft", "trimRight", "trimStart", "unshift", "values", "with",
];

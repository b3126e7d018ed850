//! The REST API: whether it is there, whose session it is, and who may read the class. It knows
//! nothing about live connections.

use parse_livequery::{Error, ErrorKind, Query};

use super::link::client;
use super::report::{Finding, Step};
use crate::settings::{Role, Settings};

/// Whether the REST API answers, whatever the answer.
pub(super) fn rest(settings: &Settings, tell: &mut dyn FnMut(Finding)) -> Step<()> {
    let error = match client(settings, Role::Public)?.rest().me() {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if is_route_closed(&error) {
        return Err(route_closed(&error));
    }
    match (error.kind(), error.code()) {
        // An answer that no user is logged in is an answer too.
        (ErrorKind::Server, Some(_)) => {
            tell(Finding::good(
                "REST",
                "the REST API answers and takes the application id and the keys",
            ));
            Ok(())
        }
        (ErrorKind::Refused, _) => Err(Finding::fault(
            "REST",
            "application-id",
            format!("The REST API refuses the application id or the keys: {error}."),
            "Compare the application id with `appId` of the server's configuration: LiveQuery accepts any, so only \
             this step notices a wrong one. If the server has `restAPIKey`, `javascriptKey` or others set, one of \
             them has to be given.",
        )),
        (ErrorKind::Protocol, _) => Err(Finding::fault(
            "REST",
            "rest-address",
            format!("There is no REST API at this address: {error}."),
            "Give the URL with its path as in the server's `serverURL` (usually `/parse`), or the one of the REST \
             API with --rest-url.",
        )),
        (ErrorKind::Server, None) => Err(Finding::fault(
            "REST",
            "rest-down",
            format!("The REST API fails: {error}."),
            "LiveQuery answers, but the Parse Server behind it does not: check its log, and that of a proxy before \
             it.",
        )),
        _ => Err(Finding::fault(
            "REST",
            "rest-unreachable",
            format!("The REST API cannot be reached: {error}."),
            "If it is not at the same address as LiveQuery, give its URL with --rest-url.",
        )),
    }
}

/// The user of the session.
pub(super) fn session(settings: &Settings, tell: &mut dyn FnMut(Finding)) -> Step<String> {
    match client(settings, Role::User)?.rest().me() {
        Ok(user) => {
            let id = user.id().unwrap_or_default().to_owned();
            let name = user.get_str("username").unwrap_or("without a name");
            tell(Finding::good(
                "session",
                format!("the session token is that of the user {name} ({id})"),
            ));
            Ok(id)
        }
        Err(error) if error.code() == Some(209) => Err(Finding::fault(
            "session",
            "session-token",
            "The session token is not valid: it has expired, or the user has logged out.",
            "Log in again: `export PARSE_SESSION_TOKEN=$(livequery login NAME)`. LiveQuery treats an invalid token \
             as none, does not report it, and only sends public objects.",
        )),
        Err(error) => Err(Finding::fault(
            "session",
            "session",
            format!("The user of the session token cannot be determined: {error}."),
            "Try again, and check the log of the server.",
        )),
    }
}

/// Which of these roles may read the class.
pub(super) fn class(
    settings: &Settings,
    roles: &[Role],
    query: &Query,
    tell: &mut dyn FnMut(Finding),
) -> Step<Vec<Role>> {
    let class = query.class_name();
    let (mut may, mut may_not) = (Vec::new(), Vec::new());
    let mut counts = Vec::new();
    for role in roles {
        match client(settings, *role)?.rest().find(&query.clone().limit(MANY)) {
            Ok(found) => {
                let more = if found.len() as u64 == MANY {
                    " or more"
                } else {
                    ""
                };
                counts.push(format!("{role} finds {}{more}", found.len()));
                may.push(*role);
            }
            Err(error) if error.code() == Some(119) => may_not.push((*role, error)),
            Err(error) if error.to_string().contains("$regex") => {
                return Err(Finding::fault(
                    "class",
                    "regex-forbidden",
                    format!("The server refuses the query: {error}."),
                    "The server forbids regular expressions (`requestComplexity.allowRegex: false`): search for a \
                     prefix, compare with equality, or have them allowed.",
                ));
            }
            Err(error) => {
                return Err(Finding::fault(
                    "class",
                    "query",
                    format!("The server does not find objects of {class}: {error}."),
                    "Check the name of the class and --where.",
                ));
            }
        }
    }
    if may.is_empty() {
        let error = may_not
            .first()
            .map_or_else(String::new, |(_, error)| error.to_string());
        return Err(Finding::fault(
            "class",
            "clp",
            format!("None of the roles that were tried may find objects of {class}: {error}."),
            "The class-level permissions of the class must allow `find`: set that in the dashboard, or log in as \
             a user who may (`livequery login`). If the class does not exist, create an object of it.",
        ));
    }
    let mut text = format!("{class}: {}", counts.join(", "));
    for (role, _) in &may_not {
        text = format!("{text}; {role} may not find (class-level permissions), and therefore gets no events");
    }
    tell(Finding::good("class", text));
    Ok(may)
}

fn is_route_closed(error: &Error) -> bool {
    // The permissions of a class do not matter for who the user is.
    error.code() == Some(119) || error.to_string().contains("routeAllowList")
}

fn route_closed(error: &Error) -> Finding {
    Finding::fault(
        "REST",
        "route-allow-list",
        format!("The server has closed its REST API to clients: {error}."),
        "This is `routeAllowList` of the server's configuration. LiveQuery needs no route of it, but nothing further \
         can be checked. A live set needs the route `classes/CLASS`.",
    )
}

const MANY: u64 = 100;

//! The checklist for "it is subscribed, but no events arrive".

use std::fmt::Write;
use std::time::SystemTime;

use crate::delivery::shared::Shared;
use crate::query::version::Age;
use crate::state::ClientState;

/// What this client knows about itself, and then what only the server's operator can check.
pub(crate) fn diagnose(address: &str, named: Option<Age>, shared: &Shared) -> String {
    let stats = shared.stats();
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = text.write_fmt(args);
        text.push('\n');
    };
    line(format_args!("LiveQuery client of {address}"));
    let state = match stats.state {
        _ if !shared.is_home() => "of another process: build the client after daemonizing",
        ClientState::Initialized => "never opened: call `open`, or subscribe to something",
        ClientState::Connecting => "connecting for the first time",
        ClientState::Connected => "connected",
        ClientState::Reconnecting => "the connection is down; the client is reconnecting",
        ClientState::Disconnected => "refused by the server permanently: `open` tries again",
        ClientState::Paused => "paused by the program: `resume` connects again",
        ClientState::Closed => "closed: `open` or a new subscription opens it again",
    };
    line(format_args!("  state            {state}"));
    if let Some(error) = shared.status.last_error() {
        line(format_args!("  last error       {error}"));
    }
    line(format_args!(
        "  connections      {} made, {} failures",
        stats.connections, stats.failures
    ));
    line(format_args!("  subscriptions    {}", stats.subscriptions));
    line(format_args!(
        "  messages         {} in ({} bytes, {} malformed), {} out",
        stats.messages_in, stats.bytes_in, stats.malformed, stats.messages_out
    ));
    match stats
        .last_received
        .and_then(|at| SystemTime::now().duration_since(at.into()).ok())
    {
        Some(age) => line(format_args!("  last received    {age:.1?} ago")),
        None => line(format_args!("  last received    nothing")),
    }
    if let Some(time) = stats.round_trip {
        line(format_args!("  round trip       {time:.1?}"));
    }
    line(format_args!(
        "  waiting          {} objects ({} bytes) of {} events for their listeners, {} dropped",
        stats.queued, stats.queued_bytes, stats.waiting, stats.dropped
    ));
    line(format_args!(
        "  server version   {}",
        server_age(named, *shared.server_age.lock())
    ));
    text.push_str(CHECKLIST);
    text
}

fn server_age(named: Option<Age>, told: Option<Age>) -> String {
    match (named, told) {
        (Some(named), _) => format!(
            "Parse Server {named}, as `parse_server` says: queries that it cannot answer are refused, and all others \
             are sent in a form that it evaluates correctly"
        ),
        (None, Some(Age::ANY)) => {
            "unknown: the server was asked and did not answer, so queries that depend on it are \
                                   refused; set it with `parse_server`"
                .to_owned()
        }
        (None, Some(told)) => format!(
            "Parse Server {told}, as it last answered: queries that need a later one are refused; `parse_server` \
             sets the exact version"
        ),
        (None, None) => "not asked for yet: no query that was sent depends on it".to_owned(),
    }
}

const CHECKLIST: &str = "\
If subscriptions are open and no events arrive, Parse Server does not say why. Check these points, in this order:
  1. The class is in `liveQuery.classNames` of the server's configuration. If it is not, the server acknowledges
     the subscription all the same, and sends nothing.
  2. The objects may be read. Without a session token, only publicly readable objects produce events, and an
     invalid token counts as none. The class-level permissions must allow `find`.
  3. The objects match the query, and really changed: try `Query::new(class)` without constraints. With `watch`,
     only changes of the watched fields count.
  4. The changes go through Parse Server: data that is written to the database directly produces no events.
  5. If there are several server processes, they share a Redis (`liveQuery.redisURL`): without it, a client only
     gets the changes that went through its own server.
  6. The application id is that of this server: LiveQuery accepts any, so a wrong one goes unnoticed.
  7. The server recognises session tokens. Parse Server 8.6, 9.0 and 9.10, installed today, get `router` 2.3.0 from
     npm, with which LiveQuery recognises none: add \"overrides\": {\"router\": \"2.2.0\"} to the server's package.json.
  8. No `afterLiveQueryEvent` hook drops or renames the events.
  9. The query has no regular expression, or the server is not busy: Parse Server 8.6 and 9.10 treat a match that
     takes longer than `liveQuery.regexTimeout` (100 ms) as no match. `starts_with` is not affected.
 10. The LiveQuery server runs in the process of the Parse Server: in a separate process, that of Parse Server 8.6
     and 9.10 answers each subscription with error 141.
";

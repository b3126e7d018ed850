//! The checklist for «it is subscribed, but nothing comes».

use std::fmt::Write;
use std::time::SystemTime;

use crate::delivery::shared::Shared;
use crate::state::ClientState;

/// What this client knows of itself, and then what only the server's operator can look at.
pub(crate) fn diagnose(address: &str, shared: &Shared) -> String {
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
        ClientState::Reconnecting => "the link is down, and is being made anew",
        ClientState::Disconnected => "refused by the server for good: `open` tries again",
        ClientState::Closed => "closed: `open`, or a new subscription, opens it again",
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
        .and_then(|at| SystemTime::now().duration_since(at).ok())
    {
        Some(age) => line(format_args!("  last sign        {age:.1?} ago")),
        None => line(format_args!("  last sign        none")),
    }
    if let Some(time) = stats.round_trip {
        line(format_args!("  round trip       {time:.1?}"));
    }
    line(format_args!(
        "  waiting          {} objects ({} bytes) of {} events for their listeners, {} dropped",
        stats.queued, stats.queued_bytes, stats.waiting, stats.dropped
    ));
    text.push_str(CHECKLIST);
    text
}

const CHECKLIST: &str = "\
If subscriptions are open and nothing comes, Parse Server does not say why. Look at this, in this order:
  1. The class is in `liveQuery.classNames` of the server's configuration. For one that is not, the server
     acknowledges the subscription all the same, and sends nothing.
  2. The objects may be read. Without a session token only objects that everybody may read produce events, and an
     invalid token counts as none. The class-level permissions must allow `find`.
  3. The objects match the query, and really changed: try `Query::new(class)` without constraints. With `watch`,
     only changes of the watched fields count.
  4. The changes go through Parse Server: what is written to the database directly produces no events.
  5. Several server processes share a Redis (`liveQuery.redisURL`): without it, a client hears only of the changes
     that went through its own server.
  6. The application id is that of this server: LiveQuery accepts any, so that a wrong one is not noticed.
";

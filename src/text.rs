//! Small helpers for several layers: excerpts of external texts, and deadlines. Must not know of the rest of
//! this crate.

use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The beginning of an external text, for an error message.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// The same in quotes, with invisible characters escaped.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", excerpt(text))
}

/// When a time-out ends. One that is too long for the clock is a year away.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout)
        .unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 60 * 60))
}

const EXCERPT: usize = 80;

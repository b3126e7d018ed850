//! Small helpers that several floors need: excerpts of texts from outside, and deadlines. Knows nothing of this crate.

use std::borrow::Cow;
use std::time::{Duration, Instant};

/// The beginning of a text from outside, for an error message.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// The same in quotes, with escapes for what cannot be seen.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", excerpt(text))
}

/// When a time-out ends. One that is too long to be added to the clock does not end in a year.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout)
        .unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 60 * 60))
}

const EXCERPT: usize = 80;

//! Small helpers with texts that come from outside. Knows nothing of this crate.

use std::borrow::Cow;

/// The beginning of a text, for an error message.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

const EXCERPT: usize = 80;

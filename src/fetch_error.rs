//! Why a fetch failed, and how long to wait before the next one. It must not know who fetches, nor for whom.

use std::time::Duration;

use crate::error::Error;

/// A fetch that failed.
#[derive(Debug)]
pub(crate) struct FetchError {
    pub(crate) error: Error,
    /// How long to wait at least before the next attempt.
    pub(crate) retry_after: Duration,
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: Duration::ZERO,
        }
    }
}

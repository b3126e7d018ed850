//! The result of a refresh, for the thread that waits for it. It does not know how a set fetches.

use std::fmt;
use std::time::Duration;

use super::LiveSet;
use crate::error::Result;

/// A refresh of a live set that is under way: see [`LiveSet::refresh`]. It keeps the set alive.
#[derive(Clone)]
pub struct Refresh {
    set: LiveSet,
    number: u64,
}

impl Refresh {
    pub(super) fn new(set: LiveSet, number: u64) -> Self {
        Self { set, number }
    }

    /// Waits until everything has been fetched as it was when [`LiveSet::refresh`] was called or later, and
    /// the listeners for the changes have returned. Returns at once if the refresh is already complete.
    ///
    /// # Errors
    ///
    /// The reason why the fetch failed; the set keeps trying.
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it takes longer, for example while the connection
    /// is down; otherwise the errors of [`LiveSet::wait_ready`].
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let keeper = &self.set.0.keeper;
        let text = "the live set is not refreshed yet; it keeps trying";
        self.set
            .wait("wait", timeout, text, |_| keeper.refreshed(self.number))
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

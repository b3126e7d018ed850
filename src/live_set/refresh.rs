//! What came of a refresh, for who waits for it. Knows nothing of how a set fetches.

use std::fmt;
use std::time::Duration;

use super::LiveSet;
use crate::error::Result;

/// A refresh of a live set that is under way: see [`LiveSet::refresh`]. While it is kept, the set is as well.
#[derive(Clone)]
pub struct Refresh {
    set: LiveSet,
    number: u64,
}

impl Refresh {
    pub(super) fn new(set: LiveSet, number: u64) -> Self {
        Self { set, number }
    }

    /// Waits until everything was fetched that there was when [`LiveSet::refresh`] was called or later, and the listeners
    /// for what that changed have returned. Returns at once if that is long over.
    ///
    /// # Errors
    ///
    /// Why the fetch failed; the set goes on trying. [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it takes longer,
    /// while the link is down, for example; otherwise those of [`LiveSet::wait_ready`].
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let keeper = &self.set.0.keeper;
        let text = "the live set is not refreshed yet, and goes on trying";
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

//! The process that a client was built in. A fork of it gets copies of the handles, but none of the threads.
//!
//! Knows nothing of clients.

use std::process;

use crate::error::{Error, ErrorKind, Result};

/// The process that something was made in.
///
/// The id is asked of the system each time: whatever was remembered here would be copied by the fork as well.
pub(crate) struct Home(u32);

impl Home {
    pub(crate) fn here() -> Self {
        Self(process::id())
    }

    /// Whether this is that process. In a fork of it every lock may be held by a thread that does not exist there, so
    /// this is asked before any lock is taken.
    pub(crate) fn is_here(&self) -> bool {
        process::id() == self.0
    }

    /// # Errors
    /// [`ErrorKind::Forked`] in another process.
    pub(crate) fn check(&self) -> Result<()> {
        let here = process::id();
        if here == self.0 {
            return Ok(());
        }
        let text = format!(
            "the client was built in process {}, and this is its fork {here}, which has none of its threads; build the \
             client after daemonizing",
            self.0
        );
        Err(Error::new(ErrorKind::Forked, text))
    }
}

//! Whether a listener runs on this thread.
//!
//! Must not know what runs there.

use std::cell::RefCell;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

thread_local! {
    /// The clients whose listeners run on this thread, innermost last.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Records, while it lives, that listeners of a client run on this thread.
pub(super) struct Inside;

impl Inside {
    pub(super) fn enter<C>(client: &Arc<C>) -> Self {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().push(Arc::as_ptr(client).addr()));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.borrow_mut().pop());
    }
}

/// Whether this is called in a listener of the client, directly or in a listener of another client inside it:
/// waiting for the client would then deadlock.
pub(crate) fn in_listener_of<C>(client: &Arc<C>) -> bool {
    let address = Arc::as_ptr(client).addr();
    INSIDE
        .try_with(|inside| inside.borrow().contains(&address))
        .unwrap_or(false)
}

/// # Errors
/// [`ErrorKind::CalledFromListener`], in a listener of the client.
pub(crate) fn refuse_in_listener<C>(client: &Arc<C>, call: &str) -> Result<()> {
    if in_listener_of(client) {
        let text = format!(
            "`{call}` was called in a listener, which it would wait for; call it on another thread or leave \
             it out"
        );
        return Err(Error::new(ErrorKind::CalledFromListener, text));
    }
    Ok(())
}

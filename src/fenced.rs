//! Values of the program: a panic in their `Drop` is reported and does no other harm.
//!
//! Must not know what they are.

use crate::fence;
use crate::logging::error;

/// Drops a value of the program.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(text) = fence::run(|| drop(value)) {
        error!("a value panicked while it was dropped: {text}");
    }
}

/// A value of the program whose `Drop` may panic without harm to anything else.
pub(crate) struct Fenced<T>(Option<T>);

impl<T> Fenced<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value, which is there until this is dropped.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// The value, for changing it.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

impl<T> Drop for Fenced<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            drop_quietly(self.0.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fenced, drop_quietly};

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_drop_that_panics_stays_inside() {
        drop_quietly(Bomb);
        drop(Fenced::new(Bomb));
    }
}

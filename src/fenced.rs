//! Values of the program: a `Drop` of theirs that panics is reported and hurts nobody.
//!
//! Knows nothing of what they are.

use crate::fence;
use crate::logging::error;

/// Drops a value of the program.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(text) = fence::run(|| drop(value)) {
        error!("a value panicked while it was dropped: {text}");
    }
}

/// A value of the program that nothing but itself suffers from if its `Drop` panics.
pub(crate) struct Fenced<T>(Option<T>);

impl<T> Fenced<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value. It is there until it is dropped.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// The value, to change it.
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

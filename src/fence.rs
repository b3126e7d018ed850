//! The fence around code of the program: a panic in a closure, in a `Drop` or in a logger is caught and
//! reported.
//!
//! Must not know of listeners, threads or sockets.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of the program. Returns the text of the panic if it panics.
pub(crate) fn run<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let text = text_of(payload.as_ref());
        discard(payload);
        text
    })
}

/// Drops the payload of a panic. Its `Drop` may panic as well, and so may the `Drop` of that panic's payload:
/// the latter is never dropped.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::run;

    /// Panics when it is dropped, with a value that does the same, as many times.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_panic_is_told_by_its_text() {
        assert_eq!(run(|| 1), Ok(1));
        assert_eq!(run(|| panic!("as text")), Err::<(), _>("as text".to_owned()));
        assert_eq!(run(|| panic!("{}", 7)), Err::<(), _>("7".to_owned()));
        let text = run(|| panic_any(7)).unwrap_err();
        assert_eq!(text, "a value that is not text");
    }

    #[test]
    fn nothing_that_panics_when_it_is_dropped_gets_out() {
        for depth in 0..4 {
            run(|| panic_any(Bomb(depth))).unwrap_err();
            run(|| drop(Bomb(depth))).ok();
        }
    }
}

//! The manual, in steps: ten minutes from the first subscription to a tested program. It exists in the documentation
//! alone.
//!
//! Beside it: how to [log in, save and listen](save), [recipes](recipes) for what programs need next, how to
//! [test](testing) them, and the same for those who
//! come [from JavaScript](javascript).
//!
#![doc = include_str!("manual.md")]

#[doc = include_str!("javascript.md")]
pub mod javascript {}

#[doc = include_str!("recipes.md")]
pub mod recipes {}

#[doc = include_str!("save.md")]
pub mod save {}

#[doc = include_str!("testing.md")]
pub mod testing {}

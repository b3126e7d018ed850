//! The manual, in steps: ten minutes from the first subscription to a tested program. It only exists in the
//! documentation.
//!
//! The other chapters:
//!
//! - [save]: log in, save and listen;
//! - [live_sets]: search boxes, lists that load more, contents from disk;
//! - [live_sets_any]: live sets of any query, included objects, single objects;
//! - [recipes]: what programs need next;
//! - [testing]: how to test your program;
//! - [tool]: the program `livequery` for the shell;
//! - [deploying]: how to set up Parse Server for LiveQuery;
//! - [javascript]: the JavaScript SDK's guide, section by section ([in Chinese](javascript_zh)).
//!
#![doc = include_str!("manual.md")]
#![cfg_attr(
    not(all(feature = "rest", feature = "test-server")),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the manual is about all features; its links are checked where all are on"
    )
)]

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[doc = include_str!("javascript.md")]
pub mod javascript {}

#[doc = include_str!("javascript_zh.md")]
pub mod javascript_zh {}

#[doc = include_str!("live_sets.md")]
pub mod live_sets {}

#[doc = include_str!("live_sets_any.md")]
pub mod live_sets_any {}

#[doc = include_str!("recipes.md")]
pub mod recipes {}

#[doc = include_str!("save.md")]
pub mod save {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("tool.md")]
pub mod tool {}

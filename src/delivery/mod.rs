//! The path from the I/O to the listeners: there is one way to deliver.
//!
//! A subscription, a client and a live set are *subscribers*. Each has listeners ([`emitter`]) and one
//! mailbox ([`mailbox`]), through which everything for its listeners passes, in order. The client has a list
//! of the subscribers that have letters ([`queue`]). A turn delivers a few letters of one of them
//! ([`deliver`]); listeners are called only there.
//!
//! ```text
//!  I/O, handles, fetch threads                          livequery-dispatch, or the program's thread
//!
//!       Shared::post ──► mailbox ──► list of the ready ──► turn ──► tell ──► emitter ──► closure
//!                          │                                         │
//!                          └ limits: counts what it drops            └ before each: may it still be called?
//! ```
//!
//! This module must not know of sockets, of queries, or of the protocol.
//!
//! # Lock order
//!
//! A lock is taken only while no lock is held, or only locks before it in this list:
//!
//! 1. `dispatching` of the queue (held by the thread that delivers, if the program dispatches)
//! 2. `running` of a subscriber (held during its turn, in which its listeners run)
//! 3. the locks of a live set: that of its fetches, then that of its core
//! 4. the mailbox of a subscriber
//! 5. the list of ready subscribers; or the status, which threads wait for
//! 6. leaves, under which no other lock is taken: the listeners of an emitter, the progress of a
//!    subscription, a session token
//!
//! While code of the program runs, only 1, 2 and the lock of the one closure are held. A closure, and what it
//! owns, is never dropped under any lock but 1 and 2.
//!
//! In a fork of the process, each of these locks may be held by a thread that does not exist there. Every
//! call of a handle therefore asks [`Shared::is_home`](shared::Shared::is_home) or
//! [`check_home`](shared::Shared::check_home) first, and takes none of them in another process.

pub(crate) mod deliver;
pub(crate) mod emitter;
pub(crate) mod inside;
pub(crate) mod mailbox;
pub(crate) mod queue;
pub(crate) mod shared;
pub(crate) mod status;
pub(crate) mod subscriber;
pub(crate) mod subscription;
pub(crate) mod sync;
#[cfg(all(test, not(shuttle)))]
mod tests;

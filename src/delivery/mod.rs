//! The way from the I/O to the listeners: one way to be told.
//!
//! A subscription, a client and a live set are *subscribers*. Each has listeners ([`emitter`]) and one mailbox
//! ([`mailbox`]), through which everything goes that it is told, in order. The client has a list of those that have
//! letters ([`queue`]). A turn delivers a few letters of one of them ([`deliver`]), and only there are listeners called.
//!
//! ```text
//!  I/O, handles, fetch threads                          livequery-dispatch, or the program's thread
//!
//!       Shared::post ──► mailbox ──► list of the ready ──► turn ──► tell ──► emitter ──► closure
//!                          │                                         │
//!                          └ limits: counts what it drops            └ before each: may it still be called?
//! ```
//!
//! This room knows nothing of sockets, of queries, and of the protocol but for the time ([`crate::protocol::Now`]).
//!
//! # Lock order
//!
//! A lock is taken only while those before it in this list are held, or none:
//!
//! 1. `dispatching` of the queue (who delivers, where the program does that)
//! 2. `running` of a subscriber (its listeners run)
//! 3. the locks of a live set: that of who fetches for it, then that of its core
//! 4. the mailbox of a subscriber
//! 5. the list of the ready; or the status, which threads wait for
//! 6. leaves, under which nothing else is taken: the listeners of an emitter, the progress of a subscription, a
//!    session token
//!
//! While code of the program runs, 1, 2 and the lock of the one closure are held and nothing else. A closure, and what
//! it owns, is never dropped under any lock but 1 and 2.
//!
//! In a fork of the process each of these locks may be held by a thread that does not exist there. So every call of a
//! handle asks [`Shared::is_home`](shared::Shared::is_home) or [`check_home`](shared::Shared::check_home) first, and takes
//! none of them in another process.

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

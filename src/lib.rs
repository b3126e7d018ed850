// If a link is defined twice, Markdown takes the first definition: these replace the README's, which work in
// the repository.
#![doc = include_str!("front_page.md")]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("parse-livequery needs atomics of 64 bits, which this target does not have");

mod client;
mod delivery;
mod driver;
mod error;
mod event;
mod fence;
mod fenced;
mod fetch_error;
#[cfg(any(doc, doctest))]
pub mod guide;
mod home;
#[cfg(any(feature = "_bench", feature = "_fuzz"))]
#[doc(hidden)]
pub mod internal;
mod live_set;
mod logging;
mod object;
mod protocol;
mod query;
#[cfg(feature = "rest")]
#[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
pub mod rest;
mod scan;
mod secret;
mod server_url;
mod state;
mod stats;
#[cfg(feature = "test-server")]
pub mod test_server;
mod text;
mod types;
#[cfg(feature = "unstable-tls")]
pub mod unstable_tls;

/// The crate of the channels that [`Subscription::events`] returns, re-exported in the matching version.
pub use crossbeam_channel;
/// The crate of the JSON values that [`Object::get`] returns, re-exported in the matching version.
pub use serde_json;

pub use client::Client;
pub use client::builder::ClientBuilder;
pub use client::default::{default_client, initialize};
pub use client::subscription::{Subscription, SubscriptionBuilder};
pub use delivery::emitter::ListenerId;
pub use delivery::mailbox::Overflow;
pub use delivery::queue::Dispatch;
pub use driver::ConnectedStream;
pub use error::{Error, ErrorKind, Result};
pub use event::{ClientEvent, ClientEventKind, Event, EventKind, EventName, Gap, GapReason, UnknownEvent};
pub use live_set::builder::LiveSetBuilder;
pub use live_set::live_object::{LiveObject, LiveObjectBuilder, ObjectState};
pub use live_set::{
    Change, LiveSet, LiveSetStats, QueryChange, Refresh, Saved, Snapshot, SnapshotIntoIter, SnapshotIter,
};
pub use object::Object;
pub use query::Query;
pub use query::keys::Keys;
pub use state::{ClientState, SubscriptionState};
pub use stats::{ClientStats, EventCounts, SubscriptionStats};
pub use types::{Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation, iso};

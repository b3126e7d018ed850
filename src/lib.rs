#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "_bench")]
#[doc(hidden)]
pub mod bench;
mod builder;
mod client;
mod default;
mod diagnose;
mod dispatch;
mod driver;
mod emitter;
mod error;
mod event;
#[cfg(feature = "_fuzz")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod json;
mod live_set;
mod object;
mod protocol;
mod query;
mod secret;
mod server_url;
mod shared;
mod state;
mod stats;
mod subscription;
#[cfg(feature = "test-server")]
pub mod test_server;
mod types;
#[cfg(feature = "unstable-tls")]
pub mod unstable_tls;

pub use builder::ClientBuilder;
pub use client::Client;
pub use default::{default_client, initialize};
pub use dispatch::{Dispatch, Overflow};
pub use driver::ConnectedStream;
pub use emitter::ListenerId;
pub use error::{Error, ErrorKind, Result};
pub use event::{ClientEvent, ClientEventKind, Decoded, Event, EventKind, Gap, GapReason, UnknownEvent};
pub use live_set::{Change, LiveSet, LiveSetBuilder, Snapshot, SnapshotIter};
pub use object::Object;
pub use query::Query;
pub use state::{ClientState, SubscriptionState};
pub use stats::{ClientStats, EventCounts, SubscriptionStats};
pub use subscription::{Subscription, SubscriptionBuilder};
pub use types::{Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation, iso};

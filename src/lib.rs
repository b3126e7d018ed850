//! A Parse LiveQuery client for programs without an async runtime.

mod error;
mod object;
mod query;
#[cfg(feature = "test-server")]
pub mod test_server;
mod types;

pub use error::{Error, ErrorKind, Result};
pub use object::Object;
pub use query::Query;
pub use types::{Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation, iso};

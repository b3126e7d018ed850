//! Parse's own data types, in serde's and in Parse's tagged form.
use serde::{Deserialize, Serialize};
macro_rules! stub { ($($name:ident),*) => { $(
/// A stub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct $name {}
)* } }
stub!(Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation);

//! One Parse object as it came from the server: kept as text, indexed and decoded when first asked.
/// A Parse object.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Object {}

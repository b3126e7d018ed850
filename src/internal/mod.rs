//! Entry points for the benchmarks and the fuzz targets. Not part of the API.

#[cfg(feature = "_bench")]
pub mod bench;
#[cfg(feature = "_fuzz")]
pub mod fuzzing;
#[cfg(feature = "_bench")]
pub mod live_set;

//! Whether a value contains a float that JSON has no number for. `serde_json` writes null for it, which would
//! ask for a field without a value. Must not know of queries.

use std::fmt;

use serde::{Serialize, Serializer, ser};

/// Checks each float of a value, at any depth.
///
/// # Errors
/// If one is NaN or infinite. Other failures to serialize are found elsewhere.
pub(super) fn check(value: &impl Serialize) -> Result<(), NotFinite> {
    match value.serialize(Floats) {
        Err(Stop::NotFinite) => Err(NotFinite),
        Ok(()) | Err(Stop::Other) => Ok(()),
    }
}

/// A float that is not finite.
#[derive(Debug)]
pub(super) struct NotFinite;

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a float that is not finite, for which JSON has no number")
    }
}

#[derive(Debug)]
enum Stop {
    NotFinite,
    Other,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NotFinite.fmt(f)
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

/// Accepts everything and writes nothing.
#[derive(Clone, Copy)]
struct Floats;

type Done = Result<(), Stop>;

macro_rules! take {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, _: $kind) -> Done {
            Ok(())
        })*
    };
}

impl Serializer for Floats {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    take!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_unit_struct: &'static str
    );

    fn serialize_f32(self, value: f32) -> Done {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Done {
        if value.is_finite() {
            Ok(())
        } else {
            Err(Stop::NotFinite)
        }
    }

    fn serialize_none(self) -> Done {
        Ok(())
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Done {
        Ok(())
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Done {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Stop> {
        Ok(self)
    }
}

macro_rules! compound {
    ($($kind:ident: $method:ident($($name:ty)?)),*) => {
        $(impl ser::$kind for Floats {
            type Ok = ();
            type Error = Stop;

            fn $method<T: ?Sized + Serialize>(&mut self, $(_: $name,)? value: &T) -> Done {
                value.serialize(*self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        })*
    };
}

compound!(
    SerializeSeq: serialize_element(),
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(&'static str),
    SerializeStructVariant: serialize_field(&'static str)
);

impl ser::SerializeMap for Floats {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Done {
        key.serialize(*self)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Done {
        value.serialize(*self)
    }

    fn end(self) -> Done {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;
    use crate::types::{Date, GeoPoint, Pointer};

    #[derive(Serialize)]
    enum Shape {
        Unit,
        Newtype(f64),
        Tuple(i32, f32),
        Struct { radius: Option<f64> },
    }

    #[derive(Serialize)]
    struct Wrapper(f64);

    #[derive(Serialize)]
    struct Inner {
        values: Vec<Option<f64>>,
        shape: Shape,
    }

    #[derive(Serialize)]
    struct Flat {
        name: &'static str,
        #[serde(flatten)]
        inner: BTreeMap<String, f64>,
    }

    #[test]
    fn a_float_that_is_not_finite_is_found_wherever_it_stands() {
        const NAN: f64 = f64::NAN;
        let inner = |value, shape| Inner {
            values: vec![None, Some(value)],
            shape,
        };
        let map = |value: f64| BTreeMap::from([("a".to_owned(), value)]);
        assert!(check(&NAN).is_err());
        assert!(check(&f32::NEG_INFINITY).is_err());
        assert!(check(&Some(NAN)).is_err());
        assert!(check(&Some(Some(f64::INFINITY))).is_err());
        assert!(check(&[1.0, NAN]).is_err());
        assert!(check(&(1, NAN)).is_err());
        assert!(check(&Wrapper(NAN)).is_err());
        assert!(check(&Box::new(NAN)).is_err());
        assert!(check(&map(NAN)).is_err());
        assert!(check(&HashMap::from([(1, Some(NAN))])).is_err());
        assert!(
            check(&Flat {
                name: "a",
                inner: map(NAN)
            })
            .is_err()
        );
        assert!(check(&inner(NAN, Shape::Unit)).is_err());
        assert!(check(&inner(1.0, Shape::Newtype(NAN))).is_err());
        assert!(check(&inner(1.0, Shape::Tuple(1, f32::NAN))).is_err());
        assert!(check(&inner(1.0, Shape::Struct { radius: Some(NAN) })).is_err());

        assert!(check(&inner(1.0, Shape::Struct { radius: None })).is_ok());
        assert!(
            check(&Flat {
                name: "a",
                inner: map(1.0)
            })
            .is_ok()
        );
        assert!(check(&json!({"a": [null, 1.5, "x", {"b": true}]})).is_ok());
        assert!(check(&None::<f64>).is_ok());
        assert!(check(&(u128::MAX, i128::MIN, 'c', "text", ())).is_ok());
        let raw: Box<RawValue> = serde_json::from_str(r#"{"a":1}"#).unwrap();
        assert!(check(&raw).is_ok());
        assert!(
            check(&(
                Pointer::new("A", "b"),
                Date::parse("2024-01-01T00:00:00Z").unwrap()
            ))
            .is_ok()
        );
        assert!(check(&GeoPoint::new(1.0, 2.0).unwrap()).is_ok());
        // A failure of another kind is found elsewhere.
        assert!(check(&HashMap::from([((), 1)])).is_ok());
    }
}

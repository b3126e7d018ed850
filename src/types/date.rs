//! `Date`: a point in time, as Parse writes it. Must not know of clocks.

use std::fmt;
use std::ops::{Add, Range, Sub};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{check_tag, required};
use crate::error::{Error, ErrorKind, Result};
use crate::text::quoted;

/// A point in time in UTC, with Parse's precision of one millisecond.
///
/// In JSON `{"__type":"Date","iso":"2024-01-02T03:04:05.678Z"}`. It can also be read from a plain ISO string,
/// which is the form of `createdAt` and `updatedAt`, and the form in which Parse Server 3.4 to 6.0 sends a
/// date that a query constrains; the module [`iso`] writes that form too.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use parse_livequery::Date;
///
/// let date: Date = "2024-01-02T03:04:05.678Z".parse()?;
/// assert_eq!(date.to_string(), "2024-01-02T03:04:05.678Z");
/// assert_eq!(date.millis(), 1_704_164_645_678);
/// assert!(date < Date::from(SystemTime::now()));
/// assert_eq!(Date::from(SystemTime::from(date)), date);
/// assert_eq!((date - Duration::from_millis(678)).to_string(), "2024-01-02T03:04:05.000Z");
/// # Ok::<(), parse_livequery::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    millis: i64,
}

impl Date {
    /// The date this many milliseconds after 1970-01-01T00:00:00Z, or before it if negative.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::InvalidValue`] if the year is not within -9999 to 9999.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Date;
    ///
    /// assert_eq!(Date::from_millis(1_704_164_645_678)?.to_string(), "2024-01-02T03:04:05.678Z");
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    pub fn from_millis(millis: i64) -> Result<Self> {
        if (MIN.millis..=MAX.millis).contains(&millis) {
            Ok(Self { millis })
        } else {
            Err(Error::new(
                ErrorKind::InvalidValue,
                format!("the date {millis} ms from 1970 is not within the years -9999 to 9999"),
            ))
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; negative before then.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.millis
    }

    /// Reads a date in ISO 8601, such as `2024-01-02T03:04:05.678Z`.
    ///
    /// An offset like `+02:00` is converted to UTC; a date without a time means midnight UTC, as in
    /// JavaScript. Digits beyond milliseconds are cut off.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::InvalidValue`] if the text is not a date, has a time without an offset (in which
    /// time zone?), or if the year is not within -9999 to 9999.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Date;
    ///
    /// assert_eq!(Date::parse("2024-01-02T05:04:05.678+02:00")?, Date::parse("2024-01-02T03:04:05.678Z")?);
    /// # Ok::<(), parse_livequery::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "{} is not a date such as 2024-01-02T03:04:05.678Z{why}",
                    quoted(text)
                ),
            )
        };
        if let Some(date) = Self::as_servers_write(text) {
            return Ok(date);
        }
        let pieces = Pieces::parse(text).map_err(|_| invalid(""))?;
        if pieces.time_zone_annotation().is_some() {
            return Err(invalid(": it names a time zone"));
        }
        let offset = match (pieces.time(), pieces.to_numeric_offset()) {
            (_, Some(offset)) => offset.seconds(),
            (None, None) => 0,
            (Some(_), None) => return Err(invalid(": it has no offset (a final Z means UTC)")),
        };
        let local = pieces
            .date()
            .to_datetime(pieces.time().unwrap_or(Time::midnight()));
        let since_epoch = local.duration_since(EPOCH) - SignedDuration::from_secs(offset.into());
        let millis = since_epoch.as_nanos().div_euclid(NANOS_PER_MILLI);
        i64::try_from(millis)
            .ok()
            .and_then(|millis| Self::from_millis(millis).ok())
            .ok_or_else(|| invalid(": in UTC its year is not within -9999 to 9999"))
    }

    /// The form that servers send, `2024-01-02T03:04:05.678Z`, in a fourth of the time.
    fn as_servers_write(text: &str) -> Option<Self> {
        let text: &[u8; 24] = text.as_bytes().try_into().ok()?;
        for (at, separator) in [
            (4, b'-'),
            (7, b'-'),
            (10, b'T'),
            (13, b':'),
            (16, b':'),
            (19, b'.'),
            (23, b'Z'),
        ] {
            if text.get(at) != Some(&separator) {
                return None;
            }
        }
        let number = |digits: Range<usize>| {
            text.get(digits)?.iter().try_fold(0_i16, |number, digit| {
                let digit = digit.wrapping_sub(b'0');
                (digit <= 9).then(|| number * 10 + i16::from(digit))
            })
        };
        let two = |at: usize| number(at..at + 2).and_then(|number| i8::try_from(number).ok());
        let second = DateTime::new(number(0..4)?, two(5)?, two(8)?, two(11)?, two(14)?, two(17)?, 0).ok()?;
        let seconds = second.duration_since(EPOCH).as_secs();
        Self::from_millis(seconds * 1000 + i64::from(number(20..23)?)).ok()
    }
}

/// Writes ISO 8601 with three digits for the fraction, as the servers and the JS SDK do.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = EPOCH.saturating_add(SignedDuration::from_millis(self.millis));
        write!(f, "{date:.3}Z")
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Date({self})")
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Rounds down to the millisecond. Times outside the years -9999 to 9999 become the first or last date of
/// that range.
impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |nanos| -nanos),
        };
        let millis = nanos
            .div_euclid(NANOS_PER_MILLI)
            .clamp(MIN.millis.into(), MAX.millis.into());
        Self {
            // The clamp made it fit.
            millis: i64::try_from(millis).unwrap_or_default(),
        }
    }
}

/// Exact, except for dates before 1601 on Windows, where `SystemTime` begins then: they become its first
/// instant.
impl From<Date> for SystemTime {
    fn from(date: Date) -> Self {
        let distance = Duration::from_millis(date.millis.unsigned_abs());
        if date.millis < 0 {
            let of_windows = Duration::from_secs(11_644_473_600);
            Self::UNIX_EPOCH
                .checked_sub(distance)
                .or_else(|| Self::UNIX_EPOCH.checked_sub(of_windows))
        } else {
            Self::UNIX_EPOCH.checked_add(distance)
        }
        .unwrap_or(Self::UNIX_EPOCH)
    }
}

/// Adds the duration, up to the last date of the year 9999.
impl Add<Duration> for Date {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self {
            millis: self.millis.saturating_add(millis).min(MAX.millis),
        }
    }
}

/// Subtracts the duration, down to the first date of the year -9999.
impl Sub<Duration> for Date {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self {
            millis: self.millis.saturating_sub(millis).max(MIN.millis),
        }
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tagged = serializer.serialize_struct("Date", 2)?;
        tagged.serialize_field("__type", "Date")?;
        tagged.serialize_field("iso", &Iso(*self))?;
        tagged.end()
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Date;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a Date, such as {\"__type\":\"Date\",\"iso\":\"2024-01-02T03:04:05.678Z\"} or \
                     \"2024-01-02T03:04:05.678Z\"",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Date, E> {
                Date::parse(text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Date, A::Error> {
                let json = DateJson::deserialize(MapAccessDeserializer::new(map))?;
                json.try_into().map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Writes a [`Date`] as a plain ISO string in JSON, as in an object's `createdAt` and `updatedAt`:
/// `#[serde(with = "parse_livequery::iso")]`.
///
/// Only writing needs it: a `Date` without it is read from either form.
///
/// ```
/// use parse_livequery::Date;
///
/// #[derive(serde::Deserialize, serde::Serialize)]
/// #[serde(rename_all = "camelCase")]
/// struct Game {
///     #[serde(with = "parse_livequery::iso")]
///     created_at: Date,
///     ends: Date,
/// }
///
/// let json = r#"{"createdAt":"2024-01-02T03:04:05.678Z","ends":{"__type":"Date","iso":"2024-01-03T00:00:00.000Z"}}"#;
/// let game: Game = serde_json::from_str(json)?;
/// assert_eq!(serde_json::to_string(&game)?, json);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub mod iso {
    use super::{Date, Deserialize, Deserializer, Iso, Serialize, Serializer};

    /// Writes the date as `2024-01-02T03:04:05.678Z`.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
        Iso(*date).serialize(serializer)
    }

    /// Reads a date from either form.
    ///
    /// # Errors
    ///
    /// If the value is not a date.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        Date::deserialize(deserializer)
    }
}

struct Iso(Date);

impl Serialize for Iso {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[derive(Deserialize)]
struct DateJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    iso: Option<String>,
}

impl TryFrom<DateJson> for Date {
    type Error = Error;

    fn try_from(json: DateJson) -> Result<Self> {
        check_tag(json.tag, "Date")?;
        Self::parse(&required(json.iso, "Date", "iso")?)
    }
}

// A civil date rather than jiff's `Timestamp`, whose last day is 9999-12-30: programs like to store the end
// of the year 9999 for "never".
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
const MIN: Date = Date {
    millis: -377_705_116_800_000,
};
const MAX: Date = Date {
    millis: 253_402_300_799_999,
};
const NANOS_PER_MILLI: i128 = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The milliseconds and texts are what Node 20 makes of the same input.
    #[test]
    fn dates_are_read_as_javascript_reads_them() {
        for (text, millis) in [
            ("2024-01-02T03:04:05.678Z", 1_704_164_645_678),
            ("2024-01-02", 1_704_153_600_000),
            ("2024-01-02T03:04:05Z", 1_704_164_645_000),
            ("2024-01-02T03:04Z", 1_704_164_640_000),
            ("2024-01-02T03:04:05.6789Z", 1_704_164_645_678),
            ("2024-01-02T03:04:05.678+02:00", 1_704_157_445_678),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("-000001-01-01T00:00:00.000Z", -62_198_755_200_000),
            ("0000-01-01T00:00:00.000Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(text.parse::<Date>().unwrap().millis(), millis, "{text}");
        }
    }

    proptest! {
        /// Servers write one form, which is read on a way of its own.
        #[test]
        fn what_servers_write_is_read_as_any_other_form(
            text in "[0-9]{4}-[0-3][0-9]-[0-3][0-9]T[0-6][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{3}Z",
            at in 0..24_usize,
            other in "[-0-9:.TZ +]",
        ) {
            let with_offset = format!("{}+00:00", text.trim_end_matches('Z'));
            prop_assert_eq!(Date::parse(&text).ok(), Date::parse(&with_offset).ok());
            prop_assert!(Date::as_servers_write(&text).is_some() || Date::parse(&text).is_err() || text.contains(":60."));
            // One that is a little different is none of them, or is read alike.
            let mut different = text;
            different.replace_range(at..=at, &other);
            if let Some(date) = Date::as_servers_write(&different) {
                prop_assert_eq!(Some(date), Date::parse(&different.replace('Z', "+00:00")).ok());
            }
        }
    }

    #[test]
    fn dates_are_written_as_javascript_writes_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_704_164_645_678, "2024-01-02T03:04:05.678Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
            (-377_705_116_800_000, "-009999-01-01T00:00:00.000Z"),
        ] {
            let date = Date::from_millis(millis).unwrap();
            assert_eq!(date.to_string(), text);
            assert_eq!(format!("{date:?}"), format!("Date({text})"));
        }
    }

    #[test]
    fn what_is_no_point_in_time_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "is not a date"),
            ("yesterday", "is not a date"),
            ("2024-02-30T00:00:00Z", "is not a date"),
            ("2024-01-02T25:00:00Z", "is not a date"),
            ("+010000-01-01T00:00:00.000Z", "is not a date"),
            ("2024-01-02T03:04:05.678", "no offset"),
            (
                "2024-01-02T03:04:05.678+01:00[Europe/Berlin]",
                "names a time zone",
            ),
            ("9999-12-31T23:59:59-01:00", "not within -9999 to 9999"),
            ("1704164645678", "is not a date"),
        ] {
            let error = Date::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue);
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
        assert!(Date::from_millis(MAX.millis + 1).is_err());
        assert!(Date::from_millis(MIN.millis - 1).is_err());
    }

    #[test]
    fn a_system_time_is_rounded_down_to_the_millisecond() {
        let nearly = Duration::from_nanos(1_999_999);
        assert_eq!(Date::from(SystemTime::UNIX_EPOCH + nearly).millis(), 1);
        assert_eq!(Date::from(SystemTime::UNIX_EPOCH - nearly).millis(), -2);
    }

    #[cfg(unix)]
    #[test]
    fn a_system_time_beyond_the_year_9999_becomes_the_last_date() {
        let far = Duration::from_secs(1 << 50);
        assert_eq!(Date::from(SystemTime::UNIX_EPOCH + far), MAX);
        assert_eq!(Date::from(SystemTime::UNIX_EPOCH - far), MIN);
    }

    #[test]
    fn a_plain_string_is_read_but_the_tagged_form_is_written() {
        let date: Date = serde_json::from_str(r#""2024-01-02T03:04:05.678Z""#).unwrap();
        assert_eq!(
            serde_json::to_string(&date).unwrap(),
            r#"{"__type":"Date","iso":"2024-01-02T03:04:05.678Z"}"#
        );
    }

    proptest! {
        #[test]
        fn every_date_survives_its_text_and_the_system_time(millis in MIN.millis..=MAX.millis) {
            let date = Date::from_millis(millis).unwrap();
            prop_assert_eq!(Date::parse(&date.to_string()).unwrap(), date);
            let first_of_the_system = Date::from(SystemTime::from(MIN));
            prop_assert_eq!(Date::from(SystemTime::from(date)), date.max(first_of_the_system));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = Date::parse(&text);
        }
    }
}

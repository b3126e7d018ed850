//! `Date`: a point in time, as Parse writes it. Must not know of clocks.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Timelike};
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
        let mut rest = Reader(text.as_bytes());
        let day = rest.day().ok_or_else(|| invalid(""))?;
        let (time, offset) = if rest.0.is_empty() {
            (NaiveTime::MIN, 0)
        } else {
            let time = rest.time().ok_or_else(|| invalid(""))?;
            let offset = rest.offset();
            match (rest.0.first(), offset) {
                (Some(b'['), _) => return Err(invalid(": it names a time zone")),
                (None, Some(offset)) => (time, offset),
                (None, None) => return Err(invalid(": it has no offset (a final Z means UTC)")),
                (Some(_), _) => return Err(invalid("")),
            }
        };
        let millis = day.and_time(time).and_utc().timestamp_millis() - offset;
        Self::from_millis(millis).map_err(|_| invalid(": in UTC its year is not within -9999 to 9999"))
    }
}

/// Reads the parts of a date from the front of its text.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// `2024-01-02`, or with a longer year and its sign `-000001-01-02`.
    fn day(&mut self) -> Option<NaiveDate> {
        let year = match self.one_of(b"+-") {
            Some(b'-') => -self.number(6).filter(|year| *year > 0)?,
            Some(_) => self.number(6)?,
            None => self.number(4)?,
        };
        let mut part = || self.one_of(b"-").and_then(|_| self.two_digits());
        NaiveDate::from_ymd_opt(year, part()?, part()?)
    }

    /// `T03:04`, `T03:04:05` or `T03:04:05.678`.
    fn time(&mut self) -> Option<NaiveTime> {
        self.one_of(b"Tt ")?;
        let hour = self.two_digits()?;
        self.one_of(b":")?;
        let minute = self.two_digits()?;
        let (mut second, mut millis) = (0, 0);
        if self.one_of(b":").is_some() {
            second = self.two_digits()?;
            if self.one_of(b".").is_some() {
                millis = self.fraction()?;
            }
        }
        NaiveTime::from_hms_milli_opt(hour, minute, second, millis)
    }

    /// `Z`, `+02:00`, `+0200` or `+02`, in milliseconds.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.two_digits().filter(|hours| *hours < 24)?;
        let minutes = if self.one_of(b":").is_some() {
            self.two_digits()?
        } else {
            self.two_digits().unwrap_or_default()
        };
        (minutes < 60).then(|| sign * i64::from(hours * 60 + minutes) * 60_000)
    }

    /// The digits of a fraction, of which the first three count.
    fn fraction(&mut self) -> Option<u32> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.0.split_at_checked(digits).filter(|_| digits > 0)?;
        self.0 = rest;
        let digits = fraction.iter().map(|digit| u32::from(digit - b'0'));
        Some(
            digits
                .chain([0, 0])
                .take(3)
                .fold(0, |sum, digit| sum * 10 + digit),
        )
    }

    fn two_digits(&mut self) -> Option<u32> {
        u32::try_from(self.number(2)?).ok()
    }

    fn number(&mut self, digits: usize) -> Option<i32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let number = number.iter().try_fold(0, |sum, byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit <= 9).then(|| sum * 10 + i32::from(digit))
        })?;
        self.0 = rest;
        Some(number)
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        bytes.contains(first).then(|| self.0 = rest)?;
        Some(*first)
    }
}

/// Writes ISO 8601 with three digits for the fraction, as the servers and the JS SDK do.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The calendar goes much further than the years that a date may have.
        let date = DateTime::from_timestamp_millis(self.millis).unwrap_or_default();
        match date.year() {
            year @ 0.. => write!(f, "{year:04}")?,
            year => write!(f, "{year:07}")?,
        }
        write!(
            f,
            "-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.month(),
            date.day(),
            date.hour(),
            date.minute(),
            date.second(),
            date.timestamp_subsec_millis(),
        )
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
            ("2024-01-02T03:04:05.6Z", 1_704_164_645_600),
            ("2024-01-02T03:04:05.678+02:00", 1_704_157_445_678),
            ("2024-01-02T03:04:05.678-0230", 1_704_173_645_678),
            ("2024-02-29", 1_709_164_800_000),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("-000001-01-01T00:00:00.000Z", -62_198_755_200_000),
            ("0000-01-01T00:00:00.000Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(text.parse::<Date>().unwrap().millis(), millis, "{text}");
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
            ("2023-02-29", "is not a date"),
            ("2024-1-2", "is not a date"),
            ("2024-01- 2", "is not a date"),
            ("-000000-01-01", "is not a date"),
            ("2024-01-02T25:00:00Z", "is not a date"),
            ("2024-01-02T24:00:00Z", "is not a date"),
            ("2024-01-02T03:60:00Z", "is not a date"),
            ("2024-01-02T03:04:60Z", "is not a date"),
            ("2024-01-02T03:04:05.Z", "is not a date"),
            ("2024-01-02T03:04:05+24:00", "is not a date"),
            ("2024-01-02T03:04:05+02:60", "is not a date"),
            ("2024-01-02T03:04:05Zulu", "is not a date"),
            ("2024-01-02T03Z", "is not a date"),
            ("+010000-01-01T00:00:00.000Z", "not within -9999 to 9999"),
            ("-010000-01-01", "not within -9999 to 9999"),
            ("2024-01-02T03:04:05.678", "no offset"),
            (
                "2024-01-02T03:04:05.678+01:00[Europe/Berlin]",
                "names a time zone",
            ),
            ("2024-01-02T03:04:05.678[Europe/Berlin]", "names a time zone"),
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

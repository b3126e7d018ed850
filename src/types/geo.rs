//! `GeoPoint` and `Polygon`: places on the globe, and the JS SDK's geometry on them.

use serde::{Deserialize, Serialize, Serializer};

use super::{check_tag, required};
use crate::error::{Error, ErrorKind, Result};

/// A place on the globe, in degrees.
///
/// In JSON `{"__type":"GeoPoint","latitude":40.5,"longitude":-74}`. Distances are computed as in the JS SDK:
/// along a great circle on a sphere.
///
/// ```
/// use parse_livequery::GeoPoint;
///
/// let berlin = GeoPoint::new(52.52, 13.405)?;
/// let paris = GeoPoint::new(48.8566, 2.3522)?;
/// assert_eq!(berlin.kilometers_to(paris).round(), 877.0);
/// assert!(GeoPoint::new(91.0, 0.0).is_err());
/// # Ok::<(), parse_livequery::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "__type", try_from = "GeoPointJson")]
pub struct GeoPoint {
    #[serde(serialize_with = "as_in_js")]
    latitude: f64,
    #[serde(serialize_with = "as_in_js")]
    longitude: f64,
}

impl GeoPoint {
    /// The place at `latitude` (-90 to 90, north is positive) and `longitude` (-180 to 180, east is positive).
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::InvalidValue`] if either is out of range or not a number.
    pub fn new(latitude: f64, longitude: f64) -> Result<Self> {
        check("latitude", latitude, 90.0)?;
        check("longitude", longitude, 180.0)?;
        Ok(Self { latitude, longitude })
    }

    /// Degrees north of the equator, negative in the south: -90 to 90.
    #[must_use]
    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich, negative in the west: -180 to 180.
    #[must_use]
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// The distance to `other` as an angle at the centre of the globe, in radians.
    #[must_use]
    pub fn radians_to(self, other: Self) -> f64 {
        const TO_RADIANS: f64 = std::f64::consts::PI / 180.0;
        let (latitude, other_latitude) = (self.latitude * TO_RADIANS, other.latitude * TO_RADIANS);
        let (longitude, other_longitude) = (self.longitude * TO_RADIANS, other.longitude * TO_RADIANS);
        let by_latitude = ((latitude - other_latitude) / 2.0).sin();
        let by_longitude = ((longitude - other_longitude) / 2.0).sin();
        // Half the chord between the points, squared. The order of operations is that of the JS SDK's
        // ParseGeoPoint.js, so that a place on the very edge of a circle is on the same side of it for both.
        let half_chord_squared =
            by_latitude * by_latitude + latitude.cos() * other_latitude.cos() * by_longitude * by_longitude;
        2.0 * half_chord_squared.min(1.0).sqrt().asin()
    }

    /// The distance to `other` in kilometres, on a globe with a radius of 6371.0 km.
    #[must_use]
    pub fn kilometers_to(self, other: Self) -> f64 {
        self.radians_to(other) * 6371.0
    }

    /// The distance to `other` in miles, on a globe with a radius of 3958.8 miles.
    #[must_use]
    pub fn miles_to(self, other: Self) -> f64 {
        self.radians_to(other) * 3958.8
    }
}

/// A polygon whose corners are places on the globe.
///
/// In JSON `{"__type":"Polygon","coordinates":[[0,0],[0,1],[1,1],[0,0]]}`, each pair a latitude and a
/// longitude. A polygon need not be closed: if it is not, the server repeats the first point at the end.
///
/// ```
/// use parse_livequery::{GeoPoint, Polygon};
///
/// let triangle = Polygon::new([GeoPoint::new(0.0, 0.0)?, GeoPoint::new(0.0, 10.0)?, GeoPoint::new(10.0, 10.0)?])?;
/// assert!(triangle.contains(GeoPoint::new(2.0, 5.0)?));
/// assert!(!triangle.contains(GeoPoint::new(5.0, 2.0)?));
/// # Ok::<(), parse_livequery::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "__type", try_from = "PolygonJson")]
pub struct Polygon {
    #[serde(serialize_with = "as_pairs")]
    coordinates: Vec<GeoPoint>,
}

impl Polygon {
    /// The polygon with these corners, in this order.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::InvalidValue`] if there are fewer than three points.
    pub fn new(coordinates: impl IntoIterator<Item = GeoPoint>) -> Result<Self> {
        let coordinates: Vec<_> = coordinates.into_iter().collect();
        if coordinates.len() < 3 {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "a Polygon needs at least 3 points, and there are {}",
                    coordinates.len()
                ),
            ));
        }
        Ok(Self { coordinates })
    }

    /// The corners, in order.
    #[must_use]
    pub fn coordinates(&self) -> &[GeoPoint] {
        &self.coordinates
    }

    /// Whether `point` is inside. Degrees are treated as coordinates on a plane, as the JS SDK's
    /// `containsPoint` does.
    ///
    /// A point on an edge may be on either side.
    #[must_use]
    pub fn contains(&self, point: GeoPoint) -> bool {
        let (x, y) = (point.latitude, point.longitude);
        let ends = self
            .coordinates
            .iter()
            .zip(self.coordinates.iter().cycle().skip(self.coordinates.len() - 1));
        // Counts how many edges a ray from the point crosses: it is inside if the number is odd. The order of
        // operations is that of the JS SDK's ParsePolygon.js.
        let crossed = ends.filter(|(start, end)| {
            let ((start_x, start_y), (end_x, end_y)) =
                ((start.latitude, start.longitude), (end.latitude, end.longitude));
            (start_y > y) != (end_y > y)
                && x < (end_x - start_x) * (y - start_y) / (end_y - start_y) + start_x
        });
        crossed.count() % 2 == 1
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a GeoPoint, such as {\"__type\":\"GeoPoint\",\"latitude\":40.5,\"longitude\":-74}")]
struct GeoPointJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl TryFrom<GeoPointJson> for GeoPoint {
    type Error = Error;

    fn try_from(json: GeoPointJson) -> Result<Self> {
        check_tag(json.tag, "GeoPoint")?;
        Self::new(
            required(json.latitude, "GeoPoint", "latitude")?,
            required(json.longitude, "GeoPoint", "longitude")?,
        )
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a Polygon, such as {\"__type\":\"Polygon\",\"coordinates\":[[0,0],[0,1],[1,1]]}")]
struct PolygonJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    coordinates: Option<Vec<(f64, f64)>>,
}

impl TryFrom<PolygonJson> for Polygon {
    type Error = Error;

    fn try_from(json: PolygonJson) -> Result<Self> {
        check_tag(json.tag, "Polygon")?;
        let coordinates = required(json.coordinates, "Polygon", "coordinates")?
            .into_iter()
            .map(|(latitude, longitude)| GeoPoint::new(latitude, longitude))
            .collect::<Result<Vec<_>>>()?;
        Self::new(coordinates)
    }
}

fn check(what: &str, degrees: f64, limit: f64) -> Result<()> {
    if (-limit..=limit).contains(&degrees) {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::InvalidValue,
            format!("the {what} {degrees} of a GeoPoint is not within -{limit} to {limit}"),
        ))
    }
}

struct Degrees(f64);

impl Serialize for Degrees {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_in_js(&self.0, serializer)
    }
}

/// JavaScript writes the number 40.0 as `40`, and a round trip should end where it began.
fn as_in_js<S: Serializer>(degrees: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if degrees.fract() == 0.0 {
        // Within -180 to 180.
        serializer.serialize_i64(*degrees as i64)
    } else {
        serializer.serialize_f64(*degrees)
    }
}

fn as_pairs<S: Serializer>(points: &[GeoPoint], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        points
            .iter()
            .map(|point| (Degrees(point.latitude), Degrees(point.longitude))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point((latitude, longitude): (f64, f64)) -> GeoPoint {
        GeoPoint::new(latitude, longitude).unwrap()
    }

    // The distances are those of the JS SDK 8.6.2.
    #[test]
    fn distances_are_those_of_the_js_sdk() {
        for (a, b, radians, kilometers, miles) in [
            (
                (52.52, 13.405),
                (48.8566, 2.3522),
                0.1377277234213692,
                877.4633259175432,
                545.2365114805165,
            ),
            (
                (0.0, 0.0),
                (0.0, 180.0),
                std::f64::consts::PI,
                20015.086796020572,
                12436.936997031273,
            ),
            (
                (90.0, 0.0),
                (-90.0, 0.0),
                std::f64::consts::PI,
                20015.086796020572,
                12436.936997031273,
            ),
            (
                (-33.8688, 151.2093),
                (51.5074, -0.1278),
                2.667388708177037,
                16993.933459795902,
                10559.658417931254,
            ),
            ((1.5, -2.0), (1.5, -2.0), 0.0, 0.0, 0.0),
            (
                (0.0, 179.9),
                (0.0, -179.9),
                0.003490658503988687,
                22.238985328911923,
                13.818818885590414,
            ),
        ] {
            let (a, b) = (point(a), point(b));
            // Platforms' maths libraries may differ in the last digit of a sine.
            let near = |found: f64, expected: f64| (found - expected).abs() <= expected * 1e-12;
            assert!(near(a.radians_to(b), radians), "{}", a.radians_to(b));
            assert!(near(a.kilometers_to(b), kilometers), "{}", a.kilometers_to(b));
            assert!(near(b.miles_to(a), miles), "{}", b.miles_to(a));
        }
    }

    #[test]
    fn the_edges_of_the_globe_are_on_it_and_nothing_else_is() {
        assert!(GeoPoint::new(90.0, 180.0).is_ok());
        assert!(GeoPoint::new(-90.0, -180.0).is_ok());
        for (latitude, longitude) in [
            (90.1, 0.0),
            (-90.1, 0.0),
            (0.0, 180.1),
            (0.0, -180.1),
            (f64::NAN, 0.0),
            (0.0, f64::INFINITY),
        ] {
            let error = GeoPoint::new(latitude, longitude).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue);
        }
    }

    // The answers are those of the JS SDK 8.6.2, on the edges too.
    #[test]
    fn a_polygon_contains_what_it_contains_for_the_js_sdk() {
        let corners = [
            (0.0, 0.0),
            (0.0, 10.0),
            (10.0, 10.0),
            (10.0, 5.0),
            (5.0, 5.0),
            (5.0, 0.0),
        ];
        let polygon = Polygon::new(corners.map(point)).unwrap();
        for (place, inside) in [
            ((1.0, 1.0), true),
            ((7.0, 7.0), true),
            ((7.0, 2.0), false),
            ((5.0, 2.5), false),
            ((0.0, 5.0), true),
            ((10.0, 7.0), false),
            ((0.0, 0.0), true),
            ((10.0, 10.0), false),
            ((-1.0, 5.0), false),
            ((2.5, 0.0), true),
            ((5.0, 7.0), true),
            ((4.999, 0.001), true),
        ] {
            assert_eq!(polygon.contains(point(place)), inside, "{place:?}");
        }

        // Cases that rounding decides, and would decide differently if the edge were taken from its other
        // end.
        for (corners, place, inside) in [
            (
                [(0.7, 17.2), (41.8, 37.3), (22.9, 4.5)],
                (11.712598425196848, 10.9),
                false,
            ),
            (
                [(9.8, 46.6), (5.5, 4.9), (40.3, 7.7)],
                (25.010796915167095, 27.2),
                true,
            ),
        ] {
            let polygon = Polygon::new(corners.map(point)).unwrap();
            assert_eq!(polygon.contains(point(place)), inside, "{place:?}");
        }
    }
}

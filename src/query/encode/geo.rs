//! The conditions on points and polygons.

use super::values::{geo_point, pair, polygon_points};
use super::{Field, member, tagged};
use crate::error::Result;
use crate::query::node::Node;
use crate::query::ordered_json::Json;
use crate::query::refuse;
use crate::query::refuse::invalid;

impl<'a> Field<'a> {
    /// `distance` is the limit, and how many of its units are one radian.
    pub(super) fn near(&mut self, point: &Json, distance: Option<(&Json, f64)>) -> Result<()> {
        let center = geo_point("near", self.key, point)?;
        let distance = match distance {
            Some((distance, unit)) => Some(self.distance(distance)? / unit),
            None => None,
        };
        self.around(center, distance);
        Ok(())
    }

    // For both the sorted and the unsorted search: the matcher sorts nothing, and $centerSphere treats a
    // missing field as latitude 0 and longitude 0.
    fn around(&mut self, (latitude, longitude): (f64, f64), distance: Option<f64>) {
        let mut conditions = vec![("$nearSphere".to_owned(), point(latitude, longitude))];
        if let Some(distance) = distance {
            // The matcher treats 0 as no limit.
            let distance = if distance == 0.0 {
                f64::MIN_POSITIVE
            } else {
                distance
            };
            conditions.push(("$maxDistance".to_owned(), Json::number(distance)));
        }
        self.place(Json::Object(conditions));
    }

    /// A condition on a field that is a GeoPoint.
    fn place(&mut self, conditions: Json) {
        self.positive = true;
        self.others.push(Node::Ordered(vec![
            Node::Test(member(self.key, "__type"), Json::string("GeoPoint")),
            Node::Test(self.key.into(), conditions),
        ]));
    }

    fn distance(&self, distance: &Json) -> Result<f64> {
        match distance.as_f64() {
            Some(radians) if radians >= 0.0 => Ok(radians),
            _ => Err(invalid(format!(
                "the distance from the point on {:?} is {distance}, and must be 0 or more",
                self.key
            ))),
        }
    }

    // As ranges of the coordinates, because the matcher's $within excludes the border.
    pub(super) fn within_box(&mut self, value: &Json) -> Result<()> {
        const METHOD: &str = "within_geo_box";
        let corners = value.get("$box").and_then(Json::as_array);
        let Some([southwest, northeast]) = corners else {
            return Err(self.malformed(METHOD, value));
        };
        let (south, west) = geo_point(METHOD, self.key, southwest)?;
        let (north, east) = geo_point(METHOD, self.key, northeast)?;
        if south > north || west > east {
            return Err(refuse::error(
                METHOD,
                self.key,
                "the box crosses the date line or its corners are not the southwest and the northeast one, so it \
                 contains nothing",
                "divide it at the date line into two boxes and combine them with Query::or",
            ));
        }
        let between = |least, most| {
            Json::Object(vec![
                ("$gte".to_owned(), Json::number(least)),
                ("$lte".to_owned(), Json::number(most)),
            ])
        };
        self.positive = true;
        self.others.push(tagged(
            self.key,
            "GeoPoint",
            [
                ("latitude", between(south, north)),
                ("longitude", between(west, east)),
            ],
        ));
        Ok(())
    }

    pub(super) fn geo_within(&mut self, value: &Json) -> Result<()> {
        const METHOD: &str = "within_polygon";
        if let Some(sphere) = value.get("$centerSphere") {
            let Some([center, distance]) = sphere.as_array() else {
                return Err(self.malformed("within_radians", value));
            };
            let center = match center {
                Json::Array(_) => pair("within_radians", self.key, center)
                    .map(|(longitude, latitude)| (latitude, longitude)),
                _ => geo_point("within_radians", self.key, center),
            }?;
            let distance = self.distance(distance)?;
            self.around(center, Some(distance));
            return Ok(());
        }
        let points =
            polygon_points(METHOD, self.key, value).ok_or_else(|| self.malformed(METHOD, value))??;
        if points.len() < 3 {
            return Err(invalid(format!(
                "the polygon on {:?} has {} points, and needs at least 3",
                self.key,
                points.len()
            )));
        }
        self.place(Json::member(
            "$geoWithin",
            Json::member("$polygon", Json::Array(points)),
        ));
        Ok(())
    }

    pub(super) fn polygon_contains(&mut self, value: &Json) -> Result<()> {
        const METHOD: &str = "polygon_contains";
        let held = value.get("$point").ok_or_else(|| self.malformed(METHOD, value))?;
        let (latitude, longitude) = geo_point(METHOD, self.key, held)?;
        self.positive = true;
        self.others.push(Node::Ordered(vec![
            Node::Test(member(self.key, "__type"), Json::string("Polygon")),
            // With fewer than three corners the matcher throws.
            Node::condition(member(self.key, "coordinates.2.1"), "$exists", Json::Bool(true)),
            Node::condition(
                self.key,
                "$geoIntersects",
                Json::member("$point", point(latitude, longitude)),
            ),
        ]));
        Ok(())
    }
}

/// The field is a Polygon with these corners, given without a repeated first corner at the end. The polygon
/// is stored closed with `create` and in `find()`, and comes as it was written with `update`. `is_closed` is
/// `None` for both forms.
pub(super) fn same_ring<'a>(key: &'a str, ring: &[(f64, f64)], is_closed: Option<bool>) -> Node<'a> {
    let corner = |index: usize, (latitude, longitude): (f64, f64)| {
        [(0, latitude), (1, longitude)].map(|(axis, degrees)| {
            Node::Test(
                member(key, &format!("coordinates.{index}.{axis}")),
                Json::number(degrees),
            )
        })
    };
    let length = |count: usize| Node::Test(member(key, "coordinates.length"), Json::Number(count.into()));
    let mut closed = vec![length(ring.len() + 1)];
    closed.extend(
        ring.first()
            .into_iter()
            .flat_map(|first| corner(ring.len(), *first)),
    );
    let end = match is_closed {
        None => Node::Any(vec![length(ring.len()), Node::Ordered(closed)]),
        Some(true) => Node::Ordered(closed),
        Some(false) => length(ring.len()),
    };
    let mut nodes = vec![Node::Test(member(key, "__type"), Json::string("Polygon")), end];
    nodes.extend(
        ring.iter()
            .enumerate()
            .flat_map(|(index, position)| corner(index, *position)),
    );
    Node::Ordered(nodes)
}

fn point(latitude: f64, longitude: f64) -> Json {
    Json::Object(vec![
        ("__type".to_owned(), Json::string("GeoPoint")),
        ("latitude".to_owned(), Json::number(latitude)),
        ("longitude".to_owned(), Json::number(longitude)),
    ])
}

//! The conditions on points and polygons.

use std::borrow::Cow;

use super::values::{geo_point, pair, polygon_points};
use super::{Field, member};
use crate::error::Result;
use crate::query::filter::invalid;
use crate::query::node::Node;
use crate::query::ordered_json::Json;
use crate::query::refuse;

impl Field<'_> {
    pub(super) fn near(&mut self, point: &Json, distance: Option<&Json>) -> Result<()> {
        let center = geo_point(self.key, point)?;
        let distance = match distance {
            Some(distance) => Some(self.distance(distance)?),
            None => None,
        };
        self.around(center, distance);
        Ok(())
    }

    // Both the sorted and the unsorted search: the matcher sorts nothing, and $centerSphere takes a missing field for
    // latitude 0 and longitude 0.
    fn around(&mut self, (latitude, longitude): (f64, f64), distance: Option<f64>) {
        let point = Json::Object(vec![
            ("__type".to_owned(), Json::string("GeoPoint")),
            ("latitude".to_owned(), Json::number(latitude)),
            ("longitude".to_owned(), Json::number(longitude)),
        ]);
        let mut conditions = vec![("$nearSphere".into(), point)];
        if let Some(distance) = distance {
            // The matcher takes 0 for no limit.
            let distance = if distance == 0.0 {
                f64::MIN_POSITIVE
            } else {
                distance
            };
            conditions.push(("$maxDistance".into(), Json::number(distance)));
        }
        self.positive = true;
        self.others.push(Node::Conditions(self.key.into(), conditions));
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

    // As ranges of the coordinates, since the matcher's $within leaves out the border.
    pub(super) fn within_box(&mut self, value: &Json) -> Result<()> {
        let corners = value.get("$box").and_then(Json::as_array);
        let Some([southwest, northeast]) = corners else {
            return Err(self.malformed(value));
        };
        let (south, west) = geo_point(self.key, southwest)?;
        let (north, east) = geo_point(self.key, northeast)?;
        if south > north || west > east {
            return Err(refuse::error(
                "within_geo_box",
                self.key,
                "the box crosses the date line or its corners are not the southwest and the northeast one, so it \
                 contains nothing",
                "divide it at the date line into two boxes and combine them with Query::or",
            ));
        }
        self.positive = true;
        self.others
            .push(between(member(self.key, "latitude"), south, north));
        self.others
            .push(between(member(self.key, "longitude"), west, east));
        Ok(())
    }

    pub(super) fn geo_within(&mut self, value: &Json) -> Result<()> {
        if let Some(sphere) = value.get("$centerSphere") {
            let Some([center, distance]) = sphere.as_array() else {
                return Err(self.malformed(value));
            };
            let center = match center {
                Json::Array(_) => pair(self.key, center).map(|(longitude, latitude)| (latitude, longitude)),
                _ => geo_point(self.key, center),
            }?;
            let distance = self.distance(distance)?;
            self.around(center, Some(distance));
            return Ok(());
        }
        let points = polygon_points(self.key, value).ok_or_else(|| self.malformed(value))??;
        if points.len() < 3 {
            return Err(invalid(format!(
                "the polygon on {:?} has {} points, and needs at least 3",
                self.key,
                points.len()
            )));
        }
        self.positive = true;
        self.others.push(Node::Conditions(
            self.key.into(),
            vec![
                // It throws if there is no point.
                ("$all".into(), Json::Array(Vec::new())),
                ("$geoWithin".into(), Json::member("$polygon", Json::Array(points))),
            ],
        ));
        Ok(())
    }

    pub(super) fn polygon_contains(&mut self, value: &Json) -> Result<()> {
        let point = value.get("$point").ok_or_else(|| self.malformed(value))?;
        geo_point(self.key, point)?;
        self.positive = true;
        self.others.push(Node::Conditions(
            self.key.into(),
            vec![
                // It throws if there is no polygon.
                ("$all".into(), Json::Array(Vec::new())),
                ("$geoIntersects".into(), Json::member("$point", point.clone())),
            ],
        ));
        Ok(())
    }
}

fn between(key: Cow<'_, str>, least: f64, most: f64) -> Node<'_> {
    Node::Conditions(
        key,
        vec![
            ("$exists".into(), Json::Bool(true)),
            ("$gte".into(), Json::number(least)),
            ("$lte".into(), Json::number(most)),
        ],
    )
}

//! The subscriptions that are needed to miss no change of a query's answer, where LiveQuery cannot judge the
//! query itself. It knows conditions. Must not know who follows them.
//!
//! A condition that LiveQuery cannot judge is dropped in such a way that every object that matches the whole
//! query also matches the rest: the *upper bound* of the conditions. In an `and`, the condition is left out;
//! in an `or`, it makes the whole `or` true, because any object may match it. A negation turns this around:
//! what is negated must not become wider, so there the *lower bound* counts, in which no object matches a
//! condition that cannot be judged.

use super::Query;
use super::encode::{DISTANCES, Target, encode};
use super::filter::{Entry, Filter, Operator};
use super::ordered_json::Json;
use super::refuse::{REFUSALS, is_refusal};
use crate::error::Result;

/// What a live set subscribes to.
pub(crate) struct Plan {
    /// The set's own class, with what LiveQuery can judge of its conditions.
    pub(crate) own: Query,
    /// Whether those are all of them: then each event shows whether its object matches.
    pub(crate) is_exact: bool,
    /// The other queries that decide which objects match.
    pub(crate) others: Vec<Query>,
}

impl Query {
    /// The subscriptions of a live set. Order and window are left out.
    ///
    /// # Errors
    ///
    /// Anything that is wrong with a query inside this one.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let query = self.without_window();
        let mut bounds = Bounds { is_exact: true };
        let bound = bounds.of(&query.filter, Side::Upper)?;
        if bounds.is_exact {
            return Ok(Plan {
                own: query,
                is_exact: true,
                others: Vec::new(),
            });
        }
        let mut others = Vec::new();
        add_others(&query.filter.to_json(), &mut others)?;
        let own = Self {
            filter: match bound {
                Bound::Filter(filter) => filter,
                Bound::All | Bound::None => Filter::default(),
            },
            allow_unsupported: false,
            ..query
        };
        Ok(Plan {
            own,
            is_exact: false,
            others,
        })
    }

    /// Whether it has a `near`, which sorts by distance if no order is given.
    pub(crate) fn sorts_by_distance(&self) -> bool {
        self.order.is_none() && self.filter.to_json().to_string().contains("\"$nearSphere\":")
    }
}

/// In which direction conditions may be inexact.
#[derive(Clone, Copy)]
enum Side {
    /// Matches more objects.
    Upper,
    /// Matches fewer.
    Lower,
}

enum Bound {
    /// Matches every object.
    All,
    /// Matches no object.
    None,
    Filter(Filter),
}

struct Bounds {
    is_exact: bool,
}

impl Bounds {
    fn of(&mut self, filter: &Filter, side: Side) -> Result<Bound> {
        let entries = match filter {
            Filter::Entries(entries) => entries,
            Filter::Raw(json) if names_others(json) => {
                return self.of(&Filter::from_json(json.clone())?, side);
            }
            Filter::Raw(_) => return Ok(Bound::Filter(filter.clone())),
        };
        let mut kept = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let bound = match entry {
                Entry::Logical(filters) if !filters.is_empty() => self.logical(key, filters, side)?,
                Entry::Operators(operators) => self.operators(key, operators, side),
                entry => self.single(key, entry.clone(), side),
            };
            match bound {
                Bound::All => {}
                Bound::None => return Ok(Bound::None),
                Bound::Filter(Filter::Entries(mut entries)) => kept.append(&mut entries),
                Bound::Filter(raw) => kept.push(("$and".to_owned(), Entry::Logical(vec![raw]))),
            }
        }
        if kept.is_empty() && !entries.is_empty() {
            return Ok(Bound::All);
        }
        Ok(Bound::Filter(Filter::Entries(kept)))
    }

    fn logical(&mut self, operator: &str, filters: &[Filter], side: Side) -> Result<Bound> {
        let inner = match (operator, side) {
            ("$nor", Side::Upper) => Side::Lower,
            ("$nor", Side::Lower) => Side::Upper,
            _ => side,
        };
        let is_and = operator == "$and";
        let mut kept = Vec::with_capacity(filters.len());
        for filter in filters {
            match self.of(filter, inner)? {
                Bound::Filter(filter) => kept.push(filter),
                Bound::All if is_and => {}
                Bound::None if !is_and => {}
                // It decides the whole.
                Bound::All if operator == "$nor" => return Ok(Bound::None),
                Bound::All => return Ok(Bound::All),
                Bound::None => return Ok(Bound::None),
            }
        }
        Ok(match (kept.is_empty(), operator) {
            (true, "$or") => Bound::None,
            (true, _) => Bound::All,
            _ => one(operator, Entry::Logical(kept)),
        })
    }

    /// The conditions on one field.
    fn operators(&mut self, key: &str, operators: &[(Operator, Json)], side: Side) -> Bound {
        let is_partner = |name: &str| name == "$options" || DISTANCES.iter().any(|(other, _)| *other == name);
        let mut kept: Vec<(Operator, Json)> = Vec::new();
        for operator in operators.iter().filter(|(name, _)| !is_partner(name)) {
            let partners = |(name, _): &&(Operator, Json)| match &*operator.0 {
                "$regex" => name == "$options",
                "$nearSphere" => name != "$options" && is_partner(name),
                _ => false,
            };
            let partners = operators.iter().filter(partners).cloned();
            let group: Vec<_> = std::iter::once(operator.clone()).chain(partners).collect();
            match self.single(key, Entry::Operators(group.clone()), side) {
                Bound::All => {}
                Bound::None => return Bound::None,
                Bound::Filter(_) => kept.extend(group),
            }
        }
        let are_alone = operators.iter().all(|(name, _)| is_partner(name));
        match (kept.is_empty(), are_alone) {
            (true, false) => Bound::All,
            // An option without its operator is wrong, which is reported when the query is sent.
            (true, true) => one(key, Entry::Operators(operators.to_vec())),
            (false, _) => self.single(key, Entry::Operators(kept), side),
        }
    }

    /// A condition that is wrong in any use is kept, and reported when the query is sent.
    fn single(&mut self, key: &str, entry: Entry, side: Side) -> Bound {
        let filter = Filter::Entries(vec![(key.to_owned(), entry)]);
        match encode(&filter, Target::default()) {
            Err(error) if is_refusal(&error) => {
                self.is_exact = false;
                match side {
                    Side::Upper => Bound::All,
                    Side::Lower => Bound::None,
                }
            }
            _ => Bound::Filter(filter),
        }
    }
}

fn one(key: &str, entry: Entry) -> Bound {
    Bound::Filter(Filter::Entries(vec![(key.to_owned(), entry)]))
}

/// Whether a `where` that is sent unchanged asks for something that the LiveQuery server never finds.
fn names_others(json: &Json) -> bool {
    match json {
        Json::Object(members) => members.iter().any(|(name, value)| {
            REFUSALS.iter().any(|refusal| refusal.operator == name) || names_others(value)
        }),
        Json::Array(items) => items.iter().any(names_others),
        _ => false,
    }
}

/// Each query inside a `where`, and the owner of each relation.
fn add_others(json: &Json, others: &mut Vec<Query>) -> Result<()> {
    match json {
        Json::Array(items) => items.iter().try_for_each(|item| add_others(item, others)),
        Json::Object(members) => members.iter().try_for_each(|(name, value)| match &**name {
            "$inQuery" | "$notInQuery" => add_inner(value, others),
            "$select" | "$dontSelect" => value
                .get("query")
                .map_or(Ok(()), |inner| add_inner(inner, others)),
            "$relatedTo" => {
                let owner = value.get("object");
                let text = |name| owner.and_then(|owner| owner.get(name)).and_then(Json::as_str);
                if let (Some(class_name), Some(id)) = (text("className"), text("objectId")) {
                    add(Query::new(class_name).equal_to("objectId", id), others);
                }
                Ok(())
            }
            _ => add_others(value, others),
        }),
        _ => Ok(()),
    }
}

fn add_inner(inner: &Json, others: &mut Vec<Query>) -> Result<()> {
    let Some(class_name) = inner.get("className").and_then(Json::as_str) else {
        return Ok(());
    };
    let mut query = Query::new(class_name);
    if let Some(conditions) = inner.get("where") {
        query.filter = Filter::from_json(conditions.clone())?;
    }
    let plan = query.plan()?;
    add(plan.own, others);
    plan.others.into_iter().for_each(|other| add(other, others));
    Ok(())
}

/// A query whose objects are all followed already is not followed again.
fn add(query: Query, others: &mut Vec<Query>) {
    let is_everything = |query: &Query| query.filter == Filter::default();
    let is_same_class = |other: &Query| other.class_name == query.class_name;
    let is_followed =
        |other: &Query| is_same_class(other) && (is_everything(other) || other.filter == query.filter);
    if others.iter().any(is_followed) {
        return;
    }
    if is_everything(&query) {
        others.retain(|other| !is_same_class(other));
    }
    others.push(query);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::object::Object;

    /// A tree of conditions, some of which LiveQuery cannot judge.
    #[derive(Clone, Debug)]
    enum Tree {
        /// The field of this number is 1.
        Field(usize),
        /// Represents something that is true or false regardless of the object.
        Foreign(usize),
        And(Vec<Self>),
        Or(Vec<Self>),
        Nor(Vec<Self>),
        /// In one object: that is an `and` as well.
        Members(Vec<Self>),
    }

    impl Tree {
        fn json(&self) -> Value {
            let list = |trees: &[Self]| Value::from(trees.iter().map(Self::json).collect::<Vec<_>>());
            match self {
                Self::Field(number) => json!({ format!("f{number}"): 1 }),
                Self::Foreign(number) => {
                    json!({ format!("u{number}"): {"$inQuery": {"className": "Other", "where": {}}} })
                }
                Self::And(trees) => json!({"$and": list(trees)}),
                Self::Or(trees) => json!({"$or": list(trees)}),
                Self::Nor(trees) => json!({"$nor": list(trees)}),
                Self::Members(trees) => {
                    let mut members = Map::new();
                    for tree in trees {
                        if let Value::Object(more) = tree.json() {
                            members.extend(more);
                        }
                    }
                    members.into()
                }
            }
        }

        fn has_foreign(&self) -> bool {
            self.json().to_string().contains("$inQuery")
        }
    }

    /// What the conditions say, as they are written: a later member replaces an earlier one with the same
    /// name.
    fn holds(conditions: &Value, fields: &[bool], foreign: &[bool]) -> bool {
        let parts = |value: &Value| value.as_array().unwrap().clone();
        let holds = |part: &Value| holds(part, fields, foreign);
        conditions
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, value)| match &**name {
                "$and" => parts(value).iter().all(holds),
                "$or" => parts(value).iter().any(holds),
                "$nor" => !parts(value).iter().any(holds),
                name => {
                    let answers = if name.starts_with('f') { fields } else { foreign };
                    answers[name[1..].parse::<usize>().unwrap()]
                }
            })
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            (0..3usize).prop_map(Tree::Field),
            (0..3usize).prop_map(Tree::Foreign)
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let some = prop::collection::vec(inner, 1..4);
            prop_oneof![
                some.clone().prop_map(Tree::And),
                some.clone().prop_map(Tree::Or),
                some.clone().prop_map(Tree::Nor),
                some.prop_map(Tree::Members),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_followed_is_never_narrower_than_the_query(
            tree in trees(),
            fields: [bool; 3],
            foreign: [bool; 3],
        ) {
            let query = Query::from_json("Game", json!({"where": tree.json()})).unwrap();
            let plan = query.plan().unwrap();
            prop_assert_eq!(plan.is_exact, !tree.has_foreign());
            let mut object = json!({"className": "Game", "objectId": "a"});
            for (at, is_one) in fields.iter().enumerate() {
                object[format!("f{at}")] = i32::from(*is_one).into();
            }
            let object = Object::from_json(object).unwrap();
            let is_followed = plan.own.matches_object(&object).unwrap().unwrap();
            let holds = holds(&tree.json(), &fields, &foreign);
            prop_assert!(!holds || is_followed, "{}", plan.own.live_query_where().unwrap());
            prop_assert!(!plan.is_exact || holds == is_followed);
        }
    }

    fn wide(query: &Query) -> (String, Vec<(String, String)>) {
        let plan = query.plan().unwrap();
        let text = |query: &Query| query.to_json().unwrap();
        let others = plan
            .others
            .iter()
            .map(|other| (other.class_name.clone(), text(other)));
        (text(&plan.own), others.collect())
    }

    #[test]
    fn what_decides_is_followed_as_narrowly_as_it_can_be() {
        let games = || Query::new("Game");
        let players = || Query::new("Player").equal_to("level", 1);
        let followed = |class: &str, json: &str| (class.to_owned(), json.to_owned());
        let player = || followed("Player", r#"{"where":{"level":1}}"#);
        for (query, own, others) in [
            (
                games().equal_to("a", 1).matches_query("owner", players()),
                r#"{"where":{"a":1}}"#,
                vec![player()],
            ),
            (
                games()
                    .matches_key_in_query("owner", "name", players())
                    .does_not_match_query("b", players()),
                r#"{"where":{}}"#,
                vec![player()],
            ),
            (
                Query::or([
                    games().equal_to("a", 1),
                    games().matches_query("owner", players()),
                ])
                .equal_to("c", 2),
                r#"{"where":{"c":2}}"#,
                vec![player()],
            ),
            (
                Query::nor([
                    games().equal_to("a", 1),
                    games().matches_query("owner", players()),
                ]),
                r#"{"where":{"$nor":[{"a":1}]}}"#,
                vec![player()],
            ),
            (
                games().matches_query(
                    "owner",
                    Query::new("Player").matches_query("team", Query::new("Team")),
                ),
                r#"{"where":{}}"#,
                vec![
                    followed("Player", r#"{"where":{}}"#),
                    followed("Team", r#"{"where":{}}"#),
                ],
            ),
            (
                games()
                    .related_to(&crate::types::Pointer::new("Club", "c1"), "games")
                    .limit(3),
                r#"{"where":{}}"#,
                vec![followed("Club", r#"{"where":{"objectId":"c1"}}"#)],
            ),
            (
                games().full_text("name", "chess").equal_to("a", 1),
                r#"{"where":{"a":1}}"#,
                vec![],
            ),
            (
                games().raw_where(
                    json!({"a": 1, "b": {"$gt": 2, "$inQuery": {"className": "Player", "where": {}}}}),
                ),
                r#"{"where":{"a":1,"b":{"$gt":2}}}"#,
                vec![followed("Player", r#"{"where":{}}"#)],
            ),
        ] {
            assert_eq!(wide(&query), (own.to_owned(), others), "{query:?}");
        }
    }

    #[test]
    fn what_changes_with_time_or_is_unknown_to_find_is_still_refused() {
        for condition in [
            json!({"$gt": {"$relativeTime": "1 day ago"}}),
            json!({"$size": 2}),
            json!({"$foo": 1}),
        ] {
            let query = Query::from_json("Game", json!({"where": {"a": condition}})).unwrap();
            let plan = query.plan().unwrap();
            assert!(plan.is_exact && plan.own.encode().is_err(), "{condition}");
        }
    }
}

//! Single cases on purpose, where `properties.rs` finds them by chance.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::super::change::{Change, Entry};
use super::catch_up::Limits;
use super::{Core, Moment, Output, Request, Task};
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::fetch_error::FetchError;
use crate::object::Object;
use crate::query::Query;

struct Set {
    core: Core,
    now: Moment,
}

/// An object after this many saves.
fn game(id: &str, saves: u32, fields: Value) -> Object {
    let mut json = json!({
        "className": "Game", "objectId": id, "createdAt": "2024-01-01T00:00:00.000Z",
        "updatedAt": format!("2024-01-01T00:00:{saves:02}.000Z"), "open": true,
    });
    for (name, value) in fields.as_object().unwrap() {
        json[name] = value.clone();
    }
    Object::from_json(json).unwrap()
}

fn closed_game(id: &str, saves: u32) -> Object {
    game(id, saves, json!({"open": false}))
}

fn busy() -> Error {
    Error::new(ErrorKind::Fetch, "the server is busy")
}

impl Set {
    /// A set that is open, and has fetched nothing.
    fn open(query: &Query) -> Self {
        let mut set = Self {
            core: Core::new(query, 1),
            now: Moment {
                at: Instant::now(),
                time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            },
        };
        set.core.opened(None, set.now);
        set
    }

    fn ready(query: &Query, objects: &[Object]) -> Self {
        let mut set = Self::open(query);
        set.answer_all(objects);
        assert!(set.core.is_ready());
        set.outputs();
        set
    }

    fn games(objects: &[Object]) -> Self {
        Self::ready(&Query::new("Game").equal_to("open", true), objects)
    }

    #[track_caller]
    fn request(&mut self) -> Request {
        loop {
            match self.core.next_task(self.now.at) {
                Task::Fetch(request) => return *request,
                Task::Wait(at) => self.pass(at.expect("it asks for nothing") - self.now.at),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.time += time;
    }

    fn answer(&mut self, request: &Request, objects: &[Object]) {
        let entries = objects
            .iter()
            .map(|object| Entry::new(&request.order, object, "Game").unwrap());
        self.core.fetched(request.ticket, Ok(entries.collect()), self.now);
    }

    /// Answers all requests, as a server that sorts these objects in this order.
    fn answer_all(&mut self, sorted: &[Object]) {
        loop {
            let request = match self.core.next_task(self.now.at) {
                Task::Fetch(request) => request,
                Task::Wait(Some(at)) => {
                    self.pass(at - self.now.at);
                    continue;
                }
                Task::Wait(None) => return,
            };
            let query: Value = serde_json::from_str(&request.query.to_json().unwrap()).unwrap();
            let number = |name: &str| {
                query[name]
                    .as_u64()
                    .and_then(|number| usize::try_from(number).ok())
            };
            let restriction = &query["where"]["$and"][1]["objectId"];
            let mut found = sorted.to_vec();
            if let Some(ids) = restriction["$in"].as_array() {
                found.retain(|object| ids.iter().any(|id| id.as_str() == object.id()));
            }
            if let Some(after) = restriction["$gt"].as_str() {
                found.retain(|object| object.id() > Some(after));
            }
            if query["order"] == "objectId" {
                found.sort_by(|one, other| one.id().cmp(&other.id()));
            }
            let page = found
                .into_iter()
                .skip(number("skip").unwrap_or(0))
                .take(number("limit").unwrap_or(100));
            self.answer(&request, &page.collect::<Vec<_>>());
        }
    }

    fn fail(&mut self, request: &Request) {
        self.core.fetched(request.ticket, Err(busy().into()), self.now);
    }

    fn event(&mut self, kind: EventKind, object: &Object, original: Option<&Object>) {
        self.core.event(kind, object, original, self.now);
    }

    /// The names of the outputs.
    fn outputs(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.core.next_output())
            .map(|output| match output {
                Output::Change(Change::Inserted { object, .. }, _) => format!("+{}", object.id().unwrap()),
                Output::Change(Change::Removed { object, .. }, _) => format!("-{}", object.id().unwrap()),
                Output::Change(Change::Reset, _) => "reset".to_owned(),
                Output::Change(change, _) => format!("~{}", change.object().unwrap().id().unwrap()),
                Output::Ready => "ready".to_owned(),
                Output::Stale(_) => "stale".to_owned(),
                Output::Failed(error) => format!("failed: {error}"),
                Output::Refreshed(number, result) => {
                    format!("refreshed {number} {}", if result.is_ok() { "ok" } else { "not" })
                }
                Output::Answered(number, result) => {
                    format!("answered {number} {}", if result.is_ok() { "ok" } else { "not" })
                }
            })
            .collect()
    }

    fn ids(&self) -> Vec<String> {
        let id = |entry: &std::sync::Arc<Entry>| entry.object().id().unwrap().to_owned();
        self.core.shown.iter().map(id).collect()
    }
}

#[test]
fn an_event_that_was_lost_makes_it_stale_until_a_later_fetch_has_succeeded() {
    let mut set = Set::games(&[game("a", 0, json!({}))]);
    let earlier = set.core.refresh();
    let began_before = set.request();
    set.core.missed(set.now);
    assert_eq!(set.outputs(), ["stale"]);
    assert_eq!(set.core.stale_since(), Some(set.now.time));
    // It was read before, perhaps.
    set.answer(&began_before, &[game("a", 0, json!({})), game("b", 0, json!({}))]);
    let page = set.request();
    set.answer(&page, &[]);
    assert_eq!(
        set.outputs(),
        ["+b".to_owned(), format!("refreshed {earlier} ok")]
    );
    assert!(!set.core.is_ready());
    let request = set.request();
    set.fail(&request);
    assert!(!set.core.is_ready());
    set.answer_all(&[game("a", 0, json!({})), game("b", 0, json!({}))]);
    assert_eq!(set.outputs(), ["failed: the server is busy", "ready"]);
    assert_eq!(set.core.stale_since(), None);
}

#[test]
fn an_event_that_is_late_does_not_bring_back_what_a_lost_one_took_out() {
    let mut set = Set::games(&[]);
    // `a` was created and deleted; the deletion was lost, and the creation is late.
    set.core.missed(set.now);
    set.answer_all(&[]);
    set.event(EventKind::Create, &game("a", 0, json!({})), None);
    assert!(!set.core.is_ready());
    set.answer_all(&[]);
    assert!(set.core.is_ready() && set.ids().is_empty());
}

#[test]
fn a_refresh_that_fails_makes_it_stale_and_is_told() {
    let mut set = Set::games(&[game("a", 0, json!({}))]);
    assert_eq!(set.core.refresh(), 1);
    assert_eq!(set.core.refresh(), 2);
    let request = set.request();
    assert!(set.core.is_ready(), "nothing is known to be wrong");
    assert_eq!(set.core.refresh(), 3);
    set.fail(&request);
    assert_eq!(
        set.outputs(),
        ["failed: the server is busy", "stale", "refreshed 2 not"]
    );
    set.answer_all(&[game("a", 0, json!({}))]);
    assert_eq!(set.outputs(), ["ready", "refreshed 3 ok"]);
}

#[test]
fn what_could_not_be_started_has_a_next_time() {
    let mut set = Set::games(&[]);
    set.core.refresh();
    let mut delays = Vec::new();
    for _ in 0..6 {
        let request = set.request();
        set.core.could_not_start(busy(), set.now);
        let Task::Wait(Some(at)) = set.core.next_task(set.now.at) else {
            panic!("it has no next time")
        };
        delays.push(at - set.now.at);
        // An answer that comes all the same is none.
        set.answer(&request, &[game("x", 0, json!({}))]);
        assert!(set.ids().is_empty());
    }
    assert!(
        delays.iter().all(|delay| *delay >= Duration::from_millis(500)),
        "{delays:?}"
    );
    assert!(
        delays.iter().sum::<Duration>() > Duration::from_secs(10),
        "{delays:?}"
    );
    let told = set.outputs();
    assert_eq!(
        told[..3],
        ["failed: the server is busy", "stale", "refreshed 1 not"]
    );
    set.answer_all(&[]);
    assert!(set.core.is_ready());
}

#[test]
fn an_error_that_lasts_waits_for_long() {
    let mut set = Set::open(&Query::new("Game"));
    let request = set.request();
    let failure = FetchError {
        error: Error::new(ErrorKind::Fetch, "unauthorized"),
        retry_after: Duration::from_secs(60),
    };
    set.core.fetched(request.ticket, Err(failure), set.now);
    let minute = set.now.at + Duration::from_secs(60);
    let wait = |set: &mut Set| match set.core.next_task(set.now.at) {
        Task::Wait(at) => at,
        Task::Fetch(_) => None,
    };
    assert_eq!(wait(&mut set), Some(minute));
    // Whatever else is to be fetched waits as well, but for somebody who asks for it, and a new link.
    set.core.missed(set.now);
    assert_eq!(wait(&mut set), Some(minute));
    set.core.refresh();
    assert!(matches!(set.core.next_task(set.now.at), Task::Fetch(_)));
}

#[test]
fn a_server_that_ignores_where_a_page_begins_is_not_asked_for_ever() {
    let mut set = Set::open(&Query::new("Game"));
    let page: Vec<_> = (0..1000)
        .map(|number| game(&format!("g{number:04}"), 0, json!({})))
        .collect();
    let mut told = Vec::new();
    for _ in 0..5 {
        let request = set.request();
        set.answer(&request, &page);
        told = set.outputs();
        if !told.is_empty() {
            break;
        }
    }
    assert!(
        matches!(told.first(), Some(first) if first.contains("excludes")),
        "{told:?}"
    );
    assert!(!set.core.is_ready());
    // It tries again later, from the beginning, and the server may have come to its senses.
    set.answer_all(&page);
    assert!(set.core.is_ready());
    assert_eq!(set.ids().len(), 1000);
}

#[test]
fn a_long_outage_does_not_put_off_what_is_fetched_after_it() {
    let mut set = Set::games(&[game("a", 0, json!({}))]);
    set.core.missed(set.now);
    for _ in 0..20 {
        let request = set.request();
        set.fail(&request);
    }
    set.answer_all(&[game("a", 0, json!({}))]);
    set.core.missed(set.now);
    let before = set.now.at;
    set.request();
    assert!(set.now.at - before < Duration::from_secs(2));
}

#[test]
fn an_event_counts_by_its_object_and_not_by_its_name() {
    let start = [game("a", 0, json!({}))];
    for kind in [
        EventKind::Update,
        EventKind::Create,
        EventKind::Enter,
        EventKind::Leave,
    ] {
        let mut set = Set::games(&start);
        set.event(kind, &closed_game("a", 1), Some(&start[0]));
        // Where the name says something else, a hook may have changed what is sent: it is looked at.
        let is_odd = kind != EventKind::Leave;
        let told: &[&str] = if is_odd { &["-a", "stale"] } else { &["-a"] };
        assert_eq!(set.outputs(), told, "{kind}");
        set.answer_all(&[]);
        assert!(set.core.is_ready());
    }
    // It matches, and the name says that it left: nobody knows, so it is looked at.
    let mut set = Set::games(&start);
    let still_open = game("a", 1, json!({"n": 1}));
    set.event(EventKind::Leave, &still_open, Some(&start[0]));
    assert_eq!(set.outputs(), ["-a", "stale"]);
    let request = set.request();
    assert!(
        request
            .query
            .to_json()
            .unwrap()
            .contains(r#"{"objectId":{"$in":["a"]}}"#)
    );
    set.answer(&request, &[still_open]);
    assert_eq!(set.outputs(), ["+a", "ready"]);
    // It may not be read any more: it is sent as it was.
    set.event(
        EventKind::Leave,
        &game("a", 1, json!({"n": 1})),
        Some(&game("a", 1, json!({"n": 1}))),
    );
    assert_eq!(set.outputs(), ["-a"]);
    assert!(matches!(set.core.next_task(set.now.at), Task::Wait(None)));
}

#[test]
fn a_deletion_is_one_whatever_the_object_is() {
    let mut set = Set::games(&[game("a", 0, json!({})), game("b", 0, json!({}))]);
    set.event(EventKind::Delete, &game("a", 0, json!({})), None);
    set.event(EventKind::Delete, &closed_game("b", 1), None);
    assert_eq!(set.outputs(), ["-a", "-b"]);
}

#[test]
fn a_hook_that_renames_a_deletion_or_to_one_is_seen_through() {
    let start = [game("a", 0, json!({}))];
    for kind in [EventKind::Update, EventKind::Enter] {
        let mut set = Set::games(&start);
        set.event(kind, &start[0], None);
        assert_eq!(set.outputs(), ["stale"], "{kind}");
        set.answer_all(&[]);
        assert_eq!(set.outputs(), ["-a", "ready"], "{kind}");
    }
    let mut set = Set::games(&start);
    let saved = [game("a", 1, json!({}))];
    set.event(EventKind::Delete, &saved[0], Some(&start[0]));
    assert_eq!(set.outputs(), ["-a", "stale"]);
    set.answer_all(&saved);
    assert_eq!(set.outputs(), ["+a", "ready"]);
    let created = game("b", 0, json!({}));
    set.event(EventKind::Delete, &created, None);
    assert_eq!(set.outputs(), ["stale"]);
    set.answer_all(&[saved[0].clone(), created]);
    assert_eq!(set.outputs(), ["+b", "ready"]);
}

#[test]
fn an_object_that_cannot_be_of_the_set_is_refused_and_what_it_hides_is_fetched() {
    for json in [
        json!({"className": "Other", "objectId": "a", "open": true}),
        json!({"className": "Game", "open": true}),
    ] {
        let mut set = Set::games(&[game("a", 0, json!({}))]);
        let object = Object::from_json(json).unwrap();
        set.event(EventKind::Update, &object, None);
        let told = set.outputs();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("failed: an event of Game has an object "),
            "{told:?}"
        );
        assert_eq!(told[1], "stale");
        set.answer_all(&[game("a", 1, json!({}))]);
        assert_eq!(set.outputs(), ["~a", "ready"]);
    }
}

#[test]
fn what_the_matcher_cannot_judge_is_in_doubt() {
    let mut set = Set::games(&[]);
    set.core.cannot_judge();
    set.event(EventKind::Create, &game("a", 0, json!({"name": "in"})), None);
    assert_eq!(set.outputs(), ["+a", "stale"]);
    let request = set.request();
    set.answer(&request, &[]);
    assert_eq!(set.outputs(), ["-a", "ready"]);
}

#[test]
fn a_date_that_is_sent_as_text_is_not_judged() {
    // Parse Server 3.4 to 6.0, once somebody constrains the field.
    let date: crate::types::Date = "2024-01-02T00:00:00.000Z".parse().unwrap();
    let tagged = json!({"when": {"__type": "Date", "iso": date.to_string()}});
    for query in [
        Query::new("Game").equal_to("when", date),
        Query::new("Game").greater_than_or_equal_to("when", date),
    ] {
        let mut set = Set::ready(&query, &[game("a", 0, tagged.clone())]);
        let as_text = json!({"when": date.to_string(), "n": 1});
        set.event(EventKind::Update, &game("a", 1, as_text.clone()), None);
        assert_eq!(set.outputs(), ["~a", "stale"]);
        set.answer_all(&[game("a", 1, json!({"when": tagged["when"], "n": 1}))]);
        assert_eq!(set.outputs(), ["~a", "ready"]);
        set.event(EventKind::Leave, &game("a", 2, as_text), None);
        assert_eq!(set.outputs(), ["-a", "stale"]);
    }
}

#[test]
fn fields_of_conditions_are_there_even_if_others_are_selected() {
    let query = Query::new("Game").equal_to("open", true).select(["score"]);
    let mut set = Set::open(&query);
    let json: Value = serde_json::from_str(&set.request().query.to_json().unwrap()).unwrap();
    assert_eq!(json["keys"], "score,open");
}

#[test]
fn an_order_that_only_the_server_knows_is_asked_for() {
    let tagged = |id: &str, saves, tags: Value| game(id, saves, json!({"tags": tags}));
    let query = Query::new("Game").equal_to("open", true).ascending(["tags"]);
    let start = [
        tagged("c", 0, json!([2, 1])),
        tagged("a", 0, json!([1, 3])),
        tagged("b", 0, json!([3])),
    ];
    let mut set = Set::open(&query);
    // By the ids, which says nothing of the order.
    let request = set.request();
    set.answer(&request, &[start[1].clone(), start[2].clone(), start[0].clone()]);
    let request = set.request();
    set.answer(&request, &[]);
    assert_eq!(set.outputs(), ["reset"]);
    let request = set.request();
    let json: Value = serde_json::from_str(&request.query.to_json().unwrap()).unwrap();
    assert_eq!(json["order"], "tags,objectId");
    set.answer(&request, &start);
    set.answer_all(&start);
    assert!(set.core.is_ready());
    assert_eq!(set.ids(), ["c", "a", "b"]);
    set.outputs();
    // Nothing that it is sorted by has changed.
    set.event(
        EventKind::Update,
        &game("a", 1, json!({"tags": [1, 3], "n": 1})),
        Some(&start[1]),
    );
    assert_eq!(set.outputs(), ["~a"]);
    // However much changes there, it is asked for once.
    for saves in 2..5 {
        let was = tagged("b", saves - 1, json!([saves - 1]));
        set.event(EventKind::Update, &tagged("b", saves, json!([saves])), Some(&was));
    }
    set.event(EventKind::Create, &tagged("d", 0, json!([0])), None);
    assert!(!set.core.is_ready());
    set.outputs();
    let ends = [
        tagged("b", 4, json!([4])),
        start[0].clone(),
        tagged("d", 0, json!([0])),
        game("a", 1, json!({"tags": [1, 3], "n": 1})),
    ];
    set.answer_all(&ends);
    assert_eq!(set.ids(), ["b", "c", "d", "a"]);
    // What did not move among the others is not told to have moved.
    assert_eq!(set.outputs(), ["~b", "~d", "ready"]);
}

/// One event was overtaken by the next one about the same object, which does not say that the object has just come nearer.
#[test]
fn with_ranks_an_object_that_came_within_the_boundary_is_not_taken_for_one_that_stays_beyond() {
    let tagged = |id: &str, saves, tag: i64| game(id, saves, json!({"tags": [tag]}));
    let query = Query::new("Game")
        .equal_to("open", true)
        .ascending(["tags"])
        .limit(2);
    let start: Vec<_> = (10..60).map(|tag| tagged(&format!("g{tag}"), 0, tag)).collect();
    let entered = tagged("new", 2, 1);
    let outside = game("new", 1, json!({"tags": [1], "open": false}));
    let far = tagged("new", 1, 70);
    for (first, original) in [
        (&entered, Some(&outside)),
        (&entered, Some(&far)),
        (&entered, None),
    ] {
        let mut set = Set::ready(&query, &start);
        assert_eq!(set.ids(), ["g10", "g11"]);
        let last = game("new", 3, json!({"tags": [1], "note": 1}));
        set.event(EventKind::Update, &last, Some(first));
        set.event(EventKind::Update, first, original);
        assert!(!set.core.is_ready(), "{original:?}");
        let now: Vec<_> = std::iter::once(last).chain(start.iter().cloned()).collect();
        set.answer_all(&now);
        assert!(set.core.is_ready());
        assert_eq!(set.ids(), ["new", "g10"]);
    }
}

#[test]
fn a_server_that_sorts_texts_as_a_language_does_is_found_out() {
    let named = |id: &str, name: &str| game(id, 0, json!({"name": name}));
    let query = Query::new("Game").equal_to("open", true).ascending(["name"]);
    let mut set = Set::open(&query);
    // The ids tell nothing. Of two names it is not known which one comes first, so that is asked.
    set.answer_all(&[named("2", "ann"), named("3", "Bob"), named("1", "Zoe")]);
    assert!(set.core.is_ready());
    assert_eq!(set.ids(), ["2", "3", "1"]);
    // A server that sorts them by their bytes is asked once.
    let mut set = Set::open(&query);
    set.answer_all(&[named("3", "Bob"), named("1", "Zoe"), named("2", "ann")]);
    assert!(set.core.is_ready());
    set.event(EventKind::Create, &named("4", "Yan"), None);
    assert!(set.core.is_ready());
    assert_eq!(set.ids(), ["3", "4", "1", "2"]);
}

/// With a limit, an object without a value is the first or far behind the last, and only the database knows which.
#[test]
fn an_object_that_may_be_beyond_the_limit_or_not_is_asked_for() {
    let query = Query::new("Game")
        .equal_to("open", true)
        .descending("score")
        .limit(1);
    let scored = |score: u32| game(&format!("g{score:02}"), 0, json!({"score": score}));
    let scores: Vec<_> = (0..40).rev().map(scored).collect();
    let without = |id: &str| game(id, 0, json!({}));
    for null_is_first in [true, false] {
        let mut set = Set::ready(&query, &scores);
        assert_eq!(set.ids(), ["g39"]);
        set.event(EventKind::Create, &without("n1"), None);
        assert!(!set.core.is_ready());
        let at = if null_is_first { 0 } else { scores.len() };
        let mut sorted = scores.clone();
        sorted.insert(at, without("n1"));
        set.answer_all(&sorted);
        assert!(set.core.is_ready());
        assert_eq!(set.ids(), [if null_is_first { "n1" } else { "g39" }]);
        // It is known now.
        set.event(EventKind::Create, &without("n0"), None);
        assert!(set.core.is_ready());
        assert_eq!(set.ids(), [if null_is_first { "n0" } else { "g39" }]);

        // One of the two is gone before the server answers.
        let mut set = Set::ready(&query, &scores);
        set.event(EventKind::Create, &without("n1"), None);
        let request = set.request();
        set.answer(&request, &[without("n1")]);
        assert!(!set.core.is_ready());
        set.answer_all(&sorted);
        assert!(set.core.is_ready());
        assert_eq!(set.ids(), [if null_is_first { "n1" } else { "g39" }]);
    }
}

/// A set of these objects that catches up by difference, with a margin of 10 seconds. It is years later than they were
/// saved, by its clock.
fn large(objects: &[Object]) -> Set {
    let mut set = Set::games(objects);
    set.now.time += Duration::from_secs(10 * 365 * 24 * 60 * 60);
    // Each page is the last one.
    set.core.is_of_one();
    set.core.catch_up_from(Limits {
        least: 1,
        smallest: 0,
        few: 10,
        margin: 10_000,
    });
    set
}

impl Set {
    fn cut(&mut self) {
        self.core.closed(self.now.time);
        self.core.opened(None, self.now);
    }

    /// What it asks for, which is answered with these objects as far as they are asked for.
    #[track_caller]
    fn asks(&mut self, objects: &[Object]) -> String {
        let request = self.request();
        let query: Value = serde_json::from_str(&request.query.to_json().unwrap()).unwrap();
        let restriction = &query["where"]["$and"][1]["objectId"];
        let Some(ids) = restriction["$in"].as_array() else {
            let is_list = query["keys"] == "objectId,updatedAt";
            let listed = |object: &Object| {
                let (id, updated) = (object.get("objectId"), object.get("updatedAt"));
                Object::from_json(json!({"objectId": id, "updatedAt": updated})).unwrap()
            };
            let rows: Vec<_> = objects.iter().map(listed).collect();
            self.answer(&request, if is_list { &rows } else { objects });
            return (if is_list { "a list" } else { "a page" }).to_owned();
        };
        let mut ids: Vec<_> = ids.iter().map(|id| id.as_str().unwrap()).collect();
        let is_asked = |object: &&Object| ids.contains(&object.id().unwrap());
        let found: Vec<_> = objects.iter().filter(is_asked).cloned().collect();
        self.answer(&request, &found);
        ids.sort_unstable();
        ids.join(" ")
    }
}

#[test]
fn a_large_set_asks_for_a_list_and_for_what_is_not_held_like_that() {
    let mut set = large(&["a", "b", "c"].map(|id| game(id, 0, json!({}))));
    set.event(EventKind::Create, &game("z", 30, json!({})), None);
    set.cut();
    let now = [
        game("a", 0, json!({})),
        game("b", 31, json!({"note": 1})),
        game("d", 0, json!({})),
        game("z", 30, json!({})),
    ];
    set.outputs();
    assert_eq!(set.asks(&now), "a list");
    // The last one is too new to be sure.
    assert_eq!(set.asks(&now), "b d z");
    assert_eq!(set.outputs(), ["-c", "~b", "+d", "ready"]);
    assert_eq!((set.core.figures().fetches, set.core.figures().catch_ups), (2, 1));
}

#[test]
fn what_is_gone_since_it_was_listed_is_gone() {
    let mut set = large(&[game("a", 0, json!({})), game("z", 30, json!({}))]);
    set.cut();
    let listed = [
        game("a", 0, json!({})),
        game("b", 31, json!({})),
        game("z", 30, json!({})),
    ];
    assert_eq!(set.asks(&listed), "a list");
    assert_eq!(set.asks(&[]), "b z");
    assert!(set.core.is_ready());
    assert_eq!(set.ids(), ["a"]);
}

#[test]
fn what_was_in_doubt_is_fetched_whatever_the_list_says() {
    let now = [game("a", 0, json!({"note": "other"})), game("z", 30, json!({}))];
    for way in 0..4 {
        let mut set = large(&[game("a", 0, json!({})), game("z", 30, json!({}))]);
        // Which one of the two is the later?
        set.event(EventKind::Update, &now[0], None);
        assert!(!set.core.is_ready());
        match way {
            0 => {}
            // It was asked for already.
            1 => drop(set.request()),
            // A list was asked for already.
            2 => {
                set.cut();
                drop(set.request());
            }
            // A request for it failed.
            _ => {
                let request = set.request();
                set.fail(&request);
            }
        }
        set.cut();
        assert_eq!(set.asks(&now), "a list", "{way}");
        assert_eq!(set.asks(&now), "a z", "{way}");
        assert!(set.core.is_ready());
        assert_eq!(set.core.shown.get(0).unwrap().object(), &now[0]);
    }
}

#[test]
fn what_is_sure_is_what_was_so_when_everything_came_into_doubt() {
    let before = [game("a", 0, json!({})), game("z", 5, json!({}))];
    let mut set = large(&before);
    set.cut();
    // It does not make the others any older.
    set.event(EventKind::Create, &game("y", 40, json!({})), None);
    set.cut();
    let now = [before[0].clone(), game("y", 40, json!({})), before[1].clone()];
    assert_eq!(set.asks(&now), "a list");
    assert_eq!(set.asks(&now), "a y z");
    assert!(set.core.is_ready());
    // By now it is known that nothing else happened to them.
    set.cut();
    assert_eq!(set.asks(&now), "a list");
    assert_eq!(set.asks(&now), "y");
}

#[test]
fn an_object_from_the_future_makes_no_other_one_sure() {
    let future = game("z", 0, json!({"updatedAt": "2090-01-01T00:00:00.000Z"}));
    let now = [game("a", 0, json!({})), game("b", 20, json!({})), future];
    let mut set = large(&now);
    set.now.time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200 + 25);
    set.cut();
    assert_eq!(set.asks(&now), "a list");
    assert_eq!(set.asks(&now), "b z");
}

#[test]
fn another_user_fetches_everything_whenever_that_is_known() {
    let now = [game("a", 0, json!({})), game("z", 30, json!({}))];
    for way in 0..3 {
        let mut set = large(&now);
        set.core.ask_for(1);
        set.core.refresh();
        assert_eq!(set.asks(&now), "a page");
        set.core.ask_for(1);
        set.cut();
        if way > 0 {
            assert_eq!(set.asks(&now), "a list");
        }
        let under_way = (way == 2).then(|| set.request());
        set.core.ask_for(2);
        if let Some(request) = under_way {
            set.core.discarded(request.ticket, set.now);
        }
        assert_eq!(set.asks(&now), "a page", "{way}");
        assert!(set.core.is_ready());
        set.core.ask_for(2);
        set.cut();
        assert_eq!(set.asks(&now), "a list", "{way}");
    }
}

#[test]
fn a_refresh_in_the_middle_of_a_catch_up_fetches_everything() {
    let now = [game("a", 0, json!({})), game("z", 30, json!({}))];
    let mut set = large(&now);
    set.cut();
    let list = set.request();
    let refresh = set.core.refresh();
    set.answer(&list, &now);
    assert_eq!(set.asks(&now), "z");
    set.outputs();
    assert_eq!(set.asks(&now), "a page");
    assert_eq!(
        set.outputs(),
        ["ready".to_owned(), format!("refreshed {refresh} ok")]
    );
}

#[test]
fn where_many_differ_the_rest_is_fetched_page_by_page() {
    let before: Vec<_> = ('a'..='z')
        .map(|id| game(&id.to_string(), 0, json!({})))
        .collect();
    let mut set = large(&before);
    set.event(EventKind::Update, &game("z", 30, json!({})), Some(&before[25]));
    set.cut();
    let saved = |id: char| game(&id.to_string(), if id < 'e' { 0 } else { 31 }, json!({"note": 1}));
    let now: Vec<_> = ('a'..='z').map(saved).collect();
    assert_eq!(set.asks(&now), "a list");
    let request = set.request();
    let json = request.query.to_json().unwrap();
    assert!(
        json.contains(r#"{"objectId":{"$gt":"d"}}"#) && !json.contains("keys"),
        "{json}"
    );
    set.answer(&request, &now[4..]);
    assert_eq!(set.core.figures().catch_ups, 1);
    set.answer_all(&now);
    let notes = set
        .core
        .shown
        .iter()
        .filter(|entry| entry.text().contains("note"));
    assert_eq!(notes.count(), 22);
}

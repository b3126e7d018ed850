//! Objects: find, count, get, create, update, delete. It knows nothing about sessions and
//! live sets.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::fetch_error::FetchError;
use crate::object::Object;
use crate::query::Query;
use crate::query::ordered_json::Json;
use crate::rest::change::{Change, class, object_id};
use crate::rest::handle::{Effect, Rest, Task, With};
use crate::rest::http::{Body, Method, Place};
use crate::scan::Members;
use crate::secret::Secret;

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counted {
    count: u64,
}

impl Rest {
    /// Returns the objects that match the query, in its order, with its limit (100 without one, unless the
    /// server says otherwise), skip, selected and included fields.
    ///
    /// Everything that [`Query`] offers works here, including what LiveQuery refuses. `watch` has no meaning
    /// here and is left out.
    ///
    /// # Errors
    /// Those of [`Query::to_json`], and the [common errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # server.create("Game", serde_json::json!({"name": "go", "score": 1}));
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let best = client.rest().find(&Query::new("Game").descending(["score"]).limit(10))?;
    /// for game in &best {
    ///     println!("{:?} {:?}", game.get_str("name"), game.get_i64("score"));
    /// }
    /// # assert_eq!(best.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn find(&self, query: &Query) -> Result<Vec<Object>> {
        let class_name = class_of(query)?;
        let json = request_for(query.find_form()?);
        let path = ["classes", class_name];
        let task = reading(&path, json, format!("return the objects of {class_name}"));
        self.ask(&task, With::Session, |text| found(text, class_name))
    }

    /// Returns the first object that matches the query, in its order; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`find`](Self::find).
    pub fn first(&self, query: &Query) -> Result<Option<Object>> {
        let found = self.find(&query.clone().limit(1))?;
        Ok(found.into_iter().next())
    }

    /// Returns how many objects match the query, whatever its limit and skip.
    ///
    /// # Errors
    /// Those of [`find`](Self::find).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # server.create("Game", serde_json::json!({"score": 1}));
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// assert_eq!(client.rest().count(&Query::new("Game"))?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn count(&self, query: &Query) -> Result<u64> {
        let class_name = class_of(query)?;
        let mut members = query.find_form()?;
        members.retain(|(name, _)| !matches!(&**name, "limit" | "skip" | "order" | "count"));
        for (name, number) in [("limit", 0), ("count", 1)] {
            members.push((name.to_owned(), Json::Number(number.into())));
        }
        let path = ["classes", class_name];
        let task = reading(
            &path,
            request_for(members),
            format!("count the objects of {class_name}"),
        );
        let counted: Counted = self.ask(&task, With::Session, |text| serde_json::from_str(text))?;
        Ok(counted.count)
    }

    /// Returns the object with this id.
    ///
    /// # Errors
    /// Code 101 if it does not exist, or may not be read. Otherwise the [common errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let error = client.rest().get("Game", "nonsense").unwrap_err();
    /// assert_eq!(error.code(), Some(101));
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, class_name: &str, id: &str) -> Result<Object> {
        let path = ["classes", class(class_name)?, object_id(id)?];
        let task = Task {
            method: Method::Get,
            place: Place::Path(&path),
            body: Body::Nothing,
            effect: Effect::Reads,
            purpose: format!("return the object {id} of {class_name}"),
        };
        self.ask(&task, With::Session, |text| {
            let object = object(text, path[1])?;
            // The server sends the token with the user's own object.
            if path[1] == "_User" && object.get("sessionToken").is_some() {
                let mut members: Map<String, Value> = serde_json::from_str(text)?;
                members.remove("sessionToken");
                return self::object(&Value::Object(members).to_string(), path[1]);
            }
            Ok(object)
        })
    }

    /// Saves a new object: your own struct or map, in which [`Op`](crate::rest::Op)s may be used as values.
    ///
    /// Returns the object with its id and times, and with the values that the server has changed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if the value is not a JSON object; code 137 if a field has to be unique
    /// and is not. Otherwise the [common errors](crate::rest#errors): check
    /// [`may_have_happened`](crate::Error::may_have_happened) before you save it again.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// #[derive(serde::Serialize)]
    /// struct Game {
    ///     name: String,
    ///     score: i64,
    /// }
    ///
    /// let game = client.rest().create("Game", &Game { name: "chess".to_owned(), score: 1 })?;
    /// println!("saved as {:?}", game.id());
    /// # assert_eq!(game.get_str("name"), Some("chess"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn create(&self, class_name: &str, object: &(impl Serialize + ?Sized)) -> Result<Object> {
        self.make(Change::create(class_name, object)?)
    }

    /// Changes fields of an object; the others stay. [`Op`](crate::rest::Op)s may be used as values.
    ///
    /// Returns what is then known about the object: its id and time, the fields that were set, and the
    /// server's answer: the results of operations, and changes by its hooks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] if the value is not a JSON object; code 101 if the object does not exist,
    /// or may not be changed. Otherwise the [common errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # use parse_livequery::rest::Op;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let id = server.create("Game", json!({"score": 1}));
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let game = client.rest().update("Game", &id, &json!({"name": "go", "score": Op::increment(1)}))?;
    /// assert_eq!(game.get_i64("score"), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, class_name: &str, id: &str, changes: &(impl Serialize + ?Sized)) -> Result<Object> {
        self.make(Change::update(class_name, id, changes)?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Code 101 if it does not exist, or may not be deleted. Otherwise the [common
    /// errors](crate::rest#errors).
    pub fn delete(&self, class_name: &str, id: &str) -> Result<()> {
        self.make(Change::delete(class_name, id)?).map(drop)
    }

    /// The fetch of a live set: tries once, since the set has its own schedule for retries.
    ///
    /// # Errors
    /// [`ErrorKind::Fetch`], with how long to wait before the next attempt if the server says so, or if it
    /// would answer the same.
    pub(crate) fn fetch(
        &self,
        query: &Query,
        session_token: Option<&str>,
    ) -> Result<Vec<Object>, FetchError> {
        let class_name = class_of(query)?;
        let path = ["classes", class_name];
        let task = reading(
            &path,
            request_for(query.find_form()?),
            format!("return the objects of {class_name}"),
        );
        let what = format!("the objects of {class_name}");
        self.fetch_once(&task, &what, session_token, |text| found(text, class_name))
    }

    /// The fetch of a live object: returns the object with this id, with what the query includes, if it
    /// exists.
    ///
    /// # Errors
    /// Like those of [`fetch`](Self::fetch).
    pub(crate) fn fetch_one(
        &self,
        query: &Query,
        id: &str,
        session_token: Option<&str>,
    ) -> Result<Vec<Object>, FetchError> {
        let class_name = class_of(query)?;
        let path = ["classes", class_name, object_id(id)?];
        let mut members = query.find_form()?;
        members.retain(|(name, _)| matches!(&**name, "include" | "keys"));
        let purpose = format!("return the object {id} of {class_name}");
        let task = reading(&path, request_for(members), purpose);
        let what = format!("the object {id} of {class_name}");
        let got = self.fetch_once(&task, &what, session_token, |text| object(text, class_name));
        match got {
            Ok(object) => Ok(vec![object]),
            // It does not exist, or may not be read.
            Err(failure) if failure.error.code() == Some(101) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }

    fn fetch_once<T>(
        &self,
        task: &Task<'_>,
        what: &str,
        session_token: Option<&str>,
        read: impl FnOnce(&str) -> serde_json::Result<T>,
    ) -> Result<T, FetchError> {
        let of_the_set = session_token.map(Secret::from);
        let is_of_the_set = of_the_set.is_some();
        let token = of_the_set.or_else(|| self.kept_session_token());
        let answer = self.once(task, With::Session, token.as_ref(), None, |http, request| {
            http.request(request, read)
        });
        answer.map_err(|failure| {
            let code = failure.error.code();
            if code == Some(209) && !is_of_the_set {
                self.session_ended(token.as_ref(), &failure.error);
            }
            let text = format!("{what} cannot be fetched");
            let error = Error::with_source(ErrorKind::Fetch, text, failure.error);
            FetchError {
                error: code.map_or_else(|| error.clone(), |code| error.clone().with_code(code)),
                retry_after: match failure.passes {
                    true => failure.retry_after.unwrap_or_default().min(LONGEST_WAIT),
                    false => UNTIL_SOMETHING_CHANGES,
                },
            }
        })
    }

    fn make(&self, change: Change) -> Result<Object> {
        let path = change.path();
        let task = Task {
            method: change.method(),
            place: Place::Path(&path),
            body: change.body().map_or(Body::Nothing, Body::Json),
            effect: Effect::Writes,
            purpose: change.purpose(),
        };
        let answer = self.ask(&task, With::Session, |text| serde_json::from_str(text))?;
        self.made(change, answer)
    }

    /// The object after a change. A user whose password has changed has a new session.
    pub(super) fn made(&self, change: Change, answer: Map<String, Value>) -> Result<Object> {
        let is_user = change.class_name() == "_User";
        let mut known = change.made(answer);
        if is_user {
            known.remove("password");
            if let Some(Value::String(token)) = known.remove("sessionToken") {
                self.begin(Secret::from(token));
            }
        }
        Object::from_json(Value::Object(known))
    }
}

/// A read, which may be repeated whatever its method: a `where` may be too long for a URL, so it is a POST.
fn reading<'a>(path: &'a [&'a str], json: String, purpose: String) -> Task<'a> {
    Task {
        method: Method::Post,
        place: Place::Path(path),
        body: Body::Json(json),
        effect: Effect::Reads,
        purpose,
    }
}

/// Written as the JS SDK does it.
fn request_for(mut members: Vec<(String, Json)>) -> String {
    members.insert(0, ("_method".to_owned(), Json::string("GET")));
    Json::Object(members).to_string()
}

fn found(text: &str, class_name: &str) -> serde_json::Result<Vec<Object>> {
    let found: Found<'_> = serde_json::from_str(text)?;
    found
        .results
        .into_iter()
        .map(|json| object(json.get(), class_name))
        .collect()
}

/// An object as the server writes it: without its class.
pub(super) fn object(json: &str, class_name: &str) -> serde_json::Result<Object> {
    let members = match json.trim_start().strip_prefix('{') {
        Some(members) => members,
        // The error of this says what it is instead.
        None => return serde_json::from_str(json),
    };
    serde_json::from_str::<serde::de::IgnoredAny>(json)?;
    let has_class = Members::new(json).any(|(name, _)| name == "className");
    let text = if has_class {
        json.to_owned()
    } else if members.trim_start().starts_with('}') {
        json!({"className": class_name}).to_string()
    } else {
        format!("{{\"className\":{},{members}", Value::from(class_name))
    };
    let length = text.len();
    Ok(Object::from_frame(text.into(), 0..length, None))
}

fn class_of(query: &Query) -> Result<&str> {
    class(query.class_name())
}

/// A request that would be refused again is retried all the same, in case the cause is removed on the server.
const UNTIL_SOMETHING_CHANGES: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

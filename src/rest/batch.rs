//! Several changes in one request. It does not know how each of them is shown to the user.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::rest::change::Change;
use crate::rest::handle::{Effect, Rest, Task, With};
use crate::rest::http::{Body, Method, Place};

/// Several changes in one request, up to 50: [`Rest::batch`]. Nothing is sent until [`send`](Self::send) is called.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until `send` is called"]
pub struct Batch {
    rest: Rest,
    changes: Vec<Change>,
    problem: Option<Error>,
}

#[derive(Deserialize)]
struct Done {
    success: Option<Map<String, Value>>,
    error: Option<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    code: Option<i64>,
    error: Option<String>,
}

impl Rest {
    /// Starts a list of changes that are sent in one request.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let saved = client
    ///     .rest()
    ///     .batch()
    ///     .create("Game", &json!({"name": "go"}))
    ///     .create("Game", &json!({"name": "chess"}))
    ///     .delete("Game", "nonsense")
    ///     .send()?;
    /// assert_eq!(saved[1].as_ref().unwrap().get_str("name"), Some("chess"));
    /// assert_eq!(saved[2].as_ref().unwrap_err().code(), Some(101));
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Batch {
        Batch {
            rest: self.clone(),
            changes: Vec::new(),
            problem: None,
        }
    }
}

impl Batch {
    /// Adds a change like [`Rest::create`].
    pub fn create(self, class_name: &str, object: &(impl Serialize + ?Sized)) -> Self {
        self.with(Change::create(class_name, object))
    }

    /// Adds a change like [`Rest::update`].
    pub fn update(self, class_name: &str, id: &str, changes: &(impl Serialize + ?Sized)) -> Self {
        self.with(Change::update(class_name, id, changes))
    }

    /// Adds a change like [`Rest::delete`]; its result has only the class and the id.
    pub fn delete(self, class_name: &str, id: &str) -> Self {
        self.with(Change::delete(class_name, id))
    }

    /// Sends the changes. Returns the result of each, in order: the server makes each change separately, and
    /// one that fails does not prevent the others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] for more than 50 changes, and for values that [`Rest::create`] and
    /// [`Rest::update`] refuse; then nothing is sent. Otherwise the [common errors](crate::rest#errors): some
    /// changes may have been made.
    pub fn send(self) -> Result<Vec<Result<Object>>> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if self.changes.len() > MOST {
            let text = format!(
                "a batch has {} changes; at most {MOST} are allowed",
                self.changes.len()
            );
            return Err(Error::new(ErrorKind::InvalidValue, text));
        }
        if self.changes.is_empty() {
            return Ok(Vec::new());
        }
        // The server requires whole paths.
        let body = |mount: &str| {
            let requests: Vec<_> = self.changes.iter().map(|change| change.in_batch(mount)).collect();
            json!({"requests": requests}).to_string()
        };
        let task = Task {
            method: Method::Post,
            place: Place::Path(&["batch"]),
            body: Body::Within(&body),
            effect: Effect::Writes,
            purpose: format!("save {} changes", self.changes.len()),
        };
        let done: Vec<Done> = self
            .rest
            .ask(&task, With::Session, |text| serde_json::from_str(text))?;
        Ok(self
            .changes
            .into_iter()
            .zip(done)
            .map(|(change, done)| match (done.success, done.error) {
                (Some(answer), _) => self.rest.made(change, answer),
                (None, failed) => {
                    let Failed { code, error } = failed.unwrap_or(Failed {
                        code: None,
                        error: None,
                    });
                    let reason = error.unwrap_or_default();
                    let text = format!("the server did not {}: {reason}", change.purpose());
                    Err(match code {
                        Some(code) => Error::server(ErrorKind::Server, code, text),
                        None => Error::new(ErrorKind::Server, text),
                    })
                }
            })
            .collect())
    }

    fn with(mut self, change: Result<Change>) -> Self {
        match change {
            Ok(change) => self.changes.push(change),
            Err(problem) => self.problem = self.problem.or(Some(problem)),
        }
        self
    }
}

/// How many changes Parse Server accepts at once.
const MOST: usize = 50;

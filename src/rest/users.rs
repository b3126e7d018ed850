//! Users and their sessions: sign up, log in, log out. It never shows a password or token.

use std::fmt;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::rest::change::fields;
use crate::rest::handle::{Effect, Rest, Task, With, uuid};
use crate::rest::http::{Body, Method, Place};
use crate::rest::objects::object;
use crate::secret::Secret;
use crate::types::Date;

/// A user who is logged in. `Debug` does not show the token.
#[derive(Clone)]
pub struct Session {
    user: Object,
    token: Secret,
}

impl Session {
    /// Returns the user, as far as the server shows it.
    #[must_use]
    pub fn user(&self) -> &Object {
        &self.user
    }

    /// Returns the session token, to keep it for [`Rest::become_user`] in the next run of the program.
    /// Anybody who has it can act as the user: store it like a password.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.reveal()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("token", &self.token)
            .finish()
    }
}

/// # Users
///
/// Calls that log in or out set the session token: of the client, or of this handle if it has its
/// [own session](Rest::own_session). They are sent without the master key if the client has another key.
impl Rest {
    /// Logs in with a name, or an e-mail address on Parse Server 7.0 and later, and a password.
    ///
    /// # Errors
    /// Code 101 for a wrong name or password. Otherwise the [common errors](crate::rest#errors). If it fails,
    /// the session does not change.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # client.rest().own_session().sign_up("ann", "secret", &serde_json::json!({}))?;
    /// let session = client.rest().log_in("ann", "secret")?;
    /// println!("hello {:?}", session.user().get_str("username"));
    /// let notes = client.subscribe(&Query::new("Note"))?; // and what Ann may read
    /// # Ok(())
    /// # }
    /// ```
    pub fn log_in(&self, username: &str, password: &str) -> Result<Session> {
        let session = self.session_of(username, password)?;
        self.begin(session.token.clone());
        Ok(session)
    }

    /// Logs in with another service: `{"facebook": {"id": .., "access_token": ..}}`. A user who is not known
    /// yet is signed up.
    ///
    /// # Errors
    /// Code 252 for a service that the server does not know. Otherwise the [common
    /// errors](crate::rest#errors).
    pub fn log_in_with(&self, auth_data: &(impl Serialize + ?Sized)) -> Result<Session> {
        let auth_data = fields("auth data", auth_data)?;
        self.enter("log in with another service", json!({"authData": auth_data}))
    }

    /// Signs up a user without a name, who can no longer log in once the session token is lost.
    ///
    /// # Errors
    /// The [common errors](crate::rest#errors); code 252 if the server does not allow anonymous users.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let session = client.rest().anonymous()?;
    /// assert_eq!(client.rest().me()?.id(), session.user().id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn anonymous(&self) -> Result<Session> {
        let auth_data = json!({"authData": {"anonymous": {"id": uuid()}}});
        self.enter("sign up an anonymous user", auth_data)
    }

    /// Signs up a user, with more fields such as `email`, and logs in.
    ///
    /// # Errors
    /// Code 202 if the name is taken, 203 if the e-mail address is, 142 for a password that the server's
    /// rules do not allow. Otherwise the [common errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// client.rest().sign_up("ann", "secret", &json!({"email": "ann@example.com"}))?;
    /// let error = client.rest().sign_up("ann", "other", &json!({})).unwrap_err();
    /// assert_eq!(error.code(), Some(202));
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign_up(
        &self,
        username: &str,
        password: &str,
        more: &(impl Serialize + ?Sized),
    ) -> Result<Session> {
        let mut user = fields("additional fields of a user", more)?;
        user.insert("username".to_owned(), username.into());
        user.insert("password".to_owned(), password.into());
        let purpose = format!("sign up {username}");
        let signed_up = self.answer(Method::Post, &["users"], Some(&user), Effect::Writes, purpose)?;
        user.remove("password");
        user.extend(signed_up);
        // With the master key, a sign-up does not log in.
        let session = match session_in(user) {
            Some(session) => session?,
            None => self.session_of(username, password)?,
        };
        self.begin(session.token.clone());
        Ok(session)
    }

    /// Logs in as the user of this session token, after the server has confirmed the token.
    ///
    /// # Errors
    /// Code 209 for a token that is no longer valid. Otherwise the [common errors](crate::rest#errors). If it
    /// fails, the session does not change.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let error = client.rest().become_user("r:long gone").unwrap_err();
    /// assert_eq!(error.code(), Some(209));
    /// # Ok(())
    /// # }
    /// ```
    pub fn become_user(&self, token: &str) -> Result<Session> {
        let token = Secret::from(token);
        let user = self.user_of(With::Token(&token))?;
        let session = Session { user, token };
        self.begin(session.token.clone());
        Ok(session)
    }

    /// Returns the user who is logged in, as the server answers.
    ///
    /// # Errors
    /// Code 209 if no user is logged in, or the session has ended. Otherwise the [common
    /// errors](crate::rest#errors).
    pub fn me(&self) -> Result<Object> {
        self.user_of(With::Session)
    }

    /// Returns the session itself, an object of the class `_Session` without its token: `createdWith`,
    /// `installationId`, and `expiresAt`, a [`Date`](crate::Date), if it expires.
    ///
    /// The client remembers when its session ends: at that time its listeners for
    /// [`session_ended`](crate::ClientEventKind::SessionEnded) are called. The time is measured from the date
    /// of the answer, so neither a wrong clock on this machine nor a change of the clock matters. Log-ins of
    /// the client ask for it automatically, once, and do not fail if there is no answer.
    /// # Errors
    /// Code 209 if no user is logged in, or the session has ended. Otherwise the [common
    /// errors](crate::rest#errors).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Date};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # server.session("r:kept from the last time", "ann");
    /// let client = Client::builder(server.url(), "APP_ID")
    ///     .session_token("r:kept from the last time")
    ///     .build()?;
    /// let session = client.rest().session()?;
    /// println!("logged in until {:?}", session.get_as::<Date>("expiresAt"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn session(&self) -> Result<Object> {
        let asked = Mutex::new(None);
        let (answer, date) = self.repeat(&session_task(), With::Session, |http, request| {
            *asked.lock() = request.session_token.map(Secret::from);
            http.dated(request, |text| serde_json::from_str(text))
        })?;
        let (session, _) = object_in(answer, "_Session")?;
        if let Some(token) = asked.into_inner() {
            self.note_end(&session, date, token);
        }
        Ok(session)
    }

    /// Ends the session on the server, and forgets its token here. Does nothing if no user is logged in; a
    /// session that has already ended is not an error.
    ///
    /// # Errors
    /// The [common errors](crate::rest#errors). The token is forgotten nevertheless; the session may still
    /// exist on the server.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// client.rest().anonymous()?;
    /// client.rest().log_out()?;
    /// assert_eq!(client.rest().me().unwrap_err().code(), Some(209));
    /// # Ok(())
    /// # }
    /// ```
    pub fn log_out(&self) -> Result<()> {
        let Some(token) = self.session_token() else {
            return Ok(());
        };
        self.adopt(None);
        let task = Task {
            method: Method::Post,
            place: Place::Path(&["logout"]),
            body: Body::Json("{}".to_owned()),
            // Ending a session twice is as good as once.
            effect: Effect::Reads,
            purpose: "log out".to_owned(),
        };
        let answer = self.ask(&task, With::Token(&token), |text| {
            serde_json::from_str::<Map<String, Value>>(text)
        });
        match answer {
            Err(error) if error.code() != Some(209) => Err(error),
            _ => Ok(()),
        }
    }

    /// Asks the server to send a mail with which the user sets a new password.
    ///
    /// # Errors
    /// The [common errors](crate::rest#errors). The server only says whether there is a user with this
    /// address if its settings allow it.
    pub fn request_password_reset(&self, email: &str) -> Result<()> {
        let body = Map::from_iter([("email".to_owned(), Value::from(email))]);
        let purpose = "send a mail for a new password".to_owned();
        let path = ["requestPasswordReset"];
        self.answer(Method::Post, &path, Some(&body), Effect::Writes, purpose)
            .map(drop)
    }

    /// Makes this the session token from now on. Asks once how long it lasts; a failure of that is ignored.
    pub(super) fn begin(&self, token: Secret) {
        self.adopt(Some(token.clone()));
        if !self.is_of_client() {
            return;
        }
        let answer = self.once(
            &session_task(),
            With::Token(&token),
            Some(&token),
            None,
            |http, request| http.dated(request, |text| serde_json::from_str(text)),
        );
        if let Ok((answer, date)) = answer {
            if let Ok((session, _)) = object_in(answer, "_Session") {
                self.note_end(&session, date, token);
            }
        }
    }

    fn note_end(&self, session: &Object, date: Option<SystemTime>, token: Secret) {
        if let Ok(at) = session.get_as::<Date>("expiresAt") {
            let now = date.unwrap_or_else(SystemTime::now);
            let after = SystemTime::from(at).duration_since(now);
            self.session_ends(token, after.unwrap_or_default());
        }
    }

    /// The session for this name and password.
    fn session_of(&self, username: &str, password: &str) -> Result<Session> {
        let body = Map::from_iter([
            ("username".to_owned(), Value::from(username)),
            ("password".to_owned(), Value::from(password)),
        ]);
        let purpose = format!("log in {username}");
        // One session too many does no harm.
        let user = self.answer(Method::Post, &["login"], Some(&body), Effect::Reads, purpose)?;
        session_in(user).unwrap_or_else(|| Err(no_session()))
    }

    /// Signs up or logs in the user that this describes.
    fn enter(&self, purpose: &str, body: Value) -> Result<Session> {
        let body = fields("auth data", &body)?;
        let effect = Effect::Writes;
        let user = self.answer(Method::Post, &["users"], Some(&body), effect, purpose.to_owned())?;
        let session = session_in(user).unwrap_or_else(|| Err(no_session()))?;
        self.begin(session.token.clone());
        Ok(session)
    }

    fn user_of(&self, with: With<'_>) -> Result<Object> {
        let task = Task {
            method: Method::Get,
            place: Place::Path(&["users", "me"]),
            body: Body::Nothing,
            effect: Effect::Reads,
            purpose: "return the user of the session".to_owned(),
        };
        let user = self.ask(&task, with, |text| {
            serde_json::from_str::<Map<String, Value>>(text)
        })?;
        user_in(user).map(|(user, _)| user)
    }

    fn answer(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Map<String, Value>>,
        effect: Effect,
        purpose: String,
    ) -> Result<Map<String, Value>> {
        let task = Task {
            method,
            place: Place::Path(path),
            body: body.map_or(Body::Nothing, |body| Body::Json(json!(body).to_string())),
            effect,
            purpose,
        };
        self.ask(&task, With::Nobody, |text| serde_json::from_str(text))
    }
}

/// The session in an answer, if there is one.
fn session_in(answer: Map<String, Value>) -> Option<Result<Session>> {
    match user_in(answer) {
        Ok((user, token)) => token.map(|token| Ok(Session { user, token })),
        Err(error) => Some(Err(error)),
    }
}

fn user_in(answer: Map<String, Value>) -> Result<(Object, Option<Secret>)> {
    object_in(answer, "_User")
}

/// The user or session in an answer, without its token.
fn object_in(mut answer: Map<String, Value>, class_name: &str) -> Result<(Object, Option<Secret>)> {
    let token = match answer.remove("sessionToken") {
        Some(Value::String(token)) => Some(Secret::from(token)),
        _ => None,
    };
    let text = Value::Object(answer).to_string();
    let object = object(&text, class_name).map_err(|error| {
        let text = format!("the server's {class_name} cannot be read");
        Error::with_source(ErrorKind::Protocol, text, error)
    })?;
    Ok((object, token))
}

fn session_task() -> Task<'static> {
    Task {
        method: Method::Get,
        place: Place::Path(&["sessions", "me"]),
        body: Body::Nothing,
        effect: Effect::Reads,
        purpose: "return the session".to_owned(),
    }
}

fn no_session() -> Error {
    let text = "the server knows the user, but has created no session; a client with only the master key needs \
    another key";
    Error::new(ErrorKind::Server, text)
}

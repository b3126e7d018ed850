//! Users with names and passwords, and their sessions. Must not know of HTTP.
//!
//! Modelled on `UsersRouter.js` and `RestWrite.js` of Parse Server 9.10.

use std::sync::Arc;
use std::time::SystemTime;

use rand::distr::SampleString;
use serde_json::{Value, json};

use super::caller::{Caller, Refusal};
use super::events::object_id;
use super::state::{Class, Fields, Session, State};
use crate::secret::Secret;
use crate::types::Date;

impl Session {
    fn has_expired(&self) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Date::from(SystemTime::now()))
    }
}

impl State {
    /// The answer to a sign-up, or to a log-in with the data of another service; with the HTTP status.
    pub(super) fn sign_up(&mut self, mut fields: Fields, caller: &Caller) -> Result<(u16, Value), Refusal> {
        let auth_data = match fields.get("authData") {
            Some(Value::Object(auth_data)) if !auth_data.is_empty() => Some(auth_data.clone()),
            _ => None,
        };
        if let Some(auth_data) = &auth_data {
            if let Some(id) = self.user_with(auth_data)? {
                return Ok((200, self.enter(&id)));
            }
            let name = rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 25);
            fields.entry("username").or_insert_with(|| name.into());
        }
        let text = |name: &str| match fields.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        let username = text("username").ok_or_else(|| Refusal::of(200, "bad or missing username"))?;
        let password = text("password");
        if password.is_none() && auth_data.is_none() {
            return Err(Refusal::of(201, "password is required"));
        }
        if self.user_by("username", &username).is_some() {
            return Err(Refusal::of(202, "Account already exists for this username."));
        }
        if text("email").is_some_and(|email| self.user_by("email", &email).is_some()) {
            return Err(Refusal::of(203, "Account already exists for this email address."));
        }
        fields.remove("password");
        let acl = fields.remove("ACL");
        let mut answer = self.save_new("_User", fields, caller)?;
        let id = answer["objectId"].as_str().unwrap_or_default().to_owned();
        // `enforcePrivateUsers`
        let mut rights = match acl {
            Some(Value::Object(rights)) => rights,
            _ => Fields::new(),
        };
        rights.insert(id.clone(), json!({"read": true, "write": true}));
        self.update(
            "_User",
            &id,
            Fields::from_iter([("ACL".to_owned(), rights.into())]),
        );
        if let Some(password) = password {
            self.passwords.insert(id.clone(), Secret::from(password));
        }
        if let Value::Object(answer) = &mut answer {
            if auth_data.is_some() {
                answer.insert("username".to_owned(), username.into());
            }
            // A caller with the master key who signs up a user is not logged in as that user.
            if !caller.has_master_key {
                answer.insert("sessionToken".to_owned(), self.begin_session(&id).into());
            }
        }
        Ok((201, answer))
    }

    /// The answer to a log-in with name and password.
    pub(super) fn log_in(&mut self, fields: &Fields) -> Result<Value, Refusal> {
        let text = |name: &str| fields.get(name)?.as_str().filter(|text| !text.is_empty());
        let missing = || Refusal::of(200, "username/email is required.");
        let id = match (text("username"), text("email")) {
            (None, None) => return Err(missing()),
            (Some(name), _) => self
                .user_by("username", name)
                .or_else(|| self.user_by("email", name)),
            (None, Some(email)) => self.user_by("email", email),
        };
        let password = text("password").ok_or_else(|| Refusal::of(201, "password is required."))?;
        let wrong = || Refusal::of(101, "Invalid username/password.");
        let id = id.ok_or_else(wrong)?;
        if self
            .passwords
            .get(&id)
            .is_none_or(|right| right.reveal() != password)
        {
            return Err(wrong());
        }
        Ok(self.enter(&id))
    }

    /// The user of a session, with its token.
    pub(super) fn me(&self, caller: &Caller) -> Result<Value, Refusal> {
        let (Some(user), Some(token)) = (&caller.user, &caller.session_token) else {
            return Err(Refusal::of(209, "Invalid session token"));
        };
        Ok(self.user(user, token))
    }

    /// A user whose fields have changed: a new password ends the sessions, and starts a new one for the
    /// caller.
    pub(super) fn change_user(
        &mut self,
        id: &str,
        mut fields: Fields,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        for (name, code, text) in [
            ("username", 202, "Account already exists for this username."),
            ("email", 203, "Account already exists for this email address."),
        ] {
            let new = fields.get(name).and_then(Value::as_str);
            let other = new.and_then(|new| self.user_by(name, new));
            if other.is_some_and(|other| other != id) {
                return Err(Refusal::of(code, text));
            }
        }
        let password = fields.remove("password");
        let mut answer = self.save_changes("_User", id, fields, caller)?;
        if let Some(Value::String(password)) = password {
            self.passwords.insert(id.to_owned(), Secret::from(password));
            self.sessions.retain(|_, session| session.user != id);
            if let (false, Value::Object(answer)) = (caller.has_master_key, &mut answer) {
                answer.insert("sessionToken".to_owned(), self.begin_session(id).into());
            }
        }
        Ok(answer)
    }

    /// The caller with the user of the session, which must exist if there is a token.
    pub(super) fn with_user(&self, mut caller: Caller) -> Result<Caller, Refusal> {
        if let Some(token) = &caller.session_token {
            let session = self.sessions.get(token);
            let session = session.ok_or_else(|| Refusal::of(209, "Invalid session token"))?;
            if session.has_expired() {
                return Err(Refusal::of(209, "Session token is expired."));
            }
            caller.user = Some(session.user.clone());
            caller.groups = self.groups_of(&session.user);
        }
        Ok(caller)
    }

    /// Logs a user in. Returns the answer.
    fn enter(&mut self, id: &str) -> Value {
        let token = self.begin_session(id);
        self.user(id, &token)
    }

    fn begin_session(&mut self, id: &str) -> String {
        let token = format!("r:{:032x}", rand::random::<u128>());
        self.add_session(&token, id);
        token
    }

    pub(super) fn add_session(&mut self, token: &str, user: &str) {
        let created = Date::from(SystemTime::now());
        let length = self
            .session_length
            .and_then(|length| i64::try_from(length.as_millis()).ok());
        let session = Session {
            id: object_id(),
            user: user.to_owned(),
            created,
            // A date beyond the calendar means forever.
            expires: length.and_then(|length| Date::from_millis(created.millis().checked_add(length)?).ok()),
        };
        self.sessions.insert(token.to_owned(), session);
    }

    /// The user of a session that has not expired.
    pub(super) fn user_of(&self, token: &str) -> Option<&str> {
        let session = self.sessions.get(token);
        let session = session.filter(|session| !session.has_expired());
        session.map(|session| &*session.user)
    }

    /// The session of a caller, as an object.
    pub(super) fn session_of(&self, caller: &Caller) -> Result<Value, Refusal> {
        let token = caller.session_token.as_deref().unwrap_or_default();
        let session = self.sessions.get(token);
        let session = session.ok_or_else(|| Refusal::of(209, "Session token required."))?;
        let created = session.created.to_string();
        let mut object = json!({
            "objectId": session.id,
            "sessionToken": token,
            "user": {"__type": "Pointer", "className": "_User", "objectId": session.user},
            "createdWith": {"action": "login", "authProvider": "password"},
            "createdAt": created,
            "updatedAt": created,
        });
        if let Some(expires) = session.expires {
            object["expiresAt"] = json!({"__type": "Date", "iso": expires.to_string()});
        }
        Ok(object)
    }

    fn user(&self, id: &str, token: &str) -> Value {
        // A session that the test made may belong to a user without an object.
        let mut user = match self.object("_User", id) {
            Some(user) => Fields::clone(user),
            None => Fields::from_iter([("objectId".to_owned(), id.into())]),
        };
        user.insert("sessionToken".to_owned(), token.into());
        user.remove("password");
        Value::Object(user)
    }

    /// The id of the user with this text in this field.
    fn user_by(&self, field: &str, text: &str) -> Option<String> {
        let users = self.classes.get("_User")?;
        let user = users
            .objects()
            .into_iter()
            .find(|user| user.get(field).and_then(Value::as_str) == Some(text))?;
        user.get("objectId")?.as_str().map(str::to_owned)
    }

    /// The id of the user whom one of these services knows by the same id.
    fn user_with(&self, auth_data: &Fields) -> Result<Option<String>, Refusal> {
        let mut found = None;
        for (service, data) in auth_data {
            let Some(id) = data.get("id") else {
                return Err(Refusal::of(252, "This authentication method is unsupported."));
            };
            let users = self.classes.get("_User").map(Class::objects);
            let user = users.into_iter().flatten().find(|user| {
                let known = user
                    .get("authData")
                    .and_then(|known| known.get(service)?.get("id"));
                known == Some(id)
            });
            let of_user = |user: Arc<Fields>| user.get("objectId")?.as_str().map(str::to_owned);
            found = found.or_else(|| user.and_then(of_user));
        }
        Ok(found)
    }
}

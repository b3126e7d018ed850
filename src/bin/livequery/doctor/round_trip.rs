//! A round trip: an object is created, changed and deleted, and who gets the events shows what is wrong. It
//! knows how to judge, not how to connect.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use parse_livequery::rest::Rest;
use parse_livequery::{Acl, Error, Event, EventKind, Object, Query};
use serde_json::Value;

use super::link::{Listener, client, subscribe};
use super::report::{Finding, Step};
use crate::settings::{Role, Settings};

/// The inputs of a round trip.
pub(super) struct Trip<'a> {
    pub(super) settings: &'a Settings,
    pub(super) query: &'a Query,
    /// The fields of the object.
    pub(super) fields: &'a Value,
    /// The id of the session token's user.
    pub(super) user: Option<&'a str>,
    /// Who may write, the best choice first.
    pub(super) writers: &'a [Role],
}

/// What one listener received about one object.
struct Heard {
    role: Role,
    /// Whether this role may read the object, as far as that can be known.
    is_meant: bool,
    create: Option<Duration>,
    update: bool,
    delete: bool,
    /// Events without a cause.
    odd: Vec<EventKind>,
    error: Option<Error>,
}

/// An object, which is deleted whatever happens.
struct Specimen {
    rest: Rest,
    class: String,
    id: String,
    writer: Role,
    created: Instant,
    is_there: bool,
}

impl Trip<'_> {
    pub(super) fn run(&self, listeners: &[Listener], tell: &mut dyn FnMut(Finding)) -> Step<()> {
        let listeners: Vec<_> = listeners.iter().collect();
        let heard = self.once(&listeners, self.fields.clone(), self.writers)?;
        if let Some(error) = heard.iter().find_map(|heard| heard.error.as_ref()) {
            return Err(Finding::fault(
                "round trip",
                "hook-throws",
                format!("The server reports an error instead of an event: {error}."),
                "The `afterLiveQueryEvent` hook of the class fails: check the server's Cloud Code.",
            ));
        }
        if !heard.iter().any(|heard| heard.is_meant) {
            return Err(self.nobody_may_read());
        }
        if heard.iter().all(Heard::is_silence) {
            return Err(self.nothing_comes());
        }
        for heard in heard.iter().filter(|heard| heard.is_meant) {
            self.judge(heard, &heard.role.to_string())?;
        }
        let times = heard
            .iter()
            .filter_map(|heard| Some(format!("{} after {:.0?}", heard.role, heard.create?)));
        let mut text = format!(
            "create, update and delete came: {}",
            times.collect::<Vec<_>>().join(", ")
        );
        for heard in heard.iter().filter(|heard| !heard.is_meant) {
            text = format!(
                "{text}; {} may not read the object, as its ACL says, and got nothing",
                heard.role
            );
        }
        tell(Finding::good("round trip", text));
        self.token(&listeners, tell)?;
        self.master_key(&listeners, tell)
    }

    /// An object that only the user may read shows whether LiveQuery recognises the session token.
    fn token(&self, listeners: &[&Listener], tell: &mut dyn FnMut(Finding)) -> Step<()> {
        let Some(user) = self.user else {
            tell(Finding::unknown(
                "token",
                "whether LiveQuery recognises session tokens: give one (PARSE_SESSION_TOKEN) to find out",
            ));
            return Ok(());
        };
        let Some(heard) = self.private(listeners, Role::User, Acl::for_user(user))? else {
            return Ok(());
        };
        if heard.is_silence() {
            return Err(Finding::fault(
                "token",
                "router",
                "LiveQuery does not recognise the session token: the REST API does, but an object that only this \
                 user may read produces no event, while public ones do.",
                "Parse Server 8.6, 9.0 and 9.10, installed today, get `router` 2.3.0 from npm, with which LiveQuery \
                 recognises no token. On the server, add \"overrides\": {\"router\": \"2.2.0\"} to `package.json`, \
                 reinstall it (`npm ls router` shows the version), and restart it.",
            ));
        }
        self.judge(&heard, "the user (of a private object)")?;
        tell(Finding::good(
            "token",
            "the user gets the events of an object that only this user may read",
        ));
        Ok(())
    }

    /// An object that nobody may read shows whether LiveQuery recognises the master key.
    fn master_key(&self, listeners: &[&Listener], tell: &mut dyn FnMut(Finding)) -> Step<()> {
        let Some(heard) = self.private(listeners, Role::Master, Acl::new())? else {
            return Ok(());
        };
        if heard.is_silence() {
            return Err(Finding::fault(
                "master key",
                "master-key",
                "LiveQuery does not recognise the master key: the REST API does, but an object that only the master \
                 key may read produces no event, while public ones do.",
                "LiveQuery accepts the master key of a connection only if it is among its keys: add `masterKey` to \
                 `keyPairs` of the server's `liveQueryServerOptions`. Without it, a connection with the master key \
                 gets what the public gets.",
            ));
        }
        self.judge(&heard, "the master key (of an object that nobody else may read)")?;
        tell(Finding::good(
            "master key",
            "it gets the events of an object that nobody else may read",
        ));
        Ok(())
    }

    /// The events that this role gets for an object of its own. `None` if it does not listen.
    fn private(&self, listeners: &[&Listener], role: Role, acl: Acl) -> Step<Option<Heard>> {
        let listeners: Vec<_> = listeners
            .iter()
            .copied()
            .filter(|listener| listener.role == role)
            .collect();
        if listeners.is_empty() {
            return Ok(None);
        }
        let mut fields = self.fields.clone();
        fields["ACL"] = acl.into();
        Ok(self.once(&listeners, fields, &[role])?.pop())
    }

    /// Whether all events arrived, in time, under their names.
    fn judge(&self, heard: &Heard, who: &str) -> Step<()> {
        let class = self.query.class_name();
        let came = [
            ("create", heard.create.is_some()),
            ("update", heard.update),
            ("delete", heard.delete),
        ];
        let of = |wanted: bool| {
            let names = came
                .iter()
                .filter(|(_, came)| *came == wanted)
                .map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(" and ")
        };
        if heard.is_silence() {
            return Err(Finding::fault(
                "round trip",
                "permissions",
                format!("No events arrive for {who}, but others got the events of the same object."),
                format!(
                    "The object may be read by its ACL, so it is the class-level permissions of {class} (pointer \
                     permissions, roles), or an `afterLiveQueryEvent` hook that depends on the listener."
                ),
            ));
        }
        if let Some(time) = heard.create.filter(|time| *time > LATE) {
            return Err(Finding::fault(
                "round trip",
                "buffers",
                format!("The events arrive, but late: the first after {time:.1?}."),
                "Something in between holds them back: a proxy that buffers (nginx: `proxy_buffering off;`), an \
                 `afterLiveQueryEvent` hook that waits, or a server with too much to do.",
            ));
        }
        if came.iter().any(|(_, came)| !came) {
            let odd = heard
                .odd
                .iter()
                .map(|kind| kind.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            let instead = if odd.is_empty() {
                String::new()
            } else {
                format!(", and {odd} came instead")
            };
            return Err(Finding::fault(
                "round trip",
                "hook",
                format!(
                    "Some events arrive for {who} and some do not: {} arrived, {} did not{instead}.",
                    of(true),
                    of(false)
                ),
                format!(
                    "An `afterLiveQueryEvent` hook of {class} drops or renames them (`request.sendEvent = false`, \
                     `request.event = ..`): look into the server's Cloud Code."
                ),
            ));
        }
        Ok(())
    }

    /// Creates an object, changes it, deletes it, and listens.
    fn once(&self, listeners: &[&Listener], fields: Value, writers: &[Role]) -> Step<Vec<Heard>> {
        let mut specimen = self.create(&fields, writers)?;
        // If the writer can no longer read it, it has no public ACL.
        let object = specimen.rest.get(&specimen.class, &specimen.id).ok();
        if let Some(object) = &object {
            if self.query.matches_object(object).ok().flatten() == Some(false) {
                return Err(Finding::fault(
                    "round trip",
                    "data",
                    "The object that was created does not match the conditions of --where, so no event can be \
                     expected.",
                    "Give the fields of an object that does: --data '{..}'. (It was deleted.)",
                ));
            }
        }
        let mut all: Vec<Heard> = listeners
            .iter()
            .map(|listener| {
                Heard::new(
                    listener.role,
                    self.is_meant(listener.role, object.as_ref(), &specimen),
                )
            })
            .collect();
        listen(listeners, &mut all, &specimen, PATIENCE, |heard| {
            heard.create.is_some()
        });
        // If no `create` arrived, there is little to wait for.
        let is_silent = all.iter().all(|heard| heard.create.is_none());
        let patience = if is_silent { SHORT_PATIENCE } else { PATIENCE };
        let changed = specimen
            .rest
            .update(&specimen.class, &specimen.id, &serde_json::json!({}));
        if changed.is_ok() {
            listen(listeners, &mut all, &specimen, patience, |heard| heard.update);
        } else {
            // A role that may create may not always update.
            all.iter_mut().for_each(|heard| heard.update = true);
        }
        if specimen.remove().is_ok() {
            listen(listeners, &mut all, &specimen, patience, |heard| heard.delete);
        } else {
            all.iter_mut().for_each(|heard| heard.delete = true);
        }
        Ok(all)
    }

    fn create(&self, fields: &Value, writers: &[Role]) -> Step<Specimen> {
        let class = self.query.class_name();
        let mut refusals = Vec::new();
        for writer in writers {
            let rest = client(self.settings, *writer)?.rest();
            let created = Instant::now();
            match rest.create(class, fields) {
                Ok(object) => {
                    return Ok(Specimen {
                        rest,
                        class: class.to_owned(),
                        id: object.id().unwrap_or_default().to_owned(),
                        writer: *writer,
                        created,
                        is_there: true,
                    });
                }
                Err(error) => refusals.push(format!("{writer}: {error}")),
            }
        }
        Err(Finding::fault(
            "round trip",
            "write-refused",
            format!("No object of {class} can be created. {}.", refusals.join("; ")),
            "Give the fields that the class and its `beforeSave` hook require with --data '{..}', or the session \
             token of a user who may create objects, or the master key. Nothing was changed on the server.",
        ))
    }

    fn is_meant(&self, role: Role, object: Option<&Object>, specimen: &Specimen) -> bool {
        let Some(object) = object else {
            // The writer cannot read it.
            return role == Role::Master;
        };
        let acl = object.acl();
        let is_public = acl.as_ref().is_none_or(Acl::public_read_access);
        match role {
            Role::Master => true,
            Role::User => {
                let is_mine = |user| acl.as_ref().is_some_and(|acl| acl.read_access(user));
                is_public || self.user.is_some_and(is_mine) || specimen.writer == Role::User
            }
            Role::Public | Role::Configured => is_public,
        }
    }

    fn nobody_may_read(&self) -> Finding {
        let class = self.query.class_name();
        Finding::fault(
            "round trip",
            "acl",
            format!(
                "Objects of {class} are not public: the ACL that the server gives to a new one does not let the \
                 public read it."
            ),
            "Listen as a user who may read them: `export PARSE_SESSION_TOKEN=$(livequery login NAME)`; or \
             give the objects an ACL with public read access (usually set by a `beforeSave` hook).",
        )
    }

    /// No listener got anything, though the subscriptions are there: where do the events go?
    fn nothing_comes(&self) -> Finding {
        let class = self.query.class_name();
        let cure = "Each process of the server only sees its own changes. Give all of them the same Redis: \
                    `liveQuery: {redisURL: ..}` for the processes that save, `redisURL` for the LiveQuery server; \
                    and check that all of them reach it.";
        if let Some(beside) = self.settings.beside_rest() {
            let other = Trip {
                settings: &beside,
                ..*self
            };
            if other.is_heard().unwrap_or(false) {
                return Finding::fault(
                    "round trip",
                    "two-processes",
                    "The LiveQuery server sends no event, but the one that runs beside the REST API does: the \
                     two do not know of each other.",
                    cure,
                );
            }
        }
        // Behind a load balancer, each connection may lead to another process.
        for _ in 0..MORE_TRIES {
            if self.is_heard().unwrap_or(false) {
                return Finding::fault(
                    "round trip",
                    "two-processes",
                    "An event arrives on some connections and not on others: several processes serve this address, \
                     and they do not know of each other.",
                    cure,
                );
            }
        }
        Finding::fault(
            "round trip",
            "nothing-sent",
            format!(
                "The subscription to {class} is acknowledged, objects are created, but the server sends no events to \
                 anybody."
            ),
            format!(
                "Check these points, the most likely first:\n\
                 1. `{class}` is not in `liveQuery.classNames` of the server's configuration. The server \
                 acknowledges the subscription all the same.\n\
                 2. An `afterLiveQueryEvent` hook of {class} drops everything (`request.sendEvent = false`).\n\
                 3. REST API and LiveQuery are served by different processes, which need the same Redis \
                 (`liveQuery.redisURL`).\n\
                 From the outside, the three look the same. `livequery doctor OTHER_CLASS --write` with a class \
                 that works leaves only the first two."
            ),
        )
    }

    /// One more try, with its own connections.
    fn is_heard(&self) -> Step<bool> {
        let role = if self.writers.contains(&Role::Master) {
            Role::Master
        } else {
            Role::Configured
        };
        let listener = subscribe(self.settings, role, self.query)?;
        let specimen = self.create(self.fields, self.writers)?;
        let mut heard = [Heard::new(role, true)];
        listen(&[&listener], &mut heard, &specimen, SHORT_PATIENCE, |heard| {
            heard.create.is_some()
        });
        drop(specimen);
        listener.end();
        Ok(heard.iter().any(|heard| heard.create.is_some()))
    }
}

impl Heard {
    const fn new(role: Role, is_meant: bool) -> Self {
        Self {
            role,
            is_meant,
            create: None,
            update: false,
            delete: false,
            odd: Vec::new(),
            error: None,
        }
    }

    fn is_silence(&self) -> bool {
        self.create.is_none() && !self.update && !self.delete && self.odd.is_empty()
    }

    fn note(&mut self, event: &Event, after: Duration) {
        match event.kind() {
            EventKind::Create => self.create = Some(after),
            EventKind::Update => self.update = true,
            EventKind::Delete => self.delete = true,
            kind => self.odd.push(kind),
        }
    }
}

impl Specimen {
    fn remove(&mut self) -> Result<(), Error> {
        self.rest.delete(&self.class, &self.id)?;
        self.is_there = false;
        Ok(())
    }
}

impl Drop for Specimen {
    fn drop(&mut self) {
        if self.is_there && self.remove().is_err() {
            eprintln!(
                "warning: the object {} of {} could not be deleted",
                self.id, self.class
            );
        }
    }
}

/// Records the events, until every expected listener has what it waits for, or has waited long enough.
fn listen(
    listeners: &[&Listener],
    all: &mut [Heard],
    specimen: &Specimen,
    patience: Duration,
    has: fn(&Heard) -> bool,
) {
    let deadline = Instant::now() + patience;
    for (listener, heard) in listeners.iter().zip(all) {
        loop {
            // Events that need not arrive are not waited for.
            let left = if heard.is_meant && !has(heard) && heard.error.is_none() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match listener.events.recv_timeout(left) {
                Ok((at, event)) if event.id() == Some(&specimen.id) => {
                    heard.note(&event, at.saturating_duration_since(specimen.created));
                }
                Ok((_, event)) if event.kind() == EventKind::Error => heard.error = event.error().cloned(),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
    }
}

/// How long an event may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(4);
const SHORT_PATIENCE: Duration = Duration::from_millis(2500);
const LATE: Duration = Duration::from_secs(2);
const MORE_TRIES: u32 = 3;

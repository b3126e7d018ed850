//! The settings of a live set, and how it starts.
//!
//! It does not know what happens after the start.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::{Handle, LiveSet};
use crate::client::Client;
use crate::client::subscription::SubscriptionBuilder;
use crate::delivery::emitter::{Emitter, Times};
use crate::error::{Error, ErrorKind, Result};
use crate::fenced::Fenced;
use crate::live_set::another::{Handles, end_all};
use crate::live_set::change::{Change, Snapshot};
use crate::live_set::events::{SetEvent, SetEventKind, for_change, for_error, for_ready, for_stale};
use crate::live_set::keeper::{FetchFn, Keeper};
use crate::live_set::pace::{Pace, Prepared};
use crate::live_set::saved::{Saved, Start};
use crate::object::Object;
use crate::query::Query;
use crate::secret::Secret;
use crate::types::Date;

impl Client {
    /// Starts building a [`LiveSet`](crate::LiveSet): the objects that match the query, now and from now on.
    /// With [`select`](Query::select), they also have the fields of its conditions and its order, which the
    /// set needs to match and sort them.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Client, Object, Query};
    ///
    /// # fn find(query: &Query) -> Result<Vec<Object>, std::io::Error> { Ok(Vec::new()) }
    /// # fn main() -> parse_livequery::Result<()> {
    /// # let server = parse_livequery::test_server::TestServer::start().unwrap();
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let best = client
    ///     .live_set(&Query::new("Game").descending(["score"]).limit(10))
    ///     .fetch_with(find)
    ///     .on_change(|change, set| println!("{change:?}, {} games now", set.len()))
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn live_set(&self, query: &Query) -> LiveSetBuilder {
        LiveSetBuilder::new(self.clone(), query.clone())
    }
}

/// Builds a [`LiveSet`](crate::LiveSet), with its listeners in place before anything happens. Does nothing
/// until [`start`](Self::start) is called.
#[must_use = "nothing is subscribed until `start` is called"]
pub struct LiveSetBuilder {
    client: Client,
    query: Query,
    fetch: Option<Box<FetchFn>>,
    session_token: Option<Secret>,
    saved: Option<Start>,
    emitter: Emitter<SetEvent>,
    pace: Pace,
    /// The query selects this one object, which is requested by its id.
    only: Option<String>,
}

impl LiveSetBuilder {
    pub(crate) fn new(client: Client, query: Query) -> Self {
        Self {
            client,
            query,
            fetch: None,
            session_token: None,
            saved: None,
            emitter: Emitter::new(),
            pace: Pace::default(),
            only: None,
        }
    }

    pub(super) fn fetch_by(mut self, fetch: Box<FetchFn>) -> Self {
        self.fetch = Some(fetch);
        self
    }

    pub(super) fn fetch_one_by_id(mut self, id: String) -> Self {
        self.only = Some(id);
        self
    }

    pub(super) fn with_query(mut self, change: impl FnOnce(Query) -> Query) -> Self {
        self.query = change(self.query);
        self
    }

    /// Sets how to fetch: a function that does what `find()` does in other SDKs, with the whole query that it
    /// gets: its conditions, fields, order, limit and skip. [`Query::to_json`] writes them in the form of the
    /// REST API.
    ///
    /// The function may block; it is called on a separate thread, and never twice at a time. An error is
    /// retried. It has to return all objects that match the query, up to its limit; if it returns fewer, that
    /// is taken for the server's `maxLimit`, and the rest is requested.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Object, Query};
    ///
    /// # struct Response;
    /// # impl Response { fn text(self) -> std::io::Result<String> { Ok(r#"{"results": []}"#.to_owned()) } }
    /// # fn post(url: &str, body: String) -> std::io::Result<Response> { Ok(Response) }
    /// #[derive(serde::Deserialize)]
    /// struct Found {
    ///     results: Vec<Object>,
    /// }
    ///
    /// fn find(query: &Query) -> Result<Vec<Object>, Box<dyn std::error::Error + Send + Sync>> {
    ///     let url = format!("https://example.com/parse/classes/{}", query.class_name());
    ///     let mut body: serde_json::Value = serde_json::from_str(&query.to_json()?)?;
    ///     body["_method"] = "GET".into();
    ///     let response = post(&url, body.to_string())?; // with any HTTP client
    ///     Ok(serde_json::from_str::<Found>(&response.text()?)?.results)
    /// }
    /// # assert!(find(&Query::new("Game")).unwrap().is_empty());
    /// ```
    pub fn fetch_with<E: Into<Box<dyn StdError + Send + Sync>>>(
        mut self,
        find: impl Fn(&Query) -> Result<Vec<Object>, E> + Send + Sync + 'static,
    ) -> Self {
        let find = Fenced::new(find);
        self.fetch = Some(Box::new(move |query, _| {
            let Some(find) = find.get() else {
                return Ok(Vec::new());
            };
            find(query).map_err(|error| {
                let text = format!("the objects of {} cannot be fetched", query.class_name());
                Error::with_source(ErrorKind::Fetch, text, error).into()
            })
        }));
        self
    }

    /// Sets a session token for this set, instead of the client's.
    ///
    /// Parse Server also sends events of objects that the client's token may read; see
    /// [`LiveSet::set_session_token`].
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::from(token));
        self
    }

    /// Shows these contents from the moment of `start` until the server's contents are there. The
    /// set is stale meanwhile, since the time when they were saved. Then the differences are reported as
    /// changes.
    ///
    /// The contents are not used, and the set starts empty, if they belong to another query, server or user,
    /// or were saved longer ago than `max_age`. Listeners of [`on_error`](Self::on_error) get the
    /// reason, as an error of kind [`ErrorKind::InvalidValue`].
    ///
    /// This saves the user the wait, but costs the server as much as a set without it: everything is fetched
    /// once.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{LiveSetBuilder, Saved};
    /// use std::{fs, path::Path, time::Duration};
    ///
    /// const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    ///
    /// fn with_saved(games: LiveSetBuilder, user: &str, path: &Path) -> LiveSetBuilder {
    ///     let Ok(bytes) = fs::read(path) else {
    ///         return games; // the first run
    ///     };
    ///     match Saved::from_slice(&bytes) {
    ///         Ok(saved) => games.start_from(saved, user, WEEK),
    ///         Err(error) => {
    ///             eprintln!("{}: {error}", path.display());
    ///             games
    ///         }
    ///     }
    /// }
    /// ```
    pub fn start_from(mut self, saved: Saved, user: &str, max_age: Duration) -> Self {
        self.saved = Some(Start {
            saved,
            user: user.to_owned(),
            max_age,
        });
        self
    }

    /// Sets the minimum time between two fetches of everything. Default: 1 second if events cannot tell which
    /// objects match the query; otherwise 0.2 seconds.
    ///
    /// The next fetch answers everything that happens meanwhile; until then the set is stale. A call of
    /// [`refresh`](LiveSet::refresh) does not wait.
    pub fn min_fetch_interval(mut self, interval: Duration) -> Self {
        self.pace.min_fetch_interval = Some(interval);
        self
    }

    /// Fetches everything again at this interval, at least 0.1 seconds. Default: never.
    ///
    /// Use it for changes without events: those that bypass Parse Server, changes of roles, and all changes
    /// of a class for which LiveQuery is not enabled. The server acknowledges a subscription to such a class
    /// like any other, so no client can know it from the start. If a fetch finds a change that no event has
    /// reported by the next fetch, an error names the classes.
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.pace.refresh_every = Some(interval);
        self
    }

    /// Registers a listener, like [`LiveSet::on_change`].
    pub fn on_change(self, listener: impl FnMut(&Change, &Snapshot) + Send + 'static) -> Self {
        self.listen(Some(SetEventKind::Change), Times::Always, for_change(listener))
    }

    /// Registers a listener, like [`LiveSet::on_ready`].
    pub fn on_ready(self, listener: impl FnMut(&Snapshot) + Send + 'static) -> Self {
        self.listen(Some(SetEventKind::Ready), Times::Always, for_ready(listener))
    }

    /// Registers a listener, like [`LiveSet::on_stale`].
    pub fn on_stale(self, listener: impl FnMut(Date) + Send + 'static) -> Self {
        self.listen(Some(SetEventKind::Stale), Times::Always, for_stale(listener))
    }

    /// Registers a listener, like [`LiveSet::on_error`].
    pub fn on_error(self, listener: impl FnMut(&Error) + Send + 'static) -> Self {
        self.listen(Some(SetEventKind::Error), Times::Always, for_error(listener))
    }

    /// Subscribes, and fetches as soon as the server has acknowledged the subscription.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidQuery`] for queries that `find()` does not accept either, and for `watch` and
    /// `exclude`, with which the set could not be equal to `find()`. [`ErrorKind::InvalidSetting`] if there
    /// is no way to fetch: neither [`fetch_with`](Self::fetch_with) nor the cargo feature `rest`.
    pub fn start(self) -> Result<LiveSet> {
        let Self {
            client,
            query,
            fetch,
            session_token,
            saved,
            emitter,
            mut pace,
            only,
        } = self;
        client.shared().check_home()?;
        pace.is_of_one = only.is_some();
        let Prepared {
            mut core,
            own,
            others,
        } = pace.prepare(&query, client.age())?;
        let fetch = match fetch {
            Some(fetch) => fetch,
            None => built_in(&client, only)?,
        };
        let has_saved = saved.is_some();
        match saved.map(|start| start.entries(&client, &query, SystemTime::now())) {
            Some(Ok((entries, since))) => {
                // The caller says whose contents they are as the session token is now.
                let who = client.shared().subscriber.generation();
                core = core.starting_from(&query, entries, since, who);
                // The program may look before the listeners have been told.
                emitter.held(|shown| (shown.snapshot, shown.stale_since) = core.contents());
            }
            Some(Err(error)) => core.tell(error),
            None => {}
        }
        let keeper = Keeper::new(
            core,
            emitter,
            fetch,
            session_token.clone(),
            Arc::clone(client.shared()),
            pace,
        );
        let builder = SubscriptionBuilder::new(client.clone(), query.clone());
        let builder = match session_token {
            Some(token) => builder.session_token(token.reveal()),
            None => builder,
        };
        let subscription = builder.start_as(own, |subscription| {
            keeper.follow(0, &query, subscription, client, others);
        });
        let handles = Handles::new(query, subscription);
        let kept = Arc::downgrade(&handles);
        keeper.stay_in_step(move |keeper| match kept.upgrade() {
            Some(handles) => handles.keep_in_step(keeper),
            None => end_all(keeper.drop_sources(&keeper.numbers())),
        });
        if has_saved {
            keeper.begin();
        }
        Ok(LiveSet(Arc::new(Handle {
            keeper,
            handles,
            is_detached: AtomicBool::new(false),
        })))
    }

    pub(super) fn listen(
        self,
        kind: Option<SetEventKind>,
        times: Times,
        listener: impl FnMut(&SetEvent) -> Result<()> + Send + 'static,
    ) -> Self {
        if kind == Some(SetEventKind::Batch) {
            self.emitter.held(|shown| shown.gathered.is_wanted = true);
        }
        self.emitter.on(kind, times, listener);
        self
    }
}

impl fmt::Debug for LiveSetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSetBuilder")
            .field("query", &self.query)
            .field("session_token", &self.session_token)
            .field("emitter", &self.emitter)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "rest")]
fn built_in(client: &Client, only: Option<String>) -> Result<Box<FetchFn>> {
    let rest = client.rest();
    if !rest.can_ask() {
        return Err(Error::new(
            ErrorKind::InvalidSetting,
            "a live set cannot fetch through `connect_with`; give it a function with `fetch_with`",
        ));
    }
    Ok(match only {
        Some(id) => Box::new(move |query, token| rest.fetch_one(query, &id, token)),
        None => Box::new(move |query, token| rest.fetch(query, token)),
    })
}

#[cfg(not(feature = "rest"))]
fn built_in(_: &Client, _: Option<String>) -> Result<Box<FetchFn>> {
    Err(Error::new(
        ErrorKind::InvalidSetting,
        "a live set needs a way to fetch: give it a function with `fetch_with`, or use the cargo feature `rest`",
    ))
}

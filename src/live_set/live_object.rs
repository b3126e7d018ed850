//! One object, now and from now on. Knows nothing of how a set is kept: an object is a set of at most one.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use super::builder::LiveSetBuilder;
use super::events::{SetEvent, SetEventKind, Shown, for_error, for_ready, for_stale};
use super::keeper::FetchFn;
use super::{LiveSet, Refresh};
use crate::client::Client;
use crate::client::subscription::Subscription;
use crate::delivery::emitter::{ListenerId, Times};
use crate::error::{Error, ErrorKind, Result};
use crate::fenced::Fenced;
use crate::live_set::change::Snapshot;
use crate::object::Object;
use crate::query::Query;
use crate::query::keys::Keys;
use crate::types::Date;

impl Client {
    /// Begins a [`LiveObject`](crate::LiveObject): the object with this id, now and from now on.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Client, ObjectState};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let id = server.create("Game", serde_json::json!({"name": "chess"}));
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let game = client
    ///     .live_object("Game", &id)
    ///     # .fetch_with(move |class, id| -> Result<_, std::convert::Infallible> {
    ///     #     Ok(server.get(class, id).and_then(|json| parse_livequery::Object::from_json(json).ok()))
    ///     # })
    ///     .on_change(|game| match game {
    ///         ObjectState::There(game) => println!("{:?}", game.get("name")),
    ///         ObjectState::Gone => println!("it was deleted, or may not be read any more"),
    ///         _ => {}
    ///     })
    ///     .start()?;
    /// game.wait_ready(Duration::from_secs(10))?;
    /// assert!(game.object().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn live_object(&self, class_name: &str, id: &str) -> LiveObjectBuilder {
        let query = Query::new(class_name).equal_to("objectId", id);
        LiveObjectBuilder {
            set: LiveSetBuilder::new(self.clone(), query),
            id: id.to_owned(),
        }
    }
}

/// One object, now and from now on: what a window shows that is about a single object.
///
/// It follows the object as a [`LiveSet`](crate::LiveSet) follows the objects of a query, by the same rules. It fetches by
/// the object's id, so it needs the class permission `get` alone, and not `find`. [`Client::live_object`] makes one. Clones
/// are cheap and mean the same object; it is followed until the last one is dropped.
///
/// Parse Server from 9.10 on asks for `find` at each subscription, also at one to a single object. Where it refuses it
/// (code 119), the object is fetched every 10 seconds instead, or as often as
/// [`refresh_every`](LiveObjectBuilder::refresh_every) says; a warning is logged.
///
/// An object that was deleted, never existed, or may not be read is [`Gone`](ObjectState::Gone): the server makes no
/// difference between them. It may come back when a permission is given.
#[derive(Clone)]
#[must_use = "the object is followed until this is dropped; keep it"]
pub struct LiveObject(LiveSet);

/// What is known of an object.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ObjectState {
    /// It was not fetched yet.
    Unknown,
    /// It is there, and as this.
    There(Object),
    /// It is not there, or may not be read.
    Gone,
}

impl ObjectState {
    /// The object, if it is there.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        match self {
            Self::There(object) => Some(object),
            Self::Unknown | Self::Gone => None,
        }
    }

    fn of(set: &Snapshot) -> Self {
        set.iter().next().cloned().map_or(Self::Gone, Self::There)
    }
}

impl LiveObject {
    /// What is known of the object, as listeners were told it last. [`stale_since`](Self::stale_since) says whether it
    /// may be old.
    #[must_use]
    pub fn state(&self) -> ObjectState {
        self.0.shown(|shown| match shown {
            Shown {
                snapshot, was_ready, ..
            } if *was_ready || !snapshot.is_empty() => ObjectState::of(snapshot),
            _ => ObjectState::Unknown,
        })
    }

    /// The object, if it is there.
    #[must_use]
    pub fn object(&self) -> Option<Object> {
        self.state().object().cloned()
    }

    /// Calls the listener whenever the object is something else than before: `There` or `Gone`, never `Unknown`. What is
    /// known already it is told at once.
    pub fn on_change(&self, listener: impl FnMut(&ObjectState) + Send + 'static) -> ListenerId {
        self.0.0.keeper.listen(None, Times::Always, for_state(listener))
    }

    /// Calls the listener when the object was fetched: the first time, and each time after it was stale. If it is so
    /// already, at once.
    pub fn on_ready(&self, mut listener: impl FnMut(&ObjectState) + Send + 'static) -> ListenerId {
        let listener = for_ready(move |set| listener(&ObjectState::of(set)));
        self.0
            .0
            .keeper
            .listen(Some(SetEventKind::Ready), Times::Always, listener)
    }

    /// Calls the listener when the object may be another one from now on, with the time since when that is.
    pub fn on_stale(&self, listener: impl FnMut(Date) + Send + 'static) -> ListenerId {
        self.0.on_stale(listener)
    }

    /// Calls the listener for each error: a fetch that failed, and what the subscription reports.
    pub fn on_error(&self, listener: impl FnMut(&Error) + Send + 'static) -> ListenerId {
        self.0.on_error(listener)
    }

    /// Removes a listener. `false` if it was not there any more.
    pub fn off(&self, listener: ListenerId) -> bool {
        self.0.off(listener)
    }

    /// Removes all listeners of this object. It goes on being kept.
    pub fn off_all(&self) {
        self.0.off_all();
    }

    /// Whether the object was fetched, and there is no reason to doubt since that it is as it was told.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Since when the object may be another one. `None` if it is not, or if nothing was known yet.
    #[must_use]
    pub fn stale_since(&self) -> Option<Date> {
        self.0.stale_since()
    }

    /// Waits until it is known whether the object is there, and the listeners of [`on_ready`](Self::on_ready) have
    /// returned.
    ///
    /// # Errors
    ///
    /// Those of [`LiveSet::wait_ready`](crate::LiveSet::wait_ready).
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.0.wait_ready(timeout)
    }

    /// Fetches the object again, at once. What it returns can be waited for, and may be dropped as well.
    pub fn refresh(&self) -> Refresh {
        self.0.refresh()
    }

    /// Another session token, or the client's with `None`. The object is stale until it was fetched with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] if it is not followed any more.
    pub fn set_session_token(&self, token: Option<&str>) -> Result<()> {
        self.0.set_session_token(token)
    }

    /// Stops following the object. No listener is called any more, but for one last `stale`.
    pub fn close(&self) {
        self.0.close();
    }

    /// Stops following the object as [`close`](Self::close) does, and waits until no listener of it runs any more.
    ///
    /// # Errors
    ///
    /// Those of [`LiveSet::close_and_wait`](crate::LiveSet::close_and_wait).
    pub fn close_and_wait(&self, timeout: Duration) -> Result<()> {
        self.0.close_and_wait(timeout)
    }

    /// The subscription that it follows: for its state and its figures.
    pub fn subscription(&self) -> Subscription {
        self.0.subscription()
    }
}

impl fmt::Debug for LiveObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveObject")
            .field("subscription", &self.subscription())
            .field("state", &self.state())
            .field("is_ready", &self.is_ready())
            .finish()
    }
}

/// A live object in the making, with its listeners in place before anything happens. Nothing is done until
/// [`start`](Self::start) is called.
#[must_use = "nothing is subscribed until `start` is called"]
pub struct LiveObjectBuilder {
    set: LiveSetBuilder,
    id: String,
}

impl LiveObjectBuilder {
    /// How to fetch: a function that returns the object of a class with an id, or `None` if it is not there. Without it
    /// the object is fetched over HTTP, with the cargo feature `rest`.
    ///
    /// It may block; it is called on a thread of its own, never twice at a time. An error is tried again.
    pub fn fetch_with<E: Into<Box<dyn StdError + Send + Sync>>>(
        mut self,
        get: impl Fn(&str, &str) -> Result<Option<Object>, E> + Send + Sync + 'static,
    ) -> Self {
        let get = Fenced::new(get);
        let id = self.id.clone();
        let fetch: Box<FetchFn> = Box::new(move |query, _| {
            let Some(get) = get.get() else {
                return Ok(Vec::new());
            };
            let class_name = query.class_name();
            let got = get(class_name, &id).map_err(|error| {
                let text = format!("the object {id} of {class_name} cannot be fetched");
                Error::with_source(ErrorKind::Fetch, text, error)
            })?;
            Ok(got.into_iter().collect())
        });
        self.set = self.set.fetch_by(fetch);
        self
    }

    /// The objects that these fields point to come with the object, as with [`Query::include`].
    pub fn include(mut self, keys: impl Keys) -> Self {
        self.set = self.set.with_query(|query| query.include(keys));
        self
    }

    /// A session token of its own, in place of the client's.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.set = self.set.session_token(token);
        self
    }

    /// Fetches the object again each time that so much time has passed, also if nothing happened: see
    /// [`LiveSetBuilder::refresh_every`]. Never unless this is called, or unless the server does not let it subscribe: then
    /// every 10 seconds.
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.set = self.set.refresh_every(interval);
        self
    }

    /// As [`LiveObject::on_change`].
    pub fn on_change(mut self, listener: impl FnMut(&ObjectState) + Send + 'static) -> Self {
        self.set = self.set.listen(None, Times::Always, for_state(listener));
        self
    }

    /// As [`LiveObject::on_ready`].
    pub fn on_ready(mut self, mut listener: impl FnMut(&ObjectState) + Send + 'static) -> Self {
        self.set = self.set.on_ready(move |set| listener(&ObjectState::of(set)));
        self
    }

    /// As [`LiveObject::on_stale`].
    pub fn on_stale(mut self, listener: impl FnMut(Date) + Send + 'static) -> Self {
        self.set = self
            .set
            .listen(Some(SetEventKind::Stale), Times::Always, for_stale(listener));
        self
    }

    /// As [`LiveObject::on_error`].
    pub fn on_error(mut self, listener: impl FnMut(&Error) + Send + 'static) -> Self {
        self.set = self
            .set
            .listen(Some(SetEventKind::Error), Times::Always, for_error(listener));
        self
    }

    /// Subscribes, and fetches as soon as the server has acknowledged it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidQuery`] for a name that no class can have. [`ErrorKind::InvalidSetting`] if there is no way to
    /// fetch: neither [`fetch_with`](Self::fetch_with) nor the cargo feature `rest`.
    pub fn start(self) -> Result<LiveObject> {
        if self.id.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidQuery,
                "a live object needs the id of an object, and got an empty text",
            ));
        }
        self.set.fetch_one_by_id(self.id).start().map(LiveObject)
    }
}

impl fmt::Debug for LiveObjectBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveObjectBuilder").field(&self.set).finish()
    }
}

/// Tells each state once: what a set is made of changes before it is ready, and is ready again with what it was.
fn for_state(
    mut listener: impl FnMut(&ObjectState) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    let mut last = ObjectState::Unknown;
    move |event| {
        let (SetEvent::Change(_, set) | SetEvent::Ready(set, _)) = event else {
            return Ok(());
        };
        let state = ObjectState::of(set);
        if state != last {
            last = state;
            listener(&last);
        }
        Ok(())
    }
}

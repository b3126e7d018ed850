//! One object, now and from now on. It does not know how a set is kept: an object is a set of at most one.

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
    /// Starts building a [`LiveObject`](crate::LiveObject): the object with this id, now and from now on.
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

/// One object, now and from now on, for example for a window that shows a single object.
///
/// It follows the object as a [`LiveSet`](crate::LiveSet) follows the objects of a query, by the same rules.
/// It fetches by the object's id, so it needs only the class permission `get`, not `find`. Create one with
/// [`Client::live_object`]. Clones are cheap and refer to the same object, which is followed until the last
/// one is dropped.
///
/// Parse Server from 9.10 on requires `find` for each subscription, even for one to a single object. Where it
/// refuses the subscription (code 119), the object is fetched every 10 seconds instead, or as often as
/// [`refresh_every`](LiveObjectBuilder::refresh_every) says; a warning is logged.
///
/// An object that was deleted, never existed, or may not be read is [`Gone`](ObjectState::Gone): the server
/// does not distinguish these cases. It may come back when a permission is granted.
#[derive(Clone)]
#[must_use = "the object is followed until this is dropped; keep it"]
pub struct LiveObject(LiveSet);

/// What is known about an object.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ObjectState {
    /// The object has not been fetched yet.
    Unknown,
    /// The object exists, and this is its content.
    There(Object),
    /// The object does not exist, or may not be read.
    Gone,
}

impl ObjectState {
    /// Returns the object, if it exists.
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
    /// Returns what is known about the object, as last reported to listeners.
    /// [`stale_since`](Self::stale_since) says whether it may be out of date.
    #[must_use]
    pub fn state(&self) -> ObjectState {
        self.0.shown(|shown| match shown {
            Shown {
                snapshot, was_ready, ..
            } if *was_ready || !snapshot.is_empty() => ObjectState::of(snapshot),
            _ => ObjectState::Unknown,
        })
    }

    /// Returns the object, if it exists.
    #[must_use]
    pub fn object(&self) -> Option<Object> {
        self.state().object().cloned()
    }

    /// Calls a listener whenever the state changes: with `There` or `Gone`, never `Unknown`. If the state is
    /// already known, the listener is called at once.
    pub fn on_change(&self, listener: impl FnMut(&ObjectState) + Send + 'static) -> ListenerId {
        self.0.0.keeper.listen(None, Times::Always, for_state(listener))
    }

    /// Calls a listener when the object has been fetched: the first time, and each time after it was stale.
    /// If that is already the case, the listener is called at once.
    pub fn on_ready(&self, mut listener: impl FnMut(&ObjectState) + Send + 'static) -> ListenerId {
        let listener = for_ready(move |set| listener(&ObjectState::of(set)));
        self.0
            .0
            .keeper
            .listen(Some(SetEventKind::Ready), Times::Always, listener)
    }

    /// Calls a listener when the object may be out of date from now on, with the time since when that is so.
    pub fn on_stale(&self, listener: impl FnMut(Date) + Send + 'static) -> ListenerId {
        self.0.on_stale(listener)
    }

    /// Calls a listener for each error: a failed fetch, and the errors of the subscription.
    pub fn on_error(&self, listener: impl FnMut(&Error) + Send + 'static) -> ListenerId {
        self.0.on_error(listener)
    }

    /// Removes a listener. Returns `false` if it was already gone.
    pub fn off(&self, listener: ListenerId) -> bool {
        self.0.off(listener)
    }

    /// Removes all listeners of this object. The object stays live.
    pub fn off_all(&self) {
        self.0.off_all();
    }

    /// Returns whether the object has been fetched, and nothing since has given reason to doubt the reported
    /// state.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Returns since when the object may be out of date. `None` if it is not, or if nothing was known yet.
    #[must_use]
    pub fn stale_since(&self) -> Option<Date> {
        self.0.stale_since()
    }

    /// Waits until it is known whether the object exists, and the listeners of [`on_ready`](Self::on_ready)
    /// have returned.
    ///
    /// # Errors
    ///
    /// The errors of [`LiveSet::wait_ready`](crate::LiveSet::wait_ready).
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.0.wait_ready(timeout)
    }

    /// Fetches the object again, at once. You can wait for the returned value, or drop it.
    pub fn refresh(&self) -> Refresh {
        self.0.refresh()
    }

    /// Uses another session token, or the client's with `None`. The object is stale until it has been fetched
    /// with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] if the object is no longer followed.
    pub fn set_session_token(&self, token: Option<&str>) -> Result<()> {
        self.0.set_session_token(token)
    }

    /// Stops following the object. No listener is called any more, except for one last `stale`.
    pub fn close(&self) {
        self.0.close();
    }

    /// Stops following the object like [`close`](Self::close), and waits until none of its listeners runs any
    /// more.
    ///
    /// # Errors
    ///
    /// The errors of [`LiveSet::close_and_wait`](crate::LiveSet::close_and_wait).
    pub fn close_and_wait(&self, timeout: Duration) -> Result<()> {
        self.0.close_and_wait(timeout)
    }

    /// Returns the subscription that it follows, for its state and its counters.
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

/// Builds a [`LiveObject`](crate::LiveObject), with its listeners in place before anything happens. Does
/// nothing until [`start`](Self::start) is called.
#[must_use = "nothing is subscribed until `start` is called"]
pub struct LiveObjectBuilder {
    set: LiveSetBuilder,
    id: String,
}

impl LiveObjectBuilder {
    /// Sets how to fetch: a function that returns the object of a class with an id, or `None` if it does not
    /// exist. Without it, the object is fetched over HTTP, with the cargo feature `rest`.
    ///
    /// The function may block; it is called on a separate thread, and never twice at a time. An error is
    /// retried.
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

    /// Includes the objects that these fields point to, like [`Query::include`].
    pub fn include(mut self, keys: impl Keys) -> Self {
        self.set = self.set.with_query(|query| query.include(keys));
        self
    }

    /// Sets a session token for this object, instead of the client's.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.set = self.set.session_token(token);
        self
    }

    /// Fetches the object again at this interval, even if nothing has happened: see
    /// [`LiveSetBuilder::refresh_every`]. Default: never, or every 10 seconds if the server refuses the
    /// subscription.
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.set = self.set.refresh_every(interval);
        self
    }

    /// Registers a listener, like [`LiveObject::on_change`].
    pub fn on_change(mut self, listener: impl FnMut(&ObjectState) + Send + 'static) -> Self {
        self.set = self.set.listen(None, Times::Always, for_state(listener));
        self
    }

    /// Registers a listener, like [`LiveObject::on_ready`].
    pub fn on_ready(mut self, mut listener: impl FnMut(&ObjectState) + Send + 'static) -> Self {
        self.set = self.set.on_ready(move |set| listener(&ObjectState::of(set)));
        self
    }

    /// Registers a listener, like [`LiveObject::on_stale`].
    pub fn on_stale(mut self, listener: impl FnMut(Date) + Send + 'static) -> Self {
        self.set = self
            .set
            .listen(Some(SetEventKind::Stale), Times::Always, for_stale(listener));
        self
    }

    /// Registers a listener, like [`LiveObject::on_error`].
    pub fn on_error(mut self, listener: impl FnMut(&Error) + Send + 'static) -> Self {
        self.set = self
            .set
            .listen(Some(SetEventKind::Error), Times::Always, for_error(listener));
        self
    }

    /// Subscribes, and fetches as soon as the server has acknowledged the subscription.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidQuery`] for an invalid class name. [`ErrorKind::InvalidSetting`] if there is no
    /// way to fetch: neither [`fetch_with`](Self::fetch_with) nor the cargo feature `rest`.
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

/// Reports each state once: before it is ready, a set goes through several changes, and it may become ready
/// again unchanged.
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

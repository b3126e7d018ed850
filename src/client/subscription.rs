//! A subscription: the handle, and the builder that has all listeners in place before the first frame is
//! sent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use crate::client::Client;
use crate::client::awaited::awaited;
use crate::delivery::emitter::{Emitter, ListenerId, Missed, Times};
use crate::delivery::inside::refuse_in_listener;
use crate::delivery::subscription::SubscriptionCore;
use crate::driver::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventKind, EventName, known};
use crate::fenced::drop_quietly;
use crate::protocol::spec::Spec;
use crate::query::{EncodedQuery, Query};
use crate::secret::Secret;
use crate::state::SubscriptionState;
use crate::stats::SubscriptionStats;
use crate::text::deadline;

impl Client {
    /// Subscribes to a query, and connects if the client has not connected yet and is not [paused](Self::pause).
    ///
    /// Returns at once. Register listeners on the subscription; a listener for `open` does not miss an `open`
    /// that came before it. To have all listeners in place before the first frame is sent, use
    /// [`subscription`](Self::subscription).
    ///
    /// If the server turns out to be too old for the query, the subscription gets an `error` event (see
    /// [`Query`](crate::Query#versions-of-parse-server)).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`](crate::ErrorKind::InvalidQuery) for a query that LiveQuery cannot answer,
    /// and [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a fork of the process that built the client.
    pub fn subscribe(&self, query: &Query) -> Result<Subscription> {
        self.subscription(query).start()
    }

    /// Starts building a subscription, with listeners, a session token and more in place before it is sent.
    ///
    /// # Examples
    /// ```no_run
    /// # use parse_livequery::{Client, Query};
    /// # fn subscribe(client: &Client) -> parse_livequery::Result<()> {
    /// let subscription = client
    ///     .subscription(&Query::new("Game"))
    ///     .on_create(|game| println!("{:?}", game.get("name")))
    ///     .on_error(|error| eprintln!("{error}"))
    ///     .session_token("r:the users token")
    ///     .start()?;
    /// # subscription.detach();
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscription(&self, query: &Query) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.clone(), query.clone())
    }

    /// Ends a subscription, as [`Subscription::unsubscribe`] does, whichever client it belongs to.
    pub fn unsubscribe(&self, subscription: &Subscription) {
        subscription.unsubscribe();
    }
}

/// A query that the server watches for you.
///
/// **Keep it**: the subscription ends when its last clone is dropped, so `let _ = client.subscribe(..)` ends
/// it at once. [`detach`](Self::detach) keeps it without a handle. A subscription keeps its [`Client`] alive.
///
/// Listeners run on the thread `livequery-dispatch`, one after another, in the order of the events. They may
/// call everything, and hold up only each other, not the connection. A listener that panics is reported to
/// the client's listeners for `error` and stays registered.
///
/// `open` and `close` alternate. `open` says that events arrive from now on, `close` that no more arrive:
/// either the connection was lost, and another `open` follows, or the subscription has ended.
///
/// # Examples
/// ```
/// # use parse_livequery::{Client, Query};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = parse_livequery::test_server::TestServer::start()?;
/// # let client = Client::builder(server.url(), "APP_ID").build()?;
/// let games = client.subscribe(&Query::new("Game").greater_than("score", 10))?;
/// games.on("create", |game| println!("created {:?}", game.get("name")));
/// games.on_update(|game, original| println!("{game:?} was {original:?}"));
/// games.on_error(|error| eprintln!("{error}"));
/// games.wait_open(Duration::from_secs(10))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "the subscription ends when it is dropped; keep it, or call `detach`"]
pub struct Subscription(Arc<Handle>);

struct Handle {
    core: Arc<SubscriptionCore>,
    client: Client,
    /// The latest request. Locked while it is sent, so that the server gets changes in order.
    asked: Mutex<Arc<Spec>>,
    detached: AtomicBool,
}

impl Subscription {
    /// Returns the class that the subscription was created for, even if [`update`](Self::update) has changed
    /// it.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.0.core.class_name
    }

    /// Returns the events of this subscription as a channel, for `select!`, time-outs and your own threads;
    /// in addition to listeners or instead of them. If the subscription is open, an `open` comes first.
    ///
    /// The channel holds 1,024 events; [`send_to`](Self::send_to) takes a channel of another size. Events that come while it
    /// is full are dropped, and reported in the channel by one `error` of kind [`ErrorKind::Lagged`], before the next event
    /// for which there is room.
    ///
    /// When the subscription ends, so does the channel, after the events in it. It does not keep the
    /// subscription alive.
    ///
    /// # Examples
    /// ```no_run
    /// # fn print(subscription: &parse_livequery::Subscription) {
    /// for event in subscription.events() {
    ///     println!("{} {:?}", event.kind(), event.id());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Receiver<Event> {
        let (sender, receiver) = bounded(EVENTS);
        self.send_to(sender);
        receiver
    }

    /// Removes a listener: it is no longer called. Returns `false` if it is not a listener of this
    /// subscription.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let subscription = client.subscribe(&Query::new("Game"))?;
    /// # subscription.wait_open(Duration::from_secs(10))?;
    /// let listener = subscription.on("create", |game| println!("{:?}", game.id()));
    /// assert!(subscription.off(listener));
    /// # Ok(())
    /// # }
    /// ```
    pub fn off(&self, listener: ListenerId) -> bool {
        self.0.client.shared().is_home() && self.0.core.subscriber.emitter.off(listener)
    }

    /// Removes all listeners for events of one kind; those of [`on_any`](Self::on_any) stay.
    ///
    /// # Panics
    /// If there is no event with this name.
    #[track_caller]
    pub fn remove_all_listeners(&self, kind: impl EventName<EventKind>) {
        self.remove_listeners(Some(known(kind)));
    }

    /// Removes all listeners of this subscription: those of all kinds and of [`on_any`](Self::on_any).
    pub fn off_all(&self) {
        self.remove_listeners(None);
    }

    /// Returns how many listeners an event of this kind has, including those of [`on_any`](Self::on_any).
    ///
    /// # Panics
    /// If there is no event with this name.
    #[must_use]
    #[track_caller]
    pub fn listener_count(&self, kind: impl EventName<EventKind>) -> usize {
        let kind = known(kind);
        if !self.0.client.shared().is_home() {
            return 0;
        }
        self.0.core.subscriber.emitter.count(kind)
    }

    /// Ends the subscription permanently. A second call does nothing.
    ///
    /// Once this has returned, no further listener starts, except for one last `close` if the subscription
    /// was open. A listener that is already running on the dispatch thread may finish. The server is notified
    /// when possible.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let subscription = client.subscribe(&Query::new("Game"))?;
    /// # subscription.wait_open(Duration::from_secs(10))?;
    /// subscription.unsubscribe();
    /// assert!(server.wait_for_subscriptions(Duration::from_secs(10), 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn unsubscribe(&self) {
        self.0.unsubscribe();
    }

    /// Replaces the query. Returns at once.
    ///
    /// The server ends the old query when it takes the new one, and events in between are lost: when the new
    /// one is in force, there is a `close` and an `open` with that gap. If the server refuses the new query,
    /// there is an `error`, and the old query is restored, with a `close` and an `open` as well. If the
    /// server is too old for the new query, there is an `error`, and the old query is not interrupted.
    ///
    /// A subscription that has failed is tried again with the new query.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`] for a query that LiveQuery cannot answer, and [`ErrorKind::Closed`] if the
    /// subscription has ended. In both cases nothing changes.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let subscription = client.subscribe(&Query::new("Game"))?;
    /// # subscription.wait_open(Duration::from_secs(10))?;
    /// subscription.update(&Query::new("Game").equal_to("finished", false))?;
    /// # let changed = |server: &parse_livequery::test_server::TestServer| {
    /// #     server.subscriptions().iter().any(|held| held.where_json() == r#"{"finished":false}"#)
    /// # };
    /// # assert!(server.wait_for(Duration::from_secs(10), changed));
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, query: &Query) -> Result<()> {
        self.0.client.shared().check_home()?;
        let query = query.encode_for(self.0.client.age())?;
        self.ask(|asked| {
            Spec::new(
                query,
                asked.session_token.clone(),
                self.0.core.subscriber.generation(),
            )
        })
    }

    /// Reads objects with another session token from now on; `None` means the client's.
    ///
    /// Once this has returned, no event that came under the old token is delivered. When the server has
    /// accepted the new token, there is a `close` and an `open` with the gap. If it refuses the token, the
    /// subscription fails with an `error`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the subscription has ended.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let subscription = client.subscribe(&Query::new("Game"))?;
    /// # subscription.wait_open(Duration::from_secs(10))?;
    /// subscription.set_session_token(Some("r:of another user"))?;
    /// subscription.set_session_token(None)?; // that of the client again
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_session_token(&self, token: Option<&str>) -> Result<()> {
        let token = token.map(Secret::from);
        self.ask(|asked| {
            Spec::new(
                asked.query.clone(),
                token,
                self.0.core.subscriber.next_generation(),
            )
        })
    }

    /// Changes the request, and sends it.
    fn ask(&self, change: impl FnOnce(&Spec) -> Spec) -> Result<()> {
        let core = &self.0.core;
        let shared = self.0.client.shared();
        shared.check_home()?;
        if shared.is_ended(core) {
            return Err(Error::new(
                ErrorKind::Closed,
                "the subscription has ended; subscribe again",
            ));
        }
        let mut asked = self.0.asked.lock();
        let spec = Arc::new(change(&asked));
        *asked = Arc::clone(&spec);
        core.asked_again();
        self.0.client.send(Command::Update(Arc::clone(core), spec));
        Ok(())
    }

    /// Ends the subscription like [`unsubscribe`](Self::unsubscribe), and waits until a running listener has
    /// returned and the last `close` has been delivered. After that, none of its listeners runs or starts.
    ///
    /// With [`Dispatch::manual`](crate::Dispatch::manual) it only waits for a running listener; a `close`
    /// that has not been dispatched by then is not delivered.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it takes longer, [`ErrorKind::CalledFromListener`] in a listener of this
    /// client. The subscription has ended in either case.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let subscription = client.subscribe(&Query::new("Game"))?;
    /// # subscription.wait_open(Duration::from_secs(10))?;
    /// subscription.unsubscribe_and_wait(Duration::from_secs(10))?;
    /// // No listener runs any more: what they use can be put away.
    /// # Ok(())
    /// # }
    /// ```
    pub fn unsubscribe_and_wait(&self, timeout: Duration) -> Result<()> {
        self.0.client.shared().check_home()?;
        self.unsubscribe();
        refuse_in_listener(self.0.client.shared(), "unsubscribe_and_wait")?;
        self.0.client.shared().wait_ended(&self.0.core, deadline(timeout))
    }

    /// Returns the counters of this subscription.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.0.client.shared().subscription_stats(&self.0.core)
    }

    /// Waits until the server has acknowledged the subscription and its listeners for `open` have returned.
    /// Returns at once if that is already the case. If the server refuses it, the listeners for `error` have
    /// returned first.
    ///
    /// With [`Dispatch::manual`](crate::Dispatch::manual) it does not wait for listeners: the waiting thread
    /// may be the one that has to call them.
    ///
    /// # Errors
    /// The server's refusal of the subscription or the connection; [`ErrorKind::Timeout`] if it takes longer,
    /// with the reason why the last attempt to connect failed; [`ErrorKind::Closed`] if the subscription has
    /// ended; [`ErrorKind::CalledFromListener`] in a listener of this client. The subscription continues
    /// after a time-out.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let subscription = client.subscribe(&Query::new("Game"))?;
    /// subscription.wait_open(Duration::from_secs(10))?;
    /// // From here on no event is missed.
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_open(&self, timeout: Duration) -> Result<()> {
        let shared = self.0.client.shared();
        shared.check_home()?;
        refuse_in_listener(shared, "wait_open")?;
        shared.wait_open(&self.0.core, deadline(timeout))
    }

    /// Waits for the first event for which the closure returns `true`, and returns it. The closure is called on this
    /// thread. If the subscription is open, its `open` comes first; other events from before the call are not seen. For
    /// those, use [`SubscriptionBuilder::wait_for`] or [`events`](Self::events).
    ///
    /// With [`Dispatch::manual`](crate::Dispatch::manual) another thread has to dispatch meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the event does not come in time, with the number of other events, the kind of the last one,
    /// and the reason why the last attempt to connect failed. The server's refusal of the subscription or the connection;
    /// [`ErrorKind::Closed`] if the subscription has ended, unless the closure has accepted the event that says so;
    /// [`ErrorKind::CalledFromListener`] in a listener of this client, which the event would wait for. The subscription
    /// continues after a time-out.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, EventKind, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let games = client.subscribe(&Query::new("Game"))?;
    /// # games.wait_open(Duration::from_secs(10))?;
    /// # let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    /// # let stopped = std::sync::Arc::clone(&stop);
    /// # let players = std::thread::spawn(move || while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
    /// #     server.create("Game", serde_json::json!({"score": 99}));
    /// #     std::thread::sleep(Duration::from_millis(1));
    /// # });
    /// let name = "score";
    /// let event = games.wait_for(Duration::from_secs(10), |event| event.get_i64(name) > Some(98))?;
    /// assert_eq!(event.kind(), EventKind::Create);
    /// # stop.store(true, std::sync::atomic::Ordering::Relaxed);
    /// # players.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for(&self, timeout: Duration, is_it: impl FnMut(&Event) -> bool) -> Result<Event> {
        let deadline = deadline(timeout);
        let shared = self.0.client.shared();
        shared.check_home()?;
        refuse_in_listener(shared, "wait_for")?;
        let (feed, came) = awaited(shared);
        let _registered = Registered(self, self.listen(None, Times::Always, feed));
        came.wait(shared, &self.0.core, deadline, is_it)
    }

    /// Returns the state of the subscription.
    #[must_use]
    pub fn state(&self) -> SubscriptionState {
        self.0.client.shared().subscription_state(&self.0.core)
    }

    /// Gives up the handle without ending the subscription: it lives as long as its client, until
    /// [`Client::close`].
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// client.subscribe(&Query::new("Game"))?.detach();
    /// assert!(server.wait_for_subscriptions(Duration::from_secs(10), 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach(self) {
        self.0.detached.store(true, Ordering::Relaxed);
    }

    /// Returns the subscription's number in the protocol (`requestId`). Unique within its client.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.core.id
    }

    /// Returns the client that the subscription belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn core(&self) -> &Arc<SubscriptionCore> {
        &self.0.core
    }

    fn remove_listeners(&self, kind: Option<EventKind>) {
        if self.0.client.shared().is_home() {
            self.0.core.subscriber.emitter.remove_all(kind);
        }
    }

    pub(super) fn listen(
        &self,
        kind: Option<EventKind>,
        times: Times,
        listener: impl FnMut(&Event) -> Result<()> + Send + 'static,
    ) -> ListenerId {
        let core = &self.0.core;
        if !self.0.client.shared().is_home() {
            drop_quietly(listener);
            return ListenerId::unused();
        }
        let (id, missed) = core.subscriber.emitter.on(kind, times, listener);
        if missed == Missed::Yes {
            self.0.client.shared().late(core, id);
        }
        id
    }
}

/// A listener that is removed at the end, also if the program panics meanwhile.
struct Registered<'a>(&'a Subscription, ListenerId);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.off(self.1);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.0.core.id)
            .field("class_name", &self.0.core.class_name)
            .field("state", &self.state())
            .finish()
    }
}

impl Handle {
    fn unsubscribe(&self) {
        let shared = self.client.shared();
        if !shared.is_ended(&self.core) && shared.is_home() {
            shared.end(&self.core, None);
            shared.wake_delivery();
            self.client.send(Command::Unsubscribe(self.core.id));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.detached.load(Ordering::Relaxed) {
            self.unsubscribe();
        }
    }
}

/// Builds a [`Subscription`]. Created by [`Client::subscription`].
///
/// Listeners that are registered here are in place before the first frame is sent, so they miss nothing.
#[must_use = "nothing is subscribed until `start` is called"]
pub struct SubscriptionBuilder {
    client: Client,
    query: Query,
    session_token: Option<Secret>,
    emitter: Emitter<Event>,
}

impl SubscriptionBuilder {
    pub(crate) fn new(client: Client, query: Query) -> Self {
        Self {
            client,
            query,
            session_token: None,
            emitter: Emitter::new(),
        }
    }

    /// Sets the session token to read objects with, instead of the client's.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::from(token));
        self
    }

    /// Subscribes, and connects if the client has not connected yet. Returns at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`] for a query that LiveQuery cannot answer, and [`ErrorKind::Forked`] in a
    /// fork of the process that built the client.
    pub fn start(self) -> Result<Subscription> {
        self.client.shared().check_home()?;
        let query = self.query.encode_for(self.client.age())?;
        Ok(self.start_as(query, |_| ()))
    }

    /// As [`start`](Self::start), and then waits for an event of the subscription as [`Subscription::wait_for`] does, which
    /// says more. It listens before the first frame is sent, so it misses no event.
    ///
    /// # Errors
    /// Those of `start` and of [`Subscription::wait_for`]. The subscription has ended then.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, EventKind, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let job = server.create("Job", serde_json::json!({"done": false}));
    /// # std::thread::spawn(move || {
    /// #     assert!(server.wait_for_subscriptions(Duration::from_secs(10), 1));
    /// #     server.update("Job", &job, serde_json::json!({"done": true}));
    /// #     assert!(server.wait_for_subscriptions(Duration::from_secs(10), 0));
    /// # });
    /// let query = Query::new("Job").equal_to("done", true);
    /// let (_jobs, event) = client
    ///     .subscription(&query)
    ///     .wait_for(Duration::from_secs(60), |event| event.kind() == EventKind::Enter)?;
    /// println!("{} is done", event.id().unwrap_or("?"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for(
        self,
        timeout: Duration,
        is_it: impl FnMut(&Event) -> bool,
    ) -> Result<(Subscription, Event)> {
        let deadline = deadline(timeout);
        refuse_in_listener(self.client.shared(), "wait_for")?;
        let (feed, came) = awaited(self.client.shared());
        let (listener, _) = self.emitter.on(None, Times::Always, feed);
        let subscription = self.start()?;
        let event = came.wait(
            subscription.0.client.shared(),
            subscription.core(),
            deadline,
            is_it,
        )?;
        subscription.off(listener);
        Ok((subscription, event))
    }

    /// Subscribes with the encoded query; `ready` runs before anything is sent.
    pub(crate) fn start_as(
        self,
        query: EncodedQuery,
        ready: impl FnOnce(&Arc<SubscriptionCore>),
    ) -> Subscription {
        let Self {
            client,
            query: _,
            session_token,
            emitter,
        } = self;
        let spec = Arc::new(Spec::new(query, session_token, 0));
        let id = client.shared().next_id();
        let core = Arc::new(SubscriptionCore::new(
            id,
            Arc::clone(&spec.query.class_name),
            emitter,
        ));
        ready(&core);
        client.send(Command::Subscribe(Arc::clone(&core), Arc::clone(&spec)));
        Subscription(Arc::new(Handle {
            core,
            client,
            asked: Mutex::new(spec),
            detached: AtomicBool::new(false),
        }))
    }

    pub(super) fn listen(
        self,
        kind: Option<EventKind>,
        times: Times,
        listener: impl FnMut(&Event) -> Result<()> + Send + 'static,
    ) -> Self {
        self.emitter.on(kind, times, listener);
        self
    }
}

impl fmt::Debug for SubscriptionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder")
            .field("query", &self.query)
            .field("session_token", &self.session_token)
            .field("emitter", &self.emitter)
            .finish_non_exhaustive()
    }
}

/// The default capacity of an event channel.
const EVENTS: usize = 1024;

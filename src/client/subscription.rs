//! A subscription: the handle, and the builder that has listeners in place before the first frame is sent.

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
    /// Subscribes to a query, and connects if the client has not yet, unless it is [paused](Self::pause).
    ///
    /// Returns at once. Listeners are registered on the subscription; an `open` that came before its listener is
    /// not missed. To have them in place before the first frame is sent, use [`subscription`](Self::subscription).
    ///
    /// What the server turns out to be too old for is an `error` event of the subscription (see
    /// [`Query`](crate::Query#versions-of-parse-server)).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`](crate::ErrorKind::InvalidQuery) for a query that LiveQuery cannot serve, and
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a fork of the process that the client was built in.
    pub fn subscribe(&self, query: &Query) -> Result<Subscription> {
        self.subscription(query).start()
    }

    /// Starts a subscription whose listeners, session token and more are in place before it is sent.
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
/// **Keep it**: when the last clone is dropped the subscription ends, so `let _ = client.subscribe(..)` ends it at
/// once. [`detach`](Self::detach) lets go of it without that. It keeps its [`Client`] alive.
///
/// Listeners run on the thread `livequery-dispatch`, one after another, in the order in which events came. They may
/// call everything, and hold up only each other: not the link. A listener that panics is reported to the client's
/// listeners for `error` and stays registered.
///
/// `open` and `close` alternate. `open` says that events come from now on, `close` that none come any more: the link
/// was lost, and comes back with another `open`, or the subscription has ended.
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
    /// What was asked for last. Locked while it is sent, so that the server gets changes in their order.
    asked: Mutex<Arc<Spec>>,
    detached: AtomicBool,
}

impl Subscription {
    /// The class that it was made for, whatever [`update`](Self::update) has made of it.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.0.core.class_name
    }

    /// The events of this subscription as a channel, for `select!`, for time-outs, for threads of your own; beside
    /// listeners or in place of them. An `open` that still holds comes first.
    ///
    /// The channel holds 1,024 events; [`send_to`](Self::send_to) takes one of another size. What comes while it is full is
    /// dropped, and reported in the channel by one `error` of kind [`ErrorKind::Lagged`], before the next event for which
    /// there is room.
    ///
    /// The channel ends, after what is in it, when the subscription ends. It does not keep the subscription alive.
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

    /// Removes a listener: it is not called any more. `false` if it is not one of this subscription.
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

    /// Removes all listeners for events of a kind; those of [`on_any`](Self::on_any) stay.
    ///
    /// # Panics
    /// If there is no event of this name.
    #[track_caller]
    pub fn remove_all_listeners(&self, kind: impl EventName<EventKind>) {
        self.remove_listeners(Some(known(kind)));
    }

    /// Removes all listeners of this subscription: those of all kinds and of [`on_any`](Self::on_any).
    pub fn off_all(&self) {
        self.remove_listeners(None);
    }

    /// How many listeners an event of a kind has, those of [`on_any`](Self::on_any) among them.
    ///
    /// # Panics
    /// If there is no event of this name.
    #[must_use]
    #[track_caller]
    pub fn listener_count(&self, kind: impl EventName<EventKind>) -> usize {
        let kind = known(kind);
        if !self.0.client.shared().is_home() {
            return 0;
        }
        self.0.core.subscriber.emitter.count(kind)
    }

    /// Ends the subscription, now and for good; a second call does nothing.
    ///
    /// Once this has returned no listener starts any more, but for one last `close` if the subscription was open. A
    /// listener that is running on the dispatch thread meanwhile may finish. The server is told when it can be.
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
    /// The server ends the old query when it takes the new one, and events in between are lost: when the new one is in
    /// force there is a `close` and an `open` with that gap. If the server refuses the new query there is an `error`,
    /// and the old query is restored, with a `close` and an `open` as well. If the server is too old for the new query
    /// there is an `error`, and the old query was never interrupted.
    ///
    /// A subscription that failed is tried again with the new query.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`] for a query that LiveQuery cannot serve, and [`ErrorKind::Closed`] if the
    /// subscription has ended. In both cases nothing has changed.
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

    /// Reads objects with another session token from now on; `None` is for the client's.
    ///
    /// Once this has returned, no event that came under the old token is given out any more. When the server has
    /// taken the new one there is a `close` and an `open` with the gap. If it refuses the token, the subscription fails
    /// with an `error`.
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

    /// Changes what is asked for, and asks.
    fn ask(&self, change: impl FnOnce(&Spec) -> Spec) -> Result<()> {
        let core = &self.0.core;
        let shared = self.0.client.shared();
        shared.check_home()?;
        if shared.is_ended(core) {
            return Err(Error::new(
                ErrorKind::Closed,
                "the subscription has ended; subscribe anew",
            ));
        }
        let mut asked = self.0.asked.lock();
        let spec = Arc::new(change(&asked));
        *asked = Arc::clone(&spec);
        core.asked_again();
        self.0.client.send(Command::Update(Arc::clone(core), spec));
        Ok(())
    }

    /// Ends the subscription as [`unsubscribe`](Self::unsubscribe) does, and waits until a listener that is running
    /// has returned and the last `close` was told. Then no listener of it runs any more, and none starts.
    ///
    /// With [`Dispatch::manual`](crate::Dispatch::manual) it waits for a listener that is running alone; a `close`
    /// that nobody has dispatched by then is not told.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it takes longer, [`ErrorKind::CalledFromListener`] in a listener of this client. The
    /// subscription is ended in any case.
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

    /// What goes on in this subscription.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.0.client.shared().subscription_stats(&self.0.core)
    }

    /// Waits until the server has acknowledged the subscription and its listeners for `open` have returned. Returns at once
    /// if that is so already. If the server refuses it, the listeners for `error` have returned first.
    ///
    /// With [`Dispatch::manual`](crate::Dispatch::manual) it does not wait for listeners: the thread that waits may be the
    /// one that has to call them.
    ///
    /// # Errors
    /// What the server refused the subscription or the connection for; [`ErrorKind::Timeout`] if it takes longer, with
    /// why the last attempt to connect failed; [`ErrorKind::Closed`] if the subscription has ended;
    /// [`ErrorKind::CalledFromListener`] in a listener of this client. The subscription goes on after a time-out.
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

    /// Waits for an event: for the first one for which the closure returns `true`, which it returns. The closure is called
    /// on this thread. An `open` that still holds comes first; of what came before the call nothing else counts. For what may
    /// come before that, use [`SubscriptionBuilder::wait_for`] or [`events`](Self::events).
    ///
    /// With [`Dispatch::manual`](crate::Dispatch::manual) another thread has to dispatch meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it does not come in time, with how many others came and which was the last, and with why the
    /// last attempt to connect failed. What the server refused the subscription or the connection for, and
    /// [`ErrorKind::Closed`] if the subscription has ended, unless the closure has taken the event that says so.
    /// [`ErrorKind::CalledFromListener`] in a listener of this client, which the event would wait for. The subscription goes
    /// on after a time-out.
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

    /// Where the subscription stands.
    #[must_use]
    pub fn state(&self) -> SubscriptionState {
        self.0.client.shared().subscription_state(&self.0.core)
    }

    /// Lets go of the subscription without ending it: it lives as long as its client, until [`Client::close`].
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

    /// The number that the subscription has on the wire (`requestId`). Unique in its client.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.core.id
    }

    /// The client that the subscription belongs to.
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

/// Sets up a [`Subscription`]. Made by [`Client::subscription`].
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

    /// The session token to read objects with, in place of the client's.
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::from(token));
        self
    }

    /// Subscribes, and connects if the client has not yet. Returns at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`] for a query that LiveQuery cannot serve, and [`ErrorKind::Forked`] in a fork of the
    /// process that the client was built in.
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

    /// Subscribes to what the query is sent as; `ready` comes before anything is sent.
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
        let core = Arc::new(SubscriptionCore::new(id, &spec.query.class_name, emitter));
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

/// The events that a channel holds.
const EVENTS: usize = 1024;

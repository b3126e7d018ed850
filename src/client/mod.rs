//! The client: the handle that registers listeners and sends commands. It does not use the network itself.

mod awaited;
pub(crate) mod builder;
pub(crate) mod default;
mod diagnose;
mod listeners;
pub(crate) mod subscription;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use crate::delivery::deliver::{dispatch_pending, dispatch_pending_timeout};
use crate::delivery::emitter::{ListenerId, Missed, Times};
use crate::delivery::inside::{in_listener_of, refuse_in_listener};
use crate::delivery::shared::Shared;
use crate::driver::command::{Command, Commands};
use crate::error::{Error, Result};
use crate::event::{ClientEvent, ClientEventKind, EventName, known};
use crate::fenced::drop_quietly;
use crate::logging::warn;
use crate::query::version::Age;
#[cfg(feature = "rest")]
use crate::rest::handle::Rest;
use crate::secret::Secret;
use crate::server_url::authority;
use crate::state::ClientState;
use crate::stats::ClientStats;
use crate::text::deadline;

/// A connection to a LiveQuery server, and all subscriptions on it.
///
/// A clone is another handle to the same client. The client lives until its last handle is dropped, including
/// the handles that its [`Subscription`](crate::Subscription)s hold; then it ends in the background, and the
/// drop does not wait. To wait until the connection is closed, call [`close`](Self::close).
///
/// A listener that owns a handle to its own client keeps the client alive: end such a client with `close`.
///
/// A fork of the process has none of the client's threads. There, calls fail with
/// [`ErrorKind::Forked`](crate::ErrorKind::Forked), calls without a result do nothing, and dropping the
/// handles, or calling [`close`](Self::close), closes the inherited connection without a message to the
/// server. Build the client after daemonizing; see [the recipe](crate::guide::recipes#run-as-a-daemon).
///
/// # Examples
/// ```no_run
/// use parse_livequery::{Client, Query};
///
/// # fn main() -> parse_livequery::Result<()> {
/// let client = Client::builder("ws://localhost:1337/parse", "APP_ID").javascript_key("JS_KEY").build()?;
/// client.on("reconnecting", |event| println!("trying again in {:?}", event.delay()));
/// let games = client.subscribe(&Query::new("Game"))?;
/// games.on("create", |game| println!("{:?}", game.get("name")));
/// client.wait_closed()
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    servers: Vec<Url>,
    close_timeout: Duration,
    /// What the program says about the server's version.
    age: Option<Age>,
    shared: Arc<Shared>,
    commands: Commands,
    #[cfg(feature = "rest")]
    rest: Rest,
}

impl Client {
    /// Connects. Returns at once; the event `open` reports the connection, and [`wait_open`](Self::wait_open)
    /// waits for it. Does nothing if the client is connected or connecting; if it is [paused](Self::pause), it
    /// connects after [`resume`](Self::resume). [`subscribe`](Self::subscribe) calls it automatically.
    ///
    /// After [`close`](Self::close) and after a refusal it starts the client again.
    pub fn open(&self) {
        self.send(Command::Open);
    }

    /// Ends the connection and all subscriptions, each with `close` as its last event.
    ///
    /// No listener for objects starts after this has been called. It returns when the server has confirmed
    /// the close and the listeners for `close` have been called, and after the close time-out (2 s by
    /// default) at the latest. In a listener of this client it returns at once, and the rest follows.
    ///
    /// A later [`open`](Self::open) or [`subscribe`](Self::subscribe) opens a new connection.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let subscription = client.subscribe(&Query::new("Game"))?;
    /// client.close();
    /// assert_eq!(subscription.state(), parse_livequery::SubscriptionState::Closed);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        if !self.0.shared.is_home() {
            self.0.commands.abandon();
            return;
        }
        let deadline = Instant::now() + self.0.close_timeout;
        let shared = &self.0.shared;
        let receipt = shared.status.close();
        let below = shared.end_all();
        self.0.commands.send(Command::Close { below, receipt });
        if !in_listener_of(shared) && !shared.status.wait_close_done(deadline) {
            warn!(
                "the client has not closed within {:?}; closing continues in the background",
                self.0.close_timeout
            );
        }
    }

    /// Calls a listener for each event of one kind: `"open"`, `"close"`, `"error"`, `"reconnecting"`,
    /// `"session_ended"` or a [`ClientEventKind`].
    ///
    /// Listeners run on the thread `livequery-dispatch`, one after another. If the client is already open, a
    /// listener for `open` is called once for that. Listeners for `error` also get the errors of all
    /// subscriptions.
    ///
    /// # Panics
    /// If there is no event with this name.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// client.on("open", |_| println!("connected"));
    /// client.on("reconnecting", |event| println!("attempt {:?} in {:?}", event.attempt(), event.delay()));
    /// client.on("error", |event| eprintln!("{:?}", event.error()));
    /// # client.open();
    /// # client.wait_open(Duration::from_secs(10))?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn on(
        &self,
        kind: impl EventName<ClientEventKind>,
        listener: impl FnMut(&ClientEvent) + Send + 'static,
    ) -> ListenerId {
        self.listen(Some(known(kind)), Times::Always, listener)
    }

    /// Calls a listener once, for the next event of one kind.
    ///
    /// # Panics
    /// If there is no event with this name.
    #[track_caller]
    pub fn once(
        &self,
        kind: impl EventName<ClientEventKind>,
        listener: impl FnMut(&ClientEvent) + Send + 'static,
    ) -> ListenerId {
        self.listen(Some(known(kind)), Times::Once, listener)
    }

    /// Calls a listener for each `open`: the server has accepted the connection.
    pub fn on_open(&self, mut listener: impl FnMut() + Send + 'static) -> ListenerId {
        self.on(ClientEventKind::Open, move |_| listener())
    }

    /// Calls a listener for each `close`, with the reason if the connection was lost.
    pub fn on_close(&self, mut listener: impl FnMut(Option<&Error>) + Send + 'static) -> ListenerId {
        self.on(ClientEventKind::Close, move |event| listener(event.error()))
    }

    /// Calls a listener for each `error`, of the client and of its subscriptions.
    pub fn on_error(&self, mut listener: impl FnMut(&Error) + Send + 'static) -> ListenerId {
        self.on(ClientEventKind::Error, move |event| {
            if let Some(error) = event.error() {
                listener(error);
            }
        })
    }

    /// Calls a listener for each event of any kind.
    pub fn on_any(&self, listener: impl FnMut(&ClientEvent) + Send + 'static) -> ListenerId {
        self.listen(None, Times::Always, listener)
    }

    /// Removes a listener of this client: it is no longer called. Returns `false` if there is no such
    /// listener.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let listener = client.on("open", |_| println!("connected"));
    /// assert!(client.off(listener));
    /// assert!(!client.off(listener)); // it is gone
    /// # Ok(())
    /// # }
    /// ```
    pub fn off(&self, listener: ListenerId) -> bool {
        self.0.shared.is_home() && self.0.shared.subscriber.emitter.off(listener)
    }

    /// Removes all listeners of this client for events of one kind.
    ///
    /// # Panics
    /// If there is no event with this name.
    #[track_caller]
    pub fn remove_all_listeners(&self, kind: impl EventName<ClientEventKind>) {
        self.remove_listeners(Some(known(kind)));
    }

    /// Removes all listeners of this client: those of all kinds and of [`on_any`](Self::on_any).
    pub fn off_all(&self) {
        self.remove_listeners(None);
    }

    /// Returns how many listeners this client has for events of one kind.
    ///
    /// # Panics
    /// If there is no event with this name.
    #[must_use]
    #[track_caller]
    pub fn listener_count(&self, kind: impl EventName<ClientEventKind>) -> usize {
        let kind = known(kind);
        if !self.0.shared.is_home() {
            return 0;
        }
        self.0.shared.subscriber.emitter.count(kind)
    }

    /// Uses another session token from now on, for the connection and for all subscriptions without their
    /// own: at log-in, at log-out (`None`), and when a token was renewed.
    ///
    /// Once this has returned, no event that came under the old token is delivered. The client reconnects,
    /// since the server accepts a connection's token only at its beginning; each subscription gets `close`,
    /// and `open` with the gap. A client with a
    /// [`session_token_provider`](crate::ClientBuilder::session_token_provider) uses that instead; there,
    /// this call only makes the client ask the provider again.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let token = "r:token".to_owned();
    /// client.set_session_token(Some(&token)); // after the log-in
    /// client.set_session_token(None); // after the log-out
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_session_token(&self, token: Option<&str>) {
        self.0.commands.set_session_token(token.map(Secret::from));
    }

    /// Returns the server's REST API: log in, save, find. It uses the settings of this client and its session
    /// token, which a log-in sets for the connection and for all subscriptions and live sets without their
    /// own.
    ///
    /// It neither needs nor opens a connection. See [`rest`](crate::rest).
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # server.create("Game", serde_json::json!({"score": 1}));
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let games = client.rest().find(&Query::new("Game").greater_than("score", 0))?;
    /// assert_eq!(games[0].get_i64("score"), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "rest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rest")))]
    pub fn rest(&self) -> Rest {
        self.0.rest.clone()
    }

    /// Closes the connection until [`resume`](Self::resume), and keeps the subscriptions: for an app in the background, a
    /// laptop on battery, a metered network. Returns at once.
    ///
    /// Events that have arrived are still delivered. Then each open subscription gets `close`, and so does the client; live
    /// sets become stale. The state is [`ClientState::Paused`]. Subscriptions made meanwhile, and [`open`](Self::open), wait
    /// for `resume`; [`reconnect_now`](Self::reconnect_now) does nothing; the REST API works as before.
    ///
    /// A client that was never opened can be paused, and then connects no earlier than `resume`. A client that is paused,
    /// closed, or refused by the server stays as it is. [`close`](Self::close) ends the pause.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, GapReason, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let patience = Duration::from_secs(10);
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # let subscription = client.subscribe(&Query::new("Game"))?;
    /// # subscription.wait_open(patience)?;
    /// # let (sender, opened) = std::sync::mpsc::channel();
    /// # subscription.on_open(move |gap| sender.send(gap.cloned()).unwrap());
    /// # opened.recv_timeout(patience)?;
    /// client.pause(); // the window is hidden
    /// # assert!(server.wait_for(patience, |server| server.connections() == 0));
    /// client.resume(); // the window is shown again: each subscription gets `open`, with the gap
    /// # assert_eq!(opened.recv_timeout(patience)?.unwrap().reason(), GapReason::Paused);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&self) {
        self.send(Command::Pause);
    }

    /// Ends a [`pause`](Self::pause). Returns at once.
    ///
    /// The client connects if it was connected or trying to be, or if [`open`](Self::open) or a new subscription has asked
    /// for it in the meantime. Each subscription gets `open` with a gap of reason [`GapReason::Paused`](crate::GapReason::Paused).
    /// On a client that is not paused it does nothing.
    ///
    /// A program that pauses and resumes again and again does not storm the server: after ten attempts in a row the client
    /// waits up to a second before each. The same holds for `close` and `open`, [`reconnect_now`](Self::reconnect_now), and a
    /// new session token.
    pub fn resume(&self) {
        self.send(Command::Resume);
    }

    /// Does at once what would be done later: makes the next attempt to connect; or, if the client is
    /// connected, checks the connection, for which the server has 3 s to answer. For programs that know that
    /// the network has changed.
    ///
    /// # Examples
    /// ```
    /// # fn network_changed(client: &parse_livequery::Client) {
    /// // the machine has woken up, or is on another network
    /// client.reconnect_now();
    /// # }
    /// ```
    pub fn reconnect_now(&self) {
        self.send(Command::ReconnectNow);
    }

    /// Calls the listeners for everything that has arrived so far, on this thread, and returns how many
    /// events there were. For clients with [`Dispatch::manual`]; on others it does nothing.
    ///
    /// Only one thread at a time calls listeners: if another thread is calling them, or in a listener, this
    /// returns 0.
    ///
    /// [`Dispatch::manual`]: crate::Dispatch::manual
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc;
    /// use parse_livequery::{Client, Dispatch};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let url = server.url();
    ///
    /// let (wake, woken) = mpsc::channel();
    /// let client = Client::builder(url, "APP_ID")
    ///     .dispatch(Dispatch::manual(move || { let _ = wake.send(()); }))
    ///     .build()?;
    /// client.on("open", |_| println!("on this thread"));
    /// client.open();
    /// woken.recv_timeout(Duration::from_secs(10))?;
    /// assert!(client.dispatch_pending() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dispatch_pending(&self) -> usize {
        dispatch_pending(&self.0.shared, None)
    }

    /// Like [`dispatch_pending`](Self::dispatch_pending), but starts no further listener after a time limit,
    /// so that a GUI does not miss a frame. If events are left over, the wake function is called again.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn frame(client: &parse_livequery::Client) {
    /// client.dispatch_pending_for(Duration::from_millis(4)); // and then the frame is drawn
    /// # }
    /// ```
    pub fn dispatch_pending_for(&self, limit: Duration) -> usize {
        dispatch_pending(&self.0.shared, Some(deadline(limit)))
    }

    /// Waits until there is something to dispatch, calls the listeners for it on this thread, and returns how
    /// many events there were: 0 if none came in time. For clients with
    /// [`Dispatch::manual`](crate::Dispatch::manual) whose program has its own loop; on others, and in a
    /// listener of this client, it returns 0 at once.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use parse_livequery::{Client, Dispatch};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let url = server.url();
    /// let client = Client::builder(url, "APP_ID").dispatch(Dispatch::polled()).build()?;
    /// client.on("open", |_| println!("on this thread"));
    /// client.open();
    /// while client.dispatch_pending_timeout(Duration::from_secs(10)) == 0 {}
    /// # Ok(())
    /// # }
    /// ```
    pub fn dispatch_pending_timeout(&self, timeout: Duration) -> usize {
        dispatch_pending_timeout(&self.0.shared, deadline(timeout))
    }

    /// Returns the counters of this client.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # client.open();
    /// client.wait_open(Duration::from_secs(10))?;
    /// let stats = client.stats();
    /// assert_eq!((stats.connections, stats.dropped), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.0.shared.stats()
    }

    /// Returns a text that says what to check when a subscription is open and no events arrive: the state of
    /// this client, and what the server does not report.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> parse_livequery::Result<()> {
    /// let client = parse_livequery::Client::builder("ws://localhost:1337/parse", "APP_ID").build()?;
    /// println!("{}", client.diagnose());
    /// # assert!(client.diagnose().contains("never opened"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn diagnose(&self) -> String {
        self::diagnose::diagnose(&self.address(), self.0.age, &self.0.shared)
    }

    /// Returns the state of the client.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.0.shared.status.state()
    }

    /// Waits until the client is connected and its listeners for `open` have returned (except with
    /// [`Dispatch::manual`](crate::Dispatch::manual), where the program calls them). It does not connect;
    /// call [`open`](Self::open) or [`subscribe`](Self::subscribe) for that.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it takes longer, with the reason why the last
    /// attempt failed; the client keeps trying. [`ErrorKind::Refused`](crate::ErrorKind::Refused) if the
    /// server refused it permanently, [`ErrorKind::Closed`](crate::ErrorKind::Closed) if it was closed, and
    /// [`ErrorKind::CalledFromListener`](crate::ErrorKind::CalledFromListener) in a listener of this client.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// client.open();
    /// client.wait_open(Duration::from_secs(10))?;
    /// assert_eq!(client.state(), parse_livequery::ClientState::Connected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_open(&self, timeout: Duration) -> Result<()> {
        self.0.shared.check_home()?;
        refuse_in_listener(&self.0.shared, "wait_open")?;
        self.0.shared.wait_connected(deadline(timeout))
    }

    /// Waits until the client is closed, by [`close`](Self::close) on another thread, and its listeners for
    /// `close` have returned; or until the server refuses it permanently, and the listeners for `error` have
    /// returned.
    ///
    /// Use it to end the `main` of a program that has nothing else to do.
    ///
    /// # Errors
    /// The server's refusal; or [`ErrorKind::CalledFromListener`](crate::ErrorKind::CalledFromListener) in a
    /// listener of this client.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let from_another_thread = client.clone();
    /// std::thread::spawn(move || from_another_thread.close());
    /// client.wait_closed()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_closed(&self) -> Result<()> {
        self.0.shared.check_home()?;
        refuse_in_listener(&self.0.shared, "wait_closed")?;
        self.0.shared.wait_closed()
    }

    pub(crate) fn new(
        servers: Vec<Url>,
        close_timeout: Duration,
        age: Option<Age>,
        shared: Arc<Shared>,
        commands: Commands,
        #[cfg(feature = "rest")] rest: Rest,
    ) -> Self {
        Self(Arc::new(Handle {
            servers,
            close_timeout,
            age,
            shared,
            commands,
            #[cfg(feature = "rest")]
            rest,
        }))
    }

    pub(crate) fn age(&self) -> Option<Age> {
        self.0.age
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Does nothing in a process other than the one that built the client.
    pub(crate) fn send(&self, command: Command) {
        if self.0.shared.is_home() {
            self.0.commands.send(command);
        }
    }

    /// The URLs in a form that is safe to display: a query string may hold a secret.
    fn address(&self) -> String {
        let without_query = |url: &Url| {
            let mut url = url.clone();
            url.set_query(None);
            String::from(url)
        };
        self.0
            .servers
            .iter()
            .map(without_query)
            .collect::<Vec<_>>()
            .join(" or ")
    }

    /// The address of the first server, without parts that may be secret.
    pub(crate) fn server(&self) -> String {
        let address = |url: &Url| format!("{}://{}{}", url.scheme(), authority(url), url.path());
        self.0.servers.first().map(address).unwrap_or_default()
    }

    fn remove_listeners(&self, kind: Option<ClientEventKind>) {
        if self.0.shared.is_home() {
            self.0.shared.subscriber.emitter.remove_all(kind);
        }
    }

    fn listen(
        &self,
        kind: Option<ClientEventKind>,
        times: Times,
        mut listener: impl FnMut(&ClientEvent) + Send + 'static,
    ) -> ListenerId {
        let shared = &self.0.shared;
        if !shared.is_home() {
            drop_quietly(listener);
            return ListenerId::unused();
        }
        let listener = move |event: &ClientEvent| {
            listener(event);
            Ok(())
        };
        let (id, missed) = shared.subscriber.emitter.on(kind, times, listener);
        if missed == Missed::Yes {
            shared.late(shared, id);
        }
        id
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.address())
            .field("state", &self.state())
            .finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.shared.is_home() {
            self.commands.abandon();
            return;
        }
        self.commands.send(Command::Shutdown);
        // If the threads have panicked, no other code releases it.
        if self.shared.status.is_dead() {
            self.shared.queue.close();
        }
    }
}

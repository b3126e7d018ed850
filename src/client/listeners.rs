//! The methods that register listeners of a subscription, written once for the handle and for the builder.
//!
//! It does not know how a listener is called.

use crossbeam_channel::Sender;
use serde::de::DeserializeOwned;

use crate::client::awaited::into_channel;
use crate::client::subscription::{Subscription, SubscriptionBuilder};
use crate::delivery::emitter::{ListenerId, Times};
use crate::error::{Error, Result};
use crate::event::{Event, EventKind, EventName, Gap, known};
use crate::object::Object;

/// Passes all of them to a macro: the documentation, the signature, and the listener to register.
macro_rules! listeners {
    ($methods:ident) => {
        $methods! {
            /// Calls a listener for each event of one kind: `"open"`, `"create"`, `"update"`, `"enter"`,
            /// `"leave"`, `"delete"`, `"close"`, `"error"` or an [`EventKind`].
            ///
            /// A subscription may have any number of listeners; they are called in the order of registration.
            /// If the subscription is already open, a listener for `open` is called once for that. A listener
            /// that is registered inside a listener gets the events after the current one. Do not register
            /// listeners in `open`: it fires again after each reconnect.
            ///
            /// # Panics
            /// If there is no event with this name. For names from outside there is
            /// [`str::parse::<EventKind>`](EventKind#impl-FromStr-for-EventKind).
            ///
            /// # Examples
            /// A listener may change what it owns, and that need not be shareable between threads:
            /// ```
            /// # fn count(subscription: &parse_livequery::Subscription) {
            /// let seen = std::cell::Cell::new(0);
            /// subscription.on("create", move |_| seen.set(seen.get() + 1));
            /// # }
            /// ```
            /// The listener moves to another thread, so it cannot own values that are tied to one thread:
            /// ```compile_fail,E0277
            /// # fn count(subscription: &parse_livequery::Subscription) {
            /// let seen = std::rc::Rc::new(std::cell::Cell::new(0));
            /// subscription.on("create", move |_| seen.set(seen.get() + 1));
            /// # }
            /// ```
            /// To pass values to other threads, use a channel or a lock:
            /// ```
            /// # fn names(subscription: &parse_livequery::Subscription) {
            /// let (sender, names) = std::sync::mpsc::channel();
            /// subscription.on("create", move |game| {
            ///     let _ = sender.send(game.get("name").cloned());
            /// });
            /// # let _ = names;
            /// # }
            /// ```
            #[track_caller]
            on (kind: impl EventName<EventKind>, listener: impl FnMut(&Event) + Send + 'static) => (Some(known(kind)), Times::Always, infallible(listener));

            /// Calls a listener once, for the next event of one kind.
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
            /// # let subscription = client.subscribe(&Query::new("Game"))?;
            /// # subscription.wait_open(Duration::from_secs(10))?;
            /// subscription.once("create", |game| println!("the first: {:?}", game.id()));
            /// # Ok(())
            /// # }
            /// ```
            #[track_caller]
            once (kind: impl EventName<EventKind>, listener: impl FnMut(&Event) + Send + 'static) => (Some(known(kind)), Times::Once, infallible(listener));

            /// Calls a listener for each `open`, with the gap since the `close` before it.
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
            /// subscription.on_open(|gap| match gap {
            ///     None => println!("events come from now on"),
            ///     Some(gap) => println!("they come again; {:?} may have been missed", gap.duration()),
            /// });
            /// # Ok(())
            /// # }
            /// ```
            on_open (listener: impl FnMut(Option<&Gap>) + Send + 'static) => (Some(EventKind::Open), Times::Always, with_gap(listener));

            /// Calls a listener for each `create`, with the object.
            on_create (listener: impl FnMut(&Object) + Send + 'static) => (Some(EventKind::Create), Times::Always, with_object(listener));

            /// Calls a listener for each `update`, with the object as it is now and as it was before.
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
            /// subscription.on_update(|game, original| {
            ///     let before = original.and_then(|game| game.get("score"));
            ///     println!("{before:?} -> {:?}", game.get("score"));
            /// });
            /// # Ok(())
            /// # }
            /// ```
            on_update (listener: impl FnMut(&Object, Option<&Object>) + Send + 'static) => (Some(EventKind::Update), Times::Always, with_original(listener));

            /// Calls a listener for each `enter`, with the object as it is now, so that one function serves for this and for
            /// [`on_create`](Self::on_create). [`Event::original`] returns it as it was before.
            ///
            /// # Examples
            /// ```
            /// use parse_livequery::{Object, Subscription};
            ///
            /// fn came_in(game: &Object) {
            ///     println!("+ {}", game.id().unwrap_or("?"));
            /// }
            ///
            /// fn went(game: &Object) {
            ///     println!("- {}", game.id().unwrap_or("?"));
            /// }
            ///
            /// fn show(games: &Subscription) {
            ///     games.on_create(came_in);
            ///     games.on_enter(came_in);
            ///     games.on_leave(went);
            ///     games.on_delete(went);
            /// }
            /// ```
            on_enter (listener: impl FnMut(&Object) + Send + 'static) => (Some(EventKind::Enter), Times::Always, with_object(listener));

            /// Calls a listener for each `leave`, with the object as it is now. [`Event::original`] returns it as it was before.
            on_leave (listener: impl FnMut(&Object) + Send + 'static) => (Some(EventKind::Leave), Times::Always, with_object(listener));

            /// Calls a listener for each `delete`, with the object as it was last.
            on_delete (listener: impl FnMut(&Object) + Send + 'static) => (Some(EventKind::Delete), Times::Always, with_object(listener));

            /// Calls a listener for each `close`, with the reason if the connection was lost.
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
            /// subscription.on_close(|error| match error {
            ///     Some(error) => println!("the connection was lost: {error}"),
            ///     None => println!("the subscription has ended, or the client was paused"),
            /// });
            /// # Ok(())
            /// # }
            /// ```
            on_close (listener: impl FnMut(Option<&Error>) + Send + 'static) => (Some(EventKind::Close), Times::Always, with_cause(listener));

            /// Calls a listener for each `error`.
            on_error (listener: impl FnMut(&Error) + Send + 'static) => (Some(EventKind::Error), Times::Always, with_error(listener));

            /// Calls a listener for each event of one kind that carries an object, with the object decoded as your own type,
            /// and with the event.
            ///
            /// An object that does not fit the type is reported as an `error` of kind [`ErrorKind::Decode`](crate::ErrorKind::Decode) that names the
            /// field, and the listener is not called for it; nothing else is affected.
            ///
            /// # Panics
            /// If there is no event with this name, or if it carries no object.
            ///
            /// # Examples
            /// ```
            /// use parse_livequery::{Client, Query};
            /// use serde::Deserialize;
            ///
            /// #[derive(Deserialize)]
            /// struct Game {
            ///     name: String,
            ///     score: Option<f64>,
            /// }
            ///
            /// # fn main() -> parse_livequery::Result<()> {
            /// # let client = Client::builder("ws://localhost:1337/parse", "APP_ID").build()?;
            /// let games = client.subscribe(&Query::new("Game"))?;
            /// games.on_as::<Game>("update", |game, event| {
            ///     let before = event.original().and_then(|game| game.get_f64("score"));
            ///     println!("{}: {before:?} -> {:?}", game.name, game.score);
            /// });
            /// # Ok(())
            /// # }
            /// ```
            #[track_caller]
            on_as [T: DeserializeOwned] (kind: impl EventName<EventKind>, listener: impl FnMut(&T, &Event) + Send + 'static) => (Some(with_object_only(known(kind))), Times::Always, decoded(listener));

            /// Calls a listener for each event of any kind. `open`, `close` and `error` carry no object.
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
            /// subscription.on_any(|event| println!("{} {:?}", event.kind(), event.id()));
            /// # Ok(())
            /// # }
            /// ```
            on_any (listener: impl FnMut(&Event) + Send + 'static) => (None, Times::Always, infallible(listener));

            /// Sends each event of any kind to a channel of your own, which several subscriptions can share.
            ///
            /// What comes while the channel is full is dropped, and reported in the channel by one `error` of kind
            /// [`ErrorKind::Lagged`](crate::ErrorKind::Lagged), before the next event for which there is room. A channel
            /// without a bound has no limit but memory.
            ///
            /// # Examples
            /// ```
            /// use parse_livequery::crossbeam_channel::bounded;
            /// # use parse_livequery::{Client, Query};
            /// # use std::time::Duration;
            ///
            /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// # let server = parse_livequery::test_server::TestServer::start()?;
            /// # let client = Client::builder(server.url(), "APP_ID").build()?;
            /// let (sender, events) = bounded(100);
            /// let games = client.subscription(&Query::new("Game")).send_to(sender.clone()).start()?;
            /// let teams = client.subscription(&Query::new("Team")).send_to(sender).start()?;
            /// # assert!(server.wait_for_subscriptions(Duration::from_secs(10), 2));
            /// # server.create("Team", serde_json::json!({}));
            /// # loop {
            /// let event = events.recv_timeout(Duration::from_secs(10))?;
            /// println!("{} {:?}", event.kind(), event.class_name());
            /// # if event.class_name() == Some("Team") { break; }
            /// # }
            /// # drop((games, teams));
            /// # Ok(())
            /// # }
            /// ```
            send_to (events: Sender<Event>) => (None, Times::Always, infallible(into_channel(events)));
        }
    };
}

macro_rules! for_the_handle {
    ($($(#[$attribute:meta])* $name:ident $([$($generic:tt)*])? ($($argument:ident: $type:ty),*) =>
        ($kind:expr, $times:expr, $listener:expr);)*) => {
        impl Subscription {
            $(
                $(#[$attribute])*
                pub fn $name $(<$($generic)*>)? (&self, $($argument: $type),*) -> ListenerId {
                    self.listen($kind, $times, $listener)
                }
            )*
        }
    };
}

macro_rules! for_the_builder {
    ($($(#[$attribute:meta])* $name:ident $([$($generic:tt)*])? ($($argument:ident: $type:ty),*) =>
        ($kind:expr, $times:expr, $listener:expr);)*) => {
        impl SubscriptionBuilder {
            $(
                #[doc = concat!("Like [`Subscription::", stringify!($name), "`], which says when this panics.")]
                #[track_caller]
                pub fn $name $(<$($generic)*>)? (self, $($argument: $type),*) -> Self {
                    self.listen($kind, $times, $listener)
                }
            )*
        }
    };
}

listeners!(for_the_handle);
listeners!(for_the_builder);

/// The kind, if its events carry an object.
#[track_caller]
fn with_object_only(kind: EventKind) -> EventKind {
    assert!(
        kind.has_object(),
        "the event `{kind}` carries no object to decode"
    );
    kind
}

fn decoded<T: DeserializeOwned>(
    mut listener: impl FnMut(&T, &Event) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    move |event| {
        listener(&event.decode()?, event);
        Ok(())
    }
}

fn infallible(
    mut listener: impl FnMut(&Event) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    move |event| {
        listener(event);
        Ok(())
    }
}

// Events of these kinds always carry what is unpacked here.

fn with_object(
    mut listener: impl FnMut(&Object) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    infallible(move |event| {
        if let Some(object) = event.object() {
            listener(object);
        }
    })
}

fn with_original(
    mut listener: impl FnMut(&Object, Option<&Object>) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    infallible(move |event| {
        if let Some(object) = event.object() {
            listener(object, event.original());
        }
    })
}

fn with_error(
    mut listener: impl FnMut(&Error) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    infallible(move |event| {
        if let Some(error) = event.error() {
            listener(error);
        }
    })
}

fn with_gap(
    mut listener: impl FnMut(Option<&Gap>) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    infallible(move |event| listener(event.gap()))
}

fn with_cause(
    mut listener: impl FnMut(Option<&Error>) + Send + 'static,
) -> impl FnMut(&Event) -> Result<()> + Send + 'static {
    infallible(move |event| listener(event.error()))
}

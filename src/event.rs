//! What listeners are called with: the events of a subscription and of a client. Knows no threads and no sockets.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::scan::Members;
use crate::types::{Acl, Date};

/// An event of a subscription: what a listener gets.
///
/// It answers as its object does, so that `event.get("score")` works without a detour. Clones are cheap: they share
/// the text that came from the server, which is decoded where and when it is looked at.
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
/// # let (sender, seen) = std::sync::mpsc::channel();
/// # let go = server.create("Game", serde_json::json!({"score": 1}));
/// subscription.on("update", move |event| {
///     println!("{} {:?}: {:?}", event.kind(), event.id(), event.get("score"));
///     for key in event.changed_keys() {
///         println!("{key} was {:?}", event.original().and_then(|original| original.get(key)));
///     }
/// #   sender.send(event.clone()).unwrap();
/// });
/// # server.update("Game", &go, serde_json::json!({"score": 2}));
/// # let event = seen.recv_timeout(Duration::from_secs(10))?;
/// # assert_eq!(event.changed_keys(), ["score"]);
/// # assert_eq!(event.original().unwrap().get_i64("score"), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Event {
    kind: EventKind,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Open(Option<Gap>),
    Object(Change),
    Close(Option<Error>),
    Error(Error),
}

impl Event {
    /// Which event it is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The object as it is now; for `delete`, and for `leave` after the right to read it was lost, as it was last.
    /// Of the events `create`, `update`, `enter`, `leave` and `delete`.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        self.change().map(|change| &change.object)
    }

    /// The object as it was before. Of the events `update`, `enter` and `leave`, from Parse Server 3.1.3 on; `enter`
    /// has none where the object came into view because of its ACL.
    #[must_use]
    pub fn original(&self) -> Option<&Object> {
        self.change().and_then(|change| change.original.as_ref())
    }

    /// The fields in which [`object`](Self::object) and [`original`](Self::original) differ, those that were unset
    /// among them. Without `updatedAt`, which changes each time. Empty if there is no original.
    #[must_use]
    pub fn changed_keys(&self) -> Vec<&str> {
        match (self.object(), self.original()) {
            (Some(object), Some(original)) => object.changed_keys(original),
            _ => Vec::new(),
        }
    }

    /// The value of a field of the object. `None` if there is no such field, or no object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.object()?.get(key)
    }

    /// The value of a field of the object as any type that can be decoded, as [`Object::get_as`] does.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the value does not fit the type; or if the event has no object.
    pub fn get_as<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.needed()?.get_as(key)
    }

    /// A field of the object that is a string.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.object()?.get_str(key)
    }

    /// A field of the object that is an integer.
    #[must_use]
    pub fn get_i64(&self, key: &str) -> Option<i64> {
        self.object()?.get_i64(key)
    }

    /// A field of the object that is a number.
    #[must_use]
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        self.object()?.get_f64(key)
    }

    /// A field of the object that is a boolean.
    #[must_use]
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.object()?.get_bool(key)
    }

    /// Who may read and write the object.
    #[must_use]
    pub fn acl(&self) -> Option<Acl> {
        self.object()?.acl()
    }

    /// The object's id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.object()?.id()
    }

    /// The object's class.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.object()?.class_name()
    }

    /// When the object was created.
    #[must_use]
    pub fn created_at(&self) -> Option<Date> {
        self.object()?.created_at()
    }

    /// When the object was last changed. The server may send two quick changes of one object in the wrong order;
    /// this date tells.
    #[must_use]
    pub fn updated_at(&self) -> Option<Date> {
        self.object()?.updated_at()
    }

    /// Decodes the object as a type of your own.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the object does not fit the type, with the path of the field; or if the event has
    /// no object.
    ///
    /// # Examples
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Game {
    ///     score: f64,
    /// }
    ///
    /// # fn listen(subscription: &parse_livequery::Subscription) {
    /// subscription.on("create", |event| match event.decode::<Game>() {
    ///     Ok(game) => println!("{}", game.score),
    ///     Err(error) => eprintln!("{error}"),
    /// });
    /// # }
    /// ```
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        self.needed()?.decode()
    }

    /// The id that the server gave to this connection.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.member("clientId")
    }

    /// The installation id that the connection was made with, echoed by the server.
    #[must_use]
    pub fn installation_id(&self) -> Option<&str> {
        self.member("installationId")
    }

    /// The error, of an `error` event; of a `close` event, what the link was lost of, if it was.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match &self.body {
            Body::Error(error) => Some(error),
            Body::Close(error) => error.as_ref(),
            Body::Open(_) | Body::Object(_) => None,
        }
    }

    /// Of an `open` event: the time in which events may have been missed. `None` for the first `open`.
    #[must_use]
    pub fn gap(&self) -> Option<&Gap> {
        match &self.body {
            Body::Open(gap) => gap.as_ref(),
            _ => None,
        }
    }

    /// Object and original as a type of the user's.
    pub(crate) fn decoded<T: DeserializeOwned>(&self) -> Result<Decoded<T>> {
        let original = self.original().map(Object::decode).transpose()?;
        Ok(Decoded {
            object: self.decode()?,
            original,
            event: self.clone(),
        })
    }

    pub(crate) fn opened(gap: Option<Gap>) -> Self {
        Self {
            kind: EventKind::Open,
            body: Body::Open(gap),
        }
    }

    /// The same `open`, which stands for an earlier one that was never told: its gap begins with that one's.
    pub(crate) fn with_earlier_gap(mut self, earlier: &Self) -> Self {
        if let (Body::Open(Some(gap)), Body::Open(earlier)) = (&mut self.body, &earlier.body) {
            match earlier {
                Some(earlier) => gap.start = gap.start.min(earlier.start),
                // The first `open` of all was not told: there is nothing that the listeners could have missed.
                None => self.body = Body::Open(None),
            }
        }
        self
    }

    /// The error stands for more of them.
    pub(crate) fn add_errors(&mut self, number: u64) {
        if let Body::Error(error) = &mut self.body {
            *error = error.clone().and_more(number);
        }
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Object(Change { object, original }) => {
                object.frame().len() + object.overhead() + original.as_ref().map_or(0, Object::overhead)
            }
            _ => 0,
        }
    }

    pub(crate) fn closed(error: Option<Error>) -> Self {
        Self {
            kind: EventKind::Close,
            body: Body::Close(error),
        }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self {
            kind: EventKind::Error,
            body: Body::Error(error),
        }
    }

    pub(crate) fn changed(kind: EventKind, change: Change) -> Self {
        Self {
            kind,
            body: Body::Object(change),
        }
    }

    /// A member of the frame that is a string or, as Parse Server before 2.6.2 sends `clientId`, a number.
    fn member(&self, name: &str) -> Option<&str> {
        let (_, value) = Members::new(self.object()?.frame()).find(|(key, _)| *key == name)?;
        Some(value.trim_matches('"')).filter(|value| *value != "null")
    }

    /// The object, for what cannot do without.
    fn needed(&self) -> Result<&Object> {
        self.object().ok_or_else(|| {
            let text = format!("the event `{}` carries no object", self.kind);
            Error::new(ErrorKind::Decode, text)
        })
    }

    fn change(&self) -> Option<&Change> {
        match &self.body {
            Body::Object(change) => Some(change),
            _ => None,
        }
    }
}

/// An event whose object was decoded as a type of your own: what the listeners of
/// [`Subscription::on_as`](crate::Subscription::on_as) get. It can be used as that object.
///
/// # Examples
/// ```
/// #[derive(serde::Deserialize)]
/// struct Game {
///     score: f64,
/// }
///
/// # fn listen(subscription: &parse_livequery::Subscription) {
/// subscription.on_as::<Game>("update", |game| {
///     let before = game.original().map(|game| game.score);
///     println!("{before:?} -> {} at {:?}", game.score, game.event().updated_at());
/// });
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    object: T,
    original: Option<T>,
    event: Event,
}

impl<T> Decoded<T> {
    /// The object as it is now.
    pub fn object(&self) -> &T {
        &self.object
    }

    /// The object as it was before; see [`Event::original`].
    pub fn original(&self) -> Option<&T> {
        self.original.as_ref()
    }

    /// The event as it came.
    pub fn event(&self) -> &Event {
        &self.event
    }
}

impl<T> Deref for Decoded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

/// What an event that carries an object carries.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) object: Object,
    pub(crate) original: Option<Object>,
}

/// The events of a subscription.
///
/// # Examples
/// ```
/// use parse_livequery::EventKind;
///
/// assert_eq!("update".parse(), Ok(EventKind::Update));
/// assert_eq!(EventKind::Update.to_string(), "update");
/// let error = "updated".parse::<EventKind>().unwrap_err();
/// assert!(error.to_string().contains("there are: open, create, update"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EventKind {
    /// The server acknowledged the subscription: events come from now on. Fires again after each reconnect.
    Open,
    /// An object that matches the query was created.
    Create,
    /// An object that matched the query was changed and matches it still.
    Update,
    /// An object that did not match the query was changed and matches it now.
    Enter,
    /// An object that matched the query was changed and does not match it any more.
    Leave,
    /// An object that matched the query was deleted.
    Delete,
    /// No events come any more: the link was lost (it reconnects by itself), or the subscription or the client was
    /// closed.
    Close,
    /// Something went wrong; [`Error::is_fatal`] tells whether the subscription has ended.
    Error,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Create,
        Self::Update,
        Self::Enter,
        Self::Leave,
        Self::Delete,
        Self::Close,
        Self::Error,
    ];

    /// Whether events of this kind carry an object.
    pub(crate) fn has_object(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Enter | Self::Leave | Self::Delete => true,
            Self::Open | Self::Close | Self::Error => false,
        }
    }

    /// The name, as in the JS SDK: `"open"`, `"create"`, and so on.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Update => "update",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Delete => "delete",
            Self::Close => "close",
            Self::Error => "error",
        }
    }
}

/// The events of a client.
///
/// # Examples
/// ```
/// use parse_livequery::ClientEventKind;
///
/// # fn log(client: &parse_livequery::Client) {
/// for kind in ClientEventKind::ALL {
///     client.on(kind, |event| println!("{} {:?}", event.kind(), event.error()));
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ClientEventKind {
    /// The server accepted the connection. Fires again after each reconnect.
    Open,
    /// The connection was lost or closed.
    Close,
    /// Something went wrong: with the client, or with one of its subscriptions. The first attempt to connect that fails
    /// is reported here too, once until there is a connection again; the client goes on trying.
    Error,
    /// A connection could not be made or was lost: there will be another try.
    Reconnecting,
    /// The client's session has ended: the REST API no longer accepts its token, as a call of `Client::rest` or a live
    /// set has found out (feature `rest`). Told once for each token. LiveQuery itself does not tell, and goes on with
    /// what the public may read.
    SessionEnded,
}

impl ClientEventKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Close,
        Self::Error,
        Self::Reconnecting,
        Self::SessionEnded,
    ];

    /// The name: `"open"`, `"close"`, `"error"`, `"reconnecting"` or `"session_ended"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Error => "error",
            Self::Reconnecting => "reconnecting",
            Self::SessionEnded => "session_ended",
        }
    }
}

macro_rules! kind_from_name {
    ($kind:ident) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $kind {
            type Err = UnknownEvent;

            fn from_str(name: &str) -> Result<Self, UnknownEvent> {
                Self::ALL
                    .into_iter()
                    .find(|kind| kind.as_str() == name)
                    .ok_or_else(|| UnknownEvent {
                        name: name.to_owned(),
                        known: Self::ALL.map(Self::as_str).join(", "),
                    })
            }
        }

        impl TryFrom<&str> for $kind {
            type Error = UnknownEvent;

            fn try_from(name: &str) -> Result<Self, UnknownEvent> {
                name.parse()
            }
        }

        impl sealed::EventName<$kind> for $kind {
            fn kind(self) -> Result<Self, UnknownEvent> {
                Ok(self)
            }
        }

        impl sealed::EventName<$kind> for &str {
            fn kind(self) -> Result<$kind, UnknownEvent> {
                self.parse()
            }
        }

        impl sealed::EventName<$kind> for &String {
            fn kind(self) -> Result<$kind, UnknownEvent> {
                self.parse()
            }
        }
    };
}

kind_from_name!(EventKind);
kind_from_name!(ClientEventKind);

/// What names an event: its name as in the JS SDK, `"update"`, or its kind, [`EventKind::Update`]. `K` is [`EventKind`] for
/// subscriptions and [`ClientEventKind`] for clients.
///
/// This trait is sealed: it is implemented for strings and kinds, and for nothing else.
pub trait EventName<K>: sealed::EventName<K> {}

impl<K, T: sealed::EventName<K>> EventName<K> for T {}

mod sealed {
    pub trait EventName<K> {
        fn kind(self) -> Result<K, super::UnknownEvent>;
    }
}

/// The kind that a name means.
#[track_caller]
pub(crate) fn known<K>(name: impl EventName<K>) -> K {
    match name.kind() {
        Ok(kind) => kind,
        #[expect(
            clippy::panic,
            reason = "a misspelt event is a mistake in the program; it must not pass in silence"
        )]
        Err(unknown) => panic!("{unknown}"),
    }
}

/// There is no event with this name. The text lists those that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEvent {
    name: String,
    known: String,
}

impl fmt::Display for UnknownEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no event `{}`; there are: {}", self.name, self.known)
    }
}

impl std::error::Error for UnknownEvent {}

/// A stretch of time in which events may have been missed: the protocol has no replay.
///
/// Fetch again what must not be missed, after the `open` that carries the gap. `updatedAt` finds what was created or
/// changed in it; what was deleted, or no longer matches, shows only in comparison with the whole list.
///
/// # Examples
/// ```
/// # fn listen(subscription: &parse_livequery::Subscription) {
/// subscription.on_open(|gap| {
///     if let Some(gap) = gap {
///         println!("{:?} may have been missed since {:?}: {:?}", gap.duration(), gap.start(), gap.reason());
///     }
/// });
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    start: SystemTime,
    end: SystemTime,
    reason: GapReason,
}

impl Gap {
    /// The last moment at which it is certain that everything had come which the server had sent: when the client sent the
    /// last ping that was answered, or the subscription that was acknowledged, whichever was later. What came after that
    /// does not count, since more may have been on its way when the connection was lost.
    ///
    /// With a connection in use it is at most [`idle_ping`](crate::ClientBuilder::idle_ping) before the connection was
    /// lost, and the time that the answer to a ping takes.
    ///
    /// This is a time on this machine's clock, as it is set when the gap ends. The server writes `updatedAt` by its own
    /// clock and sends the event a little later, so allow for the difference when you look for what was changed since.
    /// A gateway that answers pings in the place of the server makes this time too late by what lies waiting in it.
    #[must_use]
    pub fn start(&self) -> SystemTime {
        self.start
    }

    /// When the acknowledgement of the new subscription came. Not before the [`start`](Self::start), even if the clock was
    /// set back meanwhile.
    #[must_use]
    pub fn end(&self) -> SystemTime {
        self.end
    }

    /// Why events may have been missed.
    #[must_use]
    pub fn reason(&self) -> GapReason {
        self.reason
    }

    /// How long it was, the time included in which this machine slept. A clock that was set back meanwhile changes nothing;
    /// one that was set ahead cannot be told from sleep, and makes it longer.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.end.duration_since(self.start).unwrap_or_default()
    }

    pub(crate) fn new(duration: Duration, end: SystemTime, reason: GapReason) -> Self {
        let start = end.checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            start: start.min(end),
            end,
            reason,
        }
    }
}

/// Why there is a [`Gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// The link was lost and made again.
    ConnectionLost,
    /// The server ended the subscription without being asked, and it was made again.
    EndedByServer,
    /// The query of the subscription was changed; the server drops the events between the old query and the new.
    QueryUpdated,
    /// The session token was changed, and the connection or the subscription made anew with it. Events that waited for
    /// their listeners were discarded, so fetch all anew: what may be read is another set of objects.
    SessionTokenChanged,
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionLost => "the connection was lost",
            Self::EndedByServer => "the server ended the subscription",
            Self::QueryUpdated => "the query was changed",
            Self::SessionTokenChanged => "the session token was changed",
        })
    }
}

/// An event of a client.
///
/// # Examples
/// ```
/// # fn listen(client: &parse_livequery::Client) {
/// client.on("reconnecting", |event| {
///     println!("attempt {:?} in {:?}: {:?}", event.attempt(), event.delay(), event.error());
/// });
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientEvent {
    kind: ClientEventKind,
    error: Option<Error>,
    retry: Option<(u32, Duration)>,
}

impl ClientEvent {
    /// Which event it is.
    #[must_use]
    pub fn kind(&self) -> ClientEventKind {
        self.kind
    }

    /// The error, of `error`; of `close` and `reconnecting`, why the connection was lost; of `session_ended`, what the
    /// server said.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Of `reconnecting`: which try will be the next, counted from 1 since the link was last stable.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.retry.map(|(attempt, _)| attempt)
    }

    /// Of `reconnecting`: how long the client waits before that try.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.retry.map(|(_, delay)| delay)
    }

    /// The error stands for more of them.
    pub(crate) fn add_errors(&mut self, number: u64) {
        if let Some(error) = &mut self.error {
            *error = error.clone().and_more(number);
        }
    }

    pub(crate) fn opened() -> Self {
        Self {
            kind: ClientEventKind::Open,
            error: None,
            retry: None,
        }
    }

    pub(crate) fn closed(error: Option<Error>) -> Self {
        Self {
            kind: ClientEventKind::Close,
            error,
            retry: None,
        }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self {
            kind: ClientEventKind::Error,
            error: Some(error),
            retry: None,
        }
    }

    #[cfg(feature = "rest")]
    pub(crate) fn session_ended(error: Error) -> Self {
        Self {
            kind: ClientEventKind::SessionEnded,
            error: Some(error),
            retry: None,
        }
    }

    pub(crate) fn reconnecting(error: Error, attempt: u32, delay: Duration) -> Self {
        Self {
            kind: ClientEventKind::Reconnecting,
            error: Some(error),
            retry: Some((attempt, delay)),
        }
    }
}

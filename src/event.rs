//! The arguments of listeners: the events of a subscription and of a client. It knows nothing
//! about threads and sockets.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::scan::Members;
use crate::types::{Acl, Date};

/// An event of a subscription, as a listener gets it.
///
/// It has the reading methods of its object, so that `event.get("score")` works directly. Clones are cheap:
/// they share the text from the server, which is decoded only when it is read.
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
    /// Returns which event it is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Returns the object as it is now; for `delete`, and for `leave` after the right to read it was lost, as
    /// it was last. The events `create`, `update`, `enter`, `leave` and `delete` have one.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        self.change().map(|change| &change.object)
    }

    /// Returns the object as it was before. The events `update`, `enter` and `leave` have one, from Parse
    /// Server 3.1.3 on; `enter` has none if the object became visible because of its ACL.
    #[must_use]
    pub fn original(&self) -> Option<&Object> {
        self.change().and_then(Change::original)
    }

    /// Returns the names of the fields in which [`object`](Self::object) and [`original`](Self::original)
    /// differ, including fields that were unset, but without `updatedAt`, which changes each time. Empty if
    /// there is no original.
    #[must_use]
    pub fn changed_keys(&self) -> Vec<&str> {
        match (self.object(), self.original()) {
            (Some(object), Some(original)) => object.changed_keys(original),
            _ => Vec::new(),
        }
    }

    /// Returns the value of a field of the object. `None` if there is no such field, or no object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.object()?.get(key)
    }

    /// Returns the value of a field of the object as any type that can be decoded, like [`Object::get_as`].
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the value does not fit the type, or if the event has no object.
    pub fn get_as<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.needed()?.get_as(key)
    }

    /// Returns a field of the object if it is a string.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.object()?.get_str(key)
    }

    /// Returns a field of the object if it is an integer.
    #[must_use]
    pub fn get_i64(&self, key: &str) -> Option<i64> {
        self.object()?.get_i64(key)
    }

    /// Returns a field of the object if it is a number.
    #[must_use]
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        self.object()?.get_f64(key)
    }

    /// Returns a field of the object if it is a boolean.
    #[must_use]
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.object()?.get_bool(key)
    }

    /// Returns who may read and write the object.
    #[must_use]
    pub fn acl(&self) -> Option<Acl> {
        self.object()?.acl()
    }

    /// Returns the object's id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.object()?.id()
    }

    /// Returns the object's class.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.object()?.class_name()
    }

    /// Returns when the object was created.
    #[must_use]
    pub fn created_at(&self) -> Option<Date> {
        self.object()?.created_at()
    }

    /// Returns when the object was last changed. The server may send two quick changes to one object in the
    /// wrong order; this date shows the right one.
    #[must_use]
    pub fn updated_at(&self) -> Option<Date> {
        self.object()?.updated_at()
    }

    /// Decodes the object as your own type.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the object does not fit the type, with the path of the field, or if the event
    /// has no object.
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

    /// Returns the id that the server has given to this connection.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.member("clientId")
    }

    /// Returns the installation id of this connection, as echoed by the server.
    #[must_use]
    pub fn installation_id(&self) -> Option<&str> {
        self.member("installationId")
    }

    /// Returns the error of an `error` event, or the reason of a `close` event if the connection was lost.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match &self.body {
            Body::Error(error) => Some(error),
            Body::Close(error) => error.as_ref(),
            Body::Open(_) | Body::Object(_) => None,
        }
    }

    /// Returns the gap of an `open` event: the time in which events may have been missed. `None` for the
    /// first `open`.
    #[must_use]
    pub fn gap(&self) -> Option<&Gap> {
        match &self.body {
            Body::Open(gap) => gap.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn opened(gap: Option<Gap>) -> Self {
        Self {
            kind: EventKind::Open,
            body: Body::Open(gap),
        }
    }

    /// The same `open`, in place of an earlier one that was never delivered: its gap begins with the earlier
    /// one's.
    pub(crate) fn with_earlier_gap(mut self, earlier: &Self) -> Self {
        if let (Body::Open(Some(gap)), Body::Open(earlier)) = (&mut self.body, &earlier.body) {
            match earlier {
                Some(earlier) => gap.start = gap.start.min(earlier.start),
                // The very first `open` was not delivered: the listeners cannot have missed anything.
                None => self.body = Body::Open(None),
            }
        }
        self
    }

    /// Adds to the number of errors that this one represents.
    pub(crate) fn add_errors(&mut self, number: u64) {
        if let Body::Error(error) = &mut self.body {
            *error = error.clone().and_more(number);
        }
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Object(change) => change.size(),
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

    /// The object, or an error if there is none.
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

/// The content of an event with an object.
#[derive(Clone)]
pub(crate) struct Change {
    object: Object,
    /// Where in the frame the object is as it was before.
    place_of_original: Option<Range<usize>>,
    /// That object, once it is asked for, which most listeners never do.
    original: OnceLock<Object>,
}

impl Change {
    pub(crate) fn new(object: Object, place_of_original: Option<Range<usize>>) -> Self {
        Self {
            object,
            place_of_original,
            original: OnceLock::new(),
        }
    }

    fn original(&self) -> Option<&Object> {
        let place = self.place_of_original.as_ref()?;
        Some(self.original.get_or_init(|| self.object.neighbour(place.clone())))
    }

    fn size(&self) -> usize {
        let objects = 1 + usize::from(self.place_of_original.is_some());
        self.object.frame().len() + objects * self.object.overhead()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("object", &self.object)
            .field("original", &self.original())
            .finish()
    }
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
    /// The server has acknowledged the subscription: events arrive from now on. Fires again after each
    /// reconnect.
    Open,
    /// An object that matches the query was created.
    Create,
    /// An object that matched the query was changed and still matches it.
    Update,
    /// An object that did not match the query was changed and now matches it.
    Enter,
    /// An object that matched the query was changed and no longer matches it.
    Leave,
    /// An object that matched the query was deleted.
    Delete,
    /// No more events arrive: the connection was lost (the client reconnects automatically), or the
    /// subscription or the client was closed.
    Close,
    /// Something went wrong; [`Error::is_fatal`] says whether the subscription has ended.
    Error,
}

impl EventKind {
    /// All kinds.
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

    /// Returns the name, as in the JS SDK: `"open"`, `"create"`, and so on.
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
    /// The server has accepted the connection. Fires again after each reconnect.
    Open,
    /// The connection was lost or closed.
    Close,
    /// Something went wrong with the client, or with one of its subscriptions. When the first attempt to
    /// connect fails, that is reported here too, once until there is a connection again; the client keeps
    /// trying.
    Error,
    /// A connection could not be made or was lost, and the client will try again.
    Reconnecting,
    /// The client's session has ended (feature `rest`): it has expired, or the REST API no longer accepts its
    /// token, as a call of `Client::rest` or of a live set has found out. Reported once for each token. LiveQuery itself does
    /// not report it, and continues with what is publicly readable.
    SessionEnded,
}

impl ClientEventKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Close,
        Self::Error,
        Self::Reconnecting,
        Self::SessionEnded,
    ];

    /// Returns the name: `"open"`, `"close"`, `"error"`, `"reconnecting"` or `"session_ended"`.
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

/// A name of an event: a string as in the JS SDK, `"update"`, or a kind, [`EventKind::Update`]. `K` is
/// [`EventKind`] for subscriptions and [`ClientEventKind`] for clients.
///
/// This trait is sealed: it is implemented for strings and kinds, and for nothing else.
pub trait EventName<K>: sealed::EventName<K> {}

impl<K, T: sealed::EventName<K>> EventName<K> for T {}

mod sealed {
    pub trait EventName<K> {
        fn kind(self) -> Result<K, super::UnknownEvent>;
    }
}

/// The kind with this name.
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

/// There is no event with this name. The text lists the names that exist.
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

/// A period in which events may have been missed: the protocol has no replay.
///
/// If your program must not miss anything, fetch again after the `open` that carries the gap. `updatedAt`
/// finds objects that were created or changed in it; objects that were deleted, or no longer match, show only
/// in a comparison with the whole list.
///
/// # Examples
/// ```
/// # fn listen(subscription: &parse_livequery::Subscription) {
/// subscription.on_open(|gap| {
///     if let Some(gap) = gap {
///         println!("{:?} may have been missed since {}: {}", gap.duration(), gap.start(), gap.reason());
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
    /// Returns the last moment at which everything that the server had sent is certain to have arrived: when
    /// the client sent the last ping that was answered, or the subscription that was acknowledged, whichever
    /// was later. Later messages do not count, since more may have been on their way when the connection was
    /// lost.
    ///
    /// On a connection in use, it lies before the loss of the connection by at most
    /// [`idle_ping`](crate::ClientBuilder::idle_ping), and the time that the answer to a ping takes.
    ///
    /// This is a time on this machine's clock, as it is set when the gap ends, rounded down to the millisecond. A query
    /// takes it as it is: `.greater_than_or_equal_to("updatedAt", gap.start())`. The server sets `updatedAt` from its own
    /// clock and sends the event a little later, so allow for the difference when you look for objects changed since then.
    /// If a gateway answers pings in place of the server, this time is too late by the delay of the messages queued there.
    #[must_use]
    pub fn start(&self) -> Date {
        self.start.into()
    }

    /// Returns when the acknowledgement of the new subscription arrived. Never before the
    /// [`start`](Self::start), even if the clock was set back meanwhile.
    #[must_use]
    pub fn end(&self) -> Date {
        self.end.into()
    }

    /// Returns why events may have been missed.
    #[must_use]
    pub fn reason(&self) -> GapReason {
        self.reason
    }

    /// Returns how long the gap was, including the time in which this machine slept. A clock that was set
    /// back meanwhile changes nothing; one that was set ahead cannot be distinguished from sleep, and makes
    /// the gap longer.
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
    /// The connection was lost and restored.
    ConnectionLost,
    /// The server ended the subscription without being asked, and the client restored it.
    EndedByServer,
    /// The client was [paused](crate::Client::pause) and resumed.
    Paused,
    /// The query of the subscription was changed; the server drops the events between the old query and the new.
    QueryUpdated,
    /// The session token was changed, and the connection or the subscription renewed with it. Events that
    /// waited for their listeners were discarded, so fetch everything again: the new user may read other
    /// objects.
    SessionTokenChanged,
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionLost => "the connection was lost",
            Self::EndedByServer => "the server ended the subscription",
            Self::Paused => "the client was paused",
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
    /// Returns which event it is.
    #[must_use]
    pub fn kind(&self) -> ClientEventKind {
        self.kind
    }

    /// Returns the error of `error`; for `close` and `reconnecting`, why the connection was lost; for
    /// `session_ended`, the reason.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Returns the number of the next attempt, for `reconnecting`, counted from 1 since the connection was
    /// last stable.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.retry.map(|(attempt, _)| attempt)
    }

    /// Returns how long the client waits before that attempt, for `reconnecting`.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.retry.map(|(_, delay)| delay)
    }

    /// Adds to the number of errors that this one represents.
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

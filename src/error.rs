//! The one error type of the crate: what went wrong, why, and whether anything ended because of it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::fence;
use crate::fenced::Fenced;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with its cause.
///
/// There is one type for everything, because most programs treat all errors alike: they show the error and go
/// on. To tell errors apart, call [`kind`](Self::kind); to learn whether anything ended, call
/// [`is_fatal`](Self::is_fatal). Clones are cheap and share the cause.
///
/// The text names the cause and, where there is one, the way out. It never contains a key or a session token.
///
/// # Examples
/// ```
/// use parse_livequery::{Client, ErrorKind};
///
/// let error = Client::builder("ws://localhost:1337/parse", "").build().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidSetting);
/// assert!(error.to_string().starts_with("the application id is empty"));
/// assert!(!error.is_fatal()); // nothing has ended
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Box<str>,
    code: Option<i64>,
    dropped: Option<u64>,
    fatal: bool,
    uncertain: bool,
    occurrences: u64,
    cause: Option<Cause>,
}

/// An error of another crate or of the program. Its `Display` and `Drop` may be the program's code.
#[derive(Clone)]
struct Cause {
    error: Arc<Fenced<Box<dyn StdError + Send + Sync>>>,
    text: Box<str>,
}

impl Error {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The error code of Parse Server, if the error came from there: 119 for an operation that the
    /// class-level permissions forbid, 141 for a cloud function that threw, 209 for an invalid session token,
    /// and so on.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::{Client, Query};
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # server.refuse_class("Payroll", 119, "Permission denied");
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// let payroll = client.subscribe(&Query::new("Payroll"))?;
    /// let error = payroll.wait_open(Duration::from_secs(10)).unwrap_err();
    /// assert_eq!(error.code(), Some(119));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn code(&self) -> Option<i64> {
        self.0.code
    }

    /// How many events were dropped, for an error of kind [`ErrorKind::Lagged`].
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        self.0.dropped
    }

    /// How many errors this one represents: equal ones in a row that came before the listeners could be
    /// called, and others when too many were waiting. 1 if there was just this one.
    #[must_use]
    pub fn occurrences(&self) -> u64 {
        self.0.occurrences
    }

    /// Whether the error ended the subscription or connection that it was reported on: the server refused a
    /// subscription, or permanently refused the connection. The client survives all other
    /// errors: it reconnects, and the subscription continues.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.0.fatal
    }

    /// Whether the server may have done what was asked in spite of this error: the request was sent, but the
    /// server or the connection failed before a usable answer came. Check before you repeat a `create`.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "rest")]
    /// # fn save(rest: &parse_livequery::rest::Rest) {
    /// match rest.create("Order", &serde_json::json!({"number": 7})) {
    ///     Ok(order) => println!("saved as {:?}", order.id()),
    ///     Err(error) if error.may_have_happened() => println!("look whether order 7 is there: {error}"),
    ///     Err(error) => println!("not saved: {error}"),
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.0.uncertain
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into().into_boxed_str(),
            code: None,
            dropped: None,
            fatal: false,
            uncertain: false,
            occurrences: 1,
            cause: None,
        }))
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let text =
            fence::run(|| source.to_string()).unwrap_or_else(|_| "a cause that cannot be shown".to_owned());
        let cause = Cause {
            error: Arc::new(Fenced::new(source)),
            text: text.into_boxed_str(),
        };
        Self::new(kind, message).change(|inner| inner.cause = Some(cause))
    }

    /// The error for an error message of the server.
    pub(crate) fn server(kind: ErrorKind, code: i64, message: impl Into<String>) -> Self {
        Self::new(kind, message).with_code(code)
    }

    pub(crate) fn lagged(dropped: u64) -> Self {
        Self::new(
            ErrorKind::Lagged,
            format!(
                "the listeners were too slow for the queue: {dropped} events of this subscription were dropped; \
                 refetch what must not be missed, do less in the listeners, or raise the queue's limits"
            ),
        )
        .change(|inner| inner.dropped = Some(dropped))
    }

    /// The same error, with the code that Parse Server gave.
    pub(crate) fn with_code(self, code: i64) -> Self {
        self.change(|inner| inner.code = Some(code))
    }

    /// The same error, for the first of several attempts to connect.
    pub(crate) fn while_trying(&self) -> Self {
        self.clone().change(|inner| {
            let text = format!(
                "the server cannot be reached, and the client keeps trying: {}",
                inner.message
            );
            inner.message = text.into_boxed_str();
        })
    }

    /// The same error, marked as having ended what it is reported on.
    pub(crate) fn fatal(self) -> Self {
        self.change(|inner| inner.fatal = true)
    }

    /// The same error, marked as one of an operation that may have been done nevertheless.
    #[cfg(feature = "rest")]
    pub(crate) fn uncertain(self) -> Self {
        self.change(|inner| inner.uncertain = true)
    }

    /// The same error, counted this many times more.
    pub(crate) fn and_more(self, number: u64) -> Self {
        self.change(|inner| inner.occurrences = inner.occurrences.saturating_add(number))
    }

    /// Whether the other error says the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        let cause = |inner: &Inner| inner.cause.as_ref().map(|cause| cause.text.clone());
        (a.kind, a.code, a.dropped, a.fatal, a.uncertain) == (b.kind, b.code, b.dropped, b.fatal, b.uncertain)
            && a.message == b.message
            && cause(a) == cause(b)
    }

    /// About how many bytes it occupies in memory.
    pub(crate) fn size(&self) -> usize {
        let cause = self.0.cause.as_ref().map_or(0, |cause| cause.text.len());
        size_of::<Inner>() + self.0.message.len() + cause
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(code) = self.0.code {
            write!(f, " (code {code})")?;
        }
        if let Some(cause) = &self.0.cause {
            write!(f, ": {}", cause.text)?;
        }
        if self.0.occurrences > 1 {
            write!(f, " ({} such errors)", self.0.occurrences)?;
        }
        Ok(())
    }
}

/// Shows the text, which is what `fn main() -> Result` prints; `{:#?}` shows the parts.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("message", &self.0.message);
        if let Some(code) = &self.0.code {
            debug.field("code", code);
        }
        if let Some(dropped) = &self.0.dropped {
            debug.field("dropped", dropped);
        }
        if let Some(cause) = &self.0.cause {
            debug.field("cause", &cause.text);
        }
        if self.0.uncertain {
            debug.field("may_have_happened", &true);
        }
        debug.field("fatal", &self.0.fatal).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // `Display` shows the cause as well, for the many programs that print the error alone.
        let cause = self.0.cause.as_ref()?.error.get()?;
        Some(&**cause)
    }
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`initialize`](crate::initialize) was called a second time.
    AlreadyInitialized,
    /// A blocking call was made inside a listener, where it would deadlock.
    CalledFromListener,
    /// The client or the subscription was closed.
    Closed,
    /// No TCP connection could be made.
    Connect,
    /// The connection was lost: cut, reset, closed by the server, or silent for too long.
    ConnectionLost,
    /// A value does not fit the requested type.
    Decode,
    /// The client gave up after the allowed number of failed attempts to connect in a row; the cause is the
    /// error of the last attempt.
    GaveUp,
    /// The objects of a [`LiveSet`](crate::LiveSet) could not be fetched.
    Fetch,
    /// The client was built before this process was forked, so its threads do not exist here. Build the
    /// client after the fork, for example after daemonizing.
    Forked,
    /// The server did not answer the WebSocket upgrade request with an upgrade.
    Handshake,
    /// The query cannot mean in LiveQuery what it means in `find()`, or is not a valid query at all.
    InvalidQuery,
    /// A setting of the builder is not valid.
    InvalidSetting,
    /// A value of a Parse type is out of range or malformed.
    InvalidValue,
    /// The operating system refused to create a thread or a poller.
    Io,
    /// Events were dropped because the listeners were too slow; see [`Error::dropped`].
    Lagged,
    /// A listener panicked. It stays registered, and so do all other listeners.
    ListenerPanicked,
    /// The default client was asked for before [`initialize`](crate::initialize).
    NotInitialized,
    /// The server sent something that is not a LiveQuery message.
    Protocol,
    /// The proxy between this machine and the server did not open a tunnel.
    Proxy,
    /// The server refused the connection: a key is wrong, or its `beforeConnect` hook threw.
    Refused,
    /// The name of the server could not be resolved.
    Resolve,
    /// The server reported an error for a subscription.
    Server,
    /// Something took longer than its time-out.
    Timeout,
    /// TLS with the server failed; most often, its certificate was not accepted.
    Tls,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyInitialized => "already initialized",
            Self::CalledFromListener => "called from a listener",
            Self::Closed => "closed",
            Self::Connect => "no connection",
            Self::ConnectionLost => "connection lost",
            Self::Decode => "decoding failed",
            Self::Forked => "used in a fork",
            Self::GaveUp => "gave up",
            Self::Fetch => "fetching failed",
            Self::Handshake => "handshake failed",
            Self::InvalidQuery => "invalid query",
            Self::InvalidSetting => "invalid setting",
            Self::InvalidValue => "invalid value",
            Self::Io => "operating system error",
            Self::Lagged => "events dropped",
            Self::ListenerPanicked => "listener panicked",
            Self::NotInitialized => "not initialized",
            Self::Protocol => "protocol error",
            Self::Proxy => "proxy failed",
            Self::Refused => "refused by the server",
            Self::Resolve => "name not resolved",
            Self::Server => "server error",
            Self::Timeout => "time-out",
            Self::Tls => "TLS failed",
        })
    }
}

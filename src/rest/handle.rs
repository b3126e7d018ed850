//! The handle: in whose session a call is made, when a call is repeated, and what follows when the session
//! has ended. It does not know what the calls do.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use url::Url;

use crate::delivery::shared::Shared;
use crate::driver::Network;
use crate::driver::command::Commands;
use crate::driver::token::TokenProvider;
use crate::error::{Error, ErrorKind, Result};
use crate::event::ClientEvent;
use crate::protocol::spec::Credentials;
use crate::rest::failure::Failure;
use crate::rest::http::{Body, Http, Method, Place, Request, Role};
use crate::secret::Secret;

/// The REST API of a client's server: [`Client::rest`](crate::Client::rest).
///
/// Clones are cheap, and calls may be made from any thread. See the [module](crate::rest) for threads and errors.
///
/// # Whose calls
///
/// Calls carry the client's current session token: from
/// [`ClientBuilder::session_token`](crate::ClientBuilder::session_token),
/// [`Client::set_session_token`](crate::Client::set_session_token) or a log-in. A
/// [`session_token_provider`](crate::ClientBuilder::session_token_provider), if there is one, is called
/// instead, on the calling thread if the connection has not called it before, and again when the server no
/// longer accepts the token. A log-in also causes a call of it, so it must then return the new token.
///
/// Log-ins set the client's token, with all consequences: the client reconnects, subscriptions get `close`
/// and `open`, live sets fetch again. A handle with its [own session](Self::own_session) does not change the
/// client.
///
/// When the server refuses the client's token, or the session expires, the client's listeners for
/// [`session_ended`](crate::ClientEventKind::SessionEnded) are called, once for each token. Log-ins ask the
/// server how long the session lasts; for a token from elsewhere, [`session`](Self::session) does.
#[derive(Clone)]
pub struct Rest {
    desk: Arc<Desk>,
    /// Replaces the client's session.
    own: Option<Arc<Mutex<Option<Secret>>>>,
}

/// Shared by all handles of a client. Nothing in it keeps the client alive.
struct Desk {
    /// `None` if the program makes the connections itself.
    http: Option<Http>,
    shared: Arc<Shared>,
    commands: Commands,
    provider: Option<TokenProvider>,
    has_idempotency: bool,
    /// The last token whose end was reported to the client.
    ended: Mutex<Option<Secret>>,
    expiry: Mutex<Expiry>,
}

/// When the client's session expires.
#[derive(Default)]
struct Expiry {
    session: Option<(Secret, Instant)>,
    /// The time of the scheduled check. Sessions that begin later usually end later, so one check is enough
    /// for all.
    look: Option<Instant>,
}

/// One call.
pub(super) struct Task<'a> {
    pub(super) method: Method,
    pub(super) place: Place<'a>,
    pub(super) body: Body<'a>,
    pub(super) effect: Effect,
    /// For "the server did not ...".
    pub(super) purpose: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Executing it twice is as good as once.
    Reads,
    Writes,
}

/// The session of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum With<'a> {
    /// The session of this handle.
    Session,
    /// The session of this token, without the master key.
    Token(&'a Secret),
    /// No session, and no master key.
    Nobody,
}

impl Rest {
    pub(crate) fn new(
        http: Option<Http>,
        shared: &Arc<Shared>,
        commands: &Commands,
        provider: Option<TokenProvider>,
        has_idempotency: bool,
    ) -> Self {
        Self {
            desk: Arc::new(Desk {
                http,
                shared: Arc::clone(shared),
                commands: commands.clone(),
                provider,
                has_idempotency,
                ended: Mutex::new(None),
                expiry: Mutex::default(),
            }),
            own: None,
        }
    }

    /// The HTTP path to the servers for a client with these settings, unless it makes its connections itself.
    pub(crate) fn way(
        servers: &[Url],
        credentials: &Credentials,
        network: &Network,
        timeouts: (Duration, Duration),
    ) -> Result<Option<Http>> {
        if network.connector.is_some() {
            return Ok(None);
        }
        Http::new(servers, credentials, network, timeouts).map(Some)
    }

    /// Whether the servers can be reached over HTTP.
    pub(crate) fn can_ask(&self) -> bool {
        self.desk.http.is_some()
    }

    /// Returns a handle with its own session, which is not logged in yet. Log-ins on it and its clones set
    /// its token and do not change the client's.
    ///
    /// # Examples
    /// ```
    /// # use parse_livequery::Client;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = parse_livequery::test_server::TestServer::start()?;
    /// # let client = Client::builder(server.url(), "APP_ID").build()?;
    /// # client.rest().own_session().sign_up("ann", "secret", &serde_json::json!({}))?;
    /// let ann = client.rest().own_session();
    /// ann.log_in("ann", "secret")?;
    /// assert_eq!(ann.me()?.get_str("username"), Some("ann"));
    /// assert!(client.rest().me().is_err()); // the client is still nobody
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn own_session(&self) -> Self {
        Self {
            desk: Arc::clone(&self.desk),
            own: Some(Arc::default()),
        }
    }

    /// Makes a call, and repeats it where that is safe and may help.
    pub(super) fn ask<T>(
        &self,
        task: &Task<'_>,
        with: With<'_>,
        read: impl Fn(&str) -> serde_json::Result<T>,
    ) -> Result<T> {
        self.repeat(task, with, |http, request| http.request(request, &read))
    }

    /// The same, with any use of the answer.
    pub(super) fn repeat<T>(
        &self,
        task: &Task<'_>,
        with: With<'_>,
        send: impl Fn(&Http, &Request<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        self.desk.shared.check_home()?;
        let mut token = self.token(with);
        let mut is_renewed = false;
        let is_numbered = task.effect == Effect::Writes && self.desk.has_idempotency;
        let id = is_numbered.then(uuid);
        let mut attempt = 1;
        loop {
            let failure = match self.once(task, with, token.as_ref(), id.as_deref(), &send) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.error.code() == Some(INVALID_SESSION_TOKEN) && matches!(with, With::Session) {
                let new = if is_renewed || !task.body.is_whole() {
                    None
                } else {
                    self.renewed(token.as_ref())
                };
                if new.is_some() {
                    token = new;
                    is_renewed = true;
                    continue;
                }
                self.session_ended(token.as_ref(), &failure.error);
                return Err(failure.error);
            }
            let Failure {
                error,
                is_uncertain,
                passes,
                retry_after,
                status: _,
            } = failure;
            let is_uncertain = is_uncertain && task.effect == Effect::Writes;
            let pause = retry_after.unwrap_or(FIRST_PAUSE * attempt);
            let may_help = passes && !matches!(error.kind(), ErrorKind::Tls | ErrorKind::Protocol);
            let is_safe = (!is_uncertain || id.is_some()) && task.body.is_whole();
            if attempt < ATTEMPTS && may_help && is_safe && pause <= LONGEST_PAUSE {
                thread::sleep(pause);
                attempt += 1;
                continue;
            }
            let was_done_before = attempt > 1 && error.code() == Some(DUPLICATE_REQUEST);
            return Err(if is_uncertain || was_done_before {
                error.uncertain()
            } else {
                error
            });
        }
    }

    /// Makes a call once.
    pub(super) fn once<T>(
        &self,
        task: &Task<'_>,
        with: With<'_>,
        token: Option<&Secret>,
        id: Option<&str>,
        send: impl FnOnce(&Http, &Request<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let http = self.http().map_err(Failure::lasting)?;
        let request = Request {
            method: task.method,
            place: task.place,
            body: &task.body,
            role: match with {
                With::Session => Role::Keys,
                With::Token(_) | With::Nobody => Role::User,
            },
            session_token: token.map(Secret::reveal),
            id,
            purpose: &task.purpose,
        };
        send(http, &request)
    }

    pub(super) fn http(&self) -> Result<&Http> {
        let text = "a client with `connect_with` cannot use the REST API; build another client for it";
        let http = self.desk.http.as_ref();
        http.ok_or_else(|| Error::new(ErrorKind::InvalidSetting, text))
    }

    /// The session token of this handle.
    pub(super) fn session_token(&self) -> Option<Secret> {
        match &self.own {
            Some(own) => own.lock().clone(),
            None => self.kept_session_token().or_else(|| self.provided()),
        }
    }

    /// The client's token, as far as it is known without calling the program.
    pub(super) fn kept_session_token(&self) -> Option<Secret> {
        self.desk.shared.session_token()
    }

    /// Whether its session is the client's.
    pub(super) fn is_of_client(&self) -> bool {
        self.own.is_none()
    }

    /// Uses another session token from now on.
    pub(super) fn adopt(&self, token: Option<Secret>) {
        match &self.own {
            Some(own) => *own.lock() = token,
            None => self.desk.commands.set_session_token(token),
        }
    }

    /// The server no longer accepts this token.
    pub(super) fn session_ended(&self, token: Option<&Secret>, error: &Error) {
        if let (None, Some(token)) = (&self.own, token) {
            self.desk.session_ended(token, error.clone());
        }
    }

    /// The session of this token expires after this time.
    pub(super) fn session_ends(&self, token: Secret, after: Duration) {
        // A time that no clock can show means never.
        let Some(at) = Instant::now().checked_add(after) else {
            return;
        };
        if self.own.is_some() {
            return;
        }
        self.desk.expiry.lock().session = Some((token, at));
        Desk::look_at(&self.desk, at);
    }

    fn token(&self, with: With<'_>) -> Option<Secret> {
        match with {
            With::Session => self.session_token(),
            With::Token(token) => Some(token.clone()),
            With::Nobody => None,
        }
    }

    fn provided(&self) -> Option<Secret> {
        self.desk.provider.as_ref()?.call()
    }

    /// Another token in place of one that the server no longer accepts.
    fn renewed(&self, token: Option<&Secret>) -> Option<Secret> {
        if self.own.is_some() {
            return None;
        }
        let new = self.provided().filter(|new| Some(new) != token)?;
        self.desk.shared.set_session_token(Some(new.clone()));
        Some(new)
    }
}

impl Desk {
    /// Reports to the client, once, that its session has ended.
    fn session_ended(&self, token: &Secret, error: Error) {
        let shared = &self.shared;
        let is_clients = match shared.session_token() {
            Some(current) => current == *token,
            // No connection has kept the provider's answer.
            None => self.provider.is_some(),
        };
        if !is_clients {
            return;
        }
        let mut ended = self.ended.lock();
        if ended.as_ref() == Some(token) {
            return;
        }
        *ended = Some(token.clone());
        drop(ended);
        let event = ClientEvent::session_ended(error);
        shared.post_and_wake(shared, |mailbox, limits, totals| {
            mailbox.tell(event, None, limits, totals);
        });
    }

    /// Checks at this time, or before, whether the session has ended.
    fn look_at(desk: &Arc<Self>, at: Instant) {
        let mut expiry = desk.expiry.lock();
        if expiry.look.is_some_and(|look| look <= at) {
            return;
        }
        expiry.look = Some(at);
        drop(expiry);
        let weak = Arc::downgrade(desk);
        desk.shared.call_at(at, move || {
            if let Some(desk) = weak.upgrade() {
                Self::look(&desk);
            }
        });
    }

    fn look(desk: &Arc<Self>) {
        let mut expiry = desk.expiry.lock();
        expiry.look = None;
        let Some((token, at)) = expiry.session.take() else {
            return;
        };
        if at > Instant::now() {
            expiry.session = Some((token, at));
            drop(expiry);
            Self::look_at(desk, at);
            return;
        }
        drop(expiry);
        let text = "the session has expired; log in again";
        let error = Error::server(ErrorKind::Server, INVALID_SESSION_TOKEN, text);
        desk.session_ended(&token, error);
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest")
            .field("servers", &self.desk.http)
            .field("own_session", &self.own.is_some())
            .finish()
    }
}

pub(super) fn uuid() -> String {
    let bits = rand::random::<u128>();
    // Version 4, variant 1.
    let bits = bits & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

const INVALID_SESSION_TOKEN: i64 = 209;
const DUPLICATE_REQUEST: i64 = 159;
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long a call waits for a busy server.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

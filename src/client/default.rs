//! The default client, for programs that use one server.

use parking_lot::RwLock;

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::client::subscription::Subscription;
use crate::error::{Error, ErrorKind, Result};
use crate::query::Query;

/// Many threads read it, and hardly any writes: a thread that reads while the process forks does not lock it
/// for the readers in the child.
static DEFAULT: RwLock<Option<Client>> = RwLock::new(None);

/// Builds the default client, which [`Query::subscribe`] uses. Call it once, at the start of the program.
///
/// # Errors
/// [`ErrorKind::AlreadyInitialized`] if it is called a second time, from any thread, and the errors of
/// [`ClientBuilder::build`]. In a fork of the process, the parent's default client does not count.
///
/// # Examples
/// ```no_run
/// use parse_livequery::{Client, Query, initialize};
///
/// # fn main() -> parse_livequery::Result<()> {
/// initialize(Client::builder("ws://localhost:1337/parse", "APP_ID"))?;
/// let games = Query::new("Game").subscribe()?;
/// games.on("create", |game| println!("{:?}", game.id()));
/// # Ok(())
/// # }
/// ```
pub fn initialize(builder: ClientBuilder) -> Result<()> {
    let mut default = DEFAULT.write();
    if default.as_ref().is_some_and(|client| client.shared().is_home()) {
        return Err(Error::new(
            ErrorKind::AlreadyInitialized,
            "the default client already exists; build other clients with `Client::builder`",
        ));
    }
    let former = default.replace(builder.build()?);
    drop(default);
    drop(former);
    Ok(())
}

/// Returns the default client, which all threads share.
///
/// # Errors
/// [`ErrorKind::NotInitialized`] before [`initialize`].
///
/// # Examples
/// ```
/// use parse_livequery::{Client, ErrorKind, default_client, initialize};
///
/// # fn main() -> parse_livequery::Result<()> {
/// assert_eq!(default_client().unwrap_err().kind(), ErrorKind::NotInitialized);
/// initialize(Client::builder("ws://localhost:1337/parse", "APP_ID"))?;
/// default_client()?.on("close", |_| println!("connection closed"));
/// # Ok(())
/// # }
/// ```
pub fn default_client() -> Result<Client> {
    DEFAULT.read().clone().ok_or_else(|| {
        Error::new(
            ErrorKind::NotInitialized,
            "there is no default client; call `parse_livequery::initialize` first, or subscribe with a client",
        )
    })
}

impl Query {
    /// Subscribes to the query on the default client.
    ///
    /// # Errors
    /// [`ErrorKind::NotInitialized`] before [`initialize`], and the errors of [`Client::subscribe`].
    pub fn subscribe(&self) -> Result<Subscription> {
        default_client()?.subscribe(self)
    }
}

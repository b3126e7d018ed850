//! Parse Server's REST API, beside LiveQuery: log in, save, find, store files, call functions.
//!
//! A program that listens usually also logs in, saves and finds. [`Client::rest`](crate::Client::rest)
//! returns a [`Rest`]: a blocking handle with the keys, headers, TLS, proxy, servers and session token of the
//! client. It neither needs nor opens a connection, and works beside one.
//!
//! ```
//! use parse_livequery::rest::Op;
//! use parse_livequery::test_server::TestServer;
//! use parse_livequery::{Client, Query};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TestServer::start()?; // in your program, a Parse Server
//! let client = Client::builder(server.url(), "APP_ID").build()?;
//! let rest = client.rest();
//!
//! rest.sign_up("ann", "secret", &json!({"level": 1}))?; // subscriptions are Ann's from now on
//! let game = rest.create("Game", &json!({"name": "chess", "score": 1}))?;
//! let id = game.id().unwrap_or_default();
//! rest.update("Game", id, &json!({"score": Op::increment(10), "name": Op::delete()}))?;
//! assert_eq!(rest.find(&Query::new("Game"))?[0].get_i64("score"), Some(11));
//! rest.log_out()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which thread
//!
//! Each call blocks its thread until the server has answered, at most for the
//! [`connect_timeout`](crate::ClientBuilder::connect_timeout) and a few times the
//! [`fetch_timeout`](crate::ClientBuilder::fetch_timeout). Calls from several threads run at the same time.
//! Listeners may make calls as well: the connection does not wait for them, but the client's other listeners
//! do. Calls that take long belong on your own thread. A listener may own a `Rest`: it does not keep the
//! client alive.
//!
//! # Errors
//!
//! A refusal by Parse Server is an error of kind [`Server`](crate::ErrorKind::Server) with its
//! [`code`](crate::Error::code): 101 for an object that does not exist or is not yours and for a wrong
//! password, 137 for a duplicate, 209 for a session that has ended. A server that cannot be reached is
//! reported with the same kinds as for connections. [`may_have_happened`](crate::Error::may_have_happened)
//! says whether a change may have been made nevertheless, because the server or the connection broke down
//! before the answer came.
//!
//! Calls that are safe to repeat are tried three times, on the next server if there are several: reads, and
//! all calls of which nothing was sent or that the server refused because of too many requests (HTTP 429,
//! after its `Retry-After` if that is at most 5 s). With
//! [`ClientBuilder::idempotency`](crate::ClientBuilder::idempotency) writes are repeated too.

// The modules: `handle` decides in whose session a call is made and when it is repeated; `http` makes one
// request, with `stage` to know how far it got and `failure` to say what went wrong; `tls` is the client's
// TLS for it. The calls are built on `handle`: `users`, `objects`, `files`, `batch`, `call`. `change` and
// `op` are values. None of them knows live sets, the sockets of the connection, or listeners; all are below
// `client`, which creates the handle.

mod batch;
mod call;
mod change;
mod failure;
mod files;
pub(crate) mod handle;
mod http;
mod objects;
mod op;
mod stage;
#[cfg(feature = "_tls")]
mod tls;
mod users;

pub use batch::Batch;
pub use files::Download;
pub use handle::Rest;
pub use op::Op;
pub use users::Session;

//! What the server holds: objects, connections, subscriptions. Only the values, not the operations on them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use serde_json::{Map, Value};
use tungstenite::Message;

use super::schema::Subscribe;
use super::socket::Socket;
use crate::query::matcher::Matcher;
use crate::query::ordered_json::Json;
use crate::secret::Secret;
use crate::types::Date;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Counts the changes, so that waiting threads know when to look again.
    pub(super) generation: u64,
    pub(super) refuse: bool,
    pub(super) delay: Duration,
    /// Whether a null field is missing once it is stored.
    pub(super) drops_nulls: bool,
    pub(super) classes: HashMap<String, Class>,
    /// By their tokens.
    pub(super) sessions: HashMap<String, Session>,
    /// How long a session lasts; `None` means forever.
    pub(super) session_length: Option<Duration>,
    /// By the ids of the users who have one.
    pub(super) passwords: HashMap<String, Secret>,
    /// The ids in each relation, by the class and the id of its object, and its field.
    pub(super) relations: HashMap<(String, String, String), Vec<String>>,
    /// By class and field.
    pub(super) types: HashMap<(String, String), String>,
    /// By class, for those that have some.
    pub(super) permissions: HashMap<String, Fields>,
    /// By name.
    pub(super) files: HashMap<String, StoredFile>,
    /// The fields in which no two objects of a class may have the same value.
    pub(super) unique: HashSet<(String, String)>,
    /// By number, including those that are not upgraded yet.
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) next_connection: u64,
    /// The frames of each WebSocket opened so far.
    pub(super) frames: Vec<Vec<String>>,
    pub(super) subscriptions: HashMap<String, BTreeMap<u64, Subscription>>,
    pub(super) next_subscription: u64,
    /// The number of `find()` requests so far.
    pub(super) finds: u64,
    pub(super) hooks: Hooks,
}

/// What the hooks of a real server's cloud code would throw.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) before_connect: Option<Failure>,
    pub(super) next_subscribes: VecDeque<Failure>,
    pub(super) before_subscribe: HashMap<String, Failure>,
    /// The HTTP status that each `find()` fails with.
    pub(super) finds: Option<u16>,
    /// How long the answer to each `find()` waits.
    pub(super) find_delay: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: i64,
    pub(super) message: String,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Arc<Socket>,
    pub(super) link: Option<Link>,
}

/// A file, and its type according to the user who stored it.
#[derive(Clone, Debug)]
pub(super) struct StoredFile {
    pub(super) content_type: String,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) created: Date,
    pub(super) expires: Option<Date>,
}

/// An upgraded connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) outgoing: Sender<(Instant, Message)>,
    /// Its index in [`State::frames`].
    pub(super) record: usize,
    pub(super) client: Option<Arc<ClientInfo>>,
    /// Where the subscription of a request id is: its class and number.
    pub(super) requests: HashMap<u64, (String, u64)>,
    /// Subscribes that are answered once the frames that came with them are processed.
    pub(super) pending: Vec<Subscribe>,
}

/// What a client sent in `connect`.
#[derive(Debug)]
pub(super) struct ClientInfo {
    pub(super) id: String,
    pub(super) installation_id: Option<String>,
    pub(super) session_token: Option<String>,
    pub(super) has_master_key: bool,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) connection: u64,
    pub(super) client: Arc<ClientInfo>,
    pub(super) request_id: f64,
    pub(super) condition: Json,
    pub(super) matcher: Matcher,
    pub(super) keys: Option<Vec<String>>,
    pub(super) watch: Option<Vec<String>>,
    pub(super) session_token: Option<String>,
}

pub(super) type Fields = Map<String, Value>;

/// The objects of a class.
#[derive(Debug, Default)]
pub(super) struct Class {
    pub(super) objects: HashMap<String, (u64, Arc<Fields>)>,
    pub(super) next: u64,
}

impl Class {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Fields>> {
        self.objects.get(id).map(|(_, object)| object)
    }

    /// In order of creation.
    pub(super) fn objects(&self) -> Vec<Arc<Fields>> {
        let mut objects: Vec<_> = self.objects.values().collect();
        objects.sort_by_key(|(number, _)| *number);
        objects
            .into_iter()
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }
}

/// A message without its closing brace, with its members in the order in which the real server writes them.
pub(super) fn frame_start(op: &str, client: &ClientInfo, request_id: Option<f64>) -> String {
    let mut frame = format!(r#"{{"op":"{op}","clientId":"{}""#, client.id);
    if let Some(installation_id) = &client.installation_id {
        frame.push_str(r#","installationId":"#);
        frame.push_str(&Value::from(installation_id.as_str()).to_string());
    }
    if let Some(request_id) = request_id {
        frame.push_str(r#","requestId":"#);
        frame.push_str(&number_value(request_id).to_string());
    }
    frame
}

/// A number as JavaScript writes it: whole numbers without a fraction.
pub(super) fn number_value(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is compared with what it came from"
    )]
    let whole = number as i64;
    #[expect(clippy::cast_precision_loss, reason = "this is the comparison")]
    if whole as f64 == number {
        Value::from(whole)
    } else {
        Value::from(number)
    }
}

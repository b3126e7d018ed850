//! The contents of a set, as a program keeps them from one run to the next. It knows nothing
//! about files, or about how a set continues from them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, Serializer};

use super::LiveSet;
use super::change::{Entry, Snapshot};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::query::Query;
use crate::query::order::Order;
use crate::types::Date;

impl LiveSet {
    /// Returns the contents, for [`start_from`](crate::LiveSetBuilder::start_from) in a later run of the
    /// program. `user` says whose contents they are: any text that differs between users, such as the user's
    /// id, or `""` if all users see the same objects.
    ///
    /// Returns `None` if nothing has been fetched yet, or nothing with the current session token: then keep
    /// what was saved before.
    ///
    /// # Examples
    /// Written so that a crash leaves either the old file or the new one:
    /// ```
    /// use parse_livequery::LiveSet;
    /// use std::io::Write;
    /// use std::{fs, io, path::Path};
    ///
    /// fn save(games: &LiveSet, user: &str, path: &Path) -> io::Result<()> {
    ///     let Some(saved) = games.save(user) else {
    ///         return Ok(());
    ///     };
    ///     let unfinished = path.with_extension("unfinished");
    ///     let mut file = fs::File::create(&unfinished)?;
    ///     file.write_all(&serde_json::to_vec(&saved)?)?;
    ///     file.sync_all()?;
    ///     fs::rename(&unfinished, path)
    /// }
    /// ```
    #[must_use]
    pub fn save(&self, user: &str) -> Option<Saved> {
        let keeper = &self.0.keeper;
        if !keeper.shared.is_home() {
            return None;
        }
        let (snapshot, since, query) = self.0.handles.contents(keeper)?;
        let client = self.subscription().client().clone();
        Some(Saved(Contents {
            format: FORMAT.to_owned(),
            version: VERSION,
            server: client.server(),
            class_name: query.class_name().to_owned(),
            query: query.to_json().ok()?,
            user: user.to_owned(),
            saved_at: millis(since.unwrap_or_else(SystemTime::now)),
            objects: snapshot.into_iter().collect(),
        }))
    }
}

/// The contents of a live set, with what decides whether another set may start from them: the query, the
/// server's address, the user, and the time. Created by [`LiveSet::save`].
///
/// It contains the objects as they are, but no keys and no session tokens. Anybody who can read it can read
/// the objects.
#[derive(Clone)]
pub struct Saved(Contents);

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    format: String,
    version: u64,
    server: String,
    class_name: String,
    /// As JSON.
    query: String,
    user: String,
    /// In milliseconds since 1970.
    saved_at: u64,
    objects: Vec<Object>,
}

/// The fields that all versions have.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

impl Saved {
    /// Reads contents that were written as JSON.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the file was cut off, is a different file, or was written by a later version
    /// of this library. The text says which.
    pub fn from_slice(json: &[u8]) -> Result<Self> {
        let failed = |error: serde_json::Error| {
            let text = if error.is_eof() {
                "the saved live set is cut off"
            } else {
                "the saved live set cannot be read"
            };
            Error::with_source(ErrorKind::Decode, text, error)
        };
        let head: Head = serde_json::from_slice(json).map_err(failed)?;
        if head.format != FORMAT || head.version != VERSION {
            let text = format!(
                "the saved live set is {:?} of version {}, but this library reads {FORMAT:?} of version {VERSION}",
                crate::text::excerpt(&head.format),
                head.version
            );
            return Err(Error::new(ErrorKind::Decode, text));
        }
        serde_json::from_slice(json).map(Self).map_err(failed)
    }

    /// Returns until when the contents were those of the server.
    #[must_use]
    pub fn saved_at(&self) -> Date {
        self.time().into()
    }

    fn time(&self) -> SystemTime {
        let since_1970 = Duration::from_millis(self.0.saved_at);
        SystemTime::UNIX_EPOCH
            .checked_add(since_1970)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Serialize for Saved {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saved")
            .field("class_name", &self.0.class_name)
            .field("len", &self.0.objects.len())
            .field("saved_at", &self.saved_at())
            .finish_non_exhaustive()
    }
}

/// What a set starts from.
pub(super) struct Start {
    pub(super) saved: Saved,
    pub(super) user: String,
    pub(super) max_age: Duration,
}

impl Start {
    /// The objects to show, and since when they may be out of date.
    ///
    /// # Errors
    ///
    /// The reason why they must not be shown.
    pub(super) fn entries(
        self,
        client: &Client,
        query: &Query,
        now: SystemTime,
    ) -> Result<(Vec<Arc<Entry>>, SystemTime)> {
        let saved = &self.saved.0;
        let refused = |text: String| Err(Error::new(ErrorKind::InvalidValue, text));
        let json = query.to_json()?;
        if saved.class_name != query.class_name() || saved.query != json {
            return refused(format!(
                "the saved live set is not used: it belongs to another query ({} {})",
                saved.class_name, saved.query
            ));
        }
        if saved.server != client.server() {
            let server = &saved.server;
            return refused(format!(
                "the saved live set is not used: it belongs to another server ({server})"
            ));
        }
        if saved.user != self.user {
            return refused("the saved live set is not used: it belongs to another user".to_owned());
        }
        // If the clock was set back, the age is unknown.
        let since = self.saved.time().min(now);
        let age = now.duration_since(since).unwrap_or_default();
        if age > self.max_age {
            return refused(format!(
                "the saved live set is not used: it is {age:.0?} old, and at most {:.0?} are allowed",
                self.max_age
            ));
        }
        let order = Order::new(query.window().order);
        let entry = |object: &Object| Entry::new(&order, object, query.class_name());
        let entries: Vec<_> = saved.objects.iter().filter_map(entry).collect();
        let ids: std::collections::HashSet<_> = entries.iter().map(|entry| entry.key.id()).collect();
        if ids.len() < saved.objects.len() {
            return refused(
                "the saved live set is not used: it has objects without an id, of another class, or twice"
                    .to_owned(),
            );
        }
        drop(ids);
        Ok((entries, since))
    }
}

/// Contents that may be saved: with the time since when they may be out of date, and their query.
pub(super) type Savable = (Snapshot, Option<SystemTime>, Query);

fn millis(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

const FORMAT: &str = "parse-livequery live set";
const VERSION: u64 = 1;

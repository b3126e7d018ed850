//! What the window shows besides the games themselves: what happened to them, and the state of the
//! connection. Only listeners change it; it knows nothing about windows and servers.

use std::collections::HashMap;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parse_livequery::{Change, ClientEvent, ClientEventKind, Date, Error, ErrorKind, Object, Snapshot};

pub struct Games {
    pub link: Link,
    /// The line at the bottom of the window.
    pub notice: String,
    /// The last failure.
    pub banner: Option<Banner>,
    /// The list has come from the server at least once.
    pub is_filled: bool,
    /// Why there is no connection, as last reported.
    outage: Option<String>,
    /// How many listeners have run, and how many of them on a thread other than the window's.
    pub listeners: u64,
    pub elsewhere: u64,
    /// By the ids of the games.
    flashes: HashMap<String, Flash>,
    /// The games that are gone and still flash, in order, each with its position in the list that it was
    /// removed from.
    gone: Vec<(usize, Object)>,
    thread: ThreadId,
}

/// What happened to a game last, and when.
pub type Flash = (What, Instant);

#[derive(Clone, Copy, PartialEq)]
pub enum What {
    Created,
    Changed,
    Deleted,
}

pub enum Link {
    Connecting,
    Connected,
    Waiting { attempt: u32, until: Instant },
    Ended,
}

pub struct Banner {
    pub text: String,
    ends: Ends,
}

/// When a banner ends that is not dismissed.
#[derive(PartialEq)]
enum Ends {
    Never,
    OnOpen,
    OnReady,
}

impl Games {
    /// For a window on this thread.
    pub fn new() -> Self {
        Self {
            link: Link::Connecting,
            notice: String::new(),
            banner: None,
            is_filled: false,
            outage: None,
            listeners: 0,
            elsewhere: 0,
            flashes: HashMap::new(),
            gone: Vec::new(),
            thread: thread::current().id(),
        }
    }

    /// The listener for changes.
    pub fn change(&mut self, change: &Change) {
        self.count();
        let what = match change {
            Change::Inserted { .. } => What::Created,
            Change::Updated { .. } | Change::Moved { .. } => What::Changed,
            Change::Removed { index, object, .. } => {
                self.gone.push((*index, object.clone()));
                What::Deleted
            }
            // If everything is new, nothing is highlighted.
            _ => {
                self.flashes.clear();
                self.gone.clear();
                return;
            }
        };
        let Some(id) = change.object().and_then(Object::id) else {
            return;
        };
        if what != What::Deleted {
            // The game is back.
            self.gone.retain(|(_, game)| game.id() != Some(id));
        }
        self.flashes.insert(id.to_owned(), (what, Instant::now()));
    }

    /// The listener for a complete list.
    pub fn ready(&mut self) {
        self.count();
        self.notice = "following the games".to_owned();
        self.is_filled = true;
        self.banner.take_if(|banner| banner.ends == Ends::OnReady);
    }

    /// The listener for a list that may be out of date.
    pub fn stale(&mut self, since: Date) {
        self.count();
        self.notice = format!("may be old since {since}");
    }

    /// The listener of the client, which is also called for the errors of the set.
    pub fn client_event(&mut self, event: &ClientEvent) {
        self.count();
        match event.kind() {
            ClientEventKind::Open => {
                self.link = Link::Connected;
                self.outage = None;
                self.banner.take_if(|banner| banner.ends == Ends::OnOpen);
            }
            ClientEventKind::Close => self.link = Link::Ended,
            ClientEventKind::Reconnecting => {
                self.link = Link::Waiting {
                    attempt: event.attempt().unwrap_or_default(),
                    until: Instant::now() + event.delay().unwrap_or_default(),
                };
            }
            _ => {}
        }
        let Some(error) = event.error() else { return };
        if error.is_fatal() {
            self.link = Link::Ended;
        }
        if event.kind() == ClientEventKind::Reconnecting {
            // Each attempt fails for the same reason: after it was dismissed, do not show it again.
            let reason = error.to_string();
            if self.outage.as_ref() == Some(&reason) {
                return;
            }
            self.outage = Some(reason);
        }
        self.banner = Some(Banner {
            text: error.to_string(),
            ends: match event.kind() {
                ClientEventKind::Reconnecting => Ends::OnOpen,
                _ if error.kind() == ErrorKind::Fetch => Ends::OnReady,
                _ => Ends::Never,
            },
        });
    }

    /// A command of the user has failed.
    pub fn fail(&mut self, error: &Error) {
        self.banner = Some(Banner {
            text: error.to_string(),
            ends: Ends::Never,
        });
    }

    /// The games in order; those that are gone stay at their positions while they flash.
    pub fn rows<'a>(&'a self, set: &'a Snapshot) -> Vec<(&'a Object, Option<Flash>)> {
        let mut games: Vec<_> = set.iter().collect();
        // The last one removed comes back first, so that each position refers to the list that it was removed
        // from.
        for (index, game) in self.gone.iter().rev() {
            games.insert((*index).min(games.len()), game);
        }
        let flash = |game: &Object| self.flashes.get(game.id()?).copied();
        games.into_iter().map(|game| (game, flash(game))).collect()
    }

    /// Forgets what has flashed long enough. Returns whether anything still flashes.
    pub fn fade(&mut self) -> bool {
        self.flashes.retain(|_, (_, since)| since.elapsed() <= FLASH);
        let flashes = &self.flashes;
        self.gone
            .retain(|(_, game)| game.id().is_some_and(|id| flashes.contains_key(id)));
        !self.flashes.is_empty()
    }

    fn count(&mut self) {
        self.listeners += 1;
        if thread::current().id() != self.thread {
            self.elsewhere += 1;
        }
    }
}

/// How long a row shows that it has changed.
pub const FLASH: Duration = Duration::from_millis(1500);

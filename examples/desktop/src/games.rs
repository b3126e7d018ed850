//! What the window shows beside the games themselves: what happened to them, and where the connection stands. Changed by
//! listeners alone; knows nothing of windows and servers.

use std::collections::HashMap;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parse_livequery::{Change, ClientEvent, ClientEventKind, Date, Error, ErrorKind, Object, Snapshot};

pub struct Games {
    pub link: Link,
    /// What is worth a line at the foot of the window.
    pub notice: String,
    /// What has gone wrong last.
    pub banner: Option<Banner>,
    /// The list came from the server, once at least.
    pub is_filled: bool,
    /// Why there is no connection, as was told last.
    outage: Option<String>,
    /// How many listeners have run, and how many of them on another thread than that of the window.
    pub listeners: u64,
    pub elsewhere: u64,
    /// By the ids of the games.
    flashes: HashMap<String, Flash>,
    /// The games that are gone and flash still, in that order, each with its place in the list that it went from.
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

/// When a banner ends that nobody dismisses.
#[derive(PartialEq)]
enum Ends {
    Never,
    OnOpen,
    OnReady,
}

impl Games {
    /// For a window that has this thread.
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
            // Where all is new, nothing stands out.
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
            // It is back.
            self.gone.retain(|(_, game)| game.id() != Some(id));
        }
        self.flashes.insert(id.to_owned(), (what, Instant::now()));
    }

    /// The listener for the list being complete.
    pub fn ready(&mut self) {
        self.count();
        self.notice = "following the games".to_owned();
        self.is_filled = true;
        self.banner.take_if(|banner| banner.ends == Ends::OnReady);
    }

    /// The listener for the list being old, perhaps.
    pub fn stale(&mut self, since: Date) {
        self.count();
        self.notice = format!("may be old since {since}");
    }

    /// The listener of the client, which hears of the errors of the set as well.
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
            // Each attempt fails for the same reason: who has read it does not read it again.
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

    /// Something that the user has asked for was not done.
    pub fn fail(&mut self, error: &Error) {
        self.banner = Some(Banner {
            text: error.to_string(),
            ends: Ends::Never,
        });
    }

    /// The games in their order, those that are gone where they were for as long as they flash.
    pub fn rows<'a>(&'a self, set: &'a Snapshot) -> Vec<(&'a Object, Option<Flash>)> {
        let mut games: Vec<_> = set.iter().collect();
        // The last one that went comes back first, so that each place is one in the list that it went from.
        for (index, game) in self.gone.iter().rev() {
            games.insert((*index).min(games.len()), game);
        }
        let flash = |game: &Object| self.flashes.get(game.id()?).copied();
        games.into_iter().map(|game| (game, flash(game))).collect()
    }

    /// Forgets what has flashed long enough. Whether anything flashes still.
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

//! What the window shows: the games, and where the connection stands. Changed by listeners alone; knows nothing of
//! windows and servers.

use std::collections::BTreeMap;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parse_livequery::{ClientEvent, ClientEventKind, Event, EventKind, Object};

pub struct Games {
    pub games: BTreeMap<String, Game>,
    pub link: Link,
    /// What is worth a line at the foot of the window.
    pub notice: String,
    /// The list is not what the server has: it is to be fetched.
    pub stale: bool,
    /// How many listeners have run, and how many of them on another thread than that of the window.
    pub listeners: u64,
    pub elsewhere: u64,
    thread: ThreadId,
}

pub struct Game {
    pub name: String,
    pub score: f64,
    pub created: String,
    /// What happened to it last, and when.
    pub flash: Option<(Change, Instant)>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Change {
    Created,
    Changed,
    Deleted,
}

pub enum Link {
    Connecting,
    Connected,
    Waiting {
        attempt: u32,
        until: Instant,
        why: String,
    },
    Ended(String),
}

impl Games {
    /// An empty list, of a window that has this thread.
    pub fn new() -> Self {
        Self {
            games: BTreeMap::new(),
            link: Link::Connecting,
            notice: String::new(),
            stale: false,
            listeners: 0,
            elsewhere: 0,
            thread: thread::current().id(),
        }
    }

    /// The listener of the subscription.
    pub fn event(&mut self, event: &Event) {
        self.count();
        match (event.kind(), event.object()) {
            (EventKind::Create | EventKind::Enter, Some(object)) => self.put(object, Some(Change::Created)),
            (EventKind::Update, Some(object)) => self.put(object, Some(Change::Changed)),
            (EventKind::Delete | EventKind::Leave, Some(object)) => {
                if let Some(game) = object.id().and_then(|id| self.games.get_mut(id)) {
                    game.flash = Some((Change::Deleted, Instant::now()));
                }
            }
            (EventKind::Open, _) => {
                self.stale = true;
                self.notice = match event.gap() {
                    None => "following the games".to_owned(),
                    Some(gap) => format!("{:.1?} may have been missed", gap.duration()),
                };
            }
            _ => {}
        }
    }

    /// The listener of the client.
    pub fn client_event(&mut self, event: &ClientEvent) {
        self.count();
        let why = event.error().map(ToString::to_string).unwrap_or_default();
        match event.kind() {
            ClientEventKind::Open => self.link = Link::Connected,
            ClientEventKind::Close => self.link = Link::Ended(why),
            ClientEventKind::Reconnecting => {
                self.link = Link::Waiting {
                    attempt: event.attempt().unwrap_or_default(),
                    until: Instant::now() + event.delay().unwrap_or_default(),
                    why,
                };
            }
            _ if event.error().is_some_and(parse_livequery::Error::is_fatal) => self.link = Link::Ended(why),
            _ => self.notice = why,
        }
    }

    /// Takes a list that was fetched in place of the present one.
    pub fn replace(&mut self, objects: impl IntoIterator<Item = Object>) {
        let before = std::mem::take(&mut self.games);
        for object in objects {
            self.put(&object, None);
        }
        for (id, game) in &mut self.games {
            game.flash = match before.get(id) {
                None => Some((Change::Created, Instant::now())),
                Some(old) if old.name != game.name || old.score != game.score => {
                    Some((Change::Changed, Instant::now()))
                }
                Some(old) => old.flash,
            };
        }
        self.stale = false;
    }

    /// Forgets what has flashed long enough. Whether anything flashes still.
    pub fn fade(&mut self) -> bool {
        let over = |flash: &Option<(Change, Instant)>| flash.is_none_or(|(_, since)| since.elapsed() > FLASH);
        self.games
            .retain(|_, game| !(over(&game.flash) && matches!(game.flash, Some((Change::Deleted, _)))));
        for game in self.games.values_mut().filter(|game| over(&game.flash)) {
            game.flash = None;
        }
        self.games.values().any(|game| game.flash.is_some())
    }

    fn put(&mut self, object: &Object, change: Option<Change>) {
        let Some(id) = object.id() else { return };
        let game = Game {
            name: object.get_str("name").unwrap_or("?").to_owned(),
            score: object.get_f64("score").unwrap_or_default(),
            created: object
                .created_at()
                .map(|date| date.to_string())
                .unwrap_or_default(),
            flash: change.map(|change| (change, Instant::now())),
        };
        self.games.insert(id.to_owned(), game);
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

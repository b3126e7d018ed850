//! The server's side of a crowd: it numbers the events of each acknowledged subscription, and knows what it wrote when
//! and on which connection. It knows nothing of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use parking_lot::Mutex;
use parse_livequery::Object;
use serde_json::{Value, json};

use crate::support::*;

/// What an event says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The requestId.
    pub id: u64,
    pub conn: u64,
    /// How often the subscription was acknowledged on this connection.
    pub ack: u64,
    /// Counts the events since that.
    pub number: u64,
    pub client_token: u64,
    pub own_token: u64,
    /// When it was written, by the server's clock.
    pub at: SystemTime,
}

impl Stamp {
    pub fn of(object: &Object) -> Self {
        let number = |name| object.get(name).and_then(Value::as_u64).unwrap_or_default();
        Self {
            id: number("id"),
            conn: number("conn"),
            ack: number("ack"),
            number: number("number"),
            client_token: number("clientToken"),
            own_token: number("ownToken"),
            at: time_of(object),
        }
    }

    /// Whether `next` is the event after the one with the number `last` of the same acknowledgement.
    pub fn follows_up_to(&self, last: u64, next: &Self) -> bool {
        *next
            == Self {
                number: last + 1,
                at: next.at,
                ..*self
            }
    }
}

/// What the server was told to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub marker: u64,
    pub own_token: u64,
    pub client_token: u64,
}

/// A query with this marker is refused.
pub const REFUSED: u64 = 1_000_000;

#[derive(Debug, Default)]
pub struct Feed {
    books: Mutex<BTreeMap<usize, Arc<Mutex<Book>>>>,
    seed: Mutex<Rng>,
}

/// What is going on on one connection. Locked while it is answered or written to, so that what is in the book is what
/// is on the wire, in this order.
#[derive(Debug, Default)]
struct Book {
    client_token: u64,
    active: BTreeSet<u64>,
    acks: BTreeMap<u64, Vec<Ack>>,
    /// The subscriptions whose last burst is being written.
    unfinished: Vec<u64>,
    rng: Rng,
}

#[derive(Debug)]
struct Ack {
    asked: Asked,
    written: u64,
    bursts: Vec<Burst>,
}

/// Events that were written together.
#[derive(Debug)]
struct Burst {
    first: u64,
    began: SystemTime,
    /// `None` while it is being written.
    ended: Option<SystemTime>,
}

impl Feed {
    /// Takes over the subscriptions of the server.
    pub fn over(server: &Server, rng: Rng) -> Arc<Self> {
        let feed = Arc::new(Self {
            books: Mutex::default(),
            seed: Mutex::new(rng),
        });
        let hook = Arc::clone(&feed);
        server.on_frame(move |conn, frame| hook.answer(conn, frame));
        feed
    }

    /// Sends events to all, some more and some less.
    pub fn burst(&self, server: &Server) {
        for conn in server.open_conns() {
            let book = self.book(&conn);
            let mut book = book.lock();
            let book = &mut *book;
            let mut bytes = vec![];
            for id in book.active.clone() {
                let count = match book.rng.u32(0..400) {
                    0 => 150,
                    1..=100 => 1,
                    101..=120 => 5,
                    _ => 0,
                };
                bytes.extend(book.events(&conn, id, count));
            }
            conn.send_raw(&bytes);
            book.written();
        }
    }

    /// How many events were written for the acknowledgement of this one.
    pub fn written(&self, stamp: &Stamp) -> u64 {
        self.with_ack(stamp, |ack| ack.written)
    }

    /// How many events were written for a subscription behind `last`, and before the acknowledgement of `next`, at times
    /// that do not pass: from when the writing began until it was done.
    pub fn count_between(
        &self,
        last: &Stamp,
        next: &Stamp,
        passes: impl Fn(RangeInclusive<SystemTime>) -> bool,
    ) -> u64 {
        let books: Vec<_> = self
            .books
            .lock()
            .iter()
            .map(|(at, book)| (*at as u64, Arc::clone(book)))
            .collect();
        let mut count = 0;
        for (conn, book) in books {
            if !(last.conn..=next.conn).contains(&conn) {
                continue;
            }
            let book = book.lock();
            let acks = book.acks.get(&last.id).map_or(&[][..], |acks| acks);
            for (number, ack) in (1..).zip(acks) {
                let at = (conn, number);
                if at < (last.conn, last.ack) || at >= (next.conn, next.ack) {
                    continue;
                }
                let known = if at == (last.conn, last.ack) {
                    last.number
                } else {
                    0
                };
                let ends = ack
                    .bursts
                    .iter()
                    .skip(1)
                    .map(|burst| burst.first)
                    .chain([ack.written + 1]);
                for (burst, end) in ack.bursts.iter().zip(ends) {
                    let ended = burst.ended.unwrap_or_else(SystemTime::now);
                    if !passes(burst.began..=ended) {
                        count += end.saturating_sub(burst.first.max(known + 1));
                    }
                }
            }
        }
        count
    }

    /// What the connection of this number serves for a subscription, and how often it was acknowledged.
    pub fn serves(&self, conn: usize, id: u64) -> Option<(u64, Asked)> {
        let book = self.books.lock().get(&conn)?.clone();
        let book = book.lock();
        let acks = book.acks.get(&id).filter(|_| book.active.contains(&id))?;
        Some((acks.len() as u64, acks.last()?.asked))
    }

    /// The subscriptions that the connection of this number serves.
    pub fn served(&self, conn: usize) -> BTreeSet<u64> {
        let book = self.books.lock().get(&conn).cloned();
        book.map(|book| book.lock().active.clone()).unwrap_or_default()
    }

    /// How many events were written in all.
    pub fn total(&self) -> u64 {
        let books: Vec<_> = self.books.lock().values().cloned().collect();
        let of_book = |book: &Arc<Mutex<Book>>| {
            let book = book.lock();
            book.acks.values().flatten().map(|ack| ack.written).sum::<u64>()
        };
        books.iter().map(of_book).sum()
    }

    fn with_ack<T: Default>(&self, stamp: &Stamp, look: impl FnOnce(&Ack) -> T) -> T {
        let conn = usize::try_from(stamp.conn).expect("a number of a connection");
        let Some(book) = self.books.lock().get(&conn).cloned() else {
            return T::default();
        };
        let book = book.lock();
        let at = usize::try_from(stamp.ack).expect("a small number").checked_sub(1);
        let ack = at.and_then(|at| book.acks.get(&stamp.id)?.get(at));
        ack.map(look).unwrap_or_default()
    }

    fn book(&self, conn: &Conn) -> Arc<Mutex<Book>> {
        let mut books = self.books.lock();
        let book = books.entry(conn.number()).or_insert_with(|| {
            let rng = self.seed.lock().fork();
            Arc::new(Mutex::new(Book {
                rng,
                ..Book::default()
            }))
        });
        Arc::clone(book)
    }

    fn answer(&self, conn: &Conn, frame: &Value) -> Then {
        let book = self.book(conn);
        let mut book = book.lock();
        let op = frame["op"].as_str().unwrap_or_default();
        if op == "connect" {
            book.client_token = token(&frame["sessionToken"], 'c').unwrap_or_default();
            return Then::Default;
        }
        if book.rng.u8(..) < 32 {
            // The server is not always quick.
            let delay = Duration::from_millis(book.rng.u64(0..15));
            drop(book);
            thread::sleep(delay);
            return self.answer_now(conn, frame, op);
        }
        drop(book);
        self.answer_now(conn, frame, op)
    }

    fn answer_now(&self, conn: &Conn, frame: &Value, op: &str) -> Then {
        let id = frame["requestId"].as_u64().expect("a requestId");
        let book = self.book(conn);
        let mut book = book.lock();
        book.active.remove(&id);
        if op == "unsubscribe" {
            conn.answer(frame);
            return Then::Handled;
        }
        let marker = marker_of(&frame["query"]["where"]).expect("a marker");
        if marker == REFUSED {
            conn.forget_subscription(id);
            conn.error(119, "this query is refused", false, Some(id));
            return Then::Handled;
        }
        let asked = Asked {
            marker,
            own_token: token(&frame["sessionToken"], 's').unwrap_or_default(),
            client_token: book.client_token,
        };
        book.active.insert(id);
        book.acks.entry(id).or_default().push(Ack {
            asked,
            written: 0,
            bursts: vec![],
        });
        conn.answer(frame);
        // The first one follows at once, so that its acknowledgement is known.
        let bytes = book.events(conn, id, 1);
        conn.send_raw(&bytes);
        book.written();
        Then::Handled
    }
}

impl Book {
    fn events(&mut self, conn: &Conn, id: u64, count: u64) -> Vec<u8> {
        let Some(acks) = self.acks.get_mut(&id) else {
            return vec![];
        };
        let number_of_ack = acks.len();
        let Some(ack) = acks.last_mut().filter(|_| count > 0) else {
            return vec![];
        };
        let now = SystemTime::now();
        ack.bursts.push(Burst {
            first: ack.written + 1,
            began: now,
            ended: None,
        });
        self.unfinished.push(id);
        let mut messages = vec![];
        for _ in 0..count {
            ack.written += 1;
            let event = object(
                "Chaos",
                &format!("o{id}"),
                json!({
                    "marker": ack.asked.marker,
                    "id": id,
                    "conn": conn.number(),
                    "ack": number_of_ack,
                    "number": ack.written,
                    "clientToken": ack.asked.client_token,
                    "ownToken": ack.asked.own_token,
                    "at": micros(now),
                }),
            );
            let op = ["create", "update", "enter", "leave", "delete"][self.rng.usize(0..5)];
            let original = ["update", "enter", "leave"].contains(&op).then(|| event.clone());
            messages.push(conn.event_message(op, id, event, original));
        }
        Conn::frames_of(&messages)
    }

    /// What `events` gave has been written.
    fn written(&mut self) {
        let now = SystemTime::now();
        for id in self.unfinished.drain(..) {
            let ack = self.acks.get_mut(&id).and_then(|acks| acks.last_mut());
            if let Some(burst) = ack.and_then(|ack| ack.bursts.last_mut()) {
                burst.ended = Some(now);
            }
        }
    }
}

/// What an event carries as the time when it was written.
pub fn micros(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock that was set");
    u64::try_from(since.as_micros()).expect("a time of these centuries")
}

/// The time when the server wrote the event of this object.
pub fn time_of(object: &Object) -> SystemTime {
    let micros = object.get("at").and_then(Value::as_u64).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// The number in a session token of the client (`c`) or of a subscription (`s`).
fn token(token: &Value, whose: char) -> Option<u64> {
    token.as_str()?.strip_prefix(whose)?.parse().ok()
}

/// The number that the query asks for, however it is spelled.
fn marker_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::Array(values) => values.iter().find_map(marker_of),
        Value::Object(members) => members.values().find_map(marker_of),
        _ => None,
    }
}

//! A peer that stops reading for a while, and goes on writing. The client takes that for a lost link, says so, does not
//! grow by what it cannot send, and is back with all it is asked for when the peer reads again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind as IoErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use parse_livequery::{ClientEvent, ErrorKind, Query, Subscription};
use serde_json::{Value, json};
use socket2::SockRef;
use tungstenite::{Message, WebSocket};

use super::Part;
use crate::harness::*;
use crate::hostile::Peer;
use crate::support::*;

pub fn play(mut part: Part) -> Result<String, String> {
    let ears = Arc::new(Ears::default());
    let of_peer = Arc::clone(&ears);
    let peer = Peer::new(move |_, stream| of_peer.serve(stream.tcp()));
    let client = builder(&peer.url())
        .idle_ping(ms(500))
        .pong_timeout(PATIENCE)
        .build()
        .unwrap();
    let reasons = Arc::<Mutex<Vec<_>>>::default();
    let (log, heard) = (Arc::clone(&part.log), Arc::clone(&reasons));
    client.on("reconnecting", move |event: &ClientEvent| {
        log.add(format!("reconnecting: {:?}", event.error()));
        heard.lock().extend(event.error().cloned());
    });
    let subscriptions: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|_| client.subscribe(&query(0)).unwrap())
        .collect();
    let (mut turns, mut most, mut marker) = (0, 0, 0);
    while turns == 0 || part.goes_on() {
        ears.wait_served(&subscriptions, marker)?;
        thread::park_timeout(ms(part.rng.u64(0..500)));
        reasons.lock().clear();
        let before = resident_bytes();
        ears.are_closed.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + MINUTE;
        // All the time there is more to say.
        while reasons.lock().is_empty() {
            if Instant::now() > deadline {
                return Err("a peer that reads nothing is not noticed".to_owned());
            }
            marker += 1;
            for subscription in &subscriptions {
                subscription.update(&query(marker)).unwrap();
            }
            thread::park_timeout(ms(20));
        }
        let grown = before.zip(resident_bytes());
        let grown = grown.map_or(0, |(before, after)| after.saturating_sub(before));
        most = most.max(grown);
        if grown > MOST_GROWTH {
            return Err(format!("grown by {grown} bytes before a peer that reads nothing"));
        }
        // For a while nobody hears that it is back, either.
        thread::park_timeout(ms(part.rng.u64(0..500)));
        ears.are_closed.store(false, Ordering::SeqCst);
        let reasons = std::mem::take(&mut *reasons.lock());
        let says_so = |error: &parse_livequery::Error| {
            error.kind() == ErrorKind::Timeout && error.to_string().contains("read nothing")
        };
        if !reasons.first().is_some_and(says_so) {
            return Err(format!("the link was lost for another reason: {reasons:?}"));
        }
        turns += 1;
    }
    ears.wait_served(&subscriptions, marker)?;
    let events = ears.events.load(Ordering::SeqCst);
    if subscriptions
        .iter()
        .any(|subscription| subscription.stats().events.total() == 0)
    {
        return Err(format!(
            "{events} events were written, and a subscription got none"
        ));
    }
    client.close();
    Ok(format!(
        "{turns} times deaf, {events} events meanwhile, grown by {} kB at most",
        most >> 10
    ))
}

/// What is in front of the number of a query.
const MARKER: &str = "number ";
/// Together they ask for more than the kernel takes.
const SUBSCRIPTIONS: usize = 20;
const QUERY_BYTES: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(3);
/// Of the whole process, in which others are at work. What is queued once for each subscription is a tenth of it.
const MOST_GROWTH: u64 = 96 << 20;

fn query(marker: u64) -> Query {
    let long = "x".repeat(QUERY_BYTES);
    Query::new("Deaf").equal_to("long", format!("{MARKER}{marker}:{long}"))
}

/// Of the peer.
#[derive(Default)]
struct Ears {
    are_closed: AtomicBool,
    /// The marker that each subscription was acknowledged with, on the connection that is open.
    served: Mutex<BTreeMap<u64, u64>>,
    events: AtomicU64,
}

impl Ears {
    /// Writes an event to each subscription every few milliseconds, and listens in between or not.
    fn serve(&self, stream: &TcpStream) {
        SockRef::from(stream).set_recv_buffer_size(64 * 1024).unwrap();
        stream.set_read_timeout(None).unwrap();
        stream.set_write_timeout(None).unwrap();
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        stream.set_read_timeout(Some(ms(5))).unwrap();
        self.served.lock().clear();
        let mut asked = BTreeSet::new();
        let mut next_event = Instant::now();
        loop {
            if next_event <= Instant::now() {
                next_event = Instant::now() + ms(20);
                for id in &asked {
                    let event = json!({
                        "op": "create", "clientId": "deaf", "requestId": id,
                        "object": object("Deaf", "a", json!({})),
                    });
                    if say(&mut socket, &event).is_none() {
                        return;
                    }
                    self.events.fetch_add(1, Ordering::SeqCst);
                }
            }
            if self.are_closed.load(Ordering::SeqCst) {
                thread::park_timeout(ms(5));
                continue;
            }
            let text = match socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::TimedOut) =>
                {
                    continue;
                }
                Err(_) => return,
            };
            let answer = match number_behind(&text, "\"requestId\":") {
                None => json!({ "op": "connected", "clientId": "deaf" }),
                Some(id) => {
                    let marker = number_behind(&text, MARKER).expect("a marker");
                    asked.insert(id);
                    self.served.lock().insert(id, marker);
                    json!({ "op": "subscribed", "clientId": "deaf", "requestId": id })
                }
            };
            if say(&mut socket, &answer).is_none() {
                return;
            }
        }
    }

    /// Waits until the server serves this to all of them, and they know.
    fn wait_served(&self, subscriptions: &[Subscription], marker: u64) -> Result<(), String> {
        let deadline = Instant::now() + MINUTE;
        for subscription in subscriptions {
            let is_served = || {
                let served = self.served.lock().get(&subscription.id()).copied();
                served == Some(marker) && subscription.wait_open(ms(0)).is_ok()
            };
            while !is_served() {
                if Instant::now() > deadline {
                    let served = self.served.lock().clone();
                    return Err(format!("wanted {marker}, served {served:?}"));
                }
                thread::park_timeout(ms(5));
            }
        }
        Ok(())
    }
}

/// To read all of a long query as JSON would take the peer too long.
fn number_behind(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// `None` once the client is gone.
fn say(socket: &mut WebSocket<&TcpStream>, message: &Value) -> Option<()> {
    socket.send(Message::text(message.to_string())).ok()
}

//! What the listeners of one subscription were told, and whether a user may be told that. It knows events and what
//! the server wrote; nothing of who did what to the client.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use parse_livequery::{Date, Event, EventKind, Gap, GapReason};

use super::feed::{Feed, Stamp};
use super::log::Log;

/// The life of one subscription.
#[derive(Debug)]
pub struct Story {
    log: Arc<Log>,
    id: AtomicU64,
    /// `unsubscribe`, `close` of the client or the last drop has returned.
    ended: AtomicBool,
    /// The session tokens that it may be given events of: this one of the subscription, and this one of the client, or
    /// later ones.
    own_token: AtomicU64,
    client_token: Arc<TokenFloor>,
    told: Mutex<Told>,
}

/// The client's session token as of the last `set_session_token` that has returned.
#[derive(Debug, Default)]
pub struct TokenFloor {
    number: AtomicU64,
    /// One call may have been running when `set_session_token` returned.
    stale: Mutex<HashMap<u64, usize>>,
}

impl TokenFloor {
    pub fn raise(&self, number: u64) {
        self.number.store(number, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Told {
    lines: Vec<(Duration, Line)>,
    faults: Vec<String>,
    /// Events of an own session token that was replaced, by the token that replaced it.
    stale: HashMap<u64, usize>,
    after_the_end: usize,
}

#[derive(Debug)]
enum Line {
    Open(Option<Gap>),
    Close(SystemTime),
    Lagged(u64),
    Error(String),
    /// Objects that came one after another.
    Objects {
        from: Stamp,
        last: u64,
        last_at: SystemTime,
    },
    /// What was done to it.
    Done(String),
}

/// Where a story has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last object.
    pub last: Option<Stamp>,
    /// How many objects it was told to have missed, of those that it has not got.
    pub credit: u64,
    /// How many objects it was told to have missed.
    pub lagged: u64,
    pub open: bool,
    pub objects: u64,
}

impl Story {
    pub fn new(log: Arc<Log>, client_token: Arc<TokenFloor>) -> Self {
        Self {
            log,
            id: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            own_token: AtomicU64::new(0),
            client_token,
            told: Mutex::default(),
        }
    }

    pub fn id(&self) -> u64 {
        self.id.load(Ordering::SeqCst)
    }

    pub fn begin(&self, id: u64) {
        self.id.store(id, Ordering::SeqCst);
        self.done("subscribed");
    }

    /// To be called when what ends it has returned.
    pub fn end(&self, how: &str) {
        self.ended.store(true, Ordering::SeqCst);
        self.done(how);
    }

    pub fn raise_token(&self, number: u64) {
        self.own_token.store(number, Ordering::SeqCst);
    }

    pub fn done(&self, what: impl Into<String>) {
        self.told
            .lock()
            .lines
            .push((self.log.time(), Line::Done(what.into())));
    }

    pub fn fault(&self, fault: impl Into<String>) {
        self.told.lock().faults.push(fault.into());
        self.log.fail();
    }

    /// The listener for everything.
    pub fn hear(&self, event: &Event) {
        // Looked at before anything else: what has ended from here on may still hear this.
        let ended = self.ended.load(Ordering::SeqCst);
        let own_token = self.own_token.load(Ordering::SeqCst);
        let client_token = self.client_token.number.load(Ordering::SeqCst);
        let stamp = event.object().map(Stamp::of);
        let mut told = self.told.lock();
        let told = &mut *told;
        if ended && event.kind() != EventKind::Close {
            told.after_the_end += 1;
            if told.after_the_end > 1 {
                told.faults
                    .push(format!("`{}` after the end: {stamp:?}", event.kind()));
                self.log.fail();
            }
        }
        let line = match (event.kind(), stamp) {
            (EventKind::Open, _) => Line::Open(event.gap().cloned()),
            (EventKind::Close, _) => Line::Close(SystemTime::now()),
            (EventKind::Error, _) => match event.error().and_then(|error| error.dropped()) {
                Some(dropped) => Line::Lagged(dropped),
                None => Line::Error(format!("{:?}", event.error())),
            },
            (_, Some(stamp)) => {
                let mut fault = |text: String| {
                    told.faults.push(text);
                    self.log.fail();
                };
                if stamp.id != self.id() && self.id() != 0 {
                    fault(format!("an event of another subscription: {stamp:?}"));
                }
                if stamp.own_token < own_token {
                    let times = told.stale.entry(own_token).or_default();
                    *times += 1;
                    if *times > 1 {
                        fault(format!("events of an own token before {own_token}: {stamp:?}"));
                    }
                }
                if stamp.client_token < client_token {
                    let mut stale = self.client_token.stale.lock();
                    let times = stale.entry(client_token).or_default();
                    *times += 1;
                    if *times > 1 {
                        fault(format!(
                            "events of a client token before {client_token}: {stamp:?}"
                        ));
                    }
                }
                if let Some((_, Line::Objects { from, last, last_at })) = told.lines.last_mut() {
                    if from.follows_up_to(*last, &stamp) {
                        *last += 1;
                        *last_at = stamp.at;
                        return;
                    }
                }
                Line::Objects {
                    from: stamp,
                    last: stamp.number,
                    last_at: stamp.at,
                }
            }
            (kind, None) => Line::Error(format!("`{kind}` without an object")),
        };
        told.lines.push((self.log.time(), line));
    }

    /// Where it has come to, or what is wrong with it.
    pub fn check(&self, feed: &Feed) -> Result<Position, String> {
        let told = self.told.lock();
        if let Some(fault) = told.faults.first() {
            return Err(fault.clone());
        }
        let mut position = Position::default();
        let mut opens = 0;
        // The acknowledgement that the present `open` is of, once an object has shown it.
        let mut shown = false;
        let mut last_close: Option<SystemTime> = None;
        // Those that were reported since the last object came.
        let mut gaps = vec![];
        for (_, line) in &told.lines {
            match line {
                Line::Open(gap) => {
                    if std::mem::replace(&mut position.open, true) {
                        return Err("`open` twice".into());
                    }
                    shown = false;
                    opens += 1;
                    match gap {
                        Some(gap) => {
                            position.check_gap(gap, last_close)?;
                            gaps.push(gap.clone());
                        }
                        None if opens > 1 => return Err("a hole without a gap".into()),
                        None => {}
                    }
                }
                Line::Close(at) => {
                    if !std::mem::replace(&mut position.open, false) {
                        return Err("`close` without `open`".into());
                    }
                    last_close = Some(*at);
                }
                Line::Lagged(dropped) => {
                    if *dropped == 0 {
                        return Err("a report of nothing".into());
                    }
                    position.credit += dropped;
                    position.lagged += dropped;
                }
                Line::Objects { from, last, last_at } => {
                    if !position.open {
                        return Err(format!("{from:?} outside of `open` .. `close`"));
                    }
                    position.take(from, *last, &mut gaps, shown, feed)?;
                    if let Some(last) = &mut position.last {
                        last.at = *last_at;
                    }
                    shown = true;
                }
                Line::Error(_) | Line::Done(_) => {}
            }
        }
        Ok(position)
    }

    /// The lines, each with its time, and the time between the first and the last.
    pub fn lines(&self) -> Vec<(Duration, String)> {
        let told = self.told.lock();
        let id = self.id();
        told.lines
            .iter()
            .map(|(at, line)| (*at, format!("[{id}] {line}")))
            .collect()
    }
}

impl Position {
    /// `shown`: the objects belong to the acknowledgement of the last ones, and not to another.
    fn take(
        &mut self,
        from: &Stamp,
        last: u64,
        gaps: &mut Vec<Gap>,
        shown: bool,
        feed: &Feed,
    ) -> Result<(), String> {
        let gaps = std::mem::take(gaps);
        let expected = match self.last.filter(|_| shown) {
            Some(before) => {
                if (before.conn, before.ack) != (from.conn, from.ack) {
                    return Err(format!("{from:?} after {before:?} without `close` and `open`"));
                }
                before.number + 1
            }
            None => {
                if let Some(before) = self.last {
                    if (before.conn, before.ack) >= (from.conn, from.ack) {
                        return Err(format!("{from:?} after {before:?}"));
                    }
                    // What was written before the next acknowledgement on the same connection has come, if it was still
                    // to be given out.
                    let next = (before.conn, before.ack + 1) == (from.conn, from.ack);
                    if next && before.own_token == from.own_token {
                        let missing = feed.written(&before) - before.number;
                        self.cover(missing, || {
                            format!("{missing} after {before:?}, before the next acknowledgement")
                        })?;
                    } else if gaps
                        .iter()
                        .all(|gap| gap.reason() != GapReason::SessionTokenChanged)
                    {
                        // With another token, what waits for the listeners is discarded, whenever it was written.
                        let missing = feed.count_between(&before, from, |times| explains(&gaps, &times));
                        self.cover(missing, || {
                            format!("{missing} between {before:?} and {from:?}, outside of {gaps:?}")
                        })?;
                    }
                }
                1
            }
        };
        let Some(missing) = from.number.checked_sub(expected) else {
            return Err(format!("{from:?} twice or out of order: {expected} was next"));
        };
        self.cover(missing, || {
            format!("{missing} before {from:?}, {expected} was next")
        })?;
        self.objects += last - from.number + 1;
        self.last = Some(Stamp {
            number: last,
            ..*from
        });
        Ok(())
    }

    fn cover(&mut self, missing: u64, what: impl FnOnce() -> String) -> Result<(), String> {
        match self.credit.checked_sub(missing) {
            Some(rest) => {
                self.credit = rest;
                Ok(())
            }
            None => Err(format!(
                "lost: {}; told of {} that were dropped",
                what(),
                self.credit
            )),
        }
    }

    /// From the last proof, which is not after the `close`, and not long before what came last: pings are quick here.
    fn check_gap(&self, gap: &Gap, last_close: Option<SystemTime>) -> Result<(), String> {
        if gap.start() > gap.end() {
            return Err(format!("a gap that ends before it starts: {gap:?}"));
        }
        let is_loss = gap.reason() == GapReason::ConnectionLost;
        if is_loss && last_close.is_some_and(|close| gap.start() > Date::from(close)) {
            return Err(format!("a gap that starts after the `close` before it: {gap:?}"));
        }
        match self.last {
            Some(last) if is_loss && gap.start() + EARLIER < Date::from(last.at) => Err(format!(
                "a gap that starts long before the last object was written, {last:?}: {gap:?}"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether what was written at some time between these, and did not come, is accounted for: one of the gaps reports it,
/// or it was written to a connection that the client had replaced already.
fn explains(gaps: &[Gap], times: &RangeInclusive<SystemTime>) -> bool {
    let reports =
        |gap: &Gap| gap.start() <= Date::from(*times.end()) && Date::from(*times.start()) <= gap.end();
    let is_late = |gap: &Gap| gap.end() < Date::from(*times.start());
    gaps.iter().any(reports) || gaps.last().is_some_and(is_late)
}

/// How much earlier a ping may have been answered than the last object came, on a machine that is busy.
const EARLIER: Duration = Duration::from_secs(3);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(None) => f.write_str("open"),
            Self::Open(Some(gap)) => write!(f, "open, {:?} after {:?}", gap.reason(), gap.duration()),
            Self::Close(_) => f.write_str("close"),
            Self::Lagged(dropped) => write!(f, "lagged {dropped}"),
            Self::Error(error) => write!(f, "error {error}"),
            Self::Objects { from, last, .. } => write!(
                f,
                "objects {}..={last} of connection {}, acknowledgement {}, tokens {} {}",
                from.number, from.conn, from.ack, from.client_token, from.own_token
            ),
            Self::Done(what) => write!(f, "- {what}"),
        }
    }
}

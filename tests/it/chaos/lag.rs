//! Links on which what the server wrote is long on its way: when one is lost, much is lost with it. The server writes when
//! it wrote each event, and each event that did not come was written within a gap that was reported.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use parking_lot::{Mutex, RwLock};
use parse_livequery::{Client, Date, Event, EventKind, Gap, GapReason, Query, Subscription};
use serde_json::{Value, json};

use super::Part;
use super::feed::{micros, time_of};
use super::log::Log;
use super::route::Route;
use crate::harness::*;
use crate::support::*;

pub fn play(mut part: Part) -> Result<String, String> {
    let server = Server::auto();
    let links: Vec<_> = (0..LINKS).map(|at| Link::new(&server, at, &part.log)).collect();
    let dice: Vec<_> = links.iter().map(|_| part.rng.fork()).collect();
    let written = RwLock::new(vec![]);
    let more = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while more.load(Ordering::SeqCst) {
                write(&server, &written);
                thread::park_timeout(ms(5));
            }
        });
        let troubles: Vec<_> = links
            .iter()
            .zip(dice)
            .map(|(link, mut rng)| {
                let part = &part;
                scope.spawn(move || {
                    while part.goes_on() {
                        link.trouble(&mut rng, part.end);
                    }
                    link.route.proxy.heal();
                })
            })
            .collect();
        let troubles: Vec<_> = troubles.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let after = written.read().len() as u64;
        let deadline = SystemTime::now() + MINUTE;
        let outcome = loop {
            if links.iter().all(|link| link.heard.lock().last > Some(after)) {
                break Ok(());
            }
            if SystemTime::now() > deadline {
                break Err("a healed link brings nothing".to_owned());
            }
            thread::park_timeout(ms(10));
        };
        more.store(false, Ordering::SeqCst);
        assert!(troubles.iter().all(Result::is_ok), "see above");
        outcome
    })?;
    let written = written.into_inner();
    let (mut gaps, mut lost) = (0, 0);
    for link in &links {
        link.client.close();
        let heard = link.heard.lock();
        lost += heard.check(&written).map_err(|text| {
            let lines = heard.gaps.iter().map(|(at, gap, _)| (*at, format!("{gap:?}")));
            format!("{text}\n{}", link.log.around(lines.collect()))
        })?;
        gaps += heard.gaps.len();
    }
    Ok(format!(
        "{LINKS} links, {} events written, {gaps} gaps, {lost} events lost in them",
        written.len()
    ))
}

const LINKS: usize = 4;
const LONGEST_LAG: Duration = Duration::from_millis(1500);
const IDLE_PING: Duration = Duration::from_millis(300);
const LONG_LIFE: Duration = Duration::from_secs(15);

/// When an event was written: from before to after.
type Written = RangeInclusive<SystemTime>;

/// To all that are subscribed.
fn write(server: &Server, written: &RwLock<Vec<Written>>) {
    let number = written.read().len();
    let before = SystemTime::now();
    let fields = json!({ "number": number, "at": micros(before) });
    server.emit("create", &object("Lag", &number.to_string(), fields));
    written.write().push(before..=SystemTime::now());
}

struct Link {
    client: Client,
    _subscription: Subscription,
    route: Route,
    log: Arc<Log>,
    heard: Arc<Mutex<Heard>>,
}

/// What the listeners of one link were told.
#[derive(Default)]
struct Heard {
    numbers: HashSet<u64>,
    last: Option<u64>,
    last_at: Option<SystemTime>,
    /// When each came, and when the last event before it was written.
    gaps: Vec<(Duration, Gap, Option<SystemTime>)>,
}

impl Link {
    fn new(server: &Server, at: usize, log: &Log) -> Self {
        let route = match at % 2 {
            0 => Route::plain(server.addr()),
            _ => Route::secure(server.addr()),
        };
        let client = route
            .builder()
            .reconnect_delay(ms(5), ms(50))
            .connect_timeout(LONG)
            .ack_timeout(LONG)
            .pong_timeout(LONG)
            .idle_ping(IDLE_PING)
            .build()
            .unwrap();
        let (heard, log) = (Arc::<Mutex<Heard>>::default(), Arc::new(log.beside()));
        let (hears, logs) = (Arc::clone(&heard), Arc::clone(&log));
        let subscription = client
            .subscription(&Query::new("Lag"))
            .on_any(move |event| hears.lock().hear(event, &logs))
            .start()
            .unwrap();
        Self {
            client,
            _subscription: subscription,
            route,
            log,
            heard,
        }
    }

    /// The link lags more or less than before, and is lost after a while.
    fn trouble(&self, rng: &mut Rng, end: Instant) {
        let proxy = &self.route.proxy;
        let lag = LONGEST_LAG.mul_f64(rng.f64());
        if rng.bool() {
            proxy.lag(lag);
        } else {
            proxy.delay(lag / 2);
        }
        // Some live so long that a gap which starts at their beginning shows.
        let is_long = rng.u8(0..8) == 0 && Instant::now() + LONG_LIFE < end;
        let life = if is_long { LONG_LIFE } else { ms(rng.u64(0..3000)) };
        thread::park_timeout(life);
        let is_reset = rng.bool();
        self.log.add(format!("lag {lag:?}, now lost, reset: {is_reset}"));
        if is_reset {
            proxy.reset();
        } else {
            proxy.cut();
        }
    }
}

impl Heard {
    fn hear(&mut self, event: &Event, log: &Log) {
        match (event.kind(), event.object()) {
            (_, Some(object)) => {
                let number = object.get("number").and_then(Value::as_u64);
                self.numbers.extend(number);
                self.last = self.last.max(number);
                self.last_at = Some(time_of(object));
            }
            (EventKind::Open, _) => {
                let gap = event.gap().map(|gap| (log.time(), gap.clone(), self.last_at));
                self.gaps.extend(gap);
            }
            (kind, None) => log.add(format!("{kind} {:?}", event.error())),
        }
    }

    /// How many were lost.
    fn check(&self, written: &[Written]) -> Result<usize, String> {
        for (_, gap, last_at) in &self.gaps {
            if gap.start() > gap.end() {
                return Err(format!("a gap that ends before it starts: {gap:?}"));
            }
            if gap.reason() != GapReason::ConnectionLost {
                return Err(format!("a gap for no reason: {gap:?}"));
            }
            if last_at.is_some_and(|at| gap.start() + EARLIEST < Date::from(at)) {
                return Err(format!(
                    "a gap that starts long before the last event was written, at {last_at:?}: {gap:?}"
                ));
            }
        }
        // What was written before the first `open`, and what came last on its way when all ended, was not lost.
        let first = self.numbers.iter().min().copied().unwrap_or_default();
        let mut lost = 0;
        for (number, times) in (first..self.last.unwrap_or_default()).zip(&written[first as usize..]) {
            if self.numbers.contains(&number) {
                continue;
            }
            lost += 1;
            let is_inside = |gap: &Gap| {
                gap.start() <= Date::from(*times.end()) && gap.end() >= Date::from(*times.start())
            };
            if !self.gaps.iter().any(|(_, gap, _)| is_inside(gap)) {
                let near = self.gaps.iter().map(|(_, gap, _)| gap);
                let near: Vec<_> = near
                    .filter(|gap| {
                        gap.start() < Date::from(*times.end()) + LONGEST_LAG
                            && gap.end() + LONGEST_LAG > Date::from(*times.start())
                    })
                    .collect();
                return Err(format!(
                    "lost outside of every gap: event {number}, written at {times:?}; near it {near:?}"
                ));
            }
        }
        Ok(lost)
    }
}

/// How much earlier than the last event that came a gap may start: a ping goes out when the one before it was answered,
/// and each may take as long as the lag in both directions.
const EARLIEST: Duration = Duration::from_millis(4 * 1500 + 300 + 3000);

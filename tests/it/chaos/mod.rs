//! Everything at once: actors who use clients in every way, each over a network that fails in every way. Each holds what
//! its listeners were told against what a user may rely on.
//!
//! `CHAOS_SECONDS` is how long it goes on, 10 s by default; `CHAOS_SEED` is what a failure prints, and brings back the
//! same choices, though not the same timing.

mod crowd;
mod deaf;
mod feed;
mod lag;
mod log;
mod network;
mod route;
mod sets;
mod story;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use self::crowd::Crowd;
use self::log::Log;
use self::route::Route;
use crate::harness::*;
use crate::support::*;

#[test]
fn chaos() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(10);
    let limit = Duration::from_secs(seconds) + 5 * MINUTE;
    let figures = in_own_process(module_path!(), "chaos", limit, move || {
        let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
        run(seed, Duration::from_secs(seconds));
    });
    if let Some(figures) = figures {
        eprint!("{figures}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// What an actor gets: dice, a history of its own, and when to come to an end.
pub struct Part {
    pub rng: Rng,
    pub log: Arc<Log>,
    pub end: Instant,
}

impl Part {
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.end && !self.log.has_ended()
    }
}

/// What an actor says in the end: what there was to see, or what went wrong.
type Play = fn(Part) -> Result<String, String>;

const ACTORS: [(&str, Play); 5] = [
    ("crowd", |part| {
        let server = Server::auto();
        let route = Route::plain(server.addr());
        Crowd::new(part, server, route).run(8)
    }),
    ("crowd behind TLS", |part| {
        let server = Server::auto();
        let route = Route::secure(server.addr());
        Crowd::new(part, server, route).run(4)
    }),
    ("lagging links", lag::play),
    ("live sets", sets::play),
    ("deaf peer", deaf::play),
];

fn run(seed: u64, time: Duration) {
    let mut rng = Rng::with_seed(seed);
    let first = Log::new();
    let end = first.start() + time;
    let outcomes = thread::scope(|scope| {
        let actors = ACTORS.map(|(name, play)| {
            let log = Arc::new(first.beside());
            let part = Part {
                rng: rng.fork(),
                log: Arc::clone(&log),
                end,
            };
            let thread = scope.spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| play(part)));
                if !matches!(outcome, Ok(Ok(_))) {
                    log.fail();
                }
                if outcome.is_err() {
                    eprintln!("{name}: a thread panicked, see above\n{}", log.around(vec![]));
                }
                outcome
            });
            (name, thread)
        });
        actors.map(|(name, actor)| (name, actor.join().expect("what an actor panics of is caught")))
    });
    let mut panic = None;
    for (name, outcome) in outcomes {
        match outcome {
            Ok(Ok(figures)) => eprintln!("{name}: {figures}"),
            Ok(Err(failure)) => eprintln!("CHAOS_SEED={seed}: {name}: {failure}"),
            Err(payload) => panic = Some(payload),
        }
    }
    if let Some(payload) = panic {
        eprintln!("CHAOS_SEED={seed}");
        resume_unwind(payload);
    }
    assert!(!first.has_ended(), "CHAOS_SEED={seed}: see above");
    wait_until("the threads of the clients have ended", || {
        ["livequery-io", "livequery-dispatch", "livequery-fetch"]
            .iter()
            .all(|name| threads_named(name).is_none_or(|threads| threads.is_empty()))
    });
}

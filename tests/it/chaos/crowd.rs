//! A crowd: threads that use one client in every way, over a network that fails in every way, against a server that
//! numbers what it sends. What the listeners were told is then held against what a user may rely on.

use std::fmt::Write;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;
use parse_livequery::{
    Client, ClientEventKind, Dispatch, Overflow, Query, Subscription, SubscriptionBuilder, SubscriptionState,
};

use super::Part;
use super::feed::{Asked, Feed, REFUSED};
use super::log::Log;
use super::network::{self, Ending};
use super::route::Route;
use super::story::{Story, TokenFloor};
use crate::harness::*;
use crate::support::*;

/// About how many subscriptions there are at any time.
const SUBSCRIPTIONS: usize = 32;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Crowd {
    part: Part,
    rng: Mutex<Rng>,
    log: Arc<Log>,
    client: Client,
    route: Route,
    server: Server,
    feed: Arc<Feed>,
    client_story: Arc<Mutex<Vec<ClientEventKind>>>,
    /// The number of the client's session token. Locked while it is changed.
    client_token: Mutex<u64>,
    token_floor: Arc<TokenFloor>,
    live: Mutex<Vec<Arc<Watched>>>,
    stories: Mutex<Vec<Arc<Story>>>,
    /// How many calls of `close` have begun, and how many have returned.
    closes: (AtomicU64, AtomicU64),
    markers: AtomicU64,
    stop: AtomicBool,
}

/// A subscription in use. The fields are dropped in this order: the end is told after the handle is gone.
struct Watched {
    subscription: Subscription,
    plan: Mutex<Plan>,
    /// How many calls of `close` had returned before it was made.
    closes_before: u64,
    end: End,
}

/// What the server should end up with.
struct Plan {
    marker: u64,
    own_token: u64,
    /// A query that the server refuses was asked for, so that an earlier one may be in force.
    refused: bool,
    unsubscribed: bool,
}

struct End(Arc<Story>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end("the last handle is gone");
    }
}

impl Crowd {
    pub fn new(mut part: Part, server: Server, route: Route) -> Self {
        let mut rng = part.rng.fork();
        let feed = Feed::over(&server, rng.fork());
        let log = Arc::clone(&part.log);
        let overflow = rng
            .choice([Overflow::DropNewest, Overflow::DropOldest])
            .expect("two");
        log.add(format!("{overflow:?}"));
        let client = network::impatient(&route)
            .close_timeout(CLOSE_TIMEOUT)
            .queue_limits(100, 1 << 20)
            .overflow(overflow)
            .dispatch(Dispatch::thread())
            .session_token("c1")
            .build()
            .unwrap();
        let client_story = Arc::<Mutex<Vec<_>>>::default();
        for kind in ClientEventKind::ALL {
            let (story, log) = (Arc::clone(&client_story), Arc::clone(&log));
            client.on(kind, move |event| {
                story.lock().push(event.kind());
                log.add(format!("client: {kind} {:?}", event.error()));
            });
        }
        Self {
            part,
            rng: Mutex::new(rng),
            log,
            client,
            route,
            server,
            feed,
            client_story,
            client_token: Mutex::new(1),
            token_floor: Arc::default(),
            live: Mutex::default(),
            stories: Mutex::default(),
            closes: Default::default(),
            markers: AtomicU64::new(1),
            stop: AtomicBool::new(false),
        }
    }

    /// Says in the end what there was to see.
    pub fn run(self, users: usize) -> Result<String, String> {
        thread::scope(|scope| {
            let users: Vec<_> = (0..users)
                .map(|_| scope.spawn(|| self.while_it_lasts(|rng| self.use_client(rng))))
                .collect();
            let network = scope.spawn(|| self.while_it_lasts(|rng| self.fail_network(rng)));
            let feeder = scope.spawn(|| {
                while !self.stop.load(Ordering::SeqCst) {
                    self.feed.burst(&self.server);
                    thread::park_timeout(ms(2));
                }
            });
            // A thread that panics is one that got an answer which it must not get.
            let panics = users
                .into_iter()
                .chain([network])
                .filter_map(|thread| thread.join().err());
            let panics: Vec<_> = panics.collect();
            self.route.proxy.heal();
            self.log.add("all is healed");
            let settled = if panics.is_empty() { self.settle() } else { Ok(()) };
            self.stop.store(true, Ordering::SeqCst);
            feeder.join().expect("the feeder does not panic");
            if let Some(panic) = panics.into_iter().next() {
                resume_unwind(panic);
            }
            settled
        })?;
        self.drain()?;
        self.finish()
    }

    fn while_it_lasts(&self, mut act: impl FnMut(&mut Rng)) {
        let mut rng = self.rng.lock().fork();
        while self.part.goes_on() {
            act(&mut rng);
        }
    }

    fn use_client(&self, rng: &mut Rng) {
        let watched = rng.choice(self.live.lock().iter()).cloned();
        let act = rng.u32(0..1000);
        match (act, watched) {
            (0..200, _) if self.live.lock().len() < SUBSCRIPTIONS => self.subscribe(rng),
            (200..240, _) => self.let_go(rng),
            (240, _) => self.close(),
            (241..250, _) => self.client.open(),
            (250..253, _) => self.change_client_token(),
            (253..260, _) => self.client.reconnect_now(),
            (260..290, Some(watched)) => {
                watched.plan.lock().unsubscribed = true;
                watched.subscription.unsubscribe();
                watched.end.0.end("unsubscribed");
                self.live.lock().retain(|other| !Arc::ptr_eq(other, &watched));
            }
            (290..380, Some(watched)) => self.update(&watched, false),
            (380..390, Some(watched)) => self.update(&watched, true),
            (390..410, Some(watched)) => self.change_own_token(&watched),
            (410..450, Some(watched)) => self.listen_for_a_while(&watched.subscription, rng),
            (450..500, Some(watched)) => self.look_at(&watched),
            (500..510, Some(watched)) => drop(watched.subscription.wait_open(ms(rng.u64(0..20)))),
            _ => {}
        }
        thread::park_timeout(ms(rng.u64(0..10)));
    }

    fn subscribe(&self, rng: &mut Rng) {
        let story = Arc::new(Story::new(Arc::clone(&self.log), Arc::clone(&self.token_floor)));
        let marker = self.next_marker();
        let closes_before = self.closes.1.load(Ordering::SeqCst);
        let (hears, mut own_token) = (Arc::clone(&story), 0);
        let mut builder = self.client.subscription(&query(marker));
        builder = builder.on_any(move |event| hears.hear(event));
        builder = with_trouble(builder, rng);
        if rng.u8(0..4) == 0 {
            own_token = 1;
            builder = builder.session_token("s1");
        }
        let subscription = builder.start().unwrap();
        story.begin(subscription.id());
        self.stories.lock().push(Arc::clone(&story));
        self.live.lock().push(Arc::new(Watched {
            subscription,
            plan: Mutex::new(Plan {
                marker,
                own_token,
                refused: false,
                unsubscribed: false,
            }),
            closes_before,
            end: End(story),
        }));
    }

    /// Drops a handle, which may not be the last one.
    fn let_go(&self, rng: &mut Rng) {
        let mut live = self.live.lock();
        if !live.is_empty() {
            let at = rng.usize(0..live.len());
            let gone = live.swap_remove(at);
            drop(live);
            drop(gone);
        }
    }

    fn close(&self) {
        let there: Vec<_> = self.live.lock().clone();
        self.log.add("close ..");
        self.closes.0.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        self.client.close();
        let took = start.elapsed();
        self.closes.1.fetch_add(1, Ordering::SeqCst);
        self.log.add("close has returned");
        assert!(took < CLOSE_TIMEOUT + SLACK, "close took {took:?}");
        for watched in there {
            watched.end.0.end("the client was closed");
            let state = watched.subscription.state();
            assert_eq!(state, SubscriptionState::Closed, "after close");
            self.live.lock().retain(|other| !Arc::ptr_eq(other, &watched));
        }
    }

    fn change_client_token(&self) {
        let mut token = self.client_token.lock();
        *token += 1;
        self.log.add(format!("client token {} ..", *token));
        self.client.set_session_token(Some(&format!("c{}", *token)));
        self.token_floor.raise(*token);
        self.log.add(format!("client token {} is set", *token));
    }

    fn change_own_token(&self, watched: &Watched) {
        let mut plan = watched.plan.lock();
        let token = plan.own_token + 1;
        watched.end.0.done(format!("own token {token} .."));
        match watched.subscription.set_session_token(Some(&format!("s{token}"))) {
            Ok(()) => {
                plan.own_token = token;
                watched.end.0.raise_token(token);
                watched.end.0.done(format!("own token {token} is set"));
            }
            Err(_) => self.look_at_closed(watched, &plan),
        }
    }

    fn update(&self, watched: &Watched, refused: bool) {
        let mut plan = watched.plan.lock();
        let marker = if refused { REFUSED } else { self.next_marker() };
        watched.end.0.done(format!("update to {marker}"));
        match watched.subscription.update(&query(marker)) {
            Ok(()) => {
                plan.marker = marker;
                plan.refused |= refused;
            }
            Err(_) => self.look_at_closed(watched, &plan),
        }
    }

    fn look_at(&self, watched: &Watched) {
        let _ = (
            self.client.stats(),
            self.client.diagnose(),
            watched.subscription.stats(),
        );
        if watched.subscription.state() == SubscriptionState::Closed {
            let plan = watched.plan.lock();
            self.look_at_closed(watched, &plan);
        }
    }

    /// Only what somebody closed is closed.
    fn look_at_closed(&self, watched: &Watched, plan: &Plan) {
        let closed = self.closes.0.load(Ordering::SeqCst) > watched.closes_before;
        if !closed && !plan.unsubscribed {
            watched.end.0.fault("closed by nobody");
        }
    }

    /// What is removed is not called any more.
    fn listen_for_a_while(&self, subscription: &Subscription, rng: &mut Rng) {
        let removed = Arc::new(AtomicBool::new(false));
        let (log, is_removed, mut late) = (Arc::clone(&self.log), Arc::clone(&removed), 0);
        let listener = subscription.on("update", move |_| {
            if is_removed.load(Ordering::SeqCst) {
                late += 1;
                // One call may have been on its way.
                if late > 1 {
                    log.add("a listener was called that had been removed");
                    log.fail();
                }
            }
        });
        thread::park_timeout(ms(rng.u64(0..5)));
        subscription.off(listener);
        removed.store(true, Ordering::SeqCst);
    }

    fn fail_network(&self, rng: &mut Rng) {
        network::fail(&self.route.proxy, &self.log, rng, |ending| {
            for conn in self.server.open_conns() {
                match ending {
                    Ending::Fin => conn.cut(),
                    Ending::Rst => conn.reset(),
                    Ending::Close => conn.close(1001, "restart"),
                }
            }
        });
    }

    /// With the network healed and nobody acting, the server comes to serve what is wanted, and the listeners get it.
    fn settle(&self) -> Result<(), String> {
        let mut live = self.live.lock();
        live.retain(|watched| {
            let closed = watched.subscription.state() == SubscriptionState::Closed;
            if closed {
                self.look_at_closed(watched, &watched.plan.lock());
            }
            !closed
        });
        let live = live.clone();
        for watched in live.iter().filter(|watched| watched.plan.lock().refused) {
            self.update(watched, false);
        }
        self.client.open();
        let deadline = Instant::now() + MINUTE;
        while let Err((story, text)) = self.is_settled(&live) {
            if self.log.has_failed() {
                break;
            }
            if Instant::now() > deadline {
                return Err(self.report(story, &text));
            }
            thread::park_timeout(ms(10));
        }
        Ok(())
    }

    fn is_settled<'a>(&self, live: &'a [Arc<Watched>]) -> Result<(), (Option<&'a Story>, String)> {
        let conns = self.server.open_conns();
        let [conn] = conns.as_slice() else {
            return Err((None, format!("not one connection at the end: {conns:?}")));
        };
        let wanted = live.iter().map(|watched| watched.subscription.id()).collect();
        for watched in live {
            let story = Some(&*watched.end.0);
            let plan = watched.plan.lock();
            let served = self.feed.serves(conn.number(), watched.subscription.id());
            let wanted = Asked {
                marker: plan.marker,
                own_token: plan.own_token,
                client_token: *self.client_token.lock(),
            };
            if served.is_none_or(|(_, served)| served != wanted) {
                return Err((
                    story,
                    format!("wanted at the end: {wanted:?}; served: {served:?}"),
                ));
            }
            let state = watched.subscription.state();
            if state != SubscriptionState::Open {
                return Err((story, format!("{state:?} at the end")));
            }
        }
        match self.feed.served(conn.number()) {
            served if served == wanted => Ok(()),
            served => Err((None, format!("wanted at the end: {wanted:?}, served: {served:?}"))),
        }
    }

    /// All that was written has come, or was reported as dropped.
    fn drain(&self) -> Result<(), String> {
        let deadline = Instant::now() + MINUTE;
        let live: Vec<_> = self.live.lock().clone();
        for watched in &live {
            let story = &watched.end.0;
            loop {
                let position = story
                    .check(&self.feed)
                    .map_err(|text| self.report(Some(story), &text))?;
                let missing = position
                    .last
                    .map(|last| self.feed.written(&last).saturating_sub(last.number));
                let dropped = watched.subscription.stats().dropped;
                let exact =
                    dropped == position.lagged && missing.is_some_and(|missing| missing <= position.credit);
                if exact || self.log.has_failed() {
                    break;
                }
                if Instant::now() > deadline {
                    let text = format!("at the end {missing:?} are missing, dropped {dropped}: {position:?}");
                    return Err(self.report(Some(story), &text));
                }
                thread::park_timeout(ms(10));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<String, String> {
        let all = self.log.time();
        self.close();
        self.live.lock().clear();
        let stories = std::mem::take(&mut *self.stories.lock());
        let (mut objects, mut lagged) = (0, 0);
        let deadline = Instant::now() + MINUTE;
        for story in &stories {
            let position = loop {
                let position = story
                    .check(&self.feed)
                    .map_err(|text| self.report(Some(story), &text))?;
                // `close` waits for its listeners as long as its time-out.
                if !position.open {
                    break position;
                }
                if Instant::now() > deadline {
                    return Err(self.report(Some(story), "no `close` at the end"));
                }
                thread::park_timeout(ms(10));
            };
            objects += position.objects;
            lagged += position.lagged;
        }
        if self.log.has_failed() {
            return Err(self.report(None, "see the end of the history"));
        }
        let mut open = false;
        for kind in self.client_story.lock().iter() {
            match kind {
                ClientEventKind::Open if !open => open = true,
                ClientEventKind::Close if open => open = false,
                ClientEventKind::Open | ClientEventKind::Close => {
                    return Err(self.report(None, "`open` and `close` of the client do not alternate"));
                }
                _ => {}
            }
        }
        let sockets = self.route.proxy.max_open();
        if sockets > 1 {
            return Err(self.report(None, &format!("{sockets} sockets at once")));
        }
        wait_until("the socket is closed", || self.route.proxy.open_now() == 0);
        Ok(format!(
            "{all:.1?}, {} subscriptions, {} connections, {} closes, {objects} objects of {} written, {lagged} dropped",
            stories.len(),
            self.server.accepts(),
            self.closes.1.load(Ordering::SeqCst),
            self.feed.total(),
        ))
    }

    /// What went wrong, and the history of the subscription and all around it.
    fn report(&self, story: Option<&Story>, text: &str) -> String {
        let mut lines = story.map(Story::lines).unwrap_or_default();
        let id = story.map(Story::id);
        let frames = self.server.received();
        let frames = frames
            .iter()
            .filter(|frame| id.is_some_and(|id| frame.request_id() == id));
        lines.extend(frames.map(|frame| {
            let at = frame.at.saturating_duration_since(self.log.start());
            (
                at,
                format!("at the server, on connection {}: {}", frame.conn, frame.text),
            )
        }));
        let mut report = String::new();
        let _ = write!(report, "{text}");
        if let Some(id) = id {
            let _ = write!(report, " (subscription {id})");
        }
        let _ = write!(report, "\n{}", self.log.around(lines));
        report
    }

    fn next_marker(&self) -> u64 {
        self.markers.fetch_add(1, Ordering::SeqCst)
    }
}

fn query(marker: u64) -> Query {
    Query::new("Chaos").equal_to("marker", marker)
}

/// Listeners that panic, and that take their time.
fn with_trouble(builder: SubscriptionBuilder, rng: &mut Rng) -> SubscriptionBuilder {
    let mut own = rng.fork();
    match rng.u8(0..16) {
        0 => builder.on("update", move |_| {
            if own.u8(0..10) == 0 {
                // As `panic!`, but without its message on standard error.
                resume_unwind(Box::new("a listener that panics"));
            }
        }),
        1 => builder.on("create", move |_| {
            thread::sleep(Duration::from_micros(own.u64(0..2000)))
        }),
        2 => builder.on("close", move |_| thread::sleep(ms(own.u64(0..5)))),
        3 => builder.on("delete", move |_| {
            if own.u8(0..50) == 0 {
                thread::sleep(ms(own.u64(0..200)));
            }
        }),
        _ => builder,
    }
}

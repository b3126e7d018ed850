//! Keeps a live set: brings events and what was fetched to its core, and what follows from them to its mailbox.
//!
//! Knows nothing of handles. What follows from what is in [`core`](super::core).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::client::Client;
use crate::delivery::emitter::{Emitter, ListenerId, Missed, Times};
use crate::delivery::mailbox::{Letter, Parcel};
use crate::delivery::shared::Addressee;
use crate::delivery::shared::Shared;
use crate::delivery::status::{Count, Receipt};
use crate::delivery::subscriber::Subscriber;
use crate::delivery::subscription::{Follower, SubscriptionCore};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEventKind, Event, EventKind};
use crate::fence;
use crate::fenced::drop_quietly;
use crate::fetch_error::FetchError;
use crate::live_set::change::{Change, Entry, Snapshot};
use crate::live_set::core::{Core, Moment, Output, Request, Task};
use crate::live_set::events::{SetEvent, SetEventKind};
use crate::live_set::follow::{Follows, Host};
use crate::logging::warn;
use crate::object::Object;
use crate::query::{EncodedQuery, Query};
use crate::secret::Secret;

/// How a set fetches: what `find()` returns for a query, with this session token.
pub(super) type FetchFn = dyn Fn(&Query, Option<&str>) -> Result<Vec<Object>, FetchError> + Send + Sync;

/// One live set.
pub(crate) struct Keeper {
    pub(super) subscriber: Subscriber<SetEvent>,
    pub(super) core: Mutex<Core>,
    pub(super) session_token: Mutex<Option<Secret>>,
    /// What it may do that the server does not let it subscribe to: fetch.
    may_go_without: bool,
    is_without: AtomicBool,
    has_includes: bool,
    /// What it follows besides its own subscription.
    pub(super) follows: Follows,
    fetch: Box<FetchFn>,
    worker: Mutex<Worker>,
    pub(super) shared: Arc<Shared>,
    /// There as soon as the subscription is.
    subscription: OnceLock<Arc<SubscriptionCore>>,
    /// That the set is ready, or refreshed, and was not told yet.
    pub(super) telling: Arc<Count>,
    /// Since when the core knows that the contents may be old, which may be earlier than was told.
    stale_since: Mutex<Option<SystemTime>>,
    /// The last refresh of which it is known what came of it, and that.
    refreshed: Mutex<(u64, Result<()>)>,
}

/// The thread that fetches, which is there while there is something to fetch.
#[derive(Default)]
struct Worker {
    is_running: bool,
    /// When the I/O looks again what there is to do.
    called_at: Option<Instant>,
    /// The set is gone.
    has_ended: bool,
    /// How often it cannot be started, for tests.
    #[cfg(test)]
    fails: usize,
}

impl Worker {
    fn start(&mut self, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        #[cfg(test)]
        if self.fails > 0 {
            self.fails -= 1;
            return Err(std::io::Error::other("no more threads"));
        }
        let thread = std::thread::Builder::new().name("livequery-fetch".to_owned());
        thread.spawn(run)?;
        self.is_running = true;
        Ok(())
    }
}

impl Keeper {
    pub(super) fn new(
        core: Core,
        emitter: Emitter<SetEvent>,
        fetch: Box<FetchFn>,
        session_token: Option<Secret>,
        client: Client,
        may_go_without: bool,
    ) -> Arc<Self> {
        let shared = Arc::clone(client.shared());
        Arc::new(Self {
            may_go_without,
            has_includes: core.has_includes(),
            is_without: AtomicBool::new(false),
            follows: Follows::new(client),
            subscriber: Subscriber::new(emitter),
            core: Mutex::new(core),
            session_token: Mutex::new(session_token),
            fetch,
            worker: Mutex::default(),
            stale_since: Mutex::default(),
            refreshed: Mutex::new((0, Ok(()))),
            shared,
            subscription: OnceLock::new(),
            telling: Arc::default(),
        })
    }

    /// The subscription whose events make the set. To be called before the first of them.
    pub(super) fn follow(self: &Arc<Self>, subscription: &Arc<SubscriptionCore>) {
        self.subscription.get_or_init(|| Arc::clone(subscription));
        let follower: Weak<Self> = Arc::downgrade(self);
        subscription.follow(follower);
    }

    pub(super) fn listen(
        self: &Arc<Self>,
        kind: Option<SetEventKind>,
        listener: impl FnMut(&SetEvent) -> Result<()> + Send + 'static,
    ) -> ListenerId {
        if !self.shared.is_home() {
            drop_quietly(listener);
            return ListenerId::unused();
        }
        let (id, missed) = self.subscriber.emitter.on(kind, Times::Always, listener);
        if missed == Missed::Yes {
            self.shared.late(self, id);
        }
        id
    }

    /// Fetches everything again. Returns the number of this refresh.
    pub(super) fn refresh(self: &Arc<Self>) -> u64 {
        if !self.shared.is_home() {
            return 0;
        }
        let number = self.core.lock().refresh();
        self.attend();
        number
    }

    /// What came of a refresh, as soon as that is known and told.
    pub(super) fn refreshed(&self, number: u64) -> Option<Result<()>> {
        let (last, result) = self.refreshed.lock().clone();
        (last >= number && self.telling.get() == 0).then_some(result)
    }

    /// Since when the contents may be old, if that was told.
    pub(super) fn stale_since(&self) -> Option<SystemTime> {
        if !self.shared.is_home() {
            return None;
        }
        let known = *self.stale_since.lock();
        let told = self.subscriber.emitter.held(|shown| shown.stale_since)?;
        Some(known.map_or(told, |known| known.min(told)))
    }

    /// No handle is left.
    pub(super) fn end(&self) {
        if !self.shared.is_home() {
            return;
        }
        self.worker.lock().has_ended = true;
        self.follows.end();
    }

    /// Something has become of what was to be fetched.
    fn heard(self: &Arc<Self>, generation: u64, hear: impl FnOnce(&mut Core, Moment)) {
        let mut core = self.core.lock();
        hear(&mut core, Moment::now());
        let posted = self.post(&mut core, None, generation);
        drop(core);
        self.announce(posted);
        self.see_to_includes();
        self.shared.wake_delivery();
    }

    /// Follows the included objects that there are now.
    fn see_to_includes(self: &Arc<Self>) {
        if !self.has_includes {
            return;
        }
        let host: Arc<dyn Host> = Arc::clone(self) as _;
        self.follows.see_to_includes(&host);
    }

    /// Follows what decides which objects are in the set. To be called before its own subscription is sent.
    pub(super) fn follow_others(self: &Arc<Self>, others: Vec<EncodedQuery>) {
        let host: Arc<dyn Host> = Arc::clone(self) as _;
        self.follows.follow_others(&host, others);
    }

    /// Why the server refused what it follows, if it cannot go without.
    pub(super) fn refusal(&self, subscription: &SubscriptionCore) -> Option<Error> {
        let own = subscription
            .refusal()
            .filter(|_| !self.is_without.load(Ordering::Acquire));
        own.or_else(|| self.follows.refusal())
    }

    /// Parse Server 9.10 (ParseLiveQueryServer.js, `_handleSubscribe`) asks for the class permission `find` at each
    /// subscription, also at one to a single object, for which `get` is enough everywhere else.
    fn goes_without(&self, error: &Error) -> bool {
        let goes_without =
            self.may_go_without && error.is_fatal() && error.code() == Some(OPERATION_FORBIDDEN);
        self.is_without.fetch_or(goes_without, Ordering::AcqRel);
        goes_without
    }

    fn generation(&self) -> u64 {
        let subscription = self.subscription.get();
        subscription.map_or(0, |core| self.shared.generation(core))
    }

    /// Puts what the core has to tell into the mailbox, all at once: what follows from one thing is told in one go. The
    /// core stays locked meanwhile, so that what was first in there is first in here; what comes of it is
    /// [announced](Self::announce) when it is not.
    fn post(self: &Arc<Self>, core: &mut Core, error: Option<&Error>, generation: u64) -> Posted {
        *self.stale_since.lock() = core.stale_since();
        let mut errors = Vec::new();
        let mut refreshed = None;
        let ((), is_ready) = self.shared.put(self, |mailbox, limits, totals| {
            if let Some(error) = error {
                mailbox.tell(SetEvent::Error(error.clone()), None, limits, totals);
            }
            while let Some(output) = core.next_output() {
                let (event, receipt) = match output {
                    Output::Change(change, snapshot) => {
                        let single = parcel(change, snapshot.clone(), generation);
                        // Where too many changes wait, one that says to read the contents stands for all of them.
                        let all = || parcel(Change::Reset, snapshot, generation);
                        mailbox.accept_or_replace(single, all, limits, totals);
                        continue;
                    }
                    Output::Ready => {
                        let receipt = self.shared.receipt(&self.telling);
                        (SetEvent::Ready(Snapshot::empty(), generation), receipt)
                    }
                    Output::Stale(since) => (SetEvent::Stale(since), None),
                    Output::Failed(error) => {
                        errors.push(error.clone());
                        (SetEvent::Error(error), None)
                    }
                    Output::Refreshed(number, result) => {
                        refreshed = Some((number, result));
                        // Behind the changes that it led to.
                        if let Some(receipt) = self.shared.receipt(&self.telling) {
                            mailbox.receipt(receipt, totals);
                        }
                        continue;
                    }
                };
                mailbox.tell(event, receipt, limits, totals);
            }
        });
        if let Some(refreshed) = refreshed {
            *self.refreshed.lock() = refreshed;
            self.shared.status.changed();
        }
        Posted { is_ready, errors }
    }

    /// Code of the program may be called by this, which may ask the set: no lock is held.
    fn announce(self: &Arc<Self>, posted: Posted) {
        if posted.is_ready {
            self.shared.list(self);
        }
        for error in posted.errors {
            if self.shared.subscriber.emitter.is_heard(ClientEventKind::Error) {
                self.shared.fail(error, None);
            }
        }
    }

    /// Sees to it that what is to be fetched is fetched, now or when it is due.
    fn attend(self: &Arc<Self>) {
        let mut worker = self.worker.lock();
        let has_ended = self
            .subscription
            .get()
            .is_some_and(|core| self.shared.is_ended(core));
        if worker.is_running || worker.has_ended || has_ended {
            // The thread looks again before it ends.
            return;
        }
        let Some(request) = self.next_request(&mut worker) else {
            return;
        };
        let keeper = Arc::clone(self);
        let Err(error) = worker.start(move || keeper.work(request)) else {
            return;
        };
        drop(worker);
        let text = "the thread that fetches cannot be started";
        let error = Error::with_source(ErrorKind::Io, text, error);
        self.heard(self.generation(), |core, now| {
            core.could_not_start(error, now);
        });
        // It has a next time.
        self.attend();
    }

    /// What there is to fetch now. If that is later, the I/O looks again then.
    fn next_request(self: &Arc<Self>, worker: &mut Worker) -> Option<Box<Request>> {
        let task = self.core.lock().next_task(Instant::now());
        match task {
            Task::Fetch(request) => return Some(request),
            Task::Wait(None) => {}
            Task::Wait(Some(at)) if worker.called_at.is_some_and(|before| before <= at) => {}
            Task::Wait(Some(at)) => {
                worker.called_at = Some(at);
                let keeper = Arc::downgrade(self);
                self.shared.call_at(at, move || {
                    if let Some(keeper) = keeper.upgrade() {
                        keeper.worker.lock().called_at = None;
                        keeper.attend();
                    }
                });
            }
        }
        None
    }

    /// The thread that fetches, until there is nothing to do.
    fn work(self: &Arc<Self>, mut request: Box<Request>) {
        loop {
            self.carry_out(request);
            let mut worker = self.worker.lock();
            let next = if worker.has_ended {
                None
            } else {
                self.next_request(&mut worker)
            };
            match next {
                Some(next) => request = next,
                None => {
                    worker.is_running = false;
                    return;
                }
            }
        }
    }

    fn carry_out(self: &Arc<Self>, request: Box<Request>) {
        let Request { ticket, query, order } = *request;
        let Some(subscription) = self.subscription.get() else {
            return;
        };
        let generation = self.shared.generation(subscription);
        let token = self.session_token.lock().clone();
        let fetch = || (self.fetch)(&query, token.as_ref().map(Secret::reveal));
        let result = fence::run(fetch).unwrap_or_else(|text| {
            let text = format!("the function that fetches for a live set panicked: {text}");
            Err(Error::new(ErrorKind::Fetch, text).into())
        });
        // What takes long with many objects is done here, and not where listeners run.
        let result = result.map(|objects| {
            let entry = |object: &Object| Entry::new(&order, object, &subscription.class_name);
            let entries: Vec<_> = objects.iter().filter_map(entry).collect();
            if entries.len() < objects.len() {
                warn!("objects without objectId were fetched for {subscription}, and are left out");
            }
            entries
        });
        let is_asked = self.shared.generation(subscription) == generation;
        self.heard(generation, |core, now| {
            if is_asked {
                core.fetched(ticket, result, now);
            } else {
                // It was fetched for another session token.
                core.discarded(ticket, now);
            }
        });
    }
}

/// A code of Parse.
const OPERATION_FORBIDDEN: i64 = 119;

/// What a set has put into its mailbox, and nobody was told of yet.
struct Posted {
    /// It is not in the list of those that have letters.
    is_ready: bool,
    /// For the listeners of the client.
    errors: Vec<Error>,
}

fn parcel(change: Change, snapshot: Snapshot, generation: u64) -> Parcel<SetEvent> {
    Parcel {
        bytes: change.size() + 2 * size_of::<Letter<SetEvent>>(),
        event: SetEvent::Change(change, snapshot),
        generation,
        lost_before: 0,
    }
}

impl Follower for Keeper {
    fn take(self: Arc<Self>, shared: &Arc<Shared>, event: &Event, generation: u64) {
        let (mut core, now) = (self.core.lock(), Moment::now());
        let mut told = None;
        match (event.kind(), event.object(), event.error()) {
            // By now the last proof that nothing was missing before the cut is known.
            (EventKind::Open, ..) => core.opened(event.gap().map(|gap| gap.start()), now),
            (EventKind::Close, ..) => core.closed(now.time),
            (EventKind::Error, _, Some(error)) if self.goes_without(error) => {
                let name = self.name();
                warn!("{name}: {error}; it fetches again from time to time instead");
                core.go_without(now);
            }
            (EventKind::Error, _, Some(error)) => {
                // Whatever it is: an event may be lost with it.
                core.missed(now);
                told = Some(error);
            }
            (kind, Some(object), _) => core.event(kind, object, event.original(), now),
            _ => {}
        }
        let posted = self.post(&mut core, told, generation);
        drop(core);
        self.announce(posted);
        self.see_to_includes();
        let has_ended = self.subscription.get().is_some_and(|core| shared.is_ended(core));
        if has_ended && event.kind() == EventKind::Close {
            self.subscriber.end();
            let last = SetEvent::Stale(SystemTime::now());
            let void = shared.post(&self, |mailbox, _, totals| mailbox.end(last, totals));
            drop(void);
        }
        self.attend();
    }

    fn pass_on(self: Arc<Self>, shared: &Arc<Shared>, receipt: Arc<Receipt>) {
        shared.post(&self, |mailbox, _, totals| mailbox.receipt(receipt, totals));
    }
}

impl Host for Keeper {
    fn told(self: Arc<Self>, error: Option<&Error>, hear: &mut dyn FnMut(&mut Core, Moment)) {
        let mut core = self.core.lock();
        hear(&mut core, Moment::now());
        let posted = self.post(&mut core, error, self.generation());
        drop(core);
        self.announce(posted);
        self.see_to_includes();
        self.attend();
    }

    fn core(&self) -> &Mutex<Core> {
        &self.core
    }

    fn follows(&self) -> &Follows {
        &self.follows
    }

    fn session_token(&self) -> Option<Secret> {
        self.session_token.lock().clone()
    }

    fn pass_on(self: Arc<Self>, shared: &Arc<Shared>, receipt: Arc<Receipt>) {
        Follower::pass_on(self, shared, receipt);
    }
}

impl Addressee for Keeper {
    type Event = SetEvent;

    fn subscriber(&self) -> &Subscriber<SetEvent> {
        &self.subscriber
    }

    fn may_hear(&self, shared: &Shared, kind: SetEventKind, generation: Option<u64>) -> bool {
        let Some(subscription) = self.subscription.get() else {
            return true;
        };
        (kind == SetEventKind::Stale || !shared.is_ended(subscription))
            && generation.is_none_or(|generation| generation == shared.generation(subscription))
    }

    fn generation_of(&self, event: &SetEvent) -> Option<u64> {
        match event {
            SetEvent::Ready(_, generation) => Some(*generation),
            _ => None,
        }
    }

    fn prepare(&self, _: &Arc<Shared>, event: SetEvent, _: Option<u64>) -> SetEvent {
        event
    }

    fn skipped(&self) {
        self.subscriber.emitter.held(|shown| shown.is_torn = true);
    }

    fn pass_on(&self, shared: &Arc<Shared>, error: Option<Error>, _: Option<Arc<Receipt>>) {
        let is_heard = self.subscriber.emitter.is_heard(SetEventKind::Error)
            || shared.subscriber.emitter.is_heard(ClientEventKind::Error);
        if let Some(error) = error.filter(|_| !is_heard) {
            warn!("{}: {error}", self.name());
        }
    }

    fn name(&self) -> String {
        match self.subscription.get() {
            Some(subscription) => format!("the live set of {subscription}"),
            None => "a live set".to_owned(),
        }
    }
}

#[cfg(all(test, feature = "test-server", not(shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use crate::client::Client;
    use crate::query::Query;
    use crate::test_server::TestServer;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_thread_that_cannot_be_started_is_started_later() {
        let server = Arc::new(TestServer::start().unwrap());
        let client = Client::builder(server.url(), "any").build().unwrap();
        let errors = Arc::new(AtomicUsize::new(0));
        let (finding, counting) = (Arc::clone(&server), Arc::clone(&errors));
        let set = client
            .live_set(&Query::new("Game"))
            .fetch_with(move |query| finding.find(query))
            .on_error(move |error| {
                let text = "the thread that fetches cannot be started: no more threads";
                assert_eq!(error.to_string(), text);
                counting.fetch_add(1, Ordering::SeqCst);
            })
            .start()
            .unwrap();
        set.wait_ready(LONG).unwrap();
        // Nothing happens on the server that would have the set look again.
        loop {
            let mut worker = set.keeper().worker.lock();
            if !worker.is_running {
                worker.fails = 2;
                break;
            }
            drop(worker);
            std::thread::yield_now();
        }
        let refresh = set.refresh();
        assert!(refresh.wait(LONG).is_err());
        assert!(!set.is_ready() && set.stale_since().is_some());
        set.wait_ready(LONG).unwrap();
        assert_eq!(errors.load(Ordering::SeqCst), 2);
    }
}

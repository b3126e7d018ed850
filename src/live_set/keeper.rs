//! Keeps a live set: passes events and fetched objects to its core, and puts what the core reports into its
//! mailbox.
//!
//! It does not know the handles. The rules are in [`core`](super::core).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use crate::live_set::core::query::SAVED;
use crate::live_set::core::{Core, Moment, Output, Request, Task};
use crate::live_set::events::{SetEvent, SetEventKind};
use crate::live_set::follow::{Follows, Host};
use crate::live_set::pace::Pace;
use crate::logging::warn;
use crate::object::Object;
use crate::query::{EncodedQuery, Query};
use crate::secret::Secret;

/// How a set fetches: what `find()` returns for a query, with this session token.
pub(super) type FetchFn = dyn Fn(&Query, Option<&str>) -> Result<Vec<Object>, FetchError> + Send + Sync;

type InStep = dyn Fn(&Keeper) + Send + Sync;

/// One live set.
pub(crate) struct Keeper {
    pub(super) subscriber: Subscriber<SetEvent>,
    pub(super) core: Mutex<Core>,
    pub(super) session_token: Mutex<Option<Secret>>,
    /// The server refuses the subscription: the set fetches at intervals instead.
    is_without: AtomicBool,
    pub(super) pace: Pace,
    /// At least one of its queries includes objects.
    has_includes: AtomicBool,
    fetch: Box<FetchFn>,
    worker: Mutex<Worker>,
    pub(super) shared: Arc<Shared>,
    /// The sources of events: for the query that is shown, and for the next one.
    sources: Mutex<Vec<Arc<Source>>>,
    /// Called when another query is shown, or when the next one is no longer wanted.
    in_step: OnceLock<Box<InStep>>,
    /// The generation of the session token with which everything was last fetched.
    pub(super) filled_under: Mutex<Option<u64>>,
    /// The last query that the server has accepted or refused, with the result.
    answered: Mutex<(u64, Result<()>)>,
    /// Counts `ready` and `refreshed` events that have not been delivered yet.
    pub(super) telling: Arc<Count>,
    /// Since when the core knows that the contents may be out of date, which may be earlier than was
    /// reported.
    stale_since: Mutex<Option<SystemTime>>,
    /// The last refresh whose result is known, with the result.
    refreshed: Mutex<(u64, Result<()>)>,
    /// A handle to itself, if it has to live without handles until its end.
    held: Mutex<Option<Arc<Self>>>,
    /// How often changes were posted.
    posts: AtomicU64,
}

/// The fetching thread, which exists only while there is something to fetch.
#[derive(Default)]
struct Worker {
    is_running: bool,
    /// When the I/O checks again what to do.
    called_at: Option<Instant>,
    /// The set is gone.
    has_ended: bool,
    /// How many attempts to start it fail, for tests.
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
        shared: Arc<Shared>,
        pace: Pace,
    ) -> Arc<Self> {
        Arc::new(Self {
            is_without: AtomicBool::new(false),
            pace,
            has_includes: AtomicBool::new(false),
            subscriber: Subscriber::new(emitter),
            core: Mutex::new(core),
            session_token: Mutex::new(session_token),
            fetch,
            worker: Mutex::default(),
            stale_since: Mutex::default(),
            refreshed: Mutex::new((0, Ok(()))),
            shared,
            sources: Mutex::default(),
            in_step: OnceLock::new(),
            filled_under: Mutex::default(),
            answered: Mutex::new((0, Ok(()))),
            telling: Arc::default(),
            held: Mutex::default(),
            posts: AtomicU64::new(0),
        })
    }

    /// Adds the subscription for the query with this number, and the other subscriptions that decide which
    /// objects match. Call it before the first event, and before anything is sent.
    pub(super) fn follow(
        self: &Arc<Self>,
        number: u64,
        query: &Query,
        subscription: &Arc<SubscriptionCore>,
        client: Client,
        others: Vec<EncodedQuery>,
    ) {
        let mut sources = self.sources.lock();
        let source = Arc::new(Source {
            keeper: Arc::downgrade(self),
            number,
            subscription: Arc::clone(subscription),
            // From here on, all sources have had the same session tokens.
            base: sources.first().map_or(0, |source| source.tokens()),
            follows: Follows::new(client),
            has_includes: !query.included().is_empty(),
        });
        let follower: Weak<Source> = Arc::downgrade(&source);
        subscription.follow(follower);
        self.has_includes.fetch_or(source.has_includes, Ordering::Relaxed);
        sources.truncate(1);
        sources.push(Arc::clone(&source));
        drop(sources);
        let host: Arc<dyn Host> = Arc::clone(&source) as _;
        source.follows.follow_others(&host, others);
    }

    fn all_sources(&self) -> Vec<Arc<Source>> {
        self.sources.lock().clone()
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        self.all_sources()
            .iter()
            .map(|source| source.follows.len() + 1)
            .sum()
    }

    /// Follows the objects that are included now.
    fn see_to_includes(&self) {
        if !self.has_includes.load(Ordering::Relaxed) {
            return;
        }
        for source in self.all_sources() {
            if source.has_includes {
                let host: Arc<dyn Host> = Arc::clone(&source) as _;
                source.follows.see_to_includes(&host);
            }
        }
    }

    /// Reads the followed objects with another session token.
    pub(super) fn follow_as(&self, token: Option<&str>) -> Result<()> {
        self.all_sources()
            .iter()
            .try_for_each(|source| source.follows.set_session_token(token))
    }

    /// Stops following anything but the set's own objects.
    pub(super) fn end_follows(&self) {
        if self.shared.is_home() {
            self.all_sources().iter().for_each(|source| source.follows.end());
        }
    }

    /// Why the server refused a subscription that the set cannot do without.
    pub(super) fn refusal(&self, subscription: &SubscriptionCore) -> Option<Error> {
        let own = subscription
            .refusal()
            .filter(|_| !self.is_without.load(Ordering::Acquire));
        own.or_else(|| self.source()?.follows.refusal())
    }

    /// Parse Server 9.10 (ParseLiveQueryServer.js, `_handleSubscribe`) requires the class permission `find`
    /// for each subscription, even for one to a single object, for which `get` is enough everywhere else.
    fn goes_without(&self, error: &Error) -> bool {
        let goes_without =
            self.pace.is_of_one && error.is_fatal() && error.code() == Some(OPERATION_FORBIDDEN);
        self.is_without.fetch_or(goes_without, Ordering::AcqRel);
        goes_without
    }

    /// The source of the events for the query that is shown.
    pub(super) fn source(&self) -> Option<Arc<Source>> {
        self.sources.lock().first().cloned()
    }

    /// Counts the session tokens that the set and the client have had.
    pub(super) fn generation(&self) -> u64 {
        let source = self.source();
        source.map_or(0, |source| source.generation(&self.shared))
    }

    /// Reports the initial contents.
    pub(super) fn begin(self: &Arc<Self>) {
        self.heard(SAVED, self.generation(), |_, _| ());
    }

    /// Requests another query beside the current one. Its subscription must be [followed](Self::follow) next.
    /// The caller must [announce](Self::announce) the result when no lock is held.
    pub(super) fn set_query(self: &Arc<Self>, number: u64, next: Core) -> Posted {
        let generation = self.generation();
        let mut core = self.core.lock();
        core.set_query(number, next, Moment::now());
        self.post(&mut core, None, generation)
    }

    /// The numbers of the query that is shown, and of those that are to come.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.core.lock().numbers().collect()
    }

    /// Shows more objects of the query.
    pub(super) fn extend(self: &Arc<Self>, number: usize) {
        self.change(self.generation(), |core, now| core.extend(number, now));
        // A wait until the set is ready also covers the objects that were already held.
        if let Some(receipt) = self.shared.receipt(&self.telling) {
            self.shared
                .post(self, |mailbox, _, totals| mailbox.receipt(receipt, totals));
        }
        self.shared.wake_delivery();
        self.attend();
    }

    /// The result of a query, as soon as it is known and reported.
    pub(super) fn answered(&self, number: u64) -> Option<Result<()>> {
        let (last, result) = self.answered.lock().clone();
        (last >= number && self.telling.get() == 0).then_some(result)
    }

    /// Sets the function that drops subscriptions that are no longer needed.
    pub(super) fn stay_in_step(&self, keep: impl Fn(&Self) + Send + Sync + 'static) {
        self.in_step.get_or_init(|| Box::new(keep));
    }

    /// Accepts only events of these queries from now on.
    #[must_use = "code of the program may run when a source is dropped"]
    pub(super) fn drop_sources(&self, numbers: &[u64]) -> Vec<Arc<Source>> {
        let mut sources = self.sources.lock();
        let (wanted, done) = std::mem::take(&mut *sources)
            .into_iter()
            .partition(|source| numbers.contains(&source.number));
        *sources = wanted;
        done
    }

    pub(super) fn listen(
        self: &Arc<Self>,
        kind: Option<SetEventKind>,
        times: Times,
        listener: impl FnMut(&SetEvent) -> Result<()> + Send + 'static,
    ) -> ListenerId {
        if !self.shared.is_home() {
            drop_quietly(listener);
            return ListenerId::unused();
        }
        if kind == Some(SetEventKind::Batch) {
            self.subscriber
                .emitter
                .held(|shown| shown.gathered.is_wanted = true);
        }
        let (id, missed) = self.subscriber.emitter.on(kind, times, listener);
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

    /// The result of a refresh, as soon as it is known and reported.
    pub(super) fn refreshed(&self, number: u64) -> Option<Result<()>> {
        let (last, result) = self.refreshed.lock().clone();
        (last >= number && self.telling.get() == 0).then_some(result)
    }

    /// Since when the contents may be out of date, if that was reported.
    pub(super) fn stale_since(&self) -> Option<SystemTime> {
        if !self.shared.is_home() {
            return None;
        }
        let known = *self.stale_since.lock();
        let told = self.subscriber.emitter.held(|shown| shown.stale_since)?;
        Some(known.map_or(told, |known| known.min(told)))
    }

    /// Keeps itself alive until its end, whether there are handles or not.
    pub(super) fn hold_on(self: &Arc<Self>) {
        if !self.shared.is_home() {
            return;
        }
        *self.held.lock() = Some(Arc::clone(self));
        if self.has_ended() {
            self.let_go();
        }
    }

    fn let_go(&self) {
        let held = self.held.lock().take();
        drop(held);
    }

    fn has_ended(&self) -> bool {
        self.source()
            .is_some_and(|source| self.shared.is_ended(&source.subscription))
    }

    /// Whether the contents are known to be possibly out of date, reported or not.
    pub(super) fn is_stale(&self) -> bool {
        self.stale_since.lock().is_some()
    }

    /// No handle is left.
    pub(super) fn end(&self) {
        if !self.shared.is_home() {
            return;
        }
        self.worker.lock().has_ended = true;
        self.end_follows();
    }

    /// Passes the result of a fetch to the core.
    fn heard(self: &Arc<Self>, number: u64, generation: u64, hear: impl FnOnce(&mut Core, Moment)) {
        self.change(generation, |cores, now| {
            if let Some(core) = cores.of(number) {
                hear(core, now);
            }
        });
        self.see_to_includes();
        self.shared.wake_delivery();
    }

    /// Changes the core, and reports what follows from that.
    fn change(self: &Arc<Self>, generation: u64, change: impl FnOnce(&mut Core, Moment)) {
        let mut cores = self.core.lock();
        change(&mut cores, Moment::now());
        let posted = self.post(&mut cores, None, generation);
        drop(cores);
        self.announce(posted);
    }

    /// Puts everything that the core has to report into the mailbox at once, so that the consequences of one
    /// event are delivered together. The core stays locked meanwhile, so that the order in the mailbox is the
    /// order of the changes; the caller [announces](Self::announce) the result when it is no longer locked.
    fn post(self: &Arc<Self>, core: &mut Core, error: Option<&Error>, generation: u64) -> Posted {
        core.take_over();
        *self.stale_since.lock() = core.stale_since();
        let mut answered = None;
        let mut errors = Vec::new();
        let mut refreshed = None;
        let gathers = self.subscriber.emitter.is_heard(SetEventKind::Batch);
        let ((), is_ready) = self.shared.put(self, |mailbox, limits, totals| {
            // There are changes that no batch in the mailbox covers.
            let mut is_pending = false;
            if let Some(error) = error {
                mailbox.tell(SetEvent::Error(error.clone()), None, limits, totals);
            }
            while let Some(output) = core.next_output() {
                let is_change = matches!(output, Output::Change(..));
                if gathers && is_change && !is_pending && !self.is_long_run() {
                    mailbox.withdraw_sum(totals);
                } else if is_pending && !is_change {
                    mailbox.tell(SetEvent::batch(), None, limits, totals);
                }
                is_pending = gathers && is_change;
                let (event, receipt) = match output {
                    Output::Change(change, snapshot) => {
                        let single = parcel(change, snapshot.clone(), generation);
                        // If too many changes wait, one that says to read the contents replaces all of them.
                        let all = || parcel(Change::Reset, snapshot, generation);
                        mailbox.accept_or_replace(single, all, limits, totals);
                        continue;
                    }
                    Output::Ready => {
                        *self.filled_under.lock() = Some(generation);
                        let receipt = self.shared.receipt(&self.telling);
                        (SetEvent::Ready(Snapshot::empty(), generation), receipt)
                    }
                    Output::Stale(since) => (SetEvent::Stale(since), None),
                    Output::Failed(error) => {
                        errors.push(error.clone());
                        (SetEvent::Error(error), None)
                    }
                    output @ (Output::Refreshed(..) | Output::Answered(..)) => {
                        match output {
                            Output::Answered(number, result) => answered = Some((number, result)),
                            Output::Refreshed(number, result) => refreshed = Some((number, result)),
                            _ => {}
                        }
                        // After the changes that led to it.
                        if let Some(receipt) = self.shared.receipt(&self.telling) {
                            mailbox.receipt(receipt, totals);
                        }
                        continue;
                    }
                };
                mailbox.tell(event, receipt, limits, totals);
            }
            if is_pending {
                mailbox.tell(SetEvent::batch(), None, limits, totals);
            }
        });
        if let Some(refreshed) = refreshed {
            *self.refreshed.lock() = refreshed;
            self.shared.status.changed();
        }
        let is_answered = answered.is_some();
        if let Some(answered) = answered {
            *self.answered.lock() = answered;
            self.shared.status.changed();
        }
        Posted {
            is_ready,
            is_answered,
            errors,
        }
    }

    /// However fast changes come, a batch is delivered now and then.
    fn is_long_run(&self) -> bool {
        self.posts.fetch_add(1, Ordering::Relaxed) % LONGEST_RUN == 0
    }

    /// User code may be called by this, and may call the set: no lock is held.
    pub(super) fn announce(self: &Arc<Self>, posted: Posted) {
        if posted.is_ready {
            self.shared.list(self);
        }
        if let Some(keep) = self.in_step.get().filter(|_| posted.is_answered) {
            keep(self);
        }
        for error in posted.errors {
            if self.shared.subscriber.emitter.is_heard(ClientEventKind::Error) {
                self.shared.fail(error, None);
            }
        }
    }

    /// Makes sure that everything due is fetched, now or later.
    fn attend(self: &Arc<Self>) {
        let mut worker = self.worker.lock();
        if worker.is_running || worker.has_ended || self.has_ended() {
            // The thread checks again before it ends.
            return;
        }
        let Some(request) = self.next_request(&mut worker) else {
            return;
        };
        let (keeper, number) = (Arc::clone(self), request.1.number);
        let Err(error) = worker.start(move || keeper.work(request)) else {
            return;
        };
        drop(worker);
        let text = "the thread that fetches cannot be started";
        let error = Error::with_source(ErrorKind::Io, text, error);
        self.heard(number, self.generation(), |core, now| {
            core.could_not_start(error, now);
        });
        // There is a later attempt.
        self.attend();
    }

    /// The next request, if one is due now, and the session token it is for. If it is due later, the I/O checks again then.
    fn next_request(self: &Arc<Self>, worker: &mut Worker) -> Option<(u64, Box<Request>)> {
        let generation = self.generation();
        let mut core = self.core.lock();
        core.ask_for(generation);
        let task = core.next_task_of_any(Instant::now());
        drop(core);
        match task {
            Task::Fetch(request) => return Some((generation, request)),
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

    /// The fetching thread, until there is nothing to do.
    fn work(self: &Arc<Self>, mut request: (u64, Box<Request>)) {
        loop {
            self.carry_out(request.0, *request.1);
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

    fn carry_out(self: &Arc<Self>, generation: u64, request: Request) {
        let Request {
            number,
            ticket,
            query,
            order,
        } = request;
        let Some(source) = self.source() else {
            return;
        };
        let subscription = &source.subscription;
        let token = self.session_token.lock().clone();
        let fetch = || (self.fetch)(&query, token.as_ref().map(Secret::reveal));
        let result = fence::run(fetch).unwrap_or_else(|text| {
            let text = format!("the function that fetches for a live set panicked: {text}");
            Err(Error::new(ErrorKind::Fetch, text).into())
        });
        // Work that takes long with many objects is done here, and not on the thread of the listeners.
        let result = result.map(|objects| {
            let entry = |object: &Object| Entry::new(&order, object, &subscription.class_name);
            let entries: Vec<_> = objects.iter().filter_map(entry).collect();
            if entries.len() < objects.len() {
                warn!("objects without objectId, fetched for {subscription}, are ignored");
            }
            entries
        });
        let is_asked = self.generation() == generation;
        self.heard(number, generation, |core, now| {
            if is_asked {
                core.fetched(ticket, result, now);
            } else {
                // It was fetched with another session token.
                core.discarded(ticket, now);
            }
        });
    }
}

/// An error code of Parse.
const OPERATION_FORBIDDEN: i64 = 119;

/// What a set has put into its mailbox and has not announced yet.
pub(super) struct Posted {
    /// The mailbox must still join the list of mailboxes with letters.
    is_ready: bool,
    /// Another query is shown, or was refused.
    is_answered: bool,
    /// For the listeners of the client.
    errors: Vec<Error>,
}

fn refused(error: &Error) -> Error {
    let text = "the new query is refused; the live set keeps its current one";
    Error::with_source(error.kind(), text, error.clone())
}

fn parcel(change: Change, snapshot: Snapshot, generation: u64) -> Parcel<SetEvent> {
    Parcel {
        bytes: change.size() + 2 * size_of::<Letter<SetEvent>>(),
        event: SetEvent::Change(change, snapshot),
        generation,
        lost_before: 0,
    }
}

/// The source of the events of a query.
pub(super) struct Source {
    keeper: Weak<Keeper>,
    /// The number of the query.
    number: u64,
    pub(super) subscription: Arc<SubscriptionCore>,
    /// How many session tokens the set had had when this was created.
    base: u64,
    /// The other subscriptions of the query.
    pub(super) follows: Follows,
    has_includes: bool,
}

impl Source {
    /// How many session tokens the set has had.
    fn tokens(&self) -> u64 {
        self.base + self.subscription.subscriber.generation()
    }

    fn generation(&self, shared: &Shared) -> u64 {
        self.base + shared.generation(&self.subscription)
    }
}

impl Follower for Source {
    fn take(self: Arc<Self>, shared: &Arc<Shared>, event: &Event, generation: u64) {
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.take_from(&self, shared, event, self.base + generation);
        }
    }

    fn pass_on(self: Arc<Self>, shared: &Arc<Shared>, receipt: Arc<Receipt>) {
        if let Some(keeper) = self.keeper.upgrade() {
            shared.post(&keeper, |mailbox, _, totals| mailbox.receipt(receipt, totals));
        }
    }
}

impl Keeper {
    fn take_from(self: &Arc<Self>, source: &Source, shared: &Arc<Shared>, event: &Event, generation: u64) {
        let (mut cores, now) = (self.core.lock(), Moment::now());
        let is_shown = self.source().is_some_and(|shown| shown.number == source.number);
        let Some(core) = cores.of(source.number) else {
            // The query is no longer wanted.
            return;
        };
        let mut told = None;
        match (event.kind(), event.object(), event.error()) {
            // Now the last proof that nothing was missed before the connection was lost is known.
            (EventKind::Open, ..) => core.opened(event.gap().map(|gap| gap.start().into()), now),
            (EventKind::Close, ..) => core.closed(now.time),
            (EventKind::Error, _, Some(error)) if self.goes_without(error) => {
                let name = self.name();
                warn!("{name}: {error}; it fetches again at intervals instead");
                core.go_without(now);
            }
            (EventKind::Error, _, Some(error)) => {
                // Whatever the error: an event may be lost with it.
                core.missed(now);
                told = Some(error.clone());
                if error.is_fatal() && !is_shown {
                    let error = refused(error);
                    cores.withdraw(source.number, error.clone(), now);
                    told = Some(error);
                }
            }
            (kind, Some(object), _) => core.event(kind, object, event.original(), now),
            _ => {}
        }
        let posted = self.post(&mut cores, told.as_ref(), generation);
        drop(cores);
        self.announce(posted);
        self.see_to_includes();
        if is_shown && self.has_ended() && event.kind() == EventKind::Close {
            self.let_go();
            self.end_follows();
            self.subscriber.end();
            let last = SetEvent::Stale(SystemTime::now());
            let void = shared.post(self, |mailbox, _, totals| mailbox.end(last, totals));
            drop(void);
        }
        self.attend();
    }
}

impl Host for Source {
    fn told(self: Arc<Self>, error: Option<&Error>, hear: &mut dyn FnMut(&mut Core, Moment)) {
        let Some(keeper) = self.keeper.upgrade() else {
            return;
        };
        let generation = keeper.generation();
        let mut cores = keeper.core.lock();
        let Some(core) = cores.of(self.number) else {
            // The query is no longer wanted.
            return;
        };
        hear(core, Moment::now());
        let posted = keeper.post(&mut cores, error, generation);
        drop(cores);
        keeper.announce(posted);
        keeper.see_to_includes();
        keeper.attend();
    }

    fn refused(self: Arc<Self>, error: &Error) {
        let Some(keeper) = self.keeper.upgrade() else {
            return;
        };
        let is_shown = keeper.source().is_some_and(|shown| shown.number == self.number);
        if is_shown {
            return;
        }
        keeper.change(keeper.generation(), |cores, now| {
            cores.withdraw(self.number, refused(error), now);
        });
        keeper.attend();
    }

    fn with_core(&self, ask: &mut dyn FnMut(&mut Core)) {
        if let Some(keeper) = self.keeper.upgrade() {
            if let Some(core) = keeper.core.lock().of(self.number) {
                ask(core);
            }
        }
    }

    fn follows(&self) -> &Follows {
        &self.follows
    }

    fn session_token(&self) -> Option<Secret> {
        self.keeper.upgrade()?.session_token.lock().clone()
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
        let Some(source) = self.source() else {
            return true;
        };
        (kind == SetEventKind::Stale || !shared.is_ended(&source.subscription))
            && generation.is_none_or(|generation| generation == source.generation(shared))
    }

    fn generation_of(&self, event: &SetEvent) -> Option<u64> {
        match event {
            SetEvent::Ready(_, generation) => Some(*generation),
            _ => None,
        }
    }

    fn prepare(&self, _: &Arc<Shared>, event: SetEvent, generation: Option<u64>) -> SetEvent {
        let is_of_batches = matches!(event, SetEvent::Change(..) | SetEvent::Batch(..));
        if is_of_batches && self.subscriber.emitter.is_heard(SetEventKind::Batch) {
            let generation = generation.unwrap_or_else(|| self.generation());
            self.subscriber
                .emitter
                .held(|shown| shown.gathered.under(generation));
        }
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
        match self.source() {
            Some(source) => format!("the live set of {}", source.subscription),
            None => "a live set".to_owned(),
        }
    }
}

/// After this many inputs that led to changes, a batch is delivered, even if another change waits behind it.
const LONGEST_RUN: u64 = 256;

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
        // No event on the server would make the set check again.
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

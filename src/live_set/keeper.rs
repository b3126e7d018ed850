//! Keeps a live set: brings events and what was fetched to its core, and what follows from them to its mailbox.
//!
//! Knows nothing of handles. What follows from what is in [`core`](super::core).

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::delivery::emitter::{Emitter, ListenerId, Missed, Times};
use crate::delivery::mailbox::{Letter, Parcel};
use crate::delivery::shared::Addressee;
use crate::delivery::shared::Shared;
use crate::delivery::status::{Count, Receipt};
use crate::delivery::subscriber::Subscriber;
use crate::delivery::subscription::{Follower, SubscriptionCore};
use crate::delivery::sync;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEventKind, Event, EventKind};
use crate::fence;
use crate::fenced::drop_quietly;
use crate::fetch_error::FetchError;
use crate::live_set::change::{Change, Entry, Snapshot};
use crate::live_set::core::{Core, Output, Request, Task};
use crate::live_set::events::{SetEvent, SetEventKind};
use crate::logging::{error, warn};
use crate::object::Object;
use crate::query::Query;
use crate::secret::Secret;

/// How a set fetches: what `find()` returns for a query, with this session token.
pub(super) type FetchFn = dyn Fn(&Query, Option<&str>) -> Result<Vec<Object>, FetchError> + Send + Sync;

/// One live set.
pub(crate) struct Keeper {
    pub(super) subscriber: Subscriber<SetEvent>,
    pub(super) core: Mutex<Core>,
    pub(super) session_token: Mutex<Option<Secret>>,
    fetch: Box<FetchFn>,
    worker: sync::Mutex<Worker>,
    wake_worker: sync::Condvar,
    pub(super) shared: Arc<Shared>,
    /// There as soon as the subscription is.
    subscription: OnceLock<Arc<SubscriptionCore>>,
    /// That the set is ready and was not told yet.
    pub(super) telling: Arc<Count>,
}

/// The thread that fetches, which is there while there is something to fetch.
#[derive(Default)]
struct Worker {
    is_running: bool,
    /// It is to look again what there is to do.
    is_called: bool,
    /// The set is gone.
    has_ended: bool,
}

impl Keeper {
    pub(super) fn new(
        core: Core,
        emitter: Emitter<SetEvent>,
        fetch: Box<FetchFn>,
        session_token: Option<Secret>,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new(Self {
            subscriber: Subscriber::new(emitter),
            core: Mutex::new(core),
            session_token: Mutex::new(session_token),
            fetch,
            worker: sync::Mutex::new(Worker::default()),
            wake_worker: sync::Condvar::new(),
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
        kind: SetEventKind,
        listener: impl FnMut(&SetEvent) -> Result<()> + Send + 'static,
    ) -> ListenerId {
        if !self.shared.is_home() {
            drop_quietly(listener);
            return ListenerId::unused();
        }
        let (id, missed) = self.subscriber.emitter.on(Some(kind), Times::Always, listener);
        if missed == Missed::Yes {
            self.shared.late(self, id);
        }
        id
    }

    /// Fetches everything again.
    pub(super) fn refresh(self: &Arc<Self>) {
        if !self.shared.is_home() {
            return;
        }
        self.core.lock().refresh();
        self.attend();
    }

    /// No handle is left.
    pub(super) fn end(&self) {
        if !self.shared.is_home() {
            return;
        }
        self.worker.lock().has_ended = true;
        self.wake_worker.notify_all();
    }

    /// What came of a request.
    fn fetched(self: &Arc<Self>, ticket: u64, result: Result<Vec<Arc<Entry>>, FetchError>, generation: u64) {
        let mut core = self.core.lock();
        core.fetched(ticket, result, Instant::now());
        self.post(&mut core, generation);
        drop(core);
        self.shared.wake_delivery();
        self.attend();
    }

    /// Puts what the core has to tell into the mailbox, all at once: what follows from one thing is told in one go. The
    /// core stays locked meanwhile, so that what was first in there is first in here.
    fn post(self: &Arc<Self>, core: &mut Core, generation: u64) {
        let outputs: Vec<_> = std::iter::from_fn(|| core.next_output()).collect();
        if outputs.is_empty() {
            return;
        }
        for output in &outputs {
            if let Output::Failed(error) = output {
                if self.shared.subscriber.emitter.is_heard(ClientEventKind::Error) {
                    self.shared.fail(error.clone(), None);
                }
            }
        }
        self.shared.post(self, |mailbox, limits, totals| {
            for output in outputs {
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
                    Output::Failed(error) => (SetEvent::Error(error), None),
                };
                mailbox.tell(event, receipt, limits, totals);
            }
        });
    }

    fn tell(self: &Arc<Self>, event: SetEvent, receipt: Option<Arc<Receipt>>) {
        self.shared.post(self, |mailbox, limits, totals| {
            mailbox.tell(event, receipt, limits, totals);
        });
    }

    /// Sees to it that what is to be fetched is fetched.
    fn attend(self: &Arc<Self>) {
        let mut worker = self.worker.lock();
        if worker.has_ended {
            return;
        }
        if worker.is_running {
            worker.is_called = true;
            self.wake_worker.notify_all();
            return;
        }
        let task = self.core.lock().next_task(Instant::now());
        if matches!(task, Task::Wait(None)) {
            return;
        }
        let keeper = Arc::clone(self);
        let thread = std::thread::Builder::new().name("livequery-fetch".to_owned());
        match thread.spawn(move || keeper.work(task)) {
            Ok(_) => worker.is_running = true,
            Err(error) => {
                drop(worker);
                error!("the thread that fetches cannot be started: {error}");
                self.core.lock().refresh();
            }
        }
    }

    /// The thread that fetches, until there is nothing to do.
    fn work(self: &Arc<Self>, mut task: Task) {
        loop {
            match task {
                Task::Fetch(request) => {
                    self.carry_out(request);
                    if self.worker.lock().has_ended {
                        return;
                    }
                }
                Task::Wait(until) => {
                    let mut worker = self.worker.lock();
                    if worker.has_ended || until.is_none() && !worker.is_called {
                        worker.is_running = false;
                        return;
                    }
                    if let Some(until) = until.filter(|_| !worker.is_called) {
                        sync::wait_until(&self.wake_worker, &mut worker, until);
                    }
                    worker.is_called = false;
                }
            }
            task = self.core.lock().next_task(Instant::now());
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
        // With another session token the set is about to start over.
        if self.shared.generation(subscription) == generation {
            self.fetched(ticket, result, generation);
        }
    }
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
        let mut core = self.core.lock();
        match (event.kind(), event.object(), event.error()) {
            (EventKind::Open, ..) => {
                core.opened();
                // By now the last proof that nothing was missing before the cut is known.
                if let Some(gap) = event.gap() {
                    self.subscriber.emitter.held(|shown| {
                        shown.stale_since = shown.stale_since.map(|since| since.min(gap.start()));
                    });
                }
            }
            (EventKind::Close, ..) => core.closed(SystemTime::now()),
            (EventKind::Error, _, Some(error)) => {
                match error.kind() {
                    ErrorKind::Lagged => core.lagged(SystemTime::now()),
                    // A hook of the server failed, and the event with it.
                    ErrorKind::Server if !error.is_fatal() => core.missed(),
                    _ => {}
                }
                self.tell(SetEvent::Error(error.clone()), None);
            }
            (kind, Some(object), _) => core.event(kind, object, event.original(), Instant::now()),
            _ => {}
        }
        self.post(&mut core, generation);
        drop(core);
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

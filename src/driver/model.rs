//! Delivery under the model checker: what must be true whatever the threads do in whatever order.
//!
//! Run with `RUSTFLAGS='--cfg shuttle' cargo test --lib --target-dir target/shuttle model`;
//! `SHUTTLE_ITERATIONS` sets the number of schedules for each test (10,000 by default), half of them random,
//! half by PCT.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
use shuttle::thread;

use crate::delivery::deliver::{deliver_all, dispatch_pending, dispatch_pending_timeout};
use crate::delivery::emitter::{Emitter, Missed, Times};
use crate::delivery::mailbox::{Limits, Overflow, Parcel};
use crate::delivery::queue::{Dispatch, Queue};
use crate::delivery::shared::Budget;
use crate::delivery::shared::Shared;
use crate::delivery::subscription::SubscriptionCore;
use crate::delivery::sync::{Condvar, Mutex};
use crate::driver::threads::{Relay, Work};
use crate::error::{Error, ErrorKind};
use crate::event::{Change, Event, EventKind};
use crate::object::Object;

fn check(scenario: impl Fn() + Send + Sync + 'static) {
    let iterations = std::env::var("SHUTTLE_ITERATIONS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(10_000);
    let scenario = Arc::new(scenario);
    let random = Arc::clone(&scenario);
    shuttle::check_random(move || random(), iterations / 2);
    shuttle::check_pct(move || scenario(), iterations / 2, 3);
}

fn limits(objects: usize, overflow: Overflow) -> Limits {
    Limits {
        objects,
        bytes: 1_000_000,
        overflow,
    }
}

fn shared(limits: Limits, dispatch: Dispatch, wake: impl Fn() + Send + Sync + 'static) -> Arc<Shared> {
    Arc::new(Shared::new(Queue::new(limits, dispatch), None, wake))
}

fn client() -> Arc<Shared> {
    shared(limits(100, Overflow::DropNewest), Dispatch::thread(), || ())
}

fn object() -> Object {
    Object::from_frame(Arc::from(r#"{"objectId":"a"}"#), 0..16, None)
}

fn create() -> Event {
    Event::changed(EventKind::Create, Change::new(object(), None))
}

fn send(shared: &Arc<Shared>, core: &Arc<SubscriptionCore>) {
    let parcel = Parcel {
        event: create(),
        bytes: 10,
        generation: shared.generation(core),
        lost_before: 0,
    };
    shared.deliver_object(core, parcel);
}

fn subscription(shared: &Arc<Shared>) -> Arc<SubscriptionCore> {
    Arc::new(SubscriptionCore::new(
        shared.next_id(),
        "Game".into(),
        Emitter::new(),
    ))
}

fn on(core: &SubscriptionCore, kind: EventKind, mut listener: impl FnMut(&Event) + Send + 'static) {
    core.subscriber
        .emitter
        .on(Some(kind), Times::Always, move |event| {
            listener(event);
            Ok(())
        });
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

/// Delivers until told to stop.
fn deliver_until(shared: &Arc<Shared>, stop: &AtomicBool) {
    loop {
        let last = stop.load(SeqCst);
        deliver_all(shared, &mut Budget::unlimited());
        if last {
            return;
        }
        thread::yield_now();
    }
}

/// Two listeners, and a call that rules both out: once it has returned, neither starts. A listener that was
/// being called at that very moment counts as running, whether it has reached its first line or not.
fn nothing_starts_after(end: impl Fn(&Arc<Shared>, &Arc<SubscriptionCore>) + Send + Sync + 'static) {
    check(move || {
        let shared = client();
        let core = subscription(&shared);
        let (returned, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let late = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (returned, late) = (Arc::clone(&returned), Arc::clone(&late));
            on(&core, EventKind::Create, move |_| {
                if returned.load(SeqCst) {
                    late.fetch_add(1, SeqCst);
                }
                thread::yield_now();
            });
        }
        send(&shared, &core);
        send(&shared, &core);
        let delivery = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::spawn(move || deliver_until(&shared, &stop))
        };
        end(&shared, &core);
        returned.store(true, SeqCst);
        stop.store(true, SeqCst);
        delivery.join().unwrap();
        assert!(
            late.load(SeqCst) <= 1,
            "a listener started after the call had returned"
        );
    });
}

#[test]
fn nothing_starts_after_a_subscription_was_ended() {
    nothing_starts_after(|shared, core| shared.end(core, None));
}

#[test]
fn nothing_starts_after_a_close() {
    nothing_starts_after(|shared, _| {
        shared.end_all();
    });
}

#[test]
fn nothing_starts_after_a_change_of_the_session_token() {
    nothing_starts_after(|_, core| {
        core.subscriber.next_generation();
    });
    nothing_starts_after(|shared, _| {
        shared.change_session_token(None);
    });
}

#[test]
fn nothing_starts_after_the_listeners_were_removed() {
    nothing_starts_after(|_, core| core.subscriber.emitter.remove_all(Some(EventKind::Create)));
}

#[test]
fn who_waits_for_the_end_goes_on_when_all_was_told() {
    check(|| {
        let shared = client();
        let core = subscription(&shared);
        let (running, closed, stop) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let is_running = Arc::clone(&running);
        on(&core, EventKind::Create, move |_| {
            is_running.store(true, SeqCst);
            thread::yield_now();
            is_running.store(false, SeqCst);
        });
        let told = Arc::clone(&closed);
        on(&core, EventKind::Close, move |_| told.store(true, SeqCst));
        shared.tell_of(&core, Event::opened(None), None);
        send(&shared, &core);
        let delivery = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::spawn(move || deliver_until(&shared, &stop))
        };
        let io = {
            let (shared, core) = (Arc::clone(&shared), Arc::clone(&core));
            thread::spawn(move || send(&shared, &core))
        };
        let was_open = core.subscriber.emitter.held(|open| open.is_some());
        shared.end(&core, None);
        shared.wait_ended(&core, far()).unwrap();
        assert!(!running.load(SeqCst));
        assert!(closed.load(SeqCst) || !was_open, "the last close was not told");
        stop.store(true, SeqCst);
        delivery.join().unwrap();
        io.join().unwrap();
    });
}

#[test]
fn who_waits_for_open_goes_on_when_the_listeners_have_returned() {
    check(|| {
        let shared = client();
        let core = subscription(&shared);
        let told = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let told = Arc::clone(&told);
            on(&core, EventKind::Open, move |_| {
                thread::yield_now();
                told.fetch_add(1, SeqCst);
            });
        }
        let stop = Arc::new(AtomicBool::new(false));
        let delivery = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::spawn(move || deliver_until(&shared, &stop))
        };
        let io = {
            let (shared, core) = (Arc::clone(&shared), Arc::clone(&core));
            thread::spawn(move || shared.tell_of(&core, Event::opened(None), None))
        };
        shared.wait_open(&core, far()).unwrap();
        assert_eq!(told.load(SeqCst), 2);
        stop.store(true, SeqCst);
        delivery.join().unwrap();
        io.join().unwrap();
    });
}

#[test]
fn every_wait_ends_when_the_threads_die() {
    check(|| {
        let shared = client();
        let core = subscription(&shared);
        let order = shared.status.order();
        let waits = [
            {
                let (shared, core) = (Arc::clone(&shared), Arc::clone(&core));
                thread::spawn(move || shared.wait_open(&core, far()).is_err())
            },
            {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.wait_closed().is_err())
            },
            {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.wait_connected(far()).is_err())
            },
        ];
        shared.die(Error::new(ErrorKind::Io, "a thread panicked").fatal());
        for wait in waits {
            assert!(wait.join().unwrap());
        }
        drop(order);
    });
}

#[test]
fn each_object_is_delivered_or_reported_as_lost() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        check(move || {
            let shared = shared(limits(2, overflow), Dispatch::thread(), || ());
            let core = subscription(&shared);
            let (told, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let objects = Arc::clone(&told);
            on(&core, EventKind::Create, move |_| {
                objects.fetch_add(1, SeqCst);
            });
            let reported = Arc::clone(&lost);
            on(&core, EventKind::Error, move |event| {
                let number = event.error().and_then(Error::dropped).unwrap_or(0);
                reported.fetch_add(usize::try_from(number).unwrap(), SeqCst);
            });
            let io = {
                let (shared, core) = (Arc::clone(&shared), Arc::clone(&core));
                thread::spawn(move || (0..5).for_each(|_| send(&shared, &core)))
            };
            deliver_all(&shared, &mut Budget::unlimited());
            io.join().unwrap();
            deliver_all(&shared, &mut Budget::unlimited());
            assert_eq!(told.load(SeqCst) + lost.load(SeqCst), 5);
            assert_eq!(shared.queue.letters(), 0);
        });
    }
}

#[test]
fn a_late_listener_hears_of_an_open_that_holds_just_once() {
    check(|| {
        let shared = client();
        let core = subscription(&shared);
        let io = {
            let (shared, core) = (Arc::clone(&shared), Arc::clone(&core));
            thread::spawn(move || {
                shared.tell_of(&core, Event::opened(None), None);
                send(&shared, &core);
                deliver_all(&shared, &mut Budget::unlimited());
            })
        };
        let told = Arc::new(AtomicUsize::new(0));
        let opens = Arc::clone(&told);
        let (id, missed) = core.subscriber.emitter.on(None, Times::Always, move |event| {
            if event.kind() == EventKind::Open {
                opens.fetch_add(1, SeqCst);
            }
            Ok(())
        });
        if missed == Missed::Yes {
            shared.late(&core, id);
        }
        io.join().unwrap();
        deliver_all(&shared, &mut Budget::unlimited());
        assert_eq!(told.load(SeqCst), 1);
    });
}

/// Wake-ups that wait to be handled, as in the event loop of a GUI.
#[derive(Default)]
struct Wakes {
    number: Mutex<usize>,
    woken: Condvar,
}

impl Wakes {
    fn add(&self) {
        *self.number.lock() += 1;
        self.woken.notify_all();
    }

    fn take(&self) {
        let mut number = self.number.lock();
        while *number == 0 {
            self.woken.wait(&mut number);
        }
        *number -= 1;
    }
}

/// Two threads that dispatch once for each wake-up, and a listener that dispatches too and is turned away:
/// everything is delivered, or one of the threads would wait forever.
#[test]
fn a_program_that_dispatches_once_for_each_wake_up_misses_nothing() {
    check(|| {
        const OBJECTS: usize = 4;
        let wakes = Arc::new(Wakes::default());
        let wake = Arc::clone(&wakes);
        let shared = shared(
            limits(100, Overflow::DropNewest),
            Dispatch::manual(move || wake.add()),
            || (),
        );
        let core = subscription(&shared);
        let told = Arc::new(AtomicUsize::new(0));
        let (objects, nested, all) = (Arc::clone(&told), Arc::downgrade(&shared), Arc::clone(&wakes));
        on(&core, EventKind::Create, move |_| {
            thread::yield_now();
            if let Some(shared) = nested.upgrade() {
                assert_eq!(dispatch_pending(&shared, None), 0);
            }
            if objects.fetch_add(1, SeqCst) + 1 == OBJECTS {
                // Both threads may end.
                all.add();
                all.add();
            }
        });
        let loops: Vec<_> = (0..2)
            .map(|_| {
                let (shared, wakes, told) = (Arc::clone(&shared), Arc::clone(&wakes), Arc::clone(&told));
                thread::spawn(move || {
                    while told.load(SeqCst) < OBJECTS {
                        wakes.take();
                        dispatch_pending(&shared, None);
                    }
                })
            })
            .collect();
        for _ in 0..OBJECTS {
            send(&shared, &core);
        }
        for event_loop in loops {
            event_loop.join().unwrap();
        }
        shared.queue.close();
    });
}

#[test]
fn a_program_that_polls_is_woken_when_something_comes() {
    check(|| {
        let shared = shared(limits(100, Overflow::DropNewest), Dispatch::polled(), || ());
        let core = subscription(&shared);
        let poller = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut delivered = 0;
                while delivered < 3 {
                    delivered += dispatch_pending_timeout(&shared, far());
                }
            })
        };
        for _ in 0..3 {
            send(&shared, &core);
        }
        poller.join().unwrap();
        shared.queue.close();
    });
}

/// Takes the place of the driver: it sends what it is told to.
struct Sender {
    shared: Arc<Shared>,
    core: Arc<SubscriptionCore>,
    wakes: Arc<Wakes>,
    script: Arc<Mutex<VecDeque<bool>>>,
    in_use: Arc<AtomicBool>,
}

impl Work for Sender {
    fn run(&mut self, stop: &mut dyn FnMut() -> bool) -> bool {
        assert!(!self.in_use.swap(true, SeqCst), "the driver is in two hands");
        let goes_on = loop {
            let next = self.script.lock().pop_front();
            match next {
                Some(true) => send(&self.shared, &self.core),
                Some(false) => break false,
                None => {}
            }
            if stop() {
                break true;
            }
            if next.is_none() {
                self.wakes.take();
            }
        };
        self.in_use.store(false, SeqCst);
        goes_on
    }
}

/// The first listener waits for something that only the I/O can bring, so the other thread must do the I/O in
/// the meantime. Everything arrives, the driver is in one hand at a time and never lost, and both threads
/// end.
#[test]
fn the_driver_is_handed_on_and_never_lost() {
    check(|| {
        const OBJECTS: usize = 3;
        let wakes = Arc::new(Wakes::default());
        let wake = Arc::clone(&wakes);
        let shared = shared(limits(100, Overflow::DropNewest), Dispatch::thread(), move || {
            wake.add()
        });
        let core = subscription(&shared);
        let told = Arc::new(AtomicUsize::new(0));
        let (objects, client) = (Arc::clone(&told), Arc::downgrade(&shared));
        on(&core, EventKind::Create, move |_| {
            if objects.fetch_add(1, SeqCst) == 0 {
                // They are delivered after this one, so the letters show that they have come.
                while client
                    .upgrade()
                    .is_some_and(|shared| shared.queue.letters() < OBJECTS)
                {
                    thread::yield_now();
                }
            }
        });
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let driver = Sender {
            shared: Arc::clone(&shared),
            core,
            wakes: Arc::clone(&wakes),
            script: Arc::clone(&script),
            in_use: Arc::new(AtomicBool::new(false)),
        };
        let relay = Arc::new(Relay::new(Arc::clone(&shared), driver));
        let threads = {
            let (dispatcher, deputy) = (Arc::clone(&relay), Arc::clone(&relay));
            [
                thread::spawn(move || dispatcher.dispatch()),
                thread::spawn(move || deputy.deputise()),
            ]
        };
        for _ in 0..OBJECTS {
            script.lock().push_back(true);
            wakes.add();
        }
        while told.load(SeqCst) < OBJECTS {
            thread::yield_now();
        }
        script.lock().push_back(false);
        wakes.add();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(told.load(SeqCst), OBJECTS);
    });
}

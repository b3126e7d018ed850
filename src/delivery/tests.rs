//! What a mailbox keeps, what it drops, and how it reports that.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::emitter::{Emitter, Listeners, Times};
use super::mailbox::{Letter, Limits, Mailbox, Overflow, Parcel, Totals};
use crate::error::{Error, ErrorKind};
use crate::event::{Change, ClientEvent, Event, EventKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

const NO_LIMITS: Limits = Limits {
    objects: usize::MAX,
    bytes: usize::MAX / 8,
    overflow: Overflow::DropNewest,
};

fn parcel(bytes: usize) -> Parcel<Event> {
    Parcel {
        // Which event it is does not matter to a mailbox.
        event: Event::opened(None),
        bytes,
        generation: 0,
        lost_before: 0,
    }
}

fn failed(text: &str) -> Event {
    Event::failed(Error::new(ErrorKind::Server, text))
}

/// What the listeners would receive: how many objects were dropped, errors by how many they represent, and
/// objects.
fn contents(mailbox: &mut Mailbox<Event>, totals: &Totals) -> (u64, u64, u64) {
    let (mut lost, mut errors, mut objects) = (0, 0, 0);
    while let Some(letter) = mailbox.pop(totals) {
        totals.letters.fetch_sub(1, Ordering::Relaxed);
        match letter {
            Letter::Object(parcel) => {
                objects += 1;
                lost += parcel.lost_before;
            }
            Letter::Lagged(number) => lost += number,
            Letter::Told(event, _) => errors += event.error().map_or(0, Error::occurrences),
            _ => {}
        }
    }
    (lost, errors, objects)
}

#[test]
fn equal_errors_in_a_row_are_one_with_a_count() {
    let (mut mailbox, totals) = (Mailbox::<Event>::new(), Totals::default());
    for text in ["a", "a", "a", "b", "a"] {
        mailbox.tell(failed(text), None, &NO_LIMITS, &totals);
    }
    let mut told = Vec::new();
    while let Some(Letter::Told(event, _)) = mailbox.pop(&totals) {
        told.push(event.error().unwrap().to_string());
    }
    assert_eq!(told, ["a (3 such errors)", "b", "a"]);
}

#[test]
fn errors_that_all_differ_are_counted_where_too_many_wait() {
    let (mut mailbox, totals) = (Mailbox::<Event>::new(), Totals::default());
    for n in 0..100_000 {
        mailbox.tell(failed(&n.to_string()), None, &NO_LIMITS, &totals);
    }
    assert!(totals.letters.load(Ordering::Relaxed) < 200);
    assert_eq!(contents(&mut mailbox, &totals).1, 100_000);
}

#[test]
fn a_fatal_error_is_told_however_many_wait() {
    let (mut mailbox, totals) = (Mailbox::<Event>::new(), Totals::default());
    for n in 0..1000 {
        mailbox.tell(failed(&n.to_string()), None, &NO_LIMITS, &totals);
    }
    let fatal = Error::new(ErrorKind::Server, "refused").fatal();
    mailbox.tell(Event::failed(fatal), None, &NO_LIMITS, &totals);
    let mut last = None;
    while let Some(Letter::Told(event, _)) = mailbox.pop(&totals) {
        last = event.error().cloned();
    }
    assert!(last.unwrap().is_fatal());
}

#[test]
fn who_may_not_hear_open_does_not_hear_close() {
    // Ended before all listeners were called with `open`, or before a late one was: after this many checks.
    for ended_after in 0..3 {
        let emitter = Emitter::<Event>::new();
        let told: Vec<Arc<Mutex<Vec<_>>>> = (0..3).map(|_| Arc::default()).collect();
        let listen = |at: usize| {
            let told = Arc::clone(&told[at]);
            let hear = move |event: &Event| {
                told.lock().push(event.kind());
                Ok(())
            };
            emitter.on(None, Times::Always, hear)
        };
        listen(0);
        listen(1);
        let asked = Cell::new(0);
        let may = |kind| kind == EventKind::Close || asked.replace(asked.get() + 1) < ended_after;
        emitter.emit(Event::opened(None), &mut Listeners::default(), &may);
        let (late, _) = listen(2);
        emitter.emit_missed(late, &may);
        emitter.emit(Event::closed(None), &mut Listeners::default(), &may);
        for (at, told) in told.iter().enumerate() {
            let whole: &[_] = &[EventKind::Open, EventKind::Close];
            let wanted = if at < ended_after { whole } else { &[] };
            assert_eq!(*told.lock(), wanted, "listener {at}, ended after {ended_after}");
        }
    }
}

/// The listeners are looked up once for all events of a turn, unless they change meanwhile.
#[test]
fn who_comes_or_goes_between_two_events_of_a_turn_is_known() {
    let emitter = Emitter::<Event>::new();
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    let owned = Arc::new(());
    let listen = |name: &'static str, kind: EventKind, times: Times| {
        let (told, owned) = (Arc::clone(&told), Arc::clone(&owned));
        let hear = move |event: &Event| {
            let _ = &owned;
            told.lock().push((name, event.kind()));
            Ok(())
        };
        emitter.on(Some(kind), times, hear).0
    };
    let mut turn = Listeners::default();
    let mut told_of = |event: Event| {
        emitter.emit(event, &mut turn, &|_| true);
        std::mem::take(&mut *told.lock())
    };
    let create = || {
        let object = r#"{"objectId":"a"}"#.parse().unwrap();
        Event::changed(EventKind::Create, Change::new(object, None))
    };
    let first = listen("first", EventKind::Create, Times::Always);
    assert_eq!(told_of(Event::opened(None)), []);
    assert_eq!(told_of(create()), [("first", EventKind::Create)]);
    listen("once", EventKind::Create, Times::Once);
    let both = [("first", EventKind::Create), ("once", EventKind::Create)];
    assert_eq!(told_of(create()), both);
    assert_eq!(told_of(create()), both[..1]);
    assert!(emitter.off(first));
    assert_eq!(told_of(create()), []);
    // What is gone is dropped with the next event, not only at the end of the turn.
    assert_eq!(Arc::strong_count(&owned), 1);
    listen("again", EventKind::Create, Times::Always);
    // It is late for `open`, and is told of that before the next event.
    listen("late", EventKind::Open, Times::Always);
    let told = told_of(create());
    assert_eq!(told, [("again", EventKind::Create), ("late", EventKind::Open)]);
    emitter.close();
    assert_eq!(told_of(create()), []);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn of_a_link_that_comes_and_goes_the_last_state_is_kept() {
    let (mut mailbox, totals) = (Mailbox::<ClientEvent>::new(), Totals::default());
    let lost = || Error::new(ErrorKind::ConnectionLost, "gone");
    for round in 0..10_000 {
        mailbox.tell(ClientEvent::opened(), None, &NO_LIMITS, &totals);
        mailbox.tell(ClientEvent::closed(Some(lost())), None, &NO_LIMITS, &totals);
        for attempt in 0..3 {
            let event = ClientEvent::reconnecting(lost(), attempt, Duration::from_secs(round));
            mailbox.tell(event, None, &NO_LIMITS, &totals);
        }
    }
    assert!(totals.letters.load(Ordering::Relaxed) < 200);
    let mut is_open = false;
    while let Some(Letter::Told(event, _)) = mailbox.pop(&totals) {
        match event.kind().as_str() {
            "open" => assert!(!std::mem::replace(&mut is_open, true), "open twice"),
            "close" => assert!(std::mem::take(&mut is_open), "closed twice"),
            _ => assert!(!is_open, "it is not tried again while it is open"),
        }
        assert!(
            event
                .delay()
                .is_none_or(|delay| delay < Duration::from_secs(10_000))
        );
    }
    assert!(!is_open);
}

#[test]
fn what_waits_is_void_at_the_end_and_nothing_comes_behind_it() {
    let (mut mailbox, totals) = (Mailbox::<Event>::new(), Totals::default());
    for _ in 0..5 {
        mailbox.accept(parcel(10), &NO_LIMITS, &totals);
    }
    assert_eq!(mailbox.end(Event::closed(None), &totals).len(), 5);
    assert_eq!(mailbox.end(Event::closed(None), &totals).len(), 0);
    assert_eq!(mailbox.accept(parcel(10), &NO_LIMITS, &totals), 0);
    mailbox.tell(failed("late"), None, &NO_LIMITS, &totals);
    assert!(matches!(mailbox.pop(&totals), Some(Letter::End(event)) if event.kind() == EventKind::Close));
    assert!(mailbox.pop(&totals).is_none());
    assert_eq!(totals.bytes.load(Ordering::Relaxed), 0);
    assert_eq!(totals.objects.load(Ordering::Relaxed), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Object { to: usize, bytes: usize },
    Error { to: usize, text: u8 },
    Open { to: usize },
    Close { to: usize },
    Pop { of: usize, letters: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, prop_oneof![1..50usize, 500..5000usize]).prop_map(|(to, bytes)| Step::Object { to, bytes }),
        2 => (0..3usize, any::<u8>()).prop_map(|(to, text)| Step::Error { to, text }),
        1 => (0..3usize).prop_map(|to| Step::Open { to }),
        1 => (0..3usize).prop_map(|to| Step::Close { to }),
        2 => (0..3usize, 1..6usize).prop_map(|(of, letters)| Step::Pop { of, letters }),
    ]
}

proptest! {
    /// Whatever comes and goes: every object and error is delivered or reported as lost, and the waiting
    /// letters stay within the limits.
    #[test]
    fn nothing_is_lost_in_silence_and_nothing_grows(
        steps in prop::collection::vec(step(), 1..400),
        drop_oldest in any::<bool>(),
    ) {
        let limits = Limits {
            objects: 20,
            bytes: 400,
            overflow: if drop_oldest { Overflow::DropOldest } else { Overflow::DropNewest },
        };
        let totals = Totals::default();
        let mut mailboxes: Vec<Mailbox<Event>> = (0..3).map(|_| Mailbox::new()).collect();
        let (mut sent, mut dropped) = ([0; 3], [0; 3]);
        let (mut told, mut reported) = ([0; 3], [0; 3]);
        let (mut errors, mut errors_told) = ([0; 3], [0; 3]);
        for step in steps {
            match step {
                Step::Object { to, bytes } => {
                    sent[to] += 1;
                    dropped[to] += mailboxes[to].accept(parcel(bytes), &limits, &totals);
                }
                Step::Error { to, text } => {
                    errors[to] += 1;
                    mailboxes[to].tell(failed(&text.to_string()), None, &limits, &totals);
                }
                Step::Open { to } => mailboxes[to].tell(Event::opened(None), None, &limits, &totals),
                Step::Close { to } => mailboxes[to].tell(Event::closed(None), None, &limits, &totals),
                Step::Pop { of, letters } => {
                    for _ in 0..letters {
                        let Some(letter) = mailboxes[of].pop(&totals) else { break };
                        totals.letters.fetch_sub(1, Ordering::Relaxed);
                        match letter {
                            Letter::Object(parcel) => {
                                told[of] += 1;
                                reported[of] += parcel.lost_before;
                            }
                            Letter::Lagged(number) => reported[of] += number,
                            Letter::Told(event, _) => errors_told[of] += event.error().map_or(0, Error::occurrences),
                            _ => {}
                        }
                    }
                }
            }
            for mailbox in &mailboxes {
                prop_assert!(mailbox.objects() <= limits.objects);
                prop_assert!(mailbox.bytes() <= limits.bytes || mailbox.objects() == 1);
            }
            let in_all: usize = mailboxes.iter().map(Mailbox::bytes).sum();
            prop_assert!(in_all <= 4 * limits.bytes + 5000, "{in_all}");
        }
        for index in 0..3 {
            let (lost, late_errors, objects) = contents(&mut mailboxes[index], &totals);
            prop_assert_eq!(told[index] + objects + dropped[index], sent[index]);
            prop_assert_eq!(reported[index] + lost, dropped[index]);
            prop_assert_eq!(errors_told[index] + late_errors, errors[index]);
        }
        prop_assert_eq!(totals.letters.load(Ordering::Relaxed), 0);
        prop_assert_eq!(totals.objects.load(Ordering::Relaxed), 0);
        prop_assert_eq!(totals.bytes.load(Ordering::Relaxed), 0);
    }
}

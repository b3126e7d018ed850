//! What the tests of the library have in common: a client that is quick to reconnect and slow to lose patience, and
//! recorders on its listeners.

use std::thread;
use std::time::Duration;

use parse_livequery::{
    Client, ClientBuilder, ClientEvent, ClientEventKind, Event, EventKind, Query, Subscription,
    SubscriptionBuilder,
};

use crate::support::{LONG, Recorder, threads_named, wait_until};

pub type Events = Recorder<Event>;
pub type ClientEvents = Recorder<ClientEvent>;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// For what takes long on a machine that is busy.
pub const MINUTE: Duration = Duration::from_secs(60);

/// How much later than its deadline something may be noticed on a machine that is busy.
pub const SLACK: Duration = Duration::from_secs(3);

/// A client that reconnects at once, and that no delay of a busy machine makes give up on anything: a test that is
/// about a time-out sets that one.
pub fn builder(url: &str) -> ClientBuilder {
    Client::builder(url, "app")
        .reconnect_delay(ms(10), ms(50))
        .connect_timeout(LONG)
        .ack_timeout(LONG)
        .idle_ping(LONG)
        .pong_timeout(LONG)
        .close_timeout(LONG)
}

pub fn client(url: &str) -> Client {
    builder(url).build().unwrap()
}

/// Records all events of a client.
pub fn record_client(client: &Client) -> ClientEvents {
    let events = ClientEvents::new();
    for kind in ClientEventKind::ALL {
        let events = events.clone();
        client.on(kind, move |event| {
            events.push("client", kind.as_str(), event.clone());
        });
    }
    events
}

/// Records all events of a subscription in the making.
pub fn record(builder: SubscriptionBuilder, source: &str, events: &Events) -> SubscriptionBuilder {
    let (source, events) = (source.to_owned(), events.clone());
    builder.on_any(move |event| events.push(&source, event.kind().as_str(), event.clone()))
}

/// Subscribes to a class and records all events under its name.
pub fn subscribe_into(client: &Client, class: &str, events: &Events) -> Subscription {
    let builder = client.subscription(&Query::new(class));
    record(builder, class, events).start().unwrap()
}

/// Subscribes to a class, waits for `open` and takes it from the recorder.
pub fn subscribe(client: &Client, class: &str) -> (Subscription, Events) {
    let events = Events::new();
    let subscription = subscribe_into(client, class, &events);
    events.expect("open");
    (subscription, events)
}

/// Waits until the server has answered, and the listeners have been told, all that came before. Those of live sets
/// too, whatever the order in which the subscribers get their turns.
pub fn fence(client: &Client) {
    drop(subscribe(client, "Fence"));
    wait_until("all has been told", || client.stats().waiting == 0);
}

/// Fails unless a history is what a user may rely on: `open` and `close` alternate, `open` first, and objects come
/// only in between. Errors may come at any time.
pub fn assert_grammar(who: &str, kinds: &[EventKind]) {
    let mut open = false;
    for kind in kinds {
        match kind {
            EventKind::Open => {
                assert!(!open, "{who}: `open` twice in {kinds:?}");
                open = true;
            }
            EventKind::Close => {
                assert!(open, "{who}: `close` without `open` in {kinds:?}");
                open = false;
            }
            EventKind::Error => {}
            _ => assert!(open, "{who}: `{kind}` outside of `open` .. `close` in {kinds:?}"),
        }
    }
}

/// How often each thread of the library has gone to sleep.
pub fn switches() -> Option<Vec<(u64, u64)>> {
    let mut threads = threads_named("livequery-io")?;
    threads.extend(threads_named("livequery-dispatch")?);
    Some(
        threads
            .into_iter()
            .map(|thread| (thread.id, thread.voluntary_switches))
            .collect(),
    )
}

/// The same, once none of them has gone to sleep again for a while.
pub fn switches_at_rest() -> Option<Vec<(u64, u64)>> {
    let mut last = switches();
    wait_until("the threads have come to rest", || {
        thread::park_timeout(ms(200));
        let now = switches();
        std::mem::replace(&mut last, now.clone()) == now
    });
    last
}

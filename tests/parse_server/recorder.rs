//! Clients of the test server, and subscriptions whose events are recorded in the order in which they come.

use std::sync::mpsc::{self, Receiver};

use parse_livequery::{Client, ClientBuilder, Event, EventKind, Query, Subscription, SubscriptionBuilder};

use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, PATIENCE, ParseServer};

/// A client with the right keys, otherwise as it comes.
pub(crate) fn builder(server: &ParseServer) -> ClientBuilder {
    builder_for(server.ws_url())
}

/// The same, for a server at another address.
pub(crate) fn builder_for(url: String) -> ClientBuilder {
    Client::builder(url, APPLICATION_ID).javascript_key(JAVASCRIPT_KEY)
}

/// [`builder`], built.
pub(crate) fn client(server: &ParseServer) -> Client {
    builder(server).build().unwrap()
}

/// A subscription, and all its events from the first on.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) subscription: Subscription,
    events: Receiver<Event>,
}

impl Recorder {
    /// Subscribes without waiting for the answer.
    pub(crate) fn start(subscription: SubscriptionBuilder) -> Self {
        let (sender, events) = mpsc::channel();
        let subscription = subscription
            .on_any(move |event| {
                let _ = sender.send(event.clone());
            })
            .start()
            .unwrap();
        Self { subscription, events }
    }

    /// Subscribes and takes the first `open`.
    #[track_caller]
    pub(crate) fn open(subscription: SubscriptionBuilder) -> Self {
        let recorder = Self::start(subscription);
        recorder.expect(EventKind::Open);
        recorder
    }

    /// Takes the next event, whatever it is.
    #[track_caller]
    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("another event")
    }

    /// Takes the next event, which must be of this kind: that none came in between is a part of the answer.
    #[track_caller]
    pub(crate) fn expect(&self, kind: EventKind) -> Event {
        let event = self
            .events
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("waited for {kind:?}: {error}"));
        assert_eq!(event.kind(), kind, "{event:?}");
        event
    }

    /// Takes the next event, which must be of this kind and of the object with this id.
    #[track_caller]
    pub(crate) fn expect_of(&self, kind: EventKind, id: &str) -> Event {
        let event = self.expect(kind);
        assert_eq!(event.id(), Some(id), "{event:?}");
        event
    }

    /// Takes the next event of an object, whatever the subscription tells of itself before it.
    #[track_caller]
    pub(crate) fn next_object(&self) -> Event {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event of an object");
            if event.object().is_some() {
                return event;
            }
        }
    }

    /// Checks that nothing has come; to be called once something has that would have come later.
    #[track_caller]
    pub(crate) fn expect_nothing(&self) {
        let events: Vec<_> = self.events.try_iter().collect();
        assert!(events.is_empty(), "{events:?}");
    }

    /// Ends the subscription and checks that nothing else came before.
    #[track_caller]
    pub(crate) fn end(self) {
        self.subscription.unsubscribe();
        self.expect(EventKind::Close);
    }
}

/// Records the subscription to `query` on this client.
#[track_caller]
pub(crate) fn record(client: &Client, query: &Query) -> Recorder {
    Recorder::open(client.subscription(query))
}

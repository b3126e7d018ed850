//! Entry points for `benches/parts.rs` and `benches/live_set.rs`, with the internal feature `_bench`. Not
//! part of the API.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::delivery::emitter::{self, Emitter, Times};
use crate::driver::event_of;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventKind};
use crate::protocol::Now;
use crate::protocol::incoming::{Message, Reader};
use crate::protocol::session::{Session, Settings};
use crate::protocol::spec::{Credentials, Spec};
use crate::query::Query;

/// The frames of one connection.
#[derive(Debug, Default)]
pub struct Frames(Reader);

impl Frames {
    /// Finds the subscription that a frame is for.
    pub fn route(&mut self, frame: &str) -> Option<u64> {
        self.0.route(frame).map(|(_, request_id)| request_id)
    }

    /// Makes an event from a frame.
    ///
    /// # Errors
    /// If it is not an event.
    pub fn event(&mut self, frame: &str) -> Result<Event> {
        match self.0.read(frame)? {
            Message::Event { frame: event, .. } => Ok(event_of(event, self.0.outline(), frame)),
            _ => Err(Error::new(ErrorKind::Protocol, "the frame is not an event")),
        }
    }
}

/// The listeners of a subscription.
#[derive(Debug)]
pub struct Listeners(Emitter<Event>);

impl Listeners {
    /// Registers this many listeners for `update`.
    pub fn new(number: usize, listener: impl FnMut(&Event) + Clone + Send + 'static) -> Self {
        let emitter = Emitter::new();
        for _ in 0..number {
            let mut listener = listener.clone();
            emitter.on(Some(EventKind::Update), Times::Always, move |event| {
                listener(event);
                Ok(())
            });
        }
        Self(emitter)
    }

    /// Calls them.
    pub fn emit(&self, event: &Event) {
        self.0
            .emit(event.clone(), &mut emitter::Listeners::default(), &|_| true);
    }
}

/// A connected session.
#[derive(Debug)]
pub struct Subscriptions {
    session: Session<u64>,
    now: Now,
    next_id: u64,
}

impl Subscriptions {
    /// A session with this many subscriptions, all acknowledged.
    ///
    /// # Errors
    /// None that are known.
    pub fn new(number: u64) -> Result<Self> {
        let settings = Settings {
            credentials: Credentials::default(),
            connect_timeout: DAY,
            idle_ping: DAY,
            pong_timeout: DAY,
            ack_timeout: DAY,
            servers: 1,
            reconnect_delay: (DAY, DAY),
            max_attempts: None,
            renewable_token: false,
        };
        let now = Now {
            mono: Instant::now(),
            wall: SystemTime::now(),
        };
        let mut subscriptions = Self {
            session: Session::new(settings, 1),
            now,
            next_id: 1,
        };
        subscriptions.session.open(now);
        subscriptions.session.transport_up();
        subscriptions.receive(r#"{"op":"connected","clientId":"c"}"#);
        for _ in 0..number {
            subscriptions.subscribe()?;
        }
        Ok(subscriptions)
    }

    /// Subscribes and acknowledges it. Returns the id.
    ///
    /// # Errors
    /// None that are known.
    pub fn subscribe(&mut self) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let query = Query::new("Game").equal_to("room", id).encode()?;
        let spec = Arc::new(Spec::new(query, None, 0));
        self.session.subscribe(id, id, spec, self.now);
        self.receive(&format!(
            r#"{{"op":"subscribed","clientId":"c","requestId":{id}}}"#
        ));
        Ok(id)
    }

    /// Unsubscribes and acknowledges it.
    pub fn unsubscribe(&mut self, id: u64) {
        self.session.unsubscribe(id, self.now);
        self.receive(&format!(
            r#"{{"op":"unsubscribed","clientId":"c","requestId":{id}}}"#
        ));
    }

    /// Receives a frame. Returns whether it is an event for a subscription.
    pub fn receive(&mut self, frame: &str) -> bool {
        let is_event = self.session.received(frame, self.now).is_some();
        while self.session.next_output().is_some() {}
        is_event
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

//! Delivery: which listener is called, when, on which thread, and what a thread that waits may rely on. One file per
//! promise.

mod bounds;
mod ends;
mod fairness;
mod fence;
mod manual;
mod new_api;
mod waits;

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::{Client, Object, Query, Subscription};
use serde_json::Value;

use crate::harness::*;
use crate::support::*;

/// Holds a listener for as long as the test likes.
struct Gate {
    entered: Receiver<()>,
    /// Nothing is ever sent: the listener goes on when this is dropped.
    _release: Sender<()>,
}

/// The listener's side of a [`Gate`].
#[derive(Clone)]
struct Hold {
    entered: Sender<()>,
    released: Receiver<()>,
}

fn gate() -> (Gate, Hold) {
    let (entered, was_entered) = unbounded();
    let (release, released) = bounded(0);
    let gate = Gate {
        entered: was_entered,
        _release: release,
    };
    (gate, Hold { entered, released })
}

impl Gate {
    /// Waits until a listener is inside.
    #[track_caller]
    fn wait_entered(&self) {
        self.entered.recv_timeout(LONG).expect("no listener has come");
    }

    /// Lets go of it, and of all that come later.
    fn release(self) {
        drop(self);
    }
}

impl Hold {
    /// Stays until the gate is gone.
    fn stay(&self) {
        // The test may be over.
        let _ = self.entered.send(());
        let _ = self.released.recv_timeout(MINUTE);
    }
}

/// A subscription to `Game` that the server has not acknowledged: the listeners that are registered now hear of
/// everything.
fn unanswered(server: &Server, client: &Client) -> Subscription {
    server.on_frame(|_, frame| match frame["op"].as_str() {
        Some("subscribe") => Then::Handled,
        _ => Then::Default,
    });
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    server.wait_op(1, "subscribe", 1);
    server.heal();
    subscription
}

/// What the server has, for the sets that fetch from it.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<Value>>>);

impl Store {
    fn put(&self, object: Value) {
        let mut objects = self.0.lock();
        objects.retain(|old| old["objectId"] != object["objectId"]);
        objects.push(object);
        objects.sort_by_key(|object| object["objectId"].to_string());
    }

    /// As `find()` does, for queries that a set without order and limit asks for.
    fn find(&self, query: &Query) -> Result<Vec<Object>, String> {
        let objects = self.0.lock();
        let objects = objects
            .iter()
            .map(|json| Object::from_json(json.clone()).unwrap());
        Ok(objects
            .filter(|object| query.matches_object(object).unwrap() == Some(true))
            .collect())
    }
}

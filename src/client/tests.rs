//! What becomes of a client whose threads panic, which nothing but a fault of this crate can bring about.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::delivery::queue::Dispatch;
use crate::driver::command::Command;
use crate::error::ErrorKind;
use crate::query::Query;
use crate::state::{ClientState, SubscriptionState};

const LONG: Duration = Duration::from_secs(60);

/// Nobody listens there.
fn client(dispatch: Dispatch) -> Client {
    Client::builder("ws://127.0.0.1:1", "app")
        .dispatch(dispatch)
        .build()
        .unwrap()
}

#[test]
fn every_wait_ends_with_the_threads_and_says_why() {
    let client = client(Dispatch::thread());
    let (told, errors) = mpsc::channel();
    client.on("error", move |event| told.send(event.error().cloned()).unwrap());
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    let waits = [
        thread::spawn({
            let subscription = subscription.clone();
            move || subscription.wait_open(LONG)
        }),
        thread::spawn({
            let client = client.clone();
            move || client.wait_open(LONG)
        }),
        thread::spawn({
            let client = client.clone();
            move || client.wait_closed()
        }),
    ];
    let start = Instant::now();
    client.send(Command::Panic);
    for wait in waits {
        assert_eq!(wait.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
    }
    let fatal = |error: &Option<crate::error::Error>| error.as_ref().is_some_and(|error| error.is_fatal());
    assert!(errors.iter().any(|error| fatal(&error)));
    assert_eq!(client.state(), ClientState::Disconnected);
    // And every later one, at once; no call hangs or panics.
    client.open();
    assert_eq!(client.wait_open(LONG).unwrap_err().kind(), ErrorKind::Io);
    let other = client.subscribe(&Query::new("Other")).unwrap();
    assert_eq!(other.wait_open(LONG).unwrap_err().kind(), ErrorKind::Io);
    client.set_session_token(Some("r:other"));
    client.reconnect_now();
    other.unsubscribe_and_wait(LONG).unwrap();
    client.close();
    assert_eq!(subscription.state(), SubscriptionState::Closed);
    assert_eq!(client.wait_closed().unwrap_err().kind(), ErrorKind::Io);
    assert!(start.elapsed() < LONG);
}

#[test]
fn with_manual_dispatch_as_well() {
    let client = client(Dispatch::polled());
    let (told, errors) = mpsc::channel();
    client.on("error", move |event| told.send(event.error().cloned()).unwrap());
    client.send(Command::Panic);
    assert_eq!(client.wait_closed().unwrap_err().kind(), ErrorKind::Io);
    while client.dispatch_pending_timeout(LONG) > 0 {
        if errors.try_iter().flatten().any(|error| error.is_fatal()) {
            return;
        }
    }
    panic!("the listener was not told");
}

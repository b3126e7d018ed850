//! A server that says when to come back is taken at its word, within limits.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use parse_livequery::{Client, ErrorKind};

use super::*;
use crate::harness::*;
use crate::support::*;

/// Answers each upgrade with this.
fn answering(answer: impl Fn() -> String + Send + Sync + 'static) -> Peer {
    Peer::new(move |_, mut stream| {
        let mut request = Vec::new();
        let mut bytes = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes) {
                Ok(count) if count > 0 => request.extend_from_slice(&bytes[..count]),
                _ => return,
            }
        }
        send(&mut stream, answer().as_bytes());
    })
}

fn busy(status: u16, retry_after: &str) -> String {
    format!("HTTP/1.1 {status} Busy\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n")
}

/// The delay after the first attempt.
fn delay(peer: &Peer) -> Duration {
    let client = client(&peer.url());
    let events = record_client(&client);
    let failure = first_failure(&client, &events).value;
    assert_eq!(
        failure.error().map(parse_livequery::Error::kind),
        Some(ErrorKind::Handshake)
    );
    client.close();
    failure.delay().expect("there is a next attempt")
}

#[test]
fn retry_after_is_honoured_up_to_a_limit() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    for (status, value, wanted) in [
        (503, "120", minutes(2)..minutes(3)),
        (429, " 300 ", minutes(5)..minutes(6)),
        // Nobody is sent away for a year.
        (503, "31536000", minutes(10)..minutes(11)),
        (503, "99999999999999999999999", minutes(10)..minutes(11)),
        // What makes no sense, and statuses that it does not go with.
        (503, "-5", Duration::ZERO..minutes(1)),
        (503, "soon", Duration::ZERO..minutes(1)),
        (503, "Sun, 06 Nov 1994 08:49:37 GMT", Duration::ZERO..minutes(1)),
        (404, "120", Duration::ZERO..minutes(1)),
    ] {
        let delay = delay(&answering(move || busy(status, value)));
        assert!(wanted.contains(&delay), "{status}, `{value}`: {delay:?}");
    }
}

#[test]
fn retry_after_may_be_a_date() {
    let peer = answering(|| {
        let at = DateTime::<Utc>::from(SystemTime::now() + Duration::from_secs(200));
        busy(503, &at.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
    });
    let delay = delay(&peer);
    // The machine may be slow, and the date has whole seconds.
    assert!((150..260).contains(&delay.as_secs()), "{delay:?}");
}

#[test]
fn it_is_waited_for_and_ended_by_reconnect_now() {
    let peer = answering(|| busy(503, "2"));
    let client = client(&peer.url());
    let events = record_client(&client);
    client.open();
    let first = events.wait_for("reconnecting").at;
    let second = events.wait_for("reconnecting").at;
    assert!(second - first >= Duration::from_secs(2), "{:?}", second - first);
    client.reconnect_now();
    let third = events.wait_for("reconnecting").at;
    assert!(third - second < Duration::from_secs(2), "{:?}", third - second);
    client.close();
}

#[test]
fn it_keeps_nobody_from_another_server() {
    let peer = answering(|| busy(503, "300"));
    let server = Server::auto();
    let client = Client::builder(peer.url(), "app")
        .add_server(server.url())
        .reconnect_delay(ms(10), ms(50))
        .build()
        .unwrap();
    let start = Instant::now();
    client.open();
    client.wait_open(LONG).unwrap();
    // The one that is busy has not its turn again.
    for number in 1..4 {
        server.conn(number).cut();
        wait_until("it is back", || server.accepts() > number);
        client.wait_open(LONG).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    client.close();
}

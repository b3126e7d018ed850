//! A session and a malicious server, for tests of how often anything is requested.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::world::settings;
use super::{Output, Session};
use crate::error::{Error, ErrorKind};
use crate::protocol::Now;
use crate::protocol::spec::Spec;
use crate::query::Query;
use crate::secret::Secret;

/// How the server treats an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Malice {
    Accept,
    AcceptAndEnd,
    /// Ends another subscription.
    End(u64),
    Answer {
        code: i64,
        text: &'static str,
        reconnect: bool,
        with_id: bool,
    },
    Cut,
    Silence,
}

pub(super) const SUBSCRIPTIONS: u64 = 4;

/// The highest number of requests, attempts to connect and questions for a token in one minute out of ten,
/// while the server repeats these reactions in turn. The token provider always has another token.
pub(super) fn most_requests_per_minute(malice: &[Malice], seed: u64) -> usize {
    let mut session = Session::new(
        super::Settings {
            renewable_token: true,
            ..settings()
        },
        seed,
    );
    let start = Instant::now();
    let mut time = Duration::ZERO;
    let at = |time: Duration| Now {
        mono: start + time,
        wall: SystemTime::UNIX_EPOCH + time,
    };
    for id in 1..=SUBSCRIPTIONS {
        let query = Query::new("Game").select(["score"]).watch(["score"]);
        let query = match id {
            1 => query.not_equal_to("score", 1),
            2 => query.equal_to("tags", [1, 2]),
            _ => query,
        };
        let spec = Spec::new(query.encode().unwrap(), None, 0);
        session.subscribe(id, id, Arc::new(spec), at(time));
    }
    let mut malice = malice.iter().cycle();
    let mut minutes = [0; 10];
    let mut tokens = 0;
    while time < Duration::from_secs(600) {
        let now = at(time);
        let minute = &mut minutes[(time.as_secs() / 60) as usize];
        while let Some(output) = session.next_output() {
            match output {
                Output::Connect => {
                    *minute += 1;
                    session.transport_up();
                    session.received(r#"{"op":"connected"}"#, now);
                }
                Output::RenewToken => {
                    *minute += 1;
                    tokens += 1;
                    session.token_renewed(Some(Secret::from(format!("r:{tokens}"))), now);
                }
                Output::Ping(payload) => {
                    session.alive(now);
                    session.ponged(&payload, now);
                }
                Output::Send(frame) => {
                    let frame: Value = serde_json::from_str(&frame).unwrap();
                    let Some(id) = frame["requestId"].as_u64() else {
                        continue;
                    };
                    *minute += 1;
                    let malice = *malice.next().unwrap();
                    let mut say = |message: Value| {
                        session.received(&message.to_string(), now);
                    };
                    match malice {
                        Malice::Accept => say(json!({"op": "subscribed", "requestId": id})),
                        Malice::AcceptAndEnd => {
                            say(json!({"op": "subscribed", "requestId": id}));
                            say(json!({"op": "unsubscribed", "requestId": id}));
                        }
                        Malice::End(other) => say(json!({"op": "unsubscribed", "requestId": other})),
                        Malice::Answer {
                            code,
                            text,
                            reconnect,
                            with_id,
                        } => {
                            let id = with_id.then_some(id);
                            say(
                                json!({"op": "error", "code": code, "error": text, "reconnect": reconnect, "requestId": id}),
                            );
                        }
                        Malice::Cut => session.lost(Error::new(ErrorKind::ConnectionLost, "cut"), now),
                        Malice::Silence => {}
                    }
                }
                Output::Disconnect | Output::Farewell | Output::Event(..) | Output::ClientEvent(_) => {}
            }
            assert!(*minute < 10_000, "round and round");
        }
        let due = session.deadline().map(|due| due.saturating_duration_since(start));
        time = due.map_or(Duration::MAX, |due| due.max(time));
        if time < Duration::from_secs(600) {
            session.tick(at(time));
            let due = session.deadline().map(|due| due.saturating_duration_since(start));
            assert!(due.is_none_or(|due| due > time), "a busy loop");
        }
    }
    minutes.into_iter().max().unwrap_or_default()
}

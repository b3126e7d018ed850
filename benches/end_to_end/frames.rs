//! The events that the benchmark sends, as Parse Server 9.10 writes them: its members in its order.

use std::fmt::Write as _;
use std::ops::Range;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A `create` of about 250 bytes.
    Small,
    /// An `update` with `original` of about 900 bytes, with all types of Parse.
    Update,
    /// A `create` of about 10 KB.
    Large,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Update, Self::Large];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Update => "update",
            Self::Large => "large",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Small => "small create",
            Self::Update => "update with original",
            Self::Large => "large create",
        }
    }

    /// The name of the event.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Self::Small | Self::Large => "create",
            Self::Update => "update",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The text of an event for a subscription.
    pub(crate) fn text(self, request_id: u64) -> String {
        let members = match self {
            Self::Small => format!(r#""object":{SMALL}"#),
            Self::Update => format!(r#""object":{AFTER},"original":{BEFORE}"#),
            Self::Large => format!(r#""object":{}"#, large()),
        };
        // Each subscription asks for a room of its own, the one with its number.
        let members = members.replace(r#""room":0"#, &format!(r#""room":{request_id}"#));
        event(self.event(), request_id, &members)
    }
}

/// The event that says that the measurement begins: what came before was to warm up.
pub(crate) fn start(request_id: u64) -> String {
    event(
        "enter",
        request_id,
        r#""object":{"className":"Game","objectId":"start"}"#,
    )
}

/// The event that says that the measurement is over, and how many events there were in it.
pub(crate) fn end(request_id: u64, sent: u64) -> String {
    let object = format!(r#"{{"className":"Game","room":{request_id},"objectId":"end","sent":{sent}}}"#);
    event(
        "leave",
        request_id,
        &format!(r#""object":{object},"original":{object}"#),
    )
}

/// The frame of an update whose `sentAt` says when it was sent, in nanoseconds since 1970, and where in it these
/// twenty digits lie.
pub(crate) fn stamped_frame(request_id: u64) -> (Vec<u8>, Range<usize>) {
    let text =
        Kind::Update
            .text(request_id)
            .replacen(r#""when":"#, r#""sentAt":"00000000000000000000","when":"#, 1);
    let mut frame = Vec::new();
    write_frame(&text, &mut frame);
    let stamp = text.find("00000000000000000000").expect("it was put there") + frame.len() - text.len();
    (frame, stamp..stamp + 20)
}

pub(crate) fn connected() -> String {
    format!(r#"{{"op":"connected","clientId":"{CLIENT_ID}"}}"#)
}

pub(crate) fn subscribed(request_id: u64) -> String {
    format!(r#"{{"op":"subscribed","clientId":"{CLIENT_ID}","requestId":{request_id}}}"#)
}

/// Appends a text frame of a server, which is not masked.
pub(crate) fn write_frame(text: &str, into: &mut Vec<u8>) {
    into.push(0x81);
    match text.len() {
        length @ 0..=125 => into.push(length as u8),
        length @ 126..=0xFFFF => {
            into.push(126);
            into.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            into.push(127);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    into.extend_from_slice(text.as_bytes());
}

fn event(op: &str, request_id: u64, members: &str) -> String {
    format!(r#"{{"op":"{op}","clientId":"{CLIENT_ID}","requestId":{request_id},{members}}}"#)
}

fn large() -> String {
    let mut rounds = String::new();
    for number in 0..82 {
        let separator = if number == 0 { "" } else { "," };
        let points = number * 17;
        let _ = write!(
            rounds,
            r#"{separator}{{"round":{number},"points":{points},"comment":"well played, number {number}","at":{{"__type":"Date","iso":"2026-11-24T06:58:56.879Z"}}}}"#
        );
    }
    SMALL.replacen('{', &format!(r#"{{"rounds":[{rounds}],"#), 1)
}

const CLIENT_ID: &str = "6b1e1d3e-5a4d-4f0e-9b55-7d0c2f6f4c1a";
const SMALL: &str = r#"{"playerName":"Sean","score":1337,"room":0,"createdAt":"2026-11-24T06:58:56.879Z","updatedAt":"2026-11-24T06:58:56.879Z","className":"Game","objectId":"AWFW34WWIH"}"#;
const AFTER: &str = r#"{"createdAt":"2026-11-24T06:58:56.879Z","updatedAt":"2026-11-24T06:58:57.532Z","when":{"__type":"Date","iso":"2020-01-01T00:00:00.000Z"},"place":{"__type":"GeoPoint","latitude":1.5,"longitude":-2},"area":{"__type":"Polygon","coordinates":[[0,0],[0,1],[1,1],[0,0]]},"data":{"__type":"Bytes","base64":"AQID"},"tags":["a",1,null],"playerName":"Sean","score":1338,"room":0,"file":{"__type":"File","name":"a.txt","url":"http://127.0.0.1/a.txt"},"owner":{"__type":"Pointer","className":"Owner","objectId":"gBJaZIhpwn"},"players":{"__type":"Relation","className":"Owner"},"ACL":{"*":{"read":true}},"className":"Game","objectId":"AWFW34WWIH"}"#;
/// Before the change most fields were not set.
const BEFORE: &str = r#"{"createdAt":"2026-11-24T06:58:56.879Z","updatedAt":"2026-11-24T06:58:56.879Z","place":{"__type":"GeoPoint","latitude":1.5,"longitude":-2},"playerName":"Sean","score":1337,"room":0,"className":"Game","objectId":"AWFW34WWIH"}"#;

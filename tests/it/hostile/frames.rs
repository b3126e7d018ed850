//! What comes: messages without an end, in pieces of nothing, slower than anybody waits, and floods of small frames.

use std::sync::mpsc;
use std::thread;

use parking_lot::Mutex;
use parse_livequery::{Client, ErrorKind};

use super::*;
use crate::harness::*;
use crate::support::*;

/// A peer that sends this again and again, behind what begins it. It tells when a client has left.
fn flood(begin: &[u8], again: &[u8]) -> (Peer, mpsc::Receiver<()>) {
    let (begin, again) = (begin.to_vec(), again.repeat(65_536 / again.len()));
    let (left, has_left) = mpsc::channel();
    let left = Mutex::new(left);
    let peer = Peer::connected(move |_, mut stream| {
        drain(&stream);
        let mut goes_on = send(&mut stream, &begin);
        while goes_on {
            goes_on = send(&mut stream, &again);
        }
        let _ = left.lock().send(());
    });
    (peer, has_left)
}

/// Takes whatever the client sends, on a thread that ends with the connection.
fn drain(stream: &Socket) {
    let mut stream = stream.clone();
    thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
}

/// The client finds out that a message has no end.
fn refuses_crumbs(client: &Client) {
    let events = record_client(client);
    let failure = first_failure(client, &events).value;
    let error = failure.error().expect("a reason");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("fragments"), "{error}");
    client.close();
}

/// `close` has an effect although the client is there, which would be flooded on if nobody had listened to it.
fn can_leave(client: &Client, has_left: &mpsc::Receiver<()>) {
    client.open();
    client.wait_open(LONG).unwrap();
    client.reconnect_now();
    client.close();
    has_left.recv_timeout(LONG).expect("close() has an effect");
}

#[test]
fn a_message_without_an_end_holds_up_no_command() {
    watchdog(3 * LONG, || {
        for piece in [&b""[..], b"x"] {
            let (peer, _) = flood(&frame(TEXT, b"{"), &frame(CONTINUATION, piece));
            refuses_crumbs(&client(&peer.url()));
        }
    });
}

#[test]
fn a_flood_of_control_frames_holds_up_no_command() {
    watchdog(3 * LONG, || {
        for piece in [frame(PING | FIN, b""), frame(PONG | FIN, &[b'x'; 125])] {
            let (peer, has_left) = flood(b"", &piece);
            let client = builder(&peer.url()).close_timeout(ms(500)).build().unwrap();
            can_leave(&client, &has_left);
        }
    });
}

#[test]
fn control_frames_inside_a_message_without_an_end_hold_up_no_command() {
    watchdog(3 * LONG, || {
        // Pongs answer nothing, and do not lengthen the message.
        let (peer, _) = flood(&frame(TEXT, b"{"), &frame(PONG | FIN, b""));
        let client = builder(&peer.url())
            .idle_ping(ms(1000))
            .pong_timeout(ms(1000))
            .build()
            .unwrap();
        let events = record_client(&client);
        let failure = first_failure(&client, &events).value;
        let error = failure.error().expect("a reason");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("too long to complete"), "{error}");
        client.close();
    });
}

#[test]
fn a_message_that_is_never_complete_is_a_lost_link() {
    for (begin, again) in [
        // Life goes on between the fragments, or inside the frame, byte by byte.
        (frame(TEXT, b"{\"op\":"), frame(PONG | FIN, b"")),
        (frame(TEXT, b"{\"op\":"), frame(CONTINUATION, b" ")),
        (frame(TEXT | FIN, &[b' '; 300])[..6].to_vec(), b" ".to_vec()),
        (vec![TEXT | FIN, 127, 0, 0, 0, 0, 3, 0, 0, 0], b" ".to_vec()),
    ] {
        let what = format!("{begin:?}");
        let peer = Peer::connected(move |_, mut stream| {
            drain(&stream);
            let mut goes_on = send(&mut stream, &begin);
            while goes_on {
                thread::park_timeout(ms(100));
                goes_on = send(&mut stream, &again);
            }
        });
        let client = builder(&peer.url())
            .idle_ping(ms(1000))
            .pong_timeout(ms(1000))
            .build()
            .unwrap();
        let events = record_client(&client);
        let failure = first_failure(&client, &events).value;
        let error = failure.error().expect("a reason");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{what}: {error}");
        assert!(
            error.to_string().contains("too long to complete"),
            "{what}: {error}"
        );
        client.close();
    }
}

#[test]
fn a_large_message_over_a_thin_line_arrives() {
    let server = Server::auto();
    let client = builder(&server.url())
        .idle_ping(ms(700))
        .pong_timeout(ms(700))
        .build()
        .unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    let conn = server.conn(1);
    // An answer in the middle of the message would be a part of it.
    conn.answer_pings(false);
    let id = conn.subscriptions_to("Game")[0];
    let text = "x".repeat(100_000);
    let message = conn.event_message(
        "create",
        id,
        object("Game", "a", serde_json::json!({"text": text})),
        None,
    );
    let bytes = Conn::frames_of(&[message]);
    // Twice as long as the silence that would be noticed.
    for piece in bytes.chunks(bytes.len().div_ceil(30)) {
        conn.send_raw(piece);
        thread::park_timeout(ms(100));
    }
    let create = events.expect("create").value;
    assert_eq!(
        create.get("text").and_then(|text| text.as_str()).map(str::len),
        Some(100_000)
    );
    client.close();
}

#[test]
fn a_message_in_many_fragments_of_a_usual_size_arrives() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, events) = subscribe(&client, "Game");
    let conn = server.conn(1);
    let id = conn.subscriptions_to("Game")[0];
    let text = "x".repeat(4_000_000);
    let message = conn.event_message(
        "create",
        id,
        object("Game", "a", serde_json::json!({"text": text})),
        None,
    );
    conn.send_fragmented(&message.to_string(), 1300);
    events.expect("create");
    // And one that is short, byte by byte.
    let message = conn.event_message(
        "update",
        id,
        object("Game", "a", serde_json::json!({"text": "é"})),
        None,
    );
    conn.send_fragmented(&message.to_string(), 1);
    assert_eq!(events.expect("update").value.get("text"), Some(&"é".into()));
    client.close();
}

/// Records of TLS hold many frames each, so that a turn may find work although the socket has nothing to read.
#[cfg(any(feature = "tls", feature = "webpki-roots"))]
#[test]
fn floods_behind_tls_hold_up_no_command_either() {
    watchdog(6 * LONG, || {
        let authority = Authority::new();
        let identity = authority.issue("127.0.0.1");
        let secure = |peer: &Peer| {
            let tls = TlsServer::new(&identity, peer.addr());
            let client = builder(&tls.url())
                .add_root_certificate(&authority.pem)
                .close_timeout(ms(500));
            (tls, client.build().unwrap())
        };
        for piece in [&b""[..], b"x"] {
            let (peer, _) = flood(&frame(TEXT, b"{"), &frame(CONTINUATION, piece));
            let (_tls, client) = secure(&peer);
            refuses_crumbs(&client);
        }
        for piece in [frame(PING | FIN, b""), frame(PONG | FIN, &[b'x'; 125])] {
            let (peer, has_left) = flood(b"", &piece);
            let (_tls, client) = secure(&peer);
            can_leave(&client, &has_left);
        }
    });
}

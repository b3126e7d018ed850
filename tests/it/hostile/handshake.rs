//! How a connection begins and ends: answers before the answer, extensions that nobody asked for, the other protocol on
//! the port, and the last words of both sides.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use parse_livequery::{Error, ErrorKind};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::*;
use crate::harness::*;
use crate::support::*;

/// What the first attempt to connect fails of.
#[track_caller]
fn failure(url: &str) -> Error {
    let client = client(url);
    let events = record_client(&client);
    let failure = first_failure(&client, &events).value;
    client.close();
    failure.error().cloned().expect("a reason")
}

#[test]
fn interim_answers_are_read_over() {
    let server = Server::auto();
    server.on_accept(|conn| {
        conn.read_request();
        // In pieces, and with a head that looks like more.
        for piece in [
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n",
            "Link: </a>; rel=preload\r\n\r\n",
        ] {
            conn.send_raw(piece.as_bytes());
        }
        let answer = conn.switching_protocols();
        conn.send_raw(format!("HTTP/1.1 102 Processing\r\n\r\n{answer}").as_bytes());
        conn.take_over();
        Then::Handled
    });
    let client = client(&server.url());
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();
}

#[test]
fn interim_answers_without_an_end_are_an_error() {
    let peer = Peer::new(|_, mut stream| {
        let answers = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
        while send(&mut stream, answers.as_bytes()) {}
    });
    let error = failure(&peer.url());
    assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    assert!(error.to_string().contains("too long"), "{error}");
}

#[test]
fn interim_answers_of_a_proxy_are_read_over() {
    let server = Server::auto();
    let target = server.addr();
    let proxy = Peer::new(move |_, mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            } else {
                return;
            }
        }
        let answer = "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n";
        if send(&mut stream, answer.as_bytes()) {
            relay(stream, target);
        }
    });
    let client = builder("ws://parse.invalid/parse")
        .proxy(format!("http://{}", proxy.addr()))
        .build()
        .unwrap();
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();
}

/// Carries bytes between a connection and this server, until one of them ends.
pub fn relay(client: Socket, server: SocketAddr) {
    let server = Socket::new(TcpStream::connect(server).expect("it listens"));
    let carry = |mut from: Socket, mut to: Socket| {
        let _ = std::io::copy(&mut from, &mut to);
        to.end();
    };
    let (back_from, back_to) = (server.clone(), client.clone());
    let back = std::thread::spawn(move || carry(back_from, back_to));
    carry(client, server);
    let _ = back.join();
}

#[test]
fn what_nobody_asked_for_fails_the_handshake() {
    for (header, words) in [
        (
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
            "compression",
        ),
        (
            "Sec-WebSocket-Extensions: x-webkit-deflate-frame",
            "`x-webkit-deflate-frame`",
        ),
        ("Sec-WebSocket-Protocol: graphql-ws", "subprotocol"),
    ] {
        let server = Server::auto();
        server.on_accept(move |conn| {
            conn.read_request();
            let answer = conn.switching_protocols();
            conn.send_raw(
                answer
                    .replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"))
                    .as_bytes(),
            );
            Then::Handled
        });
        let error = failure(&server.url());
        assert_eq!(error.kind(), ErrorKind::Handshake, "{header}: {error}");
        assert!(error.to_string().contains(words), "{header}: {error}");
    }
}

#[test]
fn a_port_that_speaks_tls_says_so() {
    for alert in [
        &b"\x15\x03\x01\x00\x02\x02\x46"[..],
        b"\x15\x03\x03\x00\x02\x02\x0a",
        b"\x15",
    ] {
        let peer = Peer::new(move |_, mut stream| {
            let mut request = [0; 64];
            let _ = stream.read(&mut request);
            send(&mut stream, alert);
        });
        let error = failure(&peer.url());
        assert!(
            error.to_string().contains("use `wss` or `https`"),
            "{alert:?}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::Tls, "{alert:?}: {error}");
    }
}

#[test]
fn a_port_that_closes_without_an_answer_may_speak_tls() {
    // As Node and others on OpenSSL do it.
    let peer = Peer::new(|_, mut stream| {
        let _ = stream.read(&mut [0; 1024]);
    });
    let error = failure(&peer.url());
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(
        error
            .to_string()
            .contains("if it speaks TLS on this port, use `wss` or `https`"),
        "{error}"
    );
}

#[test]
fn the_close_of_a_server_is_answered() {
    for (code, answered) in [(1001, 1001), (1000, 1000), (4000, 4000), (1012, 1012)] {
        let server = Server::auto();
        let client = client(&server.url());
        let (_subscription, events) = subscribe(&client, "Game");
        let conn = server.conn(1);
        conn.close(code, "going away");
        let payload = conn.wait_control(Control::Close);
        assert_eq!(
            payload.get(..2),
            Some(&u16::to_be_bytes(answered)[..]),
            "{code}: {payload:?}"
        );
        events.expect("close");
        client.close();
    }
}

#[test]
fn what_is_against_the_protocol_is_answered_with_a_reason() {
    let cases: [(&str, Vec<u8>, u16); 7] = [
        ("an opcode that does not exist", frame(FIN | 3, b"a"), 1002),
        ("a control frame in pieces", frame(PING, b"a"), 1002),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, b"a"), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"a"), 1002),
        ("text that is no UTF-8", frame(FIN | TEXT, b"\xff\xfe"), 1007),
        (
            "text that is no UTF-8, in pieces",
            [frame(TEXT, b"a"), frame(FIN | CONTINUATION, b"\xff")].concat(),
            1007,
        ),
        ("more than the limit", frame(FIN | TEXT, &[b' '; 70_000]), 1009),
    ];
    for (what, bytes, code) in cases {
        let server = Server::auto();
        let client = builder(&server.url()).max_message_size(65_536).build().unwrap();
        let (_subscription, events) = subscribe(&client, "Game");
        let conn = server.conn(1);
        conn.send_raw(&bytes);
        let payload = conn.wait_control(Control::Close);
        assert_eq!(
            payload.get(..2),
            Some(&u16::to_be_bytes(code)[..]),
            "{what}: {payload:?}"
        );
        let close = events.expect("close").value;
        assert!(close.error().is_some(), "{what}");
        events.expect("open");
        client.close();
    }
}

#[test]
fn fragments_may_come_with_control_frames_in_between() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, events) = subscribe(&client, "Game");
    let conn = server.conn(1);
    let id = conn.subscriptions_to("Game")[0];
    let text = conn
        .event_message("create", id, object("Game", "a", serde_json::json!({})), None)
        .to_string();
    let (first, second) = text.split_at(10);
    conn.send_frame(OpCode::Data(Data::Text), false, first.as_bytes());
    conn.ping(b"now");
    conn.send_frame(OpCode::Data(Data::Continue), true, second.as_bytes());
    events.expect("create");
    assert_eq!(conn.wait_control(Control::Pong), b"now");
    client.close();
}

//! The fault kit's own tests: a test that builds on it must be able to believe it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::Control;
use tungstenite::{Message, WebSocket};

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn websocket(addr: SocketAddr) -> WebSocket<TcpStream> {
    tungstenite::client(format!("ws://{addr}/parse"), tcp(addr))
        .unwrap()
        .0
}

fn address_of(url: &str) -> SocketAddr {
    url.split('/').nth(2).unwrap().parse().unwrap()
}

fn say(socket: &mut WebSocket<TcpStream>, message: &Value) {
    socket.send(Message::text(message.to_string())).unwrap();
}

fn hear(socket: &mut WebSocket<TcpStream>) -> Value {
    serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap()
}

fn subscribe(id: u64, class: &str) -> Value {
    json!({ "op": "subscribe", "requestId": id, "query": { "className": class, "where": {} } })
}

#[test]
fn auto_server_answers_as_parse_server() {
    let server = Server::auto();
    let mut client = websocket(server.addr());
    say(&mut client, &subscribe(1, "Game"));
    assert_eq!(
        hear(&mut client),
        json!({
            "op": "error",
            "error": "Can not find this client, make sure you connect to server before subscribing",
            "code": 2,
            "reconnect": true,
            "requestId": null,
        })
    );
    say(
        &mut client,
        &json!({ "op": "connect", "applicationId": "app", "installationId": "i" }),
    );
    let connected = hear(&mut client);
    assert_eq!(
        (&connected["op"], &connected["installationId"]),
        (&json!("connected"), &json!("i"))
    );

    say(&mut client, &subscribe(1, "Game"));
    assert_eq!(hear(&mut client)["op"], "subscribed");
    let (conn, id) = server.wait_subscribed("Game");
    assert_eq!((conn.number(), id), (1, 1));
    assert_eq!(server.emit("create", &object("Other", "a", json!({}))), 0);
    assert_eq!(
        server.emit("create", &object("Game", "a", json!({ "score": 1 }))),
        1
    );
    let event = hear(&mut client);
    assert_eq!((&event["op"], &event["requestId"]), (&json!("create"), &json!(1)));
    assert_eq!(event["object"]["score"], 1);

    say(
        &mut client,
        &json!({ "op": "update", "requestId": 1, "query": { "className": "B", "where": {} } }),
    );
    assert_eq!(hear(&mut client)["op"], "subscribed");
    assert_eq!(server.emit("create", &object("Game", "a", json!({}))), 0);

    say(&mut client, &json!({ "op": "unsubscribe", "requestId": 1 }));
    assert_eq!(hear(&mut client)["op"], "unsubscribed");
    say(&mut client, &json!({ "op": "unsubscribe", "requestId": 1 }));
    let error = hear(&mut client);
    assert_eq!((&error["code"], &error["requestId"]), (&json!(2), &Value::Null));
    say(
        &mut client,
        &json!({ "op": "update", "requestId": 7, "query": { "className": "B", "where": {} } }),
    );
    assert_eq!(hear(&mut client)["code"], 2);
    assert_eq!(hear(&mut client)["op"], "subscribed");
    assert_eq!(server.received().len(), 7);
    assert_eq!(server.wait_op(1, "update", 2)[1].request_id(), 7);
}

#[test]
fn schema_is_the_servers() {
    let query = |members: Value| json!({ "op": "subscribe", "requestId": 1, "query": members });
    let table = [
        (
            json!({ "op": "connect", "applicationId": "a", "sessionToken": "r:1" }),
            None,
        ),
        (
            json!({ "op": "connect" }),
            Some("Missing required property: applicationId"),
        ),
        (
            json!({ "op": "connect", "applicationId": "a", "sessionToken": null }),
            Some("Invalid type: null (expected string)"),
        ),
        (
            json!({ "op": "connect", "applicationId": "a", "maintenanceKey": "m" }),
            Some("Additional properties not allowed"),
        ),
        (
            query(json!({ "className": "A", "where": {}, "keys": ["a"], "watch": ["b"] })),
            None,
        ),
        (
            query(json!({ "className": "A" })),
            Some("Missing required property: where"),
        ),
        (
            query(json!({ "className": "A", "where": {}, "fields": ["a"] })),
            Some("Additional properties not allowed"),
        ),
        (
            query(json!({ "className": "A", "where": {}, "keys": [] })),
            Some("Array is too short (0), minimum 1"),
        ),
        (
            query(json!({ "className": "A", "where": {}, "watch": ["a", "a"] })),
            Some("Array items are not unique (indices 0 and 1)"),
        ),
        (
            query(json!({ "className": "A", "where": {}, "keys": "a" })),
            Some("Invalid type: string (expected array)"),
        ),
        (
            json!({ "op": "unsubscribe", "requestId": "1" }),
            Some("Invalid type: string (expected number)"),
        ),
        (
            json!({ "op": "unsubscribe", "requestId": 1, "sessionToken": "r:1" }),
            Some("Additional properties not allowed"),
        ),
        (json!({ "op": "query" }), Some("No enum match for: \"query\"")),
        (json!({}), Some("Missing required property: op")),
    ];
    for (frame, violation) in table {
        assert_eq!(schema_violation(&frame).as_deref(), violation, "{frame}");
    }
}

#[test]
fn scripted_server_goes_step_by_step() {
    let server = Server::scripted();
    let mut raw = tcp(server.addr());
    let conn = server.accept();
    raw.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let silence = raw.read(&mut [0; 1]).unwrap_err().kind();
    assert!(matches!(silence, ErrorKind::WouldBlock | ErrorKind::TimedOut));
    conn.send_raw(b"HTTP/1.1 404 Not Found\r\n\r\n");
    conn.cut();
    let mut answer = String::new();
    raw.set_read_timeout(Some(LONG)).unwrap();
    raw.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.1 404 Not Found\r\n\r\n");

    let addr = server.addr();
    let client = std::thread::spawn(move || {
        let mut client = websocket(addr);
        say(&mut client, &json!({ "op": "connect", "applicationId": "app" }));
        assert_eq!(hear(&mut client)["op"], "connected");
        say(&mut client, &subscribe(3, "Game"));
        assert_eq!(hear(&mut client)["op"], "subscribed");
        assert_eq!(hear(&mut client)["object"]["objectId"], "a");
        assert_eq!(hear(&mut client)["fragmented"], "äöü");
        assert_eq!(client.read().unwrap(), Message::binary(vec![1, 2]));
        assert_eq!(client.read().unwrap(), Message::Ping(b"p".to_vec().into()));
        assert_eq!(hear(&mut client)["code"], 141);
        assert!(client.read().unwrap().is_close());
        let end = client.read().unwrap_err();
        assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end}");
    });
    let conn = server.accept();
    assert!(conn.read_request().starts_with("GET /parse HTTP/1.1\r\n"));
    assert_eq!(conn.connect()["applicationId"], "app");
    let id = conn.expect_id("subscribe");
    conn.send_together(&[
        conn.subscribed_message(id),
        conn.event_message("create", id, object("Game", "a", json!({})), None),
    ]);
    assert_eq!(conn.subscriptions_to("Game"), [3]);
    conn.send_fragmented("{\"fragmented\":\"äöü\"}", 3);
    conn.send_binary(&[1, 2]);
    conn.ping(b"p");
    conn.error(141, "no", false, Some(id));
    conn.close(1000, "bye");
    conn.wait_ended();
    client.join().unwrap();
    assert_eq!(conn.wait_control(Control::Pong), b"p");
}

#[test]
fn cut_is_fin_and_reset_is_rst() {
    let server = Server::auto();
    for number in 1..=20 {
        let mut client = tcp(server.addr());
        let mut socket = websocket(server.addr());
        server.conn(2 * number - 1).cut();
        server.conn(2 * number).reset();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        match socket.read().unwrap_err() {
            tungstenite::Error::Io(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn hooks_take_over_and_heal_gives_back() {
    let server = Server::auto();
    server.on_accept(|conn| {
        conn.read_request();
        conn.send_raw(b"nonsense");
        conn.cut();
        Then::Handled
    });
    assert!(tungstenite::client(server.url(), tcp(server.addr())).is_err());
    server.heal();
    server.on_frame(|conn, frame| {
        if frame["op"] != "subscribe" {
            return Then::Default;
        }
        conn.error(119, "no", false, frame["requestId"].as_u64());
        Then::Handled
    });
    let mut client = websocket(server.addr());
    say(&mut client, &json!({ "op": "connect", "applicationId": "app" }));
    assert_eq!(hear(&mut client)["op"], "connected");
    say(&mut client, &subscribe(1, "Game"));
    assert_eq!(hear(&mut client)["code"], 119);
    assert_eq!(server.conn(2).subscriptions_to("Game"), [0; 0]);
}

#[test]
fn panic_of_a_hook_fails_the_test() {
    let server = Server::auto();
    server.on_accept(|_| panic!("in the hook"));
    drop(tcp(server.addr()));
    server.conn(1).wait_ended();
    let panic = catch_unwind(AssertUnwindSafe(|| drop(server))).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("in the hook"));
}

#[test]
fn silent_client_is_terminated_after_one_missed_pong() {
    let server = Server::auto();
    let period = Duration::from_secs(2);
    server.ping_every(period);
    let mut deaf = websocket(server.addr());
    let mut answering = websocket(server.addr());
    let start = Instant::now();
    let alive = std::thread::spawn(move || while answering.read().is_ok() {});
    server.conn(1).wait_ended();
    assert!(start.elapsed() >= period);
    server.conn(2).wait_control(Control::Pong);
    assert!(server.open_conns().iter().any(|conn| conn.number() == 2));
    assert!(deaf.read().unwrap().is_ping());
    drop(server);
    alive.join().unwrap();
}

#[test]
fn pings_of_the_client_are_answered_unless_forbidden() {
    let server = Server::auto();
    let mut client = websocket(server.addr());
    client.send(Message::Ping(b"1".to_vec().into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(b"1".to_vec().into()));
    server.conn(1).answer_pings(false);
    client.send(Message::Ping(b"2".to_vec().into())).unwrap();
    say(&mut client, &json!({ "op": "connect", "applicationId": "app" }));
    assert_eq!(hear(&mut client)["op"], "connected");
}

#[test]
fn close_of_the_client_is_answered_unless_forbidden() {
    let server = Server::auto();
    let mut client = websocket(server.addr());
    client.close(None).unwrap();
    assert!(client.read().unwrap().is_close());
    server.conn(1).wait_ended();

    let mut client = websocket(server.addr());
    server.conn(2).answer_close(false);
    client.close(None).unwrap();
    server.conn(2).wait_control(Control::Close);
    assert_eq!(server.open_conns().len(), 1);
    expect_silence(&mut client);
    assert_eq!(server.conn(2).controls().len(), 1);
}

#[test]
fn open_connections_are_counted_as_the_client_holds_them() {
    let server = Server::auto();
    for _ in 0..20 {
        drop(tcp(server.addr()));
    }
    server.conn(20);
    assert_eq!(server.accepts(), 20);
    assert!(server.max_open() <= 1);
    let kept = [tcp(server.addr()), tcp(server.addr())];
    server.conn(22);
    assert_eq!((server.open_now(), server.max_open()), (2, 2));
    drop(kept);
    server.conn(22).wait_ended();
    assert_eq!((server.open_now(), server.max_open()), (0, 2));
}

#[test]
fn accepting_pauses_and_connecting_is_refused() {
    let server = Server::auto();
    server.pause_accepting();
    let waiting = tcp(server.addr());
    waiting.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    (&waiting).write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!((&waiting).read(&mut [0; 1]).is_err());
    assert_eq!(server.accepts(), 0);
    server.resume_accepting();
    server.conn(1);

    server.refuse();
    let error = TcpStream::connect(server.addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.open_now(), 1);
    server.listen_again();
    let _second = tcp(server.addr());
    server.conn(2);
}

#[test]
fn connecting_to_a_full_backlog_hangs() {
    let Some(full) = FullBacklog::new() else { return };
    let error = TcpStream::connect_timeout(&address_of(&full.url()), Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// A client and its server with a proxy between them, after `connected`.
fn through_proxy() -> (Server, Proxy, WebSocket<TcpStream>) {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    let mut client = websocket(address_of(&proxy.url()));
    say(&mut client, &json!({ "op": "connect", "applicationId": "app" }));
    assert_eq!(hear(&mut client)["op"], "connected");
    (server, proxy, client)
}

fn expect_silence(client: &mut WebSocket<TcpStream>) {
    client
        .get_ref()
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    match client.read().unwrap_err() {
        tungstenite::Error::Io(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{error}"
            );
        }
        other => panic!("{other}"),
    }
    client.get_ref().set_read_timeout(Some(LONG)).unwrap();
}

#[test]
fn proxy_blackhole_swallows_in_both_directions_until_it_heals() {
    let (server, proxy, mut client) = through_proxy();
    proxy.blackhole();
    let received = server.received().len();
    say(&mut client, &subscribe(1, "Game"));
    server.conn(1).send(&json!({ "op": "hello" }));
    let new = tcp(address_of(&proxy.url()));
    expect_silence(&mut client);
    assert_eq!((server.received().len(), server.accepts()), (received, 1));
    assert_eq!((proxy.accepts(), proxy.open_now()), (2, 2));
    // A client that gives up is seen here, and not by the server.
    drop(new);
    wait_until("the proxy sees the close", || proxy.open_now() == 1);
    assert_eq!(server.open_now(), 1);

    proxy.heal();
    assert_eq!(hear(&mut client)["op"], "hello");
    assert_eq!(hear(&mut client)["op"], "subscribed");
}

#[test]
fn proxy_cuts_and_resets_both_ends() {
    let (server, proxy, mut client) = through_proxy();
    proxy.cut();
    let end = client.read().unwrap_err();
    assert!(
        matches!(end, tungstenite::Error::Protocol(_)),
        "FIN without a close frame: {end}"
    );
    server.conn(1).wait_ended();

    let mut client = websocket(address_of(&proxy.url()));
    proxy.reset();
    match client.read().unwrap_err() {
        tungstenite::Error::Io(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        other => panic!("{other}"),
    }
    server.conn(2).wait_ended();
    assert_eq!((proxy.accepts(), proxy.open_now(), proxy.max_open()), (2, 0, 1));
}

#[test]
fn proxy_cut_ends_a_blackholed_connection() {
    let (server, proxy, mut client) = through_proxy();
    proxy.blackhole();
    proxy.cut();
    assert!(client.read().is_err());
    server.conn(1).wait_ended();
}

#[test]
fn proxy_passes_ends_on() {
    let (server, proxy, client) = through_proxy();
    drop(client);
    server.conn(1).wait_ended();
    wait_until("the proxy forgets the link", || proxy.open_now() == 0);
    let mut client = websocket(address_of(&proxy.url()));
    server.conn(2).reset();
    match client.read().unwrap_err() {
        tungstenite::Error::Io(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        other => panic!("{other}"),
    }
}

#[test]
fn proxy_delays_chops_and_stalls() {
    let (server, proxy, mut client) = through_proxy();
    let delay = Duration::from_millis(200);
    proxy.delay(delay);
    let start = Instant::now();
    say(&mut client, &subscribe(1, "Game"));
    assert_eq!(hear(&mut client)["op"], "subscribed");
    assert!(start.elapsed() >= 2 * delay);

    proxy.lag(delay);
    let start = Instant::now();
    say(&mut client, &json!({ "op": "unsubscribe", "requestId": 1 }));
    server.wait_op(1, "unsubscribe", 1);
    assert_eq!(hear(&mut client)["op"], "unsubscribed");
    assert!(start.elapsed() >= delay);

    proxy.chunks_of(1, Duration::ZERO);
    say(&mut client, &subscribe(2, "Game"));
    assert_eq!(hear(&mut client)["op"], "subscribed");
    proxy.chunks_of(1, Duration::from_millis(1));
    let message = json!({ "op": "hello" });
    let start = Instant::now();
    server.conn(1).send(&message);
    assert_eq!(hear(&mut client), message);
    assert!(start.elapsed() >= Duration::from_millis(message.to_string().len() as u64));

    proxy.heal();
    proxy.stall_after(5);
    let before = proxy.bytes_down();
    server.conn(1).send(&message);
    expect_silence(&mut client);
    assert_eq!(proxy.bytes_down() - before, 5);
    let received = server.received().len();
    say(&mut client, &subscribe(3, "Game"));
    expect_silence(&mut client);
    assert_eq!(server.received().len(), received);
    proxy.heal();
    assert_eq!(hear(&mut client), message);
    assert_eq!(hear(&mut client)["op"], "subscribed");
}

#[test]
fn proxy_passes_large_messages_to_a_slow_reader() {
    let (server, _proxy, mut client) = through_proxy();
    let text = "x".repeat(8 << 20);
    let conn = server.conn(1);
    let sender = std::thread::spawn(move || conn.send_text(&text));
    expect_large(&mut client, 8 << 20);
    sender.join().unwrap();
}

fn expect_large(client: &mut WebSocket<TcpStream>, size: usize) {
    assert_eq!(client.read().unwrap().len(), size);
}

#[test]
fn proxy_refuses_and_accepts_to_close() {
    let (server, proxy, mut client) = through_proxy();
    proxy.refuse();
    let error = TcpStream::connect(address_of(&proxy.url())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    server.conn(1).send(&json!({ "op": "hello" }));
    assert_eq!(hear(&mut client)["op"], "hello");
    proxy.accept_and_close();
    assert_eq!(tcp(address_of(&proxy.url())).read(&mut [0; 1]).unwrap(), 0);
    assert_eq!((proxy.accepts(), server.accepts()), (2, 1));
    proxy.heal();
    websocket(address_of(&proxy.url()));
    // A server that refuses ends connections that the proxy has accepted.
    server.refuse();
    assert_eq!(tcp(address_of(&proxy.url())).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn everything_ends_when_dropped() {
    in_own_process(module_path!(), "everything_ends_when_dropped", MINUTE, || {
        let files = open_files();
        for _ in 0..20 {
            let server = Server::auto();
            server.ping_every(Duration::from_secs(10));
            let proxy = Proxy::to(server.addr());
            let mut client = websocket(address_of(&proxy.url()));
            say(&mut client, &json!({ "op": "connect", "applicationId": "app" }));
            hear(&mut client);
            let _never_upgraded = tcp(server.addr());
            drop(server);
            drop(proxy);
        }
        // A thread that was joined may be in the kernel's list for a moment.
        wait_until("no thread is left", || {
            ["kit-accept", "kit-conn", "kit-ping", "kit-proxy"]
                .iter()
                .all(|name| threads_named(name).is_none_or(|threads| threads.is_empty()))
        });
        assert_eq!(open_files(), files);
    });
}

#[test]
fn process_numbers_are_the_kernels() {
    in_own_process(module_path!(), "process_numbers_are_the_kernels", MINUTE, || {
        let (begin, began) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("livequery-dispatch".into())
            .spawn(move || {
                begin.send(()).unwrap();
                while ended.recv().is_ok() {}
            });
        began.recv().unwrap();
        let Some(threads) = threads_named("livequery-dispatch") else {
            return;
        };
        assert_eq!(threads.len(), 1, "{threads:?}");
        let before = threads[0].voluntary_switches;
        end.send(()).unwrap();
        wait_until("the thread has slept once more", || {
            threads_named("livequery-dispatch").unwrap()[0].voluntary_switches > before
        });
        drop(end);
        thread.unwrap().join().unwrap();
        wait_until("it is gone", || {
            threads_named("livequery-dispatch").unwrap().is_empty()
        });

        let files = open_files().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(open_files().unwrap(), files + 1);
        drop(file);
        let resident = resident_bytes().unwrap();
        let held = vec![1_u8; 64 << 20];
        assert!(resident_bytes().unwrap() >= resident + (60 << 20));
        drop(held);
    });
}

#[test]
fn own_process_reports_failure_and_standard_error() {
    let name = "own_process_reports_failure_and_standard_error";
    let result = catch_unwind(|| {
        in_own_process(module_path!(), name, MINUTE, || panic!("the child fails"));
    });
    // In the child, the panic is what the parent looks for.
    let panic = result.unwrap_err();
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("the child fails") && text.contains(name), "{text}");
}

#[test]
fn watchdog_barks_and_passes_panics_on() {
    assert_eq!(watchdog(MINUTE, || 1), 1);
    let panic = catch_unwind(|| watchdog(MINUTE, || panic!("{}", "inner"))).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "inner");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let panic = catch_unwind(|| watchdog(Duration::from_millis(50), move || held.recv())).unwrap_err();
    assert!(
        panic
            .downcast_ref::<String>()
            .unwrap()
            .starts_with("still running")
    );
    drop(release);
}

#[test]
fn recorder_waits_skips_and_counts() {
    let recorder = Recorder::new();
    let pusher = recorder.clone();
    let thread = std::thread::spawn(move || {
        for (at, kind) in ["open", "create", "update", "close"].into_iter().enumerate() {
            pusher.push("s", kind, at);
        }
    });
    assert_eq!(recorder.expect("open").value, 0);
    assert_eq!(recorder.wait_for("update").value, 2);
    assert_eq!(recorder.wait_where("3", |seen| seen.value == 3).kind, "close");
    thread.join().unwrap();
    assert_eq!(recorder.drain().len(), 0);
    recorder.expect_quiet(Duration::from_millis(20));
    assert_eq!(recorder.kinds(), ["open", "create", "update", "close"]);
    assert_eq!(recorder.count("create"), 1);
    assert_eq!(recorder.all()[0].source.as_ref(), "s");

    recorder.push("s", "error", 4);
    assert!(catch_unwind(AssertUnwindSafe(|| recorder.expect("open"))).is_err());
    recorder.push("s", "error", 5);
    assert!(catch_unwind(AssertUnwindSafe(|| recorder.expect_quiet(LONG))).is_err());
}

//! What comes when the server goes away and when the client does.

use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use parse_livequery::{EventKind, GapReason, Query};
use serde_json::json;

use crate::recorder::{Recorder, builder, builder_for, client, record};
use crate::support::{Options, PATIENCE, ParseServer, install, only, spawn_node, wait_until};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn subscriptions_come_back_after_the_server_was_killed() {
    let server = ParseServer::start(Options {
        keeps_data: true,
        // Short, so that the pongs of the client matter here: without one for two intervals it is thrown out.
        websocket_timeout: Duration::from_secs(1),
        ..Options::default()
    });
    let alice = server.sign_up("alice");
    let client = builder(&server)
        .reconnect_delay(Duration::from_millis(50), Duration::from_millis(500))
        .build()
        .unwrap();
    let (sender, reconnecting) = mpsc::channel();
    client.on("reconnecting", move |event| {
        let _ = sender.send(event.clone());
    });
    let public = record(&client, &Query::new("Outage"));
    let query = Query::new("Outage").greater_than("score", 10);
    let private = Recorder::open(client.subscription(&query).session_token(&alice.session_token));
    let before = server.create("Outage", &json!({"score": 20, "ACL": only(&alice)}));
    private.expect_of(EventKind::Create, &before);

    server.kill();
    let killed = SystemTime::now();
    public.expect(EventKind::Close);
    private.expect(EventKind::Close);
    reconnecting.recv_timeout(PATIENCE).unwrap();
    server.start_again();

    for recorder in [&public, &private] {
        let opened = recorder.expect(EventKind::Open);
        let gap = opened.gap().expect("an open after a cut says what was missed");
        assert_eq!(gap.reason(), GapReason::ConnectionLost);
        // The last proof that nothing was on its way came before the outage; how long before, a ping decides.
        let times = [gap.start(), killed.into(), gap.end(), SystemTime::now().into()];
        assert!(times.is_sorted(), "{times:?}");
    }
    let after = server.create("Outage", &json!({"score": 30}));
    public.expect_of(EventKind::Create, &after);
    private.expect_of(EventKind::Create, &after);
    // The database and the session have survived, and the subscription still has its token and its query.
    server.update("Outage", &before, &json!({"score": 5}));
    private.expect_of(EventKind::Leave, &before);
    assert_eq!(server.subscriptions("Outage").len(), 2);
    public.end();
    private.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_closed_client_leaves_the_server() {
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Left"));
    assert_eq!(server.subscriptions("Left").len(), 1);

    client.close();
    recorder.expect(EventKind::Close);
    wait_until("the server holds no subscription", || {
        server.subscriptions("Left").is_empty()
    });

    // As in the JavaScript SDK, a closed client may be used again.
    let recorder = record(&client, &Query::new("Left"));
    let id = server.create("Left", &json!({}));
    recorder.expect_of(EventKind::Create, &id);
    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_server_on_ws_sees_its_farewell_answered() {
    install();
    let (mut process, port) = spawn_node("close_codes.mjs", None);
    for code in [1000, 1001, 1011, 1012, 4001] {
        let client = builder_for(format!("ws://127.0.0.1:{port}/{code}"))
            .build()
            .unwrap();
        let (sender, reconnecting) = mpsc::channel();
        client.on("reconnecting", move |event| {
            let _ = sender.send(event.clone());
        });
        client.open();
        reconnecting.recv_timeout(PATIENCE).unwrap();
        client.close();
        wait_until("the server sees the code that it sent", || {
            let ended = ureq::get(format!("http://127.0.0.1:{port}/")).call().unwrap();
            let ended = ended.into_body().read_to_string().unwrap();
            let ended: Vec<(u16, u16)> = serde_json::from_str(&ended).unwrap();
            let of_code: Vec<_> = ended.iter().filter(|(sent, _)| *sent == code).collect();
            assert!(of_code.iter().all(|(sent, seen)| sent == seen), "{ended:?}");
            !of_code.is_empty()
        });
    }
    process.kill().unwrap();
    process.wait().unwrap();
}

//! Several servers behind one client.

use std::collections::HashSet;
use std::time::Duration;

use parse_livequery::{Client, ClientBuilder, ErrorKind, GapReason, Query};
use serde_json::json;

use crate::support::{LONG, Recorder, Server, object, wait_until};

fn builder(servers: &[&Server]) -> ClientBuilder {
    let (first, others) = servers.split_first().unwrap();
    let builder = Client::builder(first.url(), "app")
        .reconnect_delay(Duration::from_millis(20), Duration::from_millis(200));
    others
        .iter()
        .fold(builder, |builder, server| builder.add_server(server.url()))
}

#[test]
fn a_client_moves_on_when_its_server_goes_and_says_what_it_missed() {
    let servers = [Server::auto(), Server::auto()];
    let client = builder(&[&servers[0], &servers[1]]).build().unwrap();
    let events = Recorder::new();
    let seen = events.clone();
    let _subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| seen.push("game", &event.kind().to_string(), event.clone()))
        .start()
        .unwrap();
    assert!(events.expect("open").value.gap().is_none());
    let (on, other) = match servers[0].accepts() {
        1 => (&servers[0], &servers[1]),
        _ => (&servers[1], &servers[0]),
    };
    assert_eq!((on.accepts(), other.accepts()), (1, 0), "one at a time");
    on.refuse();
    on.conn(1).cut();
    events.expect("close");
    let gap = events.expect("open").value.gap().cloned().expect("a gap");
    assert_eq!(gap.reason(), GapReason::ConnectionLost);
    assert_eq!(other.accepts(), 1);
    other.emit("create", &object("Game", "g1", json!({})));
    assert_eq!(events.expect("create").value.id(), Some("g1"));

    // And back, though the first one was lost before.
    on.listen_again();
    other.refuse();
    other.conn(1).cut();
    events.expect("close");
    events.expect("open");
    assert_eq!(on.open_conns().len(), 1);
    client.close();
}

#[test]
fn servers_that_are_down_are_passed_over_at_the_start() {
    let servers = [Server::auto(), Server::auto(), Server::auto()];
    servers[0].refuse();
    servers[1].refuse();
    for _ in 0..4 {
        let client = builder(&[&servers[0], &servers[1], &servers[2]]).build().unwrap();
        client.open();
        client.wait_open(LONG).unwrap();
        client.close();
    }
    assert_eq!(servers[2].accepts(), 4);
}

#[test]
fn clients_spread_over_the_servers() {
    let servers = [Server::auto(), Server::auto()];
    let clients: Vec<_> = (0..24)
        .map(|_| {
            let client = builder(&[&servers[0], &servers[1]]).build().unwrap();
            client.open();
            client.wait_open(LONG).unwrap();
            client
        })
        .collect();
    // That all of them draw the same one happens once in eight million runs.
    let used: HashSet<_> = servers.iter().map(|server| server.accepts() > 0).collect();
    assert_eq!(used, HashSet::from([true]));
    drop(clients);
    wait_until("the clients have gone", || {
        servers.iter().all(|server| server.open_now() == 0)
    });
}

#[test]
fn each_url_is_checked_and_shown_without_its_secrets() {
    let with = |url: &str| Client::builder("ws://a.example/parse?key=secret", "app").add_server(url);
    let error = with("ftp://b.example").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("`ftp`"), "{error}");
    let client = with("https://b.example/parse?key=secret").build();
    if cfg!(any(feature = "tls", feature = "webpki-roots")) {
        let debug = format!("{:?}", client.unwrap());
        assert!(
            debug.contains("ws://a.example/parse or wss://b.example/parse"),
            "{debug}"
        );
        assert!(!debug.contains("secret"), "{debug}");
    } else {
        client.unwrap_err();
    }
}

//! A pause of the client: nothing is connected, everything that is subscribed comes back, and nobody waits in vain.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::unbounded;
use parse_livequery::test_server::TestServer;
use parse_livequery::{ClientState, Dispatch, ErrorKind, GapReason, Query, SubscriptionState};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

#[test]
fn a_pause_tells_all_and_a_resume_brings_all_back_with_a_gap() {
    let server = Server::auto();
    let client = client(&server.url());
    let clients = record_client(&client);
    let (games, events) = subscribe(&client, "Game");
    let (teams, teams_events) = subscribe(&client, "Team");
    clients.expect("open");
    server.emit("create", &object("Game", "a", json!({})));
    events.expect("create");

    client.pause();
    let close = events.expect("close").value;
    assert!(close.error().is_none(), "nothing went wrong");
    teams_events.expect("close");
    assert!(clients.expect("close").value.error().is_none());
    server.conn(1).wait_ended();
    assert_eq!(client.state(), ClientState::Paused);
    assert_eq!(games.state(), SubscriptionState::Pending);
    client.reconnect_now();
    client.open();

    client.resume();
    for events in [&events, &teams_events] {
        let open = events.expect("open").value;
        assert_eq!(open.gap().unwrap().reason(), GapReason::Paused);
    }
    clients.expect("open");
    assert_eq!(server.accepts(), 2, "there was no connection in between");
    server.emit("create", &object("Game", "b", json!({})));
    assert_eq!(events.expect("create").value.id(), Some("b"));
    drop(teams);
}

#[test]
fn what_is_made_in_a_pause_waits_and_what_ends_in_it_stays_ended() {
    let server = Server::auto();
    let client = client(&server.url());
    client.pause();
    let (events, gone) = (Events::new(), Events::new());
    let subscription = subscribe_into(&client, "Game", &events);
    let ended = subscribe_into(&client, "Team", &gone);
    wait_until("it is paused", || client.state() == ClientState::Paused);
    let error = subscription.wait_open(ms(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("paused"), "{error}");
    let error = client.wait_open(ms(1)).unwrap_err();
    assert!(error.to_string().contains("`resume`"), "{error}");
    ended.unsubscribe();
    subscription.update(&Query::new("Player")).unwrap();
    assert_eq!((server.accepts(), client.state()), (0, ClientState::Paused));
    assert!(client.diagnose().contains("resume"), "{}", client.diagnose());

    client.resume();
    subscription.wait_open(LONG).unwrap();
    assert!(events.expect("open").value.gap().is_none(), "nothing was missed");
    let subscribed = server.received_op("subscribe");
    let classes: Vec<_> = subscribed
        .iter()
        .map(|frame| frame.frame["query"]["className"].clone())
        .collect();
    assert_eq!(classes, ["Player"]);
    assert_eq!(gone.count("open"), 0);
}

#[test]
fn a_pause_while_the_server_is_away_stops_the_attempts_and_their_reason_is_forgotten() {
    let server = Server::auto();
    server.refuse();
    let client = client(&server.url());
    let clients = record_client(&client);
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    clients.wait_for("reconnecting");
    client.pause();
    wait_until("it is paused", || client.state() == ClientState::Paused);
    let attempts = client.stats().failures;
    let error = client.wait_open(ms(200)).unwrap_err();
    assert!(std::error::Error::source(&error).is_none(), "{error}");
    assert_eq!(client.stats().failures, attempts);
    server.listen_again();
    client.resume();
    subscription.wait_open(LONG).unwrap();
}

#[test]
fn a_pause_while_the_server_does_not_answer_holds_up_nobody() {
    for stage in ["upgrade", "connect", "subscribe"] {
        let server = Server::auto();
        match stage {
            "upgrade" => server.on_accept(|_| Then::Handled),
            stage => {
                let stage = stage.to_owned();
                server.on_frame(move |_, frame| {
                    if frame["op"] == *stage {
                        return Then::Handled;
                    }
                    Then::Default
                });
            }
        }
        let client = client(&server.url());
        let subscription = client.subscribe(&Query::new("Game")).unwrap();
        server.conn(1);
        client.pause();
        wait_until("it is paused", || client.state() == ClientState::Paused);
        server.heal();
        client.resume();
        subscription.wait_open(LONG).unwrap();
        client.close();
        assert_eq!(subscription.state(), SubscriptionState::Closed, "{stage}");
    }
}

#[test]
fn a_listener_may_pause_and_resume_its_client() {
    let server = Server::auto();
    let client = client(&server.url());
    let (sender, opened) = unbounded();
    let inner = client.clone();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_open(move |gap| sender.send(gap.map(parse_livequery::Gap::reason)).unwrap())
        .on_create(move |_| {
            inner.pause();
            inner.pause();
            inner.resume();
        })
        .start()
        .unwrap();
    assert_eq!(opened.recv_timeout(LONG), Ok(None));
    server.emit("create", &object("Game", "a", json!({})));
    assert_eq!(opened.recv_timeout(LONG), Ok(Some(GapReason::Paused)));
    client.close();
    drop(subscription);
}

#[test]
fn a_program_that_dispatches_itself_is_told_of_a_pause_in_its_own_time() {
    let server = Server::auto();
    let client = builder(&server.url())
        .dispatch(Dispatch::polled())
        .build()
        .unwrap();
    let events = Events::new();
    let _subscription = subscribe_into(&client, "Game", &events);
    let told = |count: usize| {
        wait_until("it is told", || {
            client.dispatch_pending_timeout(ms(50));
            events.all().len() >= count
        });
    };
    told(1);
    client.pause();
    wait_until("it is paused", || client.state() == ClientState::Paused);
    client.resume();
    told(3);
    assert_eq!(events.kinds(), ["open", "close", "open"]);
}

#[test]
fn a_close_ends_a_pause_and_a_closed_client_opens_as_ever() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    client.pause();
    events.expect("close");
    client.close();
    assert_eq!(client.state(), ClientState::Closed);
    assert_eq!(subscription.state(), SubscriptionState::Closed);
    client.wait_closed().unwrap();
    // A pause of what is closed is none, or whoever waits for the end would wait for ever.
    client.pause();
    client.wait_closed().unwrap();
    let (_again, _) = subscribe(&client, "Game");
    assert_eq!(client.state(), ClientState::Connected);
}

#[test]
fn whoever_waits_for_a_paused_client_to_close_hears_of_it() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, _) = subscribe(&client, "Game");
    client.pause();
    let other = client.clone();
    let waits = thread::spawn(move || other.wait_closed());
    client.close();
    waits.join().unwrap().unwrap();
}

#[test]
fn the_last_handle_of_a_paused_client_ends_it() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    client.pause();
    events.expect("close");
    drop(subscription);
    drop(client);
    server.conn(1).wait_ended();
}

#[test]
fn a_live_set_is_stale_in_a_pause_and_fetches_after_it() {
    let server = TestServer::start().unwrap();
    let id = server.create("Game", json!({"score": 1}));
    let client = client(&server.url());
    let fetch_from = Arc::new(server);
    let source = Arc::clone(&fetch_from);
    let set = client
        .live_set(&Query::new("Game"))
        .fetch_with(move |query| source.find(query))
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    client.pause();
    wait_until("it is stale", || !set.is_ready() && set.stale_since().is_some());
    fetch_from.update("Game", &id, json!({"score": 2}));
    assert_eq!(set.at(0).unwrap().get_i64("score"), Some(1), "nothing comes");
    client.resume();
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.at(0).unwrap().get_i64("score"), Some(2));
}

#[cfg(feature = "rest")]
#[test]
fn the_rest_api_works_in_a_pause() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"score": 1}));
    let client = client(&server.url());
    client.pause();
    assert_eq!(client.rest().find(&Query::new("Game")).unwrap().len(), 1);
    wait_until("it is paused", || client.state() == ClientState::Paused);
    assert_eq!(server.connects(), 0);
}

#[test]
fn a_session_token_that_is_set_in_a_pause_is_the_one_that_is_used() {
    let server = Server::auto();
    let client = builder(&server.url()).session_token("r:old").build().unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    client.pause();
    events.expect("close");
    client.set_session_token(Some("r:new"));
    client.resume();
    let open = events.expect("open").value;
    assert_eq!(open.gap().unwrap().reason(), GapReason::SessionTokenChanged);
    let tokens: Vec<_> = server
        .received_op("connect")
        .iter()
        .map(|frame| frame.frame["sessionToken"].clone())
        .collect();
    assert_eq!(tokens, ["r:old", "r:new"]);
}

/// Pauses and resumes without a break, from two threads, while others subscribe: all is well in the end.
#[test]
fn pauses_from_several_threads_leave_nothing_behind() {
    let server = Server::auto();
    let client = client(&server.url());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    client.pause();
                    client.resume();
                }
            });
        }
        scope.spawn(|| {
            for at in 0..20 {
                let subscription = client.subscribe(&Query::new(format!("C{at}"))).unwrap();
                if at % 2 == 0 {
                    subscription.detach();
                }
            }
        });
    });
    client.resume();
    let (_last, _) = subscribe(&client, "Last");
    wait_until("all are there", || client.stats().subscriptions == 11);
    client.close();
    assert_eq!(client.state(), ClientState::Closed);
}

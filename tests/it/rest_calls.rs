//! `client.rest()`: the table of calls against the test server, what it says when a server or the link to it fails, what
//! it repeats, and what a log-in does to subscriptions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossbeam_channel::{Receiver, unbounded};
use parse_livequery::rest::{Op, Rest};
use parse_livequery::test_server::TestServer;
use parse_livequery::{ClientEventKind, Dispatch, Error, ErrorKind, File, GapReason, Query};
use serde_json::{Value, json};

use crate::harness::*;
use crate::rest_table::{permissions, same_answers, same_permissions};
use crate::support::*;

fn server() -> TestServer {
    with_functions(TestServer::start().unwrap())
}

fn with_functions(server: TestServer) -> TestServer {
    server.function("answer", |call| {
        let number = |name: &str| call.params()[name].as_i64().unwrap();
        Ok(json!({"sum": number("a") + number("b"), "user": call.user()}))
    });
    server.function("throws", |_| Err("as it should".to_owned()));
    server
}

#[test]
fn the_test_server_answers_the_table() {
    let server = server();
    same_answers(&client(&server.url()), "table");
}

#[test]
fn the_test_server_has_the_permissions_of_classes() {
    let server = server();
    let client = client(&server.url());
    let session = client.rest().sign_up("ann", "s3cret", &json!({})).unwrap();
    server.permissions("RestNews", permissions(session.user().id().unwrap()));
    let id = server.create("RestNews", json!({"text": "a"}));
    same_permissions(&client.rest(), &id);
    // LiveQuery asks for the same.
    let one = Query::new("RestNews").equal_to("objectId", id);
    client.subscribe(&one).unwrap().wait_open(LONG).unwrap();
    server.permissions("RestNews", json!({"get": {"*": true}}));
    let error = client
        .subscribe(&Query::new("RestNews"))
        .unwrap()
        .wait_open(LONG)
        .unwrap_err();
    assert_eq!(error.code(), Some(119), "{error}");
}

/// With the master key and another one, users are users all the same; with the master key alone as well.
#[test]
fn the_master_key_does_not_keep_anybody_from_logging_in() {
    let server = TestServer::builder()
        .master_key("master key")
        .javascript_key("js key")
        .start()
        .unwrap();
    let both = builder(&server.url())
        .master_key("master key")
        .javascript_key("js key");
    let alone = builder(&server.url()).master_key("master key");
    for (at, builder) in [both, alone].into_iter().enumerate() {
        let client = builder.build().unwrap();
        let session = client
            .rest()
            .sign_up(&format!("ann {at}"), "s3cret", &json!({}))
            .unwrap();
        assert_eq!(client.rest().me().unwrap().id(), session.user().id());
        // What belongs to others is open to the master key.
        let note = json!({"ACL": {"somebody": {"read": true}}});
        let note = client.rest().create("Note", &note).unwrap();
        client.rest().get("Note", note.id().unwrap()).unwrap();
        client.rest().log_out().unwrap();
        assert_eq!(client.rest().me().unwrap_err().code(), Some(209));
    }
    let wrong = builder(&server.url()).javascript_key("another").build().unwrap();
    let error = wrong.rest().log_in("ann 0", "s3cret").unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, None));
    assert!(
        error
            .to_string()
            .contains("check the application id and the keys"),
        "{error}"
    );
}

#[test]
fn a_log_in_brings_what_the_user_may_read() {
    let server = server();
    let client = client(&server.url());
    let ann = client
        .rest()
        .own_session()
        .sign_up("ann", "s3cret", &json!({}))
        .unwrap();
    let id = ann.user().id().unwrap().to_owned();
    let own = json!({"ACL": {id.as_str(): {"read": true, "write": true}}});
    server.create("Note", own.clone());
    let (subscription, events) = subscribe(&client, "Note");
    let set = client.live_set(&Query::new("Note")).start().unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(set.len(), 0);

    client.rest().log_in("ann", "s3cret").unwrap();
    events.expect("close");
    let gap = events.expect("open").value.gap().cloned();
    assert_eq!(gap.map(|gap| gap.reason()), Some(GapReason::SessionTokenChanged));
    wait_until("the set has Ann's note", || set.len() == 1);
    let note = client.rest().create("Note", &own).unwrap();
    assert_eq!(events.expect("create").value.id(), note.id());
    client
        .rest()
        .update("Note", note.id().unwrap(), &json!({"n": Op::increment(1)}))
        .unwrap();
    assert_eq!(events.expect("update").value.get("n"), Some(&json!(1)));

    client.rest().log_out().unwrap();
    events.expect("close");
    events.expect("open");
    wait_until("the set has nothing of Ann's", || set.is_empty());
    drop(subscription);
}

#[test]
fn it_works_before_without_and_after_a_connection() {
    let server = server();
    let client = client(&server.url());
    let rest = client.rest();
    rest.create("Game", &json!({"score": 1})).unwrap();
    assert_eq!(server.connects(), 0);
    client.open();
    client.wait_open(LONG).unwrap();
    client.close();
    rest.create("Game", &json!({"score": 2})).unwrap();
    drop(client);
    assert_eq!(rest.count(&Query::new("Game")).unwrap(), 2);
    rest.sign_up("ann", "s3cret", &json!({})).unwrap();
    assert_eq!(rest.me().unwrap().get_str("username"), Some("ann"));
}

#[test]
fn listeners_may_call_it() {
    let server = server();
    let client = client(&server.url());
    let rest = client.rest();
    let (done, seen) = unbounded();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on("create", move |game| {
            let id = game.id().unwrap();
            let counted = rest.update("Game", id, &json!({"seen": Op::increment(1)}));
            done.send(counted).unwrap();
        })
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    server.create("Game", json!({}));
    let game = seen.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(game.get_i64("seen"), Some(1));
    // Nor does the handle in the listener keep the client alive.
    drop(subscription);
    drop(client);
    assert!(server.wait_for(LONG, |server| server.connections() == 0));
}

#[test]
fn the_end_of_a_session_is_told_once_for_each_token() {
    let server = server();
    let client = builder(&server.url())
        .dispatch(Dispatch::polled())
        .build()
        .unwrap();
    let told: Recorder<Error> = Recorder::new();
    let seen = told.clone();
    client.on("session_ended", move |event| {
        assert_eq!(event.kind(), ClientEventKind::SessionEnded);
        seen.push("client", "session_ended", event.error().unwrap().clone());
    });
    let rest = client.rest();
    for round in 0..2 {
        let session = rest
            .sign_up(&format!("ann {round}"), "s3cret", &json!({}))
            .unwrap();
        server.end_session(session.token());
        // A session of its own is not the client's.
        let own = rest.own_session();
        assert_eq!(own.become_user(session.token()).unwrap_err().code(), Some(209));
        while client.dispatch_pending() > 0 {}
        assert_eq!(told.all().len(), round);
        for _ in 0..3 {
            let error = rest.create("Game", &json!({})).unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Server, Some(209)));
            assert!(error.to_string().contains("log in again"), "{error}");
        }
        while client.dispatch_pending() > 0 {}
        let told = told.all();
        assert_eq!(told.len(), round + 1);
        assert_eq!(told[round].value.code(), Some(209));
    }
    // Of a live set too.
    let session = rest.sign_up("bob", "s3cret", &json!({})).unwrap();
    server.end_session(session.token());
    let _set = client.live_set(&Query::new("Game")).start().unwrap();
    while told.all().len() < 3 {
        client.dispatch_pending_timeout(LONG);
    }
}

#[test]
fn a_session_that_has_lasted_its_time_is_told_whatever_is_open() {
    let server = TestServer::builder()
        .session_length(Some(ms(1500)))
        .start()
        .unwrap();
    let client = client(&server.url());
    let (ended, is_ended) = unbounded();
    client.on("session_ended", move |event| {
        ended.send(event.error().unwrap().clone()).unwrap()
    });
    let rest = client.rest();
    // Nobody makes a call after this one.
    let first = rest.sign_up("ann", "s3cret", &json!({})).unwrap();
    let error = is_ended.recv_timeout(LONG).unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Server, Some(209)),
        "{error}"
    );
    let own = rest.own_session();
    assert_eq!(own.become_user(first.token()).unwrap_err().code(), Some(209));
    // One that the program brings is known from when it is asked about. That of another session says nothing.
    own.log_in("ann", "s3cret").unwrap();
    // On a machine that is busy it may have ended before the answer.
    let _ = own.session();
    let third = own.log_in("ann", "s3cret").unwrap();
    client.set_session_token(Some(third.token()));
    let _ = rest.session();
    assert_eq!(is_ended.recv_timeout(LONG).unwrap().code(), Some(209));
}

#[test]
fn the_time_of_a_session_that_was_logged_out_is_nobodys() {
    let server = TestServer::builder()
        .session_length(Some(ms(4000)))
        .start()
        .unwrap();
    let client = client(&server.url());
    let (ended, is_ended) = unbounded();
    client.on("session_ended", move |_| ended.send(()).unwrap());
    client.rest().sign_up("ann", "s3cret", &json!({})).unwrap();
    client.rest().log_out().unwrap();
    assert!(is_ended.recv_timeout(ms(6000)).is_err());
}

/// When it ends is measured by the clock of the server.
#[test]
fn a_clock_that_is_wrong_here_does_not_end_a_session() {
    let session = |date: &str, expires: &str| {
        let body = format!(r#"{{"objectId":"s","expiresAt":{{"__type":"Date","iso":"{expires}"}}}}"#);
        says(&format!("200 OK\r\nDate: {date}"), &body)
    };
    for (date, expires, ends) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:38.000Z", true),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-12-06T08:49:38.000Z", false),
        ("Wed, 06 Nov 2999 08:49:37 GMT", "2999-11-06T08:49:38.000Z", true),
        (
            "Wed, 06 Nov 2999 08:49:37 GMT",
            "+275760-09-13T00:00:00.000Z",
            false,
        ),
    ] {
        let (url, _requests) = scripted(&[session(date, expires)]);
        let client = builder("ws://127.0.0.1:9")
            .rest_url(url)
            .session_token("r:1")
            .build()
            .unwrap();
        let (ended, is_ended) = unbounded();
        client.on("session_ended", move |_| ended.send(()).unwrap());
        client.rest().session().unwrap();
        let patience = if ends { LONG } else { ms(1500) };
        assert_eq!(is_ended.recv_timeout(patience).is_ok(), ends, "{date} {expires}");
    }
}

#[test]
fn a_provider_is_asked_without_a_connection_and_again_when_its_token_has_ended() {
    let server = server();
    server.session("r:old", "ann");
    let token = Arc::new(Mutex::new("r:old"));
    let (provided, asked) = (Arc::clone(&token), Arc::new(AtomicUsize::new(0)));
    let asks = Arc::clone(&asked);
    let client = builder(&server.url())
        .session_token_provider(move || {
            asks.fetch_add(1, Ordering::SeqCst);
            Some((*provided.lock().unwrap()).to_owned())
        })
        .build()
        .unwrap();
    let (ended, is_ended) = unbounded();
    client.on("session_ended", move |_| ended.send(()).unwrap());
    assert_eq!(client.rest().me().unwrap().id(), Some("ann"));
    client.open();
    client.wait_open(LONG).unwrap();
    server.end_session("r:old");
    server.session("r:new", "ann");
    *token.lock().unwrap() = "r:new";
    assert_eq!(client.rest().me().unwrap().id(), Some("ann"));
    assert!(is_ended.is_empty());
    server.end_session("r:new");
    assert_eq!(client.rest().me().unwrap_err().code(), Some(209));
    is_ended.recv_timeout(LONG).unwrap();
    assert!(asked.load(Ordering::SeqCst) < 10);
    // Without a connection nobody has kept the token.
    let token = Arc::clone(&token);
    let client = builder(&server.url())
        .session_token_provider(move || Some((*token.lock().unwrap()).to_owned()))
        .build()
        .unwrap();
    let (ended, is_ended) = unbounded();
    client.on("session_ended", move |_| ended.send(()).unwrap());
    assert_eq!(client.rest().me().unwrap_err().code(), Some(209));
    is_ended.recv_timeout(LONG).unwrap();
}

/// What a scripted server does with a request.
#[derive(Clone)]
enum Does {
    Answers(String),
    /// Closes the connection without an answer.
    Dies,
    /// Announces more than it sends.
    Cuts,
    /// Reads, and says nothing.
    Hangs,
}

fn says(status: &str, body: &str) -> Does {
    Does::Answers(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("\r\n0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}

/// A server that does these things, the last of them again and again, and the requests that came.
fn scripted(does: &[Does]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/parse", listener.local_addr().unwrap());
    let does = does.to_vec();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    thread::spawn(move || {
        let mut hanging = Vec::new();
        for at in 0.. {
            let Ok((mut socket, _)) = listener.accept() else {
                return;
            };
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                match socket.read(&mut buffer) {
                    Ok(read) if read > 0 => request.extend(&buffer[..read]),
                    _ => break,
                }
            }
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&request).into_owned());
            match does.get(at).unwrap_or(&does[does.len() - 1]) {
                Does::Answers(answer) => {
                    let _ = socket.write_all(answer.as_bytes());
                }
                Does::Dies => {}
                Does::Cuts => {
                    let _ = socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{");
                }
                Does::Hangs => hanging.push(socket),
            }
        }
    });
    (url, requests)
}

fn rest_at(url: &str) -> Rest {
    rest_with_patience(url, LONG)
}

fn rest_with_patience(url: &str, patience: Duration) -> Rest {
    builder("ws://127.0.0.1:9/parse")
        .rest_url(url)
        .fetch_timeout(patience)
        .build()
        .unwrap()
        .rest()
}

#[test]
fn a_create_whose_answer_is_lost_may_have_happened_and_is_not_repeated() {
    let made = r#"{"objectId":"x","createdAt":"2024-01-01T00:00:00.000Z"}"#;
    for (does, kind) in [
        (Does::Dies, ErrorKind::ConnectionLost),
        (Does::Cuts, ErrorKind::ConnectionLost),
        (Does::Hangs, ErrorKind::Timeout),
        (says("502 Bad Gateway", "<html>"), ErrorKind::Server),
        (says("504 Gateway Timeout", "<html>"), ErrorKind::Server),
        (says("503 Service Unavailable", ""), ErrorKind::Server),
        (
            says("500 Oh", r#"{"code":1,"message":"Internal server error."}"#),
            ErrorKind::Server,
        ),
        (says("201 Created", "<html>"), ErrorKind::Protocol),
    ] {
        let patience = if matches!(does, Does::Hangs) {
            ms(300)
        } else {
            LONG
        };
        let (url, requests) = scripted(&[does, says("201 Created", made)]);
        let error = rest_with_patience(&url, patience)
            .create("Game", &json!({"score": 1}))
            .unwrap_err();
        assert!(error.may_have_happened(), "{error}");
        assert!(format!("{error:#?}").contains("may_have_happened"), "{error:#?}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("create an object of Game"), "{error}");
        assert_eq!(requests.lock().unwrap().len(), 1, "{error}");
    }
}

#[test]
fn what_was_refused_or_never_sent_has_not_happened() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let error = rest_at(&format!("http://{address}/parse"))
        .create("Game", &json!({}))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Connect, false),
        "{error}"
    );
    let error = rest_at("http://no-such-host.invalid/parse")
        .create("Game", &json!({}))
        .unwrap_err();
    assert!(!error.may_have_happened(), "{error}");
    assert!(
        matches!(error.kind(), ErrorKind::Resolve | ErrorKind::Timeout),
        "{error}"
    );
    for (does, kind, code, text) in [
        (
            says("404 Not Found", "<html>Cannot POST"),
            ErrorKind::Protocol,
            None,
            "`ClientBuilder::rest_url`",
        ),
        (
            says("302 Found\r\nLocation: http://x.example/", ""),
            ErrorKind::Protocol,
            None,
            "it redirects",
        ),
        (
            says("403 Forbidden", r#"{"error":"unauthorized"}"#),
            ErrorKind::Refused,
            None,
            "unauthorized",
        ),
        (
            says("400 Bad Request", r#"{"code":142,"error":{"why":"no"}}"#),
            ErrorKind::Server,
            Some(142),
            r#"{"why":"no"}"#,
        ),
        (
            says(
                "429 Too Many\r\nRetry-After: 60",
                r#"{"code":155,"error":"Too many"}"#,
            ),
            ErrorKind::Server,
            Some(155),
            "HTTP 429",
        ),
    ] {
        let (url, requests) = scripted(&[does]);
        let error = rest_at(&url).create("Game", &json!({})).unwrap_err();
        assert_eq!((error.kind(), error.code()), (kind, code), "{error}");
        assert!(
            error.to_string().contains(text) && !error.may_have_happened(),
            "{error}"
        );
        assert_eq!(requests.lock().unwrap().len(), 1, "{error}");
    }
    // What is no request is not sent either.
    let (url, requests) = scripted(&[Does::Dies]);
    let rest = rest_at(&url);
    for error in [
        rest.create("Game", &json!([1])).unwrap_err(),
        rest.create("", &json!({})).unwrap_err(),
        rest.create("Game", &json!({"a": 1}).as_str()).unwrap_err(),
        rest.get("Game", "").unwrap_err(),
        rest.get("Game", "..").unwrap_err(),
        rest.become_user("r:line\nbreak").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
        assert!(
            !error.may_have_happened() && !error.to_string().contains("line"),
            "{error}"
        );
    }
    assert_eq!(requests.lock().unwrap().len(), 0);
}

#[test]
fn what_is_safe_to_repeat_is_tried_three_times() {
    let found = says("200 OK", r#"{"results":[{"objectId":"a"}]}"#);
    let query = Query::new("Game");
    for does in [
        Does::Dies,
        Does::Cuts,
        says("502 Bad Gateway", ""),
        says("503 Busy\r\nRetry-After: 0", ""),
    ] {
        let (url, requests) = scripted(&[does.clone(), does.clone(), found.clone()]);
        assert_eq!(rest_at(&url).find(&query).unwrap().len(), 1);
        assert_eq!(requests.lock().unwrap().len(), 3);
        let (url, requests) = scripted(&[does]);
        let error = rest_at(&url).find(&query).unwrap_err();
        assert!(!error.may_have_happened(), "a find changes nothing: {error}");
        assert_eq!(requests.lock().unwrap().len(), 3);
    }
    // A write that was refused before it began.
    let busy = says(
        "429 Too Many\r\nRetry-After: 0",
        r#"{"code":155,"error":"Too many"}"#,
    );
    let (url, requests) = scripted(&[busy.clone(), busy, says("201 Created", r#"{"objectId":"a"}"#)]);
    rest_at(&url).create("Game", &json!({})).unwrap();
    assert_eq!(requests.lock().unwrap().len(), 3);
    assert!(
        !requests.lock().unwrap()[0]
            .to_ascii_lowercase()
            .contains("x-parse-request-id")
    );
}

/// A connection that was kept for the next call, and that the server has closed meanwhile, is no reason to fail.
#[test]
fn a_kept_connection_that_was_closed_is_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/parse", listener.local_addr().unwrap());
    let (closed, is_closed) = unbounded();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                let read = socket.read(&mut buffer).unwrap();
                request.extend(&buffer[..read]);
            }
            let body = r#"{"objectId":"a"}"#;
            let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
            drop(socket);
            closed.send(()).unwrap();
        }
    });
    let rest = rest_at(&url);
    for _ in 0..3 {
        rest.create("Game", &json!({})).unwrap();
        is_closed.recv_timeout(LONG).unwrap();
    }
}

#[test]
fn with_idempotency_writes_are_repeated_under_one_id() {
    let id_of = |request: &String| {
        let line = request
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("x-parse-request-id:"));
        line.map(|line| line.split_once(": ").unwrap().1.to_owned())
    };
    let rest = |url: &str| {
        builder("ws://127.0.0.1:9")
            .rest_url(url)
            .idempotency()
            .build()
            .unwrap()
            .rest()
    };
    let (url, requests) = scripted(&[Does::Dies, says("201 Created", r#"{"objectId":"a"}"#)]);
    rest(&url).create("Game", &json!({})).unwrap();
    let ids: Vec<_> = requests.lock().unwrap().iter().map(id_of).collect();
    assert!(ids.len() == 2 && ids[0].is_some() && ids[0] == ids[1], "{ids:?}");
    let duplicate = says("400 Bad Request", r#"{"code":159,"error":"Duplicate request"}"#);
    let (url, _requests) = scripted(&[Does::Dies, duplicate]);
    let error = rest(&url).create("Game", &json!({})).unwrap_err();
    assert!(error.code() == Some(159) && error.may_have_happened(), "{error}");
}

#[test]
fn the_next_server_is_asked_when_the_first_is_not_there() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let server = server();
    let client = builder(&format!("ws://{address}"))
        .add_server(server.url())
        .build()
        .unwrap();
    client.rest().create("Game", &json!({})).unwrap();
    assert_eq!(server.objects("Game").len(), 1);
}

#[test]
fn passwords_and_tokens_are_in_no_text() {
    let (url, requests) = scripted(&[says("400 Bad Request", r#"{"code":101,"error":"no"}"#)]);
    let client = builder("ws://127.0.0.1:9")
        .rest_url(&url)
        .master_key("s3cret master")
        .session_token("r:s3cret token")
        .build()
        .unwrap();
    let rest = client.rest();
    let own = rest.own_session();
    let texts = [
        rest.log_in("ann", "s3cret").unwrap_err(),
        rest.sign_up("ann", "s3cret", &json!({"pin": "s3cret"}))
            .unwrap_err(),
        rest.become_user("r:s3cret").unwrap_err(),
        rest.log_in_with(&json!({"x": {"id": "s3cret"}})).unwrap_err(),
        rest.call::<Value>("f", &json!({"a": "s3cret"})).unwrap_err(),
        rest.me().unwrap_err(),
        rest.log_out().unwrap_err(),
    ]
    .map(|error| format!("{error} {error:?}"));
    for text in texts.iter().chain([&format!("{rest:?} {own:?} {client:?}")]) {
        assert!(!text.contains("s3cret"), "{text}");
    }
    let requests = requests.lock().unwrap();
    let sent = |text: &str| requests.iter().any(|request| request.contains(text));
    assert!(sent("r:s3cret token") && sent("s3cret master"), "{requests:?}");
}

#[cfg(any(feature = "tls", feature = "webpki-roots"))]
#[test]
fn tls_uses_the_certificates_of_the_client() {
    let server = server();
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.address());
    let with = |pem: &str| {
        builder(&tls.url())
            .add_root_certificate(pem)
            .build()
            .unwrap()
            .rest()
    };
    with(&authority.pem).create("Game", &json!({})).unwrap();
    let error = with(&Authority::new().pem)
        .create("Game", &json!({}))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Tls, false),
        "{error}"
    );
    assert_eq!(server.objects("Game").len(), 1);
}

#[test]
fn it_goes_through_the_proxy_of_the_client() {
    let server = server();
    let proxy = ConnectProxy::with_authorization(server.address(), "Basic YW5uOnMzY3JldA==");
    let through = |url: String| {
        builder("ws://livequery.example/parse")
            .proxy(url)
            .build()
            .unwrap()
            .rest()
    };
    let rest = through(proxy.url().replace("http://", "http://ann:s3cret@"));
    rest.create("Game", &json!({})).unwrap();
    assert_eq!(server.objects("Game").len(), 1);
    let error = through(proxy.url()).create("Game", &json!({})).unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Proxy, false),
        "{error}"
    );
}

/// A SOCKS5 proxy that wants this user and password, leads everybody to the server, and says which names were asked for.
fn socks(server: SocketAddr) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (names, asked) = unbounded();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let names = names.clone();
            thread::spawn(move || {
                let mut take = |count: usize| {
                    let mut bytes = vec![0; count];
                    client.read_exact(&mut bytes).unwrap();
                    bytes
                };
                let methods = take(2)[1];
                take(methods.into());
                client.write_all(&[5, 2]).unwrap();
                let mut take = |count: usize| {
                    let mut bytes = vec![0; count];
                    client.read_exact(&mut bytes).unwrap();
                    bytes
                };
                let mut text = |before: usize| {
                    let length = *take(before + 1).last().unwrap();
                    String::from_utf8(take(length.into())).unwrap()
                };
                let (user, password) = (text(1), text(0));
                let is_welcome = (&*user, &*password) == ("ann", "s3cret");
                client.write_all(&[1, u8::from(!is_welcome)]).unwrap();
                if !is_welcome {
                    return;
                }
                let mut head = [0; 5];
                client.read_exact(&mut head).unwrap();
                let mut name = vec![0; head[4].into()];
                client.read_exact(&mut name).unwrap();
                client.read_exact(&mut [0; 2]).unwrap();
                names.send(String::from_utf8(name).unwrap()).unwrap();
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
                let mut up = TcpStream::connect(server).unwrap();
                let (mut from_client, mut to_server) = (client.try_clone().unwrap(), up.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
                let _ = std::io::copy(&mut up, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    (format!("@{address}"), asked)
}

#[test]
fn it_goes_through_a_socks_proxy_with_user_and_password() {
    let server = server();
    let (at, asked) = socks(server.address());
    let through = |user: &str| {
        builder("ws://livequery.example/parse")
            .proxy(format!("socks5h://{user}{at}"))
            .build()
            .unwrap()
            .rest()
    };
    through("ann:s3cret").create("Game", &json!({})).unwrap();
    assert_eq!(asked.recv_timeout(LONG).unwrap(), "livequery.example");
    assert_eq!(server.objects("Game").len(), 1);
    let error = through("ann:s3cret-no").create("Game", &json!({})).unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Proxy, false),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

/// `Retry-After` may be a date, as it may be for the link.
#[test]
fn a_date_in_retry_after_counts() {
    let at = |after: u64| {
        let at = std::time::SystemTime::now() + Duration::from_secs(after);
        let at = DateTime::<Utc>::from(at);
        says(
            &format!(
                "503 Busy\r\nRetry-After: {}",
                at.format("%a, %d %b %Y %H:%M:%S GMT")
            ),
            "",
        )
    };
    let made = says("201 Created", r#"{"objectId":"a"}"#);
    // A server that says when to come back has not begun, so that this is repeated.
    let (url, requests) = scripted(&[at(3), made.clone()]);
    rest_at(&url).create("Game", &json!({})).unwrap();
    assert_eq!(requests.lock().unwrap().len(), 2);
    // So long nobody waits in a call.
    let (url, requests) = scripted(&[at(3600), made]);
    let error = rest_at(&url).create("Game", &json!({})).unwrap_err();
    assert!(!error.may_have_happened(), "{error}");
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[test]
fn a_connection_of_the_programs_own_has_no_way_to_the_rest_api() {
    let client = builder("ws://livequery.example")
        .connect_with(|_, _| std::net::TcpStream::connect("127.0.0.1:9"))
        .build()
        .unwrap();
    let error = client.rest().find(&Query::new("Game")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("`connect_with`"), "{error}");
}

#[test]
fn users_have_paths_of_their_own_in_the_test_server() {
    let server = server();
    let rest = client(&server.url()).rest();
    let ann = rest.sign_up("ann", "s3cret", &json!({})).unwrap();
    let id = ann.user().id().unwrap();
    let ask = |method: &str, path: &str| {
        let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
        let token = ann.token();
        let head = format!("{method} {path} HTTP/1.1\r\nX-Parse-Session-Token: {token}\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str::<Value>(body).unwrap())
    };
    for path in [format!("/parse/users/{id}"), format!("/1/classes/_User/{id}")] {
        let (status, user) = ask("GET", &path);
        assert_eq!((status, &user["username"]), (200, &json!("ann")), "{user}");
    }
    let (status, users) = ask("GET", "/parse/users");
    assert_eq!(
        (status, users["results"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    assert_eq!(ask("DELETE", &format!("/parse/users/{id}")).0, 200);
    assert_eq!(server.objects("_User").len(), 0);
}

#[test]
fn duplicates_and_functions_of_the_test_server() {
    let server = server();
    server.unique("Order", "number");
    server.function("panics", |_| panic!("in a test"));
    let rest = client(&server.url()).rest();
    let first = rest.create("Order", &json!({"number": 1})).unwrap();
    let second = rest.create("Order", &json!({"number": 2})).unwrap();
    for error in [
        rest.create("Order", &json!({"number": 1})).unwrap_err(),
        rest.update(
            "Order",
            second.id().unwrap(),
            &json!({"number": Op::increment(-1)}),
        )
        .unwrap_err(),
    ] {
        assert_eq!(error.code(), Some(137), "{error}");
    }
    rest.update("Order", first.id().unwrap(), &json!({"number": 1, "paid": true}))
        .unwrap();
    let error = rest.call::<Value>("panics", &json!({})).unwrap_err();
    assert!(
        error.code() == Some(141) && error.to_string().contains("in a test"),
        "{error}"
    );
    rest.call::<Value>("answer", &json!({"a": 1, "b": 1})).unwrap();
}

/// What comes back, with a content type and in one piece.
fn file_says(body: &str) -> Does {
    Does::Answers(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/x-note\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

#[test]
fn keys_and_tokens_go_to_the_server_of_the_rest_api_and_to_nobody_else() {
    let (url, requests) = scripted(&[file_says("own")]);
    let (elsewhere, requests_elsewhere) = scripted(&[
        says(&format!("302 Found\r\nLocation: {url}/moved"), ""),
        file_says("other"),
    ]);
    let client = builder("ws://127.0.0.1:9")
        .rest_url(&url)
        .javascript_key("s3cret key")
        .header("X-Gate", "s3cret gate")
        .session_token("r:s3cret")
        .build()
        .unwrap();
    let rest = client.rest();
    let secrets = |request: &String| request.matches("s3cret").count();
    let download = |url: String| rest.download(&File::new("a.txt").with_url(url)).unwrap();
    let own = download(format!("{url}/files/app/a.txt"));
    assert_eq!(own.content_type(), Some("text/x-note"));
    assert_eq!(own.bytes(3).unwrap(), b"own");
    assert_eq!(secrets(&requests.lock().unwrap()[0]), 3);
    // A redirect is followed, since nothing goes with it.
    assert_eq!(download(format!("{elsewhere}/a.txt")).bytes(10).unwrap(), b"own");
    assert_eq!(secrets(&requests_elsewhere.lock().unwrap()[0]), 0);
    assert_eq!(secrets(&requests.lock().unwrap()[1]), 0);
    assert_eq!(
        download(format!("{elsewhere}/a.txt")).bytes(10).unwrap(),
        b"other"
    );
    // The same machine has other things as well.
    let beside = url.replace("/parse", "/parser/a.txt");
    assert_eq!(download(beside).bytes(10).unwrap(), b"own");
    assert_eq!(secrets(&requests.lock().unwrap()[2]), 0);
    for wrong in ["file:///etc/passwd", "nonsense"] {
        let error = rest.download(&File::new("a").with_url(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
    }
    let error = rest.download(&File::new("../a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
}

/// A reader that counts the bytes it gives, and fails at the end if it is told to.
struct Content {
    left: usize,
    fails: bool,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && self.fails {
            return Err(std::io::Error::other("the disk is gone"));
        }
        let given = buffer.len().min(self.left);
        buffer[..given].fill(b'x');
        self.left -= given;
        Ok(given)
    }
}

#[test]
fn what_was_read_is_not_sent_twice() {
    let content = |fails| Content { left: 10_000, fails };
    let stored = says(
        "201 Created",
        r#"{"name":"n_a.txt","url":"http://x.example/n_a.txt"}"#,
    );
    // Nothing of it has been read when nobody is there, and the next server gets the whole.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let server = server();
    let client = builder(&format!("ws://{address}"))
        .add_server(server.url())
        .build()
        .unwrap();
    client.rest().sign_up("ann", "s3cret", &json!({})).unwrap();
    let file = client
        .rest()
        .upload_from("a.txt", "text/plain", content(false))
        .unwrap();
    assert_eq!(server.file(file.name()).map(|file| file.len()), Some(10_000));
    for does in [Does::Dies, says("429 Too Many\r\nRetry-After: 0", "")] {
        let (url, requests) = scripted(&[does.clone(), stored.clone()]);
        let error = rest_at(&url)
            .upload_from("a.txt", "text/plain", content(false))
            .unwrap_err();
        assert_eq!(error.may_have_happened(), matches!(does, Does::Dies), "{error}");
        assert_eq!(requests.lock().unwrap().len(), 1, "{error}");
    }
    // Bytes are there for another time.
    let busy = says("429 Too Many\r\nRetry-After: 0", "");
    let (url, requests) = scripted(&[busy, stored]);
    let file = rest_at(&url).upload("a.txt", "text/plain", b"abc").unwrap();
    assert_eq!(file, File::new("n_a.txt").with_url("http://x.example/n_a.txt"));
    assert!(
        requests
            .lock()
            .unwrap()
            .iter()
            .all(|request| request.ends_with("abc"))
    );
    let (url, _requests) = scripted(&[Does::Hangs]);
    let error = rest_at(&url)
        .upload_from("a.txt", "text/plain", content(true))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert!(
        error.to_string().contains("store the file a.txt") && error.to_string().contains("the disk is gone"),
        "{error}"
    );
}

#[test]
fn a_download_that_stops_or_ends_too_early_is_an_error() {
    let file = File::new("a.txt");
    for (sent, kind) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
            ErrorKind::ConnectionLost,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            ErrorKind::ConnectionLost,
        ),
    ] {
        let (url, _requests) = scripted(&[Does::Answers(sent.to_owned())]);
        let error = rest_at(&url).download(&file).unwrap().bytes(1000).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    // The server stops sending, and then goes on no more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/parse", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !is_whole(&request) {
            let read = socket.read(&mut buffer).unwrap();
            request.extend(&buffer[..read]);
        }
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            .unwrap();
        let _ = socket.read(&mut buffer);
    });
    let download = rest_with_patience(&url, ms(300)).download(&file).unwrap();
    let error = download.bytes(1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // What is longer than it may be is not waited for.
    let (url, _requests) = scripted(&[Does::Answers("HTTP/1.1 200 OK\r\n\r\nabcdef".to_owned())]);
    let download = rest_at(&url).download(&file).unwrap();
    assert_eq!(download.content_length(), None);
    let error = download.bytes(5).unwrap_err();
    assert!(error.to_string().contains("is longer than 5 bytes"), "{error}");
}

#[test]
fn files_of_the_test_server() {
    let server = TestServer::builder()
        .master_key("master key")
        .javascript_key("js key")
        .start()
        .unwrap();
    let rest = builder(&server.url())
        .javascript_key("js key")
        .build()
        .unwrap()
        .rest();
    let upload = |rest: &Rest| rest.upload("a.txt", "text/plain", b"abc");
    assert_eq!(upload(&rest).unwrap_err().code(), Some(130));
    rest.anonymous().unwrap();
    assert_eq!(upload(&rest).unwrap_err().code(), Some(130));
    rest.sign_up("ann", "s3cret", &json!({})).unwrap();
    let file = upload(&rest).unwrap();
    // Whoever knows the name may have it.
    let nobody = builder(&server.url())
        .javascript_key("js key")
        .build()
        .unwrap()
        .rest();
    assert_eq!(nobody.download(&file).unwrap().bytes(10).unwrap(), b"abc");
    let master = builder(&server.url())
        .master_key("master key")
        .build()
        .unwrap()
        .rest();
    upload(&master).unwrap();
    master.delete_file(&file).unwrap();
    assert_eq!(server.file(file.name()), None);
    assert_eq!(master.delete_file(&file).unwrap_err().code(), Some(153));
    assert_eq!(rest.download(&file).unwrap_err().code(), Some(101));
}

//! The built-in fetch of live sets: what it asks with, how it pages, and what it says when it fails.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, Error, ErrorKind, LiveSet, Query};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

/// An HTTP server with these answers, the last of which it gives again and again, and what it was asked.
fn http(answers: &[&str]) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/parse/", listener.local_addr().unwrap());
    let answers: Vec<_> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let (asked, requests) = unbounded();
    thread::spawn(move || {
        for at in 0.. {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // As long as the test asks for small things, a request ends with its JSON.
            while !request.ends_with(b"}") {
                match socket.read(&mut buffer) {
                    Ok(read) if read > 0 => request.extend(&buffer[..read]),
                    _ => break,
                }
            }
            if asked
                .send(String::from_utf8_lossy(&request).into_owned())
                .is_err()
            {
                return;
            }
            let answer = answers.get(at).unwrap_or(&answers[answers.len() - 1]);
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    (url, requests)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A set of all games, and the errors that it tells.
fn set_and_errors(client: &Client) -> (LiveSet, Recorder<Error>) {
    let errors = Recorder::new();
    let seen = errors.clone();
    let set = client
        .live_set(&Query::new("Game"))
        .on_error(move |error| seen.push("set", "error", error.clone()))
        .start()
        .unwrap();
    (set, errors)
}

fn scores(set: &LiveSet) -> Vec<i64> {
    set.snapshot()
        .iter()
        .map(|game| game.get_i64("score").unwrap())
        .collect()
}

#[test]
fn a_set_is_what_the_server_finds_page_by_page() {
    let server = TestServer::start().unwrap();
    for score in 0..2500 {
        server.create("Game", json!({"score": score * 7 % 2500, "name": "x"}));
    }
    let client = client(&server.url());
    let query = Query::new("Game")
        .greater_than_or_equal_to("score", 100)
        .ascending(["score"]);
    let all = client.live_set(&query).start().unwrap();
    all.wait_ready(MINUTE).unwrap();
    assert!(scores(&all).into_iter().eq(100..2500));
    let found = server.find(&query.clone().limit(3000)).unwrap();
    assert!(found.iter().eq(all.snapshot().iter()));
    // Two pages and a bit, the last of which is short.
    assert_eq!(server.find_count(), 3 + 1);

    let window = query.descending(["score"]).limit(3).skip(1).select(["score"]);
    let best = client.live_set(&window).start().unwrap();
    best.wait_ready(MINUTE).unwrap();
    assert_eq!(scores(&best), [2498, 2497, 2496]);
    assert!(best.snapshot().iter().all(|game| game.get("name").is_none()));
    server.create("Game", json!({"score": 9999}));
    fence(&client);
    assert_eq!(scores(&best), [2499, 2498, 2497]);
    assert_eq!(all.len(), 2401);
}

#[test]
fn it_asks_with_all_keys_and_the_present_session_token() {
    let server = Server::auto();
    let (url, requests) = http(&[&answer("200 OK", r#"{"results": []}"#)]);
    let client = builder(&server.url())
        .rest_url(&url)
        .javascript_key("js key")
        .client_key("client key")
        .windows_key("windows key")
        .rest_api_key("rest key")
        .master_key("master key")
        .installation_id("installation")
        .session_token("r:first")
        .header("Authorization", "Bearer gate")
        .build()
        .unwrap();
    let query = Query::new("Game").equal_to("a", 1).descending(["b"]).limit(5);
    let set = client.live_set(&query).start().unwrap();
    let request = requests.recv_timeout(LONG).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("post /parse/classes/game http/1.1\r\n"),
        "{head}"
    );
    for header in [
        "x-parse-application-id: app",
        "x-parse-javascript-key: js key",
        "x-parse-client-key: client key",
        "x-parse-windows-key: windows key",
        "x-parse-rest-api-key: rest key",
        "x-parse-master-key: master key",
        "x-parse-installation-id: installation",
        "x-parse-session-token: r:first",
        "authorization: bearer gate",
        "content-type: application/json",
    ] {
        assert!(
            head.contains(&format!("\r\n{header}\r\n")) || head.ends_with(header),
            "{header}: {head}"
        );
    }
    assert_eq!(head.matches("user-agent: parse-livequery/").count(), 1, "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["_method"], "GET");
    assert_eq!(body["where"], json!({"a": 1}));
    assert_eq!(body["order"], "-b,objectId");
    set.wait_ready(LONG).unwrap();

    let token = || {
        let request = requests.recv_timeout(LONG).unwrap();
        let line = request
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("x-parse-session-token"));
        line.map(|line| line.split_once(": ").unwrap().1.to_owned())
    };
    client.set_session_token(Some("r:second"));
    assert_eq!(token().as_deref(), Some("r:second"));
    set.set_session_token(Some("r:of the set")).unwrap();
    assert_eq!(token().as_deref(), Some("r:of the set"));
    set.set_session_token(None).unwrap();
    assert_eq!(token().as_deref(), Some("r:second"));
    client.set_session_token(None);
    assert_eq!(token(), None);
}

#[test]
fn a_token_of_the_provider_is_used_and_acls_count() {
    let server = TestServer::start().unwrap();
    server.session("r:ann", "ann");
    server.create("Note", json!({"text": "for all"}));
    server.create("Note", json!({"text": "for Ann", "ACL": {"ann": {"read": true}}}));
    server.create("Note", json!({"text": "for Bob", "ACL": {"bob": {"read": true}}}));
    let texts = |set: &LiveSet| -> Vec<_> {
        set.wait_ready(LONG).unwrap();
        set.snapshot()
            .iter()
            .map(|note| note.get_str("text").unwrap().to_owned())
            .collect()
    };
    let query = Query::new("Note").ascending(["text"]);
    let client = builder(&server.url())
        .session_token_provider(|| Some("r:ann".to_owned()))
        .build()
        .unwrap();
    let set = client.live_set(&query).start().unwrap();
    assert_eq!(texts(&set), ["for Ann", "for all"]);
    let nobody = self::client(&server.url());
    let public = nobody.live_set(&query).start().unwrap();
    assert_eq!(texts(&public), ["for all"]);
}

#[test]
fn what_goes_wrong_is_said_with_the_way_out() {
    let server = Server::auto();
    let table = [
        (
            answer("403 Forbidden", r#"{"error":"unauthorized"}"#),
            "HTTP 403: unauthorized; check the application id and the keys",
        ),
        (
            answer(
                "400 Bad Request",
                r#"{"code":209,"error":"Invalid session token"}"#,
            ),
            "HTTP 400: Invalid session token; the session token is no longer valid",
        ),
        (
            answer("400 Bad Request", r#"{"code":119,"error":"Permission denied"}"#),
            "HTTP 400: Permission denied; the class-level permissions",
        ),
        (
            answer("404 Not Found", "<html>Cannot POST</html>"),
            "HTTP 404: <html>Cannot POST</html>; is this the URL of the REST API?",
        ),
        (
            answer("302 Found\r\nLocation: http://elsewhere.example/", ""),
            "it redirects: set the right URL with `ClientBuilder::rest_url`",
        ),
        (answer("503 Service Unavailable", "busy"), "HTTP 503: busy"),
        (
            answer("200 OK", "<html>welcome</html>"),
            "was asked to return the objects of Game, but its answer is not one of Parse Server: <html>welcome</html>",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"results\": [".to_owned(),
            "the objects of Game cannot be fetched: 127.0.0.1:",
        ),
        (
            "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
            "the objects of Game cannot be fetched: 127.0.0.1:",
        ),
    ];
    for (answer, text) in table {
        let (url, _requests) = http(&[&answer]);
        let client = builder(&server.url()).rest_url(&url).build().unwrap();
        let (_set, errors) = set_and_errors(&client);
        let error = errors.expect("error").value;
        assert_eq!(error.kind(), ErrorKind::Fetch);
        assert!(!error.is_fatal());
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let server = Server::auto();
    let (url, requests) = http(&[
        &answer(
            "429 Too Many Requests\r\nRetry-After: 0",
            r#"{"code":155,"error":"Too many requests"}"#,
        ),
        &answer(
            "200 OK",
            r#"{"results":[{"objectId":"a","createdAt":"2024-01-01T00:00:00.000Z","updatedAt":"2024-01-01T00:00:00.000Z"}]}"#,
        ),
        &answer("200 OK", r#"{"results":[]}"#),
    ]);
    let client = builder(&server.url()).rest_url(&url).build().unwrap();
    let set = client.live_set(&Query::new("Game")).start().unwrap();
    set.wait_ready(MINUTE).unwrap();
    assert_eq!(set.get("a").unwrap().class_name(), Some("Game"));
    assert_eq!(requests.len(), 3);
}

#[test]
fn a_fetch_that_fails_leaves_what_is_there() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"score": 1}));
    let client = client(&server.url());
    let (stale, is_stale) = unbounded();
    let set = client
        .live_set(&Query::new("Game"))
        .on_stale(move |_| stale.send(()).unwrap())
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    server.fail_finds(503);
    server.cut();
    is_stale.recv_timeout(LONG).unwrap();
    assert!(server.wait_for_subscriptions(LONG, 1));
    assert!(server.wait_for(LONG, |server| server.find_count() >= 3));
    assert_eq!(scores(&set), [1]);
    assert!(!set.is_ready());
    // Events go on.
    server.create("Game", json!({"score": 2}));
    fence(&client);
    assert_eq!(set.len(), 2);
    server.answer_finds();
    set.wait_ready(MINUTE).unwrap();
    assert_eq!(set.len(), 2);
}

#[test]
fn a_server_that_does_not_answer_or_is_not_there_is_asked_again() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"score": 1}));
    server.delay_finds(MINUTE * 60);
    let nobody = Server::auto();
    nobody.refuse();
    let silent = builder(&server.url()).fetch_timeout(ms(100));
    let refusing = builder(&server.url()).rest_url(nobody.url().replacen("ws", "http", 1));
    for (builder, text) in [
        (silent.connect_timeout(ms(200)), "timeout"),
        (refusing, "refused"),
    ] {
        let client = builder.build().unwrap();
        let (set, errors) = set_and_errors(&client);
        let error = errors
            .wait_where("a fetch", |seen| seen.value.kind() == ErrorKind::Fetch)
            .value;
        assert!(error.to_string().contains(text), "{error}");
        assert!(!set.is_ready());
        if text == "timeout" {
            server.delay_finds(Duration::ZERO);
            set.wait_ready(MINUTE).unwrap();
            assert_eq!(set.len(), 1);
        }
    }
}

#[test]
fn the_next_server_is_asked_when_one_fails() {
    let server = TestServer::start().unwrap();
    let other = TestServer::start().unwrap();
    for server in [&server, &other] {
        server.create("Game", json!({"score": 1}));
    }
    server.fail_finds(500);
    let client = builder(&server.url()).add_server(other.url()).build().unwrap();
    let set = client.live_set(&Query::new("Game")).start().unwrap();
    set.wait_ready(MINUTE).unwrap();
    assert_eq!(set.len(), 1);
    assert!(other.find_count() > 0);
}

#[cfg(any(feature = "tls", feature = "webpki-roots"))]
#[test]
fn tls_uses_the_certificates_of_the_client() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"score": 1}));
    let authority = Authority::new();
    let tls = TlsServer::new(&authority.issue("127.0.0.1"), server.address());
    let url = tls.url().replace("wss", "https");
    let client = builder(&server.url())
        .rest_url(&url)
        .add_root_certificate(&authority.pem)
        .build()
        .unwrap();
    let set = client.live_set(&Query::new("Game")).start().unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(scores(&set), [1]);
    // Another authority.
    let client = builder(&server.url())
        .rest_url(&url)
        .add_root_certificate(Authority::new().pem)
        .build()
        .unwrap();
    let (_set, errors) = set_and_errors(&client);
    let error = errors.expect("error").value;
    assert_eq!(error.kind(), ErrorKind::Fetch);
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn it_goes_through_the_proxy_of_the_client() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"score": 1}));
    let proxy = ConnectProxy::with_authorization(server.address(), "Basic YW5uOnMzY3JldA==");
    let url = proxy.url().replace("http://", "http://ann:s3cret@");
    let client = Client::builder("ws://livequery.example/parse", "app")
        .proxy(&url)
        .build()
        .unwrap();
    let set = client.live_set(&Query::new("Game")).start().unwrap();
    set.wait_ready(LONG).unwrap();
    assert_eq!(scores(&set), [1]);
    let requests = proxy.requests();
    assert!(requests.len() >= 2, "{requests:?}");
    for request in requests {
        assert!(
            request.starts_with("CONNECT livequery.example:80 HTTP/1.1\r\n"),
            "{request}"
        );
    }
}

#[test]
fn a_connection_of_the_programs_own_cannot_fetch() {
    let client = Client::builder("ws://livequery.example", "app")
        .connect_with(|_, _| std::net::TcpStream::connect("127.0.0.1:9"))
        .build()
        .unwrap();
    let error = client.live_set(&Query::new("Game")).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("`fetch_with`"), "{error}");
}

#[test]
fn a_rest_url_that_is_none_is_refused() {
    let error = Client::builder("ws://livequery.example", "app")
        .rest_url("ftp://x")
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("has the scheme `ftp`"), "{error}");
}

/// The status and the body of an answer.
fn request(server: &TestServer, request: &str) -> (u16, Value) {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn get(server: &TestServer, target: &str) -> (u16, Value) {
    request(server, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn post(server: &TestServer, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head = format!(
        "POST /parse/classes/Game HTTP/1.1\r\nHost: x\r\nContent-Length: {}",
        body.len()
    );
    request(server, &format!("{head}\r\n\r\n{body}"))
}

#[test]
fn the_test_server_answers_as_parse_server_does() {
    let server = TestServer::start().unwrap();
    for (name, score) in [("go", 1), ("chess", 2), ("dame", 3)] {
        server.create("Game", json!({"objectId": name, "name": name, "score": score}));
    }
    let names = |(status, body): (u16, Value)| -> Vec<String> {
        assert_eq!(status, 200, "{body}");
        let found = body["results"].as_array().unwrap();
        assert!(found.iter().all(|game| game.get("className").is_none()));
        found
            .iter()
            .map(|game| game["objectId"].as_str().unwrap().to_owned())
            .collect()
    };
    let target = "/any/mount/classes/Game?where=%7B%22score%22%3A%7B%22%24gt%22%3A1%7D%7D&order=-score";
    assert_eq!(names(get(&server, target)), ["dame", "chess"]);
    assert_eq!(
        names(get(&server, &format!("{target}&limit=1&skip=1&keys=name"))),
        ["chess"]
    );
    assert_eq!(names(get(&server, "/classes/Game?limit=0")), [""; 0]);
    assert_eq!(names(get(&server, "/classes/Nothing")), [""; 0]);
    let wanted = json!({"_method": "GET", "where": {"score": {"$lt": 3}}, "order": "name"});
    assert_eq!(names(post(&server, &wanted)), ["chess", "go"]);
    let as_text = json!({"_method": "GET", "where": r#"{"name":"go"}"#});
    assert_eq!(names(post(&server, &as_text)), ["go"]);

    for ((status, body), expected, code) in [
        (get(&server, "/classes/Game?where=%7B"), 400, json!(107)),
        (get(&server, "/classes/Game?nonsense=1"), 400, json!(102)),
        (get(&server, "/classes/Game?watch=score"), 400, json!(102)),
        (
            get(
                &server,
                "/classes/Game?where=%7B%22a%22%3A%7B%22%24what%22%3A1%7D%7D",
            ),
            400,
            json!(102),
        ),
        (get(&server, "/config"), 404, Value::Null),
        (get(&server, "/"), 404, Value::Null),
        (post(&server, &json!(1)), 400, json!(107)),
    ] {
        assert_eq!((status, &body["code"]), (expected, &code), "{body}");
        assert!(body["error"].is_string(), "{body}");
    }
}

#[test]
fn the_test_server_takes_keys_where_the_js_sdk_puts_them() {
    let server = TestServer::builder()
        .javascript_key("js key")
        .master_key("master key")
        .start()
        .unwrap();
    server.session("r:ann", "ann");
    server.create("Game", json!({"ACL": {"ann": {"read": true}}}));
    let found = |more: Value| {
        let mut body = json!({
            "_method": "GET", "where": {}, "_ApplicationId": "app", "_ClientVersion": "js8.6.2",
            "_InstallationId": "installation",
        });
        let Value::Object(more) = more else {
            panic!("{more}")
        };
        body.as_object_mut().unwrap().extend(more);
        let (status, body) = post(&server, &body);
        (status, body["results"].as_array().map(Vec::len))
    };
    assert_eq!(found(json!({})), (403, None));
    assert_eq!(found(json!({"_JavaScriptKey": "wrong"})), (403, None));
    assert_eq!(found(json!({"_JavaScriptKey": "js key"})), (200, Some(0)));
    let of_ann = json!({"_JavaScriptKey": "js key", "_SessionToken": "r:ann"});
    assert_eq!(found(of_ann), (200, Some(1)));
    let of_nobody = json!({"_JavaScriptKey": "js key", "_SessionToken": "r:nobody"});
    assert_eq!(found(of_nobody), (400, None));
    assert_eq!(found(json!({"_MasterKey": "master key"})), (200, Some(1)));
}

#[test]
fn an_answer_that_is_late_is_old() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"objectId": "first"}));
    server.delay_finds(Duration::from_secs(3600));
    thread::scope(|scope| {
        let late = scope.spawn(|| {
            let mut socket = TcpStream::connect(server.address()).unwrap();
            socket.write_all(b"GET /classes/Game HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            let _ = socket.read_to_string(&mut answer);
            answer
        });
        assert!(server.wait_for(LONG, |server| server.find_count() == 1));
        // The wait ends with the connection, and so does the server's thread.
        server.stop();
        assert_eq!(late.join().unwrap(), "");
    });
    server.resume().unwrap();

    let delay = Duration::from_millis(300);
    server.delay_finds(delay);
    thread::scope(|scope| {
        let start = Instant::now();
        let late = scope.spawn(|| get(&server, "/classes/Game"));
        assert!(server.wait_for(LONG, |server| server.find_count() == 2));
        server.delete("Game", "first");
        let (_, body) = late.join().unwrap();
        assert!(start.elapsed() >= delay);
        assert_eq!(body["results"][0]["objectId"], "first");
    });
    server.delay_finds(Duration::ZERO);
    assert_eq!(get(&server, "/classes/Game").1, json!({"results": []}));
}

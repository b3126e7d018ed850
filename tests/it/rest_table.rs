//! What `client.rest()` asks and what a Parse Server answers, as one table: the test server and real ones have to give
//! the same answers. Knows only the public API and what both kinds of server are told to have.

use parse_livequery::rest::{Op, Rest};
use parse_livequery::{Client, Date, ErrorKind, File, Pointer, Query};
use serde_json::{Value, json};

/// What a call must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Refused with this code.
    Code(i64),
}

/// The server has the functions `answer`, which returns `{"sum": a + b, "user": id or null}`, and `throws`.
///
/// The client is nobody, and has no master key. The name is new to the server.
pub fn same_answers(client: &Client, name: &str) {
    let rest = client.rest();
    users(&rest, name);
    objects(&client.rest().own_session(), name);
    rights(&rest, name);
    functions(&rest, name);
    files(&rest.own_session(), name);
    relations(&rest.own_session(), name);
    roles(&rest, name);
    types(&rest.own_session(), name);
}

#[track_caller]
fn check<T: std::fmt::Debug>(
    what: &str,
    result: Result<T, parse_livequery::Error>,
    expected: Outcome,
) -> Option<T> {
    match (result, expected) {
        (Ok(value), Outcome::Done) => Some(value),
        (Err(error), Outcome::Code(code)) => {
            assert_eq!(error.code(), Some(code), "{what}: {error}");
            assert!(!error.may_have_happened(), "{what}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{what}: {error}");
            None
        }
        (Ok(value), expected) => panic!("{what}: {value:?}, not {expected:?}"),
        (Err(error), expected) => panic!("{what}: {error}, not {expected:?}"),
    }
}

fn users(rest: &Rest, name: &str) {
    let nobody = rest.own_session();
    check("me, as nobody", nobody.me(), Outcome::Code(209));
    check("wrong user", rest.log_in(name, "s3cret"), Outcome::Code(101));
    let more = json!({"level": 3, "email": format!("{name}@example.com")});
    let ann = check("sign up", rest.sign_up(name, "s3cret", &more), Outcome::Done).unwrap();
    assert!(ann.token().starts_with("r:"), "a token");
    assert_eq!(ann.user().class_name(), Some("_User"));
    assert_eq!(ann.user().get_str("username"), Some(name));
    assert!(ann.user().get("sessionToken").is_none() && ann.user().get("password").is_none());
    assert!(!format!("{ann:?}").contains(ann.token()), "{ann:?}");
    let again = nobody.sign_up(name, "other s3cret", &json!({}));
    check("sign up twice", again, Outcome::Code(202));
    let same_address = nobody.sign_up(&format!("{name}-2"), "s3cret", &more);
    check("the same address", same_address, Outcome::Code(203));
    check(
        "no password",
        nobody.sign_up(&format!("{name}-3"), "", &json!({})),
        Outcome::Code(201),
    );
    check(
        "no name",
        nobody.sign_up("", "s3cret", &json!({})),
        Outcome::Code(200),
    );

    let me = check("me", rest.me(), Outcome::Done).unwrap();
    assert_eq!((me.id(), me.get_i64("level")), (ann.user().id(), Some(3)));
    assert!(me.get("sessionToken").is_none());

    let session = check("session", rest.session(), Outcome::Done).unwrap();
    assert_eq!(session.class_name(), Some("_Session"));
    assert!(session.get("sessionToken").is_none(), "{session:?}");
    let user: Pointer = session.get_as("user").unwrap();
    assert_eq!(Some(user.object_id()), ann.user().id());
    let expires: Date = session.get_as("expiresAt").unwrap();
    assert!(expires > session.created_at().unwrap());
    check("session, as nobody", nobody.session(), Outcome::Code(209));

    check(
        "wrong password",
        nobody.log_in(name, "wrong s3cret"),
        Outcome::Code(101),
    );
    check("no password", nobody.log_in(name, ""), Outcome::Code(201));
    let second = check("log in", nobody.log_in(name, "s3cret"), Outcome::Done).unwrap();
    assert_eq!(second.user().id(), ann.user().id());
    assert_eq!(second.user().get_i64("level"), Some(3));
    assert_ne!(second.token(), ann.token());

    let third = rest.own_session();
    check(
        "no such token",
        third.become_user("r:nonsense"),
        Outcome::Code(209),
    );
    check("still nobody", third.me(), Outcome::Code(209));
    let become_user = check("become", third.become_user(second.token()), Outcome::Done).unwrap();
    assert_eq!(become_user.token(), second.token());

    // A new password ends the sessions, and the one that did it goes on under a new one.
    let id = ann.user().id().unwrap();
    check(
        "change the password",
        rest.update(
            "_User",
            id,
            &json!({"password": "new s3cret", "level": Op::increment(1)}),
        ),
        Outcome::Done,
    );
    let me = check("me, with the new token", rest.me(), Outcome::Done).unwrap();
    assert_eq!(me.get_i64("level"), Some(4));
    check("an ended session", nobody.me(), Outcome::Code(209));
    check(
        "an ended session saves nothing",
        nobody.create("RestEnded", &json!({})),
        Outcome::Code(209),
    );
    check(
        "the old password",
        nobody.log_in(name, "s3cret"),
        Outcome::Code(101),
    );
    check(
        "the new password",
        nobody.log_in(name, "new s3cret"),
        Outcome::Done,
    );
    check(
        "somebody else's user",
        rest.own_session().update("_User", id, &json!({"level": 9})),
        Outcome::Code(206),
    );

    check("log out", nobody.log_out(), Outcome::Done);
    check("me, after it", nobody.me(), Outcome::Code(209));
    check("log out nobody", nobody.log_out(), Outcome::Done);
    check("log out a session that has ended", third.log_out(), Outcome::Done);
    check("log out", rest.log_out(), Outcome::Done);

    let anonymous = check("anonymous", nobody.anonymous(), Outcome::Done).unwrap();
    let me = check("me", nobody.me(), Outcome::Done).unwrap();
    assert_eq!(me.id(), anonymous.user().id());
    let auth_data = json!({"anonymous": {"id": name}});
    let first = check("with", nobody.log_in_with(&auth_data), Outcome::Done).unwrap();
    let second = check("again", nobody.log_in_with(&auth_data), Outcome::Done).unwrap();
    assert_eq!(first.user().id(), second.user().id());
}

fn objects(rest: &Rest, name: &str) {
    let ann = check(
        "sign up",
        rest.sign_up(&format!("{name}-o"), "s3cret", &json!({})),
        Outcome::Done,
    )
    .unwrap();
    let class = format!("RestGame{}", name.replace('-', ""));
    let class = class.as_str();
    let user = Pointer::new("_User", ann.user().id().unwrap());
    let game = json!({
        "name": "chess", "score": 1, "tags": ["a"], "owner": user, "nothing": null, "ratio": 0.5,
        "moves": Op::increment(2), "list": Op::add(["x"]), "gone": Op::delete(),
        "players": Op::add_relation([user]),
    });
    let made = check("create", rest.create(class, &game), Outcome::Done).unwrap();
    let id = made.id().unwrap();
    assert_eq!(made.class_name(), Some(class));
    assert!(made.created_at().is_some() && made.created_at() == made.updated_at());
    let read = check("get", rest.get(class, id), Outcome::Done).unwrap();
    assert_eq!(read.class_name(), Some(class));
    for key in [
        "name",
        "score",
        "tags",
        "owner",
        "ratio",
        "moves",
        "list",
        "gone",
        "players",
        "createdAt",
    ] {
        assert_eq!(made.get(key), read.get(key), "{key}");
    }
    assert_eq!(read.get("moves"), Some(&json!(2)));

    let changes = json!({
        "score": Op::increment(10), "tags": Op::add_unique(["a", "b"]), "name": Op::delete(), "rank": 7,
    });
    let changed = check("update", rest.update(class, id, &changes), Outcome::Done).unwrap();
    assert_eq!(changed.id(), Some(id));
    assert_eq!(
        (changed.get("score"), changed.get("rank")),
        (Some(&json!(11)), Some(&json!(7)))
    );
    assert_eq!(changed.get("tags"), Some(&json!(["a", "b"])));
    assert!(changed.get("name").is_none() && changed.updated_at() >= made.updated_at());
    check(
        "more operations",
        rest.update(
            class,
            id,
            &json!({"tags": Op::remove(["a"]), "list": Op::add(["x", "y"])}),
        ),
        Outcome::Done,
    );
    let read = check("get", rest.get(class, id), Outcome::Done).unwrap();
    let values = ["score", "tags", "list", "name", "rank"].map(|key| read.get(key).cloned());
    let expected = [
        Some(json!(11)),
        Some(json!(["b"])),
        Some(json!(["x", "x", "y"])),
        None,
        Some(json!(7)),
    ];
    assert_eq!(values, expected);

    let of_go = [0, 1, 2].map(|score| {
        let go = json!({"score": score, "name": "go"});
        check("create", rest.create(class, &go), Outcome::Done).unwrap()
    });
    let first_of_go = of_go[0].id().unwrap();
    let query = Query::new(class).descending(["score"]).watch(["score"]);
    let scores = |query: &Query| -> Vec<_> {
        let found = check("find", rest.find(query), Outcome::Done).unwrap();
        assert!(found.iter().all(|game| game.class_name() == Some(class)));
        found.iter().map(|game| game.get_i64("score")).collect()
    };
    assert_eq!(scores(&query), [11, 2, 1, 0].map(Some));
    assert_eq!(scores(&query.clone().limit(2).skip(1)), [2, 1].map(Some));
    assert_eq!(
        scores(&query.clone().equal_to("name", "go").greater_than("score", 0)),
        [2, 1].map(Some)
    );
    assert_eq!(scores(&Query::new(class).equal_to("name", "nothing")), []);
    let first = check("first", rest.first(&query), Outcome::Done).unwrap();
    assert_eq!(first.unwrap().get_i64("score"), Some(11));
    let none = check(
        "first of none",
        rest.first(&query.clone().equal_to("score", 99)),
        Outcome::Done,
    );
    assert!(none.unwrap().is_none());
    assert_eq!(check("count", rest.count(&query), Outcome::Done), Some(4));
    let some = query.greater_than("score", 1).limit(1);
    assert_eq!(check("count", rest.count(&some), Outcome::Done), Some(2));

    check("no such object", rest.get(class, "nonsense"), Outcome::Code(101));
    check(
        "no such object",
        rest.update(class, "nonsense", &json!({"a": 1})),
        Outcome::Code(101),
    );
    check(
        "no such object",
        rest.delete(class, "nonsense"),
        Outcome::Code(101),
    );
    check(
        "does not fit",
        rest.update(class, id, &json!({"ratio": Op::add([1])})),
        Outcome::Code(111),
    );
    check(
        "an id",
        rest.create(class, &json!({"objectId": "mine"})),
        Outcome::Code(105),
    );
    let changes = rest
        .batch()
        .create(class, &json!({"name": "batch", "score": Op::increment(3)}))
        .update(class, id, &json!({"score": Op::increment(1)}))
        .update(class, "nonsense", &json!({"score": 1}))
        .delete(class, first_of_go);
    let made = check("batch", changes.send(), Outcome::Done).unwrap();
    let mut made = made.into_iter();
    let mut next = || made.next().unwrap();
    let created = check("created in a batch", next(), Outcome::Done).unwrap();
    assert_eq!(
        (created.get_i64("score"), created.get_str("name")),
        (Some(3), Some("batch"))
    );
    let updated = check("updated in a batch", next(), Outcome::Done).unwrap();
    assert_eq!((updated.id(), updated.get_i64("score")), (Some(id), Some(12)));
    check("no such object", next(), Outcome::Code(101));
    check("deleted in a batch", next(), Outcome::Done);
    check("it is gone", rest.get(class, first_of_go), Outcome::Code(101));
    assert_eq!(
        check("an empty batch", rest.batch().send(), Outcome::Done)
            .unwrap()
            .len(),
        0
    );

    check("delete", rest.delete(class, id), Outcome::Done);
    check("it is gone", rest.get(class, id), Outcome::Code(101));
    check("it is gone", rest.delete(class, id), Outcome::Code(101));

    let role = json!({"name": name, "ACL": {"*": {"read": true}}});
    check("a role", rest.create("_Role", &role), Outcome::Done);
    check("a duplicate", rest.create("_Role", &role), Outcome::Code(137));
}

fn rights(rest: &Rest, name: &str) {
    let (ann, bob) = (rest.own_session(), rest.own_session());
    let session = check(
        "sign up",
        ann.sign_up(&format!("{name}-a"), "s3cret", &json!({})),
        Outcome::Done,
    )
    .unwrap();
    check(
        "sign up",
        bob.sign_up(&format!("{name}-b"), "s3cret", &json!({})),
        Outcome::Done,
    );
    let id = session.user().id().unwrap();
    let class = "RestNote";
    let private = json!({"ACL": {id: {"read": true, "write": true}}, "of": name});
    let private = check("create", ann.create(class, &private), Outcome::Done).unwrap();
    let shown = json!({"ACL": {id: {"write": true}, "*": {"read": true}}, "of": name});
    let shown = check("create", ann.create(class, &shown), Outcome::Done).unwrap();
    let (private, shown) = (private.id().unwrap(), shown.id().unwrap());

    let query = Query::new(class).equal_to("of", name);
    assert_eq!(check("count", ann.count(&query), Outcome::Done), Some(2));
    assert_eq!(check("count", bob.count(&query), Outcome::Done), Some(1));
    check("may not read", bob.get(class, private), Outcome::Code(101));
    check("may read", bob.get(class, shown), Outcome::Done);
    let change = json!({"by": "bob"});
    for id in [private, shown] {
        check(
            "may not write",
            bob.update(class, id, &change),
            Outcome::Code(101),
        );
        check("may not delete", bob.delete(class, id), Outcome::Code(101));
        check(
            "nobody may",
            rest.own_session().update(class, id, &change),
            Outcome::Code(101),
        );
    }
    check("may write", ann.update(class, shown, &change), Outcome::Done);
    check("may delete", ann.delete(class, private), Outcome::Done);
}

fn functions(rest: &Rest, name: &str) {
    let ann = rest.own_session();
    let session = check(
        "sign up",
        ann.sign_up(&format!("{name}-f"), "s3cret", &json!({})),
        Outcome::Done,
    )
    .unwrap();
    let answer: Value = check(
        "call",
        ann.call("answer", &json!({"a": 1, "b": 2})),
        Outcome::Done,
    )
    .unwrap();
    assert_eq!(answer, json!({"sum": 3, "user": session.user().id()}));
    let answer: Value = check(
        "call",
        rest.call("answer", &json!({"a": 1, "b": 2})),
        Outcome::Done,
    )
    .unwrap();
    assert_eq!(answer, json!({"sum": 3, "user": null}));
    check(
        "throws",
        rest.call::<Value>("throws", &json!({})),
        Outcome::Code(141),
    );
    check(
        "unknown",
        rest.call::<Value>("unknown", &json!({})),
        Outcome::Code(141),
    );
    let error = rest
        .call::<String>("answer", &json!({"a": 1, "b": 2}))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
}

fn files(ann: &Rest, name: &str) {
    check(
        "sign up",
        ann.sign_up(&format!("{name}-files"), "s3cret", &json!({})),
        Outcome::Done,
    );
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let read = |file: &File| {
        let download = check("download", ann.download(file), Outcome::Done).unwrap();
        assert_eq!(download.content_length(), Some(100_000));
        download.bytes(100_000).unwrap()
    };
    let whole = check(
        "upload",
        ann.upload("a b.bin", "image/png", &bytes),
        Outcome::Done,
    )
    .unwrap();
    assert!(whole.name().ends_with("_a b.bin"), "{whole:?}");
    assert!(read(&whole) == bytes, "what comes back is what was stored");
    let streamed = ann.upload_from("b.txt", "text/plain; charset=utf-8", &*bytes);
    let streamed = check("upload from a reader", streamed, Outcome::Done).unwrap();
    assert!(read(&streamed) == bytes, "what comes back is what was read");
    // Without its URL it is found by its name.
    assert!(read(&File::new(whole.name())) == bytes);
    let error = ann.download(&whole).unwrap().bytes(99_999).unwrap_err();
    assert!(
        error.to_string().contains("is longer than 99999 bytes"),
        "{error}"
    );

    let class = "RestFile";
    let made = check(
        "create",
        ann.create(class, &json!({"file": whole})),
        Outcome::Done,
    )
    .unwrap();
    let held = check("get", ann.get(class, made.id().unwrap()), Outcome::Done).unwrap();
    let held: File = held.get_as("file").unwrap();
    assert_eq!(held, whole);

    check(
        "an empty file",
        ann.upload("c.txt", "text/plain", b""),
        Outcome::Code(130),
    );
    check(
        "such a name",
        ann.upload("c$.txt", "text/plain", b"c"),
        Outcome::Code(122),
    );
    check(
        "no such file",
        ann.download(&File::new("nonsense.txt")),
        Outcome::Code(101),
    );
    let error = ann.delete_file(&whole).unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have_happened()),
        (ErrorKind::Refused, false),
        "{error}"
    );
    assert!(read(&whole) == bytes);
}

fn relations(rest: &Rest, name: &str) {
    let create = |class: &str, object: Value| {
        let made = check("create", rest.create(class, &object), Outcome::Done).unwrap();
        Pointer::new(class, made.id().unwrap())
    };
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|player| create("RestPlayer", json!({"name": player})));
    let players = Op::add_relation([ann.clone(), bob]);
    let team = create("RestTeam", json!({"of": name, "players": players}));
    let other = create(
        "RestTeam",
        json!({"of": name, "players": Op::add_relation([eve.clone()])}),
    );
    let names = |team: &Pointer| -> Vec<String> {
        let related = json!({"$relatedTo": {"object": team, "key": "players"}});
        let query = Query::from_json("RestPlayer", json!({"where": related, "order": "name"})).unwrap();
        let found = check("related to", rest.find(&query), Outcome::Done).unwrap();
        assert_eq!(rest.count(&query).unwrap(), found.len() as u64);
        found
            .iter()
            .map(|player| player.get_str("name").unwrap().to_owned())
            .collect()
    };
    let teams_of = |player: &Pointer| -> Vec<String> {
        let query = Query::new("RestTeam")
            .equal_to("players", player)
            .equal_to("of", name);
        let found = check("with it in its relation", rest.find(&query), Outcome::Done).unwrap();
        found.iter().map(|team| team.id().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names(&team), names(&other)),
        (vec!["ann".into(), "bob".into()], vec!["eve".into()])
    );
    assert_eq!(teams_of(&ann), [team.object_id()]);
    let change = |op: Op| {
        let changed = rest.update("RestTeam", team.object_id(), &json!({"players": op}));
        check("change a relation", changed, Outcome::Done);
    };
    change(Op::add_relation([eve.clone()]));
    change(Op::remove_relation([ann.clone()]));
    // Once more changes nothing.
    change(Op::add_relation([eve.clone()]));
    assert_eq!(
        (names(&team), names(&other)),
        (vec!["bob".into(), "eve".into()], vec!["eve".into()])
    );
    assert_eq!(teams_of(&ann), [""; 0]);
    assert_eq!(teams_of(&eve).len(), 2);
    let team = check("get", rest.get("RestTeam", team.object_id()), Outcome::Done).unwrap();
    assert_eq!(
        team.get("players"),
        Some(&json!({"__type": "Relation", "className": "RestPlayer"}))
    );
    check(
        "players of another class",
        rest.update(
            "RestTeam",
            other.object_id(),
            &json!({"players": Op::add_relation([other.clone()])}),
        ),
        Outcome::Code(111),
    );
}

fn roles(rest: &Rest, name: &str) {
    let (ann, bob) = (rest.own_session(), rest.own_session());
    let sign_up = |who: &Rest, at: &str| {
        let more = json!({"email": format!("{name}-{at}@example.com"), "ACL": {"*": {"read": true}}});
        let session = who.sign_up(&format!("{name}-{at}"), "s3cret", &more);
        let session = check("sign up", session, Outcome::Done).unwrap();
        Pointer::new("_User", session.user().id().unwrap())
    };
    let (ann_user, bob_user) = (sign_up(&ann, "role-a"), sign_up(&bob, "role-b"));
    let role = |name: &str, members: Value| {
        let mut role = json!({"name": name, "ACL": {"*": {"read": true, "write": true}}});
        role.as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        let role = check("a role", ann.create("_Role", &role), Outcome::Done).unwrap();
        Pointer::new("_Role", role.id().unwrap())
    };
    let (editors, readers) = (format!("{name}-editors"), format!("{name}-readers"));
    let role_of_editors = role(&editors, json!({"users": Op::add_relation([ann_user.clone()])}));
    // Whoever is an editor is a reader.
    let role_of_readers = role(&readers, json!({"roles": Op::add_relation([role_of_editors])}));
    let acl = json!({
        format!("role:{editors}"): {"write": true},
        format!("role:{readers}"): {"read": true},
    });
    let article = check(
        "create",
        ann.create("RestArticle", &json!({"ACL": acl})),
        Outcome::Done,
    )
    .unwrap();
    let id = article.id().unwrap();
    check("by a role in a role", ann.get("RestArticle", id), Outcome::Done);
    check(
        "by a role",
        ann.update("RestArticle", id, &json!({"n": 1})),
        Outcome::Done,
    );
    check("without a role", bob.get("RestArticle", id), Outcome::Code(101));
    let readers = json!({"users": Op::add_relation([bob_user])});
    check(
        "a role's users",
        ann.update("_Role", role_of_readers.object_id(), &readers),
        Outcome::Done,
    );
    check("by a role", bob.get("RestArticle", id), Outcome::Done);
    check(
        "for reading alone",
        bob.update("RestArticle", id, &json!({"n": 2})),
        Outcome::Code(101),
    );

    // What is not for others.
    let user = |who: &Rest| check("a user", who.get("_User", ann_user.object_id()), Outcome::Done).unwrap();
    assert!(user(&ann).get("email").is_some());
    assert_eq!(user(&ann).get("sessionToken"), None);
    let query = Query::new("_User").equal_to("objectId", ann_user.object_id());
    let found = check("users", bob.find(&query), Outcome::Done).unwrap();
    for shown in [&user(&bob), &found[0]] {
        assert_eq!(shown.get_str("username"), Some(&*format!("{name}-role-a")));
        for hidden in ["email", "password", "authData", "sessionToken"] {
            assert_eq!(shown.get(hidden), None);
        }
    }
}

fn types(rest: &Rest, name: &str) {
    let class = format!("RestTyped{}", name.replace('-', ""));
    let class = class.as_str();
    let typed = json!({
        "number": 1, "text": "a", "yes": true, "list": [1], "object": {"a": 1}, "nothing": null,
        "date": {"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"},
        "place": {"__type": "GeoPoint", "latitude": 1, "longitude": 2},
        "bytes": {"__type": "Bytes", "base64": "AQID"},
        // Without a URL it ends a Parse Server 9.10 that has LiveQuery: `Tried to encode an unsaved file`.
        "file": {"__type": "File", "name": "a.txt", "url": "http://127.0.0.1/a.txt"},
        "area": {"__type": "Polygon", "coordinates": [[0, 0], [0, 1], [1, 1], [0, 0]]},
        "friend": {"__type": "Pointer", "className": "RestPlayer", "objectId": "x"},
    });
    let made = check("create", rest.create(class, &typed), Outcome::Done).unwrap();
    let id = made.id().unwrap();
    let others = [
        ("number", json!("1")),
        ("number", json!([1])),
        ("text", json!(1)),
        ("text", json!({"a": 1})),
        ("yes", json!("true")),
        ("list", json!({"a": 1})),
        ("object", json!([1])),
        ("date", json!("2024-01-02T03:04:05.678Z")),
        ("place", typed["area"].clone()),
        ("bytes", json!("AQID")),
        ("file", json!("a.txt")),
        ("area", typed["place"].clone()),
        (
            "friend",
            json!({"__type": "Pointer", "className": "RestTeam", "objectId": "x"}),
        ),
        ("friend", json!("x")),
        ("text", json!(Op::increment(1))),
        ("number", json!(Op::add([1]))),
        // What is none of its kind.
        ("new", json!({"__type": "Date"})),
        ("new", json!({"__type": "GeoPoint", "latitude": 1})),
        ("new", json!({"__type": "Pointer", "objectId": "x"})),
        ("new", json!({"__type": "Nonsense"})),
    ];
    for (field, value) in others {
        let what = format!("{field}: {value}");
        check(
            &what,
            rest.update(class, id, &json!({field: value})),
            Outcome::Code(111),
        );
        check(
            &what,
            rest.create(class, &json!({field: value})),
            Outcome::Code(111),
        );
    }
    for field in ["a b", "1a", "_a", "a-b"] {
        check(field, rest.create(class, &json!({field: 1})), Outcome::Code(105));
    }
    // Null and nothing fit everything.
    let nothing = json!({"text": null, "number": Op::delete(), "nothing": 1});
    check("nothing", rest.update(class, id, &nothing), Outcome::Done);
    check(
        "the type stays",
        rest.update(class, id, &json!({"text": 1})),
        Outcome::Code(111),
    );
}

/// The class `RestNews` lets everybody find, users get, the user of this session create with no new fields, and nobody else anything.
pub fn permissions(user: &str) -> Value {
    json!({"find": {"*": true}, "get": {"requiresAuthentication": true}, "create": {user: true}})
}

/// As [`same_answers`], for the class with these permissions, which has an object with the field `text`.
pub fn same_permissions(ann: &Rest, id: &str) {
    let (class, nobody) = ("RestNews", ann.own_session());
    let query = Query::new(class);
    let text = json!({"text": "b"});
    check("find", nobody.find(&query), Outcome::Done);
    check("count", nobody.count(&query), Outcome::Code(119));
    check("get, as nobody", nobody.get(class, id), Outcome::Code(101));
    check("get", ann.get(class, id), Outcome::Done);
    check(
        "create, as nobody",
        nobody.create(class, &text),
        Outcome::Code(119),
    );
    check("create", ann.create(class, &text), Outcome::Done);
    check(
        "a new field",
        ann.create(class, &json!({"more": 1})),
        Outcome::Code(119),
    );
    check("update", ann.update(class, id, &text), Outcome::Code(119));
    check("delete", ann.delete(class, id), Outcome::Code(119));
}

//! Another user, on a connection that is there already: what the first one may read comes no more, and what the
//! second one may read does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use parse_livequery::{Client, EventKind, GapReason, Query};
use serde_json::json;

use crate::recorder::{Recorder, builder, client};
use crate::support::{ParseServer, User, only};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_revoked_token_of_the_client_is_replaced() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("client-alice"), server.sign_up("client-bob"));
    let client = builder(server)
        .session_token(&alice.session_token)
        .build()
        .unwrap();
    changes_hands(server, &client, "OfClients", (&alice, &bob), |_| {
        client.set_session_token(Some(&bob.session_token));
    });
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_revoked_token_of_a_subscription_is_replaced() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("own-alice"), server.sign_up("own-bob"));
    let client = client(server);
    let stays = Recorder::open(client.subscription(&Query::new("OfNobody")));
    changes_hands(server, &client, "OfSubscriptions", (&alice, &bob), |recorder| {
        let token = Some(&*bob.session_token);
        recorder.subscription.set_session_token(token).unwrap();
    });
    // The connection is the same, and what else is on it has not noticed.
    let id = server.create("OfNobody", &json!({}));
    stays.expect_of(EventKind::Create, &id);
    stays.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_revoked_token_is_replaced_by_that_of_the_provider() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("provider-alice"), server.sign_up("provider-bob"));
    let token = Arc::new(Mutex::new(alice.session_token.clone()));
    let asked = Arc::new(AtomicUsize::new(0));
    let (provided, asks) = (Arc::clone(&token), Arc::clone(&asked));
    let client = builder(server)
        .session_token_provider(move || {
            asks.fetch_add(1, Ordering::SeqCst);
            Some(provided.lock().unwrap().clone())
        })
        .build()
        .unwrap();
    changes_hands(server, &client, "OfProviders", (&alice, &bob), |_| {
        token.lock().unwrap().clone_from(&bob.session_token);
        client.set_session_token(None);
    });
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// A subscription of the first user, whose session ends, becomes one of the second.
fn changes_hands(
    server: &ParseServer,
    client: &Client,
    class: &str,
    (first, second): (&User, &User),
    change: impl FnOnce(&Recorder),
) {
    let builder = client.subscription(&Query::new(class));
    // Where the client has no token, the subscription has one of its own.
    let builder = match class {
        "OfSubscriptions" => builder.session_token(&first.session_token),
        _ => builder,
    };
    let recorder = Recorder::open(builder);
    let of_first = server.create(class, &json!({"ACL": only(first)}));
    recorder.expect_of(EventKind::Create, &of_first);

    server.log_out(first);
    change(&recorder);
    recorder.expect(EventKind::Close);
    let gap = recorder.expect(EventKind::Open).gap().cloned();
    assert_eq!(gap.map(|gap| gap.reason()), Some(GapReason::SessionTokenChanged));

    server.update(class, &of_first, &json!({"secret": 1}));
    let unseen = server.create(class, &json!({"ACL": only(first)}));
    let of_second = server.create(class, &json!({"ACL": only(second)}));
    recorder.expect_of(EventKind::Create, &of_second);
    // What the first may read comes to the second only with the right to read it.
    server.update(class, &unseen, &json!({"ACL": only(second)}));
    recorder.expect_of(EventKind::Enter, &unseen);
    recorder.end();
}

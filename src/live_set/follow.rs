//! The subscriptions of a set besides its own: to the classes that its query names, and to the included
//! objects. It passes their events to the core, and does not know what follows from them.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::core::{Core, Following, Moment};
use crate::client::Client;
use crate::client::subscription::{Subscription, SubscriptionBuilder};
use crate::delivery::shared::Shared;
use crate::delivery::status::Receipt;
use crate::delivery::subscription::Follower;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::query::{EncodedQuery, Query};
use crate::secret::Secret;

/// The owner of the subscriptions: a query of a set.
pub(super) trait Host: Send + Sync {
    /// Passes news to the core, and reports what follows from them: after the error, if there is one.
    fn told(self: Arc<Self>, error: Option<&Error>, hear: &mut dyn FnMut(&mut Core, Moment));

    /// The server refuses a subscription that decides which objects match.
    fn refused(self: Arc<Self>, error: &Error);

    /// Accesses the core, if the query is still wanted.
    fn with_core(&self, ask: &mut dyn FnMut(&mut Core));

    fn follows(&self) -> &Follows;

    fn session_token(&self) -> Option<Secret>;

    /// Like [`Follower::pass_on`].
    fn pass_on(self: Arc<Self>, shared: &Arc<Shared>, receipt: Arc<Receipt>);
}

/// All of these subscriptions. They end with the set.
pub(super) struct Follows(Mutex<Inner>);

struct Inner {
    /// `None` if the set has ended.
    client: Option<Client>,
    list: Vec<Follow>,
}

struct Follow {
    subscription: Subscription,
    follower: Arc<Beside>,
}

/// The listener of one of these subscriptions.
struct Beside {
    host: Weak<dyn Host>,
    class_name: Arc<str>,
    role: Role,
    /// The number of its subscription.
    id: OnceLock<u64>,
}

enum Role {
    /// Its objects decide which objects are in the set.
    Decides,
    /// Its objects are included in those of the set; with the number that the core gave it.
    Included(u64),
}

impl Follows {
    pub(super) fn new(client: Client) -> Self {
        Self(Mutex::new(Inner {
            client: Some(client),
            list: Vec::new(),
        }))
    }

    /// Ends all of them.
    pub(super) fn end(&self) {
        let mut inner = self.0.lock();
        let list = std::mem::take(&mut inner.list);
        let client = inner.client.take();
        drop(inner);
        drop((list, client));
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().list.len()
    }

    /// Why the server refused one of them.
    pub(super) fn refusal(&self) -> Option<Error> {
        let inner = self.0.lock();
        let refusal = |follow: &Follow| {
            let error = follow.subscription.core().refusal()?;
            Some(cannot_be_followed(&follow.follower.class_name, &error))
        };
        inner.list.iter().find_map(refusal)
    }

    pub(super) fn set_session_token(&self, token: Option<&str>) -> Result<()> {
        let list: Vec<_> = self
            .0
            .lock()
            .list
            .iter()
            .map(|follow| follow.subscription.clone())
            .collect();
        list.iter()
            .try_for_each(|subscription| subscription.set_session_token(token))
    }

    fn start(&self, host: &Arc<dyn Host>, query: EncodedQuery, role: Role) {
        let Some(client) = self.0.lock().client.clone() else {
            return;
        };
        let follower = Arc::new(Beside {
            host: Arc::downgrade(host),
            class_name: Arc::clone(&query.class_name),
            role,
            id: OnceLock::new(),
        });
        let builder = SubscriptionBuilder::new(client, Query::new(&*query.class_name));
        let token = host.session_token();
        let builder = match &token {
            Some(token) => builder.session_token(token.reveal()),
            None => builder,
        };
        let subscription = builder.start_as(query, |core| {
            follower.id.get_or_init(|| core.id);
            if let Role::Decides = follower.role {
                host.with_core(&mut |own| own.follows(core.id, &core.class_name));
            }
            let weak: Weak<Beside> = Arc::downgrade(&follower);
            core.follow(weak);
        });
        let mut inner = self.0.lock();
        if inner.client.is_none() {
            // The set has ended meanwhile.
            drop(inner);
            drop(subscription);
            return;
        }
        inner.list.push(Follow {
            subscription: subscription.clone(),
            follower,
        });
        drop(inner);
        // The token may have been replaced before this one was in the list.
        let now = host.session_token();
        let now = now.as_ref().map(Secret::reveal);
        if now != token.as_ref().map(Secret::reveal) {
            // If it has ended meanwhile, there is nothing to do.
            let _ = subscription.set_session_token(now);
        }
    }

    /// Ends the subscriptions to the included objects of a class that are older than the one with this
    /// number.
    fn end_older(&self, class_name: &str, newest: u64) {
        let mut inner = self.0.lock();
        let is_old = |follow: &Follow| match follow.follower.role {
            Role::Included(number) => *follow.follower.class_name == *class_name && number < newest,
            Role::Decides => false,
        };
        let list = std::mem::take(&mut inner.list);
        let (old, kept): (Vec<_>, Vec<_>) = list.into_iter().partition(is_old);
        inner.list = kept;
        drop(inner);
        drop(old);
    }

    /// Subscribes to the objects that decide which objects are in the set. Call it before the set's own query
    /// is sent.
    pub(super) fn follow_others(&self, host: &Arc<dyn Host>, others: Vec<EncodedQuery>) {
        for query in others {
            self.start(host, query, Role::Decides);
        }
    }

    /// Follows the objects that are included now.
    pub(super) fn see_to_includes(&self, host: &Arc<dyn Host>) {
        let mut due = Vec::new();
        host.with_core(&mut |core| due = core.next_includes());
        for Following {
            class_name,
            number,
            ids,
        } in due
        {
            if ids.is_empty() {
                self.end_older(&class_name, number);
                continue;
            }
            let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
            let query = Query::new(&*class_name).contained_in("objectId", ids);
            match query.encode_conditions_for(None) {
                Ok(query) => self.start(host, query, Role::Included(number)),
                Err(error) => {
                    let error = cannot_be_followed(&class_name, &error);
                    Arc::clone(host).told(Some(&error), &mut |_, _| ());
                }
            }
        }
    }
}

impl Beside {
    fn told(&self, core: &mut Core, event: &Event, now: Moment) {
        let id = self.id.get().copied().unwrap_or_default();
        let class_name = &*self.class_name;
        match (event.kind(), &self.role) {
            (EventKind::Open, Role::Decides) => {
                core.link_opened(id, event.gap().map(|gap| gap.start().into()), now)
            }
            (EventKind::Close, Role::Decides) => core.link_closed(id, now.time),
            // Whatever the error: an event may be lost with it.
            (EventKind::Error, Role::Decides) => core.missed(now),
            (_, Role::Decides) => core.answer_may_change(now),
            (EventKind::Open, Role::Included(number)) => core.include_opened(class_name, *number, now),
            (EventKind::Close, Role::Included(number)) => core.include_closed(class_name, *number, now),
            (EventKind::Error, Role::Included(_)) => core.include_changed(class_name, None, now),
            (_, Role::Included(_)) => core.include_changed(class_name, event.id(), now),
        }
    }
}

impl Follower for Beside {
    fn take(self: Arc<Self>, _: &Arc<Shared>, event: &Event, _: u64) {
        let Some(host) = self.host.upgrade() else {
            return;
        };
        let error = event
            .error()
            .map(|error| cannot_be_followed(&self.class_name, error));
        Arc::clone(&host).told(error.as_ref(), &mut |core, now| self.told(core, event, now));
        match (event.kind(), &self.role, error) {
            (EventKind::Open, Role::Included(number), _) => {
                host.follows().end_older(&self.class_name, *number);
            }
            (_, Role::Decides, Some(error)) if event.error().is_some_and(Error::is_fatal) => {
                host.refused(&error);
            }
            _ => {}
        }
    }

    fn pass_on(self: Arc<Self>, shared: &Arc<Shared>, receipt: Arc<Receipt>) {
        if let Some(host) = self.host.upgrade() {
            host.pass_on(shared, receipt);
        }
    }
}

fn cannot_be_followed(class_name: &str, error: &Error) -> Error {
    let text =
        format!("the objects of {class_name}, which the query of the live set names, cannot be followed");
    let wrapped = Error::with_source(error.kind(), text, error.clone());
    match error.code() {
        Some(code) => wrapped.with_code(code),
        None => wrapped,
    }
}

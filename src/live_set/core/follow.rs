//! What the set follows besides its own objects: which of the subscriptions are open, and what an event means
//! whose object decides which ones match. Must not know of subscriptions as such: they are numbers here.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant, SystemTime};

use super::{Core, Moment, Output};
use crate::error::{Error, ErrorKind};

/// The subscriptions that everything depends on.
pub(super) struct Links {
    closed: HashSet<u64>,
    /// Since when events may be missing, while not all of them are open.
    lost_since: Option<SystemTime>,
    classes: BTreeSet<Box<str>>,
    /// The server refuses the set's own subscription, so the set works without one.
    are_without: bool,
}

/// The subscription of the set's own objects. Others have numbers from 1 on.
const OWN: u64 = 0;

impl Links {
    pub(super) fn new() -> Self {
        Self {
            closed: HashSet::from([OWN]),
            lost_since: None,
            classes: BTreeSet::new(),
            are_without: false,
        }
    }
}

impl Core {
    /// No event shows which objects match: after any change everything is fetched, with at least this time in
    /// between.
    pub(crate) fn asks_again(&mut self, min_interval: Duration) {
        self.asks_again = true;
        self.due.space_out(min_interval);
    }

    /// Fetches of everything are at least this far apart.
    pub(crate) fn space_out(&mut self, min_interval: Duration) {
        self.due.space_out(min_interval);
    }

    /// Everything is fetched again at this interval, even without a doubt.
    pub(crate) fn refresh_every(&mut self, interval: Duration) {
        self.due.again.every = Some(interval);
    }

    /// The objects of this subscription decide which ones match.
    pub(crate) fn follows(&mut self, number: u64, class_name: &str) {
        self.links.closed.insert(number);
        self.links.classes.insert(class_name.into());
    }

    /// The server refuses the subscription but answers fetches, so the set fetches again and again.
    pub(crate) fn go_without(&mut self, now: Moment) {
        self.due.again.every.get_or_insert(WITHOUT_EVENTS);
        self.links.are_without = true;
        self.link_opened(OWN, None, now);
    }

    /// Fetches everything if it is time to. Reports what the last such fetch found without an event, if none
    /// has come since.
    pub(super) fn look_again(&mut self, now: Instant) {
        let again = &mut self.due.again;
        if again.at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if again.is_suspect && !again.has_warned && !self.links.are_without {
            again.has_warned = true;
            let others = self.links.classes.iter().map(|name| format!(", {name}"));
            let text = format!(
                "the live set of {} has changed, and no event has told it: enable LiveQuery for each of its classes \
                 ({}{}) in the server's `liveQuery.classNames`. Changes that bypass the server, and of roles, look the \
                 same. The set fetches everything again from time to time, as `refresh_every` says",
                self.class_name,
                self.class_name,
                others.collect::<String>(),
            );
            let error = Error::new(ErrorKind::Protocol, text);
            self.outputs.push_back(Output::Failed(error));
        }
        self.due.want_all();
    }

    /// A fetch for no reason but time has led to the outputs since then.
    pub(super) fn suspect(&mut self, before: usize) {
        let is_change = |output: &Output| matches!(output, Output::Change(..));
        self.due.again.is_suspect |= self.outputs.iter().skip(before).any(is_change);
    }

    /// The subscription is acknowledged: from here on, everything that happens comes as an event. What
    /// happened before is not known, at the latest since the last proof of a connection.
    pub(crate) fn opened(&mut self, lost_since: Option<SystemTime>, now: Moment) {
        self.links.are_without = false;
        self.link_opened(OWN, lost_since, now);
    }

    /// No events come any more.
    pub(crate) fn closed(&mut self, since: SystemTime) {
        if !self.links.are_without {
            self.link_closed(OWN, since);
        }
    }

    /// As [`opened`](Self::opened), for one of those that decide.
    pub(crate) fn link_opened(&mut self, number: u64, lost_since: Option<SystemTime>, now: Moment) {
        let links = &mut self.links;
        links.closed.remove(&number);
        let known = links.lost_since.into_iter().chain(lost_since).min();
        links.lost_since = known;
        if links.closed.is_empty() {
            links.lost_since = None;
            self.lost_at = None;
            self.due.opened();
        }
        self.settle(known.unwrap_or(now.time));
    }

    /// As [`closed`](Self::closed), for one of those that decide.
    pub(crate) fn link_closed(&mut self, number: u64, since: SystemTime) {
        self.links.closed.insert(number);
        self.due.closed();
        self.settle(since);
    }

    /// Something happened to an object that decides, or may decide, which ones match.
    pub(crate) fn answer_may_change(&mut self, now: Moment) {
        self.due.count_event();
        self.due.doubt_all_soon(now.at);
        self.settle(now.time);
    }
}

/// How often it fetches without a subscription.
const WITHOUT_EVENTS: Duration = Duration::from_secs(10);

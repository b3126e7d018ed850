//! The subscriptions of a session: what is wanted, what the server has, and what its answers mean.

use std::sync::Arc;

use super::age::QUESTION;
use super::answers::Asked;
use super::errors::{is_unknown_member, server_error, timeout};
use super::{Accepted, Failed, Link, OnServer, Output, Received, Session, Subscription};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Gap, GapReason};
use crate::protocol::Now;
use crate::protocol::incoming::{EventFrame, ServerError};
use crate::protocol::outgoing::{self, Dialect, Operation};
use crate::protocol::spec::Spec;

impl<T: Clone> Session<T> {
    /// Adds a subscription; ids are never reused.
    pub(crate) fn subscribe(&mut self, id: u64, handle: T, spec: Arc<Spec>, now: Now) {
        let gap = self.failed.remove(&id).and_then(|failed| failed.gap);
        let (proven, gap) = match gap {
            Some((proven, reason)) => (proven, Some(reason)),
            None => (self.clock.moment(now), None),
        };
        let subscription = Subscription {
            handle: handle.clone(),
            wanted: Some(spec),
            accepted: None,
            server: OnServer::Absent,
            open: false,
            gap,
            proven,
            respelled: false,
        };
        self.subscriptions.insert(id, Box::new(subscription));
        match &self.link {
            // Permanently refused: only an explicit `open` connects again, or each new subscription would.
            Link::Refused(error) => {
                let (handle, error) = (handle, error.clone());
                self.outputs
                    .push_back(Output::Event(handle, Event::failed(error)));
            }
            _ => self.open(now),
        }
        self.reconcile(id, now);
        self.tell_if_question_is_late(id);
    }

    /// Changes the query of a subscription. One that had failed is tried again with it.
    pub(crate) fn update(&mut self, id: u64, handle: T, spec: Arc<Spec>, now: Now) {
        match self.subscriptions.get_mut(&id) {
            Some(subscription) => {
                let identity = subscription.wanted.as_ref().map(|wanted| wanted.identity);
                if let Some(reason) = subscription
                    .gap
                    .as_mut()
                    .filter(|_| identity != Some(spec.identity))
                {
                    // Events that wait for the listeners are discarded, and may be older than the gap.
                    *reason = GapReason::SessionTokenChanged;
                }
                subscription.wanted = Some(spec);
                subscription.respelled = false;
                // A different query is requested.
                self.retries.forget(id);
                self.reconcile(id, now);
                self.tell_if_question_is_late(id);
            }
            None => self.subscribe(id, handle, spec, now),
        }
    }

    pub(crate) fn unsubscribe(&mut self, id: u64, now: Now) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.wanted = None;
            subscription.open = false;
            let handle = subscription.handle.clone();
            self.outputs.push_back(Output::Event(handle, Event::closed(None)));
            self.reconcile(id, now);
        } else if let Some(failed) = self.failed.remove(&id) {
            self.outputs
                .push_back(Output::Event(failed.handle, Event::closed(None)));
        }
    }

    /// Sends what the server needs to have the wanted state of a subscription, if that may be sent now.
    pub(super) fn reconcile(&mut self, id: u64, now: Now) {
        self.send_what_is_missing(id, false, now);
    }

    /// Sends subscriptions that may cause the loss of connections, when nothing else is unanswered.
    pub(super) fn try_suspects(&mut self, now: Now) {
        while self.answers.due().is_none() {
            let ids = self.retries.next_trial();
            if ids.is_empty() {
                return;
            }
            for id in ids {
                self.send_what_is_missing(id, true, now);
            }
        }
    }

    /// Suspects the subscriptions that were sent before the loss of the connection and not answered.
    pub(super) fn suspect_the_unanswered(&mut self, now: Now) {
        let is_asked = |id: &u64| {
            let subscription = self.subscriptions.get(id);
            *id == QUESTION
                || subscription
                    .is_some_and(|subscription| matches!(subscription.server, OnServer::Asked { .. }))
        };
        let unanswered: Vec<_> = self.answers.on_time().collect();
        let asked: Vec<_> = unanswered.iter().copied().filter(is_asked).collect();
        for id in &asked {
            self.retries.lost_with(*id);
        }
        let ([id], [_]) = (asked.as_slice(), unanswered.as_slice()) else {
            return;
        };
        // Without others that are well, there is nothing to protect, and the network may be at fault.
        let mut others = self.subscriptions.values();
        if !others.any(|other| matches!(other.server, OnServer::Active(_))) {
            return;
        }
        let Some((delay, losses)) = self.retries.caught(*id, now.mono) else {
            return;
        };
        if *id == QUESTION {
            self.question_held_back(delay, losses);
            return;
        }
        let text = format!(
            "the connection was lost {losses} times in a row right after this subscription was sent, and the others were \
             answered: something between client and server seems to refuse it; it is sent again in {delay:?}"
        );
        crate::logging::warn!("held back subscription {id}: the connection is lost whenever it is sent");
        if let Some(subscription) = self.subscriptions.get(id).filter(|s| s.wanted.is_some()) {
            let handle = subscription.handle.clone();
            self.report_of(handle, Error::new(ErrorKind::ConnectionLost, text));
        }
    }

    /// Forgets everything about a subscription.
    pub(super) fn forget(&mut self, id: u64) {
        self.retries.forget(id);
        self.tokens.settled(id);
    }

    fn send_what_is_missing(&mut self, id: u64, admitted: bool, now: Now) {
        if id == QUESTION {
            self.ask_question(admitted, now);
            return;
        }
        let live = matches!(self.link, Link::Live(_));
        let moment = self.clock.moment(now);
        let dialect = self.dialect;
        let asked = Asked { id, moment, dialect };
        let Some(subscription) = self.subscriptions.get(&id) else {
            return;
        };
        let (operation, spec) = match (&subscription.server, &subscription.wanted) {
            (OnServer::Absent, None) => {
                self.subscriptions.remove(&id);
                self.forget(id);
                return;
            }
            _ if !live => return,
            (OnServer::Absent, Some(wanted)) => (Operation::Subscribe, Arc::clone(wanted)),
            (OnServer::Active(active), Some(wanted)) if !Arc::ptr_eq(active, wanted) => {
                (Operation::Update, Arc::clone(wanted))
            }
            (OnServer::Active(_), None) => {
                let operation = self.answers.sent(asked, now.mono);
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.server = OnServer::Leaving { operation };
                }
                self.outputs.push_back(Output::Send(outgoing::unsubscribe(id)));
                return;
            }
            (OnServer::Active(_) | OnServer::Asked { .. } | OnServer::Leaving { .. }, _) => return,
        };
        let Some(other_where) = self.where_for_server(&spec, now) else {
            return;
        };
        if operation == Operation::Subscribe && !admitted && !self.retries.admit(id) {
            return;
        }
        let credentials = &self.settings.credentials;
        let frame = other_where.and_then(|other_where| {
            outgoing::subscribe(operation, id, &spec, other_where.as_deref(), credentials, dialect)
        });
        match (frame, self.subscriptions.get_mut(&id)) {
            (Ok(frame), Some(subscription)) => {
                if let OnServer::Active(active) = &subscription.server {
                    // Parse Server drops the old query before it checks the new one.
                    if subscription.gap.is_none() {
                        subscription.gap = Some(if active.identity == spec.identity {
                            GapReason::QueryUpdated
                        } else {
                            GapReason::SessionTokenChanged
                        });
                        subscription.proven = moment;
                    }
                }
                let operation = self.answers.sent(asked, now.mono);
                subscription.server = OnServer::Asked { spec, operation };
                self.outputs.push_back(Output::Send(frame));
            }
            (Err(error), _) => self.refused(id, &spec, error, now),
            (Ok(_), None) => {}
        }
    }

    pub(super) fn subscribed(&mut self, id: u64, now: Now) {
        let moment = self.clock.moment(now);
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            crate::logging::debug!("ignored `subscribed` for {id}, which is not subscribed");
            return;
        };
        let OnServer::Asked { spec, operation } = &subscription.server else {
            crate::logging::debug!("ignored a second `subscribed` for {id}");
            return;
        };
        let (spec, operation) = (Arc::clone(spec), *operation);
        let is_new =
            (subscription.accepted.as_ref()).is_none_or(|accepted| !Arc::ptr_eq(&accepted.spec, &spec));
        subscription.accepted = Some(Arc::clone(&spec).into());
        self.tokens.settled(id);
        self.retries.acknowledged(id, now.mono);
        let has_watch = spec.query.watch.is_some();
        subscription.server = OnServer::Active(spec);
        let missed = moment.saturating_duration_since(subscription.proven);
        let gap = subscription
            .gap
            .take()
            .map(|reason| Gap::new(missed, now.wall, reason));
        let asked = self.answers.answered(operation, now.mono);
        if let Some(asked) = asked {
            subscription.proven = asked.moment;
        }
        let ignores_watch = has_watch && asked.is_some_and(|asked| asked.dialect == Dialect::Fields);
        if subscription.wanted.is_some() {
            let handle = subscription.handle.clone();
            if std::mem::replace(&mut subscription.open, true) {
                self.outputs
                    .push_back(Output::Event(handle.clone(), Event::closed(None)));
            }
            self.outputs
                .push_back(Output::Event(handle.clone(), Event::opened(gap)));
            if ignores_watch && is_new {
                let text = "the server is older than Parse Server 6.1 and does not know `watch`: `update` is called for \
                            changes of all fields, so compare them with `changed_keys`";
                self.report_of(handle, Error::new(ErrorKind::InvalidQuery, text));
            }
        }
        self.attribute(now);
        self.reconcile(id, now);
    }

    pub(super) fn unsubscribed(&mut self, id: u64, now: Now) {
        match self
            .subscriptions
            .get(&id)
            .map(|subscription| &subscription.server)
        {
            Some(OnServer::Leaving { operation }) => {
                self.answers.answered(*operation, now.mono);
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.server = OnServer::Absent;
                }
                self.attribute(now);
                self.reconcile(id, now);
            }
            Some(OnServer::Active(_)) => self.ended_by_server(id, now),
            // The answer to the operation will come, or the connection will be made again.
            Some(OnServer::Asked { .. }) => self.lower_gap(id),
            Some(OnServer::Absent) | None => {
                crate::logging::debug!("ignored `unsubscribed` for {id}, which is not subscribed");
            }
        }
    }

    /// Makes the gap that an operation has opened start earlier: what the server sent before that operation
    /// may be missing as well, from the last proof on.
    fn lower_gap(&mut self, id: u64) {
        if let (Some(subscription), Link::Live(live)) = (self.subscriptions.get_mut(&id), &self.link) {
            if subscription.gap.is_some() {
                subscription.proven = subscription.proven.min(live.proven);
            }
        }
    }

    /// The server has ended a wanted subscription unasked. It is requested again, with a gap that starts at
    /// the last proof, as after a cut.
    fn ended_by_server(&mut self, id: u64, now: Now) {
        let (Some(subscription), Link::Live(live)) = (self.subscriptions.get_mut(&id), &self.link) else {
            return;
        };
        subscription.server = OnServer::Absent;
        if subscription.gap.is_none() {
            subscription.gap = Some(GapReason::EndedByServer);
            subscription.proven = subscription.proven.max(live.proven);
        }
        let delay = self.retries.ended(id, now.mono, &mut self.rng);
        crate::logging::warn!("the server ended subscription {id} without being asked");
        if std::mem::take(&mut subscription.open) {
            let text = format!(
                "the server ended the subscription without being asked; it is requested again in {delay:.1?}"
            );
            let error = Error::new(ErrorKind::Server, text);
            let handle = subscription.handle.clone();
            self.outputs
                .push_back(Output::Event(handle, Event::closed(Some(error))));
        }
    }

    /// Returns an event, if it is for an open subscription. Parse Server sends none before it has
    /// acknowledged the subscription.
    pub(super) fn event<'a>(&'a self, id: u64, frame: EventFrame<'a>) -> Option<Received<'a, T>> {
        let Some((handle, accepted)) = self.receiver(id) else {
            crate::logging::debug!("ignored an event for {id}, which is not open");
            return None;
        };
        Some(Received {
            handle,
            identity: accepted.identity,
            filter: accepted.is_filter.then_some(&*accepted.spec),
            frame,
            outline: self.reader.outline(),
        })
    }

    /// The subscription that events with this id are for, and the query that they are sent for.
    pub(super) fn receiver(&self, id: u64) -> Option<(&T, &Accepted)> {
        let subscription = self
            .subscriptions
            .get(&id)
            .filter(|subscription| subscription.open)?;
        let (wanted, accepted) = (subscription.wanted.as_ref()?, subscription.accepted.as_ref()?);
        // After a change of the session token, events under the old one are no longer wanted.
        let same_identity = Arc::ptr_eq(wanted, &accepted.spec) || wanted.identity == accepted.identity;
        same_identity.then_some((&subscription.handle, accepted))
    }

    pub(super) fn subscription_error(&mut self, id: u64, error: &ServerError, now: Now) {
        let Some(subscription) = self.subscriptions.get(&id) else {
            crate::logging::debug!("ignored an error for {id}, which is not subscribed");
            return;
        };
        match &subscription.server {
            OnServer::Asked { .. } | OnServer::Leaving { .. } => {
                self.operation_failed(id, error, now);
                self.attribute(now);
            }
            // An afterLiveQueryEvent hook threw: the event is lost, and the subscription continues.
            OnServer::Active(_) | OnServer::Absent => {
                if subscription.wanted.is_some() {
                    let handle = subscription.handle.clone();
                    self.report_of(handle, server_error(ErrorKind::Server, error));
                }
            }
        }
    }

    /// «Cannot find subscription …», to an unsubscribe or an update.
    pub(super) fn unknown_to_server(&mut self, id: u64, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        // After an update, a `subscribed` comes as well: Parse Server 9.10 subscribes to what it did not
        // find.
        if let OnServer::Leaving { operation } = subscription.server {
            subscription.server = OnServer::Absent;
            self.answers.answered(operation, now.mono);
            self.attribute(now);
            self.reconcile(id, now);
        }
    }

    /// Handles an error that does not name a subscription.
    pub(super) fn blame(&mut self, error: ServerError, now: Now) {
        match self.answers.blame(error) {
            Some(error) => self.report(server_error(ErrorKind::Server, &error)),
            None => self.attribute(now),
        }
    }

    pub(super) fn attribute(&mut self, now: Now) {
        for (id, error) in self.answers.attribute() {
            self.operation_failed(id, &error, now);
        }
    }

    /// Reports the errors that do not name a subscription to all that they may belong to, without waiting any
    /// longer for the answers that would tell whose they are.
    pub(super) fn tell_doubtful_errors(&mut self) {
        for (error, ids) in self.answers.untold() {
            let meant: Vec<_> = ids
                .iter()
                .filter_map(|id| self.subscriptions.get(id))
                .filter(|subscription| subscription.wanted.is_some())
                .map(|subscription| subscription.handle.clone())
                .collect();
            let text = format!(
                "the server refused one of {} operations without saying which; if it was this one, that is \
                 why no events come",
                ids.len()
            );
            let error = Error::with_source(ErrorKind::Server, text, server_error(ErrorKind::Server, &error))
                .with_code(error.code);
            if meant.is_empty() {
                self.report(error);
            } else {
                for handle in meant {
                    self.report_of(handle, error.clone());
                }
            }
        }
    }

    /// The pending operation of a subscription was refused.
    fn operation_failed(&mut self, id: u64, error: &ServerError, now: Now) {
        if id == QUESTION {
            self.question_answered(error, now);
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut subscription.server, OnServer::Absent) {
            OnServer::Asked { spec, operation } => {
                let asked = self.answers.answered(operation, now.mono);
                let selects = spec.query.keys.is_some() || spec.query.watch.is_some();
                let respell =
                    error.code == 1 && is_unknown_member(error) && selects && !subscription.respelled;
                if respell {
                    subscription.respelled = true;
                    // Another subscription may have found out in the meantime.
                    if asked.is_some_and(|asked| asked.dialect == self.dialect) {
                        self.dialect = self.dialect.other();
                    }
                    self.reconcile(id, now);
                    return;
                }
                let is_token = error.code == INVALID_SESSION_TOKEN;
                let error = server_error(ErrorKind::Server, error);
                if !is_token || !self.renew_token_for(id, &spec, &error, now) {
                    self.refused(id, &spec, error, now);
                }
            }
            OnServer::Leaving { operation } => {
                self.answers.answered(operation, now.mono);
                self.reconcile(id, now);
            }
            untouched @ (OnServer::Active(_) | OnServer::Absent) => subscription.server = untouched,
        }
    }

    /// The server refuses this query, or cannot answer it. An earlier one that it accepted is restored,
    /// because a refused update has ended that one on the server (Parse Server 9.10,
    /// `_handleUpdateSubscription`).
    pub(super) fn refused(&mut self, id: u64, spec: &Arc<Spec>, error: Error, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let Some(wanted) = &subscription.wanted else {
            self.reconcile(id, now);
            return;
        };
        if !Arc::ptr_eq(wanted, spec) {
            // The program has changed the query again in the meantime, so this refusal has no effect.
            let handle = subscription.handle.clone();
            self.report_of(handle, error);
            self.reconcile(id, now);
            return;
        }
        match &subscription.accepted {
            // Not if it was for another session token: what that token may read must not be delivered any
            // more.
            Some(Accepted { spec: accepted, .. })
                if !Arc::ptr_eq(accepted, spec) && accepted.identity == spec.identity =>
            {
                subscription.wanted = Some(Arc::clone(accepted));
                let handle = subscription.handle.clone();
                self.report_of(handle, error);
                self.reconcile(id, now);
            }
            _ => {
                self.forget(id);
                if let Some(subscription) = self.subscriptions.remove(&id) {
                    let Subscription {
                        handle,
                        gap,
                        proven,
                        server,
                        ..
                    } = *subscription;
                    if matches!(server, OnServer::Active(_)) {
                        // For another session token. It is no longer wanted, and nothing waits for the
                        // answer.
                        self.outputs.push_back(Output::Send(outgoing::unsubscribe(id)));
                    }
                    let gap = gap.map(|reason| (proven, reason));
                    self.report_of(handle.clone(), error.fatal());
                    self.outputs
                        .push_back(Output::Event(handle.clone(), Event::closed(None)));
                    self.failed.insert(id, Failed { handle, gap });
                }
            }
        }
    }

    /// The first operation in the queue has waited too long for its answer. It stays pending, because the
    /// answer may still come; on another connection it is sent again.
    pub(super) fn answer_is_late(&mut self, now: Now) {
        self.tell_doubtful_errors();
        let late = self.answers.overtake(now.mono);
        if late.is_some_and(|asked| asked.id == QUESTION) {
            self.question_is_late();
            return;
        }
        let subscription = late.and_then(|asked| self.subscriptions.get(&asked.id));
        if let Some(subscription) = subscription.filter(|s| s.wanted.is_some()) {
            let limit = self.settings.ack_timeout;
            let text = format!(
                "the server has not answered the subscription for {limit:?}; the client still waits for the \
                 answer, and asks again on the next connection"
            );
            let handle = subscription.handle.clone();
            self.report_of(handle, timeout(text));
        }
    }
}

/// Parse's code for it.
const INVALID_SESSION_TOKEN: i64 = 209;

//! Finds out the version of the server: only if a subscription depends on it, once per connection, since the
//! next one may lead to another server, and with a question that has no effect on the server. Only the
//! subscriptions that depend on the answer wait for it.

use std::sync::Arc;
use std::time::Duration;

use super::answers::Asked;
use super::errors::{is_too_short, is_unknown_member, timeout};
use super::{Link, OnServer, Output, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::protocol::Now;
use crate::protocol::incoming::ServerError;
use crate::protocol::outgoing;
use crate::protocol::spec::Spec;
use crate::query::version::{Age, Probe};

/// What is known of the server on this connection.
#[derive(Debug)]
pub(super) struct Inquiry {
    age: Age,
    /// The question that a subscription waits for, with its number once it is sent.
    open: Option<(Probe, Option<u64>)>,
    /// The answer is late, and the subscriptions that wait for it were notified.
    is_late: bool,
    /// The answered questions, including those whose answer told nothing.
    answered: Vec<Probe>,
}

impl Default for Inquiry {
    fn default() -> Self {
        Self {
            age: Age::ANY,
            open: None,
            is_late: false,
            answered: Vec::new(),
        }
    }
}

impl Inquiry {
    /// The connection is closed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn number(&self) -> Option<u64> {
        self.open.and_then(|(_, number)| number)
    }
}

impl<T: Clone> Session<T> {
    /// The version of the server, if it was asked and has answered. The answer may have told nothing.
    pub(crate) fn server_age(&self) -> Option<Age> {
        (!self.inquiry.answered.is_empty()).then_some(self.inquiry.age)
    }

    /// The `where` for this server, if it differs from that of the specification. `None` if the server must
    /// be asked first, or is being asked.
    pub(super) fn where_for_server(&mut self, spec: &Arc<Spec>, now: Now) -> Option<Result<Option<String>>> {
        let Some(by_age) = spec.query.by_age() else {
            return Some(Ok(None));
        };
        let (since, inquiry) = (by_age.since, &mut self.inquiry);
        let probe = Probe::for_version(since);
        let is_settled = inquiry.age.reaches(since) || inquiry.age.is_before(since);
        if is_settled || inquiry.answered.contains(&probe) {
            return Some(by_age.where_for(inquiry.age));
        }
        if inquiry.open.is_none() {
            inquiry.open = Some((probe, None));
            self.ask_question(false, now);
        }
        None
    }

    /// Sends the question, if there is one that was not sent yet and it may be sent now.
    pub(super) fn ask_question(&mut self, admitted: bool, now: Now) {
        let Some((probe, None)) = self.inquiry.open else {
            return;
        };
        if !matches!(self.link, Link::Live(_)) || !admitted && !self.retries.admit(QUESTION) {
            return;
        }
        let asked = Asked {
            id: QUESTION,
            moment: self.clock.moment(now),
            dialect: self.dialect,
        };
        self.inquiry.open = Some((probe, Some(self.answers.sent(asked, now.mono))));
        self.outputs
            .push_back(Output::Send(outgoing::probe(QUESTION, probe)));
    }

    /// Whether an error that names no request can only be the answer to the question. If other operations may
    /// have caused it too, their answers decide.
    pub(super) fn is_answer_to_question(&self, error: &ServerError) -> bool {
        if self.inquiry.number().is_none() || error.request_id.is_some() || error.code != 1 {
            return false;
        }
        let may_cause_it = |id: u64| match self.subscriptions.get(&id).map(|s| &s.server) {
            Some(OnServer::Asked { spec, .. }) => spec.query.keys.is_some() || spec.query.watch.is_some(),
            _ => false,
        };
        is_too_short(error) || is_unknown_member(error) && !self.answers.ids().any(may_cause_it)
    }

    /// The answer, which is always an error, has come.
    pub(super) fn question_answered(&mut self, error: &ServerError, now: Now) {
        let is_known = match error {
            error if error.code != 1 => None,
            error if is_too_short(error) => Some(true),
            error if is_unknown_member(error) => Some(false),
            _ => None,
        };
        if is_known.is_none() {
            crate::logging::warn!(
                "the server does not reveal its version, but answers: {}",
                crate::text::excerpt(&error.text)
            );
        }
        self.end_question(is_known.map(|is_known| (is_known, error.has_request_id)), now);
    }

    /// The server accepts the question as a subscription, which it must not keep.
    pub(super) fn question_accepted(&mut self, now: Now) {
        // Once, whatever the server answers.
        if self.inquiry.number().is_none() {
            return;
        }
        crate::logging::warn!(
            "the server does not reveal its version: it accepts what every Parse Server refuses"
        );
        self.outputs
            .push_back(Output::Send(outgoing::unsubscribe(QUESTION)));
        self.end_question(None, now);
    }

    fn end_question(&mut self, answer: Option<(bool, bool)>, now: Now) {
        let Some((probe, Some(number))) = self.inquiry.open.take() else {
            return;
        };
        let told = answer.and_then(|(is_known, has_request_id)| probe.answer(is_known, has_request_id));
        if let Some(age) = told.and_then(|told| self.inquiry.age.and(told)) {
            self.inquiry.age = age;
        }
        self.inquiry.answered.push(probe);
        self.inquiry.is_late = false;
        self.answers.answered(number, now.mono);
        self.retries.acknowledged(QUESTION, now.mono);
        crate::logging::debug!("the server is {}", self.inquiry.age);
        let ids: Vec<_> = self.waiting().map(|(id, _)| id).collect();
        for id in ids {
            self.reconcile(id, now);
        }
        self.attribute(now);
    }

    /// The answer is late. The client still waits for it.
    pub(super) fn question_is_late(&mut self) {
        self.inquiry.is_late = true;
        let handles: Vec<_> = self.waiting().map(|(_, handle)| handle.clone()).collect();
        for handle in handles {
            let error = self.late_question();
            self.report_of(handle, error);
        }
    }

    /// Reports the late answer to a subscription that begins to wait for it.
    pub(super) fn tell_if_question_is_late(&mut self, id: u64) {
        if self.inquiry.is_late {
            let handle = self.waiting().find(|(waiting, _)| *waiting == id);
            if let Some(handle) = handle.map(|(_, handle)| handle.clone()) {
                let error = self.late_question();
                self.report_of(handle, error);
            }
        }
    }

    fn late_question(&self) -> Error {
        let limit = self.settings.ack_timeout;
        timeout(format!(
            "this query depends on the version of the server, which it has not revealed for {limit:?}; the \
             client still waits for the answer, and asks again on the next connection; {NAME_IT}"
        ))
    }

    /// The connection is lost whenever the question is sent.
    pub(super) fn question_held_back(&mut self, delay: Duration, losses: u32) {
        crate::logging::warn!(
            "held back the question for the server's version: the connection is lost whenever it is sent"
        );
        let handles: Vec<_> = self.waiting().map(|(_, handle)| handle.clone()).collect();
        for handle in handles {
            let text = format!(
                "the connection was lost {losses} times in a row right after the server was asked for its \
                 version, on which this query depends; it is asked again in {delay:?}; {NAME_IT}"
            );
            let error = Error::new(ErrorKind::ConnectionLost, text);
            self.outputs
                .push_back(Output::Event(handle, Event::failed(error)));
        }
    }

    /// The subscriptions that may be waiting for the answer.
    fn waiting(&self) -> impl Iterator<Item = (u64, &T)> {
        self.subscriptions.iter().filter_map(|(id, subscription)| {
            let wanted = subscription.wanted.as_ref()?;
            let is_sent = match &subscription.server {
                OnServer::Absent => false,
                OnServer::Active(active) => Arc::ptr_eq(active, wanted),
                OnServer::Asked { .. } | OnServer::Leaving { .. } => true,
            };
            (!is_sent && wanted.query.by_age().is_some()).then_some((*id, &subscription.handle))
        })
    }
}

/// The request id of the question: the greatest integer of JavaScript, which no subscription gets.
pub(super) const QUESTION: u64 = (1 << 53) - 1;

const NAME_IT: &str = "name the server's version with `ClientBuilder::parse_server` to avoid the question";

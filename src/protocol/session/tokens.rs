//! Session tokens: changed by the user, and renewed when the server does not take them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Output, Session};
use crate::error::Error;
use crate::protocol::Now;
use crate::protocol::backoff::Backoff;
use crate::protocol::spec::Spec;
use crate::secret::Secret;

/// The renewals of the session token.
#[derive(Debug)]
pub(super) struct Renewals {
    /// Subscriptions that the server refused for their token, while another is asked for.
    waiting: Vec<(u64, Arc<Spec>, Error)>,
    /// Those for which another token was asked for since they were last accepted: it was no better.
    tried: BTreeSet<u64>,
    backoff: Backoff,
    /// When the next token may be asked for.
    not_before: Option<Instant>,
    /// When the next token will be asked for, if it waits for that.
    due: Option<Instant>,
}

impl Renewals {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            waiting: Vec::new(),
            tried: BTreeSet::new(),
            backoff,
            not_before: None,
            due: None,
        }
    }

    /// When another token is to be asked for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The server has accepted a subscription, or it has ended.
    pub(super) fn settled(&mut self, id: u64) {
        self.tried.remove(&id);
    }

    /// Nothing waits for a token any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.due = None;
    }
}

impl<T: Clone> Session<T> {
    /// The token to connect with, from the provider.
    pub(crate) fn provide_token(&mut self, token: Option<Secret>) {
        self.settings.credentials.session_token = token;
    }

    /// The answer to [`Output::RenewToken`].
    pub(crate) fn token_renewed(&mut self, token: Option<Secret>, now: Now) {
        if token != self.settings.credentials.session_token {
            self.tokens.clear();
            self.set_session_token(token, now);
            return;
        }
        for (id, spec, error) in std::mem::take(&mut self.tokens.waiting) {
            self.refused(id, &spec, error, now);
        }
    }

    /// The server does not take the token of a subscription. Whether another may help: then the subscription waits for it,
    /// and one is asked for, once for all that wait. Not again for one that another token did not help, and not as fast as a
    /// server can refuse them.
    pub(super) fn renew_token_for(&mut self, id: u64, spec: &Arc<Spec>, error: &Error, now: Now) -> bool {
        let renewable = self.settings.renewable_token && spec.session_token.is_none();
        if !renewable || !self.tokens.tried.insert(id) {
            return false;
        }
        self.tokens.waiting.push((id, Arc::clone(spec), error.clone()));
        if self.tokens.waiting.len() == 1 {
            self.tokens.due = Some(self.tokens.not_before.map_or(now.mono, |at| at.max(now.mono)));
            self.renew_if_due(now);
        }
        true
    }

    pub(super) fn renew_if_due(&mut self, now: Now) {
        if self.tokens.due.take_if(|at| *at <= now.mono).is_some() {
            let calm = |at: Instant| now.mono.saturating_duration_since(at) >= CALM;
            if self.tokens.not_before.is_some_and(calm) {
                self.tokens.backoff.reset();
            }
            self.tokens.not_before = Some(now.mono + self.tokens.backoff.next(&mut self.rng));
            self.outputs.push_back(Output::RenewToken);
        }
    }
}

/// If no token was needed for so long although one could have been asked for, the next one is no part of a series.
const CALM: Duration = Duration::from_secs(60);

//! Session tokens: changed by the program, and renewed when the server rejects them.

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
    /// Subscriptions that the server refused because of their token, while another is requested.
    waiting: Vec<(u64, Arc<Spec>, Error)>,
    /// Those for which another token was requested since they were last accepted, without success.
    tried: BTreeSet<u64>,
    backoff: Backoff,
    /// When the next token may be requested.
    not_before: Option<Instant>,
    /// When the next token will be requested, if that is delayed.
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

    /// When another token must be requested.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The server has accepted a subscription, or the subscription has ended.
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
    /// Sets the provider's token for the next `connect`.
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

    /// The server rejects the token of a subscription. Returns whether another may help: the subscription
    /// then waits for it, and one token is requested for all that wait. It is not requested again for a
    /// subscription that another token did not help, nor as fast as a server can refuse.
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

/// If no token was needed for this long although one could have been requested, the next one starts a new
/// series.
const CALM: Duration = Duration::from_secs(60);

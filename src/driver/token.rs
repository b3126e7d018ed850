//! Session tokens from the program, whose code may block, panic or hang.
//!
//! Must not know what a token is for.

use std::fmt;
use std::sync::Arc;
use std::thread;

use crate::driver::command::{Command, Commands};
use crate::error::{Error, ErrorKind, Result};
use crate::fence;
use crate::fenced::Fenced;
use crate::logging::error;
use crate::secret::Secret;

/// Where the session token comes from.
#[derive(Clone)]
pub(crate) struct TokenProvider(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl TokenProvider {
    pub(crate) fn new(provider: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        let provider = Fenced::new(provider);
        Self(Arc::new(move || provider.get().and_then(|provider| provider())))
    }
}

impl TokenProvider {
    /// Calls the provider, on this thread. `None` if it panics.
    pub(crate) fn call(&self) -> Option<Secret> {
        let token = fence::run(|| (self.0)()).unwrap_or_else(|text| {
            error!("the session token provider panicked; continuing without a token: {text}");
            None
        });
        token.map(Secret::from)
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}

/// Questions to the provider: one at a time, on a thread of its own. A call that hangs costs only that
/// thread, and its answer counts only if it is still wanted.
#[derive(Debug)]
pub(crate) struct Tokens {
    provider: Option<TokenProvider>,
    /// The number of the last question.
    question: u64,
    /// What the answer is for.
    purpose: Option<Purpose>,
    is_running: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For connecting, in the attempt with this number.
    Connect(u64),
    /// For replacing a token that the server rejected.
    Renew,
}

impl Tokens {
    pub(crate) fn new(provider: Option<TokenProvider>) -> Self {
        Self {
            provider,
            question: 0,
            purpose: None,
            is_running: false,
        }
    }

    /// Whether there is a provider.
    pub(crate) fn can_ask(&self) -> bool {
        self.provider.is_some()
    }

    /// Asks, or queues the question if the provider has not answered the previous one yet.
    pub(crate) fn ask(&mut self, purpose: Purpose, commands: &Commands) -> Result<()> {
        self.question += 1;
        self.purpose = Some(purpose);
        if self.is_running {
            return Ok(());
        }
        self.start(commands)
    }

    /// There is a newer token, so the answer no longer matters.
    pub(crate) fn forget(&mut self) {
        self.question += 1;
        self.purpose = None;
    }

    /// The provider has answered. Returns the purpose if this was the current question; otherwise asks the
    /// current one.
    pub(crate) fn answered(&mut self, question: u64, commands: &Commands) -> Result<Option<Purpose>> {
        self.is_running = false;
        if question == self.question {
            return Ok(self.purpose.take());
        }
        if self.purpose.is_some() {
            self.start(commands)?;
        }
        Ok(None)
    }

    fn start(&mut self, commands: &Commands) -> Result<()> {
        let Some(provider) = self.provider.clone() else {
            return Ok(());
        };
        let (question, commands) = (self.question, commands.clone());
        thread::Builder::new()
            .name("livequery-token".to_owned())
            .spawn(move || {
                let token = provider.call();
                commands.send(Command::Token { question, token });
            })
            .map_err(|error| {
                let text = "the thread for the session token cannot be started";
                Error::with_source(ErrorKind::Io, text, error)
            })?;
        self.is_running = true;
        Ok(())
    }
}

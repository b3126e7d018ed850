//! The commands of handles to the I/O, and how they get there.
//!
//! Must not know of sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::delivery::shared::Shared;
use crate::delivery::status::{Order, Receipt};
use crate::delivery::subscription::SubscriptionCore;
use crate::driver::stream::{ConnectedStream, Streams};
use crate::error::Result;
use crate::protocol::spec::Spec;
use crate::secret::Secret;

/// A command of a handle to the I/O thread. There is no answer; its effect shows in events and states.
#[derive(Debug)]
pub(crate) enum Command {
    Open,
    /// Ends the subscriptions with an id below `below`, and the connection. A thread that waits for that
    /// holds the receipt.
    Close {
        below: u64,
        receipt: Arc<Receipt>,
    },
    Subscribe(Arc<SubscriptionCore>, Arc<Spec>),
    Update(Arc<SubscriptionCore>, Arc<Spec>),
    Unsubscribe(u64),
    Pause,
    Resume,
    ReconnectNow,
    /// The number is that of the client's new generation.
    SetSessionToken(Option<Secret>, u64),
    /// The session token provider has answered a question.
    Token {
        question: u64,
        token: Option<Secret>,
    },
    Resolved {
        attempt: u64,
        addresses: Result<Vec<SocketAddr>>,
    },
    Connected {
        attempt: u64,
        stream: Result<ConnectedStream>,
    },
    /// The last handle was dropped.
    Shutdown,
    /// Simulates a fault of this library.
    #[cfg(test)]
    Panic,
}

impl Command {
    /// Whether it may make the client connect.
    fn is_order(&self) -> bool {
        matches!(
            self,
            Self::Open | Self::Resume | Self::Subscribe(..) | Self::Update(..)
        )
    }
}

/// Sends commands to the I/O.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
    sender: Sender<(Command, Option<Order>)>,
    streams: Arc<Streams>,
}

impl Commands {
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, Receiver<(Command, Option<Order>)>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let streams = Arc::default();
        (
            Self {
                shared,
                sender,
                streams,
            },
            receiver,
        )
    }

    /// Sets the session token of the client, if this is the process that the client was built in.
    pub(crate) fn set_session_token(&self, token: Option<Secret>) {
        if !self.shared.is_home() {
            return;
        }
        let generation = self.shared.change_session_token(token.clone());
        self.send(Command::SetSessionToken(token, generation));
    }

    /// A caller that waits for the resulting state waits until the order is dropped: it was handled, or is
    /// void because no thread does the I/O any more.
    pub(crate) fn send(&self, command: Command) {
        let order = command.is_order().then(|| self.shared.status.order());
        if self.sender.send((command, order)).is_ok() {
            self.shared.wake();
        }
    }

    /// The open connections of the I/O.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// In a fork of the process, where no thread does the I/O: closes the inherited connections.
    pub(crate) fn abandon(&self) {
        self.streams.abandon();
    }
}

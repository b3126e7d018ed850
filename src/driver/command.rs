//! What handles ask of the I/O, and how.
//!
//! Knows nothing of sockets.

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

/// What handles ask of the I/O thread. It never answers; what comes of it shows in events and states.
#[derive(Debug)]
pub(crate) enum Command {
    Open,
    /// Ends the subscriptions with an id below `below`, and the connection. Who waits for that has the receipt.
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
    /// The last handle is gone.
    Shutdown,
    /// A fault of this library.
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

/// The way to the I/O.
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

    /// The client gets another session token, if this is the process that it was built in.
    pub(crate) fn set_session_token(&self, token: Option<Secret>) {
        if !self.shared.is_home() {
            return;
        }
        let generation = self.shared.change_session_token(token.clone());
        self.send(Command::SetSessionToken(token, generation));
    }

    /// Whoever waits for the state that an order leads to waits until the order is dropped: looked at, or void since
    /// nobody does the I/O any more.
    pub(crate) fn send(&self, command: Command) {
        let order = command.is_order().then(|| self.shared.status.order());
        if self.sender.send((command, order)).is_ok() {
            self.shared.wake();
        }
    }

    /// The connections that the I/O has open.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// In a fork of the process, where nobody does the I/O: closes the connections that were inherited.
    pub(crate) fn abandon(&self) {
        self.streams.abandon();
    }
}

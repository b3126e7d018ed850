//! The end of a connection that the program closed: both sides close the WebSocket, within a deadline.
//!
//! Must not know what was sent over the connection.

use std::time::Instant;

use tungstenite::Message;

use super::{Driver, MESSAGES_PER_TURN, Transport};

impl Driver {
    pub(super) fn begin_farewell(&mut self) {
        if let Transport::Up(mut link) = std::mem::replace(&mut self.transport, Transport::Down) {
            if link.close() {
                self.farewell = Some((link, Instant::now() + self.farewell_timeout));
                self.readable = true;
            }
        }
    }

    /// Waits for the server's close frame, up to the deadline.
    pub(super) fn say_farewell(&mut self) {
        let Some((link, deadline)) = &mut self.farewell else {
            return;
        };
        link.begin_turn();
        let mut over = link.send().is_err() || *deadline <= Instant::now();
        for _ in 0..MESSAGES_PER_TURN {
            if over {
                break;
            }
            match link.read() {
                // Both sides have closed.
                Ok(Some(Message::Close(_))) => link.end(),
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.readable = link.has_more();
                    return;
                }
                // The server has hung up, which amounts to a close and is not an error.
                Err(_) => over = true,
            }
        }
        if over {
            link.end();
            self.readable = false;
            self.farewell = None;
        }
    }

    pub(super) fn finish_close(&mut self) {
        if self.farewell.is_some() {
            return;
        }
        for receipt in self.closing.drain(..) {
            if !self.shared.queue.is_manual() {
                self.shared.post(&self.shared, |mailbox, _, totals| {
                    mailbox.receipt(receipt, totals);
                });
            }
        }
    }
}

//! The connection below the WebSocket, with TLS where that is used: reads do not block, writes go to a buffer that is
//! sent as the peer takes it.
//!
//! The buffer keeps two traps of non-blocking sockets away from the WebSocket layer (a write that would block in the
//! middle of a frame, a TLS layer that takes nothing for a moment), and it lets frames with keys and session tokens
//! pass below that layer, which would write them into its log.

use std::io::{self, ErrorKind, Read, Write};

use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::stream::Stream;
use super::tls::Tls;

#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    tls: Option<Tls>,
    unsent: Vec<u8>,
    received: bool,
}

impl Socket {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            tls: None,
            unsent: Vec::new(),
            received: false,
        }
    }

    /// Speaks TLS from now on; [`handshake`](Self::handshake) is next.
    pub(crate) fn secure(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    /// Goes on with the TLS handshake as far as possible without waiting. `true` if it is done.
    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => tls.handshake(&mut self.stream),
            None => Ok(true),
        }
    }

    /// Queues bytes of no WebSocket, before there is one.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Queues a text frame.
    pub(crate) fn queue_text(&mut self, text: String) -> tungstenite::Result<()> {
        let mut frame = Frame::message(text, OpCode::Data(Data::Text), true);
        frame.header_mut().mask = Some(rand::random());
        frame.format(&mut self.unsent)
    }

    /// Sends what is queued, as far as the peer takes it.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            let rest = self.unsent.get(sent..).unwrap_or_default();
            let written = match &mut self.tls {
                // TLS may have something of its own to send.
                Some(tls) => tls.write(&mut self.stream, rest),
                None if rest.is_empty() => Ok(0),
                None => self.stream.write(rest),
            };
            match written {
                Ok(0) if rest.is_empty() => break Ok(()),
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            // A burst of subscriptions must not cost its memory for ever.
            self.unsent.shrink_to(KEPT_CAPACITY);
        }
        result
    }

    /// Sends what is left, and tells the peer that nothing more comes; as far as it takes that without waiting. Nobody
    /// can do anything about it if it does not.
    pub(crate) fn end(&mut self) {
        if self.send().is_ok() && self.unsent.is_empty() {
            if let Some(tls) = &mut self.tls {
                tls.end();
                let _ = self.send();
            }
        }
    }

    /// Whether anything came since this was last asked.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            return tls.read(&mut self.stream, buffer, &mut self.received);
        }
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(length) => {
                    self.received |= length > 0;
                    return Ok(length);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: [`send`](Socket::send) does it, where it may take its time.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const KEPT_CAPACITY: usize = 4096;

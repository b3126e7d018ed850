//! The TCP connection below the WebSocket: reads do not block, writes go to a buffer that is sent as the peer takes it.
//!
//! The buffer keeps two traps of non-blocking sockets away from the WebSocket layer (a write that would block in the
//! middle of a frame, a TLS layer that takes nothing for a moment), and it lets frames with keys and session tokens
//! pass below that layer, which would write them into its log.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    unsent: Vec<u8>,
    received: bool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unsent: Vec::new(),
            received: false,
        }
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
            let Some(rest) = self.unsent.get(sent..).filter(|rest| !rest.is_empty()) else {
                break Ok(());
            };
            match self.stream.write(rest) {
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

    /// Whether anything came since this was last asked.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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

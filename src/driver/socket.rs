//! The connection below the WebSocket, with TLS if it is used: reads do not block and stop after the turn's
//! share, writes go to a buffer that is sent as the peer accepts it.
//!
//! The buffer hides two traps of non-blocking sockets from the WebSocket layer (a write that would block in
//! the middle of a frame, a TLS layer that accepts nothing for a moment), and it lets frames with keys and
//! session tokens bypass that layer, which would write them to its log.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::Frame;

use super::frames::Frames;
use super::stream::Stream;
use super::tls::Tls;

#[derive(Debug)]
pub(crate) struct Socket {
    wire: Wire,
    tls: Option<Tls>,
    unsent: Unsent,
    /// The peer accepted some of the waiting bytes.
    drained: bool,
    /// Since when the peer has accepted none of the waiting bytes.
    stalled_since: Option<Instant>,
    /// Set once there is a WebSocket.
    frames: Option<Frames>,
}

impl Socket {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            wire: Wire {
                stream: BufReader::with_capacity(READ_AHEAD, stream),
                share: SHARE_OF_A_TURN,
                has_more: false,
                received: false,
                sent: false,
            },
            tls: None,
            unsent: Unsent::default(),
            drained: false,
            stalled_since: None,
            frames: None,
        }
    }

    /// Uses TLS from now on; [`handshake`](Self::handshake) is next.
    pub(crate) fn secure(&mut self, tls: Tls) {
        self.tls = Some(tls);
    }

    /// Continues the TLS handshake as far as possible without waiting. Returns `true` if it is done.
    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => tls.handshake(&mut self.wire),
            None => Ok(true),
        }
    }

    /// From now on, frames are read, starting with these bytes, which came before.
    pub(crate) fn begin_frames(&mut self, first: &[u8]) {
        self.frames.get_or_insert_default().pass(first);
    }

    /// Begins a turn, which reads no more than its share: however much the peer sends, other work gets its
    /// turn.
    pub(crate) fn begin_turn(&mut self) {
        self.wire.share = SHARE_OF_A_TURN;
        self.wire.has_more = false;
    }

    /// Whether reading stopped at the turn's share. There is no notification for data that is there already.
    pub(crate) fn has_more(&self) -> bool {
        self.wire.has_more
    }

    /// The time limit for the incomplete message.
    pub(crate) fn message_deadline(&self, patience: Duration) -> Option<Instant> {
        self.frames.as_ref()?.deadline(patience)
    }

    /// Whether a message comes in absurdly many pieces.
    pub(crate) fn is_crumbled(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_crumbled)
    }

    /// Queues bytes before there is a WebSocket.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.bytes.extend_from_slice(bytes);
    }

    /// Queues a frame.
    pub(crate) fn queue_frame(&mut self, mut frame: Frame) -> tungstenite::Result<()> {
        frame.header_mut().mask = Some(rand::random());
        frame.format(&mut self.unsent.bytes)
    }

    /// The number of bytes that wait to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.rest().len()
    }

    /// Since when the peer has accepted none of the waiting bytes, if there are any.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Whether the peer has accepted some of the waiting bytes since the last call. Only a live peer makes
    /// space.
    pub(crate) fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.drained)
    }

    /// Sends what is queued, as far as the peer accepts it.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let result = loop {
            self.unsent.take_pong();
            let rest = self.unsent.rest();
            let written = match &mut self.tls {
                // TLS may have data of its own to send.
                Some(tls) => tls.write(&mut self.wire, rest),
                None if rest.is_empty() => Ok(0),
                None => self.wire.write(rest),
            };
            match written {
                Ok(0) if rest.is_empty() => break Ok(()),
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.unsent.forget(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.unsent.tidy();
        let waits = !self.unsent.rest().is_empty() || self.tls.as_ref().is_some_and(Tls::wants_write);
        let moves = std::mem::take(&mut self.wire.sent);
        self.drained |= moves && self.stalled_since.is_some();
        if !waits {
            self.stalled_since = None;
        } else if moves || self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
        result
    }

    /// Sends what is left and shuts the connection down, as far as the peer accepts it without waiting. If it
    /// does not, nothing can be done about it.
    pub(crate) fn end(&mut self) {
        if self.send().is_ok() && self.unsent.rest().is_empty() {
            if let Some(tls) = &mut self.tls {
                tls.end();
                let _ = self.send();
            }
        }
    }

    /// Whether anything came since the last call.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.wire.received)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.tls {
            Some(tls) => tls.read(&mut self.wire, buffer)?,
            None => self.wire.read(buffer)?,
        };
        if let Some(frames) = &mut self.frames {
            frames.pass(buffer.get(..length).unwrap_or_default());
        }
        Ok(length)
    }
}

/// Receives what the WebSocket layer writes: whole frames, one at a time.
impl Write for Socket {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        if frame.first() == Some(&PONG) {
            // Of several pings, answering only the last one is allowed (RFC 6455, 5.5.3).
            self.unsent.pong = Some(frame.to_vec());
        } else {
            // A close frame, after which nothing may come.
            self.unsent.pong = None;
            self.unsent.bytes.extend_from_slice(frame);
        }
        Ok(frame.len())
    }

    /// Does nothing: [`send`](Socket::send) does the work, at a point where it may take time.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stream below TLS, which reads no more than the turn's share.
#[derive(Debug)]
struct Wire {
    /// A system call costs much, and more still while the peer waits for space: the fewer of them the better.
    stream: BufReader<Stream>,
    share: usize,
    has_more: bool,
    received: bool,
    sent: bool,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(buffer) = buffer.get_mut(..buffer.len().min(self.share)) else {
            return Ok(0);
        };
        if self.share == 0 {
            self.has_more = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let is_new = self.stream.buffer().is_empty();
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(length) => {
                    self.received |= is_new && length > 0;
                    self.share -= length.min(self.share);
                    return Ok(length);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.get_mut().write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(length) => {
                    self.sent |= length > 0;
                    return Ok(length);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes that wait to be sent.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
    /// The answer to the last ping, while an earlier one is still among the bytes.
    pong: Option<Vec<u8>>,
    /// Where that earlier answer ends.
    pong_end: usize,
}

impl Unsent {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    fn take_pong(&mut self) {
        if self.pong_end <= self.sent {
            if let Some(pong) = self.pong.take() {
                self.bytes.extend_from_slice(&pong);
                self.pong_end = self.bytes.len();
            }
        }
    }

    fn forget(&mut self, sent: usize) {
        self.sent += sent;
    }

    /// Frees the sent bytes, but not so often that moving the rest costs more than sending it.
    fn tidy(&mut self) {
        if self.sent >= self.bytes.len() {
            self.bytes.clear();
            // A burst of subscriptions must not occupy its memory forever.
            self.bytes.shrink_to(KEPT_CAPACITY);
        } else if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
        } else {
            return;
        }
        self.pong_end = self.pong_end.saturating_sub(self.sent);
        self.sent = 0;
    }
}

/// How many bytes one turn reads: even the smallest frames take only a few milliseconds then.
const SHARE_OF_A_TURN: usize = 64 * 1024;
/// How many bytes one system call reads, if there are so many.
const READ_AHEAD: usize = 128 * 1024;
const KEPT_CAPACITY: usize = 4096;
/// The first byte of a pong.
const PONG: u8 = 0x8a;

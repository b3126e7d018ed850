//! The WebSocket of one connection, as the I/O uses it: a turn reads no more than its share, a peer that
//! reads nothing or completes nothing is noticed, the peer is told why the connection is closed, and a panic
//! below here (in the program's logger or TLS configuration) costs only this connection. Must not know of
//! sessions.

use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::socket::Socket;
use crate::error::{Error, ErrorKind, Result};
use crate::fence;

#[derive(Debug)]
pub(crate) struct Link {
    web_socket: WebSocket<Socket>,
    /// How long the peer may leave a message incomplete, or waiting bytes unread.
    patience: Duration,
    /// How many bytes may wait to be sent.
    most_unsent: usize,
    /// A panic has left it in an unknown state.
    is_broken: bool,
}

impl Link {
    /// A link over an upgraded connection whose first bytes are given.
    pub(crate) fn new(mut socket: Socket, first: Vec<u8>, largest: usize, patience: Duration) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest));
        socket.begin_frames(&first);
        Self {
            web_socket: WebSocket::from_partially_read(socket, first, Role::Client, Some(config)),
            patience,
            most_unsent: MOST_UNSENT,
            is_broken: false,
        }
    }

    /// Begins a turn, which may read its own share.
    pub(crate) fn begin_turn(&mut self) {
        self.web_socket.get_mut().begin_turn();
    }

    /// The next message. `None` if none is complete, or if the turn has read its share, which
    /// [`has_more`](Self::has_more) tells.
    ///
    /// # Errors
    /// The connection is lost; the peer is told why, if possible.
    pub(crate) fn read(&mut self) -> Result<Option<Message>> {
        let read = self.fenced(WebSocket::read)?;
        if self.web_socket.get_ref().is_crumbled() {
            self.refuse(CloseCode::Policy);
            let text = "the server sent a message in a vast number of tiny fragments, and the connection was \
                        closed because of it";
            return Err(Error::new(ErrorKind::Protocol, text));
        }
        match read {
            Ok(message) => Ok(Some(message)),
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => {
                match &error {
                    tungstenite::Error::Capacity(_) => self.refuse(CloseCode::Size),
                    tungstenite::Error::Utf8(_) => self.refuse(CloseCode::Invalid),
                    tungstenite::Error::Protocol(
                        tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                    ) => {}
                    tungstenite::Error::Protocol(_) => self.refuse(CloseCode::Protocol),
                    _ => {}
                }
                Err(lost(error))
            }
        }
    }

    /// Whether there may be more to read without a notification: the turn has read its share.
    pub(crate) fn has_more(&self) -> bool {
        self.web_socket.get_ref().has_more()
    }

    /// Whether anything came since the last call.
    pub(crate) fn take_received(&mut self) -> bool {
        self.web_socket.get_mut().take_received()
    }

    /// Queues a text frame. It bypasses the WebSocket layer, which would write keys and session tokens to its
    /// log.
    pub(crate) fn queue_text(&mut self, text: String) -> Result<()> {
        self.queue(Frame::message(text, OpCode::Data(Data::Text), true))
    }

    /// Queues a ping.
    pub(crate) fn queue_ping(&mut self, payload: &[u8]) -> Result<()> {
        self.queue(Frame::ping(payload.to_vec()))
    }

    fn queue(&mut self, frame: Frame) -> Result<()> {
        let queued = self.fenced(|web_socket| web_socket.get_mut().queue_frame(frame))?;
        queued.map_err(lost)?;
        let waiting = self.web_socket.get_ref().unsent();
        if waiting > self.most_unsent {
            let text = format!(
                "{} MiB wait to be sent to the server, which does not read fast enough",
                waiting >> 20
            );
            return Err(Error::new(ErrorKind::ConnectionLost, text));
        }
        Ok(())
    }

    /// Sends what the WebSocket layer (an answer to a ping) and the session have to send, as far as the peer
    /// accepts it.
    pub(crate) fn send(&mut self) -> Result<()> {
        let sent = self.fenced(|web_socket| {
            web_socket.flush()?;
            Ok(web_socket.get_mut().send()?)
        })?;
        sent.map_err(lost)
    }

    /// Whether the server has accepted some of the waiting bytes since the last call.
    pub(crate) fn take_drained(&mut self) -> bool {
        self.web_socket.get_mut().take_drained()
    }

    /// When [`check`](Self::check) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let socket = self.web_socket.get_ref();
        [socket.message_deadline(self.patience), self.sending_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn sending_deadline(&self) -> Option<Instant> {
        let since = self.web_socket.get_ref().stalled_since()?;
        since.checked_add(self.patience)
    }

    /// Checks whether the peer has made no progress for too long. Must be called after reading and sending.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) fn check(&mut self, now: Instant) -> Result<()> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let patience = self.patience;
        let text = if self.sending_deadline().is_some_and(|deadline| deadline <= now) {
            format!("the server has read nothing of what was sent to it for {patience:.1?}")
        } else {
            self.refuse(CloseCode::Policy);
            "the server began a message and took too long to complete it".to_owned()
        };
        Err(Error::new(ErrorKind::Timeout, text))
    }

    /// Queues a close frame. The server's own must be awaited. Returns `false` if it is too late for that.
    pub(crate) fn close(&mut self) -> bool {
        self.refuse(CloseCode::Normal);
        !self.is_broken
    }

    /// Queues a close frame with this code, unless there is one. If that fails, nothing can be done about it.
    fn refuse(&mut self, code: CloseCode) {
        let reason = "".into();
        drop(self.fenced(|web_socket| web_socket.close(Some(CloseFrame { code, reason }))));
    }

    /// Sends what is left, including the answer to the server's close frame, and shuts the connection down;
    /// as far as the peer accepts it without waiting.
    pub(crate) fn end(&mut self) {
        drop(self.fenced(|web_socket| {
            let flushed = web_socket.flush();
            web_socket.get_mut().end();
            flushed
        }));
    }

    /// Does something that may call code of the program.
    fn fenced<T>(&mut self, part: impl FnOnce(&mut WebSocket<Socket>) -> T) -> Result<T> {
        if self.is_broken {
            return Err(panicked("it had panicked before"));
        }
        let web_socket = &mut self.web_socket;
        let result = fenced(|| part(web_socket));
        self.is_broken = result.is_err();
        result
    }
}

/// Does something that may call code of the program, and turns a panic into an error of the connection.
pub(crate) fn fenced<T>(part: impl FnOnce() -> T) -> Result<T> {
    fence::run(part).map_err(|text| panicked(&text))
}

fn panicked(text: &str) -> Error {
    let text = format!(
        "something below the WebSocket panicked (possibly the program's logger or TLS configuration), and \
         the connection was closed because of it: {text}"
    );
    Error::new(ErrorKind::ConnectionLost, text)
}

fn lost(error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Capacity(error) => Error::with_source(
            ErrorKind::Protocol,
            "the server sent a message over the size limit, and the connection was closed because of it; \
             raise `max_message_size` if such messages are wanted",
            error,
        ),
        error => Error::with_source(
            ErrorKind::ConnectionLost,
            "the connection to the server was lost",
            error,
        ),
    }
}

/// How much the WebSocket layer takes at a time of what the socket has read ahead; it zeroes as much before.
const READ_BUFFER: usize = 16 * 1024;
/// More than any reasonable number of subscriptions needs. No single message is as long, because a query of
/// more than 100 MiB is refused.
const MOST_UNSENT: usize = 256 << 20;

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use mio::Poll;

    use super::*;
    use crate::driver::stream::{ConnectedStream, Stream, Streams};

    /// A link, its peer, and the poll that it was registered with.
    fn pair() -> (Link, UnixStream, Poll) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let poll = Poll::new().unwrap();
        let stream =
            Stream::adopt(ConnectedStream::from(ours), poll.registry(), &Streams::default()).unwrap();
        let link = Link::new(Socket::new(stream), Vec::new(), 1 << 20, Duration::from_secs(10));
        (link, theirs, poll)
    }

    /// Everything that the peer gets until the link is dropped.
    fn rest(link: Link, mut peer: UnixStream) -> Vec<u8> {
        drop(link);
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_waits_to_be_sent_has_a_limit() {
        let (mut link, _peer, _poll) = pair();
        link.most_unsent = 1 << 20;
        let text = "x".repeat(100_000);
        let queued = (0..100).find_map(|_| link.queue_text(text.clone()).and_then(|()| link.send()).err());
        let error = queued.expect("it ends");
        assert!(error.to_string().contains("does not read"), "{error}");
        let unsent = link.web_socket.get_ref().unsent();
        assert!(unsent < (1 << 20) + 2 * text.len(), "{unsent}");
    }

    /// As many bytes may wait as the limit says, and not one more.
    #[test]
    fn the_limit_is_what_it_is_said_to_be() {
        const PING: usize = 7;
        for (over, fits) in [(-1, true), (0, true), (1, false)] {
            let (mut link, _peer, _poll) = pair();
            assert_eq!(link.most_unsent, MOST_UNSENT);
            let before = MOST_UNSENT.checked_add_signed(over).unwrap() - PING;
            link.web_socket.get_mut().queue(&vec![0; before]);
            let queued = link.queue_ping(b"1");
            assert_eq!(link.web_socket.get_ref().unsent(), before + PING);
            assert_eq!(queued.is_ok(), fits, "{over}: {queued:?}");
            if let Err(error) = queued {
                assert!(error.to_string().starts_with("256 MiB wait"), "{error}");
            }
        }
    }

    #[test]
    fn a_peer_that_reads_is_waited_for_and_one_that_does_not_is_left() {
        let (mut link, mut peer, _poll) = pair();
        let later = |link: &Link| link.deadline().unwrap() + Duration::from_millis(1);
        assert_eq!(link.deadline(), None);
        link.queue_text("x".repeat(1_000_000)).unwrap();
        link.send().unwrap();
        let first = link.deadline().expect("the rest waits");
        // There is no progress, so the deadline stays.
        link.send().unwrap();
        assert_eq!(link.deadline(), Some(first));
        link.check(Instant::now()).unwrap();
        peer.read_exact(&mut [0; 50_000]).unwrap();
        link.send().unwrap();
        assert!(link.deadline().unwrap() > first);
        let error = link.check(later(&link)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        link.patience = Duration::MAX;
        assert_eq!(link.deadline(), None, "for ever");
    }

    #[test]
    fn a_turn_reads_its_share_and_knows_that_there_is_more() {
        let (mut link, mut peer, _poll) = pair();
        let pongs = [0x8a, 0].repeat(50_000);
        let writer = std::thread::spawn(move || {
            peer.write_all(&pongs).unwrap();
            peer
        });
        let (mut turns, mut read) = (0, 0);
        while read < 50_000 {
            link.begin_turn();
            let before = read;
            while let Some(message) = link.read().unwrap() {
                assert!(message.is_pong());
                read += 1;
            }
            turns += usize::from(link.has_more());
            assert!(read - before <= 33_000, "{}", read - before);
        }
        assert!(turns > 0);
        drop(writer.join().unwrap());
    }

    #[test]
    fn of_many_pings_the_last_is_answered_and_nothing_follows_a_close() {
        let (mut link, mut peer, _poll) = pair();
        for ping in 1..=9 {
            peer.write_all(&[0x89, 1, ping]).unwrap();
        }
        while link.read().unwrap().is_some() {}
        link.send().unwrap();
        for ping in 10..=12 {
            peer.write_all(&[0x89, 1, ping]).unwrap();
        }
        while link.read().unwrap().is_some() {}
        assert!(link.close());
        link.end();
        let bytes = rest(link, peer);
        // Frames of seven bytes, of which the last one is masked.
        let pongs: Vec<_> = bytes
            .chunks(7)
            .filter(|frame| frame[0] == 0x8a)
            .map(|frame| frame[6] ^ frame[2])
            .collect();
        assert_eq!(pongs, [9], "{bytes:?}");
        assert_eq!(bytes[pongs.len() * 7], 0x88, "{bytes:?}");
    }

    #[test]
    fn a_panic_is_an_error_of_the_link_and_of_all_that_follows() {
        let (mut link, _peer, _poll) = pair();
        let error = link
            .fenced(|_| panic!("on purpose"))
            .map(|(): ()| ())
            .unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        link.read().unwrap_err();
        link.queue_ping(b"1").unwrap_err();
        assert!(!link.close());
        link.end();
    }
}

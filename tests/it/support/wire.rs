//! The server's half of RFC 6455, frame by frame: unlike a WebSocket of tungstenite it answers nothing by itself, and
//! sends what a well-behaved server never would. It knows bytes and frames, and no LiveQuery.

use std::io::{self, Cursor, ErrorKind, Read};

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

use super::socket::Socket;

/// One frame as it came, unmasked.
#[derive(Debug)]
pub struct RawFrame {
    pub opcode: OpCode,
    pub is_final: bool,
    pub payload: Vec<u8>,
}

/// Cuts the bytes of a stream into the HTTP request at its start and frames after it.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Whether nothing was read beyond what was asked for.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The head of the HTTP request, with the empty line at its end; `None` if the stream ended before.
    pub fn request(&mut self, stream: &Socket) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
            }
            if !self.fill(stream)? {
                return Ok(None);
            }
        }
    }

    /// The next frame; `None` at the end of the stream, even if that is in the middle of a frame.
    pub fn frame(&mut self, stream: &Socket) -> io::Result<Option<RawFrame>> {
        loop {
            let mut cursor = Cursor::new(&self.buffer);
            if let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(io::Error::other)? {
                let start = usize::try_from(cursor.position()).map_err(io::Error::other)?;
                let end = start + usize::try_from(length).map_err(io::Error::other)?;
                if self.buffer.len() >= end {
                    let mut payload: Vec<u8> = self.buffer.drain(..end).skip(start).collect();
                    if let Some(mask) = header.mask {
                        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                            *byte ^= mask;
                        }
                    }
                    return Ok(Some(RawFrame {
                        opcode: header.opcode,
                        is_final: header.is_final,
                        payload,
                    }));
                }
            }
            if !self.fill(stream)? {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self, mut stream: &Socket) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match stream.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The bytes of a frame as a server sends it: not masked.
pub fn encode(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        opcode,
        ..FrameHeader::default()
    };
    let mut bytes = Vec::with_capacity(payload.len() + 16);
    header
        .format(payload.len() as u64, &mut bytes)
        .expect("a Vec takes everything");
    bytes.extend_from_slice(payload);
    bytes
}

/// The answer that upgrades the connection of this request to a WebSocket.
pub fn switching_protocols(request: &str) -> String {
    let key = header(request, "sec-websocket-key").unwrap_or_else(|| panic!("no upgrade: {request}"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}

/// The value of a header in the head of a request.
pub fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

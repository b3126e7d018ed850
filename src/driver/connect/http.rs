//! The head of an HTTP answer, to the WebSocket upgrade and of a proxy. Must not know of either.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, SystemTime};

use chrono::DateTime;

use crate::text::excerpt;

/// An answer, of which only the head was awaited.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// What came after the head.
    pub(crate) rest: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether a list header contains this token.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// How long the server asks to wait before the next request, if it does.
    pub(crate) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        retry_after(self.header("Retry-After")?, now)
    }

    /// The status and the beginning of the body, for an error message.
    pub(crate) fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.rest);
        let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
        if body.is_empty() {
            format!("HTTP {}", self.status)
        } else {
            format!("HTTP {} (`{}`)", self.status, excerpt(&body))
        }
    }
}

/// The value of `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large for the type is longer than any limit.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    // A time in the past allows the request at once.
    Some(http_date(value)?.duration_since(now).unwrap_or_default())
}

/// A date in HTTP's format: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(value: &str) -> Option<SystemTime> {
    let at = DateTime::parse_from_rfc2822(value).ok()?;
    let since_epoch = Duration::from_millis(u64::try_from(at.timestamp_millis()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

/// Collects an answer.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// The length of the interim answers that were skipped.
    passed: usize,
}

impl Reader {
    /// Continues reading, as far as possible without waiting. `None` if the head is not complete.
    pub(crate) fn read(&mut self, stream: &mut impl Read) -> io::Result<Option<Answer>> {
        let mut chunk = [0; 4096];
        loop {
            let count = match stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "closed without an answer",
                    ));
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            self.buffer
                .extend_from_slice(chunk.get(..count).unwrap_or_default());
            while let Some(mut answer) = parse(&self.buffer)? {
                if (100..200).contains(&answer.status) && answer.status != SWITCHING_PROTOCOLS {
                    // "Continue", "Early Hints" and the like: the answer is still to come.
                    self.passed += self.buffer.len() - answer.rest.len();
                    self.buffer = answer.rest;
                    continue;
                }
                if answer.status != SWITCHING_PROTOCOLS && !(200..300).contains(&answer.status) {
                    read_excerpt(stream, &mut answer.rest);
                }
                return Ok(Some(answer));
            }
            if self.passed + self.buffer.len() > LONGEST_HEAD {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "the head of the answer is too long",
                ));
            }
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|error| match bytes {
        [TLS_ALERT] | [TLS_ALERT, TLS_MAJOR, ..] => io::Error::new(ErrorKind::InvalidData, SpeaksTls),
        _ => io::Error::new(ErrorKind::InvalidData, format!("not an HTTP answer: {error}")),
    })?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    Ok(Some(Answer {
        status: head.code.unwrap_or_default(),
        headers: head
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).into_owned();
                (header.name.to_owned(), value)
            })
            .collect(),
        rest: bytes.get(length..).unwrap_or_default().to_vec(),
    }))
}

/// Reads as much of the body as is available and fits into an error message.
fn read_excerpt(stream: &mut impl Read, rest: &mut Vec<u8>) {
    let mut chunk = [0; 1024];
    while rest.len() < chunk.len() {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => rest.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            _ => break,
        }
    }
}

/// Why there is no answer: the other side mistakes the request for a broken TLS handshake.
#[derive(Debug)]
pub(crate) struct SpeaksTls;

impl fmt::Display for SpeaksTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it answered with a TLS alert")
    }
}

impl std::error::Error for SpeaksTls {}

/// The first byte of a TLS alert record.
const TLS_ALERT: u8 = 0x15;
const TLS_MAJOR: u8 = 0x03;

pub(crate) const SWITCHING_PROTOCOLS: u16 = 101;
const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one piece after the other, and would block between and after them.
    struct Pieces(Vec<Option<&'static [u8]>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some(Some(piece)) => {
                    buffer[..piece.len()].copy_from_slice(piece);
                    Ok(piece.len())
                }
                _ => Err(ErrorKind::WouldBlock.into()),
            }
        }
    }

    fn read(pieces: &[&'static str]) -> (Reader, Pieces, io::Result<Option<Answer>>) {
        let mut stream = Pieces(pieces.iter().rev().map(|piece| Some(piece.as_bytes())).collect());
        let mut reader = Reader::default();
        let answer = reader.read(&mut stream);
        (reader, stream, answer)
    }

    #[test]
    fn an_answer_is_put_together_from_its_pieces() {
        let head = "HTTP/1.0 407 Who\r\nProxy-Authenticate: Basic\r\nconnection: close, upgrade\r\n\r\n";
        let mut stream = Pieces(vec![]);
        let mut reader = Reader::default();
        for at in 0..head.len() {
            assert!(
                reader.read(&mut stream).unwrap().is_none(),
                "complete before byte {at}"
            );
            stream.0.push(head.as_bytes().get(at..=at));
        }
        let answer = reader.read(&mut stream).unwrap().expect("complete");
        assert_eq!(
            (answer.status, answer.header("PROXY-authenticate")),
            (407, Some("Basic"))
        );
        assert!(answer.lists("Connection", "Upgrade") && !answer.lists("Connection", "up"));
    }

    #[test]
    fn what_follows_the_head_is_kept() {
        let (.., answer) = read(&["HTTP/1.1 101 Yes\r\nA: b\r\n\r\n\x01\x02"]);
        assert_eq!(answer.unwrap().unwrap().rest, [1, 2]);
    }

    #[test]
    fn the_body_of_a_refusal_becomes_an_excerpt() {
        let (.., answer) = read(&["HTTP/1.1 502 Bad\r\n\r\n", "<html>\r\n  <b>Bad", " Gateway</b>"]);
        assert_eq!(
            answer.unwrap().unwrap().summary(),
            "HTTP 502 (`<html> <b>Bad Gateway</b>`)"
        );
    }

    #[test]
    fn interim_answers_are_read_over() {
        let (.., answer) = read(&[
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early",
            " Hints\r\nA: b\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 101 Yes\r\nC: d\r\n\r\n\x01",
        ]);
        let answer = answer.unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.header("A"), &*answer.rest),
            (101, None, &[1][..])
        );
        let hint = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000);
        let error = Reader::default().read(&mut hint.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        let (.., answer) = read(&["SSH-2.0-OpenSSH_9.6\r\n"]);
        assert!(answer.unwrap_err().to_string().contains("not an HTTP answer"));
    }
}

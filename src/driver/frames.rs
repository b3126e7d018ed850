//! Finds where the frames of a WebSocket begin and end, in the bytes on their way to the WebSocket layer,
//! which does not report how much of an incomplete message has come. Must not know what the frames contain.

use std::time::{Duration, Instant};

/// The frames that come over one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The head of the current frame, and how much of it has come.
    head: [u8; LONGEST_HEAD],
    head_length: usize,
    /// How much of its payload is missing.
    left: u64,
    is_control: bool,
    message: Option<Message>,
    /// When the first byte of the incomplete data came.
    since: Option<Instant>,
}

/// A message that has come in part.
#[derive(Debug, Default)]
struct Message {
    bytes: u64,
    fragments: u64,
    /// Whether its last frame has begun.
    is_last: bool,
}

impl Frames {
    /// Records bytes that have come.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let length = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= length as u64;
                if let (false, Some(message)) = (self.is_control, &mut self.message) {
                    message.bytes += length as u64;
                }
                bytes = bytes.get(length..).unwrap_or_default();
            } else {
                if let Some(place) = self.head.get_mut(self.head_length) {
                    *place = first;
                }
                self.head_length += 1;
                bytes = rest;
                if self.head_length < self.wanted_head() {
                    continue;
                }
                self.begin();
            }
            if self.left == 0 {
                self.end();
            }
        }
        let is_complete = self.head_length == 0 && self.left == 0 && self.message.is_none();
        if is_complete {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    /// The time limit for incomplete data: `patience` after its first byte, and later the more of it has
    /// come, so that a large message may come over a slow line. An extremely slow line is tolerated for some
    /// minutes.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let bytes = self.message.as_ref().map_or(0, |message| message.bytes);
        let at = |line: u64| Duration::from_millis(bytes.saturating_mul(1000) / line);
        let more = at(THIN_LINE) + at(THINNEST_LINE).min(LONGEST_ON_THINNEST);
        self.since?.checked_add(patience)?.checked_add(more)
    }

    /// Whether a message comes in absurdly many pieces.
    pub(super) fn is_crumbled(&self) -> bool {
        self.message
            .as_ref()
            .is_some_and(|message| message.fragments > MOST_SMALL_FRAGMENTS + message.bytes / SMALL_FRAGMENT)
    }

    fn wanted_head(&self) -> usize {
        let [_, second, ..] = self.head;
        if self.head_length < 2 {
            return 2;
        }
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        mask + match second & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    /// The head is complete.
    fn begin(&mut self) {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.head;
        self.left = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            length => u64::from(length),
        };
        self.head_length = 0;
        self.is_control = first & 0x08 != 0;
        if !self.is_control {
            let message = self.message.get_or_insert_default();
            message.fragments += 1;
            message.is_last = first & 0x80 != 0;
        }
    }

    /// The frame is complete.
    fn end(&mut self) {
        if !self.is_control && self.message.as_ref().is_some_and(|message| message.is_last) {
            self.message = None;
        }
        if self.message.is_none() {
            // What comes next is measured from its own beginning.
            self.since = None;
        }
    }
}

/// In bytes per second, for a whole message.
const THIN_LINE: u64 = 1024;
const THINNEST_LINE: u64 = 16;
const LONGEST_ON_THINNEST: Duration = Duration::from_secs(600);
/// A server that splits its messages at all splits them into packets.
const SMALL_FRAGMENT: u64 = 64;
const MOST_SMALL_FRAGMENTS: u64 = 4096;
const LONGEST_HEAD: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(length as u8),
            126..0x1_0000 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length, 0xff);
        frame
    }

    const TEXT: u8 = 1;
    const FIN: u8 = 0x80;
    const PING: u8 = FIN | 9;

    #[test]
    fn a_message_is_complete_with_its_last_byte_however_it_comes() {
        for parts in [
            vec![frame(FIN | TEXT, 0)],
            vec![frame(FIN | TEXT, 125)],
            vec![frame(FIN | TEXT, 126)],
            vec![frame(FIN | TEXT, 70_000)],
            vec![frame(TEXT, 3), frame(0, 0), frame(PING, 2), frame(FIN, 200)],
            vec![frame(TEXT, 0), frame(PING, 0), frame(FIN, 0)],
        ] {
            let bytes = parts.concat();
            for size in [1, 2, 3, 7, 1000, usize::MAX] {
                let mut frames = Frames::default();
                let mut came = 0;
                for chunk in bytes.chunks(size.min(bytes.len())) {
                    frames.pass(chunk);
                    came += chunk.len();
                    let is_open = frames.deadline(Duration::ZERO).is_some();
                    assert_eq!(is_open, came < bytes.len(), "{size}: {frames:?}");
                }
            }
        }
    }

    #[test]
    fn each_message_has_its_own_time() {
        let mut frames = Frames::default();
        let message = frame(FIN | TEXT, 1);
        frames.pass(&message[..2]);
        let first = frames.deadline(Duration::ZERO).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        frames.pass(&[&message[2..], &message[..1]].concat());
        assert!(frames.deadline(Duration::ZERO).unwrap() > first);
        // Control frames inside a message do not extend its time, and neither do empty fragments.
        let mut frames = Frames::default();
        frames.pass(&frame(TEXT, 0));
        let first = frames.deadline(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        frames.pass(&[frame(PING, 5), frame(0, 0)].concat());
        assert_eq!(frames.deadline(Duration::ZERO), first);
        // Payload does.
        frames.pass(&frame(0, 1024));
        let after = |seconds| first.map(|at| at + Duration::from_secs(seconds));
        assert_eq!(frames.deadline(Duration::ZERO), after(64 + 1));
        frames.pass(&frame(0, (1 << 20) - 1024));
        assert_eq!(frames.deadline(Duration::ZERO), after(600 + 1024));
    }

    #[test]
    fn crumbs_are_told_from_fragments() {
        let crumbled = |size: usize, count: usize| {
            let mut frames = Frames::default();
            frames.pass(&frame(TEXT, size));
            (0..count).for_each(|_| frames.pass(&frame(0, size)));
            frames.is_crumbled()
        };
        assert!(crumbled(0, 5000) && crumbled(1, 5000));
        assert!(!crumbled(0, 1000) && !crumbled(1, 1000) && !crumbled(100, 100_000));
    }
}

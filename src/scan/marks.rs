//! The quotes and brackets of a JSON text, found 64 bytes at a time and without a branch. Must not know of
//! members or values.

use wide::u8x16;

/// Finds quotes and brackets in a text, from a place outside of all strings onwards. Places only ever grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Where the present block begins.
    at: usize,
    /// One bit for each byte of the block: a quote that begins or ends a string, and a bracket outside of strings (or one
    /// of the bytes that no valid JSON has there).
    quotes: u64,
    brackets: u64,
    /// All bits if the next block begins within a string.
    within_string: u64,
    /// The first byte of the next block follows a backslash that escapes it.
    escapes_next: bool,
    /// There was a backslash in this block or an earlier one.
    pub(super) has_backslash: bool,
}

impl Marks {
    /// The marks from this place on, which is not within a string.
    pub(super) fn from(text: &[u8], at: usize) -> Self {
        let mut marks = Self {
            at,
            quotes: 0,
            brackets: 0,
            within_string: 0,
            escapes_next: false,
            has_backslash: false,
        };
        marks.look(text);
        marks
    }

    /// The place of the first quote at or after this place.
    #[inline]
    pub(super) fn quote(&mut self, text: &[u8], mut place: usize) -> Option<usize> {
        loop {
            let rest = shifted(self.quotes, place - self.at);
            if rest != 0 {
                return Some(place + rest.trailing_zeros() as usize);
            }
            place = self.advance(text, place)?;
        }
    }

    /// The place after the bracket that closes the one just before this place.
    pub(super) fn closing_bracket(&mut self, text: &[u8], mut place: usize) -> Option<usize> {
        let mut depth = 1_usize;
        loop {
            let mut rest = shifted(self.brackets, place - self.at);
            while rest != 0 {
                let at = place + rest.trailing_zeros() as usize;
                match text.get(at)? {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                rest &= rest - 1;
            }
            place = self.advance(text, place)?;
        }
    }

    /// Goes on to the next block. Returns the place to continue at, which is at least `place`.
    #[inline(never)]
    fn advance(&mut self, text: &[u8], place: usize) -> Option<usize> {
        self.at += BLOCK;
        if self.at >= text.len() {
            // A second search from here finds nothing, too.
            self.at -= BLOCK;
            return None;
        }
        self.look(text);
        Some(place.max(self.at))
    }

    /// Finds the marks of the present block.
    fn look(&mut self, text: &[u8]) {
        let rest = text.get(self.at..).unwrap_or_default();
        if let Some(block) = rest.first_chunk() {
            self.look_at(&Block::new(block));
        } else {
            let mut block = [0; BLOCK];
            for (byte, last) in block.iter_mut().zip(rest) {
                *byte = *last;
            }
            self.look_at(&Block::new(&block));
        }
    }

    fn look_at(&mut self, block: &Block) {
        let mut quotes = block.bits(|bytes| bytes.cmp_eq(u8x16::splat(b'"')));
        let backslashes = block.bits(|bytes| bytes.cmp_eq(u8x16::splat(b'\\')));
        if self.escapes_next || backslashes != 0 {
            quotes &= !self.escaped(backslashes);
            self.has_backslash = true;
        }
        // From a quote that begins a string up to the one that ends it, without the latter.
        let strings = parity(quotes) ^ self.within_string;
        self.within_string = 0_u64.wrapping_sub(strings >> 63);
        self.quotes = quotes;
        self.brackets = block.bits(may_be_bracket) & !strings;
    }

    /// The bytes that follow a backslash which is not itself escaped.
    #[cold]
    fn escaped(&mut self, mut backslashes: u64) -> u64 {
        let mut escaped = u64::from(self.escapes_next);
        self.escapes_next = false;
        backslashes &= !escaped;
        while backslashes != 0 {
            let bit = backslashes & backslashes.wrapping_neg();
            escaped |= bit << 1;
            self.escapes_next = bit >> 63 != 0;
            backslashes &= !(bit | bit << 1);
        }
        escaped
    }
}

const BLOCK: usize = 64;

/// 64 bytes of the text.
struct Block([u8x16; BLOCK / 16]);

impl Block {
    #[inline(always)]
    fn new(bytes: &[u8; BLOCK]) -> Self {
        let mut sixteens = bytes.chunks_exact(16);
        let mut next = || {
            let bytes: Option<[u8; 16]> = sixteens.next().and_then(|bytes| bytes.try_into().ok());
            u8x16::from(bytes.unwrap_or_default())
        };
        Self([next(), next(), next(), next()])
    }

    /// One bit for each byte for which this has all bits.
    #[inline(always)]
    fn bits(&self, are_wanted: impl Fn(u8x16) -> u8x16) -> u64 {
        let [first, second, third, fourth] = self.0;
        let bits = |bytes| u64::from(are_wanted(bytes).move_mask() as u16);
        bits(first) | bits(second) << 16 | bits(third) << 32 | bits(fourth) << 48
    }
}

/// All bits for the four brackets, and for no other byte that valid JSON has outside of strings.
#[inline(always)]
fn may_be_bracket(bytes: u8x16) -> u8x16 {
    (bytes | u8x16::splat(0x26)).cmp_eq(u8x16::splat(0x7f))
}

/// Each bit of the result says whether there is an odd number of bits up to and with it.
#[inline]
fn parity(mut bits: u64) -> u64 {
    for distance in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << distance;
    }
    bits
}

#[inline]
fn shifted(bits: u64, by: usize) -> u64 {
    if by < BLOCK { bits >> by } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, byte by byte: the places of the quotes, and those of the brackets outside of strings.
    fn one_by_one(text: &[u8]) -> (Vec<usize>, Vec<usize>) {
        let (mut quotes, mut brackets) = (vec![], vec![]);
        let (mut is_string, mut is_escaped) = (false, false);
        for (at, byte) in text.iter().enumerate() {
            let was_escaped = std::mem::take(&mut is_escaped);
            match byte {
                b'\\' => is_escaped = !was_escaped,
                b'"' if !was_escaped => {
                    is_string = !is_string;
                    quotes.push(at);
                }
                b'{' | b'[' | b'}' | b']' if !is_string => brackets.push(at),
                _ => {}
            }
        }
        (quotes, brackets)
    }

    fn quotes(text: &[u8], from: usize) -> Vec<usize> {
        let mut marks = Marks::from(text, from);
        let mut place = from;
        std::iter::from_fn(|| {
            let quote = marks.quote(text, place)?;
            place = quote + 1;
            Some(quote)
        })
        .collect()
    }

    /// Where the bracket at this place is closed.
    fn closed(text: &[u8], bracket: usize) -> Option<usize> {
        let (_, brackets) = one_by_one(text);
        let mut depth = 0;
        brackets.into_iter().filter(|at| *at >= bracket).find(|at| {
            depth += if matches!(text[*at], b'{' | b'[') { 1 } else { -1 };
            depth == 0
        })
    }

    proptest! {
        #[test]
        fn quotes_and_brackets_are_those_that_are_found_one_by_one(
            text in "([{}\\[\\]\",:\\\\]|[aé_ \n]{1,40}|\\\\{1,70}|\"[^\"]{0,90}\"){0,24}",
        ) {
            let text = text.as_bytes();
            let (all_quotes, brackets) = one_by_one(text);
            prop_assert_eq!(&quotes(text, 0), &all_quotes);
            for bracket in brackets {
                if matches!(text[bracket], b'{' | b'[') {
                    let mut marks = Marks::from(text, bracket);
                    let end = marks.closing_bracket(text, bracket + 1);
                    prop_assert_eq!(end, closed(text, bracket).map(|at| at + 1));
                    // From there on, what is in strings is known as before.
                    if let Some(end) = end {
                        let rest = all_quotes.iter().copied().find(|at| *at >= end);
                        prop_assert_eq!(marks.quote(text, end), rest);
                        prop_assert_eq!(quotes(text, end).first().copied(), rest);
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_has_a_bit_for_each_byte() {
        let quotes = |block: &Block| block.bits(|bytes| bytes.cmp_eq(u8x16::splat(b'"')));
        for at in 0..BLOCK {
            let mut block = [b'x'; BLOCK];
            block[at] = b'"';
            assert_eq!(quotes(&Block::new(&block)), 1 << at);
            assert_eq!(parity(1 << at), u64::MAX << at);
        }
        let found: Vec<u8> = (0..=u8::MAX)
            .filter(|byte| Block::new(&[*byte; BLOCK]).bits(may_be_bracket) != 0)
            .collect();
        assert_eq!(found, *b"Y[]_y{}\x7f");
    }
}

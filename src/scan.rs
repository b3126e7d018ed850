//! Finds where the parts of a JSON text begin and end. Must not know of Parse.
//!
//! It follows strings and brackets, and checks nothing between them: the decoder of a value checks it. A
//! frame is thus taken apart in a fraction of the time that decoding would take, and most of it is never
//! decoded.

mod marks;

use std::ops::Range;

use smallvec::SmallVec;

use self::marks::Marks;

/// The members of a JSON object, in the order of the text.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    text: &'a str,
    /// Just after what was read.
    place: usize,
    marks: Marks,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Within,
    /// After the closing bracket.
    Closed,
    /// The text is not an object from here on.
    Broken,
}

impl<'a> Members<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self::at(text, 0, State::Before)
    }

    /// The members after a key whose value begins here.
    pub(crate) fn behind_key(text: &'a str, place: usize) -> Self {
        Self::at(text, place, State::Within)
    }

    fn at(text: &'a str, place: usize, state: State) -> Self {
        Self {
            text,
            place,
            marks: Marks::from(text.as_bytes(), place),
            state,
        }
    }

    /// Whether there are no more members, and everything read was a valid object.
    pub(crate) fn is_complete(&mut self) -> bool {
        self.skip_space();
        self.state == State::Closed && self.place == self.text.len()
    }

    /// The next key, without its quotes, but otherwise as in the text. [`value`](Self::value) is next.
    pub(crate) fn key(&mut self) -> Option<&'a str> {
        self.find_key().and_then(|key| self.text.get(key))
    }

    /// The text of the value for the last key.
    pub(crate) fn value(&mut self) -> Option<&'a str> {
        self.find_value().and_then(|value| self.text.get(value))
    }

    /// Like [`value`](Self::value), for one that should be an object: with the positions of its members, if it is.
    pub(crate) fn object(&mut self, outline: &mut Option<Outline>) -> Option<&'a str> {
        let start = self.place;
        let mut members = Self {
            state: State::Before,
            ..*self
        };
        if outline.get_or_insert_default().read(&mut members).is_none() {
            *outline = None;
            return self.value();
        }
        (self.place, self.marks) = (members.place, members.marks);
        self.text.get(start..self.place)
    }

    #[inline(always)]
    fn find_key(&mut self) -> Option<Range<usize>> {
        let key = self.read_key();
        if key.is_none() && self.state != State::Closed {
            self.state = State::Broken;
        }
        key
    }

    #[inline(always)]
    fn find_value(&mut self) -> Option<Range<usize>> {
        let start = self.place;
        let Some(end) = value_end(self.text.as_bytes(), &mut self.marks, start) else {
            self.state = State::Broken;
            return None;
        };
        self.place = end;
        Some(start..end)
    }

    #[inline(always)]
    fn read_key(&mut self) -> Option<Range<usize>> {
        let separator = match self.state {
            State::Before => b'{',
            State::Within => b',',
            State::Closed | State::Broken => return None,
        };
        let text = self.text.as_bytes();
        match text.get(self.place..) {
            // There is usually no space between.
            Some([first, b'"', ..]) if *first == separator => self.place += 2,
            _ => self.read_up_to_key(separator)?,
        }
        self.state = State::Within;
        let start = self.place;
        let end = self.marks.quote(text, start)?;
        self.place = end + 1;
        match text.get(self.place..) {
            Some([b':', next, ..]) if *next > b' ' => self.place += 1,
            _ => {
                self.byte(b':').then_some(())?;
                self.skip_space();
            }
        }
        Some(start..end)
    }

    #[cold]
    fn read_up_to_key(&mut self, separator: u8) -> Option<()> {
        let more = self.byte(separator);
        if more && self.byte(b'"') {
            return Some(());
        }
        // A comma is followed by another key.
        if more == (self.state == State::Before) && self.byte(b'}') {
            self.state = State::Closed;
        }
        None
    }

    /// Moves past this byte, if it comes next.
    fn byte(&mut self, byte: u8) -> bool {
        self.skip_space();
        let comes = self.peek() == Some(byte);
        self.place += usize::from(comes);
        comes
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.place += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.place).copied()
    }
}

/// The keys and their values.
impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.key()?, self.value()?))
    }
}

/// The positions of an object's members in its text, relative to its beginning.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    members: SmallVec<[Place; MOST]>,
    escapes: bool,
}

/// So many members need no memory of their own.
const MOST: usize = 8;
/// An outline that is read again and again does not keep the memory of a very large object.
const MOST_KEPT: usize = 256;

/// The position of a key and its value. Text that is too long for these types has no outline.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: (u32, u32),
    value: (u32, u32),
}

impl Outline {
    /// How many bytes it occupies on the heap.
    pub(crate) fn size(&self) -> usize {
        let spilled = self.members.spilled().then(|| self.members.capacity());
        spilled.unwrap_or_default() * size_of::<Place>()
    }

    /// `None` if the text is not an object.
    pub(crate) fn new(json: &str) -> Option<Self> {
        let mut members = Members::new(json);
        let mut outline = Self::default();
        outline.read(&mut members)?;
        members.is_complete().then_some(outline)
    }

    /// A copy that occupies no more than it needs.
    #[inline(always)]
    pub(crate) fn exact(&self) -> Self {
        Self {
            members: SmallVec::from_slice(&self.members),
            escapes: self.escapes,
        }
    }

    /// Becomes the outline of the object that begins at the members' place. `None` if there is none.
    fn read(&mut self, members: &mut Members<'_>) -> Option<()> {
        let from = members.place;
        u32::try_from(members.text.len()).ok()?;
        let number = |place: usize| u32::try_from(place - from).unwrap_or(u32::MAX);
        let place = |range: Range<usize>| (number(range.start), number(range.end));
        if self.members.capacity() > MOST_KEPT {
            self.members = SmallVec::new();
        }
        self.members.clear();
        while let Some(key) = members.find_key() {
            self.members.push(Place {
                key: place(key),
                value: place(members.find_value()?),
            });
        }
        let text = members.text.get(from..)?;
        let has_backslash = |found: &Place| part(text, found.key).is_some_and(|key| key.contains('\\'));
        self.escapes = members.marks.has_backslash && self.members.iter().any(has_backslash);
        (members.state == State::Closed).then_some(())
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether a key has escapes in the text.
    pub(crate) fn has_escapes(&self) -> bool {
        self.escapes
    }

    /// A key as it is in the text that the outline was made from, without its quotes.
    pub(crate) fn key<'a>(&self, json: &'a str, position: usize) -> Option<&'a str> {
        part(json, self.members.get(position)?.key)
    }

    /// The last member with this key, as it is in the text.
    pub(crate) fn last(&self, json: &str, key: &str) -> Option<usize> {
        self.members.iter().rposition(|member| {
            let (start, end) = member.key;
            json.as_bytes().get(start as usize..end as usize) == Some(key.as_bytes())
        })
    }

    pub(crate) fn value<'a>(&self, json: &'a str, position: usize) -> Option<&'a str> {
        part(json, self.members.get(position)?.value)
    }
}

fn part(json: &str, (start, end): (u32, u32)) -> Option<&str> {
    json.get(start as usize..end as usize)
}

/// The position in `text` of `part`, which is borrowed from it.
pub(crate) fn start_of(part: &str, text: &str) -> usize {
    part.as_ptr().addr().saturating_sub(text.as_ptr().addr())
}

/// The position after the value that begins here.
pub(crate) fn end_of_value(text: &[u8], start: usize) -> Option<usize> {
    value_end(text, &mut Marks::from(text, start), start)
}

/// The position of the quote that ends the string that begins here.
pub(crate) fn end_of_string(text: &[u8], start: usize) -> Option<usize> {
    // With its first quote.
    Marks::from(text, start.checked_sub(1)?).quote(text, start)
}

/// What may follow a number, `true`, `false` or `null`.
const ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut at = 0;
    while at < ends.len() {
        ends[at] = matches!(at as u8, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        at += 1;
    }
    ends
};

#[inline(always)]
fn value_end(text: &[u8], marks: &mut Marks, start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => marks.quote(text, start + 1).map(|quote| quote + 1),
        b'{' | b'[' => marks.closing_bracket(text, start + 1),
        _ => {
            let rest = text.get(start..)?;
            let ends = |byte: &u8| ENDS.get(usize::from(*byte)) == Some(&true);
            let length = rest.iter().position(ends).unwrap_or(rest.len());
            (length > 0).then_some(start + length)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn read(text: &str) -> (Vec<(&str, &str)>, bool) {
        let mut members = Members::new(text);
        let all = members.by_ref().collect();
        (all, members.is_complete())
    }

    #[test]
    fn members_are_as_they_stand_in_the_text() {
        let text = r#" { "a" : 1 ,"b":"x\"}\\" , "":[{"a":"]"},2] , "\"" : {"c":{}} , "a":-1.5e3,"é😀 long enough":null } "#;
        let expected = vec![
            ("a", "1"),
            ("b", r#""x\"}\\""#),
            ("", r#"[{"a":"]"},2]"#),
            (r#"\""#, r#"{"c":{}}"#),
            ("a", "-1.5e3"),
            ("é😀 long enough", "null"),
        ];
        assert_eq!(read(text), (expected, true));
        assert_eq!(read("{}"), (vec![], true));
        assert_eq!(read(" { } "), (vec![], true));
    }

    #[test]
    fn text_that_is_no_object_is_not_complete() {
        for text in [
            "",
            " ",
            "null",
            "7",
            "[]",
            "\"a\"",
            "{",
            "{,}",
            "{\"",
            "{\"a",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{\"a\":[1}",
            "{\"a\":{}",
            "{\"a\":\"b}",
            "{\"a\":\"b\\",
            "{\"a\":\"b\\\"}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1 2}",
            "{\"a\":1}x",
            "{}}",
            "{\"a\":1}{}",
        ] {
            assert!(!read(text).1, "{text}");
        }
    }

    #[test]
    fn quotes_and_backslashes_are_found_at_each_place() {
        for length in 0..40 {
            for escape in ["", "\\\"", "\\\\", "\\u0022", "é", "\u{1}", "!", "#", "["] {
                for at in 0..=length {
                    let string = format!("\"{}{escape}{}\"", "x".repeat(at), "y".repeat(length - at));
                    let text = format!("{{\"a\":{string},\"b\":1}}");
                    assert_eq!(read(&text), (vec![("a", &*string), ("b", "1")], true));
                }
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\\\\"{}\\[\\],: ]*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_that_serde_json_finds(
            members in prop::collection::btree_map("[^\"\\\\\u{0}-\u{1f}]*", value(), 0..8),
            pretty in any::<bool>(),
        ) {
            let object: Map<String, Value> = members.into_iter().collect();
            let text = if pretty {
                serde_json::to_string_pretty(&object).unwrap()
            } else {
                serde_json::to_string(&object).unwrap()
            };
            let (found, complete) = read(&text);
            prop_assert!(complete);
            let found: Map<String, Value> = found
                .into_iter()
                .map(|(key, value)| (key.to_owned(), serde_json::from_str(value).unwrap()))
                .collect();
            prop_assert_eq!(found, object);
        }

        #[test]
        fn nothing_panics(text in any::<String>(), cut in "[{}\\[\\]\",:\\\\a1é ]*") {
            let _ = read(&text);
            let _ = read(&cut);
            let _ = read(&format!("{{{cut}"));
        }
    }
}

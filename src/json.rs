//! Where the parts of a JSON text begin and end. Knows nothing of Parse.
//!
//! It follows strings and brackets, and checks nothing that lies between them: who decodes a value checks it. That way
//! a frame is taken apart in a fraction of the time that its decoding would take, and most of it is never decoded.

/// The members of a JSON object, in the order of the text.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    text: &'a str,
    /// Behind what was read.
    place: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Within,
    /// Behind the closing bracket, with nothing more to come.
    Complete,
    /// The text is no object from here on.
    Broken,
}

impl<'a> Members<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            place: 0,
            state: State::Before,
        }
    }

    /// Whether there is nothing more to come, and all that came was an object.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// The next key, without its quotes and otherwise as it stands in the text. [`value`](Self::value) is next.
    pub(crate) fn key(&mut self) -> Option<&'a str> {
        let key = self.read_key();
        if key.is_none() && self.state != State::Complete {
            self.state = State::Broken;
        }
        key
    }

    /// The text of the value that belongs to the key that was read last.
    pub(crate) fn value(&mut self) -> Option<&'a str> {
        let start = self.place;
        let value = end_of_value(self.text.as_bytes(), start).and_then(|end| self.text.get(start..end));
        match value {
            Some(value) => self.place += value.len(),
            None => self.state = State::Broken,
        }
        value
    }

    fn read_key(&mut self) -> Option<&'a str> {
        let more = match self.state {
            State::Before => {
                self.byte(b'{').then_some(())?;
                !self.byte(b'}')
            }
            State::Within => self.byte(b',') || !self.byte(b'}').then_some(true)?,
            State::Complete | State::Broken => return None,
        };
        self.state = State::Within;
        if !more {
            self.skip_space();
            if self.place == self.text.len() {
                self.state = State::Complete;
            }
            return None;
        }
        self.byte(b'"').then_some(())?;
        let start = self.place;
        let end = end_of_string(self.text.as_bytes(), start)?;
        self.place = end + 1;
        self.byte(b':').then_some(())?;
        self.skip_space();
        self.text.get(start..end)
    }

    /// Goes behind this byte, if it comes next.
    fn byte(&mut self, byte: u8) -> bool {
        // As a rule it does, with no space before it.
        if self.peek() == Some(byte) {
            self.place += 1;
            return true;
        }
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

/// Behind the value that begins here.
fn end_of_value(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => end_of_string(text, start + 1).map(|quote| quote + 1),
        b'{' | b'[' => end_of_brackets(text, start + 1),
        _ => {
            let rest = text.get(start..)?;
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let length = rest.iter().position(ends).unwrap_or(rest.len());
            (length > 0).then_some(start + length)
        }
    }
}

/// Behind the bracket that closes the one in front of this place.
fn end_of_brackets(text: &[u8], mut place: usize) -> Option<usize> {
    let mut depth = 1_usize;
    loop {
        match text.get(place)? {
            b'"' => place = end_of_string(text, place + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(place + 1);
                }
            }
            _ => {}
        }
        place += 1;
    }
}

/// The quote that ends the string that begins here.
fn end_of_string(text: &[u8], mut place: usize) -> Option<usize> {
    loop {
        // Eight bytes at a time, up to those with a quote or a backslash in them.
        while let Some(bytes) = text.get(place..).and_then(<[u8]>::first_chunk) {
            let bytes = u64::from_le_bytes(*bytes);
            let found = zero_bytes(bytes ^ QUOTES) | zero_bytes(bytes ^ BACKSLASHES);
            if found != 0 {
                place += found.trailing_zeros() as usize / 8;
                break;
            }
            place += 8;
        }
        match text.get(place)? {
            b'"' => return Some(place),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
}

/// Has the highest bit of the first byte that is zero set, and no bit of those before it.
fn zero_bytes(bytes: u64) -> u64 {
    bytes.wrapping_sub(ONES) & !bytes & (ONES << 7)
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);

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

//! JavaScript's regular expressions, judged by an engine where it is known to agree with Node.js. Must not know what is
//! matched, or what a server does with the result.
//!
//! The engine was compared with Node.js 20 on generated expressions. What it read otherwise, accepts although Node.js
//! does not, or repeats for ever while its memory grows, is no expression for it: [`Engine::new`] gives `None`.

use std::borrow::Cow;

/// How deep the groups of an expression may be: the engine reads them with its stack.
const MAX_DEPTH: usize = 100;

/// An expression on whose matches the engine and Node.js agree.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    regex: regress::Regex,
    ignore_case: bool,
    unicode: bool,
}

impl Engine {
    pub(super) fn new(expression: &str, flags: &str) -> Option<Self> {
        let (ignore_case, unicode) = (flags.contains('i'), flags.contains('u'));
        // The engine has no sticky search, and reads a character beyond the BMP as one even without `u`.
        if flags.contains(['y', 'v']) || !(unicode || expression.is_ascii()) {
            return None;
        }
        Reader::new(expression, ignore_case, unicode).read()?;
        Some(Self {
            regex: regress::Regex::with_flags(expression, flags).ok()?,
            ignore_case,
            unicode,
        })
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        let is_misread = |character| self.stand_in(character).is_some();
        let text = if text.contains(is_misread) {
            let read = |character| {
                self.stand_in(character)
                    .map_or_else(|| String::from(character), str::to_owned)
            };
            Cow::Owned(text.chars().map(read).collect())
        } else {
            Cow::Borrowed(text)
        };
        self.regex.find(&text).is_some()
    }

    /// What means the same to JavaScript as a character that the engine misreads. Without `u`, the expression names
    /// none beyond U+00FF, so that a sign may stand for any that is no space.
    fn stand_in(&self, character: char) -> Option<&'static str> {
        match character {
            // Long s and the sign for Kelvin are the only characters that fold to ASCII, and do so with `u` alone.
            '\u{17f}' if self.ignore_case => Some(if self.unicode { "s" } else { "†" }),
            '\u{212a}' if self.ignore_case => Some(if self.unicode { "k" } else { "†" }),
            // Without `u`, what is beyond the BMP is two characters.
            '\u{10000}'.. if !self.unicode => Some("††"),
            _ => None,
        }
    }
}

/// Why JavaScript rejects a text as a regular expression, if it does.
pub(crate) fn syntax_error(text: &str, flags: &str) -> Option<String> {
    if text.matches('(').count() > MAX_DEPTH {
        return None;
    }
    // The other flags do not change the syntax.
    let flags: String = flags.chars().filter(|flag| "imsuv".contains(*flag)).collect();
    let error = regress::Regex::with_flags(text, flags.as_str()).err()?;
    Some(format!("/{text}/{flags}: {error}"))
}

/// Reads an expression as far as it takes to tell whether the engine can be trusted with it.
struct Reader<'a> {
    rest: &'a str,
    ignore_case: bool,
    unicode: bool,
    names: Vec<&'a str>,
}

/// What a quantifier would repeat.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// Nothing, or what may match the empty text: the engine may repeat that for ever.
    MayBeEmpty,
    /// What takes at least one character.
    Takes,
    /// The same, repeated already.
    Repeated,
}

/// The branches of a group up to here.
#[derive(Clone, Copy, Default)]
struct Branches {
    /// One of the branches before may match the empty text.
    may_be_empty: bool,
    /// This one takes at least one character.
    takes: bool,
}

impl Branches {
    fn may_be_empty(self) -> bool {
        self.may_be_empty || !self.takes
    }
}

impl<'a> Reader<'a> {
    fn new(expression: &'a str, ignore_case: bool, unicode: bool) -> Self {
        Self {
            rest: expression,
            ignore_case,
            unicode,
            names: Vec::new(),
        }
    }

    fn read(&mut self) -> Option<()> {
        // For each open group what is around it, and whether it is a look-around.
        let mut groups = Vec::new();
        let mut here = Branches::default();
        let mut last = Last::MayBeEmpty;
        while let Some(character) = self.next() {
            let is_quantifier = matches!(character, '*' | '+' | '?' | '{');
            here.takes |= last != Last::MayBeEmpty && !is_quantifier;
            last = match character {
                '*' | '+' | '?' | '{' if last == Last::Takes => self.quantifier(character)?,
                '*' | '+' | '?' | '{' => return None,
                '\\' if self.skip("b") || self.skip("B") => Last::MayBeEmpty,
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => {
                    groups.push((here, self.is_look_around()?));
                    if groups.len() > MAX_DEPTH {
                        return None;
                    }
                    here = Branches::default();
                    Last::MayBeEmpty
                }
                ')' => {
                    let (around, is_look_around) = groups.pop()?;
                    let inside = std::mem::replace(&mut here, around);
                    if is_look_around || inside.may_be_empty() {
                        Last::MayBeEmpty
                    } else {
                        Last::Takes
                    }
                }
                '|' => {
                    here = Branches {
                        may_be_empty: here.may_be_empty(),
                        takes: false,
                    };
                    Last::MayBeEmpty
                }
                '^' | '$' => Last::MayBeEmpty,
                ']' | '}' if self.unicode => return None,
                _ => Last::Takes,
            };
        }
        groups.is_empty().then_some(())
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes as many characters of a kind as there are.
    fn take(&mut self, is_one: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest;
        let length = rest.find(|character| !is_one(character)).unwrap_or(rest.len());
        let (taken, rest) = rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn quantifier(&mut self, first: char) -> Option<Last> {
        let least = match first {
            '{' => {
                let least = self.take(|character| character.is_ascii_digit()).parse().ok()?;
                if self.skip(",") {
                    self.take(|character| character.is_ascii_digit());
                }
                self.skip("}").then_some(least)?
            }
            '+' => 1,
            _ => 0_u32,
        };
        self.skip("?");
        Some(if least == 0 {
            Last::MayBeEmpty
        } else {
            Last::Repeated
        })
    }

    fn is_look_around(&mut self) -> Option<bool> {
        if !self.skip("?") || self.skip(":") {
            return Some(false);
        }
        if ["=", "!", "<=", "<!"].into_iter().any(|sign| self.skip(sign)) {
            return Some(true);
        }
        // A name, once: newer versions of JavaScript allow one for each branch. The same versions have `(?i:..)`.
        let name = self
            .skip("<")
            .then(|| self.take(|character| character.is_ascii_alphanumeric() || character == '_'))?;
        let is_new = !name.is_empty() && !self.names.contains(&name);
        self.names.push(name);
        (is_new && self.skip(">")).then_some(false)
    }

    /// What follows a backslash: what has no meaning in JavaScript, refers to a group or is octal is not known.
    fn escape(&mut self) -> Option<Last> {
        let is_known = match self.next()? {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' | 't' | 'n' | 'r' | 'f' | 'v' => true,
            '0' => !self
                .rest
                .starts_with(|character: char| character.is_ascii_digit()),
            'x' => self.has_digits(2),
            'u' if self.unicode && self.skip("{") => {
                !self.take(|digit| digit.is_ascii_hexdigit()).is_empty() && self.skip("}")
            }
            // Not one that `stand_in` puts another for.
            'u' => (self.unicode || self.rest.starts_with("00")) && self.has_digits(4),
            'p' | 'P' if self.unicode => {
                self.skip("{") && !self.take(|character| character != '}').is_empty() && self.skip("}")
            }
            escaped => !(escaped.is_ascii_alphanumeric() || escaped == '_'),
        };
        is_known.then_some(Last::Takes)
    }

    fn has_digits(&mut self, count: usize) -> bool {
        (0..count).all(|_| self.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
    }

    fn class(&mut self) -> Option<Last> {
        // The engine may repeat `[]`, which matches nothing, for ever.
        if !self.skip("^") && self.rest.starts_with(']') {
            return None;
        }
        loop {
            match self.next()? {
                ']' => return Some(Last::Takes),
                '\\' if self.skip("b") => {}
                // All but some characters, each of which may be the other case of one of these.
                '\\' if self.ignore_case && self.rest.starts_with(['W', 'P']) => return None,
                '\\' => {
                    self.escape()?;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Engine, MAX_DEPTH, syntax_error};

    fn verdict(expression: &str, flags: &str, text: &str) -> Option<bool> {
        Some(Engine::new(expression, flags)?.is_match(text))
    }

    #[test]
    fn what_an_engine_may_read_otherwise_is_judged_as_by_node_js() {
        let table = [
            (r"^\w+$", "i", "\u{17f}", false),
            (r"^\w+$", "iu", "\u{17f}", true),
            ("^s$", "i", "\u{17f}", false),
            ("^k$", "iu", "\u{212a}", true),
            ("^[A-Z]$", "i", "\u{212a}", false),
            (r"\W", "i", "\u{212a}", true),
            (r"^\W{2}$", "", "😀", true),
            (r"^.$", "", "😀", false),
            (r"^.$", "u", "😀", true),
            (r"^\p{Lu}$", "u", "Ω", true),
            ("(?<=a)b(?!c)", "", "abd", true),
            ("^(?:ab|c)+?$", "", "abcab", true),
        ];
        for (expression, flags, text, expected) in table {
            assert_eq!(
                verdict(expression, flags, text),
                Some(expected),
                "/{expression}/{flags} {text}"
            );
        }
    }

    #[test]
    fn what_the_engine_repeats_for_ever_or_accepts_alone_is_not_judged() {
        let table = [
            ("((b|0{0})??){1,2}k", ""),
            ("(?:(?:a|)?){2}k", ""),
            ("(?:a*)*b", ""),
            ("(?=a)*", ""),
            (r"\1|$(?:)?0{1,2}", ""),
            (r"(?:[](b{1,2}?)\D)?", "u"),
            (r"\b*", ""),
            ("^*", ""),
            (r"\u{61}", ""),
            (r"\u212a", "i"),
            (r"\x4", ""),
            (r"[^\W.]", "i"),
            ("(?i:a)", ""),
            ("(?<n>a)|(?<n>b)", ""),
            ("a{1", ""),
            ("é", ""),
            ("a", "y"),
            ("(", ""),
            ("a**", ""),
            ("a\\", ""),
            (&"(".repeat(MAX_DEPTH + 1), ""),
            (
                &format!("{}a{}", "(".repeat(MAX_DEPTH + 1), ")".repeat(MAX_DEPTH + 1)),
                "",
            ),
        ];
        for (expression, flags) in table {
            assert_eq!(verdict(expression, flags, "xxb"), None, "/{expression}/{flags}");
        }
        let deep = "(".repeat(1_000_000);
        assert_eq!(verdict(&deep, "", ""), None);
        assert_eq!(syntax_error(&deep, ""), None);
    }
}

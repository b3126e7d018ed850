//! Regular expressions: quoted as the JS SDK quotes them for `find()`, and checked for the LiveQuery matcher,
//! which gets only expressions that JavaScript and PCRE read alike. Must not know of queries.

use super::refuse;
use super::refuse::invalid;
use crate::error::{Error, Result};

/// The text as a regular expression that matches it literally, as the JS SDK writes it.
pub(super) fn quote(text: &str) -> String {
    format!("\\Q{}\\E", text.replace("\\E", "\\E\\\\E\\Q"))
}

/// The expression for a text that begins with `prefix`.
pub(super) fn starting_with(prefix: &str) -> String {
    format!("^{}", quote(prefix))
}

/// An expression in JavaScript's syntax.
#[derive(Debug, PartialEq)]
pub(super) struct Expression {
    pub(super) source: String,
    pub(super) flags: String,
    /// The text, if the expression means "begins with this text".
    pub(super) prefix: Option<String>,
    /// Whether the expression may match the empty text.
    pub(super) may_match_empty: bool,
}

/// Reads a pattern and its modifiers, and writes the pattern for JavaScript.
///
/// # Errors
/// If JavaScript does not know some part of it or reads it differently from PCRE, or if a modifier is not i,
/// m or s.
pub(super) fn translate(method: &str, key: &str, pattern: &str, options: &str) -> Result<Expression> {
    let flags = flags(key, options)?;
    let mut parser = Parser {
        characters: pattern.char_indices().collect(),
        position: 0,
        source: String::with_capacity(pattern.len()),
        multi_line: flags.contains('m'),
        dot_all: flags.contains('s'),
        is_literal: true,
        literal: String::new(),
        anchored: false,
        is_ascii: true,
        groups: Vec::new(),
        lookbehind: 0,
    };
    parser.read().map_err(|(position, problem)| {
        let (reason, way_out) = problem;
        refused(method, key, pattern, position, &reason, way_out)
    })?;
    let prefix = (parser.anchored && parser.is_literal && flags.is_empty()).then(|| parser.literal.clone());
    let mut sent = String::new();
    if flags.contains('i') {
        sent.push('i');
    }
    // Without the flag, JavaScript reads a character beyond the BMP as two; literal texts are found
    // nevertheless.
    if !parser.is_literal || flags.contains('i') && !parser.is_ascii {
        sent.push('u');
    }
    Ok(Expression {
        source: parser.source,
        flags: sent,
        prefix,
        may_match_empty: !parser.is_literal || parser.literal.is_empty(),
    })
}

fn refused(method: &str, key: &str, pattern: &str, position: usize, reason: &str, way_out: &str) -> Error {
    refuse::error(
        method,
        key,
        &format!("at position {position} of {pattern:?}: {reason}"),
        way_out,
    )
}

/// The flags that mean the same in MongoDB and in JavaScript, each once.
pub(super) fn flags(key: &str, options: &str) -> Result<String> {
    let mut flags = String::new();
    for flag in options.chars() {
        if !matches!(flag, 'i' | 'm' | 's') {
            return Err(refuse::error(
                &format!("the modifier {flag:?} of a regular expression"),
                key,
                "the LiveQuery server takes the modifiers of JavaScript, where it is unknown or means something else",
                "use only i, m and s",
            ));
        }
        if !flags.contains(flag) {
            flags.push(flag);
        }
    }
    Ok(flags)
}

/// The smallest text that comes after all texts with this prefix, in JavaScript's order; `None` if there is
/// none.
pub(super) fn after_prefix(prefix: &str) -> Option<String> {
    let mut text: Vec<char> = prefix.chars().collect();
    while let Some(last) = text.pop() {
        // In UTF-16, characters beyond the BMP come before U+E000.
        let next = match last {
            '\u{d7ff}' => Some('\u{10000}'),
            '\u{10ffff}' => Some('\u{e000}'),
            '\u{ffff}' => None,
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text.into_iter().collect());
        }
    }
    None
}

/// Refuses two different expressions on one field.
pub(super) fn twice(key: &str) -> Error {
    invalid(format!(
        "the field {key:?} has two regular expressions (matches, contains, starts_with and ends_with \
         each count as one), and a field can have one: combine two queries with Query::and to require both"
    ))
}

/// Why something is refused, and the way out.
type Problem = (String, &'static str);
type Parsed<T> = std::result::Result<T, (usize, Problem)>;

struct Parser {
    characters: Vec<(usize, char)>,
    position: usize,
    source: String,
    multi_line: bool,
    dot_all: bool,
    /// Nothing except characters and anchors so far.
    is_literal: bool,
    literal: String,
    anchored: bool,
    is_ascii: bool,
    /// For each open group, whether it is a look-around.
    groups: Vec<Group>,
    lookbehind: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Group {
    Plain,
    Ahead,
    Behind,
}

/// Whether the last item can be repeated.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Nothing,
    Item,
    Repeated,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.characters
            .get(self.position)
            .map(|(_, character)| *character)
    }

    fn starts_with(&self, text: &str) -> bool {
        let mut rest = self.characters.get(self.position..).unwrap_or_default().iter();
        text.chars()
            .all(|wanted| rest.next().is_some_and(|(_, held)| *held == wanted))
    }

    fn problem<T>(&self, at: usize, reason: impl Into<String>, way_out: &'static str) -> Parsed<T> {
        let _ = self;
        Err((at, (reason.into(), way_out)))
    }

    fn read(&mut self) -> Parsed<()> {
        let mut last = Last::Nothing;
        while let Some(character) = self.peek() {
            let at = self.position;
            self.position += 1;
            last = match character {
                '\\' => self.escape(at)?,
                '^' => self.start(at),
                '$' => self.end(at),
                '.' => {
                    self.is_literal = false;
                    self.source.push_str(if self.dot_all { "[^]" } else { "[^\\n]" });
                    Last::Item
                }
                '[' => self.class(at)?,
                '(' => self.open(at)?,
                ')' => self.close(at)?,
                '|' => {
                    self.is_literal = false;
                    self.source.push('|');
                    Last::Nothing
                }
                '*' | '+' | '?' | '{' => self.repeat(at, character, last)?,
                '\0' => return self.problem(at, "MongoDB does not accept NUL in an expression", OWN),
                _ => self.character(character),
            };
        }
        if self.groups.is_empty() {
            Ok(())
        } else {
            self.problem(
                self.position,
                "a group is not closed",
                "write the missing ) or escape the ( as \\(",
            )
        }
    }

    fn character(&mut self, character: char) -> Last {
        self.is_ascii &= character.is_ascii();
        self.literal.push(character);
        match character {
            // An escaped backslash that the server does not mistake for the start of a quotation.
            '\\' => self.source.push_str("\\x5c"),
            '^' | '$' | '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => {
                self.source.push('\\');
                self.source.push(character);
            }
            _ => self.source.push(character),
        }
        Last::Item
    }

    // PCRE has one line terminator, JavaScript four.
    fn start(&mut self, at: usize) -> Last {
        if self.multi_line {
            self.is_literal = false;
            self.source.push_str("(?<![^\\n])");
        } else {
            if at == 0 {
                self.anchored = true;
            } else {
                self.is_literal = false;
            }
            self.source.push('^');
        }
        Last::Nothing
    }

    fn end(&mut self, at: usize) -> Last {
        if self.multi_line {
            self.is_literal = false;
            self.source.push_str("(?![^\\n])");
        } else {
            // An anchor at the end is not a prefix.
            self.anchored = false;
            if at + 1 != self.characters.len() {
                self.is_literal = false;
            }
            self.source.push('$');
        }
        Last::Nothing
    }

    fn escape(&mut self, at: usize) -> Parsed<Last> {
        let Some(escaped) = self.peek() else {
            return self.problem(at, "a backslash at the end escapes nothing", "escape it as \\\\");
        };
        self.position += 1;
        if escaped == 'Q' {
            return Ok(self.quotation());
        }
        if let Some(class) = class_escape(escaped) {
            self.is_literal = false;
            self.source.push_str(class);
            return Ok(Last::Item);
        }
        match escaped {
            'E' => return Ok(Last::Nothing),
            'b' | 'B' => {
                self.is_literal = false;
                self.source.push('\\');
                self.source.push(escaped);
                return Ok(Last::Nothing);
            }
            _ => {}
        }
        let character = self.escaped_character(at, escaped)?;
        Ok(self.character(character))
    }

    /// The character that an escape sequence means.
    fn escaped_character(&mut self, at: usize, escaped: char) -> Parsed<char> {
        match escaped {
            't' => Ok('\t'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            'f' => Ok('\u{c}'),
            'x' => {
                let mut code = 0;
                for _ in 0..2 {
                    let digit = self.peek().and_then(|digit| digit.to_digit(16));
                    let Some(digit) = digit else {
                        return self.problem(at, "\\x is not followed by two hexadecimal digits", OWN);
                    };
                    self.position += 1;
                    code = code * 16 + digit;
                }
                char::from_u32(code)
                    .filter(|character| *character != '\0')
                    .map_or_else(|| self.problem(at, "MongoDB does not accept NUL in an expression", OWN), Ok)
            }
            'A' => self.problem(at, "JavaScript does not know \\A", "write ^ without the modifier m"),
            'z' | 'Z' => self.problem(
                at,
                format!("JavaScript does not know \\{escaped}"),
                "write $ without the modifier m",
            ),
            'p' | 'P' => self.problem(
                at,
                format!("\\{escaped} means a different set of characters in each engine"),
                "write the characters as a class such as [a-zäöü]",
            ),
            '0'..='9' => self.problem(
                at,
                format!("\\{escaped} refers to a group, which JavaScript lets match where PCRE does not, or is octal"),
                "write the text once more, or use \\xHH for a character",
            ),
            'u' => self.problem(at, "PCRE does not know \\u", "write the character itself"),
            _ if escaped.is_ascii_alphanumeric() => self.problem(
                at,
                format!("JavaScript does not know \\{escaped}, or reads it differently from PCRE"),
                OWN,
            ),
            _ => Ok(escaped),
        }
    }

    /// `\Q..\E` is written out, because the server validates what it gets as a JavaScript expression
    /// (ParseLiveQueryServer.js, _validateQueryConstraints).
    fn quotation(&mut self) -> Last {
        let mut last = Last::Nothing;
        while let Some(character) = self.peek() {
            if self.starts_with("\\E") {
                self.position += 2;
                break;
            }
            self.position += 1;
            last = self.character(character);
        }
        last
    }

    fn class(&mut self, at: usize) -> Parsed<Last> {
        self.is_literal = false;
        self.source.push('[');
        if self.peek() == Some('^') {
            self.position += 1;
            self.source.push('^');
        }
        if self.peek() == Some(']') {
            return self.problem(
                at,
                "a class begins with ], which PCRE reads as a member and JavaScript as the end",
                "escape it as \\]",
            );
        }
        // The preceding character, if a range can begin with it.
        let mut before: Option<char> = None;
        while let Some(character) = self.peek() {
            let here = self.position;
            self.position += 1;
            let member = match character {
                ']' => {
                    self.source.push(']');
                    return Ok(Last::Item);
                }
                '[' if matches!(self.peek(), Some(':' | '.' | '=')) => {
                    return self.problem(
                        here,
                        "JavaScript does not know POSIX classes such as [:alpha:]",
                        "write the characters, such as a-z",
                    );
                }
                '\\' => {
                    let Some(escaped) = self.peek() else { break };
                    self.position += 1;
                    if let Some(class) = class_escape(escaped) {
                        match class.strip_prefix('[').and_then(|class| class.strip_suffix(']')) {
                            Some(members) if !members.starts_with('^') => self.source.push_str(members),
                            Some(_) => return self.problem(here, "\\S in a class has no counterpart", OWN),
                            None => self.source.push_str(class),
                        }
                        before = None;
                        if self.peek() == Some('-') && !self.starts_with("-]") {
                            return self.problem(
                                self.position,
                                "a range begins with a class",
                                "escape the - as \\-",
                            );
                        }
                        continue;
                    }
                    if matches!(escaped, 'b' | 'B' | 'E' | 'Q') {
                        return self.problem(
                            here,
                            format!("\\{escaped} in a class means something else"),
                            OWN,
                        );
                    }
                    self.escaped_character(here, escaped)?
                }
                '-' if before.is_some() && self.peek().is_some_and(|next| next != ']') => {
                    let first = before.take().unwrap_or_default();
                    let here = self.position;
                    let Some(next) = self.peek() else { break };
                    self.position += 1;
                    let end = match next {
                        '\\' => {
                            let Some(escaped) = self.peek() else { break };
                            self.position += 1;
                            if class_escape(escaped).is_some() || matches!(escaped, 'b' | 'B' | 'E' | 'Q') {
                                return self.problem(
                                    here,
                                    "a range ends with a class",
                                    "escape the - as \\-",
                                );
                            }
                            self.escaped_character(here, escaped)?
                        }
                        '[' if matches!(self.peek(), Some(':' | '.' | '=')) => {
                            return self.problem(
                                here,
                                "JavaScript does not know POSIX classes such as [:alpha:]",
                                "write the characters, such as a-z",
                            );
                        }
                        _ => next,
                    };
                    if end < first {
                        return self.problem(here, "a range ends before it begins", OWN);
                    }
                    self.source.push('-');
                    self.class_character(end);
                    continue;
                }
                '\0' => return self.problem(here, "MongoDB does not accept NUL in an expression", OWN),
                _ => character,
            };
            self.class_character(member);
            before = Some(member);
        }
        self.problem(
            at,
            "a class is not closed",
            "write the missing ] or escape the [ as \\[",
        )
    }

    fn class_character(&mut self, character: char) {
        self.is_ascii &= character.is_ascii();
        match character {
            '\\' => self.source.push_str("\\x5c"),
            '-' | ']' | '[' | '^' => {
                self.source.push('\\');
                self.source.push(character);
            }
            _ => self.source.push(character),
        }
    }

    fn open(&mut self, at: usize) -> Parsed<Last> {
        self.is_literal = false;
        let (text, group) = if self.starts_with("?:") {
            ("?:", Group::Plain)
        } else if self.starts_with("?=") {
            ("?=", Group::Ahead)
        } else if self.starts_with("?!") {
            ("?!", Group::Ahead)
        } else if self.starts_with("?<=") {
            ("?<=", Group::Behind)
        } else if self.starts_with("?<!") {
            ("?<!", Group::Behind)
        } else if self.starts_with("?>") {
            return self.problem(
                at,
                "JavaScript does not know atomic groups (?>..)",
                "write (?:..)",
            );
        } else if self.starts_with("?P") || self.starts_with("?<") || self.starts_with("?'") {
            return self.problem(
                at,
                "a named group is useless here, and is spelled differently in each engine",
                "write (..)",
            );
        } else if self.starts_with("?#") {
            return self.problem(at, "JavaScript does not know comments", "leave it out");
        } else if self.starts_with("?") {
            return self.problem(
                at,
                "JavaScript does not know modifiers inside an expression, nor other groups with (?",
                "pass the modifiers as the last argument",
            );
        } else if self.starts_with("*") {
            return self.problem(at, "JavaScript does not know verbs (*..)", OWN);
        } else {
            ("", Group::Plain)
        };
        self.position += text.len();
        self.source.push('(');
        self.source.push_str(text);
        self.groups.push(group);
        self.lookbehind += usize::from(group == Group::Behind);
        Ok(Last::Nothing)
    }

    fn close(&mut self, at: usize) -> Parsed<Last> {
        let Some(group) = self.groups.pop() else {
            return self.problem(at, "a ) does not close a group", "escape it as \\)");
        };
        self.source.push(')');
        self.lookbehind -= usize::from(group == Group::Behind);
        Ok(if group == Group::Plain {
            Last::Item
        } else {
            Last::Nothing
        })
    }

    fn repeat(&mut self, at: usize, character: char, last: Last) -> Parsed<Last> {
        self.is_literal = false;
        match last {
            Last::Nothing if character == '{' => {
                return self.problem(at, "there is nothing for { to repeat", "escape it as \\{");
            }
            Last::Nothing => {
                return self.problem(
                    at,
                    format!("there is nothing for {character} to repeat"),
                    "escape it with a backslash",
                );
            }
            Last::Repeated => {
                return match character {
                    '+' => self.problem(
                        at,
                        "JavaScript does not know possessive repetition",
                        "leave the + out",
                    ),
                    '?' => {
                        self.source.push('?');
                        // Anything that follows would repeat a repetition.
                        Ok(Last::Nothing)
                    }
                    _ => self.problem(at, "a repetition is repeated", "put a group around it: (?:..)"),
                };
            }
            Last::Item => {}
        }
        if self.lookbehind > 0 {
            return self.problem(
                at,
                "PCRE does not accept repetition in a look-behind",
                "write it without",
            );
        }
        if character != '{' {
            self.source.push(character);
            return Ok(Last::Repeated);
        }
        let mut bounds = String::new();
        while let Some(digit) = self
            .peek()
            .filter(|digit| digit.is_ascii_digit() || *digit == ',')
        {
            bounds.push(digit);
            self.position += 1;
        }
        let (least, most) = bounds.split_once(',').unwrap_or((&bounds, ""));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < 65_536);
        let is_valid = self.peek() == Some('}')
            && number(least).is_some()
            && (most.is_empty()
                || number(most).is_some_and(|most| number(least).is_some_and(|least| least <= most)));
        if !is_valid {
            return self.problem(
                at,
                "a { does not begin a repetition such as {2,5}",
                "escape it as \\{",
            );
        }
        self.position += 1;
        self.source.push('{');
        self.source.push_str(&bounds);
        self.source.push('}');
        Ok(Last::Repeated)
    }
}

/// As PCRE reads them; JavaScript's `\s` includes more kinds of space.
fn class_escape(escaped: char) -> Option<&'static str> {
    Some(match escaped {
        'd' => "\\d",
        'D' => "\\D",
        'w' => "\\w",
        'W' => "\\W",
        's' => "[\\t-\\r ]",
        'S' => "[^\\t-\\r ]",
        _ => return None,
    })
}

const OWN: &str = "write it in the part of the syntax that JavaScript and PCRE share";

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(pattern: &str, options: &str) -> (String, String) {
        let expression = translate("matches", "k", pattern, options).unwrap();
        (expression.source, expression.flags)
    }

    #[test]
    fn quotations_are_written_out() {
        for (pattern, plain) in [
            ("^\\Qa.b\\E", "^a\\.b"),
            ("\\Qa(b\\E$", "a\\(b$"),
            ("\\Qa\\E\\\\E\\Qb\\E", "a\\x5cEb"),
            ("\\Qa\\b\\E", "a\\x5cb"),
            ("x\\\\Qy", "x\\x5cQy"),
            ("\\Qopen", "open"),
            ("\\Qé 😀\\E", "é 😀"),
        ] {
            assert_eq!(
                translated(pattern, ""),
                (plain.to_owned(), String::new()),
                "{pattern}"
            );
        }
    }

    #[test]
    fn text_is_quoted_as_in_the_js_sdk() {
        assert_eq!(quote("a.b"), "\\Qa.b\\E");
        assert_eq!(quote("a\\Eb"), "\\Qa\\E\\\\E\\Qb\\E");
    }

    #[test]
    fn what_both_engines_read_alike_is_sent_so_that_they_do() {
        for (pattern, options, source, flags) in [
            ("[a-z]+\\d", "", "[a-z]+\\d", "u"),
            ("a.c", "", "a[^\\n]c", "u"),
            ("a.c", "s", "a[^]c", "u"),
            ("^a$", "m", "(?<![^\\n])a(?![^\\n])", "u"),
            ("a|b", "i", "a|b", "iu"),
            ("abc", "i", "abc", "i"),
            ("é", "i", "é", "iu"),
            ("a\\s", "", "a[\\t-\\r ]", "u"),
            ("[\\s\\-x]", "", "[\\t-\\r \\-x]", "u"),
            ("a-b/]}", "", "a-b/\\]\\}", ""),
            ("(?:a|b)*?c{2,3}", "", "(?:a|b)*?c{2,3}", "u"),
            ("(?=a)(?<!b)", "", "(?=a)(?<!b)", "u"),
            ("", "", "", ""),
        ] {
            assert_eq!(
                translated(pattern, options),
                (source.to_owned(), flags.to_owned()),
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_javascript_does_not_know_is_refused_with_its_position() {
        for (pattern, position) in [
            ("(", 1),
            ("a)", 1),
            ("(?i)abc", 0),
            ("ab\\A", 2),
            ("a\\z", 1),
            ("\\p{L}", 0),
            ("[[:alpha:]]", 1),
            ("a++", 2),
            ("(?>a)", 0),
            ("(?<x", 0),
            ("(?P<x>a)", 0),
            ("[", 0),
            ("[]a]", 0),
            ("[z-a]", 3),
            ("*", 0),
            ("a**", 2),
            ("^*", 1),
            ("a{2,1}", 1),
            ("{", 0),
            ("(a)\\1", 3),
            ("\\", 0),
            ("\\u0041", 0),
            ("\\h", 0),
            ("\\v", 0),
            ("(?<=a+)", 5),
            ("\\x4", 0),
            ("(?#x)", 0),
            ("a\0", 1),
        ] {
            let error = translate("matches", "k", pattern, "").unwrap_err().to_string();
            let wanted = format!("at position {position} of ");
            assert!(error.contains(&wanted), "{pattern}: {error}");
        }
    }

    #[test]
    fn a_prefix_is_recognised() {
        let prefix =
            |pattern: &str, options: &str| translate("matches", "k", pattern, options).unwrap().prefix;
        assert_eq!(prefix("^\\Qa.b\\E", ""), Some("a.b".to_owned()));
        assert_eq!(prefix("^ab", ""), Some("ab".to_owned()));
        for (pattern, options) in [
            ("ab", ""),
            ("^a$", ""),
            ("^ab", "i"),
            ("^a*", ""),
            ("^a|b", ""),
            ("^a^", ""),
        ] {
            assert_eq!(prefix(pattern, options), None, "{pattern}");
        }
    }

    #[test]
    fn the_text_after_a_prefix_is_that_of_utf_16() {
        let after = |prefix| after_prefix(prefix);
        assert_eq!(after("ab").as_deref(), Some("ac"));
        assert_eq!(after("a\u{d7ff}").as_deref(), Some("a\u{10000}"));
        assert_eq!(after("a\u{10ffff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after("a\u{ffff}").as_deref(), Some("b"));
        assert_eq!(after("\u{ffff}"), None);
        assert_eq!(after(""), None);
    }

    #[test]
    fn flags_are_those_of_both_worlds() {
        assert_eq!(flags("k", "imi").unwrap(), "im");
        assert!(flags("k", "ix").unwrap_err().to_string().contains("'x'"));
    }
}

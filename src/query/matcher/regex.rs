//! The regular expressions of `contains`, `startsWith` and `endsWith`, as the SDKs quote them and as the
//! encoder escapes them, evaluated by comparing strings. Others need an engine, which the feature
//! `test-server` provides.

#[cfg(feature = "test-server")]
use super::engine::Engine;

/// An expression that can be evaluated here.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Literal(Literal),
    /// Evaluated by an engine for JavaScript's expressions.
    #[cfg(feature = "test-server")]
    Engine(std::sync::Arc<Engine>),
}

/// A literal text with optional anchors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Literal {
    literal: Vec<char>,
    at_start: bool,
    at_end: bool,
    ignore_case: bool,
    multi_line: bool,
}

/// The meaning of a `$regex` with its `$options`.
#[derive(Clone, Debug)]
pub(crate) enum Regex {
    /// An expression that can be evaluated here.
    Pattern(Pattern),
    /// An expression that JavaScript rejects: the server logs it and nothing matches.
    Invalid,
    /// An expression that needs an engine.
    Unknown,
}

impl Regex {
    /// Takes the text of a `$regex`, with `\Q..\E` for quoted text, and its flags.
    pub(crate) fn parse(text: &str, flags: &str) -> Self {
        if !valid_flags(flags) {
            return Self::Invalid;
        }
        let Some(expression) = unquote(text) else {
            return Self::Unknown;
        };
        // The sticky flag and the Unicode modes change what the escapes below mean.
        if flags.contains(['y', 'u', 'v']) {
            return Self::with_engine(&expression, flags);
        }
        literal(&expression).map_or_else(
            || Self::with_engine(&expression, flags),
            |(literal, at_start, at_end)| {
                let ignore_case = flags.contains('i');
                Self::Pattern(Pattern::Literal(Literal {
                    literal: if ignore_case {
                        literal.into_iter().map(upper_case).collect()
                    } else {
                        literal
                    },
                    at_start,
                    at_end,
                    ignore_case,
                    multi_line: flags.contains('m'),
                }))
            },
        )
    }

    #[cfg(feature = "test-server")]
    fn with_engine(expression: &str, flags: &str) -> Self {
        Engine::new(expression, flags).map_or(Self::Unknown, |engine| {
            Self::Pattern(Pattern::Engine(std::sync::Arc::new(engine)))
        })
    }

    #[cfg(not(feature = "test-server"))]
    fn with_engine(_: &str, _: &str) -> Self {
        Self::Unknown
    }
}

impl Pattern {
    /// Whether the pattern is found in a text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal.is_match(text),
            #[cfg(feature = "test-server")]
            Self::Engine(engine) => engine.is_match(text),
        }
    }
}

impl Literal {
    fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = if self.ignore_case {
            text.chars().map(upper_case).collect()
        } else {
            text.chars().collect()
        };
        let length = self.literal.len();
        (0..=text.len()).any(|start| {
            let Some((before, rest)) = text.split_at_checked(start) else {
                return false;
            };
            rest.starts_with(&self.literal)
                && (!self.at_start || self.is_edge(before.last()))
                && (!self.at_end || self.is_edge(rest.get(length)))
        })
    }

    fn is_edge(&self, neighbour: Option<&char>) -> bool {
        match neighbour {
            None => true,
            Some(character) => self.multi_line && matches!(character, '\n' | '\r' | '\u{2028}' | '\u{2029}'),
        }
    }
}

/// Whether these are JavaScript's flags, each at most once.
pub(crate) fn valid_flags(flags: &str) -> bool {
    flags.chars().enumerate().all(|(index, flag)| {
        "dgimsuvy".contains(flag) && !flags.chars().take(index).any(|earlier| earlier == flag)
    }) && !(flags.contains('u') && flags.contains('v'))
}

/// How the server translates `\Q..\E`, which JavaScript does not know (Parse Server 9.10, `QueryTools.js`):
/// it puts a backslash before each character of the quoted text that is not a word character. `None` for a
/// `\Q` without its `\E`: the server's loop starts over at the first `\Q` and never ends.
fn unquote(text: &str) -> Option<String> {
    let mut out = String::new();
    // Where the rest of the text begins.
    let mut from = 0;
    let mut quote = text.find("\\Q");
    while let Some(start) = quote {
        out.push_str(text.get(from..start).unwrap_or_default());
        let end = start + text.get(start..)?.find("\\E")?;
        let quoted = text
            .get(start + 2..end)
            .unwrap_or_default()
            .replace("\\\\\\\\E", "\\E");
        for character in quoted.chars() {
            // `\W` knows ASCII only.
            if !(character.is_ascii_alphanumeric() || character == '_') {
                out.push('\\');
            }
            out.push(character);
        }
        from = end + 2;
        quote = text.get(end..)?.find("\\Q").map(|next| end + next);
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Some(out)
}

/// The text of an expression that consists only of literal characters between optional anchors.
fn literal(expression: &str) -> Option<(Vec<char>, bool, bool)> {
    let (at_start, expression) = match expression.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, expression),
    };
    let mut literal = Vec::new();
    let mut characters = expression.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next()?;
                if escaped == 'x' {
                    let code = characters.next()?.to_digit(16)? * 16 + characters.next()?.to_digit(16)?;
                    literal.push(char::from_u32(code)?);
                    continue;
                }
                // `\d`, `\n`, `\1` ..: a letter or digit after a backslash has a special meaning.
                if escaped.is_ascii_alphanumeric() || escaped == '_' {
                    return None;
                }
                literal.push(escaped);
            }
            '$' => return characters.next().is_none().then_some((literal, at_start, true)),
            '^' | '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            _ => literal.push(character),
        }
    }
    Some((literal, at_start, false))
}

/// How JavaScript compares characters with the flag `i` and without `u` (ECMA-262, Canonicalize).
fn upper_case(character: char) -> char {
    // Without `u`, an expression sees the halves of such characters, which have no case.
    if character as u32 > 0xFFFF {
        return character;
    }
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) if character.is_ascii() || !upper.is_ascii() => upper,
        _ => character,
    }
}

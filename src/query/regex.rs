//! Regular expressions: quoted as the JS SDK quotes them for `find()`, and unquoted for the LiveQuery matcher.

use super::refuse;
use crate::error::Result;

/// The text as a regular expression that matches it literally, as the JS SDK writes it.
pub(super) fn quote(text: &str) -> String {
    format!("\\Q{}\\E", text.replace("\\E", "\\E\\\\E\\Q"))
}

/// The expression for a text that begins so.
pub(super) fn starting_with(prefix: &str) -> String {
    format!("^{}", quote(prefix))
}

/// The same expression without `\Q..\E`.
///
/// The matcher imitates `\Q..\E`, but the server tests what it gets as a JavaScript expression first
/// (ParseLiveQueryServer.js, _validateQueryConstraints), and refuses `\Q(\E`. It also takes an escaped backslash
/// with a Q after it for the start of a quotation.
pub(super) fn without_quotes(pattern: &str) -> String {
    let mut plain = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        rest = if let Some(quoted) = after.strip_prefix('Q') {
            let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            escape(literal, &mut plain);
            after
        } else if let Some(after) = after.strip_prefix('\\') {
            plain.push_str(BACKSLASH);
            after
        } else if let Some(after) = after.strip_prefix('E') {
            after
        } else {
            plain.push('\\');
            after
        };
    }
    plain.push_str(rest);
    plain
}

/// The flags that mean the same in MongoDB and in JavaScript, each one once.
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

fn escape(literal: &str, plain: &mut String) {
    for character in literal.chars() {
        match character {
            '\\' => plain.push_str(BACKSLASH),
            '-' | '^' | '$' | '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => {
                plain.push('\\');
                plain.push(character);
            }
            _ => plain.push(character),
        }
    }
}

// An escaped backslash that is not written with two of them.
const BACKSLASH: &str = "\\x5c";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_are_written_out() {
        for (pattern, plain) in [
            ("^\\Qa.b\\E", "^a\\.b"),
            ("\\Qa(b\\E$", "a\\(b$"),
            ("\\Qa\\E\\\\E\\Qb\\E", "a\\x5cEb"),
            ("\\Qa\\b\\E", "a\\x5cb"),
            ("x\\\\Qy", "x\\x5cQy"),
            ("\\Qopen", "open"),
            ("[a-z]+\\d", "[a-z]+\\d"),
            ("\\Qé 😀\\E", "é 😀"),
        ] {
            assert_eq!(without_quotes(pattern), plain, "{pattern}");
        }
    }

    #[test]
    fn text_is_quoted_as_in_the_js_sdk() {
        assert_eq!(quote("a.b"), "\\Qa.b\\E");
        assert_eq!(quote("a\\Eb"), "\\Qa\\E\\\\E\\Qb\\E");
    }

    #[test]
    fn flags_are_those_of_both_worlds() {
        assert_eq!(flags("k", "imi").unwrap(), "im");
        assert!(flags("k", "ix").unwrap_err().to_string().contains("'x'"));
    }
}

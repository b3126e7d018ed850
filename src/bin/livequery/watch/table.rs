//! Objects as the lines of a table that fits a width. It knows nothing about terminals and
//! connections.

use std::collections::HashMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use parse_livequery::Object;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::line::{OF_EVERY_OBJECT, harmless, value};

/// What is new about an object.
pub(super) enum News {
    /// It was not there before.
    Arrived,
    /// These fields have changed.
    Changed(Vec<String>),
}

/// The fields of these objects that have a column: the given ones first.
pub(super) fn columns(first: &[String], objects: &[Object]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    let of_objects = objects
        .iter()
        .flat_map(Object::keys)
        .filter(|name| !OF_EVERY_OBJECT.contains(name));
    for name in first.iter().map(String::as_str).chain(of_objects) {
        if !columns.iter().any(|column| column == name) {
            columns.push(name.to_owned());
        }
    }
    columns
}

/// The header and a line for each object, none wider than the width. Styles are there if there are colours.
pub(super) fn lines(
    objects: &[Object],
    columns: &[String],
    news: &HashMap<String, News>,
    width: usize,
    has_colours: bool,
) -> Vec<String> {
    let cells: Vec<Vec<String>> = objects
        .iter()
        .map(|object| {
            let id = harmless(object.id().unwrap_or("?"));
            let fields = columns
                .iter()
                .map(|name| object.get(name).map_or_else(String::new, |_| value(object, name)));
            std::iter::once(id).chain(fields).collect()
        })
        .collect();
    let names: Vec<String> = std::iter::once("id".to_owned())
        .chain(columns.iter().map(|name| harmless(name)))
        .collect();
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let of_cells = cells
                .iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.width());
            of_cells.max().unwrap_or(0).max(name.width()).min(WIDEST)
        })
        .collect();
    let head = Style::new().bold();
    let mut lines = vec![row(&names, &widths, width, |_| has_colours.then_some(head))];
    for (object, cells) in objects.iter().zip(&cells) {
        let news = object.id().and_then(|id| news.get(id));
        lines.push(row(cells, &widths, width, |at| match news {
            _ if !has_colours => None,
            Some(News::Arrived) => Some(colour(AnsiColor::Green)),
            Some(News::Changed(keys)) => {
                let name = at.checked_sub(1).and_then(|at| columns.get(at));
                name.filter(|name| keys.contains(name))
                    .map(|_| colour(AnsiColor::Yellow))
            }
            None => None,
        }));
    }
    lines
}

fn row(cells: &[String], widths: &[usize], width: usize, style: impl Fn(usize) -> Option<Style>) -> String {
    let (mut line, mut left) = (String::new(), width);
    for (at, (cell, column)) in cells.iter().zip(widths).enumerate() {
        let gap = if at == 0 { 0 } else { GAP.min(left) };
        left -= gap;
        line.push_str(&" ".repeat(gap));
        if left == 0 {
            break;
        }
        let space = (*column).min(left);
        let text = cut(cell, space);
        let padding = " ".repeat(space - text.width());
        let style = style(at).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(line, "{style}{text}{style:#}{padding}");
        left -= space;
    }
    line
}

/// The text, or its beginning and an ellipsis, in this many columns of the terminal.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else {
        return String::new();
    };
    let (mut cut, mut taken) = (String::new(), 0);
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken > room {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into())).bold()
}

const GAP: usize = 2;
/// Wider cells are cut, so that one text does not take the space of all other fields.
const WIDEST: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(fields: serde_json::Value) -> Object {
        Object::from_json(fields).unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let objects = [
            object(json!({"objectId": "a", "name": "日本語のゲーム", "score": 1})),
            object(json!({"objectId": "b", "name": "\u{1b}[2J👩‍👩‍👧", "note": "x".repeat(500)})),
        ];
        let columns = columns(&["score".to_owned()], &objects);
        assert_eq!(columns, ["score", "name", "note"]);
        for width in 0..200 {
            for line in lines(&objects, &columns, &HashMap::new(), width, false) {
                assert!(line.width() <= width, "{width}: {line:?}");
                assert!(!line.contains('\u{1b}'), "{line:?}");
            }
        }
    }

    #[test]
    fn news_are_coloured_where_there_are_colours() {
        let objects = [object(json!({"objectId": "a", "score": 1, "name": "go"}))];
        let columns = columns(&[], &objects);
        let changed = HashMap::from([("a".to_owned(), News::Changed(vec!["score".to_owned()]))]);
        let line = |has_colours| {
            lines(&objects, &columns, &changed, 80, has_colours)
                .pop()
                .unwrap_or_default()
        };
        assert!(
            line(true).contains("\u{1b}[33m") || line(true).contains(";33m"),
            "{:?}",
            line(true)
        );
        assert!(!line(false).contains('\u{1b}'));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
    }
}

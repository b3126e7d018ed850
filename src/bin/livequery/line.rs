//! The text of an event: a line for people, with colours, or a line of JSON. It does not know where the line
//! goes.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use chrono::Local;
use parse_livequery::{Event, EventKind, Object};
use serde_json::{Value, json};

use crate::output;

/// The line for people. `None` for events that do not concern a reader of objects.
pub(crate) fn text(event: &Event) -> Option<String> {
    let (kind, style, rest) = match event.kind() {
        EventKind::Open => {
            let gap = event.gap()?;
            let missed = format!("{:.1?} may have been missed ({:?})", gap.duration(), gap.reason());
            ("gap", AnsiColor::Red, missed)
        }
        EventKind::Error => {
            let dropped = event.error()?.dropped()?;
            let text = format!("{dropped} events were dropped, because they were not read fast enough");
            ("lagged", AnsiColor::Red, text)
        }
        EventKind::Close => return None,
        kind => (kind.as_str(), colour(kind), change(event)?),
    };
    let style = Style::new().fg_color(Some(style.into())).bold();
    Some(format!("{}  {style}{kind:<6}{style:#}  {rest}", clock()))
}

/// The same as a JSON object.
pub(crate) fn json(event: &Event) -> Option<String> {
    let time = output::now();
    let line = match event.kind() {
        EventKind::Open => {
            let gap = event.gap()?;
            json!({
                "time": time,
                "kind": "gap",
                "from": gap.start().to_string(),
                "to": gap.end().to_string(),
                "reason": format!("{:?}", gap.reason()),
            })
        }
        EventKind::Error => {
            let dropped = event.error()?.dropped()?;
            json!({ "time": time, "kind": "lagged", "dropped": dropped })
        }
        EventKind::Close => return None,
        kind => {
            let object = event.object()?;
            let mut line =
                json!({ "time": time, "kind": kind.as_str(), "id": object.id(), "object": object });
            if let Some(original) = event.original() {
                line["changed"] = json!(event.changed_keys());
                line["original"] = json!(original);
            }
            line
        }
    };
    Some(line.to_string())
}

/// The time of day.
pub(crate) fn clock() -> impl std::fmt::Display {
    Local::now().format("%H:%M:%S%.3f").to_string()
}

/// Text from elsewhere, without characters that a terminal would take for a command.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn colour(kind: EventKind) -> AnsiColor {
    match kind {
        EventKind::Create => AnsiColor::Green,
        EventKind::Enter => AnsiColor::Cyan,
        EventKind::Leave => AnsiColor::Magenta,
        EventKind::Delete => AnsiColor::Red,
        _ => AnsiColor::Yellow,
    }
}

/// The object's id and what changed: `score: 20 -> 30`; all fields, if the object before is unknown.
fn change(event: &Event) -> Option<String> {
    let object = event.object()?;
    let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
    let mut line = format!("{bold}{}{bold:#}", harmless(object.id().unwrap_or("?")));
    let mut add = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = write!(line, "  {}: {value}", harmless(name));
    };
    match event.original() {
        Some(original) => {
            for name in event.changed_keys() {
                let (old, new) = (value(original, name), value(object, name));
                add(name, format!("{dim}{old} ->{dim:#} {new}"));
            }
        }
        None => {
            for name in object.keys().filter(|name| !OF_EVERY_OBJECT.contains(name)) {
                add(name, value(object, name));
            }
        }
    }
    Some(line)
}

/// A field, as one short line.
pub(crate) fn value(object: &Object, name: &str) -> String {
    let Some(value) = object.get(name) else {
        return "(unset)".to_owned();
    };
    let text = match value["__type"].as_str() {
        Some("Date") => value["iso"].as_str().map(str::to_owned),
        Some("Pointer") => value["className"]
            .as_str()
            .zip(value["objectId"].as_str())
            .map(|(class, id)| format!("{class}:{id}")),
        _ => None,
    };
    shortened(&harmless(&text.unwrap_or_else(|| Value::to_string(value))))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Longer values are cut: an event is one line. `--json` prints them in full.
const LONGEST_VALUE: usize = 80;
/// Fields without a column.
pub(crate) const OF_EVERY_OBJECT: [&str; 6] =
    ["__type", "className", "objectId", "createdAt", "updatedAt", "ACL"];

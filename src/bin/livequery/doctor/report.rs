//! The result of a check, and how it is reported. It knows nothing about single checks.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::json;

use crate::exit::{Failure, shell_words};
use crate::line::harmless;

/// The result of one step.
pub(crate) struct Finding {
    step: &'static str,
    outcome: Outcome,
    text: String,
    cure: Option<String>,
}

enum Outcome {
    Good,
    /// It could not be checked, which is not a fault.
    Unknown,
    /// With its name, which scripts can rely on.
    Fault(&'static str),
}

/// The checks end at the first fault.
pub(crate) type Step<T> = Result<T, Finding>;

impl Finding {
    pub(crate) fn good(step: &'static str, text: impl Into<String>) -> Self {
        Self {
            step,
            outcome: Outcome::Good,
            text: text.into(),
            cure: None,
        }
    }

    pub(crate) fn unknown(step: &'static str, text: impl Into<String>) -> Self {
        Self {
            step,
            outcome: Outcome::Unknown,
            text: text.into(),
            cure: None,
        }
    }

    pub(crate) fn fault(
        step: &'static str,
        name: &'static str,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            step,
            outcome: Outcome::Fault(name),
            text: text.into(),
            cure: Some(cure.into()),
        }
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let (outcome, fault) = match self.outcome {
            Outcome::Good => ("ok", None),
            Outcome::Unknown => ("unknown", None),
            Outcome::Fault(name) => ("fault", Some(name)),
        };
        let mut line = json!({ "step": self.step, "outcome": outcome, "text": shell_words(&self.text) });
        if let Some(name) = fault {
            line["fault"] = name.into();
        }
        if let Some(cure) = &self.cure {
            line["cure"] = shell_words(cure).into();
        }
        line.to_string()
    }

    /// For people: the mark, the step, the result, and below it what to do.
    pub(crate) fn text(&self) -> String {
        let (mark, colour) = match self.outcome {
            Outcome::Good => ("ok", AnsiColor::Green),
            Outcome::Unknown => ("?", AnsiColor::Yellow),
            Outcome::Fault(_) => ("FAULT", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into())).bold();
        let indent = " ".repeat(INDENT);
        let mut text = wrapped(&harmless(&shell_words(&self.text)), &indent);
        if let Some(cure) = &self.cure {
            text = format!(
                "{text}\n\n{indent}What to do:\n{indent}{}\n",
                wrapped(&shell_words(cure), &indent)
            );
        }
        format!("{style}{mark:<5}{style:#}  {:<13} {text}", self.step)
    }

    /// One line, for when others use the screen.
    pub(crate) fn summary(&self) -> Option<String> {
        let cure = self.cure.as_ref()?;
        let line = format!("{}: {} {}", self.step, self.text, cure.replace('\n', " "));
        Some(shell_words(&line))
    }

    /// Prints it.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn print(&self, is_json: bool) -> Result<(), Failure> {
        let line = if is_json { self.json() } else { self.text() };
        let mut stdout = anstream::stdout().lock();
        match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::NotWritten(error)),
            _ => Ok(()),
        }
    }
}

/// Lines that fit, the second and later ones indented.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join(&format!("\n{indent}"))
}

/// The width of the mark and the step.
const INDENT: usize = 21;
const WIDTH: usize = 78;

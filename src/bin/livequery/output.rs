//! Where lines go: events to standard output, everything else to standard error; on a terminal, the last line
//! shows the state of the connection.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anstyle::Style;
use parse_livequery::{Client, Date, Event};

use crate::ending::End;
use crate::line;

pub(crate) struct Output {
    json: bool,
    /// Whether standard error can be overwritten.
    terminal: bool,
    ended: Sender<End>,
    /// The text in the line of the state.
    status: Mutex<Option<String>>,
}

impl Output {
    /// An output that reports when it has no reader any more.
    pub(crate) fn new(json: bool, ended: Sender<End>) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            terminal: io::stderr().is_terminal() && !dumb,
            ended,
            status: Mutex::new(None),
        }
    }

    /// Prints an event, if it is to be printed.
    pub(crate) fn event(&self, event: &Event) {
        let line = if self.json {
            line::json(event)
        } else {
            line::text(event)
        };
        if let Some(line) = line {
            self.line(&line);
        }
    }

    /// Prints a line on standard output.
    pub(crate) fn line(&self, line: &str) {
        let status = self.lock();
        self.erase(&status);
        let mut stdout = anstream::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        drop(stdout);
        self.draw(&status);
        drop(status);
        if let Err(error) = written {
            let end = match error.kind() {
                io::ErrorKind::BrokenPipe => End::ReaderGone,
                _ => End::NotWritten(error),
            };
            // If main has already left, it no longer listens.
            let _ = self.ended.send(end);
        }
    }

    /// Shows the state of the connection, until the next one or [`say`](Self::say).
    pub(crate) fn status(&self, text: &str) {
        let mut status = self.lock();
        self.erase(&status);
        *status = Some(line::harmless(text));
        if self.terminal {
            self.draw(&status);
        } else {
            print_error(text);
        }
    }

    /// Prints a message that stays, and clears the state shown.
    pub(crate) fn say(&self, text: &str) {
        let mut status = self.lock();
        self.erase(&status);
        *status = None;
        print_error(text);
    }

    /// Clears the state shown. It does not wait for a line that is not read.
    pub(crate) fn clear(&self) {
        if let Ok(mut status) = self.status.try_lock() {
            self.erase(&status);
            *status = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The sequences bypass the filter for colours, which is a different matter. A terminal that is gone does
    // not matter here.

    fn erase(&self, status: &Option<String>) {
        if self.terminal && status.is_some() {
            let _ = write!(io::stderr(), "\r{ERASE_LINE}");
        }
    }

    fn draw(&self, status: &Option<String>) {
        if let (true, Some(text)) = (self.terminal, status) {
            let mut stderr = io::stderr();
            let _ = write!(stderr, "{NO_WRAP}… {text}{WRAP}").and_then(|()| stderr.flush());
        }
    }
}

/// The time, for JSON.
pub(crate) fn now() -> String {
    Date::from(SystemTime::now()).to_string()
}

/// Shows the state of the connection from now on, and reports when it cannot continue.
pub(crate) fn tell_state(client: &Client, output: &Arc<Output>, ended: Sender<End>) {
    let out = Arc::clone(output);
    client.on("reconnecting", move |event| {
        let cause = event
            .error()
            .map_or_else(String::new, |error| format!(": {error}"));
        out.status(&format!(
            "reconnecting, attempt {} in {:.1?}{cause}",
            event.attempt().unwrap_or_default(),
            event.delay().unwrap_or_default(),
        ));
    });
    // This listener also gets the errors of the subscription.
    let out = Arc::clone(output);
    client.on("error", move |event| match event.error() {
        // Main reports it when the line is free. If it has left, it no longer listens.
        Some(error) if error.is_fatal() => drop(ended.send(End::Refused(error.clone()))),
        Some(error) => out.say(&format!("error: {error}")),
        None => {}
    });
}

fn print_error(text: &str) {
    let dim = Style::new().dimmed();
    let _ = writeln!(
        anstream::stderr(),
        "{dim}{}  {}{dim:#}",
        line::clock(),
        line::harmless(text)
    );
}

const ERASE_LINE: &str = "\x1b[K";
/// Text that does not fit the width is cut: a second line would not be erased.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

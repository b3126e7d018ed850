//! Follows a query in the terminal, like `tail -f` a file: one line per event.
//!
//! `cargo run --example tail -- --server ws://localhost:1337/parse --app-id APP_ID Game` does it; `--help` tells the
//! rest. It is a tool to keep (`cargo install --path . --example tail --features test-server`), and an example of a
//! program that runs until it is told to stop, and says why it did.

mod arguments;
mod line;
mod output;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use clap::Parser;
use parse_livequery::{Client, ErrorKind, Query, Subscription};

use arguments::Arguments;
use output::Output;

/// Why the program ends.
enum End {
    /// Ctrl-C, or another request to end.
    Interrupted,
    /// Whoever read the pipe has read enough.
    ReaderGone,
    /// The connection or the subscription cannot go on.
    Refused(parse_livequery::Error),
    NotWritten(std::io::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let query = arguments
        .query()
        .unwrap_or_else(|error| arguments::refuse(&error));
    let client = arguments
        .client()
        .unwrap_or_else(|error| arguments::refuse(&error));

    let (ended, ends) = mpsc::channel();
    let output = Arc::new(Output::new(arguments.json, ended.clone()));
    if let Err(error) = end_on_request(ended.clone()) {
        output.say(&format!("Ctrl-C will end this without a farewell: {error}"));
    }
    end_without_reader(ended.clone());

    output.status(&format!("connecting to {}", arguments.server));
    let subscription =
        follow(&client, &query, &output, ended).unwrap_or_else(|error| arguments::refuse(&error));

    let end = ends.recv().unwrap_or(End::Interrupted);
    subscription.unsubscribe();
    // Takes no more than two seconds, even if a listener waits for a pipe that nobody reads.
    client.close();
    let (reason, code) = match end {
        End::Interrupted | End::ReaderGone => (None, 0),
        End::Refused(error) if error.kind() == ErrorKind::GaveUp => (Some(error.to_string()), 3),
        End::Refused(error) => (Some(error.to_string()), 1),
        End::NotWritten(error) => (Some(format!("the output cannot be written: {error}")), 4),
    };
    output.end(reason.map(|reason| format!("error: {reason}")).as_deref());
    ExitCode::from(code)
}

/// Subscribes, with listeners that print. They run on the dispatch thread, so if the terminal or the pipe is slow it is
/// the library's queue that fills, and says so; memory does not.
fn follow(
    client: &Client,
    query: &Query,
    output: &Arc<Output>,
    ended: Sender<End>,
) -> parse_livequery::Result<Subscription> {
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
    // It hears of the errors of the subscription too.
    let out = Arc::clone(output);
    client.on("error", move |event| match event.error() {
        // Main says it, when the line is free. It has left if it does not listen.
        Some(error) if error.is_fatal() => drop(ended.send(End::Refused(error.clone()))),
        Some(error) => out.say(&format!("error: {error}")),
        None => {}
    });
    let out = Arc::clone(output);
    let class = query.class_name().to_owned();
    client
        .subscription(query)
        .on_open(move |_| out.say(&format!("following {class}")))
        .on_any({
            let out = Arc::clone(output);
            move |event| out.event(event)
        })
        .subscribe()
}

fn end_on_request(ended: Sender<End>) -> Result<(), ctrlc::Error> {
    // Main has left already if it does not listen.
    ctrlc::set_handler(move || drop(ended.send(End::Interrupted)))
}

/// Notices that the reader of the pipe has left, as in `tail .. | head -1`, when it leaves: the next event, which could
/// not be written, may be hours away.
#[cfg(unix)]
fn end_without_reader(ended: Sender<End>) {
    use std::io::{self, IsTerminal};
    use std::os::fd::AsRawFd;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    fn wait() -> io::Result<()> {
        let mut poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&io::stdout().as_raw_fd()),
            Token(0),
            Interest::WRITABLE,
        )?;
        let mut events = Events::with_capacity(1);
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
            if events
                .iter()
                .any(|event| event.is_error() || event.is_write_closed())
            {
                return Ok(());
            }
        }
    }

    // A terminal that goes away sends a signal.
    if !io::stdout().is_terminal() {
        std::thread::spawn(move || {
            // It fails for a file, which has no reader.
            if wait().is_ok() {
                let _ = ended.send(End::ReaderGone);
            }
        });
    }
}

#[cfg(not(unix))]
fn end_without_reader(_: Sender<End>) {}

//! What ends a command that runs until it is stopped. It knows nothing about single commands.

use std::sync::mpsc::Sender;

use parse_livequery::ErrorKind;

use crate::exit::Failure;

/// Why the program ends.
pub(crate) enum End {
    /// Ctrl-C, or another request to end.
    Interrupted,
    /// The reader of the pipe has left.
    ReaderGone,
    /// The connection or the subscription cannot continue.
    Refused(parse_livequery::Error),
    NotWritten(std::io::Error),
    /// A command that `on` ran has failed.
    CommandFailed(String),
}

impl End {
    /// The result of the program.
    pub(crate) fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Interrupted | Self::ReaderGone => Ok(()),
            Self::Refused(error) if error.kind() == ErrorKind::GaveUp => {
                Err(Failure::Unreachable(error.to_string()))
            }
            Self::Refused(error) => Err(Failure::Refused(Some(error.to_string()))),
            Self::NotWritten(error) => Err(Failure::NotWritten(error)),
            Self::CommandFailed(text) => Err(Failure::CommandFailed(text)),
        }
    }
}

/// Ends the program on Ctrl-C, SIGTERM and SIGHUP.
pub(crate) fn end_on_request(ended: Sender<End>) -> Result<(), ctrlc::Error> {
    // If main has already left, it no longer listens.
    ctrlc::set_handler(move || drop(ended.send(End::Interrupted)))
}

/// Notices that the reader of the pipe has left, as in `tail .. | head -1`, as soon as it leaves: the next
/// event, which could not be written, may be hours away.
#[cfg(unix)]
pub(crate) fn end_without_reader(ended: Sender<End>) {
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

    // A terminal that is closed sends a signal.
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
pub(crate) fn end_without_reader(_: Sender<End>) {}

//! Why a command ends, and the exit codes of the program. It knows nothing about single commands.

use std::io;

use parse_livequery::{Error, ErrorKind};

/// Why a command ends before its work is done.
pub(crate) enum Failure {
    /// The server refused, or `doctor` found a fault. Without a text, it has already been reported.
    Refused(Option<String>),
    /// Wrong arguments or settings, or a query that LiveQuery cannot answer.
    Usage(String),
    /// The server cannot be reached.
    Unreachable(String),
    NotWritten(io::Error),
    /// A command that `on` ran has failed, and `--stop-on-failure` was given.
    CommandFailed(String),
}

impl Failure {
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotWritten(_) => 4,
            Self::CommandFailed(_) => 5,
        }
    }

    /// The message. `None` if there is none: the reader of the pipe has left.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Refused(text) => text.clone(),
            Self::Usage(text) | Self::Unreachable(text) | Self::CommandFailed(text) => Some(text.clone()),
            Self::NotWritten(error) => Some(format!("the output cannot be written: {error}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::InvalidQuery | ErrorKind::InvalidSetting | ErrorKind::InvalidValue => {
                Self::Usage(text)
            }
            // A reverse proxy answers in the server's place, without an error code of Parse.
            ErrorKind::Server | ErrorKind::Refused | ErrorKind::Protocol => Self::Refused(Some(text)),
            _ => Self::Unreachable(text),
        }
    }
}

/// Replaces names of the library, which are for programmers, with those of the shell.
pub(crate) fn shell_words(text: &str) -> String {
    let words = [
        ("`ClientBuilder::rest_url`", "--rest-url"),
        ("`rest_url`", "--rest-url"),
        ("`add_root_certificate`", "--ca"),
        ("`parse_server`", "--parse-server"),
        ("`ClientBuilder::proxy`", "--proxy"),
        ("`proxy`", "--proxy"),
        ("`raw_where`", "--raw-where"),
    ];
    words.iter().fold(text.to_owned(), |text, (method, option)| {
        text.replace(method, option)
    })
}

/// A chapter of the help.
pub(crate) const CODES: &str = "\
Exit codes:
  0  done; or ended by Ctrl-C or SIGTERM, or because the reader of the pipe has left
  1  the server refused the connection, the subscription or the call, or doctor found a fault
  2  wrong arguments or settings, or a query that LiveQuery cannot answer
  3  the server cannot be reached
  4  the output cannot be written
  5  a command that `on` ran has failed, and --stop-on-failure was given";

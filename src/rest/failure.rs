//! Why a request failed: the error to show, whether it may have been executed nevertheless, and whether to
//! retry it. It does not know which call made the request.

use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, ErrorKind};
use crate::rest::stage::Stage;
use crate::text::excerpt;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// It may have been executed nevertheless.
    pub(super) is_uncertain: bool,
    /// The cause may pass, so that the same request succeeds later.
    pub(super) passes: bool,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// The status of the answer.
    pub(super) status: Option<u16>,
}

/// An answer other than the expected one.
pub(super) struct Refusal<'a> {
    /// The server's name, and its task: "create an object of Game".
    pub(super) server: &'a str,
    pub(super) purpose: &'a str,
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a str,
}

#[derive(Deserialize)]
struct Failed {
    code: Option<i64>,
    /// A cloud function may throw any value.
    #[serde(alias = "message")]
    error: Option<serde_json::Value>,
}

impl Failure {
    /// The next attempt would fail in the same way.
    pub(super) fn lasting(error: Error) -> Self {
        Self {
            error,
            is_uncertain: false,
            passes: false,
            retry_after: None,
            status: None,
        }
    }

    /// No answer came.
    pub(super) fn unanswered(
        server: &str,
        purpose: &str,
        stage: Stage,
        is_proxied: bool,
        error: ureq::Error,
    ) -> Self {
        let kind = kind_of(&error, stage, is_proxied);
        let is_sent = stage == Stage::Sent;
        let text = if is_sent {
            format!("{server} was asked to {purpose}, but no answer came")
        } else {
            format!("{server} could not be asked to {purpose}")
        };
        let passes = kind != ErrorKind::InvalidValue;
        Self {
            error: Error::with_source(kind, text, error),
            is_uncertain: is_sent,
            passes,
            retry_after: None,
            status: None,
        }
    }

    pub(super) fn refused(refusal: &Refusal<'_>) -> Self {
        let Refusal {
            server,
            purpose,
            status,
            retry_after,
            body,
        } = *refusal;
        let failed: Option<Failed> = serde_json::from_str(body).ok();
        let (code, reason) = match failed {
            Some(Failed { code, error }) => (code, error.map_or_else(String::new, text_of)),
            None => (None, excerpt(body).into_owned()),
        };
        let advice = match (status, code) {
            (300..=399, _) => "; it redirects: set the right URL with `ClientBuilder::rest_url`",
            (_, Some(209)) => "; the session token is no longer valid: log in again",
            (401 | 403, None) => {
                "; check the application id and the keys: one of them must be among those of the server"
            }
            (_, Some(119)) => "; the class-level permissions do not allow it",
            (404 | 405, None) => {
                "; is this the URL of the REST API? `ClientBuilder::rest_url` sets another one"
            }
            _ => "",
        };
        let text = format!("{server} did not {purpose}: HTTP {status}: {reason}{advice}");
        let error = match (status, code) {
            (_, Some(code)) => Error::server(ErrorKind::Server, code, text),
            (401 | 403, None) => Error::new(ErrorKind::Refused, text),
            (408 | 413 | 425 | 429 | 500.., None) => Error::new(ErrorKind::Server, text),
            _ => Error::new(ErrorKind::Protocol, text),
        };
        // A gateway does not know what the server behind it has done, nor does a server that crashed. One
        // that says when to come back has not begun.
        let is_uncertain =
            matches!(status, 408 | 500 | 502 | 504..) || status == 503 && retry_after.is_none();
        Self {
            error,
            is_uncertain,
            passes: matches!(status, 408 | 425 | 429 | 500..),
            retry_after,
            status: Some(status),
        }
    }

    /// The answer is a success that cannot be read.
    pub(super) fn unreadable(server: &str, purpose: &str, answer: &str, error: serde_json::Error) -> Self {
        let text = format!(
            "{server} was asked to {purpose}, but its answer is not one of Parse Server: {}; is this the URL of the \
             REST API? `ClientBuilder::rest_url` sets another one",
            excerpt(answer)
        );
        Self {
            error: Error::with_source(ErrorKind::Protocol, text, error),
            is_uncertain: true,
            passes: true,
            retry_after: None,
            status: None,
        }
    }
}

fn text_of(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn kind_of(error: &ureq::Error, stage: Stage, is_proxied: bool) -> ErrorKind {
    match error {
        ureq::Error::Timeout(_) => ErrorKind::Timeout,
        ureq::Error::HostNotFound => ErrorKind::Resolve,
        ureq::Error::ConnectProxyFailed(_) => ErrorKind::Proxy,
        ureq::Error::Tls(_) => ErrorKind::Tls,
        #[cfg(feature = "_tls")]
        ureq::Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            ErrorKind::Tls
        }
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => match stage {
            Stage::Sent => ErrorKind::ConnectionLost,
            _ if is_proxied => ErrorKind::Proxy,
            Stage::Resolving => ErrorKind::Resolve,
            Stage::Connecting => ErrorKind::Connect,
        },
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => ErrorKind::InvalidValue,
        _ => ErrorKind::Protocol,
    }
}

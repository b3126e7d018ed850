//! The sent frames: the one place that knows how they are spelled. Must not know of answers.

use serde::Serialize;
use serde_json::value::RawValue;

use super::spec::{Credentials, Spec};
use crate::error::{Error, ErrorKind, Result};
use crate::query::version::Probe;
use crate::secret::Secret;

/// The names by which the server expects selected fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `keys` and `watch`: Parse Server 6.1 and later.
    Keys,
    /// `fields`, and no `watch`: older servers.
    Fields,
}

impl Dialect {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Keys => Self::Fields,
            Self::Fields => Self::Keys,
        }
    }
}

/// The operations on a subscription that name a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Subscribe,
    Update,
}

// The server's schema (Parse Server 9.10, RequestSchema.js) refuses `null` and unknown members, so absent
// members are left out.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connect<'a> {
    op: &'static str,
    application_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    javascript_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows_key: Option<&'a str>,
    #[serde(rename = "restAPIKey", skip_serializing_if = "Option::is_none")]
    rest_api_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    installation_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe<'a> {
    op: Operation,
    request_id: u64,
    query: Query<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Query<'a> {
    class_name: &'a str,
    r#where: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<&'a RawValue>,
}

/// Whether the installation id is part of `connect`. Parse Server before 3.10 refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstallationId {
    Sent,
    LeftOut,
}

pub(crate) fn connect(credentials: &Credentials, installation_id: InstallationId) -> Result<String> {
    to_text(&Connect {
        op: "connect",
        application_id: &credentials.application_id,
        javascript_key: reveal(credentials.javascript_key.as_ref()),
        client_key: reveal(credentials.client_key.as_ref()),
        windows_key: reveal(credentials.windows_key.as_ref()),
        rest_api_key: reveal(credentials.rest_api_key.as_ref()),
        master_key: reveal(credentials.master_key.as_ref()),
        session_token: reveal(credentials.session_token.as_ref()),
        installation_id: match installation_id {
            InstallationId::Sent => credentials.installation_id.as_deref(),
            InstallationId::LeftOut => None,
        },
    })
}

/// A subscription. `other_where` replaces the `where` of the specification, if this server needs
/// another.
pub(crate) fn subscribe(
    operation: Operation,
    request_id: u64,
    spec: &Spec,
    other_where: Option<&str>,
    credentials: &Credentials,
    dialect: Dialect,
) -> Result<String> {
    let query = &spec.query;
    let keys = query.keys.as_deref().map(raw).transpose()?;
    let (keys, fields, watch) = match dialect {
        Dialect::Keys => (keys, None, query.watch.as_deref().map(raw).transpose()?),
        Dialect::Fields => (None, keys, None),
    };
    let session_token = spec.session_token.as_ref().or(credentials.session_token.as_ref());
    to_text(&Subscribe {
        op: operation,
        request_id,
        query: Query {
            class_name: &query.class_name,
            r#where: raw(other_where.unwrap_or(&query.where_json))?,
            keys,
            fields,
            watch,
        },
        session_token: reveal(session_token),
    })
}

/// The probe for the server's version. No subscription has its `requestId` and class, in case a server
/// accepts it as a subscription.
pub(crate) fn probe(request_id: u64, probe: Probe) -> String {
    let member = probe.member();
    format!(
        r#"{{"op":"subscribe","requestId":{request_id},"query":{{"className":"_","where":{{}},"{member}":[]}}}}"#
    )
}

pub(crate) fn unsubscribe(request_id: u64) -> String {
    format!(r#"{{"op":"unsubscribe","requestId":{request_id}}}"#)
}

fn reveal(secret: Option<&Secret>) -> Option<&str> {
    secret.map(Secret::reveal)
}

fn raw(json: &str) -> Result<&RawValue> {
    serde_json::from_str(json).map_err(not_encoded)
}

fn to_text(frame: &impl Serialize) -> Result<String> {
    serde_json::to_string(frame).map_err(not_encoded)
}

fn not_encoded(error: serde_json::Error) -> Error {
    Error::with_source(
        ErrorKind::InvalidQuery,
        "the query cannot be written as JSON",
        error,
    )
}

//! `doctor`: checks every step from the name of the server to an event, and stops at the first fault. It
//! knows the order of the steps, not what they do.

mod access;
mod link;
mod report;
mod round_trip;
mod way;

use clap::Args;
use parse_livequery::Query;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use crate::exit::Failure;
use crate::filter::{self, Filter};
use crate::settings::{Role, SecretName, Settings};
use report::{Finding, Step};
use round_trip::Trip;

/// Finds out why no events arrive, and says what to do
///
/// It checks every step: name, addresses, TCP, TLS, proxy, WebSocket, keys, REST API, session, class,
/// subscription. It stops at the first fault. With --write it then creates an object of the class, changes it
/// and deletes it again, and checks who gets the events: only that tells whether the server sends any.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Options {
    /// The class; without one, the checks end with the session
    class: Option<String>,

    /// Only objects that match these conditions, written as in Parse's REST API
    #[arg(long = "where", value_name = "JSON", value_parser = filter::json, requires = "class")]
    condition: Option<Box<RawValue>>,

    /// Try a round trip: create an object of the class, change it, and delete it
    #[arg(long, requires = "class")]
    write: bool,

    /// The fields of that object
    #[arg(
        long,
        value_name = "JSON",
        requires = "write",
        default_value = "{}",
        hide_default_value = true
    )]
    data: String,

    /// Print JSON lines: {"step":..,"outcome":"ok"|"unknown"|"fault","text":..,"fault":..,"cure":..}
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The names of the faults, in the JSON lines:
  name tcp-refused tcp-silent tls tls-setup tls-expired tls-not-yet tls-name tls-untrusted tls-none tls-port proxy
  upgrade connection silent key connect-hook application-id rest-address rest-down rest-unreachable route-allow-list
  session session-token clp query regex-forbidden subscription subscribe-hook stand-alone data write-refused acl
  permissions hook hook-throws buffers router master-key two-processes nothing-sent settings

Example:
  livequery doctor Game --write --data '{\"name\": \"a test\"}'";

impl Options {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let filter = self
            .class
            .clone()
            .map(|class| Filter::new(class, self.condition.clone()));
        let query = filter.map(|filter| filter.query()).transpose()?;
        if let Some(query) = &query {
            query.live_query_where()?;
        }
        let fields: Value = serde_json::from_str(&self.data)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| Failure::Usage("--data is not a JSON object".to_owned()))?;
        // Invalid settings are a usage error, as everywhere.
        settings.builder(Role::Configured).build()?;
        let mut printed = Ok(());
        let mut tell = |finding: Finding| {
            if printed.is_ok() {
                printed = finding.print(self.json);
            }
        };
        let result = walk(settings, query.as_ref(), self.write.then_some(&fields), &mut tell);
        printed?;
        match result {
            Ok(()) => Ok(()),
            Err(fault) => {
                fault.print(self.json)?;
                Err(Failure::Refused(None))
            }
        }
    }
}

/// Explains why a connected subscription gets no events: returns the first fault, if one is visible from
/// here.
pub(crate) fn glance(settings: &Settings, query: &Query) -> Option<String> {
    let mut quiet = |_| {};
    let fault = session(settings, &mut quiet)
        .and_then(|_| roles(settings, query, &mut quiet))
        .err();
    fault?.summary()
}

fn walk(
    settings: &Settings,
    query: Option<&Query>,
    fields: Option<&Value>,
    tell: &mut dyn FnMut(Finding),
) -> Step<()> {
    let url = Url::parse(&settings.server).map_err(|error| {
        Finding::fault(
            "settings",
            "settings",
            format!("The URL is not valid: {error}."),
            "See `livequery --help`.",
        )
    })?;
    let is_secure = matches!(url.scheme(), "wss" | "https");
    let address = if settings.may_have_proxy(&url) {
        tell(Finding::unknown(
            "proxy",
            "there may be a proxy in between, so name, addresses and certificate are checked by the connection \
             itself",
        ));
        None
    } else {
        let addresses = way::name(&url, tell)?;
        let address = way::tcp(&addresses, tell)?;
        if is_secure {
            way::tls(address, &url, settings.ca.as_deref(), tell)?;
        }
        Some(address)
    };
    link::connect(settings, &url, address.filter(|_| !is_secure), tell)?;
    access::rest(settings, tell)?;
    let user = session(settings, tell)?;
    let Some(query) = query else {
        tell(Finding::unknown(
            "class",
            "no class was given: `livequery doctor CLASS` continues from here",
        ));
        return Ok(());
    };
    let roles = roles(settings, query, tell)?;

    let listeners = roles
        .iter()
        .map(|role| link::subscribe(settings, *role, query))
        .collect::<Step<Vec<_>>>()?;
    let names = roles.iter().map(Role::to_string).collect::<Vec<_>>().join(", ");
    tell(Finding::good("subscription", format!("acknowledged for {names}")));
    let result = match fields {
        None => {
            tell(Finding::unknown(
                "round trip",
                "not tried whether events arrive: the server acknowledges a subscription even if it sends \
                 nothing. --write tries it, with an object of the class that is deleted again",
            ));
            Ok(())
        }
        Some(fields) => {
            let writers: Vec<Role> = [Role::User, Role::Public, Role::Master]
                .into_iter()
                .filter(|role| roles.contains(role) || *role == Role::Public)
                .collect();
            let trip = Trip {
                settings,
                query,
                fields,
                user: user.as_deref(),
                writers: &writers,
            };
            trip.run(&listeners, tell)
        }
    };
    listeners.into_iter().for_each(link::Listener::end);
    result
}

/// The user of the session token, if there is one.
fn session(settings: &Settings, tell: &mut dyn FnMut(Finding)) -> Step<Option<String>> {
    let has_token = settings.has(SecretName::SessionToken);
    has_token.then(|| access::session(settings, tell)).transpose()
}

/// The roles in which to listen.
fn roles(settings: &Settings, query: &Query, tell: &mut dyn FnMut(Finding)) -> Step<Vec<Role>> {
    let mut roles = vec![Role::Public];
    if settings.has(SecretName::SessionToken) {
        roles.push(Role::User);
    }
    if settings.has(SecretName::MasterKey) {
        roles.push(Role::Master);
    }
    access::class(settings, &roles, query, tell)
}

//! The calls of the REST API, one command each, JSON in and JSON lines out. It knows nothing about live
//! connections.

use std::io::{self, IsTerminal, Read, Write};

use clap::Args;
use parse_livequery::Object;
use parse_livequery::rest::Rest;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::filter::{self, Filter, Order};
use crate::settings::{Role, Settings, prompt};

/// Finds objects, and prints each as a line of JSON
#[derive(Args)]
pub(crate) struct Find {
    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    order: Order,

    /// At most this many; the server's own limit is 100
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Skip this many at the beginning
    #[arg(long, value_name = "N")]
    skip: Option<u64>,

    /// Only these fields of the objects
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    select: Vec<String>,

    /// Include the objects that these pointers point to
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    include: Vec<String>,

    /// Print only how many there are
    #[arg(long)]
    count: bool,
}

/// Prints an object
#[derive(Args)]
pub(crate) struct Get {
    /// Its class
    class: String,
    /// Its id
    id: String,
}

/// Creates an object, and prints the result
#[derive(Args)]
pub(crate) struct Create {
    /// Its class
    class: String,
    /// Its fields; from standard input if it is `-` or missing
    #[arg(value_name = "JSON", default_value = "-", hide_default_value = true)]
    fields: String,
}

/// Changes fields of an object, and prints the result
#[derive(Args)]
pub(crate) struct Update {
    /// Its class
    class: String,
    /// Its id
    id: String,
    /// The fields, or operations such as {"score": {"__op": "Increment", "amount": 1}}; from standard input
    /// if it is `-` or missing
    #[arg(value_name = "JSON", default_value = "-", hide_default_value = true)]
    fields: String,
}

/// Deletes an object
#[derive(Args)]
pub(crate) struct Delete {
    /// Its class
    class: String,
    /// Its id
    id: String,
}

/// Calls a Cloud Code function, and prints its result
#[derive(Args)]
pub(crate) struct Call {
    /// Its name
    function: String,
    /// Its parameters; from standard input if it is `-` [default: {}]
    #[arg(value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
}

/// Logs in, and prints the session token
///
/// The password comes from PARSE_PASSWORD, from a prompt, or from the first line of standard input.
#[derive(Args)]
#[command(after_help = "Example:\n  export PARSE_SESSION_TOKEN=$(livequery login ann)")]
pub(crate) struct Login {
    /// The name of the user
    user: String,
    /// Print the user as well, as JSON
    #[arg(long)]
    json: bool,
}

impl Find {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let mut query = self.order.of(self.filter.query()?);
        if let Some(limit) = self.limit {
            query = query.limit(limit);
        }
        if let Some(skip) = self.skip {
            query = query.skip(skip);
        }
        if !self.select.is_empty() {
            query = query.select(&self.select);
        }
        if !self.include.is_empty() {
            query = query.include(&self.include);
        }
        let rest = rest(settings)?;
        if self.count {
            return print([rest.count(&query)?]);
        }
        print(rest.find(&query)?.iter().map(Object::as_json))
    }
}

impl Get {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        print([rest(settings)?.get(&self.class, &self.id)?])
    }
}

impl Create {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let fields = input(&self.fields)?;
        print([rest(settings)?.create(&self.class, &fields)?])
    }
}

impl Update {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let fields = input(&self.fields)?;
        print([rest(settings)?.update(&self.class, &self.id, &fields)?])
    }
}

impl Delete {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        Ok(rest(settings)?.delete(&self.class, &self.id)?)
    }
}

impl Call {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let params = input(&self.params)?;
        print([rest(settings)?.call::<Value>(&self.function, &params)?])
    }
}

impl Login {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let password = match std::env::var("PARSE_PASSWORD") {
            Ok(password) if !password.is_empty() => password,
            _ => prompt("password")?,
        };
        let session = rest(settings)?.log_in(&self.user, &password)?;
        if self.json {
            print([json!({ "sessionToken": session.token(), "user": session.user() })])
        } else {
            print([session.token()])
        }
    }
}

fn rest(settings: &Settings) -> Result<Rest, Failure> {
    // The handle does not need the client, which has no connection to close.
    Ok(settings.builder(Role::Configured).build()?.rest())
}

fn input(argument: &str) -> Result<Box<RawValue>, Failure> {
    let mut text = argument.to_owned();
    if argument == "-" {
        if io::stdin().is_terminal() {
            eprintln!("reading JSON from the keyboard; end it with Ctrl-D");
        }
        text.clear();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::Usage(format!("standard input cannot be read: {error}")))?;
    }
    filter::json(&text).map_err(|error| Failure::Usage(format!("this is not valid JSON: {error}")))
}

fn print(lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = lines
        .into_iter()
        .try_for_each(|line| writeln!(stdout, "{line}"))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::NotWritten(error)),
        _ => Ok(()),
    }
}

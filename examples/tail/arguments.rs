//! The command line: what it takes, and what it makes of it. Knows nothing of events.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser};
use parse_livequery::{Client, Query, Result};
use serde::Serialize;
use serde_json::value::RawValue;

/// Follows a Parse LiveQuery: one line per event, until Ctrl-C.
///
/// Each line has the time, the kind (create, update, enter, leave, delete), the object's id and what changed. The line
/// `gap` says how long the link was down: what happened meanwhile was missed. The line `lagged` says how many events
/// were dropped since they were not read fast enough. All of these go to standard output, and everything else, the
/// state of the connection above all, to standard error.
#[derive(Parser)]
#[command(name = "tail", after_long_help = AFTER_HELP, after_help = "--help tells of exit codes and examples")]
pub(crate) struct Arguments {
    /// The class to follow
    class: String,

    /// The LiveQuery server: wss://host/path or ws://host:port/path
    #[arg(long, value_name = "URL", env = "PARSE_SERVER_URL")]
    pub(crate) server: String,

    /// The application id
    #[arg(long, value_name = "ID", env = "PARSE_APPLICATION_ID")]
    app_id: String,

    /// Only objects that meet these conditions, written as in Parse's REST API
    ///
    /// They mean what they mean in a query to the database, or are refused: the server's LiveQuery matcher disagrees
    /// with its database in places, and is asked in a form that it gets right.
    #[arg(long = "where", value_name = "JSON", value_parser = json)]
    condition: Option<Box<RawValue>>,

    /// The same, but sent to the server's matcher as it is, for those who know it
    #[arg(long, value_name = "JSON", value_parser = json, conflicts_with = "condition")]
    raw_where: Option<Box<RawValue>>,

    /// Only these fields of the objects
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    select: Vec<String>,

    /// No update unless one of these fields has changed
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    watch: Vec<String>,

    /// Print JSON lines, with whole objects
    #[arg(long)]
    pub(crate) json: bool,

    /// Give up when so many attempts to connect have failed in a row [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,

    #[command(flatten)]
    secrets: Secrets,
}

/// Better given by the environment: other users of the machine can read the command line.
#[derive(Args)]
#[command(next_help_heading = "Secrets (rather in the environment: everybody can read the command line)")]
struct Secrets {
    /// The JavaScript key
    #[arg(
        long,
        value_name = "KEY",
        env = "PARSE_JAVASCRIPT_KEY",
        hide_env_values = true
    )]
    javascript_key: Option<String>,

    /// The client key
    #[arg(long, value_name = "KEY", env = "PARSE_CLIENT_KEY", hide_env_values = true)]
    client_key: Option<String>,

    /// The REST API key
    #[arg(long, value_name = "KEY", env = "PARSE_REST_API_KEY", hide_env_values = true)]
    rest_api_key: Option<String>,

    /// The master key: all objects, whatever their ACL
    #[arg(long, value_name = "KEY", env = "PARSE_MASTER_KEY", hide_env_values = true)]
    master_key: Option<String>,

    /// The session token of the user in whose name to read
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PARSE_SESSION_TOKEN",
        hide_env_values = true
    )]
    session_token: Option<String>,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  ended by Ctrl-C or SIGTERM, or since the reader of the pipe has left
  1  the server refused the connection or the subscription
  2  wrong arguments, or a query that LiveQuery cannot serve
  3  gave up connecting (--max-attempts)
  4  the output cannot be written

Colours are for terminals; NO_COLOR=1 turns them off, and CLICOLOR_FORCE=1 on for pipes.

JSON lines:
  {\"time\":\"2024-01-02T03:04:05.678Z\",\"kind\":\"update\",\"id\":\"xWMyZ4YEGZ\",
   \"changed\":[\"score\"],\"object\":{..},\"original\":{..}}
  {\"time\":..,\"kind\":\"gap\",\"from\":..,\"to\":..,\"reason\":\"ConnectionLost\"}
  {\"time\":..,\"kind\":\"lagged\",\"dropped\":17}

Examples:
  export PARSE_SERVER_URL=ws://localhost:1337/parse PARSE_APPLICATION_ID=APP_ID
  tail Game
  tail Game --where '{\"score\": {\"$gt\": 10}}' --watch score
  tail Game --json | jq --unbuffered -r 'select(.kind == \"create\") | .object.name'
  first=$(tail Game --json 2>/dev/null | head -1)";

impl Arguments {
    /// # Errors
    /// Conditions that are none, and those that LiveQuery cannot serve.
    pub(crate) fn query(&self) -> Result<Query> {
        #[derive(Serialize)]
        struct RestForm<'a> {
            r#where: &'a RawValue,
        }

        let mut query = match &self.condition {
            Some(condition) => Query::from_json(&self.class, RestForm { r#where: condition })?,
            None => Query::new(&self.class),
        };
        if let Some(condition) = &self.raw_where {
            query = query.raw_where(condition);
        }
        if !self.select.is_empty() {
            query = query.select(&self.select);
        }
        if !self.watch.is_empty() {
            query = query.watch(&self.watch);
        }
        // Before anything is connected.
        query.live_query_where()?;
        Ok(query)
    }

    /// # Errors
    /// A URL that is none.
    pub(crate) fn client(&self) -> Result<Client> {
        let mut builder = Client::builder(&self.server, &self.app_id);
        // A variable that is set to nothing is as good as one that is not set.
        let given = |secret: &Option<String>| secret.clone().filter(|text| !text.is_empty());
        if let Some(key) = given(&self.secrets.javascript_key) {
            builder = builder.javascript_key(key);
        }
        if let Some(key) = given(&self.secrets.client_key) {
            builder = builder.client_key(key);
        }
        if let Some(key) = given(&self.secrets.rest_api_key) {
            builder = builder.rest_api_key(key);
        }
        if let Some(key) = given(&self.secrets.master_key) {
            builder = builder.master_key(key);
        }
        if let Some(token) = given(&self.secrets.session_token) {
            builder = builder.session_token(token);
        }
        if let Some(attempts) = self.max_attempts {
            builder = builder.max_attempts(attempts);
        }
        builder.build()
    }
}

/// Ends the program as clap does for a wrong argument: the reason on standard error, and 2.
pub(crate) fn refuse(error: &parse_livequery::Error) -> ! {
    Arguments::command()
        .error(ErrorKind::ValueValidation, error)
        .exit()
}

fn json(text: &str) -> serde_json::Result<Box<RawValue>> {
    serde_json::from_str(text)
}

//! The command line as a whole. It does not know what the commands do.

use clap::{Parser, Subcommand};

use crate::settings::{Connection, SECRETS_AND_PROFILES};
use crate::{calls, doctor, exit, on, serve, tail, watch, words};

/// Parse LiveQuery in the terminal: follow a class, find out why no events arrive, and call the server.
#[derive(Parser)]
#[command(
    name = "livequery",
    version,
    after_long_help = after_help(),
    after_help = "--help explains secrets, profiles and exit codes, with examples"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Tail(tail::Options),
    Doctor(doctor::Options),
    Watch(watch::Options),
    On(on::Options),
    Serve(serve::Options),
    Find(calls::Find),
    Get(calls::Get),
    Create(calls::Create),
    Update(calls::Update),
    Delete(calls::Delete),
    Call(calls::Call),
    Login(calls::Login),
    /// Prints completions for a shell
    #[command(hide = true)]
    Completions(words::Completions),
    /// Prints the manual page
    #[command(hide = true)]
    Man,
}

fn after_help() -> String {
    format!("{SECRETS_AND_PROFILES}\n\n{}\n\n{EXAMPLES}", exit::CODES)
}

const EXAMPLES: &str = "\
Colours are for terminals; NO_COLOR=1 turns them off, and CLICOLOR_FORCE=1 on for pipes.

Examples:
  export PARSE_SERVER_URL=ws://localhost:1337/parse PARSE_APPLICATION_ID=APP_ID
  livequery tail Game --where '{\"score\": {\"$gt\": 10}}'
  livequery doctor Game --write
  livequery watch Game --order -score --limit 10
  livequery find Game --order -score --limit 3
  livequery create Game '{\"name\": \"chess\", \"score\": 20}'

Completions and the manual page:
  livequery completions bash > ~/.local/share/bash-completion/completions/livequery
  livequery man > ~/.local/share/man/man1/livequery.1";

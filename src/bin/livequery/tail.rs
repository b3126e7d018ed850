//! `tail`: follows a query, one line per event, and ends on request. It does not know the format of a line.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use clap::Args;
use parse_livequery::{Client, Query, Subscription, SubscriptionState};
use serde_json::value::RawValue;

use crate::doctor;
use crate::ending::{End, end_on_request, end_without_reader};
use crate::exit::Failure;
use crate::filter::{self, Filter};
use crate::output::{self, Output};
use crate::settings::{Role, Settings};

/// Follows a class: one line per event, until Ctrl-C
///
/// Each line has the time, the kind (create, update, enter, leave, delete), the object's id and what changed.
/// The line `gap` says how long the connection was down: events in that time were missed. The line `lagged`
/// says how many events were dropped because they were not read fast enough. All of these go to standard
/// output; everything else, above all the state of the connection, goes to standard error.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: Filter,

    /// Conditions that are sent to the server's matcher unchanged, for experts
    #[arg(long, value_name = "JSON", value_parser = filter::json, conflicts_with = "condition")]
    raw_where: Option<Box<RawValue>>,

    /// Only these fields of the objects
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    select: Vec<String>,

    /// Print an update only if one of these fields has changed
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    watch: Vec<String>,

    /// Print JSON lines, with whole objects
    #[arg(long)]
    json: bool,

    /// Give up after this many failed attempts to connect in a row [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,

    /// Report what may be wrong after this many seconds without an event
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    silence: u64,
}

const AFTER_HELP: &str = "\
JSON lines:
  {\"time\":\"2024-01-02T03:04:05.678Z\",\"kind\":\"update\",\"id\":\"xWMyZ4YEGZ\",
   \"changed\":[\"score\"],\"object\":{..},\"original\":{..}}
  {\"time\":..,\"kind\":\"gap\",\"from\":..,\"to\":..,\"reason\":\"ConnectionLost\"}
  {\"time\":..,\"kind\":\"lagged\",\"dropped\":17}

Examples:
  livequery tail Game
  livequery tail Game --where '{\"score\": {\"$gt\": 10}}' --watch score
  livequery tail Game --json | jq --unbuffered -r 'select(.kind == \"create\") | .object.name'
  first=$(livequery tail Game --json 2>/dev/null | head -1)";

impl Options {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let query = self.query()?;
        let mut builder = settings.builder(Role::Configured);
        if let Some(attempts) = self.max_attempts {
            builder = builder.max_attempts(attempts);
        }
        let client = builder.build()?;

        let (ended, ends) = mpsc::channel();
        let output = Arc::new(Output::new(self.json, ended.clone()));
        if let Err(error) = end_on_request(ended.clone()) {
            output.say(&format!(
                "Ctrl-C will end this program without closing the connection: {error}"
            ));
        }
        end_without_reader(ended.clone());

        output.status(&format!("connecting to {}", settings.server));
        let subscription = follow(&client, &query, &output, ended)?;
        let end = match ends.recv_timeout(Duration::from_secs(self.silence)) {
            Err(RecvTimeoutError::Timeout) => {
                if subscription.stats().events.total() == 0 && subscription.state() == SubscriptionState::Open
                {
                    self.say_why(settings, query, &output);
                }
                ends.recv().unwrap_or(End::Interrupted)
            }
            end => end.unwrap_or(End::Interrupted),
        };
        subscription.unsubscribe();
        // Takes no more than two seconds, even if a listener waits for a pipe that is not read.
        client.close();
        output.clear();
        end.outcome()
    }

    /// Reports what `doctor` would report, as far as that is visible without writing.
    fn say_why(&self, settings: &Settings, query: Query, output: &Arc<Output>) {
        let (settings, output, seconds) = (settings.clone(), Arc::clone(output), self.silence);
        // The end must not wait for the server's answers.
        thread::spawn(move || {
            let class = query.class_name();
            output.say(&match doctor::glance(&settings, &query) {
                Some(fault) => format!("no event for {seconds} s. {fault}"),
                None => format!(
                    "no event for {seconds} s, and no fault is visible from here; if there should be events, \
                     `livequery doctor {class} --write` finds out why"
                ),
            });
        });
    }

    /// # Errors
    /// The conditions are not valid, or LiveQuery cannot answer them.
    fn query(&self) -> Result<Query, Failure> {
        let mut query = self.filter.query()?;
        if let Some(condition) = &self.raw_where {
            query = query.raw_where(condition);
        }
        if !self.select.is_empty() {
            query = query.select(&self.select);
        }
        if !self.watch.is_empty() {
            query = query.watch(&self.watch);
        }
        // Before any connection.
        query.live_query_where()?;
        Ok(query)
    }
}

/// Subscribes, with listeners that print. They run on the dispatch thread, so if the terminal or the pipe is
/// slow, the library's queue fills, and reports that; memory does not.
fn follow(
    client: &Client,
    query: &Query,
    output: &Arc<Output>,
    ended: Sender<End>,
) -> parse_livequery::Result<Subscription> {
    output::tell_state(client, output, ended);
    let out = Arc::clone(output);
    let class = query.class_name().to_owned();
    client
        .subscription(query)
        .on_open(move |_| out.say(&format!("following {class}")))
        .on_any({
            let out = Arc::clone(output);
            move |event| out.event(event)
        })
        .start()
}

//! `watch`: a live set as a table that is redrawn in place; without a terminal, a line for each change. It
//! knows what has changed and when, not how a table is laid out.

mod screen;
mod table;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anstyle::Style;
use clap::Args;
use parse_livequery::{Change, Client, LiveSet, Object, Query, Snapshot};
use serde_json::{Value, json};

use crate::ending::{End, end_on_request, end_without_reader};
use crate::exit::{Failure, shell_words};
use crate::filter::{Filter, Order};
use crate::line::{clock, harmless, value};
use crate::output::{self, Output};
use crate::settings::{Role, Settings};
use screen::Screen;
use table::News;

/// Shows the objects of a class as a table that stays up to date
///
/// Changes are coloured for two seconds. The line at the bottom shows the state of the connection. In a pipe,
/// it prints a line for each change: the time, what happened (added, changed, moved, removed), the position
/// in the list, and the object.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    order: Order,

    /// At most this many objects
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u64,

    /// Only these fields, in this order
    #[arg(long, value_name = "FIELD,..", value_delimiter = ',')]
    select: Vec<String>,

    /// Print JSON lines, even on a terminal
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
JSON lines:
  {\"time\":..,\"change\":\"added\"|\"changed\"|\"removed\",\"index\":0,\"object\":{..}}
  {\"time\":..,\"change\":\"moved\",\"from\":3,\"index\":0,\"object\":{..}}
  {\"time\":..,\"change\":\"reset\",\"objects\":[..]}

Examples:
  livequery watch Game --order -score --limit 10
  livequery watch Game --select name,score --json";

impl Options {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let mut query = self.order.of(self.filter.query()?).limit(self.limit);
        if !self.select.is_empty() {
            query = query.select(&self.select);
        }
        let client = settings.builder(Role::Configured).build()?;
        let (ended, ends) = mpsc::channel();
        if let Err(error) = end_on_request(ended.clone()) {
            eprintln!("Ctrl-C will end this program without closing the connection: {error}");
        }
        let screen = if self.json { None } else { Screen::take() };
        let Some(screen) = screen else {
            return self.print(&client, &query, &settings.server, ended, &ends);
        };
        let (wake, wakes) = mpsc::channel();
        let board = Arc::new(Board::new(wake.clone()));
        // One place waits for both.
        thread::spawn(move || drop(ends.recv().map(|end| wake.send(Wake::End(end)))));
        board.say(format!("connecting to {}", settings.server));
        board.follow(&client, &ended);
        let set = board.start(&client, &query)?;
        let columns: Vec<String> = if self.select.is_empty() {
            self.order
                .keys
                .iter()
                .map(|key| key.trim_start_matches('-').to_owned())
                .collect()
        } else {
            self.select.clone()
        };
        let end = self.show(&screen, &board, &set, &columns, &wakes);
        let last = objects(&set.snapshot());
        set.close();
        client.close();
        drop(screen);
        self.leave_behind(&last, &columns);
        end.outcome()
    }

    /// Draws until the end.
    fn show(
        &self,
        screen: &Screen,
        board: &Board,
        set: &LiveSet,
        first: &[String],
        wakes: &mpsc::Receiver<Wake>,
    ) -> End {
        let has_colours = has_colours();
        let mut drawn_size = (0, 0);
        loop {
            match wakes.recv_timeout(LOOK) {
                Ok(Wake::End(end)) => return end,
                Ok(Wake::Changed) => {}
                Err(RecvTimeoutError::Timeout) if Screen::size() != drawn_size || board.forget_old_news() => {
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return End::Interrupted,
            }
            let (width, height) = Screen::size();
            drawn_size = (width, height);
            let all = objects(&set.snapshot());
            let mut state = board.lock();
            state.is_told = false;
            let columns = if self.select.is_empty() {
                table::columns(first, &all)
            } else {
                first.to_vec()
            };
            let shown = all
                .get(..all.len().min(height.saturating_sub(2)))
                .unwrap_or_default();
            let news: HashMap<String, News> = state
                .news
                .iter()
                .map(|(id, (keys, _))| (id.clone(), keys.clone().map_or(News::Arrived, News::Changed)))
                .collect();
            let foot = format!(
                "{}: {} of at most {}, {}",
                self.filter.class,
                all.len(),
                self.limit,
                state.link
            );
            drop(state);
            let mut lines = table::lines(shown, &columns, &news, width, has_colours);
            lines.resize(height.saturating_sub(1).max(1), String::new());
            let style = if has_colours {
                Style::new().invert()
            } else {
                Style::new()
            };
            let foot = table::cut(&harmless(&shell_words(&foot)), width);
            lines.push(format!("{style}{foot}{style:#}"));
            if let Err(error) = screen.draw(&lines, height) {
                return End::NotWritten(error);
            }
            // Ten thousand changes are drawn a few times, not ten thousand times.
            thread::sleep(PAUSE);
        }
    }

    /// Prints the last table on the first screen, so that it stays readable.
    fn leave_behind(&self, last: &[Object], first: &[String]) {
        let columns = if self.select.is_empty() {
            table::columns(first, last)
        } else {
            first.to_vec()
        };
        let (width, _) = Screen::size();
        let mut stdout = io::stdout().lock();
        for line in table::lines(last, &columns, &HashMap::new(), width, false) {
            // A terminal that was closed is not read.
            let _ = writeln!(stdout, "{}", line.trim_end());
        }
    }

    /// A line for each change.
    fn print(
        &self,
        client: &Client,
        query: &Query,
        server: &str,
        ended: Sender<End>,
        ends: &mpsc::Receiver<End>,
    ) -> Result<(), Failure> {
        let output = Arc::new(Output::new(self.json, ended.clone()));
        end_without_reader(ended.clone());
        output.status(&format!("connecting to {server}"));
        output::tell_state(client, &output, ended);
        let is_json = self.json;
        let set = client
            .live_set(query)
            .on_change({
                let output = Arc::clone(&output);
                move |change, set| {
                    for line in lines(change, set, is_json) {
                        output.line(&line);
                    }
                }
            })
            .on_ready({
                let output = Arc::clone(&output);
                move |set| output.say(&format!("up to date: {} objects", set.len()))
            })
            .on_error({
                let output = Arc::clone(&output);
                move |error| output.say(&format!("error: {error}"))
            })
            .start()?;
        let end = ends.recv().unwrap_or(End::Interrupted);
        set.close();
        client.close();
        output.clear();
        end.outcome()
    }
}

enum Wake {
    Changed,
    End(End),
}

/// What the listeners report to the thread that draws.
struct Board {
    state: Mutex<State>,
    wake: Mutex<Sender<Wake>>,
}

struct State {
    link: String,
    /// By id, since when: the changed fields, or `None` for a new object.
    news: HashMap<String, (Option<Vec<String>>, Instant)>,
    /// Whether the drawing thread has been told that there is something to draw.
    is_told: bool,
}

impl Board {
    fn new(wake: Sender<Wake>) -> Self {
        let state = State {
            link: String::new(),
            news: HashMap::new(),
            is_told: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Mutex::new(wake),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let was_told = std::mem::replace(&mut state.is_told, true);
        drop(state);
        if !was_told {
            // If it fails, the drawing thread has ended.
            let _ = self
                .wake
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .send(Wake::Changed);
        }
    }

    fn say(&self, text: String) {
        self.change(|state| state.link = text);
    }

    /// Shows the state of the connection at the bottom.
    fn follow(self: &Arc<Self>, client: &Client, ended: &Sender<End>) {
        let board = Arc::clone(self);
        client.on("reconnecting", move |event| {
            let cause = event
                .error()
                .map_or_else(String::new, |error| format!(": {error}"));
            let (attempt, delay) = (
                event.attempt().unwrap_or_default(),
                event.delay().unwrap_or_default(),
            );
            board.say(format!("reconnecting, attempt {attempt} in {delay:.1?}{cause}"));
        });
        let (board, ended) = (Arc::clone(self), ended.clone());
        client.on_error(move |error| {
            if error.is_fatal() {
                // If main has already left, it no longer listens.
                let _ = ended.send(End::Refused(error.clone()));
            } else {
                board.say(format!("error: {error}"));
            }
        });
    }

    fn start(self: &Arc<Self>, client: &Client, query: &Query) -> parse_livequery::Result<LiveSet> {
        let (on_change, on_ready) = (Arc::clone(self), Arc::clone(self));
        let (on_stale, on_error) = (Arc::clone(self), Arc::clone(self));
        client
            .live_set(query)
            .on_change(move |change, _| on_change.change(|state| state.note(change)))
            .on_ready(move |_| on_ready.say("live".to_owned()))
            .on_stale(move |_| on_stale.say(format!("not up to date since {}", clock())))
            .on_error(move |error| on_error.say(format!("error: {error}")))
            .start()
    }

    /// Returns whether there were any.
    fn forget_old_news(&self) -> bool {
        let mut state = self.lock();
        let before = state.news.len();
        state.news.retain(|_, (_, since)| since.elapsed() < NEWS);
        state.news.len() != before
    }
}

impl State {
    fn note(&mut self, change: &Change) {
        let Some(id) = change.object().and_then(Object::id) else {
            return;
        };
        let id = id.to_owned();
        match change {
            Change::Removed { .. } => drop(self.news.remove(&id)),
            Change::Inserted { .. } => drop(self.news.insert(id, (None, Instant::now()))),
            _ => {
                let keys = change.changed_keys().into_iter().map(str::to_owned).collect();
                self.news.insert(id, (Some(keys), Instant::now()));
            }
        }
    }
}

/// The lines of a change: one, except for a reset.
fn lines(change: &Change, set: &Snapshot, is_json: bool) -> Vec<String> {
    let (what, index, from) = match change {
        Change::Inserted { index, .. } => ("added", *index, None),
        Change::Updated { index, .. } => ("changed", *index, None),
        Change::Moved { from, to, .. } => ("moved", *to, Some(*from)),
        Change::Removed { index, .. } => ("removed", *index, None),
        _ => ("reset", 0, None),
    };
    let Some(object) = change.object() else {
        if is_json {
            let all: Vec<&Object> = set.iter().collect();
            return vec![json!({ "time": output::now(), "change": what, "objects": all }).to_string()];
        }
        let all = set.iter().enumerate();
        return all
            .map(|(index, object)| text(what, index, object, None))
            .collect();
    };
    if !is_json {
        let keys = change.original().map(|_| change.changed_keys());
        return vec![text(what, index, object, keys)];
    }
    let mut line = json!({ "time": output::now(), "change": what, "index": index, "object": object });
    if let Some(from) = from {
        line["from"] = Value::from(from);
    }
    vec![line.to_string()]
}

/// The changed fields, or all fields of a new object.
fn text(what: &str, index: usize, object: &Object, keys: Option<Vec<&str>>) -> String {
    let keys = keys.unwrap_or_else(|| {
        object
            .keys()
            .filter(|name| !crate::line::OF_EVERY_OBJECT.contains(name))
            .collect()
    });
    let fields: Vec<String> = keys
        .iter()
        .map(|name| format!("  {}: {}", harmless(name), value(object, name)))
        .collect();
    let id = harmless(object.id().unwrap_or("?"));
    format!("{}  {what:<7}  {index:>3}  {id}{}", clock(), fields.concat())
}

fn objects(snapshot: &Snapshot) -> Vec<Object> {
    snapshot.iter().cloned().collect()
}

fn has_colours() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

/// How often to check whether the terminal has another size and whether marks have expired.
const LOOK: Duration = Duration::from_millis(250);
/// The time between two drawings.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a change is coloured.
const NEWS: Duration = Duration::from_secs(2);

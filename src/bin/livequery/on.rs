//! `on`: runs a command for each event. It knows neither the format of an event nor the connection.

use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use parse_livequery::crossbeam_channel::{self, Receiver};
use parse_livequery::{Event, EventKind};

use crate::ending::{End, end_on_request};
use crate::exit::Failure;
use crate::filter::Filter;
use crate::line;
use crate::output::{self, Output};
use crate::settings::{Role, Settings};

/// Runs a command for each event of a class
///
/// The command gets the event as a line of JSON on its standard input, as `tail --json` prints it, and
/// LIVEQUERY_KIND and LIVEQUERY_ID in its environment. A gap (events in that time were missed) and dropped
/// events are events as well, of the kinds `gap` and `lagged`. While all jobs are busy, events wait; if too
/// many wait, the newest are dropped, which is reported.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Options {
    #[command(flatten)]
    filter: Filter,

    /// The command, as a shell command line
    #[arg(long, value_name = "COMMAND")]
    exec: String,

    /// Only events of these kinds; gaps are then reported on standard error [default: all]
    #[arg(long, value_name = "KIND,..", value_delimiter = ',')]
    kind: Vec<Kind>,

    /// Run this many commands at a time; with more than one, the order of the events is not kept
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    jobs: u16,

    /// Kill a command that takes longer [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    timeout: Option<u64>,

    /// Exit with 5 when a command fails, instead of reporting it and continuing
    #[arg(long)]
    stop_on_failure: bool,

    /// Give up after this many failed attempts to connect in a row [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
}

const AFTER_HELP: &str = "\
Examples:
  livequery on Game --kind create --exec 'jq -r .object.name | xargs notify-send'
  livequery on Order --jobs 4 --timeout 30 --exec ./import.sh";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Create,
    Update,
    Enter,
    Leave,
    Delete,
    Gap,
    Lagged,
}

impl Kind {
    /// `None` for events that do not concern a reader of objects.
    fn of(event: &Event) -> Option<Self> {
        Some(match event.kind() {
            EventKind::Create => Self::Create,
            EventKind::Update => Self::Update,
            EventKind::Enter => Self::Enter,
            EventKind::Leave => Self::Leave,
            EventKind::Delete => Self::Delete,
            EventKind::Open if event.gap().is_some() => Self::Gap,
            EventKind::Error if event.error().is_some_and(|error| error.dropped().is_some()) => Self::Lagged,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Delete => "delete",
            Self::Gap => "gap",
            Self::Lagged => "lagged",
        }
    }
}

/// One event for the command.
struct Job {
    kind: Kind,
    id: String,
    line: String,
}

impl Options {
    pub(crate) fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let query = self.filter.query()?;
        query.live_query_where()?;
        let mut builder = settings.builder(Role::Configured);
        if let Some(attempts) = self.max_attempts {
            builder = builder.max_attempts(attempts);
        }
        let client = builder.build()?;
        let (ended, ends) = mpsc::channel();
        let output = Arc::new(Output::new(true, ended.clone()));
        if let Err(error) = end_on_request(ended.clone()) {
            output.say(&format!(
                "Ctrl-C will end this program without closing the connection: {error}"
            ));
        }

        let (give, take) = crossbeam_channel::bounded(0);
        let is_over = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..self.jobs)
            .map(|_| {
                let worker = Worker {
                    exec: self.exec.clone(),
                    timeout: self.timeout.map(Duration::from_secs),
                    stops: self.stop_on_failure,
                    is_over: Arc::clone(&is_over),
                    output: Arc::clone(&output),
                    ended: ended.clone(),
                };
                let take = take.clone();
                thread::spawn(move || worker.work(&take))
            })
            .collect();
        // When the workers have gone, the listener must not wait for them.
        drop(take);
        let give = Arc::new(Mutex::new(Some(give)));

        output.status(&format!("connecting to {}", settings.server));
        output::tell_state(&client, &output, ended);
        let (out, class, kinds) = (
            Arc::clone(&output),
            query.class_name().to_owned(),
            self.kind.clone(),
        );
        let subscription = client
            .subscription(&query)
            .on_open({
                let out = Arc::clone(&output);
                move |_| out.say(&format!("following {class}"))
            })
            // The listener waits here for a free worker, so the library's queue fills, and reports that.
            .on_any({
                let give = Arc::clone(&give);
                move |event| hand_over(event, &kinds, &give, &out)
            })
            .start()?;
        let end = ends.recv().unwrap_or(End::Interrupted);
        is_over.store(true, Ordering::Relaxed);
        *give.lock().unwrap_or_else(PoisonError::into_inner) = None;
        subscription.unsubscribe();
        client.close();
        for worker in workers {
            // A worker that panicked has reported it.
            let _ = worker.join();
        }
        output.clear();
        end.outcome()
    }
}

/// The channel to the workers, until the program ends.
type Queue = Mutex<Option<crossbeam_channel::Sender<Job>>>;

fn hand_over(event: &Event, kinds: &[Kind], queue: &Queue, output: &Output) {
    let Some((kind, line)) = Kind::of(event).zip(line::json(event)) else {
        return;
    };
    if kinds.is_empty() || kinds.contains(&kind) {
        let id = event.id().unwrap_or_default().to_owned();
        let give = queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // If no worker takes it, the program is ending.
        let _ = give.map(|give| give.send(Job { kind, id, line }));
    } else if matches!(kind, Kind::Gap | Kind::Lagged) {
        output.say(&line);
    }
}

/// Runs one command after the other.
struct Worker {
    exec: String,
    timeout: Option<Duration>,
    stops: bool,
    is_over: Arc<AtomicBool>,
    output: Arc<Output>,
    ended: Sender<End>,
}

impl Worker {
    fn work(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let Err(problem) = self.run(&job) else { continue };
            let text = format!("the command for {} {} {problem}", job.kind.as_str(), job.id);
            if self.stops {
                // If main has already left, it no longer listens.
                let _ = self.ended.send(End::CommandFailed(text));
                return;
            }
            self.output.say(&text);
        }
    }

    fn run(&self, job: &Job) -> Result<(), String> {
        let mut child = shell(&self.exec)
            .env("LIVEQUERY_KIND", job.kind.as_str())
            .env("LIVEQUERY_ID", &job.id)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot be started: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            let line = format!("{}\n", job.line);
            // A command may read its input late, or not at all.
            thread::spawn(move || drop(stdin.write_all(line.as_bytes())));
        }
        match self
            .wait(&mut child)
            .map_err(|error| format!("cannot be waited for: {error}"))?
        {
            None => Err("took too long, and was killed".to_owned()),
            Some(status) if status.success() || self.is_over.load(Ordering::Relaxed) => Ok(()),
            Some(status) => Err(format!("failed: {status}")),
        }
    }

    /// `None` if it had to be killed.
    fn wait(&self, child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        let mut over_since = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if self.is_over.load(Ordering::Relaxed) {
                over_since.get_or_insert_with(Instant::now);
            }
            let is_late = self.timeout.is_some_and(|timeout| start.elapsed() >= timeout);
            if is_late || over_since.is_some_and(|since| since.elapsed() >= GRACE) {
                end(child);
                child.wait()?;
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }
}

#[cfg(unix)]
fn shell(line: &str) -> Command {
    use std::os::unix::process::CommandExt;

    let mut command = Command::new("sh");
    // Its own process group, so that all its child processes end with it, and Ctrl-C leaves it the time to
    // finish.
    command.args(["-c", line]).process_group(0);
    command
}

#[cfg(not(unix))]
fn shell(line: &str) -> Command {
    let mut command = Command::new("cmd");
    command.args(["/C", line]);
    command
}

/// Kills a command, with its child processes.
fn end(child: &mut Child) {
    #[cfg(unix)]
    {
        let group = child.id().to_string();
        let _ = Command::new("sh")
            .args(["-c", "kill -s KILL -- \"-$0\"", &group])
            .stderr(Stdio::null())
            .status();
    }
    // If this fails, the command has already ended.
    let _ = child.kill();
}

/// How often to check whether a command has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long a running command may take when the program ends.
const GRACE: Duration = Duration::from_secs(2);

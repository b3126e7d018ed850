//! What the kernel says of this process, tests that hang, and tests that need a process for themselves. It knows
//! nothing of what the threads do.

use std::any::Any;
use std::env;
use std::fs;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Runs `body` on a thread of its own and fails if it has not ended in time. The thread is left behind then: it hangs.
#[track_caller]
pub fn watchdog<T: Send + 'static>(limit: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel::<Result<T, Box<dyn Any + Send>>>();
    thread::Builder::new()
        .name("kit-watched".into())
        .spawn(move || {
            // Nobody receives if it took too long.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(body)));
        })
        .expect("a thread");
    match receiver.recv_timeout(limit) {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => panic!(
            "still running after {limit:?}; the threads of the process: {:#?}",
            all_threads()
        ),
    }
}

/// Waits until a condition that nothing announces has become true, such as the end of a thread.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_within(super::LONG, what, condition);
}

/// Like [`wait_until`], for what takes long.
#[track_caller]
pub fn wait_until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Runs `body` in a process of its own, where no other test changes what is measured or logged. In the parent it
/// gives what the child wrote to its standard error; in the child, `None`.
///
/// `module` is `module_path!()` and `test` the name of the test function, which must do nothing else than this call.
#[track_caller]
pub fn in_own_process(module: &str, test: &str, limit: Duration, body: impl FnOnce()) -> Option<String> {
    in_own_process_with(module, test, limit, &[], body)
}

/// The same, with these variables in the environment of the child.
#[track_caller]
pub fn in_own_process_with(
    module: &str,
    test: &str,
    limit: Duration,
    variables: &[(&str, String)],
    body: impl FnOnce(),
) -> Option<String> {
    const CHILD: &str = "LIVEQUERY_IT_CHILD";
    let path = module
        .split_once("::")
        .map_or_else(|| test.to_owned(), |(_, rest)| format!("{rest}::{test}"));
    if env::var(CHILD).is_ok_and(|child| child == path) {
        body();
        return None;
    }
    let mut child = Command::new(env::current_exe().expect("the path of this binary"))
        .args([&path, "--exact", "--nocapture", "--include-ignored"])
        .env(CHILD, &path)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("piped")),
        Box::new(child.stderr.take().expect("piped")),
    ];
    let [stdout, stderr] = pipes.map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = vec![];
            pipe.read_to_end(&mut bytes).expect("a pipe");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait().expect("our child") {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                child.kill().expect("our child");
                child.wait().expect("our child");
                break None;
            }
            None => thread::park_timeout(Duration::from_millis(5)),
        }
    };
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().expect("reads a pipe"));
    match status {
        Some(status) if status.success() && stdout.contains("1 passed") => Some(stderr),
        Some(status) => panic!("{path} ended with {status}\n{stdout}\n{stderr}"),
        None => panic!("{path} still ran after {limit:?}\n{stdout}\n{stderr}"),
    }
}

/// A thread of this process, by the kernel's account.
#[derive(Clone, Debug)]
pub struct ThreadStat {
    pub id: u64,
    /// The kernel keeps the first 15 bytes.
    pub name: String,
    /// How often the thread went to sleep of its own accord.
    pub voluntary_switches: u64,
    /// How long it has run; `None` where the kernel does not say.
    pub cpu_time: Option<Duration>,
}

/// The threads with this name; `None` where the kernel has no such account.
pub fn threads_named(name: &str) -> Option<Vec<ThreadStat>> {
    let short = &name[..name.len().min(15)];
    let threads = all_threads()?;
    Some(
        threads
            .into_iter()
            .filter(|thread| thread.name == short)
            .collect(),
    )
}

fn all_threads() -> Option<Vec<ThreadStat>> {
    let tasks = fs::read_dir(proc("task")?).ok()?;
    // A thread may end between the listing and the reading.
    let thread = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        let cpu_time = fs::read_to_string(task.path().join("schedstat")).ok();
        let cpu_time = cpu_time.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Some(ThreadStat {
            cpu_time: cpu_time.map(Duration::from_nanos),
            id: task.file_name().to_str()?.parse().ok()?,
            name: field("Name:")?,
            voluntary_switches: field("voluntary_ctxt_switches:")?.parse().ok()?,
        })
    };
    Some(tasks.flatten().filter_map(thread).collect())
}

/// The account that the kernel gives of this process. On Windows in wine a file of this name is that of another process.
fn proc(name: &str) -> Option<PathBuf> {
    cfg!(target_os = "linux").then(|| Path::new("/proc/self").join(name))
}

/// How many file descriptors this process has open; `None` where the kernel does not say.
pub fn open_files() -> Option<usize> {
    // One of them is the directory that is read.
    Some(fs::read_dir(proc("fd")?).ok()?.count() - 1)
}

/// The resident set of this process in bytes; `None` where the kernel does not say.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string(proc("status")?).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

//! What the system says of this process, where it is Linux.

use std::fs;
use std::time::Duration;

/// The time that all threads together have run.
pub(crate) fn cpu_time() -> Option<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        nanoseconds += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// The memory that is resident, in bytes.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    field(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024)
}

/// How often the threads whose names begin so have gone to sleep.
pub(crate) fn voluntary_switches(name: &str) -> Option<u64> {
    let mut switches = 0;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        if fs::read_to_string(task.path().join("comm"))
            .ok()?
            .starts_with(name)
        {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            switches += field(&status, "voluntary_ctxt_switches:")?;
        }
    }
    Some(switches)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

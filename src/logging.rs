//! Writes to the program's log: a logger that panics does no harm, and a warning that is repeated a million
//! times is not written a million times.
//!
//! Must not know what is logged. No key or session token is ever passed to it.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

use crate::fence;

/// Logs something that was lost or that must be noticed, with a limited rate; see [`Site`].
macro_rules! error {
    ($($text:tt)+) => { $crate::logging::limited!(log::Level::Error, $($text)+) };
}

/// Logs something that deserves attention, with a limited rate; see [`Site`].
macro_rules! warn_ {
    ($($text:tt)+) => { $crate::logging::limited!(log::Level::Warn, $($text)+) };
}

/// Logs what the client does.
macro_rules! debug {
    ($($text:tt)+) => {
        $crate::logging::write(log::Level::Debug, module_path!(), format_args!($($text)+))
    };
}

/// Logs what was received and sent.
macro_rules! trace {
    ($($text:tt)+) => {
        $crate::logging::write(log::Level::Trace, module_path!(), format_args!($($text)+))
    };
}

macro_rules! limited {
    ($level:expr, $($text:tt)+) => {{
        static SITE: $crate::logging::Site = $crate::logging::Site::new();
        SITE.write($level, module_path!(), format_args!($($text)+));
    }};
}

pub(crate) use {debug, error, limited, trace, warn_ as warn};

/// One place in the code that logs. It writes the same text once per second, and only a few different texts:
/// a peer that sends nonsense must not fill a disk. The next line says how many were left out.
pub(crate) struct Site(Mutex<Option<Window>>);

struct Window {
    began: Instant,
    written: Vec<u64>,
    left_out: u64,
}

impl Site {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn write(&self, level: Level, target: &str, text: fmt::Arguments<'_>) {
        if level > log::STATIC_MAX_LEVEL || level > log::max_level() {
            return;
        }
        // The text may come from the program, such as the cause of an error.
        let Ok(text) = fence::run(|| text.to_string()) else {
            return;
        };
        match self.admit(&text, Instant::now()) {
            Some(0) => write(level, target, format_args!("{text}")),
            Some(left_out) => write(
                level,
                target,
                format_args!("{text} (left out before this: {left_out} like it)"),
            ),
            None => {}
        }
    }

    /// Whether a text is written now, and if so, how many were left out before it.
    fn admit(&self, text: &str, now: Instant) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let mut guard = self.0.lock();
        let window = guard.get_or_insert_with(|| Window {
            began: now,
            written: Vec::new(),
            left_out: 0,
        });
        if now.saturating_duration_since(window.began) >= WINDOW {
            window.began = now;
            window.written.clear();
        }
        if window.written.len() >= TEXTS_PER_WINDOW || window.written.contains(&hash) {
            window.left_out += 1;
            return None;
        }
        window.written.push(hash);
        Some(std::mem::take(&mut window.left_out))
    }
}

/// Writes a line, without a limit.
pub(crate) fn write(level: Level, target: &str, text: fmt::Arguments<'_>) {
    if level <= log::STATIC_MAX_LEVEL && level <= log::max_level() {
        // If the logger panics, there is nowhere left to report it.
        let _ = fence::run(|| log::log!(target: target, level, "{text}"));
    }
}

const WINDOW: Duration = Duration::from_secs(1);
const TEXTS_PER_WINDOW: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Site, TEXTS_PER_WINDOW};

    #[test]
    fn the_same_text_is_written_once_in_a_second_and_counted_besides() {
        let (site, start) = (Site::new(), Instant::now());
        assert_eq!(site.admit("a", start), Some(0));
        for _ in 0..1000 {
            assert_eq!(site.admit("a", start + Duration::from_millis(999)), None);
        }
        assert_eq!(site.admit("b", start + Duration::from_millis(999)), Some(1000));
        assert_eq!(site.admit("a", start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn texts_that_all_differ_are_few_in_a_second() {
        let (site, start) = (Site::new(), Instant::now());
        let written = (0..1000).filter(|n| site.admit(&n.to_string(), start).is_some());
        assert_eq!(written.count(), TEXTS_PER_WINDOW);
        let later = start + Duration::from_secs(2);
        assert_eq!(site.admit("again", later), Some(1000 - TEXTS_PER_WINDOW as u64));
    }
}

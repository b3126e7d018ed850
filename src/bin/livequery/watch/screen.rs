//! The screen of a terminal: taken, drawn on, given back. It does not know what is drawn.

use std::io::{self, IsTerminal, Write};

use terminal_size::{Height, Width, terminal_size};

/// The second screen of a terminal, which leaves the first one unchanged. Dropping it gives the screen back.
pub(super) struct Screen;

impl Screen {
    /// `None` if standard output is not a terminal that can be drawn on.
    pub(super) fn take() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !io::stdout().is_terminal() || is_dumb {
            return None;
        }
        write(format!("{SECOND_SCREEN}{HIDE_CURSOR}{NO_WRAP}{HOME}{CLEAR_BELOW}").as_bytes()).ok()?;
        Some(Self)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        let (Width(width), Height(height)) = terminal_size().unwrap_or((Width(80), Height(24)));
        // A terminal that does not know its size says 0.
        let or = |size: u16, otherwise| if size == 0 { otherwise } else { usize::from(size) };
        (or(width, 80), or(height, 24))
    }

    /// Draws all lines over what is there, in one write, so that nothing flickers.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&self, lines: &[String], height: usize) -> io::Result<()> {
        let mut text = HOME.to_owned();
        let shown: Vec<String> = lines
            .iter()
            .take(height)
            .map(|line| format!("{line}{CLEAR_LINE}"))
            .collect();
        text.push_str(&shown.join("\r\n"));
        text.push_str(CLEAR_BELOW);
        write(text.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = write(format!("{WRAP}{SHOW_CURSOR}{FIRST_SCREEN}").as_bytes());
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

const SECOND_SCREEN: &str = "\x1b[?1049h";
const FIRST_SCREEN: &str = "\x1b[?1049l";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

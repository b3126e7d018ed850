//! A program in a pseudo-terminal: all that it prints, and a keyboard.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::{LONG, wait_until_within};

pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    /// What is looked at of the text that was printed.
    view: fn(String) -> String,
    /// How much of it has been waited for.
    seen: usize,
}

#[derive(Default)]
struct Screen {
    raw: Vec<u8>,
    has_ended: bool,
}

impl Terminal {
    /// `view` makes of the text what is looked at: with its escape sequences, or without.
    pub fn start(command: CommandBuilder, columns: u16, view: fn(String) -> String) -> Self {
        let pty = native_pty_system().openpty(size(24, columns)).unwrap();
        let child = pty.slave.spawn_command(command).unwrap();
        // So that the reader gets an end when the child is gone.
        drop(pty.slave);
        let mut reader = pty.master.try_clone_reader().unwrap();
        let screen = Arc::<(Mutex<Screen>, Condvar)>::default();
        let shared = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Linux ends a terminal with an error.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.0.lock().raw.extend_from_slice(&buffer[..count]);
                shared.1.notify_all();
            }
            shared.0.lock().has_ended = true;
            shared.1.notify_all();
        });
        Self {
            child,
            keyboard: pty.master.take_writer().unwrap(),
            master: pty.master,
            screen,
            view,
            seen: 0,
        }
    }

    /// Waits for a text after the one that was waited for last.
    #[track_caller]
    pub fn wait_for(&mut self, wanted: &str) {
        let deadline = Instant::now() + LONG;
        let mut screen = self.screen.0.lock();
        loop {
            let text = (self.view)(String::from_utf8_lossy(&screen.raw).into_owned());
            if let Some(at) = text[self.seen..].find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !screen.has_ended && !left.is_zero(),
                "{wanted:?} did not come after byte {} of {text:?}",
                self.seen
            );
            self.screen.1.wait_for(&mut screen, left);
        }
    }

    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().raw).into_owned()
    }

    pub fn text(&self) -> String {
        (self.view)(self.raw())
    }

    #[track_caller]
    pub fn line_with(&self, part: &str) -> String {
        let text = self.text();
        let line = text.lines().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("no line with {part:?} in {text}"))
            .to_owned()
    }

    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    pub fn press_ctrl_c(&mut self) {
        self.type_in("\x03");
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        self.master.resize(size(rows, columns)).unwrap();
    }

    pub fn wait_until_typing_is_hidden(&self) {
        wait_until_within(LONG, "the echo to be off", || {
            let flags = format!("{:?}", self.master.get_termios().unwrap().local_flags);
            !flags
                .split(|c: char| !c.is_alphanumeric())
                .any(|flag| flag == "ECHO")
        });
    }

    #[track_caller]
    pub fn exit_code(&mut self) -> u32 {
        let mut code = None;
        wait_until_within(LONG, "the end of the process", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        // What it printed last may still be on its way.
        wait_until_within(LONG, "the end of what it prints", || {
            self.screen.0.lock().has_ended
        });
        code.unwrap().exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the test has failed it runs still.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize {
        rows,
        cols,
        ..PtySize::default()
    }
}

/// The text without the escape sequences of colours and of lines that are replaced: `ESC [`, parameters, a letter.
pub fn without_escapes(text: String) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part
            .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
            .get(1..)
            .unwrap_or_default()
    })
}

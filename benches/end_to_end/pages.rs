//! The REST API of the server: the objects of one class, a page of a thousand at a time, which are encoded beforehand.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;

/// How many objects there are.
pub(crate) const OBJECTS: usize = 100_000;
const PAGE: usize = 1000;

/// Answers requests for pages until the process ends.
pub(crate) fn serve(listener: TcpListener) {
    // Made when it is needed first.
    let pages = Arc::new(OnceLock::new());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pages = Arc::clone(&pages);
            thread::spawn(move || answer(&stream, pages.get_or_init(encoded)));
        }
    });
}

/// All answers, the last of which has no objects.
fn encoded() -> Vec<String> {
    let page = |first: usize| {
        let mut text = String::from(r#"{"results":["#);
        for number in first..(first + PAGE).min(OBJECTS) {
            let separator = if number == first { "" } else { "," };
            let score = number * 7919 % OBJECTS;
            let _ = write!(
                text,
                r#"{separator}{{"objectId":"g{number:09}","playerName":"Player {number}","score":{score},"createdAt":"2026-11-24T06:58:56.879Z","updatedAt":"2026-11-24T06:58:56.879Z"}}"#
            );
        }
        text + "]}"
    };
    (0..=OBJECTS / PAGE).map(|number| page(number * PAGE)).collect()
}

fn answer(stream: &TcpStream, pages: &[String]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        // The id of the last object that the client has is the only one in its request.
        let body = String::from_utf8_lossy(&body);
        let last = body
            .split_once(r#""$gt":"g"#)
            .and_then(|(_, id)| id.get(..9)?.parse::<usize>().ok());
        let page = &pages[last.map_or(0, |last| (last + 1) / PAGE)];
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            page.len()
        );
        let mut stream = stream;
        stream.write_all(&[head.as_bytes(), page.as_bytes()].concat())?;
    }
}

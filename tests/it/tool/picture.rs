//! The picture of a session in the manual, recorded from the program itself. Knows no fault.
//!
//! `UPDATE_PICTURES=1 cargo test --features cli --test it picture` records it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use parse_livequery::test_server::TestServer;
use serde_json::json;

use super::{command_for, output, piped_with, signal, text};

const COLUMNS: usize = 100;

#[test]
fn the_picture_in_the_manual_is_that_of_the_repository() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let (picture, page) = (guide.join("tool.svg"), guide.join("tool.md"));
    let updates = std::env::var_os("UPDATE_PICTURES").is_some();
    if updates {
        fs::write(&picture, svg(&session())).unwrap();
    }
    let embedded = BASE64.encode(&fs::read(&picture).unwrap());
    let text = fs::read_to_string(&page).unwrap();
    let (before, _) = text.split_once("[session]: ").unwrap();
    let expected = format!("{before}[session]: data:image/svg+xml;base64,{embedded}\n");
    if updates {
        fs::write(&page, &expected).unwrap();
    }
    assert!(
        updates || expected == text,
        "`UPDATE_PICTURES=1 cargo test --features cli --test it picture` writes src/guide/tool.md anew"
    );
}

/// What is typed, and what the program answers.
fn session() -> String {
    let server = TestServer::start().unwrap();
    let chess = server.create("Game", json!({"name": "chess", "score": 20}));
    server.create("Game", json!({"name": "go", "score": 15}));
    let mut all = String::new();
    writeln!(all, "\x1b[1m$ livequery doctor Game --write\x1b[0m").unwrap();
    let mut doctor = command_for(&server.url(), &["doctor", "Game", "--write"]);
    all.push_str(&text(&doctor.env("CLICOLOR_FORCE", "1").output().unwrap().stdout));
    writeln!(
        all,
        "\x1b[1m$ livequery tail Game --where '{{\"score\": {{\"$gt\": 10}}}}'\x1b[0m"
    )
    .unwrap();
    let arguments = ["tail", "Game", "--where", r#"{"score": {"$gt": 10}}"#];
    let (tail, mut lines) = piped_with(&server, &arguments, &[("CLICOLOR_FORCE", "1")]);
    let shogi = server.create("Game", json!({"name": "shogi", "score": 12}));
    all.push_str(&lines.next());
    server.update("Game", &chess, json!({"score": 21}));
    all.push_str(&lines.next());
    server.update("Game", &shogi, json!({"score": 9}));
    all.push_str(&lines.next());
    server.delete("Game", &chess);
    all.push_str(&lines.next());
    signal("TERM", &tail);
    output(tail);
    all
}

/// Text with colours as a picture of a terminal.
fn svg(session: &str) -> String {
    const LINE: usize = 20;
    const MARGIN: usize = 16;
    const WIDTH: usize = COLUMNS * 843 / 100 + 2 * MARGIN;
    let lines: Vec<&str> = session.lines().collect();
    let height = lines.len() * LINE + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} \
         {height}\" font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1e1e2e\"/>\n"
    );
    for (at, line) in lines.iter().enumerate() {
        let y = MARGIN + LINE * at + 15;
        write!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\" fill=\"#cdd6f4\">"
        )
        .unwrap();
        let (mut classes, mut left) = (Vec::new(), COLUMNS);
        for (number, part) in line.split("\x1b[").enumerate() {
            let (codes, part) = if number == 0 {
                ("", part)
            } else {
                part.split_once('m').unwrap_or(("", part))
            };
            for code in codes.split(';').filter(|code| !code.is_empty()) {
                match code {
                    "0" => classes.clear(),
                    "1" => classes.push("font-weight=\"bold\""),
                    "2" => classes.push("opacity=\"0.6\""),
                    "31" => classes.push("fill=\"#f38ba8\""),
                    "32" => classes.push("fill=\"#a6e3a1\""),
                    "33" => classes.push("fill=\"#f9e2af\""),
                    "35" => classes.push("fill=\"#f5c2e7\""),
                    "36" => classes.push("fill=\"#94e2d5\""),
                    _ => {}
                }
            }
            let shown: String = part.chars().take(left).collect();
            left -= shown.chars().count();
            if !shown.is_empty() {
                let shown = shown.replace('&', "&amp;").replace('<', "&lt;");
                write!(svg, "<tspan {}>{shown}</tspan>", classes.join(" ")).unwrap();
            }
        }
        svg.push_str("</text>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

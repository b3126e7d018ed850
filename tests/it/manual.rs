//! The README and the manual: every sample compiles as it is displayed, the README is short and its first program says
//! what is wrong, the pictures in the documentation are those of the repository. It knows nothing of the library.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use data_encoding::BASE64;
use parse_livequery::test_server::TestServer;

use crate::harness::MINUTE;
use crate::support::Port;

/// The line of a chapter's frame that its short samples take the place of.
const PLACE: &str = "// The short samples stand here.";

#[test]
fn the_readme_is_read_in_four_minutes() {
    let words = prose(&read("README.md"));
    assert!(words <= 900, "{words} words");
}

#[test]
fn hidden_lines_are_hidden_as_rustdoc_hides_them() {
    let text =
        "# Title\n\n```no_run\n# hidden\nuse a;\n#\n## shown\n#[test]\nfn main() {\n#   hidden\n}\n```\n";
    let samples = samples("a.md", text);
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].name, "a_04_title");
    assert_eq!(samples[0].displayed, "use a;\n# shown\n#[test]\nfn main() {\n}\n");
    assert!(samples[0].is_whole());
}

#[test]
fn the_chinese_chapter_has_the_samples_of_the_english_one() {
    let blocks = |path| {
        let text = read(path);
        let blocks = text.split("```").skip(1).step_by(2);
        blocks.map(str::to_owned).collect::<Vec<_>>()
    };
    let (english, chinese) = (
        blocks("src/guide/javascript.md"),
        blocks("src/guide/javascript_zh.md"),
    );
    assert_eq!(english.len(), chinese.len());
    for (english, chinese) in english.iter().zip(&chinese) {
        assert_eq!(english, chinese);
    }
}

/// `UPDATE_PICTURES=1` writes them anew.
#[test]
fn the_pictures_of_the_documentation_are_those_of_the_repository() {
    let page = read("src/front_page.md");
    let readme = read("README.md");
    let mut expected = String::new();
    for line in page.lines() {
        match line.split_once(": data:") {
            Some((label, data)) => {
                let kind = data.split(',').next().unwrap();
                let file = readme
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{label}: ")))
                    .unwrap();
                let picture = fs::read(root().join(file)).unwrap();
                writeln!(expected, "{label}: data:{kind},{}", BASE64.encode(&picture)).unwrap();
            }
            None => writeln!(expected, "{line}").unwrap(),
        }
    }
    assert!(expected.matches(": data:").count() == 3);
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        fs::write(root().join("src/front_page.md"), &expected).unwrap();
    }
    assert!(
        expected == page || std::env::var_os("UPDATE_PICTURES").is_some(),
        "`UPDATE_PICTURES=1 cargo test --test it manual` writes src/front_page.md anew"
    );
}

/// A crate is made of the displayed lines of all samples, each in a module of its own, with nothing around them. Only
/// samples that are neither a program nor an item stand where the chapter says that they do. Crates of others that the
/// samples use are stubs, so that nothing is downloaded.
///
/// The first program of the README is built with the server's URL as its argument. It has to say what is wrong.
#[test]
#[ignore = "builds a crate that depends on this one, which takes a minute"]
fn the_samples_compile_as_they_are_displayed_and_the_first_says_what_is_wrong() {
    let manual = write_crate();
    let mut build = Command::new(env!("CARGO"));
    build
        .args([
            "build",
            "--offline",
            "--quiet",
            "--all-targets",
            "--manifest-path",
        ])
        .arg(manual.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(manual.join("target"));
    succeed(&mut build);
    let program = manual.join("target/debug/first_program");
    let says = |url: &str, beginning, text| says(Command::new(&program).arg(url), beginning, text);

    let nobody = Port::reserve();
    says(&format!("ws://{}/parse", nobody.addr()), "error: ", "refused");

    let other_key = TestServer::builder().javascript_key("another").start().unwrap();
    says(&other_key.url(), "error: ", "key");

    let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = tls.local_addr().unwrap();
    thread::spawn(move || {
        for stream in tls.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            // The fatal alert `unexpected_message`, as TLS servers answer to HTTP.
            let _ = stream.write_all(&[21, 3, 1, 0, 2, 2, 10]);
        }
    });
    says(&format!("ws://{address}/parse"), "error: ", "use `wss`");

    // The server says nothing of a class that is not enabled, so the program does.
    let server = TestServer::builder().javascript_key("JS_KEY").start().unwrap();
    says(&server.url(), "subscribed", "liveQuery.classNames");
}

/// Runs a command, whose errors are the reason if it fails.
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "builds an example, unless it has been built"]
fn the_quickstart_says_why_it_cannot_connect_and_how_to_create_an_object() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--offline", "--quiet", "--example", "quickstart"]);
    succeed(&mut build);
    let this = std::env::current_exe().unwrap();
    let profile = this.parent().and_then(Path::parent).unwrap();
    let nobody = Port::reserve();
    let quickstart = |beginning, text: &str| {
        let mut command = Command::new(profile.join("examples/quickstart"));
        let server = format!("ws://{}/parse", nobody.addr());
        says(
            command.args(["--server", &server, "--app-id", "app"]),
            beginning,
            text,
        );
    };
    quickstart("error", "refused");
    quickstart(
        "  curl ",
        &format!("'http://{}/parse/classes/Game'", nobody.addr()),
    );
}

/// Runs the program until it prints a line that begins and goes on like this.
fn says(command: &mut Command, beginning: &str, text: &str) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = mpsc::channel();
    let of_errors = sender.clone();
    let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    thread::spawn(move || {
        BufReader::new(output)
            .lines()
            .try_for_each(|line| sender.send(line.unwrap()))
    });
    thread::spawn(move || {
        BufReader::new(errors)
            .lines()
            .try_for_each(|line| of_errors.send(line.unwrap()))
    });
    let mut heard = Vec::new();
    loop {
        match lines.recv_timeout(MINUTE) {
            Ok(line) if line.starts_with(beginning) && line.contains(text) => break,
            Ok(line) => heard.push(line),
            Err(_) => panic!("it never said \"{beginning}..{text}\": {heard:#?}"),
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
}

struct Sample {
    /// The text, the line and the section, as the name of a module.
    name: String,
    displayed: String,
}

impl Sample {
    /// Whether it is a program or an item, rather than some statements.
    fn is_whole(&self) -> bool {
        self.displayed.lines().any(|line| {
            ["fn ", "struct ", "impl "]
                .iter()
                .any(|item| line.starts_with(item))
        })
    }
}

/// The Rust of a text, as rustdoc shows it.
fn samples(path: &str, text: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        if let Some(title) = line.strip_prefix('#') {
            section = title.trim_start_matches('#').trim().to_owned();
        }
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let block = lines
            .by_ref()
            .take_while(|(_, line)| *line != "```")
            .collect::<Vec<_>>();
        if !kind.split(',').all(|word| ["", "rust", "no_run"].contains(&word)) {
            continue;
        }
        let mut displayed = String::new();
        for (_, line) in &block {
            let trimmed = line.trim_start();
            match trimmed.strip_prefix('#') {
                Some(rest) if rest.is_empty() || rest.starts_with(' ') => continue,
                Some(rest) if rest.starts_with('#') => displayed.push_str(rest),
                _ => displayed.push_str(line),
            }
            displayed.push('\n');
        }
        let text_name = Path::new(path).file_stem().unwrap().to_string_lossy();
        let words = format!("{text_name} {:02} {section}", block[0].0 + 1);
        let name = words
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '_'
                }
            })
            .collect();
        samples.push(Sample { name, displayed });
    }
    samples
}

/// Writes the crate, and returns where it is.
fn write_crate() -> PathBuf {
    let target = root().join("target/manual");
    let _ = fs::remove_dir_all(target.join("src"));
    fs::create_dir_all(target.join("src/bin")).unwrap();
    let mut library = "#![allow(warnings)]\n".to_owned();
    for path in texts() {
        let samples = samples(&path, &read(&path));
        if path == "README.md" {
            let url = "\"ws://localhost:1337/parse\"";
            let program = samples[0]
                .displayed
                .replace(url, "std::env::args().nth(1).unwrap()");
            fs::write(target.join("src/bin/first_program.rs"), program).unwrap();
        }
        let frame = samples
            .iter()
            .find(|sample| sample.displayed.contains(PLACE))
            .map(|sample| sample.displayed.clone());
        for sample in samples {
            let source = if sample.is_whole() {
                sample.displayed
            } else {
                let frame = frame
                    .as_ref()
                    .unwrap_or_else(|| panic!("{}: it is neither a program nor an item", sample.name));
                frame.replace(PLACE, &sample.displayed)
            };
            writeln!(library, "mod {};", sample.name).unwrap();
            fs::write(target.join(format!("src/{}.rs", sample.name)), source).unwrap();
        }
    }
    fs::write(target.join("src/lib.rs"), library).unwrap();

    let mut manifest = format!(
        "[package]\nname = \"manual\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[profile.dev]\n\
         debug = false\n\n[dependencies]\nserde = {{ version = \"1\", features = [\"derive\"] }}\n\
         parse-livequery = {{ path = {:?}, features = [\"rest\", \"test-server\"] }}\n",
        root()
    );
    let stubs = root().join("src/guide/stubs");
    for stub in fs::read_dir(&stubs).unwrap() {
        let stub = stub.unwrap().path();
        let name = stub.file_stem().unwrap().to_string_lossy().into_owned();
        let package = target.join("stubs").join(&name);
        fs::create_dir_all(&package).unwrap();
        fs::write(
            package.join("Cargo.toml"),
            format!(
                "[package]\nname = {name:?}\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[lib]\npath = {stub:?}\n"
            ),
        )
        .unwrap();
        writeln!(manifest, "{name} = {{ path = \"stubs/{name}\" }}").unwrap();
    }
    fs::write(target.join("Cargo.toml"), manifest).unwrap();
    // The versions of this repository, so that there is nothing to look up.
    fs::copy(root().join("Cargo.lock"), target.join("Cargo.lock")).unwrap();
    target
}

/// The texts with samples.
fn texts() -> Vec<String> {
    let chapters = fs::read_dir(root().join("src/guide")).unwrap();
    let chapters = chapters.map(|file| format!("src/guide/{}", file.unwrap().file_name().to_string_lossy()));
    let mut texts = chapters.filter(|path| path.ends_with(".md")).collect::<Vec<_>>();
    texts.extend(["README.md", "README.zh-CN.md"].map(str::to_owned));
    texts.sort();
    texts
}

/// The number of words beside code and tables.
fn prose(text: &str) -> usize {
    let mut words = 0;
    let mut in_code = false;
    for line in text.lines() {
        let is_table = line.starts_with('|');
        let is_link = line.starts_with('[') && line.contains("]: ");
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !(in_code || is_table || is_link) {
            words += line.split_whitespace().count();
        }
    }
    words
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

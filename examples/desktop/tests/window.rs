//! Drives the program with a mouse and a keyboard, in a window on a screen of its own (Xvfb), and looks at both what it
//! says it shows and the pixels. `test.sh` installs what is needed and runs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use parse_livequery::test_server::TestServer;
use serde_json::{Value, json};

/// The deadline of a wait that succeeds on a machine that works: software rendering on a busy one is slow.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_window_shows_what_the_server_sends_and_survives_its_restart() {
    let server = TestServer::start().unwrap();
    let mill = server.create("Game", json!({"name": "mill", "score": 0, "createdAt": at(1)}));
    let screen = Screen::start();
    let mut window = Window::start(&screen, &["--server", &server.url(), "--app-id", "app"]);
    window.wait_for("the list", following);
    assert_eq!(window.state["link"], "connected");
    assert_eq!(window.ids(), [&*mill], "what was there before");
    let one_row = screen.picture();

    let chess = server.create("Game", json!({"name": "chess", "score": 1, "createdAt": at(3)}));
    let go = server.create("Game", json!({"name": "go", "score": 2, "createdAt": at(2)}));
    window.wait_for("three games", |state| {
        state["games"].as_array().unwrap().len() == 3
    });
    assert_eq!(window.ids(), [&mill, &go, &chess], "the oldest one first");
    assert_eq!(window.game(&chess)["name"], "chess");
    screen.wait_for("three rows", |picture| picture.differs(&one_row, 100));

    // It may be looked at too late: then the next change is.
    let mut score = 10;
    screen.wait_for("a row that flashes", |picture| {
        let flashing = picture.count(of_a_flash);
        if flashing < 1000 {
            score += 1;
            server.update("Game", &chess, json!({"score": score}));
        }
        flashing >= 1000
    });
    window.wait_for("the last score", |state| {
        find(state, &chess)["score"] == f64::from(score)
    });
    window.wait_for("the end of the flash", |state| {
        find(state, &chess)["flash"].is_null()
    });

    server.stop();
    window.wait_for("the loss of the link", |state| {
        state["link"] == "waiting"
            && notice(state).starts_with("may be old since ")
            && state["banner"] != Value::Null
    });
    assert_eq!(window.ids(), [&mill, &go, &chess], "what there was");
    server.delete("Game", &chess);
    server.update("Game", &go, json!({"name": "weiqi"}));
    let hex = server.create("Game", json!({"name": "hex", "score": 3}));
    server.fail_finds(503);
    server.resume().unwrap();
    window.wait_for("the failure of the fetch", |state| {
        state["link"] == "connected" && state["banner"].as_str().is_some_and(|text| text.contains("503"))
    });
    screen.wait_for("the banner", |picture| picture.count(of_the_banner) >= 1000);
    server.answer_finds();
    // No event told of any of that.
    window.wait_for("what happened meanwhile", |state| {
        [(&chess, "deleted"), (&go, "changed"), (&hex, "created")]
            .iter()
            .all(|(id, flash)| find(state, id)["flash"] == *flash)
    });
    assert_eq!(window.ids(), [&mill, &go, &chess, &hex], "each in its place");
    assert_eq!(window.game(&go)["name"], "weiqi");
    window.wait_for("the list", following);
    assert_eq!(window.state["link"], "connected");
    assert_eq!(window.state["banner"], Value::Null, "what was wrong is over");
    window.wait_for("the end of a game", |state| find(state, &chess).is_null());
    assert_eq!(window.ids(), [&mill, &go, &hex]);

    for number in 0..500 {
        server.create("Game", json!({"name": "many", "score": number}));
    }
    window.wait_for("a burst", |state| state["games"].as_array().unwrap().len() == 503);

    window.quit();
    assert!(server.wait_for(LONG, |server| server.connections() == 0));
    window.assert_threads();
}

#[test]
fn the_buttons_change_the_embedded_server() {
    let screen = Screen::start();
    let mut window = Window::start(&screen, &[]);
    window.wait_for("the list", |state| state["games"].as_array().unwrap().len() == 3);
    window.wait_for("the end of the fetch", following);

    window.click("New game");
    window.wait_for("a fourth game", |state| {
        state["games"].as_array().unwrap().len() == 4
    });
    let id = window.state["games"][1]["id"].as_str().unwrap().to_owned();
    let score = window.game(&id)["score"].as_f64().unwrap();
    window.click(&format!("+1 {id}"));
    window.wait_for("one point more", |state| find(state, &id)["score"] == score + 1.0);
    window.click("Change all");
    window.wait_for("another one", |state| find(state, &id)["score"] == score + 2.0);
    screen.wait_for("rows that flash", |picture| picture.count(of_a_flash) >= 1000);
    window.click(&format!("Delete {id}"));
    window.wait_for("three games", |state| {
        state["games"].as_array().unwrap().len() == 3
    });

    let before = window.state["listeners"].as_u64().unwrap();
    window.click("Cut the link");
    // The loss, the list that may be old, the link and the list: of these four no frame needs to show the first ones.
    window.wait_for("the list", |state| {
        state["listeners"].as_u64().unwrap() >= before + 4 && following(state)
    });

    window.click("Stop the server");
    window.wait_for("the loss of the link", |state| state["link"] == "waiting");
    window.wait_for("the reason", |state| state["banner"] != Value::Null);
    window.click("New game");
    window.wait_for("what was not done", |state| {
        state["banner"]
            .as_str()
            .is_some_and(|text| text.contains("could not be asked to create"))
    });
    window.click("Dismiss");
    window.wait_for("the end of the banner", |state| state["banner"].is_null());
    window.click("Start the server");
    window.wait_for("the list", following);
    let before = window.state["games"].as_array().unwrap().len();
    window.click("New game");
    window.wait_for("one more game", |state| {
        state["games"].as_array().unwrap().len() == before + 1
    });

    window.quit();
    window.assert_threads();
}

#[test]
fn a_click_on_the_head_of_a_column_sorts_by_it() {
    let server = TestServer::start().unwrap();
    let [go, chess, mill] = [("go", 3, 1), ("chess", 1, 2), ("mill", 2, 3)].map(|(name, score, day)| {
        server.create(
            "Game",
            json!({"name": name, "score": score, "createdAt": at(day)}),
        )
    });
    let screen = Screen::start();
    let mut window = Window::start(&screen, &["--server", &server.url(), "--app-id", "app"]);
    window.wait_for("the list", following);
    for (head, order) in [
        ("Score", [&chess, &mill, &go]),
        ("Score", [&go, &mill, &chess]),
        ("Name", [&chess, &go, &mill]),
        ("Created", [&go, &chess, &mill]),
    ] {
        window.click(head);
        window.wait_for(head, |state| ids(state) == order && following(state));
    }
    // The list stays live, and in its order.
    window.click("Score");
    window.wait_for("the order", |state| ids(state) == [&chess, &mill, &go]);
    server.update("Game", &chess, json!({"score": 10}));
    window.wait_for("another place", |state| ids(state) == [&mill, &go, &chess]);
    window.quit();
}

#[test]
fn an_empty_list_says_so_and_names_of_all_scripts_can_be_read() {
    let server = TestServer::start().unwrap();
    let screen = Screen::start();
    let mut window = Window::start(&screen, &["--server", &server.url(), "--app-id", "app"]);
    window.wait_for("the list", following);
    let empty = screen.picture();
    for name in [
        "围棋",
        "الشطرنج",
        "将棋",
        "שחמט",
        "a name that is far too long for its column, and goes on and on",
    ] {
        server.create("Game", json!({"name": name, "score": 1}));
    }
    window.wait_for(
        "names that can be read: if fonts are missing, test.sh installs them",
        |state| {
            let games = state["games"].as_array().unwrap();
            games.len() == 5 && games.iter().all(|game| game["can_be_read"] == true)
        },
    );
    screen.wait_for("the list", |picture| picture.differs(&empty, 100));
    window.quit();
}

#[test]
#[ignore = "renews the pictures in the README: test.sh --screenshot"]
fn pictures() {
    for theme in ["dark", "light"] {
        let screen = Screen::start();
        let mut window = Window::start(&screen, &["--theme", theme]);
        window.wait_for("the list", |state| state["games"].as_array().unwrap().len() == 3);
        window.wait_for("the end of the fetch", following);
        for _ in 0..4 {
            window.click("New game");
        }
        window.wait_for("seven games", |state| {
            state["games"].as_array().unwrap().len() == 7
        });
        let path = format!("{}/screenshot-{theme}.png", env!("CARGO_MANIFEST_DIR"));
        take_picture(&screen, &mut window, Path::new(&path));
    }
}

/// A game that was created, one that has changed and one that was deleted, in one flash.
fn take_picture(screen: &Screen, window: &mut Window, path: &Path) {
    for _ in 0..10 {
        let ids = [0, 1].map(|row| window.state["games"][row]["id"].as_str().unwrap().to_owned());
        window.click("New game");
        window.click(&format!("+1 {}", ids[0]));
        window.click(&format!("Delete {}", ids[1]));
        window.wait_for("its end", |state| find(state, &ids[1])["flash"] == "deleted");
        // What the program says it shows is on the screen a moment later.
        screen.wait_for("its row", |picture| picture.count(of_the_deleted) >= 3000);
        let picture = screen.picture();
        let games = window.state["games"].as_array().unwrap();
        if ["created", "changed"]
            .iter()
            .all(|change| games.iter().any(|game| game["flash"] == *change))
        {
            return picture.save(path);
        }
    }
    panic!("too slow for a picture");
}

/// Of the colour of a row that has just changed.
fn of_a_flash([r, g, b]: [u8; 3]) -> bool {
    r > 60 && g > 45 && b < 40 && r > g + 10
}

/// Of the colour of a row that was deleted, in both themes.
fn of_the_deleted([r, g, b]: [u8; 3]) -> bool {
    r > g.saturating_add(35) && g.abs_diff(b) < 12
}

/// Of the banner's ground.
fn of_the_banner([r, g, b]: [u8; 3]) -> bool {
    r == 110 && g == 30 && b == 30
}

/// A time of creation long ago, on this day.
fn at(day: u32) -> String {
    format!("2025-01-{day:02}T00:00:00.000Z")
}

fn notice(state: &Value) -> &str {
    state["notice"].as_str().unwrap()
}

/// The list is complete.
fn following(state: &Value) -> bool {
    notice(state) == "following the games"
}

fn ids(state: &Value) -> Vec<&str> {
    let games = state["games"].as_array().unwrap();
    games.iter().map(|game| game["id"].as_str().unwrap()).collect()
}

fn find<'a>(state: &'a Value, id: &str) -> &'a Value {
    let mut games = state["games"].as_array().unwrap().iter();
    games.find(|game| game["id"] == id).unwrap_or(&Value::Null)
}

/// The program, in its window.
struct Window {
    child: Child,
    reports: Receiver<Value>,
    state: Value,
    display: String,
}

impl Window {
    fn start(screen: &Screen, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_games"))
            .args(["--theme", "dark"])
            .args(arguments)
            .arg("--report")
            .env("DISPLAY", &screen.display)
            .env_remove("WAYLAND_DISPLAY")
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            reports,
            state: Value::Null,
            display: screen.display.clone(),
        }
    }

    /// Waits until the program says that it shows something. What it shows now counts too.
    #[track_caller]
    fn wait_for(&mut self, what: &str, condition: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + LONG;
        while self.state.is_null() || !condition(&self.state) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(state) => self.state = state,
                Err(error) => panic!("{what}: {error}; it shows {:#}", self.state),
            }
        }
    }

    #[track_caller]
    fn game(&self, id: &str) -> &Value {
        find(&self.state, id)
    }

    /// Of the games, from the top to the bottom.
    fn ids(&self) -> Vec<&str> {
        ids(&self.state)
    }

    #[track_caller]
    fn click(&mut self, button: &str) {
        let place = |state: &Value| {
            let place = state["buttons"][button]
                .as_array()
                .unwrap_or_else(|| panic!("no button {button} in {state:#}"));
            [0, 1].map(|axis| place[axis].as_f64().unwrap().to_string())
        };
        let [x, y] = place(&self.state);
        self.xdotool(&["mousemove", &x, &y]);
        self.wait_for("the mouse over the button", |state| state["hovered"] == button);
        self.xdotool(&["click", "1"]);
    }

    /// Ctrl-Q: the program says farewell, and ends.
    #[track_caller]
    fn quit(&mut self) {
        self.xdotool(&["search", "--sync", "--name", "Games", "windowfocus", "--sync"]);
        self.xdotool(&["key", "ctrl+q"]);
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "it has not ended");
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Listeners ran, and all of them on the thread of the window.
    #[track_caller]
    fn assert_threads(&mut self) {
        if let Some(last) = self.reports.iter().last() {
            self.state = last;
        }
        assert_eq!(self.state["elsewhere"], 0);
        assert!(self.state["listeners"].as_u64().unwrap() > 0);
    }

    fn xdotool(&self, arguments: &[&str]) {
        let status = Command::new("xdotool")
            .args(arguments)
            .env("DISPLAY", &self.display)
            .stdout(Stdio::null())
            .status();
        assert!(
            status.expect("xdotool, which test.sh installs").success(),
            "{arguments:?}"
        );
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // It runs still if the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A screen that nobody sees, whose pixels are in a file.
struct Screen {
    server: Child,
    display: String,
    pixels: PathBuf,
}

impl Screen {
    fn start() -> Self {
        let name = thread::current().name().unwrap().replace(':', "-");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut server = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                "720x420x24",
                "-nolisten",
                "tcp",
                "-fbdir",
            ])
            .arg(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb, which test.sh installs");
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut number)
            .unwrap();
        assert!(!number.is_empty(), "Xvfb has not started");
        Self {
            server,
            display: format!(":{}", number.trim()),
            pixels: folder.join("Xvfb_screen0"),
        }
    }

    fn picture(&self) -> Picture {
        Picture::read(&fs::read(&self.pixels).unwrap())
    }

    #[track_caller]
    fn wait_for(&self, what: &str, mut condition: impl FnMut(&Picture) -> bool) {
        let deadline = Instant::now() + LONG;
        let mut picture = self.picture();
        while !condition(&picture) {
            if Instant::now() > deadline {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failed.png");
                picture.save(&path);
                panic!("not on the screen: {what}; see {}", path.display());
            }
            thread::park_timeout(Duration::from_millis(50));
            picture = self.picture();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

struct Picture {
    size: [u32; 2],
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Reads the X window dump that Xvfb keeps: a header of big-endian words, a table of colours, and rows of BGRX.
    fn read(dump: &[u8]) -> Self {
        let word = |index: usize| u32::from_be_bytes(dump[index * 4..][..4].try_into().unwrap());
        let (header, width, height, bits, row, colours) =
            (word(0), word(4), word(5), word(11), word(12), word(19));
        assert_eq!(bits, 32, "bits per pixel");
        let start = (header + colours * 12) as usize;
        let rows = dump[start..].chunks(row as usize).take(height as usize);
        let pixels = rows
            .flat_map(|row| row.chunks(4).take(width as usize))
            .map(|pixel| [pixel[2], pixel[1], pixel[0]]);
        Self {
            size: [width, height],
            pixels: pixels.collect(),
        }
    }

    fn count(&self, wanted: impl Fn([u8; 3]) -> bool) -> usize {
        self.pixels.iter().filter(|pixel| wanted(**pixel)).count()
    }

    fn differs(&self, other: &Self, by: usize) -> bool {
        self.pixels
            .iter()
            .zip(&other.pixels)
            .filter(|(one, other)| one != other)
            .count()
            >= by
    }

    fn save(&self, path: &Path) {
        let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), self.size[0], self.size[1]);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&self.pixels.concat()).unwrap();
    }
}

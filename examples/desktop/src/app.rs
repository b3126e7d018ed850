//! The window: draws the games, and has the listeners run on its own thread, once per frame. Knows nothing of what
//! happens in them.

use std::io::Write;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use eframe::egui::{self, Align, Color32, Key, Layout, Modifiers, RichText};
use parse_livequery::rest::{Op, Rest};
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, ClientEventKind, Dispatch, LiveSet, Object, Query};
use serde_json::{Value, json};

use crate::games::{FLASH, Flash, Games, Link, What};

/// Where the games come from.
pub enum Source {
    Embedded(TestServer),
    Remote {
        url: String,
        app_id: String,
        javascript_key: Option<String>,
    },
}

pub struct App {
    client: Client,
    set: LiveSet,
    games: Arc<Mutex<Games>>,
    save: Sender<Call>,
    created: usize,
    server: Option<Server>,
    report: Option<Report>,
}

/// What a button asks of the server.
type Call = Box<dyn FnOnce(&Rest) -> parse_livequery::Result<()> + Send>;

/// The embedded server, which may be down.
struct Server {
    server: TestServer,
    down: bool,
}

impl App {
    pub fn new(context: &egui::Context, source: Source, report: bool) -> parse_livequery::Result<Self> {
        let (url, app_id, key, server) = match source {
            Source::Embedded(server) => (server.url(), "games".to_owned(), None, Some(Server::new(server))),
            Source::Remote {
                url,
                app_id,
                javascript_key,
            } => (url, app_id, javascript_key, None),
        };
        // The closure runs on a thread of the client, and only asks for a frame.
        let wake = context.clone();
        let mut builder =
            Client::builder(url, app_id).dispatch(Dispatch::manual(move || wake.request_repaint()));
        if let Some(key) = key {
            builder = builder.javascript_key(key);
        }
        let client = builder.build()?;

        let games = Arc::new(Mutex::new(Games::new()));
        for kind in ClientEventKind::ALL {
            let games = Arc::clone(&games);
            client.on(kind, move |event| lock(&games).client_event(event));
        }
        let (of_change, of_ready, of_stale) = (Arc::clone(&games), Arc::clone(&games), Arc::clone(&games));
        let set = client
            .live_set(&Query::new("Game").ascending(["createdAt"]))
            .on_change(move |change, _| lock(&of_change).change(change))
            .on_ready(move |_| lock(&of_ready).ready())
            .on_stale(move |since| lock(&of_stale).stale(since))
            .start()?;
        let save = saver(client.rest(), Arc::clone(&games), context.clone());
        Ok(Self {
            client,
            set,
            games,
            save,
            created: if server.is_some() { 3 } else { 0 },
            server,
            report: report.then(Report::default),
        })
    }

    fn create(&mut self) {
        let name = NAMES[self.created % NAMES.len()];
        self.created += 1;
        let game = json!({ "name": name, "score": self.created });
        self.call(move |rest| rest.create("Game", &game).map(drop));
    }

    fn change(&self, id: &str) {
        let id = id.to_owned();
        let change = json!({ "score": Op::increment(1) });
        self.call(move |rest| rest.update("Game", &id, &change).map(drop));
    }

    fn change_all(&self) {
        for game in &self.set.snapshot() {
            self.change(game.id().unwrap_or_default());
        }
    }

    fn delete(&self, id: &str) {
        let id = id.to_owned();
        self.call(move |rest| rest.delete("Game", &id));
    }

    fn call(&self, call: impl FnOnce(&Rest) -> parse_livequery::Result<()> + Send + 'static) {
        // The thread lives as long as the sender.
        let _ = self.save.send(Box::new(call));
    }

    fn draw(&mut self, context: &egui::Context) {
        let kept = Arc::clone(&self.games);
        let games = lock(&kept);
        let set = self.set.snapshot();
        let rows = games.rows(&set);
        let mut buttons = Buttons::default();
        egui::TopBottomPanel::top("link").show(context, |ui| {
            ui.add_space(6.0);
            ui.horizontal(|ui| {
                ui.heading(format!("{} games", set.len()));
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let (colour, text) = describe(&games.link);
                    ui.label(text);
                    ui.label(RichText::new("⏺").color(colour));
                });
            });
            ui.add_space(4.0);
        });
        egui::TopBottomPanel::bottom("foot").show(context, |ui| {
            ui.add_space(4.0);
            ui.horizontal(|ui| {
                if buttons.button(ui, "New game") {
                    self.create();
                }
                if buttons.button(ui, "Change all") {
                    self.change_all();
                }
                if let Some(server) = &mut self.server {
                    ui.separator();
                    if buttons.button(ui, "Cut the link") {
                        server.server.cut();
                    }
                    if buttons.button(
                        ui,
                        if server.down {
                            "Start the server"
                        } else {
                            "Stop the server"
                        },
                    ) {
                        server.toggle();
                    }
                }
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| ui.weak(&games.notice));
            });
            ui.add_space(4.0);
        });
        egui::CentralPanel::default().show(context, |ui| {
            egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                for (game, flash) in &rows {
                    self.draw_row(ui, game, *flash, &mut buttons);
                }
            });
        });
        if let Some(report) = &mut self.report {
            report.print(&games, &rows, buttons);
        }
    }

    fn draw_row(&self, ui: &mut egui::Ui, game: &Object, flash: Option<Flash>, buttons: &mut Buttons) {
        let id = game.id().unwrap_or_default();
        let created = game.created_at().map(|date| date.to_string()).unwrap_or_default();
        let fill = flash.map_or(Color32::TRANSPARENT, |(what, since)| {
            let faded = since.elapsed().as_secs_f32() / FLASH.as_secs_f32();
            colour(what).gamma_multiply((1.0 - faded).clamp(0.0, 1.0))
        });
        egui::Frame::new()
            .fill(fill)
            .inner_margin(5)
            .corner_radius(4)
            .show(ui, |ui| {
                ui.horizontal(|ui| {
                    let cell = |ui: &mut egui::Ui, width: f32, text: RichText| {
                        ui.allocate_ui_with_layout(
                            [width, 20.0].into(),
                            Layout::left_to_right(Align::Center),
                            |ui| {
                                ui.set_min_width(width);
                                ui.label(text);
                            },
                        );
                    };
                    cell(ui, 110.0, RichText::new(name_of(game)).strong());
                    cell(ui, 50.0, RichText::new(score_of(game).to_string()));
                    cell(ui, 110.0, RichText::new(id).monospace());
                    cell(ui, 190.0, RichText::new(created));
                    ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                        if buttons.button_for(ui, "Delete", id) {
                            self.delete(id);
                        }
                        if buttons.button_for(ui, "+1", id) {
                            self.change(id);
                        }
                    });
                });
            });
    }
}

/// The thread that saves: calls wait for the server's answer, and the window must not. What the server has made of them
/// comes back as changes of the set; what fails is told at the foot of the window.
fn saver(rest: Rest, games: Arc<Mutex<Games>>, context: egui::Context) -> Sender<Call> {
    let (sender, calls) = mpsc::channel::<Call>();
    thread::spawn(move || {
        for call in calls {
            if let Err(error) = call(&rest) {
                lock(&games).notice = error.to_string();
                context.request_repaint();
            }
        }
    });
    sender
}

impl eframe::App for App {
    fn update(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        // So long that a burst of events does not take long to show, and so short that no frame is missed. What is
        // left over asks for the next one.
        self.client.dispatch_pending_for(Duration::from_millis(4));
        let flashing = lock(&self.games).fade();
        self.draw(context);
        if flashing {
            context.request_repaint();
        } else if matches!(lock(&self.games).link, Link::Waiting { .. }) {
            // The countdown.
            context.request_repaint_after(Duration::from_millis(100));
        }
        if context.input_mut(|input| input.consume_key(Modifiers::CTRL, Key::Q)) {
            context.send_viewport_cmd(egui::ViewportCommand::Close);
        }
    }

    fn on_exit(&mut self, _: Option<&eframe::glow::Context>) {
        self.client.close();
    }
}

impl Server {
    fn new(server: TestServer) -> Self {
        for (name, score) in NAMES.into_iter().zip(1..=3) {
            server.create("Game", json!({ "name": name, "score": score }));
        }
        Self { server, down: false }
    }

    fn toggle(&mut self) {
        if self.down {
            // If the port was taken meanwhile it stays down.
            self.down = self.server.resume().is_err();
        } else {
            self.server.stop();
            self.down = true;
        }
    }
}

fn describe(link: &Link) -> (Color32, String) {
    match link {
        Link::Connecting => (Color32::YELLOW, "connecting".to_owned()),
        Link::Connected => (Color32::GREEN, "connected".to_owned()),
        Link::Waiting { attempt, until, why } => {
            let left = until.saturating_duration_since(Instant::now());
            let when = match left.as_secs_f32() {
                0.0 => "now".to_owned(),
                seconds => format!("in {seconds:.1} s"),
            };
            (Color32::ORANGE, format!("{why} · attempt {attempt} {when}"))
        }
        Link::Ended(why) => (Color32::RED, format!("ended {why}")),
    }
}

fn name_of(game: &Object) -> &str {
    game.get_str("name").unwrap_or("?")
}

fn score_of(game: &Object) -> f64 {
    game.get_f64("score").unwrap_or_default()
}

fn colour(what: What) -> Color32 {
    match what {
        What::Created => Color32::from_rgb(20, 80, 40),
        What::Changed => Color32::from_rgb(95, 75, 15),
        What::Deleted => Color32::from_rgb(105, 35, 35),
    }
}

/// Draws buttons, and remembers where they are.
#[derive(Default)]
struct Buttons {
    places: serde_json::Map<String, Value>,
    hovered: Option<String>,
}

impl Buttons {
    fn button(&mut self, ui: &mut egui::Ui, label: &str) -> bool {
        self.button_for(ui, label, "")
    }

    fn button_for(&mut self, ui: &mut egui::Ui, label: &str, id: &str) -> bool {
        let button = ui.button(label);
        let at = button.rect.center();
        let name = format!("{label} {id}").trim_end().to_owned();
        if button.hovered() {
            self.hovered = Some(name.clone());
        }
        self.places.insert(name, json!([at.x, at.y]));
        button.clicked()
    }
}

/// Prints what the window shows, whenever it has changed.
#[derive(Default)]
struct Report(Option<Value>);

impl Report {
    fn print(&mut self, games: &Games, rows: &[(&Object, Option<Flash>)], buttons: Buttons) {
        let rows = rows.iter().map(|(game, flash)| {
            let flash = flash.map(|(what, _)| match what {
                What::Created => "created",
                What::Changed => "changed",
                What::Deleted => "deleted",
            });
            json!({ "id": game.id(), "name": name_of(game), "score": score_of(game), "flash": flash })
        });
        let link = match &games.link {
            Link::Connecting => "connecting",
            Link::Connected => "connected",
            Link::Waiting { .. } => "waiting",
            Link::Ended(_) => "ended",
        };
        let now = json!({
            "games": rows.collect::<Vec<_>>(),
            "link": link,
            "notice": games.notice,
            "listeners": games.listeners,
            "elsewhere": games.elsewhere,
            "buttons": buttons.places,
            "hovered": buttons.hovered,
        });
        if self.0.as_ref() != Some(&now) {
            // Whoever started this has seen enough if it fails.
            let _ = writeln!(std::io::stdout(), "{now}");
            self.0 = Some(now);
        }
    }
}

fn lock(games: &Mutex<Games>) -> MutexGuard<'_, Games> {
    games.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAMES: [&str; 8] = [
    "chess", "go", "mill", "draughts", "reversi", "hex", "shogi", "mancala",
];

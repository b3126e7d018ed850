//! The program: keeps the list live, runs its listeners on the window's thread, once per frame, and carries
//! out the user's commands. It does not know how the window looks.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use eframe::egui::{self, Key, Modifiers};
use parse_livequery::rest::{Op, Rest};
use parse_livequery::test_server::TestServer;
use parse_livequery::{Client, ClientEventKind, Dispatch, LiveSet, Query};
use serde_json::json;

use crate::games::{Games, Link};
use crate::report::Report;
use crate::view::{self, Action, Shown, Sort};

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
    sort: Sort,
    games: Arc<Mutex<Games>>,
    save: Sender<Call>,
    created: usize,
    server: Option<Server>,
    report: Option<Report>,
}

/// A request to the server, made by a button.
type Call = Box<dyn FnOnce(&Rest) -> parse_livequery::Result<()> + Send>;

/// The embedded server, which may be down.
struct Server {
    server: TestServer,
    is_down: bool,
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
        let sort = Sort::default();
        let (of_change, of_ready, of_stale) = (Arc::clone(&games), Arc::clone(&games), Arc::clone(&games));
        let set = client
            .live_set(&query(sort))
            .on_change(move |change, _| lock(&of_change).change(change))
            .on_ready(move |_| lock(&of_ready).ready())
            .on_stale(move |since| lock(&of_stale).stale(since))
            .start()?;
        let save = saver(client.rest(), Arc::clone(&games), context.clone());
        Ok(Self {
            client,
            set,
            sort,
            games,
            save,
            created: if server.is_some() { 3 } else { 0 },
            server,
            report: report.then(Report::default),
        })
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Create => {
                let name = NAMES[self.created % NAMES.len()];
                self.created += 1;
                let game = json!({ "name": name, "score": self.created });
                self.call(move |rest| rest.create("Game", &game).map(drop));
            }
            Action::Change(id) => self.change(id),
            Action::ChangeAll => {
                for game in &self.set.snapshot() {
                    self.change(game.id().unwrap_or_default().to_owned());
                }
            }
            Action::Delete(id) => self.call(move |rest| rest.delete("Game", &id)),
            Action::Sort(sort) => match self.set.set_query(&query(sort)) {
                // The old order is shown until the new one is there; the program does not wait for it.
                Ok(_) => self.sort = sort,
                Err(error) => lock(&self.games).fail(&error),
            },
            Action::CutLink => {
                if let Some(server) = &self.server {
                    server.server.cut();
                }
            }
            Action::ToggleServer => {
                if let Some(server) = &mut self.server {
                    server.toggle();
                }
            }
            Action::Dismiss => lock(&self.games).banner = None,
        }
    }

    fn change(&self, id: String) {
        let change = json!({ "score": Op::increment(1) });
        self.call(move |rest| rest.update("Game", &id, &change).map(drop));
    }

    fn call(&self, call: impl FnOnce(&Rest) -> parse_livequery::Result<()> + Send + 'static) {
        // The thread lives as long as the sender.
        let _ = self.save.send(Box::new(call));
    }
}

impl eframe::App for App {
    fn update(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        // Long enough that a burst of events is shown soon, and short enough that no frame is missed. If
        // events are left over, the client asks for another frame.
        self.client.dispatch_pending_for(Duration::from_millis(4));
        let is_flashing = lock(&self.games).fade();

        let kept = Arc::clone(&self.games);
        let games = lock(&kept);
        let set = self.set.snapshot();
        let rows = games.rows(&set);
        let shown = Shown {
            games: &games,
            count: set.len(),
            rows: &rows,
            sort: self.sort,
            server_is_down: self.server.as_ref().map(|server| server.is_down),
        };
        let drawn = view::draw(context, &shown);
        if let Some(report) = &mut self.report {
            report.print(context, &shown, drawn.buttons);
        }
        let is_waiting = matches!(games.link, Link::Waiting { .. });
        drop(games);
        if let Some(action) = drawn.action {
            self.carry_out(action);
            context.request_repaint();
        }

        if is_flashing {
            context.request_repaint();
        } else if is_waiting {
            // For the countdown.
            context.request_repaint_after(Duration::from_millis(100));
        } else {
            // For the ages of the games.
            context.request_repaint_after(Duration::from_secs(1));
        }
        if context.input_mut(|input| input.consume_key(Modifiers::CTRL, Key::Q)) {
            context.send_viewport_cmd(egui::ViewportCommand::Close);
        }
    }

    fn on_exit(&mut self, _: Option<&eframe::glow::Context>) {
        self.client.close();
    }
}

fn query(sort: Sort) -> Query {
    let query = Query::new("Game");
    match sort.is_descending {
        false => query.ascending([sort.column.field()]),
        true => query.descending([sort.column.field()]),
    }
}

/// The thread that saves: calls wait for the server's answer, and the window must not. The results come back
/// as changes of the set; failures are shown in the window.
fn saver(rest: Rest, games: Arc<Mutex<Games>>, context: egui::Context) -> Sender<Call> {
    let (sender, calls) = mpsc::channel::<Call>();
    thread::spawn(move || {
        for call in calls {
            if let Err(error) = call(&rest) {
                lock(&games).fail(&error);
                context.request_repaint();
            }
        }
    });
    sender
}

impl Server {
    fn new(server: TestServer) -> Self {
        for (name, score) in NAMES.into_iter().zip(1..=3) {
            server.create("Game", json!({ "name": name, "score": score }));
        }
        Self {
            server,
            is_down: false,
        }
    }

    fn toggle(&mut self) {
        if self.is_down {
            // If the port has been taken meanwhile, the server stays down.
            self.is_down = self.server.resume().is_err();
        } else {
            self.server.stop();
            self.is_down = true;
        }
    }
}

fn lock(games: &Mutex<Games>) -> MutexGuard<'_, Games> {
    games.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAMES: [&str; 10] = [
    "chess",
    "go",
    "mill",
    "围棋",
    "draughts",
    "الشطرنج",
    "reversi",
    "hex",
    "将棋",
    "mancala",
];

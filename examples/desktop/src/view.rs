//! How the window looks: draws the state, and returns the user's commands. It knows
//! nothing about clients and servers.

use std::time::Instant;

use eframe::egui::{self, Align, Layout, Rangef, Rect, RichText, ScrollArea, TextStyle, Ui};
use egui_extras::{Column as Width, TableBody, TableBuilder};
use parse_livequery::Object;
use serde_json::{Value, json};

use crate::games::{FLASH, Flash, Games, Link};
use crate::style::Palette;
use crate::text;

/// The state to draw.
pub struct Shown<'a> {
    pub games: &'a Games,
    /// The number of games in the list, without those that are gone and still flash.
    pub count: usize,
    pub rows: &'a [(&'a Object, Option<Flash>)],
    pub sort: Sort,
    /// `None` if the server is not embedded.
    pub server_is_down: Option<bool>,
}

#[derive(Clone, Copy, PartialEq)]
pub struct Sort {
    pub column: Column,
    pub is_descending: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Column {
    Name,
    Score,
    Created,
}

/// A command of the user.
pub enum Action {
    Create,
    Change(String),
    ChangeAll,
    Delete(String),
    Sort(Sort),
    CutLink,
    ToggleServer,
    Dismiss,
}

/// The result of drawing a frame.
#[derive(Default)]
pub struct Drawn {
    pub action: Option<Action>,
    pub buttons: Buttons,
}

/// Where the buttons are, and over which one the mouse is.
#[derive(Default)]
pub struct Buttons {
    pub places: serde_json::Map<String, Value>,
    pub hovered: Option<String>,
}

impl Default for Sort {
    fn default() -> Self {
        Self {
            column: Column::Created,
            is_descending: false,
        }
    }
}

impl Column {
    pub fn field(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Score => "score",
            Self::Created => "createdAt",
        }
    }
}

pub fn draw(context: &egui::Context, shown: &Shown<'_>) -> Drawn {
    let mut drawn = Drawn::default();
    egui::TopBottomPanel::top("link").show(context, |ui| draw_head(ui, shown));
    egui::TopBottomPanel::bottom("foot").show(context, |ui| drawn.foot(ui, shown));
    if let Some(banner) = &shown.games.banner {
        let palette = Palette::of(context);
        let frame = egui::Frame::new().fill(palette.banner).inner_margin(8);
        egui::TopBottomPanel::top("banner")
            .frame(frame)
            .show(context, |ui| drawn.banner(ui, &banner.text));
    }
    egui::CentralPanel::default().show(context, |ui| {
        if shown.rows.is_empty() {
            draw_emptiness(ui, shown);
        } else {
            // A row is useless without its buttons, so a table that is too wide scrolls.
            ScrollArea::horizontal().show(ui, |ui| drawn.table(ui, shown));
        }
    });
    drawn
}

fn draw_head(ui: &mut Ui, shown: &Shown<'_>) {
    ui.add_space(6.0);
    ui.horizontal(|ui| {
        ui.heading(match shown.count {
            1 => "1 game".to_owned(),
            count => format!("{count} games"),
        });
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let (colour, text) = describe(&Palette::of(ui.ctx()), &shown.games.link);
            ui.label(text);
            ui.label(RichText::new("⏺").color(colour));
        });
    });
    ui.add_space(4.0);
}

fn describe(palette: &Palette, link: &Link) -> (egui::Color32, String) {
    match link {
        Link::Connecting => (palette.waiting, "connecting".to_owned()),
        Link::Connected => (palette.good, "connected".to_owned()),
        Link::Waiting { attempt, until } => {
            let left = until.saturating_duration_since(Instant::now());
            let when = match left.as_secs_f32() {
                0.0 => "now".to_owned(),
                seconds => format!("in {seconds:.1} s"),
            };
            (
                palette.waiting,
                format!("not connected · attempt {attempt} {when}"),
            )
        }
        Link::Ended => (palette.bad, "ended".to_owned()),
    }
}

/// No list, or an empty one: says which, and what to do.
fn draw_emptiness(ui: &mut Ui, shown: &Shown<'_>) {
    let (title, hint) = match (&shown.games.link, shown.games.is_filled) {
        (_, true) => ("No games", "“New game” makes the first one."),
        (Link::Ended, false) => ("No games", "The connection has ended."),
        (_, false) => ("Looking for games", "The list has not come from the server yet."),
    };
    ui.add_space((ui.available_height() / 2.0 - 40.0).max(0.0));
    ui.vertical_centered(|ui| {
        ui.heading(title);
        ui.weak(hint);
    });
}

impl Drawn {
    fn banner(&mut self, ui: &mut Ui, text: &str) {
        let palette = Palette::of(ui.ctx());
        ui.horizontal_top(|ui| {
            ui.label(RichText::new("⚠").color(palette.on_banner));
            ui.with_layout(Layout::right_to_left(Align::Min), |ui| {
                if self.button(ui, "Dismiss") {
                    self.action = Some(Action::Dismiss);
                }
                ui.with_layout(Layout::left_to_right(Align::Min), |ui| {
                    let text = RichText::new(text).color(palette.on_banner);
                    ui.add(egui::Label::new(text).wrap());
                });
            });
        });
    }

    fn foot(&mut self, ui: &mut Ui, shown: &Shown<'_>) {
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            if self.button(ui, "New game") {
                self.action = Some(Action::Create);
            }
            if self.button(ui, "Change all") {
                self.action = Some(Action::ChangeAll);
            }
            if let Some(is_down) = shown.server_is_down {
                ui.separator();
                if self.button(ui, "Cut the link") {
                    self.action = Some(Action::CutLink);
                }
                let toggle = if is_down {
                    "Start the server"
                } else {
                    "Stop the server"
                };
                if self.button(ui, toggle) {
                    self.action = Some(Action::ToggleServer);
                }
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.add(egui::Label::new(RichText::new(&shown.games.notice).weak()).truncate());
            });
        });
        ui.add_space(4.0);
    }

    fn table(&mut self, ui: &mut Ui, shown: &Shown<'_>) {
        let width = ui.max_rect().x_range();
        let line = ui.text_style_height(&TextStyle::Button) + 2.0 * ui.spacing().button_padding.y;
        TableBuilder::new(ui)
            .auto_shrink(false)
            .cell_layout(Layout::left_to_right(Align::Center))
            .column(Width::remainder().at_least(120.0))
            .column(Width::exact(90.0))
            .column(Width::exact(110.0))
            .column(Width::exact(120.0))
            .column(Width::exact(110.0))
            .header(line + 4.0, |mut row| {
                row.col(|ui| self.head(ui, "Name", Some(Column::Name), shown.sort));
                row.col(|ui| {
                    ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                        ui.add_space(AFTER_NUMBERS);
                        self.head(ui, "Score", Some(Column::Score), shown.sort);
                    });
                });
                row.col(|ui| self.head(ui, "Id", None, shown.sort));
                row.col(|ui| self.head(ui, "Created", Some(Column::Created), shown.sort));
                row.col(|_| {});
            })
            .body(|body| self.rows(body, width, line + 8.0, shown));
    }

    /// A column's head; the head of a sortable column shows its order.
    fn head(&mut self, ui: &mut Ui, title: &str, column: Option<Column>, sort: Sort) {
        let Some(column) = column else {
            ui.strong(title);
            return;
        };
        let is_sorted = sort.column == column;
        let text = match (is_sorted, sort.is_descending) {
            (false, _) => title.to_owned(),
            (true, false) => format!("{title} ⏶"),
            (true, true) => format!("{title} ⏷"),
        };
        let head = egui::Button::new(RichText::new(text).strong()).frame(false);
        if self.add_button(ui, head, title) {
            self.action = Some(Action::Sort(Sort {
                column,
                is_descending: is_sorted && !sort.is_descending,
            }));
        }
    }

    fn rows(&mut self, body: TableBody<'_>, width: Rangef, height: f32, shown: &Shown<'_>) {
        body.rows(height, shown.rows.len(), |mut row| {
            let index = row.index();
            let Some((game, flash)) = shown.rows.get(index) else {
                return;
            };
            let id = game.id().unwrap_or_default();
            row.col(|ui| {
                draw_ground(ui, width, index, *flash);
                let name = text::as_seen(name_of(game));
                ui.add(egui::Label::new(RichText::new(name).strong()).truncate());
            });
            row.col(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.add_space(AFTER_NUMBERS);
                    ui.label(score_of(game).to_string());
                });
            });
            row.col(|ui| {
                ui.add(egui::Label::new(RichText::new(id).monospace()).truncate());
            });
            row.col(|ui| {
                if let Some(created) = game.created_at() {
                    ui.label(text::ago(created)).on_hover_text(created.to_string());
                }
            });
            row.col(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if self.button_for(ui, "Delete", id) {
                        self.action = Some(Action::Delete(id.to_owned()));
                    }
                    if self.button_for(ui, "+1", id) {
                        self.action = Some(Action::Change(id.to_owned()));
                    }
                });
            });
        });
    }

    fn button(&mut self, ui: &mut Ui, label: &str) -> bool {
        self.add_button(ui, egui::Button::new(label), label)
    }

    fn button_for(&mut self, ui: &mut Ui, label: &str, id: &str) -> bool {
        self.add_button(ui, egui::Button::new(label), &format!("{label} {id}"))
    }

    fn add_button(&mut self, ui: &mut Ui, button: egui::Button<'_>, name: &str) -> bool {
        let button = ui.add(button);
        let at = button.rect.center();
        if button.hovered() {
            self.buttons.hovered = Some(name.to_owned());
        }
        if ui.clip_rect().contains(at) {
            self.buttons.places.insert(name.to_owned(), json!([at.x, at.y]));
        }
        button.clicked()
    }
}

/// Draws the background of a row, from its first cell on: a stripe, and the colour of the last event.
fn draw_ground(ui: &Ui, width: Rangef, index: usize, flash: Option<Flash>) {
    let height = ui.max_rect().expand(0.5 * ui.spacing().item_spacing.y).y_range();
    let row = Rect::from_x_y_ranges(width, height);
    if index % 2 == 1 {
        ui.painter().rect_filled(row, 0.0, ui.visuals().faint_bg_color);
    }
    let Some((what, since)) = flash else { return };
    let faded = since.elapsed().as_secs_f32() / FLASH.as_secs_f32();
    let colour = Palette::of(ui.ctx())
        .behind(what)
        .gamma_multiply((1.0 - faded).clamp(0.0, 1.0));
    ui.painter().rect_filled(row, 0.0, colour);
}

pub fn name_of(game: &Object) -> &str {
    game.get_str("name").unwrap_or("?")
}

pub fn score_of(game: &Object) -> f64 {
    game.get_f64("score").unwrap_or_default()
}

/// The space between a number and the text of the next column.
const AFTER_NUMBERS: f32 = 14.0;

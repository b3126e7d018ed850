//! Prints what the window shows, whenever it changes, as a line of JSON: for tests.

use std::io::Write;

use eframe::egui::{self, TextStyle};
use serde_json::{Value, json};

use crate::games::{Link, What};
use crate::text;
use crate::view::{Buttons, Shown, name_of, score_of};

#[derive(Default)]
pub struct Report(Option<Value>);

impl Report {
    pub fn print(&mut self, context: &egui::Context, shown: &Shown<'_>, buttons: Buttons) {
        let games = shown.games;
        let font = TextStyle::Body.resolve(&context.style());
        let rows = shown.rows.iter().map(|(game, flash)| {
            let flash = flash.map(|(what, _)| match what {
                What::Created => "created",
                What::Changed => "changed",
                What::Deleted => "deleted",
            });
            let name = name_of(game);
            let can_be_read = context.fonts(|fonts| fonts.has_glyphs(&font, &text::as_seen(name)));
            json!({
                "id": game.id(), "name": name, "score": score_of(game), "flash": flash, "can_be_read": can_be_read,
            })
        });
        let link = match &games.link {
            Link::Connecting => "connecting",
            Link::Connected => "connected",
            Link::Waiting { .. } => "waiting",
            Link::Ended => "ended",
        };
        let now = json!({
            "games": rows.collect::<Vec<_>>(),
            "link": link,
            "notice": games.notice,
            "banner": games.banner.as_ref().map(|banner| &*banner.text),
            "listeners": games.listeners,
            "elsewhere": games.elsewhere,
            "buttons": buttons.places,
            "hovered": buttons.hovered,
        });
        if self.0.as_ref() != Some(&now) {
            // If it fails, the reader has gone.
            let _ = writeln!(std::io::stdout(), "{now}");
            self.0 = Some(now);
        }
    }
}

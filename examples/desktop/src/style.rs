//! Colours that are readable on dark and light backgrounds, and letters for every script that the system has
//! a font for.

use std::thread;

use eframe::egui::epaint::text::{FontData, FontInsert, FontPriority, InsertFontFamily};
use eframe::egui::{self, Color32, FontFamily, Theme};
use fontdb::{Database, Style, Weight};

use crate::games::What;

pub struct Palette {
    pub good: Color32,
    pub waiting: Color32,
    pub bad: Color32,
    pub banner: Color32,
    pub on_banner: Color32,
    created: Color32,
    changed: Color32,
    deleted: Color32,
}

impl Palette {
    pub fn of(context: &egui::Context) -> Self {
        match context.theme() {
            Theme::Dark => Self {
                good: Color32::from_rgb(80, 220, 110),
                waiting: Color32::from_rgb(255, 180, 60),
                bad: Color32::from_rgb(255, 110, 100),
                banner: Color32::from_rgb(110, 30, 30),
                on_banner: Color32::from_rgb(255, 225, 220),
                created: Color32::from_rgb(20, 80, 40),
                changed: Color32::from_rgb(95, 75, 15),
                deleted: Color32::from_rgb(105, 35, 35),
            },
            Theme::Light => Self {
                good: Color32::from_rgb(20, 130, 50),
                waiting: Color32::from_rgb(175, 95, 0),
                bad: Color32::from_rgb(180, 30, 30),
                banner: Color32::from_rgb(250, 215, 210),
                on_banner: Color32::from_rgb(110, 15, 15),
                created: Color32::from_rgb(180, 235, 190),
                changed: Color32::from_rgb(250, 225, 150),
                deleted: Color32::from_rgb(250, 195, 190),
            },
        }
    }

    /// The background of a row after this event.
    pub fn behind(&self, what: What) -> Color32 {
        match what {
            What::Created => self.created,
            What::Changed => self.changed,
            What::Deleted => self.deleted,
        }
    }
}

pub fn set_up(context: &egui::Context) {
    for (theme, text, weak) in [
        (Theme::Dark, Color32::from_gray(225), Color32::from_gray(170)),
        (Theme::Light, Color32::from_gray(25), Color32::from_gray(90)),
    ] {
        context.style_mut_of(theme, |style| {
            style.visuals.widgets.noninteractive.fg_stroke.color = text;
            style.visuals.widgets.inactive.fg_stroke.color = text;
            style.visuals.weak_text_color = Some(weak);
            style.spacing.scroll = egui::style::ScrollStyle::solid();
            for font in style.text_styles.values_mut() {
                font.size += 1.0;
            }
        });
    }
    let context = context.clone();
    // This reads many files, and the window need not wait for it.
    thread::spawn(move || add_fonts(&context));
}

/// Adds, for each script that egui's own fonts lack, the first font of the system that has its letters.
fn add_fonts(context: &egui::Context) {
    let mut fonts = Database::new();
    fonts.load_system_fonts();
    let mut missing = SAMPLES.to_vec();
    let faces: Vec<_> = fonts
        .faces()
        .map(|face| (face.id, face.style, face.weight))
        .collect();
    for (id, style, weight) in faces {
        if style != Style::Normal || weight != Weight::NORMAL || missing.is_empty() {
            continue;
        }
        let found = fonts.with_face_data(id, |data, index| {
            let face = ttf_parser::Face::parse(data, index).ok()?;
            let (has, lacks): (Vec<_>, Vec<_>) = missing
                .iter()
                .copied()
                .partition(|sample| face.glyph_index(*sample).is_some());
            (!has.is_empty()).then(|| (lacks, data.to_vec(), index))
        });
        let Some((lacks, data, index)) = found.flatten() else {
            continue;
        };
        missing = lacks;
        let mut data = FontData::from_owned(data);
        data.index = index;
        let families = [FontFamily::Proportional, FontFamily::Monospace].map(|family| InsertFontFamily {
            family,
            priority: FontPriority::Lowest,
        });
        context.add_font(FontInsert::new(&id.to_string(), data, families.to_vec()));
    }
    context.request_repaint();
}

/// A letter of each script: Han, kana, Hangul, Arabic as [`as_seen`](crate::text::as_seen) writes it, Hebrew.
/// egui cannot draw scripts whose letters change their shapes in other ways.
const SAMPLES: [char; 5] = ['棋', 'か', '한', '\u{fedf}', 'א'];

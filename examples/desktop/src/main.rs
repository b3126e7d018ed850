//! A window with a live list of games. Without arguments it starts a LiveQuery server in the process and has
//! buttons that change its contents; with `--server` it watches the class `Game` of your own server.

mod app;
mod games;
mod report;
mod style;
mod text;
mod view;

use std::error::Error;

use clap::Parser;
use eframe::egui::ThemePreference;
use parse_livequery::test_server::TestServer;

use app::{App, Source};

/// A live list of games.
#[derive(Parser)]
#[command(name = "games")]
struct Arguments {
    /// The LiveQuery server, such as ws://host:port/path. Without it, one is started in this process.
    #[arg(long, value_name = "URL", requires = "app_id")]
    server: Option<String>,
    /// The application id of that server.
    #[arg(long, value_name = "ID", requires = "server")]
    app_id: Option<String>,
    /// Its JavaScript key, if it requires one.
    #[arg(
        long,
        value_name = "KEY",
        requires = "server",
        env = "PARSE_JAVASCRIPT_KEY",
        hide_env_values = true
    )]
    javascript_key: Option<String>,
    /// The colours of the window; without it, those of the system.
    #[arg(long, value_enum, overrides_with = "theme")]
    theme: Option<Theme>,
    /// Print what the window shows as a line of JSON whenever it has changed; for tests.
    #[arg(long, hide = true)]
    report: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Theme {
    Dark,
    Light,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let source = match (arguments.server, arguments.app_id) {
        (Some(url), Some(app_id)) => Source::Remote {
            url,
            app_id,
            javascript_key: arguments.javascript_key,
        },
        _ => Source::Embedded(TestServer::start()?),
    };
    let options = eframe::NativeOptions {
        viewport: eframe::egui::ViewportBuilder::default().with_inner_size([720.0, 420.0]),
        ..Default::default()
    };
    eframe::run_native(
        "Games",
        options,
        Box::new(move |creation| {
            let context = &creation.egui_ctx;
            style::set_up(context);
            match arguments.theme {
                Some(Theme::Dark) => context.set_theme(ThemePreference::Dark),
                Some(Theme::Light) => context.set_theme(ThemePreference::Light),
                None => context.set_theme(ThemePreference::System),
            }
            Ok(Box::new(App::new(context, source, arguments.report)?))
        }),
    )?;
    Ok(())
}

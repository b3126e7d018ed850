//! Files for the system around the program: completions for shells, and a manual page. It knows nothing
//! about single commands.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Failure;

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, mut command: Command) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, "livequery", &mut text);
        print(&text)
    }
}

/// One page for the program, with a chapter for each command.
pub(crate) fn man(mut command: Command) -> Result<(), Failure> {
    command.build();
    let mut text = Vec::new();
    let written = clap_mangen::Man::new(command.clone())
        .render(&mut text)
        .and_then(|()| {
            for sub in command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
            {
                writeln!(text, ".SH \"LIVEQUERY {}\"", sub.get_name().to_uppercase())?;
                let page = clap_mangen::Man::new(sub.clone());
                page.render_synopsis_section(&mut text)?;
                page.render_description_section(&mut text)?;
                page.render_options_section(&mut text)?;
            }
            Ok(())
        });
    written.map_err(Failure::NotWritten)?;
    print(&text)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::NotWritten(error)),
        _ => Ok(()),
    }
}

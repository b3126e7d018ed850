//! The program `livequery`: what the library does, for the shell. It only knows which command does what.
//!
//! It only uses the public interface of the library, like any other program.

mod arguments;
mod calls;
mod doctor;
mod ending;
mod exit;
mod filter;
mod line;
mod on;
mod output;
mod serve;
mod settings;
mod tail;
mod watch;
mod words;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};
use exit::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => Arguments::command()
            .error(ErrorKind::ValueValidation, text)
            .exit(),
        Err(failure) => {
            if let Some(text) = failure.text() {
                eprintln!("error: {}", line::harmless(&exit::shell_words(&text)));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = || arguments.connection.settings();
    match &arguments.command {
        Command::Tail(options) => options.run(&settings()?),
        Command::Doctor(options) => options.run(&settings()?),
        Command::On(options) => options.run(&settings()?),
        Command::Watch(options) => options.run(&settings()?),
        Command::Serve(options) => options.run(),
        Command::Find(call) => call.run(&settings()?),
        Command::Get(call) => call.run(&settings()?),
        Command::Create(call) => call.run(&settings()?),
        Command::Update(call) => call.run(&settings()?),
        Command::Delete(call) => call.run(&settings()?),
        Command::Call(call) => call.run(&settings()?),
        Command::Login(call) => call.run(&settings()?),
        Command::Completions(completions) => completions.run(Arguments::command()),
        Command::Man => words::man(Arguments::command()),
    }
}

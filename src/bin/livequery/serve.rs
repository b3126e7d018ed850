//! `serve`: the test server as a program, for developers in any language. It does not know how the server
//! works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::{fs, io};

use clap::Args;
use parse_livequery::test_server::TestServer;
use serde_json::{Map, Value, json};

use crate::ending::end_on_request;
use crate::exit::Failure;

/// Runs a small Parse Server with LiveQuery in memory, for trying out programs
///
/// Everything is in memory: --data reads objects at the start, and writes them at the end. The server accepts
/// any application id. It only listens on this machine.
#[derive(Args)]
pub(crate) struct Options {
    /// The port, on 127.0.0.1; 0 means any free port
    #[arg(long, value_name = "PORT", default_value_t = 1337)]
    port: u16,

    /// Read the objects from this file, if it is there, and write them to it at the end
    ///
    /// It is JSON: {"Game": [{"objectId": "..", "name": "chess"}, ..], ..}. It contains users without their
    /// passwords, so that they cannot log in again.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Print JSON: {"url":..}
    #[arg(long)]
    json: bool,
}

impl Options {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let data = self.data.as_deref().map(read).transpose()?.unwrap_or_default();
        let (ended, ends) = mpsc::channel();
        if let Err(error) = end_on_request(ended) {
            eprintln!("Ctrl-C will end this program without writing the file: {error}");
        }
        let server = TestServer::builder()
            .port(self.port)
            .start()
            .map_err(|error| Failure::Usage(format!("cannot listen on port {}: {error}", self.port)))?;
        for (class, objects) in data {
            for object in objects {
                server.create(&class, Value::Object(object));
            }
        }
        let url = server.url();
        if self.json {
            println!("{}", json!({ "url": url }));
        } else {
            let http = url.replacen("ws:", "http:", 1);
            println!(
                "serving at {url} until Ctrl-C; any application id will do\n  \
                 shell       export PARSE_SERVER_URL={url} PARSE_APPLICATION_ID=any\n  \
                 Rust        Client::builder(\"{url}\", \"any\")\n  \
                 JavaScript  Parse.initialize('any'); Parse.serverURL = '{http}/parse';"
            );
        }
        // It only fails if nothing can ask for the end.
        let _ = ends.recv();
        match &self.data {
            Some(path) => write(path, &server),
            None => Ok(()),
        }
    }
}

type Objects = BTreeMap<String, Vec<Map<String, Value>>>;

/// Without a file there are no objects.
fn read(path: &Path) -> Result<Objects, Failure> {
    let refused = |problem: String| Failure::Usage(format!("{}: {problem}", path.display()));
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| refused(format!("this is not {{\"Class\": [{{..}}, ..], ..}}: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Objects::new()),
        Err(error) => Err(refused(format!("it cannot be read: {error}"))),
    }
}

fn write(path: &Path, server: &TestServer) -> Result<(), Failure> {
    let all: BTreeMap<String, Vec<Value>> = server
        .classes()
        .into_iter()
        .map(|class| (class.clone(), server.objects(&class)))
        .collect();
    let text = serde_json::to_vec_pretty(&all).map_err(io::Error::from);
    // At any time, there is one complete file.
    let beside = path.with_extension("new");
    text.and_then(|text| fs::write(&beside, text))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(Failure::NotWritten)
}

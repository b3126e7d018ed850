//! The program's own way to connect, on a separate thread.
//!
//! Must not know what happens to the connection.

use std::fmt;
use std::io;
use std::sync::Arc;

use url::{Host, Url};

use crate::driver::ask::Asker;
use crate::driver::command::{Command, Commands};
use crate::driver::stream::ConnectedStream;
use crate::error::{Error, ErrorKind, Result};
use crate::fence;
use crate::fenced::Fenced;

type Connect = dyn Fn(&str, u16) -> io::Result<ConnectedStream> + Send + Sync;

/// The program's own way to connect.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Connect>);

impl Connector {
    pub(crate) fn new(
        connect: impl Fn(&str, u16) -> io::Result<ConnectedStream> + Send + Sync + 'static,
    ) -> Self {
        let connect = Fenced::new(connect);
        Self(Arc::new(move |host, port| match connect.get() {
            Some(connect) => connect(host, port),
            None => Err(io::ErrorKind::NotConnected.into()),
        }))
    }

    /// Runs it on a separate thread, which answers with a command. A call that never returns costs one
    /// thread, not one for each attempt.
    pub(super) fn start(
        &self,
        asker: &Asker<(String, u16)>,
        url: &Url,
        attempt: u64,
        commands: &Commands,
    ) -> Result<()> {
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            None => String::new(),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let (this, commands) = (self.clone(), commands.clone());
        let connect = move |(host, port): &(String, u16)| {
            this.call(host, *port).map_err(|error| {
                let text = format!("`connect_with` made no connection to {host}:{port}");
                Error::with_source(ErrorKind::Connect, text, error)
            })
        };
        let give = move |attempt, stream| commands.send(Command::Connected { attempt, stream });
        asker
            .ask("livequery-connect", (host, port), attempt, connect, give)
            .map_err(|error| {
                Error::with_source(
                    ErrorKind::Io,
                    "the thread for `connect_with` cannot be started",
                    error,
                )
            })
    }
}

impl Connector {
    fn call(&self, host: &str, port: u16) -> io::Result<ConnectedStream> {
        fence::run(|| (self.0)(host, port))
            .unwrap_or_else(|text| Err(io::Error::other(format!("it panicked: {text}"))))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

//! Looks up the addresses of a name without blocking.

use std::net::{SocketAddr, ToSocketAddrs};

use url::{Host, Url};

use crate::driver::ask::Asker;
use crate::driver::command::{Command, Commands};
use crate::error::{Error, ErrorKind, Result};

/// Looks up the addresses of a URL's host. `getaddrinfo` cannot be interrupted, so each name is looked up on
/// a thread of its own, which answers with a command. Nothing waits for the thread, and a look-up that hangs
/// does not delay that of another name. An IP address is its own answer.
pub(crate) fn resolve(
    resolver: &Asker<(String, u16)>,
    url: &Url,
    attempt: u64,
    commands: &Commands,
) -> Result<Option<Vec<SocketAddr>>> {
    let port = url.port_or_known_default().unwrap_or(80);
    let name = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(ip)) => return Ok(Some(vec![SocketAddr::from((ip, port))])),
        Some(Host::Ipv6(ip)) => return Ok(Some(vec![SocketAddr::from((ip, port))])),
        None => return Ok(Some(Vec::new())),
    };
    let look_up = |(name, port): &(String, u16)| {
        (name.as_str(), *port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .map_err(|error| {
                let text = format!("the name `{name}` cannot be resolved");
                Error::with_source(ErrorKind::Resolve, text, error)
            })
    };
    let commands = commands.clone();
    let give = move |attempt, addresses| commands.send(Command::Resolved { attempt, addresses });
    resolver
        .ask("livequery-resolve", (name, port), attempt, look_up, give)
        .map(|()| None)
        .map_err(|error| Error::with_source(ErrorKind::Io, "the resolver thread cannot be started", error))
}

//! How far a request got: a request that was never sent cannot have been executed. It does not know HTTP.

use std::cell::Cell;
use std::fmt;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Not beyond looking up the name of the server, or of the proxy.
    Resolving,
    Connecting,
    /// At least a part of it was sent.
    Sent,
}

thread_local! {
    /// The thread that makes a request also sends it.
    static STAGE: Cell<Stage> = const { Cell::new(Stage::Connecting) };
}

/// Makes a request, and reports how far it got.
pub(super) fn watch<R>(request: impl FnOnce() -> R) -> (R, Stage) {
    STAGE.set(Stage::Connecting);
    let result = request();
    (result, STAGE.get())
}

#[derive(Debug, Default)]
pub(super) struct StageResolver(DefaultResolver);

impl Resolver for StageResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        STAGE.set(Stage::Resolving);
        let addresses = self.0.resolve(uri, config, timeout)?;
        STAGE.set(Stage::Connecting);
        Ok(addresses)
    }
}

/// The last connector of a chain, above TLS and proxies.
#[derive(Debug)]
pub(super) struct StageConnector {
    pub(super) is_proxied: bool,
}

impl<In: Transport> Connector<In> for StageConnector {
    type Out = StageTransport<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        // The connection to a proxy is made by the same chain, with settings that have no proxy. What is sent
        // to the proxy is not part of the request.
        let is_to_proxy = self.is_proxied && details.config.proxy().is_none();
        Ok(chained.map(|transport| StageTransport {
            transport,
            is_to_proxy,
        }))
    }
}

pub(super) struct StageTransport<In> {
    transport: In,
    is_to_proxy: bool,
}

impl<In: Transport> Transport for StageTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if amount > 0 && !self.is_to_proxy {
            STAGE.set(Stage::Sent);
        }
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.transport.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

impl<In> fmt::Debug for StageTransport<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StageTransport")
    }
}

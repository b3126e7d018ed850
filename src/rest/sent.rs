//! Whether anything of a request went out: what was never sent cannot have happened. Knows nothing of HTTP.

use std::cell::Cell;
use std::fmt;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

thread_local! {
    /// Requests are sent by the thread that asks for them.
    static SENT: Cell<bool> = const { Cell::new(false) };
}

/// Makes a request, and tells whether anything of it was sent.
pub(super) fn watch<R>(request: impl FnOnce() -> R) -> (R, bool) {
    SENT.set(false);
    let result = request();
    (result, SENT.get())
}

/// The last connector of a chain, above TLS and proxies.
#[derive(Debug)]
pub(super) struct SentConnector;

impl<In: Transport> Connector<In> for SentConnector {
    type Out = SentTransport<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(SentTransport))
    }
}

pub(super) struct SentTransport<In>(In);

impl<In: Transport> Transport for SentTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if amount > 0 {
            SENT.set(true);
        }
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

impl<In> fmt::Debug for SentTransport<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentTransport")
    }
}

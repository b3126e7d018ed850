//! TLS in a build without it: only the error that says so.

use std::io::{self, Read, Write};

use url::Url;

use crate::error::{Error, ErrorKind, Result};

#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {}

impl Settings {
    pub(crate) fn is_set(&self) -> bool {
        false
    }

    pub(crate) fn check(&self) -> Result<()> {
        Err(no_tls())
    }

    pub(crate) fn connection(&self, _url: &Url) -> Result<Tls> {
        Err(no_tls())
    }
}

/// There is no TLS.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn handshake(&mut self, _stream: &mut (impl Read + Write)) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn read(&mut self, _stream: &mut impl Read, _buffer: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn write(&mut self, _stream: &mut impl Write, _bytes: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn wants_write(&self) -> bool {
        match *self {}
    }

    pub(crate) fn end(&mut self) {
        match *self {}
    }
}

fn no_tls() -> Error {
    Error::new(
        ErrorKind::InvalidSetting,
        "the server URL asks for TLS (`wss` or `https`), and this build of parse-livequery has none: turn on its cargo \
         feature `tls`, which is one of the default features",
    )
}

pub(crate) fn explain(_server: &str, error: io::Error) -> Result<Error, io::Error> {
    Err(error)
}

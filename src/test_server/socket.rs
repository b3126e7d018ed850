//! The socket of a connection, which several threads share.
//!
//! Must not know what is read and written.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// The socket of a connection, which its threads share.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    has_ended: AtomicBool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            has_ended: AtomicBool::new(false),
        }
    }

    /// Ends the connection, and with it whatever its threads are doing.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.stream).read(buffer) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    if self.has_ended.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&self.stream).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

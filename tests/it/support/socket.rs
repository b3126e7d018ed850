//! A TCP connection that one thread ends while others read and write. It knows bytes, and nothing of what they say.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A connection whose readers and writers return when it [ends](Self::end), also where `shutdown` does not wake them
/// (Windows). Clones are the same connection, which is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Socket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: TcpStream,
    has_ended: AtomicBool,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        // Some systems refuse it if the peer has reset the connection: then nobody waits for that peer either.
        let _ = stream.set_read_timeout(Some(LOOK_AFTER));
        // Windows does not say how much of a write that timed out was sent: there, a writer waits for the peer.
        if cfg!(unix) {
            let _ = stream.set_write_timeout(Some(LOOK_AFTER));
        }
        Self(Arc::new(Inner {
            stream,
            has_ended: AtomicBool::new(false),
        }))
    }

    /// The connection as the kernel has it.
    pub fn tcp(&self) -> &TcpStream {
        &self.0.stream
    }

    /// Ends the connection, and with it whatever its threads are doing.
    pub fn end(&self) {
        self.stop();
        // Fails if the peer was faster, which is as well.
        let _ = self.tcp().shutdown(Shutdown::Both);
    }

    /// Lets threads that wait for the peer return soon. The peer notices nothing.
    pub fn stop(&self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }

    fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.0.stream).read(buffer) {
                Err(error) if is_time_out(&error) => {
                    if self.has_ended() {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

/// Fails with `TimedOut` if the peer does not read for [`PATIENCE`].
impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match (&self.0.stream).write(buffer) {
                Err(error) if is_time_out(&error) => {
                    if self.has_ended() {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                    if Instant::now() > deadline {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The next connection that is still one: a client that went away before it was accepted is an error on some systems.
pub fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    use ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionReset | Interrupted | NotConnected
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The two kinds are the two names that systems have for it.
fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// How often a thread that reads or writes looks whether the connection has ended.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// Only ever reached by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

//! The test server on a machine that has no more file descriptors.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use parse_livequery::test_server::TestServer;

use crate::harness::*;
use crate::support::*;

#[test]
fn it_gets_through_a_lack_of_file_descriptors_and_ends_in_one() {
    in_own_process(
        module_path!(),
        "it_gets_through_a_lack_of_file_descriptors_and_ends_in_one",
        3 * LONG,
        || {
            let limit = Command::new("prlimit")
                .args(["--pid", &std::process::id().to_string(), "--nofile=64"])
                .status();
            if !limit.is_ok_and(|status| status.success()) {
                return;
            }
            let server = TestServer::start().unwrap();
            let time = AcceptorTime::new();
            let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            files.pop();
            // A connection that the kernel has made, and that the server cannot accept.
            let more = TcpStream::connect(server.address()).unwrap();
            let before = time.read();
            thread::park_timeout(Duration::from_secs(1));
            let ran = time.read() - before;
            assert!(ran < ms(300), "it ran for {ran:?} of 1 s");
            // It is back as soon as there is a descriptor.
            drop(files);
            let client = client(&server.url());
            client.open();
            client.wait_open(LONG).unwrap();
            client.close();
            let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            server.stop();
            drop((files, more));
        },
    );
}

/// How long the thread that accepts has run: a file that is open already, since no other can be opened.
struct AcceptorTime(File);

impl AcceptorTime {
    fn new() -> Self {
        let mut id = None;
        // A thread gives itself its name.
        wait_until("the server has its thread", || {
            let threads = threads_named("parse-test-server").expect("the kernel says");
            id = threads.first().map(|thread| thread.id);
            id.is_some()
        });
        let id = id.expect("just found");
        Self(File::open(format!("/proc/self/task/{id}/schedstat")).expect("the kernel says"))
    }

    fn read(&self) -> Duration {
        let mut text = String::new();
        (&self.0).rewind().expect("a file");
        (&self.0).read_to_string(&mut text).expect("a file");
        let nanos = text
            .split_whitespace()
            .next()
            .and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.expect("a number"))
    }
}

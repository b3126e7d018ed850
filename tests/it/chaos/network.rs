//! What happens to a link, and a client that takes it for lost soon.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use parse_livequery::ClientBuilder;

use super::log::Log;
use super::route::Route;
use crate::harness::ms;
use crate::support::Proxy;

/// How a server ends a connection.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Fin,
    Rst,
    Close,
}

/// After a while, one failure of the network from its beginning to its end. `server` ends the connections of the server.
pub fn fail(proxy: &Proxy, log: &Log, rng: &mut Rng, server: impl FnOnce(Ending)) {
    thread::park_timeout(ms(rng.u64(0..400)));
    let fault = rng.u8(0..12);
    log.add(format!("fault {fault}"));
    match fault {
        0 => proxy.cut(),
        1 => proxy.reset(),
        2 => proxy.delay(ms(rng.u64(1..80))),
        3 => proxy.lag(ms(rng.u64(1..400))),
        4 => proxy.blackhole(),
        5 => proxy.chunks_of(rng.usize(1..200), ms(1)),
        6 => proxy.stall_after(rng.u64(0..20_000)),
        7 => proxy.refuse(),
        8 => {
            proxy.accept_and_close();
            proxy.cut();
        }
        9 => server(Ending::Fin),
        10 => server(Ending::Rst),
        _ => server(Ending::Close),
    }
    if (2..=8).contains(&fault) {
        thread::park_timeout(ms(rng.u64(0..1500)));
        proxy.heal();
        log.add("healed");
    }
}

/// A client that pings often, waits for nothing long, and is back at once.
pub fn impatient(route: &Route) -> ClientBuilder {
    route
        .builder()
        .reconnect_delay(ms(5), ms(50))
        .connect_timeout(Duration::from_secs(3))
        .idle_ping(ms(200))
        .pong_timeout(ms(700))
        .ack_timeout(Duration::from_secs(2))
}

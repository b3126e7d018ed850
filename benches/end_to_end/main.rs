//! The whole way from the socket to the listener: this library beside what would be used instead, and beside the least
//! that any client must do.
//!
//! `cargo bench --bench end_to_end` takes about five minutes, prints tables in Markdown and writes `end_to_end.svg` next
//! to this file; with `-- --test` it tries everything for a moment. `-- latency` measures that section alone; the
//! sections are `throughput`, `tls`, `many`, `connections`, `latency`, `subscriptions`, `live_set`
//! and `idle`.
//!
//! A server process floods one client process after another over the loopback address. The clients take turns, several
//! rounds long, so that a machine that is busy for a while is so for all of them. Set by the environment:
//! `BENCH_ROUNDS` (5), `BENCH_MILLISECONDS` of each measurement (300), and `BENCH_JS`, the `node_modules` folder with
//! the package `parse` 8.6 (by default that of `tests/parse_server`, which the tests there install).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that fails has nothing to measure"
)]

mod clients;
mod frames;
mod pages;
mod process;
mod report;
mod server;
mod transport;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::clients::{CERTIFICATE, Report, Work};
use self::frames::Kind;
use self::pages::OBJECTS;
use self::report::{Series, Table, chart, three_digits, two_digits, whole};
use self::server::{Listening, Ports, Scenario};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--server"] => server::run(),
        ["--client", client, work, url, ports] => clients::run(client, work, url, ports),
        _ => Bench::new(&arguments).run(),
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Library,
    Bare,
    /// A loop around tungstenite that decodes to a struct.
    Typed,
    /// The bare loop with a thread for the listeners.
    TwoThreads,
    Floor,
    Js,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Bare => "bare",
            Self::Typed => "typed",
            Self::TwoThreads => "two_threads",
            Self::Floor => "floor",
            Self::Js => "js",
        }
    }
}

/// What is measured in a flood, with its name.
const CONTENDERS: [(Who, Work, &str); 8] = [
    (Who::Library, Work::Get, "this library, one field"),
    (Who::Library, Work::Decode, "this library, a struct of four"),
    (Who::Library, Work::Nothing, "this library, no listener"),
    (Who::Bare, Work::Get, "tungstenite + Value, one field"),
    (Who::Bare, Work::Decode, "tungstenite + Value, four fields"),
    (
        Who::Typed,
        Work::Decode,
        "tungstenite + a struct of four, by hand",
    ),
    (Who::Floor, Work::Nothing, "tungstenite alone"),
    (Who::Js, Work::Get, "JS SDK, one field"),
];

struct Bench {
    rounds: usize,
    duration: Duration,
    many: usize,
    very_many: usize,
    idle: Duration,
    /// Everything is only tried.
    smoke: bool,
    /// The sections to measure; none: all.
    sections: Vec<String>,
    js: Option<PathBuf>,
    server: Server,
    targets: Table,
}

impl Bench {
    fn new(arguments: &[&str]) -> Self {
        // `cargo bench` adds `--bench`; without it this is a test of the benchmark.
        let smoke = !arguments.contains(&"--bench") || arguments.contains(&"--test");
        let number = |name: &str, full: u64, quick: u64| {
            let default = if smoke { quick } else { full };
            env::var(name).map_or(default, |text| text.parse().expect("it is a number"))
        };
        Self {
            rounds: number("BENCH_ROUNDS", 5, 1) as usize,
            duration: Duration::from_millis(number("BENCH_MILLISECONDS", 300, 20)),
            many: if smoke { 100 } else { 10_000 },
            very_many: if smoke { 1000 } else { 100_000 },
            idle: Duration::from_millis(if smoke { 200 } else { 10_000 }),
            smoke,
            sections: arguments
                .iter()
                .filter(|argument| !argument.starts_with('-'))
                .map(ToString::to_string)
                .collect(),
            js: js_packages(),
            server: Server::start(),
            targets: Table::new("Targets", &["what", "target", "measured"]),
        }
    }

    fn run(mut self) {
        let js = if self.js.is_some() {
            ""
        } else {
            "; the JS SDK is left out: there is no Node.js, or no package `parse` (see `BENCH_JS`)"
        };
        println!(
            "{} rounds of {:?} each, medians (and ranges){js}",
            self.rounds, self.duration
        );
        self.section("throughput", Self::throughput);
        self.section("tls", Self::tls);
        self.section("many", Self::many);
        self.section("connections", Self::connections);
        self.section("latency", Self::latency);
        self.section("subscriptions", Self::subscriptions);
        self.section("live_set", Self::live_set);
        self.section("idle", Self::idle);
        self.targets.print();
    }

    fn section(&mut self, name: &str, measure: fn(&mut Self)) {
        if self.sections.is_empty() || self.sections.iter().any(|wanted| wanted == name) {
            measure(self);
        }
    }

    fn throughput(&mut self) {
        let mut groups = Vec::new();
        for kind in Kind::ALL {
            let bytes = kind.text(1).len();
            let mut rates = vec![Series::default(); CONTENDERS.len()];
            let mut costs = rates.clone();
            for _ in 0..self.rounds {
                for (number, (who, work, _)) in CONTENDERS.into_iter().enumerate() {
                    if let Some(report) = self.measure(who, work, &self.flood(kind, 1)) {
                        rates[number].push(report.rate());
                        if let Some(cost) = report.cost() {
                            costs[number].push(cost);
                        }
                    }
                }
            }
            let title = format!("Flood of {} ({bytes} bytes)", kind.title());
            let columns = ["client", "events/s", "to the bare loop", "µs of CPU per event"];
            let mut table = Table::new(&title, &columns);
            let bare = rates[3].median();
            for (number, (_, _, name)) in CONTENDERS.into_iter().enumerate() {
                if rates[number].is_empty() {
                    continue;
                }
                table.row(&[
                    name.to_owned(),
                    rates[number].text(whole),
                    format!("{:.2}x", rates[number].median() / bare),
                    costs[number].text(two_digits),
                ]);
            }
            table.print();
            let medians: Vec<_> = rates.iter().map(Series::median).collect();
            self.throughput_targets(kind, &medians);
            let bars = CONTENDERS
                .into_iter()
                .zip(medians)
                .filter(|(_, median)| !median.is_nan())
                .map(|((_, _, name), median)| (name.to_owned(), median))
                .collect();
            groups.push((format!("{}, {bytes} bytes", kind.title()), bars));
        }
        if !self.smoke {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/end_to_end/end_to_end.svg");
            let title = "Events per second, from the socket to the listener";
            fs::write(&path, chart(title, &groups)).expect("the chart can be written");
        }
    }

    fn throughput_targets(&mut self, kind: Kind, medians: &[f64]) {
        let [get, decode, nothing, bare, _, typed, floor, js] = medians else {
            return;
        };
        let title = kind.title();
        let one_field = match kind {
            Kind::Small => Some((1.0, 10.0)),
            Kind::Update => Some((1.5, 15.0)),
            Kind::Large => None,
        };
        if let Some((to_bare, to_js)) = one_field {
            let what = format!("{title}, one field, to the bare loop");
            self.target(&what, to_bare, get / bare);
            let what = format!("{title}, one field, to the JS SDK");
            self.target(&what, to_js, get / js);
        }
        if kind == Kind::Update {
            let what = format!("{title}, struct of four, to the bare loop that reads one field");
            self.target(&what, 1.5, decode / bare);
        }
        let by_hand = match kind {
            Kind::Small => Some(1.1),
            Kind::Update => Some(1.6),
            Kind::Large => None,
        };
        if let Some(by_hand) = by_hand {
            let what = format!("{title}, struct of four, to the loop by hand");
            self.target(&what, by_hand, decode / typed);
        }
        let one_field = match kind {
            Kind::Small => 0.3,
            Kind::Update => 0.35,
            Kind::Large => 0.85,
        };
        let what = format!("{title}, one field, to tungstenite alone");
        self.target(&what, one_field, get / floor);
        let what = format!("{title}, no listener, to tungstenite alone");
        self.target(&what, 0.5, nothing / floor);
    }

    /// A flood of updates over TLS.
    fn tls(&mut self) {
        let contenders = [
            (Who::Library, Work::Get, "this library, one field"),
            (Who::Bare, Work::Get, "tungstenite + Value, one field"),
            (Who::Floor, Work::Nothing, "tungstenite alone"),
            (Who::Js, Work::Get, "JS SDK, one field"),
        ];
        let scenario = Scenario {
            tls: true,
            ..self.flood(Kind::Update, 1)
        };
        let mut rates = vec![Series::default(); contenders.len()];
        for _ in 0..self.rounds {
            for ((who, work, _), rate) in contenders.into_iter().zip(&mut rates) {
                if let Some(report) = self.measure(who, work, &scenario) {
                    rate.push(report.rate());
                }
            }
        }
        let mut table = Table::new("Flood of updates over TLS", &["client", "events/s"]);
        for ((_, _, name), rate) in contenders.into_iter().zip(&rates) {
            if !rate.is_empty() {
                table.row(&[name.to_owned(), rate.text(whole)]);
            }
        }
        table.print();
        let [library, bare, floor, js] = [0, 1, 2, 3].map(|number| rates[number].median());
        self.target(
            "update over TLS, one field, to the bare loop",
            1.8,
            library / bare,
        );
        self.target("update over TLS, one field, to the JS SDK", 15.0, library / js);
        self.target(
            "update over TLS, one field, to tungstenite alone",
            0.35,
            library / floor,
        );
    }

    /// The flood for clients with many subscriptions, to all of them in turn.
    fn many(&mut self) {
        let numbers = [1, self.many];
        let mut rates = [Series::default(), Series::default()];
        for _ in 0..self.rounds {
            for (number, rate) in numbers.into_iter().zip(&mut rates) {
                let scenario = self.flood(Kind::Update, number);
                if let Some(report) = self.measure(Who::Library, Work::Get, &scenario) {
                    rate.push(report.rate());
                }
            }
        }
        let mut table = Table::new(
            "Flood of updates to all subscriptions in turn",
            &["subscriptions", "events/s"],
        );
        for (number, rate) in numbers.into_iter().zip(&rates) {
            table.row(&[whole(number as f64), rate.text(whole)]);
        }
        table.print();
        let ratio = rates[1].median() / rates[0].median();
        self.target("events/s with many subscriptions, to one", 0.9, ratio);
    }

    /// The flood for a program with several clients. On a machine with few cores it says what they cost each other, not
    /// how fast they are together.
    fn connections(&mut self) {
        const NUMBERS: [u64; 3] = [1, 2, 4];
        let mut rates: [Series; NUMBERS.len()] = Default::default();
        let mut costs = rates.clone();
        for _ in 0..self.rounds {
            for (at, connections) in NUMBERS.into_iter().enumerate() {
                let scenario = Scenario {
                    connections,
                    ..self.flood(Kind::Update, 1)
                };
                if let Some(report) = self.measure(Who::Library, Work::Get, &scenario) {
                    rates[at].push(report.rate());
                    if let Some(cost) = report.cost() {
                        costs[at].push(cost);
                    }
                }
            }
        }
        let columns = ["connections", "events/s", "µs of CPU per event"];
        let mut table = Table::new("Flood of updates over several connections", &columns);
        for ((connections, rate), cost) in NUMBERS.into_iter().zip(&rates).zip(&costs) {
            table.row(&[connections.to_string(), rate.text(whole), cost.text(two_digits)]);
        }
        table.print();
        let ratio = costs[2].median() / costs[0].median();
        self.target_at_most("CPU per event with four connections, to one", 1.2, ratio);
    }

    fn latency(&mut self) {
        let contenders = [
            (Who::Library, "this library"),
            (Who::Bare, "tungstenite + Value"),
            (
                Who::TwoThreads,
                "tungstenite + Value, listener on a second thread",
            ),
            (Who::Js, "JS SDK"),
        ];
        let scenario = Scenario {
            rate: 1000,
            warm_up: self.duration,
            duration: self.duration * 3,
            ..self.flood(Kind::Update, 1)
        };
        let mut medians = vec![Series::default(); contenders.len()];
        let mut last = medians.clone();
        let mut very_last = medians.clone();
        for _ in 0..self.rounds {
            for (number, (who, _)) in contenders.into_iter().enumerate() {
                if let Some(report) = self.measure(who, Work::Latency, &scenario) {
                    let latencies: Series = report.latencies.into_iter().collect();
                    medians[number].push(latencies.median());
                    last[number].push(latencies.percentile(0.99));
                    very_last[number].push(latencies.percentile(0.999));
                }
            }
        }
        let columns = ["client", "µs, median", "µs, 99th percentile", "µs, 99.9th"];
        let mut table = Table::new(
            "From the server's write to the listener, 1,000 updates/s",
            &columns,
        );
        for (number, (_, name)) in contenders.into_iter().enumerate() {
            if !medians[number].is_empty() {
                table.row(&[
                    name.to_owned(),
                    medians[number].text(whole),
                    last[number].text(whole),
                    very_last[number].text(whole),
                ]);
            }
        }
        table.print();
        let median = |number: usize| medians[number].median();
        self.target_at_most("latency, median, to the bare loop", 1.0, median(0) / median(1));
        self.target_at_most(
            "latency, 99th percentile, to the JS SDK's median",
            4.0,
            last[0].median() / median(3),
        );
        self.target_at_most(
            "latency, 99.9th percentile, to the JS SDK's median",
            3.0,
            very_last[0].median() / median(3),
        );
    }

    fn subscriptions(&mut self) {
        let contenders = [
            (Who::Library, Work::Subscriptions, 1),
            (Who::Library, Work::Subscriptions, 1000.min(self.many)),
            (Who::Library, Work::Subscriptions, self.many),
            (Who::Library, Work::Subscriptions, self.very_many),
            (Who::Library, Work::Listeners, self.many),
            (Who::Js, Work::Subscriptions, self.many),
            (Who::Js, Work::Listeners, self.many),
        ];
        let mut costs: [SubscriptionCosts; 7] = Default::default();
        for _ in 0..self.rounds {
            for ((who, work, number), costs) in contenders.into_iter().zip(&mut costs) {
                if let Some(report) = self.subscribe_and_cut(who, work, number) {
                    costs.push(number, &report);
                }
            }
        }
        let columns = [
            "client",
            "number",
            "s until acknowledged",
            "s until restored",
            "MB with one",
            "bytes for each more",
            "the same after a cut",
        ];
        let mut table = Table::new("Subscriptions", &columns);
        for ((who, work, number), costs) in contenders.into_iter().zip(&costs) {
            if costs.restored.is_empty() {
                continue;
            }
            let name = match who {
                Who::Js => "JS SDK",
                _ => "this library",
            };
            let name = match work {
                Work::Listeners => format!("{name}, four listeners each"),
                _ => name.to_owned(),
            };
            table.row(&[
                name,
                whole(number as f64),
                costs.acknowledged.text(three_digits),
                costs.restored.text(three_digits),
                costs.base.text(two_digits),
                costs.each.text(whole),
                costs.each_after_cut.text(whole),
            ]);
        }
        table.print();
        let [_, _, many, very_many, four_listeners, js, _] = &costs;
        let ratio = |a: &Series, b: &Series| a.median() / b.median();
        let what = "time to acknowledge many, to the JS SDK";
        self.target_at_most(what, 0.5, ratio(&many.acknowledged, &js.acknowledged));
        let what = "time to restore many, to the JS SDK";
        self.target_at_most(what, 0.5, ratio(&many.restored, &js.restored));
        self.target_at_most("MB resident with one subscription", 8.0, many.base.median());
        self.target_at_most("bytes resident for each of many", 1024.0, many.each.median());
        let what = "bytes resident for each of many, with four listeners";
        self.target_at_most(what, 1200.0, four_listeners.each.median());
        // The same, up to what one measurement differs from the next.
        let each = (self.very_many / self.many) as f64;
        let what = "bytes resident for each of ten times as many, to each of many";
        self.target_at_most(what, 1.2, ratio(&very_many.each, &many.each));
        let what = "time to acknowledge each of ten times as many, to each of many";
        let time = ratio(&very_many.acknowledged, &many.acknowledged) / each;
        self.target_at_most(what, 1.2, time);
    }

    fn subscribe_and_cut(&self, who: Who, work: Work, subscriptions: usize) -> Option<Report> {
        // A number that no other connection has.
        let cut = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64);
        let scenario = Scenario {
            subscriptions,
            cut,
            duration: Duration::ZERO,
            ..self.flood(Kind::Small, subscriptions)
        };
        self.measure(who, work, &scenario)
    }

    /// All objects of a class from the first request until they are there, page by page.
    fn live_set(&mut self) {
        let contenders = [
            (Who::Library, "this library, a live set"),
            (Who::Js, "JS SDK, find"),
        ];
        let mut times: [Series; 2] = Default::default();
        let mut sizes: [Series; 2] = Default::default();
        for _ in 0..self.rounds {
            for (number, (who, _)) in contenders.into_iter().enumerate() {
                let scenario = Scenario {
                    duration: Duration::ZERO,
                    ..self.flood(Kind::Small, 1)
                };
                if let Some(report) = self.measure(who, Work::LiveSet, &scenario) {
                    assert!(report.events as usize == OBJECTS, "{who:?} has {}", report.events);
                    times[number].push(report.seconds);
                    if let [base, with_all] = report.resident[..] {
                        sizes[number].push((with_all - base) / report.events);
                    }
                }
            }
        }
        let title = format!("{} objects in pages of 1,000", whole(OBJECTS as f64));
        let mut table = Table::new(&title, &["client", "s", "bytes for each"]);
        for (number, (_, name)) in contenders.into_iter().enumerate() {
            if !times[number].is_empty() {
                table.row(&[
                    name.to_owned(),
                    times[number].text(three_digits),
                    sizes[number].text(whole),
                ]);
            }
        }
        table.print();
        let ratio = times[0].median() / times[1].median();
        self.target_at_most(
            "time until a live set of 100,000 is ready, to the JS SDK",
            0.25,
            ratio,
        );
    }

    fn idle(&mut self) {
        // The client waits this long; the server has nothing to send.
        let scenario = Scenario {
            subscriptions: usize::MAX,
            duration: self.idle,
            ..self.flood(Kind::Small, 1)
        };
        let report = self.measure(Who::Library, Work::Idle, &scenario);
        if let Some(switches) = report.and_then(|report| report.switches) {
            let what = format!("voluntary context switches when idle for {:?}", self.idle);
            self.target_at_most(&what, 0.0, switches);
        }
    }

    fn flood(&self, kind: Kind, subscriptions: usize) -> Scenario {
        // About as much as the buffers of a connection hold, which is what those clients have that do without a queue.
        const BYTES_ON_THEIR_WAY: usize = 1024 * 1024;
        Scenario {
            kind,
            subscriptions,
            warm_up: self.duration / 2,
            duration: self.duration,
            rate: 0,
            window: (BYTES_ON_THEIR_WAY / kind.text(1).len()) as u64,
            connections: 1,
            connection: 0,
            cut: 0,
            tls: false,
        }
    }

    fn measure(&self, who: Who, work: Work, scenario: &Scenario) -> Option<Report> {
        // Those that have no queue stop reading when they have no time, and so does one that has nothing to do.
        let queues = who == Who::Library && matches!(work, Work::Get | Work::Decode);
        let mut scenario = scenario.clone();
        if !queues {
            scenario.window = 0;
        }
        let url = scenario.url(&self.server.ports);
        let ports = serde_json::to_string(&self.server.ports).expect("it is JSON");
        let mut command = if who == Who::Js {
            let mut command = Command::new("node");
            command
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/end_to_end/js_client.mjs"))
                .arg(self.js.as_ref()?)
                .args([work.name(), &url, &scenario.subscriptions.to_string(), &ports]);
            command
        } else {
            let mut command = Command::new(env::current_exe().expect("it has a path"));
            command.args(["--client", who.name(), work.name(), &url]);
            command.arg(&ports);
            command
        };
        let output = command
            .env(CERTIFICATE, &self.server.certificate)
            .stderr(Stdio::inherit())
            .output()
            .expect("the client starts");
        assert!(output.status.success(), "{who:?} fails at {work:?}");
        Some(serde_json::from_slice(&output.stdout).expect("the client reports"))
    }

    fn target(&mut self, what: &str, at_least: f64, measured: f64) {
        self.judge(what, format!("≥ {at_least}"), measured, measured >= at_least);
    }

    fn target_at_most(&mut self, what: &str, at_most: f64, measured: f64) {
        self.judge(what, format!("≤ {at_most}"), measured, measured <= at_most);
    }

    fn judge(&mut self, what: &str, target: String, measured: f64, met: bool) {
        if !measured.is_nan() {
            let verdict = if met { "" } else { " **missed**" };
            let measured = format!("{measured:.2}{verdict}");
            self.targets.row(&[what.to_owned(), target, measured]);
        }
    }
}

/// What subscriptions cost in all rounds.
#[derive(Default)]
struct SubscriptionCosts {
    acknowledged: Series,
    restored: Series,
    /// Megabytes with one, and bytes for each of the others.
    base: Series,
    each: Series,
    each_after_cut: Series,
}

impl SubscriptionCosts {
    fn push(&mut self, number: usize, report: &Report) {
        if number > 1 {
            self.acknowledged.push(report.acknowledged);
        }
        self.restored.push(report.restored);
        if let [base, all, after_cut] = report.resident[..] {
            self.base.push(base / 1e6);
            if number > 1 {
                let others = (number - 1) as f64;
                self.each.push((all - base) / others);
                self.each_after_cut.push((after_cut - base) / others);
            }
        }
    }
}

/// The server process; it ends with this value.
struct Server {
    process: Child,
    ports: Ports,
    /// The file with its certificate.
    certificate: PathBuf,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(env::current_exe().expect("it has a path"))
            .arg("--server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("the server says where it listens");
        let listening: Listening = serde_json::from_str(&line).expect("it is JSON");
        let certificate = env::temp_dir().join(format!("end_to_end-{}.pem", process.id()));
        fs::write(&certificate, listening.certificate).expect("a file can be written");
        Self {
            process,
            ports: listening.ports,
            certificate,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.certificate);
    }
}

/// The folder with the JS SDK, if Node.js is there to run it.
fn js_packages() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parse_server/node_modules");
    let packages = env::var_os("BENCH_JS").map_or(default, PathBuf::from);
    let node = Command::new("node").arg("--version").output();
    let runs = node.is_ok_and(|output| output.status.success());
    (runs && packages.join("parse/package.json").exists()).then_some(packages)
}

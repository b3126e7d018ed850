//! Where the programs of this package are, built from the sources that the tests are of. Knows no test.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The program `livequery`. `cargo test --features cli` builds it along with this binary.
pub(crate) fn livequery() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("livequery", "src", &["--bin", "livequery", "--features", "cli"]))
}

/// Where this program is. If it was not built, or its sources have changed since, cargo is asked to.
pub(crate) fn built(binary: &str, sources: &str, options: &[&str]) -> PathBuf {
    let this = env::current_exe().unwrap();
    let binary = this.ancestors().nth(2).unwrap().join(binary);
    let built = changed(&binary);
    if built.is_none() || newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join(sources)) > built {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet"]).args(options);
        assert!(build.status().unwrap().success());
    }
    binary
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When this file was changed, or the one in this folder that was changed last.
fn newest(path: &Path) -> Option<SystemTime> {
    if !path.is_dir() {
        return changed(path);
    }
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| newest(&entry.unwrap().path()))
        .max()
        .flatten()
}

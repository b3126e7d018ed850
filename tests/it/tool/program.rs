//! Where the program `livequery` is, built from the sources that the tests are of. Knows no test.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The program. `cargo test --features cli` builds it along with this binary; where it was not built, or its sources
/// have changed since, cargo is asked to.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let this = env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).unwrap();
        let binary = profile.join("livequery");
        let built = changed(&binary);
        if built.is_none() || newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) > built {
            let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--bin", "livequery", "--features", "cli"]);
            assert!(build.status().unwrap().success());
        }
        binary
    })
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When the file that was changed last in this folder was changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            if path.is_dir() {
                newest(&path)
            } else {
                changed(&path)
            }
        })
        .max()
        .flatten()
}

//! The versions of Parse Server that the library promises to work with, what each needs to run, and how it is
//! installed. It knows no scenario.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use serde_json::{Map, Value, json};

/// A version, and what it needs beside itself.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) number: &'static str,
    /// The major version of Node.js that runs it.
    pub(crate) node: u8,
    /// Packages that must be others than npm would choose today.
    overrides: &'static [(&'static str, &'static str)],
}

/// `router` 2.3.0 makes LiveQuery recognise no session token.
const ROUTER: (&str, &str) = ("router", "2.2.0");

pub(crate) static VERSIONS: &[Version] = &[
    Version {
        number: "2.8.4",
        // Its driver of Postgres hangs on Node.js 14 and later.
        node: 12,
        overrides: &[],
    },
    Version {
        number: "3.10.0",
        node: 12,
        overrides: &[],
    },
    Version {
        number: "4.10.20",
        node: 16,
        overrides: &[("extract-files", "9.0.0")],
    },
    Version {
        number: "5.6.0",
        node: 18,
        overrides: &[],
    },
    Version {
        number: "6.5.11",
        node: 18,
        overrides: &[],
    },
    Version {
        number: "7.5.4",
        node: 20,
        overrides: &[],
    },
    Version {
        number: "8.6.94",
        node: 20,
        overrides: &[ROUTER],
    },
    Version {
        number: "9.0.0",
        node: 20,
        overrides: &[ROUTER],
    },
    Version {
        number: "9.10.0",
        node: 20,
        overrides: &[ROUTER],
    },
];

/// The versions to test: those that `PARSE_SERVER_VERSIONS` names, separated by commas, or `all`; by default the
/// newest and the oldest that is in full use.
pub(crate) fn chosen() -> Vec<&'static Version> {
    let wanted = std::env::var("PARSE_SERVER_VERSIONS").unwrap_or_else(|_| "9.10.0,5.6.0".to_owned());
    if wanted == "all" {
        return VERSIONS.iter().collect();
    }
    wanted
        .split(',')
        .map(|wanted| {
            VERSIONS
                .iter()
                .find(|version| version.number == wanted || version.number.starts_with(&format!("{wanted}.")))
                .unwrap_or_else(|| {
                    panic!("PARSE_SERVER_VERSIONS names {wanted:?}, which is not in the table")
                })
        })
        .collect()
}

/// Installs a version, without the Node.js that it needs, and returns its folder.
pub(crate) fn install_modules(version: &Version) -> PathBuf {
    let overrides: Map<String, Value> = version
        .overrides
        .iter()
        .map(|(name, number)| ((*name).to_owned(), json!(number)))
        .collect();
    let manifest = json!({
        "private": true,
        "dependencies": {"parse-server": version.number},
        "overrides": overrides,
    });
    installed(&format!("parse-server-{}", version.number), &manifest)
}

/// The program of a major version of Node.js.
pub(crate) fn node(major: u8) -> PathBuf {
    let package = format!("node-{}-{}", std::env::consts::OS, architecture());
    let manifest = json!({"private": true, "dependencies": {package.as_str(): major.to_string()}});
    installed(&format!("node-{major}"), &manifest).join(format!("node_modules/{package}/bin/node"))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Has npm install what a manifest names, once; the folder's name holds for it.
///
/// A version that cannot be installed fails the run.
fn installed(name: &str, manifest: &Value) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let text = manifest.to_string();
    let is_done = || fs::read_to_string(home.join("installed.json")).is_ok_and(|done| done == text);
    if is_done() {
        return home;
    }
    // Another test may be here at the same time: whoever is first puts its folder into the place.
    let staging = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", process::id()));
    fs::create_dir_all(&staging).unwrap();
    fs::write(staging.join("package.json"), &text).unwrap();
    let output = Command::new("npm")
        .args([
            "install",
            "--legacy-peer-deps",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ])
        .current_dir(&staging)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("these tests need npm: {error}"));
    assert!(
        output.status.success(),
        "{name} cannot be installed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(staging.join("installed.json"), &text).unwrap();
    let _ = fs::remove_dir_all(&home);
    if fs::rename(&staging, &home).is_err() {
        assert!(is_done(), "{name} cannot be put into its place");
        let _ = fs::remove_dir_all(&staging);
    }
    home
}

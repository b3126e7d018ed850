//! The public API, as a list that is compared with the one of the last change (`tests/public-api.txt`): whoever changes
//! it sees what, and commits it. `UPDATE_PUBLIC_API=1 cargo test --test public_api -- --ignored` writes the list anew.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// That of the version of `public-api` in Cargo.toml, and of the rustdoc of Rust 1.95.
const FORMAT: u64 = 57;

#[test]
#[ignore = "needs the rustdoc of Rust 1.95"]
fn the_public_api_is_the_one_that_was_agreed_on() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    let status = Command::new(env!("CARGO"))
        .args([
            "rustdoc",
            "--quiet",
            "--lib",
            "--all-features",
            "--",
            "-Z",
            "unstable-options",
        ])
        .args(["--output-format", "json", "--cap-lints", "allow"])
        .current_dir(manifest)
        .env("CARGO_TARGET_DIR", &target)
        // JSON is an unstable output of the stable rustdoc as well.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let json = target.join("doc/parse_livequery.json");
    let document: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let format = document["format_version"].as_u64();
    if format != Some(FORMAT) {
        eprintln!("SKIPPED: this rustdoc writes JSON of format {format:?}; the test reads {FORMAT}");
        return;
    }
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap()
        .to_string();
    let agreed_on = manifest.join("tests/public-api.txt");
    if env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(agreed_on, api).unwrap();
        return;
    }
    let agreed_on = fs::read_to_string(agreed_on).unwrap();
    let (new, old): (Vec<_>, Vec<_>) = (api.lines().collect(), agreed_on.lines().collect());
    let only_in = |these: &[&str], those: &[&str]| -> Vec<String> {
        let missing = these.iter().filter(|line| !those.contains(line));
        missing.map(|line| (*line).to_owned()).collect()
    };
    let (added, removed) = (only_in(&new, &old), only_in(&old, &new));
    assert!(
        added.is_empty() && removed.is_empty(),
        "the public API has changed; if that is meant, run this test with UPDATE_PUBLIC_API=1\nadded: {added:#?}\n\
         removed: {removed:#?}"
    );
}

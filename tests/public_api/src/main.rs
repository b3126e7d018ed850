//! The public API, as a list that is compared with the one of the last change (`tests/public-api.txt`): whoever changes
//! it sees what, and commits it. `cargo run --manifest-path tests/public_api/Cargo.toml -- --update` writes the list anew.

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

/// That of the version of `public-api` in Cargo.toml, and of the rustdoc of Rust 1.95.
const FORMAT: u64 = 57;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");
    let target = here.join("target/documented");
    let status = Command::new(env!("CARGO"))
        .args(["rustdoc", "--quiet", "--lib", "--all-features", "--"])
        .args(["-Z", "unstable-options", "--output-format", "json"])
        .args(["--cap-lints", "allow"])
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", &target)
        // JSON is an unstable output of the stable rustdoc as well.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    if !status.success() {
        return Err(format!("rustdoc failed: {status}").into());
    }
    let json = target.join("doc/parse_livequery.json");
    let document: serde_json::Value = serde_json::from_slice(&fs::read(&json)?)?;
    let format = document["format_version"].as_u64();
    if format != Some(FORMAT) {
        println!("SKIPPED: this rustdoc writes JSON of format {format:?}; this program reads {FORMAT}");
        return Ok(ExitCode::SUCCESS);
    }
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?
        .to_string();
    let agreed_on = root.join("tests/public-api.txt");
    if env::args().any(|argument| argument == "--update") {
        fs::write(agreed_on, api)?;
        return Ok(ExitCode::SUCCESS);
    }
    let agreed_on = fs::read_to_string(agreed_on)?;
    let (new, old): (Vec<_>, Vec<_>) = (api.lines().collect(), agreed_on.lines().collect());
    let added = new
        .iter()
        .filter(|line| !old.contains(line))
        .map(|line| ('+', line));
    let removed = old
        .iter()
        .filter(|line| !new.contains(line))
        .map(|line| ('-', line));
    let differences: Vec<_> = removed.chain(added).collect();
    if differences.is_empty() {
        println!(
            "the public API is the one that was agreed on: {} lines",
            new.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    for (sign, line) in differences {
        println!("{sign} {line}");
    }
    println!("the public API has changed; if that is meant, run this with `-- --update`");
    Ok(ExitCode::FAILURE)
}

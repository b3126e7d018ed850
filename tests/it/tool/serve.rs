//! `livequery serve`: a server for programs of any language, whose objects a file keeps.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use serde_json::{Value, json};

use super::{command, command_for, output, signal, text};

#[test]
fn objects_are_kept_in_a_file() {
    let file = std::env::temp_dir().join(format!("livequery-serve-{}.json", std::process::id()));
    let path = file.to_str().unwrap();
    let given = json!({"Game": [{"objectId": "chess", "name": "chess"}]});
    fs::write(&file, given.to_string()).unwrap();
    let (server, url) = serve(&["--data", path]);
    assert_eq!(
        told(&mut command_for(&url, &["get", "Game", "chess"]))["name"],
        "chess"
    );
    let created = told(&mut command_for(&url, &["create", "Note", r#"{"text": "new"}"#]));
    // The file is as it was until the end.
    assert_eq!(fs::read_to_string(&file).unwrap(), given.to_string());
    signal("TERM", &server);
    assert_eq!(output(server).status.code(), Some(0));

    let (server, url) = serve(&["--data", path]);
    let found = told(&mut command_for(&url, &["find", "Note"]));
    assert_eq!(
        (&found["objectId"], &found["text"]),
        (&created["objectId"], &json!("new"))
    );
    assert_eq!(found["createdAt"], created["createdAt"]);
    signal("INT", &server);
    assert_eq!(output(server).status.code(), Some(0));
    fs::remove_file(&file).unwrap();

    let (server, _) = serve(&["--data", path]);
    signal("TERM", &server);
    assert_eq!(output(server).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_port_that_is_taken_and_a_file_that_is_none_are_told() {
    let (server, url) = serve(&[]);
    let port = url.rsplit(':').next().unwrap();
    let taken = command(&["serve", "--port", port]).output().unwrap();
    assert_eq!(taken.status.code(), Some(2));
    assert!(text(&taken.stderr).contains(port), "{}", text(&taken.stderr));
    let file = std::env::temp_dir().join(format!("livequery-none-{}.json", std::process::id()));
    for content in ["[]", r#"{"Game": [1]}"#, "{"] {
        fs::write(&file, content).unwrap();
        let wrong = command(&["serve", "--port", "0", "--data", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{content}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
    fs::remove_file(&file).unwrap();
    signal("TERM", &server);
    assert_eq!(output(server).status.code(), Some(0));
}

fn serve(arguments: &[&str]) -> (Child, String) {
    let mut child = command(&[&["serve", "--port", "0", "--json"], arguments].concat())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    (child, told["url"].as_str().unwrap().to_owned())
}

#[track_caller]
fn told(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

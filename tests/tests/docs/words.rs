//! Comments and pages say who does what.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::pages::{files, root};

/// Words that hide who is meant: the shim, the client, the workload, the monitor, another program.
const VAGUE: [&str; 5] = ["nobody", "somebody", "whoever", "anybody", "everybody"];

#[test]
fn comments_contain_no_vague_words() {
    let mut found = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("read a source file");
        for (number, line) in text.lines().enumerate() {
            let count = vague(line);
            let place = file.strip_prefix(root()).expect("a file of ours").display();
            found.extend((0..count).map(|_| format!("{place}:{}: {}", number + 1, line.trim())));
        }
    }
    assert!(
        found.is_empty(),
        "name who is meant, as CONTRIBUTING.md says:\n{}",
        found.join("\n")
    );
}

#[test]
fn pages_contain_no_vague_words() {
    let mut found = Vec::new();
    for file in files("md") {
        let text = fs::read_to_string(root().join(&file)).expect("read a page");
        let lines = text.lines().enumerate();
        let vague = lines.filter(|(_, line)| !is_example(line) && count(&prose(line)) > 0);
        let place = file.display();
        found.extend(vague.map(|(number, line)| format!("{place}:{}: {line}", number + 1)));
    }
    assert!(
        found.is_empty(),
        "name who is meant, as CONTRIBUTING.md says:\n{}",
        found.join("\n")
    );
}

/// Whether this is a row of the table in CONTRIBUTING.md that has these words.
fn is_example(line: &str) -> bool {
    [
        "| nobody waits for it |",
        "| whoever, somebody, everybody |",
    ]
    .iter()
    .any(|row| line.starts_with(row))
}

/// A line of a page without code, such as the user `nobody`.
fn prose(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// How many vague words are in the comment of a line.
fn vague(line: &str) -> usize {
    line.split_once("//")
        .map_or(0, |(_, comment)| count(comment))
}

fn count(text: &str) -> usize {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| VAGUE.contains(&word.to_lowercase().as_str()))
        .count()
}

#[test]
fn vague_words_are_counted_in_comments_alone() {
    assert_eq!(vague("/// Nobody waits, whoever asks."), 2);
    assert_eq!(vague("let nobody = \"somebody\";"), 0);
    assert_eq!(vague("f(); // somebody's"), 1);
    assert_eq!(vague("// nobodys"), 0);
    assert_eq!(count(&prose("The user `nobody` is nobody else.")), 1);
}

/// The Rust files below `src` of each published crate.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(root()).expect("list the workspace");
    for entry in entries {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("reaper-") {
            add(&entry.path().join("src"), &mut found);
        }
    }
    found.sort();
    found
}

fn add(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            add(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

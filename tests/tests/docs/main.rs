//! The documentation: pages, links, commands, configuration and code are what they claim to be.

mod commands;
mod limits;
mod manifests;
mod pages;
mod spec;
mod transcript;
mod words;

use std::{collections::BTreeSet, fs, path::PathBuf};

use reaper_spec::Config;

use pages::{Block, Page, root};

#[test]
fn every_page_of_the_book_is_in_its_summary_once() {
    let summary = Page::read("docs/SUMMARY.md");
    let mut listed: Vec<PathBuf> = summary.links.iter().map(|link| link.file.clone()).collect();
    listed.sort();
    let mut written: Vec<PathBuf> = Page::all()
        .into_iter()
        .map(|page| page.path)
        .filter(|path| path.starts_with("docs") && !path.ends_with("SUMMARY.md"))
        .collect();
    written.sort();
    assert_eq!(listed, written);
}

#[test]
fn every_link_leads_somewhere() {
    let pages = Page::all();
    let mut broken = Vec::new();
    for page in &pages {
        for link in &page.links {
            let place = format!("{}: {}", page.path.display(), link.written);
            if !root().join(&link.file).exists() {
                broken.push(format!("{place}: no such file"));
            } else if let Some(anchor) = &link.anchor {
                let target = pages.iter().find(|other| other.path == link.file);
                if !target.is_some_and(|target| target.anchors.contains(anchor)) {
                    broken.push(format!("{place}: no such heading"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_command_and_option_exists() {
    let mut wrong = Vec::new();
    let mut known = commands::Known::default();
    let mut checked = 0;
    for page in Page::all() {
        let blocks = page.blocks.iter().filter(|block| block.is_shell());
        // Within the text a name may be a file's.
        let names = ["reaper-runtime ", "cargo "];
        let spans = page
            .spans
            .iter()
            .filter(|span| names.iter().any(|name| span.starts_with(name)));
        let lines = blocks.flat_map(Block::commands).chain(spans.cloned());
        for line in lines {
            for command in commands::split(&line) {
                checked += 1;
                if let Err(reason) = known.check(&command) {
                    wrong.push(format!("{}: {line}: {reason}", page.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 50, "only {checked} commands were found");
}

#[test]
fn every_transcript_that_is_marked_is_what_happens() {
    let mut run = 0;
    let mut wrong = Vec::new();
    for page in Page::all() {
        for block in page.blocks.iter().filter(|block| block.tested) {
            run += 1;
            if let Err(difference) = transcript::replay(block) {
                wrong.push(format!("{}:\n{difference}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run >= 3, "only {run} transcripts are marked");
}

#[test]
fn every_configuration_is_valid() {
    let mut checked = 0;
    for page in Page::all() {
        let blocks = page.blocks.iter().filter(|block| block.language == "toml");
        for block in blocks {
            checked += 1;
            let place = format!("{}:\n{}", page.path.display(), block.text);
            if block.text.contains("[plugins.") {
                let table: toml::Table = block.text.parse().expect(&place);
                assert!(names_a_runtime(&toml::Value::Table(table)), "{place}");
            } else {
                let mut config = Config::default();
                config.apply_options(&block.text).expect(&place);
            }
        }
    }
    assert!(checked >= 3, "only {checked} configurations were found");
}

/// Whether there is a `runtimes.NAME` with a `runtime_type`, as containerd reads it.
fn names_a_runtime(value: &toml::Value) -> bool {
    let toml::Value::Table(table) = value else {
        return false;
    };
    let runtimes = table.get("runtimes").and_then(toml::Value::as_table);
    runtimes.is_some_and(|runtimes| {
        let named = |runtime: &toml::Value| runtime.get("runtime_type").is_some();
        !runtimes.is_empty() && runtimes.values().all(named)
    }) || table.values().any(names_a_runtime)
}

#[test]
fn every_page_with_code_is_compiled_by_a_doctest() {
    let mut included = BTreeSet::new();
    for path in pages::files("rs") {
        let source = fs::read_to_string(root().join(&path)).expect("read a source");
        for part in source.split("include_str!(\"").skip(1) {
            let relative = part.split('"').next().expect("the end of a string");
            let folder = path.parent().expect("a file's folder");
            included.insert(pages::normal(&folder.join(relative)));
        }
    }
    for page in Page::all() {
        let rust = |block: &Block| block.language.split(',').next() == Some("rust");
        if page.blocks.iter().any(rust) {
            assert!(
                included.contains(&page.path),
                "{} has code that nobody compiles: include it in a doctest",
                page.path.display()
            );
        }
    }
}

//! The public API of each crate, as `api.txt` beside its manifest lists it: a change of it is seen
//! in review. `REAPER_UPDATE_API=1` writes the files anew.

mod dependencies;
mod expand;
mod growth;
mod listing;
mod source;
mod text;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The libraries, in the order of their dependencies.
const CRATES: [&str; 5] = [
    "reaper-spec",
    "reaper-state",
    "reaper-overlay",
    "reaper-exec",
    "reaper-shim",
];

#[test]
fn the_public_api_is_as_listed() {
    let update = env::var_os("REAPER_UPDATE_API").is_some();
    let root = root();
    let mut different = Vec::new();
    for name in CRATES {
        let file = root.join(name).join("api.txt");
        let found = listing::of(name, &root.join(name).join("src/lib.rs"));
        if update {
            fs::write(&file, found).expect("write a listing");
            continue;
        }
        let listed = fs::read_to_string(&file).unwrap_or_default();
        let gone = listed
            .lines()
            .filter(|line| !found.lines().any(|other| other == *line));
        different.extend(gone.map(|line| format!("- {line}")));
        let new = found
            .lines()
            .filter(|line| !listed.lines().any(|other| other == *line));
        different.extend(new.map(|line| format!("+ {line}")));
    }
    assert!(
        different.is_empty(),
        "the public API has changed; if that is wanted, run\n  \
         REAPER_UPDATE_API=1 cargo test -p reaper-tests --test api\n{}",
        different.join("\n")
    );
}

#[test]
fn every_crate_has_registry_metadata() {
    for name in CRATES.iter().chain(["reaper-cli"].iter()) {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml"));
        let manifest: toml::Table = manifest.expect("read a manifest").parse().expect(name);
        let package = manifest["package"].as_table().expect(name);
        let wanted = [
            "description",
            "keywords",
            "categories",
            "readme",
            "license",
            "repository",
            "rust-version",
        ];
        for key in wanted {
            assert!(package.contains_key(key), "{name} has no {key}");
        }
        assert!(!package.contains_key("publish"), "{name} is published");
    }
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

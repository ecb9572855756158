//! The public API of each crate, as `api.txt` beside its manifest lists it: a change of it is seen
//! in review. `REAPER_UPDATE_API=1` writes the files anew.

mod listing;
mod source;
mod text;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
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

#[test]
fn crates_avoid_unneeded_dependencies() {
    let none_of = |name: &str, unwanted: &[&str]| {
        for dependency in dependencies(name, "normal") {
            let dependency = dependency.split(' ').next().unwrap_or_default();
            assert!(
                !unwanted.contains(&dependency),
                "{name} depends on {dependency}"
            );
        }
    };
    none_of("reaper-spec", &["libc", "nix", "rustix", "tokio"]);
    none_of("reaper-state", &["libsqlite3-sys", "mockall", "tokio"]);
    none_of("reaper-overlay", &["mockall", "tokio"]);
    none_of(
        "reaper-exec",
        &["containerd-shim-protos", "mockall", "ttrpc"],
    );
}

#[test]
fn dependency_counts_match_contributing_md() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("read a page");
    for name in CRATES.iter().chain(["reaper-cli"].iter()) {
        let row = page.lines().find_map(|line| {
            let cells = line.strip_prefix(&format!("| `{name}` | "))?;
            cells.split(' ').next()?.parse::<usize>().ok()
        });
        let written = row.unwrap_or_else(|| panic!("no row for {name} in CONTRIBUTING.md"));
        let crates = dependencies(name, "normal,build");
        // Not each one is news.
        assert!(
            written.abs_diff(crates.len()) * 10 <= written,
            "{name}: {} crates, not {written} as CONTRIBUTING.md says",
            crates.len()
        );
    }
}

/// The crates that a crate is compiled from with its default features, each with its version.
fn dependencies(name: &str, edges: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .args(["--edges", edges, "--package", name])
        .current_dir(root())
        .output()
        .expect("ask cargo for the dependencies");
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8(tree.stdout).expect("a text");
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    tree.lines().map(package).collect()
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

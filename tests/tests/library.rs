//! The crates as those see them who build on them: what is packed, what a front page says, and a page
//! and an example for each thing that one may want to make.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use reaper_tests::floors::CRATES;

/// What strangers do: the crate, its page and its example.
const TASKS: &[(&str, &str, &str)] = &[
    ("reaper-state", "your-own-store.md", "one-file-store.rs"),
    ("reaper-exec", "your-own-executor.md", "time-limit.rs"),
    ("reaper-overlay", "your-own-isolation.md", "private-tmp.rs"),
    ("reaper-exec", "your-own-streams.md", "collect.rs"),
    ("reaper-exec", "embedding.md", "embed.rs"),
];

/// An example is shorter than this.
const EXAMPLE_LINES: usize = 200;

/// The shim of a README is no longer than this.
const SHIM_LINES: usize = 40;

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("the workspace").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn crates() -> impl Iterator<Item = &'static str> {
    CRATES.iter().copied().flatten().map(|rules| rules.name)
}

/// What docs.rs shows first: the documentation of the library.
fn front_page(name: &str) -> String {
    let source = root().join(name).join("src/lib.rs");
    let source = fs::read_to_string(source).unwrap_or_default();
    if source.is_empty() || source.contains("#![doc = include_str!(\"../README.md\")]") {
        return read(format!("{name}/README.md"));
    }
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines.flat_map(|line| [line.trim(), "\n"]).collect()
}

fn manifest(name: &str) -> toml::Table {
    let text = read(format!("{name}/Cargo.toml"));
    text.parse().expect("a manifest")
}

#[test]
fn every_crate_is_packed_with_license_readme_and_examples() {
    let target = tempfile::tempdir().expect("a folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "package",
            "--no-verify",
            "--locked",
            "--offline",
            "--allow-dirty",
        ])
        .arg("--target-dir")
        .arg(target.path())
        .current_dir(root());
    for name in crates() {
        cargo.args(["--package", name]);
    }
    let packed = cargo.output().expect("run cargo");
    let said = String::from_utf8_lossy(&packed.stderr);
    assert!(packed.status.success(), "{said}");
    let license = read("LICENSE");
    for name in crates() {
        let folder = target.path().join("package");
        let found = fs::read_dir(&folder).expect("the packages");
        let found: Vec<PathBuf> = found
            .map(|entry| entry.expect("a package").path())
            .collect();
        let is_own = |path: &&PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let version = file
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('-'));
            version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        };
        let package = found.iter().find(is_own);
        let package = package.unwrap_or_else(|| panic!("{name} is not packed: {found:?}"));
        let unpacked = tempfile::tempdir().expect("a folder");
        let tar = Command::new("tar")
            .args(["--extract", "--gzip", "--strip-components=1", "--file"])
            .arg(package)
            .arg("--directory")
            .arg(unpacked.path())
            .status();
        assert!(tar.expect("run tar").success(), "{name}");
        let packed = |file: &str| fs::read_to_string(unpacked.path().join(file)).ok();
        assert_eq!(packed("LICENSE"), Some(license.clone()), "{name}");
        assert_eq!(packed("README.md"), Some(read(format!("{name}/README.md"))));
        for example in fs::read_dir(root().join(name).join("examples"))
            .into_iter()
            .flatten()
        {
            let example = example.expect("an example").file_name();
            let file = unpacked.path().join("examples").join(&example);
            assert!(file.exists(), "{name}: {}", file.display());
        }
    }
}

#[test]
fn docs_rs_builds_every_feature() {
    for name in crates() {
        let manifest = manifest(name);
        let metadata = &manifest["package"]["metadata"]["docs"]["rs"];
        assert_eq!(metadata["all-features"], true.into(), "{name}");
    }
}

#[test]
fn each_crate_opens_with_what_it_decides_and_must_not_know() {
    for name in crates() {
        for text in [front_page(name), read(format!("{name}/README.md"))] {
            let opening: Vec<&str> = text.split("\n\n").take(2).collect();
            let opening = opening[1].replace('\n', " ");
            assert!(opening.starts_with("It decides "), "{name}: {opening}");
            assert!(opening.contains("It must not know "), "{name}: {opening}");
        }
    }
}

#[test]
fn each_task_of_a_stranger_is_a_page_with_a_short_example() {
    let summary = read("docs/SUMMARY.md");
    for (name, page, example) in TASKS {
        assert!(
            summary.contains(&format!("({page})")),
            "{page} is no page of the book"
        );
        let text = read(format!("docs/{page}"));
        let link = format!("(../examples/src/bin/{example})");
        assert!(text.contains(&link), "{page} does not show {example}");
        let lines = read(format!("examples/src/bin/{example}")).lines().count();
        assert!(lines < EXAMPLE_LINES, "{example} has {lines} lines");
        for front in [front_page(name), read(format!("{name}/README.md"))] {
            assert!(
                front.contains(&format!("/docs/{page}")),
                "{name} does not lead to {page}"
            );
        }
    }
}

#[test]
fn the_whole_of_a_shim_is_short_and_on_its_front_page() {
    for page in ["reaper-shim/README.md", "docs/your-own-shim.md"] {
        let text = read(page);
        let shim = text.split("```").find(|block| block.starts_with("rust"));
        let shim = shim.unwrap_or_else(|| panic!("{page} has no shim"));
        assert!(
            shim.contains("fn main()") && shim.contains("Shim::new("),
            "{page}"
        );
        let lines = shim.lines().count();
        assert!(lines <= SHIM_LINES, "{page}: {lines} lines");
    }
    assert!(front_page("reaper-shim").contains("/docs/your-own-shim.md"));
}

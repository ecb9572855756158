//! The example of the README, run.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{isolated, tool};

/// The example's program. `cargo test` has built it, unless it was told to build tests alone.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/changes")
}

#[test]
fn example_runs_command_and_prints_its_changes() {
    if !program().exists() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let manifest = manifest.to_str().unwrap();
        tool(
            env!("CARGO"),
            &["build", "--example", "changes", "--manifest-path", manifest],
        );
    }
    isolated(|dir| {
        fs::write(dir.join("file"), "one\n").unwrap();
        let output = Command::new(program())
            .args(["sh", "-c", "echo two >>file; mkdir new; exit 3"])
            .current_dir(dir)
            .env("REAPER_OVERLAY_BASE", dir.join("base"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        let shown = shown.replace(dir.to_str().unwrap(), "");
        assert!(shown.contains("M /file\n"), "{shown}");
        assert!(
            shown.contains("+two\n") && shown.ends_with("A /new\n"),
            "{shown}"
        );
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "one\n");
        assert!(!dir.join("new").exists());
    });
}

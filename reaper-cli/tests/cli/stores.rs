//! The store that the configuration names, and moving to another.

use std::fs;

use crate::rig::{Rig, code, is_database};

/// The files in the root and in its containers' folders that stores have written.
fn records(rig: &Rig) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(rig.root()).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().join("state.json").exists() {
            found.push(format!("{name}/state.json"));
        } else if is_database(&name) && !name.contains('-') {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn a_database_keeps_what_files_would() {
    let rig = Rig::new();
    rig.choose_store("sqlite");
    let bundle = rig.shell("exec sleep 1000");
    rig.quietly(&["create", "--bundle", &bundle, "c"]);
    assert_eq!(records(&rig), [".state.db"]);
    assert_eq!(rig.state("c")["status"], "created");
    rig.quietly(&["start", "c"]);
    assert_eq!(rig.state("c")["status"], "running");
    assert_eq!(rig.ok(&["exec", "c", "echo", "hi"]), "hi\n");
    assert_eq!(rig.ok(&["list", "--quiet"]), "c\n");
    rig.ok(&["kill", "c", "KILL"]);
    assert_eq!(rig.ok(&["wait", "c"]), "137\n");
    assert_eq!(rig.state("c")["exit_code"], 137);
    rig.ok(&["delete", "c"]);
    assert_eq!(rig.ok(&["list", "--quiet"]), "");
    assert!(!rig.root().join("c").exists(), "its folder is gone");
    let output = rig.call(&["run", "--", "sh", "-c", "exit 7"]);
    assert_eq!(code(output.status), 7);
}

#[test]
fn store_variable_selects_store_and_unknown_name_is_refused() {
    let rig = Rig::new();
    let run = |store: &str| {
        let mut command = rig.command(&["run", "--keep", "--name", "c", "--", "true"]);
        command.env("REAPER_STORE", store).output().unwrap()
    };
    assert!(run("sqlite").status.success());
    assert_eq!(records(&rig), [".state.db"]);
    assert_eq!(rig.ok(&["list", "--quiet"]), "", "files know nothing of it");
    rig.choose_store("sqlite");
    rig.ok(&["delete", "c"]);
    let refused = run("mysql");
    assert_eq!(code(refused.status), 1);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        error.contains("REAPER_STORE") && error.contains("file or sqlite"),
        "{error}"
    );
}

#[test]
fn a_store_moves_while_containers_run() {
    let rig = Rig::new();
    rig.running("web");
    rig.ok(&["run", "--keep", "--name", "old", "--", "true"]);
    let pid = rig.state("web")["pid"].clone();

    let rehearsal = rig.ok(&["state", "migrate", "--to", "sqlite", "--dry-run"]);
    assert_eq!(rehearsal, "would copy old\nwould copy web\n");
    assert_eq!(
        records(&rig),
        ["old/state.json", "web/state.json"],
        "nothing was written"
    );
    assert_eq!(
        rig.ok(&["state", "migrate", "--to", "sqlite"]),
        "copied old\ncopied web\n"
    );
    rig.choose_store("sqlite");
    assert_eq!(rig.state("web")["pid"], pid, "it was not touched");
    assert!(
        rig.fails(1, &["state", "migrate", "--to", "sqlite"])
            .contains("--from")
    );
    let again = [
        "state", "migrate", "--from", "file", "--to", "sqlite", "--remove",
    ];
    assert_eq!(
        rig.ok(&again),
        "kept old\nkept web\nremoved old\nremoved web\n"
    );
    assert_eq!(records(&rig), [".state.db"]);

    assert_eq!(
        rig.ok(&["exec", "web", "echo", "still here"]),
        "still here\n"
    );
    rig.ok(&["kill", "web", "KILL"]);
    assert_eq!(rig.ok(&["wait", "web"]), "137\n");
    rig.ok(&["delete", "web"]);
    assert_eq!(rig.ok(&["delete", "old"]), "");
    assert_eq!(rig.ok(&["list", "--quiet"]), "");
}

#[test]
fn the_containers_of_every_namespace_move_unless_one_is_named() {
    let rig = Rig::new();
    for options in [&[][..], &["--namespace", "one"], &["--namespace", "two"]] {
        let run = ["run", "--keep", "--name", "c", "--", "true"];
        rig.ok(&[options, &run].concat());
    }
    let one = rig.ok(&["--namespace", "one", "state", "migrate", "--to", "sqlite"]);
    assert_eq!(one, "copied c\n");
    let all = rig.ok(&["state", "migrate", "--to", "sqlite"]);
    assert_eq!(all, "copied c\nkept one/c\ncopied two/c\n");
    for options in [&[][..], &["--namespace", "one"], &["--namespace", "two"]] {
        rig.ok(&[options, &["delete", "c"]].concat());
    }
    fs::remove_dir_all(rig.root().join("ns")).unwrap();
}

#[test]
fn migrate_names_corrupt_record_and_copies_the_others() {
    let rig = Rig::new();
    for name in ["bad", "good"] {
        rig.ok(&["run", "--keep", "--name", name, "--", "true"]);
    }
    fs::write(rig.root().join("bad/state.json"), "{").unwrap();
    for (options, done) in [
        (&["--dry-run"][..], "would copy good"),
        (&[], "copied good"),
    ] {
        let output = rig.call(&[&["state", "migrate", "--to", "sqlite"], options].concat());
        assert_eq!(code(output.status), 1);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&format!("{done}\nfailed bad: ")), "{text}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("1 of 2 containers"), "{error}");
    }
}

#[test]
fn a_container_may_be_called_migrate() {
    let rig = Rig::new();
    rig.ok(&["run", "--keep", "--name", "migrate", "--", "true"]);
    assert_eq!(rig.state("migrate")["status"], "stopped");
}

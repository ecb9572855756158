//! A node whose containers are kept in a SQLite database.

use reaper_tests::{Options, on_each_with};

#[test]
fn containers_run_with_sqlite_store() {
    let options = Options::default().env("REAPER_STORE", "sqlite");
    on_each_with(&options, |node| {
        let output = node.ctr_run("echo", &["/bin/sh", "-c", "echo hello; exit 3"]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (3, "hello\n"),
            "{output:?}"
        );
        let root = node.state_root().join("ns").join(node.marker());
        assert!(root.join(".state.db").exists());
    });
}

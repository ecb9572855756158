//! `reaper-runtime node install` on configurations of every kind, by what their containerd makes of them.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use reaper_tests::{
    private::EmptyDirectory,
    suite::{Suite, reaper_program, suites},
};

/// A containerd that is installed and does not run, with a configuration of the test's own.
struct Resting<'a> {
    suite: &'a Suite,
    dir: tempfile::TempDir,
    /// Below the folder.
    config: &'a str,
}

impl<'a> Resting<'a> {
    fn new(suite: &'a Suite, config: &'a str, text: &str) -> Self {
        let dir = tempfile::tempdir().expect("make a folder");
        for name in ["bin", "agent/etc/containerd/config-v3.toml.d", "conf.d"] {
            fs::create_dir_all(dir.path().join(name)).expect("make a folder");
        }
        fs::write(dir.path().join(config), text).expect("write a configuration");
        Self { suite, dir, config }
    }

    fn call(&self, command: &str) -> Result<(), String> {
        let path = env::var("PATH").unwrap_or_default();
        let mut call = Command::new(reaper_program("reaper-runtime"));
        call.args(["node", command, "--containerd-config"])
            .arg(self.dir.path().join(self.config))
            .env("PATH", format!("{}:{path}", self.suite.bin().display()))
            .env("REAPER_RUNTIME_ROOT", self.dir.path().join("reaper"))
            .env(
                "REAPER_OVERLAY_BASE",
                self.dir.path().join("reaper/overlay"),
            )
            .env("REAPER_LOG_OUTPUT", self.dir.path().join("reaper-logs"));
        if command == "install" {
            call.arg("--bin-dir").arg(self.dir.path().join("bin"));
        }
        let output = call.output().expect("call reaper-runtime");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(said)
        }
    }

    /// What containerd makes of its configuration.
    fn dump(&self) -> String {
        let output = Command::new(self.suite.program("containerd"))
            .arg("--config")
            .arg(self.dir.path().join(self.config))
            .args(["config", "dump"])
            .output()
            .expect("ask containerd");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.dir.path().to_owned(), PathBuf::from("/etc/reaper")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("list a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).expect("read a file");
                    files.insert(path, bytes);
                }
            }
        }
        files
    }
}

const PLAIN: &str = "config.toml";
const K3S: &str = "agent/etc/containerd/config.toml";

#[test]
fn a_configuration_of_each_kind_gets_what_its_containerd_reads() {
    let _own = EmptyDirectory::at(Path::new("/etc/reaper"));
    let two = "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"x/pause\"\n";
    let three =
        "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"x/pause\"\n";
    let imports = "imports = [\"conf.d/*.toml\"]\n";
    for suite in &suites() {
        let resting = Resting::new(suite, PLAIN, "");
        let merges = resting.dump().contains("version = 3");
        let mut kinds = vec![
            (PLAIN, format!("version = 2\n{two}"), PLAIN),
            (
                PLAIN,
                format!("# first\nversion = 2\n{imports}{two}# last"),
                if merges {
                    "conf.d/reaper-v2.toml"
                } else {
                    PLAIN
                },
            ),
            (PLAIN, "# nothing".to_owned(), PLAIN),
            (
                K3S,
                format!("version = 2\n{two}"),
                "agent/etc/containerd/config.toml.tmpl",
            ),
        ];
        if merges {
            kinds.push((PLAIN, format!("version = 3\n{three}"), PLAIN));
            kinds.push((
                PLAIN,
                format!("version = 3\n{imports}{three}"),
                "conf.d/reaper-v2.toml",
            ));
            let drop_ins = format!("version = 3\nimports = [\"config-v3.toml.d/*.toml\"]\n{three}");
            kinds.push((
                K3S,
                drop_ins,
                "agent/etc/containerd/config-v3.toml.d/reaper-v2.toml",
            ));
        }
        for (config, text, written) in kinds {
            let resting = Resting::new(suite, config, &text);
            let before = resting.files();
            resting
                .call("install")
                .unwrap_or_else(|said| panic!("{suite}: {text}: {said}"));
            let after =
                fs::read_to_string(resting.dir.path().join(written)).expect("what was written");
            assert!(
                after.contains("runtimes.reaper-v2-pod]"),
                "{suite}: {text}: {after}"
            );
            if !written.ends_with(".tmpl") {
                let dump = resting.dump();
                let has = |words: &str| dump.replace('\'', "\"").contains(words);
                assert!(
                    has("runtimes.reaper-v2]") && has("runtimes.reaper-v2-pod]"),
                    "{suite}: {text}: {dump}"
                );
                assert!(
                    has("x/pause") || !text.contains("x/pause"),
                    "{suite}: {text}: {dump}"
                );
            }
            let installed = resting.files();
            resting.call("install").expect("again");
            assert_eq!(resting.files(), installed);
            resting.call("uninstall").expect("uninstall");
            assert!(resting.files() == before, "{suite}: {text}");
        }
    }
}

#[test]
fn what_containerd_would_not_read_so_is_refused_and_nothing_is_changed() {
    let _own = EmptyDirectory::at(Path::new("/etc/reaper"));
    for suite in &suites() {
        let text = "version = 2\nimports = [\"one.toml\"]\n";
        let resting = Resting::new(suite, PLAIN, text);
        let table = "plugins.\"io.containerd.grpc.v1.cri\"";
        let one = format!("version = 2\n[{table}]\nsandbox_image = \"x/pause\"\n");
        fs::write(resting.dir.path().join("one.toml"), one).expect("write an import");
        let before = resting.files();
        if !resting.dump().contains("version = 3") {
            // It takes the whole section from the import, and the handlers would be lost.
            let said = resting
                .call("install")
                .expect_err("the handlers would be lost");
            assert!(said.contains("would lack the runtime reaper-v2"), "{said}");
            assert!(resting.files() == before);
        }
        let no_toml = Resting::new(suite, PLAIN, "version = 2\n[plugins]\nx =\n");
        let before = no_toml.files();
        no_toml.call("install").expect_err("it is no TOML");
        assert!(no_toml.files() == before);
    }
}

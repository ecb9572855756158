//! Which containerd, and where the programs are.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

/// A Debian suite whose containerd `tests/provision` has unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite(String);

/// The suites to test with: those named in `REAPER_SUITES`, else the oldest and the newest.
pub fn suites() -> Vec<Suite> {
    let names = env::var("REAPER_SUITES").unwrap_or_else(|_| "bookworm sid".to_owned());
    names
        .split_whitespace()
        .map(|name| Suite(name.to_owned()))
        .collect()
}

impl Suite {
    /// The suite of that name.
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The folder with its `containerd`, `ctr` and `containerd-shim-runc-v2`.
    pub fn bin(&self) -> PathBuf {
        let store = env::var_os("REAPER_CONTAINERD_DIR")
            .map_or_else(|| target_dir().join("containerd"), PathBuf::from);
        let bin = store.join(&self.0).join("bin");
        assert!(
            bin.join("containerd").exists(),
            "no containerd of {self} in {}: run REAPER_SUITES={self} tests/provision",
            bin.display()
        );
        bin
    }

    /// A program of the suite.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder with Reaper's release binaries.
pub fn reaper_bin() -> PathBuf {
    if let Some(dir) = env::var_os("REAPER_BIN_DIR") {
        return dir.into();
    }
    // A test is target/TRIPLE/PROFILE/deps/NAME-HASH.
    let test = env::current_exe().expect("find this test's own program");
    let profiles = test
        .ancestors()
        .nth(3)
        .expect("a test below a target directory");
    profiles.join("release")
}

/// A release binary of Reaper.
pub fn reaper_program(name: &str) -> PathBuf {
    let program = reaper_bin().join(name);
    assert!(
        program.exists(),
        "no {}: run tests/run build",
        program.display()
    );
    program
}

/// The folder with the programs of the earlier version that upgrades are tested from.
pub fn earlier_bin() -> PathBuf {
    let store = env::var_os("REAPER_EARLIER_DIR")
        .map_or_else(|| target_dir().join("earlier"), PathBuf::from);
    let current = store.join("current");
    assert!(
        current.join("reaper-runtime").exists(),
        "no programs of an earlier version in {}: run tests/earlier",
        current.display()
    );
    current
}

/// A program of the examples, which a test builds with its own profile.
pub fn example_program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("find this test's own program");
    let program = test
        .ancestors()
        .nth(2)
        .expect("a profile's folder")
        .join(name);
    assert!(
        program.exists(),
        "no {}: run cargo build -p reaper-examples",
        program.display()
    );
    program
}

/// The workspace's target folder.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// A statically linked busybox of this machine.
pub fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| fs::metadata(path).is_ok())
        .expect("busybox-static is installed: run tests/provision")
}

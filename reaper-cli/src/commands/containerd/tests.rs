use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::{super::finding::Level, *};

/// A machine of the test's own: its processes, and its programs.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["proc", "bin", "sbin", "etc"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Installs a containerd that prints `config` if it is called for the file `etc/NAME.toml`, and
    /// else an empty configuration.
    fn containerd(&self, program: &str, version: &str, config: &str) {
        fs::write(self.path("etc/dump"), config).unwrap();
        let dir = self.path("etc");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*--version) echo containerd x/y {version} abc;;\n\
             *--config*) cat {}/dump;;\n*) echo version = 3;;\nesac\n",
            dir.display()
        );
        fs::write(self.path(program), script).unwrap();
        fs::set_permissions(self.path(program), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// It runs, as the process `pid`.
    fn run(&self, pid: u32, program: &str, arguments: &[&str]) {
        let dir = self.path("proc").join(pid.to_string());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("comm"), "containerd\n").unwrap();
        symlink(self.path(program), dir.join("exe")).unwrap();
        let line = [&["containerd"], arguments].concat().join("\0");
        fs::write(dir.join("cmdline"), line).unwrap();
        let path = format!("HOME=/\0PATH={}\0", self.path("bin").display());
        fs::write(dir.join("environ"), path).unwrap();
    }

    fn examine(&self) -> Vec<CheckResult> {
        let bin = self.path("bin");
        examine_at(&self.path("proc"), bin.as_os_str())
    }
}

fn of<'a>(findings: &'a [CheckResult], about: &str) -> Vec<&'a CheckResult> {
    findings
        .iter()
        .filter(|finding| finding.about == about)
        .collect()
}

/// What is said of a runtime with these lines.
fn judged(lines: &str) -> Vec<CheckResult> {
    let config = format!(
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.reaper-v2]\n{lines}\n"
    );
    let machine = Machine::new();
    machine.containerd("bin/containerd", "v2.1.9", "");
    let daemon = daemon::installed(machine.path("bin").as_os_str()).unwrap();
    handlers::judge(&config, &daemon)
}

const OWN: &str =
    "runtime_type = 'io.containerd.reaper.v2'\npod_annotations = ['reaper.runtime/*']\n";

#[test]
fn the_containerd_that_runs_is_judged_and_not_the_one_in_the_path() {
    let machine = Machine::new();
    machine.containerd("bin/containerd", "1.5.0", "");
    let config =
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.here]\n".to_owned() + OWN;
    machine.containerd("sbin/containerd", "v2.1.9", &config);
    assert_eq!(
        of(&machine.examine(), "containerd")[0].level,
        Level::Warning
    );
    machine.run(
        42,
        "sbin/containerd",
        &["--config", "/etc/k3s/containerd.toml"],
    );
    let findings = machine.examine();
    let found = of(&findings, "containerd");
    assert_eq!((found.len(), found[0].level), (1, Level::Good), "{found:?}");
    assert!(found[0].found.contains("process 42"), "{found:?}");
    let handler = of(&findings, "handler");
    assert!(
        handler[0].found.starts_with("here is of type"),
        "{handler:?}"
    );
    // And the shim is looked for where that process does.
    assert_eq!(of(&findings, "shim")[0].level, Level::Warning);
    fs::write(machine.path("bin").join(SHIM), "").unwrap();
    assert_eq!(of(&machine.examine(), "shim")[0].level, Level::Good);
}

#[test]
fn no_program_of_a_container_or_of_another_user_is_executed() {
    let machine = Machine::new();
    let config =
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.here]\n".to_owned() + OWN;
    machine.containerd("sbin/containerd", "v2.1.9", &config);
    machine.run(42, "sbin/containerd", &["-c", "/etc/x.toml"]);
    assert_eq!(machine.examine().len(), 3);
    fs::set_permissions(
        machine.path("sbin/containerd"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    assert_eq!(machine.examine().len(), 1, "all can write it");
    // A file that this machine does not have at its path, as in a container's root.
    let exe = machine.path("proc/42/exe");
    fs::remove_file(&exe).unwrap();
    symlink("/no/such/root/containerd", &exe).unwrap();
    assert_eq!(machine.examine().len(), 1);
}

#[test]
fn a_machine_without_containerd_is_well() {
    let findings = Machine::new().examine();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].level, Level::Good);
}

#[test]
fn containerd_version_is_parsed_and_old_one_is_a_warning() {
    let machine = Machine::new();
    machine.containerd("bin/containerd", "1", "");
    let daemon = daemon::installed(machine.path("bin").as_os_str()).unwrap();
    let level = |answer| of_version(answer, &daemon).level;
    assert_eq!(level("containerd github.com/x/y v1.7.2 abc\n"), Level::Good);
    assert_eq!(
        level("containerd github.com/x/y 1.6.20~ds1 1.6.20\n"),
        Level::Good
    );
    assert_eq!(
        level("containerd github.com/x/y v2.1.0-rc.1 abc"),
        Level::Good
    );
    assert_eq!(level("containerd github.com/x/y 1.5.9 abc"), Level::Warning);
    assert_eq!(level("something else"), Level::Warning);
}

#[test]
fn a_handler_that_passes_on_no_annotation_of_pods_is_a_warning_with_the_line_to_add() {
    let lines = "runtime_type = 'io.containerd.reaper.v2'";
    for lines in [
        lines.to_owned(),
        format!("{lines}\npod_annotations = []"),
        format!("{lines}\npod_annotations = ['other/*', '*']"),
    ] {
        let findings = judged(&lines);
        assert_eq!(findings[0].level, Level::Warning, "{lines}");
        let fix = findings[0].fix.as_ref().unwrap();
        assert!(
            fix.contains("pod_annotations = [\"reaper.runtime/*\"]"),
            "{fix}"
        );
    }
    assert_eq!(judged(OWN)[0].level, Level::Good);
}

#[test]
fn a_handler_is_judged_by_its_options() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let path = format!("{OWN}options = {{ ConfigPath = {file:?} }}");
    let missing = judged(&path);
    assert_eq!(missing[0].level, Level::Problem);
    assert!(missing[0].found.contains("config.toml"), "{missing:?}");
    fs::write(&file, "no-such-key = 1").unwrap();
    assert_eq!(judged(&path)[0].level, Level::Problem);
    fs::write(&file, "[overlay]\nscope = \"pod\"\n").unwrap();
    assert_eq!(judged(&path)[0].level, Level::Good, "{:?}", judged(&path));
    let relative = judged(&format!("{OWN}options = {{ ConfigPath = 'config.toml' }}"));
    assert_eq!(relative[0].level, Level::Problem);
    // Options of runc, copied from another runtime.
    let of_runc = judged(&format!("{OWN}options = {{ SystemdCgroup = true }}"));
    assert_eq!(of_runc[0].level, Level::Problem, "{of_runc:?}");
    let gone = judged(&format!("{OWN}runtime_path = '/no/such/shim'"));
    assert_eq!(gone[0].level, Level::Problem);
}

#[test]
fn a_handler_of_runc_that_calls_this_program_is_one() {
    let lines = |program: &str| {
        format!("runtime_type = 'io.containerd.runc.v2'\noptions = {{ BinaryName = {program:?} }}")
    };
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("reaper-runtime");
    let program = program.to_str().unwrap();
    assert_eq!(judged(&lines(program))[0].level, Level::Problem);
    fs::write(program, "").unwrap();
    assert_eq!(judged(&lines(program))[0].level, Level::Good);
    assert!(
        judged(&lines("/bin/runc"))[0]
            .found
            .starts_with("no runtime of type")
    );
}

#[test]
fn the_way_to_add_a_handler_is_that_of_the_version() {
    let other = judged("runtime_type = 'io.containerd.runc.v2'");
    assert!(
        other[0]
            .fix
            .as_ref()
            .unwrap()
            .contains("io.containerd.cri.v1.runtime")
    );
    let machine = Machine::new();
    machine.containerd("bin/containerd", "1.6.20", "");
    let daemon = daemon::installed(machine.path("bin").as_os_str()).unwrap();
    let old = handlers::judge("version = 2", &daemon);
    assert!(old[0].fix.as_ref().unwrap().contains("grpc.v1.cri"));
    assert_eq!(
        handlers::judge("= no toml", &daemon)[0].level,
        Level::Warning
    );
}

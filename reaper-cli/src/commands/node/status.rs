//! `node status`.

use std::{
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    facts::Node,
    handlers::CLASSES,
    plan::Facts,
    record::{RELEASE, Record, backup_of},
    texts::state_of,
};
use crate::{
    args::NodeStatusArgs,
    commands::{
        containerd::{self, Daemon, SHIM, runtimes},
        context::CommandContext,
        finding::{CheckResult, Level, print_findings},
        output::print_json,
    },
    error::Result,
    outcome::ExitAction,
};

const ABOUT: &str = "installation";

pub(super) fn run(
    call: &CommandContext,
    args: &NodeStatusArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let node = Node::find(&args.target)?;
    let facts = node.facts(None, &[])?;
    let findings = examine(&node, &facts);
    if args.json {
        print_json(out, &findings)?;
    } else {
        print_findings(out, call.colours, &findings)?;
    }
    let is_off = findings.iter().any(|finding| finding.level != Level::Good);
    Ok(ExitAction::Code(u8::from(is_off)))
}

fn examine(node: &Node, facts: &Facts) -> Vec<CheckResult> {
    let mut findings = Vec::new();
    match &facts.record {
        None => findings.push(CheckResult::warning(
            ABOUT,
            "none was made by `reaper-runtime node install`",
            "`reaper-runtime node install --dry-run` shows what it would write",
        )),
        Some(record) => findings.extend(recorded(node, facts, record)),
    }
    if let Some(daemon) = &node.daemon {
        findings.extend(containerd::of_daemon(daemon));
        findings.extend(classes(daemon));
        findings.extend(elsewhere(daemon, facts.record.as_ref()));
    }
    if !node.is_image && !node.daemon.as_ref().is_some_and(Daemon::is_running) {
        findings.push(CheckResult::warning(
            "containerd",
            "none runs with this configuration",
            "start it, or name another by --containerd-config",
        ));
    }
    if let (Some(record), false) = (&facts.record, node.is_image) {
        findings.push(Shims::find(record).finding());
    }
    findings
}

fn recorded(node: &Node, facts: &Facts, record: &Record) -> Vec<CheckResult> {
    let mut findings = Vec::new();
    let release = &record.release;
    findings.push(match release == RELEASE {
        true => CheckResult::good(ABOUT, format!("version {release}")),
        false => CheckResult::warning(
            ABOUT,
            format!("version {release}, and this program is {RELEASE}"),
            "`reaper-runtime node upgrade` installs that of the program that is called",
        ),
    });
    for path in &record.programs {
        findings.push(program(node, path, release));
    }
    for entry in &record.texts {
        let state = state_of(&facts.texts, &entry.path);
        let shown = entry.path.display();
        let again = "`reaper-runtime node install` restores it: see its --dry-run";
        findings.push(match &state.current {
            None => CheckResult::problem(ABOUT, format!("{shown} was removed"), again),
            Some(current) if !entry.after.is_of(current) => {
                CheckResult::warning(ABOUT, format!("{shown} was changed since"), again)
            }
            Some(_) if entry.existed && state.backup.is_none() => CheckResult::warning(
                ABOUT,
                format!("{} was removed", backup_of(&entry.path).display()),
                "without it `node uninstall` takes out what was added, which may leave an empty line",
            ),
            Some(_) => CheckResult::good(ABOUT, format!("{shown}")),
        });
    }
    if facts.is_unaware() {
        findings.push(CheckResult::problem(
            ABOUT,
            "containerd runs with the configuration from before",
            "restart it, which leaves pods running, or call `reaper-runtime node install`",
        ));
    }
    if facts.daemon.is_none() && record.restart.is_some() {
        findings.push(CheckResult::problem(
            ABOUT,
            "containerd did not start after its configuration was changed",
            "see its log, and call `reaper-runtime node install` or `uninstall`, which start it",
        ));
    }
    findings
}

fn program(node: &Node, path: &Path, release: &str) -> CheckResult {
    let shown = path.display();
    let again = "`reaper-runtime node install` restores it";
    let file = node.place.file(path).ok().filter(|file| file.is_file());
    let Some(file) = file else {
        return CheckResult::problem(ABOUT, format!("{shown} was removed"), again);
    };
    if node.is_image {
        return CheckResult::good(ABOUT, format!("{shown}"));
    }
    let says = |argument| {
        let output = Command::new(&file).arg(argument).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let is_shim = path.file_name().is_some_and(|name| name == SHIM);
    match says(if is_shim { "-v" } else { "--version" }) {
        Some(answer) if has_word(&answer, release) => {
            CheckResult::good(ABOUT, format!("{shown} {release}"))
        }
        Some(answer) => CheckResult::warning(
            ABOUT,
            format!("{shown} is another than {release}: {}", answer.trim()),
            again,
        ),
        None => CheckResult::problem(ABOUT, format!("{shown} cannot be executed"), again),
    }
}

fn has_word(text: &str, wanted: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .any(|word| word.trim_start_matches('v') == wanted)
}

/// The classes that containerd has no handler for.
fn classes(daemon: &Daemon) -> Vec<CheckResult> {
    // That it says nothing is a finding already.
    let dumped = daemon.ask(&["config", "dump"]).ok();
    let Some(dumped) = dumped.and_then(|text| text.parse::<toml::Table>().ok()) else {
        return Vec::new();
    };
    let missing = CLASSES
        .into_iter()
        .filter(|class| !runtimes(&dumped).any(|(name, _)| name == *class));
    missing
        .map(|class| {
            CheckResult::problem(
                "handler",
                format!("{daemon} has no runtime {class}"),
                "`reaper-runtime node install` adds it",
            )
        })
        .collect()
}

/// What else is in a PATH, and would be taken for what was installed.
fn elsewhere(daemon: &Daemon, record: Option<&Record>) -> Vec<CheckResult> {
    let mut findings = Vec::new();
    let is_same = |one: &Path, other: &Path| match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    let installed = record.and_then(|it| it.programs.iter().find(|path| path.ends_with(SHIM)));
    let first = daemon.search_path().into_iter().map(|dir| dir.join(SHIM));
    let first = first.into_iter().find(|file| file.is_file());
    if let (Some(installed), Some(first)) = (installed, first)
        && !is_same(installed, &first)
    {
        findings.push(CheckResult::warning(
            "shim",
            format!(
                "{daemon} finds {} before {}",
                first.display(),
                installed.display()
            ),
            "remove the one that is not wanted",
        ));
    }
    if let Some(other) = containerd::installed()
        && daemon.is_running()
        && !is_same(other.program(), daemon.program())
    {
        findings.push(CheckResult::warning(
            "containerd",
            format!(
                "{} is in the PATH, and not the one that runs",
                other.program().display()
            ),
            "commands that are called there may be of another version",
        ));
    }
    findings
}

/// The shims that run, one for each pod, by the program that they execute.
#[derive(Debug, Default)]
pub(super) struct Shims {
    installed: usize,
    earlier: usize,
}

impl Shims {
    pub(super) fn find(record: &Record) -> Self {
        let mut shims = Self::default();
        let Some(program) = record.programs.iter().find(|path| path.ends_with(SHIM)) else {
            return shims;
        };
        let inode = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let now = inode(program);
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for dir in entries
            .map(|entry| entry.path())
            .filter(|dir| is_process(dir))
        {
            let Some(link) = executed(&dir) else { continue };
            // Monitors are the same program by another name.
            let is_monitor = fs::read_to_string(dir.join("comm"))
                .is_ok_and(|name| name.starts_with("reaper-mon"));
            if link != *program || is_monitor {
                continue;
            }
            match inode(&dir.join("exe")) == now {
                true => shims.installed += 1,
                false => shims.earlier += 1,
            }
        }
        shims
    }

    pub(super) fn all(&self) -> usize {
        self.installed + self.earlier
    }

    fn finding(&self) -> CheckResult {
        let Self { installed, earlier } = self;
        let found = match earlier {
            0 => format!("{installed} of the installed version"),
            _ => format!("{installed} of the installed version, {earlier} of earlier ones"),
        };
        CheckResult::good("pods", found)
    }
}

fn is_process(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default();
    name.as_bytes().iter().all(u8::is_ascii_digit)
}

/// The file that a process executes, by the name that it had when it was started.
fn executed(dir: &Path) -> Option<PathBuf> {
    let link = fs::read_link(dir.join("exe")).ok()?;
    let bytes = link.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

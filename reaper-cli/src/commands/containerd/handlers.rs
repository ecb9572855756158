//! The runtimes in a configuration of containerd that are this one.

use std::path::Path;

use reaper_spec::{Config, PodAnnotation};
use toml::{Table, Value};

use super::{super::finding::CheckResult, daemon::Daemon};

const ABOUT: &str = "handler";
/// What containerd calls this shim.
pub(crate) const RUNTIME_TYPE: &str = "io.containerd.reaper.v2";
/// The runtime of the shim that is told by an option which OCI runtime to call.
const RUNC_TYPE: &str = "io.containerd.runc.v2";
const PROGRAM: &str = "reaper-runtime";
/// The CRI's plugin in configurations of version 3, and before.
pub(crate) const PLUGINS: [&str; 2] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"];

/// What there is to say of `config`, as `containerd config dump` prints it.
pub(super) fn judge(config: &str, daemon: &Daemon) -> Vec<CheckResult> {
    let config: Table = match config.parse() {
        Ok(config) => config,
        Err(error) => {
            return vec![CheckResult::warning(
                ABOUT,
                format!("the configuration of {daemon} cannot be read: {error}"),
                format!("see what `{} config dump` prints", daemon.command_line()),
            )];
        }
    };
    let mut findings = Vec::new();
    for (name, runtime) in runtimes(&config) {
        match text(runtime, "runtime_type") {
            RUNTIME_TYPE => findings.extend(own(name, runtime, daemon)),
            RUNC_TYPE => findings.extend(by_runc(name, runtime, daemon)),
            _ => {}
        }
    }
    if findings.is_empty() {
        findings.push(none(&config, daemon));
    }
    findings
}

/// All runtimes of the CRI, by name.
pub(crate) fn runtimes(config: &Table) -> impl Iterator<Item = (&str, &Table)> {
    let of_plugin = |plugin: &&str| {
        let plugin = config.get("plugins")?.get(plugin)?;
        plugin.get("containerd")?.get("runtimes")?.as_table()
    };
    let tables = PLUGINS.iter().filter_map(of_plugin).collect::<Vec<_>>();
    let all = tables.into_iter().flatten();
    all.filter_map(|(name, runtime)| Some((name.as_str(), runtime.as_table()?)))
}

fn text<'a>(table: &'a Table, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A runtime of this shim.
fn own(name: &str, runtime: &Table, daemon: &Daemon) -> Vec<CheckResult> {
    let file = daemon.config().display();
    let mut findings = Vec::new();
    let program = text(runtime, "runtime_path");
    if !program.is_empty() && !Path::new(program).is_file() {
        findings.push(CheckResult::problem(
            ABOUT,
            format!("the runtime_path of {name} is no file: {program}"),
            format!("take it out of {file}, and put the shim where containerd finds it"),
        ));
    }
    if let Some((found, fix)) = wrong_options(name, runtime) {
        findings.push(CheckResult::problem(
            ABOUT,
            found,
            format!("{fix}, in {file}"),
        ));
    }
    if !passes_annotations(runtime) {
        findings.push(CheckResult::warning(
            ABOUT,
            format!("{name} passes on no annotation of pods: what they ask for is ignored"),
            format!(
                "add to the runtime {name} in {file}: pod_annotations = [\"{}*\"], and restart \
                 containerd",
                PodAnnotation::PREFIX
            ),
        ));
    }
    if findings.is_empty() {
        let found = format!("{name} is of type {RUNTIME_TYPE}, and passes on pods' annotations");
        findings.push(CheckResult::good(ABOUT, found));
    }
    findings
}

/// What keeps every container of the runtime from being made, and the way out. The CRI passes on the
/// file that `ConfigPath` names, or without it all options as they are.
fn wrong_options(name: &str, runtime: &Table) -> Option<(String, String)> {
    let options = runtime.get("options")?.as_table()?;
    let path = text(options, "ConfigPath");
    if !path.is_empty() {
        let mut config = Config::default();
        if Path::new(path).is_relative() {
            let found = format!("the ConfigPath of {name} is relative: {path}");
            return Some((found, "write the whole path".to_owned()));
        }
        let error = config.apply_file(Path::new(path)).err()?;
        let found = format!("no container of {name} can be made, by its ConfigPath: {error}");
        return Some((found, format!("put {path} right, or take ConfigPath out")));
    }
    let body = toml::to_string(options).ok()?;
    let error = Config::default().apply_options(&body).err()?;
    let found = format!("no container of {name} can be made, by its options: {error}");
    Some((
        found,
        "they are keys of docs/configuration.md, and no others".to_owned(),
    ))
}

/// Whether a pattern lets at least one of the annotations through that have a meaning. `*` stops at
/// a slash there.
fn passes_annotations(runtime: &Table) -> bool {
    let patterns = runtime.get("pod_annotations").and_then(Value::as_array);
    patterns.into_iter().flatten().any(|pattern| {
        let pattern = pattern.as_str().unwrap_or_default();
        pattern.starts_with(PodAnnotation::PREFIX) || pattern == "*/*"
    })
}

/// A runtime of runc's shim, which may call this program.
fn by_runc(name: &str, runtime: &Table, daemon: &Daemon) -> Option<CheckResult> {
    let options = runtime.get("options")?.as_table()?;
    let program = Path::new(text(options, "BinaryName"));
    if program.file_name()? != PROGRAM {
        return None;
    }
    let shown = program.display();
    let is_there = if program.is_absolute() {
        program.is_file()
    } else {
        let mut dirs = daemon.search_path().into_iter();
        dirs.any(|dir| dir.join(program).is_file())
    };
    Some(if is_there {
        CheckResult::good(ABOUT, format!("{name} is runc's, and calls {shown}"))
    } else {
        CheckResult::problem(
            ABOUT,
            format!("{name} is runc's, and calls {shown}, which is no file"),
            format!(
                "install {PROGRAM} there, or put BinaryName right in {}",
                daemon.config().display()
            ),
        )
    })
}

fn none(config: &Table, daemon: &Daemon) -> CheckResult {
    let plugin = match config.get("version").and_then(Value::as_integer) {
        Some(version) if version >= 3 => format!("'{}'", PLUGINS[0]),
        _ => format!("\"{}\"", PLUGINS[1]),
    };
    CheckResult::warning(
        ABOUT,
        format!("no runtime of type {RUNTIME_TYPE} in the configuration of {daemon}"),
        format!(
            "for Kubernetes call `reaper-runtime node install`, or add to {}: [plugins.{plugin}.containerd.runtimes.reaper-v2] with \
             runtime_type = \"{RUNTIME_TYPE}\" and pod_annotations = [\"{}*\"], and restart containerd",
            daemon.config().display(),
            PodAnnotation::PREFIX
        ),
    )
}

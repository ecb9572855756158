//! What is asked of containerd, and of what restarts it.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use toml::{Table, Value};
use toml_edit::Item;

use super::{
    facts::Node,
    handlers::{self, CLASSES},
    layout::{self, Form, Target},
    record::Restart,
};
use crate::{
    args::NodeChange,
    commands::{
        containerd::{Daemon, RUNTIME_TYPE, runtimes},
        output::remark,
    },
    error::{Error, Result},
};

/// Where configurations are put that containerd is asked about. `node`'s lock is held meanwhile.
const SCRATCH: &str = "/run/reaper-node-check";
/// The namespace of containerd in which the shim is tried.
const TRIAL: &str = "reaper-node-trial";
/// Distributions whose own program starts containerd.
const SUPERVISORS: [&str; 5] = ["k3s", "rke2-", "k0s", "snap.microk8s.", "kubelite"];

/// Refuses what containerd would not read, and what would change anything but the handlers.
pub(super) fn check(node: &Node, daemon: &Daemon, target: &Target, after: &str) -> Result<()> {
    let scratch = Scratch::new().map_err(Error::io(format!("make {SCRATCH}")))?;
    let text = node.read(&node.config)?;
    checked(node, text, daemon, target, after, &scratch).map_err(|problem| {
        Error::Node(format!(
            "nothing was changed: by containerd's own account {} would not do: {problem}",
            target.path.display()
        ))
    })
}

/// `text` is the configuration that containerd is started with.
fn checked(
    node: &Node,
    text: Option<String>,
    daemon: &Daemon,
    target: &Target,
    after: &str,
    scratch: &Scratch,
) -> std::result::Result<(), String> {
    let main = Target {
        form: Form::Main,
        ..target.clone()
    };
    let is_made_by_k0s = target.form == Form::DropIn
        && layout::is_generated(&node.config, text.as_deref())
        && !node.config.ends_with("agent/etc/containerd/config.toml");
    let before = text.unwrap_or_else(|| handlers::base(&main));
    let dir = node.config.parent().unwrap_or(Path::new("/"));
    let file = scratch.put("before.toml", &absolute(&before, dir, None)?)?;
    let dumped = dump(daemon, &file)?;
    let candidate = match target.form {
        Form::Main | Form::Own => absolute(after, dir, None)?,
        Form::Template => handlers::with_handlers(Some(&before), &main)?,
        Form::DropIn if is_made_by_k0s => after.to_owned(),
        Form::DropIn => {
            let drop_in = scratch.put("drop-in.toml", after)?;
            absolute(&before, dir, Some(&drop_in))?
        }
    };
    let file = scratch.put("after.toml", &candidate)?;
    let with = dump(daemon, &file)?;
    for class in CLASSES {
        if !runtimes(&with).any(|(name, _)| name == class) {
            return Err(format!(
                "its configuration would lack the runtime {class}, as an imported file replaces the table: name that \
                 file by --containerd-config"
            ));
        }
    }
    if !is_made_by_k0s && rest(dumped) != rest(with) {
        return Err("other settings would change with it".to_owned());
    }
    Ok(())
}

/// A directory that no other user can change.
struct Scratch;

impl Scratch {
    fn new() -> std::io::Result<Self> {
        match fs::remove_dir_all(SCRATCH) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(SCRATCH)?;
        Ok(Self)
    }

    fn put(&self, name: &str, text: &str) -> std::result::Result<PathBuf, String> {
        let path = Path::new(SCRATCH).join(name);
        fs::write(&path, text).map_err(|error| format!("write {}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next call removes what is left.
        let _ = fs::remove_dir_all(SCRATCH);
    }
}

/// `text` as it reads from another directory, and with one more import.
fn absolute(text: &str, dir: &Path, more: Option<&Path>) -> std::result::Result<String, String> {
    let mut document = layout::parse(text).map_err(|error| error.to_string())?;
    let imports = document.get("imports").and_then(Item::as_array).cloned();
    if imports.is_none() && more.is_none() {
        return Ok(text.to_owned());
    }
    let mut array = toml_edit::Array::new();
    for import in imports
        .iter()
        .flatten()
        .filter_map(|import| import.as_str())
    {
        array.push(dir.join(import).display().to_string());
    }
    array.extend(more.map(|path| path.display().to_string()));
    document["imports"] = toml_edit::value(array);
    Ok(document.to_string())
}

fn dump(daemon: &Daemon, config: &Path) -> std::result::Result<Table, String> {
    let text = daemon.ask_with(Some(config), &["config", "dump"])?;
    text.parse().map_err(|error| format!("{error}"))
}

/// All but the handlers, and where files are.
fn rest(mut dump: Table) -> Table {
    dump.remove("imports");
    if let Some(plugins) = dump.get_mut("plugins").and_then(Value::as_table_mut) {
        for (_, plugin) in plugins.iter_mut() {
            let runtimes = plugin
                .get_mut("containerd")
                .and_then(|it| it.get_mut("runtimes"));
            if let Some(runtimes) = runtimes.and_then(Value::as_table_mut) {
                CLASSES
                    .into_iter()
                    .for_each(|class| drop(runtimes.remove(class)));
            }
        }
    }
    let mut rest = Value::Table(dump);
    without_zeros(&mut rest);
    rest.as_table().cloned().unwrap_or_default()
}

/// Takes out what is as if it were not there.
fn without_zeros(value: &mut Value) {
    if let Value::Table(table) = value {
        table.iter_mut().for_each(|(_, value)| without_zeros(value));
        table.retain(|_, value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Integer(number) => *number != 0,
            Value::Boolean(switch) => *switch,
            Value::Array(items) => !items.is_empty(),
            Value::Table(table) => !table.is_empty(),
            _ => true,
        });
    }
}

impl Restart {
    pub(super) fn choose(daemon: &Daemon, change: &NodeChange) -> Result<Self> {
        if change.no_restart {
            return Ok(Self::Not);
        }
        if let Some(command) = &change.restart_command {
            return Ok(Self::Command(command.clone()));
        }
        let unit = daemon.pid().and_then(unit).ok_or_else(|| {
            Error::Node(format!(
                "systemd does not manage {daemon}: say what restarts it by --restart-command, or --no-restart"
            ))
        })?;
        // What `systemctl restart` kills beside containerd are the shims in its cgroup, and so all pods.
        let mode = property(&unit, "KillMode").unwrap_or_default();
        if !spares_shims(&mode) {
            return Err(Error::Node(format!(
                "a restart of {unit} would end all pods, since its KillMode is {mode:?}: set KillMode=process, as \
                 containerd's own unit does, and call `systemctl daemon-reload`; or restart it yourself when no pod \
                 runs, after --no-restart"
            )));
        }
        Ok(Self::Unit(unit))
    }

    pub(super) fn run(&self) -> Result<()> {
        let (mut command, shown) = match self {
            Self::Not => return Ok(()),
            Self::Unit(unit) => {
                let mut command = Command::new("systemctl");
                command.args(["restart", unit]);
                (command, format!("systemctl restart {unit}"))
            }
            Self::Command(line) => {
                let mut command = Command::new("sh");
                command.args(["-c", line]);
                (command, line.clone())
            }
        };
        let status = command
            .stdin(Stdio::null())
            .status()
            .map_err(Error::io(format!("run `{shown}`")))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Node(format!("`{shown}` failed, {status}")))
    }
}

/// The unit of systemd that starts this containerd. One that merely contains it, as that of a terminal does,
/// is not to be restarted.
fn unit(pid: u32) -> Option<String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let unit = unit_in(&cgroups)?;
    let is_main = property(unit, "MainPID")? == pid.to_string();
    (is_main || is_supervisor(unit)).then(|| unit.to_owned())
}

/// What systemd says of a unit.
fn property(unit: &str, name: &str) -> Option<String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--value", &format!("--property={name}"), unit]);
    let output = command.stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a unit with this `KillMode` (systemd.kill(5)) leaves alone what its main process has started.
fn spares_shims(mode: &str) -> bool {
    matches!(mode, "process" | "none")
}

/// The first service that one of a process's cgroups is named after.
fn unit_in(cgroups: &str) -> Option<&str> {
    let mut paths = cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find_map(|path| path.split('/').find(|name| name.ends_with(".service")))
}

fn is_supervisor(unit: &str) -> bool {
    SUPERVISORS.iter().any(|name| unit.starts_with(name))
}

/// Has containerd run a command with the shim. `None` where no `ctr` is at hand for that.
pub(super) fn answers(daemon: &Daemon) -> Option<std::result::Result<(), String>> {
    let searched = daemon.search_path().into_iter();
    let own = env::var_os("PATH").unwrap_or_default();
    let mut files = searched
        .rev()
        .chain(env::split_paths(&own))
        .map(|dir| dir.join("ctr"));
    let ctr = files.find(|file| file.is_file())?;
    let dumped: Table = daemon.ask(&["config", "dump"]).ok()?.parse().ok()?;
    let address = dumped.get("grpc").and_then(|grpc| grpc.get("address"));
    let address = address
        .and_then(Value::as_str)
        .unwrap_or("/run/containerd/containerd.sock");
    let call = |arguments: &[&str]| {
        let output = Command::new(&ctr)
            .args([
                "--address",
                address,
                "--connect-timeout",
                "30s",
                "--timeout",
                "60s",
            ])
            .args(["--namespace", TRIAL])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", ctr.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        Err(last.unwrap_or("it says nothing").to_owned())
    };
    let scratch = Scratch::new().ok()?;
    let id = format!("trial-{}", process::id());
    let outcome = call(&[
        "run",
        "--rm",
        "--null-io",
        "--runtime",
        RUNTIME_TYPE,
        "--rootfs",
        SCRATCH,
        &id,
        "true",
    ]);
    drop(scratch);
    if let Err(problem) = call(&["namespaces", "remove", TRIAL]) {
        remark(&format!("containerd's namespace {TRIAL} stays: {problem}"));
    }
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_process_is_found_in_its_cgroups() {
        for (cgroups, unit) in [
            (
                "0::/system.slice/containerd.service\n",
                Some("containerd.service"),
            ),
            (
                "3:cpu:/x\n1:name=systemd:/system.slice/k3s.service/y\n",
                Some("k3s.service"),
            ),
            ("0::/user.slice/session-1.scope\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(cgroups), unit, "{cgroups}");
        }
        assert!(is_supervisor("k3s-agent.service") && !is_supervisor("runner.service"));
    }

    #[test]
    fn only_a_unit_that_ends_its_main_process_alone_spares_pods() {
        let modes = ["process", "none", "control-group", "mixed", ""];
        assert_eq!(modes.map(spares_shims), [true, true, false, false, false]);
    }

    #[test]
    fn a_copy_of_a_configuration_imports_the_same_files() {
        let dir = Path::new("/etc/containerd");
        let text = "version = 2 # two\nimports = [\"conf.d/*.toml\", \"/a.toml\"]\n";
        let read = absolute(text, dir, Some(Path::new("/b.toml"))).unwrap();
        let read: Table = read.parse().unwrap();
        let expected = ["/etc/containerd/conf.d/*.toml", "/a.toml", "/b.toml"];
        let expected = Value::Array(expected.map(Value::from).to_vec());
        assert_eq!(read["imports"], expected);
        assert_eq!(
            absolute("version = 2\n", dir, None).unwrap(),
            "version = 2\n"
        );
    }

    #[test]
    fn all_but_the_handlers_is_compared() {
        let dump = |more: &str| -> Table {
            let text = format!("imports = [\"x{}\"]\nversion = 3\n{more}", more.len());
            rest(text.parse().unwrap())
        };
        let table = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes";
        let runc = format!("[{table}.runc]\na = 1\n");
        let ours = format!("{runc}[{table}.reaper-v2]\nb = 1\n[{table}.reaper-v2-pod]\nb = 1\n");
        assert_eq!(dump(&runc), dump(&ours));
        assert_ne!(dump(&runc), dump(&ours.replace("a = 1", "a = 2")));
    }
}

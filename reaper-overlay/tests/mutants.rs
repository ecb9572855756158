//! Isolations that break the contract, each in one way: the suite finds each of them, by the rule
//! that it breaks.

mod common;

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::Mutex,
};

use common::{bind, isolated};
use nix::sched::{CloneFlags, unshare};
use reaper_overlay::{
    Error, FilesystemIsolation, SharedOverlay, View, ViewRequest,
    conformance::{RULES, Subject, Writes},
};
use reaper_spec::{Mount, OverlayScope};

/// In which way an isolation is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Mounts a volume in the monitor's namespace too, and leaves it there.
    LeavesMounts,
    /// Gives each container the volumes of those before it.
    ShowsVolumesToOthers,
    /// Takes over what the host writes to a file that a container has changed.
    ShowsHostsWrites,
    /// Lets a container write to the host's files.
    WritesToHost,
    /// Removes the files of a scope that another container uses.
    RemovesScopeInUse,
    /// Makes the mount point where a symbolic link leads on the host.
    FollowsLinksOut,
    /// Fails to remove what was removed.
    FailsToRemoveTwice,
    /// Fails to release what was released.
    FailsToReleaseTwice,
    /// Fails to clean up what never was.
    FailsToCleanUpNothing,
    /// Mounts a volume writable.
    IgnoresReadOnly,
    /// Mounts a volume read-only.
    RefusesVolumeWrites,
    /// Empties a container's overlay at the end of its view.
    LosesWrites,
    /// Leaves out a volume that does not exist.
    LeavesOutMissingVolumes,
    /// Gives each process mounts of its own.
    SeparatesProcesses,
    /// Begins each process in the root.
    IgnoresWorkingDirectory,
}

use Fault::*;

/// Each fault, and the rule that is to find it.
const FAULTS: &[(Fault, &str)] = &[
    (
        LeavesMounts,
        "a_released_view_leaves_no_mount_and_can_be_released_again",
    ),
    (
        ShowsVolumesToOthers,
        "volume_is_visible_only_to_its_container",
    ),
    (ShowsHostsWrites, "writes_go_where_the_isolation_puts_them"),
    (WritesToHost, "writes_go_where_the_isolation_puts_them"),
    (
        RemovesScopeInUse,
        "removing_one_container_leaves_what_another_uses",
    ),
    (
        FollowsLinksOut,
        "a_volume_behind_a_symbolic_link_changes_nothing_on_the_host",
    ),
    (FailsToRemoveTwice, "removed_id_can_be_prepared_again"),
    (
        FailsToReleaseTwice,
        "a_released_view_leaves_no_mount_and_can_be_released_again",
    ),
    (
        FailsToCleanUpNothing,
        "cleanup_and_remove_of_unknown_container_succeed",
    ),
    (
        IgnoresReadOnly,
        "a_volume_is_written_to_unless_it_is_read_only",
    ),
    (
        RefusesVolumeWrites,
        "a_volume_is_written_to_unless_it_is_read_only",
    ),
    (LosesWrites, "writes_outlive_their_view"),
    (
        LeavesOutMissingVolumes,
        "a_view_that_cannot_be_made_leaves_nothing",
    ),
    (
        SeparatesProcesses,
        "all_processes_of_a_container_see_the_same_mounts",
    ),
    (
        IgnoresWorkingDirectory,
        "processes_run_in_the_working_directory_of_the_request",
    ),
];

/// An isolation that is right but for its fault.
struct Mutant {
    fault: Option<Fault>,
    inner: SharedOverlay,
    known: Mutex<Known>,
}

/// What a mutant remembers.
#[derive(Default)]
struct Known {
    volumes: Vec<Mount>,
    removed: usize,
}

impl Mutant {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// The request as the mutant takes it.
    fn changed(&self, request: &ViewRequest) -> ViewRequest {
        let mut request = request.clone();
        if self.is(IgnoresWorkingDirectory) {
            request.cwd = "/".into();
        }
        if self.is(IgnoresReadOnly) {
            let mounts = request.mounts.iter_mut();
            mounts.for_each(|mount| mount.options.retain(|option| option != "ro"));
        }
        if self.is(RefusesVolumeWrites) {
            let mounts = request.mounts.iter_mut();
            mounts.for_each(|mount| mount.options.push("ro".to_owned()));
        }
        if self.is(LeavesOutMissingVolumes) {
            request.mounts.retain(|mount| source(mount).exists());
        }
        if self.is(ShowsVolumesToOthers) {
            let mut known = self.known.lock().unwrap();
            if request.mounts.is_empty() {
                request.mounts.clone_from(&known.volumes);
            } else {
                known.volumes.clone_from(&request.mounts);
            }
        }
        request
    }
}

fn source(mount: &Mount) -> &Path {
    mount.source.as_deref().expect("a bind mount has a source")
}

fn wrong(operation: &'static str) -> Error {
    Error::System {
        operation,
        path: PathBuf::from("/"),
        source: std::io::Error::from_raw_os_error(nix::libc::ENOENT),
    }
}

impl FilesystemIsolation for Mutant {
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error> {
        let request = self.changed(request);
        for mount in &request.mounts {
            if self.is(FollowsLinksOut) {
                fs::create_dir_all(&mount.destination).expect("make a mount point");
            }
            if self.is(LeavesMounts) {
                bind(source(mount), &mount.destination);
            }
        }
        Ok(Box::new(WrongView {
            inner: self.inner.prepare(&request)?,
            fault: self.fault,
            request,
            released: false,
        }))
    }

    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error> {
        if self.is(FailsToCleanUpNothing) && !request.overlay.base.exists() {
            return Err(wrong("look for"));
        }
        self.inner.cleanup(request)
    }

    fn remove(&self, request: &ViewRequest) -> Result<(), Error> {
        let mut known = self.known.lock().unwrap();
        known.removed += 1;
        if self.is(FailsToRemoveTwice) && known.removed > 1 {
            return Err(wrong("remove"));
        }
        self.inner.remove(request)?;
        if self.is(RemovesScopeInUse) {
            fs::remove_dir_all(request.overlay.base.join("scopes")).expect("remove the layers");
        }
        Ok(())
    }
}

/// The view of a container, wrong in one way.
struct WrongView {
    inner: Box<dyn View>,
    fault: Option<Fault>,
    request: ViewRequest,
    released: bool,
}

impl WrongView {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl View for WrongView {
    fn enter_init(&self) -> Result<(), Error> {
        self.inner.enter_init()
    }

    fn enter_exec(&self) -> Result<(), Error> {
        if self.is(WritesToHost) {
            return Ok(());
        }
        let file = self.request.cwd.join("old");
        let on_host = fs::read(&file).ok();
        self.inner.enter_exec()?;
        if self.is(SeparatesProcesses) {
            unshare(CloneFlags::CLONE_NEWNS).map_err(|_| wrong("unshare"))?;
        }
        if let Some(text) = on_host
            && self.is(ShowsHostsWrites)
        {
            fs::write(&file, text).map_err(|_| wrong("write"))?;
        }
        Ok(())
    }

    fn keep_namespace(&mut self, pid: u32) -> Result<(), Error> {
        self.inner.keep_namespace(pid)
    }

    fn environment(&self) -> Vec<String> {
        self.inner.environment()
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn release(&mut self) -> Result<(), Error> {
        if self.is(FailsToReleaseTwice) && self.released {
            return Err(wrong("release"));
        }
        self.released = true;
        self.inner.release()?;
        if self.is(LosesWrites) {
            SharedOverlay::new().remove(&self.request)?;
        }
        Ok(())
    }
}

fn subject(dir: &Path, fault: Option<Fault>, scope: fn(&mut ViewRequest)) -> Subject {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let mutant = Mutant {
        fault,
        inner: SharedOverlay::new(),
        known: Mutex::default(),
    };
    let subject = Subject::new(mutant, dir.path()).writing(Writes::Apart);
    subject.adjusting(scope).keeping(dir)
}

fn of_node(request: &mut ViewRequest) {
    request.overlay.scope = OverlayScope::Node;
}

fn of_container(request: &mut ViewRequest) {
    request.overlay.scope = OverlayScope::Container;
}

#[test]
fn isolation_without_fault_keeps_every_rule() {
    isolated(|dir| {
        for rule in RULES {
            rule.check(&subject(dir, None, of_node));
            rule.check(&subject(dir, None, of_container));
        }
    });
}

#[test]
fn each_faulty_isolation_is_found_by_the_rule_that_it_breaks() {
    isolated(|dir| {
        for &(fault, name) in FAULTS {
            let rule = RULES.iter().find(|rule| rule.name == name);
            let rule = rule.unwrap_or_else(|| panic!("no rule {name}"));
            let scope = match fault {
                LosesWrites => of_container,
                _ => of_node,
            };
            let said = match catch_unwind(|| rule.check(&subject(dir, Some(fault), scope))) {
                Ok(()) => panic!("{name} does not find an isolation that {fault:?}"),
                Err(cause) => *cause.downcast::<String>().expect("a message"),
            };
            assert!(
                said.starts_with(&format!("the rule {name} is broken: ")),
                "{said}"
            );
        }
    });
}

//! The contract of [`FilesystemIsolation`] as a suite that any isolation can be run against.
//!
//! ```no_run
//! use reaper_overlay::{HostFilesystem, conformance::{self, Subject}};
//!
//! // A test of its own, in a process with one thread and mounts of its own.
//! conformance::run(|| Subject::new(HostFilesystem, "/tmp/suite"));
//! ```
//!
//! The suite forks: run it in a process that has one thread, as a monitor has. It makes and removes
//! files below the directory that it is given, and looks at the mounts of its process: run it in a
//! mount namespace of its own, with the rights that the isolation needs. Which files of the host an
//! isolation shows, hides and protects is its own affair, and for its own tests.
//!
//! Some rules need to know more of an isolation, and check nothing where it is not said:
//!
//! | rules about | are checked |
//! |---|---|
//! | volumes | unless [`Subject::without_volumes`] is called |
//! | what is written in a view | after [`Subject::writing`] |

use std::{
    any::Any,
    fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reaper_spec::{ContainerId, Mount};

use crate::{
    contract::{Error, FilesystemIsolation, ViewRequest},
    isolation::Session,
    linux::mountinfo,
};

pub(crate) mod rules;

/// Where what is written in a view, and not to a volume, goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// To the host, which all see.
    Host,
    /// To a place that is not the host, and is kept until the container is removed.
    Apart,
    /// They are refused.
    Refused,
}

/// An isolation without views, to be checked.
pub struct Subject {
    isolation: Box<dyn FilesystemIsolation>,
    dir: PathBuf,
    volumes: bool,
    writes: Option<Writes>,
    adjust: fn(&mut ViewRequest),
    // Dropped last: a temporary folder, say.
    _kept: Option<Box<dyn Any>>,
}

impl Subject {
    /// An isolation, and a directory for the suite's files. The overlay's base in its requests lies
    /// below that directory.
    pub fn new(isolation: impl FilesystemIsolation + 'static, dir: impl Into<PathBuf>) -> Self {
        Self {
            isolation: Box::new(isolation),
            dir: dir.into(),
            volumes: true,
            writes: None,
            adjust: |_| (),
            _kept: None,
        }
    }

    /// The isolation mounts no volumes: rules about them are left out.
    #[must_use]
    pub fn without_volumes(mut self) -> Self {
        self.volumes = false;
        self
    }

    /// What is written in the directory of the suite goes there. Without it, the rules about writes check
    /// nothing.
    #[must_use]
    pub fn writing(mut self, writes: Writes) -> Self {
        self.writes = Some(writes);
        self
    }

    /// Changes each request before it is made, for settings that the isolation needs.
    #[must_use]
    pub fn adjusting(mut self, adjust: fn(&mut ViewRequest)) -> Self {
        self.adjust = adjust;
        self
    }

    /// Keeps `value`, what the views need, until the check is over.
    #[must_use]
    pub fn keeping(mut self, value: impl Any) -> Self {
        self._kept = Some(Box::new(value));
        self
    }

    fn request(&self, id: &str) -> ViewRequest {
        let id: ContainerId = id.parse().expect("an id");
        let mut request = ViewRequest::new(id, self.dir.clone());
        request.overlay.base = self.dir.join("base");
        (self.adjust)(&mut request);
        request
    }

    /// A request with a volume, and the place that it is mounted on, which exists on the host.
    fn with_volume(&self, id: &str) -> (ViewRequest, PathBuf) {
        let (source, place) = (self.dir.join("source"), self.dir.join("place"));
        for dir in [&source, &place] {
            fs::create_dir_all(dir).expect("a directory of the suite");
        }
        fs::write(source.join("content"), id).expect("a file of the suite");
        let mut request = self.request(id);
        request.mounts.push(Mount {
            destination: place.clone(),
            typ: Some("bind".to_owned()),
            source: Some(source),
            options: vec!["bind".to_owned()],
        });
        (request, place)
    }

    /// A request with a volume on a path that leads through a symbolic link to a directory of the host: the
    /// path, and the directory.
    fn with_linked_volume(&self, id: &str) -> (ViewRequest, PathBuf, PathBuf) {
        let (mut request, _) = self.with_volume(id);
        let (link, target) = (self.dir.join("link"), self.dir.join("target"));
        fs::create_dir(&target).expect("a directory of the suite");
        symlink(&target, &link).expect("a link of the suite");
        let place = link.join("made");
        request.mounts[0].destination.clone_from(&place);
        (request, place, target)
    }

    fn open(&self, request: &ViewRequest) -> Session {
        Session::open(&*self.isolation, request).expect("prepare and enter a view")
    }

    fn fails(&self, request: &ViewRequest) -> Error {
        match self.isolation.prepare(request) {
            Ok(_) => panic!("prepare succeeded"),
            Err(error) => error,
        }
    }
}

/// What a line of shell writes in a view.
pub(crate) fn shell(session: &Session, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command.stdout(Stdio::piped());
    let child = session.spawn(command).expect("run sh in the view");
    let output = child.wait_with_output().expect("wait for sh");
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// What is mounted where in the calling process's namespace, for comparisons. What is kept for later views
/// may have been mounted afresh, so that the numbers are others.
pub(crate) fn mount_places() -> Vec<(PathBuf, String)> {
    let mounts = mountinfo::read().expect("read the mounts").into_iter();
    let mut places: Vec<_> = mounts
        .map(|mount| (mount.mount_point, mount.fs_type))
        .collect();
    places.sort();
    places
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    mount_places().iter().any(|(place, _)| place == path)
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

reaper_spec::contract_rules! {
    Subject, rules:
    processes_run_in_the_working_directory_of_the_request
    all_processes_of_a_container_see_the_same_mounts
    a_view_that_cannot_be_made_leaves_nothing
    volume_is_visible_only_to_its_container
    a_volume_is_written_to_unless_it_is_read_only
    a_volume_behind_a_symbolic_link_changes_nothing_on_the_host
    writes_go_where_the_isolation_puts_them
    writes_outlive_their_view
    removing_one_container_leaves_what_another_uses
    releasing_one_view_does_not_affect_another
    a_released_view_leaves_no_mount_and_can_be_released_again
    cleanup_and_remove_of_unknown_container_succeed
    cleanup_removes_view_of_killed_monitor
    removed_id_can_be_prepared_again
}

//! What every case needs: an engine over a runtime, bundles, and a look at what is left behind.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use reaper_exec::{
    ContainerConfig, Engine, ExecRequest, HostExecutor, OciExecutor, Target, io::StdioRequest,
};
use reaper_spec::{ContainerId, ExecId, ProcessSpec};
use reaper_state::{FileStore, StateRoot};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    bundle,
    output::{Output, capture},
};

/// A case, to be run on a fresh rig.
pub(crate) type Case = fn(&Rig) -> Pin<Box<dyn Future<Output = ()> + '_>>;

/// Makes a table of cases of async functions that take a rig.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(crate) const CASES: &[(&str, crate::rig::Case)] =
            &[$((stringify!($case), |rig| Box::pin($case(rig)))),*];
    };
}
pub(crate) use cases;

/// Runs a case with a runtime in a mount namespace of its own, and checks that nothing is left.
pub(crate) fn run(runtime: &'static str, case: Case) {
    let ran = thread::spawn(move || {
        separate_mounts(runtime);
        let rig = Rig::new(runtime);
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        executor.block_on(case(&rig));
        drop(executor);
        rig.nothing_is_left();
    });
    if let Err(panicked) = ran.join() {
        std::panic::resume_unwind(panicked);
    }
}

/// crun refuses a machine where cgroups are of version 1 and version 2 is mounted, too.
fn separate_mounts(runtime: &str) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
    let unified = Path::new("/sys/fs/cgroup/unified");
    if runtime == "crun" && unified.exists() {
        // Not merely unmounted: crun would leave folders in what is below.
        let tmpfs = Some("tmpfs");
        mount(tmpfs, unified, tmpfs, MsFlags::empty(), None::<&str>).unwrap();
    }
}

/// An engine on a private root.
pub(crate) struct Rig {
    pub(crate) runtime: &'static str,
    pub(crate) engine: Engine<OciExecutor, FileStore>,
    pub(crate) folder: TempDir,
    mark: String,
}

impl Rig {
    fn new(runtime: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let rig = Self {
            engine: engine(&folder.path().join("state"), runtime),
            mark: format!("REAPER_TEST_MARK={}", folder.path().display()),
            runtime,
            folder,
        };
        fs::create_dir(rig.path("bundles")).unwrap();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A second engine on the same root, as another program would have.
    pub(crate) fn another(&self) -> Engine<OciExecutor, FileStore> {
        engine(&self.path("state"), self.runtime)
    }

    /// The cgroup of a container, directly below the hierarchies' roots: what is above it would
    /// be left.
    pub(crate) fn cgroup(&self, id: &str) -> String {
        let name = self.folder.path().file_name().unwrap().to_str().unwrap();
        format!("/reaper-oci-{}-{id}", name.trim_start_matches('.'))
    }

    /// Removes the cgroups that a container has left, with those that a runtime makes in them.
    pub(crate) fn remove_cgroups(&self, id: &str) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let hierarchy = hierarchy.unwrap().path();
            if !hierarchy.join("cgroup.procs").exists() {
                continue;
            }
            let cgroup = hierarchy.join(&self.cgroup(id)[1..]);
            while cgroup.exists() && fs::remove_dir(&cgroup).is_err() {
                thread::yield_now();
            }
        }
    }

    pub(crate) fn process(&self, args: &[&str]) -> ProcessSpec {
        let mut process = ProcessSpec::new(args.iter().copied(), "/").unwrap();
        process.env = vec!["PATH=/bin".to_owned(), self.mark.clone()];
        process
    }

    pub(crate) fn shell(&self, script: &str) -> ProcessSpec {
        self.process(&["sh", "-c", script])
    }

    /// A container with a bundle of its own, whose spec `change` may change.
    pub(crate) fn container(
        &self,
        id: &str,
        process: ProcessSpec,
        stdio: StdioRequest,
        change: impl FnOnce(&mut Value),
    ) -> ContainerConfig {
        let mut spec = bundle::spec(&process, &self.cgroup(id));
        change(&mut spec);
        let id = ContainerId::new(id).unwrap();
        let bundle = bundle::write(&self.path("bundles").join(id.as_str()), &spec);
        ContainerConfig::new(id, process)
            .with_bundle(bundle)
            .with_stdio(stdio)
    }

    /// Starts a container that runs a shell script.
    pub(crate) async fn start(&self, id: &str, script: &str) -> (ContainerId, Output) {
        let (stdio, output) = capture();
        let new = self.container(id, self.shell(script), stdio, |_| {});
        let id = new.id.clone();
        self.engine.create(new).await.unwrap();
        self.engine.start(&id).await.unwrap();
        (id, output)
    }

    pub(crate) async fn exec(
        &self,
        id: &ContainerId,
        exec: &str,
        script: &str,
    ) -> (Target, Output) {
        use reaper_exec::Executor;
        let (stdio, output) = capture();
        let exec = ExecId::new(exec).unwrap();
        let request = exec_request(self.shell(script), stdio);
        let executor = self.engine.executor();
        executor.exec(id, &exec, request).await.unwrap();
        (Target::Exec(id.clone(), exec), output)
    }

    /// Whether any process has this case's mark in its environment. Zombies have none.
    pub(crate) fn marked_process_exists(&self) -> bool {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes
            .map(|process| process.path().join("environ"))
            .any(|environ| {
                fs::read(environ)
                    .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&self.mark))
            })
    }

    fn nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("state"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "left in the root: {left:?}");
        assert!(!self.marked_process_exists(), "a process is left");
        let prefix = self.cgroup("");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let hierarchy = hierarchy.unwrap().path();
            if !hierarchy.join("cgroup.procs").exists() {
                continue;
            }
            let below = fs::read_dir(hierarchy).into_iter().flatten();
            for cgroup in below {
                let cgroup = cgroup.unwrap().path();
                let name = cgroup.file_name().unwrap().to_string_lossy();
                assert!(
                    !name.starts_with(&prefix[1..]),
                    "left: {}",
                    cgroup.display()
                );
            }
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let here = self.folder.path().to_str().unwrap();
        assert!(!mounts.contains(here), "left mounted: {mounts}");
    }
}

fn engine(root: &Path, runtime: &str) -> Engine<OciExecutor, FileStore> {
    let dir = StateRoot::new(root);
    let executor = OciExecutor::new(HostExecutor::new(dir.clone()), runtime);
    Engine::new(executor, Arc::new(FileStore::new(dir.clone())), dir)
}

pub(crate) fn exec_request(process: ProcessSpec, stdio: StdioRequest) -> ExecRequest {
    ExecRequest::new(process).with_stdio(stdio)
}

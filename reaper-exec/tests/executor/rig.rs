//! What every case needs: an engine on a private root, and a look at what is left behind.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reaper_exec::{
    ContainerConfig, CreatedProcess, Engine, ExecRequest, Executor, HostExecutor, Target,
    cgroup::{Hierarchies, Hierarchy, V1Hierarchy},
    io::StdioRequest,
};
use reaper_spec::{ContainerId, ExecId, ProcessSpec};
use reaper_state::{FileStore, StateRoot};
use tempfile::TempDir;

use crate::output::{Output, capture};

/// A case, to be run on a fresh rig.
pub(crate) type Case = fn(Rig) -> Running;

/// A case that runs.
pub(crate) type Running = Pin<Box<dyn Future<Output = Rig>>>;

/// Makes a table of cases of async functions that take a rig and give it back.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub(crate) const CASES: &[(&str, crate::rig::Case)] = &[
            $((stringify!($case), |rig| Box::pin(async move { $case(&rig).await; rig }))),*
        ];
    };
}
pub(crate) use cases;

/// Ends a test that hangs. No machine is so slow that it takes that long.
pub(crate) async fn within_a_minute<T>(wanted: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(60);
    let done = tokio::time::timeout(limit, wanted).await;
    done.expect("it hangs")
}

/// Runs a case, and checks that nothing is left of it.
pub(crate) fn block_on(case: impl FnOnce(Rig) -> Running) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rig = Rig::new();
    let rig = runtime.block_on(case(rig));
    drop(runtime);
    let left: Vec<_> = std::fs::read_dir(rig.root.path())
        .unwrap()
        .map(|e| e.unwrap())
        .collect();
    assert!(left.is_empty(), "left in the root: {left:?}");
    assert_eq!(rig.cgroups(""), [] as [PathBuf; 0], "left as cgroups");
    assert!(
        !rig.marked_process_exists(),
        "a process with this case's mark is left"
    );
}

/// Creates a container, as another program, in the root of a case. The rootfs of its view is
/// `stall`: see [`Stalling`](crate::stalling::Stalling).
pub(crate) fn create(root: &Path, stall: &Path, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rig = Rig::at(Root::Others(root.to_owned()));
    let mut new = rig.container(id, rig.process(&["sleep", "1000"]), StdioRequest::default());
    new.view.rootfs = Some(stall.to_owned());
    runtime.block_on(rig.engine.create(new)).unwrap();
}

/// Where a case's containers are.
pub(crate) enum Root {
    Own(TempDir),
    Others(PathBuf),
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Others(path) => path,
        }
    }
}

/// An engine on a private root.
pub(crate) struct Rig {
    pub(crate) root: Root,
    pub(crate) engine: Engine<HostExecutor, FileStore>,
    mark: String,
}

impl Rig {
    fn new() -> Self {
        Self::at(Root::Own(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn at(root: Root) -> Self {
        let dir = StateRoot::new(root.path());
        let mark = format!("REAPER_TEST_MARK={}", root.path().display());
        let executor = HostExecutor::new(dir.clone());
        Self {
            engine: Engine::new(executor, Arc::new(FileStore::new(dir.clone())), dir),
            root,
            mark,
        }
    }

    /// A second engine on the same root, as another program would have.
    pub(crate) fn another(&self) -> Engine<HostExecutor, FileStore> {
        let dir = StateRoot::new(self.root.path());
        Engine::new(
            HostExecutor::new(dir.clone()),
            Arc::new(FileStore::new(dir.clone())),
            dir,
        )
    }

    pub(crate) fn process(&self, args: &[&str]) -> ProcessSpec {
        let mut process = ProcessSpec::new(args.iter().copied(), "/").unwrap();
        process.env = vec!["PATH=/usr/bin:/bin".to_owned(), self.mark.clone()];
        process
    }

    /// A container that runs a shell script, with its output to be read.
    pub(crate) fn shell(&self, id: &str, script: &str) -> (ContainerConfig, Output) {
        let (stdio, output) = capture();
        (
            self.container(id, self.process(&["/bin/sh", "-c", script]), stdio),
            output,
        )
    }

    pub(crate) fn container(
        &self,
        id: &str,
        process: ProcessSpec,
        stdio: StdioRequest,
    ) -> ContainerConfig {
        let id = ContainerId::new(id).unwrap();
        let cgroup = format!("/{}/{id}", Self::cgroup_folder(self.root.path()));
        ContainerConfig::new(id, process)
            .with_bundle(self.root.path().to_owned())
            .with_cgroups_path(Some(cgroup.parse().unwrap()))
            .with_stdio(stdio)
    }

    pub(crate) async fn start_shell(&self, id: &str, script: &str) -> (ContainerId, Output) {
        let (new, output) = self.shell(id, script);
        let id = new.id.clone();
        self.engine.create(new).await.unwrap();
        self.engine.start(&id).await.unwrap();
        (id, output)
    }

    /// The exit code of a process, once it has ended.
    pub(crate) async fn exit_code(&self, target: &Target) -> u32 {
        let exit = self.engine.executor().wait(target).await.unwrap();
        exit.status.code()
    }

    pub(crate) async fn exec_shell(
        &self,
        id: &ContainerId,
        exec: &str,
        script: &str,
    ) -> (Target, Output) {
        let process = self.process(&["/bin/sh", "-c", script]);
        let (_, target, output) = self.exec_process(id, exec, process).await;
        (target, output)
    }

    /// Starts `process` in a running container: what the creation said, and what it writes.
    pub(crate) async fn exec_process(
        &self,
        id: &ContainerId,
        exec: &str,
        process: ProcessSpec,
    ) -> (CreatedProcess, Target, Output) {
        let exec = ExecId::new(exec).unwrap();
        let (stdio, output) = capture();
        let request = ExecRequest::new(process).with_stdio(stdio);
        let executor = self.engine.executor();
        let created = executor.exec(id, &exec, request).await.unwrap();
        let target = Target::Exec(id.clone(), exec);
        executor.start(&target).await.unwrap();
        (created, target, output)
    }

    /// The folder of this case's cgroups, below the hierarchy's root.
    fn cgroup_folder(root: &Path) -> String {
        let name = root.file_name().unwrap().to_str().unwrap();
        format!("reaper-test-{}", name.trim_start_matches('.'))
    }

    /// The folder of a container's cgroup in the hierarchy at `root`.
    pub(crate) fn cgroup_in(&self, root: &Path, id: &str) -> PathBuf {
        root.join(Self::cgroup_folder(self.root.path())).join(id)
    }

    /// The cgroups of a container that are there, in all hierarchies.
    pub(crate) fn cgroups(&self, id: &str) -> Vec<PathBuf> {
        let Hierarchies { v1, v2, .. } = Hierarchies::find().unwrap();
        let v1 = v1.iter().map(V1Hierarchy::root);
        let roots = v2.iter().map(Hierarchy::root).chain(v1);
        let folders = roots.map(|root| self.cgroup_in(root, id));
        folders.filter(|path| path.exists()).collect()
    }

    /// Removes the cgroups of a container whose processes are ended.
    pub(crate) fn remove_cgroups(&self, id: &str) {
        for folder in self.cgroups(id) {
            let _ = std::fs::remove_dir(folder.join("init"));
            while std::fs::remove_dir(&folder).is_err() && folder.exists() {
                std::thread::yield_now();
                let _ = std::fs::remove_dir(folder.join("init"));
            }
            let _ = std::fs::remove_dir(folder.parent().unwrap());
        }
    }

    /// The cgroup of a container in version 2's hierarchy, if it is there.
    pub(crate) fn cgroup(&self, id: &str) -> Option<PathBuf> {
        let hierarchy = Hierarchy::find().unwrap()?;
        let folder = hierarchy.root().join(Self::cgroup_folder(self.root.path()));
        Some(folder.join(id)).filter(|path| path.exists())
    }

    /// The processes that have this case's mark in their environment. Zombies have none.
    pub(crate) fn marked_processes(&self) -> Vec<Pid> {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let has_mark = |process: &std::fs::DirEntry| {
            std::fs::read(process.path().join("environ"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&self.mark))
        };
        processes
            .filter(has_mark)
            .filter_map(|process| process.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .collect()
    }

    /// Whether any process has this case's mark in its environment.
    pub(crate) fn marked_process_exists(&self) -> bool {
        !self.marked_processes().is_empty()
    }

    /// Whether containers have cgroups of version 2. With version 1 alone less is exact.
    pub(crate) fn has_cgroups() -> bool {
        Hierarchy::find().unwrap().is_some()
    }

    /// What a container started is dead, though its monitor was killed. Without a cgroup what has
    /// left its session outlives a killed monitor.
    pub(crate) fn ended_without_monitor(&self) -> bool {
        if Self::has_cgroups() {
            return !self.marked_process_exists();
        }
        for pid in self.marked_processes() {
            // It may have exited since.
            let _ = kill(pid, Signal::SIGKILL);
        }
        true
    }
}

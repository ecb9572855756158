//! Programs that are run at steps of a container's life.

use std::{
    fs::{self, File},
    io::Write as _,
    num::NonZeroU32,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal as NixSignal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use reaper_exec::{ContainerConfig, Executor as _, Target, engine, procfs};
use reaper_spec::{ContainerId, ExitStatus, Hook, HookKind, Hooks, Resources, Status};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    output::Output,
    rig::{Rig, cases, within_a_minute},
};

cases! {
    hooks_of_a_life_are_run_once_each_in_order,
    hooks_are_told_of_the_container_and_have_nothing_of_the_caller,
    hooks_reach_the_view_by_the_root_of_their_bundle,
    mounts_of_hooks_are_the_containers_own,
    a_program_of_a_hook_is_the_runtimes_where_the_specification_says_so,
    a_hook_of_the_creation_that_fails_leaves_nothing_but_the_end_hooks_traces,
    a_hook_of_the_start_that_fails_stops_the_container,
    a_hook_of_the_end_that_fails_is_logged_and_the_others_are_run,
    a_hook_that_takes_too_long_is_killed_with_all_that_it_started,
    what_hooks_leave_running_ends_with_the_container,
    a_hook_that_hangs_does_not_keep_the_container_from_its_end,
    a_hook_that_writes_a_megabyte_is_read_and_its_end_is_in_the_error,
    hooks_of_the_end_are_run_once_whoever_deletes_the_container,
    a_container_is_served_while_its_hooks_are_run,
    a_program_that_has_ended_before_its_poststart_hook_was_started,
    hooks_of_the_end_are_run_whatever_names_the_bundle_has,
    a_hook_that_kills_the_monitor_ends_the_container_and_nothing_is_left,
    a_hook_that_kills_the_monitor_at_the_end_does_not_keep_the_container_from_its_deletion,
    a_process_is_added_while_a_poststart_hook_is_run,
    a_hook_that_closes_its_streams_is_waited_for,
    a_container_with_hooks_may_be_limited_to_one_process,
}

/// A FIFO that a hook writes to, or reads from. Opening it waits for nobody.
struct Fifo(File);

impl Fifo {
    fn new(path: &Path) -> Self {
        mkfifo(path, Mode::S_IRWXU).unwrap();
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    /// Waits until something was written.
    async fn written(self) {
        let waited = tokio::task::spawn_blocking(move || {
            let timeout = PollTimeout::try_from(Duration::from_secs(30)).unwrap();
            poll(
                &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
                timeout,
            )
        });
        assert_eq!(waited.await.unwrap(), Ok(1), "nothing was written");
    }
}

/// A container with hooks, their bundle, and a folder for their traces.
struct Subject<'a> {
    rig: &'a Rig,
    folder: TempDir,
}

impl<'a> Subject<'a> {
    fn new(rig: &'a Rig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let config = json!({"root": {"path": "rootfs"}, "hostname": "of-the-bundle"});
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        Self { rig, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A hook that runs a line of shell, where `$0` is its kind.
    fn hook(&self, kind: HookKind, script: &str) -> Hook {
        let script = format!("cd {}; {script}", self.folder.path().display());
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", &script, kind.as_str()]
                .map(str::to_owned)
                .to_vec(),
            env: self.rig.process(&["true"]).env,
            timeout: None,
        }
    }

    /// A hook of each kind that notes that it was run.
    fn noting(&self) -> Hooks {
        self.each("echo $0 >> trace")
    }

    fn each(&self, script: &str) -> Hooks {
        let of = |kind| vec![self.hook(kind, script)];
        Hooks {
            prestart: of(HookKind::Prestart),
            create_runtime: of(HookKind::CreateRuntime),
            create_container: of(HookKind::CreateContainer),
            start_container: of(HookKind::StartContainer),
            poststart: of(HookKind::Poststart),
            poststop: of(HookKind::Poststop),
        }
    }

    /// What was noted.
    fn trace(&self) -> Vec<String> {
        self.read("trace").lines().map(str::to_owned).collect()
    }

    fn container(&self, id: &str, script: &str, hooks: Hooks) -> (ContainerConfig, Output) {
        let (mut new, output) = self.rig.shell(id, script);
        new.bundle = self.path("bundle");
        new.annotations = [("a".to_owned(), "b".to_owned())].into();
        new.hooks = hooks;
        (new, output)
    }

    async fn create(&self, id: &str, hooks: Hooks) -> Result<ContainerId, engine::Error> {
        let (new, _output) = self.container(id, "exec sleep 1000", hooks);
        let id = new.id.clone();
        self.rig.engine.create(new).await.map(|_| id)
    }

    async fn start(&self, id: &str, hooks: Hooks) -> ContainerId {
        let id = self.create(id, hooks).await.unwrap();
        self.rig.engine.start(&id).await.unwrap();
        id
    }

    async fn delete(&self, id: &ContainerId) {
        self.rig.engine.delete(id, true).await.unwrap();
    }

    /// Nothing of the container is left.
    async fn is_gone(&self, id: &str) {
        let id = ContainerId::new(id).unwrap();
        self.rig.engine.state(&id).await.unwrap_err();
        assert!(!self.rig.root.path().join(id.as_str()).exists());
    }
}

const LIFE: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

fn list_mut(hooks: &mut Hooks, kind: HookKind) -> &mut Vec<Hook> {
    match kind {
        HookKind::Prestart => &mut hooks.prestart,
        HookKind::CreateRuntime => &mut hooks.create_runtime,
        HookKind::CreateContainer => &mut hooks.create_container,
        HookKind::StartContainer => &mut hooks.start_container,
        HookKind::Poststart => &mut hooks.poststart,
        HookKind::Poststop => &mut hooks.poststop,
    }
}

async fn hooks_of_a_life_are_run_once_each_in_order(rig: &Rig) {
    let subject = Subject::new(rig);
    let mut hooks = subject.noting();
    let second = subject.hook(HookKind::CreateRuntime, "echo second >> trace");
    hooks.create_runtime.push(second);
    let (new, output) =
        subject.container("life", "echo program >> $0/trace; exec sleep 1000", hooks);
    let mut new = new;
    new.process
        .args
        .push(subject.path("").display().to_string());
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let creation = ["prestart", "createRuntime", "second", "createContainer"];
    assert_eq!(subject.trace(), creation);
    rig.engine.start(&id).await.unwrap();
    let (target, _output) = rig.exec_shell(&id, "no-hooks", "true").await;
    rig.engine.executor().wait(&target).await.unwrap();
    drop(output);
    let started = subject.trace();
    // The program and the hooks after its start do not wait for each other.
    assert_eq!(started[..5], [&creation[..], &["startContainer"]].concat());
    assert!(
        started[5..].iter().any(|one| one == "poststart"),
        "{started:?}"
    );
    assert!(!started.iter().any(|one| one == "poststop"));
    subject.delete(&id).await;
    let all = subject.trace();
    assert_eq!(all.last().unwrap(), "poststop");
    for kind in LIFE {
        assert_eq!(all.iter().filter(|one| *one == kind).count(), 1, "{all:?}");
    }
}

async fn hooks_are_told_of_the_container_and_have_nothing_of_the_caller(rig: &Rig) {
    let subject = Subject::new(rig);
    let hooks = subject.each(
        "cat > state-$0; tr '\\0' '\\n' < /proc/$$/environ > env-$0; \
         for ns in mnt net pid; do readlink /proc/$$/ns/$ns; done > ns-$0; \
         ls /proc/self/fd > files-$0; ps -o sid= -p $$ | tr -d ' ' > session-$0; echo $$ >> session-$0; \
         grep ^SigBlk /proc/self/status > signals-$0",
    );
    let (mut new, _output) = subject.container("told", "exec sleep 1000", hooks);
    new.preserve_fds = vec![File::open("/dev/null").unwrap().into()];
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let pid = rig.engine.state(&id).await.unwrap().process.unwrap().pid;
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    let containers = namespace(pid);
    let runtimes = namespace(std::process::id());
    assert_ne!(containers, runtimes);
    subject.delete(&id).await;
    let mut environment = rig.process(&["true"]).env;
    environment.sort();
    for (kind, status, namespace) in [
        ("prestart", "creating", &runtimes),
        ("createRuntime", "creating", &runtimes),
        ("createContainer", "creating", &containers),
        ("startContainer", "created", &containers),
        ("poststart", "running", &runtimes),
        ("poststop", "stopped", &runtimes),
    ] {
        let state: Value = serde_json::from_str(&subject.read(&format!("state-{kind}"))).unwrap();
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], "told");
        assert_eq!(state["annotations"], json!({"a": "b"}));
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
        assert!(Path::new(state["bundle"].as_str().unwrap()).is_absolute());
        let expected = (kind != "poststop").then_some(u64::from(pid));
        assert_eq!(state["pid"].as_u64(), expected, "{kind}");
        let seen = subject.read(&format!("ns-{kind}"));
        assert_eq!(Path::new(seen.lines().next().unwrap()), namespace, "{kind}");
        let mut seen: Vec<_> = subject
            .read(&format!("env-{kind}"))
            .lines()
            .map(str::to_owned)
            .collect();
        seen.sort();
        assert_eq!(seen, environment, "{kind}");
        // The three streams, and the folder that is listed.
        assert_eq!(
            subject.read(&format!("files-{kind}")),
            "0\n1\n2\n3\n",
            "{kind}"
        );
        let session = subject.read(&format!("session-{kind}"));
        let session: Vec<_> = session.lines().collect();
        assert_eq!(session[0], session[1], "{kind}");
        let blocked = subject.read(&format!("signals-{kind}"));
        assert_eq!(blocked.trim(), "SigBlk:\t0000000000000000", "{kind}");
    }
}

async fn hooks_reach_the_view_by_the_root_of_their_bundle(rig: &Rig) {
    let subject = Subject::new(rig);
    let volume = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    // A hook for which a shell must do, which cannot read JSON.
    let script = "bundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); \
        grep -q of-the-bundle $bundle/config.json || exit 4; \
        root=$(sed 's/.*\"root\":{\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json); \
        ln -s target $bundle/$root$PLACE/$0";
    let mut hooks = subject.each(script);
    for kind in HookKind::ALL {
        let place = format!("PLACE={}", place.path().display());
        list_mut(&mut hooks, kind)[0].env.push(place);
    }
    // By then the view is the root itself, or gone.
    hooks.start_container.clear();
    hooks.poststop.clear();
    let (mut new, _output) = subject.container("root", "exec sleep 1000", hooks);
    new.view.mounts = vec![reaper_spec::Mount {
        destination: place.path().to_owned(),
        typ: Some("bind".to_owned()),
        source: Some(volume.path().to_owned()),
        options: vec!["rbind".to_owned()],
    }];
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    // They were in the view, where the volume is mounted, and not on the host.
    for kind in ["prestart", "createRuntime", "createContainer", "poststart"] {
        assert!(volume.path().join(kind).is_symlink(), "{kind}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    let (target, output) = rig
        .exec_shell(&id, "look", "grep -c reaper-hooks /proc/self/mountinfo")
        .await;
    rig.engine.executor().wait(&target).await.unwrap();
    assert_eq!(output.all(), "0\n");
    subject.delete(&id).await;
}

async fn mounts_of_hooks_are_the_containers_own(rig: &Rig) {
    let subject = Subject::new(rig);
    let (direct, by_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The working directory is the view's root, by its name in the bundle.
    let script = format!(
        "mount -t tmpfs direct {} && mount -t tmpfs by-root \"$OLDPWD\"{} && \
         unshare --mount sh -c \"cd '$OLDPWD' && PATH=$PATH:/usr/sbin:/sbin && pivot_root . . && umount -l . && ls /\"",
        direct.path().display(),
        by_root.path().display()
    );
    let hooks = Hooks {
        create_container: vec![subject.hook(HookKind::CreateContainer, &script)],
        ..Hooks::default()
    };
    let id = subject.start("mounts", hooks).await;
    // Beside the root of the bundle a hook sees the runtime's files, which the container does not keep.
    for (folder, source, seen) in [(&direct, "direct", "0\n"), (&by_root, "by-root", "1\n")] {
        let look = format!(
            "grep ' {} ' /proc/self/mountinfo | grep -c ' tmpfs {source} '",
            folder.path().display()
        );
        let (target, output) = rig.exec_shell(&id, source, &look).await;
        rig.engine.executor().wait(&target).await.unwrap();
        assert_eq!(output.all(), seen, "{source}");
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(" tmpfs direct ") && !table.contains(" tmpfs by-root "));
    subject.delete(&id).await;
}

async fn a_program_of_a_hook_is_the_runtimes_where_the_specification_says_so(rig: &Rig) {
    let subject = Subject::new(rig);
    let (folder, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // What it is interpreted by is no less of it.
    let interpreter = folder.path().join("interpreter");
    fs::copy("/bin/sh", &interpreter).unwrap();
    fs::copy("/bin/true", volume.path().join("interpreter")).unwrap();
    let containers = PathBuf::from("/bin/sh");
    for (dir, text, by) in [
        (&folder, "runtime", &interpreter),
        (&volume, "container", &containers),
    ] {
        use std::os::unix::fs::PermissionsExt as _;
        let program = dir.path().join("program");
        let (by, trace) = (by.display(), subject.path("trace"));
        let script = format!("#!{by}\necho {text} >> {}\n", trace.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut hooks = subject.noting();
    for kind in HookKind::ALL {
        let hook = &mut list_mut(&mut hooks, kind)[0];
        hook.path = folder.path().join("program");
        hook.args.clear();
    }
    let (mut new, _output) = subject.container("program", "exec sleep 1000", hooks);
    new.view.mounts = vec![reaper_spec::Mount {
        destination: folder.path().to_owned(),
        typ: Some("bind".to_owned()),
        source: Some(volume.path().to_owned()),
        options: vec!["rbind".to_owned()],
    }];
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    subject.delete(&id).await;
    let expected = [
        "runtime",
        "runtime",
        "runtime",
        "container",
        "runtime",
        "runtime",
    ];
    assert_eq!(subject.trace(), expected);
}

async fn a_hook_of_the_creation_that_fails_leaves_nothing_but_the_end_hooks_traces(rig: &Rig) {
    for (position, kind) in [
        (0, HookKind::Prestart),
        (1, HookKind::CreateRuntime),
        (2, HookKind::CreateContainer),
    ] {
        let subject = Subject::new(rig);
        let mut hooks = subject.noting();
        let list = list_mut(&mut hooks, kind);
        list.insert(
            0,
            subject.hook(kind, "echo said >&2; echo and more; exit 3"),
        );
        let error = subject
            .create("fails", hooks)
            .await
            .unwrap_err()
            .to_string();
        for part in [kind.as_str(), "/bin/sh", "exit code 3", "said; and more"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let expected = [&LIFE[..position], &["poststop"]].concat();
        assert_eq!(subject.trace(), expected, "{kind}");
        subject.is_gone("fails").await;

        let mut hooks = subject.noting();
        list_mut(&mut hooks, kind)[0].path = "/nonexistent/hook".into();
        let error = subject
            .create("fails", hooks)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/hook: it cannot be executed: No such file"),
            "{error}"
        );
        subject.is_gone("fails").await;
    }
    // Before the environment is there no hook has done anything that one could undo.
    let subject = Subject::new(rig);
    let (mut new, _output) = subject.container("fails", "true", subject.noting());
    new.process.labels.apparmor_profile = Some("no-such-profile".to_owned());
    rig.engine.create(new).await.unwrap_err();
    assert_eq!(subject.trace(), [] as [&str; 0]);
    subject.is_gone("fails").await;
}

async fn a_hook_of_the_start_that_fails_stops_the_container(rig: &Rig) {
    for (kind, executed) in [
        (HookKind::StartContainer, false),
        (HookKind::Poststart, true),
    ] {
        let subject = Subject::new(rig);
        let mut hooks = subject.noting();
        list_mut(&mut hooks, kind).push(subject.hook(kind, "echo why; exit 7"));
        // A FIFO, so that the program has surely begun when a hook fails.
        let _begun = Fifo::new(&subject.path("begun"));
        if executed {
            hooks
                .poststart
                .insert(0, subject.hook(kind, "head -n 1 begun"));
        }
        let script = format!(
            "echo begun > {}; exec sleep 1000",
            subject.path("begun").display()
        );
        let (new, _output) = subject.container("fails", &script, hooks);
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        let error = within_a_minute(rig.engine.start(&id))
            .await
            .unwrap_err()
            .to_string();
        for part in [kind.as_str(), "exit code 7: why"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let record = rig.engine.state(&id).await.unwrap();
        assert_eq!(record.status, Status::Stopped, "{kind}");
        assert!(!rig.marked_process_exists());
        assert_eq!(
            subject.trace().last().map(String::as_str),
            Some(kind.as_str())
        );
        rig.engine.delete(&id, false).await.unwrap();
        assert_eq!(subject.trace().last().map(String::as_str), Some("poststop"));
    }
}

async fn a_hook_of_the_end_that_fails_is_logged_and_the_others_are_run(rig: &Rig) {
    let subject = Subject::new(rig);
    let hooks = Hooks {
        poststop: vec![
            subject.hook(HookKind::Poststop, "echo gone wrong; exit 1"),
            subject.hook(HookKind::Poststop, "echo second >> trace"),
        ],
        ..Hooks::default()
    };
    let (mut new, _output) = subject.container("ends", "true", hooks);
    let id = new.id.clone();
    new.monitor.log = Some(subject.path("log"));
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    assert_eq!(subject.trace(), ["second"]);
    let log = subject.read("log");
    assert!(
        log.contains("poststop hook /bin/sh: exit code 1: gone wrong"),
        "{log}"
    );
}

/// Has started four others, of which one has left its session, one has a parent that has exited, and one both,
/// and waits for ever.
const HANG: &str =
    "setsid sleep 1000 & sleep 1000 & (sleep 1000 &); (setsid sleep 1000 &); echo hangs; wait";

async fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started(rig: &Rig) {
    for kind in HookKind::ALL {
        let subject = Subject::new(rig);
        let mut hooks = Hooks::default();
        let mut hook = subject.hook(kind, HANG);
        hook.timeout = NonZeroU32::new(1);
        list_mut(&mut hooks, kind).push(hook);
        let (mut new, _output) = subject.container("late", "exec sleep 1000", hooks);
        new.monitor.log = Some(subject.path("log"));
        let id = new.id.clone();
        let error = within_a_minute(async {
            rig.engine.create(new).await?;
            rig.engine.start(&id).await?;
            rig.engine.delete(&id, true).await?;
            Ok::<_, engine::Error>(())
        });
        let said = match error.await {
            Err(error) => error.to_string(),
            Ok(()) => subject.read("log"),
        };
        let expected = format!("{kind} hook /bin/sh: it did not end within 1 s: hangs");
        assert!(said.contains(&expected), "{said}");
        assert!(!rig.marked_process_exists(), "{kind}");
        let _ = rig.engine.delete(&id, true).await;
        subject.is_gone("late").await;
    }
}

/// Leaves two running, of which one has left its session.
const LEAVE: &str = "setsid sleep 1000 & sleep 1000 & echo $0 >> trace";

async fn what_hooks_leave_running_ends_with_the_container(rig: &Rig) {
    let lives = [("true", false), ("exec sleep 1000", false), ("true", true)];
    for (kind, (program, is_killed)) in HookKind::ALL
        .into_iter()
        .flat_map(|kind| lives.map(|life| (kind, life)))
    {
        let subject = Subject::new(rig);
        let mut hooks = Hooks::default();
        list_mut(&mut hooks, kind).push(subject.hook(kind, LEAVE));
        let (new, _output) = subject.container("leaves", program, hooks);
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
        if program == "true" {
            rig.engine.wait(&id).await.unwrap();
        }
        if is_killed && kind == HookKind::Poststop {
            let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
            kill(Pid::from_raw(monitor.pid as i32), NixSignal::SIGKILL).unwrap();
        }
        rig.engine.delete(&id, true).await.unwrap();
        assert_eq!(subject.trace(), [kind.as_str()]);
        // They are killed, and exit a moment later.
        within_a_minute(async {
            while rig.marked_process_exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        subject.is_gone("leaves").await;
    }
}

async fn a_hook_that_hangs_does_not_keep_the_container_from_its_end(rig: &Rig) {
    for kind in [
        HookKind::Prestart,
        HookKind::CreateContainer,
        HookKind::StartContainer,
        HookKind::Poststart,
    ] {
        let subject = Subject::new(rig);
        let begun = Fifo::new(&subject.path("begun"));
        let mut hooks = Hooks::default();
        let hook = subject.hook(kind, &format!("echo begun > begun; {HANG}"));
        list_mut(&mut hooks, kind).push(hook);
        let (new, _output) = subject.container("hangs", "exec sleep 1000", hooks);
        let id = new.id.clone();
        let life = async {
            rig.engine.create(new).await?;
            rig.engine.start(&id).await
        };
        let end = async {
            begun.written().await;
            rig.another().delete(&id, true).await.unwrap();
        };
        let began = Instant::now();
        let (lived, ()) = within_a_minute(async { tokio::join!(life, end) }).await;
        assert!(began.elapsed() < Duration::from_secs(20), "{kind}");
        // A program that was executed was started, whatever its hooks do, unless the container was
        // deleted before the start was recorded.
        match lived {
            Ok(_) => assert_eq!(kind, HookKind::Poststart),
            Err(engine::Error::Store(reaper_state::Error::NotFound { .. })) => {}
            Err(error) => assert_ne!(kind, HookKind::Poststart, "{error}"),
        }
        let gone = async {
            while rig.marked_process_exists() {
                tokio::task::yield_now().await;
            }
        };
        within_a_minute(gone).await;
        subject.is_gone("hangs").await;
    }
}

async fn a_hook_that_writes_a_megabyte_is_read_and_its_end_is_in_the_error(rig: &Rig) {
    let write = "head -c 1000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero | tr '\\0' y >&2; echo; echo last";
    let subject = Subject::new(rig);
    let hooks = subject.each(write);
    let id = subject.start("talks", hooks).await;
    subject.delete(&id).await;
    for kind in [HookKind::CreateRuntime, HookKind::CreateContainer] {
        let mut hooks = Hooks::default();
        list_mut(&mut hooks, kind).push(subject.hook(kind, &format!("{write}; exit 1")));
        let error = subject
            .create("talks", hooks)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("yyy; last"),
            "{}",
            &error[error.len() - 40..]
        );
        assert!(error.len() < 1500, "{}", error.len());
    }
}

async fn hooks_of_the_end_are_run_once_whoever_deletes_the_container(rig: &Rig) {
    for killed in [false, true] {
        let subject = Subject::new(rig);
        let id = subject.start("ends", subject.noting()).await;
        if killed {
            let monitor = rig.engine.state(&id).await.unwrap().monitor.unwrap();
            kill(Pid::from_raw(monitor.pid as i32), NixSignal::SIGKILL).unwrap();
        } else {
            // Without a client the monitor ends with the container.
            let record = rig.engine.state(&id).await.unwrap();
            kill(
                Pid::from_raw(record.process.unwrap().pid as i32),
                NixSignal::SIGKILL,
            )
            .unwrap();
            rig.engine.wait(&id).await.unwrap();
        }
        let other = rig.another();
        assert_eq!(other.state(&id).await.unwrap().status, Status::Stopped);
        assert!(!subject.trace().contains(&"poststop".to_owned()));
        // Two delete it at the same time.
        let (one, two) = tokio::join!(other.delete(&id, true), rig.engine.delete(&id, true));
        assert!(one.is_ok() || two.is_ok(), "{one:?}, {two:?}");
        let trace = subject.trace();
        let ends = trace.iter().filter(|one| *one == "poststop").count();
        assert_eq!(ends, 1, "killed: {killed}, {trace:?}");
        subject.is_gone("ends").await;
    }
}

async fn a_container_is_served_while_its_hooks_are_run(rig: &Rig) {
    let subject = Subject::new(rig);
    let (begun, go) = (
        Fifo::new(&subject.path("begun")),
        Fifo::new(&subject.path("go")),
    );
    let hooks = Hooks {
        create_runtime: vec![subject.hook(HookKind::CreateRuntime, "echo > begun; head -n 1 go")],
        ..Hooks::default()
    };
    let (new, _output) = subject.container("busy", "exec sleep 1000", hooks);
    let id = new.id.clone();
    let look = async {
        begun.written().await;
        let seen = rig.another().executor().state(&id).await.unwrap();
        let pid = seen.process.unwrap().pid;
        assert!(procfs::children(seen.monitor.unwrap().pid).unwrap().len() > 1);
        (&go.0).write_all(b"\n").unwrap();
        (seen.status, pid)
    };
    let (created, (status, pid)) = tokio::join!(rig.engine.create(new), look);
    assert_eq!(status, Status::Creating);
    assert_eq!(created.unwrap().0.process.unwrap().pid, pid);
    subject.delete(&id).await;
}

async fn a_program_that_has_ended_before_its_poststart_hook_was_started(rig: &Rig) {
    let subject = Subject::new(rig);
    let (new, _output) = subject.container("brief", "exit 5", subject.noting());
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    assert!(subject.trace().contains(&"poststart".to_owned()));
    let exit = rig
        .engine
        .executor()
        .wait(&Target::Init(id.clone()))
        .await
        .unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 5 });
    rig.engine.delete(&id, false).await.unwrap();
    assert_eq!(subject.trace().last().unwrap(), "poststop");
}

async fn hooks_of_the_end_are_run_whatever_names_the_bundle_has(rig: &Rig) {
    for root in ["rootfs", ".poststop", ".poststop/rootfs", "config.json"] {
        let subject = Subject::new(rig);
        let bundle = subject.path("bundle");
        fs::write(bundle.join(".poststop"), "").unwrap();
        let config = json!({"root": {"path": root}});
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let id = subject.start("names", subject.noting()).await;
        subject.delete(&id).await;
        assert_eq!(subject.trace(), LIFE, "{root}");
        assert_eq!(fs::read(bundle.join(".poststop")).unwrap(), b"");
        subject.is_gone("names").await;
    }
}

/// Kills the monitor: the parent of the process that runs hooks.
const KILL_MONITOR: &str = "kill -KILL $(ps -o ppid= -p $PPID); exec sleep 1000";

/// Waits until nothing runs that this case has started.
async fn all_ended(rig: &Rig) {
    let ended = async {
        while !rig.ended_without_monitor() {
            tokio::task::yield_now().await;
        }
    };
    within_a_minute(ended).await;
}

async fn a_hook_that_kills_the_monitor_ends_the_container_and_nothing_is_left(rig: &Rig) {
    for kind in [
        HookKind::Prestart,
        HookKind::CreateRuntime,
        HookKind::Poststart,
    ] {
        let subject = Subject::new(rig);
        let mut hooks = subject.noting();
        list_mut(&mut hooks, kind).push(subject.hook(kind, KILL_MONITOR));
        let (new, _output) = subject.container("killed", "exec sleep 1000", hooks);
        let id = new.id.clone();
        let life = async {
            rig.engine.create(new).await?;
            rig.engine.start(&id).await
        };
        within_a_minute(life).await.unwrap_err();
        if kind == HookKind::Poststart {
            let record = rig.another().state(&id).await.unwrap();
            assert_eq!(record.status, Status::Stopped);
        }
        let _ = rig.another().delete(&id, true).await;
        all_ended(rig).await;
        subject.is_gone("killed").await;
        let ends = subject.trace();
        let ends = ends.iter().filter(|one| *one == "poststop").count();
        assert_eq!(ends, 1, "{kind}");
    }
}

async fn a_hook_that_kills_the_monitor_at_the_end_does_not_keep_the_container_from_its_deletion(
    rig: &Rig,
) {
    let subject = Subject::new(rig);
    let mut hooks = subject.noting();
    let kill = subject.hook(HookKind::Poststop, KILL_MONITOR);
    hooks.poststop.push(kill);
    let id = subject.start("killed", hooks).await;
    let _ = within_a_minute(rig.engine.delete(&id, true)).await;
    let _ = within_a_minute(rig.another().delete(&id, true)).await;
    all_ended(rig).await;
    subject.is_gone("killed").await;
    assert_eq!(subject.trace(), LIFE);
}

async fn a_process_is_added_while_a_poststart_hook_is_run(rig: &Rig) {
    let subject = Subject::new(rig);
    let (begun, go) = (
        Fifo::new(&subject.path("begun")),
        Fifo::new(&subject.path("go")),
    );
    let hooks = Hooks {
        poststart: vec![subject.hook(HookKind::Poststart, "echo > begun; head -n 1 go")],
        ..Hooks::default()
    };
    let id = subject.create("added", hooks).await.unwrap();
    let add = async {
        begun.written().await;
        let (target, output) = rig.exec_shell(&id, "meanwhile", "echo added").await;
        let exit = rig.engine.executor().wait(&target).await.unwrap();
        assert_eq!(exit.status, ExitStatus::Exited { code: 0 });
        assert_eq!(output.all(), "added\n");
        (&go.0).write_all(b"\n").unwrap();
    };
    let (started, ()) = within_a_minute(async { tokio::join!(rig.engine.start(&id), add) }).await;
    started.unwrap();
    subject.delete(&id).await;
}

async fn a_hook_that_closes_its_streams_is_waited_for(rig: &Rig) {
    let subject = Subject::new(rig);
    let id = subject
        .start(
            "closes",
            subject.each("exec <&- >&- 2>&-; echo $0 >> trace"),
        )
        .await;
    subject.delete(&id).await;
    assert_eq!(subject.trace(), LIFE);
    // What it says before is in the error nevertheless.
    let mut hooks = Hooks::default();
    let hook = subject.hook(
        HookKind::CreateRuntime,
        "echo said; exec <&- >&- 2>&-; exit 3",
    );
    hooks.create_runtime.push(hook);
    let error = subject.create("closes", hooks).await.unwrap_err();
    assert!(error.to_string().ends_with("exit code 3: said"), "{error}");
}

async fn a_container_with_hooks_may_be_limited_to_one_process(rig: &Rig) {
    if !crate::limits::has("pids") {
        return;
    }
    let subject = Subject::new(rig);
    let mut hooks = Hooks::default();
    let kind = HookKind::CreateRuntime;
    list_mut(&mut hooks, kind).push(subject.hook(kind, "true"));
    let (mut new, _output) = subject.container("alone", "exit 4", hooks);
    new.resources = Resources::parse(br#"{"pids":{"limit":1}}"#).unwrap();
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let exit = within_a_minute(rig.engine.wait(&id)).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 4 });
    rig.engine.delete(&id, false).await.unwrap();
}

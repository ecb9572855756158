//! Whole installations of images, killed at each call that changes something.

mod links;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    disk::{Disk, Host, Owner, Place, execute},
    facts::Node,
    install::carry_out,
    plan::{Facts, install, uninstall},
    record::{Digest, Restart},
    uninstall::carry_out as carry_out_uninstall,
};

/// A filesystem whose process is killed at the call of that number, in the middle of it if it writes.
struct Killed {
    left: Cell<usize>,
}

impl Killed {
    fn at(count: usize) -> Self {
        Self {
            left: Cell::new(count),
        }
    }

    fn call(&self) -> io::Result<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(io::Error::other("killed")),
        }
    }
}

impl Disk for Killed {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Host.make_folder(path)
    }

    fn write(&self, path: &Path, from: &mut dyn Read, owner: &Owner) -> io::Result<()> {
        if let Err(killed) = self.call() {
            let mut all = Vec::new();
            from.read_to_end(&mut all)?;
            fs::write(path, &all[..all.len() / 2])?;
            return Err(killed);
        }
        Host.write(path, from, owner)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        Host.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Host.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Host.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Host.sync_folder(path)
    }
}

/// An image with a containerd's configuration, and programs to install.
struct Image {
    root: tempfile::TempDir,
    new: tempfile::TempDir,
    config: PathBuf,
}

const K3S: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";

impl Image {
    fn new(config: &str, text: Option<&str>) -> Self {
        let image = Self {
            root: tempfile::tempdir().unwrap(),
            new: tempfile::tempdir().unwrap(),
            config: config.into(),
        };
        fs::create_dir_all(image.path("/etc")).unwrap();
        fs::create_dir_all(image.path("/usr/local/bin")).unwrap();
        if let Some(text) = text {
            fs::create_dir_all(image.path(config).parent().unwrap()).unwrap();
            fs::write(image.path(config), text).unwrap();
            fs::set_permissions(image.path(config), fs::Permissions::from_mode(0o640)).unwrap();
        }
        image.build("one");
        image
    }

    fn all() -> [Self; 4] {
        let imports = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n";
        let plain = "/etc/containerd/config.toml";
        [
            Self::new(plain, Some("version = 2 # two\n")),
            Self::new(plain, Some(imports)),
            Self::new(plain, None),
            Self::new(K3S, Some("version = 3\n")),
        ]
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn build(&self, what: &str) {
        for name in ["containerd-shim-reaper-v2", "reaper-runtime"] {
            fs::write(self.new.path().join(name), format!("{name}: {what}")).unwrap();
        }
    }

    fn node(&self) -> Node {
        Node {
            place: Place::new(self.root.path()),
            daemon: None,
            config: self.config.clone(),
            is_image: true,
        }
    }

    fn install(&self, release: &str, disk: &dyn Disk) -> bool {
        let node = self.node();
        let target = node.target().unwrap();
        let programs = node.programs(Some(self.new.path()), None).unwrap();
        let facts = node.facts(Some(&target), &programs).unwrap();
        let plan = install(&facts, release, &target, &programs).unwrap();
        execute(&node.place, disk, &plan.steps).is_ok()
    }

    fn uninstall(&self, disk: &dyn Disk) -> bool {
        let node = self.node();
        let plan = uninstall(&node.facts(None, &[]).unwrap());
        execute(&node.place, disk, &plan.steps).is_ok()
            && execute(&node.place, disk, &plan.afterwards).is_ok()
    }

    fn tree(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let found = fs::symlink_metadata(&path).unwrap();
                let name = path.strip_prefix(self.root.path()).unwrap().to_owned();
                let bytes = if found.is_file() {
                    fs::read(&path).unwrap()
                } else {
                    Vec::new()
                };
                tree.insert(name, (found.mode(), bytes));
                if found.is_dir() {
                    folders.push(path);
                }
            }
        }
        tree
    }
}

/// Kills `action` at each call, has `finish` put it right, and compares with what `action` does.
fn killed_at_each(
    image: &Image,
    prepare: &dyn Fn(),
    action: &dyn Fn(&dyn Disk) -> bool,
    expected: &BTreeMap<PathBuf, (u32, Vec<u8>)>,
) {
    for count in 0.. {
        prepare();
        let is_done = action(&Killed::at(count));
        assert!(action(&Host), "the next call, after a kill at call {count}");
        assert_eq!(&image.tree(), expected, "after a kill at call {count}");
        assert!(count < 200);
        if is_done {
            assert!(count > 5, "there was something to do");
            return;
        }
    }
}

#[test]
fn a_call_that_is_killed_anywhere_is_finished_by_the_next() {
    for image in Image::all() {
        let before = image.tree();
        assert!(image.install("1", &Host));
        let first = image.tree();
        image.build("two");
        assert!(image.install("2", &Host));
        let second = image.tree();
        assert_ne!(first, second);
        assert!(image.uninstall(&Host));
        assert_eq!(image.tree(), before, "all is as it was");

        let clean = || assert!(image.uninstall(&Host));
        killed_at_each(&image, &clean, &|disk| image.install("2", disk), &second);
        let older = || {
            assert!(image.uninstall(&Host));
            image.build("one");
            assert!(image.install("1", &Host));
            image.build("two");
        };
        killed_at_each(&image, &older, &|disk| image.install("2", disk), &second);
        let installed = || assert!(image.install("2", &Host));
        killed_at_each(&image, &installed, &|disk| image.uninstall(disk), &before);
    }
}

#[test]
fn an_installation_that_was_killed_is_undone() {
    for image in Image::all() {
        let before = image.tree();
        for count in 0..60 {
            let is_done = image.install("1", &Killed::at(count));
            assert!(image.uninstall(&Host));
            let after = image.tree();
            let files = |tree: &BTreeMap<PathBuf, (u32, Vec<u8>)>| {
                let files = tree
                    .iter()
                    .filter(|(_, (mode, _))| mode & 0o170_000 == 0o100_000);
                files
                    .map(|(path, file)| (path.clone(), file.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                files(&after),
                files(&before),
                "after a kill at call {count}"
            );
            if is_done {
                break;
            }
        }
    }
}

#[test]
fn a_file_keeps_its_mode_and_is_replaced_through_a_link() {
    let image = Image::new("/etc/containerd/config.toml", None);
    fs::create_dir_all(image.path("/etc/containerd")).unwrap();
    fs::create_dir_all(image.path("/data")).unwrap();
    fs::write(image.path("/data/real.toml"), "version = 2\n").unwrap();
    fs::set_permissions(
        image.path("/data/real.toml"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    // As the node sees it, whose root this is.
    symlink("/data/real.toml", image.path("/etc/containerd/config.toml")).unwrap();
    let before = image.tree();
    assert!(image.install("1", &Host));
    let link = fs::read_link(image.path("/etc/containerd/config.toml")).unwrap();
    assert_eq!(link, Path::new("/data/real.toml"));
    let real = image.path("/data/real.toml");
    assert!(fs::read_to_string(&real).unwrap().contains("reaper-v2-pod"));
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o600);
    assert!(image.uninstall(&Host));
    assert_eq!(image.tree(), before);
}

#[test]
fn the_record_is_private_and_has_no_secret_of_the_configuration() {
    let plain = "/etc/containerd/config.toml";
    let image = Image::new(plain, Some("version = 2\npassword = 'hunter2'\n"));
    fs::set_permissions(image.path(plain), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(image.install("1", &Host));
    let record = image.path("/etc/reaper/install.json");
    let look = || {
        let text = fs::read_to_string(&record).unwrap();
        assert!(
            !text.contains("hunter2") && text.contains("siphash128:"),
            "{text}"
        );
        assert_eq!(fs::metadata(&record).unwrap().mode() & 0o7777, 0o600);
        text
    };
    let first = look();
    // One with the text itself, as it once was, is read and replaced.
    let config = fs::read_to_string(image.path(plain)).unwrap();
    let digest = Digest::of(&config);
    let digest = serde_json::to_string(&digest).unwrap();
    let old = first.replace(&digest, &serde_json::to_string(&config).unwrap());
    assert!(old.contains("hunter2"));
    fs::write(&record, old).unwrap();
    fs::set_permissions(&record, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(image.install("1", &Host));
    assert_eq!(look(), first);
    let kept = image.path("/etc/containerd/config.toml.before-reaper");
    assert_eq!(fs::metadata(kept).unwrap().mode() & 0o7777, 0o600);
    assert!(image.uninstall(&Host));
}

#[test]
fn a_program_that_is_executed_is_replaced_and_not_written_to() {
    let image = Image::new("/etc/containerd/config.toml", None);
    assert!(image.install("1", &Host));
    let shim = image.path("/usr/local/bin/containerd-shim-reaper-v2");
    let mut open = File::open(&shim).unwrap();
    image.build("two");
    assert!(image.install("2", &Host));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "containerd-shim-reaper-v2: one");
    assert_eq!(
        fs::read_to_string(&shim).unwrap(),
        "containerd-shim-reaper-v2: two"
    );
    assert_eq!(fs::metadata(&shim).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn links_lead_nowhere_but_below_the_root() {
    let image = Image::new("/etc/containerd/config.toml", None);
    symlink("/../../etc", image.path("/out")).unwrap();
    symlink("loop", image.path("/loop")).unwrap();
    let place = Place::new(image.root.path());
    let real = |path: &str| place.real(Path::new(path)).unwrap();
    assert_eq!(real("/out/x/../y"), Path::new("/etc/y"));
    assert_eq!(real("/a/./b"), Path::new("/a/b"));
    place.real(Path::new("/loop")).unwrap_err();
}

impl Image {
    /// Installs, and has `line` restart containerd, which runs if `runs`.
    fn install_and_restart(
        &self,
        line: &str,
        runs: bool,
        answers: bool,
    ) -> (Result<(), String>, String) {
        let node = self.node();
        let target = node.target().unwrap();
        let programs = node.programs(Some(self.new.path()), None).unwrap();
        let mut facts = node.facts(Some(&target), &programs).unwrap();
        set_restart(&mut facts, line, runs);
        let plan = install(&facts, "1", &target, &programs).unwrap();
        let mut out = Vec::new();
        let verify = |_: &mut dyn io::Write| match answers {
            true => Ok(()),
            false => Err(crate::error::Error::Node("no answer".to_owned())),
        };
        let outcome = carry_out(&node, &facts, &plan, &verify, &mut out);
        let said = String::from_utf8(out).unwrap();
        (outcome.map_err(|error| error.to_string()), said)
    }
}

fn set_restart(facts: &mut Facts, line: &str, runs: bool) {
    facts.daemon = runs.then(|| reaper_spec::ProcessIdentity {
        pid: 7,
        start_time: 1,
        boot_id: "boot".to_owned(),
    });
    assert!(runs || facts.is_restart_due());
    facts.restart = Some(Restart::Command(line.to_owned()));
}

#[test]
fn nothing_outside_of_an_image_is_touched_through_its_links_or_its_record() {
    let outside = tempfile::tempdir().unwrap();
    for name in ["containerd-shim-reaper-v2", "reaper-runtime"] {
        fs::write(outside.path().join(name), "the host's").unwrap();
    }
    let image = Image::new("/etc/containerd/config.toml", Some("version = 2\n"));
    assert!(image.install("1", &Host));
    // A directory of the record becomes a link to one of the host.
    fs::remove_dir_all(image.path("/usr/local/bin")).unwrap();
    symlink(outside.path(), image.path("/usr/local/bin")).unwrap();
    let hosts = || fs::read_to_string(outside.path().join("reaper-runtime")).unwrap();
    let node = image.node();
    let is_there = |path: &str| node.place.has(Path::new(path));
    assert!(!is_there("/usr/local/bin/reaper-runtime"));
    assert!(image.uninstall(&Host));
    assert_eq!(hosts(), "the host's");

    fs::remove_file(image.path("/usr/local/bin")).unwrap();
    assert!(image.install("1", &Host));
    let record = image.path("/etc/reaper/install.json");
    let text = fs::read_to_string(&record).unwrap();
    for other in ["/usr/../../x", "usr/bin/x"] {
        let other = text.replace("/usr/local/bin/reaper-runtime", other);
        fs::write(&record, other).unwrap();
        let problem = image.node().record().unwrap_err().to_string();
        assert!(problem.contains("is no path"), "{problem}");
    }
}

#[test]
fn a_program_that_was_there_before_stays() {
    let image = Image::new("/etc/containerd/config.toml", None);
    let own = image.path("/usr/local/bin/reaper-runtime");
    fs::write(&own, "an administrator's").unwrap();
    // An interrupted call knows of it as well.
    assert!(!image.install("1", &Killed::at(20)));
    assert!(image.install("1", &Host));
    image.build("two");
    assert!(image.install("2", &Host));
    assert!(image.uninstall(&Host));
    assert!(own.exists());
    assert!(
        !image
            .path("/usr/local/bin/containerd-shim-reaper-v2")
            .exists()
    );
    assert!(!image.path("/etc/reaper/install.json").exists());
}

#[test]
fn what_is_written_while_an_installation_is_planned_stays() {
    let plain = "/etc/containerd/config.toml";
    let image = Image::new(plain, Some("version = 2\n"));
    let node = image.node();
    let target = node.target().unwrap();
    let programs = node.programs(Some(image.new.path()), None).unwrap();
    let facts = node.facts(Some(&target), &programs).unwrap();
    let plan = install(&facts, "1", &target, &programs).unwrap();
    fs::write(image.path(plain), "version = 2\nmine = 1\n").unwrap();
    let (step, problem) = execute(&node.place, &Host, &plan.steps).unwrap_err();
    assert!(step.contains(plain) && problem.to_string().contains("changed meanwhile"));
    let text = || fs::read_to_string(image.path(plain)).unwrap();
    assert_eq!(text(), "version = 2\nmine = 1\n");
    assert!(image.install("1", &Host));
    assert!(text().starts_with("version = 2\nmine = 1\n") && text().contains("reaper-v2"));
}

#[test]
fn a_restart_that_fails_is_rolled_back_and_made_good_by_the_next_call() {
    let plain = "/etc/containerd/config.toml";
    let before = "version = 2\n";
    let image = Image::new(plain, Some(before));
    let config = || fs::read_to_string(image.path(plain)).unwrap();
    let count = image.new.path().join("count");
    let line = format!("echo >>{0}; exit 3", count.display());
    let restarts = || fs::read(&count).unwrap().len();

    let (outcome, _) = image.install_and_restart(&line, true, true);
    let problem = outcome.unwrap_err();
    assert!(
        problem.contains("exit status: 3") && problem.contains("written back"),
        "{problem}"
    );
    assert!(problem.contains("may not run"), "{problem}");
    assert_eq!((config().as_str(), restarts()), (before, 2));
    assert!(
        !image
            .path("/etc/containerd/config.toml.before-reaper")
            .exists()
    );
    let record = image.node().record().unwrap().unwrap();
    assert_eq!(record.restart, Some(Restart::Command(line)));

    // As the first restart failed, only that of the next call finds out whether the second does.
    let once = format!("echo >>{0}; test $(wc -l <{0}) = 4", count.display());
    let (outcome, said) = image.install_and_restart(&once, false, true);
    let problem = outcome.unwrap_err();
    assert!(
        problem.contains("restarted with it") && !said.contains("Nothing to do"),
        "{problem}"
    );
    assert_eq!((config().as_str(), restarts()), (before, 4));
    assert_eq!(image.node().record().unwrap().unwrap().restart, None);

    let (outcome, _) = image.install_and_restart("true", true, false);
    assert!(outcome.unwrap_err().contains("no answer"));
    assert_eq!(config(), before);
    let (outcome, _) = image.install_and_restart("true", true, true);
    outcome.unwrap();
    assert!(config().contains("reaper-v2"));
    assert_eq!(image.node().record().unwrap().unwrap().restart, None);
}

#[test]
fn an_uninstallation_whose_restart_fails_starts_containerd_the_next_time() {
    let image = Image::new("/etc/containerd/config.toml", Some("version = 2\n"));
    assert!(image.install("1", &Host));
    let call = |line: &str, runs| {
        let node = image.node();
        let mut facts = node.facts(None, &[]).unwrap();
        set_restart(&mut facts, line, runs);
        let plan = uninstall(&facts);
        carry_out_uninstall(&node, &facts, &plan, &|| Ok(()), &mut Vec::new())
    };
    let problem = call("exit 3", true).unwrap_err().to_string();
    assert!(problem.contains("call this again"), "{problem}");
    let facts = image.node().facts(None, &[]).unwrap();
    assert!(facts.is_restart_due());
    assert_eq!(
        facts.recorded_restart(),
        Some(&Restart::Command("exit 3".to_owned()))
    );
    call("true", false).unwrap();
    assert!(!image.node().facts(None, &[]).unwrap().is_restart_due());
    assert!(image.uninstall(&Host));
}

#[test]
fn a_pod_that_begins_before_the_restart_keeps_containerd_from_it() {
    let image = Image::new("/etc/containerd/config.toml", Some("version = 2\n"));
    let before = image.tree();
    assert!(image.install("1", &Host));
    let node = image.node();
    let mut facts = node.facts(None, &[]).unwrap();
    set_restart(&mut facts, "exit 3", true);
    let plan = uninstall(&facts);
    let refuse = || Err(crate::error::Error::Node("a pod runs".to_owned()));
    let problem = carry_out_uninstall(&node, &facts, &plan, &refuse, &mut Vec::new());
    assert_eq!(problem.unwrap_err().to_string(), "a pod runs");
    assert!(image.node().facts(None, &[]).unwrap().is_restart_due());
    let mut facts = image.node().facts(None, &[]).unwrap();
    set_restart(&mut facts, "true", true);
    let plan = uninstall(&facts);
    let node = image.node();
    carry_out_uninstall(&node, &facts, &plan, &|| Ok(()), &mut Vec::new()).unwrap();
    assert!(image.uninstall(&Host));
    assert_eq!(image.tree(), before);
}

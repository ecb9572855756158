//! What is there: of the node's files, and of its containerd.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use reaper_exec::procfs;

use super::{
    disk::Place,
    handlers::POD_OPTIONS,
    layout::{self, Found, KNOWN, Target},
    plan::{Facts, Program},
    record::{self, Record, backup_of, staged},
    texts::TextState,
};
use crate::{
    args::NodeTarget,
    commands::containerd::{self, Daemon, SHIM},
    error::{Error, Result},
    settings::absolute,
};

/// The runtime for the command line.
pub(super) const RUNTIME: &str = "reaper-runtime";
/// Where programs are put if containerd looks there, the best first.
const BIN_DIRS: [&str; 3] = ["/usr/local/bin", "/usr/local/sbin", "/opt/bin"];

/// A node to install to: where its files are, its containerd, and that one's configuration.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    /// `None` where nothing may be executed, or nothing is there.
    pub(super) daemon: Option<Daemon>,
    /// The file that containerd is started with.
    pub(super) config: PathBuf,
    pub(super) is_image: bool,
}

impl Node {
    pub(super) fn find(args: &NodeTarget) -> Result<Self> {
        let named = args.containerd_config.as_deref();
        let named = named
            .map(|path| absolute("--containerd-config", path))
            .transpose()?;
        if let Some(root) = &args.sysroot {
            let root = absolute("--sysroot", root)?;
            let place = Place::new(&root);
            if !place.file(Path::new("/etc")).is_ok_and(|etc| etc.is_dir()) {
                return Err(Error::Node(format!(
                    "{} has no etc: is it a root?",
                    root.display()
                )));
            }
            let own = record::folder();
            if place.real(own).map_err(Error::io("resolve /etc/reaper"))? != own {
                return Err(Error::Node(
                    "/etc/reaper is a symbolic link there".to_owned(),
                ));
            }
            return Ok(Self {
                config: match named {
                    Some(config) => config,
                    None => only_one(&place)?,
                },
                place,
                daemon: None,
                is_image: true,
            });
        }
        let place = Place::new(Path::new("/"));
        let mut daemon = daemon(named.as_deref())?;
        let config = match (named, &daemon) {
            (Some(config), _) => config,
            (None, Some(daemon)) if daemon.is_running() => daemon.config().to_owned(),
            _ => only_one(&place)?,
        };
        if !daemon.as_ref().is_some_and(Daemon::is_running) && config.is_file() {
            daemon = daemon.map(|daemon| daemon.with_config(&config));
        }
        Ok(Self {
            place,
            daemon,
            config,
            is_image: false,
        })
    }

    /// The file that gets the handlers.
    pub(super) fn target(&self) -> Result<Target> {
        let real = self.real(&self.config)?;
        let text = self.read(&real)?;
        let daemon = self.daemon.as_ref();
        // containerd looks for what it imports beside the path that it is started with, be that a link. Where a
        // distribution makes the configuration, its own name tells what belongs beside it.
        let is_generated = layout::is_generated(&real, text.as_deref());
        let found = Found {
            config: if is_generated { &real } else { &self.config },
            text: text.as_deref(),
            major: daemon
                .and_then(containerd::version_of)
                .map(|(major, _)| major),
            imports: &daemon.map(imports).unwrap_or_default(),
        };
        let mut target = layout::target(&found).map_err(Error::Node)?;
        target.path = self.lasting(&target.path)?;
        Ok(target)
    }

    /// What an installation to `target`, or without one an end of it, has to know.
    pub(super) fn facts(&self, target: Option<&Target>, programs: &[Program]) -> Result<Facts> {
        let record = self.record()?;
        let mut facts = Facts {
            daemon: self
                .daemon
                .as_ref()
                .and_then(|daemon| procfs::identify(daemon.pid()?).ok()),
            ..Facts::default()
        };
        let recorded = record.iter().flat_map(|record| &record.texts);
        let paths = recorded
            .map(|entry| entry.path.clone())
            .chain([POD_OPTIONS.into()])
            .chain(target.map(|target| target.path.clone()));
        for path in paths {
            let state = TextState {
                current: self.read(&path)?,
                backup: self.read(&backup_of(&path))?,
            };
            facts.texts.insert(path, state);
        }
        let recorded = record.iter().flat_map(|record| &record.programs).cloned();
        let written = [PathBuf::from(record::FILE)]
            .into_iter()
            .chain(
                facts
                    .texts
                    .keys()
                    .flat_map(|path| [path.clone(), backup_of(path)]),
            )
            .chain(recorded)
            .chain(programs.iter().map(|program| program.path.clone()));
        let mut litter: Vec<_> = written.map(|path| staged(&path)).collect();
        litter.retain(|path| self.place.has(path));
        litter.sort();
        litter.dedup();
        facts.litter = litter;
        facts.is_folder_left = self
            .place
            .entry(record::folder())
            .and_then(fs::read_dir)
            .is_ok_and(|mut entries| entries.next().is_none());
        if let Some(target) = target {
            let files = [record::FILE.as_ref(), target.path.as_path()];
            let files = files
                .into_iter()
                .chain(programs.iter().map(|it| it.path.as_path()));
            for file in files {
                self.missing_folders(file, &mut facts.missing_folders);
            }
        }
        facts.is_record_stale = match &record {
            Some(record) => self.is_stale(record)?,
            None => false,
        };
        facts.record = record;
        Ok(facts)
    }

    pub(super) fn record(&self) -> Result<Option<Record>> {
        let path = Path::new(record::FILE);
        let Some(text) = self.read(path)? else {
            return Ok(None);
        };
        let unreadable = |why: String| Error::Node(format!("{}: {why}", path.display()));
        let record: Record =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        if record.version > record::VERSION {
            return Err(unreadable(format!(
                "of version {}, and this program reads {}: use a newer one",
                record.version,
                record::VERSION
            )));
        }
        if let Some(path) = record.paths().find(|path| !is_plain(path)) {
            return Err(unreadable(format!(
                "{} is no path that an installation writes: it is not absolute, or has `..`",
                path.display()
            )));
        }
        Ok(Some(record))
    }

    fn is_stale(&self, record: &Record) -> Result<bool> {
        let path = Path::new(record::FILE);
        let found = self
            .place
            .entry(path)
            .and_then(fs::symlink_metadata)
            .map_err(Error::io(format!("look at {}", path.display())))?;
        let is_private = found.is_file() && found.mode() & 0o077 == 0;
        Ok(!is_private || self.read(path)?.as_deref() != Some(record.to_json().as_str()))
    }

    /// The programs to install, and where.
    pub(super) fn programs(
        &self,
        from: Option<&Path>,
        bin_dir: Option<&Path>,
    ) -> Result<Vec<Program>> {
        let own = env::current_exe().map_err(Error::io("find this program"))?;
        let from = match from {
            Some(from) => absolute("--from", from)?,
            None => own.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let to = match bin_dir {
            Some(dir) => absolute("--bin-dir", dir)?,
            None => self.bin_dir()?,
        };
        let to = self.real(&to)?;
        [SHIM, RUNTIME]
            .into_iter()
            .map(|name| {
                let (path, from) = (to.join(name), from.join(name));
                let new = fs::read(&from).map_err(Error::io(format!("read {}", from.display())))?;
                let is_same = self
                    .place
                    .file(&path)
                    .and_then(fs::read)
                    .is_ok_and(|there| there == new);
                Ok(Program {
                    is_there: self.place.has(&path),
                    path,
                    from,
                    is_same,
                })
            })
            .collect()
    }

    /// Where containerd looks for the shim.
    fn bin_dir(&self) -> Result<PathBuf> {
        if let Some(record) = self.record()?
            && let Some(dir) = record.programs.first().and_then(|path| path.parent())
        {
            return Ok(dir.to_owned());
        }
        let Some(daemon) = self.daemon.as_ref().filter(|daemon| daemon.is_running()) else {
            return Ok(BIN_DIRS[0].into());
        };
        let searched = daemon.search_path();
        let best = BIN_DIRS
            .iter()
            .map(PathBuf::from)
            .find(|dir| searched.contains(dir));
        let any = || searched.iter().find(|dir| dir.is_dir()).cloned();
        best.or_else(any).ok_or_else(|| {
            Error::Node(format!(
                "{daemon} has no directory in its PATH: set one for it, or name one by --bin-dir"
            ))
        })
    }

    fn missing_folders(&self, file: &Path, missing: &mut Vec<PathBuf>) {
        let mut folders: Vec<_> = file.ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders {
            if !self.place.has(folder) && !missing.iter().any(|it| it == folder) {
                missing.push(folder.to_owned());
            }
        }
    }

    /// `path` without symbolic links, but for the one that leads to the revision of a snap which is in use: a
    /// refresh copies what is in it to the next one.
    fn lasting(&self, path: &Path) -> Result<PathBuf> {
        let real = self.real(path)?;
        let current = Path::new(layout::SNAP_CURRENT);
        let revision = self.real(current)?;
        Ok(match real.strip_prefix(&revision) {
            Ok(below) if revision != current => current.join(below),
            _ => real,
        })
    }

    fn real(&self, path: &Path) -> Result<PathBuf> {
        let real = self.place.real(path);
        real.map_err(Error::io(format!("resolve {}", path.display())))
    }

    pub(super) fn read(&self, path: &Path) -> Result<Option<String>> {
        let text = self.place.read(path);
        text.map_err(Error::io(format!("read {}", path.display())))
    }
}

/// The containerd whose configuration is `config`, or the only one.
fn daemon(config: Option<&Path>) -> Result<Option<Daemon>> {
    let mut running = containerd::running();
    // docker's own serves no Kubernetes.
    running.retain(|daemon| !daemon.config().starts_with("/run/docker"));
    running.retain(|daemon| !daemon.config().starts_with("/var/run/docker"));
    if let Some(config) = config {
        running.retain(|daemon| is_same(daemon.config(), config));
        return Ok(running.pop().or_else(containerd::installed));
    }
    if running.len() > 1 {
        let all: Vec<_> = running
            .iter()
            .map(|it| it.config().display().to_string())
            .collect();
        return Err(Error::Node(format!(
            "more than one containerd runs: name one's configuration by --containerd-config, of {}",
            all.join(", ")
        )));
    }
    Ok(running.pop().or_else(containerd::installed))
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// The configuration that there is, where no containerd runs that could tell.
fn only_one(place: &Place) -> Result<PathBuf> {
    let there: Vec<_> = KNOWN
        .into_iter()
        .filter(|path| place.has(Path::new(path)))
        .collect();
    match there.as_slice() {
        [] => Ok(KNOWN[0].into()),
        [one] => Ok(one.into()),
        more => Err(Error::Node(format!(
            "there are configurations of several containerds: name one by --containerd-config, of {}",
            more.join(", ")
        ))),
    }
}

/// Whether it is absolute, and goes only down.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .all(|component| matches!(component, Component::RootDir | Component::Normal(_)))
}

/// What containerd says that it imports.
fn imports(daemon: &Daemon) -> Vec<String> {
    let dump = daemon.ask(&["config", "dump"]).unwrap_or_default();
    let dump: toml::Table = dump.parse().unwrap_or_default();
    let imports = dump.get("imports").and_then(toml::Value::as_array);
    let imports = imports.into_iter().flatten().filter_map(|it| it.as_str());
    imports.map(str::to_owned).collect()
}

/// Keeps other calls from changing the node at the same time, until it is dropped.
pub(super) fn lock(place: &Place) -> Result<fs::File> {
    let path = place
        .file(Path::new("/etc"))
        .map_err(Error::io("resolve /etc"))?;
    let locked = fs::File::open(&path).and_then(|folder| {
        rustix::fs::flock(
            &folder,
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        )?;
        Ok(folder)
    });
    locked.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            Error::Node("another call of `node` is changing this node: wait for its end".to_owned())
        }
        _ => Error::io(format!("lock {}", path.display()))(error),
    })
}

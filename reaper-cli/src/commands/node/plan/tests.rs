use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::prelude::*;

use super::*;
use crate::commands::node::{
    handlers::{self, POD_OPTIONS},
    layout::Form,
    record::staged,
    texts::TextState,
};

const CONFIG: &str = "/etc/containerd/config.toml";

/// A node's files, in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Model {
    files: BTreeMap<PathBuf, String>,
    folders: BTreeSet<PathBuf>,
}

impl Model {
    fn new(config: Option<&str>) -> Self {
        let mut model = Self::default();
        model.folders.insert("/etc".into());
        if let Some(config) = config {
            model.folders.insert("/etc/containerd".into());
            model.files.insert(CONFIG.into(), config.to_owned());
        }
        model
    }

    fn facts(&self, targets: &[&Path], programs: &[Program]) -> Facts {
        let read = |path: &Path| self.files.get(path).cloned();
        let record: Option<Record> =
            read(record::FILE.as_ref()).map(|text| serde_json::from_str(&text).unwrap());
        let mut facts = Facts {
            daemon: Some(daemon(7)),
            ..Facts::default()
        };
        let recorded = record
            .iter()
            .flat_map(|it| it.texts.iter().map(|entry| entry.path.as_path()));
        for path in recorded
            .chain(targets.iter().copied())
            .chain([POD_OPTIONS.as_ref()])
        {
            let state = TextState {
                current: read(path),
                backup: read(&backup_of(path)),
            };
            facts.texts.insert(path.to_owned(), state);
        }
        let files = targets.iter().copied().chain([record::FILE.as_ref()]);
        for file in files.chain(programs.iter().map(|it| it.path.as_path())) {
            let mut folders: Vec<_> = file.ancestors().skip(1).collect();
            folders.pop();
            for folder in folders.into_iter().rev() {
                let missing = &mut facts.missing_folders;
                if !self.folders.contains(folder) && !missing.contains(&folder.to_owned()) {
                    missing.push(folder.to_owned());
                }
            }
        }
        facts.record = record;
        let own = Path::new("/etc/reaper");
        let is_used = self.files.keys().any(|path| path.starts_with(own));
        facts.is_folder_left = self.folders.contains(own) && !is_used;
        facts
    }

    fn apply(&mut self, step: &Step) {
        let parent = |path: &Path| path.parent().unwrap().to_owned();
        match step {
            Step::MakeFolder(path) => drop(self.folders.insert(path.clone())),
            Step::Write { path, text, .. } => {
                assert!(
                    self.folders.contains(&parent(path)),
                    "{path:?} has no folder"
                );
                self.files.insert(path.clone(), text.clone());
            }
            Step::Program { path, from } => {
                assert!(
                    self.folders.contains(&parent(path)),
                    "{path:?} has no folder"
                );
                self.files.insert(path.clone(), from.display().to_string());
            }
            Step::Remove(path) => drop(self.files.remove(path)),
            Step::RemoveFolder(path) => {
                let is_used = self
                    .files
                    .keys()
                    .chain(&self.folders)
                    .any(|it| it.parent() == Some(path));
                if !is_used {
                    self.folders.remove(path);
                }
            }
        }
    }

    /// Does the first steps of an installation of `release` to `target`; all, if there are fewer.
    fn install(&mut self, target: &Target, release: &str, count: usize) -> usize {
        let mut programs = Vec::new();
        for name in ["containerd-shim-reaper-v2", "reaper-runtime"] {
            let path = Path::new("/usr/local/bin").join(name);
            let from = Path::new("/new").join(release).join(name);
            programs.push(Program {
                is_there: self.files.contains_key(&path),
                is_same: self.files.get(&path) == Some(&from.display().to_string()),
                path,
                from,
            });
        }
        let facts = self.facts(&[&target.path], &programs);
        let plan = install(&facts, release, target, &programs).unwrap();
        plan.steps
            .iter()
            .take(count)
            .for_each(|step| self.apply(step));
        plan.steps.len()
    }

    fn uninstall(&mut self, count: usize) -> usize {
        let plan = uninstall(&self.facts(&[], &[]));
        let steps = plan.steps.iter().chain(&plan.afterwards);
        steps.clone().take(count).for_each(|step| self.apply(step));
        steps.count()
    }
}

fn daemon(pid: u32) -> ProcessIdentity {
    ProcessIdentity {
        pid,
        start_time: 1,
        boot_id: "boot".to_owned(),
    }
}

fn target(form: Form) -> Target {
    let path = match form {
        Form::DropIn => "/etc/containerd/conf.d/reaper-v2.toml",
        Form::Template => "/etc/containerd/config.toml.tmpl",
        _ => CONFIG,
    };
    Target {
        path: path.into(),
        form,
        version: 2,
        replaces_runc: false,
    }
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Main), Just(Form::DropIn), Just(Form::Template)]
}

fn config() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![
        Just("version = 2".to_owned()),
        Just("version = 2\n\n\n".to_owned()),
        Just("# mine\n".to_owned()),
        Just(String::new()),
        (0..2_usize).prop_map(|class| format!("version = 2\n{}", by_hand(class))),
        Just(format!("version = 2\n{}{}", by_hand(0), by_hand(1))),
        "[a-z]{1,5}".prop_map(|key| format!("version = 2\nkey_{key} = 1 # one\n[table]\nx = 1\n")),
    ])
}

/// A handler that an administrator wrote.
fn by_hand(class: usize) -> String {
    let class = handlers::CLASSES[class];
    format!(
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{class}]\n\
         runtime_type = \"io.containerd.reaper.v2\"\nmine = 1\n"
    )
}

const ALL: usize = usize::MAX;

proptest! {
    #[test]
    fn an_interrupted_call_is_finished_by_the_next(
        config in config(), form in form(), at in 0..20_usize, again in 0..20_usize,
    ) {
        let before = Model::new(config.as_deref());
        let target = target(form);
        let mut installed = before.clone();
        installed.install(&target, "1", ALL);
        prop_assert_eq!(installed.clone().install(&target, "1", ALL), 0, "idempotent");

        let mut model = before.clone();
        model.install(&target, "1", at);
        model.install(&target, "1", again);
        model.install(&target, "1", ALL);
        prop_assert_eq!(&model, &installed);

        let mut upgraded = installed.clone();
        upgraded.install(&target, "2", ALL);
        model.install(&target, "2", at);
        model.install(&target, "2", ALL);
        prop_assert_eq!(&model, &upgraded);

        model.uninstall(at);
        model.uninstall(again);
        model.uninstall(ALL);
        prop_assert_eq!(&model, &before);

        // And at any point of an installation all is undone as well.
        model.install(&target, "1", at);
        model.uninstall(ALL);
        prop_assert_eq!(&model.files, &before.files);
    }

    #[test]
    fn what_an_administrator_adds_meanwhile_stays(config in config(), at in 0..20_usize) {
        let target = target(Form::Main);
        let mut model = Model::new(config.as_deref());
        model.install(&target, "1", ALL);
        let text = model.files.get_mut(Path::new(CONFIG)).unwrap();
        text.push_str("[mine]\nx = 2\n");
        model.install(&target, "2", at);
        model.install(&target, "2", ALL);
        prop_assert!(model.files[Path::new(CONFIG)].contains("runtimes.reaper-v2-pod]"));
        model.uninstall(at);
        model.uninstall(ALL);
        let text = &model.files[Path::new(CONFIG)];
        let first = config.unwrap_or_default();
        let names = |text: &str| text.matches("reaper").count();
        prop_assert!(text.ends_with("[mine]\nx = 2\n") && names(text) == names(&first), "{text}");
        prop_assert!(text.starts_with(first.trim_end()), "{text}");
        prop_assert_eq!(model.files.len(), 1);
    }

    #[test]
    fn a_handler_that_an_administrator_writes_stays(
        form in prop_oneof![Just(Form::Main), Just(Form::DropIn)],
        at in 0..20_usize, class in 0..2_usize, again in 0..20_usize,
    ) {
        let target = target(form);
        let mut model = Model::new(Some("version = 2\n"));
        model.install(&target, "1", at);
        let wrote = match model.files.get(&target.path) {
            Some(text) if handlers::has_block(text) => return Ok(()),
            found => format!("{}{}", found.map_or("version = 2\n", String::as_str), by_hand(class)),
        };
        model.folders.insert(target.path.parent().unwrap().into());
        model.files.insert(target.path.clone(), wrote.clone());
        let mut other = model.clone();
        other.uninstall(ALL);
        prop_assert_eq!(&other.files[&target.path], &wrote);
        model.install(&target, "1", again);
        model.install(&target, "1", ALL);
        prop_assert!(model.files[&target.path].starts_with(&wrote));
        prop_assert_eq!(model.files[&target.path].matches("mine = 1").count(), 1);
        // As after `containerd config migrate`, which drops comments.
        let text = model.files.get_mut(&target.path).unwrap();
        *text = text.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |all, line| all + line + "\n");
        model.uninstall(ALL);
        prop_assert_eq!(model.files[&target.path].trim_end(), wrote.trim_end());
    }

    #[test]
    fn handlers_move_to_another_file_with_the_distribution(at in 0..20_usize) {
        let before = Model::new(Some("version = 2\n"));
        let mut model = before.clone();
        model.install(&target(Form::Main), "1", ALL);
        model.install(&target(Form::DropIn), "1", at);
        model.install(&target(Form::DropIn), "1", ALL);
        prop_assert_eq!(model.files[Path::new(CONFIG)].as_str(), "version = 2\n");
        prop_assert!(!model.files.contains_key(&backup_of(Path::new(CONFIG))));
        prop_assert_eq!(model.install(&target(Form::DropIn), "1", ALL), 0);
        model.uninstall(ALL);
        prop_assert_eq!(&model.files, &before.files);
    }
}

#[test]
fn the_containerd_that_does_not_know_is_named_until_it_is_another() {
    let mut model = Model::new(Some("version = 2\n"));
    let target = target(Form::Main);
    model.install(&target, "1", ALL);
    let mut facts = model.facts(&[], &[]);
    assert!(facts.is_unaware());
    facts.daemon = Some(daemon(8));
    assert!(!facts.is_unaware());
    // An upgrade of the programs tells it nothing.
    facts = model.facts(&[&target.path], &[]);
    let record = facts.record.as_mut().unwrap();
    record.unaware = None;
    // Where the shim is found is known until the restart, so one that moves is another matter.
    record.programs.clear();
    assert!(!install(&facts, "2", &target, &[]).unwrap().tells_containerd);
    assert!(uninstall(&facts).tells_containerd);
}

#[test]
fn what_an_interrupted_step_left_is_removed_without_a_record_too() {
    let litter = staged(Path::new(record::FILE));
    let facts = Facts {
        litter: vec![litter.clone()],
        ..Facts::default()
    };
    let plan = uninstall(&facts);
    assert_eq!(plan.steps, [Step::Remove(litter)]);
    assert_eq!(plan.afterwards, [Step::RemoveFolder("/etc/reaper".into())]);
}

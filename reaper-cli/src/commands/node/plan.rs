//! What is to be done, from what is there: no call of the system is made here.
//!
//! A plan can be interrupted after each step and within each. The next plan is made from what is there then,
//! and ends with the same files. So the record is first, which says what was there before, and a backup is
//! written before the file that it is of.

use std::path::PathBuf;

use reaper_spec::ProcessIdentity;

use super::{
    layout::Target,
    record::{self, Record, Restart, backup_of},
    step::{Over, PRIVATE, Step},
    texts::{TextChanges, TextStates, state_of, undo},
};

/// A program to install.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) from: PathBuf,
    /// Whether it is there already.
    pub(super) is_same: bool,
    /// Whether there is one, whatever it is.
    pub(super) is_there: bool,
}

/// What a plan is made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) record: Option<Record>,
    /// Whether the record's file has another form or mode than this program gives it.
    pub(super) is_record_stale: bool,
    /// Of every file that is in the record, and of those that an installation writes.
    pub(super) texts: TextStates,
    /// What an interrupted step left.
    pub(super) litter: Vec<PathBuf>,
    /// Whether the record's directory is there with nothing in it, as the last step of an uninstallation finds it.
    pub(super) is_folder_left: bool,
    /// The directories that an installation needs and that are not there, each before what is in it.
    pub(super) missing_folders: Vec<PathBuf>,
    /// The containerd that runs.
    pub(super) daemon: Option<ProcessIdentity>,
    /// What is going to restart it.
    pub(super) restart: Option<Restart>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Whether containerd has to read its configuration again.
    pub(super) tells_containerd: bool,
    /// What is done after containerd knows of the steps before.
    pub(super) afterwards: Vec<Step>,
}

impl Facts {
    /// Whether the containerd that runs does not know of the last change.
    pub(super) fn is_unaware(&self) -> bool {
        let unaware = self
            .record
            .as_ref()
            .and_then(|record| record.unaware.as_ref());
        unaware.is_some() && unaware == self.daemon.as_ref()
    }

    /// Whether containerd has to be restarted, or started, although nothing else is to be done.
    pub(super) fn is_restart_due(&self) -> bool {
        self.is_unaware() || (self.daemon.is_none() && self.recorded_restart().is_some())
    }

    pub(super) fn recorded_restart(&self) -> Option<&Restart> {
        self.record.as_ref()?.restart.as_ref()
    }

    /// Has the record say what restarts containerd.
    fn note_restart(&self, record: &mut Record) {
        record.unaware.clone_from(&self.daemon);
        if self.restart != Some(Restart::Not) {
            record.restart.clone_from(&self.restart);
        }
    }

    fn sweep(&self) -> Vec<Step> {
        self.litter.iter().cloned().map(Step::Remove).collect()
    }
}

/// How `release` gets installed.
pub(super) fn install(
    facts: &Facts,
    release: &str,
    target: &Target,
    programs: &[Program],
) -> Result<Plan, String> {
    let old = facts.record.clone().unwrap_or_else(Record::empty);
    let mut texts = TextChanges::plan(&facts.texts, &old, target)?;
    let new = Record {
        version: record::VERSION,
        release: release.to_owned(),
        programs: programs.iter().map(|it| it.path.clone()).collect(),
        found: found(&old, programs),
        folders: union(old.folders.clone(), &facts.missing_folders),
        unaware: old.unaware.clone(),
        restart: old.restart.clone(),
        texts: std::mem::take(&mut texts.records),
    };
    // Where another file gets the handlers now, the one before is as it was.
    let (mut others, mut moved) = (old.texts.clone(), old.programs.clone());
    others.retain(|entry| new.text(&entry.path).is_none());
    moved.retain(|path| !new.programs.contains(path));
    let undone: Vec<_> = others
        .iter()
        .flat_map(|entry| undo(entry, &state_of(&facts.texts, &entry.path)))
        .chain(removed(&moved, &old.found))
        .collect();
    let tells_containerd = texts.tells_containerd || !undone.is_empty();
    let mut first = new.clone();
    first.texts.extend(others);
    first.found.extend(
        moved
            .iter()
            .filter(|path| old.found.contains(path))
            .cloned(),
    );
    first.programs.extend(moved);
    if tells_containerd {
        facts.note_restart(&mut first);
    }
    let mut last = Record {
        unaware: first.unaware.clone(),
        restart: first.restart.clone(),
        ..new
    };
    last.texts
        .iter_mut()
        .for_each(|entry| entry.is_written = true);
    let mut steps = facts.sweep();
    // The record's own directory is not in the record, and goes with it.
    let (own, others): (Vec<_>, Vec<_>) = facts
        .missing_folders
        .iter()
        .cloned()
        .partition(|path| path == record::folder());
    steps.extend(own.into_iter().map(Step::MakeFolder));
    let there = facts.record.as_ref().filter(|_| !facts.is_record_stale);
    steps.extend(first.written_over(there));
    steps.extend(others.into_iter().map(Step::MakeFolder));
    let changed = programs.iter().filter(|program| !program.is_same);
    steps.extend(changed.map(|program| Step::Program {
        path: program.path.clone(),
        from: program.from.clone(),
    }));
    steps.extend(texts.steps);
    steps.extend(undone);
    steps.extend(last.written_over(Some(&first)));
    Ok(Plan {
        steps,
        tells_containerd,
        afterwards: Vec::new(),
    })
}

/// How an installation gets undone.
pub(super) fn uninstall(facts: &Facts) -> Plan {
    let own = record::folder();
    let mut steps = facts.sweep();
    let mut afterwards = Vec::new();
    let mut tells_containerd = false;
    if let Some(record) = &facts.record {
        let undone: Vec<_> = record
            .texts
            .iter()
            .flat_map(|entry| undo(entry, &state_of(&facts.texts, &entry.path)))
            .collect();
        let mut first = record.clone();
        tells_containerd = !undone.is_empty();
        if tells_containerd {
            facts.note_restart(&mut first);
        }
        steps.extend(first.written_over(Some(record)));
        steps.extend(undone);
        afterwards.extend(removed(&record.programs, &record.found));
        let made = record
            .folders
            .iter()
            .rev()
            .filter(|path| path.as_path() != own);
        afterwards.extend(made.cloned().map(Step::RemoveFolder));
        afterwards.push(Step::Remove(record::FILE.into()));
    }
    if facts.record.is_some() || !facts.litter.is_empty() || facts.is_folder_left {
        afterwards.push(Step::RemoveFolder(own.to_owned()));
    }
    Plan {
        steps,
        tells_containerd,
        afterwards,
    }
}

/// How the texts get as they were before the plan that was made from `facts`. Programs stay, as containerd
/// runs without them. `there` is the record that the plan left.
pub(super) fn roll_back(facts: &Facts, there: &Record) -> Vec<Step> {
    let mut steps = Vec::new();
    for (path, state) in &facts.texts {
        for (file, text) in [
            (path.clone(), &state.current),
            (backup_of(path), &state.backup),
        ] {
            steps.push(match text {
                Some(text) => Step::Write {
                    path: file,
                    text: text.clone(),
                    like: Some(path.clone()),
                    mode: PRIVATE,
                    over: Over::Anything,
                },
                None => Step::Remove(file),
            });
        }
    }
    let before = facts.record.as_ref();
    let record = Record {
        texts: before.map_or_else(Vec::new, |record| record.texts.clone()),
        ..there.clone()
    };
    steps.extend(record.written_over(Some(there)));
    steps
}

/// What the record says after containerd was restarted.
pub(super) fn restarted(there: &Record) -> Option<Step> {
    let record = Record {
        unaware: None,
        restart: None,
        ..there.clone()
    };
    record.written_over(Some(there))
}

/// The programs that were there before the first installation to them.
fn found(old: &Record, programs: &[Program]) -> Vec<PathBuf> {
    let is_found = |program: &&Program| match old.programs.contains(&program.path) {
        true => old.found.contains(&program.path),
        false => program.is_there,
    };
    let found = programs.iter().filter(is_found);
    found.map(|program| program.path.clone()).collect()
}

fn removed<'a>(programs: &'a [PathBuf], found: &'a [PathBuf]) -> impl Iterator<Item = Step> + 'a {
    let made = programs.iter().filter(|path| !found.contains(path));
    made.cloned().map(Step::Remove)
}

fn union(mut folders: Vec<PathBuf>, more: &[PathBuf]) -> Vec<PathBuf> {
    for folder in more {
        if !folders.contains(folder) && folder != record::folder() {
            folders.push(folder.clone());
        }
    }
    folders
}

impl Record {
    fn empty() -> Self {
        Self {
            version: record::VERSION,
            release: String::new(),
            texts: Vec::new(),
            programs: Vec::new(),
            found: Vec::new(),
            folders: Vec::new(),
            unaware: None,
            restart: None,
        }
    }

    /// The step that writes it, unless it is there.
    fn written_over(&self, there: Option<&Self>) -> Option<Step> {
        if there == Some(self) {
            return None;
        }
        Some(Step::Write {
            path: record::FILE.into(),
            text: self.to_json(),
            like: None,
            mode: PRIVATE,
            over: Over::Anything,
        })
    }
}

#[cfg(test)]
mod tests;

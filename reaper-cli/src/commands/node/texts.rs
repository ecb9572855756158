//! The text files that an installation adds to: containerd's configuration and the options of the handlers.
//!
//! An administrator may have written to a file before the first installation, between two, and since. So what
//! was in it before is taken from its backup only where nothing else has come to it since; otherwise what was
//! added is taken out again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    handlers::{self, POD_OPTIONS, POD_OPTIONS_TEXT},
    layout::{Form, Target},
    record::{Digest, Record, TextRecord, backup_of},
    step::{Over, PRIVATE, PUBLIC, Step},
};

/// A text file and its backup, as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TextState {
    pub(super) current: Option<String>,
    pub(super) backup: Option<String>,
}

/// The text files of a node by their paths.
pub(super) type TextStates = BTreeMap<PathBuf, TextState>;

/// The file `path`, which is missing if nothing is known of it.
pub(super) fn state_of(states: &TextStates, path: &Path) -> TextState {
    states.get(path).cloned().unwrap_or_default()
}

/// What is done to text files, and what the record says of them.
#[derive(Default)]
pub(super) struct TextChanges {
    pub(super) steps: Vec<Step>,
    pub(super) records: Vec<TextRecord>,
    /// Whether containerd reads what is changed.
    pub(super) tells_containerd: bool,
}

impl TextChanges {
    pub(super) fn plan(states: &TextStates, old: &Record, target: &Target) -> Result<Self, String> {
        let options = Target {
            path: POD_OPTIONS.into(),
            form: Form::Own,
            version: 0,
            replaces_runc: false,
        };
        let mut texts = Self::default();
        for wanted in [&options, target] {
            let state = state_of(states, &wanted.path);
            let entry = old.text(&wanted.path);
            let original = original(entry, &state, wanted);
            let (after, added) = match wanted.form {
                Form::Own => (POD_OPTIONS_TEXT.to_owned(), Vec::new()),
                _ => (
                    handlers::with_handlers(original.as_deref(), wanted)?,
                    handlers::missing(original.as_deref().unwrap_or_default(), wanted)?,
                ),
            };
            if original.as_ref() == Some(&after) && entry.is_none() {
                continue;
            }
            let backup = backed_up(&wanted.path, &state, original.as_deref());
            texts.steps.extend(backup);
            if state.current.as_ref() != Some(&after) {
                texts.tells_containerd |= wanted.form != Form::Own;
                texts
                    .steps
                    .push(write(&wanted.path, after.clone(), state.current.clone()));
            }
            let is_there = state.current.as_ref() == Some(&after);
            texts.records.push(TextRecord {
                path: wanted.path.clone(),
                form: wanted.form,
                format: wanted.version,
                existed: original.is_some(),
                after: Digest::of(&after),
                added: added.into_iter().map(str::to_owned).collect(),
                is_written: is_there || entry.is_some_and(|entry| entry.is_written),
            });
        }
        Ok(texts)
    }
}

/// What gives a file back what was in it before.
pub(super) fn undo(entry: &TextRecord, state: &TextState) -> Vec<Step> {
    let target = Target {
        path: entry.path.clone(),
        form: entry.form,
        version: entry.format,
        replaces_runc: false,
    };
    let mut steps = Vec::new();
    match original(Some(entry), state, &target) {
        Some(original) if state.current.as_ref() != Some(&original) => {
            steps.push(write(&entry.path, original, state.current.clone()));
        }
        None if state.current.is_some() => steps.push(Step::Remove(entry.path.clone())),
        _ => {}
    }
    if state.backup.is_some() {
        steps.push(Step::Remove(backup_of(&entry.path)));
    }
    steps
}

/// What was in a file before an installation added to it, without what it added.
fn original(entry: Option<&TextRecord>, state: &TextState, target: &Target) -> Option<String> {
    let current = state.current.as_ref()?;
    let Some(entry) = entry else {
        return Some(match target.form {
            Form::Own => current.clone(),
            _ => handlers::without_handlers_block(current),
        });
    };
    // What was written is there as a whole or not at all, so this is what an administrator wrote.
    if !entry.is_written && !entry.after.is_of(current) && !handlers::has_block(current) {
        return Some(current.clone());
    }
    if entry.form == Form::Own {
        let found = || (!entry.after.is_of(current)).then(|| current.clone());
        return match entry.existed {
            true => state.backup.clone().or_else(found),
            false => None,
        };
    }
    let rest = handlers::without_handlers(current, target, &entry.added);
    match &state.backup {
        // Byte for byte, where only the handlers came to it.
        Some(backup)
            if entry.existed
                && (entry.after.is_of(current) || rest.trim_end() == backup.trim_end()) =>
        {
            Some(backup.clone())
        }
        _ if !entry.existed && rest == handlers::base(target) => None,
        _ => Some(rest),
    }
}

fn backed_up(path: &Path, state: &TextState, original: Option<&str>) -> Option<Step> {
    match (original, &state.backup) {
        (Some(original), backup) if backup.as_deref() != Some(original) => Some(Step::Write {
            path: backup_of(path),
            text: original.to_owned(),
            like: Some(path.to_owned()),
            mode: PRIVATE,
            over: Over::Anything,
        }),
        (None, Some(_)) => Some(Step::Remove(backup_of(path))),
        _ => None,
    }
}

fn write(path: &Path, text: String, over: Option<String>) -> Step {
    Step::Write {
        path: path.to_owned(),
        text,
        like: Some(path.to_owned()),
        mode: PUBLIC,
        over: Over::Only(over),
    }
}

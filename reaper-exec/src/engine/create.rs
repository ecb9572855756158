//! Creating a container.
//!
//! The record is stored first, which reserves the id for all programs. When a later step fails, the
//! earlier ones are undone, so a failed create leaves neither a container nor a record.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _};

use reaper_overlay::{Scope, ViewRequest};
use reaper_spec::{ContainerId, ContainerLimit};
use reaper_state::{ContainerDir, Record, StateRoot, StateStore, durable};

use super::{
    base::Engine,
    error::{Error, Result},
    limit::note_counted,
    metrics::{Counting, Operation},
    record,
    stored::{ENGINE_PREFIX, unmark_deletion},
};
use crate::{
    executor::{ContainerConfig, CreateRequest, Executor, Target},
    procfs,
};

/// The annotation that [`Engine::create`] adds to the record of a container that runs over an
/// overlay: the name of its [`Scope`](reaper_overlay::Scope).
pub const SCOPE_ANNOTATION: &str = "reaper.overlay/scope";

impl<E: Executor, S: StateStore + ?Sized + 'static> Engine<E, S> {
    /// Reserves the id and creates the container, whose process waits for its start. Beside the
    /// record it returns the warnings of [`CreatedProcess`](crate::CreatedProcess); what was
    /// refused is logged as a warning.
    ///
    /// # Errors
    /// [`reaper_state::Error::AlreadyExists`], [`Error::DeletedMeanwhile`], and the errors of
    /// [`Executor::create`]; nothing is left behind then, unless another call that deletes the container is
    /// still at work.
    pub async fn create(&self, new: ContainerConfig) -> Result<(Record, Vec<String>)> {
        self.create_within(new, &[]).await
    }

    /// The same, unless there are already as many containers below the state root as `limits` allow. Those
    /// count that have not stopped, but for the sandboxes of pods: see [`ContainerConfig::is_sandbox`].
    ///
    /// # Errors
    /// As [`create`](Self::create); [`Error::Policy`] with the smallest limit, if there are as many.
    pub async fn create_within(
        &self,
        new: ContainerConfig,
        limits: &[ContainerLimit],
    ) -> Result<(Record, Vec<String>)> {
        let counting = Counting::begin(&self.root, Operation::Create);
        counting.end(self.create_uncounted(new, limits).await)
    }

    async fn create_uncounted(
        &self,
        mut new: ContainerConfig,
        limits: &[ContainerLimit],
    ) -> Result<(Record, Vec<String>)> {
        let mut record = Record::new(new.id.clone(), new.bundle.clone());
        record.annotations = new.annotations.clone();
        // What an engine says of a container is not for bundles to say.
        let annotations = &mut record.annotations;
        annotations.retain(|key, _| !key.starts_with(ENGINE_PREFIX));
        record.annotations.append(&mut new.notes);
        if !new.is_sandbox {
            note_counted(&mut record);
        }
        new.view = new.view.with_state_root(self.root.path());
        record_scope(&new.view, &mut record);
        // A record in state `creating` names its creator, so that a reader can tell a create that
        // is under way from one that died.
        record.monitor = procfs::identify(std::process::id()).ok();
        let taken = record.created;
        self.reserve(record, limits).await?;
        let id = new.id.clone();
        let dir = self.root.container(&id);
        if let Err(error) = make_folder(&self.root, &dir) {
            self.forget(&id).await?;
            return Err(error);
        }
        let request = CreateRequest {
            dir,
            container: new,
        };
        let created = match self.executor.create(request).await {
            Ok(created) => created,
            Err(error) => {
                // What deletes it takes its record away, and the id may be another's by now.
                if self.is_deleted(&id, taken).await {
                    let source = Some(error);
                    return Err(Error::DeletedMeanwhile { id, source });
                }
                self.forget(&id).await?;
                // The executor may keep its own files there, if it could not clean up.
                let _ = std::fs::remove_dir(self.root.container(&id).path());
                return Err(error.into());
            }
        };
        for refused in &created.refused {
            tracing::warn!("container {id}: {refused}");
        }
        let warnings = created.warnings.clone();
        let made = move |record: &mut Record| {
            record::created(record, &created);
            unmark_deletion(record);
        };
        match self.change(&id, made).await {
            Ok(record) => Ok((record, warnings)),
            Err(error) => {
                self.destroy(&id).await?;
                if let Error::Store(reaper_state::Error::NotFound { .. }) = error {
                    return Err(Error::DeletedMeanwhile { id, source: None });
                }
                // The store has just failed; if it fails again a deletion by force is needed.
                let _ = self.forget(&id).await;
                Err(error)
            }
        }
    }

    /// Undoes a creation.
    async fn destroy(&self, id: &ContainerId) -> Result<()> {
        self.end(id).await?;
        self.executor.delete(&Target::Init(id.clone())).await?;
        Ok(())
    }
}

/// Records which overlay a container is in, so that what it wrote can be found by its id.
fn record_scope(view: &ViewRequest, record: &mut Record) {
    if !view.overlay.enabled {
        return;
    }
    // A name that cannot be a scope's is refused by the view itself.
    if let Ok(scope) = Scope::of(view) {
        let scope = scope.to_string();
        record
            .annotations
            .insert(SCOPE_ANNOTATION.to_owned(), scope);
    }
}

fn make_folder(root: &StateRoot, dir: &ContainerDir) -> Result<()> {
    let failed = |path: &std::path::Path, source| Error::Folder {
        operation: "make the folder",
        path: path.to_owned(),
        source,
    };
    let make = || match DirBuilder::new().mode(0o700).create(dir.path()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    match make() {
        // A store that keeps nothing below the root does not make it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable::create_dir_all(root.path()).map_err(|source| failed(root.path(), source))?;
            make().map_err(|source| failed(dir.path(), source))
        }
        made => made.map_err(|source| failed(dir.path(), source)),
    }
}

//! The view of one container of an ordinary user.

use std::{io, path::PathBuf};

use reaper_spec::ImageMode;

use crate::{
    contract::{Context, Error, Scope, View, ViewRequest},
    linux::namespace::{self, Ids, Namespaces, change_near, make_and_change_to},
    scope::{
        join_as_user::Member,
        mount_points::{self, Owner},
    },
    store::base::Base,
    volume::opened::{IMAGE_ROOT, Volume},
};

/// What the monitor holds of a view.
pub(crate) struct UserView {
    base: Base,
    scope: Scope,
    id: String,
    cwd: PathBuf,
    /// What the user is called in the container.
    inside: Ids,
    volumes: Vec<Volume>,
    had_volumes: bool,
    image_at: bool,
    member: Option<Member>,
    warnings: Vec<String>,
    /// The container's own, once its first process is in them.
    namespaces: Option<Namespaces>,
    remove_with_last: bool,
}

impl UserView {
    pub(crate) fn new(
        base: Base,
        scope: Scope,
        request: &ViewRequest,
        mut member: Member,
        volumes: Vec<Volume>,
        remove_with_last: bool,
    ) -> Self {
        Self {
            base,
            scope,
            id: request.unique_id(),
            cwd: request.cwd.clone(),
            inside: request.user.unwrap_or_else(namespace::own),
            had_volumes: !volumes.is_empty(),
            volumes,
            image_at: request.image == ImageMode::At,
            warnings: std::mem::take(&mut member.warnings),
            member: Some(member),
            namespaces: None,
            remove_with_last,
        }
    }
}

impl View for UserView {
    fn enter(&self, first: bool) -> Result<(), Error> {
        match (&self.namespaces, &self.member) {
            (Some(namespaces), _) if !first => {
                namespaces.enter()?;
                change_near(&self.cwd)
            }
            (None, Some(member)) if first => {
                member.namespaces.enter()?;
                // Of its own: the mounts of the scope are locked for it, whoever it is inside.
                namespace::unshare_as(self.inside)?;
                self.volumes
                    .iter()
                    .try_for_each(|volume| volume.mount(None))?;
                make_and_change_to(&self.cwd)
            }
            _ => {
                let released = io::Error::from(io::ErrorKind::InvalidInput);
                Err(released).context("enter the view of", &self.id)
            }
        }
    }

    fn entered(&mut self, pid: u32) -> Result<(), Error> {
        self.namespaces = Some(Namespaces::of(pid)?);
        // The container's namespace has them now; copies would keep devices busy.
        self.volumes.clear();
        Ok(())
    }

    fn environment(&self) -> Vec<String> {
        let image = self
            .image_at
            .then(|| format!("REAPER_IMAGE_ROOT={IMAGE_ROOT}"));
        image.into_iter().collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn release(&mut self) -> Result<(), Error> {
        // First the mounts, then what they were mounted on.
        self.namespaces = None;
        self.volumes.clear();
        if self.had_volumes {
            mount_points::release(&self.base, Owner::Scope(&self.scope), &self.id)?;
            self.had_volumes = false;
        }
        // Nothing else of the member is left when the scope may go.
        let Some(Member { membership, .. }) = self.member.take() else {
            return Ok(());
        };
        membership.end(&self.base, &self.scope, self.remove_with_last)
    }
}

//! The view of one container of an ordinary user.

use std::{io, path::PathBuf};

use super::{
    identity::{self, Ids, Namespaces},
    member::Member,
};
use crate::{
    Error, Scope, View, ViewRequest,
    base::Base,
    error::Context,
    shared_view::{change_near, make_and_change_to},
};

/// What the monitor holds of a view.
pub(crate) struct UserView {
    base: Base,
    scope: Scope,
    id: String,
    cwd: PathBuf,
    /// What the user is called in the container.
    inside: Ids,
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
        remove_with_last: bool,
    ) -> Self {
        Self {
            base,
            scope,
            id: request.id.as_str().to_owned(),
            cwd: request.cwd.clone(),
            inside: request.user.unwrap_or_else(identity::own),
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
                identity::unshare_as(self.inside)?;
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
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn release(&mut self) -> Result<(), Error> {
        self.namespaces = None;
        // Nothing else of the member is left when the scope may go.
        let Some(Member { membership, .. }) = self.member.take() else {
            return Ok(());
        };
        membership.end(&self.base, &self.scope, self.remove_with_last)
    }
}

//! Whether a container or a process keeps the rules.

use std::path::Path;

use glob::{MatchOptions, Pattern};

use super::{
    mounts::plain,
    rules::{PolicyConfig, PolicyRules, PolicySource},
    values::{IdRange, Privileges},
};
use crate::{
    annotations::CriAnnotations,
    container_spec::{ContainerSpec, FileRestrictions},
    error::Error,
    overlay_scope::OverlayScope,
    process::{Capabilities, ProcessSpec, SecurityLabels},
};

/// A star does not reach into another directory.
const PATHS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

const ADMIN: &str = "CAP_SYS_ADMIN";

impl PolicyConfig {
    /// Checks a container against all rules, and changes it to what [`privileges`](Self::privileges) says.
    /// Returns what of the spec is not applied, in words for a log. `scope` is the overlay's, if it has
    /// one.
    ///
    /// # Errors
    /// [`Error::Policy`] with the first rule that it does not keep. Nothing was changed then.
    pub fn apply_to_container(
        &self,
        container: &mut ContainerSpec,
        scope: Option<&OverlayScope>,
    ) -> Result<Option<String>, Error> {
        for rules in &self.rules {
            rules.check_container(container, scope)?;
        }
        for allowed in self.allowed_mounts() {
            container
                .mounts
                .iter()
                .try_for_each(|mount| allowed.check(mount))?;
        }
        if self.privileges == Privileges::Spec {
            return Ok(None);
        }
        let process = lift(&mut container.process);
        let seccomp = container.seccomp.take().map(|_| "the seccomp filter");
        let lifted = FileRestrictions {
            lifted: true,
            ..FileRestrictions::default()
        };
        let asked = std::mem::replace(&mut container.restrictions, lifted);
        let files =
            (asked != FileRestrictions::default()).then_some("the read-only and masked files");
        let ignored: Vec<_> = [process, seccomp, files].into_iter().flatten().collect();
        Ok((!ignored.is_empty()).then(|| {
            let ignored = ignored.join(" and ");
            format!("{ignored} of the spec are not applied: policy.privileges is \"node\"")
        }))
    }

    /// Checks a process that is added to a container, and changes it to what
    /// [`privileges`](Self::privileges) says.
    ///
    /// # Errors
    /// [`Error::Policy`] with the first rule that it does not keep. Nothing was changed then.
    pub fn apply_to_exec(&self, process: &mut ProcessSpec) -> Result<(), Error> {
        for rules in &self.rules {
            rules.check_process(process)?;
        }
        if self.privileges == Privileges::Node {
            lift(process);
        }
        Ok(())
    }

    /// Checks the pod of which a sandbox is. Its processes are its containers', which are checked by
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Policy`] if the pod's namespace is not allowed.
    pub fn check_sandbox(&self, annotations: &CriAnnotations) -> Result<(), Error> {
        self.rules
            .iter()
            .try_for_each(|rules| rules.check_namespace(annotations))
    }

    /// Gives a process that is not of an engine's spec, and so has all capabilities of its caller, those that
    /// all rules allow. Without such a rule it is left as it is.
    pub fn limit_capabilities(&self, process: &mut ProcessSpec) {
        let mut ceilings = self
            .rules
            .iter()
            .filter_map(|rules| rules.capabilities.as_ref());
        let Some(first) = ceilings.next().filter(|_| process.capabilities.is_none()) else {
            return;
        };
        let mut granted = first.clone();
        for ceiling in ceilings {
            granted.retain(|name| ceiling.contains(name));
        }
        process.capabilities = Some(Capabilities {
            bounding: granted.clone(),
            effective: granted.clone(),
            permitted: granted,
            ..Capabilities::default()
        });
    }
}

impl PolicyRules {
    fn check_container(
        &self,
        container: &ContainerSpec,
        scope: Option<&OverlayScope>,
    ) -> Result<(), Error> {
        self.check_process(&container.process)?;
        self.check_namespace(&CriAnnotations::from_annotations(&container.annotations))?;
        if self.privileged == Some(false) && is_privileged(container) {
            return Err(self.refused("privileged", "a privileged container"));
        }
        match (&self.scopes, scope) {
            (Some(allowed), Some(scope)) => {
                let text = scope.to_string();
                let group = matches!(scope, OverlayScope::Group(_));
                let is_allowed = |word: &String| *word == text || (group && word == "group:*");
                self.allowed(allowed.iter().any(is_allowed), "scopes", || {
                    format!("the overlay scope {text}")
                })
            }
            (Some(_), None) => Err(self.refused("scopes", "a container without an overlay")),
            (None, _) => Ok(()),
        }
    }

    fn check_process(&self, process: &ProcessSpec) -> Result<(), Error> {
        // Without one, it is the runtime's user.
        let (uid, gid, groups) = match &process.user {
            Some(user) => (user.uid, user.gid, user.additional_gids.as_slice()),
            None => (0, 0, [].as_slice()),
        };
        self.check_id(self.users.as_deref(), "users", "uid", uid)?;
        for gid in std::iter::once(&gid).chain(groups) {
            self.check_id(self.groups.as_deref(), "groups", "gid", *gid)?;
        }
        if let Some(globs) = &self.commands {
            self.check_command(globs, process)?;
        }
        if let Some(ceiling) = &self.capabilities {
            self.check_capabilities(ceiling, process)?;
        }
        for ceiling in self.rlimits.iter().flatten() {
            let over = |limit: &&crate::Rlimit| {
                limit.resource == ceiling.resource && limit.hard > ceiling.hard
            };
            if let Some(limit) = process.rlimits.iter().find(over) {
                let found = format!("{} of {}", limit.resource.as_str(), limit.hard);
                return Err(self.refused("rlimits", &found));
            }
        }
        Ok(())
    }

    fn check_namespace(&self, annotations: &CriAnnotations) -> Result<(), Error> {
        let Some(allowed) = &self.namespaces else {
            return Ok(());
        };
        match &annotations.sandbox_namespace {
            Some(name) => self.allowed(allowed.contains(name), "namespaces", || {
                format!("pods of the namespace {name:?}")
            }),
            None => Err(self.refused("namespaces", "a container of no Kubernetes namespace")),
        }
    }

    fn check_id(
        &self,
        allowed: Option<&[IdRange]>,
        key: &str,
        kind: &str,
        id: u32,
    ) -> Result<(), Error> {
        let allowed = allowed.is_none_or(|ranges| ranges.iter().any(|range| range.contains(id)));
        self.allowed(allowed, key, || format!("{kind} {id}"))
    }

    fn check_command(&self, globs: &[String], process: &ProcessSpec) -> Result<(), Error> {
        let Some(command) = process.args.first() else {
            return Ok(());
        };
        let path = Path::new(command);
        if !path.is_absolute() {
            return Err(self.refused(
                "commands",
                &format!("{command:?}, which is not an absolute path"),
            ));
        }
        let path = plain(path);
        let is_allowed = path.is_some_and(|path| {
            let matches = |glob: &String| {
                Pattern::new(glob).is_ok_and(|glob| glob.matches_path_with(&path, PATHS))
            };
            globs.iter().any(matches)
        });
        self.allowed(is_allowed, "commands", || format!("{command:?}"))
    }

    fn check_capabilities(&self, ceiling: &[String], process: &ProcessSpec) -> Result<(), Error> {
        let Some(capabilities) = &process.capabilities else {
            let found = "a process whose spec names no capabilities, and which so has all";
            return Err(self.refused("capabilities", found));
        };
        let above = capabilities.all().find(|name| !ceiling.contains(name));
        above.map_or(Ok(()), |name| Err(self.refused("capabilities", name)))
    }

    fn allowed(
        &self,
        allowed: bool,
        key: &str,
        found: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if allowed {
            Ok(())
        } else {
            Err(self.refused(key, &found()))
        }
    }

    fn refused(&self, key: &str, found: &str) -> Error {
        refused(&self.source, key, found)
    }
}

fn refused(source: &PolicySource, key: &str, found: &str) -> Error {
    Error::Policy {
        rule: source.rule(key),
        found: found.to_owned(),
    }
}

/// Takes a process's restrictions away. Returns which there were.
fn lift(process: &mut ProcessSpec) -> Option<&'static str> {
    let capabilities = process.capabilities.take();
    let labels = std::mem::take(&mut process.labels);
    match (capabilities, labels == SecurityLabels::default()) {
        (None, true) => None,
        (Some(_), true) => Some("the capabilities"),
        (None, false) => Some("the AppArmor profile and the SELinux labels"),
        (Some(_), false) => Some("the capabilities, the AppArmor profile and the SELinux labels"),
    }
}

/// What engines make of `privileged: true`.
fn is_privileged(container: &ContainerSpec) -> bool {
    let restrictions = &container.restrictions;
    let is_admin = container
        .process
        .capabilities
        .as_ref()
        .is_none_or(|capabilities| capabilities.all().any(|name| name == ADMIN));
    is_admin && restrictions.masked_paths.is_empty() && restrictions.read_only_paths.is_empty()
}

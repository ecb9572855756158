//! Which scopes there are, and what is known of each.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reaper_spec::OverlayConfig;

use super::keep::open_pin;
use crate::{
    contract::{Context, Error, Scope},
    linux::mountinfo::unescape,
    store::{
        base::Base,
        host_snapshot::Unmounted,
        layer_table::{Layer, Table},
        members::members,
        paths::ScopePaths,
        scope_limit,
    },
};

/// One scope, as [`Overlays::list`](crate::Overlays::list) shows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ScopeInfo {
    /// The scope.
    pub scope: Scope,
    /// When it was made.
    pub created: SystemTime,
    /// When a member last left; when it was made, if none has.
    pub last_used: SystemTime,
    /// Who is in it now.
    pub members: Vec<String>,
    /// The most that it may hold, in bytes, if it has a limit.
    pub limit: Option<u64>,
    /// Whether its mount namespace exists (one that was found again after a reboot gets it with
    /// its next member).
    pub mounted: bool,
    /// Whether workloads are kept from taking mounts of the view away.
    pub locked: bool,
    /// The mounts of the host that are shown read-only.
    pub read_only: Vec<PathBuf>,
    /// The mounts of the host that are shown as they are, where the configuration allows it.
    pub unprotected: Vec<PathBuf>,
    /// What changed on the host below the overlay since it was mounted: paths, escaped as in
    /// mountinfo.
    pub changed_below: Vec<String>,
    /// The filesystems that it keeps in use, though they were unmounted on the host since. They are
    /// free when its last member has ended.
    pub unmounted: Vec<Unmounted>,
}

pub(crate) fn info(base: &Base, scope: Scope) -> Result<Option<ScopeInfo>, Error> {
    let paths = ScopePaths::new(base, &scope);
    let Some(table) = Table::read(&paths)? else {
        return Ok(None);
    };
    let created = UNIX_EPOCH + Duration::from_secs(table.created);
    let last_used = fs::metadata(paths.layers().current()).and_then(|metadata| metadata.modified());
    let members = members(&paths)?;
    // Without root there is no pin: members alone keep the namespace.
    let mounted = !members.is_empty() || open_pin(&paths)?.is_some();
    let (changed_below, unmounted) = match mounted {
        true => (table.snapshot.changed(), table.snapshot.unmounted()?),
        false => (Vec::new(), Vec::new()),
    };
    Ok(Some(ScopeInfo {
        created,
        last_used: last_used.unwrap_or(created),
        members,
        limit: scope_limit::limit(&paths)?,
        mounted,
        locked: table.locked,
        read_only: paths_of(&table.read_only),
        unprotected: paths_of(&table.unprotected),
        changed_below,
        unmounted,
        scope,
    }))
}

fn paths_of(escaped: &[String]) -> Vec<PathBuf> {
    let path = |path: &String| unescape(path.as_bytes()).into();
    escaped.iter().map(path).collect()
}

/// The names of all scopes of the base that `config` names, sorted.
pub(crate) fn scopes(config: &OverlayConfig) -> Result<Vec<Scope>, Error> {
    let Some(base) = Base::open(config)? else {
        return Ok(Vec::new());
    };
    let dir = base.path.join("scopes");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).context("list", &dir)? {
        let name = entry.context("list", &dir)?.file_name();
        if let Some(Ok(scope)) = name.to_str().map(str::parse::<Scope>) {
            found.push(scope);
        }
    }
    found.sort();
    Ok(found)
}

/// What is known of one scope; `None` if there is none.
pub(crate) fn inspect(config: &OverlayConfig, scope: &Scope) -> Result<Option<ScopeInfo>, Error> {
    match Base::open(config)? {
        Some(base) => info(&base, scope.clone()),
        None => Ok(None),
    }
}

/// All scopes of the base that `config` names, by name. One that cannot be read fails for all.
pub(crate) fn list(config: &OverlayConfig) -> Result<Vec<ScopeInfo>, Error> {
    let scopes = scopes(config)?;
    // One that is being removed is gone already.
    let infos = scopes
        .iter()
        .map(|scope| inspect(config, scope).transpose());
    infos.flatten().collect()
}

/// The base, ready, and the scope's layers.
pub(crate) fn layers(config: &OverlayConfig, scope: &Scope) -> Result<(Base, Vec<Layer>), Error> {
    let missing = || Error::ScopeNotFound {
        name: scope.to_string(),
    };
    if Base::open(config)?.is_none() {
        return Err(missing());
    }
    let base = Base::prepare(config)?;
    let paths = ScopePaths::new(&base, scope);
    let table = Table::read(&paths)?.ok_or_else(missing)?;
    let layers = table.layers(&paths);
    Ok((base, layers))
}

//! Removing scopes that are not used any more.

use std::time::Duration;

use reaper_spec::{OverlayConfig, RetentionConfig};

use super::{
    list::{inspect, scopes},
    remove::remove,
};
use crate::{
    contract::{Error, Scope},
    store::{base::Base, trash},
};

/// Which unused scopes are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those used within this time; `None` is any.
    pub age: Option<Duration>,
    /// This many, the last used ones; `None` is any number.
    pub count: Option<usize>,
}

impl From<RetentionConfig> for Keep {
    fn from(
        RetentionConfig {
            max_age: age,
            max_count: count,
        }: RetentionConfig,
    ) -> Self {
        Self { age, count }
    }
}

/// Removes the scopes without members that `keep` does not keep, and what a process that was killed
/// did not get to remove; returns the scopes. One that cannot be read or removed does not keep the
/// others: the first such error is returned after them.
pub(crate) fn collect(config: &OverlayConfig, keep: Keep) -> Result<Vec<Scope>, Error> {
    let mut result = Ok(());
    if let Some(base) = Base::open(config)? {
        result = trash::empty(&base.path);
    }
    let mut unused = Vec::new();
    for scope in scopes(config)? {
        match inspect(config, &scope) {
            Ok(info) => unused.extend(info.filter(|info| info.members.is_empty())),
            Err(error) => result = result.and(Err(error)),
        }
    }
    unused.sort_by_key(|info| std::cmp::Reverse(info.last_used));
    let mut removed = Vec::new();
    for (at, info) in unused.into_iter().enumerate() {
        let age = info.last_used.elapsed().unwrap_or_default();
        let too_old = keep.age.is_some_and(|limit| age > limit);
        let too_many = keep.count.is_some_and(|count| at >= count);
        if !too_old && !too_many {
            continue;
        }
        match remove(config, &info.scope) {
            Ok(()) => removed.push(info.scope),
            // A member joined meanwhile, or another process removed it.
            Err(Error::ScopeBusy { .. } | Error::ScopeNotFound { .. }) => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    result.map(|()| removed)
}

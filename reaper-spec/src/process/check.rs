//! The invariants of a process, checked in one place for every way to make one.

use std::os::unix::ffi::OsStrExt;

use super::{ProcessSpec, Rlimit, User};
use crate::{
    error::{Invalid, quoted},
    json::{At, check_nul},
};

type Result<T = ()> = std::result::Result<T, Invalid>;

/// To setresuid(2) and setresgid(2) this value means "leave it as it is", so it is
/// not the id of a user or a group.
const UNCHANGED_ID: u32 = u32::MAX;

pub(crate) const OOM_SCORE_ADJ: std::ops::RangeInclusive<i32> = -1000..=1000;
pub(crate) const UMASK: std::ops::RangeInclusive<u32> = 0..=0o777;

impl ProcessSpec {
    /// Checks the invariants; `at` is where the process stands in its document.
    pub(crate) fn check(&self, at: At<'_>) -> Result {
        args(&self.args, at.key("args"))?;
        cwd(self.cwd.as_os_str().as_bytes(), at.key("cwd"))?;
        check_env(&self.env, at.key("env"))?;
        if let Some(one) = &self.user {
            user(one, at.key("user"))?;
        }
        rlimits(&self.rlimits, at.key("rlimits"))?;
        match self.oom_score_adj {
            Some(adj) if !OOM_SCORE_ADJ.contains(&adj) => Err(at
                .key("oomScoreAdj")
                .invalid("an integer from -1000 to 1000", format!("the number {adj}"))),
            _ => Ok(()),
        }
    }
}

fn args(args: &[String], at: At<'_>) -> Result {
    let Some(program) = args.first() else {
        return Err(at.invalid("an array with at least a program", "an empty array"));
    };
    if program.is_empty() {
        return Err(at
            .index(0)
            .invalid("the name or path of a program", "an empty string"));
    }
    for (index, arg) in args.iter().enumerate() {
        check_nul(arg.as_bytes(), at.index(index))?;
    }
    Ok(())
}

fn cwd(path: &[u8], at: At<'_>) -> Result {
    check_nul(path, at)?;
    if path.first() != Some(&b'/') {
        return Err(at.invalid("an absolute path", quoted(&String::from_utf8_lossy(path))));
    }
    Ok(())
}

/// Checks an environment.
pub(crate) fn check_env(env: &[String], at: At<'_>) -> Result {
    for (index, entry) in env.iter().enumerate() {
        check_nul(entry.as_bytes(), at.index(index))?;
        if entry.find('=').is_none_or(|name| name == 0) {
            return Err(at.index(index).invalid("NAME=VALUE", quoted(entry)));
        }
    }
    Ok(())
}

fn user(user: &User, at: At<'_>) -> Result {
    let id = |id: u32, at: At<'_>| match id {
        UNCHANGED_ID => Err(at.invalid(
            "an integer from 0 to 4294967294",
            format!("the number {id}"),
        )),
        _ => Ok(()),
    };
    id(user.uid, at.key("uid"))?;
    id(user.gid, at.key("gid"))?;
    for (index, gid) in user.additional_gids.iter().enumerate() {
        id(*gid, at.key("additionalGids").index(index))?;
    }
    match user.umask {
        Some(umask) if !UMASK.contains(&umask) => Err(at
            .key("umask")
            .invalid("an integer from 0 to 511", format!("the number {umask}"))),
        _ => Ok(()),
    }
}

fn rlimits(rlimits: &[Rlimit], at: At<'_>) -> Result {
    for (index, limit) in rlimits.iter().enumerate() {
        let at = at.index(index);
        if limit.soft > limit.hard {
            let hard = limit.hard;
            return Err(at.key("soft").invalid(
                format!("at most the hard limit, {hard}"),
                limit.soft.to_string(),
            ));
        }
        if rlimits[..index]
            .iter()
            .any(|earlier| earlier.resource == limit.resource)
        {
            let name = limit.resource.as_str();
            return Err(at
                .key("type")
                .invalid("each resource once", format!("{name} again")));
        }
    }
    Ok(())
}

//! The table of all settings: one line each.

use super::{
    input::{Age, AllowedAnnotations, Input, Program, Size, Wrong},
    policy::{Capability, Command, Namespace, Scope, items, texts},
    types::Config,
};

/// A setting.
pub(super) struct Key {
    /// Its name in files.
    pub(super) name: &'static str,
    /// The environment variable that sets it. A policy is set by files alone: who starts a program
    /// chooses its environment.
    pub(super) env: Option<&'static str>,
    pub(super) set: fn(&mut Config, Input<'_>) -> Result<(), Wrong>,
}

macro_rules! keys {
    ($($name:literal $($env:literal)? |$config:ident, $input:ident| $set:expr;)*) => {
        pub(super) const KEYS: &[Key] = &[$(Key {
            name: $name,
            env: [$(Some($env),)? None][0],
            set: |$config, $input| {
                $set;
                Ok(())
            },
        },)*];
    };
}

keys! {
    "state_root" "REAPER_RUNTIME_ROOT" |c, input| c.state_root = input.read()?;
    "store" "REAPER_STORE" |c, input| c.store = input.read()?;
    "runtime_path" "REAPER_RUNTIME_PATH"
        |c, input| c.runtime_path = input.read::<Option<Program>>()?.map(|program| program.0);
    "dns" "REAPER_DNS" |c, input| c.dns = input.read()?;
    "network" "REAPER_NETWORK" |c, input| c.network = input.read()?;
    "pid" "REAPER_PID" |c, input| c.pid = input.read()?;
    "cgroups" "REAPER_CGROUPS" |c, input| c.cgroups = input.read()?;
    "monitor_cgroup" "REAPER_MONITOR_CGROUP"
        |c, input| c.monitor_cgroup = input.read()?;
    "devices" |c, input| c.devices = input.read()?;
    "hooks" "REAPER_HOOKS" |c, input| c.hooks = input.read()?;
    "image" "REAPER_IMAGE" |c, input| c.image = input.read()?;
    "overlay.enabled" "REAPER_OVERLAY_ENABLED" |c, input| c.overlay.enabled = input.read()?;
    "overlay.base" "REAPER_OVERLAY_BASE" |c, input| c.overlay.base = input.read()?;
    "overlay.scope" "REAPER_OVERLAY_SCOPE" |c, input| c.overlay.scope = input.read()?;
    "overlay.size" "REAPER_OVERLAY_SIZE"
        |c, input| c.overlay.size = input.read::<Option<Size>>()?.map(|size| size.0);
    "overlay.size_per_scope" "REAPER_OVERLAY_SIZE_PER_SCOPE"
        |c, input| c.overlay.size_per_scope = input.read::<Option<Size>>()?.map(|size| size.0);
    "overlay.masks.replace" "REAPER_OVERLAY_MASKS_REPLACE"
        |c, input| c.overlay.masks.replace = input.read()?;
    "overlay.masks.add" "REAPER_OVERLAY_MASKS_ADD"
        |c, input| c.overlay.masks.add = input.read()?;
    "overlay.masks.except" "REAPER_OVERLAY_MASKS_EXCEPT"
        |c, input| c.overlay.masks.except = input.read()?;
    "overlay.host_paths" "REAPER_OVERLAY_HOST_PATHS"
        |c, input| c.overlay.host_paths = input.read()?;
    "overlay.unprotected" "REAPER_OVERLAY_UNPROTECTED"
        |c, input| c.overlay.unprotected = input.read()?;
    "overlay.remove_with_last" "REAPER_OVERLAY_REMOVE_WITH_LAST"
        |c, input| c.overlay.remove_with_last = input.read()?;
    "overlay.keep.age" "REAPER_OVERLAY_KEEP_AGE"
        |c, input| c.overlay.keep.max_age = input.read::<Option<Age>>()?.map(|age| age.0);
    "overlay.keep.count" "REAPER_OVERLAY_KEEP_COUNT"
        |c, input| c.overlay.keep.max_count = input.read()?;
    "log.shim" "REAPER_SHIM_LOG" |c, input| c.log.shim = input.read()?;
    "log.runtime" "REAPER_RUNTIME_LOG" |c, input| c.log.runtime = input.read()?;
    "log.output" "REAPER_LOG_OUTPUT" |c, input| c.log.output = input.read()?;
    "log.level" "REAPER_LOG_LEVEL" |c, input| c.log.level = input.read()?;
    "annotations.allow" "REAPER_ANNOTATIONS_ALLOW"
        |c, input| c.annotations.allow = input.read::<AllowedAnnotations>()?.0;
    "policy.privileges" |c, input| c.policy.last().privileges = input.read()?;
    "policy.users" |c, input| c.policy.last().users = items(input)?;
    "policy.groups" |c, input| c.policy.last().groups = items(input)?;
    "policy.commands" |c, input| c.policy.last().commands = items::<Command>(input)?.map(texts);
    "policy.namespaces"
        |c, input| c.policy.last().namespaces = items::<Namespace>(input)?.map(texts);
    "policy.host_paths" |c, input| c.policy.last().host_paths = items(input)?;
    "policy.capabilities"
        |c, input| c.policy.last().capabilities = items::<Capability>(input)?.map(texts);
    "policy.privileged" |c, input| c.policy.last().privileged = input.read()?;
    "policy.scopes" |c, input| c.policy.last().scopes = items::<Scope>(input)?.map(texts);
    "policy.containers" |c, input| c.policy.last().containers = input.read()?;
    "policy.rlimits" |c, input| c.policy.last().rlimits = items(input)?;
}

/// The name among `names` that `name` was probably meant to be.
pub(super) fn suggest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    // The last part alone, too: `scope` at the top is meant to be `overlay.scope`.
    let distance = |candidate: &str| {
        let last = candidate.rsplit('.').next().unwrap_or(candidate);
        strsim::damerau_levenshtein(name, candidate).min(strsim::damerau_levenshtein(name, last))
    };
    let tolerated = (name.chars().count() / 3).clamp(1, 3);
    names
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

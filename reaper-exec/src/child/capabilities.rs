//! The capabilities of a process: what its spec grants, and no more (capabilities(7)).
//!
//! The bounding set is reduced while the process still has the monitor's user, since that takes
//! CAP_SETPCAP; the other sets are set once it has its own, since setuid(2) clears them. What is
//! permitted is kept in between (prctl(2), `PR_SET_KEEPCAPS`).

use std::collections::BTreeSet;

use nix::unistd::geteuid;
use reaper_spec::{Capabilities, ProcessSpec};
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
    },
};

use super::step::{Failed, Step as _};

/// Whether the program of a process will have the capability that setting quotas takes (quotactl(2)). What a program
/// that is executed gets is, for root, the bounding set, and else the ambient one.
pub(super) fn may_set_quotas(process: &ProcessSpec) -> bool {
    const NAME: &str = "CAP_SYS_ADMIN";
    let user = process.user.as_ref().map(|user| user.uid);
    let is_root = user.unwrap_or_else(|| geteuid().as_raw()) == 0;
    match (&process.capabilities, is_root) {
        (Some(wanted), true) => wanted.bounding.iter().any(|name| name == NAME),
        (Some(wanted), false) => wanted.ambient.iter().any(|name| name == NAME),
        (None, is_root) => is_root,
    }
}

/// The sets that a process is to have, as far as they can be granted.
pub(super) struct Granted {
    /// What the bounding set has beside it.
    excess: CapabilitySet,
    sets: CapabilitySets,
    ambient: CapabilitySet,
}

impl Granted {
    /// What of `wanted` this process can grant. The rest is a warning: a spec may name what a kernel
    /// or a node does not have (runtime-spec, config.md, "Linux Process").
    pub(super) fn of(wanted: &Capabilities, warnings: &mut Vec<String>) -> Result<Self, Failed> {
        let own = capabilities(None).step("read the capabilities")?;
        let mut refused = BTreeSet::new();
        let mut grant = |names: &[String], among: CapabilitySet, how: &str| {
            let mut set = CapabilitySet::empty();
            for name in names {
                match named(name).filter(|&one| among.contains(one)) {
                    Some(one) => set |= one,
                    None if refused.contains(name) => {}
                    None => drop(refused.insert(format!("{name}{how}"))),
                }
            }
            set
        };
        let own_bounding = own_bounding();
        let bounding = grant(&wanted.bounding, own_bounding, "");
        let permitted = grant(&wanted.permitted, own.permitted, "");
        let effective = grant(&wanted.effective, permitted, "");
        let inheritable = grant(&wanted.inheritable, own.permitted | own.inheritable, "");
        // What is permitted and not inheritable is no ambient one, as `runc spec` writes them.
        let ambient = grant(&wanted.ambient, permitted & inheritable, " as ambient");
        if !refused.is_empty() {
            let names: Vec<String> = refused.into_iter().collect();
            warnings.push(format!("not granted: {}", names.join(", ")));
        }
        Ok(Self {
            excess: own_bounding - bounding,
            sets: CapabilitySets {
                effective,
                permitted,
                inheritable,
            },
            ambient,
        })
    }

    /// Reduces the bounding set, and keeps what is permitted over the change of user that follows.
    pub(super) fn reduce_bounding(&self) -> Result<(), Failed> {
        for one in every().filter(|&one| self.excess.contains(one)) {
            match remove_capability_from_bounding_set(one) {
                // Without any capability there is none that could be given up, and what the bounding
                // set still allows, such as set-user-ID programs, the caller could execute too.
                Err(Errno::PERM) if self.sets.permitted.is_empty() && has_none() => break,
                removed => removed.step("reduce the capability bounding set")?,
            }
        }
        set_keep_capabilities(true).step("keep capabilities over the change of user")
    }

    /// Sets the other sets, once the process has its user.
    pub(super) fn apply(&self) -> Result<(), Failed> {
        set_keep_capabilities(false).step("clear what kept capabilities")?;
        // An ambient capability has to be permitted and inheritable before it is raised.
        set_capabilities(None, self.sets).step("set the capabilities")?;
        match clear_ambient_capability_set() {
            // Before 4.3 there is none.
            Err(Errno::INVAL) if self.ambient.is_empty() => return Ok(()),
            cleared => cleared.step("clear the ambient capabilities")?,
        }
        for one in self.ambient.iter() {
            configure_capability_in_ambient_set(one, true).step("set the ambient capabilities")?;
        }
        Ok(())
    }
}

fn has_none() -> bool {
    capabilities(None).is_ok_and(|own| own.permitted.is_empty())
}

/// Every capability that a kernel may have, those included that have no name here yet.
fn every() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

fn own_bounding() -> CapabilitySet {
    every()
        .filter(|&one| capability_is_in_bounding_set(one).unwrap_or(false))
        .fold(CapabilitySet::empty(), |set, one| set | one)
}

/// The capability of a name such as `CAP_CHOWN`.
fn named(name: &str) -> Option<CapabilitySet> {
    CapabilitySet::from_name(name.strip_prefix("CAP_")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_runtime_spec_is_known() {
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_AUDIT_READ", 37),
            ("CAP_PERFMON", 38),
            ("CAP_BPF", 39),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(
                named(name).map(|one| one.bits()),
                Some(1 << number),
                "{name}"
            );
        }
        for name in ["CHOWN", "CAP_", "CAP_NONE", "cap_chown", ""] {
            assert!(named(name).is_none(), "{name}");
        }
    }
}

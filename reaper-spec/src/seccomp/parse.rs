//! Reading OCI's `linux.seccomp`.

use super::{Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompFlag, SeccompOp, SeccompRule};
use crate::{error::Invalid, json::Node};

type Result<T> = std::result::Result<T, Invalid>;

/// The largest errno that the kernel takes from a filter (`MAX_ERRNO`).
const MAX_ERRNO: u16 = 4095;
/// EPERM, which the specification has for an errno that is not named.
const DEFAULT_ERRNO: u16 = 1;

/// Reads and checks the filter at `node`.
pub(crate) fn read(node: &Node<'_>) -> Result<Seccomp> {
    node.object("an object with a defaultAction")?;
    let default = action(&node.get("defaultAction")?, &node.get("defaultErrnoRet")?)?;
    if default == SeccompAction::Notify {
        let expected = "an action that needs no agent, since the process could not even be set up";
        return Err(node.get("defaultAction")?.invalid(expected));
    }
    let seccomp = Seccomp {
        default_action: default,
        architectures: node
            .get("architectures")?
            .items("an array of architectures", SeccompArch::read)?,
        flags: node
            .get("flags")?
            .items("an array of flags", SeccompFlag::read)?,
        listener_path: node.get("listenerPath")?.text()?.map(Into::into),
        listener_metadata: node.get("listenerMetadata")?.text()?,
        rules: node.get("syscalls")?.items("an array of rules", rule)?,
    };
    let listener = node.get("listenerPath")?;
    match &seccomp.listener_path {
        Some(path) if !path.is_absolute() => Err(listener.invalid("an absolute path")),
        None if seccomp.notifies() => {
            Err(listener.invalid("the socket of the agent that SCMP_ACT_NOTIFY asks"))
        }
        None if seccomp.listener_metadata.is_some() => {
            Err(listener.invalid("the socket of the agent that listenerMetadata is for"))
        }
        _ => Ok(seccomp),
    }
}

fn rule(node: &Node<'_>) -> Result<SeccompRule> {
    node.object("an object with names and an action")?;
    let names = node.get("names")?;
    let rule = SeccompRule {
        names: names.items("an array of system calls", |item| item.owned())?,
        action: action(&node.get("action")?, &node.get("errnoRet")?)?,
        args: node.get("args")?.items("an array of arguments", arg)?,
    };
    if rule.names.is_empty() {
        return Err(names.invalid("the name of a system call at least"));
    }
    if rule.action == SeccompAction::Notify && rule.names.iter().any(|name| name == "write") {
        // By write(2) a process reports that its filter is in force.
        return Err(names.invalid("no write with SCMP_ACT_NOTIFY"));
    }
    Ok(rule)
}

fn arg(node: &Node<'_>) -> Result<SeccompArg> {
    node.object("an object with index, value and op")?;
    let number = |key| -> Result<u64> {
        let number = node.get(key)?.opt(|value| value.integer(0..=u64::MAX))?;
        Ok(number.unwrap_or_default())
    };
    Ok(SeccompArg {
        index: node.get("index")?.integer(0..=5)?,
        value: number("value")?,
        value_two: number("valueTwo")?,
        op: SeccompOp::read(&node.get("op")?)?,
    })
}

fn action(node: &Node<'_>, errno: &Node<'_>) -> Result<SeccompAction> {
    let number = |most| -> Result<u16> {
        let named = errno.opt(|errno| errno.integer(0..=most))?;
        Ok(named.unwrap_or(DEFAULT_ERRNO))
    };
    let action = match node.string()? {
        "SCMP_ACT_ERRNO" => return Ok(SeccompAction::Errno(number(MAX_ERRNO)?)),
        "SCMP_ACT_TRACE" => return Ok(SeccompAction::Trace(number(u16::MAX)?)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_NOTIFY" => SeccompAction::Notify,
        _ => {
            return Err(node.invalid(
                "one of SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_TRAP, \
                 SCMP_ACT_ERRNO, SCMP_ACT_TRACE, SCMP_ACT_ALLOW, SCMP_ACT_LOG, SCMP_ACT_NOTIFY",
            ));
        }
    };
    match errno.present() {
        None => Ok(action),
        Some(errno) => Err(errno.invalid("no errno: the action has none")),
    }
}

impl Seccomp {
    /// Whether the agent at `listener_path` is asked about a call.
    pub fn notifies(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.action == SeccompAction::Notify)
    }
}

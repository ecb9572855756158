//! Reading OCI's `hooks`.

use std::num::NonZeroU32;

use super::{Hook, HookKind, Hooks};
use crate::{error::Invalid, json::Node, process};

type Result<T> = std::result::Result<T, Invalid>;

/// Reads and checks the hooks at `node`.
pub(crate) fn read(node: &Node<'_>) -> Result<Hooks> {
    node.object("an object with lists of hooks")?;
    let of = |kind: HookKind| node.get(kind.as_str())?.items("an array of hooks", hook);
    Ok(Hooks {
        prestart: of(HookKind::Prestart)?,
        create_runtime: of(HookKind::CreateRuntime)?,
        create_container: of(HookKind::CreateContainer)?,
        start_container: of(HookKind::StartContainer)?,
        poststart: of(HookKind::Poststart)?,
        poststop: of(HookKind::Poststop)?,
    })
}

fn hook(node: &Node<'_>) -> Result<Hook> {
    node.object("a hook, an object with a path")?;
    let path = node.get("path")?;
    let env = node.get("env")?;
    let hook = Hook {
        path: match path.string()? {
            text if text.starts_with('/') => text.into(),
            _ => return Err(path.invalid("an absolute path")),
        },
        args: node
            .get("args")?
            .items("an array of strings", |item| item.owned())?,
        env: env.items("an array of NAME=VALUE strings", |item| item.owned())?,
        timeout: node
            .get("timeout")?
            .opt(|timeout| timeout.integer(1..=u32::MAX))?
            .and_then(NonZeroU32::new),
    };
    process::check_env(&hook.env, env.at)?;
    Ok(hook)
}

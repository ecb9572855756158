//! Reading OCI's `process` object.

use std::path::Path;

use super::{
    ConsoleSize, ProcessSpec, Resource, Rlimit, User, capabilities,
    check::{OOM_SCORE_ADJ, UMASK},
    labels, scheduling,
};
use crate::{
    error::{Error, Invalid, Origin},
    file,
    json::{self, Node},
};

type Result<T> = std::result::Result<T, Invalid>;

impl ProcessSpec {
    /// Reads OCI's `process` object: the file of `exec --process`, or what containerd sends for
    /// an exec.
    ///
    /// ```
    /// use reaper_spec::ProcessSpec;
    /// let process = ProcessSpec::parse(br#"{"args": ["id", "-u"], "user": {"uid": 33}}"#)?;
    /// assert_eq!(process.args, ["id", "-u"]);
    /// let error = ProcessSpec::parse(br#"{"args": ["id", 3]}"#).unwrap_err();
    /// assert_eq!(error.to_string(), "args[1]: expected a string, found the number 3");
    /// # Ok::<(), reaper_spec::Error>(())
    /// ```
    ///
    /// # Errors
    /// It is not JSON, or breaks one of the invariants of [`ProcessSpec`].
    pub fn parse(json: &[u8]) -> std::result::Result<Self, Error> {
        Self::parse_from(json, Origin::Caller)
    }

    /// Reads OCI's `process` object from a file of at most [`MAX_CONFIG_SIZE`] bytes.
    ///
    /// [`MAX_CONFIG_SIZE`]: crate::MAX_CONFIG_SIZE
    ///
    /// # Errors
    /// As [`parse`](Self::parse), or the file cannot be read.
    pub fn load(path: &Path) -> std::result::Result<Self, Error> {
        Self::parse_from(&file::read(path)?, Origin::File(path.to_owned()))
    }

    fn parse_from(json: &[u8], origin: Origin) -> std::result::Result<Self, Error> {
        let value = json::parse(json, &origin)?;
        read(&Node::root(&value)).map_err(|invalid| invalid.of(origin))
    }
}

/// Reads and checks the process at `node`.
pub(crate) fn read(node: &Node<'_>) -> Result<ProcessSpec> {
    node.object("an object with the process's args")?;
    let args = node.get("args")?;
    if args.present().is_none() {
        return Err(args.invalid("an array of strings: the program and its arguments"));
    }
    let process = ProcessSpec {
        args: args.items("an array of strings", |item| item.owned())?,
        cwd: node.get("cwd")?.opt(Node::string)?.unwrap_or("/").into(),
        env: node
            .get("env")?
            .items("an array of NAME=VALUE strings", |item| item.owned())?,
        terminal: node
            .get("terminal")?
            .opt(Node::boolean)?
            .unwrap_or_default(),
        console_size: node.get("consoleSize")?.opt(console_size)?,
        user: node.get("user")?.opt(user)?,
        rlimits: node.get("rlimits")?.items("an array of rlimits", rlimit)?,
        oom_score_adj: node
            .get("oomScoreAdj")?
            .opt(|adj| adj.integer(OOM_SCORE_ADJ))?,
        no_new_privileges: node
            .get("noNewPrivileges")?
            .opt(Node::boolean)?
            .unwrap_or_default(),
        capabilities: node.get("capabilities")?.opt(capabilities::read)?,
        scheduling: scheduling::read(node)?,
        labels: labels::read(node)?,
    };
    process.check(node.at)?;
    Ok(process)
}

fn console_size(node: &Node<'_>) -> Result<ConsoleSize> {
    let side = |key| node.get(key)?.integer(0..=u16::MAX);
    Ok(ConsoleSize {
        width: side("width")?,
        height: side("height")?,
    })
}

fn user(node: &Node<'_>) -> Result<User> {
    // Go leaves out what is zero only where it says so, but hand-written specs do.
    let id = |node: &Node<'_>| node.integer(0..=u32::MAX - 1);
    Ok(User {
        uid: node.get("uid")?.opt(id)?.unwrap_or_default(),
        gid: node.get("gid")?.opt(id)?.unwrap_or_default(),
        umask: node.get("umask")?.opt(|umask| umask.integer(UMASK))?,
        additional_gids: node
            .get("additionalGids")?
            .items("an array of group ids", id)?,
    })
}

fn rlimit(node: &Node<'_>) -> Result<Rlimit> {
    node.object("an object with type, soft and hard")?;
    let kind = node.get("type")?;
    let resource = kind.string()?.parse::<Resource>();
    Ok(Rlimit {
        resource: resource.map_err(|_| kind.invalid("a resource such as RLIMIT_NOFILE"))?,
        soft: node.get("soft")?.integer(0..=u64::MAX)?,
        hard: node.get("hard")?.integer(0..=u64::MAX)?,
    })
}

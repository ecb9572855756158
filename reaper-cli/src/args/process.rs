//! What `run` and `exec` say of a process.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

/// What a command line says of a process.
#[derive(Debug, Default, Args)]
pub(crate) struct ProcessArgs {
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,

    /// Its working directory
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,

    /// Set a variable; NAME alone takes the caller's value
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,

    /// Run as this user; GID defaults to the account's group
    #[arg(long, short, value_name = "UID[:GID]")]
    pub(crate) user: Option<UserArg>,

    /// Add a supplementary group
    #[arg(long, short = 'g', value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,

    /// Set no_new_privs: set-uid programs give no rights
    #[arg(long)]
    pub(crate) no_new_privs: bool,
}

/// `UID[:GID]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserArg {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
}

impl FromStr for UserArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |part: &str| {
            part.parse()
                .map_err(|_| format!("{part:?} is no number: write UID or UID:GID"))
        };
        match text.split_once(':') {
            Some((uid, gid)) => Ok(Self {
                uid: id(uid)?,
                gid: Some(id(gid)?),
            }),
            None => Ok(Self {
                uid: id(text)?,
                gid: None,
            }),
        }
    }
}

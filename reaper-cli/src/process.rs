//! Processes as people describe them: on a command line, in an environment.

use std::{env, fs, path::PathBuf};

use nix::unistd::geteuid;
use reaper_spec::{ProcessSpec, User};

use crate::{
    args::{ProcessArgs, UserArg},
    error::{Error, Result},
    sockets,
};

/// The process that `command` is in the caller's directory and environment.
pub(crate) fn of_caller(command: &[String], settings: &ProcessArgs) -> Result<ProcessSpec> {
    let cwd = env::current_dir().map_err(Error::io("find the working directory"))?;
    let mut process = ProcessSpec::new(command, cwd)?;
    process.env = env::vars_os()
        .filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            (!name.is_empty()).then(|| format!("{name}={value}"))
        })
        // They are for this program, not for what it starts.
        .filter(|entry| !sockets::is_of_sockets(entry))
        .collect();
    apply(settings, &mut process)?;
    Ok(process)
}

/// The process that `command` is in a container whose init process is `init`.
pub(crate) fn in_container(
    command: &[String],
    settings: &ProcessArgs,
    init: ProcessSpec,
) -> Result<ProcessSpec> {
    let mut process = ProcessSpec {
        args: command.to_vec(),
        terminal: false,
        ..init
    };
    apply(settings, &mut process)?;
    Ok(process)
}

/// Changes `process` as the options say.
pub(crate) fn apply(settings: &ProcessArgs, process: &mut ProcessSpec) -> Result<()> {
    if let Some(cwd) = &settings.cwd {
        process.cwd = if cwd.is_absolute() {
            cwd.clone()
        } else {
            process.cwd.join(cwd)
        };
    }
    if let Some(user) = settings.user {
        // The home is another one then: the account's, unless it is named. Without root it is the
        // same user, under another number.
        if geteuid().is_root()
            && process.user.as_ref().map_or_else(own_uid, |user| user.uid) != user.uid
        {
            process.env.retain(|entry| !entry.starts_with("HOME="));
        }
        process.user = Some(whom(user, process.user.as_ref()));
    }
    if !settings.additional_gids.is_empty() {
        let user = process.user.get_or_insert_with(own_user);
        user.additional_gids.extend(&settings.additional_gids);
    }
    for entry in &settings.env {
        if entry.is_empty() {
            return Err(Error::Option {
                option: "--env",
                problem: "an empty text names no variable: write NAME=VALUE, or NAME for the \
                    caller's value"
                    .to_owned(),
            });
        }
        match entry.split_once('=') {
            Some((name, _)) => set(process, name, entry.clone()),
            None => match env::var(entry) {
                Ok(value) => set(process, entry, format!("{entry}={value}")),
                Err(_) => process.env.retain(|other| name_of(other) != entry),
            },
        }
    }
    process.terminal |= settings.tty;
    process.no_new_privileges |= settings.no_new_privs;
    Ok(process.validate()?)
}

/// Gives `process` capabilities besides those of its spec, as runc does: none becomes inheritable, so
/// a user other than root gets them from programs with file capabilities only. A process without
/// capabilities in its spec has the monitor's already.
pub(crate) fn add_capabilities(names: &[String], process: &mut ProcessSpec) -> Result<()> {
    if let Some(wrong) = names.iter().find(|name| !name.starts_with("CAP_")) {
        return Err(Error::Option {
            option: "--cap",
            problem: format!("{wrong:?} is no capability: write CAP_NAME, as in CAP_NET_ADMIN"),
        });
    }
    let Some(sets) = &mut process.capabilities else {
        return Ok(());
    };
    for name in names {
        let inheritable = sets.inheritable.contains(name);
        let ambient = inheritable.then_some(&mut sets.ambient);
        let sets = [&mut sets.bounding, &mut sets.effective, &mut sets.permitted];
        for set in sets.into_iter().chain(ambient) {
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
    }
    Ok(())
}

/// Gives a process that has a terminal the caller's kind of terminal, unless it has one.
pub(crate) fn set_term(process: &mut ProcessSpec) {
    if !process.env.iter().any(|entry| name_of(entry) == "TERM") {
        let term = env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
        process.env.push(format!("TERM={term}"));
    }
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn set(process: &mut ProcessSpec, name: &str, entry: String) {
    process.env.retain(|other| name_of(other) != name);
    process.env.push(entry);
}

fn own_uid() -> u32 {
    geteuid().as_raw()
}

fn own_user() -> User {
    let gid = nix::unistd::getegid().as_raw();
    User {
        uid: own_uid(),
        gid,
        umask: None,
        additional_gids: Vec::new(),
    }
}

/// The user that `UID[:GID]` names. Without a group it is the one of the process that this one is
/// added to, else the account's, else the one with the user's number.
fn whom(named: UserArg, base: Option<&User>) -> User {
    let gid = named
        .gid
        .or(base.map(|user| user.gid))
        .or_else(|| account_group(named.uid))
        .unwrap_or(named.uid);
    User {
        uid: named.uid,
        gid,
        umask: base.and_then(|user| user.umask),
        additional_gids: base
            .map(|user| user.additional_gids.clone())
            .unwrap_or_default(),
    }
}

/// The primary group in `/etc/passwd`. (The C library's lookup needs shared libraries, which a
/// static program has not.)
fn account_group(uid: u32) -> Option<u32> {
    group_in(&fs::read_to_string(PathBuf::from("/etc/passwd")).ok()?, uid)
}

/// The name of an account, or `#UID` where `/etc/passwd` has none, as runc prints owners.
pub(crate) fn account_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&passwd, uid).unwrap_or_else(|| format!("#{uid}"))
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn group_in(passwd: &str, uid: u32) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> ProcessSpec {
        let mut process = ProcessSpec::new(["init"], "/srv").unwrap();
        process.env = vec!["HOME=/root".into(), "A=1".into(), "TERM=vt100".into()];
        process
    }

    #[test]
    fn a_variable_is_replaced_not_doubled() {
        let mut process = base();
        let settings = ProcessArgs {
            env: vec!["A=2".into(), "B=3".into()],
            ..Default::default()
        };
        apply(&settings, &mut process).unwrap();
        assert_eq!(process.env, ["HOME=/root", "TERM=vt100", "A=2", "B=3"]);
    }

    #[test]
    fn another_user_gets_another_home_unless_it_is_named() {
        let user = Some(UserArg {
            uid: 4242,
            gid: None,
        });
        let mut process = base();
        apply(
            &ProcessArgs {
                user,
                ..Default::default()
            },
            &mut process,
        )
        .unwrap();
        assert_eq!(process.env, ["A=1", "TERM=vt100"]);
        let user_of = process.user.unwrap();
        assert_eq!(
            (user_of.uid, user_of.gid),
            (4242, 4242),
            "no account, so no other group"
        );

        let mut process = base();
        let env = vec!["HOME=/here".into()];
        apply(
            &ProcessArgs {
                user,
                env,
                ..Default::default()
            },
            &mut process,
        )
        .unwrap();
        assert!(process.env.contains(&"HOME=/here".to_owned()));
    }

    #[test]
    fn relative_workdir_is_resolved_against_bundles_cwd() {
        let mut process = base();
        let settings = ProcessArgs {
            cwd: Some("www".into()),
            ..Default::default()
        };
        apply(&settings, &mut process).unwrap();
        assert_eq!(process.cwd, PathBuf::from("/srv/www"));
    }

    #[test]
    fn exec_inherits_init_settings_except_terminal() {
        let mut init = base();
        init.terminal = true;
        let process = in_container(&["id".into()], &ProcessArgs::default(), init).unwrap();
        assert_eq!(process.args, ["id"]);
        assert!(!process.terminal, "a terminal is asked for anew");
        assert_eq!(process.env.len(), 3);
    }

    #[test]
    fn a_variable_without_a_name_is_refused() {
        let settings = ProcessArgs {
            env: vec!["=x".into()],
            ..Default::default()
        };
        assert!(apply(&settings, &mut base()).is_err());
    }

    #[test]
    fn an_empty_variable_is_refused_by_the_options_name() {
        let settings = ProcessArgs {
            env: vec![String::new()],
            ..Default::default()
        };
        let error = apply(&settings, &mut base()).unwrap_err().to_string();
        assert!(error.contains("--env"), "{error}");
    }

    #[test]
    fn group_is_read_from_the_users_passwd_entry() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:44::/srv:/bin/false\n";
        assert_eq!(group_in(passwd, 33), Some(44));
        assert_eq!(group_in(passwd, 34), None);
        assert_eq!(name_in(passwd, 33).as_deref(), Some("web"));
        assert_eq!(name_in(passwd, 34), None);
    }
}

//! Finding and executing the program.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    libc,
    unistd::{execve, geteuid},
};
use reaper_overlay::in_view;
use reaper_spec::{ProcessSpec, SecurityLabels};

use crate::protocol::ChildReport;

/// A program with its arguments and environment, ready for execve(2).
pub(super) struct Program {
    /// Where it may be, in the order of `PATH`; one entry if it was named with a slash.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    short_name: CString,
    /// What confines it from its execve(2) on, in words: that may be refused only then.
    confinement: Option<String>,
}

impl Program {
    /// Nothing is looked up yet: the program may appear between create and start.
    pub(super) fn new(process: &ProcessSpec, environment: Vec<String>) -> io::Result<Self> {
        let name = process.args.first().map_or("", String::as_str);
        let candidates = if name.contains('/') {
            vec![name.to_owned()]
        } else {
            /// What execvp(3) uses without a `PATH`.
            const DEFAULT_PATH: &str = "/bin:/usr/bin";
            let path = environment
                .iter()
                .find_map(|entry| entry.strip_prefix("PATH="));
            // An empty entry means the working directory (environ(7)).
            path.unwrap_or(DEFAULT_PATH)
                .split(':')
                .map(|folder| if folder.is_empty() { "." } else { folder })
                .map(|folder| format!("{}/{name}", folder.trim_end_matches('/')))
                .collect()
        };
        let short: String = Path::new(name)
            .file_name()
            .map_or("", |name| name.to_str().unwrap_or(""))
            .into();
        Ok(Self {
            candidates: strings(candidates)?,
            arguments: strings(process.args.clone())?,
            environment: strings(environment)?,
            short_name: CString::new(short)?,
            confinement: confinement(&process.labels),
        })
    }

    /// The name for ps(1).
    pub(super) fn short_name(&self) -> &CStr {
        &self.short_name
    }

    /// Executes the program. It returns only if that is not possible, with the reason.
    pub(super) fn execute(&self) -> ChildReport {
        let mut leads_out = None;
        let mut reason = Errno::ENOENT;
        let mut program = self
            .arguments
            .first()
            .map(CString::as_c_str)
            .unwrap_or_default();
        for candidate in &self.candidates {
            if let Some(message) = why_outside(candidate) {
                leads_out.get_or_insert(ChildReport::Execve {
                    program: candidate.to_string_lossy().into_owned(),
                    message,
                    errno: Errno::ELOOP as i32,
                });
                continue;
            }
            let Err(errno) = execve(candidate, &self.arguments, &self.environment);
            match errno {
                // The search goes on as execvp(3)'s does: past what is not there, and past what
                // may not be executed, which is the reason if nothing better is found.
                Errno::ENOENT | Errno::ENOTDIR if !exists(candidate) => {}
                Errno::EACCES => (reason, program) = (errno, candidate),
                _ => {
                    (reason, program) = (errno, candidate);
                    break;
                }
            }
        }
        match (reason, leads_out) {
            (Errno::ENOENT, Some(report)) => report,
            _ => self.report(reason, program),
        }
    }

    fn report(&self, errno: Errno, program: &CStr) -> ChildReport {
        let name = program.to_string_lossy().into_owned();
        let found = exists(program);
        let message = match errno {
            Errno::ENOENT if found => match interpreter(Path::new(&name)) {
                Some(interpreter) => {
                    format!("its interpreter {} does not exist", interpreter.display())
                }
                None => "its dynamic loader does not exist".to_owned(),
            },
            Errno::ENOENT if self.candidates.len() > 1 => {
                // In these words engines look for it, to report 127.
                "executable file not found in $PATH".to_owned()
            }
            Errno::EACCES => self.why_denied(&name),
            Errno::ENOEXEC => {
                "not a program: neither an executable nor a script with #!".to_owned()
            }
            // no_new_privs keeps a process from labels that could give it more (execve(2)).
            Errno::EPERM if self.confinement.is_some() => format!(
                "{}: may it have {}?",
                errno.desc(),
                self.confinement.as_deref().unwrap_or_default()
            ),
            errno => errno.desc().to_owned(),
        };
        let message = if errno == Errno::ENOENT && !found && self.candidates.len() == 1 {
            "No such file or directory".to_owned()
        } else {
            message
        };
        ChildReport::Execve {
            program: name,
            message,
            errno: errno as i32,
        }
    }

    /// Why the process's user may not execute a program that is there, or not search for it.
    fn why_denied(&self, program: &str) -> String {
        let of_interpreter = || in_view::denial(&interpreter(Path::new(program))?);
        match in_view::denial(Path::new(program)).or_else(of_interpreter) {
            Some(denial) => format!("permission denied to user {} by {denial}", geteuid()),
            None => {
                let asked = self.confinement.as_ref();
                let asked =
                    asked.map_or_else(String::new, |what| format!(", and may it have {what}"));
                format!("permission denied: is it an executable file{asked}?")
            }
        }
    }
}

/// The profile and the label of a process, in words.
fn confinement(labels: &SecurityLabels) -> Option<String> {
    let named = |kind: &str, name: &Option<String>| Some(format!("the {kind} {}", name.as_ref()?));
    let profile = named("AppArmor profile", &labels.apparmor_profile);
    let label = named("SELinux label", &labels.selinux_label);
    let both: Vec<_> = profile.into_iter().chain(label).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

/// Why a program, or an interpreter that scripts lead to, is not one of the process's own view, if it
/// is not. The process has its user's rights by now, so what is swapped after this look is nothing that
/// the user could not execute, but for the monitor's program: that is on a read-only mount.
fn why_outside(program: &CStr) -> Option<String> {
    /// As many as the kernel follows (`exec_binprm`).
    const INTERPRETERS: usize = 5;
    let mut path = path_of(program).to_owned();
    let mut which = String::new();
    for _ in 0..=INTERPRETERS {
        // One that was handed over open is the process's own.
        if !own_descriptor(&path)
            && let Err(error) = in_view::open(&path)
            && in_view::leads_out(&error)
        {
            return Some(format!("{which}{error}"));
        }
        path = interpreter(&path)?;
        which = format!("its interpreter {}: ", path.display());
    }
    None
}

/// Whether this names one of the process's own descriptors, of which it has those alone that are
/// meant for it.
fn own_descriptor(path: &Path) -> bool {
    ["/dev/fd", "/proc/self/fd"].iter().any(|folder| {
        let rest = path.strip_prefix(folder).ok().and_then(Path::to_str);
        rest.is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

fn path_of(program: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(program.to_bytes()))
}

fn exists(program: &CStr) -> bool {
    path_of(program).exists()
}

/// The interpreter that a script's first line names.
fn interpreter(script: &Path) -> Option<PathBuf> {
    /// The kernel reads this much of the line (`BINPRM_BUF_SIZE`).
    const LINE: u64 = 256;
    let start = match own_descriptor(script) {
        true => read_start(script, LINE),
        false => in_view::read(script, LINE),
    };
    named_interpreter(&start.ok()?)
}

/// The interpreter that the start of a script names: what the kernel takes for one (`load_script` of
/// fs/binfmt_script.c), so that no other file is looked at than is executed. Only spaces and tabs separate it,
/// and a NUL ends it too.
fn named_interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?;
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = line.iter().position(|byte| !is_space(byte))?;
    let name = line[begin..]
        .split(|byte| is_space(byte) || matches!(byte, b'\0' | b'\n'))
        .next()
        .filter(|name| !name.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// Reads a regular file. A pipe that was handed over as the program is not waited for: the kernel refuses it.
fn read_start(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut start = Vec::new();
    file.take(limit).read_to_end(&mut start)?;
    Ok(start)
}

fn strings(texts: Vec<String>) -> io::Result<Vec<CString>> {
    texts
        .into_iter()
        .map(|text| CString::new(text).map_err(io::Error::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_pipe_that_was_handed_over_as_the_program_is_not_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        // As much as is read of a script, so that nothing waits for more.
        writer
            .write_all(format!("#!/x\n{:300}", "").as_bytes())
            .unwrap();
        let program = format!("/dev/fd/{}", reader.as_raw_fd());
        assert_eq!(interpreter(Path::new(&program)), None);
    }

    #[test]
    fn an_interpreter_is_what_the_kernel_takes_for_one() {
        for (start, expected) in [
            (&b"#!/bin/sh\necho"[..], Some(&b"/bin/sh"[..])),
            (b"#! \t/bin/sh -e\n", Some(b"/bin/sh")),
            (b"#!/bin/sh\t-e", Some(b"/bin/sh")),
            (b"#!/proc/self/exe\0 -e\n", Some(b"/proc/self/exe")),
            (b"#!/bin/sh\r\n", Some(b"/bin/sh\r")),
            (b"#!/bin/a\x0bb\n", Some(b"/bin/a\x0bb")),
            (
                "#!/bin/a\u{a0}b\n".as_bytes(),
                Some("/bin/a\u{a0}b".as_bytes()),
            ),
            (b"#!/bin/\xff\n", Some(b"/bin/\xff")),
            (b"#!  \n/bin/sh", None),
            (b"#!", None),
            (b"/bin/sh", None),
        ] {
            let expected = expected.map(|name| PathBuf::from(OsStr::from_bytes(name)));
            assert_eq!(named_interpreter(start), expected, "{start:?}");
        }
    }
}

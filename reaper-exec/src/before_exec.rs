//! What a command does in its child before its execve(2): its signals, its descriptors, its root.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    process::Command,
};

use crate::{
    descriptors::{duplicate_above, open_files},
    sys::{self, BeforeExec, before_exec},
};

/// Has `command` start with no signal blocked or ignored: the monitor blocks those that it waits
/// for, and may have been started by a program that ignores some.
pub(crate) fn reset_signals_before_exec(command: &mut Command) {
    before_exec(command, vec![BeforeExec::ResetSignals]);
}

/// Has `command` close what is open now, from the descriptor 6 on, before its execve(2): a child
/// has copies of all that the monitor holds, and a FIFO that the child has an end of seems to have
/// a reader. Close-on-exec comes too late, since the parent hears of the execve(2) while it is
/// being done.
///
/// Nothing of it may be closed until the command is spawned: the standard library's own pipe could
/// get its number. Another thread could open a file meanwhile, so in a
/// process with other threads nothing is done.
pub(crate) fn close_before_exec(command: &mut Command) -> io::Result<()> {
    if sys::is_single_threaded() {
        let mut open = open_files()?;
        open.retain(|&file| file > 5);
        before_exec(command, vec![BeforeExec::Close(open)]);
    }
    Ok(())
}

/// Has `command` get this directory as its root. Its working directory, which was set before, stays.
pub(crate) fn change_root_before_exec(
    command: &mut Command,
    root: BorrowedFd<'_>,
) -> io::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
    before_exec(command, vec![BeforeExec::ChangeRoot(path)]);
    Ok(())
}

/// Has `command` lead a session of its own and end with its parent, and has none of what is open now but
/// its standard streams.
pub(crate) fn separate_before_exec(command: &mut Command) -> io::Result<()> {
    let mut open = open_files()?;
    open.retain(|&file| file > 2);
    let steps = vec![
        BeforeExec::NewSession,
        BeforeExec::EndWithParent,
        // A pipe of the standard library's has the flag already.
        BeforeExec::CloseOnExec(open),
    ];
    before_exec(command, steps);
    Ok(())
}

/// Lets the command inherit `files` as descriptors 3, 4 and 5, and nothing else from 6 on, with no
/// signal blocked or ignored.
///
/// The returned descriptors must live until the command was spawned: they keep 3, 4 and 5 from
/// being used for the pipe by which the standard library reports a failing execve(2).
pub(crate) fn inherit_three(
    command: &mut Command,
    files: [OwnedFd; 3],
) -> io::Result<Vec<OwnedFd>> {
    const FIRST: RawFd = 6;
    let mut reserved = Vec::new();
    loop {
        let spare = duplicate_above(&files[0], 3)?;
        if spare.as_raw_fd() >= FIRST {
            break;
        }
        reserved.push(spare);
    }
    let [first, second, third] = files;
    // Above 5, so that no dup2(2) overwrites the source of the next.
    let files = [
        duplicate_above(first, FIRST)?,
        duplicate_above(second, FIRST)?,
        duplicate_above(third, FIRST)?,
    ];
    let steps = vec![
        BeforeExec::ResetSignals,
        BeforeExec::DuplicateFrom3(files),
        // Close-on-exec leaves the standard library's own pipe usable. A kernel without it has only
        // descriptors that were opened close-on-exec.
        BeforeExec::CloseOnExecFrom(FIRST),
    ];
    before_exec(command, steps);
    Ok(reserved)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::sys::alone;

    #[test]
    fn close_before_exec_closes_descriptors_of_the_parent() {
        alone(|| (0..20).for_each(|_| runs_without_the_pipe_of_its_parent()));
    }

    fn runs_without_the_pipe_of_its_parent() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        // Closing all of them takes the child a while.
        let writers: Vec<_> = (0..500).map(|_| writer.try_clone().unwrap()).collect();
        drop(writer);
        let mut command = Command::new("/bin/true");
        close_before_exec(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        drop(writers);
        let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).unwrap();
        let hung_up = ready[0].revents();
        assert!(child.wait().unwrap().success());
        assert_eq!(hung_up, Some(PollFlags::POLLHUP));
    }

    #[test]
    fn close_before_exec_keeps_error_for_missing_program() {
        alone(|| {
            let mut command = Command::new("/nonexistent");
            close_before_exec(&mut command).unwrap();
            let error = command.spawn().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        });
    }
}

//! A person at a terminal.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    containerd::locked,
    ctr::Output,
    runtime::{LIMIT, until},
};

/// A program on a terminal of its own, and somebody who reads and types.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    screen: Arc<(Mutex<Screen>, Condvar)>,
}

/// What has been printed.
#[derive(Debug, Default)]
struct Screen {
    bytes: Vec<u8>,
    /// Up to where it was expected already.
    seen: usize,
    closed: bool,
}

impl Terminal {
    /// Starts a program on a new terminal of 80 columns and 24 lines, which controls it.
    pub fn spawn(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("open a terminal");
        grantpt(&master).expect("grant the terminal");
        unlockpt(&master).expect("unlock the terminal");
        let name = ptsname(&master, Vec::new()).expect("name the terminal");
        let master = File::from(master);
        resize(&master, 80, 24);
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a name in UTF-8"))
            .expect("open the terminal's other side");
        let mut controlled = Command::new("setsid");
        controlled
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            controlled.env(key, value.unwrap_or_default());
        }
        let child = controlled
            .stdin(
                slave
                    .try_clone()
                    .expect("a second descriptor of the terminal"),
            )
            .stdout(
                slave
                    .try_clone()
                    .expect("a third descriptor of the terminal"),
            )
            .stderr(slave)
            .spawn()
            .expect("start a program on a terminal");
        // The command holds the other side until it is dropped, and there would be no end.
        drop(controlled);
        let screen = Arc::new((Mutex::new(Screen::default()), Condvar::new()));
        watch(
            master
                .try_clone()
                .expect("a second descriptor of the master"),
            Arc::clone(&screen),
        );
        Self {
            master,
            child,
            screen,
        }
    }

    /// Types something.
    pub fn send(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("type into the terminal");
    }

    /// Types something again and again until the text is printed: for a program that may not
    /// listen yet.
    #[track_caller]
    pub fn coax(&mut self, typed: &str, text: &str) {
        until(&format!("{text:?} is printed"), || {
            self.send(typed);
            self.wait_for(text, Duration::from_millis(200))
        });
    }

    /// Waits until the text is printed after what was expected before, and returns all up to it.
    #[track_caller]
    pub fn expect(&self, text: &str) -> String {
        self.wait_for(text, LIMIT).unwrap_or_else(|| {
            let screen = locked(&self.screen.0);
            let printed = String::from_utf8_lossy(&screen.bytes[screen.seen..]).into_owned();
            panic!("no {text:?} on the terminal, but {printed:?}")
        })
    }

    fn wait_for(&self, text: &str, limit: Duration) -> Option<String> {
        let (screen, changed) = &*self.screen;
        let find = |screen: &Screen| {
            screen.bytes[screen.seen..]
                .windows(text.len())
                .position(|window| window == text.as_bytes())
        };
        let guard = locked(screen);
        let (mut guard, _) = changed
            .wait_timeout_while(guard, limit, |screen| {
                find(screen).is_none() && !screen.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        let end = guard.seen + find(&guard)? + text.len();
        let passed = String::from_utf8_lossy(&guard.bytes[guard.seen..end]).into_owned();
        guard.seen = end;
        Some(passed)
    }

    /// Changes the size.
    pub fn resize(&self, columns: u16, lines: u16) {
        resize(&self.master, columns, lines);
    }

    /// Changes the size again and again until the text is printed: `ctr` passes the first size on before it
    /// asks for the signal of a change, and a change in between is lost.
    #[track_caller]
    pub fn resize_until(&self, columns: u16, lines: u16, text: &str) {
        until(&format!("{text:?} is printed"), || {
            // The kernel signals a change alone.
            self.resize(columns - 1, lines);
            self.resize(columns, lines);
            self.wait_for(text, Duration::from_millis(200))
        });
    }

    /// Waits for the program's end; the output is all that was printed.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let status = until("the program on the terminal ends", || {
            self.child.try_wait().expect("wait for the program")
        });
        let (screen, changed) = &*self.screen;
        let (guard, _) = changed
            .wait_timeout_while(locked(screen), LIMIT, |screen| !screen.closed)
            .unwrap_or_else(PoisonError::into_inner);
        Output::from(std::process::Output {
            status,
            stdout: guard.bytes.clone(),
            stderr: Vec::new(),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: &File, columns: u16, lines: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: lines,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).expect("size the terminal");
}

/// Collects what is printed until the terminal is hung up, which reads as EIO.
fn watch(mut master: File, screen: Arc<(Mutex<Screen>, Condvar)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let read = master.read(&mut buffer).unwrap_or(0);
            let (screen, changed) = &*screen;
            let mut screen = locked(screen);
            screen.bytes.extend_from_slice(&buffer[..read]);
            screen.closed = read == 0;
            changed.notify_all();
            if read == 0 {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_answers_sees_its_size_and_ends_with_its_code() {
        let mut terminal = Terminal::spawn(Command::new("sh").env("PS1", "ready> "));
        terminal.expect("ready> ");
        terminal.resize(132, 43);
        terminal.send("stty size\n");
        terminal.expect("43 132");
        terminal.send("exit 7\n");
        assert_eq!(terminal.finish().code, 7);
    }
}

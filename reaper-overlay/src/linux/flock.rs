//! Locks on files that may be removed.
//!
//! flock(2), since the kernel releases it when a process is killed. A holder may remove the file:
//! who waits for it would get a lock on a file that no other process can open, so after locking the
//! path is looked up again, and the lock taken anew if it names another file.
//!
//! flock(2) has no time limit, and a holder that is stopped holds on. So a lock that is held is asked for
//! again and again, with pauses. Many may wait for one lock, each of which has it for a moment: the limit is
//! how long one holder has it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock, fstat, major, minor},
    io::Errno,
};

use crate::contract::{Context, Error};

/// How long one holder of a lock is waited for. The longest to have one makes a scope, which takes
/// seconds on a slow machine with hundreds of mounts, and half a minute where hundreds of others start on it.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a process that ends may hold a lock after another one that it had.
const ENDING: Duration = Duration::from_secs(5);

/// The first pause, which doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(200);
/// With hundreds that wait, shorter ones would take the processor from the holder.
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// How often the holder is looked up meanwhile.
const LOOK_EACH: Duration = Duration::from_millis(500);

/// A lock that is held until it is dropped, or until the process ends however it ends. A forked
/// child holds it too, until it has ended as well.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With others that share it; waits for one that holds it alone.
    Shared,
    /// Alone; waits for all others.
    Exclusive,
}

impl Mode {
    fn operation(self) -> FlockOperation {
        match self {
            Self::Shared => FlockOperation::NonBlockingLockShared,
            Self::Exclusive => FlockOperation::NonBlockingLockExclusive,
        }
    }
}

/// How long a lock that is held is waited for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    No,
    /// As long as no process holds it for longer.
    Within(Duration),
}

impl Lock {
    /// Takes the lock named by the file `path`, which is made if it is missing. A process that holds it
    /// for longer than a minute is named in the error (`TimedOut`).
    pub(crate) fn take(path: &Path, mode: Mode) -> Result<Self, Error> {
        Self::take_within(path, mode, LIMIT)
    }

    fn take_within(path: &Path, mode: Mode, limit: Duration) -> Result<Self, Error> {
        let wait = Wait::Within(limit);
        match Self::attempt_on(path, mode, wait, || open_or_make(path))? {
            Some(lock) => Ok(lock),
            None => Err(io::Error::from(io::ErrorKind::WouldBlock)).context("lock", path),
        }
    }

    /// Takes the lock exclusively if no other process holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, Error> {
        Self::attempt_on(path, Mode::Exclusive, Wait::No, || open_or_make(path))
    }

    /// Takes a lock on the directory `path`, which exists: exclusively if no other process keeps it,
    /// shared once none holds it exclusively. A process that ends gives its locks back one after another, so
    /// one that has given back what it is known by may hold this one for another moment, which is waited for.
    pub(crate) fn directory(path: &Path, mode: Mode) -> Result<Option<Self>, Error> {
        let limit = match mode {
            Mode::Shared => LIMIT,
            Mode::Exclusive => ENDING,
        };
        match Self::attempt_on(path, mode, Wait::Within(limit), || File::open(path)) {
            Err(error) if mode == Mode::Exclusive && error.is_timeout() => Ok(None),
            taken => taken,
        }
    }

    /// Lets others share a lock that was held exclusively.
    pub(crate) fn share(self) -> io::Result<Self> {
        // Another process that waits for it may get it in between.
        lock(&self.file, Mode::Shared, Wait::Within(LIMIT)).map(|_| self)
    }

    fn attempt_on(
        path: &Path,
        mode: Mode,
        wait: Wait,
        open: impl Fn() -> io::Result<File>,
    ) -> Result<Option<Self>, Error> {
        loop {
            let file = open().context("open the lock", path)?;
            if !lock(&file, mode, wait).context("lock", path)? {
                return Ok(None);
            }
            // The last holder may have removed the file: a lock on a removed file guards nothing.
            let mine = file.metadata().context("stat the lock", path)?;
            match fs::metadata(path) {
                Ok(there) if (there.dev(), there.ino()) == (mine.dev(), mine.ino()) => {
                    return Ok(Some(Self { file }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("stat the lock", path),
            }
        }
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Locks an open file of which those who keep to the rules release their locks in a moment; it fails with
/// `TimedOut` if a process keeps one for longer than `limit`.
pub(crate) fn lock_open_within(file: &impl AsFd, mode: Mode, limit: Duration) -> io::Result<()> {
    lock(file, mode, Wait::Within(limit)).map(drop)
}

/// Locks an open file without waiting. Returns whether it is locked now.
pub(crate) fn try_lock_open(file: &impl AsFd, mode: Mode) -> io::Result<bool> {
    lock(file, mode, Wait::No)
}

/// Locks an open file. Returns false if it is held and `wait` says not to wait.
fn lock(file: &impl AsFd, mode: Mode, wait: Wait) -> io::Result<bool> {
    let mut pause = FIRST_PAUSE;
    let mut held: Option<Held> = None;
    loop {
        match flock(file, mode.operation()) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(errno.into()),
        }
        let Wait::Within(limit) = wait else {
            return Ok(false);
        };
        let now = Instant::now();
        let held = held.get_or_insert_with(|| Held::new(holder(file), now));
        if now.duration_since(held.looked) >= LOOK_EACH.min(limit) {
            held.look(holder(file), now);
            if now.duration_since(held.since) >= limit {
                return Err(held.too_long(limit));
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Who holds a lock that is waited for.
struct Held {
    /// Missing where it cannot be told.
    by: Option<u32>,
    since: Instant,
    looked: Instant,
}

impl Held {
    fn new(by: Option<u32>, now: Instant) -> Self {
        Self {
            by,
            since: now,
            looked: now,
        }
    }

    /// The lock is held by `by` now.
    fn look(&mut self, by: Option<u32>, now: Instant) {
        if self.by == by {
            self.looked = now;
        } else {
            *self = Self::new(by, now);
        }
    }

    fn too_long(&self, limit: Duration) -> io::Error {
        let by = match self.by {
            Some(pid) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("process {pid} ({})", name.trim_end())
            }
            None => "another process".to_owned(),
        };
        let reason = format!("{by} has it locked for more than {limit:?}");
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }
}

/// The process that has an open file locked, as `/proc/locks` says.
fn holder(file: &impl AsFd) -> Option<u32> {
    let stat = fstat(file).ok()?;
    // The kernel writes the device in hexadecimal.
    let (major, minor) = (major(stat.st_dev), minor(stat.st_dev));
    let named = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // `1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF`; one that waits has `->` after the number.
        let (kind, pid, file) = (fields.get(1)?, fields.get(4)?, fields.get(5)?);
        (*kind == "FLOCK" && *file == named).then(|| pid.parse().ok())?
    })
}

/// Whether a process holds the lock `path`. A file that is missing is not locked.
pub(crate) fn is_held(path: &Path) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("open the lock", path),
    };
    let free = try_lock_open(&file, Mode::Exclusive).context("ask for the lock", path)?;
    Ok(!free)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that another test forks has a copy of the lock until it executes its program.
    fn wait_until_free(path: &Path) {
        let start = Instant::now();
        while is_held(path).unwrap() {
            assert!(start.elapsed() < LIMIT, "the lock is not given back");
            thread::yield_now();
        }
    }

    #[test]
    fn lock_is_held_by_one_exclusive_or_many_shared_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path, Mode::Shared).unwrap();
        let second = Lock::take(&path, Mode::Shared).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop((first, second));
        wait_until_free(&path);
        let alone = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(is_held(&path).unwrap());
        drop(alone);
        wait_until_free(&path);
    }

    #[test]
    fn a_directory_that_a_process_is_about_to_give_back_is_locked_alone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let leaving = Lock::directory(dir.path(), Mode::Shared).unwrap().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let waiter = thread::spawn({
            let path = dir.path().to_owned();
            move || {
                tell.send(rustix::thread::gettid()).unwrap();
                Lock::directory(&path, Mode::Exclusive).unwrap().is_some()
            }
        });
        let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap());
        let waits = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "));
        while !waiter.is_finished() && !waits() {
            thread::yield_now();
        }
        drop(leaving);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn lock_waiter_locks_new_file_when_old_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let holder = Lock::take(&path, Mode::Exclusive).unwrap();
        let waiter = thread::spawn({
            let path = path.clone();
            move || Lock::take(&path, Mode::Exclusive).unwrap()
        });
        fs::remove_file(&path).unwrap();
        drop(holder);
        let _waited = waiter.join().unwrap();
        assert!(
            Lock::try_exclusive(&path).unwrap().is_none(),
            "the waiter's lock is on this file"
        );
    }

    #[test]
    fn a_lock_that_is_not_released_is_an_error_that_names_the_process_that_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let holder = Lock::take(&path, Mode::Exclusive).unwrap();
        for mode in [Mode::Shared, Mode::Exclusive] {
            let error = Lock::take_within(&path, mode, Duration::from_millis(1)).unwrap_err();
            let held = format!("lock {}: process {} (", path.display(), std::process::id());
            assert!(error.to_string().starts_with(&held), "{error}");
        }
        drop(holder);
        wait_until_free(&path);
        Lock::take_within(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    }

    #[test]
    fn the_limit_is_that_of_one_holder() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut held = Held::new(Some(1), start);
        held.look(Some(1), at(5));
        assert_eq!((held.since, held.looked), (start, at(5)));
        held.look(Some(2), at(6));
        assert_eq!((held.since, held.looked), (at(6), at(6)));
    }
}

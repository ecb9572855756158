//! What has been done to containers, counted over the lives of the programs that do it.
//!
//! A record tells what a container is, and goes with it; the programs that make containers end as well. So the
//! counts are in a file below the state root, which every program maps and adds to: a page of numbers, each
//! changed by one atomic instruction. No lock can be left behind or held up, a kill loses nothing that was counted,
//! and the file never grows. As the rest of the state root it does not outlive the machine, which Prometheus takes
//! for the reset of a counter.
//!
//! Counting begins when [`Metrics::open`] is first called. Until then an operation costs one `open` that fails.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reaper_state::{StateRoot, durable};

use super::error::Error;
use crate::{executor::Error as ExecutorError, sys::MappedNumbers};

/// No container's id begins with a dot.
const FILE: &str = ".metrics";
/// The first number, which says what the others are.
const VERSION: u64 = u64::from_le_bytes(*b"reaper.1");
/// The place of the number of seconds since 1970 at which the counting began.
const BEGAN: usize = 1;
/// The place of the first operation's numbers.
const FIRST: usize = 2;
/// The upper bounds of the durations that are counted apart, in microseconds.
const BOUNDS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
/// What failed, in the words of the label.
const STEPS: [&str; 17] = [
    "exec",
    "directory",
    "streams",
    "hooks",
    "cgroup",
    "seccomp",
    "namespaces",
    "user",
    "filesystem",
    "setup",
    "policy",
    "unsupported",
    "monitor",
    "state",
    "refused",
    GIVEN_UP,
    "other",
];
/// The client did not wait for the end.
const GIVEN_UP: &str = "given_up";
/// The durations, those longer than all bounds, their sum in microseconds, and the failures.
const NUMBERS: usize = BOUNDS.len() + 2 + STEPS.len();

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Start,
    Delete,
}

const OPERATIONS: [(Operation, &str); 3] = [
    (Operation::Create, "create"),
    (Operation::Start, "start"),
    (Operation::Delete, "delete"),
];

/// The counts of a state root, and of all containerd namespaces below it.
#[derive(Debug)]
pub struct Metrics(MappedNumbers);

/// What has been counted of one operation on containers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationMetrics {
    /// `create`, `start` or `delete`.
    pub operation: &'static str,
    /// How many took at most so long, for each bound, and longer than the one before. Those that failed are not
    /// among them.
    pub durations: Vec<(Duration, u64)>,
    /// How many took longer than all bounds.
    pub longer: u64,
    /// How long all took together that did not fail.
    pub total: Duration,
    /// How many failed, by what failed: a fixed set of words.
    pub failures: Vec<(&'static str, u64)>,
}

impl Metrics {
    /// The counts below `root`. If there are none, counting begins.
    ///
    /// # Errors
    /// The file cannot be made or mapped; it is of another version.
    pub fn open(root: &StateRoot) -> io::Result<Self> {
        let path = path(root);
        let opened = match map(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&path)?;
                map(&path)
            }
            opened => opened,
        };
        opened.map(Self)
    }

    /// When the counting began.
    pub fn began(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.get(BEGAN))
    }

    /// What has been counted, of every operation.
    pub fn operations(&self) -> Vec<OperationMetrics> {
        let of = |(number, (_, operation)): (usize, &(Operation, &'static str))| {
            let first = FIRST + number * NUMBERS;
            let bounds = BOUNDS.iter().enumerate();
            let failures = first + BOUNDS.len() + 2;
            let steps = STEPS.iter().enumerate();
            OperationMetrics {
                operation,
                durations: bounds
                    .map(|(place, bound)| (Duration::from_micros(*bound), self.get(first + place)))
                    .collect(),
                longer: self.get(first + BOUNDS.len()),
                total: Duration::from_micros(self.get(first + BOUNDS.len() + 1)),
                failures: steps
                    .map(|(place, step)| (*step, self.get(failures + place)))
                    .collect(),
            }
        };
        OPERATIONS.iter().enumerate().map(of).collect()
    }

    fn get(&self, place: usize) -> u64 {
        number(&self.0, place).load(Ordering::Relaxed)
    }

    fn count(&self, operation: Operation, took: Duration, failed: Option<&str>) {
        let known = OPERATIONS.iter().position(|(known, _)| *known == operation);
        let first = FIRST + known.unwrap_or_default() * NUMBERS;
        let add = |place, more| {
            number(&self.0, first + place).fetch_add(more, Ordering::Relaxed);
        };
        if let Some(step) = failed {
            let place = STEPS.iter().position(|known| *known == step);
            return add(BOUNDS.len() + 2 + place.unwrap_or(STEPS.len() - 1), 1);
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.iter().position(|bound| took <= *bound);
        add(place.unwrap_or(BOUNDS.len()), 1);
        add(BOUNDS.len() + 1, took);
    }
}

/// An operation that is under way. A client may give it up, by a deadline of its own: it has failed then.
#[derive(Debug)]
pub(super) struct Counting<'a> {
    root: &'a StateRoot,
    operation: Operation,
    since: Instant,
    is_over: bool,
}

impl<'a> Counting<'a> {
    pub(super) fn begin(root: &'a StateRoot, operation: Operation) -> Self {
        Self {
            root,
            operation,
            since: Instant::now(),
            is_over: false,
        }
    }

    /// Counts it by its outcome, which it returns.
    pub(super) fn end<T>(mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.is_over = true;
        // There was nothing to start or to delete.
        let is_missing =
            |error: &Error| matches!(error, Error::Store(reaper_state::Error::NotFound { .. }));
        match &outcome {
            Ok(_) => self.count(None),
            Err(error) if is_missing(error) => {}
            Err(error) => self.count(Some(step(error))),
        }
        outcome
    }

    /// Where that is not possible the operation has succeeded or failed nevertheless.
    fn count(&self, failed: Option<&str>) {
        match map(&path(self.root)) {
            Ok(numbers) => Metrics(numbers).count(self.operation, self.since.elapsed(), failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!("count what was done: {error}"),
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.count(Some(GIVEN_UP));
        }
    }
}

/// One file for all namespaces of containerd's.
fn path(root: &StateRoot) -> PathBuf {
    let path = root.path();
    let above = path.parent().filter(|above| above.ends_with("ns"));
    above.and_then(Path::parent).unwrap_or(path).join(FILE)
}

fn number(numbers: &MappedNumbers, place: usize) -> &AtomicU64 {
    &numbers.numbers()[place]
}

fn map(path: &Path) -> io::Result<MappedNumbers> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let numbers = MappedNumbers::of(&file)?;
    let version = number(&numbers, 0).load(Ordering::Relaxed);
    if version != VERSION {
        let text = format!("{} is of another version", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(numbers)
}

/// Makes the file, whole. Where two programs do, one of them is in time.
fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        durable::create_dir_all(folder)?;
    }
    // A thread's number is no other thread's, of any process.
    let thread = rustix::thread::gettid();
    let staged = path.with_extension(thread.as_raw_nonzero().to_string());
    let file = match create(&staged) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Of a thread that had this number, and was killed.
            fs::remove_file(&staged)?;
            create(&staged)?
        }
        created => created?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let written = file
        .set_len(MappedNumbers::BYTES as u64)
        .and_then(|()| file.write_all_at(&VERSION.to_ne_bytes(), 0))
        .and_then(|()| file.write_all_at(&now.unwrap_or_default().as_secs().to_ne_bytes(), 8))
        .and_then(|()| fs::hard_link(&staged, path));
    fs::remove_file(&staged)?;
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written,
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path)
}

/// What failed, in a word of [`STEPS`].
fn step(error: &Error) -> &'static str {
    match error {
        Error::Policy(_) => "policy",
        Error::Store(reaper_state::Error::AlreadyExists { .. }) => "refused",
        Error::Store(_) | Error::Folder { .. } => "state",
        Error::Transition { .. } | Error::NotStopped { .. } | Error::DeletedMeanwhile { .. } => {
            "refused"
        }
        Error::Executor(error) => match error {
            ExecutorError::Setup { step, .. } => setup_step(step),
            ExecutorError::Execve { .. } => "exec",
            ExecutorError::Unsupported { .. } => "unsupported",
            ExecutorError::Unresponsive { .. } | ExecutorError::Monitor { .. } => "monitor",
            ExecutorError::NotFound(_)
            | ExecutorError::AlreadyExists(_)
            | ExecutorError::Ended(_)
            | ExecutorError::Status { .. } => "refused",
            ExecutorError::Io { .. } => "other",
        },
    }
}

/// Steps are sentences for people, with paths in them. These words tell what they are about, the first of them that
/// is found.
const WORDS: [(&str, &str); 27] = [
    ("directory", "directory"),
    ("hook", "hooks"),
    ("fifo", "streams"),
    ("stream", "streams"),
    ("terminal", "streams"),
    ("stdin", "streams"),
    ("stdout", "streams"),
    ("stderr", "streams"),
    ("logger", "streams"),
    ("descriptor", "streams"),
    ("cgroup", "cgroup"),
    ("seccomp", "seccomp"),
    ("namespace", "namespaces"),
    ("sysctl", "namespaces"),
    ("user", "user"),
    ("group", "user"),
    ("capabilit", "user"),
    ("no_new_privs", "user"),
    ("apparmor", "user"),
    ("selinux", "user"),
    ("overlay", "filesystem"),
    ("mount", "filesystem"),
    ("volume", "filesystem"),
    ("bind", "filesystem"),
    ("root", "filesystem"),
    ("view", "filesystem"),
    ("scope", "filesystem"),
];

fn setup_step(step: &str) -> &'static str {
    let spoken = step.split_whitespace().filter(|word| !word.contains('/'));
    let spoken = spoken.collect::<Vec<_>>().join(" ").to_lowercase();
    let known = WORDS.iter().find(|(word, _)| spoken.contains(word));
    known.map_or("setup", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts an operation that has ended so.
    fn count(root: &StateRoot, operation: Operation, outcome: Result<(), Error>) {
        let _ = Counting::begin(root, operation).end(outcome);
    }

    fn setup(step: &str) -> Error {
        Error::Executor(ExecutorError::Setup {
            step: step.to_owned(),
            message: "no".to_owned(),
            errno: None,
        })
    }

    #[test]
    fn nothing_is_counted_or_made_before_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::new(folder.path());
        count(&root, Operation::Start, Ok(()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let metrics = Metrics::open(&root).unwrap();
        assert!(metrics.began() <= SystemTime::now());
        count(&root, Operation::Start, Ok(()));
        // Of a namespace of containerd's.
        let below = root.containerd_namespace("k8s.io");
        count(&below, Operation::Start, Ok(()));
        let failed = setup("enter the directory /fifo");
        count(&below, Operation::Start, Err(failed));
        let missing = reaper_state::Error::NotFound {
            id: reaper_spec::ContainerId::new("x").unwrap(),
        };
        count(&below, Operation::Start, Err(missing.into()));
        drop(Counting::begin(&root, Operation::Create));
        let mut slow = Counting::begin(&root, Operation::Delete);
        slow.since = slow.since.checked_sub(Duration::from_secs(7)).unwrap();
        slow.end(Ok(())).unwrap();
        let operations = Metrics::open(&root).unwrap().operations();
        let [create, start, delete] = &operations[..] else {
            panic!("{operations:?}")
        };
        let counted = |it: &OperationMetrics| it.durations.iter().map(|it| it.1).sum::<u64>();
        let failed = |it: &OperationMetrics| it.failures.iter().map(|it| it.1).sum::<u64>();
        assert_eq!((counted(create), create.longer, failed(create)), (0, 0, 1));
        assert!(create.failures.contains(&(GIVEN_UP, 1)));
        assert_eq!((counted(start), start.longer, failed(start)), (2, 0, 1));
        assert!(start.failures.contains(&("directory", 1)));
        assert_eq!((counted(delete), delete.longer), (0, 1));
        assert!(delete.total >= Duration::from_secs(7));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn programs_that_count_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::new(folder.path());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    Metrics::open(&root).unwrap();
                    for _ in 0..500 {
                        count(&root, Operation::Create, Ok(()));
                    }
                });
            }
        });
        let operations = Metrics::open(&root).unwrap().operations();
        let counted: u64 = operations[0].durations.iter().map(|it| it.1).sum();
        assert_eq!(counted + operations[0].longer, 2000);
    }

    #[test]
    fn a_file_that_is_not_of_this_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::new(folder.path());
        for contents in [&b""[..], b"short", &[7; 4096], &[7; 5000]] {
            let file = folder.path().join(FILE);
            fs::write(&file, contents).unwrap();
            Metrics::open(&root).unwrap_err();
            count(&root, Operation::Create, Ok(()));
            assert_eq!(fs::read(&file).unwrap(), contents);
        }
        assert!(FIRST + OPERATIONS.len() * NUMBERS <= MappedNumbers::BYTES / 8);
    }

    #[test]
    fn failures_are_told_apart_by_a_fixed_set_of_words() {
        for (text, expected) in [
            ("enter the directory /srv/stdout", "directory"),
            ("open the stdout FIFO /run/mount/x", "streams"),
            ("run the createRuntime hook /opt/cgroup", "hooks"),
            ("set the supplementary groups", "user"),
            ("join the cgroup /kubepods", "cgroup"),
            ("mount /data", "filesystem"),
            ("set RLIMIT_NOFILE", "setup"),
        ] {
            assert_eq!(step(&setup(text)), expected, "{text}");
        }
        assert!(WORDS.iter().all(|(_, label)| STEPS.contains(label)));
        let exec = ExecutorError::Execve {
            program: "x".to_owned(),
            message: String::new(),
            errno: 2,
        };
        assert_eq!(step(&Error::Executor(exec)), "exec");
    }
}

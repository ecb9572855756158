//! The steps of a trial, each with its limit of time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use reaper_exec::{Error as ExecutorError, engine::Error as EngineError};
use reaper_state::Error as StoreError;
use tokio::{sync::oneshot, time::timeout};

use super::super::super::finding::Step;
use crate::error::Error;

/// How long one step may take. A container takes milliseconds, on a slow machine a second.
const LIMIT: Duration = Duration::from_secs(20);

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) errno: Option<i32>,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            errno: None,
        }
    }

    /// A file operation or a system call.
    pub(super) fn io(operation: &str, error: &std::io::Error) -> Self {
        Self::from_message(&format!("{operation}: {error}"), error.raw_os_error())
    }

    /// With the name of the error number instead of the number, which many messages end with. What a
    /// monitor reports of its helpers has it in the text alone.
    fn from_message(message: &str, errno: Option<i32>) -> Self {
        const NUMBER: &str = " (os error ";
        let message = message.replace('\n', "; ");
        let Some((text, rest)) = message.split_once(NUMBER) else {
            return Self { message, errno };
        };
        let (number, rest) = rest.split_once(')').unwrap_or((rest, ""));
        Self {
            message: format!("{text}{rest}"),
            errno: errno.or_else(|| number.parse().ok()),
        }
    }

    fn late() -> Self {
        Self {
            message: format!("it did not end within {} s", LIMIT.as_secs()),
            errno: Some(nix::libc::ETIMEDOUT),
        }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Self::from_message(&error.to_string(), errno(&error))
    }
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Io { source, .. }
        | Error::Store(StoreError::Io { source, .. })
        | Error::Engine(
            EngineError::Folder { source, .. } | EngineError::Store(StoreError::Io { source, .. }),
        ) => source.raw_os_error(),
        Error::Overlay(error) => error.errno(),
        Error::Engine(EngineError::Executor(error)) | Error::Executor(error) => match error {
            ExecutorError::Setup { errno, .. } => *errno,
            ExecutorError::Execve { errno, .. } => Some(*errno),
            ExecutorError::Io { source, .. } => source.raw_os_error(),
            _ => None,
        },
        _ => None,
    }
}

/// What was done, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Steps {
    done: Vec<Step>,
    failure: Option<(&'static str, Failure)>,
    remarks: Vec<String>,
    current: &'static str,
    over_overlay: bool,
}

impl Steps {
    /// Does one step, within the limit.
    pub(super) async fn step<T>(
        steps: &Mutex<Self>,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, ()> {
        lock(steps).current = name;
        let begun = Instant::now();
        let result = timeout(LIMIT, work)
            .await
            .unwrap_or_else(|_| Err(Failure::late()));
        lock(steps).note(name, begun.elapsed(), result)
    }

    /// The step that is being done has failed.
    pub(super) fn failed(steps: &Mutex<Self>, failure: Failure) {
        let mut steps = lock(steps);
        let name = steps.current;
        let _ = steps.note::<()>(name, Duration::ZERO, Err(failure));
    }

    /// What could not be tried here, though all is well.
    pub(super) fn remark(steps: &Mutex<Self>, remark: impl Into<String>) {
        lock(steps).remarks.push(remark.into());
    }

    /// That an overlay is part of it.
    pub(super) fn over_overlay(steps: &Mutex<Self>) {
        lock(steps).over_overlay = true;
    }

    fn note<T>(
        &mut self,
        step: &'static str,
        time: Duration,
        result: Result<T, Failure>,
    ) -> Result<T, ()> {
        let failure = result.as_ref().err();
        self.done.push(Step {
            step,
            milliseconds: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            error: failure.map(|failure| failure.message.clone()),
            errno: failure.and_then(|failure| failure.errno),
        });
        result.map_err(|failure| {
            self.failure.get_or_insert((step, failure));
        })
    }

    pub(super) fn done(&self) -> &[Step] {
        &self.done
    }

    pub(super) fn first_failure(&self) -> Option<(&'static str, &Failure)> {
        self.failure
            .as_ref()
            .map(|(step, failure)| (*step, failure))
    }

    pub(super) fn what(&self) -> &'static str {
        if self.over_overlay {
            "a scope, a container, an exec and their removal"
        } else {
            "a container, an exec and their removal"
        }
    }

    pub(super) fn remarks(&self) -> String {
        let remarks = self.remarks.iter();
        remarks.map(|remark| format!("; {remark}")).collect()
    }
}

fn lock(steps: &Mutex<Steps>) -> MutexGuard<'_, Steps> {
    // It is whole after any panic: each change of it is one call.
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what may block, in a thread that this program does not wait for: a hung filesystem must not
/// keep it from ending.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (answer, receiver) = oneshot::channel();
    thread::spawn(move || {
        // The receiver is gone if the limit is over.
        let _ = answer.send(work());
    });
    receiver
        .await
        .unwrap_or_else(|_| Err(Failure::new("this program panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_step_that_hangs_is_a_failure_with_its_name() {
        let steps = Mutex::default();
        let hung = Steps::step(
            &steps,
            "hang",
            std::future::pending::<Result<(), Failure>>(),
        );
        assert!(runtime().block_on(hung).is_err());
        let steps = lock(&steps);
        let (step, failure) = steps.first_failure().unwrap();
        assert_eq!(step, "hang");
        assert_eq!(failure.errno, Some(nix::libc::ETIMEDOUT));
        assert_eq!(steps.done().len(), 1);
    }

    #[test]
    fn the_error_number_is_taken_out_of_the_text() {
        let failure = Failure::from_message("mount x: Invalid argument (os error 22); more", None);
        assert_eq!(failure.message, "mount x: Invalid argument; more");
        assert_eq!(failure.errno, Some(nix::libc::EINVAL));
        assert_eq!(Failure::from_message("odd", None).errno, None);
    }

    #[test]
    fn first_failure_is_the_earliest_failed_step() {
        let steps = Mutex::default();
        let work = async {
            let _ = Steps::step(&steps, "one", async { Ok(()) }).await;
            let _ = Steps::step::<()>(&steps, "two", async { Err(Failure::new("x")) }).await;
            let _ = Steps::step::<()>(&steps, "three", async { Err(Failure::new("y")) }).await;
        };
        runtime().block_on(work);
        let steps = lock(&steps);
        assert_eq!(steps.first_failure().unwrap().0, "two");
        let errors: Vec<_> = steps.done().iter().map(|step| step.error.clone()).collect();
        assert_eq!(errors, [None, Some("x".to_owned()), Some("y".to_owned())]);
    }
}

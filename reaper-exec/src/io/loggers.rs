//! The loggers of one process.

use std::{
    os::fd::{BorrowedFd, RawFd},
    time::Instant,
};

use nix::poll::PollFlags;

use super::{contract::IoError, logger::Logger};

/// The loggers of one process: none, one for both outputs, or one for each.
#[derive(Debug, Default)]
pub(super) struct Loggers(Vec<Logger>);

impl Loggers {
    pub(super) fn push(&mut self, logger: Logger) {
        self.0.push(logger);
    }

    /// Everything else is bound too: the monitor reaps these loggers from now on.
    pub(super) fn bound(mut self) -> Self {
        for logger in &mut self.0 {
            logger.bound();
        }
        self
    }

    pub(super) fn interests<'a>(&'a self, wanted: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        let waiting = self.0.iter().filter_map(Logger::interest);
        wanted.extend(waiting.map(|fd| (fd, PollFlags::POLLIN)));
    }

    pub(super) fn ready(&mut self, fd: RawFd) {
        for logger in &mut self.0 {
            logger.ready(fd);
        }
    }

    /// Whether all have said that they are ready.
    pub(super) fn are_ready(&self) -> Result<bool, IoError> {
        let mut ready = true;
        for logger in &self.0 {
            ready &= logger.is_ready()?;
        }
        Ok(ready)
    }

    pub(super) fn finish(&mut self) {
        for logger in &mut self.0 {
            logger.finish();
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(Logger::deadline).min()
    }

    pub(super) fn timeout(&mut self) {
        for logger in &mut self.0 {
            logger.timeout();
        }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.0.iter().filter_map(Logger::pid).collect()
    }

    pub(super) fn reaped(&mut self, pid: u32) {
        for logger in &mut self.0 {
            logger.reaped(pid);
        }
    }

    pub(super) fn are_ended(&self) -> bool {
        self.0.iter().all(Logger::is_ended)
    }
}

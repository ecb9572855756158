//! How long the monitor waits for processes that it has killed.
//!
//! A process in an uninterruptible sleep must not hold back an exit, so there is a limit. Thousands of
//! processes on a busy machine need longer than one, so each that ends gives the others the same time again.

use std::time::{Duration, Instant};

/// How long all may take together, unless the limit for one is longer.
const MOST: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KillDeadline {
    at: Instant,
    limit: Duration,
    latest: Instant,
}

impl KillDeadline {
    /// Processes were killed `now`, of which one is to end within `limit`.
    pub(crate) fn new(now: Instant, limit: Duration) -> Self {
        Self {
            at: now + limit,
            limit,
            latest: now + limit.max(MOST),
        }
    }

    /// When to stop waiting.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// One of the processes has ended `now`.
    pub(crate) fn progressed(&mut self, now: Instant) {
        self.at = self.at.max((now + self.limit).min(self.latest));
    }

    /// Has it not end before `at`.
    pub(crate) fn extend_to(&mut self, at: Instant) {
        self.at = self.at.max(at);
        self.latest = self.latest.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_go_on_ending_are_waited_for_but_not_for_ever() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut deadline = KillDeadline::new(start, Duration::from_secs(5));
        assert_eq!(deadline.at(), after(5));
        deadline.progressed(after(3));
        assert_eq!(deadline.at(), after(8));
        deadline.progressed(after(28));
        assert_eq!(deadline.at(), after(30));
        deadline.extend_to(after(60));
        assert_eq!(deadline.at(), after(60));
        deadline.progressed(after(31));
        assert_eq!(deadline.at(), after(60));
        let deadline = KillDeadline::new(start, Duration::from_secs(60));
        assert_eq!(deadline.at(), after(60));
    }
}

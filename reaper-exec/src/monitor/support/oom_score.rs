//! The monitor's adjustment of the OOM killer, and what it was before.

use std::io;

/// What a lower adjustment makes the OOM killer choose last, short of never.
pub(crate) const OOM_SCORE_ADJ: &str = "-999";

/// Where a process finds and sets its adjustment.
pub(crate) const OWN_OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Returns what the adjustment was, if it was changed: the workload gets that.
pub(crate) fn lower_oom_score() -> Option<i32> {
    let before = std::fs::read_to_string(OWN_OOM_SCORE_ADJ);
    let before = before.ok()?.trim().parse().ok()?;
    // Without CAP_SYS_RESOURCE it is refused; the monitor is then as likely a victim as others.
    std::fs::write(OWN_OOM_SCORE_ADJ, OOM_SCORE_ADJ).ok()?;
    Some(before)
}

/// Starts a program with another adjustment of the OOM killer than the monitor's own.
pub(crate) fn with_adjustment<T>(
    adjustment: Option<i32>,
    start: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(adjustment) = adjustment else {
        return start();
    };
    // A lower value than the monitor was started with may be refused; the program then gets the
    // monitor's.
    let _ = std::fs::write(OWN_OOM_SCORE_ADJ, adjustment.to_string());
    let started = start();
    let _ = std::fs::write(OWN_OOM_SCORE_ADJ, OOM_SCORE_ADJ);
    started
}

//! The monitor's adjustment of the OOM killer, and what it was before.

use std::io;

/// The monitor's adjustment: the OOM killer chooses it last, but it is not exempt (-1000).
pub(crate) const OOM_SCORE_ADJ: &str = "-999";

/// The file of the calling process's adjustment, see proc(5).
pub(crate) const OWN_OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Lowers the monitor's adjustment. Returns the earlier value, which the container's processes get,
/// if it was changed.
pub(crate) fn lower_oom_score() -> Option<i32> {
    let before = std::fs::read_to_string(OWN_OOM_SCORE_ADJ);
    let before = before.ok()?.trim().parse().ok()?;
    // Without CAP_SYS_RESOURCE this fails, and the monitor keeps the adjustment of its client.
    std::fs::write(OWN_OOM_SCORE_ADJ, OOM_SCORE_ADJ).ok()?;
    Some(before)
}

/// Starts a program with another adjustment than the monitor's.
pub(crate) fn with_adjustment<T>(
    adjustment: Option<i32>,
    start: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(adjustment) = adjustment else {
        return start();
    };
    // A value below the one that the monitor was started with may be refused. The program then gets
    // the monitor's.
    let _ = std::fs::write(OWN_OOM_SCORE_ADJ, adjustment.to_string());
    let started = start();
    let _ = std::fs::write(OWN_OOM_SCORE_ADJ, OOM_SCORE_ADJ);
    started
}

//! Which of its children the monitor has killed, so that the end of thousands takes no longer than their exits.

use std::collections::HashSet;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How many children are few enough to be listed each time that one of them exits.
const FEW: usize = 64;

/// The monitor's children to which SIGKILL was sent and that are not reaped. Their numbers are theirs until then.
#[derive(Debug, Default)]
pub(crate) struct KilledChildren {
    pids: HashSet<u32>,
    /// How many there were when the children were listed the last time.
    listed: usize,
}

impl KilledChildren {
    pub(crate) fn reaped(&mut self, pid: Pid) {
        self.pids.remove(&pid.as_raw().unsigned_abs());
    }

    /// Whether the children are worth to be listed: with thousands that exit one after another, it would take
    /// the time of millions to list all that are left each time.
    pub(crate) fn is_look_due(&self) -> bool {
        self.pids.len() <= FEW || self.pids.len() <= self.listed / 2
    }

    /// Kills those that were not killed before. `children` are all that there are.
    pub(crate) fn kill(&mut self, children: Vec<u32>) {
        for pid in children {
            if let Ok(raw) = i32::try_from(pid)
                && self.pids.insert(pid)
            {
                let _ = kill(Pid::from_raw(raw), Signal::SIGKILL);
            }
        }
        self.listed = self.pids.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_exit_one_after_another_are_listed_few_times() {
        // No pids of processes: there are fewer numbers on any machine.
        let numbers = (1 << 30)..(1_u32 << 30) + 2000;
        let mut killed = KilledChildren::default();
        killed.kill(numbers.clone().collect());
        let mut listed = 0;
        for number in numbers.clone() {
            killed.reaped(Pid::from_raw(number.cast_signed()));
            if killed.is_look_due() {
                listed += 1;
                killed.kill((number + 1..numbers.end).collect());
            }
        }
        assert!((FEW..FEW + 16).contains(&listed), "{listed}");
        assert!(killed.is_look_due());
    }
}

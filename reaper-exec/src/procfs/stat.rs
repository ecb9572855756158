//! The lines of `/proc/PID/stat` and `/proc/PID/statm`.

/// The fields of `/proc/PID/stat` that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: u8,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) flags: u64,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    /// Of children that it has waited for, and theirs.
    pub(super) reaped_user_ticks: u64,
    pub(super) reaped_system_ticks: u64,
    pub(super) threads: u64,
    pub(super) start_time: u64,
}

impl Stat {
    /// Reads a line; `None` if it is not of the form of proc(5).
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // The command's name may hold spaces and parentheses; nothing after it does.
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The name is field 2 in the numbering of proc(5), so the first of these is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            flags: number(9)?,
            user_ticks: number(14)?,
            system_ticks: number(15)?,
            reaped_user_ticks: number(16)?,
            reaped_system_ticks: number(17)?,
            threads: number(20)?,
            start_time: number(22)?,
        })
    }

    /// Whether all of the process has ended. A first thread that ended before the others shows
    /// as a zombie while the process lives on; only the count of threads tells.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }
}

/// The second and third field of `/proc/PID/statm`.
pub(super) fn resident_and_shared_pages(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

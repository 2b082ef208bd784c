//! State, parent and times of a process or thread from its `stat` file (`man 5 proc_pid_stat`).

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Fields of `stat`, counted from the state: the name before it may contain anything.
const STATE: usize = 0;
const PARENT: usize = 1;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

/// The state of a process or thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// The kernel's letter: `R` for running or runnable, `D` for an uninterruptible wait, as for a disk.
    pub state: char,
    /// Process ID of the parent, or 0 if it is not visible.
    pub parent: u32,
    /// Processor time used so far, in clock ticks.
    pub processor_ticks: u64,
    /// When it was forked, in clock ticks since boot.
    pub started_at: u64,
}

impl ProcessStat {
    /// Reads the state of a process.
    ///
    /// # Errors
    /// If there is no such process, or if it is not visible.
    pub fn read(pid: u32) -> Result<Self> {
        Self::read_in(Path::new(&format!("/proc/{pid}")))
    }

    /// Reads the state of the process or thread that a directory of `/proc` is about.
    ///
    /// # Errors
    /// As for [`ProcessStat::read`].
    pub fn read_in(directory: &Path) -> Result<Self> {
        // The kernel may cut a name in the middle of a character.
        let stat = std::fs::read(directory.join("stat"))?;
        Self::parse(&String::from_utf8_lossy(&stat))
            .ok_or_else(|| Error::from(ErrorKind::InvalidData))
    }

    fn parse(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| -> Option<u64> { fields.get(at)?.parse().ok() };
        Some(ProcessStat {
            state: fields.get(STATE)?.chars().next()?,
            parent: number(PARENT)?.try_into().ok()?,
            processor_ticks: number(USER_TIME)? + number(SYSTEM_TIME)?,
            started_at: number(START_TIME)?,
        })
    }

    /// Returns whether it has ended and was not waited for yet.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Returns whether a signal or a debugger has stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Returns whether it is running, runnable, or in an uninterruptible wait. Other waits do not count.
    pub fn is_at_work(&self) -> bool {
        matches!(self.state, 'R' | 'D')
    }
}

/// Returns the IDs of all processes that are visible.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn processes() -> Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_process_may_look_like_fields() {
        let stat = "7 (a) Z 1 (b)) D 42 7 7 0 -1 4194560 0 0 0 0 30 12 0 0 20 0 1 0 1234 0 0";
        let parsed = ProcessStat::parse(stat).unwrap();
        let expected =
            ProcessStat { state: 'D', parent: 42, processor_ticks: 42, started_at: 1234 };
        assert_eq!(parsed, expected);
        assert!(parsed.is_at_work() && !parsed.has_ended() && !parsed.is_stopped());
        assert_eq!(ProcessStat::parse("7 (a) R 1"), None);
    }

    #[test]
    fn own_process_is_found_with_its_parent() {
        let own = std::process::id();
        assert!(processes().unwrap().any(|pid| pid == own));
        assert_eq!(ProcessStat::read(own).unwrap().parent, std::os::unix::process::parent_id());
    }
}

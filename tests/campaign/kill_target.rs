//! The processes of a run, and which of them a fault kills.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Running, procfs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    User,
    Sudo,
    Root,
    Guardian,
    BackupGuardian,
    /// `systemctl`, which the guardian or another of these processes runs.
    Systemctl,
}

/// The processes that a fault kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTarget {
    User,
    Sudo,
    Root,
    Guardian,
    BackupGuardian,
    Systemctl,
    RootAndGuardian,
    All,
}

impl KillTarget {
    pub const OF_A_RESTORE: [KillTarget; 10] = [
        KillTarget::User,
        KillTarget::Sudo,
        KillTarget::Root,
        KillTarget::Root,
        KillTarget::Root,
        KillTarget::Guardian,
        KillTarget::BackupGuardian,
        KillTarget::Systemctl,
        KillTarget::RootAndGuardian,
        KillTarget::All,
    ];
    pub const OF_A_SAVE: [KillTarget; 6] = [
        KillTarget::User,
        KillTarget::User,
        KillTarget::Sudo,
        KillTarget::Root,
        KillTarget::Guardian,
        KillTarget::All,
    ];

    fn includes(self, kind: Kind) -> bool {
        match self {
            KillTarget::User => kind == Kind::User,
            KillTarget::Sudo => kind == Kind::Sudo,
            KillTarget::Root => kind == Kind::Root,
            KillTarget::Guardian => kind == Kind::Guardian,
            KillTarget::BackupGuardian => kind == Kind::BackupGuardian,
            KillTarget::Systemctl => kind == Kind::Systemctl,
            KillTarget::RootAndGuardian => matches!(kind, Kind::Root | Kind::Guardian),
            KillTarget::All => true,
        }
    }

    /// Whether no process is left that could recover.
    pub fn leaves_no_process(self) -> bool {
        self == KillTarget::All
    }

    /// The name in the record.
    pub fn name(self) -> &'static str {
        match self {
            KillTarget::User => "SIGKILL of the user process",
            KillTarget::Sudo => "SIGKILL of sudo",
            KillTarget::Root => "SIGKILL of the root helper",
            KillTarget::Guardian => "SIGKILL of the guardian",
            KillTarget::BackupGuardian => "SIGKILL of the backup guardian",
            KillTarget::Systemctl => "SIGKILL of systemctl",
            KillTarget::RootAndGuardian => "SIGKILL of the root helper and the guardian",
            KillTarget::All => "SIGKILL of all processes",
        }
    }
}

/// The current processes of a run, descendants before their ancestors.
pub fn processes(run: &Running) -> Vec<(u32, Kind)> {
    let mut found = Vec::new();
    let mut pending: Vec<(u32, Option<Kind>)> =
        run.outer_pid().map(|pid| (pid, None)).into_iter().collect();
    while let Some((pid, parent)) = pending.pop() {
        let kind = match kind(pid) {
            // Between fork and exec, a child looks like its parent.
            Some(Kind::Root) if parent == Some(Kind::Root) => Some(Kind::Guardian),
            Some(Kind::Guardian) if parent == Some(Kind::Guardian) => None,
            kind => kind,
        };
        pending.extend(children(pid).into_iter().map(|child| (child, kind)));
        found.extend(kind.map(|kind| (pid, kind)));
    }
    found.reverse();
    found
}

pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
    let pids = lists.flat_map(|list| {
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    pids.collect()
}

fn kind(pid: u32) -> Option<Kind> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
    let is = |place: usize, word: &str| words.get(place) == Some(&word.as_bytes());
    if !procfs::is_alive(pid) {
        None
    } else if is(0, "sudo") {
        Some(Kind::Sudo)
    } else if is(0, "storecache-guardian") {
        Some(Kind::Guardian)
    } else if is(0, "storecache-backup-guardian") {
        Some(Kind::BackupGuardian)
    } else if is(1, "privileged") {
        Some(Kind::Root)
    } else if is(0, "storecache") {
        Some(Kind::User)
    } else if is(0, "systemctl") {
        Some(Kind::Systemctl)
    } else {
        // A process that has not executed the program yet, or the daemon, which the guardian has started.
        None
    }
}

/// Kills the processes that `victim` includes. Returns their number.
pub fn kill(victim: KillTarget, processes: &[(u32, Kind)]) -> usize {
    let meant = processes.iter().filter(|(_, kind)| victim.includes(*kind));
    let killed = meant.filter(|(pid, _)| {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::KILL).is_ok()
    });
    killed.count()
}

//! Measures the memory of a run and its writes to disks, for all its processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::invocation::Output;

/// Resident code of the released program and glibc, in bytes: `scripts/build-release` makes 13 MB, and `--memory` is
/// meant for that. A debug build has up to 22 MiB, of which only this much counts.
const RELEASED_CODE: u64 = 15 << 20;

/// The peak usage of one process.
#[derive(Clone, Debug, Default)]
pub struct ProcessUsage {
    pub pid: u32,
    /// Peak of resident memory, in bytes: `VmHWM`, with at most [`RELEASED_CODE`] of mapped files.
    pub memory: u64,
    /// Bytes that the process caused to be written to disks: `write_bytes`.
    pub written: u64,
    /// Regular files that were seen open for writing.
    pub files: BTreeSet<PathBuf>,
}

/// The usage of each process, in the order in which the processes were first seen.
pub type RunUsage = Vec<ProcessUsage>;

/// The sum of the peaks of all processes, which need not have occurred at the same time.
pub fn memory(takings: &RunUsage) -> u64 {
    takings.iter().map(|taken| taken.memory).sum()
}

/// Runs a command to its end and observes it and all processes that it starts. The kernel's counters only
/// grow, so only the usage of the last milliseconds can be missed.
#[track_caller]
pub fn run_measured(command: &mut Command) -> (Output, RunUsage) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap_or_else(|e| panic!("cannot run {}: {e}", words[0]));
    let pid = child.id();
    let watch = UsageMonitor::begin(move || descendants(pid));
    let done = child.wait_with_output().unwrap();
    let output = Output {
        command: words.join(" "),
        status: done.status,
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    };
    (output, watch.end())
}

/// Observes processes until [`UsageMonitor::end`] is called.
pub struct UsageMonitor {
    ended: Arc<AtomicBool>,
    watching: JoinHandle<RunUsage>,
}

impl UsageMonitor {
    /// `pids` is called repeatedly and returns the processes to observe.
    pub fn begin(pids: impl Fn() -> Vec<u32> + Send + 'static) -> UsageMonitor {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let watching = thread::spawn(move || {
            let mut takings = RunUsage::new();
            while !until.load(Ordering::Relaxed) {
                for pid in pids() {
                    if !takings.iter().any(|taken| taken.pid == pid) {
                        takings.push(ProcessUsage { pid, ..ProcessUsage::default() });
                    }
                    takings.iter_mut().filter(|taken| taken.pid == pid).for_each(sample);
                }
                thread::sleep(Duration::from_millis(3));
            }
            takings
        });
        UsageMonitor { ended, watching }
    }

    pub fn end(self) -> RunUsage {
        self.ended.store(true, Ordering::Relaxed);
        self.watching.join().unwrap()
    }
}

/// A process and all its descendants.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        for list in lists {
            found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

fn sample(taken: &mut ProcessUsage) {
    let pid = taken.pid;
    let field = |file: &str, name: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    };
    // The fields are missing when the process has ended.
    let peak = field("status", "VmHWM:").unwrap_or(0) << 10;
    let mapped = field("status", "RssFile:").unwrap_or(0) << 10;
    taken.memory = taken.memory.max(peak - mapped.saturating_sub(RELEASED_CODE).min(peak));
    taken.written = taken.written.max(field("io", "write_bytes:").unwrap_or(0));
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    for descriptor in descriptors {
        let Ok(path) = fs::read_link(descriptor.path()) else { continue };
        let number = descriptor.file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        let writable = flags.is_some_and(|flags| flags & 0o3 != 0);
        if writable && path.is_absolute() && !path.starts_with("/dev") {
            taken.files.insert(path);
        }
    }
}

//! Reads from `/proc` whether a silent process works, waits for a disk, or was stopped.

use super::seconds;
use crate::process_stat::ProcessStat;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Minimum time between two samples. Sampling costs a little processor time, and so does a process that keeps
/// polling its queue.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);

/// Share of a processor that counts as work, in percent.
const BUSY_PERCENT: u128 = 10;
/// Share of the time that one thread has to wait for a processor, in percent, for its process to count as kept
/// from work. A thread that only polls waits much less, however many other processes work.
const STARVED_PERCENT: u128 = 50;

/// State of all threads of a process at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcActivity {
    /// Processor time used so far, in clock ticks.
    ticks: u64,
    /// The queue of processors, by thread.
    queued: BTreeMap<u32, Queued>,
    /// Sum of the counters in `/proc/PID/io`: bytes that the process read and wrote, and the system calls for
    /// that. `None` if this user may not read the file.
    moved: Option<u64>,
    /// Whether a thread is in an uninterruptible wait of the kernel, as for a disk.
    pub waits_for_disk: bool,
    /// Whether the process was stopped, by SIGSTOP or a debugger.
    pub stopped: bool,
}

/// The time that a thread spent ready to run and without a processor
/// (`linux:Documentation/scheduler/sched-stats.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Queued {
    /// All waits that have ended, in nanoseconds.
    waited: u64,
    /// How often the thread got a processor.
    slices: u64,
    /// Whether it runs or waits now.
    ready: bool,
}

impl Queued {
    /// Returns how long the thread waited since `before`, which was `passed` ago. A wait is counted when it ends, so a
    /// thread that was ready both times and never ran has waited all the time.
    fn since(self, before: Queued, passed: Duration) -> Duration {
        if self.ready
            && before.ready
            && self.slices == before.slices
            && self.waited == before.waited
        {
            return passed;
        }
        Duration::from_nanos(self.waited.saturating_sub(before.waited))
    }
}

impl ProcActivity {
    /// Returns `None` if there is no such process, or if it is not visible.
    pub fn read(pid: u32) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let threads = Self::together(tasks.filter_map(|task| Self::in_directory(&task.path())))?;
        // For the process as a whole, so that threads that have ended count too.
        Some(ProcActivity { moved: bytes_moved(Path::new(&format!("/proc/{pid}"))), ..threads })
    }

    /// Returns the combined state of `pids`.
    pub fn of_all(pids: &[u32]) -> Option<Self> {
        Self::together(pids.iter().filter_map(|&pid| Self::read(pid)))
    }

    /// Returns the state of a thread of this process.
    pub fn of_thread(tid: u32) -> Option<Self> {
        Self::in_directory(Path::new(&format!("/proc/self/task/{tid}")))
    }

    /// Returns `None` for a zombie too.
    fn in_directory(task: &Path) -> Option<Self> {
        let stat = ProcessStat::read_in(task).ok()?;
        (!stat.has_ended()).then(|| ProcActivity {
            ticks: stat.processor_ticks,
            queued: queued(task, stat.state == 'R').into_iter().collect(),
            moved: bytes_moved(task),
            waits_for_disk: stat.state == 'D',
            stopped: stat.is_stopped(),
        })
    }

    fn together(each: impl Iterator<Item = Self>) -> Option<Self> {
        each.reduce(|a, b| ProcActivity {
            ticks: a.ticks + b.ticks,
            queued: a.queued.into_iter().chain(b.queued).collect(),
            moved: a.moved.zip(b.moved).map(|(a, b)| a.wrapping_add(b)),
            waits_for_disk: a.waits_for_disk || b.waits_for_disk,
            stopped: a.stopped || b.stopped,
        })
    }
}

/// Returns a thread and its [`Queued`]; `None` if the kernel does not count that.
fn queued(task: &Path, ready: bool) -> Option<(u32, Queued)> {
    let tid = task.file_name()?.to_str()?.parse().ok()?;
    let counts = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let mut counts = counts.split_whitespace().skip(1).map(str::parse);
    Some((tid, Queued { waited: counts.next()?.ok()?, slices: counts.next()?.ok()?, ready }))
}

fn bytes_moved(of: &Path) -> Option<u64> {
    let io = std::fs::read_to_string(of.join("io")).ok()?;
    let values = io.lines().filter_map(|line| line.split_once(": "));
    Some(values.filter_map(|(_, value)| value.parse::<u64>().ok()).fold(0, u64::wrapping_add))
}

/// Watches processes, or a thread, that may be silent although they work, with a timeout that counts from their
/// last activity.
pub struct StallTimer {
    timeout: Duration,
    last_activity_at: Instant,
    sampled_at: Instant,
    last_sample: Option<ProcActivity>,
    stopped: bool,
    /// The last activity that a sample showed.
    last_activity: Option<&'static str>,
    /// Whether bytes read and written count as activity. Those of a process that polls all the time mean
    /// nothing.
    bytes: bool,
}

impl StallTimer {
    pub fn new(timeout: Duration) -> Self {
        let now = Instant::now();
        StallTimer {
            timeout,
            last_activity_at: now,
            sampled_at: now,
            last_sample: None,
            stopped: false,
            last_activity: None,
            bytes: true,
        }
    }

    /// Counts only processor time and waits for a processor or a disk as activity.
    pub fn without_bytes(self) -> Self {
        StallTimer { bytes: false, ..self }
    }

    /// Records that the process reported activity itself.
    pub fn reset(&mut self) {
        self.last_activity_at = Instant::now();
    }

    /// Records that the process was active at that time.
    pub fn reset_at(&mut self, at: Instant) {
        self.last_activity_at = self.last_activity_at.max(at);
    }

    /// Returns how long there was no activity.
    pub fn idle(&self) -> Duration {
        self.last_activity_at.elapsed()
    }

    /// Samples the processes now and then. Returns a description of their activity, if there was any since the
    /// last sample.
    pub fn sample(&mut self, pids: &[u32]) -> Option<String> {
        self.sample_by(|| ProcActivity::of_all(pids))
    }

    /// As [`StallTimer::sample`], for a thread of this process.
    pub fn sample_thread(&mut self, tid: u32) -> Option<String> {
        self.sample_by(|| {
            // The thread may wait for another thread of this process that waits for the disk.
            let all = ProcActivity::read(std::process::id())?;
            Some(ProcActivity {
                waits_for_disk: all.waits_for_disk,
                ..ProcActivity::of_thread(tid)?
            })
        })
    }

    fn sample_by(&mut self, read: impl FnOnce() -> Option<ProcActivity>) -> Option<String> {
        let passed = self.sampled_at.elapsed();
        if passed < SAMPLE_INTERVAL.min(self.timeout / 4) {
            return None;
        }
        let before = self.last_sample.take();
        self.sampled_at = Instant::now();
        self.last_sample = read();
        let now = self.last_sample.as_ref()?;
        self.stopped = now.stopped;
        let activity = if now.waits_for_disk {
            "it waits for a disk"
        } else {
            let before = before?;
            let ticks = u128::from(now.ticks.saturating_sub(before.ticks));
            let per_second = u128::from(rustix::param::clock_ticks_per_second()).max(1);
            let worked = ticks * 1_000_000 / per_second;
            let queued = now.queued.iter().filter_map(|(tid, now)| {
                before.queued.get(tid).map(|&before| now.since(before, passed))
            });
            let queued = queued.max().unwrap_or_default().as_micros();
            let both = before.moved.zip(now.moved).filter(|_| self.bytes);
            if ticks > 1 && worked * 100 >= passed.as_micros() * BUSY_PERCENT {
                "it uses the CPU"
            } else if queued * 100 >= passed.as_micros() * STARVED_PERCENT {
                "it waits for a CPU"
            } else if both.is_some_and(|(before, now)| before != now) {
                "it reads and writes"
            } else {
                return None;
            }
        };
        self.reset();
        self.last_activity = Some(activity);
        Some(activity.to_owned())
    }

    /// Whether the timeout has expired.
    pub fn is_expired(&self) -> bool {
        self.idle() >= self.timeout
    }

    /// Describes, for people, how long there was no activity, and whether the process was stopped.
    pub fn describe_silence(&self) -> String {
        let stopped = if self.stopped { ", and is stopped (SIGSTOP?)" } else { "" };
        let before = self
            .last_activity
            .map(|activity| format!(" (before that, {activity})"))
            .unwrap_or_default();
        format!("showed no activity for {}{before}{stopped}", seconds(self.idle()))
    }
}

/// Returns the state of a process for people: `stopped`, `waiting for a disk`, `asleep`.
pub fn describe(pid: u32) -> &'static str {
    match ProcActivity::read(pid) {
        None => "gone",
        Some(process) if process.stopped => "stopped",
        Some(process) if process.waits_for_disk => "waiting for a disk",
        Some(_) => "asleep",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn spawn(script: &str) -> std::process::Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().unwrap()
    }

    /// Only a limit for a failure. How soon a process gets a CPU depends on the other processes of the machine.
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Samples a process until `is_done`. Returns false after the timeout.
    fn sample_until(
        pid: u32,
        stall_timer: &mut StallTimer,
        is_done: impl Fn(&StallTimer, Option<&str>) -> bool,
    ) -> bool {
        let started = Instant::now();
        while started.elapsed() < TIMEOUT {
            let activity = stall_timer.sample(&[pid]);
            if is_done(stall_timer, activity.as_deref()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn shows(pid: u32, expected: &str) -> bool {
        sample_until(pid, &mut StallTimer::new(TIMEOUT), |_, activity| activity == Some(expected))
    }

    fn falls_silent(pid: u32) -> bool {
        let mut stall_timer = StallTimer::new(Duration::from_millis(500));
        sample_until(pid, &mut stall_timer, |stall_timer, _| stall_timer.is_expired())
    }

    #[test]
    fn busy_process_is_active_and_sleeping_one_is_not() {
        let mut busy = spawn("while :; do :; done");
        let mut idle = spawn("exec sleep 60");
        let activity = (shows(busy.id(), "it uses the CPU"), falls_silent(idle.id()));
        for child in [&mut busy, &mut idle] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(activity, (true, true));
    }

    #[test]
    fn process_waiting_for_a_cpu_counts_as_active() {
        let loops = "while :; do :; done";
        let (mut ahead, mut kept) =
            (spawn(loops), spawn(&format!("exec nice -n 19 sh -c '{loops}'")));
        for child in [&ahead, &kept] {
            let pid = rustix::process::Pid::from_child(child);
            let mut one = rustix::thread::CpuSet::new();
            one.set(0);
            rustix::thread::sched_setaffinity(Some(pid), &one).unwrap();
        }
        while priority(kept.id()) != 19 {
            std::thread::yield_now();
        }
        let waits = shows(kept.id(), "it waits for a CPU");
        for child in [&mut ahead, &mut kept] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(waits);
    }

    fn priority(pid: u32) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        rustix::process::getpriority_process(pid).unwrap()
    }
}

//! Reads from `/proc` whether a silent process works, waits for a disk, or was stopped.

use super::seconds;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Positions of fields in `stat`, counted from the state (`man 5 proc_pid_stat`).
const STATE: usize = 0;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// Minimum time between two samples. Sampling costs a little processor time, and so does a process that keeps
/// polling its queue.
const LOOK: Duration = Duration::from_millis(200);

/// Share of a processor that counts as work, in percent.
const WORK: u128 = 10;
/// Share of the time that one thread has to wait for a processor, in percent, for its process to count as kept
/// from work. A thread that only polls waits much less, however many other processes work.
const KEPT_FROM_WORK: u128 = 50;

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
    pub fn of(pid: u32) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let threads = Self::together(tasks.filter_map(|task| Self::in_directory(&task.path())))?;
        // For the process as a whole, so that threads that have ended count too.
        Some(ProcActivity { moved: bytes_moved(Path::new(&format!("/proc/{pid}"))), ..threads })
    }

    /// Returns the combined state of `pids`.
    pub fn of_all(pids: &[u32]) -> Option<Self> {
        Self::together(pids.iter().filter_map(|&pid| Self::of(pid)))
    }

    /// Returns the state of a thread of this process.
    pub fn of_thread(tid: u32) -> Option<Self> {
        Self::in_directory(Path::new(&format!("/proc/self/task/{tid}")))
    }

    /// Returns `None` for a zombie too.
    fn in_directory(task: &Path) -> Option<Self> {
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| -> Option<u64> { fields.get(at)?.parse().ok() };
        let state = *fields.get(STATE)?;
        (!matches!(state, "Z" | "X")).then_some(ProcActivity {
            ticks: number(USER_TIME)? + number(SYSTEM_TIME)?,
            queued: queued(task, state == "R").into_iter().collect(),
            moved: bytes_moved(task),
            waits_for_disk: state == "D",
            stopped: matches!(state, "T" | "t"),
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
    clock: Duration,
    last: Instant,
    looked: Instant,
    known: Option<ProcActivity>,
    stopped: bool,
    /// The last activity that was seen.
    sign: Option<&'static str>,
    /// Whether bytes read and written count as activity. Those of a process that polls all the time mean
    /// nothing.
    bytes: bool,
}

impl StallTimer {
    pub fn new(clock: Duration) -> Self {
        let now = Instant::now();
        StallTimer {
            clock,
            last: now,
            looked: now,
            known: None,
            stopped: false,
            sign: None,
            bytes: true,
        }
    }

    /// Counts only processor time and waits for a processor or a disk as activity.
    pub fn without_bytes(self) -> Self {
        StallTimer { bytes: false, ..self }
    }

    /// Records that the process reported activity itself.
    pub fn sign(&mut self) {
        self.last = Instant::now();
    }

    /// Records that the process was active at that time.
    pub fn sign_at(&mut self, at: Instant) {
        self.last = self.last.max(at);
    }

    /// Returns how long there was no activity.
    pub fn silent(&self) -> Duration {
        self.last.elapsed()
    }

    pub fn clock(&self) -> Duration {
        self.clock
    }

    /// Samples the processes now and then. Returns a description of their activity, if there was any since the
    /// last sample.
    pub fn look(&mut self, pids: &[u32]) -> Option<String> {
        self.look_by(|| ProcActivity::of_all(pids))
    }

    /// As [`StallTimer::look`], for a thread of this process.
    pub fn look_at_thread(&mut self, tid: u32) -> Option<String> {
        self.look_by(|| {
            // The thread may wait for another thread of this process that waits for the disk.
            let all = ProcActivity::of(std::process::id())?;
            Some(ProcActivity {
                waits_for_disk: all.waits_for_disk,
                ..ProcActivity::of_thread(tid)?
            })
        })
    }

    fn look_by(&mut self, vitals: impl FnOnce() -> Option<ProcActivity>) -> Option<String> {
        let passed = self.looked.elapsed();
        if passed < LOOK.min(self.clock / 4) {
            return None;
        }
        let before = self.known.take();
        self.looked = Instant::now();
        self.known = vitals();
        let now = self.known.as_ref()?;
        self.stopped = now.stopped;
        let sign = if now.waits_for_disk {
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
            if ticks > 1 && worked * 100 >= passed.as_micros() * WORK {
                "it uses the CPU"
            } else if queued * 100 >= passed.as_micros() * KEPT_FROM_WORK {
                "it waits for a CPU"
            } else if both.is_some_and(|(before, now)| before != now) {
                "it reads and writes"
            } else {
                return None;
            }
        };
        self.sign();
        self.sign = Some(sign);
        Some(sign.to_owned())
    }

    /// Whether the timeout has expired.
    pub fn is_over(&self) -> bool {
        self.silent() >= self.clock
    }

    /// Describes, for people, how long there was no activity, and whether the process was stopped.
    pub fn tell(&self) -> String {
        let stopped = if self.stopped { ", and is stopped (SIGSTOP?)" } else { "" };
        let before = self.sign.map(|sign| format!(" (before that, {sign})")).unwrap_or_default();
        format!("showed no activity for {}{before}{stopped}", seconds(self.silent()))
    }
}

/// Returns the state of a process for people: `stopped`, `waiting for a disk`, `asleep`.
pub fn describe(pid: u32) -> &'static str {
    match ProcActivity::of(pid) {
        None => "gone",
        Some(vitals) if vitals.stopped => "stopped",
        Some(vitals) if vitals.waits_for_disk => "waiting for a disk",
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

    /// Only a limit for a process that shows no activity by mistake.
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Returns the first activity that is seen, or `None` if the process is not active within the timeout.
    fn first(pid: u32, timeout: Duration) -> Option<String> {
        let mut vigil = StallTimer::new(timeout);
        while !vigil.is_over() {
            if let Some(sign) = vigil.look(&[pid]) {
                return Some(sign);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    #[test]
    fn busy_process_is_active_and_sleeping_one_is_not() {
        let mut busy = spawn("while :; do :; done");
        let mut idle = spawn("exec sleep 60");
        let signs = (first(busy.id(), TIMEOUT), first(idle.id(), Duration::from_secs(1)));
        for child in [&mut busy, &mut idle] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(signs, (Some("it uses the CPU".into()), None));
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
        let sign = first(kept.id(), TIMEOUT);
        for child in [&mut ahead, &mut kept] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(sign.as_deref(), Some("it waits for a CPU"));
    }

    fn priority(pid: u32) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        rustix::process::getpriority_process(pid).unwrap()
    }
}

//! What `/proc` tells of a process that says nothing: whether it works, waits for a disk, or was stopped.

use super::seconds;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Fields of `stat`, from the state on (`man 5 proc_pid_stat`).
const STATE: usize = 0;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// Looking costs a little, and what looks into its queue all the time uses a little too.
const LOOK: Duration = Duration::from_millis(200);

/// The part of a processor that counts as work, in per cent.
const WORK: u128 = 10;
/// The part of the time that a thread has to work or to wait for a processor, in per cent, to count as kept from work.
/// One that only asks again and again waits for much less, however many others work.
const KEPT_FROM_WORK: u128 = 50;

/// All threads of a process at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Processor time that it has used, in ticks of the kernel.
    ticks: u64,
    /// For how long each of its threads was ready and had to wait for a processor, in nanoseconds
    /// (`linux:Documentation/scheduler/sched-stats.rst`).
    queued: BTreeMap<u32, u64>,
    /// Bytes that it has moved, and calls that moved any; unknown to other users.
    moved: Option<u64>,
    /// A thread is in a wait of the kernel that nothing interrupts: that of a disk.
    pub waits_for_disk: bool,
    /// Somebody has stopped it: SIGSTOP, or a debugger.
    pub stopped: bool,
}

impl Vitals {
    /// Nothing when there is no such process, or when it cannot be seen.
    pub fn of(pid: u32) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let threads = Self::together(tasks.filter_map(|task| Self::in_directory(&task.path())))?;
        // Of the process as a whole: threads that have ended count too.
        Some(Vitals { moved: bytes_moved(Path::new(&format!("/proc/{pid}"))), ..threads })
    }

    /// The same for all of `pids` together.
    pub fn of_all(pids: &[u32]) -> Option<Self> {
        Self::together(pids.iter().filter_map(|&pid| Self::of(pid)))
    }

    /// A thread of this process.
    pub fn of_thread(tid: u32) -> Option<Self> {
        Self::in_directory(Path::new(&format!("/proc/self/task/{tid}")))
    }

    /// Nothing also for what has ended and was not waited for.
    fn in_directory(task: &Path) -> Option<Self> {
        let stat = std::fs::read_to_string(task.join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| -> Option<u64> { fields.get(at)?.parse().ok() };
        let state = *fields.get(STATE)?;
        (!matches!(state, "Z" | "X")).then_some(Vitals {
            ticks: number(USER_TIME)? + number(SYSTEM_TIME)?,
            queued: queued(task).into_iter().collect(),
            moved: bytes_moved(task),
            waits_for_disk: state == "D",
            stopped: matches!(state, "T" | "t"),
        })
    }

    fn together(each: impl Iterator<Item = Self>) -> Option<Self> {
        each.reduce(|a, b| Vitals {
            ticks: a.ticks + b.ticks,
            queued: a.queued.into_iter().chain(b.queued).collect(),
            moved: a.moved.zip(b.moved).map(|(a, b)| a.wrapping_add(b)),
            waits_for_disk: a.waits_for_disk || b.waits_for_disk,
            stopped: a.stopped || b.stopped,
        })
    }
}

/// A thread, and how long it was queued for a processor. `None` where the kernel does not count that.
fn queued(task: &Path) -> Option<(u32, u64)> {
    let tid = task.file_name()?.to_str()?.parse().ok()?;
    let counts = std::fs::read_to_string(task.join("schedstat")).ok()?;
    Some((tid, counts.split_whitespace().nth(1)?.parse().ok()?))
}

fn bytes_moved(of: &Path) -> Option<u64> {
    let io = std::fs::read_to_string(of.join("io")).ok()?;
    let values = io.lines().filter_map(|line| line.split_once(": "));
    Some(values.filter_map(|(_, value)| value.parse::<u64>().ok()).fold(0, u64::wrapping_add))
}

/// Watches something that may be silent and alive all the same, with a clock that counts since its last sign
/// of life.
pub struct Vigil {
    clock: Duration,
    last: Instant,
    looked: Instant,
    known: Option<Vitals>,
    stopped: bool,
    /// What showed last that it was alive.
    sign: Option<&'static str>,
    /// Whether bytes that it moves count; those of a process that asks all the time mean nothing.
    bytes: bool,
}

impl Vigil {
    pub fn new(clock: Duration) -> Self {
        let now = Instant::now();
        Vigil {
            clock,
            last: now,
            looked: now,
            known: None,
            stopped: false,
            sign: None,
            bytes: true,
        }
    }

    /// Only work and waits for a disk count.
    pub fn without_bytes(self) -> Self {
        Vigil { bytes: false, ..self }
    }

    /// It gave a sign of life itself.
    pub fn sign(&mut self) {
        self.last = Instant::now();
    }

    /// It was heard of at that time.
    pub fn sign_at(&mut self, at: Instant) {
        self.last = self.last.max(at);
    }

    /// How long it gave no sign.
    pub fn silent(&self) -> Duration {
        self.last.elapsed()
    }

    pub fn clock(&self) -> Duration {
        self.clock
    }

    /// Looks at the processes now and then. Gives back what shows that they are alive, if anything does.
    pub fn look(&mut self, pids: &[u32]) -> Option<String> {
        self.look_by(|| Vitals::of_all(pids))
    }

    /// The same for a thread of this process.
    pub fn look_at_thread(&mut self, tid: u32) -> Option<String> {
        self.look_by(|| {
            // It may wait for another one of ours that waits for the disk.
            let all = Vitals::of(std::process::id())?;
            Some(Vitals { waits_for_disk: all.waits_for_disk, ..Vitals::of_thread(tid)? })
        })
    }

    fn look_by(&mut self, vitals: impl FnOnce() -> Option<Vitals>) -> Option<String> {
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
            let queued = now.queued.iter().map(|(tid, &nanos)| {
                before.queued.get(tid).map_or(0, |&earlier| nanos.saturating_sub(earlier))
            });
            let queued = u128::from(queued.max().unwrap_or_default()) / 1000;
            let both = before.moved.zip(now.moved).filter(|_| self.bytes);
            if ticks > 1 && worked * 100 >= passed.as_micros() * WORK {
                "it computes"
            } else if queued * 100 >= passed.as_micros() * KEPT_FROM_WORK {
                "it waits for a processor"
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

    /// Whether its clock has run out.
    pub fn is_over(&self) -> bool {
        self.silent() >= self.clock
    }

    /// For people: for how long it is silent, and whether somebody has stopped it.
    pub fn tell(&self) -> String {
        let stopped = if self.stopped { ", and is stopped (SIGSTOP?)" } else { "" };
        let before = self.sign.map(|sign| format!(" (before that, {sign})")).unwrap_or_default();
        format!("gave no sign of life for {}{before}{stopped}", seconds(self.silent()))
    }
}

/// The state of a process for people: `stopped`, `waiting for a disk`, `asleep`.
pub fn describe(pid: u32) -> &'static str {
    match Vitals::of(pid) {
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

    /// The first sign that is seen in some seconds, or that the clock ran out.
    fn first(pid: u32) -> Option<String> {
        let mut vigil = Vigil::new(Duration::from_secs(1));
        while !vigil.is_over() {
            if let Some(sign) = vigil.look(&[pid]) {
                return Some(sign);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    #[test]
    fn what_works_is_alive_and_what_sleeps_is_silent() {
        let mut busy = spawn("while :; do :; done");
        let mut idle = spawn("exec sleep 60");
        let signs = (first(busy.id()), first(idle.id()));
        for child in [&mut busy, &mut idle] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(signs, (Some("it computes".into()), None));
    }

    #[test]
    fn what_gets_no_processor_is_alive() {
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
        let sign = first(kept.id());
        for child in [&mut ahead, &mut kept] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(sign.as_deref(), Some("it waits for a processor"));
    }

    fn priority(pid: u32) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        rustix::process::getpriority_process(pid).unwrap()
    }
}

//! Refuses to publish a measurement from a machine that does other work at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::procfs;

/// The part of all processors that other work may use.
const LIMIT: f64 = 0.05;

/// How long the machine is watched.
const PERIOD: Duration = Duration::from_secs(3);

/// Watches the machine for a few seconds, in which this process sleeps.
///
/// # Errors
/// If other processes, the disk or the host of a virtual machine keep the processors busy, with the processes that
/// used most processor time.
pub fn require() -> Result<(), String> {
    let (before, by_process) = (Processors::now(), processes());
    sleep(PERIOD);
    let share = Processors::now().busy_since(before);
    if share <= LIMIT {
        return Ok(());
    }
    let names = busiest(&by_process, processes());
    Err(format!(
        "the machine is busy: other work used {:.0} % of its processors during {} s, most of all {}",
        share * 100.0,
        PERIOD.as_secs(),
        if names.is_empty() { "the disk or the host".into() } else { names.join(", ") }
    ))
}

/// The three processes that used most ticks between two observations, most first.
fn busiest(before: &Processes, now: Processes) -> Vec<String> {
    let used = |(pid, (name, now)): (u32, (String, u64))| {
        let before = before.get(&pid).map_or(0, |(_, before)| *before);
        (now.saturating_sub(before), format!("{name} ({pid})"))
    };
    let mut used: Vec<_> = now.into_iter().map(used).filter(|(ticks, _)| *ticks > 0).collect();
    used.sort_unstable_by(|a, b| b.cmp(a));
    used.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Ticks of all processors together; source: proc_stat(5).
#[derive(Clone, Copy)]
struct Processors {
    idle: u64,
    all: u64,
}

impl Processors {
    fn now() -> Processors {
        Processors::parse(&fs::read_to_string("/proc/stat").unwrap())
    }

    /// Waiting for a disk counts as busy. The last two fields are parts of the first two.
    fn parse(stat: &str) -> Processors {
        let line = stat.lines().next().unwrap().strip_prefix("cpu ").unwrap();
        let ticks: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
        Processors { idle: ticks[3], all: ticks.iter().take(8).sum() }
    }

    #[allow(clippy::cast_precision_loss)]
    fn busy_since(self, before: Processors) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        1.0 - self.idle.saturating_sub(before.idle) as f64 / all as f64
    }
}

/// Name and used ticks of each process, by pid.
type Processes = BTreeMap<u32, (String, u64)>;

/// Reads `/proc`; source: proc_pid_stat(5).
fn processes() -> Processes {
    let of = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Some((pid, (name.to_owned(), ticks.sum::<Result<u64, _>>().ok()?)))
    };
    procfs::all().into_iter().filter_map(of).collect()
}

#[test]
fn processors_waiting_for_disk_or_host_count_as_busy() {
    let before = Processors::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n");
    let after =
        |fields: &str| Processors::parse(&format!("cpu  {fields} 0 0\n")).busy_since(before);
    assert!((after("100 0 100 900 0 0 0 0") - 0.0).abs() < 1e-9);
    assert!((after("120 5 110 850 5 5 5 0") - 0.5).abs() < 1e-9);
    assert!((after("100 0 100 850 0 0 0 50") - 0.5).abs() < 1e-9);
}

#[test]
fn busiest_processes_are_named_most_first() {
    let seen = |ticks: [u64; 4]| {
        (1..).zip(["a", "b", "c", "d"].map(str::to_owned).into_iter().zip(ticks)).collect()
    };
    assert_eq!(busiest(&seen([9, 9, 9, 9]), seen([9, 10, 15, 12])), ["c (3)", "d (4)", "b (2)"]);
}

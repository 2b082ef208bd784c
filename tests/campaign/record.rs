//! What a part of the campaign leaves for the record.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::json;

/// Faults that were made so far by a part, and what was seen after them.
#[derive(Debug)]
pub struct Tally {
    part: String,
    begun: Instant,
    faults: BTreeMap<String, u64>,
    /// In which phase each of them landed.
    phases: BTreeMap<&'static str, u64>,
    longest_to_daemon: Duration,
}

impl Tally {
    pub fn of(part: &str) -> Tally {
        Tally {
            part: part.to_owned(),
            begun: Instant::now(),
            faults: BTreeMap::new(),
            phases: BTreeMap::new(),
            longest_to_daemon: Duration::ZERO,
        }
    }

    pub fn count(&mut self, fault: &str, phase: &'static str) {
        *self.faults.entry(fault.to_owned()).or_default() += 1;
        *self.phases.entry(phase).or_default() += 1;
    }

    pub fn daemon_was_back_after(&mut self, time: Duration) {
        self.longest_to_daemon = self.longest_to_daemon.max(time);
    }

    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// How many landed in a phase.
    pub fn landed_in(&self, phase: &str) -> u64 {
        self.phases.get(phase).copied().unwrap_or(0)
    }

    /// Tells what was done, and leaves it where `STORECACHE_CAMPAIGN_RECORD` says. Whoever comes here has seen
    /// that nothing was lost: else the part had failed.
    pub fn finish(&self) {
        let record = json!({
            "part": self.part,
            "faults": self.faults,
            "phases": self.phases,
            "states_lost": 0,
            "seconds": self.begun.elapsed().as_secs_f64(),
            "longest_to_daemon_ms": self.longest_to_daemon.as_millis() as u64,
        });
        println!("{record}");
        if let Some(directory) = env::var_os("STORECACHE_CAMPAIGN_RECORD") {
            let file = PathBuf::from(directory).join(format!("{}.json", self.part));
            fs::write(file, format!("{record:#}\n")).unwrap();
        }
    }
}

//! The record of a fault campaign: the faults that were injected, and their results.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::json;

/// The faults that a part has injected so far, and their results.
#[derive(Debug)]
pub struct FaultTally {
    part: String,
    begun: Instant,
    faults: BTreeMap<String, u64>,
    /// The number of faults in each phase, where the phase is known.
    phases: BTreeMap<&'static str, u64>,
    states_lost: u64,
    longest_to_daemon: Duration,
}

impl FaultTally {
    pub fn new(part: &str) -> FaultTally {
        FaultTally {
            part: part.to_owned(),
            begun: Instant::now(),
            faults: BTreeMap::new(),
            phases: BTreeMap::new(),
            states_lost: 0,
            longest_to_daemon: Duration::ZERO,
        }
    }

    pub fn count(&mut self, fault: &str, phase: &'static str) {
        *self.faults.entry(fault.to_owned()).or_default() += 1;
        *self.phases.entry(phase).or_default() += 1;
    }

    pub fn record_daemon_recovery(&mut self, time: Duration) {
        self.longest_to_daemon = self.longest_to_daemon.max(time);
    }

    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// The number of faults that landed in a phase.
    pub fn faults_in_phase(&self, phase: &str) -> u64 {
        self.phases.get(phase).copied().unwrap_or(0)
    }

    /// Prints the tally and saves it for the record.
    pub fn finish(&self) {
        println!("{self:?}");
        self.keep();
    }

    /// Writes the tally to the directory that `STORECACHE_CAMPAIGN_RECORD` names.
    fn keep(&self) {
        let Some(directory) = env::var_os("STORECACHE_CAMPAIGN_RECORD").map(PathBuf::from) else {
            return;
        };
        let record = json!({
            "part": self.part,
            "faults": self.faults,
            "phases": self.phases,
            "states_lost": self.states_lost,
            "seconds": self.begun.elapsed().as_secs_f64(),
            "longest_to_daemon_ms": self.longest_to_daemon.as_millis() as u64,
        });
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{}.json", self.part)), format!("{record:#}\n")).unwrap();
    }
}

/// One part of a campaign that consists of several tests in one process.
pub struct CampaignRecord {
    part: &'static str,
    sum: Mutex<Option<FaultTally>>,
}

impl CampaignRecord {
    pub const fn new(part: &'static str) -> CampaignRecord {
        CampaignRecord { part, sum: Mutex::new(None) }
    }

    /// Counts a fault of this kind.
    pub fn fault(&self, kind: &str) {
        self.change(|sum| *sum.faults.entry(kind.to_owned()).or_default() += 1);
    }

    /// Counts a store that was neither unchanged nor whole after a fault.
    pub fn state_lost(&self) {
        self.change(|sum| sum.states_lost += 1);
    }

    /// Records how long the daemon took to answer after a fault.
    pub fn record_daemon_downtime(&self, time: Duration) {
        self.change(|sum| sum.record_daemon_recovery(time));
    }

    fn change(&self, change: impl FnOnce(&mut FaultTally)) {
        let mut sum = self.sum.lock().unwrap();
        let sum = sum.get_or_insert_with(|| FaultTally::new(self.part));
        change(sum);
        // After every fault, so that a campaign that is ended early has its record too.
        sum.keep();
    }
}

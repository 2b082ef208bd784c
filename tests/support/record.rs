//! The record of a fault campaign: what was done how often, and what came of it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

/// Whether the long campaign is wanted, with every fault at every place.
pub fn is_long() -> bool {
    env::var("STORECACHE_CAMPAIGN").is_ok_and(|value| value == "long")
}

/// One part of the campaign, which may be several tests of one process.
pub struct Record {
    part: &'static str,
    sum: Mutex<Option<Sum>>,
}

struct Sum {
    started: Instant,
    faults: BTreeMap<String, usize>,
    states_lost: usize,
    longest: Duration,
}

impl Record {
    pub const fn of(part: &'static str) -> Record {
        Record { part, sum: Mutex::new(None) }
    }

    /// A fault of this kind happened.
    pub fn fault(&self, kind: &str) {
        self.change(|sum| *sum.faults.entry(kind.to_owned()).or_default() += 1);
    }

    /// After a fault a store was neither as before nor whole.
    pub fn state_lost(&self) {
        self.change(|sum| sum.states_lost += 1);
    }

    /// After a fault the daemon took so long to answer.
    pub fn daemon_took(&self, time: Duration) {
        self.change(|sum| sum.longest = sum.longest.max(time));
    }

    fn change(&self, change: impl FnOnce(&mut Sum)) {
        let mut sum = self.sum.lock().unwrap();
        let sum = sum.get_or_insert_with(|| Sum {
            started: Instant::now(),
            faults: BTreeMap::new(),
            states_lost: 0,
            longest: Duration::ZERO,
        });
        change(sum);
        // After every fault, so that a campaign that is ended early has its record too.
        if let Some(directory) = env::var_os("STORECACHE_CAMPAIGN_RECORD").map(PathBuf::from) {
            let record = json!({
                "part": self.part,
                "faults": sum.faults,
                "states_lost": sum.states_lost,
                "seconds": sum.started.elapsed().as_secs_f64(),
                "longest_to_daemon_ms": sum.longest.as_millis() as u64,
            });
            let file = directory.join(format!("{}.json", self.part));
            fs::create_dir_all(&directory).unwrap();
            fs::write(file, format!("{record:#}\n")).unwrap();
        }
    }
}

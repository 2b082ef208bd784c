//! Sizes and times that snapshots of the past have recorded.

use super::super::resolve;
use crate::config::BackendOptions;
use storecache_backend::{Backend, Directory, EntryList};
use storecache_entry::Rung;

/// Number of snapshots that are opened, newest first.
const OPENED: usize = 50;

#[derive(Debug, Default)]
pub struct Past {
    /// Location of the snapshots, for people.
    pub place: String,
    pub snapshots: usize,
    /// Mean size in bytes.
    pub entry: Option<u64>,
    /// Mean duration in minutes of jobs that began with a miss.
    pub cold_minutes: Option<f64>,
}

impl Past {
    /// Reads the snapshots under a prefix. A directory that is missing or cannot be listed counts as empty, and
    /// unreadable snapshots are ignored. A cache service is not queried: a simulation must not need a network.
    pub fn read(backend: Option<&BackendOptions>, prefix: &str) -> Self {
        let Some(path) = backend.and_then(BackendOptions::directory) else {
            return Past::default();
        };
        let directory = Directory::new(path.clone(), false);
        let listed = directory.entries(&Rung::Prefix(format!("{prefix}-")));
        let (entries, notes) = listed.unwrap_or_default();
        resolve::print_notes(&notes);
        let opened = entries.iter().take(OPENED).filter_map(|entry| {
            let mut reader = directory.open(&entry.name).ok()?;
            let head = resolve::open(reader.as_mut(), &mut 0).ok()?.head;
            // The size of a delta says little about the size of a store.
            head.base.is_none().then_some((entry.size, head.cold_seconds))
        });
        let opened: Vec<_> = opened.collect();
        let sizes: Vec<f64> = opened.iter().map(|(size, _)| *size as f64).collect();
        let minutes: Vec<f64> =
            opened.iter().filter_map(|(_, seconds)| *seconds).map(|it| it / 60.0).collect();
        Past {
            place: directory.describe(),
            snapshots: opened.len(),
            entry: mean(&sizes).map(|size| size as u64),
            cold_minutes: mean(&minutes).filter(|minutes| minutes.is_finite()),
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

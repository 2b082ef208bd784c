//! Measured results as they are stored in a file, and the figures calculated from them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One run of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Time until the program ended.
    pub seconds: f64,
    /// Time until a `sync -f` of the file system that it writes to ended after the program; equal to `seconds` if it
    /// does not write to a disk.
    pub on_disk: f64,
    /// Processor seconds of the program and its children, to the hundredth.
    pub processor: f64,
    /// Bytes that the program made or moved, if they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds of its phases, if the program reports them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, f64>,
}

/// All runs of one program for one piece of work, in order of the rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    /// The shell script that was run.
    pub script: String,
    pub samples: Vec<Sample>,
}

/// One piece of work, with all programs that did it. The first is storecache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    pub name: String,
    pub title: String,
    /// Description of the data: numbers of items, files and bytes.
    pub about: String,
    pub series: Vec<Series>,
    pub figures: Vec<Figure>,
}

/// The quantity to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    Seconds,
    OnDisk,
    Processor,
    Bytes,
}

/// The target for a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// No further from 1 than this, in either direction.
    Within(f64),
    /// No target; the ratio is only shown.
    Nothing,
}

/// A ratio of medians: that of `of`, divided by that of `over`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub of: String,
    pub over: String,
    pub quantity: Quantity,
    pub wanted: Wanted,
}

/// The results of one or more runs of the bench.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Processors, memory, kernel, versions of the programs.
    pub machine: BTreeMap<String, String>,
    pub rounds: usize,
    pub works: Vec<Work>,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Returns `None` if `numbers` is empty.
    fn new(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let (low, high) = (numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2]);
        Some(Spread { median: f64::midpoint(low, high), least, most })
    }
}

impl Series {
    /// Returns one number for each round.
    pub fn numbers(&self, quantity: Quantity) -> Vec<f64> {
        let number = |sample: &Sample| match quantity {
            Quantity::Seconds => Some(sample.seconds),
            Quantity::OnDisk => Some(sample.on_disk),
            Quantity::Processor => Some(sample.processor),
            #[allow(clippy::cast_precision_loss)]
            Quantity::Bytes => sample.bytes.map(|bytes| bytes as f64),
        };
        self.samples.iter().filter_map(number).collect()
    }

    pub fn spread(&self, quantity: Quantity) -> Option<Spread> {
        Spread::new(self.numbers(quantity))
    }

    /// Returns the median seconds of each phase.
    pub fn phases(&self) -> BTreeMap<&str, f64> {
        let names = self.samples.iter().flat_map(|sample| sample.phases.keys());
        names
            .filter_map(|name| {
                let of = |sample: &Sample| sample.phases.get(name).copied().unwrap_or_default();
                let median = Spread::new(self.samples.iter().map(of).collect())?.median;
                Some((name.as_str(), median))
            })
            .collect()
    }
}

impl Work {
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }

    /// Returns the ratio of the medians, with the smallest and the largest ratio of any round. Returns `None` if one
    /// of the two programs did not take part.
    pub fn ratio(&self, figure: &Figure) -> Option<Spread> {
        let [of, over] = [&figure.of, &figure.over].map(|name| self.series(name));
        let (of, over) = (of?, over?);
        let (above, below) = (of.numbers(figure.quantity), over.numbers(figure.quantity));
        let each = Spread::new(above.iter().zip(&below).map(|(a, b)| a / b).collect())?;
        let median = of.spread(figure.quantity)?.median / over.spread(figure.quantity)?.median;
        Some(Spread { median, ..each })
    }
}

impl Figure {
    /// Compares a peer with storecache: how many times as long, or as large.
    pub fn ours_against(peer: &str, quantity: Quantity, wanted: Wanted) -> Figure {
        Figure { of: peer.to_owned(), over: super::US.to_owned(), quantity, wanted }
    }

    /// Compares the times of a peer with storecache: until the kernel has all data, which is compared with the
    /// target, and until everything is on the disk.
    pub fn runs_against(peer: &str, wanted: Wanted) -> Vec<Figure> {
        let over = super::UNSYNCED.to_owned();
        let judged = Figure { of: peer.to_owned(), over, quantity: Quantity::Seconds, wanted };
        vec![judged, Figure::ours_against(peer, Quantity::OnDisk, Wanted::Nothing)]
    }

    /// Returns the name of storecache and the name of the other program.
    pub fn sides(&self) -> (&str, &str) {
        match self.over.starts_with(super::US) {
            true => (&self.over, &self.of),
            false => (&self.of, &self.over),
        }
    }
}

impl Wanted {
    /// Returns whether a ratio reaches the target, or `None` without a target.
    pub fn reached(self, ratio: f64) -> Option<bool> {
        match self {
            Wanted::AtLeast(limit) => Some(ratio >= limit),
            Wanted::AtMost(limit) => Some(ratio <= limit),
            Wanted::Within(part) => Some((1.0 - part..=1.0 + part).contains(&ratio)),
            Wanted::Nothing => None,
        }
    }
}

impl Record {
    /// Parses a record.
    ///
    /// # Errors
    /// If the text is not a valid record.
    pub fn parse(text: &str) -> Result<Record> {
        serde_json::from_str(text).context("the kept record")
    }

    /// Replaces works by newer ones with the same name, adds the others, and sorts all in the order of `names`.
    pub fn update(&mut self, newer: Record, names: &[&str]) {
        let done: Vec<String> = newer.works.iter().map(|work| work.name.clone()).collect();
        self.works.retain(|work| !done.contains(&work.name));
        self.works.extend(newer.works);
        let place = |work: &Work| names.iter().position(|name| *name == work.name);
        self.works.sort_by_key(|work| place(work).unwrap_or(usize::MAX));
        (self.machine, self.rounds) = (newer.machine, newer.rounds);
    }
}

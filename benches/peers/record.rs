//! What was measured, as it is kept in a file, and the figures that come of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One run of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Until the program ended.
    pub seconds: f64,
    /// Until a `sync -f` of the place that it writes to has ended after it; as `seconds` where it writes
    /// to no disk.
    pub on_disk: f64,
    /// Seconds of processors that it and its children have used, to the hundredth.
    pub processor: f64,
    /// Bytes that it has made or moved, where that is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds of its phases, where it tells them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, f64>,
}

/// All runs of one program at one piece of work, in order of the rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    /// What was run, in a shell.
    pub script: String,
    pub samples: Vec<Sample>,
}

/// One piece of work and all who did it. The first of them is storecache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    pub name: String,
    pub title: String,
    /// On what: numbers of items, files and bytes.
    pub about: String,
    pub series: Vec<Series>,
    pub figures: Vec<Figure>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    Seconds,
    OnDisk,
    Processor,
    Bytes,
}

/// How large a ratio shall be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// Both ways no further from 1 than this.
    Within(f64),
    /// Shown beside the others.
    Nothing,
}

/// A ratio of medians: what `of` took, divided by what `over` took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub of: String,
    pub over: String,
    pub quantity: Quantity,
    pub wanted: Wanted,
}

/// Everything that one or more runs have measured.
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
    /// Of at least one number.
    fn of(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let (low, high) = (numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2]);
        Some(Spread { median: f64::midpoint(low, high), least, most })
    }
}

impl Series {
    /// One number a round.
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
        Spread::of(self.numbers(quantity))
    }

    /// Median seconds of each phase.
    pub fn phases(&self) -> BTreeMap<&str, f64> {
        let names = self.samples.iter().flat_map(|sample| sample.phases.keys());
        names
            .filter_map(|name| {
                let of = |sample: &Sample| sample.phases.get(name).copied().unwrap_or_default();
                let median = Spread::of(self.samples.iter().map(of).collect())?.median;
                Some((name.as_str(), median))
            })
            .collect()
    }
}

impl Work {
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }

    /// The ratio of the medians, between the smallest and the largest ratio of any round. Nothing where one
    /// of the two did not take part.
    pub fn ratio(&self, figure: &Figure) -> Option<Spread> {
        let [of, over] = [&figure.of, &figure.over].map(|name| self.series(name));
        let (of, over) = (of?, over?);
        let (above, below) = (of.numbers(figure.quantity), over.numbers(figure.quantity));
        let each = Spread::of(above.iter().zip(&below).map(|(a, b)| a / b).collect())?;
        let median = of.spread(figure.quantity)?.median / over.spread(figure.quantity)?.median;
        Some(Spread { median, ..each })
    }
}

impl Figure {
    /// How many times as long, or as large, another one is as storecache.
    pub fn ours_against(peer: &str, quantity: Quantity, wanted: Wanted) -> Figure {
        Figure { of: peer.to_owned(), over: super::US.to_owned(), quantity, wanted }
    }

    /// How long a peer packs or unpacks beside us: both as soon as the kernel has all of it, which is what is
    /// judged, and both until it is on the disk.
    pub fn runs_against(peer: &str, wanted: Wanted) -> Vec<Figure> {
        let over = super::UNSYNCED.to_owned();
        let judged = Figure { of: peer.to_owned(), over, quantity: Quantity::Seconds, wanted };
        vec![judged, Figure::ours_against(peer, Quantity::OnDisk, Wanted::Nothing)]
    }

    /// Which of the two is ours, and which the other one.
    pub fn sides(&self) -> (&str, &str) {
        match self.over.starts_with(super::US) {
            true => (&self.over, &self.of),
            false => (&self.of, &self.over),
        }
    }
}

impl Wanted {
    /// Whether a ratio is as it shall be; nothing if no one asked.
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
    /// # Errors
    /// If the text is no record.
    pub fn parse(text: &str) -> Result<Record> {
        serde_json::from_str(text).context("the kept record")
    }

    /// Puts newer works in the place of those with the same name, and others in order of `names`.
    pub fn update(&mut self, newer: Record, names: &[&str]) {
        let done: Vec<String> = newer.works.iter().map(|work| work.name.clone()).collect();
        self.works.retain(|work| !done.contains(&work.name));
        self.works.extend(newer.works);
        let place = |work: &Work| names.iter().position(|name| *name == work.name);
        self.works.sort_by_key(|work| place(work).unwrap_or(usize::MAX));
        (self.machine, self.rounds) = (newer.machine, newer.rounds);
    }
}
